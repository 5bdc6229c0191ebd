"""A small model that copies, head by head -- book chapter "What heads do". Front end: induction_heads.js."""

from pathlib import Path

import torch
import traitlets as t

from ..induction import LENGTH, VOCABULARY, attention_only
from ..models.language_model import LanguageModel
from ._asset import AssetWidget, asset_bytes, export_model
from ._bundle import bundle

EXAMPLE = "shortenshort"


def export_induction(model: LanguageModel) -> dict:
    """``asset_data`` for a model of attention alone.

    Raises:
        ValueError: a model with parts that the front end does not have.
    """
    config = model.config
    if config.d_ff or config.norm != "none" or config.positions != "learned" or config.tied:
        raise ValueError("the model must have learned positions, and nothing else beside attention")
    if config.vocab_size != len(VOCABULARY):
        raise ValueError(f"the model must know {len(VOCABULARY)} letters, got {config.vocab_size}")
    return export_model(model, config={"n_heads": config.n_heads}, vocabulary=VOCABULARY, dtype="int8")


class InductionHeads(AssetWidget):
    """What does each head look at, and what becomes of the answer without it? The model runs in the browser.

    Args:
        model: the model to show, as ``attention_only`` makes it. Without one, the widget works on pages of
            the book, which bring their own.

    Traits:
        text: letters of ``VOCABULARY``, at most 24 of them.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    text = t.Unicode(EXAMPLE).tag(sync=True)

    def __init__(self, model: LanguageModel | None = None, text: str = EXAMPLE) -> None:
        if not isinstance(model, LanguageModel | None):
            raise TypeError(f"model must be a LanguageModel or None, got {type(model).__name__}")
        self._model = model
        super().__init__(text=text, asset="induction", asset_bytes=asset_bytes(_sized(model)))

    def export(self) -> dict:
        if self._model is None:
            return {"error": "There is no model here: write InductionHeads(model) in the cell above."}
        return export_induction(self._model)

    @t.validate("text")
    def _readable(self, proposal):
        text = proposal["value"]
        if not 1 <= len(text) <= LENGTH:
            raise t.TraitError(f"text must have 1 to {LENGTH} letters, got {len(text)}")
        if strange := sorted(set(text) - set(VOCABULARY)):
            raise t.TraitError(f"text must be of letters a to z and digits 1 to 6, got {strange[0]!r}")
        return text

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"InductionHeads(text={self.text!r})"


def _sized(model: LanguageModel | None) -> dict:
    """An export of the right size: base64 takes as many characters for a trained number as for any other."""
    with torch.random.fork_rng(devices=[]):  # initialising a model would disturb the reader's seed
        return export_induction(model or attention_only())
