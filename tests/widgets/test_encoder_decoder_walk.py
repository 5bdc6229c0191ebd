import json

import pytest
import torch
from torch.testing import assert_close
from traitlets import TraitError

from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.training.encoder_decoder import number_translator
from transformer_lab.translator import Translator, pretrained
from transformer_lab.widgets import TokenWalk
from transformer_lab.widgets._asset import asset_bytes
from transformer_lab.widgets.encoder_decoder_walk import station_names

from .assets import tensor


def wish(widget):
    """What a front end does when the reader asks for the weights; returns what it then gets."""
    widget.set_state({"asset_wanted": True})
    return widget.get_state()["asset_data"]


def other(**settings) -> Translator:
    """A small translator of number words, untrained."""
    words = number_translator().tokenizer
    sizes = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 8, "norm": "pre"} | settings
    return Translator(Transformer(TransformerConfig(vocab_size=words.get_vocab_size(), **sizes)), words)


def test_no_weights_are_stored_until_someone_asks():
    state = TokenWalk().get_state()
    assert state["asset_data"] is None and state["asset_wanted"] is False
    del state["_esm"]
    assert len(json.dumps(state, default=repr)) < 1000


def test_a_kernel_answers_with_the_packages_model():
    widget = TokenWalk()
    data = wish(widget)
    expected = pretrained("number_words").model.state_dict()
    assert data["tensors"].keys() == expected.keys()
    for name, value in expected.items():
        assert_close(tensor(data["tensors"][name]), value, rtol=1e-5, atol=1e-6)
    assert widget.asset == "number_words" and widget.asset_bytes == asset_bytes(data)


def test_or_with_the_readers_own_as_it_is_now():
    translator = other()
    widget = TokenWalk(translator)
    translator.model.embed.weight.data.fill_(0.5)  # trained after the widget was made
    assert_close(tensor(wish(widget)["tensors"]["embed.weight"]), translator.model.embed.weight.data)


def test_a_widget_leaves_the_readers_seed_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    TokenWalk()
    assert torch.rand(1) == expected


def test_repr_is_the_same_for_the_same_state():
    assert repr(TokenWalk()) == "TokenWalk(text='21', side='encoder', token=1, station='token')"
    station = "layer 2 cross-attention weights"
    widget = TokenWalk(text="twenty one", side="decoder", token=2, station=station)
    assert repr(widget) == f"TokenWalk(text='twenty one', side='decoder', token=2, station={station!r})"


def test_the_stations_are_those_of_the_architecture():
    encoder, decoder = station_names("encoder", 2), station_names("decoder", 2)
    assert len(encoder) == len(set(encoder)) == 3 + 2 * (7 + 4) + 2
    assert len(decoder) == len(set(decoder)) == 3 + 2 * (7 + 7 + 4) + 3
    assert not [name for name in encoder if "cross" in name]
    assert sum(name.endswith("norm") for name in decoder) == 2 * 3 + 1
    assert len(station_names("encoder", 3)) - len(encoder) == 7 + 4


def test_a_station_that_the_other_side_lacks_begins_again():
    widget = TokenWalk(side="decoder", station="layer 1 self-attention scores")
    widget.side = "encoder"
    assert widget.station == "layer 1 self-attention scores"
    widget.side, widget.station = "decoder", "probabilities"
    widget.side = "encoder"
    assert widget.station == "token"


def test_a_front_end_may_change_side_and_station_together():
    widget = TokenWalk(side="decoder", station="probabilities")
    widget.set_state({"side": "encoder", "token": 0, "station": "memory"})
    assert (widget.side, widget.station) == ("encoder", "memory")


def test_a_model_with_more_layers_has_more_stations():
    with pytest.raises(TraitError, match=r"station_names\('encoder', 1\)"):
        TokenWalk(other(), station="layer 2 feed-forward sum")
    widget = TokenWalk(other(n_layers=3), station="layer 3 feed-forward sum")
    assert widget.station == "layer 3 feed-forward sum"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"text": "1,000,000"}, "text must be a number: it must be below a million, got 1000000"),
        ({"text": "forty million"}, "text must be a number: 'million' is no English number word"),
        ({"text": ""}, "text must be a number"),
        (
            {"side": "middle"},
            r"'side' trait .* expected any of \['encoder', 'decoder'\], not the str 'middle'",
        ),
        ({"token": -1}, "token must be 0 or more, got -1"),
        ({"station": "nowhere"}, r"one of station_names\('encoder', 2\), such as .*; got 'nowhere'"),
        ({"station": "probabilities"}, "got 'probabilities'"),
        ({"side": "decoder", "station": "memory"}, r"station_names\('decoder', 2\)"),
        ({"side": "middle", "station": "memory"}, "'side' trait"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        TokenWalk(**traits)


@pytest.mark.bad_input
def test_something_else_than_a_translator_is_refused():
    with pytest.raises(TypeError, match="translator must be a Translator or None, got str"):
        TokenWalk("21")


@pytest.mark.bad_input
@pytest.mark.parametrize("settings", [{"norm": "post"}, {"final_norm": False}])
def test_norms_elsewhere_are_refused(settings):
    with pytest.raises(ValueError, match="norms in front of the parts, and one at the end of each side"):
        TokenWalk(other(**settings))


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="TokenWalk has no trait 'stations'"):
        TokenWalk(stations="token")
