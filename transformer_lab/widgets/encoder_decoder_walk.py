"""One token's way through the whole Transformer -- book chapter "The full model".

Front end: encoder_decoder_walk.js.
"""

from pathlib import Path

import traitlets as t

from ..translator import Translator, pretrained
from ._asset import AssetWidget, asset_bytes
from ._bundle import bundle
from .generation_translator import MODEL, check_number, export_translator

ATTENTION = ("norm", "queries", "scores", "weights", "values", "output", "sum")
FEED_FORWARD = ("norm", "hidden", "output", "sum")
PARTS = {
    "encoder": {"self-attention": ATTENTION, "feed-forward": FEED_FORWARD},
    "decoder": {"self-attention": ATTENTION, "cross-attention": ATTENTION, "feed-forward": FEED_FORWARD},
}
ENDS = {"encoder": ["memory"], "decoder": ["vocabulary scores", "probabilities"]}


def station_names(side: str, n_layers: int) -> list[str]:
    """The stations of a token's way through one side, in order, as the trait ``station`` names them.

    >>> station_names("encoder", 1)[2:5]
    ['position', 'layer 1 self-attention norm', 'layer 1 self-attention queries']
    """
    layers = [
        f"layer {layer} {part} {stop}"
        for layer in range(1, n_layers + 1)
        for part, stops in PARTS[side].items()
        for stop in stops
    ]
    return ["token", "embedding", "position", *layers, "final norm", *ENDS[side]]


class TokenWalk(AssetWidget):
    """One token, station by station, through an encoder-decoder that translates number words.

    Args:
        translator: the model to walk through, such as ``training.encoder_decoder.number_translator`` makes
            them. None: the one that comes with the package.

    Raises:
        ValueError: a translator whose norms stand elsewhere, or one that ``export_translator`` refuses.

    Traits:
        text: a number below a million, in figures or in English words; the book's model learned those below
            100,000.
        side: "encoder" or "decoder". The decoder reads what the model itself writes, all tokens at once.
        token: which token of that side walks, from 0; beyond the last, the last.
        station: where it is, one of ``station_names(side, n_layers)``.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    text = t.Unicode("21").tag(sync=True)
    side = t.Enum(tuple(PARTS), "encoder").tag(sync=True)
    token = t.Int(1).tag(sync=True)
    station = t.Unicode("token").tag(sync=True)

    def __init__(self, translator: Translator | None = None, **traits) -> None:
        if not isinstance(translator, Translator | None):
            raise TypeError(f"translator must be a Translator or None, got {type(translator).__name__}")
        if unknown := sorted(traits.keys() - {"text", "side", "token", "station"}):
            raise TypeError(f"TokenWalk has no trait {unknown[0]!r}")
        self._translator = translator or pretrained(MODEL)
        config = self._translator.model.config
        if config.norm != "pre" or config.final_norm is False:
            raise ValueError(
                "translator must have its norms in front of the parts, and one at the end of each side"
            )
        self._n_layers = config.n_layers
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

    @t.validate("token")
    def _from_zero(self, proposal):
        if proposal["value"] < 0:
            raise t.TraitError(f"token must be 0 or more, got {proposal['value']}")
        return proposal["value"]

    @t.validate("station")
    def _on_this_side(self, proposal):
        if proposal["value"] not in self._stations():
            raise t.TraitError(
                f"station must be one of station_names({self.side!r}, {self._n_layers}), such as"
                f" 'layer 1 self-attention weights'; got {proposal['value']!r}"
            )
        return proposal["value"]

    @t.observe("side")
    def _begin_again(self, change) -> None:
        if self.station not in self._stations():
            self.station = "token"

    def _stations(self) -> list[str]:
        return station_names(self.side, self._n_layers)

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return (
            f"TokenWalk(text={self.text!r}, side={self.side!r}, token={self.token}, station={self.station!r})"
        )
