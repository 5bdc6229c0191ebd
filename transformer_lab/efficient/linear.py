"""Linear attention: with a product in place of the exponential, all that was read fits into one matrix.

It is another function than softmax attention, with other weights, and not an approximation of it. Letters as
in ``notation``: B batch, H heads, T queries, S keys, Dh head width. Source: Katharopoulos et al. (2020),
sections 3.2 to 3.4, https://arxiv.org/abs/2006.16236.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..masks import check_padding
from ..notation import Mask
from . import check_sizes

Feature = Callable[[Tensor], Tensor]  # (..., Dh) -> (..., any width), nowhere negative


def elu_feature(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """elu(x) + 1: x + 1 above 0, eˣ below. Equation (7) of Katharopoulos et al. (2020).

    Written so that far below 0 the rounding of -1 + 1 does not make it 0.

    >>> elu_feature(torch.tensor([2.0, 0.0, -1.0])).round(decimals=3).tolist()
    [3.0, 1.0, 0.36800000071525574]
    """
    return x.relu() + x.clamp(max=0).exp()


def linear_attention(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dv"],
    padding: Mask | None = None,
    *,
    causal: bool = True,
    feature: Feature = elu_feature,
    chunk: int = 64,
) -> Float[Tensor, "B H T Dv"]:
    """Σ_s f(q_t)·f(k_s) v_s / Σ_s f(q_t)·f(k_s), in time and memory that grow with T + S and not with T S.

    (f(q) f(k)ᵀ) v is f(q) (f(k)ᵀ v): the matrix in the last brackets has the same size for any number of
    keys. With ``causal`` it is a running sum. That is taken from chunk to chunk; within one, the small table
    of scores is made.

    Args:
        q, k, v: queries, keys and values.
        padding: (B, 1, 1, S), True where a key is real, as ``masks.padding_mask`` gives it.
        causal: query t sees keys 0 to t; then T = S.
        feature: f, for queries and keys.
        chunk: tokens in a chunk. It changes nothing but the rounding, and the time.

    Returns:
        (B, H, T, Dv); a query that may see nothing gets 0.

    Raises:
        ValueError: shapes that do not fit together, or a chunk without a token.
        TypeError: a mask that is not boolean.

    >>> ones, values = torch.ones(1, 1, 3, 2), torch.tensor([[[[3.0], [6.0], [0.0]]]])
    >>> linear_attention(ones, ones, values).flatten().tolist()  # all keys alike: the mean of those so far
    [3.0, 4.5, 3.0]
    """
    _check(q, k, v, padding, causal, chunk)
    fq, fk, v1 = _prepared(q, k, v, feature)
    if padding is not None:
        fk = fk * padding.mT  # (B, 1, S, 1)
    if causal:
        sums, _ = _running(fq, fk, v1, fk.new_zeros(*fk.shape[:2], fk.shape[-1], v1.shape[-1]), chunk)
    else:
        sums = fq @ (fk.mT @ v1)
    return _divided(sums).to(q.dtype)


class LinearState:
    """What causal linear attention keeps of all that it has read: its size does not grow.

    A matrix of numbers f(k)ᵀ (v, 1), summed over all tokens; the 1 behind the value gives the divisor.

    Args:
        n_batch: B; n_heads: H; d_head: Dh, or the width of the features where that is another one.
        d_value: width of a value, by default ``d_head``.
        feature: f, as in ``linear_attention``.
        dtype: of the sums; by default PyTorch's default. device: where to keep them.

    Raises:
        ValueError: a size below 1.

    >>> state = LinearState(1, 1, 2)
    >>> state.step(*torch.tensor([[[[[1.0, 0.0]]]], [[[[0.0, 1.0]]]], [[[[5.0, 7.0]]]]])).tolist()
    [[[[5.0, 7.0]]]]
    """

    def __init__(
        self,
        n_batch: int,
        n_heads: int,
        d_head: int,
        *,
        d_value: int | None = None,
        feature: Feature = elu_feature,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        d_value = d_head if d_value is None else d_value
        check_sizes(n_batch=n_batch, n_heads=n_heads, d_head=d_head, d_value=d_value)
        self.sums = torch.zeros(n_batch, n_heads, d_head, d_value + 1, dtype=dtype, device=device)
        self.feature = feature

    @property
    def nbytes(self) -> int:
        return self.sums.nbytes

    def step(
        self, q: Float[Tensor, "B H T Dh"], k: Float[Tensor, "B H T Dh"], v: Float[Tensor, "B H T Dv"]
    ) -> Float[Tensor, "B H T Dv"]:
        """T tokens more, which are added to the state: what ``linear_attention`` gives for them.

        Raises:
            ValueError: shapes that do not fit together or to the state.
        """
        _check(q, k, v)
        fq, fk, v1 = _prepared(q, k, v, self.feature)
        wanted = (*fk.shape[:2], fk.shape[-1], v1.shape[-1])
        if self.sums.shape != wanted:
            raise ValueError(f"these tokens need a state of {wanted}, this one is {tuple(self.sums.shape)}")
        sums, last = _running(fq, fk, v1, self.sums)
        self.sums = last.to(self.sums.dtype)
        return _divided(sums).to(q.dtype)


def _prepared(q: Tensor, k: Tensor, v: Tensor, feature: Feature) -> tuple[Tensor, Tensor, Tensor]:
    """The features, and each value with a 1 behind it; in float32 at least, since long sums are taken."""
    exact = torch.promote_types(q.dtype, torch.float32)
    return feature(q.to(exact)), feature(k.to(exact)), F.pad(v.to(exact), (0, 1), value=1.0)


def _running(fq: Tensor, fk: Tensor, v1: Tensor, start: Tensor, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """The sums (B, H, T, Dv + 1) that each query sees, and the matrix after the last token."""
    n_tokens = fq.shape[2]
    chunk = min(chunk, max(n_tokens, 1))

    def chunks(x: Tensor) -> Tensor:  # (B, H, T, C) -> (B, H, n, chunk, C), filled up with 0
        return F.pad(x, (0, 0, 0, -n_tokens % chunk)).unflatten(2, (-1, chunk))

    fq, fk, v1 = chunks(fq), chunks(fk), chunks(v1)
    states = torch.cat([start[:, :, None], fk.mT @ v1], dim=2).cumsum(
        dim=2
    )  # before each chunk, and after all
    sums = fq @ states[:, :, :-1] + (fq @ fk.mT).tril() @ v1
    return sums.flatten(2, 3)[:, :, :n_tokens], states[:, :, -1]


def _divided(sums: Tensor) -> Tensor:
    value, divisor = sums[..., :-1], sums[..., -1:]
    return value / divisor.masked_fill(divisor == 0, 1.0)  # only what saw nothing has 0


def _check(
    q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None = None, causal: bool = True, chunk: int = 64
) -> None:
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim != 4:
            raise ValueError(f"{name} must be (B, H, tokens, width), got {tuple(t.shape)}")
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3] or k.shape[:3] != v.shape[:3]:
        raise ValueError(
            "q, k and v must agree in B and H, q and k in Dh, and k and v in S, got"
            f" {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(
            f"causal=True needs a key for each query, got {q.shape[2]} queries and {k.shape[2]} keys;"
            " to go on from earlier tokens, use LinearState"
        )
    check_sizes(chunk=chunk)
    check_padding(padding, k)
