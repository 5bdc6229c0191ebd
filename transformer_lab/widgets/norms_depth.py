"""What depth does to five wirings -- book chapter "Residuals and norms". Front end: norms_depth.js."""

from pathlib import Path
from typing import Any

import traitlets as t

from ..training import results
from ._base import BookWidget
from ._bundle import bundle

WIRINGS = ("pre-norm", "post-norm", "residual, no norm", "norm, no residual", "neither")


class DepthAndWiring(BookWidget):
    """Stacks of 2 to 48 untrained layers, wired in five ways: the gradient and the diversity, layer by layer.

    Nothing is computed here: the runs are those that ``transformer_lab.training.norms`` stored.

    Traits:
        wiring: where skip connection and norm stand, one of ``WIRINGS``.
        depth: number of layers, one of ``runs["depths"]``.
        layer: the layer that the cursor reads, from 1; beyond the depth it reads the last one.
        runs: "wirings" and "depths", and by wiring and depth "gradient" and "diversity", a number a layer.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    wiring = t.Unicode("pre-norm").tag(sync=True)
    depth = t.Int(8).tag(sync=True)
    layer = t.Int(8).tag(sync=True)
    runs = t.Dict(read_only=True).tag(sync=True)

    @t.default("runs")
    def _stored(self) -> dict[str, Any]:
        stored = results.read("norms")["depth"]
        kept = {what: {w: stored[what][w] for w in WIRINGS} for what in ("gradient", "diversity")}
        return {"wirings": list(WIRINGS), "depths": stored["depths"], **kept}

    @t.validate("wiring")
    def _one_that_ran(self, proposal):
        if proposal["value"] not in WIRINGS:
            raise t.TraitError(f"wiring must be one of {'; '.join(WIRINGS)}, got {proposal['value']!r}")
        return proposal["value"]

    @t.validate("depth")
    def _depth_that_ran(self, proposal):
        if proposal["value"] not in self.runs["depths"]:
            depths = ", ".join(map(str, self.runs["depths"]))
            raise t.TraitError(f"depth must be one of {depths}; got {proposal['value']}")
        return proposal["value"]

    @t.validate("layer")
    def _from_one(self, proposal):
        if proposal["value"] < 1:
            raise t.TraitError(f"layer must be 1 or more, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"DepthAndWiring(wiring={self.wiring!r}, depth={self.depth}, layer={self.layer})"
