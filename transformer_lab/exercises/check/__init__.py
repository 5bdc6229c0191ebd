"""Exercises that check themselves and name the mistake: the four kinds, and how a chapter writes them.

An exercise is a function or a class: its body is the solution, and the decorator carries the rest. What a
learner wrote is run by ``guard``, judged by ``compare`` and answered through ``show``.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .exercise import Exercise
from .exercise import source as source
from .told import Measure, Predict
from .written import Debug, DebugModule, Implement, ImplementModule


class Chapter:
    """The exercises of one chapter, in order; its methods are the decorators that make them."""

    def __init__(self, stem: str, title: str) -> None:
        self.stem, self.title = stem, title
        self.exercises: dict[str, Exercise] = {}

    def implement(self, **about: Any) -> Callable[[Callable[..., Tensor]], Implement]:
        return self._adder(Implement, about)

    def implement_module(self, **about: Any) -> Callable[[type[nn.Module]], ImplementModule]:
        return self._adder(ImplementModule, about)

    def debug(self, **about: Any) -> Callable[[Callable[..., Tensor]], Debug]:
        return self._adder(Debug, about)

    def debug_module(self, **about: Any) -> Callable[[type[nn.Module]], DebugModule]:
        return self._adder(DebugModule, about)

    def predict(self, **about: Any) -> Callable[[Callable[[], Any]], Predict]:
        return self._adder(Predict, about)

    def measure(self, **about: Any) -> Callable[[Callable[[], tuple[float, ...]]], Measure]:
        return self._adder(Measure, about)

    def _adder(self, kind: type[Exercise], about: dict[str, Any]) -> Callable[[Callable[..., Any]], Any]:
        def add(solve: Callable[..., Any]) -> Exercise:
            exercise = kind(solve, chapter=self.stem, **about)
            self.exercises[exercise.name] = exercise
            return exercise

        return add
