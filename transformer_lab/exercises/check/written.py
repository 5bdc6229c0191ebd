"""The kinds in which a learner hands in code: implement (a function or a module) and debug.

Letters: B batch, T query tokens, S key/value tokens, D model width, H heads, Dh head width.
"""

import ast
import contextlib
import dis
import functools
import inspect
import itertools
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import guard
from .compare import (
    Answer,
    Case,
    Function,
    Gradients,
    Inputs,
    agrees,
    answer_to,
    close,
    gradients,
    lost_precision,
    plainly,
    refuse_one_tensor_for_all,
    rounded,
    same_gradients,
    side_by_side,
    where_gradients_differ,
)
from .exercise import Exercise, source
from .meaning import does_nothing, family, meaning
from .show import Code, Picture, Result, an
from .watch import Watch

Sizes = tuple[Any, ...]  # what ``inputs`` takes after the generator: sizes, and the sort of a mask

LINES_SHOWN = 20  # of what the learner prints

SUPER = "`__init__` should begin with `super().__init__()`: only then can a module take layers in."

NO_NUMPY = (
    "The values are right. But gradients do not flow through NumPy, and `.detach()` would only hide that: "
    "write it with the functions of tensors."
)


@dataclass(frozen=True)
class Slip:
    """A wrong answer that people really write, and the sentence that names it."""

    sentence: str
    answer: Callable[..., Any]  # as a learner would hand it in
    function: Function  # of a case's tensors


class Implement(Exercise):
    """The learner writes a function of tensors; values and gradients are compared.

    Args:
        axes: the axes of the answer in the book's letters, such as "B H T Dh".
        inputs: makes the arguments by name from a generator and one entry of ``sizes``.
        sizes: from small to large; numbers that differ, so that a mistaken axis shows.
        reference: the right answer in NumPy, written independently of the solution; booleans or whole
            numbers ask for an answer of just that type.
        forbidden: names of library functions, and of modules, that would do the whole exercise.
        gradient: whether gradients must flow, and be right.
        probes: more sizes, on which nothing is judged: they tell slips apart that are alike on the others.
    """

    kind = "implement"

    def __init__(
        self,
        solve: Callable[..., Any],
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

    def slip(self, sentence: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate a wrong answer with the sentence that names it."""
        return self._adds_to(self.slips, sentence)

    def crash(self, sentence: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As ``slip``, for a wrong answer that raises; it is known by the error it raises."""
        return self._adds_to(self.crashes, sentence)

    def _adds_to(
        self, slips: list[Slip], sentence: str
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(answer: Callable[..., Any]) -> Callable[..., Any]:
            slips.append(Slip(" ".join(sentence.split()), answer, self.function(answer)))
            return answer

        return add

    @property
    def stub(self) -> str:
        """The solution's first line and docstring, and three dots to replace."""
        return _stub(source(self.solve))

    def cases(self) -> list[Case]:
        """The same on every run; the two precisions take turns."""
        precisions = (torch.float32, torch.float64)
        return [
            self.case(np.random.default_rng(seed), sizes, precisions[seed % 2])
            for seed, sizes in enumerate(self.sizes)
        ]

    def probe_cases(self) -> list[Case]:
        """The inputs that only tell slips apart."""
        return [self.case(np.random.default_rng(0), sizes, torch.float64) for sizes in self.probes]

    def gradient_cases(self) -> list[Case]:
        """The inputs on which gradients are compared, all in float64."""
        return [
            self.case(np.random.default_rng(seed), sizes, torch.float64)
            for seed, sizes in enumerate(self.sizes)
        ]

    def case(self, rng: np.random.Generator, sizes: Sizes, dtype: torch.dtype) -> Case:
        inputs = {name: rounded(value, dtype) for name, value in self.inputs(rng, *sizes).items()}
        return Case(inputs, dtype, self.reference(**inputs))

    def function(self, answer: Callable[..., Any]) -> Function:
        """What is handed in, as a function of the tensors of a case."""
        return answer

    def _judge(self, answer: Any, deadline: float) -> Result:
        if problem := self._not_handed_in(answer):
            return self._not_yet(problem)
        if self._untouched(answer):
            return self._not_attempted(self._invitation())
        if idle := self._half_done(answer):
            return self._not_yet(idle)
        function = self.function(answer)
        answers: list[Answer] = []
        cases = self.cases()
        printed = ""
        for case in cases:
            outcome = self._run(function, case, deadline)
            printed = printed or outcome.printed
            if outcome.problem:
                break
            answers.append(outcome.value)
        said = _what_was_printed(printed)
        tried = list(zip(cases, answers, strict=False))
        wrong = [pair for pair in tried if not agrees(pair[1].values, pair[0].want, pair[1].dtype)]
        if wrong:
            probed = [] if outcome.problem else self._probed(function, deadline)
            named = self._slip_of(tried + probed)
            if not named and any(map(self._is_plainly_wrong, wrong)):  # an overflow elsewhere hides nothing
                named = self._slip_of(list(filter(_is_finite, tried)))
            found = self._mixed_up(answer) or ([named] if named else self._difference(*wrong[0]))
            return self._not_yet(*found, *said)
        if outcome.problem:
            if not outcome.error:
                return self._not_yet(*self._mixed_up(answer), *outcome.problem, *said)
            # To look at an error may run code of the learner's: its class can be theirs.
            meant = guard.run(lambda: self._meaning(outcome.error, case), _left(deadline)).value or []
            called = f"The input was {case.call(self._called_with(case))}."
            return self._not_yet(*(self._mixed_up(answer) or meant), *outcome.problem, called, *said)
        if problem := self._fresh(function, deadline) or self._gradients(function, deadline):
            return self._not_yet(*problem, *said)
        return self._passed(self._praise(), *self._remarks(tried), *said)

    def _not_handed_in(self, answer: Any) -> str:
        if callable(answer):
            return ""
        return f"Hand in the function itself, `check({self.name})`, not {an(type(answer).__name__)}."

    def _untouched(self, answer: Callable[..., Any]) -> bool:
        return does_nothing(answer)

    def _half_done(self, answer: Any) -> str:
        """Which part is still to be written, if only some are."""
        return ""

    def _mixed_up(self, answer: Any) -> list[str]:
        """What to say if the arguments have the names of the inputs in another order."""
        return _in_another_order(answer, list(self.inputs(np.random.default_rng(0), *self.sizes[0])))

    def _invitation(self) -> str:
        return (
            f"Replace the dots in `{self.name}` by your code and run the cell again. "
            f"`ex.{self.name}.hint()` helps a little at a time."
        )

    def _praise(self) -> str:
        what = "values and gradients are" if self.gradient else "values are"
        return f"On {len(self.sizes) + 1} inputs of different sizes the {what} right."

    def _called_with(self, case: Case) -> tuple[str, ...]:
        """The names of the inputs that the learner's code is called with."""
        return tuple(case.inputs)

    def _run(self, function: Function, case: Case, deadline: float) -> guard.Outcome:
        return guard.run(lambda: answer_to(function, case, self.forbidden), _left(deadline))

    def _is_plainly_wrong(self, pair: tuple[Case, Answer]) -> bool:
        """Whether a wrong answer is wrong without any overflow, to an input that is not large."""
        return _is_finite(pair) and not pair[0].too_large(self._called_with(pair[0]))

    def _fresh(self, function: Function, deadline: float) -> tuple[str, ...]:
        """Two inputs that nobody has seen before, against answers that remember instead of compute."""
        chance = np.random.default_rng()
        case, other = (self.case(chance, self.sizes[0], torch.float64) for _ in range(2))
        outcome = self._run(function, case, deadline)
        if outcome.problem:
            return outcome.problem
        if not agrees(outcome.value.values, case.want, outcome.value.dtype):
            return ("Right on the inputs I always use, and wrong on a fresh one: compute, do not remember.",)
        return guard.run(lambda: refuse_one_tensor_for_all(function, case, other), _left(deadline)).problem

    def _gradients(self, function: Function, deadline: float) -> tuple[str, ...]:
        if not self.gradient:
            return ()
        cases = self.gradient_cases()
        # Ours first: torch imports a good deal at its first gradient, and a thread that is stopped in the
        # middle of an import leaves half a module behind.
        want = [gradients(self.function(self.solve), case) for case in cases]
        outcome = guard.run(lambda: [gradients(function, case) for case in cases], _left(deadline))
        if outcome.problem:
            meant = [NO_NUMPY] if "numpy() on Tensor that requires grad" in outcome.problem[0] else []
            return (*meant, *outcome.problem, "(This came up while I asked for gradients.)")
        if same_gradients(outcome.value, want):
            return ()
        for slip in self.slips:
            if slipped_gradients(slip, cases, outcome.value):
                return (slip.sentence,)
        return (where_gradients_differ(outcome.value, want),)

    def _probed(self, function: Function, deadline: float) -> list[tuple[Case, Answer]]:
        """What the answer gives on the probes, as far as it gives anything."""
        outcomes = [(case, self._run(function, case, deadline)) for case in self.probe_cases()]
        return [(case, outcome.value) for case, outcome in outcomes if not outcome.problem]

    def _slip_of(self, tried: list[tuple[Case, Answer]]) -> str | None:
        """The sentence of the slip that gives the learner's answers on every input tried."""
        for slip in self.slips:
            if all(slipped(slip, case, answer) for case, answer in tried):
                return slip.sentence
        return None

    def _meaning(self, raised: BaseException, case: Case) -> list[str]:
        """What the learner's error means: the sentence of a slip that raises the same, or a general one."""
        for crash in self.crashes:
            try:
                with Watch():
                    crash.function(*case.tensors())
            except Exception as error:
                alike = guard.describe(error)[0] == guard.describe(raised)[0]
                if alike and family(error) == family(raised):
                    return [crash.sentence]
        return meaning(raised)

    def _difference(self, case: Case, answer: Answer) -> list[str | Picture]:
        got, want, axes = answer.values, case.want, ", ".join(self.axes)
        names = self._called_with(case)
        intro = f"On the smallest input that fails, {case.call(names)}:"
        if got.shape != want.shape:
            wanted = f"({axes}) = {want.shape}" if want.ndim else "one number, of shape ()"
            return [intro, f"your answer has the shape {got.shape}; it should be {wanted}."]
        wrong = ~close(got, want, answer.dtype)
        spot = tuple(np.argwhere(wrong)[0].tolist())
        where = f"the first difference is at {list(spot)} (axes {axes})" if spot else "the answers differ"
        found = f"{where}: {side_by_side(want[spot], got[spot])}."
        pictures = [Picture.around(spot, want, got, wrong, self.axes)] if want.ndim > 1 else []
        shown = [Code(small)] if (small := case.in_full(names)) else []
        overflow = [] if np.isfinite(got).all() else case.too_large(names)
        return [intro, *shown, found, *pictures, *overflow]

    def _remarks(self, tried: list[tuple[Case, Answer]]) -> list[str]:
        """What is worth a word although the answer is right."""
        for case, answer in tried:
            given = plainly(case.dtype)
            if lost_precision(case, answer):
                return [
                    "One remark: for float64 inputs your answer is right to about 8 digits only. Something "
                    "in it is float32, as what `torch.tensor(...)` makes of a number, a table that is made "
                    "without a `dtype`, or a whole number after a division."
                ]
            name = case.first_real(self._called_with(case))
            if name and answer.dtype != given and not case.exact:
                return [
                    f"One remark: for {given} inputs your answer came as {answer.dtype}. "
                    f"`{name}.new_zeros(...)` makes a tensor of the type and on the device of `{name}`."
                ]
        return []


class ImplementModule(Implement):
    """The learner writes an ``nn.Module``; it gets weights of ours, by name, before it is compared.

    So it is a function like any other: of its settings, its weights and what ``forward`` takes. That is what
    ``inputs`` makes and ``reference`` gets; what is neither setting nor argument of ``forward`` is a weight.

    Args:
        settings: the names of the inputs that the class is called with, such as ("d_model", "n_heads").
        forward: the names of the inputs that ``forward`` is called with, such as ("x", "context").
    """

    def __init__(
        self, solve: type[nn.Module], *, settings: Sequence[str], forward: Sequence[str], **rest: Any
    ):
        self.settings, self.forward = tuple(settings), tuple(forward)
        super().__init__(solve, **rest)
        self._names = list(self.inputs(np.random.default_rng(0), *self.sizes[0]))

    def function(self, answer: type[nn.Module]) -> Function:
        def build_load_and_call(*tensors: Any) -> Tensor:
            given = dict(zip(self._names, tensors, strict=True))
            settings = [given.pop(name) for name in self.settings]
            arguments = [given.pop(name) for name in self.forward]
            _refuse_ready_made([answer], self.forbidden)
            with torch.random.fork_rng(devices=[]), _precision_of(given):
                torch.default_generator.manual_seed(0)  # what a module makes of chance is the same every time
                module = answer(*settings)
            _refuse_ready_made(map(type, module.modules()), self.forbidden)
            _refuse_other_weights(module, given)
            return torch.func.functional_call(module, given, tuple(arguments))

        return build_load_and_call

    def _not_handed_in(self, answer: Any) -> str:
        if isinstance(answer, type) and issubclass(answer, nn.Module):
            return ""
        called = "without calling it" if isinstance(answer, nn.Module) else "a subclass of `nn.Module`"
        return (
            f"Hand in the class itself, `check({self.name})`, {called}; this is {an(type(answer).__name__)}."
        )

    def _untouched(self, answer: type[nn.Module]) -> bool:
        return len(self._idle(answer)) == len(self._methods())

    def _half_done(self, answer: type[nn.Module]) -> str:
        idle = self._idle(answer)
        done = [name for name in self._methods() if name not in idle]
        if not idle:
            return ""
        return (
            f"You have written {_and(done)}; {_and(idle)} still to come: put your code in place of the dots."
        )

    def _methods(self) -> list[str]:
        """The names of the methods that the learner writes."""
        return [name for name, method in vars(self.solve).items() if isinstance(method, types.FunctionType)]

    def _idle(self, answer: type[nn.Module]) -> list[str]:
        """Those in which nothing is written yet."""
        own = {name: getattr(answer, name) for name in self._methods()}
        return [
            name
            for name, method in own.items()
            if does_nothing(method) or _written_alike(method, getattr(self._empty, name))
        ]

    @functools.cached_property
    def _empty(self) -> type[nn.Module]:
        """The class with dots in all its methods; its `__init__` calls super, so it does something."""
        names: dict[str, Any] = {"torch": torch, "nn": nn}
        exec(_stub(source(self.solve)), names)
        return names[self.name]

    def _mixed_up(self, answer: type[nn.Module]) -> list[str]:
        made = _in_another_order(answer.__init__, ["self", *self.settings])
        return made or _in_another_order(answer.forward, ["self", *self.forward])

    def _meaning(self, raised: BaseException, case: Case) -> list[str]:
        made = f"{self.name}({', '.join(self.settings)})"
        plainly_said = {
            "before Module.__init__() call": SUPER,
            "has no attribute '_parameters'": SUPER,
            "has no attribute '_modules'": SUPER,
            "__init__() takes": f"I make your module with `{made}`: is `__init__` there, with two "
            "underscores on each side, and does it take that?",
            'required "forward" function': "Your class has no `forward`: is it there, and spelt so?",
        }
        found = [sentence for words, sentence in plainly_said.items() if words in str(raised)]
        return found[:1] or super()._meaning(raised, case)

    def _called_with(self, case: Case) -> tuple[str, ...]:
        return self.settings + self.forward


class Debug(Implement):
    """The learner gets broken code and its symptom, and hands it in repaired."""

    kind = "debug"

    def __init__(self, solve: Callable[..., Any], *, broken: Callable[..., Any], **rest: Any) -> None:
        super().__init__(solve, **rest)
        self.broken = broken

    @property
    def stub(self) -> str:
        """The broken code, to be repaired in place."""
        return source(self.broken)

    def _untouched(self, answer: Callable[..., Any]) -> bool:
        return super()._untouched(answer) or _written_alike(answer, self.broken)

    def _invitation(self) -> str:
        return (
            f"`{self.name}` is still as you got it: find the faulty line, repair it, run the cell again. "
            f"`ex.{self.name}.hint()` helps a little at a time."
        )


class DebugModule(Debug, ImplementModule):
    """As ``Debug``, for a broken module."""


# Slips


def slipped(slip: Slip, case: Case, answer: Answer) -> bool:
    """Whether the slip gives this answer. A slip may fail on some inputs: then the answer is not the slip."""
    try:
        with torch.no_grad():
            wrong = slip.function(*case.tensors()).double().numpy()
    except Exception:
        return False
    same_shape = wrong.shape == answer.values.shape
    return same_shape and bool(close(answer.values, wrong, answer.dtype, equal_nan=True).all())


def right(slip: Slip, case: Case) -> bool:
    """Whether the slip's values are right, so that only its gradients can tell."""
    return agrees(slip.function(*case.tensors()).detach().double().numpy(), case.want, "float64")


def slipped_gradients(slip: Slip, cases: list[Case], got: list[Gradients]) -> bool:
    """As ``slipped``, for slips whose values are right."""
    try:
        if not all(right(slip, case) for case in cases):
            return False
        return same_gradients(got, [gradients(slip.function, case) for case in cases])
    except Exception:
        return False


# What is handed in


def _in_another_order(written: Any, names: list[str]) -> list[str]:
    """A sentence if the function's parameters are called ``names``, but stand in another order."""
    with contextlib.suppress(Exception):  # what is built in may have no signature
        own = list(inspect.signature(written).parameters)
        if own != names and sorted(own) == sorted(names):
            own, names = (", ".join(name for name in order if name != "self") for order in (own, names))
            return [
                f"`{written.__name__}` is called with ({names}), and yours takes ({own}): keep the order."
            ]
    return []


def _and(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _refuse_ready_made(kinds: Iterable[type[nn.Module]], forbidden: Sequence[str]) -> None:
    """A complaint if one of the classes is a forbidden one, or made of it."""
    for name in (ancestor.__name__ for kind in kinds for ancestor in kind.__mro__):
        if name in forbidden:
            raise guard.Complaint(f"Here you build what `{name}` does: write it without taking it over.")


def _refuse_other_weights(module: nn.Module, wanted: dict[str, Tensor]) -> None:
    """A complaint unless the module has just the parameters that we have weights for, in their shapes."""
    named = "The names in the statement let me put my weights into your module."
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    if missing := [name for name in wanted if name not in own]:
        raise guard.Complaint(
            f"I find no parameter `{missing[0]}` in your module. {named} Is it made in `__init__`, as an "
            f"attribute of `self`? Your module has: {', '.join(own) or 'none'}."
        )
    if unknown := [name for name in own if name not in wanted]:
        more = " `bias=False` makes a linear layer without it." if unknown[0].endswith(".bias") else ""
        raise guard.Complaint(f"Your module has a parameter too many, `{unknown[0]}`.{more}")
    for name, weight in wanted.items():
        if own[name] != tuple(weight.shape):
            raise guard.Complaint(
                f"The parameter `{name}` has the shape {own[name]}; here it should be {tuple(weight.shape)}."
            )


@contextlib.contextmanager
def _precision_of(weights: dict[str, Tensor]) -> Iterator[None]:
    """So that the tables a module makes for itself are as exact as its weights."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(next(iter(weights.values())).dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _stub(solution: str) -> str:
    """A function or a class, each body replaced by three dots; see ``_stays`` for what is left."""
    lines, kept, done = solution.splitlines(), [], 0
    top = ast.parse(solution).body[0]
    functions = [top] if isinstance(top, ast.FunctionDef) else top.body
    for function in (f for f in functions if isinstance(f, ast.FunctionDef)):
        stays = list(itertools.takewhile(_stays, function.body))
        end = stays[-1].end_lineno if stays else function.body[0].lineno - 1
        kept += [*lines[done:end], " " * function.body[0].col_offset + "..."]
        done = function.end_lineno
    return "\n".join(kept)


def _stays(statement: ast.stmt) -> bool:
    """Whether a line of the solution is given to the learner: a docstring, or the call of super."""
    if not isinstance(statement, ast.Expr):
        return False
    return isinstance(statement.value, ast.Constant) or ast.unparse(statement) == "super().__init__()"


def _written_alike(answer: Any, broken: Any) -> bool:
    """Whether two functions, or all methods of two classes, do the same step by step."""
    if isinstance(broken, type):
        methods = (name for name, method in vars(broken).items() if isinstance(method, types.FunctionType))
        return all(_written_alike(getattr(answer, name, None), getattr(broken, name)) for name in methods)
    written = inspect.unwrap(answer)
    return isinstance(written, types.FunctionType) and _steps(written.__code__) == _steps(broken.__code__)


def _steps(code: types.CodeType) -> list[tuple[str, Any]]:
    """What a function does, step by step, alike wherever it stands.

    Python calls a function of a module that the same file imported in another way than one that an earlier
    cell imported; it shows in the names of the steps, and moves the targets of jumps.
    """
    jumps = {*dis.hasjrel, *dis.hasjabs}
    return [
        (
            step.opname.replace("LOAD_METHOD", "LOAD_ATTR"),
            _steps(step.argval)
            if inspect.iscode(step.argval)
            else None
            if step.opcode in jumps
            else step.argval,
        )
        for step in dis.get_instructions(code)
        if step.opname not in ("PUSH_NULL", "PRECALL")
    ]


def _is_finite(pair: tuple[Case, Answer]) -> bool:
    return bool(np.isfinite(pair[1].values).all())


def _what_was_printed(printed: str) -> list[str | Code]:
    if not printed.strip():
        return []
    lines = printed.rstrip().splitlines()
    more = ["..."] if len(lines) > LINES_SHOWN else []
    return ["Your code printed, on the first input:", Code("\n".join(lines[:LINES_SHOWN] + more))]


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.05)
