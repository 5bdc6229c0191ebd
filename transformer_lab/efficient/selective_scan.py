"""Mamba: a recurrence whose memory has a fixed size, and which chooses what to keep. No attention.

Letters as in ``notation``: B batch, T tokens, D model width, N numbers of state for each channel; here also
Di channels inside of a block (twice D). Source: Gu and Dao (2023), sections 2 and 3,
https://arxiv.org/abs/2312.00752; the scan: Blelloch (1990), *Prefix Sums and Their Applications*.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from . import check_sizes


def scan(decay: Float[Tensor, "B T ..."], new: Float[Tensor, "B T ..."]) -> Float[Tensor, "B T ..."]:
    """h_t = decay_t h_(t-1) + new_t for every t, from h_(-1) = 0, one step after another: the definition.

    Raises:
        ValueError: shapes that differ, or without tokens.
    """
    check(decay, new)
    state, states = torch.zeros_like(new[:, 0]), []
    for t in range(new.shape[1]):
        state = decay[:, t] * state + new[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


def parallel_scan(decay: Float[Tensor, "B T ..."], new: Float[Tensor, "B T ..."]) -> Float[Tensor, "B T ..."]:
    """What ``scan`` gives, in about 2 log2 T steps, each of them for many t at once.

    Two neighbours (a1, b1), (a2, b2) are one step together, (a2 a1, a2 b1 + b2). So pairs are joined, the
    half as long row is scanned in the same way, and what lies between is filled in: 2 T joins in all, twice
    the loop's (it is work-efficient). Source: Blelloch (1990), section 1.4.

    Raises:
        ValueError: shapes that differ, or without tokens.
    """
    check(decay, new)
    n = new.shape[1]
    if n == 1:
        return new
    even_decay, odd_decay = decay[:, : n - n % 2 : 2], decay[:, 1::2]
    even_new, odd_new = new[:, : n - n % 2 : 2], new[:, 1::2]
    at_odd = parallel_scan(odd_decay * even_decay, odd_decay * even_new + odd_new)  # h at 1, 3, 5, ...
    before = F.pad(at_odd.movedim(1, -1), (1, 0)).movedim(-1, 1)[:, : (n + 1) // 2]  # h at -1, 1, 3, ...
    at_even = decay[:, ::2] * before + new[:, ::2]
    states = torch.empty_like(new)
    states[:, ::2], states[:, 1::2] = at_even, at_odd
    return states


def check(decay: Tensor, new: Tensor) -> None:
    if decay.shape != new.shape or new.ndim < 2 or new.shape[1] == 0:
        shapes = f"{tuple(decay.shape)} and {tuple(new.shape)}"
        raise ValueError(f"decay and new must have one shape (B, T, ...) with tokens, got {shapes}")


def convolution_kernel(
    decay: Float[Tensor, "Di N"], write: Float[Tensor, "Di N"], read: Float[Tensor, "Di N"], n_tokens: int
) -> Float[Tensor, "Di T"]:
    """K_t = Σ_N read decay^t write: where decay, write and read are the same at all times, the recurrence is
    a convolution with this kernel.

    Source: Gu et al. (2021), section 2.4, https://arxiv.org/abs/2111.00396.

    >>> half, one = torch.tensor([[0.5]]), torch.tensor([[1.0]])
    >>> convolution_kernel(half, one, one, 4).tolist()
    [[1.0, 0.5, 0.25, 0.125]]
    """
    powers = decay[..., None] ** torch.arange(n_tokens, device=decay.device)  # (Di, N, T)
    return ((read * write)[..., None] * powers).sum(dim=1)


def zero_order_hold(
    rate: Float[Tensor, "Di N"], step: Float[Tensor, "... Di"]
) -> tuple[Float[Tensor, "... Di N"], Float[Tensor, "... Di N"]]:
    """The discretisation of h' = rate h + x where x stands still for a time ``step``: the decay of the old
    state, and the weight of x.

    Source: equation (4) of Gu and Dao (2023). Mamba's published code takes the exact decay, but ``step``
    itself for the weight (Euler), as ``MambaBlock`` does.

    >>> decay, weight = zero_order_hold(torch.tensor([[-1.0]]), torch.tensor([0.1]))
    >>> [round(x.item(), 4) for x in (decay, weight)]
    [0.9048, 0.0952]
    """
    turned = rate * step[..., None]
    return turned.exp(), torch.expm1(turned) / rate


class MambaState:
    """What a block keeps of all that it has read: its size does not grow.

    Args:
        recent: (B, K - 1, Di), the last inputs of the convolution; state: (B, Di, N).
    """

    def __init__(self, recent: Tensor, state: Tensor) -> None:
        self.recent, self.state = recent, state


class MambaBlock(nn.Module):
    """A selective state space between two projections, with a short convolution and a gate.

    Source: Gu and Dao (2023), section 3.4; the sizes and the first weights are those of the published code.

    Args:
        d_model: width D.
        d_state: numbers N of state for each channel.
        d_conv: tokens K that the convolution sees.
        expand: Di is ``expand`` times D.
        gate: multiply with silu of the other half, as the paper does.
        selective: step, write and read follow from the token. False: they are learned, the same for all.

    Raises:
        ValueError: a size below 1.

    >>> MambaBlock(d_model=8)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        *,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        gate: bool = True,
        selective: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=expand)
        self.d_model, self.d_state, self.d_conv, self.d_inner = d_model, d_state, d_conv, expand * d_model
        self.rank = math.ceil(d_model / 16)
        self.in_proj = nn.Linear(d_model, (2 if gate else 1) * self.d_inner, bias=False)
        self.conv = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner)
        n_chosen = self.rank + 2 * d_state  # for step, write and read
        self.x_proj = nn.Linear(self.d_inner, n_chosen, bias=False) if selective else None
        self.fixed = None if selective else nn.Parameter(torch.randn(n_chosen))
        self.step_proj = nn.Linear(self.rank, self.d_inner)
        self.log_rate = nn.Parameter(torch.arange(1, d_state + 1).float().log().repeat(self.d_inner, 1))
        self.skip = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self._initialise()

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """All tokens at once: no token sees a later one.

        Raises:
            ValueError: ``x`` does not end in ``d_model``.
        """
        inner, gate = self._enter(x)
        before = F.pad(inner, (0, 0, self.d_conv - 1, 0))  # the convolution looks back only
        inner = F.silu(self.conv(before.mT).mT)
        decay, new, read = self._recurrence(inner)
        return self._leave(parallel_scan(decay, new), read, inner, gate)

    def start(self, n_batch: int) -> MambaState:
        """Nothing read yet."""
        like = self.skip
        return MambaState(
            like.new_zeros(n_batch, self.d_conv - 1, self.d_inner),
            like.new_zeros(n_batch, self.d_inner, self.d_state),
        )

    def step(self, x: Float[Tensor, "B 1 D"], state: MambaState) -> Float[Tensor, "B 1 D"]:
        """One token more, which is added to ``state``: the same output as ``forward``'s last."""
        inner, gate = self._enter(x)
        seen = torch.cat([state.recent, inner], dim=1)  # (B, K, Di)
        state.recent = seen[:, 1:]
        inner = F.silu((seen * self.conv.weight[:, 0].T).sum(dim=1, keepdim=True) + self.conv.bias)
        decay, new, read = self._recurrence(inner)
        state.state = decay[:, 0] * state.state + new[:, 0]
        return self._leave(state.state[:, None], read, inner, gate)

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if x.ndim != 3 or x.shape[-1] != self.d_model:
            raise ValueError(f"x must be (B, T, d_model={self.d_model}), got {tuple(x.shape)}")
        parts = self.in_proj(x).split(self.d_inner, dim=-1)
        return parts[0], parts[1] if len(parts) == 2 else None

    def _recurrence(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decay and news (B, T, Di, N), and how the state is read, (B, T, N)."""
        chosen = self.fixed.expand(*inner.shape[:2], -1) if self.x_proj is None else self.x_proj(inner)
        step, write, read = chosen.split([self.rank, self.d_state, self.d_state], dim=-1)
        step = F.softplus(self.step_proj(step))  # (B, T, Di)
        decay = (-self.log_rate.exp() * step[..., None]).exp()
        new = (step * inner)[..., None] * write[:, :, None]  # Euler, as in the published code
        return decay, new, read

    def _leave(self, states: Tensor, read: Tensor, inner: Tensor, gate: Tensor | None) -> Tensor:
        y = (states @ read[..., None])[..., 0] + self.skip * inner
        return self.out_proj(y if gate is None else y * F.silu(gate))

    def _initialise(self) -> None:
        """Steps begin between 0.001 and 0.1, evenly in their logarithm."""
        nn.init.uniform_(self.step_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        step = torch.exp(torch.empty(self.d_inner).uniform_(math.log(0.001), math.log(0.1)))
        with torch.no_grad():
            self.step_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus gives it back
