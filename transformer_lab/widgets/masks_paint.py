"""Paint a mask and see what it lets through in several layers -- book chapter "Masks".

Front end: masks_paint.js.
"""

from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

MOST_LAYERS = 8


class MaskPainter(BookWidget):
    """Which query may see which key, painted by hand; and which input can have reached which output.

    Traits:
        tokens: two to ten different words; a row (query) and a column (key) for each.
        mask: a row for each query, in it True for each key that it may see; by default causal.
        n_layers: how many layers with this mask stand on each other, 1 to 8.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    tokens = t.List(t.Unicode(), ["the", "cat", "sat", "down", "a", "dog", "ran", "off"]).tag(sync=True)
    mask = t.List(t.List(t.Bool())).tag(sync=True)
    n_layers = t.Int(1).tag(sync=True)

    @t.default("mask")
    def _causal(self):
        n = len(self.tokens)
        return [[key <= query for key in range(n)] for query in range(n)]

    @t.validate("tokens")
    def _few_words(self, proposal):
        words = proposal["value"]
        if not 2 <= len(words) <= 10:
            raise t.TraitError(f"tokens must be two to ten words, got {len(words)}")
        if len(set(words)) < len(words) or not all(word.strip() for word in words):
            raise t.TraitError(f"tokens must be different words, got {words}")
        return words

    @t.validate("mask")
    def _square(self, proposal):
        rows, n = proposal["value"], len(self.tokens)
        if len(rows) != n or any(len(row) != n for row in rows):
            lengths = [len(row) for row in rows]
            raise t.TraitError(f"mask must have {n} rows of {n}, one per token, got rows of {lengths}")
        return rows

    @t.validate("n_layers")
    def _a_few(self, proposal):
        if not 1 <= proposal["value"] <= MOST_LAYERS:
            raise t.TraitError(f"n_layers must be from 1 to {MOST_LAYERS}, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        seen = sum(map(sum, self.mask))
        return f"MaskPainter({len(self.tokens)} tokens, {seen} True in the mask, n_layers={self.n_layers})"
