"""FlashAttention: exact attention tile by tile, so that the table of scores is never there as a whole.

Letters as in ``notation``: B batch, H heads, T queries, S keys, Dh width of a head. Sources: Milakov and
Gimelshein (2018), https://arxiv.org/abs/1805.02867 (the running softmax); Dao et al. (2022),
https://arxiv.org/abs/2205.14135; Dao (2023), https://arxiv.org/abs/2307.08691 (queries in the outer loop, one
division at the end). Here the tiles are PyTorch's, to be read; ``flash_kernels`` has the same for a GPU.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..masks import check_padding
from ..notation import Mask


def flash_attention(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dh"],
    padding: Mask | None = None,
    *,
    causal: bool = False,
    block_q: int = 64,
    block_k: int = 64,
) -> Float[Tensor, "B H T Dh"]:
    """softmax(q kᵀ / √Dh) v, and its gradients, with memory for one tile of the scores only.

    Exact: it differs from ``attention.attention`` by the rounding of another order of sums; those of half
    precision are kept in float32. On a CPU it is slower than the formula; what it saves is the way to a GPU's
    memory.

    Args:
        q, k, v: queries, keys and values.
        padding: (B, 1, 1, S), True where a key is real, as ``masks.padding_mask`` gives it.
        causal: each query sees no later key; the last query stands at the last key.
        block_q, block_k: the height and the width of a tile. They change nothing but the rounding.

    Returns:
        (B, H, T, Dh); a query that may see nothing gets 0.

    Raises:
        ValueError: shapes that do not fit together, or a tile without a row or a column.
        TypeError: a mask that is not boolean.
    """
    check(q, k, v, padding, block_q, block_k)
    return _Flash.apply(q, k, v, padding, causal, block_q, block_k)


def tiles_forward(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dh"],
    padding: Mask | None = None,
    *,
    causal: bool = False,
    block_q: int = 64,
    block_k: int = 64,
) -> tuple[Float[Tensor, "B H T Dh"], Float[Tensor, "B H T"]]:
    """The output, and the logarithm of each row's sum of exponentials: all that the way back must keep.

    Source: Dao (2023), Algorithm 1.
    """
    outputs, logs = [], []
    for rows in _blocks(q.shape[2], block_q):
        output = torch.zeros_like(_wide(q[:, :, rows]))  # of exp(score - largest) times value
        largest = output.new_full((*output.shape[:-1], 1), float("-inf"))  # of the scores seen so far
        total = torch.zeros_like(largest)  # of exp(score - largest)
        for columns in _blocks(k.shape[2], block_k):
            scores = _scores(q, k, rows, columns, padding, causal)
            if scores is None:
                continue
            before, largest = largest, torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
            weights, shrink = _exp(scores, largest), _exp(before, largest)  # what is there was too large
            total = shrink * total + weights.sum(dim=-1, keepdim=True)
            output = shrink * output + weights @ _wide(v[:, :, columns])
        output = output / total.masked_fill(total == 0, 1.0)  # only a row that saw nothing has 0
        outputs.append(output.to(q.dtype))
        logs.append((largest + total.log())[..., 0])
    return torch.cat(outputs, dim=2), torch.cat(logs, dim=2)


def tiles_backward(
    grad: Float[Tensor, "B H T Dh"],
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dh"],
    output: Float[Tensor, "B H T Dh"],
    logs: Float[Tensor, "B H T"],
    padding: Mask | None = None,
    *,
    causal: bool = False,
    block_q: int = 64,
    block_k: int = 64,
) -> tuple[Float[Tensor, "B H T Dh"], Float[Tensor, "B H S Dh"], Float[Tensor, "B H S Dh"]]:
    """The gradients of q, k and v. Weights are made again from the scores and ``logs``, tile by tile.

    Source: Dao et al. (2022), Algorithm 4.
    """
    grad_q, grad_k, grad_v = (torch.zeros_like(_wide(x)) for x in (q, k, v))
    logs = logs.masked_fill(logs == float("-inf"), float("inf"))[..., None]  # saw nothing: weights of 0
    shared = (_wide(grad) * _wide(output)).sum(dim=-1, keepdim=True)  # where one weight gains, others lose
    for columns in _blocks(k.shape[2], block_k):
        for rows in _blocks(q.shape[2], block_q):
            scores = _scores(q, k, rows, columns, padding, causal)
            if scores is None:
                continue
            weights = (scores - logs[:, :, rows]).exp()
            grads = _wide(grad[:, :, rows])
            grad_v[:, :, columns] += weights.mT @ grads
            grad_weights = grads @ _wide(v[:, :, columns]).mT
            grad_scores = weights * (grad_weights - shared[:, :, rows]) * q.shape[-1] ** -0.5
            grad_q[:, :, rows] += grad_scores @ _wide(k[:, :, columns])
            grad_k[:, :, columns] += grad_scores.mT @ _wide(q[:, :, rows])
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)


def traffic(n: int, d_head: int, fast: int) -> dict[str, int]:
    """Numbers that one head of n tokens reads from slow memory and writes to it, on the way forward.

    Each matrix that a step reads or writes counts once. "standard": scores and weights are written and read
    as whole tables. "flash": each block of queries reads all keys and values; queries and output move once.
    Fast memory holds equally many rows of queries, keys, values and output; the tile of scores is not
    counted, since a narrower block of keys makes room for it and changes nothing in what moves.

    Args:
        n: tokens; d_head: width Dh; fast: how many numbers the fast memory holds.

    Source: Dao et al. (2022), Theorem 2.

    Raises:
        ValueError: a number below 1, or a fast memory that does not hold four rows.

    >>> traffic(1024, 64, 25_000)
    {'standard': 4456448, 'flash': 1572864}
    """
    if min(n, d_head, fast) < 1 or fast < 4 * d_head:
        raise ValueError(
            f"n and d_head must be 1 or more and fast at least 4 d_head, got {n}, {d_head} and {fast}"
        )
    block = min(fast // (4 * d_head), n)  # rows of q, k, v and the output, side by side
    n_blocks = -(-n // block)
    standard = (2 * n * d_head + n * n) + (n * n + n * n) + (n * n + n * d_head + n * d_head)
    return {"standard": standard, "flash": 2 * n * d_head + 2 * n_blocks * n * d_head}


class _Flash(torch.autograd.Function):
    """Keeps q, k, v, the output and a number a row: nothing that grows with T times S."""

    @staticmethod
    def forward(ctx, q, k, v, padding, causal, block_q, block_k):
        ctx.about = {"padding": padding, "causal": causal, "block_q": block_q, "block_k": block_k}
        with torch.autocast(q.device.type, enabled=False):  # whose products would be of half precision
            output, logs = tiles_forward(q, k, v, **ctx.about)
        ctx.save_for_backward(q, k, v, output, logs)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return *tiles_backward(grad, *ctx.saved_tensors, **ctx.about), None, None, None, None


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _scores(
    q: Tensor, k: Tensor, rows: slice, columns: slice, padding: Tensor | None, causal: bool
) -> Tensor | None:
    """One tile of the scores; None where no query of it sees any of its keys."""
    first = k.shape[2] - q.shape[2]  # the position of query 0
    if causal and columns.start > rows.stop - 1 + first:
        return None
    scores = _wide(q[:, :, rows]) @ _wide(k[:, :, columns]).mT * q.shape[-1] ** -0.5
    if padding is not None:
        scores = scores.masked_fill(~padding[..., columns], float("-inf"))
    if causal and columns.stop - 1 > rows.start + first:
        positions = torch.arange(rows.start, rows.stop, device=q.device) + first
        keys = torch.arange(columns.start, columns.stop, device=q.device)
        scores = scores.masked_fill(keys > positions[:, None], float("-inf"))
    return scores


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: a sum in half precision stops growing where a term is below its last digit."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _exp(scores: Tensor, largest: Tensor) -> Tensor:
    """exp(scores - largest), and 0 where nothing has been seen: there both are minus infinity."""
    return (scores - largest.masked_fill(largest == float("-inf"), 0.0)).exp()


def check(q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None, block_q: int, block_k: int) -> None:
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim != 4:
            raise ValueError(f"{name} must be (B, H, tokens, Dh), got {tuple(t.shape)}")
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3] or k.shape != v.shape:
        raise ValueError(
            "q, k and v must agree in B, H and Dh, and k and v in S, got"
            f" {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if block_q < 1 or block_k < 1:
        raise ValueError(f"block_q and block_k must be 1 or more, got {block_q} and {block_k}")
    check_padding(padding, k)
