"""Why scores are divided by the root of d_k -- book chapter "Attention". Front end: attention_scaling.js."""

from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle


class AttentionScaling(BookWidget):
    """Random queries and keys: the wider they are, the larger their dot products, the sharper the softmax.

    Traits:
        d_k: width of query and keys, a power of two from 1 to 256.
        n_keys: how many keys there are, 2 to 12.
        divided: whether the scores of the draw shown are divided by sqrt(d_k).
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    d_k = t.Int(4).tag(sync=True)
    n_keys = t.Int(8).tag(sync=True)
    divided = t.Bool(False).tag(sync=True)

    @t.validate("d_k")
    def _power_of_two(self, proposal):
        if proposal["value"] not in {2**i for i in range(9)}:
            raise t.TraitError(f"d_k must be a power of two from 1 to 256, got {proposal['value']}")
        return proposal["value"]

    @t.validate("n_keys")
    def _a_few(self, proposal):
        if not 2 <= proposal["value"] <= 12:
            raise t.TraitError(f"n_keys must be from 2 to 12, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"AttentionScaling(d_k={self.d_k}, n_keys={self.n_keys}, divided={self.divided})"
