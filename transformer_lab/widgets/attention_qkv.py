"""One query, a few keys, and what comes out -- book chapter "Attention". Front end: attention_qkv.js."""

import math
from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

REACH = 3.0  # the planes show coordinates from -REACH to REACH


class QueryKeyValue(BookWidget):
    """Drag the query and the keys; scores, weights and output follow.

    Traits:
        tokens: two to six words, each with a key and a value.
        asking: the word whose query it is.
        q: the query, two coordinates from -3 to 3.
        k: the keys, one per token, each like ``q``.
        v: the values, one per token, each like ``q``.
        divisor: what the scores are divided by before the softmax; by default sqrt(d_k), with d_k = 2.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    tokens = t.List(t.Unicode(), ["the", "cat", "sat", "down"]).tag(sync=True)
    asking = t.Unicode("sat").tag(sync=True)
    q = t.List(t.Float(), [1.3, 0.2]).tag(sync=True)
    k = t.List(t.List(t.Float()), [[-1.5, 0.6], [0.9, 1.6], [1.6, -1.1], [-0.7, -1.7]]).tag(sync=True)
    v = t.List(t.List(t.Float()), [[-2.3, -0.9], [-0.8, 2.2], [2.4, 1.1], [1.2, -2.0]]).tag(sync=True)
    divisor = t.Float(math.sqrt(2)).tag(sync=True)
    start = t.Dict(read_only=True).tag(sync=True)  # what the reset button goes back to

    def __init__(self, **traits) -> None:
        super().__init__(**traits)
        moves = ("q", "k", "v", "divisor")
        self.set_trait("start", {name: getattr(self, name) for name in moves})

    @t.validate("tokens")
    def _few_words(self, proposal):
        words = proposal["value"]
        if not 2 <= len(words) <= 6:
            raise t.TraitError(f"tokens must be two to six words, got {len(words)}")
        if len(set(words)) < len(words) or not all(word.strip() for word in words):
            raise t.TraitError(f"tokens must be different words, got {words}")
        _check_count("k", self.k, words)
        _check_count("v", self.v, words)
        return words

    @t.validate("q")
    def _on_the_plane(self, proposal):
        _check_vector("q", proposal["value"])
        return proposal["value"]

    @t.validate("k", "v")
    def _one_per_token(self, proposal):
        name, vectors = proposal["trait"].name, proposal["value"]
        _check_count(name, vectors, self.tokens)
        for i, vector in enumerate(vectors):
            _check_vector(f"{name}[{i}]", vector)
        return vectors

    @t.validate("divisor")
    def _positive(self, proposal):
        if not (math.isfinite(proposal["value"]) and proposal["value"] > 0):
            raise t.TraitError(f"divisor must be a positive number, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"QueryKeyValue(tokens={self.tokens}, q={self.q}, divisor={self.divisor:.4g})"


def _check_count(name: str, vectors: list[list[float]], tokens: list[str]) -> None:
    if len(vectors) != len(tokens):
        raise t.TraitError(f"{name} must be one per token, got {len(vectors)} for {len(tokens)} tokens")


def _check_vector(name: str, vector: list[float]) -> None:
    if len(vector) != 2 or not all(abs(x) <= REACH for x in vector):  # NaN fails too
        raise t.TraitError(f"{name} must be two numbers from -{REACH:g} to {REACH:g}, got {vector}")
