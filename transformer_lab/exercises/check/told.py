"""The kinds in which a learner hands in numbers or words: predict and measure."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from . import guard
from .exercise import Exercise
from .show import Result, an


class Predict(Exercise):
    """The learner writes down a number, a shape or a choice before running anything.

    Args:
        expected: the right answer: a number, a tuple of them, or one of the letters of ``choices``.
        wrong: each likely wrong prediction, answered by a sentence of its own.
        otherwise: the sentence for all other predictions; not needed with ``choices``.
        form: what a prediction looks like, such as "one number"; not needed with ``choices``.
        choices: letter -> what it stands for, if the answer is one of a few.
    """

    kind = "predict"

    def __init__(
        self,
        solve: Callable[[], Any],
        *,
        expected: Any,
        wrong: Mapping[Any, str],
        otherwise: str = "",
        form: str = "",
        choices: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(solve, **common)
        self.expected, self.wrong, self.otherwise, self.form = expected, dict(wrong), otherwise, form
        self.choices = dict(choices or {})
        if self.choices:
            *first, last = (f'"{letter}"' for letter in self.choices)
            self.form = f"{', '.join(first)} or {last}"
            self.statement += "\n\n" + "\n".join(f"- **{a}**: {text}" for a, text in self.choices.items())

    @property
    def stub(self) -> str:
        return f"answer = None  # your prediction: {self.form}"

    def _judge(self, answer: Any, deadline: float) -> Result:
        if answer is None or answer is ...:
            return self._not_attempted("Write your prediction in place of `None` and run the cell again.")
        outcome = guard.run(lambda: plain(answer), deadline - time.monotonic())
        if outcome.problem:
            return self._not_yet(f"Your prediction should be {self.form}; this I cannot read.")
        given = outcome.value
        if self.choices and isinstance(given, str):
            given = given.strip().lower()
            if given not in self.choices:
                return self._not_yet(f"Your prediction should be {self.form}.")
        if type(given) is not type(plain(self.expected)):
            return self._not_yet(
                f"Your prediction should be {self.form}; this is {an(type(answer).__name__)}."
            )
        if _equal(given, self.expected):
            return self._passed(inspect.cleandoc(self.solve.__doc__ or ""))
        for value, sentence in self.wrong.items():
            if _equal(given, value):
                return self._not_yet(sentence)
        others = [x for x in given if not isinstance(x, float)] if isinstance(given, tuple) else []
        if others:
            kind = an(type(others[0]).__name__)
            return self._not_yet(
                f"Your prediction should be {self.form}; in this one {kind} stands where a number should."
            )
        return self._not_yet(self.otherwise)


class Measure(Exercise):
    """The learner measures and reports numbers; each must lie in its range.

    Args:
        ranges: one (low, high) a number, with the number's name.
        slips: ranges in which a known mistake lands, with its sentence; they do not overlap the right ones.
        at_most: a bound that no number can exceed, with the sentence for one that does.
        otherwise: what to say when the numbers lie in none of them.
    """

    kind = "measure"

    def __init__(
        self,
        solve: Callable[[], tuple[float, ...]],
        *,
        ranges: Mapping[str, tuple[float, float]],
        slips: Mapping[str, Sequence[tuple[float, float]]],
        at_most: tuple[float, str],
        otherwise: str,
        **common: Any,
    ) -> None:
        super().__init__(solve, **common)
        self.ranges, self.slips = dict(ranges), dict(slips)
        self.at_most, self.otherwise = at_most, otherwise

    @property
    def stub(self) -> str:
        return f"answer = None  # what you measured: ({', '.join(self.ranges)})"

    def _judge(self, answer: Any, deadline: float) -> Result:
        if answer is None or answer is ...:
            return self._not_attempted("Measure, put your numbers in place of `None`, run the cell again.")
        outcome = guard.run(lambda: plain(answer), deadline - time.monotonic())
        given = outcome.value
        names = ", ".join(self.ranges)
        if not isinstance(given, tuple) or len(given) != len(self.ranges):
            return self._not_yet(f"Report {len(self.ranges)} numbers, ({names}).")
        if not all(isinstance(x, float) and np.isfinite(x) for x in given):
            return self._not_yet(f"Each of ({names}) should be a finite number.")
        if _within(given, self.ranges.values()):
            return self._passed(inspect.cleandoc(self.solve.__doc__ or ""))
        for sentence, ranges in self.slips.items():
            if _within(given, ranges):
                return self._not_yet(sentence)
        bound, sentence = self.at_most
        if max(given) > bound:
            return self._not_yet(sentence)
        return self._not_yet(self.otherwise)


def plain(answer: Any, depth: int = 3) -> Any:
    """Numbers as float, sequences as tuples of them; everything else, and what lies too deep, as it is."""
    if isinstance(answer, Tensor | np.ndarray | np.generic):
        answer = answer.tolist()
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        try:
            return float(answer)
        except OverflowError:  # a whole number of hundreds of digits
            return float("inf")
    if isinstance(answer, list | tuple) and depth:
        return tuple(plain(x, depth - 1) for x in answer)
    return answer


def _equal(a: Any, b: Any) -> bool:
    a, b = plain(a), plain(b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, float):
        return isinstance(b, float) and abs(a - b) <= 1e-3 * abs(b)
    return type(a) is type(b) and a == b


def _within(given: tuple[float, ...], ranges: Any) -> bool:
    return all(low <= x <= high for x, (low, high) in zip(given, ranges, strict=True))
