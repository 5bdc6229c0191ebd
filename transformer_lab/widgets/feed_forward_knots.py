"""Hidden units that bend a line -- book chapter "Feed-forward networks". Front end: feed_forward_knots.js."""

import math
from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

REACH = 3.0  # the plane shows x and y from -REACH to REACH
MOST = 8  # hidden units


class ReluKnots(BookWidget):
    """Drag the knots of a one-dimensional feed-forward network, y = sum of a relu(s (x - k)) + c.

    Traits:
        units: one to eight hidden units, each [k, s, a]: the knot k, from -3 to 3, where the unit starts to
            answer; the side s on which it answers, 1 for the right and -1 for the left; its weight a in the
            sum.
        offset: c, which is added at the end.
        target: the curve to come close to: "bump", "step" or "sine".
        nonlinear: off, the units add up without the relu.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    units = t.List(t.List(t.Float()), [[-2.0, 1, 1.0], [0.0, 1, -2.0], [2.0, 1, 1.0]]).tag(sync=True)
    offset = t.Float(0.0).tag(sync=True)
    target = t.Enum(["bump", "step", "sine"], "bump").tag(sync=True)
    nonlinear = t.Bool(True).tag(sync=True)

    @t.validate("units")
    def _a_few(self, proposal):
        units = proposal["value"]
        if not 1 <= len(units) <= MOST:
            raise t.TraitError(f"units must be one to {MOST}, got {len(units)}")
        for unit in units:
            _check_unit(unit)
        return units

    @t.validate("offset")
    def _finite(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise t.TraitError(f"offset must be a finite number, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"ReluKnots({len(self.units)} units, target={self.target!r}, nonlinear={self.nonlinear})"


def _check_unit(unit: list[float]) -> None:
    if len(unit) != 3:
        raise t.TraitError(f"a unit must be [knot, side, weight], got {unit}")
    knot, side, weight = unit
    if not abs(knot) <= REACH:  # NaN fails too
        raise t.TraitError(f"a knot must lie from -{REACH:g} to {REACH:g}, got {knot}")
    if side not in (-1, 1):
        raise t.TraitError(f"a side must be 1 (right) or -1 (left), got {side}")
    if not math.isfinite(weight):
        raise t.TraitError(f"a weight must be a finite number, got {weight}")
