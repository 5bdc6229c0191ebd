import json

import pytest
import torch
from torch.testing import assert_close
from traitlets import TraitError

from tools import train_page_models
from transformer_lab.induction import VOCABULARY, attention_only, pretrained
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig
from transformer_lab.training import induction as runs
from transformer_lab.widgets import InductionHeads
from transformer_lab.widgets._asset import asset_bytes, exported_weights
from transformer_lab.widgets.induction_heads import export_induction

from .assets import load, page_scripts


def wish(widget):
    """What a front end does when the reader asks for the weights; returns what it then gets."""
    widget.set_state({"asset_wanted": True})
    return widget.get_state()["asset_data"]


def test_no_weights_are_stored_until_someone_asks():
    state = InductionHeads(pretrained()).get_state()
    assert state["asset_data"] is None and state["asset_wanted"] is False
    del state["_esm"]
    assert len(json.dumps(state, default=repr)) < 1000


def test_a_wish_is_answered_from_the_live_model():
    model = attention_only()
    widget = InductionHeads(model)
    model.embed.weight.data.fill_(0.5)  # trained after the widget was made
    data = wish(widget)
    assert data["config"] == {"n_heads": 2} and data["vocabulary"] == list(VOCABULARY)
    assert exported_weights(data)["embed.weight"].unique().item() == pytest.approx(0.5)
    assert widget.asset_wanted is False  # so that a second wish is a change


def test_without_a_model_a_kernel_answers_with_a_sentence():
    assert wish(InductionHeads()) == {
        "error": "There is no model here: write InductionHeads(model) in the cell above."
    }


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_size_told_is_the_size_loaded(n_layers):
    widget = InductionHeads(attention_only(n_layers))
    assert widget.asset_bytes == asset_bytes(wish(widget)) > 1000


def test_a_widget_leaves_the_readers_seed_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    InductionHeads()
    assert torch.rand(1) == expected


def test_repr_is_the_same_for_the_same_state():
    assert repr(InductionHeads(text="abca")) == "InductionHeads(text='abca')"


# The page's model


def test_the_page_has_the_model_of_the_package():
    data = load(page_scripts("induction"), "induction")
    here, there = exported_weights(data), pretrained().state_dict()
    assert here.keys() == there.keys()
    for name, ours in here.items():
        assert_close(ours, there[name], rtol=1e-6, atol=0)
    assert data["vocabulary"] == list(VOCABULARY) and data["config"] == {"n_heads": 2}
    assert all("scales" in record for record in data["tensors"].values() if len(record["shape"]) == 2)


def test_the_button_tells_its_size():
    size = sum(map(len, page_scripts("induction")))
    assert size == pytest.approx(InductionHeads().asset_bytes, rel=0.01) and size < 100_000


def test_it_is_stored_with_the_package_and_written_for_the_page(tmp_path, monkeypatch, capsys):
    """With an untrained one: training it takes a while."""
    monkeypatch.setattr(runs, "train", lambda model: None)
    monkeypatch.setattr(train_page_models, "WEIGHTS", tmp_path)
    monkeypatch.setattr(train_page_models, "MODELS", tmp_path / "pages")
    train_page_models.main(["induction"])
    assert "induction: " in capsys.readouterr().out
    page = exported_weights(load([(tmp_path / "pages" / "induction.0.js").read_text("utf8")], "induction"))
    monkeypatch.setattr("transformer_lab.induction.WEIGHTS", tmp_path / "models" / "induction.safetensors")
    for name, expected in pretrained().state_dict().items():
        assert_close(page[name], expected, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_training_it_again_gives_one_that_copies_as_well():
    assert runs.share_right(train_page_models.trained_induction(), runs.new_rows()) > 0.99


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ab7", "letters a to z and digits 1 to 6, got '7'"),
        ("", "1 to 24 letters, got 0"),
        ("ab" * 13, "1 to 24 letters, got 26"),
    ],
)
def test_text_that_cannot_be_read_is_refused(text, match):
    widget = InductionHeads(text="abca")
    with pytest.raises(TraitError, match=match):
        widget.text = text
    assert widget.text == "abca"
    with pytest.raises(TraitError, match=match):
        InductionHeads(text=text)


@pytest.mark.bad_input
def test_something_else_than_a_model_is_refused():
    with pytest.raises(TypeError, match="model must be a LanguageModel or None, got str"):
        InductionHeads("abca")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"d_ff": 8}, "learned positions, and nothing else beside attention"),
        ({"norm": "pre"}, "nothing else"),
        ({"positions": "rope"}, "nothing else"),
        ({"tied": True}, "nothing else"),
        ({"vocab_size": 9}, "32 letters, got 9"),
    ],
)
def test_a_model_that_the_front_end_cannot_run_is_refused(change, match):
    settings = {"vocab_size": 32, "d_ff": 0, "norm": "none", "positions": "learned", "tied": False}
    with pytest.raises(ValueError, match=match):
        export_induction(LanguageModel(LanguageModelConfig(**settings | change)))
