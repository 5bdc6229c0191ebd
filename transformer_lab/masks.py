"""Masks: which query may see which key. Boolean, True = may attend, broadcastable to (B, H, T, S).

Masks are combined by ``&`` (both must allow it) and ``|`` (one of them is enough).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from .notation import Bias, Mask


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


def check_padding(padding: Tensor | None, keys: Tensor) -> None:
    """Whether a padding mask, if there is one, fits keys (B, H, S, Dh).

    Raises:
        ValueError: it is not (B, 1, 1, S).
        TypeError: it is not boolean.
    """
    if padding is None:
        return
    if padding.dtype != torch.bool:
        raise TypeError(f"padding must be bool, True = real; got {padding.dtype}")
    wanted = (len(keys), 1, 1, keys.shape[2])
    if padding.shape != wanted:
        raise ValueError(f"padding must be (B, 1, 1, S) = {wanted}, got {tuple(padding.shape)}")


def sliding_window_mask(
    n: int, window: int, *, device: torch.device | str | None = None
) -> Bool[Tensor, "1 1 T T"]:
    """A token sees those at most ``window // 2`` places away, to both sides.

    ``& causal_mask(n)`` keeps the past only.

    Source: Beltagy et al. (2020), section 3.1, https://arxiv.org/abs/2004.05150.

    Args:
        n: number of tokens T.
        window: how wide the window is, in tokens, its centre not counted.
        device: where to make the mask.

    Raises:
        ValueError: a negative ``n`` or ``window``.

    >>> sliding_window_mask(4, window=2)[0, 0].int().tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    """
    if min(n, window) < 0:
        raise ValueError(f"n and window must be 0 or more, got {n} and {window}")
    places = torch.arange(n, device=device)
    return ((places[:, None] - places).abs() <= window // 2)[None, None]


def global_mask(
    n: int, tokens: Sequence[int], *, device: torch.device | str | None = None
) -> Bool[Tensor, "1 1 T T"]:
    """The tokens named see all and are seen by all: ``sliding_window_mask(n, w) | global_mask(n, [0])``.

    Source: Beltagy et al. (2020), section 3.1, https://arxiv.org/abs/2004.05150.

    Args:
        n: number of tokens T.
        tokens: the positions of the global ones, 0 to n - 1.
        device: where to make the mask.

    Raises:
        ValueError: a negative ``n``, or a position outside.
        TypeError: a table of booleans instead of positions.

    >>> global_mask(3, [1])[0, 0].int().tolist()
    [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    if n < 0:
        raise ValueError(f"n must be 0 or more, got {n}")
    if torch.as_tensor(tokens).dtype == torch.bool:
        raise TypeError(f"global tokens are positions such as [0], not a table of booleans; got {tokens}")
    if any(not 0 <= token < n for token in tokens):
        raise ValueError(f"global tokens must lie in 0 to {n - 1}, got {list(tokens)}")
    chosen = torch.zeros(n, dtype=torch.bool, device=device)
    chosen[list(tokens)] = True
    return (chosen[:, None] | chosen)[None, None]


def prefix_mask(n: int, prefix: int, *, device: torch.device | str | None = None) -> Bool[Tensor, "1 1 T T"]:
    """The first ``prefix`` tokens see each other both ways; those that follow see the past only.

    Source: Raffel et al. (2020), section 3.2.1, https://arxiv.org/abs/1910.10683.

    Args:
        n: number of tokens T.
        prefix: how many of them are given and not generated, 0 to n.
        device: where to make the mask.

    Raises:
        ValueError: a prefix that is negative or longer than ``n``.

    >>> prefix_mask(3, prefix=2)[0, 0].int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    if not 0 <= prefix <= n:
        raise ValueError(f"prefix must be from 0 to n={n}, got {prefix}")
    return causal_mask(n, device=device) | (torch.arange(n, device=device) < prefix)


def packing_mask(segments: Integer[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """Several texts in one row: a token sees those of its own text; ``& causal_mask(T)`` keeps the past only.

    Args:
        segments: the number of the text that each token belongs to.

    Raises:
        ValueError: ``segments`` are not a (B, T) table.

    >>> packing_mask(torch.tensor([[0, 0, 1]]))[0, 0].int().tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    if segments.ndim != 2:
        raise ValueError(f"segments must have axes (B, T), got shape {tuple(segments.shape)}")
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def packed_positions(segments: Integer[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The position of each token within its own text, when several share a row: 0, 1, ... and 0 again.

    Args:
        segments: the number of the text that each token belongs to; the tokens of one text stand side by
            side.

    Raises:
        ValueError: ``segments`` are not a (B, T) table.

    >>> packed_positions(torch.tensor([[7, 7, 7, 2, 2]])).tolist()
    [[0, 1, 2, 0, 1]]
    """
    if segments.ndim != 2:
        raise ValueError(f"segments must have axes (B, T), got shape {tuple(segments.shape)}")
    places = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    first = torch.ones_like(segments, dtype=torch.bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return places - places.where(first, 0).cummax(dim=1).values


def to_additive(mask: Mask, dtype: torch.dtype | None = None) -> Bias:
    """The same mask as numbers to add to the scores: 0 = may attend, minus infinity = blocked.

    Args:
        mask: True = may attend; dtype: of the answer, by default PyTorch's default.

    Raises:
        TypeError: a mask that is not boolean.

    >>> to_additive(torch.tensor([[True, False]])).tolist()
    [[0.0, -inf]]
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may attend; got {mask.dtype}")
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))


def reach(mask: Bool[Tensor, "T T"], n_layers: int) -> Bool[Tensor, "T T"]:
    """Which token can have reached which after so many layers: row t, column s: t may depend on input s.

    Each layer has a skip connection, so a token always keeps what it had.

    Args:
        mask: of one layer, used in all; n_layers: how many, 0 or more.

    Raises:
        ValueError: a mask that is not a square, or a negative number of layers.
        TypeError: a mask that is not boolean.

    >>> reach(sliding_window_mask(4, 2)[0, 0], 2)[0].tolist()
    [True, True, True, False]
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may attend; got {mask.dtype}")
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"mask must be a square table (T, T), got {tuple(mask.shape)}")
    if n_layers < 0:
        raise ValueError(f"n_layers must be 0 or more, got {n_layers}")
    itself = torch.eye(len(mask), dtype=torch.bool, device=mask.device)
    step, reached = (mask | itself).float(), itself
    for _ in range(n_layers):  # t reaches s if t sees some token that reaches s
        reached = (step @ reached.float()) > 0
    return reached


def influence(function: Callable[[Tensor], Tensor], x: Float[Tensor, "S D"]) -> Float[Tensor, "T S"]:
    """How strongly each output depends on each input: the size of the gradient, exactly 0 where it cannot.

    For a causal model all entries above the diagonal must be 0: what is not is a leak of the future.

    Args:
        function: takes (1, S, D) and gives (1, T, anything).
        x: the tokens, as vectors, at which to look.

    Returns:
        Row t, column s: the norm of the gradient of output t (summed with random weights) by input s.

    >>> influence(lambda x: x.cumsum(dim=1), torch.ones(2, 1)).sign().tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    x = x.detach().clone().requires_grad_()
    y = function(x[None])[0]  # (T, width)
    generator = torch.Generator().manual_seed(0)  # no direction of the output is overlooked
    direction = torch.randn(y.shape[1:], generator=generator, dtype=y.dtype).to(y.device)
    rows = [torch.autograd.grad((row * direction).sum(), x, retain_graph=True)[0] for row in y]
    return torch.stack(rows).norm(dim=-1)  # (T, S, D) -> (T, S)
