"""What the widgets around a translator of number words have in common."""

import re

import traitlets as t

from ..data.pairs import number_pairs
from ..translator import Translator, pretrained
from ._asset import AssetWidget, asset_bytes, export_model

MODEL = "number_words"
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


class TranslatorWidget(AssetWidget):
    """A widget that shows a translator of number words.

    Args:
        translator: the model to show, such as ``training.encoder_decoder.number_translator`` makes them.
            None: the one that comes with the package.

    Raises:
        ValueError: a translator that ``export_translator`` refuses.

    Traits:
        text: a number below a million, in figures or in English words; the book's model learned those below
            100,000.
    """

    text = t.Unicode().tag(sync=True)

    def __init__(self, translator: Translator | None, **traits) -> None:
        if not isinstance(translator, Translator | None):
            raise TypeError(f"translator must be a Translator or None, got {type(translator).__name__}")
        self._translator = translator or pretrained(MODEL)
        super().__init__(**traits, asset=MODEL, asset_bytes=asset_bytes(self.export()))

    def export(self) -> dict:
        return export_translator(self._translator)

    @t.validate("text")
    def _readable(self, proposal):
        try:
            check_number(proposal["value"])
        except ValueError as error:
            raise t.TraitError(f"text must be a number: {error}") from None
        return proposal["value"]
