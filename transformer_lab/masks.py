"""Masks: which query may see which key. Boolean, True = may attend, broadcastable to (B, H, T, S)."""

import torch
from jaxtyping import Bool, Integer
from torch import Tensor


def causal_mask(
    n_queries: int, n_keys: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "1 1 T S"]:
    """A query sees the keys up to its own position; the last query stands at the last key.

    Source: Vaswani et al. (2017), section 3.2.3. The alignment at the end is what cached decoding needs:
    there, the few queries are the newest tokens of a long row of keys.

    Args:
        n_queries: number of queries T.
        n_keys: number of keys S; by default T.
        device: where to make the mask.

    Raises:
        ValueError: a negative number of queries or keys.

    >>> causal_mask(2, 3)[0, 0].int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    n_keys = n_queries if n_keys is None else n_keys
    if min(n_queries, n_keys) < 0:
        raise ValueError(f"a mask needs 0 or more queries and keys, got {n_queries} and {n_keys}")
    full = torch.ones(1, 1, n_queries, n_keys, dtype=torch.bool, device=device)
    return full.tril(n_keys - n_queries)


def padding_mask(tokens: Integer[Tensor, "B S"], pad_id: int) -> Bool[Tensor, "B 1 1 S"]:
    """Every query may see the real tokens of its own sequence, and no padding.

    Args:
        tokens: token ids, short rows filled up with ``pad_id``.
        pad_id: the id that means "nothing here".

    Raises:
        TypeError: ``tokens`` are not whole numbers.
        ValueError: ``tokens`` are not a (B, S) table.

    >>> padding_mask(torch.tensor([[5, 6, 0]]), pad_id=0).tolist()
    [[[[True, True, False]]]]
    """
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"tokens must be whole-number ids, got {tokens.dtype}; pass ids, not embeddings")
    if tokens.ndim != 2:
        raise ValueError(f"tokens must have axes (B, S), got shape {tuple(tokens.shape)}")
    return (tokens != pad_id)[:, None, None, :]
