import json

import pytest
import torch
from torch.testing import assert_close
from traitlets import TraitError

from transformer_lab.data.pairs import train_tokenizer
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.translator import Translator, pretrained
from transformer_lab.widgets import NumberTranslator
from transformer_lab.widgets._asset import asset_bytes

from .assets import tensor


def small(**settings) -> Translator:
    """An untrained translator with the tokens of the one that comes with the package."""
    tokenizer = pretrained("number_words").tokenizer
    sizes = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 12, "norm": "pre"}
    config = TransformerConfig(vocab_size=tokenizer.get_vocab_size() + 2, **(sizes | settings))
    return Translator(Transformer(config), tokenizer)


def wish(widget):
    """What a front end does when the reader asks for the weights; returns what it then gets."""
    widget.set_state({"asset_wanted": True})
    return widget.get_state()["asset_data"]


def test_no_weights_are_stored_until_someone_asks():
    state = NumberTranslator(small()).get_state()
    assert state["asset_data"] is None and state["asset_wanted"] is False
    del state["_esm"]
    assert len(json.dumps(state, default=repr)) < 1000


def test_a_wish_is_answered_from_the_live_model():
    translator = small()
    widget = NumberTranslator(translator)
    translator.model.embed.weight.data.fill_(0.5)  # trained after the widget was made
    data = wish(widget)
    assert data["config"] == {
        "d_model": 8,
        "n_heads": 2,
        "norm": "pre",
        "max_len": 512,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
    }
    assert data["vocabulary"][:4] == ["<pad>", "<bos>", "<eos>", "<unk>"]
    assert data["vocabulary"][73:] == ["", ""]  # the model has room for more than the tokenizer knows
    assert data["tensors"].keys() == translator.model.state_dict().keys()  # no positions: they are computed
    for name, expected in translator.model.state_dict().items():
        half_a_step = expected.abs().max() / 254 if expected.ndim == 2 else 0
        assert_close(tensor(data["tensors"][name]), expected, rtol=1e-5, atol=float(half_a_step))
    assert widget.asset_wanted is False  # so that a second wish is a change


def test_without_a_translator_a_kernel_answers_with_the_packages():
    data = wish(NumberTranslator())
    for name, expected in pretrained("number_words").model.state_dict().items():
        assert_close(tensor(data["tensors"][name]), expected, rtol=1e-5, atol=1e-6)


def test_of_a_model_that_diverged_a_kernel_says_so():
    translator = small()
    widget = NumberTranslator(translator)
    translator.model.embed.weight.data[0, 0] = torch.nan
    sentence = "This model cannot be shown: embed.weight must hold finite numbers, got infinity or NaN."
    assert wish(widget) == {"error": sentence}


def test_the_size_told_is_the_size_loaded():
    translator = small()
    widget = NumberTranslator(translator)
    assert widget.asset_bytes == asset_bytes(wish(widget)) > 1000
    assert NumberTranslator().asset_bytes == NumberTranslator(pretrained("number_words")).asset_bytes


def test_a_widget_leaves_the_readers_seed_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    NumberTranslator()
    assert torch.rand(1) == expected


def test_repr_is_the_same_for_the_same_state():
    assert repr(NumberTranslator()) == "NumberTranslator(text='21,345', beam_size=4)"
    widget = NumberTranslator(text="twelve", beam_size=1)
    assert repr(widget) == "NumberTranslator(text='twelve', beam_size=1)"


@pytest.mark.parametrize(
    "text", ["0", "999,999", " 21 345 ", "21.345", "100000", "Forty-two", "one, two", "one " * 12]
)
def test_what_the_front_end_reads_is_accepted(text):
    assert NumberTranslator(text=text).text == text


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("forty million", "text must be a number: 'million' is no English number word"),
        ("drei", "'drei' is no English number word"),
        ("1.5", "'1' is no English number word"),
        (" ,-", "it holds no word"),
        ("1,000,000", "it must be below a million, got 1000000"),
        ("one " * 13, "it must have at most 12 words, got 13"),
    ],
)
def test_text_that_cannot_be_read_is_refused(text, match):
    widget = NumberTranslator(text="twelve")
    with pytest.raises(TraitError, match=match):
        widget.text = text
    assert widget.text == "twelve"
    with pytest.raises(TraitError, match=match):
        NumberTranslator(text=text)


@pytest.mark.bad_input
@pytest.mark.parametrize("beam_size", [0, 7])
def test_a_beam_that_the_stepper_does_not_have_is_refused(beam_size):
    with pytest.raises(TraitError, match=f"beam_size must be from 1 to 6, got {beam_size}"):
        NumberTranslator(beam_size=beam_size)


@pytest.mark.bad_input
def test_something_else_than_a_translator_of_number_words_is_refused():
    with pytest.raises(TypeError, match="translator must be a Translator or None, got str"):
        NumberTranslator("21,345")
    strange = train_tokenizer(["one two three"], 20)
    config = TransformerConfig(vocab_size=20, d_model=8, n_heads=2, n_layers=1, d_ff=12)
    with pytest.raises(ValueError, match="must have a token for every number word of English, but not 'and'"):
        NumberTranslator(Translator(Transformer(config), strange))
    with pytest.raises(ValueError, match="must have the activation relu, got gelu"):
        NumberTranslator(small(activation="gelu"))
