"""Tiles walk over the scores: the running softmax of FlashAttention -- book chapter "FlashAttention".

Front end: flash_tiles.js.
"""

import math
from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

MOST_TOKENS = 10
SCALES = (0.5, 1.0, 2.0, 4.0, 100.0)
# The maximum of the first query rises with each of its first tiles.
Q = [[1.2, 0.4], [-0.8, 1.5], [0.3, -1.1], [1.6, 1.0], [-1.3, -0.5], [0.7, -1.8], [-0.2, 1.1], [1.9, 0.6]]
K = [[0.5, -0.9], [-1.2, 0.3], [0.8, 1.4], [1.1, -0.2], [-0.6, -1.5], [1.7, 0.7], [-1.4, 1.0], [0.2, 1.8]]
V = [[1.0, -0.5], [-1.5, 2.0], [0.5, 0.5], [2.0, 1.0], [-1.0, -2.0], [0.0, 1.5], [-0.5, 0.0], [1.5, -1.0]]


class FlashTiles(BookWidget):
    """Attention tile by tile, a step at a time: what is in fast memory, the running maximum, sum and output.

    Traits:
        q: a row of two numbers for each query, two to ten; k, v: the same for each key and value.
        block_q, block_k: the height and the width of a tile, 1 to 10.
        causal: each query sees no later key; the last query stands at the last key.
        scale: of the scores, beside the 1 / sqrt(2) of every attention; one of ``SCALES``.
        step: how many steps are done, from 0; beyond the end it shows the end.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    q = t.List(t.List(t.Float()), Q).tag(sync=True)
    k = t.List(t.List(t.Float()), K).tag(sync=True)
    v = t.List(t.List(t.Float()), V).tag(sync=True)
    block_q = t.Int(4).tag(sync=True)
    block_k = t.Int(2).tag(sync=True)
    causal = t.Bool(False).tag(sync=True)
    scale = t.Float(1.0).tag(sync=True)
    step = t.Int(0).tag(sync=True)

    @t.validate("q", "k", "v")
    def _rows_of_two(self, proposal):
        name, rows = proposal["trait"].name, proposal["value"]
        if not 2 <= len(rows) <= MOST_TOKENS or any(len(row) != 2 for row in rows):
            got = [len(row) for row in rows]
            raise t.TraitError(f"{name} must be 2 to {MOST_TOKENS} rows of two numbers, got rows of {got}")
        if not all(math.isfinite(number) for row in rows for number in row):
            raise t.TraitError(f"{name} must be finite numbers, got {rows}")
        if name != "q" and len(rows) != len(other := self.v if name == "k" else self.k):
            raise t.TraitError(f"k and v must have as many rows, {name} got {len(rows)} beside {len(other)}")
        return rows

    @t.validate("block_q", "block_k")
    def _a_tile(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if not 1 <= value <= MOST_TOKENS:
            raise t.TraitError(f"{name} must be from 1 to {MOST_TOKENS}, got {value}")
        return value

    @t.validate("scale")
    def _offered(self, proposal):
        if proposal["value"] not in SCALES:
            scales = ", ".join(f"{scale:g}" for scale in SCALES)
            raise t.TraitError(f"scale must be one of {scales}; got {proposal['value']:g}")
        return proposal["value"]

    @t.validate("step")
    def _from_zero(self, proposal):
        if proposal["value"] < 0:
            raise t.TraitError(f"step must be 0 or more, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return (
            f"FlashTiles({len(self.q)} queries, {len(self.k)} keys, block_q={self.block_q},"
            f" block_k={self.block_k}, causal={self.causal}, scale={self.scale:g}, step={self.step})"
        )
