import json

import pytest
import torch
from torch.testing import assert_close
from traitlets import TraitError

from transformer_lab.models.number_reader import VOCABULARY, NumberReader
from transformer_lab.widgets import NumberReaderHeads
from transformer_lab.widgets._asset import asset_bytes

from .assets import tensor


def wish(widget):
    """What a front end does when the reader asks for the weights; returns what it then gets."""
    widget.set_state({"asset_wanted": True})
    return widget.get_state()["asset_data"]


def test_no_weights_are_stored_until_someone_asks():
    widget = NumberReaderHeads(NumberReader())
    state = widget.get_state()
    assert state["asset_data"] is None and state["asset_wanted"] is False
    del state["_esm"]
    assert len(json.dumps(state, default=repr)) < 1000


def test_a_wish_is_answered_from_the_live_model():
    model = NumberReader(d_model=12, n_heads=3)
    widget = NumberReaderHeads(model)
    model.embed.weight.data.fill_(0.5)  # trained after the widget was made
    data = wish(widget)
    assert data["config"] == {"d_model": 12, "n_heads": 3}
    assert data["vocabulary"] == list(VOCABULARY)
    assert data["tensors"].keys() == model.state_dict().keys()
    for name, expected in model.state_dict().items():
        half_a_step = expected.abs().max() / 254 if expected.ndim == 2 else 0
        assert_close(tensor(data["tensors"][name]), expected, rtol=1e-5, atol=float(half_a_step))
    assert widget.asset_wanted is False  # so that a second wish is a change


def test_a_second_wish_brings_the_weights_of_that_moment():
    model = NumberReader(d_model=4)
    widget = NumberReaderHeads(model)
    before = wish(widget)
    model.embed.weight.data += 1
    assert wish(widget) != before


def test_without_a_model_a_kernel_answers_with_a_sentence():
    assert wish(NumberReaderHeads()) == {
        "error": "There is no model here: write NumberReaderHeads(model) in the cell above."
    }


def test_of_a_model_that_diverged_a_kernel_says_so():
    model = NumberReader(d_model=4)
    widget = NumberReaderHeads(model)
    model.q_proj.weight.data[0, 0] = torch.nan
    sentence = "This model cannot be shown: q_proj.weight must hold finite numbers, got infinity or NaN."
    assert wish(widget) == {"error": sentence}
    assert widget.asset_wanted is False


@pytest.mark.parametrize("d_model", [8, 32])
def test_the_size_told_is_the_size_loaded(d_model):
    model = NumberReader(d_model=d_model)
    widget = NumberReaderHeads(model)
    assert widget.asset_bytes == asset_bytes(wish(widget)) > 1000
    assert NumberReaderHeads().asset_bytes == NumberReaderHeads(NumberReader()).asset_bytes


def test_a_widget_leaves_the_readers_seed_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    NumberReaderHeads()
    assert torch.rand(1) == expected


def test_repr_is_the_same_for_the_same_state():
    assert repr(NumberReaderHeads(text="twelve")) == "NumberReaderHeads(text='twelve')"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("forty million", "text must be a number in words: 'million' is no English number word"),
        ("", "holds no word"),
        ("one " * 12, "at most 11 words, got 12"),
    ],
)
def test_text_that_cannot_be_read_is_refused(text, match):
    widget = NumberReaderHeads(text="twelve")
    with pytest.raises(TraitError, match=match):
        widget.text = text
    assert widget.text == "twelve"
    with pytest.raises(TraitError, match=match):
        NumberReaderHeads(text=text)


@pytest.mark.bad_input
def test_something_else_than_a_model_is_refused():
    with pytest.raises(TypeError, match="model must be a NumberReader or None, got str"):
        NumberReaderHeads("forty-two")
