"""Positions: how attention learns in which order its tokens stand.

Letters as in ``notation``: B batch, T queries, S keys, D model width, H heads, Dh head width. Sources:
Vaswani et al. (2017), section 3.5, https://arxiv.org/abs/1706.03762 (sinusoids, learned); Su et al. (2021),
https://arxiv.org/abs/2104.09864 (RoPE); Press et al. (2022), https://arxiv.org/abs/2108.12409 (ALiBi); Chen
et al. (2023), https://arxiv.org/abs/2306.15595 (interpolation).
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

Layout = Literal["half", "interleaved"]


def sinusoidal(
    n_positions: int, d_model: int, *, base: float = 10000.0, device: torch.device | str | None = None
) -> Float[Tensor, "T D"]:
    """A row for each position: D / 2 clock hands, each as (sine, cosine), the first fast and the last slow.

    Entry (t, 2i) is sin(t / base^(2i / D)), entry (t, 2i + 1) the cosine of the same angle, in radians.
    Source: Vaswani et al. (2017), section 3.5. Computed in float64, given in the default dtype.

    Args:
        n_positions: how many rows T; d_model: width D, an even number.
        base: the slowest hand turns about this many times as slowly as the first.
        device: where to make the table.

    Raises:
        ValueError: a negative number of positions, an odd width or one below 2, or a base that is not
            positive.

    >>> sinusoidal(2, 4).round(decimals=3).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.8410000205039978, 0.5400000214576721, 0.009999999776482582, 1.0]]
    """
    if n_positions < 0:
        raise ValueError(f"n_positions must be 0 or more, got {n_positions}")
    positions = torch.arange(n_positions, dtype=torch.float64)
    angles = positions[:, None] * frequencies(d_model, base).double()  # (T, D / 2)
    hands = torch.stack([angles.sin(), angles.cos()], dim=-1)  # (T, D / 2, 2)
    return hands.flatten(1).to(device, torch.get_default_dtype())


def frequencies(width: int, base: float = 10000.0) -> Float[Tensor, "P"]:
    """How far each of the P = width / 2 hands turns per position: base^(-2i / width), in radians.

    Raises:
        ValueError: an odd width or one below 2, or a base that is not positive.

    >>> frequencies(4).tolist()
    [1.0, 0.01]
    """
    if width < 2 or width % 2:
        raise ValueError(f"hands come in pairs, so the width must be even and 2 or more, got {width}")
    if not base > 0:
        raise ValueError(f"base must be positive, got {base}")
    return base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


class LearnedPositions(nn.Module):
    """A row of learned numbers for each position, added to the tokens; as in GPT-2 and BERT.

    Args:
        max_len: how many positions there are; beyond them there is nothing to add.
        d_model: width D.

    Raises:
        ValueError: a size below 1.

    >>> LearnedPositions(max_len=8, d_model=4)(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, *, max_len: int, d_model: int) -> None:
        super().__init__()
        if max_len < 1 or d_model < 1:
            raise ValueError(f"max_len and d_model must be 1 or more, got {max_len} and {d_model}")
        self.table = nn.Embedding(max_len, d_model)

    def forward(self, x: Float[Tensor, "... T D"], *, start: int = 0) -> Float[Tensor, "... T D"]:
        """``x`` with the rows of the positions start, start + 1, ... added.

        Raises:
            ValueError: a position that the table does not have.
        """
        max_len, end = self.table.num_embeddings, start + x.shape[-2]
        if start < 0 or end > max_len:
            raise ValueError(f"the table ends at max_len={max_len}, got positions {start} to {end - 1}")
        return x + self.table.weight[start:end]


def rotate(
    x: Float[Tensor, "... T Dh"],
    positions: Real[Tensor, "T"],
    base: float = 10000.0,
    layout: Layout = "half",
) -> Float[Tensor, "... T Dh"]:
    """Turn each pair of entries by an angle that grows with the position: rotary position embedding, RoPE.

    Pair i turns by position x base^(-2i / Dh) radians. Lengths stay; the dot product of a turned query and a
    turned key depends on the offset of their positions only. Give it to
    ``MultiHeadAttention(rotary=rotate)``. Positions may be fractions: ``positions * trained / longer`` is the
    interpolation of Chen et al. (2023).

    Source: Su et al. (2021), section 3.2.2, equation (15).

    Args:
        x: queries or keys, never values.
        positions: one for each token of ``x``.
        base: larger turns the slow pairs slower.
        layout: which entries make a pair: "interleaved" (2i, 2i + 1) as in the paper, "half" (i, i + Dh / 2)
            as in Hugging Face's LLaMA. Weights made for one do not fit the other: see ``change_layout``.

    Raises:
        ValueError: an odd width, not one position for each token, or an unknown layout.

    >>> quarter = torch.tensor([math.pi / 2])
    >>> rotate(torch.tensor([[1.0, 0.0]]), quarter).round(decimals=4).tolist()
    [[-0.0, 1.0]]
    """
    if positions.shape != x.shape[-2:-1]:
        wanted = f"one position for each of the {x.shape[-2] if x.ndim > 1 else 0} tokens"
        raise ValueError(f"rotate needs {wanted}, got {tuple(positions.shape)}")
    _check_layout(layout)
    exact = torch.promote_types(x.dtype, torch.float32)  # half precision has no room for far angles
    turn = frequencies(x.shape[-1], base).to(x.device, exact)
    angles = positions.to(exact)[:, None] * turn  # (T, Dh / 2)
    cos, sin = angles.cos(), angles.sin()
    a, b = _pairs(x.to(exact), layout)
    return _unpairs(a * cos - b * sin, a * sin + b * cos, layout).to(x.dtype)


def change_layout(weight: Float[Tensor, "HDh ..."], n_heads: int, to: Layout) -> Float[Tensor, "HDh ..."]:
    """Reorder the rows of a query or key projection, weight or bias, made for the other layout of ``rotate``.

    With queries and keys both reordered, every score stays the same.

    Args:
        weight: (n_heads x Dh, ...), as in ``q_proj.weight`` or ``q_proj.bias``.
        n_heads: how many heads share the rows.
        to: the layout that is wanted.

    Raises:
        ValueError: rows that do not make ``n_heads`` heads of even width, or an unknown layout.

    >>> change_layout(torch.arange(4.0), 1, to="half").tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    if n_heads < 1 or weight.shape[0] % (2 * n_heads):
        raise ValueError(f"{weight.shape[0]} rows do not make {n_heads} heads of an even width")
    heads = weight.unflatten(0, (n_heads, -1)).movedim(1, -1)  # (H, ..., Dh)
    _check_layout(to)
    swapped = _unpairs(*_pairs(heads, "interleaved" if to == "half" else "half"), to)
    return swapped.movedim(-1, 1).flatten(0, 1)


def alibi_slopes(n_heads: int) -> Float[Tensor, "H"]:
    """How much each head dislikes distance: 2^(-8h / H) for h = 1, ..., H.

    Where H is no power of two, the rest comes from between the slopes of the next one, as in the authors'
    code and BLOOM.
    Source: Press et al. (2022), section 3.

    Raises:
        ValueError: fewer than one head.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    if n_heads < 1:
        raise ValueError(f"n_heads must be 1 or more, got {n_heads}")
    whole = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * h / whole) for h in range(1, whole + 1)]
    slopes += [2 ** (-4 * h / whole) for h in range(1, 2 * (n_heads - whole), 2)]
    return torch.tensor(slopes)


def alibi_bias(
    n_heads: int, n_queries: int, n_keys: int | None = None, *, device: torch.device | str | None = None
) -> Float[Tensor, "H T S"]:
    """Attention with linear biases: minus the distance of query and key, times the slope of the head.

    Give it to ``attention(bias=...)`` or ``MultiHeadAttention``; the last query stands at the last key. The
    paper uses it below a causal mask; without one, keys to both sides are disliked alike.

    Source: Press et al. (2022), section 3, https://arxiv.org/abs/2108.12409.

    Args:
        n_heads: number of heads H; n_queries: T; n_keys: S, by default T.
        device: where to make it.

    Raises:
        ValueError: fewer than one head, or a negative number of queries or keys.

    >>> alibi_bias(1, 2, 3)[0].mul(256).tolist()
    [[-1.0, 0.0, -1.0], [-2.0, -1.0, 0.0]]
    """
    n_keys = n_queries if n_keys is None else n_keys
    if min(n_queries, n_keys) < 0:
        raise ValueError(f"a bias needs 0 or more queries and keys, got {n_queries} and {n_keys}")
    queries = torch.arange(n_keys - n_queries, n_keys, device=device)
    distances = (queries[:, None] - torch.arange(n_keys, device=device)).abs()  # (T, S)
    return -distances * alibi_slopes(n_heads).to(device)[:, None, None]


def _check_layout(layout: str) -> None:
    if layout not in ("half", "interleaved"):
        raise ValueError(f"layout must be 'half' or 'interleaved', got {layout!r}")


def _pairs(x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """The first and the second entries of all pairs, (..., Dh / 2) each."""
    return x.unflatten(-1, (2, -1)).unbind(-2) if layout == "half" else x.unflatten(-1, (-1, 2)).unbind(-1)


def _unpairs(a: Tensor, b: Tensor, layout: Layout) -> Tensor:
    return torch.stack([a, b], dim=-2 if layout == "half" else -1).flatten(-2)
