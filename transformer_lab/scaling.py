"""Scaling laws: how a loss falls with parameters, data and compute; fits with and without a floor, and bands.

N is here the number of parameters, D the number of tokens that a model is trained on and C the compute, in
FLOPs, of which a multiply-add is two. Losses are in nats per token. In shapes, P are points that were
measured or drawn, and R the runs of one size, or the draws. Nothing here trains a model: ``training.scaling``
does. Sources: Kaplan et al. (2020), https://arxiv.org/abs/2001.08361, sections 1.1 and 2.1; Hoffmann et al.
(2022), https://arxiv.org/abs/2203.15556, sections 3.3 and 3.4 and appendix D.3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

EXPONENTS = (0.01, 3.0)  # between these the fits with a floor look for theirs


# --- parameters and compute ------------------------------------------------------------------------


def count_parameters(
    *,
    n_layers: int,
    d_model: int,
    d_ff: int,
    vocab_size: int,
    n_positions: int = 0,
    d_kv: int | None = None,
    gated: bool = False,
    bias: bool = True,
    centred_norm: bool = True,
    final_norm: bool = True,
    tied: bool = True,
) -> dict[str, int]:
    """The numbers that a stack of Transformer blocks learns, counted from its settings alone.

    "embedding": tokens and positions; "attention": four projections a layer; "feed-forward"; "norms": two a
    layer, and one behind the last; "output": the matrix that makes the scores, where it is one of its own.
    What laws of scaling call N is the sum without "embedding" and "output" (Kaplan et al., section 2.1).

    Args:
        n_layers: L blocks; d_model: width D; d_ff: width F.
        vocab_size: V rows of the embedding; n_positions: rows of a learned table of positions.
        d_kv: width of keys and values, all heads together; as D if not given.
        gated: three matrices in the feed-forward network, as in SwiGLU, in place of two.
        bias: whether every matrix of a block has one.
        centred_norm: LayerNorm, which learns a scale and a shift; else RMSNorm, a scale alone.
        final_norm: whether a norm follows the last block.
        tied: whether the scores are made with the embedding's matrix.

    Raises:
        ValueError: a size below 1, or a negative number of positions.

    >>> count_parameters(n_layers=1, d_model=2, d_ff=8, vocab_size=5)["attention"]
    24
    """
    d_kv = d_model if d_kv is None else d_kv
    sizes = {"n_layers": n_layers, "d_model": d_model, "d_ff": d_ff, "vocab_size": vocab_size, "d_kv": d_kv}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}")
    if n_positions < 0:
        raise ValueError(f"n_positions must be 0 or more, got {n_positions}")
    attention = 2 * d_model * d_model + 2 * d_model * d_kv + bias * (2 * d_model + 2 * d_kv)
    ups = 2 if gated else 1
    feed_forward = (ups + 1) * d_model * d_ff + bias * (ups * d_ff + d_model)
    norm = (2 if centred_norm else 1) * d_model
    return {
        "embedding": (vocab_size + n_positions) * d_model,
        "attention": n_layers * attention,
        "feed-forward": n_layers * feed_forward,
        "norms": (2 * n_layers + final_norm) * norm,
        "output": 0 if tied else vocab_size * d_model,
    }


def without_embedding(counted: dict[str, int]) -> int:
    """N as laws of scaling count it: all but "embedding" and "output" of ``count_parameters``.

    >>> without_embedding({"embedding": 1000, "attention": 24, "feed-forward": 42, "norms": 8, "output": 0})
    74
    """
    return sum(n for part, n in counted.items() if part not in ("embedding", "output"))


def training_flops(n_parameters: float, n_tokens: float) -> float:
    """6 N D: a multiply-add for each parameter and token forwards, two of them backwards.

    Raises:
        ValueError: a negative number.

    >>> training_flops(10.0, 100.0)
    6000.0
    """
    if min(n_parameters, n_tokens) < 0:
        raise ValueError(f"n_parameters and n_tokens must be 0 or more, got {n_parameters} and {n_tokens}")
    return 6 * n_parameters * n_tokens


# --- laws ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """loss(x) = floor + scale / x ** exponent: one law, or as many at once as its tensors hold.

    >>> law = PowerLaw(floor=1.0, scale=8.0, exponent=0.5)
    >>> law(4.0)
    5.0
    """

    floor: float | Tensor
    scale: float | Tensor
    exponent: float | Tensor

    def __call__(self, x: float | Tensor) -> float | Tensor:
        return self.floor + self.scale * x**-self.exponent


@dataclass(frozen=True, kw_only=True)
class JointLaw:
    """L(N, D) = floor + of_parameters / N ** alpha + of_data / D ** beta.

    Source: Hoffmann et al. (2022), equation 2.

    >>> law = JointLaw(floor=1.0, of_parameters=8.0, alpha=1.0, of_data=8.0, beta=1.0)
    >>> law(4.0, 8.0)
    4.0
    >>> law.optimum(6 * 16.0)  # N times D is 16
    (4.0, 4.0)
    """

    floor: float
    of_parameters: float
    alpha: float
    of_data: float
    beta: float

    def __call__(self, n_parameters: float | Tensor, n_tokens: float | Tensor) -> float | Tensor:
        by_size = self.of_parameters * n_parameters**-self.alpha
        return self.floor + by_size + self.of_data * n_tokens**-self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """N and D of the lowest loss with 6 N D = ``flops``.

        There a percent more parameters gains what a percent fewer tokens loses:
        alpha of_parameters / N ** alpha = beta of_data / D ** beta. Source: equation 4 of the same paper.

        Raises:
            ValueError: no compute.
        """
        if flops <= 0:
            raise ValueError(f"flops must be above 0, got {flops}")
        together = self.alpha + self.beta
        balance = (self.alpha * self.of_parameters / (self.beta * self.of_data)) ** (1 / together)
        n_parameters = balance * (flops / 6) ** (self.beta / together)
        return n_parameters, (flops / 6) ** (self.alpha / together) / balance


HOFFMANN = JointLaw(floor=1.69, of_parameters=406.4, alpha=0.34, of_data=410.7, beta=0.28)

# Kaplan et al., equations 1.1, 1.2 and 1.5: N without embeddings, D in their tokens.
KAPLAN_N, KAPLAN_ALPHA_N = 8.8e13, 0.076
KAPLAN_D, KAPLAN_ALPHA_D = 5.4e13, 0.095


def kaplan(n_parameters: float, n_tokens: float = math.inf) -> float:
    """The loss by Kaplan et al.'s joint law; without ``n_tokens`` data are no limit.

    Raises:
        ValueError: a number that is not above 0.

    >>> f"{kaplan(2e9) / kaplan(1e9):.3f}"
    '0.949'
    """
    if min(n_parameters, n_tokens) <= 0:
        raise ValueError(f"n_parameters and n_tokens must be above 0, got {n_parameters} and {n_tokens}")
    by_size = (KAPLAN_N / n_parameters) ** (KAPLAN_ALPHA_N / KAPLAN_ALPHA_D)
    return (by_size + KAPLAN_D / n_tokens) ** KAPLAN_ALPHA_D


# --- fits ------------------------------------------------------------------------------------------


def fit_power_law(x: Float[Tensor, "... P"], loss: Float[Tensor, "... P"]) -> PowerLaw:
    """The law without a floor: a straight line, by least squares, through log x and log loss.

    Args:
        x: parameters, tokens or FLOPs; rows before the last axis are fitted each by itself.
        loss: measured there.

    Returns:
        floor 0; scale and exponent as float64 tensors, one for each row.

    Raises:
        ValueError: a number that is not above 0, or fewer than two different x in a row.

    >>> law = fit_power_law(torch.tensor([1.0, 100.0]), torch.tensor([3.0, 0.3]))
    >>> f"{law.scale:.3f} / x ** {law.exponent:.3f}"
    '3.000 / x ** 0.500'
    """
    _check_points(x, loss, different=2)
    lx, ly = x.double().log(), loss.double().log()
    across, up = lx - lx.mean(-1, keepdim=True), ly - ly.mean(-1, keepdim=True)
    slope = (across * up).sum(-1) / across.square().sum(-1)
    scale = (ly.mean(-1) - slope * lx.mean(-1)).exp()
    return PowerLaw(floor=torch.zeros_like(scale), scale=scale, exponent=-slope)


def fit_with_floor(x: Float[Tensor, "... P"], loss: Float[Tensor, "... P"], *, rounds: int = 5) -> PowerLaw:
    """The law with a floor: floor and scale by a linear fit for each exponent, the exponent by search.

    What is made small is the sum of squares of (law - loss) / loss, errors relative to the loss as in
    ``fit_power_law``. Floor and scale are not negative.

    Args:
        x, loss: as in ``fit_power_law``.
        rounds: of the search, each on 41 exponents, the first over ``EXPONENTS`` and each next one around the
            best so far.

    Returns:
        Float64 tensors, one number for each row. An exponent at an end of ``EXPONENTS`` says that the points
        hold no bend (low end) or that nothing but the first point bends (high end): do not trust its floor.

    Raises:
        ValueError: a number that is not above 0, fewer than three different x in a row, no round.

    >>> x = torch.tensor([1.0, 4.0, 16.0, 64.0])
    >>> law = fit_with_floor(x, 0.5 + 2 / x**0.5)
    >>> f"{law.floor:.3f} + {law.scale:.3f} / x ** {law.exponent:.3f}"
    '0.500 + 2.000 / x ** 0.500'
    """
    _check_points(x, loss, different=3)
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    lx, y = x.double().log(), loss.double()
    middle = lx.mean(-1, keepdim=True)  # so that x ** -exponent is near 1
    centred = lx - middle
    low, high = (torch.full_like(middle, math.log(end)) for end in EXPONENTS)
    ends = low, high
    for _ in range(rounds):
        tried = (low + (high - low) * torch.linspace(0, 1, 41, dtype=torch.float64)).exp()  # (..., 41)
        falling = (-tried[..., None] * centred[..., None, :]).exp()  # (..., 41, P)
        floor, scale, error = _line(falling, y[..., None, :])
        best = error.argmin(-1, keepdim=True)
        exponent = tried.gather(-1, best)
        step = (high - low) / 40
        low = (exponent.log() - step).clamp(min=ends[0])
        high = (exponent.log() + step).clamp(max=ends[1])
    floor, scale = (t.gather(-1, best)[..., 0] for t in (floor, scale))
    exponent = exponent[..., 0]
    return PowerLaw(floor=floor, scale=scale * (exponent * middle[..., 0]).exp(), exponent=exponent)


def _line(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """floor and scale, neither negative, of y = floor + scale t by squares of errors / y; and their sum."""
    weight = y**-2
    total = weight.sum(-1)
    t_mean, y_mean = ((weight * z).sum(-1) / total for z in (t, y.expand_as(t)))
    across = t - t_mean[..., None]
    scale = (weight * across * y).sum(-1) / (weight * across.square()).sum(-1)
    floor = y_mean - scale * t_mean
    # Where one would be negative it is 0, and the other fitted alone.
    alone = (weight * t * y).sum(-1) / (weight * t.square()).sum(-1)
    scale, floor = torch.where(floor < 0, alone, scale), floor.clamp(min=0)
    scale, floor = scale.clamp(min=0), torch.where(scale < 0, y_mean, floor)
    error = (weight * (floor[..., None] + scale[..., None] * t - y).square()).sum(-1)
    return floor, scale, error


def fit_joint(
    n_parameters: Float[Tensor, "P"], n_tokens: Float[Tensor, "P"], loss: Float[Tensor, "P"]
) -> JointLaw:
    """The law in N and D: for two given exponents the rest is linear, so the pair is searched.

    As in ``fit_with_floor``, errors are relative and no term is negative. Hoffmann et al. minimise Huber's
    loss of the difference of logarithms, which heeds outliers less.

    Raises:
        ValueError: a number that is not above 0, or fewer than three different N or D.

    >>> n, d = torch.tensor([[n, d] for n in (1.0, 4.0, 16.0) for d in (1.0, 9.0, 81.0)]).T
    >>> law = fit_joint(n, d, 1 + 2 / n**0.5 + 3 / d**0.25)
    >>> f"{law.floor:.2f} {law.of_parameters:.2f} {law.alpha:.3f} {law.of_data:.2f} {law.beta:.3f}"
    '1.00 2.00 0.500 3.00 0.250'
    """
    _check_points(n_parameters, loss, different=3)
    _check_points(n_tokens, loss, different=3)
    ln, ld, y = n_parameters.double().log(), n_tokens.double().log(), loss.double()
    middles = ln.mean(), ld.mean()
    ln, ld = ln - middles[0], ld - middles[1]
    grids = [torch.linspace(*map(math.log, EXPONENTS), 31, dtype=torch.float64)] * 2
    for _ in range(7):
        alpha, beta = (grid.exp() for grid in grids)
        terms = torch.stack(
            [
                torch.ones(len(alpha), len(beta), len(y), dtype=torch.float64),
                (-alpha[:, None, None] * ln).exp().expand(-1, len(beta), -1),
                (-beta[None, :, None] * ld).exp().expand(len(alpha), -1, -1),
            ],
            dim=-1,
        )  # (alpha, beta, P, 3)
        sizes, error = _not_negative(terms / y[:, None])
        best = divmod(error.argmin().item(), len(beta))
        grids = [
            torch.linspace(grid[max(i - 1, 0)].item(), grid[min(i + 1, 30)].item(), 31, dtype=torch.float64)
            for grid, i in zip(grids, best, strict=True)
        ]
    floor, of_n, of_d = sizes[best].tolist()
    a, b = alpha[best[0]].item(), beta[best[1]].item()
    of_n, of_d = of_n * math.exp(a * middles[0]), of_d * math.exp(b * middles[1])
    return JointLaw(floor=floor, of_parameters=of_n, alpha=a, of_data=of_d, beta=b)


def _not_negative(terms: Tensor) -> tuple[Tensor, Tensor]:
    """The three sizes, none negative, that make ``terms @ sizes`` nearest to 1; and the sum of squares."""
    best, least = terms.new_zeros(*terms.shape[:2], 3), terms.new_full(terms.shape[:2], math.inf)
    for used in ((0, 1, 2), (1, 2), (0, 1), (0, 2), (0,), (1,), (2,)):  # which may be above 0
        some = terms[..., used]
        ones = torch.ones(*some.shape[:-1], 1, dtype=some.dtype)
        sizes = torch.linalg.lstsq(some, ones).solution
        error = (some @ sizes - ones).square().sum((-2, -1))
        better = (sizes >= 0).all(-2)[..., 0] & (error < least)
        full = terms.new_zeros(*terms.shape[:2], 3)
        full[..., used] = sizes[..., 0]
        best, least = torch.where(better[..., None], full, best), torch.where(better, error, least)
    return best, least


def _check_points(x: Tensor, loss: Tensor, *, different: int) -> None:
    if x.shape != loss.shape:
        raise ValueError(f"each x needs one loss, got shapes {tuple(x.shape)} and {tuple(loss.shape)}")
    for name, values in (("x", x), ("loss", loss)):
        if not (values > 0).all():
            raise ValueError(f"every {name} must be above 0 to have a logarithm, got {values.min().item()}")
    ordered = x.sort(-1).values
    count = 1 + (ordered.diff(dim=-1) > 0).sum(-1)
    if count.min() < different:
        raise ValueError(f"{different} different x are needed for this law, got {count.min().item()}")


# --- bands -----------------------------------------------------------------------------------------

Fit = Callable[[Tensor, Tensor], PowerLaw]


def resampled(
    n_sizes: int,
    n_seeds: int,
    *,
    n_draws: int,
    generator: torch.Generator,
    sizes_too: bool = True,
    different: int = 3,
) -> tuple[Int[Tensor, "R P"], Int[Tensor, "R P"]]:
    """Which points each draw of a bootstrap holds: row and column into a table (n_sizes, n_seeds) of losses.

    Each draw has as many points as the table. ``sizes_too``: sizes are drawn with replacement, and for each,
    as many of its seeds, with replacement; without it every size occurs once and only seeds are drawn. A draw
    of fewer than ``different`` sizes holds no law, and is drawn again.

    Raises:
        ValueError: a number below 1, or fewer sizes than must differ.

    >>> rows, columns = resampled(4, 3, n_draws=2, generator=torch.Generator().manual_seed(0))
    >>> rows.shape
    torch.Size([2, 12])
    """
    if min(n_seeds, n_draws) < 1:
        raise ValueError(f"n_seeds and n_draws must be 1 or more, got {n_seeds} and {n_draws}")
    if n_sizes < different:
        raise ValueError(f"a draw needs {different} different sizes, got a table of {n_sizes}")
    rows = torch.arange(n_sizes).expand(n_draws, -1).clone()
    poor = torch.full((n_draws,), sizes_too)
    while poor.any():
        rows[poor] = torch.randint(n_sizes, (int(poor.sum()), n_sizes), generator=generator)
        poor = 1 + (rows.sort(-1).values.diff(dim=-1) > 0).sum(-1) < different
    columns = torch.randint(n_seeds, (n_draws, n_sizes * n_seeds), generator=generator)
    return rows.repeat_interleave(n_seeds, dim=-1), columns


def bootstrap(
    x: Float[Tensor, "P"],
    losses: Float[Tensor, "P R"],
    *,
    fit: Fit,
    n_draws: int = 1000,
    sizes_too: bool = True,
    seed: int = 0,
) -> PowerLaw:
    """As many laws as draws, each fitted to points that were drawn anew from those measured.

    What is drawn are points, a size with one of its losses, and not errors around a fitted law: so the laws
    say how much the fit hangs on each point, whether the law is the right one or not.

    Args:
        x: of each size; losses: one for each of its seeds.
        fit: ``fit_power_law`` or ``fit_with_floor``.
        n_draws, sizes_too: as in ``resampled``; seed: of the draws.

    Raises:
        ValueError: no row of losses for each x, or as ``resampled`` and the fit do.
    """
    if len(x) != len(losses):
        raise ValueError(f"each x needs a row of losses, got {len(x)} and {len(losses)}")
    rows, columns = resampled(
        *losses.shape, n_draws=n_draws, generator=torch.Generator().manual_seed(seed), sizes_too=sizes_too
    )
    return fit(x[rows], losses[rows, columns])


def band(
    laws: PowerLaw, x: Float[Tensor, "P"], *, share: float = 0.9
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Between which losses the middle ``share`` of all laws lies, at each x.

    Raises:
        ValueError: a share that does not lie between 0 and 1.

    >>> laws = PowerLaw(floor=torch.arange(11.0), scale=torch.zeros(11), exponent=torch.ones(11))
    >>> [edge.item() for edge in band(laws, torch.ones(1), share=0.8)]
    [1.0, 9.0]
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    lines = PowerLaw(floor=laws.floor[:, None], scale=laws.scale[:, None], exponent=laws.exponent[:, None])(x)
    outside = (1 - share) / 2
    return lines.quantile(outside, dim=0), lines.quantile(1 - outside, dim=0)
