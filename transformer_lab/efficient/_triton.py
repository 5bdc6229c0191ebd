"""Triton: on a GPU, or where there is none by its interpreter on the CPU: slow, and how it is tested."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is made
try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as missing:
    sentence = "kernels need Triton, which there is for Linux: pip install triton"
    raise ModuleNotFoundError(sentence, name="triton") from missing

__all__ = ["tl", "triton"]
