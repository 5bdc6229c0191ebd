"""What reaches a token from another one, by distance -- book chapter "Why attention".

Front end: why_attention_distance.js.
"""

from pathlib import Path
from typing import Any

import traitlets as t

from ..training import results
from ..why_attention import NAMES
from ._base import BookWidget
from ._bundle import bundle


class GradientAndDistance(BookWidget):
    """How much the last output of seven fresh layers changes with a token so many places before it.

    Nothing is computed here: the runs are those that ``transformer_lab.training.why_attention`` stored.

    Traits:
        tokens: the length of the sequence, one of ``runs["lengths"]``.
        distance: the one that the cursor reads, one of ``runs["distances"]`` for that length; others are read
            at the next smaller one.
        shown: the layers whose lines are drawn, in any order.
        runs: "names", "lengths"; by length "distances"; by name and length "gradient", one for each distance.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    tokens = t.Int(64).tag(sync=True)
    distance = t.Int(32).tag(sync=True)
    shown = t.List(t.Unicode(), ["tanh RNN", "attention"]).tag(sync=True)
    runs = t.Dict(read_only=True).tag(sync=True)

    @t.default("runs")
    def _stored(self) -> dict[str, Any]:
        return {"names": list(NAMES), **results.read("why_attention")["start"]}

    @t.validate("tokens")
    def _length_that_ran(self, proposal):
        if proposal["value"] not in self.runs["lengths"]:
            lengths = ", ".join(map(str, self.runs["lengths"]))
            raise t.TraitError(f"tokens must be one of {lengths}; got {proposal['value']}")
        return proposal["value"]

    @t.validate("distance")
    def _from_one(self, proposal):
        if proposal["value"] < 1:
            raise t.TraitError(f"distance must be 1 or more, got {proposal['value']}")
        return proposal["value"]

    @t.validate("shown")
    def _layers_that_ran(self, proposal):
        names = proposal["value"]
        if not set(names) <= set(NAMES) or len(set(names)) < len(names):
            raise t.TraitError(f"shown must be some of {'; '.join(NAMES)}; got {names}")
        return names

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"GradientAndDistance(tokens={self.tokens}, distance={self.distance}, shown={self.shown})"
