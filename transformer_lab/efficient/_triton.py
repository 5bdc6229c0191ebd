"""Triton: on a GPU, or where there is none by its interpreter on the CPU: slow, and how it is tested."""

import os

import torch

INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported, and when a kernel is made
try:
    import triton
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
except ModuleNotFoundError as missing:
    sentence = "kernels need Triton, which there is for Linux: pip install triton"
    raise ModuleNotFoundError(sentence, name="triton") from missing
if INTERPRETED and not isinstance(tl.cdiv, InterpretedFunction):
    raise ImportError(
        "without a GPU kernels need TRITON_INTERPRET=1 before anything imports Triton, and something had:"
        " set it where the program starts"
    )

__all__ = ["tl", "triton"]
