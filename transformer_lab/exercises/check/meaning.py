"""What an error of PyTorch or Python means, told of the operation that raised it."""

import dis
import inspect
import re
import types
from collections.abc import Callable
from typing import Any

from . import guard
from .watch import Operation

PRODUCTS = {"matmul", "mm", "bmm", "mv", "dot"}

# How PyTorch complains about shapes; its other errors are about something else.
SHAPES_CLASH = re.compile(
    "must match the (?:size|existing size)|Expected size for first two dimensions|cannot be multiplied"
    "|size mismatch, got|inconsistent tensor size|is invalid for input of size|multiply up"
    "|is not compatible with input tensor|does not broadcast with|to be equal size"
    "|Sizes of tensors must match"
)


def meaning(error: BaseException) -> list[str]:
    """What the error comes to, in a sentence or none."""
    said = str(error)
    if "NoneType" in said and (idle := _used(error, does_nothing)):
        return [
            f"`{idle}` still holds its dots, so it gives `None`. It is an exercise of its own: do it first."
        ]
    if "tuple" in said and _used(error, lambda used: used.__name__ == "attention"):
        return [
            "`attention` returns two things, the output and the weights: `output, weights = attention(...)`."
        ]
    operation = getattr(error, "operation", None)
    if operation is None or not SHAPES_CLASH.search(said):
        return []
    return [f"The shapes do not fit. {_shapes_clash(operation, said)}"]


def family(error: BaseException) -> tuple[str, bool]:
    """What sort of operation failed: two errors of the same words may come from different ones."""
    if (operation := getattr(error, "operation", None)) is None:
        return "", False
    kind = "product" if operation.name in PRODUCTS else "linear" if operation.name == "linear" else "other"
    return kind, operation.after_t


def _shapes_clash(operation: Operation, said: str) -> str:
    name, written, shapes = operation.name, operation.written, operation.shapes
    got = " and ".join(map(str, shapes))
    if operation.after_t:
        return (
            "`.T` turns all axes round, the first one too; `transpose(-2, -1)` swaps the last two and leaves "
            f"the others where they are. `{written}` got {got}."
        )
    if name in PRODUCTS:
        return (
            "`A @ B` sums over the last axis of A and the last but one of B (its only one, if B is one row): "
            f"these must be equally long, and the axes before them alike. Here A and B are {got}."
        )
    if name == "linear":
        wanted, came = shapes[1][-1], shapes[0][-1]
        return f"A linear layer for rows of {wanted} numbers got rows of {came}: a tensor {shapes[0]}."
    if name == "masked_fill":
        return (
            f"`{written}` stretches the mask to the tensor that it fills: counted from the last, each axis "
            f"of the mask must be 1 or as long as the tensor's. Tensor and mask are {got}."
        )
    if "not compatible with input tensor" in said:
        return (
            "`view` only renames places in memory, and after a swap of axes the numbers of a row no longer "
            "lie side by side: `reshape` copies them."
        )
    if "invalid for input of size" in said or "multiply up" in said:
        return f"`{name}` keeps every number: the new sizes must multiply up to what is there, in {got}."
    if name == "einsum":
        return f"In `einsum` a letter stands for one length, wherever it stands; the tensors are {got}."
    if "Sizes of tensors must match" in said or "to be equal size" in said:
        return f"`{written}` needs pieces that are alike in all other axes; these are {got}."
    if "must match the existing size" in said:
        return (
            "Only an axis of length 1 is stretched: counted from the last, each must be 1 or as long as the "
            "place where it goes."
        )
    if "must match the size" in said:
        return (
            f"`{written}` works entry by entry: counted from the last, two axes must be equally long, or one "
            f"of them 1; here the shapes are {got}."
        )
    return f"`{written}` got {got}."


def _used(error: BaseException, wanted: Callable[[Any], bool]) -> str:
    """The name of a function for which ``wanted`` holds, in use where the learner's code was at the error."""
    for frame, _ in guard.their_places(error):
        for name in frame.f_code.co_names:
            if isinstance(used := frame.f_globals.get(name), types.FunctionType) and wanted(used):
                return name
    return ""


def does_nothing(answer: Callable[..., Any]) -> bool:
    """Whether the function's body is only dots, `pass` or a docstring."""
    if not isinstance(written := inspect.unwrap(answer), types.FunctionType):
        return False
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "COPY_FREE_VARS"}
    steps = list(dis.get_instructions(written.__code__))
    returned = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return {step.opname for step in steps} <= idle and returned in ([None], [...])
