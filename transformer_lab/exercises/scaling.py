"""Exercises of the chapter "Scaling laws", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

import math
from typing import Any

import numpy as np
import torch

from .check import Chapter

chapter = Chapter("scaling", "Scaling laws")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Twice the parameters",
    statement=r"""
        Kaplan et al. found that with enough data the loss of their language models follows
        $L(N) = (N_c / N)^{0.076}$, with N parameters and a constant $N_c$.

        Before you run anything: you double N. By which factor is the loss multiplied? Give three digits.
        """,
    hints=(
        "Write the law for N and for 2 N, and divide. What becomes of the constant?",
        "It falls out, and N does too: what is left is (1/2) to the power of 0.076.",
        "2 to the power of -0.076: Python's `2**-0.076`.",
    ),
    expected=0.949,
    wrong={
        0.5: "It would be so for an exponent of 1, where loss and size are inversely proportional. Here the "
        "exponent is 0.076.",
        0.924: "You took 1 - 0.076. An exponent is no share that goes: 2 is raised to its power.",
        1.054: "That is 2 to the power of +0.076. The loss falls: N stands below the line, so the power is "
        "negative.",
        0.076: "That is the exponent itself. The factor is 2 to the power of -0.076.",
        0.051: "That is the share that goes, 1 - 0.949. Asked for is the factor that stays.",
    },
    otherwise="Not that number. Divide the law for 2 N by the law for N; N and the constant fall out.",
    form="one number, such as 0.8",
)
def twice_the_parameters():
    """2^-0.076 = 0.949: a twentieth of the loss goes, each time that N doubles. To halve it N must grow by
    2^(1/0.076), some nine thousand times: a power law with a small exponent is a slow one.
    """
    return round(2**-0.076, 3)


# --- 2 -------------------------------------------------------------------------------------------------


def _widths(rng: np.random.Generator, M: int, n_layers: int, vocab_size: int) -> dict[str, Any]:
    widths = rng.permutation(np.arange(2, 40))[:M]
    return {"widths": widths, "n_layers": n_layers, "vocab_size": vocab_size}


def _parameters_one_by_one(widths: np.ndarray, n_layers: int, vocab_size: int) -> np.ndarray:
    """The numbers of every matrix and every vector, added up as their shapes say."""
    rows = []
    for d in widths.tolist():
        shapes = [(d,), (d,)]  # the norm behind the last layer
        for _ in range(n_layers):
            shapes += [(d, d), (d,)] * 4
            shapes += [(4 * d, d), (4 * d,), (d, 4 * d), (d,)]
            shapes += [(d,), (d,)] * 2
        n = sum(math.prod(shape) for shape in shapes)
        rows.append((n, n + math.prod((vocab_size, d))))
    return np.array(rows)


@chapter.implement(
    title="Parameters, without and with the embedding",
    statement="""
        `widths` holds M widths d of models, whole numbers. Each model has `n_layers` layers, and each layer

        - attention: four projections from d to d, each with a bias;
        - a feed-forward network: up from d to 4 d and down again, each with a bias;
        - two LayerNorms, each with a scale and a shift of d numbers.

        One more LayerNorm follows the last layer. The embedding is a table of `vocab_size` rows of d numbers;
        the scores are made with the same table.

        For each model return two whole numbers, so (M, 2): the parameters **without** the embedding, which is
        what laws of scaling call N, and **with** it.
        """,
    hints=(
        "One layer first, for d = 2, on paper: how many numbers has each of its matrices, and each vector?",
        "A projection from d to d has d² numbers and a bias of d. There are four of them.",
        "Up: d · 4 d and a bias of 4 d. Down: 4 d · d and a bias of d. Together 8 d² + 5 d.",
        "A layer has 12 d² + 13 d: 4 d² + 4 d, 8 d² + 5 d, and 4 d for two norms. The last norm, 2 d, comes "
        "once.",
    ),
    axes="M 2",
    inputs=_widths,
    sizes=((2, 1, 10), (3, 2, 30), (1, 3, 7), (4, 4, 100), (5, 2, 65)),
    reference=_parameters_one_by_one,
    gradient=False,
)
def parameters(widths, n_layers, vocab_size):
    """For widths (M,): the parameters without and with the embedding, (M, 2), whole numbers."""
    # Four square projections, and two matrices of four squares each; every one of the six has a bias.
    attention = 4 * widths**2 + 4 * widths
    feed_forward = 8 * widths**2 + 5 * widths
    # Two norms a layer, a scale and a shift each; and one norm more behind the last layer.
    norms = 4 * widths
    without = n_layers * (attention + feed_forward + norms) + 2 * widths
    # The scores are made with the embedding's own table: it counts once.
    return torch.stack([without, without + vocab_size * widths], dim=1)


def _pair(without, widths, vocab_size):
    return torch.stack([without, without + vocab_size * widths], dim=-1)


@parameters.slip("""
    The first column holds the embedding too. N is counted without it: a row of a table that is looked up is
    not multiplied with anything.""")
def _embedding_in_both(widths, n_layers, vocab_size):
    right = parameters.solve(widths, n_layers, vocab_size)
    return right[:, [1, 1]]


@parameters.slip("""
    You counted a matrix for the scores besides the embedding. The scores are made with the same table, so
    its numbers are learned once.""")
def _output_too(widths, n_layers, vocab_size):
    right = parameters.solve(widths, n_layers, vocab_size)
    return torch.stack([right[:, 0], right[:, 1] + vocab_size * widths], dim=-1)


@parameters.slip("""
    You counted the large matrices alone, 12 d² a layer. That is the usual estimate; biases and norms are 13 d
    more, and the last norm 2 d.""")
def _matrices_alone(widths, n_layers, vocab_size):
    return _pair(n_layers * 12 * widths**2, widths, vocab_size)


@parameters.slip("""
    The biases are missing: 4 d in attention, 5 d in the feed-forward network.""")
def _no_biases(widths, n_layers, vocab_size):
    return _pair(n_layers * (12 * widths**2 + 4 * widths) + 2 * widths, widths, vocab_size)


@parameters.slip("""
    The norms are missing. Each learns a scale and a shift: 4 d a layer, and 2 d behind the last.""")
def _no_norms(widths, n_layers, vocab_size):
    return _pair(n_layers * (12 * widths**2 + 9 * widths), widths, vocab_size)


@parameters.slip("""
    The norm behind the last layer is missing: 2 d numbers, once.""")
def _no_last_norm(widths, n_layers, vocab_size):
    return _pair(n_layers * (12 * widths**2 + 13 * widths), widths, vocab_size)


@parameters.slip("""
    You counted a norm behind every layer as well. The last norm comes once, not `n_layers` times.""")
def _last_norm_each_time(widths, n_layers, vocab_size):
    return _pair(n_layers * (12 * widths**2 + 15 * widths) + 0 * widths, widths, vocab_size)


@parameters.slip("""
    Your norms learn a scale and no shift (RMSNorm does). A LayerNorm has 2 d numbers.""")
def _scale_alone(widths, n_layers, vocab_size):
    return _pair(n_layers * (12 * widths**2 + 11 * widths) + widths, widths, vocab_size)


@parameters.slip("""
    Your attention has three projections. Queries, keys, values, and the one that makes the output: four.""")
def _no_output_projection(widths, n_layers, vocab_size):
    return _pair(n_layers * (11 * widths**2 + 12 * widths) + 2 * widths, widths, vocab_size)


@parameters.slip("""
    Your feed-forward network has one matrix. It goes up to 4 d and comes down again: two.""")
def _up_alone(widths, n_layers, vocab_size):
    return _pair(n_layers * (8 * widths**2 + 12 * widths) + 2 * widths, widths, vocab_size)


@parameters.slip("""
    The bias of the way up has 4 d numbers, one for each hidden number; you counted d.""")
def _narrow_bias(widths, n_layers, vocab_size):
    return _pair(n_layers * (12 * widths**2 + 10 * widths) + 2 * widths, widths, vocab_size)


@parameters.slip("""
    That is one layer. There are `n_layers` of them.""")
def _one_layer(widths, n_layers, vocab_size):
    return _pair(12 * widths**2 + 15 * widths + 0 * n_layers, widths, vocab_size)


@parameters.slip("""
    The two columns are exchanged: first without the embedding, then with it.""")
def _exchanged(widths, n_layers, vocab_size):
    return parameters.solve(widths, n_layers, vocab_size).flip(-1)


@parameters.slip("""
    The second column holds the embedding alone. Add it to what the layers have.""")
def _embedding_alone(widths, n_layers, vocab_size):
    right = parameters.solve(widths, n_layers, vocab_size)
    return torch.stack([right[:, 0], vocab_size * widths], dim=-1)


# --- 3 -------------------------------------------------------------------------------------------------


def _points(rng: np.random.Generator, P: int) -> dict[str, Any]:
    x = np.sort(10 ** rng.uniform(0.2, 2.5, P))
    loss = 6 * x ** -rng.uniform(0.2, 0.6) * np.exp(rng.normal(0, 0.3, P))
    return {"x": x, "loss": loss}


def _line_by_polyfit(x: np.ndarray, loss: np.ndarray) -> np.ndarray:
    slope, start = np.polyfit(np.log(x), np.log(loss), 1)
    return np.array([np.exp(start), -slope])


@chapter.implement(
    title="A power law is a straight line",
    statement=r"""
        A law $\text{loss} = \text{scale} / x^{\,\text{exponent}}$ is a straight line when you take logarithms
        on both sides. `x` and `loss` hold P points, all above 0. Lay the best straight line through the
        logarithms, by least squares, and return the two numbers `[scale, exponent]`, shape (2,). The exponent
        of a falling law is positive.

        Least squares in one line, for any u and v: the slope is the sum of (u - mean u) · v, divided by the
        sum of (u - mean u)²; and the line goes through the point of both means.
        """,
    hints=(
        "log loss = log scale - exponent · log x. Which number of the line is the exponent, and which is the "
        "scale?",
        "`lx, ly = x.log(), loss.log()`. From here on you lay a line through lx and ly, and x and loss are "
        "not needed again.",
        "The slope is `((lx - lx.mean()) * ly).sum() / ((lx - lx.mean()) ** 2).sum()`, a negative number.",
        "The height of the line at lx = 0 is `ly.mean() - slope * lx.mean()`. That is the logarithm of the "
        "scale.",
    ),
    axes="2",
    inputs=_points,
    sizes=((3,), (4,), (5,), (7,), (12,)),
    reference=_line_by_polyfit,
    gradient=False,
)
def power_law(x, loss):
    """[scale, exponent] of the law loss = scale / x ** exponent that fits x (P,) and loss (P,) best: (2,)."""
    # With logarithms on both sides the law is a line: its slope is the exponent, turned round.
    lx, ly = x.log(), loss.log()
    across = lx - lx.mean()
    slope = (across * ly).sum() / (across**2).sum()
    # What the line says at log x = 0, that is at x = 1, is the logarithm of the scale.
    scale = (ly.mean() - slope * lx.mean()).exp()
    return torch.stack([scale, -slope])


def _sloped(lx, ly):
    across = lx - lx.mean()
    slope = (across * ly).sum() / (across**2).sum()
    return slope, ly.mean() - slope * lx.mean()


@power_law.slip("""
    You laid the line through x and loss themselves. A power law is straight only when you take the logarithm
    of both.""")
def _no_logarithm(x, loss):
    slope, start = _sloped(x, loss)
    return torch.stack([start, -slope])


@power_law.slip("""
    You took the logarithm of x and not of the loss. That fits loss = a - b log x; a power law needs both.""")
def _of_x_alone(x, loss):
    slope, start = _sloped(x.log(), loss)
    return torch.stack([start, -slope])


@power_law.slip("""
    You took the logarithm of the loss and not of x. That fits an exponential, loss = a · exp(-b x); a power
    law needs both.""")
def _of_the_loss_alone(x, loss):
    slope, start = _sloped(x, loss.log())
    return torch.stack([start.exp(), -slope])


@power_law.slip("""
    Your exponent has the sign of the slope. The law divides by x to the power of the exponent, so a line that
    falls has a positive one.""")
def _sign_of_the_slope(x, loss):
    slope, start = _sloped(x.log(), loss.log())
    return torch.stack([start.exp(), slope])


@power_law.slip("""
    Your scale is still a logarithm: take `exp` of the line's height.""")
def _scale_as_logarithm(x, loss):
    slope, start = _sloped(x.log(), loss.log())
    return torch.stack([start, -slope])


@power_law.slip("""
    You took logarithms to the base 10 and undid them with `exp`. To base 10 belongs `10 ** height`; the
    exponent is the same with either.""")
def _two_bases(x, loss):
    slope, start = _sloped(x.log10(), loss.log10())
    return torch.stack([start.exp(), -slope])


@power_law.slip("""
    Your line goes through the origin, so its scale is 1. Take the means away before you sum for the slope.
    """)
def _through_the_origin(x, loss):
    lx, ly = x.log(), loss.log()
    slope = (lx * ly).sum() / (lx**2).sum()
    return torch.stack([torch.ones_like(slope), -slope])


@power_law.slip("""
    Your scale is exp of the mean of log loss. That is the height of the line in the middle; the scale is its
    height at log x = 0: take slope times the mean of log x away.""")
def _height_in_the_middle(x, loss):
    slope, _ = _sloped(x.log(), loss.log())
    return torch.stack([loss.log().mean().exp(), -slope])


@power_law.slip("""
    You fitted log x as a function of log loss. The errors lie in the loss: it is log loss that the line
    should say.""")
def _other_way_round(x, loss):
    slope, start = _sloped(loss.log(), x.log())
    return torch.stack([(-start / slope).exp(), -1 / slope])


@power_law.slip("""
    You used the first and the last point alone. All points have a say in least squares.""")
def _two_points(x, loss):
    slope = (loss[-1] / loss[0]).log() / (x[-1] / x[0]).log()
    return torch.stack([loss[0] * x[0] ** -slope, -slope])


@power_law.slip("""
    The two numbers are exchanged: first the scale, then the exponent.""")
def _exponent_first(x, loss):
    return power_law.solve(x, loss).flip(0)


@power_law.slip("""
    The sign of `slope * lx.mean()` is turned: the line's height at 0 is `ly.mean() - slope * lx.mean()`.""")
def _sign_of_the_height(x, loss):
    slope, _ = _sloped(x.log(), loss.log())
    return torch.stack([(loss.log().mean() + slope * x.log().mean()).exp(), -slope])


# --- 4 -------------------------------------------------------------------------------------------------


def _curves(rng: np.random.Generator, C: int, P: int) -> dict[str, Any]:
    x = np.sort(10 ** rng.uniform(0.2, 2.0, P))
    floor = rng.uniform(0.3, 2.0, C)
    exponent, scale = rng.uniform(0.3, 0.7, (2, C, 1))
    loss = floor[:, None] + (2 + scale) * x**-exponent * np.exp(rng.normal(0, 0.2, (C, P)))
    return {"x": x, "loss": loss, "floor": floor}


def _above_the_floor(x: np.ndarray, loss: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Row by row: what lies above the floor, as a straight line by a matrix of ones and logarithms."""
    rows = []
    for losses, low in zip(loss, floor, strict=True):
        table = np.stack([np.ones_like(x), -np.log(x)], axis=1)
        start, exponent = np.linalg.lstsq(table, np.log(losses - low), rcond=None)[0]
        rows.append((np.exp(start), exponent))
    return np.array(rows)


def above_the_floor(x, loss, floor):
    """[scale, exponent] of loss = floor + scale / x ** exponent, for each of C curves: (C, 2)."""
    lx, ly = x.log(), loss.log() - floor[:, None]
    across = lx - lx.mean()
    slope = (across * ly).sum(1) / (across**2).sum()
    scale = (ly.mean(1) - slope * lx.mean()).exp()
    return torch.stack([scale, -slope], dim=1)


@chapter.debug(
    title="A floor, taken away too late",
    statement=r"""
        $\text{loss} = \text{floor} + \text{scale} / x^{\,\text{exponent}}$ is no straight line in logarithms,
        but what lies *above* the floor is one. There are C curves, `loss` of shape (C, P), measured at the
        same P places `x`; the floor of each is known, `floor` of shape (C). The function below should return
        `[scale, exponent]` for each curve, (C, 2).

        The symptom: the exponents come out too small, as if there were no floor at all, and the scale is
        much too small. With a floor of 0 everything is right.

        Find the fault, repair it, and hand the function in.
        """,
    hints=(
        "Try it on paper: floor 1, scale 2, exponent 1, at x = 1 and x = 2. The losses are 3 and 2. What "
        "lies above the floor?",
        "2 and 1: their logarithms fall by log 2 while log x rises by log 2, an exponent of 1. What does the "
        "broken function take the floor away from?",
        "From the logarithms. That moves the line down and leaves its slope as it was. The floor must go "
        "while the losses are still losses.",
    ),
    axes="C 2",
    inputs=_curves,
    sizes=((1, 3), (2, 4), (3, 5), (2, 7), (4, 6)),
    reference=_above_the_floor,
    broken=above_the_floor,
    gradient=False,
)
def above_the_floor(x, loss, floor):
    """[scale, exponent] of loss = floor + scale / x ** exponent, for each of C curves: (C, 2)."""
    # The floor goes before the logarithm: only what lies above it is a power of x.
    lx, ly = x.log(), (loss - floor[:, None]).log()
    across = lx - lx.mean()
    slope = (across * ly).sum(1) / (across**2).sum()
    scale = (ly.mean(1) - slope * lx.mean()).exp()
    return torch.stack([scale, -slope], dim=1)


def _lines(lx, ly):
    across = lx - lx.mean()
    slope = (across * ly).sum(-1) / (across**2).sum()
    return torch.stack([(ly.mean(-1) - slope * lx.mean()).exp(), -slope], dim=-1)


@above_the_floor.slip("""
    The floor still goes too late: your function gives what the broken one gave. Take it away from the loss,
    before `log`.""")
def _after_the_logarithm(x, loss, floor):
    return _lines(x.log(), loss.log() - 1.0 * floor[:, None])


@above_the_floor.slip("""
    You took the logarithm of the floor away. log a - log b is log (a / b): so you divided by the floor
    instead of taking it away.""")
def _logarithm_of_the_floor(x, loss, floor):
    return _lines(x.log(), loss.log() - floor[:, None].log())


@above_the_floor.slip("""
    The floor has no part in your answer any more. It must be taken away from the loss before the logarithm.
    """)
def _no_floor(x, loss, floor):
    return _lines(x.log(), loss.log() + 0 * floor[:, None])


@above_the_floor.slip("""
    You added the floor where it should be taken away.""")
def _added(x, loss, floor):
    return _lines(x.log(), (loss + floor[:, None]).log())


@above_the_floor.slip("""
    You used one floor for all curves, their mean. Each curve has its own: `floor[:, None]`, of shape
    (C, 1).""")
def _mean_floor(x, loss, floor):
    return _lines(x.log(), (loss - floor.mean()).clamp(min=1e-3).log())


@above_the_floor.slip("""
    The floor is right in the fit, and then you put it on top of the scale. The scale belongs to what lies
    above the floor.""")
def _on_top_of_the_scale(x, loss, floor):
    right = above_the_floor.solve(x, loss, floor)
    return torch.stack([right[:, 0] + floor, right[:, 1]], dim=-1)


@above_the_floor.slip("""
    You took the smallest loss of each curve for its floor. The floor lies below all of them, and it is given.
    """)
def _smallest_loss(x, loss, floor):
    return _lines(x.log(), (loss - loss.amin(-1, keepdim=True) + 1e-3 + 0 * floor[:, None]).log())


@above_the_floor.slip("""
    The exponents have the sign of the slope now. The law divides by x to the power of the exponent.""")
def _turned(x, loss, floor):
    right = above_the_floor.solve(x, loss, floor)
    return torch.stack([right[:, 0], -right[:, 1]], dim=-1)


# --- 5 -------------------------------------------------------------------------------------------------


def _with_choices(rng: np.random.Generator, P: int, K: int) -> dict[str, Any]:
    x = np.sort(10 ** rng.uniform(0.0, 2.0, P))
    exponents = np.sort(rng.uniform(0.1, 1.5, K))
    inner = exponents[K // 2]
    loss = rng.uniform(0.5, 2.0) + rng.uniform(2, 5) * x ** -(inner + 0.02)
    return {"x": x, "loss": loss * np.exp(rng.normal(0, 0.02, P)), "exponents": exponents}


def _best_of_all(x: np.ndarray, loss: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """By the normal equations, and the smallest of all errors."""
    fits = []
    for exponent in exponents:
        t = x**-exponent
        scale = ((t - t.mean()) * (loss - loss.mean())).mean() / t.var()
        floor = loss.mean() - scale * t.mean()
        fits.append((((floor + scale * t - loss) ** 2).sum(), floor, scale, exponent))
    return np.array(min(fits)[1:])


@chapter.implement(
    title="A fit with a floor, by search",
    statement=r"""
        In $\text{loss} = \text{floor} + \text{scale} / x^{\,\text{exponent}}$ three numbers are unknown. But
        if somebody tells you the exponent, the other two are an ordinary linear fit: a constant, and a
        multiple of $x^{-\text{exponent}}$. So try exponents, and keep the best.

        `x` and `loss` hold P points, `exponents` K exponents to try. For each of these find floor and scale
        by least squares on the losses themselves (no logarithm), and the sum of squared errors. Return
        `[floor, scale, exponent]` of the fit whose sum is smallest, shape (3,).
        """,
    hints=(
        "For one exponent: a table (P, 2) with ones in its first column and x ** -exponent in its second. "
        "Which two numbers, times the columns, come nearest to the losses?",
        "`torch.linalg.lstsq(table, loss[:, None]).solution` finds them, with shape (2, 1).",
        "The errors are `table @ sizes - loss`. Square, sum, and remember the smallest sum and its fit.",
        "Start with `least = float('inf')`. In the loop: `if error < least:` keep the error and "
        "`torch.cat([sizes, exponent[None]])`.",
    ),
    axes="3",
    inputs=_with_choices,
    sizes=((4, 3), (5, 4), (6, 7), (8, 5), (7, 9)),
    reference=_best_of_all,
    gradient=False,
)
def fit_with_floor(x, loss, exponents):
    """[floor, scale, exponent] of the best fit to x (P,) and loss (P,), of those to try (K,): (3,)."""
    least, best = float("inf"), None
    for exponent in exponents:
        # A constant and a falling power: for a given exponent both sizes are a linear fit.
        table = torch.stack([torch.ones_like(x), x**-exponent], dim=1)
        sizes = torch.linalg.lstsq(table, loss[:, None]).solution.squeeze(1)
        error = (table @ sizes - loss).square().sum()
        if error < least:
            least, best = error, torch.cat([sizes, exponent[None]])
    return best


def _tried(x, loss, exponents, *, sign=-1.0, power=2, constant=True):
    """floor, scale, exponent and error of all fits, (K, 4), by another rule."""
    rows = []
    for exponent in exponents:
        t = x ** (sign * exponent)
        columns = [torch.ones_like(x), t] if constant else [t]
        table = torch.stack(columns, dim=1)
        sizes = torch.linalg.lstsq(table, loss[:, None]).solution[:, 0]
        error = ((table @ sizes - loss).abs() ** power).sum()
        floor = sizes[0] if constant else torch.zeros_like(sizes[0])
        rows.append(torch.stack([floor, sizes[-1], exponent, error]))
    return torch.stack(rows)


@fit_with_floor.slip("""
    You kept the fit with the largest error.""")
def _largest(x, loss, exponents):
    rows = _tried(x, loss, exponents)
    return rows[rows[:, 3].argmax(), :3]


@fit_with_floor.slip("""
    You kept the last fit. Keep the one with the smallest error, wherever in the list it was.""")
def _last(x, loss, exponents):
    return _tried(x, loss, exponents)[-1, :3]


@fit_with_floor.slip("""
    Your fit has no constant, so no floor: the table needs a column of ones.""")
def _no_constant(x, loss, exponents):
    rows = _tried(x, loss, exponents, constant=False)
    return rows[rows[:, 3].argmin(), :3]


@fit_with_floor.slip("""
    Your power rises with x: the exponent needs a minus, x ** -exponent.""")
def _rising(x, loss, exponents):
    rows = _tried(x, loss, exponents, sign=1.0)
    return rows[rows[:, 3].argmin(), :3]


@fit_with_floor.slip("""
    Floor and scale stand in the wrong order: first the floor, then the scale, then the exponent.""")
def _scale_first(x, loss, exponents):
    return fit_with_floor.solve(x, loss, exponents)[[1, 0, 2]]


@fit_with_floor.slip("""
    The third number should be the exponent itself, not its place in the list.""")
def _its_place(x, loss, exponents):
    rows = _tried(x, loss, exponents)
    best = rows[:, 3].argmin()
    return torch.stack([rows[best, 0], rows[best, 1], best.to(x.dtype)])


@fit_with_floor.slip("""
    You fitted the logarithm of the loss. A floor is added to the power, and no logarithm makes a line of the
    sum: fit the losses themselves.""")
def _of_logarithms(x, loss, exponents):
    rows = _tried(x, loss.log(), exponents)
    return rows[rows[:, 3].argmin(), :3]


@fit_with_floor.slip("""
    You stopped at the first fit that is better than the one before. Try all exponents: keep the best so far.
    """)
def _first_that_is_better(x, loss, exponents):
    rows = _tried(x, loss, exponents)
    return rows[1, :3] if rows[1, 3] < rows[0, 3] else rows[0, :3]


@fit_with_floor.slip("""
    You took the smallest loss for the floor and fitted what lies above it. The floor of the law lies below
    every point: let least squares find it.""")
def _smallest_as_floor(x, loss, exponents):
    low = loss.amin()
    rows = _tried(x, loss - low, exponents, constant=False)
    best = rows[rows[:, 3].argmin()]
    return torch.stack([low, best[1], best[2]])


# --- 6 -------------------------------------------------------------------------------------------------


def _drawn_points(rng: np.random.Generator, P: int, R: int) -> dict[str, Any]:
    points = _points(rng, P)
    picks = rng.integers(P, size=(R, P))
    picks[:, :2] = np.stack([rng.permutation(P)[:2] for _ in range(R)])  # two that differ, at least
    return points | {"picks": picks}


def _exponents_draw_by_draw(x: np.ndarray, loss: np.ndarray, picks: np.ndarray) -> np.ndarray:
    return np.array([-np.polyfit(np.log(x[row]), np.log(loss[row]), 1)[0] for row in picks])


@chapter.implement(
    title="How far can the exponent be trusted?",
    statement="""
        The bootstrap asks: what if other points had been measured? It cannot measure others; so it draws,
        from the P points that there are, P points *with replacement*: some come twice, others not at all.
        A law is fitted to each draw, and how much the laws differ says how much they hang on single points.

        `x` and `loss` hold P points. `picks`, whole numbers of shape (R, P), holds R draws: each row says
        which points are in it. For each draw, fit a straight line to the logarithms, by least squares, and
        return the R exponents, shape (R), positive for laws that fall.
        """,
    hints=(
        "A point is a pair: whoever picks its x picks its loss. What does `x[picks]` give, and with which "
        "shape?",
        "`x[picks]` and `loss[picks]` both have the shape (R, P): each row is a set of P points of its own.",
        "Then it is the fit of exercise 3, row by row: sums over the last axis, and means with "
        "`keepdim=True`.",
        "With `across = lx - lx.mean(1, keepdim=True)`, the exponents are minus the sum of across · ly, "
        "divided by the sum of across².",
    ),
    axes="R",
    inputs=_drawn_points,
    sizes=((3, 2), (4, 3), (5, 1), (6, 7), (8, 4)),
    reference=_exponents_draw_by_draw,
    gradient=False,
)
def exponents_of_draws(x, loss, picks):
    """The exponent fitted to each of R draws, picks (R, P), from the points x (P,) and loss (P,): (R,)."""
    # The same picks for both: what is drawn are points, and a point keeps its loss.
    lx, ly = x[picks].log(), loss[picks].log()
    across = lx - lx.mean(1, keepdim=True)
    return -(across * ly).sum(1) / (across**2).sum(1)


def _slopes(lx, ly):
    across = lx - lx.mean(-1, keepdim=True)
    return (across * ly).sum(-1) / (across**2).sum(-1)


@exponents_of_draws.slip("""
    You drew losses and left x as it was, so most losses stand at another point's x. A point is drawn as a
    pair: index both with `picks`.""")
def _losses_alone(x, loss, picks):
    return -_slopes(x.log(), loss[picks].log())


@exponents_of_draws.slip("""
    You drew x and left the losses as they were, so most stand at another point's x. A point is drawn as a
    pair: index both with `picks`.""")
def _x_alone(x, loss, picks):
    return -_slopes(x[picks].log(), loss.log().expand(picks.shape))


@exponents_of_draws.slip("""
    You drew errors and not points: the line through all points, with the errors of others put on it. That is
    another bootstrap, which takes for granted that the line is the right law.""")
def _residuals(x, loss, picks):
    lx, ly = x.log(), loss.log()
    slope = _slopes(lx, ly)
    line = ly.mean() + slope * (lx - lx.mean())
    return -_slopes(lx, line + (ly - line)[picks])


@exponents_of_draws.slip("""
    You let each point count once in a draw. Drawn with replacement, a point that was picked twice counts
    twice.""")
def _each_once(x, loss, picks):
    rows = [row.unique() for row in picks]
    return -torch.stack([_slopes(x[row].log(), loss[row].log()) for row in rows])


@exponents_of_draws.slip("""
    You put all draws together into one fit, and its exponent stands in every place. Each draw has a law of
    its own.""")
def _all_together(x, loss, picks):
    one = -_slopes(x[picks].flatten().log(), loss[picks].flatten().log())
    return one.expand(len(picks))


@exponents_of_draws.slip("""
    These are slopes. A law that falls has a positive exponent: the minus is missing.""")
def _negative(x, loss, picks):
    return _slopes(x[picks].log(), loss[picks].log())


@exponents_of_draws.slip("""
    You took the mean of log x over all draws. Each draw has a mean of its own: over the last axis, with
    `keepdim=True`.""")
def _mean_of_all(x, loss, picks):
    lx, ly = x[picks].log(), loss[picks].log()
    across = lx - lx.mean()
    return -(across * ly).sum(-1) / (across**2).sum(-1)


@exponents_of_draws.slip("""
    You fitted x and loss without logarithms. A power law is a line only in the logarithms of both.""")
def _without_logarithms(x, loss, picks):
    return -_slopes(x[picks], loss[picks])


@exponents_of_draws.slip("""
    You took no account of `picks`: this is the exponent of the points as they were measured.""")
def _nothing_drawn(x, loss, picks):
    return -_slopes(x.log(), loss.log()).expand(len(picks))


# --- 7 -------------------------------------------------------------------------------------------------


def _budgets(rng: np.random.Generator, M: int) -> dict[str, Any]:
    A, B = rng.uniform(2.0, 9.0, 2)
    alpha, beta = rng.uniform(0.3, 0.5), rng.uniform(0.55, 0.9)
    return {"flops": 10 ** rng.uniform(2, 5, M), "law": np.array([A, alpha, B, beta])}


def _by_bisection(flops: np.ndarray, law: np.ndarray) -> np.ndarray:
    """Where the slope of the loss along log N is 0; below it falls, above it rises."""
    A, alpha, B, beta = law
    rows = []
    for budget in flops / 6:
        low, high = -50.0, 50.0  # of log N
        for _ in range(200):
            middle = (low + high) / 2
            n = math.exp(middle)
            rises = beta * B * (budget / n) ** -beta > alpha * A * n**-alpha
            low, high = (low, middle) if rises else (middle, high)
        rows.append((n, budget / n))
    return np.array(rows)


@chapter.implement(
    title="How to spend a budget",
    statement=r"""
        By Hoffmann et al. the loss of a model with N parameters, trained on D tokens, is

        $$L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}$$

        and training costs about $C = 6 N D$ FLOPs. `flops` holds M budgets C, shape (M); `law` holds the four
        numbers A, α, B, β, in this order (E does not matter here). For each budget return N and D of the
        lowest loss, shape (M, 2).
        """,
    hints=(
        "Put D = C / (6 N) into the law. Then L depends on N alone: where is its slope 0?",
        "At the best N, one percent more N gains as much as one percent less D loses: α A / N^α = β B / D^β. "
        "(Not the terms are equal: the terms times their exponents are.)",
        "Put D = (C / 6) / N into that, bring N to one side: N to the power of (α + β) is α A / (β B), times "
        "(C / 6) to the power of β.",
        "So N = G · (C / 6) ** (β / (α + β)) with G = (α A / (β B)) ** (1 / (α + β)); and D = C / 6 / N.",
    ),
    axes="M 2",
    inputs=_budgets,
    sizes=((2,), (3,), (1,), (4,), (5,)),
    reference=_by_bisection,
    gradient=False,
)
def optimum(flops, law):
    """N and D of the lowest loss with 6 N D = flops, for budgets (M,) and a law (4,): (M, 2)."""
    A, alpha, B, beta = law
    # There the slopes of both terms along log N cancel: alpha A / N^alpha = beta B / D^beta.
    together = alpha + beta
    balance = (alpha * A / (beta * B)) ** (1 / together)
    n = balance * (flops / 6) ** (beta / together)
    # What is not spent on parameters is spent on tokens.
    return torch.stack([n, flops / 6 / n], dim=1)


def _spent(flops, n, factor=6.0):
    return torch.stack([n, flops / factor / n], dim=-1)


def _balanced(law, ratio):
    A, alpha, B, beta = law
    return ratio(A, alpha, B, beta) ** (1 / (alpha + beta))


def _right_balance(A, alpha, B, beta):
    return alpha * A / (beta * B)


@optimum.slip("""
    You made the two terms equal, A / N^α = B / D^β. At the optimum their slopes cancel: the terms times their
    exponents are equal, α A / N^α = β B / D^β.""")
def _equal_terms(flops, law):
    balance = _balanced(law, lambda A, alpha, B, beta: A / B)
    return _spent(flops, balance * (flops / 6) ** (law[3] / (law[1] + law[3])))


@optimum.slip("""
    The factor 6 is missing: a budget of C FLOPs buys N D = C / 6.""")
def _no_six(flops, law):
    n = _balanced(law, _right_balance) * flops ** (law[3] / (law[1] + law[3]))
    return _spent(flops, n, 1.0)


@optimum.slip("""
    N is found with N D = C, and D with C / 6. A budget of C FLOPs buys N D = C / 6, in both places.""")
def _six_once(flops, law):
    return _spent(flops, _balanced(law, _right_balance) * flops ** (law[3] / (law[1] + law[3])))


@optimum.slip("""
    You divided by 2 where 6 belongs. Forwards takes 2 N D, backwards twice that: 6 N D.""")
def _two(flops, law):
    n = _balanced(law, _right_balance) * (flops / 2) ** (law[3] / (law[1] + law[3]))
    return _spent(flops, n, 2.0)


@optimum.slip("""
    The exponents of N and D are exchanged: N grows with β / (α + β), and D with α / (α + β).""")
def _own_exponent(flops, law):
    return _spent(flops, _balanced(law, _right_balance) * (flops / 6) ** (law[1] / (law[1] + law[3])))


@optimum.slip("""
    Your balance is turned round: it is α A / (β B) for N. The larger A is, the more parameters are worth.
    """)
def _turned_balance(flops, law):
    balance = _balanced(law, lambda A, alpha, B, beta: beta * B / (alpha * A))
    return _spent(flops, balance * (flops / 6) ** (law[3] / (law[1] + law[3])))


@optimum.slip("""
    You left the balance out, as if A, B and the exponents were alike on both sides. It is (α A / (β B)) to
    the power of 1 / (α + β).""")
def _no_balance(flops, law):
    return _spent(flops, (flops / 6) ** (law[3] / (law[1] + law[3])))


@optimum.slip("""
    Your balance lacks its root: N to the power of (α + β) is α A / (β B) times the rest, so the power of
    1 / (α + β) is to be taken of it, too.""")
def _no_root(flops, law):
    balance = _right_balance(*law)
    return _spent(flops, balance * (flops / 6) ** (law[3] / (law[1] + law[3])))


@optimum.slip("""
    You split the budget evenly: N = D. That would be right if both terms had the same size and exponent.""")
def _evenly(flops, law):
    return _spent(flops, (flops / 6).sqrt() + 0 * law[0])


@optimum.slip("""
    You gave each parameter twenty tokens. That is a rule of thumb drawn from other fits; here a law is given.
    """)
def _twenty(flops, law):
    return _spent(flops, (flops / 120).sqrt() + 0 * law[0])


@optimum.slip("""
    N and D are exchanged: first N, then D.""")
def _tokens_first(flops, law):
    return optimum.solve(flops, law).flip(-1)


@optimum.slip("""
    A row for N and one for D: it should be the other way round, (M, 2). `torch.stack([...], dim=1)` does
    that.""")
def _in_rows(flops, law):
    return optimum.solve(flops, law).T


# --- 8 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="A hundred times the compute",
    statement=r"""
        By Hoffmann et al. $L(N, D) = E + A / N^{0.34} + B / D^{0.28}$, and training costs C = 6 N D. You have
        a hundred times the compute that you had, and spend it in the best way by this law.

        Before you run anything: by which factor does N grow, and by which D? Answer with two numbers, one
        decimal each.
        """,
    hints=(
        "Their product must be a hundred.",
        "N grows with the power β / (α + β) of C, and D with the power α / (α + β). Here α = 0.34 belongs to "
        "N, and β = 0.28 to D.",
        "100 to the power of 0.28 / 0.62, and 100 to the power of 0.34 / 0.62.",
    ),
    expected=(8.0, 12.5),
    wrong={
        (
            10.0,
            10.0,
        ): "That holds where both exponents are alike. Here α = 0.34 and β = 0.28 differ, a little.",
        (12.5, 8.0): "The two are exchanged: N grows with the exponent of *D*, 0.28 / 0.62. Parameters pay "
        "off faster, so fewer of them are needed.",
        (
            100.0,
            1.0,
        ): "So it was often done, larger models on the same data. By this law that wastes compute: "
        "with D fixed the loss flattens out.",
        (100.0, 100.0): "That would cost ten thousand times the compute: C is the product of both.",
        (4.8, 3.6): "You raised 100 to the power of each exponent alone. It is β / (α + β), so that the "
        "product of both is a hundred.",
        (
            28.8,
            3.5,
        ): "That is Kaplan et al.'s way, N with the power 0.73 of C. Their fit says so; by this law "
        "it is 0.45, and that difference is what Hoffmann et al. wrote about.",
        (
            8.3,
            12.0,
        ): "You took 0.46 and 0.54, the exponents as the paper rounds them. From 0.34 and 0.28 it is "
        "0.28 / 0.62 = 0.4516 and 0.34 / 0.62 = 0.5484.",
    },
    otherwise="Not these. Their product must be 100; N grows with C to the power of 0.28 / 0.62.",
    form="two numbers, (N, D)",
)
def hundred_times_the_compute():
    """100^(0.28/0.62) = 8.0 and 100^(0.34/0.62) = 12.5. More compute goes into both, a little more of it into
    data.
    """
    return (round(100 ** (0.28 / 0.62), 1), round(100 ** (0.34 / 0.62), 1))


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.measure(
    title="What 6 N D leaves out",
    statement="""
        Take the chapter's language model: `LanguageModelConfig(vocab_size=30, d_model=32, n_heads=4,
        n_layers=2, d_ff=128)`. Count the FLOPs of one training step, forwards and backwards, with
        `torch.utils.flop_counter.FlopCounterMode`, for 16 pieces of 64 characters, and for 16 pieces of 512.
        Divide each by 6 N D, where N is the number of parameters without the embedding and D the number of
        characters in the step.

        Report the two ratios. One trap: PyTorch's fused attention on a CPU is not counted in every version.
        `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):` around the step takes the
        plain one, whose products are all seen.
        """,
    hints=(
        "`with FlopCounterMode(display=False) as counter:` around the step; then "
        "`counter.get_total_flops()`.",
        "The step: `model(tokens)`, `F.cross_entropy` of its scores with any targets, `loss.backward()`.",
        "N is what `model.layers` and `model.norm` hold: 25,472. D is 16 · 64 in the first step and 16 · 512 "
        "in the second.",
    ),
    ranges={"64 characters": (1.31, 1.34), "512 characters": (3.55, 3.6)},
    slips={
        "That is the way forwards alone, a third of it. A step goes backwards too: call `loss.backward()` "
        "inside of the counter.": ((0.43, 0.45), (1.17, 1.21)),
        "Attention is not counted: its products of queries, keys and values are missing. Put the step under "
        "`sdpa_kernel(SDPBackend.MATH)`.": ((0.95, 1.02), (0.95, 1.02)),
        "Your N includes the embedding. Take the parameters of `model.layers` and `model.norm`.": (
            (1.26, 1.29),
            (3.42, 3.47),
        ),
        "The two numbers are the other way round: first 64 characters, then 512.": (
            (3.55, 3.6),
            (1.31, 1.34),
        ),
        "You divided by 2 N D, which is the way forwards alone. Backwards takes twice as much: 6 N D.": (
            (3.93, 4.02),
            (10.6, 10.85),
        ),
        "D is the number of characters in the step: 16 pieces of 64 or 512. You took one piece.": (
            (21.0, 21.4),
            (56.8, 57.6),
        ),
    },
    at_most=(100.0, "These are ratios near 1. Divide the counted FLOPs by 6 N D."),
    otherwise="Not in the range. Count a whole step, and divide by 6 times N times the characters in it.",
)
def what_6nd_leaves_out():
    """With 64 characters 6 N D leaves a quarter of the FLOPs out, with 512 nearly three quarters: the
    products of queries with keys grow with the length of the text and have no parameters. In a wide model
    they weigh less, about the length of the text over six times the width; 6 N D was made for those.
    """
    from torch.nn import functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig

    model = LanguageModel(LanguageModelConfig(vocab_size=30, d_model=32, n_heads=4, n_layers=2, d_ff=128))
    n = sum(p.numel() for part in (model.layers, model.norm) for p in part.parameters())
    ratios = []
    for length in (64, 512):
        tokens = torch.zeros(16, length, dtype=torch.long)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        ratios.append(counter.get_total_flops() / (6 * n * tokens.numel()))
    return tuple(ratios)


# --- 10 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="What four points say of a floor",
    statement=r"""
        The truth is $\text{loss} = 0.5 + 20 / x^{0.5}$, and you may measure at x = 1000, 3000, 10000 and
        30000. Each measurement is off by about two percent: multiply each true loss by
        `1 + 0.02 * torch.randn(...)`.

        Make 2000 such sets of four losses, a tensor (2000, 4), and fit the law with a floor to each, by
        `transformer_lab.scaling.fit_with_floor(x, loss)` (x must have the same shape; `expand` does that).
        Sort the 2000 floors. Report the one that 5 % of them lie below, and the one that 95 % lie below.
        """,
    hints=(
        "`x = torch.tensor([1e3, 3e3, 1e4, 3e4])`; the true losses `0.5 + 20 / x**0.5`.",
        "`loss = truth * (1 + 0.02 * torch.randn(2000, 4))`, and then `fit_with_floor(x.expand(2000, -1), "
        "loss).floor`.",
        "`floors.quantile(0.05)` and `floors.quantile(0.95)`.",
    ),
    ranges={"5 % lie below": (0.36, 0.4), "95 % lie below": (0.555, 0.578)},
    slips={
        "You added the noise, 0.02 everywhere. Two percent of a loss is more where the loss is larger: "
        "multiply.": ((0.29, 0.345), (0.58, 0.6)),
        "Your noise is twenty percent: the factor is `1 + 0.02 * torch.randn(...)`.": (
            (0.0, 0.02),
            (0.7, 0.77),
        ),
        "Your noise is 0.2 percent: the factor is `1 + 0.02 * torch.randn(...)`.": (
            (0.485, 0.495),
            (0.502, 0.515),
        ),
        "Those are the quarters, 0.25 and 0.75. Take `quantile(0.05)` and `quantile(0.95)`.": (
            (0.45, 0.47),
            (0.525, 0.54),
        ),
        "These are the exponents. The floors are `.floor` of what the fit gives.": (
            (0.33, 0.358),
            (0.63, 0.69),
        ),
        "The two numbers are the other way round: first the lower one.": ((0.555, 0.578), (0.36, 0.4)),
    },
    at_most=(
        1.2,
        "That is higher than the lowest loss itself, about 0.6: a floor lies below the losses. The floors "
        "are `.floor` of what the fit gives.",
    ),
    otherwise="Not in the range. 2000 sets of four losses, two percent of noise, and of the 2000 floors the "
    "quantiles 0.05 and 0.95.",
)
def floors_of_four_points():
    """Nine of ten floors lie between about 0.38 and 0.57: with two percent of noise, which is good for
    training, four points leave the floor open by half of its own size. That is what a law's "floor" is worth
    before more is measured.
    """
    from transformer_lab import scaling

    x = torch.tensor([1e3, 3e3, 1e4, 3e4])
    noise = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    floors = scaling.fit_with_floor(x.expand(2000, -1), (0.5 + 20 / x**0.5) * (1 + 0.02 * noise)).floor
    return floors.quantile(0.05).item(), floors.quantile(0.95).item()
