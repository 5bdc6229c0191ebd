"""A translator of number words: encoder, cross-attention, beam -- book chapter "Generation".

Front end: generation_translator.js.
"""

import re
from pathlib import Path

import traitlets as t

from ..training.pairs import number_pairs
from ..translator import Translator, pretrained
from ._asset import AssetWidget, asset_bytes, export_model
from ._bundle import bundle

MODEL = "number_words"
EXAMPLE = "21,345"
BEAM_SIZES = range(1, 7)
MOST_WORDS = 12
WORDS = frozenset(" ".join(english for english, _ in number_pairs().of([*range(100), 101, 1000])).split())
FIGURES = re.compile(r"\d+|\d{1,3}([,.\s]\d{3})+")


def export_translator(translator: Translator) -> dict:
    """``asset_data`` for a translator of number words, whose matrices int8 serves as well as float32.

    Raises:
        ValueError: word pieces or an activation that the front end does not know.
    """
    model, tokenizer = translator.model, translator.tokenizer
    if missing := sorted(word for word in WORDS if tokenizer.token_to_id(f"▁{word}") is None):
        raise ValueError(
            f"translator must have a token for every number word of English, but not {missing[0]!r}"
        )
    if model.config.activation != "relu":
        raise ValueError(f"translator must have the activation relu, got {model.config.activation}")
    names = ("d_model", "n_heads", "norm", "max_len", "pad_id", "bos_id", "eos_id")
    config = {name: getattr(model.config, name) for name in names}
    tokens = tuple(tokenizer.id_to_token(i) or "" for i in range(model.config.vocab_size))
    return export_model(model, config=config, vocabulary=tokens, dtype="int8")


def check_number(text: str) -> None:
    """Accept what the front end can read: a whole number below a million in figures, or English number words.

    Raises:
        ValueError: anything else.
    """
    if FIGURES.fullmatch(text.strip()):
        if (number := int(re.sub(r"\D", "", text))) >= 1_000_000:
            raise ValueError(f"it must be below a million, got {number}")
        return
    words = [word for word in re.split(r"[\s,.-]+", text.lower()) if word]
    if not words:
        raise ValueError("it holds no word")
    if strange := [word for word in words if word not in WORDS]:
        raise ValueError(f"{strange[0]!r} is no English number word")
    if len(words) > MOST_WORDS:
        raise ValueError(f"it must have at most {MOST_WORDS} words, got {len(words)}")


class NumberTranslator(AssetWidget):
    """How an encoder-decoder writes numbers in German, with its beam as a tree and a switch for every head.

    Args:
        translator: the model to show. Without one, the widget works on pages of the book, which bring their
            own.

    Traits:
        text: a number below a million, in figures or in English words. The book's model learned those below
            100,000.
        beam_size: how many hypotheses are kept, 1 to 6.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    text = t.Unicode(EXAMPLE).tag(sync=True)
    beam_size = t.Int(4).tag(sync=True)

    def __init__(self, translator: Translator | None = None, text: str = EXAMPLE, beam_size: int = 4) -> None:
        if not isinstance(translator, Translator | None):
            raise TypeError(f"translator must be a Translator or None, got {type(translator).__name__}")
        self._translator = translator
        size = asset_bytes(export_translator(translator or pretrained(MODEL)))
        super().__init__(text=text, beam_size=beam_size, asset=MODEL, asset_bytes=size)

    def export(self) -> dict:
        if self._translator is None:
            return {"error": "There is no model here: write NumberTranslator(translator) in the cell above."}
        return export_translator(self._translator)

    @t.validate("text")
    def _readable(self, proposal):
        try:
            check_number(proposal["value"])
        except ValueError as error:
            raise t.TraitError(f"text must be a number: {error}") from None
        return proposal["value"]

    @t.validate("beam_size")
    def _few(self, proposal):
        if proposal["value"] not in BEAM_SIZES:
            raise t.TraitError(f"beam_size must be from 1 to 6, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"NumberTranslator(text={self.text!r}, beam_size={self.beam_size})"
