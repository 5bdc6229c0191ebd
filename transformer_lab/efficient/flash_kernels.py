"""The tiles of ``flash`` for a GPU: Triton kernels, forward and backward.

A program holds one tile of queries, or on the way back one of keys and values, and walks over the other
side. Only tiles at an edge, of the table or of the causal mask, are masked. Powers of 2 take the place of
exponentials, as the hardware has them; log2 e goes into the scale. Sources: those of ``flash``.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..notation import Mask
from ._triton import tl, triton
from .flash import check

LOG2_E = math.log2(math.e)


@triton.jit
def _load(base, rows, n, DH: tl.constexpr, EDGE: tl.constexpr):
    """Rows of a table (n, DH). At an edge, those outside of it are 0."""
    at = base + rows[:, None] * DH + tl.arange(0, DH)[None, :]
    if EDGE:
        return tl.load(at, mask=rows[:, None] < n, other=0.0)
    return tl.load(at)


@triton.jit
def _store(base, rows, n, values, DH: tl.constexpr):
    at = base + rows[:, None] * DH + tl.arange(0, DH)[None, :]
    tl.store(at, values.to(base.dtype.element_ty), mask=rows[:, None] < n)


@triton.jit
def _scores(
    queries, keys, rows, columns, real, first, n_keys, scale,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """One tile of the scores times log2 e; minus infinity where a query does not see a key."""
    scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
    seen = columns[None, :] < n_keys
    if PADDED:
        seen = seen & (tl.load(real + columns, mask=columns < n_keys, other=0)[None, :] != 0)
    if EDGE:
        if CAUSAL:
            seen = seen & (columns[None, :] <= rows[:, None] + first)
    if EDGE or PADDED:
        scores = tl.where(seen, scores, float("-inf"))
    return scores


@triton.jit
def _spans(tile, first, n_keys, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, CAUSAL: tl.constexpr):
    """Up to where all queries of a tile see all keys, in whole tiles; and from where none sees any."""
    whole, end = n_keys, n_keys
    if CAUSAL:
        whole = tl.minimum(n_keys, tl.maximum(0, tile * BLOCK_Q + first + 1))
        end = tl.minimum(n_keys, tl.maximum(0, (tile + 1) * BLOCK_Q + first))
    return whole // BLOCK_K * BLOCK_K, end


@triton.jit
def _read(
    queries, rows, largest, total, sums, k, v, real, first, n_keys, scale, begin, end,
    DH: tl.constexpr, BLOCK_K: tl.constexpr, CAUSAL: tl.constexpr, PADDED: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """The running maximum, sum and output of a tile of queries, after the keys from ``begin`` to ``end``."""
    for start in range(begin, end, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        keys = _load(k, columns, n_keys, DH, EDGE)
        scores = _scores(queries, keys, rows, columns, real, first, n_keys, scale, CAUSAL, PADDED, EDGE)
        before, largest = largest, tl.maximum(largest, tl.max(scores, 1))
        known = largest
        if EDGE or PADDED:  # a row may have seen nothing so far
            known = tl.where(largest == float("-inf"), 0.0, largest)
        weights, shrink = tl.exp2(scores - known[:, None]), tl.exp2(before - known)
        total = total * shrink + tl.sum(weights, 1)
        values = _load(v, columns, n_keys, DH, EDGE)
        sums = sums * shrink[:, None]
        sums += tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return largest, total, sums


@triton.jit
def _forward(
    q, k, v, real, output, logs, n_heads, n_queries, n_keys, scale,
    DH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    pair, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)  # of sentence and head; of the queries
    q, output, logs = q + pair * n_queries * DH, output + pair * n_queries * DH, logs + pair * n_queries
    k, v, real = k + pair * n_keys * DH, v + pair * n_keys * DH, real + pair // n_heads * n_keys
    rows = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    first = n_keys - n_queries  # the position of query 0
    queries = _load(q, rows, n_queries, DH, True)
    largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    sums = tl.zeros([BLOCK_Q, DH], tl.float32)
    whole, end = _spans(tile, first, n_keys, BLOCK_Q, BLOCK_K, CAUSAL)
    largest, total, sums = _read(
        queries, rows, largest, total, sums, k, v, real, first, n_keys, scale, 0, whole,
        DH, BLOCK_K, CAUSAL, PADDED, False,
    )  # fmt: skip
    largest, total, sums = _read(
        queries, rows, largest, total, sums, k, v, real, first, n_keys, scale, whole, end,
        DH, BLOCK_K, CAUSAL, PADDED, True,
    )  # fmt: skip
    some = total > 0
    total = tl.where(some, total, 1.0)
    _store(output, rows, n_queries, sums / total[:, None], DH)
    tl.store(logs + rows, tl.where(some, largest + tl.log2(total), float("inf")), mask=rows < n_queries)


@triton.jit
def _answer(
    keys, values, columns, sum_k, sum_v, q, grad, logs, shared, real, first, n_queries, n_keys, scale,
    begin, end, DH: tl.constexpr, BLOCK_Q: tl.constexpr,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of keys and values, after the queries from ``begin`` to ``end``."""
    for start in range(begin, end, BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        queries, grads = _load(q, rows, n_queries, DH, True), _load(grad, rows, n_queries, DH, True)
        log = tl.load(logs + rows, mask=rows < n_queries, other=float("inf"))
        less = tl.load(shared + rows, mask=rows < n_queries, other=0.0)
        scores = _scores(queries, keys, rows, columns, real, first, n_keys, scale, CAUSAL, PADDED, EDGE)
        weights = tl.exp2(scores - log[:, None])
        sum_v += tl.dot(tl.trans(weights.to(grads.dtype)), grads, input_precision="ieee")
        grad_weights = tl.dot(grads, tl.trans(values), input_precision="ieee")
        grad_scores = weights * (grad_weights - less[:, None])
        sum_k += tl.dot(tl.trans(grad_scores.to(queries.dtype)), queries, input_precision="ieee")
    return sum_k, sum_v


@triton.jit
def _backward_keys(
    q, k, v, real, grad, logs, shared, grad_k, grad_v, n_heads, n_queries, n_keys, scale, width,
    DH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    pair, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    q, grad = q + pair * n_queries * DH, grad + pair * n_queries * DH
    logs, shared, real = logs + pair * n_queries, shared + pair * n_queries, real + pair // n_heads * n_keys
    at = pair * n_keys * DH
    columns = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    first = n_keys - n_queries
    keys, values = _load(k + at, columns, n_keys, DH, True), _load(v + at, columns, n_keys, DH, True)
    sum_k, sum_v = tl.zeros([BLOCK_K, DH], tl.float32), tl.zeros([BLOCK_K, DH], tl.float32)
    begin, whole = 0, 0  # no query before ``begin`` sees any of these keys, all from ``whole`` on see all
    if CAUSAL:
        begin = tl.maximum(0, tile * BLOCK_K - first) // BLOCK_Q * BLOCK_Q
        whole = tl.cdiv(tl.maximum(0, (tile + 1) * BLOCK_K - 1 - first), BLOCK_Q) * BLOCK_Q
    sum_k, sum_v = _answer(
        keys, values, columns, sum_k, sum_v, q, grad, logs, shared, real, first, n_queries, n_keys, scale,
        begin, tl.minimum(n_queries, whole), DH, BLOCK_Q, CAUSAL, PADDED, True,
    )  # fmt: skip
    sum_k, sum_v = _answer(
        keys, values, columns, sum_k, sum_v, q, grad, logs, shared, real, first, n_queries, n_keys, scale,
        whole, n_queries, DH, BLOCK_Q, CAUSAL, PADDED, False,
    )  # fmt: skip
    _store(grad_k + at, columns, n_keys, sum_k * width, DH)
    _store(grad_v + at, columns, n_keys, sum_v, DH)


@triton.jit
def _ask(
    queries, grads, log, less, rows, sum_q, k, v, real, first, n_keys, scale, begin, end,
    DH: tl.constexpr, BLOCK_K: tl.constexpr, CAUSAL: tl.constexpr, PADDED: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of queries, after the keys from ``begin`` to ``end``."""
    for start in range(begin, end, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        keys, values = _load(k, columns, n_keys, DH, EDGE), _load(v, columns, n_keys, DH, EDGE)
        scores = _scores(queries, keys, rows, columns, real, first, n_keys, scale, CAUSAL, PADDED, EDGE)
        weights = tl.exp2(scores - log[:, None])
        grad_weights = tl.dot(grads, tl.trans(values), input_precision="ieee")
        grad_scores = weights * (grad_weights - less[:, None])
        sum_q += tl.dot(grad_scores.to(keys.dtype), keys, input_precision="ieee")
    return sum_q


@triton.jit
def _backward_queries(
    q, k, v, real, grad, logs, shared, grad_q, n_heads, n_queries, n_keys, scale, width,
    DH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    pair, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = pair * n_queries * DH
    k, v, real = k + pair * n_keys * DH, v + pair * n_keys * DH, real + pair // n_heads * n_keys
    rows = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    first = n_keys - n_queries
    queries, grads = _load(q + at, rows, n_queries, DH, True), _load(grad + at, rows, n_queries, DH, True)
    log = tl.load(logs + pair * n_queries + rows, mask=rows < n_queries, other=float("inf"))
    less = tl.load(shared + pair * n_queries + rows, mask=rows < n_queries, other=0.0)
    sum_q = tl.zeros([BLOCK_Q, DH], tl.float32)
    whole, end = _spans(tile, first, n_keys, BLOCK_Q, BLOCK_K, CAUSAL)
    sum_q = _ask(
        queries, grads, log, less, rows, sum_q, k, v, real, first, n_keys, scale, 0, whole,
        DH, BLOCK_K, CAUSAL, PADDED, False,
    )  # fmt: skip
    sum_q = _ask(
        queries, grads, log, less, rows, sum_q, k, v, real, first, n_keys, scale, whole, end,
        DH, BLOCK_K, CAUSAL, PADDED, True,
    )  # fmt: skip
    _store(grad_q + at, rows, n_queries, sum_q * width, DH)


class _Flash(torch.autograd.Function):
    """Keeps what ``flash`` keeps: q, k, v, the output and a number a row."""

    @staticmethod
    def forward(ctx, q, k, v, padding, causal, block_q, block_k):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        real = k  # which nobody reads
        if padding is not None:
            real = padding[:, 0, 0].to(torch.int8).contiguous()
        output, logs = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
        width = q.shape[3]
        ctx.sizes = q.shape[1], q.shape[2], k.shape[2], width**-0.5 * LOG2_E
        ctx.kind = width, block_q, block_k, causal, padding is not None
        ctx.warps = {"num_warps": 8 if width > 64 or block_q * block_k > 64 * 64 else 4}
        with torch.cuda.device_of(q):
            grid = q.shape[0] * q.shape[1], triton.cdiv(q.shape[2], block_q)
            _forward[grid](q, k, v, real, output, logs, *ctx.sizes, *ctx.kind, **ctx.warps)
        ctx.save_for_backward(q, k, v, real, output, logs)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, real, output, logs = ctx.saved_tensors
        n_pairs, (width, block_q, block_k, *_) = q.shape[0] * q.shape[1], ctx.kind
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        shared = (grad.float() * output.float()).sum(dim=-1)
        reads = q, k, v, real, grad.contiguous(), logs, shared
        about = *ctx.sizes, width**-0.5, *ctx.kind
        launch = ctx.warps | {"num_stages": 2}  # more is kept at a time than on the way forward
        with torch.cuda.device_of(q):
            _backward_keys[n_pairs, triton.cdiv(k.shape[2], block_k)](
                *reads, grad_k, grad_v, *about, **launch
            )
            _backward_queries[n_pairs, triton.cdiv(q.shape[2], block_q)](*reads, grad_q, *about, **launch)
        return grad_q, grad_k, grad_v, None, None, None, None


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Mask | None = None,
    *,
    causal: bool = False,
    block_q: int | None = None,
    block_k: int | None = None,
) -> Tensor:
    """What ``flash.flash_attention`` gives, by kernels, in float32, float16 or bfloat16.

    Args:
        q, k, v, padding, causal: as there; Dh is a power of 2, 16 or more.
        block_q, block_k: the height and the width of a tile, powers of 2, 16 or more. By default 64, and 32
            for float32, which is multiplied without tensor cores and soon runs out of registers. What a tile
            of 128 needs does not fit into every GPU's fast memory.

    Raises:
        ValueError: shapes that do not fit together, a width or a tile of another size, or two devices.
        TypeError: a mask that is not boolean, or numbers of another type, or of two.
    """
    usual = 32 if q.dtype == torch.float32 else 64
    block_q, block_k = usual if block_q is None else block_q, usual if block_k is None else block_k
    check(q, k, v, padding, block_q, block_k)
    for name, size in (("Dh", q.shape[3]), ("block_q", block_q), ("block_k", block_k)):
        if size < 16 or size & (size - 1):
            raise ValueError(f"{name} must be a power of 2, 16 or more, got {size}")
    kinds, places = ({get(t) for t in (q, k, v)} for get in (lambda t: t.dtype, lambda t: t.device))
    if len(kinds) > 1 or q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        names = " and ".join(sorted(map(str, kinds)))
        raise TypeError(f"q, k and v must all be float32, float16 or bfloat16, got {names}")
    if len(places) > 1 or (padding is not None and padding.device != q.device):
        raise ValueError("q, k, v and padding must be on one device")
    if q.dtype == torch.bfloat16 and not q.is_cuda:
        raise TypeError(
            "without a GPU q, k and v must be float32 or float16: the interpreter knows no bfloat16"
        )
    return _Flash.apply(q, k, v, padding, causal, block_q, block_k)
