"""The NumberReader's attention, head by head -- book chapter "Attention". Front end: attention_heads.js."""

from pathlib import Path

import torch
import traitlets as t

from ..models.number_reader import VOCABULARY, NumberReader, tokenize
from ._asset import AssetWidget, asset_bytes, export_model
from ._bundle import bundle

EXAMPLE = "three hundred and forty two thousand one hundred and seven"


def export_number_reader(model: NumberReader) -> dict:
    """``asset_data`` for a NumberReader, whose matrices int8 serves as well as float32."""
    config = {"d_model": model.embed.embedding_dim, "n_heads": model.n_heads}
    return export_model(model, config=config, vocabulary=VOCABULARY, dtype="int8")


class NumberReaderHeads(AssetWidget):
    """Which words does each digit look at? The reader edits the words; the model runs in the browser.

    Args:
        model: the model to show. Without one, the widget works on pages of the book, which bring their own.

    Traits:
        text: English number words below a million, at most 11 of them.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    text = t.Unicode(EXAMPLE).tag(sync=True)

    def __init__(self, model: NumberReader | None = None, text: str = EXAMPLE) -> None:
        if not isinstance(model, NumberReader | None):
            raise TypeError(f"model must be a NumberReader or None, got {type(model).__name__}")
        self._model = model
        super().__init__(text=text, asset="number_reader", asset_bytes=asset_bytes(_sized(model)))

    def export(self) -> dict:
        if self._model is None:
            return {"error": "There is no model here: write NumberReaderHeads(model) in the cell above."}
        return export_number_reader(self._model)

    @t.validate("text")
    def _readable(self, proposal):
        try:
            tokenize(proposal["value"])
        except ValueError as error:
            raise t.TraitError(f"text must be a number in words: {error}") from None
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"NumberReaderHeads(text={self.text!r})"


def _sized(model: NumberReader | None) -> dict:
    """An export of the right size: base64 takes as many characters for a trained number as for any other."""
    with torch.random.fork_rng(devices=[]):  # initialising a model would disturb the reader's seed
        return export_number_reader(model or NumberReader())
