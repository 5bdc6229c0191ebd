"""The sinusoidal code as clock hands -- book chapter "Positions". Front end: positional_hands.js."""

from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

WIDTHS = (4, 8, 16)


class SinusoidHands(BookWidget):
    """One position's code as clock hands, beside another's; and how similar it is to those around it.

    Traits:
        position: the position shown, 0 to 100.
        offset: how much later the other position is, -12 to 12.
        d_model: width of the code, 4, 8 or 16: half as many hands.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    position = t.Int(3).tag(sync=True)
    offset = t.Int(4).tag(sync=True)
    d_model = t.Int(16).tag(sync=True)

    @t.validate("position")
    def _on_the_slider(self, proposal):
        if not 0 <= proposal["value"] <= 100:
            raise t.TraitError(f"position must be from 0 to 100, got {proposal['value']}")
        return proposal["value"]

    @t.validate("offset")
    def _near(self, proposal):
        if not -12 <= proposal["value"] <= 12:
            raise t.TraitError(f"offset must be from -12 to 12, got {proposal['value']}")
        return proposal["value"]

    @t.validate("d_model")
    def _a_few_hands(self, proposal):
        if proposal["value"] not in WIDTHS:
            raise t.TraitError(f"d_model must be 4, 8 or 16, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"SinusoidHands(position={self.position}, offset={self.offset}, d_model={self.d_model})"
