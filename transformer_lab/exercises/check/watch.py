"""What an answer asks of torch while it runs: noted for the messages, and where it must be, refused."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import guard

OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@"}


@dataclass(frozen=True)
class Operation:
    """The operation that raised an error, as torch names it, and the shapes of the tensors it got."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    after_t: bool  # whether `.T` had turned round a tensor of three axes or more


class Watch(TorchFunctionMode):
    """Notes what is written in place and which operation fails (as ``error.operation``).

    Args:
        forbidden: the names of library functions that would do the whole exercise, by whatever name they are
            called; a call raises a complaint.
    """

    def __init__(self, forbidden: Sequence[str] = ()) -> None:
        super().__init__()
        self.forbidden = forbidden
        self.writes: dict[int, str] = {}  # where a tensor's numbers lie -> what wrote there last
        self.after_t = False

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name.removeprefix("special_").strip("_") in self.forbidden:
            raise guard.Complaint(f"Here you build what `{name}` does: write it without calling it.")
        given = _tensors([*args, *(kwargs or {}).values()])
        self.after_t |= function == torch.Tensor.T.__get__ and given[0].ndim > 2
        try:
            result = function(*args, **(kwargs or {}))
        except Exception as error:
            with contextlib.suppress(Exception):  # no error of ours may hide theirs
                shapes = tuple(tuple(tensor.shape) for tensor in given)
                error.operation = Operation(name.strip("_"), shapes, self.after_t)
            raise
        if _writes(name) and given:
            with contextlib.suppress(Exception):  # a sparse tensor has no such place
                self.writes[_place(given[0])] = name
        return result

    def wrote_into(self, tensor: Tensor) -> str:
        """How the last write into the tensor's numbers looks, and what to write in its place."""
        return in_place(self.writes.get(_place(tensor), ""))


def in_place(name: str) -> str:
    """What a write in place does, and what to write for it.

    >>> in_place("div_")
    '`/=` writes into the tensor that is there. Write `x = x / ...`, which makes a new one.'
    """
    writes = "writes into the tensor that is there."
    if (sign := OPERATORS.get(name.removesuffix("_"))) is not None:
        return f"`{sign}=` {writes} Write `x = x {sign} ...`, which makes a new one."
    if name == "__setitem__":
        return (
            f"An assignment such as `x[0] = ...` {writes} Write into a new one, "
            "`x.clone()` or `torch.zeros_like(x)`."
        )
    if name:
        return f"`{name}` {writes} `{name[:-1]}`, without the last `_`, makes a new one."
    return (
        "Work on a new tensor: operations whose name ends in _ and assignments such as `x[0] = ...` write "
        "into the old one."
    )


def _writes(name: str) -> bool:
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("_"))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    """Those among the arguments, one list deep."""
    flat = (x for given in arguments for x in (given if isinstance(given, list | tuple) else [given]))
    return [x for x in flat if isinstance(x, Tensor)]
