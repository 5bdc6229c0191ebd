"""Feed-forward networks: what each token works out alone, between two attentions.

Letters as in ``notation``: B batch, T tokens, D model width, F hidden width (d_ff). Sources: Vaswani et al.
(2017), section 3.3, https://arxiv.org/abs/1706.03762; Shazeer (2020), https://arxiv.org/abs/2002.05202 (gated
variants); Shazeer et al. (2017), https://arxiv.org/abs/1701.06538, and Fedus et al. (2022),
https://arxiv.org/abs/2101.03961 (mixture of experts).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,  # exact: x times the share of a standard normal below x
    "silu": F.silu,  # x times sigmoid(x), also called swish
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class FeedForward(nn.Module):
    """activation(x W_up + b_up) W_down + b_down, for each token: equation (2) of Vaswani et al. (2017).

    Args:
        d_model: width D.
        d_ff: hidden width F, usually 4 D.
        activation: one of ``ACTIVATIONS``.
        dropout: probability of dropping one hidden number, in training only.

    Raises:
        ValueError: a width below 1, an unknown activation, or ``dropout`` is no probability.

    >>> FeedForward(d_model=4, d_ff=16)(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, *, d_model: int, d_ff: int, activation: str = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        _check_widths(d_model, d_ff, activation)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a probability below 1, got {dropout}")
        self.d_model, self.d_ff, self.activation = d_model, d_ff, activation
        self.up_proj = nn.Linear(d_model, d_ff)
        self.down_proj = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Raises ValueError where the last axis is not ``d_model`` long."""
        hidden = self.hidden(x)
        # as in norms.Residual: a dropout that is off costs a call
        return self.down_proj(self.dropout(hidden) if self.dropout.training else hidden)

    def hidden(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... F"]:
        """How strongly each of the F hidden units answers: the memory's coefficients (Geva et al., 2021)."""
        _check_width(x, self.d_model)
        return ACTIVATIONS[self.activation](self.up_proj(x))


class GatedFeedForward(nn.Module):
    """(activation(x W_gate) * x W_up) W_down, without biases: the GLU family of Shazeer (2020), section 2.

    Three matrices instead of two: at equal parameters F is two thirds of a ``FeedForward``'s
    (``gated_width``).

    Args:
        d_model: width D.
        d_ff: hidden width F.
        activation: "sigmoid" makes it GLU, "relu" ReGLU, "gelu" GEGLU, "silu" SwiGLU, "identity" the bilinear
            layer.

    Raises:
        ValueError: a width below 1, or an unknown activation.
    """

    def __init__(self, *, d_model: int, d_ff: int, activation: str) -> None:
        super().__init__()
        _check_widths(d_model, d_ff, activation)
        self.d_model, self.d_ff, self.activation = d_model, d_ff, activation
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Raises ValueError where the last axis is not ``d_model`` long."""
        _check_width(x, self.d_model)
        return self.down_proj(ACTIVATIONS[self.activation](self.gate_proj(x)) * self.up_proj(x))


class SwiGLU(GatedFeedForward):
    """The feed-forward network of LLaMA: a ``GatedFeedForward`` with silu.

    Sources: Shazeer (2020), equation (6); Touvron et al. (2023), section 2.2,
        https://arxiv.org/abs/2302.13971.

    >>> SwiGLU(d_model=4, d_ff=8)(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, *, d_model: int, d_ff: int) -> None:
        super().__init__(d_model=d_model, d_ff=d_ff, activation="silu")


def gated_width(d_ff: int, multiple_of: int = 1) -> int:
    """The hidden width of a gated network with as many weights as a plain one: two thirds, rounded up.

    Args:
        d_ff: F of the plain network; multiple_of: what the answer is rounded up to (LLaMA: 256).

    Raises:
        ValueError: a number below 1.

    >>> gated_width(4 * 4096, multiple_of=256)  # LLaMA 7B
    11008
    """
    if d_ff < 1 or multiple_of < 1:
        raise ValueError(f"d_ff and multiple_of must be 1 or more, got {d_ff} and {multiple_of}")
    return -(-2 * d_ff // (3 * multiple_of)) * multiple_of


class MixtureOfExperts(nn.Module):
    """Many feed-forward networks, of which a router chooses ``top_k`` for each token.

    The output is the chosen experts' mean, weighted by a softmax over their routing scores. No token is
    dropped. With ``top_k=1`` that softmax is always 1, and only ``balance_loss`` can teach the router.
    Sources: Shazeer et al. (2017), section 2; Jiang et al. (2024), section 2.1,
    https://arxiv.org/abs/2401.04088 (Mixtral, whose experts are SwiGLU as here).

    Args:
        d_model: width D.
        d_ff: hidden width F of each expert.
        n_experts: how many experts E there are.
        top_k: how many of them each token uses.

    Raises:
        ValueError: a width below 1, or not 1 <= top_k <= n_experts.

    >>> experts = MixtureOfExperts(d_model=4, d_ff=8, n_experts=4, top_k=2)
    >>> experts(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, *, d_model: int, d_ff: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k must be from 1 to n_experts={n_experts}, got {top_k}")
        self.d_model, self.top_k = d_model, top_k
        self.router = nn.Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(d_model=d_model, d_ff=d_ff) for _ in range(n_experts))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Raises ValueError where the last axis is not ``d_model`` long."""
        _check_width(x, self.d_model)
        tokens = x.reshape(-1, self.d_model)
        weights, chosen = self.route(tokens)
        output = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            token, place = torch.where(chosen == e)  # which tokens chose it, and as their how-manieth
            output = output.index_add(0, token, weights[token, place, None] * expert(tokens[token]))
        return output.view_as(x)

    def route(self, x: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... k"], Int[Tensor, "... k"]]:
        """For each token its k = top_k experts, best first: weights, which sum to 1, and numbers."""
        _check_width(x, self.d_model)
        scores, chosen = self.router(x).topk(self.top_k, dim=-1)
        return scores.softmax(dim=-1), chosen

    def balance_loss(self, x: Float[Tensor, "... D"]) -> Float[Tensor, ""]:
        """1 when all experts are used alike, E when one does everything: in the loss, it spreads the load.

        E times the sum over experts of (share of choices that fall on it) x (its mean routing probability).
        Gradients flow through the probabilities only. Source: Fedus et al. (2022), section 2.2, equations (4)
        to (6), with top_k choices a token: Hugging Face's function for Mixtral counts choices per token
        instead, and is top_k times as large.

        Raises:
            ValueError: the last axis is not ``d_model`` long.
        """
        load = self.load(x)
        probabilities = self.router(x).softmax(dim=-1).reshape(-1, len(load))  # (tokens, E)
        return len(load) * (load * probabilities.mean(dim=0)).sum()

    def load(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "E"]:
        """The share of all choices that falls on each of the E experts; they sum to 1."""
        chosen = self.route(x)[1].flatten()
        return torch.bincount(chosen, minlength=len(self.experts)).to(x.dtype) / len(chosen)

    def parameters_per_token(self) -> int:
        """How many weights one token uses: the router's and those of ``top_k`` experts.

        >>> experts = MixtureOfExperts(d_model=4, d_ff=8, n_experts=4, top_k=2)
        >>> experts.parameters_per_token(), sum(p.numel() for p in experts.parameters())
        (208, 400)
        """
        one = sum(p.numel() for p in self.experts[0].parameters())
        return self.router.weight.numel() + self.top_k * one


def _check_widths(d_model: int, d_ff: int, activation: str) -> None:
    if d_model < 1 or d_ff < 1:
        raise ValueError(f"d_model and d_ff must be 1 or more, got {d_model} and {d_ff}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")


def _check_width(x: Tensor, d_model: int) -> None:
    if x.ndim < 1 or x.shape[-1] != d_model:
        raise ValueError(f"x must end in d_model={d_model}, got {tuple(x.shape)}")
