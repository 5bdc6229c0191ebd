"""Queries and keys turned by their positions -- book chapter "Positions". Front end: positional_dials.js."""

import math
from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

LAST = 12  # positions go from 0 to LAST


class RotaryDials(BookWidget):
    """Rotary embedding: move a query and a key along a sequence; their dials turn, and the score follows.

    Traits:
        q_position: where the query stands, 0 to 12.
        k_position: where the key stands, 0 to 12.
        together: whether moving one moves the other as far.
        q: the query, 2, 4, 6 or 8 numbers from -1 to 1; neighbours make a pair.
        k: the key, as wide as ``q``.
        base: pair i turns by base^(-2i / width) radians a position. Models take 10,000 or more for their many
            pairs; for a few, a smaller one lets the slow dials move as well.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    q_position = t.Int(8).tag(sync=True)
    k_position = t.Int(5).tag(sync=True)
    together = t.Bool(False).tag(sync=True)
    q = t.List(t.Float(), [0.9, 0.2, 0.5, 0.7, 0.7, -0.3, 0.8, 0.4]).tag(sync=True)
    k = t.List(t.Float(), [0.8, 0.6, 0.9, 0.1, 0.6, 0.5, 0.4, 0.8]).tag(sync=True)
    base = t.Float(100.0).tag(sync=True)

    @t.validate("q_position", "k_position")
    def _on_the_sequence(self, proposal):
        if not 0 <= proposal["value"] <= LAST:
            raise t.TraitError(f"{proposal['trait'].name} must be from 0 to {LAST}, got {proposal['value']}")
        return proposal["value"]

    @t.validate("q", "k")
    def _pairs(self, proposal):
        name, numbers = proposal["trait"].name, proposal["value"]
        if len(numbers) not in (2, 4, 6, 8) or not all(abs(x) <= 1 for x in numbers):  # NaN fails too
            raise t.TraitError(f"{name} must be 2, 4, 6 or 8 numbers from -1 to 1, got {numbers}")
        widths = [len(vector) for vector in (self.q, self.k)]
        if widths[0] != widths[1]:
            raise t.TraitError(f"q and k must be equally wide, got {widths[0]} and {widths[1]} numbers")
        return numbers

    @t.validate("base")
    def _slows_down(self, proposal):
        if not (math.isfinite(proposal["value"]) and proposal["value"] >= 1):
            raise t.TraitError(f"base must be 1 or more, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        places = f"q_position={self.q_position}, k_position={self.k_position}"
        return f"RotaryDials({places}, together={self.together})"
