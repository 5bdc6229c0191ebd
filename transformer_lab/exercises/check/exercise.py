"""What all kinds of exercise share: statement, hints, solution, and the note of the outcome."""

import ast
import inspect
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from .progress import progress
from .show import Code, Picture, Result, Shown


class Exercise:
    """One exercise: ``solve`` is a right answer or computes one, and each kind knows how to judge others."""

    kind: ClassVar[str]

    def __init__(
        self, solve: Callable[..., Any], *, chapter: str, title: str, statement: str, hints: Sequence[str]
    ) -> None:
        self.solve, self.name, self.chapter, self.title = solve, solve.__name__, chapter, title
        self.statement, self.hints = inspect.cleandoc(statement), tuple(map(inspect.cleandoc, hints))
        self._rung = 0

    def check(self, answer: Any, *, seconds: float | int = 10) -> Result:
        """Try ``answer`` within ``seconds``, say the most helpful true thing about it, note the outcome."""
        result = self.judge(answer, seconds=seconds)
        if result.status == "not attempted":
            return result
        notes = progress.record(f"{self.chapter}.{self.name}", result.status)
        return Result(result.heading, (*result.blocks, *notes), status=result.status)

    def judge(self, answer: Any, *, seconds: float | int = 10) -> Result:
        """As ``check``, but nothing is noted."""
        deadline = time.monotonic() + seconds
        with np.errstate(all="ignore"), torch.autocast("cpu", enabled=False), torch.device("cpu"):
            return self._judge(answer, deadline)  # whatever the notebook has switched on

    def hint(self) -> Shown:
        """The next rung of the ladder."""
        if self._rung == len(self.hints):
            return Shown("No more hints", (f"`ex.{self.name}.solution()` shows one way to do it.",))
        self._rung += 1
        return Shown(f"Hint {self._rung} of {len(self.hints)}", (self.hints[self._rung - 1],))

    def solution(self) -> Shown:
        """One right answer, with the reason for each step; there are others."""
        return Shown(f"One solution: {self.title}", (Code(source(self.solve)),))

    @property
    def stub(self) -> str:
        """What the learner's cell holds at first."""
        raise NotImplementedError

    def markdown(self, number: int) -> str:
        """The exercise's Markdown cell in the chapter."""
        hints = (
            f"<details><summary>Hint {i}</summary>\n\n{hint}\n\n</details>"
            for i, hint in enumerate(self.hints, 1)
        )
        return "\n\n".join([f"### Exercise {number} · {self.title}", self.statement, *hints])

    def cell(self) -> str:
        """The exercise's code cell in the chapter."""
        return f"{self.stub}\n\n\nex.{self.name}.check({self._answer_name})"

    _answer_name = "answer"

    def _judge(self, answer: Any, deadline: float) -> Result:
        raise NotImplementedError

    def _not_attempted(self, say: str) -> Result:
        return Result(f"Not attempted: {self.title}", (say,), status="not attempted")

    def _not_yet(self, *blocks: str | Code | Picture) -> Result:
        return Result(f"Not yet: {self.title}", blocks, status="not yet")

    def _passed(self, *blocks: str | Code) -> Result:
        return Result(f"Passed: {self.title}", blocks, status="passed")

    def __repr__(self) -> str:
        return f"Exercise `{self.name}` ({self.kind}): {self.title}. Methods: check, hint, solution."


def source(written: Callable[..., Any]) -> str:
    """The text of a function or a class without its decorators."""
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(written)))
    return ast.get_source_segment(text, ast.parse(text).body[0]) or text
