"""How far a window lets a token hear through several layers -- book chapter "Sliding windows".

Front end: sliding_window_reach.js.
"""

from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

MOST_TOKENS = 64
WIDEST = 16
MOST_LAYERS = 12
MOST_DILATED = 4


class WindowReach(BookWidget):
    """One layer's window of attention, and which tokens reach a chosen one through several such layers.

    Traits:
        n_tokens: how many tokens the text has, 5 to 64.
        window: how many neighbours a token sees, half of them to each side: even, 2 to 16.
        dilation: a token sees every ``dilation``-th of those around it, 1 to 4.
        n_layers: how many layers with this window stand on each other, 1 to 12.
        causal: keep the past only, also of global tokens.
        global_tokens: positions of tokens that see all and are seen by all.
        token: the position of the chosen token, from 0.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    n_tokens = t.Int(41).tag(sync=True)
    window = t.Int(4).tag(sync=True)
    dilation = t.Int(1).tag(sync=True)
    n_layers = t.Int(3).tag(sync=True)
    causal = t.Bool(False).tag(sync=True)
    global_tokens = t.List(t.Int()).tag(sync=True)
    token = t.Int().tag(sync=True)

    @t.default("token")
    def _middle(self):
        return self.n_tokens // 2

    @t.validate("n_tokens")
    def _a_short_text(self, proposal):
        return _between("n_tokens", proposal["value"], 5, MOST_TOKENS)

    @t.validate("window")
    def _even(self, proposal):
        if proposal["value"] % 2 or not 2 <= proposal["value"] <= WIDEST:
            raise t.TraitError(f"window must be an even number from 2 to {WIDEST}, got {proposal['value']}")
        return proposal["value"]

    @t.validate("dilation")
    def _not_too_thin(self, proposal):
        return _between("dilation", proposal["value"], 1, MOST_DILATED)

    @t.validate("n_layers")
    def _a_few(self, proposal):
        return _between("n_layers", proposal["value"], 1, MOST_LAYERS)

    @t.validate("global_tokens")
    def _in_the_text(self, proposal):
        places = proposal["value"]
        if any(not 0 <= place < self.n_tokens for place in places) or len(set(places)) < len(places):
            raise t.TraitError(
                f"global_tokens must be different positions from 0 to {self.n_tokens - 1}, got {places}"
            )
        return sorted(places)

    @t.validate("token")
    def _of_the_text(self, proposal):
        return _between("token", proposal["value"], 0, self.n_tokens - 1)

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        names = ("n_tokens", "window", "dilation", "n_layers", "causal", "global_tokens", "token")
        return f"WindowReach({', '.join(f'{name}={getattr(self, name)}' for name in names)})"


def _between(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise t.TraitError(f"{name} must be from {least} to {most}, got {value}")
    return value
