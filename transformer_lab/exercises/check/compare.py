"""Whether an answer is right, and where not.

Everything that decides is computed in NumPy, in float64, so that neither a mistake of ours in torch nor a
torch that the learner has patched can make a wrong answer look right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import guard
from .show import an
from .watch import Watch, in_place

Inputs = dict[str, Any]  # parameter name -> array or whole number, in the order of the parameters
Function = Callable[..., Tensor]  # of tensors, in the order of the inputs
Gradients = dict[str, np.ndarray]  # input -> gradient of a fixed mix of the answer's entries

# A float32 answer carries errors near 1e-7 of its size, some operations later 1e-6; slips are far above. In a
# float64 answer one number that went through float32, such as `torch.tensor(8).sqrt()`, is worth a remark.
TOLERANCE = {"float32": (1e-4, 1e-5), "float64": (1e-6, 1e-7), "bool": (0.0, 0.0), "int64": (0.0, 0.0)}
FEW = 24  # numbers that are read at a glance
LARGE = 50.0  # numbers from which an exponential may overflow, if they are scores or multiplied to scores
EXP_LIMIT = {"float32": 88, "float64": 709}
ROUNDING = (1e-9, 1e-10)  # of an answer that is float64 throughout
EXACT = {  # what is asked for, where the answer is no measured number
    "bool": "a boolean mask, True = may attend (a comparison gives one, and so does `.bool()`)",
    "int64": "whole numbers, int64",
}


@dataclass(frozen=True)
class Case:
    """One set of inputs and the right answer; arrays are float64 copies of what the learner gets."""

    inputs: Inputs
    dtype: torch.dtype
    want: np.ndarray

    @property
    def exact(self) -> str:
        """The type that the answer must have, if it is a mask or whole numbers; otherwise nothing."""
        return "" if _real(self.want) else str(self.want.dtype)

    def tensors(self) -> list[Any]:
        return [_tensor(value, self.dtype) for value in self.inputs.values()]

    def call(self, names: tuple[str, ...]) -> str:
        """How the learner's code was called, for messages: those of its inputs that have these names."""
        shown = {name: self.inputs[name] for name in names}
        parts = (
            f"{name} {value.shape}" if isinstance(value, np.ndarray) else f"{name} = {value}"
            for name, value in shown.items()
        )
        precision = f", in {plainly(self.dtype)}" if any(map(_real, self.inputs.values())) else ""
        return ", ".join(parts) + precision

    def in_full(self, names: tuple[str, ...]) -> str:
        """The numbers of these inputs, if they are few."""
        arrays = self._arrays(names)
        if sum(x.size for x in arrays.values()) > FEW:
            return ""
        shown = (
            f"{name} = {np.array2string(x, precision=4, suppress_small=True, prefix=f'{name} = ')}"
            for name, x in arrays.items()
        )
        return "\n".join(shown)

    def too_large(self, names: tuple[str, ...]) -> list[str]:
        """What to say of NaN or infinity, if one of these inputs is so large that `exp` may overflow."""
        arrays = self._arrays(names)
        extremes = {name: x.flat[np.abs(x).argmax()] for name, x in arrays.items() if _real(x)}
        name = max(extremes, key=lambda name: abs(extremes[name]), default="")
        if not name or abs(extremes[name]) < LARGE:
            return []
        dtype = plainly(self.dtype)
        return [
            f"An overflow, most likely: in this input `{name}` reaches {extremes[name]:.4g}. In {dtype}, "
            f"`exp` of more than {EXP_LIMIT[dtype]} is infinity, and of a number far below 0 it is 0; "
            "infinity / infinity and 0 / 0 are NaN."
        ]

    def first_real(self, names: tuple[str, ...]) -> str:
        """The first of these inputs that comes in the case's precision, if any does."""
        return next((name for name in names if _real(self.inputs[name])), "")

    def _arrays(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {name: x for name in names if isinstance(x := self.inputs[name], np.ndarray)}


@dataclass(frozen=True)
class Answer:
    """What the learner's code gave, read into NumPy."""

    values: np.ndarray
    dtype: str


def plainly(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rounded(value: Any, dtype: torch.dtype) -> Any:
    """What remains of ``value`` in ``dtype``, so that reference and learner see the same numbers."""
    if dtype == torch.float32 and _real(value):
        return value.astype(np.float32).astype(np.float64)
    return value


def _tensor(value: Any, dtype: torch.dtype) -> Any:
    """A fresh tensor of the case's precision; masks and whole numbers stay as they are."""
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.from_numpy(value.copy())
    return tensor.to(dtype) if _real(value) else tensor


def _real(value: Any) -> bool:
    """Whether it is an array of real numbers, whose precision is chosen: no mask, no whole numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


# Values


def answer_to(function: Function, case: Case, forbidden: Sequence[str] = ()) -> Answer:
    """What ``function`` makes of the case; a complaint if that is no answer, or if it changed its inputs."""
    given, chance = case.tensors(), torch.get_rng_state()
    with Watch(forbidden) as watch:
        got = function(*given)
    if watch.layer and not torch.equal(chance, torch.get_rng_state()):
        raise guard.Complaint(
            f"A new `{watch.layer}` starts with random weights, and your code makes one at every call: "
            "compute with what is given."
        )
    for tensor, (name, value) in zip(given, case.inputs.items(), strict=True):
        if isinstance(value, np.ndarray) and not np.array_equal(tensor.detach().numpy(), value):
            raise guard.Complaint(
                f"Your code changed its input `{name}` in place. {watch.wrote_into(tensor)}"
            )
    return _read(got, case)


def _read(got: Any, case: Case) -> Answer:
    """The learner's tensor in NumPy, or a complaint about what it is instead."""
    if got is None or got is ...:
        raise guard.Complaint("Your code returned nothing. Does it end with `return`?")
    if isinstance(got, tuple):
        raise guard.Complaint(f"Return one tensor; this is a tuple of {len(got)}.")
    if isinstance(got, list) and got and all(isinstance(row, Tensor) for row in got):
        raise guard.Complaint(
            "Return a tensor; this is a list. "
            "`torch.stack(rows)` makes a tensor of a list of equally long rows."
        )
    if not isinstance(got, Tensor):
        raise guard.Complaint(f"Return a tensor; this is {an(type(got).__name__)}.")
    if got.device.type != "cpu":
        raise guard.Complaint(
            f"Your answer is on {got.device} and the inputs are on cpu; keep the answer where its inputs are."
        )
    if got.layout is not torch.strided:
        raise guard.Complaint(f"Return an ordinary tensor; this one has the layout {got.layout}.")
    dtype = plainly(got.dtype)
    if case.exact:
        if dtype != case.exact:
            raise guard.Complaint(f"Return {EXACT[case.exact]}; this is {dtype}.")
    elif dtype not in ("float32", "float64"):
        raise guard.Complaint(f"Return {plainly(case.dtype)}, the type of the inputs; this is {dtype}.")
    return Answer(_numpy(got), dtype)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().resolve_neg().double().numpy().copy()


def agrees(got: np.ndarray, want: np.ndarray, dtype: str) -> bool:
    """Equal shapes, and all values close; a NaN agrees with nothing."""
    return got.shape == want.shape and bool(close(got, want, dtype).all())


def close(got: np.ndarray, want: np.ndarray, dtype: str, *, equal_nan: bool = False) -> np.ndarray:
    rtol, atol = TOLERANCE[dtype]
    return np.isclose(got, want, rtol=rtol, atol=atol, equal_nan=equal_nan)


def lost_precision(case: Case, answer: Answer) -> bool:
    """Whether a right answer to float64 inputs carries errors that float64 does not make."""
    rtol, atol = ROUNDING
    return (
        case.dtype == torch.float64
        and answer.dtype == "float64"
        and not np.allclose(answer.values, case.want, rtol=rtol, atol=atol)
    )


def side_by_side(want: float, got: float) -> str:
    """Two numbers that differ, with as many decimals as it takes to see it."""
    if isinstance(want, np.bool_ | np.integer):
        return f"expected {want}, given {type(want)(got)}"
    if max(abs(want), abs(got)) >= 1e6:  # infinity and NaN have no decimals anyway
        return f"expected {want:.5g}, given {got:.5g}"
    digits = next((d for d in range(4, 17) if f"{want:.{d}f}" != f"{got:.{d}f}"), 17)
    apart = f"; they differ by {abs(want - got):.1e}" if digits > 4 else ""
    return f"expected {want:.{digits}f}, given {got:.{digits}f}{apart}"


def refuse_one_tensor_for_all(function: Function, one: Case, other: Case) -> None:
    """A complaint if a second call writes into what the first one gave."""
    first = function(*one.tensors())
    before = _numpy(first)
    function(*other.tensors())
    if not np.array_equal(_numpy(first), before):
        raise guard.Complaint(
            "Each answer is right, but calling your code again changes the answer it gave before: both are "
            "one tensor, kept between calls. Make a new one in each call."
        )


# Gradients


def gradients(function: Function, case: Case) -> Gradients:
    """The gradient of a fixed random mix of the answer's entries with respect to every real input."""
    with torch.inference_mode(False):  # gradients flow here, whatever holds around the check
        given = case.tensors()
        leaves = {
            name: tensor.requires_grad_()
            for name, tensor in zip(case.inputs, given, strict=True)
            if isinstance(tensor, Tensor) and tensor.is_floating_point()
        }
        with Watch() as watch:
            got = function(*given)
    if not got.requires_grad:
        raise guard.Complaint(
            "The values are right, but no gradient flows back to the inputs, so a model made of it could not "
            "learn. `.detach()`, `.item()`, `.numpy()`, `torch.tensor(...)` and `torch.no_grad()` cut it off."
        )
    mix = torch.from_numpy(np.random.default_rng(0).standard_normal(tuple(got.shape)))
    with torch.autograd.set_detect_anomaly(False):  # NaN is not the notebook's to find, but ours to name
        try:
            grads = torch.autograd.grad(got, list(leaves.values()), mix.to(got.dtype), allow_unused=True)
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error):
                raise _overwritten(watch) from error
            raise
    return {
        name: np.zeros(leaf.shape) if grad is None else grad.resolve_neg().numpy()
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
    }


def _overwritten(watch: Watch) -> guard.Complaint:
    """Instead of autograd's complaint, which names neither the line nor the operator."""
    how = " ".join(dict.fromkeys(map(in_place, watch.writes.values())))
    return guard.Complaint(
        "The values are right, but the gradient needs numbers that your code has written over on the way. "
        f"{how or in_place('')}"
    )


def same_gradients(got: list[Gradients], want: list[Gradients]) -> bool:
    pairs = ((a[name], b[name]) for a, b in zip(got, want, strict=True) for name in b)
    return all(bool(close(a, b, "float32", equal_nan=True).all()) for a, b in pairs)


def where_gradients_differ(got: list[Gradients], want: list[Gradients]) -> str:
    for mine, right in zip(got, want, strict=True):
        for name in right:
            wrong = ~close(mine[name], right[name], "float32")
            if np.isnan(mine[name]).any():
                return f"The values are right, but the gradient with respect to `{name}` holds NaN."
            if not mine[name].any() and right[name].any():
                return f"The values are right, but no gradient reaches `{name}`."
            if wrong.any():
                spot = tuple(np.argwhere(wrong)[0].tolist())
                return (
                    f"The values are right, but the gradient with respect to `{name}` is not: at "
                    f"{list(spot)}, {side_by_side(right[name][spot], mine[name][spot])}."
                )
    raise AssertionError("called with equal gradients")
