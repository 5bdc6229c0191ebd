"""Exercises that check themselves and name the mistake: the four kinds, and how a chapter writes them.

An exercise is a function: its body is the solution, and the decorator carries the rest. Everything that
decides whether an answer is right is computed in NumPy, in float64, so that neither a mistake of ours in
torch nor a torch that the learner has patched can make a wrong answer look right.

Letters: B batch, T query tokens, S key/value tokens, D model width, H heads, Dh head width.
"""

import ast
import dis
import inspect
import re
import textwrap
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import guard
from .progress import progress
from .show import Code, Picture, Result, Shown

Inputs = dict[str, Any]  # parameter name -> array or whole number, in the order of the parameters
Sizes = tuple[Any, ...]  # what ``inputs`` takes after the generator: sizes, and the sort of a mask

# A float32 answer carries errors near 1e-7 of its size, some operations later 1e-6; slips are far above.
TOLERANCE = {"float32": (1e-4, 1e-5), "float64": (1e-8, 1e-9)}
LARGEST_PICTURE = 6  # rows and columns
LINES_SHOWN = 20  # of what the learner prints

# How PyTorch begins or ends its complaints about shapes, and what they come to.
SHAPES_CLASH = re.compile(
    "must match the size of tensor|Expected size for first two dimensions|cannot be multiplied"
    "|size mismatch, got|inconsistent tensor size"
)
SHAPES = (
    "The shapes do not fit. `*` multiplies entry by entry and needs equal shapes; "
    "`A @ B` needs the last axis of A to be as long as the last but one of B."
)


class Exercise:
    """What all kinds share: statement, hints, solution, and the note of the outcome."""

    kind: ClassVar[str]

    def __init__(
        self, solve: Callable[..., Any], *, chapter: str, title: str, statement: str, hints: Sequence[str]
    ) -> None:
        self.solve, self.name, self.chapter, self.title = solve, solve.__name__, chapter, title
        self.statement, self.hints = inspect.cleandoc(statement), tuple(map(inspect.cleandoc, hints))
        self._rung = 0

    def check(self, answer: Any, *, seconds: float | int = 10) -> Result:
        """Try ``answer`` and say the most helpful true thing about it, within ``seconds``."""
        result = self._judge(answer, time.monotonic() + seconds)
        if result.status == "not attempted":
            return result
        notes = progress.record(f"{self.chapter}.{self.name}", result.status)
        return Result(result.heading, (*result.blocks, *notes), status=result.status)

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


@dataclass(frozen=True)
class Slip:
    """A wrong answer that people really write, and the sentence that names it."""

    sentence: str
    function: Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One set of inputs and the right answer; arrays are float64 copies of what the learner gets."""

    inputs: Inputs
    dtype: torch.dtype
    want: np.ndarray

    def tensors(self) -> list[Any]:
        return [_tensor(value, self.dtype) for value in self.inputs.values()]

    def call(self) -> str:
        """How the learner's function was called, for messages."""
        parts = (
            f"{name} {value.shape}" if isinstance(value, np.ndarray) else f"{name} = {value}"
            for name, value in self.inputs.items()
        )
        return f"{', '.join(parts)}, in {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Answer:
    """What the learner's function gave, read into NumPy."""

    values: np.ndarray
    dtype: str


class Implement(Exercise):
    """The learner writes a function of tensors; values and gradients are compared.

    Args:
        axes: the axes of the answer in the book's letters, such as "B H T Dh".
        inputs: makes the arguments by name from a generator and one entry of ``sizes``.
        sizes: from small to large; numbers that differ, so that a mistaken axis shows.
        reference: the right answer in NumPy, written independently of the solution.
        forbidden: names of library functions that would do the whole exercise.
        gradient: whether gradients must flow, and be right.
        probes: more sizes, on which nothing is judged: they tell slips apart that are alike on the others.
    """

    kind = "implement"

    def __init__(
        self,
        solve: Callable[..., Tensor],
        *,
        axes: str,
        inputs: Callable[..., Inputs],
        sizes: Sequence[Sizes],
        reference: Callable[..., np.ndarray],
        forbidden: Sequence[str] = (),
        gradient: bool = True,
        probes: Sequence[Sizes] = (),
        **common: Any,
    ) -> None:
        super().__init__(solve, **common)
        self.axes, self.inputs, self.sizes, self.reference = axes.split(), inputs, tuple(sizes), reference
        self.forbidden, self.gradient, self.probes = tuple(forbidden), gradient, tuple(probes)
        self.slips: list[Slip] = []
        self.crashes: list[Slip] = []
        self._answer_name = self.name

    def slip(self, sentence: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
        """Decorate a wrong answer with the sentence that names it."""
        return _adds_to(self.slips, sentence)

    def crash(self, sentence: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
        """As ``slip``, for a wrong answer that raises; it is known by the error it raises."""
        return _adds_to(self.crashes, sentence)

    @property
    def stub(self) -> str:
        """The solution's first line and docstring, and three dots to replace."""
        function = ast.parse(source(self.solve)).body[0]
        lines = source(self.solve).splitlines()[: function.body[0].end_lineno]
        return "\n".join([*lines, "    ..."])

    def cases(self) -> list[Case]:
        """The same on every run; the two precisions take turns."""
        precisions = (torch.float32, torch.float64)
        return [
            self._case(np.random.default_rng(seed), sizes, precisions[seed % 2])
            for seed, sizes in enumerate(self.sizes)
        ]

    def probe_cases(self) -> list[Case]:
        """The inputs that only tell slips apart."""
        return [self._case(np.random.default_rng(0), sizes, torch.float64) for sizes in self.probes]

    def _case(self, rng: np.random.Generator, sizes: Sizes, dtype: torch.dtype) -> Case:
        inputs = {name: _rounded(value, dtype) for name, value in self.inputs(rng, *sizes).items()}
        return Case(inputs, dtype, self.reference(**inputs))

    def _judge(self, answer: Any, deadline: float) -> Result:
        if not callable(answer):
            return self._not_yet(
                f"Hand in the function itself, `check({self.name})`, not {_an(type(answer).__name__)}."
            )
        if self._untouched(answer):
            return self._not_attempted(self._invitation())
        answers: list[Answer] = []
        cases = self.cases()
        printed = ""
        for case in cases:
            outcome = self._run(answer, case, deadline)
            printed = printed or outcome.printed
            if outcome.problem:
                break
            answers.append(outcome.value)
        said = _what_was_printed(printed)
        tried = list(zip(cases, answers, strict=False))
        wrong = [pair for pair in tried if not agrees(pair[1].values, pair[0].want, pair[1].dtype)]
        if wrong:
            probed = [] if outcome.problem else self._probed(answer, deadline)
            named = self._slip_of(tried + probed)
            if not named and any(map(_is_finite, wrong)):  # an overflow elsewhere hides no other mistake
                named = self._slip_of(list(filter(_is_finite, tried)))
            return self._not_yet(*([named] if named else self._difference(*wrong[0])), *said)
        if outcome.problem:
            if not outcome.raised:
                return self._not_yet(*outcome.problem, *said)
            plainly = self._plainly(outcome.problem[0], case)
            return self._not_yet(*plainly, *outcome.problem, f"The input was {case.call()}.", *said)
        if problem := self._fresh(answer, deadline) or self._gradients(answer, deadline):
            return self._not_yet(*problem, *said)
        return self._passed(self._praise(), *self._remarks(tried), *said)

    def _untouched(self, answer: Callable[..., Any]) -> bool:
        return _does_nothing(answer)

    def _invitation(self) -> str:
        return (
            f"Replace the dots in `{self.name}` by your code and run the cell again. "
            f"`ex.{self.name}.hint()` helps a little at a time."
        )

    def _praise(self) -> str:
        what = "values and gradients are" if self.gradient else "values are"
        return f"On {len(self.sizes) + 1} inputs of different sizes the {what} right."

    def _run(self, answer: Callable[..., Any], case: Case, deadline: float) -> guard.Outcome:
        def job() -> Answer:
            given = case.tensors()
            with _Forbid(self.forbidden):
                got = answer(*given)
            _refuse_changed(given, case)
            return _read(got, case)

        return guard.run(job, _left(deadline))

    def _fresh(self, answer: Callable[..., Any], deadline: float) -> tuple[str, ...]:
        """One input that nobody has seen before, against answers that remember instead of compute."""
        case = self._case(np.random.default_rng(), self.sizes[0], torch.float64)
        outcome = self._run(answer, case, deadline)
        if outcome.problem:
            return outcome.problem
        if agrees(outcome.value.values, case.want, outcome.value.dtype):
            return ()
        return ("Right on the inputs I always use, and wrong on a fresh one: compute, do not remember.",)

    def _gradients(self, answer: Callable[..., Any], deadline: float) -> tuple[str, ...]:
        if not self.gradient:
            return ()
        cases = [
            self._case(np.random.default_rng(seed), sizes, torch.float64)
            for seed, sizes in enumerate(self.sizes[:2])
        ]
        outcome = guard.run(lambda: [_gradients(answer, case) for case in cases], _left(deadline))
        if outcome.problem:
            return (*outcome.problem, "(This came up while I asked for gradients.)")
        want = [_gradients(self.solve, case) for case in cases]
        if _same_gradients(outcome.value, want):
            return ()
        for slip in self.slips:
            if _slipped_gradients(slip, cases, outcome.value):
                return (slip.sentence,)
        return (_where_gradients_differ(outcome.value, want),)

    def _probed(self, answer: Callable[..., Any], deadline: float) -> list[tuple[Case, Answer]]:
        """What the answer gives on the probes, as far as it gives anything."""
        outcomes = [(case, self._run(answer, case, deadline)) for case in self.probe_cases()]
        return [(case, outcome.value) for case, outcome in outcomes if not outcome.problem]

    def _slip_of(self, tried: list[tuple[Case, Answer]]) -> str | None:
        """The sentence of the slip that gives the learner's answers on every input tried."""
        for slip in self.slips:
            if all(_slipped(slip, case, answer) for case, answer in tried):
                return slip.sentence
        return None

    def _plainly(self, raised: str, case: Case) -> list[str]:
        """What the learner's error means: the sentence of a slip that raises the same, or a general one."""
        for crash in self.crashes:
            problem = guard.run(lambda crash=crash: crash.function(*case.tensors()), seconds=1).problem
            if problem and problem[0] == raised:
                return [crash.sentence]
        return [SHAPES] if SHAPES_CLASH.search(raised) else []

    def _difference(self, case: Case, answer: Answer) -> list[str | Picture]:
        got, want, axes = answer.values, case.want, ", ".join(self.axes)
        intro = f"On the smallest input that fails, {case.call()}:"
        if got.shape != want.shape:
            return [intro, f"your answer has the shape {got.shape}; it should be ({axes}) = {want.shape}."]
        wrong = ~_close(got, want, answer.dtype)
        spot = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"at [{', '.join(map(str, spot))}] (axes {axes})"
        values = _side_by_side(want[spot], got[spot])
        blocks: list[str | Picture] = [intro, f"the first difference is {where}: {values}."]
        page = spot[:-2]
        if max(want.shape[-2:]) <= LARGEST_PICTURE:
            blocks.append(Picture(want[page], got[page], wrong[page]))
        return blocks

    def _remarks(self, tried: list[tuple[Case, Answer]]) -> list[str]:
        """What is worth a word although the answer is right."""
        for case, answer in tried:
            given = str(case.dtype).removeprefix("torch.")
            if answer.dtype != given:
                return [
                    f"One remark: for {given} inputs your answer came as {answer.dtype}. "
                    "`x.new_zeros(...)` makes a tensor of x's own type and device."
                ]
        return []


class Debug(Implement):
    """The learner gets a broken function and its symptom, and hands in a repaired one."""

    kind = "debug"

    def __init__(self, solve: Callable[..., Tensor], *, broken: Callable[..., Tensor], **rest: Any) -> None:
        super().__init__(solve, **rest)
        self.broken = broken

    @property
    def stub(self) -> str:
        """The broken function, to be repaired in place."""
        return source(self.broken)

    def _untouched(self, answer: Callable[..., Any]) -> bool:
        if super()._untouched(answer):
            return True
        written, broken = inspect.unwrap(answer), inspect.unwrap(self.broken)
        return isinstance(written, types.FunctionType) and _same_code(written.__code__, broken.__code__)

    def _invitation(self) -> str:
        return (
            f"`{self.name}` is still as you got it: find the faulty line, repair it, run the cell again. "
            f"`ex.{self.name}.hint()` helps a little at a time."
        )


class Predict(Exercise):
    """The learner writes down a number, a shape or a choice before running anything.

    ``wrong`` answers each likely wrong prediction with a sentence of its own, ``otherwise`` all others.
    """

    kind = "predict"

    def __init__(
        self,
        solve: Callable[[], Any],
        *,
        expected: Any,
        wrong: Mapping[Any, str],
        otherwise: str,
        form: str,
        **common: Any,
    ) -> None:
        super().__init__(solve, **common)
        self.expected, self.wrong, self.otherwise, self.form = expected, dict(wrong), otherwise, form

    @property
    def stub(self) -> str:
        return f"answer = None  # your prediction: {self.form}"

    def _judge(self, answer: Any, deadline: float) -> Result:
        if answer is None or answer is ...:
            return self._not_attempted("Write your prediction in place of `None` and run the cell again.")
        given = _plain(answer)
        if type(given) is not type(_plain(self.expected)):
            return self._not_yet(
                f"Your prediction should be {self.form}; this is {_an(type(answer).__name__)}."
            )
        if _equal(given, self.expected):
            return self._passed(inspect.cleandoc(self.solve.__doc__ or ""))
        for value, sentence in self.wrong.items():
            if _equal(given, value):
                return self._not_yet(sentence)
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
        given = _plain(answer)
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


class Chapter:
    """The exercises of one chapter, in order; its methods are the decorators that make them."""

    def __init__(self, stem: str, title: str) -> None:
        self.stem, self.title = stem, title
        self.exercises: dict[str, Exercise] = {}

    def implement(self, **about: Any) -> Callable[[Callable[..., Tensor]], Implement]:
        return self._adder(Implement, about)

    def debug(self, **about: Any) -> Callable[[Callable[..., Tensor]], Debug]:
        return self._adder(Debug, about)

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


def source(function: Callable[..., Any]) -> str:
    """The text of ``function`` without its decorators."""
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    return ast.get_source_segment(text, ast.parse(text).body[0]) or text


def _adds_to(slips: list[Slip], sentence: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        slips.append(Slip(" ".join(sentence.split()), function))
        return function

    return add


def agrees(got: np.ndarray, want: np.ndarray, dtype: str) -> bool:
    """Equal shapes, and all values close; a NaN agrees with nothing."""
    return got.shape == want.shape and bool(_close(got, want, dtype).all())


def _close(got: np.ndarray, want: np.ndarray, dtype: str, *, equal_nan: bool = False) -> np.ndarray:
    rtol, atol = TOLERANCE[dtype]
    return np.isclose(got, want, rtol=rtol, atol=atol, equal_nan=equal_nan)


def _is_finite(pair: tuple[Case, Answer]) -> bool:
    return bool(np.isfinite(pair[1].values).all())


def _slipped(slip: Slip, case: Case, answer: Answer) -> bool:
    """Whether the slip gives this answer. A slip may fail on some inputs: then the answer is not the slip."""
    try:
        with torch.no_grad():
            wrong = slip.function(*case.tensors()).double().numpy()
    except Exception:
        return False
    same_shape = wrong.shape == answer.values.shape
    return same_shape and bool(_close(answer.values, wrong, answer.dtype, equal_nan=True).all())


def _right(slip: Slip, case: Case) -> bool:
    """Whether the slip's values are right, so that only its gradients can tell."""
    return agrees(slip.function(*case.tensors()).double().numpy(), case.want, "float64")


def _slipped_gradients(slip: Slip, cases: list[Case], got: list[dict[str, np.ndarray]]) -> bool:
    """As ``_slipped``, for slips whose values are right."""
    try:
        if not all(_right(slip, case) for case in cases):
            return False
        return _same_gradients(got, [_gradients(slip.function, case) for case in cases])
    except Exception:
        return False


def _tensor(value: Any, dtype: torch.dtype) -> Any:
    """A fresh tensor of the case's precision; masks stay boolean and whole numbers stay as they are."""
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.from_numpy(value.copy())
    return tensor if value.dtype == bool else tensor.to(dtype)


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    """What remains of ``value`` in ``dtype``, so that reference and learner see the same numbers."""
    if dtype == torch.float32 and isinstance(value, np.ndarray) and value.dtype != bool:
        return value.astype(np.float32).astype(np.float64)
    return value


def _refuse_changed(given: list[Any], case: Case) -> None:
    for tensor, (name, value) in zip(given, case.inputs.items(), strict=True):
        if isinstance(value, np.ndarray) and not np.array_equal(tensor.detach().numpy(), value):
            raise guard.Complaint(
                f"Your code changed its input `{name}` in place. Work on a new tensor: "
                "operations whose name ends in _ and assignments such as `x[0] = ...` write into the old one."
            )


def _read(got: Any, case: Case) -> Answer:
    """The learner's tensor in NumPy, or a complaint about what it is instead."""
    if got is None or got is ...:
        raise guard.Complaint("Your function returned nothing. Does it end with `return`?")
    if isinstance(got, tuple):
        raise guard.Complaint(f"Return one tensor; this is a tuple of {len(got)}.")
    if isinstance(got, list) and got and all(isinstance(row, Tensor) for row in got):
        raise guard.Complaint(
            "Return a tensor; this is a list. "
            "`torch.stack(rows)` makes a tensor of a list of equally long rows."
        )
    if not isinstance(got, Tensor):
        raise guard.Complaint(f"Return a tensor; this is {_an(type(got).__name__)}.")
    if got.device.type != "cpu":
        raise guard.Complaint(
            f"Your answer is on {got.device} and the inputs are on cpu; keep the answer where its inputs are."
        )
    if got.layout is not torch.strided:
        raise guard.Complaint(f"Return an ordinary tensor; this one has the layout {got.layout}.")
    dtype = str(got.dtype).removeprefix("torch.")
    if dtype not in TOLERANCE:
        given = str(case.dtype).removeprefix("torch.")
        raise guard.Complaint(f"Return {given}, the type of the inputs; this is {dtype}.")
    return Answer(got.detach().resolve_neg().double().numpy().copy(), dtype)


def _gradients(answer: Callable[..., Any], case: Case) -> dict[str, np.ndarray]:
    """The gradient of a fixed random mix of the answer's entries with respect to every real input."""
    given = case.tensors()
    leaves = {
        name: tensor.requires_grad_()
        for name, tensor in zip(case.inputs, given, strict=True)
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    }
    with torch.enable_grad():
        got = answer(*given)
    if not got.requires_grad:
        raise guard.Complaint(
            "The values are right, but no gradient flows back to the inputs, so a model made of it could not "
            "learn. `.detach()`, `.item()`, `.numpy()`, `torch.tensor(...)` and `torch.no_grad()` cut it off."
        )
    mix = torch.from_numpy(np.random.default_rng(0).standard_normal(tuple(got.shape)))
    grads = torch.autograd.grad(got, list(leaves.values()), mix.to(got.dtype), allow_unused=True)
    return {
        name: np.zeros(leaf.shape) if grad is None else grad.resolve_neg().numpy()
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
    }


def _same_gradients(got: list[dict[str, np.ndarray]], want: list[dict[str, np.ndarray]]) -> bool:
    pairs = ((a[name], b[name]) for a, b in zip(got, want, strict=True) for name in b)
    return all(bool(_close(a, b, "float32", equal_nan=True).all()) for a, b in pairs)


def _where_gradients_differ(got: list[dict[str, np.ndarray]], want: list[dict[str, np.ndarray]]) -> str:
    for mine, right in zip(got, want, strict=True):
        for name in right:
            if np.isnan(mine[name]).any():
                return f"The values are right, but the gradient with respect to `{name}` holds NaN."
            if not mine[name].any() and right[name].any():
                return f"The values are right, but no gradient reaches `{name}`."
            if not _close(mine[name], right[name], "float32").all():
                return f"The values are right, but the gradient with respect to `{name}` is not."
    raise AssertionError("called with equal gradients")


class _Forbid(TorchFunctionMode):
    """Refuses the library functions that would do the whole exercise, by whatever name they are called."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (name := getattr(function, "__name__", "")) in self.names:
            raise guard.Complaint(f"Here you build what `{name}` does: write it without calling it.")
        return function(*args, **(kwargs or {}))


def _does_nothing(answer: Callable[..., Any]) -> bool:
    """Whether the function's body is only dots, `pass` or a docstring."""
    if not isinstance(answer, types.FunctionType):
        return False
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "COPY_FREE_VARS"}
    steps = list(dis.get_instructions(inspect.unwrap(answer).__code__))
    returned = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return {step.opname for step in steps} <= idle and returned in ([None], [...])


def _same_code(a: types.CodeType, b: types.CodeType) -> bool:
    """Whether two functions were written alike, wherever they stand."""
    if (a.co_code, a.co_names, len(a.co_consts)) != (b.co_code, b.co_names, len(b.co_consts)):
        return False
    pairs = zip(a.co_consts, b.co_consts, strict=True)
    return all(_same_code(x, y) if inspect.iscode(x) and inspect.iscode(y) else x == y for x, y in pairs)


def _plain(answer: Any) -> Any:
    """Numbers as float, sequences as tuples of them; everything else as it is."""
    if isinstance(answer, Tensor | np.ndarray | np.generic):
        answer = answer.tolist()
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return float(answer)
    if isinstance(answer, list | tuple):
        return tuple(_plain(x) for x in answer)
    return answer


def _equal(a: Any, b: Any) -> bool:
    a, b = _plain(a), _plain(b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, float):
        return isinstance(b, float) and abs(a - b) <= 1e-3 * abs(b)
    return type(a) is type(b) and a == b


def _within(given: tuple[float, ...], ranges: Any) -> bool:
    return all(low <= x <= high for x, (low, high) in zip(given, ranges, strict=True))


def _side_by_side(want: float, got: float) -> str:
    """Two numbers that differ, with as many decimals as it takes to see it."""
    digits = next((d for d in range(4, 17) if f"{want:.{d}f}" != f"{got:.{d}f}"), 17)
    apart = f"; they differ by {abs(want - got):.1e}" if digits > 4 else ""
    return f"expected {want:.{digits}f}, given {got:.{digits}f}{apart}"


def _what_was_printed(printed: str) -> list[str | Code]:
    if not printed.strip():
        return []
    lines = printed.rstrip().splitlines()
    more = ["..."] if len(lines) > LINES_SHOWN else []
    return ["Your code printed, on the first input:", Code("\n".join(lines[:LINES_SHOWN] + more))]


def _an(name: str) -> str:
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.05)
