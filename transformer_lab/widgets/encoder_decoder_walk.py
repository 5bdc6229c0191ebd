"""One token's way through the whole Transformer -- book chapter "The full model".

Front end: encoder_decoder_walk.js.
"""

from pathlib import Path

import traitlets as t

from ..translator import Translator
from ._bundle import bundle
from ._translator import TranslatorWidget

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


class TokenWalk(TranslatorWidget):
    """One token, station by station, through an encoder-decoder that translates number words.

    Args: as of ``TranslatorWidget``.

    Raises:
        ValueError: a translator whose norms stand elsewhere, or one that ``export_translator`` refuses.

    Traits:
        text: a number below a million, in figures or in English words.
        side: "encoder" or "decoder". The decoder reads what the model itself writes, all tokens at once.
        token: which token of that side walks, from 0; beyond the last, the last.
        station: where it is, one of ``station_names(side, n_layers)``.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    side = t.Enum(tuple(PARTS), "encoder").tag(sync=True)
    token = t.Int(1).tag(sync=True)
    station = t.Unicode("token").tag(sync=True)

    def __init__(self, translator: Translator | None = None, text: str = "21", **traits) -> None:
        if isinstance(translator, Translator):
            config = translator.model.config
            if config.norm != "pre" or config.final_norm is False:
                raise ValueError(
                    "translator must have its norms in front of the parts, and one at the end of each side"
                )
        super().__init__(translator, text=text, **traits)

    @t.validate("token")
    def _from_zero(self, proposal):
        if proposal["value"] < 0:
            raise t.TraitError(f"token must be 0 or more, got {proposal['value']}")
        return proposal["value"]

    @t.validate("station")
    def _on_this_side(self, proposal):
        if proposal["value"] not in self._stations():
            n_layers = self._translator.model.config.n_layers
            raise t.TraitError(
                f"station must be one of station_names({self.side!r}, {n_layers}), such as"
                f" 'layer 1 self-attention weights'; got {proposal['value']!r}"
            )
        return proposal["value"]

    @t.observe("side")
    def _begin_again(self, change) -> None:
        if self.station not in self._stations():
            self.station = "token"

    def _stations(self) -> list[str]:
        return station_names(self.side, self._translator.model.config.n_layers)

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return (
            f"TokenWalk(text={self.text!r}, side={self.side!r}, token={self.token}, station={self.station!r})"
        )
