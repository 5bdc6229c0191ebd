"""What a selective state keeps of the tokens it reads -- book chapter "Mamba: a memory of fixed size".

Front end: selective_scan_state.js.
"""

import math
from pathlib import Path

import traitlets as t

from ._base import BookWidget
from ._bundle import bundle

MOST_TOKENS = 12
MOST_RATES = 3


class SelectiveState(BookWidget):
    """One channel of a state space reads a few words: how much of each is left in its state at the end.

    A token x with the step Δ turns each number h of the state into exp(rate Δ) h + (exp(rate Δ) - 1) / rate
    times x: zero-order hold. As in Mamba, the step follows from the token: the same word has the same step.

    Traits, of which the first four stay as they were when the widget was made:
        tokens: two to twelve words, of which some are said again.
        x: the number that each token brings, one for each.
        content: the words that are worth keeping; the others are filler.
        rates: of the state's numbers, one to three, each negative.
        selective: each word has a step of its own; off, all have the same.
        steps: the step Δ of each word, 0 or more.
        common_step: the step of all words while ``selective`` is off.
        chosen: the place of the token whose step is being set, from 0.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    tokens = t.List(t.Unicode(), "um cat um er um dog er um um er".split()).tag(sync=True)
    x = t.List(t.Float(), [1.0, 2.0, 1.0, -2.0, 1.0, -1.0, -2.0, 1.0, 1.0, -2.0]).tag(sync=True)
    content = t.List(t.Unicode(), ["cat", "dog"]).tag(sync=True)
    rates = t.List(t.Float(), [-1.0, -2.0, -3.0]).tag(sync=True)  # Mamba's first three, section 3.6
    selective = t.Bool(False).tag(sync=True)
    steps = t.Dict(value_trait=t.Float(), key_trait=t.Unicode()).tag(sync=True)
    common_step = t.Float(0.3).tag(sync=True)
    chosen = t.Int(1).tag(sync=True)

    def __init__(self, **traits) -> None:
        super().__init__(**traits)
        for check, value in ((self._one_each, self.x), (self._said, self.content)):
            check({"value": value})  # the defaults, too, must fit the tokens

    @t.default("steps")
    def _all_alike(self):
        return dict.fromkeys(self.tokens, 0.3)

    @t.validate("tokens")
    def _few_words(self, proposal):
        words = proposal["value"]
        if not 2 <= len(words) <= MOST_TOKENS or not all(word.strip() for word in words):
            raise t.TraitError(f"tokens must be two to {MOST_TOKENS} words, got {words}")
        return words

    @t.validate("x")
    def _one_each(self, proposal):
        numbers, n = proposal["value"], len(self.tokens)
        if len(numbers) != n or not all(map(math.isfinite, numbers)):
            raise t.TraitError(f"x must be a finite number for each of {n} tokens, got {numbers}")
        return numbers

    @t.validate("content")
    def _said(self, proposal):
        words = proposal["value"]
        if not words or not set(words) < set(self.tokens) or len(set(words)) < len(words):
            raise t.TraitError(f"content must be some of the words {', '.join(self._words)}; got {words}")
        return words

    @t.validate("rates")
    def _falling(self, proposal):
        rates = proposal["value"]
        if not 1 <= len(rates) <= MOST_RATES or not all(-math.inf < rate < 0 for rate in rates):
            raise t.TraitError(f"rates must be one to {MOST_RATES} negative numbers, got {rates}")
        return rates

    @t.validate("steps")
    def _one_a_word(self, proposal):
        steps = proposal["value"]
        if set(steps) != set(self.tokens):
            raise t.TraitError(f"steps must name the words {', '.join(self._words)}; got {', '.join(steps)}")
        for word, step in steps.items():
            _check_step(f"the step of {word!r}", step)
        return steps

    @t.validate("common_step")
    def _forwards(self, proposal):
        _check_step("common_step", proposal["value"])
        return proposal["value"]

    @t.validate("chosen")
    def _one_of_them(self, proposal):
        if not 0 <= proposal["value"] < len(self.tokens):
            raise t.TraitError(f"chosen must be from 0 to {len(self.tokens) - 1}, got {proposal['value']}")
        return proposal["value"]

    @property
    def _words(self) -> list[str]:
        return list(dict.fromkeys(self.tokens))

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        steps = f"steps={self.steps}" if self.selective else f"common_step={self.common_step:g}"
        return f"SelectiveState({len(self.tokens)} tokens, selective={self.selective}, {steps})"


def _check_step(name: str, step: float) -> None:
    if not 0 <= step < math.inf:  # NaN fails too
        raise t.TraitError(f"{name} must be a finite number of 0 or more, got {step}")
