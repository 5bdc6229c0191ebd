"""Normalisation and residual connections: what lets many layers be stacked.

Letters as in ``notation``: B batch, T tokens, D model width. Sources: Ba et al. (2016),
https://arxiv.org/abs/1607.06450 (layer norm); Zhang and Sennrich (2019), https://arxiv.org/abs/1910.07467
(RMS norm); Xiong et al. (2020), https://arxiv.org/abs/2002.04745 (where the norm stands).
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Each token's vector, moved to mean 0 and stretched to variance 1, then scaled and shifted by entry.

    Source: Ba et al. (2016), section 3, equation (4). The variance divides by D, not by D - 1. In half
    precision mean and variance are computed in float32, as PyTorch does.

    Args:
        d_model: width D of what comes in.
        eps: added to the variance, so that equal entries are not divided by 0.

    Raises:
        ValueError: a width below 1, or an ``eps`` that is not positive.

    >>> LayerNorm(2, eps=1e-12)(torch.tensor([[3.0, 7.0]])).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        _check_norm(d_model, eps)
        self.d_model, self.eps = d_model, eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Raises ValueError where the last axis is not ``d_model`` long."""
        wide = _widened(x, self.d_model)
        centred = wide - wide.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return (centred * (variance + self.eps).rsqrt()).to(x.dtype) * self.weight + self.bias


class RMSNorm(nn.Module):
    """Each token's vector, stretched to a mean square of 1, then scaled entry by entry; the mean stays in.

    Source: Zhang and Sennrich (2019), equation (4); as in LLaMA (Touvron et al., 2023, section 2.2). In half
    precision the mean square is computed in float32.

    Args:
        d_model: width D of what comes in.
        eps: added to the mean square.

    Raises:
        ValueError: a width below 1, or an ``eps`` that is not positive.

    >>> RMSNorm(2, eps=1e-12)(torch.tensor([[3.0, 3.0]])).tolist()  # the mean stays in
    [[1.0, 1.0]]
    """

    def __init__(self, d_model: int, eps: float = 1e-6) -> None:
        super().__init__()
        _check_norm(d_model, eps)
        self.d_model, self.eps = d_model, eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Raises ValueError where the last axis is not ``d_model`` long."""
        wide = _widened(x, self.d_model)
        mean_square = wide.square().mean(dim=-1, keepdim=True)
        return (wide * (mean_square + self.eps).rsqrt()).to(x.dtype) * self.weight


class Residual(nn.Module):
    """One sub-layer f with its skip connection and its norm.

    ``"pre"``: x + f(norm(x)). The way from the first layer to the last is a plain sum, the residual stream.
    ``"post"``: norm(x + f(x)), as in Vaswani et al. (2017), section 3.1.
    ``"none"``: x + f(x), without a norm.

    Args:
        d_model: width D.
        placement: where the norm stands.
        norm: makes the norm from the width, ``LayerNorm`` or ``RMSNorm``.
        dropout: probability of dropping one number of f's result, in training only.

    Raises:
        ValueError: an unknown placement, or ``dropout`` is no probability.

    >>> double = Residual(2, placement="none")  # what f gives is added to what came in
    >>> double(torch.ones(1, 1, 2), lambda h: h).tolist()
    [[[2.0, 2.0]]]
    """

    def __init__(
        self,
        d_model: int,
        *,
        placement: Literal["pre", "post", "none"] = "pre",
        norm: Callable[[int], nn.Module] = LayerNorm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if placement not in ("pre", "post", "none"):
            raise ValueError(f"placement must be 'pre', 'post' or 'none', got {placement!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a probability below 1, got {dropout}")
        self.placement = placement
        self.norm = nn.Identity() if placement == "none" else norm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "... T D"], sublayer: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "... T D"]:
        """``sublayer`` is f: it takes a tensor shaped as ``x`` and gives one back."""
        y = sublayer(x if self.placement == "post" else self.norm(x))
        if self.dropout.training:  # a call that changes nothing takes its time, too: writing is many of them
            y = self.dropout(y)
        return self.norm(x + y) if self.placement == "post" else x + y


def token_diversity(x: Float[Tensor, "... T D"]) -> Float[Tensor, "..."]:
    """How much tokens differ from each other: the share of their length that is not their common mean.

    ‖x - mean over tokens‖ / ‖x‖ in the Frobenius norm: 0 when all tokens are alike, near 1 when they have
    nothing in common. Dong et al. (2021), https://arxiv.org/abs/2103.03404, study the same residual.

    >>> token_diversity(torch.tensor([[1.0, 2.0], [1.0, 2.0]])).item()  # two equal tokens
    0.0
    """
    centred = x - x.mean(dim=-2, keepdim=True)
    return torch.linalg.matrix_norm(centred) / torch.linalg.matrix_norm(x)


def _check_norm(d_model: int, eps: float) -> None:
    if d_model < 1:
        raise ValueError(f"d_model must be 1 or more, got {d_model}")
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")


def _widened(x: Tensor, d_model: int) -> Tensor:
    if x.ndim < 1 or x.shape[-1] != d_model:
        raise ValueError(f"x must end in d_model={d_model}, got {tuple(x.shape)}")
    return x.to(torch.promote_types(x.dtype, torch.float32))
