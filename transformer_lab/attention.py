"""Attention: the formula as a pure function, and multi-head attention around PyTorch's fused kernel.

Letters as in ``notation``: B batch, T queries, S keys and values, D model width, H heads, Dh = D / H.
Source: Vaswani et al. (2017), section 3.2, https://arxiv.org/abs/1706.03762.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .notation import Bias, Mask

Rotary = Callable[[Tensor, Tensor], Tensor]  # (x: (B, H, T, Dh), positions: (T,)) -> x, turned


def attention(
    q: Float[Tensor, "... T Dh"],
    k: Float[Tensor, "... S Dh"],
    v: Float[Tensor, "... S Dv"],
    mask: Mask | None = None,
    *,
    bias: Bias | None = None,
) -> tuple[Float[Tensor, "... T Dv"], Float[Tensor, "... T S"]]:
    r"""softmax(q kᵀ / √Dh) v, a line per step: equation (1) of Vaswani et al. (2017).

    Args:
        q: queries; the axes before (T, Dh), such as (B, H), broadcast as in ``torch.matmul``.
        k: keys, as wide as the queries.
        v: values, one for each key.
        mask: True = may attend; a query that may see nothing gets weights and output 0.
        bias: added to the scores before the softmax (ALiBi, for instance).

    Returns:
        The output (..., T, Dv) and the weights (..., T, S); a row of weights sums to 1.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: a mask that is not boolean.

    >>> keys = torch.tensor([[0.0], [0.0]])  # alike, so the values are averaged
    >>> output, weights = attention(torch.tensor([[1.0]]), keys, torch.tensor([[2.0], [6.0]]))
    >>> output.tolist(), weights.tolist()
    ([[4.0]], [[0.5, 0.5]])
    """
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim < 2:
            raise ValueError(f"{name} must be (..., tokens, width), got {tuple(t.shape)}")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"queries and keys must be equally wide, got {q.shape[-1]} and {k.shape[-1]}")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"each key needs one value, got {k.shape[-2]} keys and {v.shape[-2]} values")
    check_mask(mask, bias, (*_leading(q, k, v), q.shape[-2], k.shape[-2]))

    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (..., T, S)
    if bias is not None:
        scores = scores + bias
    if mask is None:
        weights = scores.softmax(dim=-1)
    else:
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
        weights = weights.masked_fill(~mask, 0.0)  # a query that sees no key: 0, not NaN
    return weights @ v, weights


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each in its own Dh-wide slice of the projections.

    Source: Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762.
    Differs from it: every projection has a bias; dropout also acts on the weights.

    Args:
        d_model: model width D, a multiple of ``n_heads``.
        n_heads: number of heads H.
        dropout: probability of dropping one attention weight, in training only.
        rotary: turns queries and keys by their positions, called as ``rotary(x, positions)``; the last query
            stands at the last key.

    Raises:
        ValueError: ``d_model`` is not a multiple of ``n_heads``, or ``dropout`` is no probability.

    >>> x = torch.zeros(1, 3, 8)  # one sentence, three tokens, D = 8
    >>> MultiHeadAttention(d_model=8, n_heads=2)(x, x).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, *, d_model: int, n_heads: int, dropout: float = 0.0, rotary: Rotary | None = None
    ) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a probability below 1, got {dropout}")
        self.d_model, self.n_heads, self.dropout, self.rotary = d_model, n_heads, dropout, rotary
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S D"],
        mask: Mask | None = None,
        *,
        bias: Bias | None = None,
    ) -> Float[Tensor, "B T D"]:
        """``x`` asks, ``context`` answers; pass ``x`` twice for self-attention.

        Raises:
            ValueError: ``x`` or ``context`` is not (batch, tokens, d_model), their batches differ, or the
                mask or bias does not fit (B, H, T, S).
            TypeError: a mask that is not boolean.
        """
        check_pair(x, context, self.d_model)
        # The queries first, as in the stored runs: gradients are summed in this order.
        q = split_heads(self.q_proj(x), self.n_heads)
        return self._attend(q, *self.keys_values(context), mask, bias)

    def keys_values(
        self, context: Float[Tensor, "B S D"], *, start: int = 0
    ) -> tuple[Float[Tensor, "B H S Dh"], Float[Tensor, "B H S Dh"]]:
        """What ``context`` answers with. Computed once, it can be asked again and again: a cache.

        Args:
            context: what is to be asked; start: the position of its first token, which only ``rotary`` reads.

        Raises:
            ValueError: ``context`` is not (batch, tokens, d_model).
        """
        check_width("context", context, self.d_model)
        keys, values = (split_heads(p(context), self.n_heads) for p in (self.k_proj, self.v_proj))
        if self.rotary is not None:
            keys = self.rotary(keys, torch.arange(start, start + keys.shape[2], device=keys.device))
        return keys, values

    def attend(
        self,
        x: Float[Tensor, "B T D"],
        keys: Float[Tensor, "B H S Dh"],
        values: Float[Tensor, "B H S Dh"],
        mask: Mask | None = None,
        *,
        bias: Bias | None = None,
    ) -> Float[Tensor, "B T D"]:
        """``forward`` with what ``keys_values`` gave; the last query stands at the last key.

        Raises:
            ValueError: ``x`` is not (batch, tokens, d_model), or the mask or bias does not fit (B, H, T, S).
            TypeError: a mask that is not boolean.
        """
        check_width("x", x, self.d_model)
        q = split_heads(self.q_proj(x), self.n_heads)
        return self._attend(q, keys, values, mask, bias)

    def _attend(
        self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        q = self._turned(q, keys)
        if mask is not None or bias is not None:
            check_mask(mask, bias, (*q.shape[:-1], keys.shape[-2]))
        allowed = mask
        if bias is not None:  # the kernel takes one tensor: fold the mask into the bias
            allowed = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        p = self.dropout if self.training else 0.0  # the kernel does not look at self.training
        y = F.scaled_dot_product_attention(q, keys, values, allowed, dropout_p=p)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, H, T, Dh) -> (B, T, D)

    def weights(
        self,
        x: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S D"],
        mask: Mask | None = None,
        *,
        bias: Bias | None = None,
    ) -> Float[Tensor, "B H T S"]:
        """The weights that ``forward`` uses, before dropout: for plots, widgets and tests."""
        check_pair(x, context, self.d_model)
        q = split_heads(self.q_proj(x), self.n_heads)
        keys, values = self.keys_values(context)
        return attention(self._turned(q, keys), keys, values, mask, bias=bias)[1]

    def _turned(self, q: Tensor, keys: Tensor) -> Tensor:
        return q if self.rotary is None else at_the_end(q, keys.shape[2], self.rotary)


def at_the_end(q: Float[Tensor, "B H T Dh"], n_keys: int, rotary: Rotary) -> Float[Tensor, "B H T Dh"]:
    """Queries turned by their positions: the last one stands at the last key."""
    return rotary(q, torch.arange(n_keys - q.shape[2], n_keys, device=q.device))


def check_width(name: str, x: Tensor, d_model: int) -> None:
    """Whether ``x`` is (batch, tokens, d_model).

    Raises:
        ValueError: it is not; ``name`` says what it is.
    """
    if x.ndim != 3 or x.shape[-1] != d_model:
        raise ValueError(f"{name} must be (batch, tokens, d_model={d_model}), got {tuple(x.shape)}")


def check_pair(x: Tensor, context: Tensor, d_model: int) -> None:
    """Whether both are as ``check_width`` asks, and of equally many sequences.

    Raises:
        ValueError: they are not.
    """
    check_width("x", x, d_model)
    check_width("context", context, d_model)
    if len(x) != len(context):
        sizes = f"{len(x)} and {len(context)}"
        raise ValueError(f"x and context must hold equally many sequences, got {sizes}")


def check_heads(d_model: int, n_heads: int) -> None:
    """Whether the width can be shared out among the heads.

    Raises:
        ValueError: it cannot.
    """
    if n_heads < 1 or d_model < 1 or d_model % n_heads:
        raise ValueError(f"d_model must be a multiple of n_heads, got {d_model} and {n_heads}")


def split_heads(x: Float[Tensor, "B S D"], n_heads: int) -> Float[Tensor, "B H S Dh"]:
    """Each head gets Dh numbers of every token, the first head the first Dh.

    >>> split_heads(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), n_heads=2).tolist()
    [[[[1.0, 2.0]], [[3.0, 4.0]]]]
    """
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # (B, S, D) -> (B, H, S, Dh)


def _leading(*tensors: Tensor) -> tuple[int, ...]:
    try:
        return tuple(torch.broadcast_shapes(*(t.shape[:-2] for t in tensors)))
    except RuntimeError:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise ValueError(f"q, k and v must agree in the axes before the last two, got {shapes}") from None


def check_mask(mask: Tensor | None, bias: Tensor | None, scores: tuple[int, ...]) -> None:
    """Whether mask and bias, where there are any, fit scores of this shape.

    Raises:
        ValueError: one does not broadcast to it.
        TypeError: a mask that is not boolean, a bias that is not floating-point.
    """
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may attend; got {mask.dtype}")
    if bias is not None and not bias.is_floating_point():
        raise TypeError(f"bias must be floating-point, it is added to the scores; got {bias.dtype}")
    for name, table in (("mask", mask), ("bias", bias)):
        if table is None:
            continue
        pairs = zip(reversed(table.shape), reversed(scores), strict=False)
        if table.ndim > len(scores) or any(size not in (1, wanted) for size, wanted in pairs):
            raise ValueError(f"{name} must broadcast to the scores {scores}, got {tuple(table.shape)}")
