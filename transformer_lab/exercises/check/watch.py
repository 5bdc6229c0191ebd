"""What an answer asks of torch while it runs: noted for the messages, and where it must be, refused."""

import contextlib
import dis
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import guard

# How to call what nobody wrote by name or sign: Python's `sum`, `max` and such ask for it.
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@", "lt": "<", "gt": ">"}


@dataclass(frozen=True)
class Operation:
    """The operation that raised an error, and the shapes of the tensors it got."""

    name: str  # torch's
    written: str  # the operator or the name that the learner wrote
    shapes: tuple[tuple[int, ...], ...]
    after_t: bool  # whether `.T` had turned round a tensor of three axes or more


class Watch(TorchFunctionMode):
    """Notes what is written in place, which operation fails (as ``error.operation``) and which layer is new.

    Args:
        forbidden: the names of library functions that would do the whole exercise, by whatever name they are
            called; a call raises a complaint.
    """

    def __init__(self, forbidden: Sequence[str] = ()) -> None:
        super().__init__()
        self.forbidden = forbidden
        self.writes: dict[int, str] = {}  # where a tensor's numbers lie -> how the last write was written
        self.layer = ""  # the class of a module with random weights, if the learner's code made one
        self.after_t = False

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name.removeprefix("special_").strip("_") in self.forbidden:
            called = _as_written(name)
            raise guard.Complaint(f"`{called}` is off limits in this exercise: write the answer without it.")
        given = _tensors([*args, *(kwargs or {}).values()])
        self.after_t |= function == torch.Tensor.T.__get__ and given[0].ndim > 2
        writes = _writes(name) and bool(given)
        chance = torch.get_rng_state() if writes and isinstance(given[0], nn.Parameter) else None
        try:
            result = function(*args, **(kwargs or {}))
        except Exception as error:
            with contextlib.suppress(Exception):  # no error of ours may hide theirs
                shapes = tuple(tuple(tensor.shape) for tensor in given)
                error.operation = Operation(name.strip("_"), _as_written(name), shapes, self.after_t)
            raise
        if writes:
            with contextlib.suppress(Exception):  # a sparse tensor has no such place
                self.writes[_place(given[0])] = _as_written(name)
        if chance is not None and not torch.equal(chance, torch.get_rng_state()):
            self.layer = self.layer or _layer_that_starts()
        return result

    def wrote_into(self, tensor: Tensor) -> str:
        """How the last write into the tensor's numbers looks, and what to write in its place."""
        return in_place(self.writes.get(_place(tensor), ""))


def in_place(written: str) -> str:
    """What a write in place does, and what to write for it.

    >>> in_place("/=")
    '`/=` writes into the tensor that is there. Write `x = x / ...`, which makes a new one.'
    >>> in_place("div_")
    '`div_` writes into the tensor that is there. `div`, without the last `_`, makes a new one.'
    """
    writes = "writes into the tensor that is there."
    if written.endswith("="):
        return f"`{written}` {writes} Write `x = x {written[:-1]} ...`, which makes a new one."
    if written == "__setitem__":
        return (
            f"An assignment such as `x[0] = ...` {writes} Write into a new one, "
            "`x.clone()` or `torch.zeros_like(x)`."
        )
    if hasattr(Tensor, written[:-1]):
        return f"`{written}` {writes} `{written[:-1]}`, without the last `_`, makes a new one."
    if written:
        return f"`{written}` {writes} Work on `x.clone()`."
    return (
        "Work on a new tensor: operations whose name ends in _ and assignments such as `x[0] = ...` write "
        "into the old one."
    )


def _as_written(name: str) -> str:
    """The operator, or else the name, with which the learner's code asks for what torch calls ``name``."""
    frame = next(filter(guard.is_theirs, _frames()), None)
    if frame and (sign := _operators(frame.f_code).get(frame.f_lasti)):
        return sign
    return name if frame and name in frame.f_code.co_names else OPERATORS.get(name, name)


@functools.lru_cache
def _operators(code: CodeType) -> dict[int, str]:
    """The operators of two sides that stand in the code, each under the place of its instruction."""
    steps = list(dis.get_instructions(code))
    signs = {step.offset: step.argrepr for step in steps if step.opname == "BINARY_OP"}
    return signs | {step.offset: step.argval for step in steps if step.opname == "COMPARE_OP"}


def _layer_that_starts() -> str:
    """The class of the outermost module whose `__init__` runs, if it is the learner's code that makes it."""
    starting = [
        frame
        for frame in _frames()
        if frame.f_code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), nn.Module)
    ]
    if starting and guard.is_theirs(starting[-1].f_back):
        return type(starting[-1].f_locals["self"]).__name__
    return ""


def _frames() -> Iterator[FrameType]:
    """What runs now, from the inside out."""
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back


def _writes(name: str) -> bool:
    dunders = ("__setitem__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__")
    return name in dunders or (name.endswith("_") and not name.startswith("_"))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    """Those among the arguments, one list deep."""
    flat = (x for given in arguments for x in (given if isinstance(given, list | tuple) else [given]))
    return [x for x in flat if isinstance(x, Tensor)]
