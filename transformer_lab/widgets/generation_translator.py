"""A translator of number words: encoder, cross-attention, beam -- book chapter "How a model writes".

Front end: generation_translator.js.
"""

from pathlib import Path

import traitlets as t

from ..translator import Translator
from ._bundle import bundle
from ._translator import TranslatorWidget

EXAMPLE = "21,345"
BEAM_SIZES = range(1, 7)


class NumberTranslator(TranslatorWidget):
    """How an encoder-decoder writes numbers in German, with its beam as a tree and a switch for every head.

    Args, Raises: as of ``TranslatorWidget``.

    Traits:
        text: a number below a million, in figures or in English words.
        beam_size: how many hypotheses are kept, 1 to 6.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    beam_size = t.Int(4).tag(sync=True)

    def __init__(self, translator: Translator | None = None, text: str = EXAMPLE, beam_size: int = 4) -> None:
        super().__init__(translator, text=text, beam_size=beam_size)

    @t.validate("beam_size")
    def _few(self, proposal):
        if proposal["value"] not in BEAM_SIZES:
            raise t.TraitError(f"beam_size must be from 1 to 6, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"NumberTranslator(text={self.text!r}, beam_size={self.beam_size})"
