"""The scan of ``selective_scan`` for a GPU: a Triton kernel, forward and backward.

A program holds some of the channels and walks along the tokens, a block of them at a time: within a block by
a parallel scan, from block to block by the last state. Nothing is written but the states. Source: that of
``selective_scan.parallel_scan``; the way through memory: Gu and Dao (2023), section 3.3.2.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._triton import tl, triton
from .selective_scan import check


@triton.jit
def _join(decay, new, next_decay, next_new):
    """Two steps one after another, as one."""
    return next_decay * decay, next_decay * new + next_new


@triton.jit
def _scan(
    decay, new, states, n_tokens, n_channels,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """(B, T, C). BACKWARD: from the last token to the first, each with the decay of the token behind it."""
    base = tl.program_id(0).to(tl.int64) * n_tokens * n_channels
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    state = tl.zeros([BLOCK_C], tl.float32)
    for start in range(0, n_tokens, BLOCK_T):
        steps = start + tl.arange(0, BLOCK_T)
        tokens, shift = steps, 0
        if BACKWARD:
            tokens, shift = n_tokens - 1 - steps, 1
        there = (steps < n_tokens)[:, None] & (channels < n_channels)[None, :]
        at = base + tokens.to(tl.int64)[:, None] * n_channels + channels[None, :]
        linked = there & (tokens + shift < n_tokens)[:, None]  # behind the last token there is none
        factors = tl.load(decay + at + shift * n_channels, mask=linked, other=1.0).to(tl.float32)
        terms = tl.load(new + at, mask=there, other=0.0).to(tl.float32)
        factors, terms = tl.associative_scan((factors, terms), 0, _join)
        found = terms + factors * state[None, :]
        tl.store(states + at, found.to(states.dtype.element_ty), mask=there)
        last = tl.arange(0, BLOCK_T)[:, None] == BLOCK_T - 1
        state = tl.sum(tl.where(last, found, 0.0), 0)


def _run(decay: Tensor, new: Tensor, blocks: tuple[int, int], *, backward: bool) -> Tensor:
    states = torch.empty_like(new)
    n_batch, n_tokens, n_channels = new.shape
    grid = n_batch, triton.cdiv(n_channels, blocks[1])
    with torch.cuda.device_of(new):
        _scan[grid](decay, new, states, n_tokens, n_channels, *blocks, backward)
    return states


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, decay, new, blocks):
        states = _run(decay, new, blocks, backward=False)
        ctx.blocks = blocks
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """A state acts on all later ones: the gradients of new are a scan as well, from the end."""
        decay, states = ctx.saved_tensors
        grad_new = _run(decay, grad.contiguous(), ctx.blocks, backward=True)
        grad_decay = torch.zeros_like(decay)
        grad_decay[:, 1:] = grad_new[:, 1:] * states[:, :-1]
        return grad_decay, grad_new, None


def scan(decay: Tensor, new: Tensor, *, block_t: int = 32, block_c: int = 32) -> Tensor:
    """What ``selective_scan.scan`` gives, by a kernel that sums in float32.

    Args:
        decay, new: (B, T, ...), of one shape; float32, float16 or bfloat16.
        block_t, block_c: tokens and channels that a program takes at a time, powers of 2.

    Raises:
        ValueError: shapes that differ, or without tokens; a block of another size.
        TypeError: numbers of another type.
    """
    check(decay, new)
    for name, size in (("block_t", block_t), ("block_c", block_c)):
        if size < 1 or size & (size - 1):
            raise ValueError(f"{name} must be a power of 2, got {size}")
    if new.dtype not in (torch.float32, torch.float16, torch.bfloat16) or decay.dtype != new.dtype:
        raise TypeError(
            f"decay and new must both be float32, float16 or bfloat16, got {decay.dtype} and {new.dtype}"
        )
    flat = (t.flatten(2) if t.ndim > 2 else t[..., None] for t in (decay, new))
    return _Scan.apply(*(t.contiguous() for t in flat), (block_t, block_c)).view_as(new)
