"""Sliding-window attention: each token sees its neighbours only, and a few global tokens see all. Longformer.

Letters as in ``notation``: B batch, H heads, T tokens, D model width, Dh width of a head; here also G global
tokens, and w, the window, of which one half lies before a token and one behind.
Source: Beltagy et al. (2020), section 3, https://arxiv.org/abs/2004.05150.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import check_heads, split_heads


def sliding_window_attention(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H T Dh"],
    v: Float[Tensor, "B H T Dh"],
    real: Bool[Tensor, "B T"] | None = None,
    *,
    window: int,
    dilation: int = 1,
    causal: bool = False,
    is_global: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B H T Dh"]:
    """Attention to w / 2 tokens before and behind, itself, and the global tokens: time and memory grow with
    T w, not with T².

    The tokens are cut into blocks of w / 2; the queries of a block find all their keys in three blocks, their
    own and its neighbours, or in two where the later one is not seen. With a dilation d, tokens 0, d, 2 d,
    ... are a row of their own, then 1, 1 + d, ...

    Args:
        q, k, v: queries, keys and values.
        real: which tokens are no padding. None: all are.
        window: w, in tokens, the one in the middle not counted.
        dilation: d: a token sees every d-th of those around it, d times as far.
        causal: what comes later is not seen, global tokens aside.
        is_global: which tokens are seen from everywhere. What they themselves see is not made here: see
            ``WindowAttention``.

    Returns:
        (B, H, T, Dh); a token that sees nothing gets 0.

    Raises:
        ValueError: shapes that do not fit together, a window that is no even number of 2 or more, or a
            dilation below 1.

    >>> x = torch.eye(5)[None, None]  # five tokens, and in the output each column is one of them
    >>> sliding_window_attention(0 * x, x, x, window=2)[0, 0, 2].tolist()
    [0.0, 0.3333333432674408, 0.3333333432674408, 0.3333333432674408, 0.0]
    """
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (q, k, v))
        raise ValueError(f"q, k and v must all be (B, H, T, Dh), got {shapes}")
    if window < 2 or window % 2:
        raise ValueError(f"window must be an even number of 2 or more, got {window}")
    if dilation < 1:
        raise ValueError(f"dilation must be 1 or more, got {dilation}")
    n_batch, _, n_tokens, _ = q.shape
    for name, table in (("real", real), ("is_global", is_global)):
        if table is not None and table.shape != (n_batch, n_tokens):
            raise ValueError(f"{name} must be (B, T) = {(n_batch, n_tokens)}, got {tuple(table.shape)}")
    if n_tokens == 0:
        return q
    if real is None:
        real = torch.ones(n_batch, n_tokens, dtype=torch.bool, device=q.device)
    everywhere = None
    if is_global is not None:
        index, there = _places(is_global & real)  # (B, G)
        picked = index[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3])
        everywhere = k.gather(2, picked), v.gather(2, picked), there
        real = real & ~is_global  # each is seen once

    def strands(x: Tensor) -> Tensor:  # (B, ..., T, C) -> (B, ..., d, T / d, C), filled up
        x = F.pad(x, (0, 0, 0, -n_tokens % dilation))
        return x.unflatten(-2, (-1, dilation)).transpose(-2, -3)

    seen = strands(real[:, None, :, None])[..., 0]  # (B, 1, d, T / d), False where filled up
    y = _banded(strands(q), strands(k), strands(v), seen, window // 2, causal, everywhere)
    return y.transpose(-2, -3).flatten(-3, -2)[..., :n_tokens, :]


def _banded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    real: Tensor,
    half: int,
    causal: bool,
    everywhere: tuple[Tensor, ...] | None,
) -> Tensor:
    """q, k, v (B, H, d, T, Dh) and real (B, 1, d, T) to (B, H, d, T, Dh)."""
    n = q.shape[-2]
    half = min(half, max(1, n - 1))  # a window wider than the text sees the text
    behind = 0 if causal else half  # how much of what comes later is seen
    n_keys = 2 * half + behind
    short = -n % half

    def neighbours(x: Tensor) -> Tensor:  # (..., T, C) -> (..., blocks, keys, C)
        return F.pad(x, (0, 0, half, behind + short)).unfold(-2, n_keys, half).transpose(-1, -2)

    queries = F.pad(q, (0, 0, 0, short)).unflatten(-2, (-1, half))  # (..., blocks, half, Dh)
    steps = torch.arange(n_keys, device=q.device) - half - torch.arange(half, device=q.device)[:, None]
    band = (steps >= -half) & (steps <= behind)  # (half, keys)
    allowed = band & neighbours(real[..., None]).mT  # (..., blocks, half, keys)
    keys, values = neighbours(k), neighbours(v)
    if everywhere is not None:
        further_k, further_v, there = everywhere
        shape = (*keys.shape[:-2], *further_k.shape[-2:])
        keys = torch.cat([keys, further_k[:, :, None, None].expand(shape)], dim=-2)
        values = torch.cat([values, further_v[:, :, None, None].expand(shape)], dim=-2)
        there = there[:, None, None, None, None].expand(*allowed.shape[:-1], -1)
        allowed = torch.cat([allowed, there], dim=-1)
    y = F.scaled_dot_product_attention(queries, keys, values, allowed)
    return y.flatten(-3, -2)[..., :n, :]


class WindowAttention(nn.Module):
    """Longformer's self-attention: a window for all, and global tokens that see all and are seen by all.

    Source: Beltagy et al. (2020), section 3.1: global tokens have projections of their own.

    Args:
        d_model: model width D, a multiple of ``n_heads``.
        n_heads: heads H.
        window, dilation: as in ``sliding_window_attention``.

    Raises:
        ValueError: ``d_model`` is not a multiple of ``n_heads``.

    >>> WindowAttention(d_model=8, n_heads=2, window=2)(torch.zeros(1, 9, 8)).shape
    torch.Size([1, 9, 8])
    """

    def __init__(self, *, d_model: int, n_heads: int, window: int, dilation: int = 1) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        self.n_heads, self.window, self.dilation = n_heads, window, dilation
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d_model, d_model) for _ in range(3))
        self.global_q_proj, self.global_k_proj, self.global_v_proj = (
            nn.Linear(d_model, d_model) for _ in range(3)
        )
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        real: Bool[Tensor, "B T"] | None = None,
        is_global: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """What padding gets means nothing.

        Args:
            real: which tokens are no padding; is_global: which see all. None: all are real, none is global.
        """
        q, k, v = (split_heads(p(x), self.n_heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        about = {"window": self.window, "dilation": self.dilation, "is_global": is_global}
        y = sliding_window_attention(q, k, v, real, **about)
        y = y.transpose(1, 2).flatten(2)  # (B, T, D)
        if is_global is not None:
            y = torch.where(is_global[..., None], self._seeing_all(x, real, is_global), y)
        return self.out_proj(y)

    def _seeing_all(self, x: Tensor, real: Tensor | None, is_global: Tensor) -> Tensor:
        """(B, T, D), of which the rows of global tokens count."""
        index, _ = _places(is_global)
        asks = x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))  # (B, G, D)
        q = split_heads(self.global_q_proj(asks), self.n_heads)
        k, v = (split_heads(p(x), self.n_heads) for p in (self.global_k_proj, self.global_v_proj))
        found = F.scaled_dot_product_attention(q, k, v, None if real is None else real[:, None, None])
        found = found.transpose(1, 2).flatten(2)  # (B, G, D)
        return torch.zeros_like(x).scatter(1, index[..., None].expand_as(found), found)


def _places(chosen: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
    """Where each row's True stand, (B, G), G of the row that has most; and which of these are meant.

    A row with fewer is filled up with further places of its own, no place twice.
    """
    n_most = int(chosen.sum(dim=1).max()) if chosen.numel() else 0
    index = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :n_most]
    return index, chosen.gather(1, index)
