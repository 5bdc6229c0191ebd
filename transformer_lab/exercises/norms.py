"""Exercises of the chapter "Residuals and norms", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .check import Chapter

chapter = Chapter("norms", "Residuals and norms")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Ten times as large, and three more",
    statement="""
        A LayerNorm, with all weights 1 and all biases 0, makes y of the vector x of one token. Now every
        entry of x becomes ten times as large, and then 3 is added to every entry: 10 x + 3 comes in.

        Before you run anything: what comes out?
        """,
    choices={"a": "10 y + 3", "b": "10 y", "c": "y", "d": "y + 3"},
    hints=(
        "Take it in two steps. First add 3 to every entry: what becomes of the mean, and of the distance of "
        "each entry from the mean?",
        "Then multiply by 10: each distance from the mean becomes ten times as large. What becomes of the "
        "standard deviation, by which the distance is divided?",
        "Try it with pencil: 3 and 7 have the mean 5 and the standard deviation 2, so y is -1 and 1. Now do "
        "the same for 33 and 73.",
    ),
    expected="c",
    wrong={
        "a": "So it would be if LayerNorm did nothing. But it first takes the mean away, and the 3 with it; "
        "then it divides by the standard deviation, which has become ten times as large as well.",
        "b": "Right about the 3: it goes with the mean. But what is divided by has grown too: the standard "
        "deviation of 10 x + 3 is ten times that of x.",
        "d": "Right about the 10: it goes when each entry is divided by the standard deviation. But a number "
        "added to every entry is added to their mean as well, and the mean is taken away.",
    },
)
def stretched_and_moved():
    """Taking the mean away removes the 3, and dividing by the standard deviation the 10: LayerNorm does not
    see how long a vector is, nor what was added to all of its entries. (But for `eps`, which is tiny.)
    """
    norm = nn.LayerNorm(4)
    x = torch.tensor([1.0, -2.0, 0.5, 3.0])
    y, changed = norm(x), norm(10 * x + 3)
    found = {"a": 10 * y + 3, "b": 10 * y, "c": y, "d": y + 3}
    return next(letter for letter, claim in found.items() if torch.allclose(changed, claim, atol=1e-4))


# --- 2 -------------------------------------------------------------------------------------------------


def _layer_norm_inputs(
    rng: np.random.Generator, B: int, T: int, D: int, eps: float, flat: bool = False
) -> dict[str, Any]:
    """Tokens of different size and mean; ``flat``: all entries of the first token are equal."""
    x = rng.standard_normal((B, T, D)) * (1 + rng.random((B, T, 1))) + 2 * rng.standard_normal((B, T, 1))
    if flat:
        x[0, 0] = 1.5
    return {"x": x, "weight": 1.5 + rng.random(D), "bias": rng.standard_normal(D), "eps": eps}


def _layer_norm_reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    out = np.zeros_like(x)
    for b, t in np.ndindex(x.shape[:2]):
        token = x[b, t] - sum(x[b, t]) / len(x[b, t])
        out[b, t] = token / (sum(token**2) / len(token) + eps) ** 0.5 * weight + bias
    return out


@chapter.implement(
    title="Layer normalisation",
    statement=r"""
        Write LayerNorm as a function. `x` has the shape (B, T, D). For each token by itself, over its D
        entries, take the mean $\mu$ and the variance $\sigma^2$, the mean of the squared distances from
        $\mu$; then

        $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \cdot \text{weight} + \text{bias}$$

        `weight` and `bias` have D numbers, one for each entry; `eps` is a small number. PyTorch's
        `layer_norm` and its relatives are off limits: you are writing it.
        """,
    hints=(
        "`x.mean(dim=-1, keepdim=True)` has the shape (B, T, 1): one mean for each token, and it can be "
        "subtracted from all D entries.",
        "The variance is again a mean along the last axis: of the squares of what is left when the mean is "
        "gone.",
        "`x.var()` divides by D - 1 unless you ask it not to (`correction=0`); `.square().mean(...)` divides "
        "by D, as the formula does.",
        "`eps` stands under the root, beside the variance: `(variance + eps).sqrt()`.",
    ),
    axes="B T D",
    inputs=_layer_norm_inputs,
    sizes=(
        (1, 2, 4, 1e-5),
        (2, 3, 5, 1e-5),
        (1, 4, 3, 0.5),
        (3, 2, 6, 1e-5, True),
        (2, 5, 4, 2.0),
        (2, 1, 3, 1e-3),
    ),
    reference=_layer_norm_reference,
    forbidden=(
        *("layer_norm", "native_layer_norm", "LayerNorm", "group_norm", "GroupNorm"),
        *("batch_norm", "instance_norm", "rms_norm"),
    ),
)
def layer_norm(x, weight, bias, eps):
    """Bring each token of x (B, T, D) to mean 0 and variance 1, times weight (D,), plus bias (D,)."""
    # One mean a token, along the features: (B, T, D) -> (B, T, 1).
    centred = x - x.mean(dim=-1, keepdim=True)
    # The mean of the squares divides by D, not by D - 1: these are all the entries, no sample of them.
    variance = centred.square().mean(dim=-1, keepdim=True)
    # A token of equal entries has the variance 0; eps keeps the division possible.
    return centred / (variance + eps).sqrt() * weight + bias


def _normed(x, eps, dim=-1):
    centred = x - x.mean(dim, keepdim=True)
    return centred / (centred.square().mean(dim, keepdim=True) + eps).sqrt()


@layer_norm.slip("""
    Your mean and variance run over the tokens of a sentence (dim=1). Each token is normalised by itself, over
    its D entries: the last axis.""")
def _over_the_tokens(x, weight, bias, eps):
    return _normed(x, eps, 1) * weight + bias


@layer_norm.slip("""
    Your mean and variance run over the sentences of the batch (dim=0), as in batch normalisation. Each token
    is normalised by itself, over its D entries: the last axis.""")
def _over_the_batch(x, weight, bias, eps):
    return _normed(x, eps, 0) * weight + bias


@layer_norm.slip("""
    You have one mean and one variance for a whole sentence. Each token has its own: use the last axis
    only.""")
def _over_the_sentence(x, weight, bias, eps):
    return _normed(x, eps, (1, 2)) * weight + bias


@layer_norm.slip("""
    You have one mean and one variance for everything that came in. Each token has its own: `dim=-1` and
    `keepdim=True`.""")
def _over_everything(x, weight, bias, eps):
    return _normed(x, eps, (0, 1, 2)) * weight + bias


@layer_norm.slip("""
    You divided by D - 1, as `var` and `std` do by themselves. The variance here is the plain mean of the
    squares, divided by D: `correction=0`, or `.square().mean(...)`.""")
def _one_less(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.var(-1, keepdim=True) + eps).sqrt() * weight + bias


@layer_norm.slip("""
    Two things about your divisor: `std` divides by D - 1 where the formula divides by D, and `eps` belongs
    under the root, to the variance.""")
def _std_plus_eps(x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) * weight + bias


@layer_norm.slip("""
    `eps` has no effect in your answer, and a token of equal entries is divided by 0. Add it to the variance,
    under the root.""")
def _no_eps(x, weight, bias, eps):
    return _normed(x, 0.0) * weight + bias


@layer_norm.slip("""
    `eps` stands outside the root. It belongs to the variance: add it first, then take the root.""")
def _eps_outside(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True).sqrt() + eps) * weight + bias


@layer_norm.slip("""
    Your `eps` is always 0.00001, whatever is handed in. Use the argument `eps`.""")
def _eps_fixed(x, weight, bias, eps):
    return _normed(x, 1e-5) * weight + bias


@layer_norm.slip("""
    `eps` is subtracted from the variance. It should keep it away from 0: add it.""")
def _eps_subtracted(x, weight, bias, eps):
    return _normed(x, -eps) * weight + bias


@layer_norm.slip("""
    You divided by the variance, not by its root. The variance has the square of the size of x; only its root
    brings every token to size 1.""")
def _no_root(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps) * weight + bias


@layer_norm.slip("""
    The mean was not taken away above the line: the variance is right, the entries still carry their mean.""")
def _mean_left_above(x, weight, bias, eps):
    return x / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * weight + bias


@layer_norm.slip("""
    You took the mean of the squares of x itself. The variance is the mean of the squared distances from the
    mean: square what is left when the mean is gone.""")
def _mean_left_below(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


@layer_norm.slip("""
    The mean plays no part in your answer. That is RMSNorm, an exercise of its own; LayerNorm takes the mean
    of each token away first.""")
def _no_mean(x, weight, bias, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


@layer_norm.slip("""
    You summed the squares and did not divide by D: each token comes to length 1, not to variance 1. Take
    their mean.""")
def _summed(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().sum(-1, keepdim=True) + eps).sqrt() * weight + bias


@layer_norm.slip("""
    The mean is gone, the division is missing: divide by the root of the variance plus `eps`.""")
def _only_centred(x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) * weight + bias


@layer_norm.slip("""
    You multiplied by the standard deviation where the formula divides: large tokens become larger still.""")
def _multiplied(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


@layer_norm.slip("""
    Normalised, but `weight` and `bias` are not used: the last step is `* weight + bias`.""")
def _bare(x, weight, bias, eps):
    return _normed(x, eps)


@layer_norm.slip("""
    `weight` is not used: multiply each entry by its own weight before you add the bias.""")
def _no_weight(x, weight, bias, eps):
    return _normed(x, eps) + bias


@layer_norm.slip("""
    `bias` is not used: add it last.""")
def _no_bias(x, weight, bias, eps):
    return _normed(x, eps) * weight


@layer_norm.slip("""
    The bias was added before the weight was multiplied, so it is multiplied as well. First the weight, then
    the bias.""")
def _bias_first(x, weight, bias, eps):
    return (_normed(x, eps) + bias) * weight


@layer_norm.slip("""
    Weight and bias act before the norm, which then undoes part of it. They come after it.""")
def _scaled_before(x, weight, bias, eps):
    return _normed(x * weight + bias, eps)


@layer_norm.slip("""
    `weight` and `bias` have changed places: multiply by `weight`, add `bias`.""")
def _swapped(x, weight, bias, eps):
    return _normed(x, eps) * bias + weight


@layer_norm.slip("""
    Only the mean was divided by the root, and not what is left without it: / comes before -. Put brackets
    around `x - mean`.""")
def _no_brackets(x, weight, bias, eps):
    mean = x.mean(-1, keepdim=True)
    return x - mean / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * weight + bias


@layer_norm.slip("""
    Your variance is 0, so that `eps` stands alone under the root. The distances from the mean cancel unless
    they are squared one by one, before their mean is taken.""")
def _squared_too_late(x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) / eps**0.5 * weight + bias


@layer_norm.slip("""
    You multiplied by the sum of weight and bias. Multiply by `weight` first, then add `bias`.""")
def _times_the_sum(x, weight, bias, eps):
    return _normed(x, eps) * (weight + bias)


@layer_norm.slip("""
    Two things: you have one mean and one variance for everything that came in, where each token has its own
    (`dim=-1`, `keepdim=True`); and the variance divides by one less than the number of entries
    (`correction=0`).""")
def _sample_of_everything(x, weight, bias, eps):
    return (x - x.mean()) / (x.var() + eps).sqrt() * weight + bias


@layer_norm.crash("""
    A mean or a variance has lost its axis: (B, T) does not fit (B, T, D). With `keepdim=True` it stays, one
    long: (B, T, 1).""")
def _axis_lost(x, weight, bias, eps):
    return x - x.mean(-1)


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How long a token is after the norm",
    statement="""
        A LayerNorm, with all weights 1 and all biases 0, works on tokens of D = 64 numbers. The length of a
        vector is the root of the sum of its squared entries.

        Before you run anything: how long is the vector that comes out, for any token whose entries are not
        all equal? (`eps` is so small that you may forget it.)
        """,
    hints=(
        "After the norm the entries have the mean 0 and the variance 1. Write the variance down as a sum of "
        "squares.",
        "The mean is 0, so the variance is just the mean of the 64 squares, and it is 1. What is their sum?",
        "The length is the root of that sum.",
    ),
    expected=8.0,
    wrong={
        64.0: "64 is the sum of the squares. The length is its root.",
        1.0: "1 is the mean of the squares. The length adds up all 64 of them, then takes the root.",
        0.0: "0 is the sum of the entries, for the mean is gone. Squares do not cancel.",
        7.937: "That is the root of 63: you counted with D - 1. LayerNorm's variance divides by D, so the 64 "
        "squares add up to 64.",
        63.0: "63 would be the sum of the squares if the variance divided by D - 1. It divides by D; and the "
        "length is a root.",
        0.125: "That is one over the length. 64 squares with the mean 1 add up to 64; take the root.",
        4096.0: "That is 64 squared. The 64 squares have the mean 1, so they add up to 64; take the root.",
        32.0: "That is half of 64. The 64 squares have the mean 1, so they add up to 64; then comes the "
        "root.",
    },
    otherwise="Not that number. The 64 squared entries have the mean 1: add them up, then take the root.",
    form="one number",
)
def length_after_the_norm():
    """The 64 squares have the mean 1 and so the sum 64: every token has the length 8, the root of D.
    LayerNorm puts all tokens on a sphere (and takes away their mean), so only their direction counts.
    """
    x = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = nn.LayerNorm(64, eps=1e-12, dtype=torch.float64)(x)
    return round(y.square().sum().sqrt().item(), 6)


# --- 4 -------------------------------------------------------------------------------------------------


def _rms_norm_inputs(
    rng: np.random.Generator, B: int, T: int, D: int, eps: float, silent: bool = False
) -> dict[str, Any]:
    """Tokens of different size and mean; ``silent``: the first one is zeros."""
    inputs = _layer_norm_inputs(rng, B, T, D, eps)
    if silent:
        inputs["x"][0, 0] = 0.0
    del inputs["bias"]
    return inputs


def _rms_norm_reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    out = np.zeros_like(x)
    for b, t in np.ndindex(x.shape[:2]):
        out[b, t] = x[b, t] * weight / np.sqrt(np.dot(x[b, t], x[b, t]) / x.shape[2] + eps)
    return out


@chapter.implement(
    title="RMSNorm",
    statement=r"""
        RMSNorm leaves the mean alone. It divides each token by the root of the mean of its squared entries
        (root mean square, hence the name), and has no bias:

        $$y = \frac{x}{\sqrt{\frac{1}{D} \sum_{i=1}^{D} x_i^2 + \varepsilon}} \cdot \text{weight}$$

        `x` has the shape (B, T, D), `weight` has D numbers, `eps` is a small number. PyTorch's `rms_norm` is
        off limits.
        """,
    hints=(
        "Take your LayerNorm and leave things out: which of its steps have to do with the mean, and with the "
        "bias?",
        "The mean square of each token is `x.square().mean(dim=-1, keepdim=True)`, of the shape (B, T, 1).",
        "Add `eps` to the mean square, take the root, divide, multiply by `weight`.",
    ),
    axes="B T D",
    inputs=_rms_norm_inputs,
    sizes=(
        (1, 2, 4, 1e-6),
        (2, 3, 5, 1e-6),
        (1, 4, 3, 0.5),
        (3, 2, 6, 1e-6, True),
        (2, 5, 4, 2.0),
        (2, 1, 3, 1e-3),
    ),
    reference=_rms_norm_reference,
    forbidden=("rms_norm", "RMSNorm", "layer_norm", "LayerNorm", "native_layer_norm", "group_norm"),
)
def rms_norm(x, weight, eps):
    """Bring each token of x (B, T, D) to a mean square of 1, then multiply by weight (D,)."""
    # The mean of the squares, not their variance: nothing is taken away first. (B, T, D) -> (B, T, 1)
    mean_square = x.square().mean(dim=-1, keepdim=True)
    # A token of zeros stays zeros: eps keeps 0 / 0 away.
    return x / (mean_square + eps).sqrt() * weight


@rms_norm.slip("""
    You took the mean of each token away. RMSNorm leaves it in; that is what it saves compared with
    LayerNorm.""")
def _centred(x, weight, eps):
    return _normed(x, eps) * weight


@rms_norm.slip("""
    You divided by the standard deviation, for which the mean was taken away. RMSNorm takes the mean of the
    squares as they are.""")
def _by_the_standard_deviation(x, weight, eps):
    return x / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * weight


@rms_norm.slip("""
    You divided by a standard deviation, which takes the mean away and, as `var` and `std` do by themselves,
    divides by D - 1. RMSNorm wants the plain mean of the squares.""")
def _by_torch_s_var(x, weight, eps):
    return x / (x.var(-1, keepdim=True) + eps).sqrt() * weight


@rms_norm.slip("""
    You summed the squares: each token comes to length 1. Take their mean, so that its entries come to a mean
    square of 1.""")
def _sum_of_squares(x, weight, eps):
    return x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * weight


@rms_norm.slip("""
    The root is missing: you divided by the mean square itself.""")
def _square_left(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps) * weight


@rms_norm.slip("""
    You divided by the mean of the absolute values. It is the squares that are averaged, and then comes the
    root.""")
def _mean_of_absolutes(x, weight, eps):
    return x / (x.abs().mean(-1, keepdim=True) + eps) * weight


@rms_norm.slip("""
    You took roots first and averaged then, which gives the mean of the absolute values. Average the squares,
    add `eps`, then take the root.""")
def _root_before_the_mean(x, weight, eps):
    return x / (x.square() + eps).sqrt().mean(-1, keepdim=True) * weight


@rms_norm.slip("""
    You divided by the largest entry. It is the root of the mean of the squares that is divided by.""")
def _by_the_largest(x, weight, eps):
    return x / (x.abs().amax(-1, keepdim=True) + eps) * weight


@rms_norm.slip("""
    You averaged the squares over the tokens of a sentence (dim=1), so tokens learn of each other. Each is
    divided by its own size: the last axis.""")
def _rms_over_the_tokens(x, weight, eps):
    return x / (x.square().mean(1, keepdim=True) + eps).sqrt() * weight


@rms_norm.slip("""
    You averaged the squares over the batch (dim=0). Each token is divided by its own size: the last axis.""")
def _rms_over_the_batch(x, weight, eps):
    return x / (x.square().mean(0, keepdim=True) + eps).sqrt() * weight


@rms_norm.slip("""
    There is one size for everything that came in. Each token has its own: `dim=-1` and `keepdim=True`.""")
def _rms_over_everything(x, weight, eps):
    return x / (x.square().mean() + eps).sqrt() * weight


@rms_norm.slip("""
    `eps` has no effect in your answer, and a token of zeros becomes 0 / 0 = NaN. Add it to the mean square,
    under the root.""")
def _rms_no_eps(x, weight, eps):
    return x / x.square().mean(-1, keepdim=True).sqrt() * weight


@rms_norm.slip("""
    `eps` stands outside the root. It belongs to the mean square: add it first, then take the root.""")
def _rms_eps_outside(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * weight


@rms_norm.slip("""
    Your `eps` is always 0.000001, whatever is handed in. Use the argument `eps`.""")
def _rms_eps_fixed(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


@rms_norm.slip("""
    The weight is missing: multiply each entry by its own.""")
def _rms_no_weight(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@rms_norm.slip("""
    You multiplied by 1 + weight. Some models store their weights as distances from 1; here `weight` is the
    factor itself.""")
def _one_more(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * (1 + weight)


@rms_norm.slip("""
    You added the weight, as if it were a bias. It is a factor.""")
def _weight_added(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() + weight


@rms_norm.slip("""
    The weight acts before the squares are taken, so it changes the size that is divided by. Divide first,
    then multiply by the weight.""")
def _rms_weight_first(x, weight, eps):
    x = x * weight
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@rms_norm.slip("""
    You multiplied by the root where the formula divides: large tokens become larger still.""")
def _rms_multiplied(x, weight, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


@rms_norm.slip("""
    You divided by the length of the token plus `eps`. The length is the root of the sum of the squares;
    divide by the root of their mean, with `eps` under the root.""")
def _by_the_length(x, weight, eps):
    return x / (x.norm(dim=-1, keepdim=True) + eps) * weight


@rms_norm.slip("""
    You divided by `std` plus `eps`. `std` takes the mean away and divides by D - 1; RMSNorm wants the plain
    mean of the squares, plus `eps`, and then the root.""")
def _by_torch_s_std(x, weight, eps):
    return x / (x.std(-1, keepdim=True) + eps) * weight


@rms_norm.slip("""
    You squared the mean. It is the mean of the squares that is wanted: first square each entry, then take
    the mean.""")
def _square_of_the_mean(x, weight, eps):
    return x / (x.mean(-1, keepdim=True).square() + eps).sqrt() * weight


@rms_norm.slip("""
    What you divide by is right. But above the line you took the mean of each token away; RMSNorm leaves it
    in.""")
def _centred_above(x, weight, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


@rms_norm.slip("""
    You divided by the weight. It is a factor: it multiplies what has been divided by the root.""")
def _weight_below(x, weight, eps):
    return x / ((x.square().mean(-1, keepdim=True) + eps).sqrt() * weight)


@rms_norm.crash("""
    Your mean squares have lost their axis: (B, T) does not fit (B, T, D). With `keepdim=True` it stays, one
    long: (B, T, 1).""")
def _rms_axis_lost(x, weight, eps):
    return x / (x.square().mean(-1) + eps).sqrt()


# --- 5 -------------------------------------------------------------------------------------------------


def _norm(x):
    """LayerNorm without weight and bias."""
    return F.layer_norm(x, x.shape[-1:])


def _pre_norm_inputs(rng: np.random.Generator, B: int, T: int, D: int) -> dict[str, Any]:
    x = 2 * rng.standard_normal((B, T, D)) + rng.standard_normal((B, T, 1))
    return {"x": x, "w": rng.standard_normal((D, D))}


def _pre_norm_reference(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    out = x.copy()
    for b, t in np.ndindex(x.shape[:2]):
        h = (x[b, t] - x[b, t].mean()) / np.sqrt(x[b, t].var() + 1e-5)
        out[b, t] += np.maximum(h @ w, 0)
    return out


@chapter.implement(
    title="A pre-norm residual",
    statement="""
        A sub-layer f is wrapped as in today's models, pre-norm: what comes in is kept, and to it is added
        what f makes of its normalised copy,

        x + f(norm(x)).

        Here norm is a LayerNorm without weight and bias, `torch.nn.functional.layer_norm(h, h.shape[-1:])`,
        and f multiplies by a matrix and sets negative numbers to 0: f(h) = relu(h @ w). `x` has the shape
        (B, T, D), `w` the shape (D, D).
        """,
    hints=(
        "Do one step a line: the normalised copy, what f makes of it, the sum.",
        "There are two ways from `x` to the answer. On one of them nothing at all happens to it.",
        "`h = torch.nn.functional.layer_norm(x, x.shape[-1:])` is the copy, and `x` is still there, "
        "untouched, when you add.",
    ),
    axes="B T D",
    inputs=_pre_norm_inputs,
    sizes=((1, 2, 3), (2, 3, 4), (1, 4, 5), (3, 2, 6), (2, 5, 3)),
    reference=_pre_norm_reference,
)
def pre_norm(x, w):
    """Wrap f(h) = relu(h @ w) in a skip connection and a norm: x (B, T, D), w (D, D) to (B, T, D)."""
    # Only the copy that goes into f is normalised ...
    h = torch.nn.functional.layer_norm(x, x.shape[-1:])
    # ... and x itself goes on as it came: from the first layer to the last the stream is a plain sum.
    return x + (h @ w).relu()


@pre_norm.slip("""
    That is post-norm: you normalise the sum. In pre-norm the norm stands in front of f, and the sum stays as
    it is.""")
def _post_instead(x, w):
    return _norm(x + (x @ w).relu())


@pre_norm.slip("""
    There is no norm in your answer. What goes into f is `norm(x)`.""")
def _norm_forgotten(x, w):
    return x + (x @ w).relu()


@pre_norm.slip("""
    The skip connection is missing: what f gives is added to `x`.""")
def _skip_forgotten(x, w):
    return (_norm(x) @ w).relu()


@pre_norm.slip("""
    You took the skip connection after the norm: `norm(x)` goes past f, and so the stream itself is
    normalised. It is `x`, as it came in, that goes past.""")
def _skip_after_the_norm(x, w):
    return _norm(x) + (_norm(x) @ w).relu()


@pre_norm.slip("""
    `x` was added twice. One skip connection adds it once.""")
def _added_twice(x, w):
    return 2 * x + (_norm(x) @ w).relu()


@pre_norm.slip("""
    The norm stands behind f: you normalise what f gives. In pre-norm it stands in front: f gets
    `norm(x)`.""")
def _norm_behind(x, w):
    return x + _norm((x @ w).relu())


@pre_norm.slip("""
    There are two norms: one before f, which is right, and one over the sum, which is not. The sum stays as it
    is.""")
def _two_norms(x, w):
    return _norm(x + (_norm(x) @ w).relu())


@pre_norm.slip("""
    Your relu is over the whole sum, so it also cuts what goes past f. f ends in its relu; the sum comes
    after it.""")
def _relu_over_the_sum(x, w):
    return (x + _norm(x) @ w).relu()


@pre_norm.slip("""
    The relu is missing: f(h) = relu(h @ w).""")
def _no_relu(x, w):
    return x + _norm(x) @ w


@pre_norm.slip("""
    The relu stands before the matrix. f multiplies first: relu(h @ w).""")
def _relu_first(x, w):
    return x + _norm(x).relu() @ w


@pre_norm.slip("""
    You multiplied by the transpose of `w`. A token is a row: `h @ w`.""")
def _w_turned(x, w):
    return x + (_norm(x) @ w.T).relu()


@pre_norm.slip("""
    Your norm runs over the tokens. Each token is normalised by itself, over its D entries.""")
def _norm_over_tokens(x, w):
    return x + (_norm(x.mT).mT @ w).relu()


@pre_norm.slip("""
    Your norm runs over a whole sentence. Each token is normalised by itself, over its D entries:
    `h.shape[-1:]`.""")
def _norm_over_sentences(x, w):
    return x + (F.layer_norm(x, x.shape[-2:]) @ w).relu()


@pre_norm.slip("""
    Your norm runs over everything that came in. Each token is normalised by itself, over its D entries:
    `h.shape[-1:]`.""")
def _norm_over_everything(x, w):
    return x + (F.layer_norm(x, x.shape) @ w).relu()


@pre_norm.slip("""
    The norm stands within f, between the matrix and the relu. It comes before f: `norm(x)` is what is
    multiplied by `w`.""")
def _norm_within(x, w):
    return x + _norm(x @ w).relu()


@pre_norm.slip("""
    Your norm leaves the mean of each token in, as RMSNorm does. Here norm is a LayerNorm.""")
def _rms_instead(x, w):
    return x + (F.rms_norm(x, x.shape[-1:]) @ w).relu()


@pre_norm.slip("""
    The variance in your norm divides by D - 1, as `var` and `std` do by themselves. LayerNorm's divides by
    D.""")
def _norm_of_a_sample(x, w):
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt()
    return x + (h @ w).relu()


@pre_norm.slip("""
    You multiplied where a skip connection adds: `x` plus what f gives.""")
def _multiplied_skip(x, w):
    return x * (_norm(x) @ w).relu()


@pre_norm.slip("""
    You subtracted what f gives. A skip connection adds it.""")
def _subtracted(x, w):
    return x - (_norm(x) @ w).relu()


@pre_norm.slip("""
    Only the norm is there: `norm(x)`. What f makes of it is still to be added to `x`.""")
def _norm_alone(x, w):
    return _norm(x)


@pre_norm.slip("""
    Your answer is `x` as it came in. `norm(x)` goes through f, and what f gives is added to it.""")
def _x_alone(x, w):
    return x.clone()


@pre_norm.crash("""
    An `nn.LayerNorm` has weights of its own, in float32, and what comes in here is float64. The norm without
    weights is the function `torch.nn.functional.layer_norm`.""")
def _module_for_function(x, w):
    return x + (nn.LayerNorm(x.shape[-1])(x) @ w).relu()


# --- 6 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How the stream of a pre-norm model grows",
    statement="""
        In a pre-norm model a token's stream starts with entries of mean 0 and variance 1. Each of 24 layers
        has two sub-layers, and each sub-layer adds a vector to it. Suppose that the entries of these vectors
        are independent, of each other and of the stream, with mean 0 and variance 1.

        Before you run anything: what is the standard deviation of the stream's entries at the top?
        """,
    hints=(
        "The stream at the top is a plain sum. How many vectors are in it?",
        "One that came in, and one from each of 48 sub-layers. What does independence say about the variance "
        "of a sum?",
        "The variances add up. The question asks for the standard deviation: take the root.",
    ),
    expected=7.0,
    wrong={
        49.0: "49 is the variance: 1 and 48 times 1. The standard deviation is its root.",
        1.0: "That would be post-norm, where every sum is normalised. In pre-norm nothing brings the stream "
        "back to size 1: it is a sum of 49 vectors.",
        5.0: "You counted one vector a layer. Each layer has two sub-layers, attention and feed-forward "
        "network, and each of them adds one.",
        25.0: "That is a variance, and with one vector a layer. Each layer has two sub-layers; and the "
        "standard deviation is a root.",
        48.0**0.5: "Nearly: you left out what came in at the bottom. It is in the sum, too.",
        48.0: "Variances add up, and you forgot the one that came in; then comes the root.",
        24.0**0.5: "You counted one vector a layer, and not what came in. There are two for each layer, and "
        "one at the bottom.",
        2.0**24: "Doubling in each layer would need vectors that all point the same way. Independent ones "
        "partly cancel: it is their variances that add up.",
        2.0**48: "Doubling with each sub-layer would need vectors that point the way of the stream. "
        "Independent ones partly cancel: it is their variances that add up.",
    },
    otherwise="Not that number. Count the vectors in the sum, add up their variances, then take the root.",
    form="one number",
)
def stream_at_the_top():
    """49 independent vectors of variance 1 add up to the variance 49: the stream has grown seven times as
    large, and what a late sub-layer adds weighs little beside it. A norm after the last layer brings it back
    to size.
    """
    variance = 1.0  # of what comes in
    for _ in range(24 * 2):
        variance += 1.0  # independent: the variances add up
    return variance**0.5


# --- 7 -------------------------------------------------------------------------------------------------


def _leak_inputs(rng: np.random.Generator, B: int, T: int, D: int) -> dict[str, Any]:
    x = (1 + rng.random((B, T, 1))) * rng.standard_normal((B, T, D)) + rng.standard_normal((B, T, 1))
    weights = np.tril(0.2 + rng.random((T, T)))
    return {
        "x": x,
        "weights": weights / weights.sum(-1, keepdims=True),
        "w": rng.standard_normal((D, D)) * D**-0.5,
    }


def _leak_reference(x: np.ndarray, weights: np.ndarray, w: np.ndarray) -> np.ndarray:
    h = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    out = x.copy()
    for b, t in np.ndindex(x.shape[:2]):
        out[b, t] += sum(weights[t, s] * h[b, s] for s in range(x.shape[1])) @ w
    return out


def find_the_leak(x, weights, w):
    """Pre-norm around attention: x (B, T, D), its weights (T, T), w (D, D) to an output (B, T, D)."""
    mean = x.mean(dim=1, keepdim=True)
    variance = x.var(dim=1, correction=0, keepdim=True)
    h = (x - mean) / (variance + 1e-5).sqrt()
    return x + weights @ h @ w


@chapter.debug(
    broken=find_the_leak,
    title="The mask is right, and the future leaks",
    statement="""
        This function is a layer of a decoder: pre-norm around an attention whose weights are handed in. They
        are causal, (T, T) with nothing but zeros above the diagonal, so each token takes from itself and from
        the tokens before it. `w` (D, D) is the matrix of the values.

        The symptom: change the last token of a sentence, and the output of every earlier token changes as
        well. Yet the weights are right. And a sentence of one token comes out untouched, as if there were no
        layer.

        Find the fault, repair it, and hand the function in.
        """,
    hints=(
        "Which lines let numbers of one token meet numbers of another? There should be only one such step, "
        "`weights @ h`.",
        "Print `mean.shape` for a sentence of 5 tokens with 3 numbers each. How many means are there, and "
        "how many should there be?",
        "A norm works on each token by itself, along its features. Axis 1 of (B, T, D) is the tokens.",
    ),
    axes="B T D",
    inputs=_leak_inputs,
    sizes=((1, 3, 4), (2, 4, 3), (2, 2, 5), (3, 5, 4), (2, 1, 3)),
    reference=_leak_reference,
)
def find_the_leak(x, weights, w):
    """Pre-norm around attention: x (B, T, D), its weights (T, T), w (D, D) to an output (B, T, D)."""
    # Along the features of each token. The broken lines took mean and variance along the tokens (dim=1), the
    # later ones included: what the mask hides came in through the norm.
    mean = x.mean(dim=-1, keepdim=True)
    variance = x.var(dim=-1, correction=0, keepdim=True)
    h = (x - mean) / (variance + 1e-5).sqrt()
    return x + weights @ h @ w


def _layer(x, weights, w, mean_of=-1, variance_of=-1, correction=0):
    centred = x - x.mean(mean_of, keepdim=True)
    h = centred / (x.var(variance_of, correction=correction, keepdim=True) + 1e-5).sqrt()
    return x + weights @ h @ w


@find_the_leak.slip("""
    The leak is still there: your function gives what the broken one gave. Which numbers go into the mean of a
    token?""")
def _still_leaking(x, weights, w):
    return _layer(x, weights, w, 1, 1)


@find_the_leak.slip("""
    You repaired the mean; the variance still runs over the tokens.""")
def _variance_still_leaks(x, weights, w):
    return _layer(x, weights, w, -1, 1)


@find_the_leak.slip("""
    You repaired the variance; the mean still runs over the tokens.""")
def _mean_still_leaks(x, weights, w):
    return _layer(x, weights, w, 1, -1)


@find_the_leak.slip("""
    Mean and variance now run over a whole sentence, later tokens included: the leak is still there. Each
    token is normalised by itself.""")
def _leaks_over_both(x, weights, w):
    return _layer(x, weights, w, (1, 2), (1, 2))


@find_the_leak.slip("""
    Mean and variance now run over the batch: sentences learn of each other, which is another leak. Each token
    is normalised by itself, along its features.""")
def _leaks_over_the_batch(x, weights, w):
    return _layer(x, weights, w, 0, 0)


@find_the_leak.slip("""
    The axis is right. But the variance now divides by D - 1: `correction=0` was not at fault.""")
def _correction_lost(x, weights, w):
    return _layer(x, weights, w, correction=1)


@find_the_leak.slip("""
    You took the norm away, and the leak with it. The norm is needed: repair its axis.""")
def _norm_removed(x, weights, w):
    return x + weights @ x @ w


@find_the_leak.slip("""
    The norm is right now. But you turned the weights round, and they had been right: now each token takes
    from itself and from the tokens after it.""")
def _weights_turned(x, weights, w):
    return _layer(x, weights.T, w)


@find_the_leak.slip("""
    The norm is still at fault, and you turned the weights round, which were right. Look at how mean and
    variance are taken.""")
def _weights_turned_instead(x, weights, w):
    return _layer(x, weights.T, w, 1, 1)


@find_the_leak.slip("""
    The norm is still at fault. You cut the weights once more, below the diagonal, and no token takes from
    itself now: they were right.""")
def _itself_hidden(x, weights, w):
    return _layer(x, weights.tril(-1), w, 1, 1)


@find_the_leak.slip("""
    The leak is gone, and with it the skip connection: what the attention gives is added to `x`.""")
def _skip_lost(x, weights, w):
    return _layer(x, weights, w) - x


@find_the_leak.slip("""
    Your norm stands on the stream now: the normalised `h` goes past the attention. It is `x` that goes past,
    as before.""")
def _stream_normed(x, weights, w):
    return _norm(x) + weights @ _norm(x) @ w


@find_the_leak.slip("""
    Mean and variance now run over everything that came in, later tokens and other sentences included. Each
    token is normalised by itself.""")
def _leaks_over_everything(x, weights, w):
    return _layer(x, weights, w, (0, 1, 2), (0, 1, 2))


@find_the_leak.slip("""
    The norm is right now. But `weights` play no part in your answer, and so no token learns of another: the
    attention is gone.""")
def _attention_lost(x, weights, w):
    return x + _norm(x) @ w


@find_the_leak.slip("""
    The norm is right now. But `w` plays no part in your answer: the values are `h @ w`.""")
def _values_lost(x, weights, w):
    return x + weights @ _norm(x)


@find_the_leak.slip("""
    The norm is right now. But you took the softmax of `weights`, which are weights already: it makes numbers
    above 0 of the zeros that hide the future.""")
def _softmax_again(x, weights, w):
    return _layer(x, weights.softmax(-1), w)


@find_the_leak.slip("""
    You moved the norm behind the sum: that is post-norm. Its place, before the attention, was right; the
    fault is in its axis.""")
def _norm_moved(x, weights, w):
    return _norm(x + weights @ x @ w)


@find_the_leak.slip("""
    The leak is gone. But you cut `weights` above the diagonal, too, where they are 0 already. They were
    right: hand them on as they came.""")
def _cut_again(x, weights, w):
    return _layer(x, weights.tril(), w)


# --- 8 -------------------------------------------------------------------------------------------------


def _post_norm_inputs(rng: np.random.Generator, B: int, T: int, D: int, F_: int) -> dict[str, Any]:
    return {
        "d_model": D,
        "d_ff": F_,
        "up_proj.weight": rng.standard_normal((F_, D)),
        "up_proj.bias": rng.standard_normal(F_),
        "down_proj.weight": rng.standard_normal((D, F_)),
        "down_proj.bias": rng.standard_normal(D),
        "norm.weight": 1.5 + rng.random(D),
        "norm.bias": rng.standard_normal(D),
        "x": 2 * rng.standard_normal((B, T, D)) + rng.standard_normal((B, T, 1)),
    }


def _post_norm_reference(d_model: int, d_ff: int, x: np.ndarray, **weights: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    for b, t in np.ndindex(x.shape[:2]):
        hidden = np.maximum(weights["up_proj.weight"] @ x[b, t] + weights["up_proj.bias"], 0)
        y = x[b, t] + weights["down_proj.weight"] @ hidden + weights["down_proj.bias"]
        normed = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
        out[b, t] = normed * weights["norm.weight"] + weights["norm.bias"]
    return out


@chapter.implement_module(
    title="A sub-layer as it was in 2017",
    statement="""
        Write the feed-forward sub-layer of the first Transformer, "Add & Norm" included, as a module. It is
        post-norm: x goes through the network, what comes out is added to x, and the sum is normalised,

        norm(x + down_proj(relu(up_proj(x)))).

        `__init__` gets the widths `d_model` (D) and `d_ff`. It should make `up_proj`, from D to d_ff numbers,
        and `down_proj`, from d_ff back to D, both `nn.Linear`, and `norm`, an `nn.LayerNorm` of D numbers.
        """,
    hints=(
        "Three parts are made in `__init__`, and each is used once in `forward`.",
        "`self.up_proj = nn.Linear(d_model, d_ff)`: first what comes in, then what goes out. "
        "`self.norm = nn.LayerNorm(d_model)`.",
        "In `forward`, from the inside out: up, `.relu()`, down, add `x`, normalise.",
    ),
    axes="B T D",
    settings=("d_model", "d_ff"),
    forward=("x",),
    inputs=_post_norm_inputs,
    sizes=((1, 2, 3, 5), (2, 3, 4, 6), (1, 4, 5, 3), (3, 2, 6, 4), (2, 1, 3, 7)),
    reference=_post_norm_reference,
)
class PostNormFeedForward(nn.Module):
    """norm(x + network(x)): x (B, T, D) to (B, T, D)."""

    def __init__(self, d_model, d_ff):
        super().__init__()
        self.up_proj = nn.Linear(d_model, d_ff)
        self.down_proj = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x):
        """Feed forward, add, normalise: an output (B, T, D)."""
        hidden = self.up_proj(x).relu()  # (B, T, d_ff)
        # Post-norm: the sum is normalised, so the norm stands on the way that goes past the network, too.
        return self.norm(x + self.down_proj(hidden))


class _Feeding(PostNormFeedForward.solve):
    """The solution with its network apart, so that each slip spoils the way round it."""

    def network(self, x):
        return self.down_proj(self.up_proj(x).relu())


@PostNormFeedForward.slip("""
    That is pre-norm, as in today's models: the norm stands before the network. In 2017 it came last, over
    the sum.""")
class _PreInstead(_Feeding):
    def forward(self, x):
        return x + self.network(self.norm(x))


@PostNormFeedForward.slip("""
    The norm is never used. It comes last, over the sum.""")
class _NoNorm(_Feeding):
    def forward(self, x):
        return x + self.network(x)


@PostNormFeedForward.slip("""
    "Add" is missing: `x` is added to what the network gives, before the norm.""")
class _NoSkip(_Feeding):
    def forward(self, x):
        return self.norm(self.network(x))


@PostNormFeedForward.slip("""
    You normalise what the network gives and add `x` after that. First add, then normalise: the norm is the
    last step.""")
class _NormedTooEarly(_Feeding):
    def forward(self, x):
        return x + self.norm(self.network(x))


@PostNormFeedForward.slip("""
    The norm is used twice, before the network and over the sum. Post-norm has one, over the sum.""")
class _NormTwice(_Feeding):
    def forward(self, x):
        return self.norm(x + self.network(self.norm(x)))


@PostNormFeedForward.slip("""
    You normalise `x` alone and add what the network gives. It is their sum that is normalised.""")
class _OnlyXNormed(_Feeding):
    def forward(self, x):
        return self.norm(x) + self.network(x)


@PostNormFeedForward.slip("""
    Neither `x` is added nor anything normalised: this is the bare network. "Add & Norm" comes after it.""")
class _BareNetwork(_Feeding):
    def forward(self, x):
        return self.network(x)


@PostNormFeedForward.slip("""
    The relu is missing: without it, two matrices in a row are no more than one.""")
class _NoReluInside(_Feeding):
    def forward(self, x):
        return self.norm(x + self.down_proj(self.up_proj(x)))


@PostNormFeedForward.slip("""
    The relu comes after `down_proj`. It stands between the two matrices.""")
class _ReluBehind(_Feeding):
    def forward(self, x):
        return self.norm(x + self.down_proj(self.up_proj(x)).relu())


@PostNormFeedForward.slip("""
    There is a relu too many, after `down_proj`: what is added may well be negative.""")
class _TwoRelus(_Feeding):
    def forward(self, x):
        return self.norm(x + self.network(x).relu())


@PostNormFeedForward.slip("""
    `x` is added twice. One skip connection adds it once.""")
class _SkipTwice(_Feeding):
    def forward(self, x):
        return self.norm(2 * x + self.network(x))


@PostNormFeedForward.slip("""
    `x` is added, and then once more after the norm. The norm is the last step: nothing goes past it.""")
class _SkipAfterTheNorm(_Feeding):
    def forward(self, x):
        return x + self.norm(x + self.network(x))


@PostNormFeedForward.slip("""
    You put GELU between the matrices, as many later models do. The network of 2017 has a relu there.""")
class _Gelu(_Feeding):
    def forward(self, x):
        return self.norm(x + self.down_proj(F.gelu(self.up_proj(x))))


@PostNormFeedForward.slip("""
    The sum is normalised, but the weight and the bias of `self.norm` play no part. Call `self.norm`.""")
class _NormWithoutWeights(_Feeding):
    def forward(self, x):
        return _norm(x + self.network(x))


@PostNormFeedForward.slip("""
    There is a relu over the sum: it cuts what `x` brings along, too. The only relu stands between the two
    matrices.""")
class _ReluOverTheSum(_Feeding):
    def forward(self, x):
        return self.norm((x + self.network(x)).relu())


@PostNormFeedForward.slip("""
    The relu comes before `up_proj`. It stands between the two matrices.""")
class _ReluInFront(_Feeding):
    def forward(self, x):
        return self.norm(x + self.down_proj(self.up_proj(x.relu())))


@PostNormFeedForward.slip("""
    You normalise `x` first, and then the sum: the network and the skip connection both get the normalised
    `x`. Post-norm has one norm, over the sum.""")
class _NormedFirst(_Feeding):
    def forward(self, x):
        x = self.norm(x)
        return self.norm(x + self.network(x))


@PostNormFeedForward.crash("""
    The network has another width inside than outside: `up_proj` makes d_ff numbers of D, and `x` has D. Only
    after `down_proj` can they be added.""")
class _AddedInside(_Feeding):
    def forward(self, x):
        return self.norm(x + self.up_proj(x).relu())


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="A stack that does not learn",
    statement="""
        Somebody left the skip connections out: each of 24 fresh layers computes norm(attention(x)), and the
        next layer goes on with that. The loss does not fall. The gradient in the first layer is of about the
        size that it has in the last.

        Before you run anything: what is wrong?
        """,
    choices={
        "a": "The gradient vanishes: it is too small to reach the first layer.",
        "b": "The gradient explodes: every step leads far away.",
        "c": "The tokens have become alike: every position gives the same output.",
        "d": "The tokens have become too long: the norm cannot hold them.",
    },
    hints=(
        "What was said about the gradient rules out two of the answers.",
        "Each attention replaces a token by an average of all tokens. What do averages of averages do to the "
        "differences between tokens?",
        "The norm makes a vector as long as before. Does it bring back a difference between two vectors that "
        "point the same way?",
    ),
    expected="c",
    wrong={
        "a": "The gradient in the first layer is about as large as in the last: it did not vanish. The norm "
        "sees to that. What else does a skip connection carry along, besides the gradient?",
        "b": "The gradient in the first layer is about as large as in the last: it did not explode. What "
        "else does a skip connection carry along, besides the gradient?",
        "d": "After a norm every token has the same length, the root of D, however many layers there were. "
        "What about their directions?",
    },
)
def a_stack_that_does_not_learn():
    """Averages of averages: after a few layers all tokens point the same way, and no norm tells them apart
    again. A gradient alone is not enough. The skip connection keeps each token's own vector in the stream.
    """
    torch.manual_seed(0)
    layers = [nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(24)]
    norm, x = nn.LayerNorm(16), torch.randn(1, 12, 16)
    for attention in layers:
        x = norm(attention(x, x, x)[0])
    (x * torch.randn(x.shape)).sum().backward()
    first, last = (layers[i].out_proj.weight.grad.norm() for i in (0, -1))
    if not 0.01 < first / last < 100:
        return "a" if first < last else "b"
    return "c" if torch.allclose(x, x.mean(dim=1, keepdim=True), atol=1e-3) else "d"


# --- 10 ------------------------------------------------------------------------------------------------


def _spread(rng: np.random.Generator, N: int, d_model: int, warmup: int) -> dict[str, Any]:
    """Steps before, at and after the end of the warm-up."""
    steps = rng.choice(np.arange(1, 4 * warmup), size=N, replace=False).astype(float)
    steps[0], steps[-1] = 1.0, 3.0 * warmup
    return {"steps": steps, "d_model": d_model, "warmup": warmup}


def _schedule_reference(steps: np.ndarray, d_model: int, warmup: int) -> np.ndarray:
    peak = (d_model * warmup) ** -0.5
    return np.array([peak * s / warmup if s < warmup else peak * (warmup / s) ** 0.5 for s in steps])


@chapter.implement(
    title="The learning rate of 2017",
    statement=r"""
        The first Transformer was a post-norm one, and it began its training with small steps: its learning
        rate rises for `warmup` steps, then it falls. Equation (3) of the paper (section 5.3):

        $$\text{rate} = d_\text{model}^{-0.5} \cdot
        \min\left(\text{step}^{-0.5},\ \text{step} \cdot \text{warmup}^{-1.5}\right)$$

        `steps` is a tensor of N step numbers, counted from 1; `d_model` and `warmup` are whole numbers.
        Return the N learning rates.
        """,
    hints=(
        "Write the two terms of the minimum as two tensors of N numbers and print both, for warmup = 4 and "
        "the steps 1 to 8. Where do they meet?",
        "`steps ** -0.5` is one over the root of each step. Of two tensors of the same shape, "
        "`torch.minimum(a, b)` takes the smaller number at each place.",
        "The factor `d_model ** -0.5` stands in front of the minimum.",
    ),
    axes="N",
    inputs=_spread,
    sizes=((4, 16, 4), (5, 8, 10), (6, 64, 3), (8, 512, 20), (3, 4, 100)),
    reference=_schedule_reference,
    gradient=False,  # nobody learns the number of a step
)
def warm_up(steps, d_model, warmup):
    """The learning rate at each of the steps (N,): it rises for `warmup` steps, then falls."""
    falling = 1 / steps**0.5
    rising = steps / warmup**1.5  # at step = warmup both are 1 / sqrt(warmup)
    # The smaller one counts: first the rising line, then the falling curve.
    return torch.minimum(falling, rising) / d_model**0.5


@warm_up.slip("""
    You took the larger of the two terms: the rate starts high, falls, and then rises for ever. Take the
    smaller one.""")
def _maximum(steps, d_model, warmup):
    return d_model**-0.5 * torch.maximum(steps**-0.5, steps * warmup**-1.5)


@warm_up.slip("""
    `d_model` has no effect in your answer. It is a factor, `d_model ** -0.5`.""")
def _no_width(steps, d_model, warmup):
    return torch.minimum(steps**-0.5, steps * warmup**-1.5)


@warm_up.slip("""
    You multiplied by the root of `d_model`. Its exponent is -0.5: wider models take smaller steps.""")
def _wider_is_faster(steps, d_model, warmup):
    return d_model**0.5 * torch.minimum(steps**-0.5, steps * warmup**-1.5)


@warm_up.slip("""
    You divided by `d_model`, not by its root.""")
def _by_the_whole_width(steps, d_model, warmup):
    return torch.minimum(steps**-0.5, steps * warmup**-1.5) / d_model


@warm_up.slip("""
    There is no warm-up: your rate only falls. At the beginning the rising term, `steps * warmup ** -1.5`,
    with a minus in the exponent, is the smaller one.""")
def _only_falling(steps, d_model, warmup):
    return (d_model * steps) ** -0.5


@warm_up.slip("""
    Your rate rises for ever. After `warmup` steps the falling term, `steps ** -0.5`, with a minus in the
    exponent, is the smaller one.""")
def _only_rising(steps, d_model, warmup):
    return d_model**-0.5 * steps * warmup**-1.5


@warm_up.slip("""
    Your rate rises to its peak and stays there. After `warmup` steps it should fall, as `steps ** -0.5`.""")
def _stays_at_the_peak(steps, d_model, warmup):
    return d_model**-0.5 * (steps * warmup**-1.5).clamp(max=warmup**-0.5)


@warm_up.slip("""
    The exponent of `warmup` is -0.5 in your answer. It is -1.5: only so do the two terms meet at
    step = warmup.""")
def _exponent_of_half(steps, d_model, warmup):
    return d_model**-0.5 * torch.minimum(steps**-0.5, steps * warmup**-0.5)


@warm_up.slip("""
    Your rate falls as 1 / step. The exponent is -0.5: one over the root.""")
def _falls_too_fast(steps, d_model, warmup):
    return d_model**-0.5 * torch.minimum(1 / steps, steps * warmup**-1.5)


@warm_up.slip("""
    Your steps are counted from 0 somewhere: you subtract 1 from them. They come counted from 1.""")
def _from_zero(steps, d_model, warmup):
    return d_model**-0.5 * torch.minimum((steps - 1) ** -0.5, (steps - 1) * warmup**-1.5)


@warm_up.slip("""
    You add 1 to the steps. They come counted from 1 already.""")
def _one_too_many(steps, d_model, warmup):
    return d_model**-0.5 * torch.minimum((steps + 1) ** -0.5, (steps + 1) * warmup**-1.5)


@warm_up.slip("""
    The factor of the width is on one of the two terms only, the falling one. It stands in front of the
    minimum and is for both.""")
def _width_on_the_falling(steps, d_model, warmup):
    return torch.minimum(d_model**-0.5 * steps**-0.5, steps * warmup**-1.5)


@warm_up.slip("""
    The factor of the width is on one of the two terms only, the rising one. It stands in front of the minimum
    and is for both.""")
def _width_on_the_rising(steps, d_model, warmup):
    return torch.minimum(steps**-0.5, d_model**-0.5 * steps * warmup**-1.5)


@warm_up.slip("""
    The exponent of `warmup` is -1 in your answer. It is -1.5: only so do the two terms meet at
    step = warmup.""")
def _exponent_of_one(steps, d_model, warmup):
    return d_model**-0.5 * torch.minimum(steps**-0.5, steps / warmup)


@warm_up.slip("""
    The exponents have changed places in the rising term: it is `steps * warmup ** -1.5`.""")
def _exponents_swapped(steps, d_model, warmup):
    return d_model**-0.5 * torch.minimum(steps**-0.5, warmup * steps**-1.5)


@warm_up.slip("""
    Your warm-up always lasts 4000 steps, as in the paper. Use the argument `warmup`.""")
def _warmup_fixed(steps, d_model, warmup):
    return d_model**-0.5 * torch.minimum(steps**-0.5, steps * 4000**-1.5)


@warm_up.slip("""
    You added the two terms. Take the smaller one at each step.""")
def _both_terms(steps, d_model, warmup):
    return d_model**-0.5 * (steps**-0.5 + steps * warmup**-1.5)


@warm_up.crash("""
    Python's own `min` compares two tensors as a whole. `torch.minimum(a, b)` takes the smaller number at each
    place.""")
def _min_of_python(steps, d_model, warmup):
    return d_model**-0.5 * min(steps**-0.5, steps * warmup**-1.5)


# --- 11 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="What a skip connection keeps apart",
    statement=r"""
        Measure what attention does to the differences between tokens, with and without a skip connection.
        Take sentences of 32 random tokens of 64 numbers, long ones and short ones:
        `torch.randn(32, 64) * torch.rand(32, 1)`. In each of 4 layers, every token becomes a weighted average
        of all tokens, h = A x; the weights A (32, 32) are fresh in every layer,
        `torch.randn(32, 32).softmax(-1)`. No matrices, no norms.

        Without skip connection x becomes A x, with it x + A x. Report the token diversity after 4 layers,
        first without, then with the skip connection, on average over at least 1000 sentences.
        `transformer_lab.norms.token_diversity(x)` gives it: 0 means that all tokens are alike.
        """,
    hints=(
        "All sentences at once: `x = torch.randn(1000, 32, 64) * torch.rand(1000, 32, 1)`, and in each layer "
        "`a = torch.randn(1000, 32, 32).softmax(-1)`.",
        "A layer is one line: `x = a @ x`, or `x = x + a @ x`. Start both stacks from the same random "
        "tokens, or from new ones, as you like.",
        "After the loop: `token_diversity(x).mean()`, which averages over the sentences.",
    ),
    ranges={"without": (0.00895, 0.0098), "with": (0.348, 0.361)},
    slips={
        "The two numbers are the other way round: first without the skip connection, then with it.": (
            (0.348, 0.361),
            (0.00895, 0.0098),
        ),
        "These are squares: the diversity is a ratio of lengths, not of squared lengths. Take the root, for "
        "each sentence, before you average.": ((7e-5, 1.15e-4), (0.112, 0.138)),
        "The second number is too large. Either you used the same weights in all four layers, where each "
        "should draw fresh ones; or your average is over too few sentences.": (
            (0.0085, 0.014),
            (0.39, 0.445),
        ),
        "In the second stack, or in both, the tokens go through a norm in each layer. Here there is none: it "
        "would make all tokens equally long.": ((0.0078, 0.0098), (0.236, 0.3)),
        "In the second stack, or in both, the tokens go through a norm at the end. Here there is none: it "
        "would make all tokens equally long.": ((0.0085, 0.0098), (0.322, 0.342)),
        "The first number is too small. Either the tokens go through a norm in each layer, and here there is "
        "none; or your average is over fewer than a thousand sentences.": ((0.0078, 0.0089), (0.348, 0.361)),
        "That is the diversity after three layers. One more.": ((0.042, 0.05), (0.57, 0.615)),
        "That is the diversity after five layers. One less.": ((0.0017, 0.0022), (0.178, 0.198)),
        "Your softmax runs down the columns. Each row of A belongs to one token and sums to 1: the last "
        "axis.": (
            (0.18, 0.22),
            (0.35, 0.39),
        ),
        "Tokens and features have changed places in your sentences: 32 tokens of 64 numbers are (32, 64).": (
            (0.0038, 0.0048),
            (0.44, 0.49),
        ),
        "Nothing has become alike, in neither stack. Were averages taken, with a softmax along each row of "
        "A? And is the common mean that of the 32 tokens, the last axis but one of `x`?": (
            (0.97, 1.0),
            (0.97, 1.0),
        ),
        "The first number is right. For the second you started from the tokens that the first stack had "
        "left, nearly alike already. Start from random tokens again.": ((0.00895, 0.0098), (0.00055, 0.0007)),
        "The first number is right. In the second stack you added the random tokens of the beginning in "
        "every layer. Each layer adds to what came into it: x + A x.": ((0.00895, 0.0098), (0.73, 0.766)),
        "Your weights are too even, so that each average is nearly the plain mean. `torch.rand` gives such "
        "ones; here they are `torch.randn(32, 32).softmax(-1)`.": ((3.2e-5, 3.8e-5), (0.315, 0.35)),
        "Your tokens have much in common from the beginning: their mean is not 0. `torch.rand` gives such "
        "ones; here they come from `torch.randn`, and only their lengths from `torch.rand`.": (
            (0.0013, 0.0016),
            (0.055, 0.062),
        ),
        "Both numbers belong to the stack without skip connection. In the second one, x becomes x + A x.": (
            (0.00895, 0.0098),
            (0.00895, 0.0098),
        ),
        "Both numbers belong to the stack with skip connection. In the first one, x becomes A x alone.": (
            (0.348, 0.361),
            (0.348, 0.361),
        ),
    },
    at_most=(1.0, "A diversity above 1 is impossible: it is a share. Did you report a length, or percent?"),
    otherwise="Not in the range that a thousand sentences give. Check: at least a thousand of them, 32 "
    "tokens of 64 numbers, four layers, the softmax over the last axis, the diversity at the end.",
)
def kept_apart():
    """Without skip connection a hundredth of the difference between tokens is left after only four layers;
    with it, more than a third.
    """
    random = torch.Generator().manual_seed(0)

    def diversity(skip):
        x = torch.randn(1000, 32, 64, generator=random) * torch.rand(1000, 32, 1, generator=random)
        for _ in range(4):
            weights = torch.randn(1000, 32, 32, generator=random).softmax(dim=-1)
            x = (x if skip else 0) + weights @ x
        apart = x - x.mean(dim=1, keepdim=True)  # what is not common to all tokens of the sentence
        return (apart.norm(dim=(1, 2)) / x.norm(dim=(1, 2))).mean().item()

    return diversity(skip=False), diversity(skip=True)


# --- 12 ------------------------------------------------------------------------------------------------


def _backward_inputs(rng: np.random.Generator, B: int, T: int, D: int, eps: float) -> dict[str, Any]:
    x = (1 + rng.random((B, T, 1))) * rng.standard_normal((B, T, D)) + rng.standard_normal((B, T, 1))
    return {"x": x, "upstream": rng.standard_normal((B, T, D)), "eps": eps}


def _backward_reference(x: np.ndarray, upstream: np.ndarray, eps: float) -> np.ndarray:
    """The upstream gradient times the whole table of derivatives, dy_i / dx_j, token by token."""
    out, D = np.zeros_like(x), x.shape[-1]
    for b, t in np.ndindex(x.shape[:2]):
        size = np.sqrt((x[b, t] ** 2).mean() + eps)
        table = np.eye(D) / size - np.outer(x[b, t], x[b, t]) / (D * size**3)
        out[b, t] = upstream[b, t] @ table
    return out


@chapter.implement(
    title="The gradient of RMSNorm, by hand",
    statement=r"""
        RMSNorm without weight makes $y = x / r$ of a token x, with
        $r = \sqrt{\frac{1}{D}\sum_i x_i^2 + \varepsilon}$. Its gradient is what a fused kernel has to
        compute. From the output comes `upstream`, for each entry of y how the loss changes with it; find the
        same for each entry of x.

        Each $x_j$ acts in two ways: on its own $y_j$, and on $r$, by which all entries are divided, with
        $\partial r / \partial x_j = x_j / (D r)$. Together, for one token,

        $$\text{gradient}_j = \frac{1}{r}\left(\text{upstream}_j - \frac{x_j}{r^2} \cdot
        \frac{1}{D} \sum_i \text{upstream}_i\, x_i\right)$$

        `x` and `upstream` have the shape (B, T, D). Autograd (`backward`, `torch.autograd`) and `rms_norm`
        are off limits: you are doing their work. (Your answer should be differentiable itself, as all answers
        here: some optimisers ask for the gradient of a gradient.)
        """,
    hints=(
        "First r, as in your RMSNorm: one number a token, (B, T, 1).",
        "The sum over i multiplies `upstream` and `x` entry by entry, and runs over one token's features. "
        "Divided by D it is a mean: `(upstream * x).mean(dim=-1, keepdim=True)`.",
        "To check yourself: in one notebook cell let autograd differentiate your `rms_norm` and compare. "
        "And the answer must be orthogonal to x, nearly: stretching x changes nothing, so `(answer * "
        "x).sum(-1)` is close to 0 for a small eps.",
    ),
    axes="B T D",
    inputs=_backward_inputs,
    sizes=((1, 2, 3, 1e-6), (2, 3, 4, 1e-6), (1, 4, 2, 0.5), (3, 2, 5, 2.0), (2, 1, 6, 1e-3)),
    reference=_backward_reference,
    forbidden=("backward", "grad", "autograd", "rms_norm", "RMSNorm", "vjp", "jacobian", "jacrev", "jacfwd"),
)
def rms_norm_backward(x, upstream, eps):
    """From the gradient at the output, upstream (B, T, D), the gradient at the input x (B, T, D)."""
    # One size a token: (B, T, D) -> (B, T, 1).
    r = (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    # How much of upstream points along x: that part is taken back, because r grows with x.
    along = (upstream * x).mean(dim=-1, keepdim=True)
    return (upstream - x * along / r**2) / r


def _size(x, eps):
    return (x.square().mean(-1, keepdim=True) + eps).sqrt()


def _along(x, upstream):
    return (upstream * x).mean(-1, keepdim=True)


@rms_norm_backward.slip("""
    You treated r as a constant. But r grows when an entry of x grows: the second term, with the sum over all
    entries, is missing.""")
def _constant_r(x, upstream, eps):
    return upstream / _size(x, eps)


@rms_norm_backward.slip("""
    The sum over i was not divided by D: take the mean of `upstream * x` along the features.""")
def _sum_for_mean(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - x * (upstream * x).sum(-1, keepdim=True) / r**2) / r


@rms_norm_backward.slip("""
    Your second term is divided by r twice, and it should be three times: by r squared within the bracket, and
    once more outside, as both terms are.""")
def _r_for_its_square(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - x * _along(x, upstream) / r) / r


@rms_norm_backward.slip("""
    The second term is not divided by r squared at all.""")
def _no_square_of_r(x, upstream, eps):
    return (upstream - x * _along(x, upstream)) / _size(x, eps)


@rms_norm_backward.slip("""
    The outer division by r is missing.""")
def _not_divided(x, upstream, eps):
    return upstream - x * _along(x, upstream) / _size(x, eps) ** 2


@rms_norm_backward.slip("""
    The second term has the wrong sign: it is taken away, because a larger r makes every entry smaller.""")
def _added(x, upstream, eps):
    r = _size(x, eps)
    return (upstream + x * _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    `upstream` and `x` were multiplied, but not summed over the features: each x_j changes r, and r changes
    all entries of y.""")
def _not_summed(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - x * upstream * x / r**2) / r


@rms_norm_backward.slip("""
    The sum runs over `upstream` alone. Each term is multiplied by its x_i.""")
def _upstream_alone(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - x * upstream.mean(-1, keepdim=True) / r**2) / r


@rms_norm_backward.slip("""
    The factor x_j in front of the sum is missing: an entry changes r as much as it is large.""")
def _factor_missing(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    Your sum runs over the tokens (dim=1). Tokens do not meet in a norm: sum over the features, the last
    axis.""")
def _sum_over_tokens(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - x * (upstream * x).mean(1, keepdim=True) / r**2) / r


@rms_norm_backward.slip("""
    `eps` is missing in r.""")
def _backward_no_eps(x, upstream, eps):
    r = _size(x, 0.0)
    return (upstream - x * _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    `eps` is added to the root. It belongs under it, to the mean square.""")
def _backward_eps_outside(x, upstream, eps):
    r = _size(x, 0.0) + eps
    return (upstream - x * _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    The root is missing in your r: you have the mean square.""")
def _backward_no_root(x, upstream, eps):
    r = _size(x, eps) ** 2
    return (upstream - x * _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    This is the norm itself, x / r. What is asked for is the way back: how the loss changes with x.""")
def _forward_again(x, upstream, eps):
    return x / _size(x, eps)


@rms_norm_backward.slip("""
    You normalised `upstream`. It has to go back through the norm of x: r and the sum are made of x.""")
def _upstream_normed(x, upstream, eps):
    return upstream / _size(upstream, eps)


@rms_norm_backward.slip("""
    Only the second term is divided by the outer r. Put brackets around the difference: both terms are.""")
def _no_outer_brackets(x, upstream, eps):
    return upstream - x * _along(x, upstream) / _size(x, eps) ** 3


@rms_norm_backward.slip("""
    You multiplied by r at the end where the formula divides.""")
def _multiplied_by_r(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - x * _along(x, upstream) / r**2) * r


@rms_norm_backward.slip("""
    Your sum runs over everything that came in. Tokens do not meet in a norm: sum over the features of each,
    `dim=-1` and `keepdim=True`.""")
def _sum_over_everything(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - x * (upstream * x).mean() / r**2) / r


@rms_norm_backward.slip("""
    Both r and the sum run over the tokens (dim=1). Tokens do not meet in a norm: both run over the features,
    the last axis.""")
def _all_over_tokens(x, upstream, eps):
    r = (x.square().mean(1, keepdim=True) + eps).sqrt()
    return (upstream - x * (upstream * x).mean(1, keepdim=True) / r**2) / r


@rms_norm_backward.slip("""
    In your r the sum of the squares is not divided by D: take their mean.""")
def _r_of_the_sum(x, upstream, eps):
    r = (x.square().sum(-1, keepdim=True) + eps).sqrt()
    return (upstream - x * _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    Your r is a standard deviation, for which the mean of x was taken away. RMSNorm's r is made of the squares
    of x as they are.""")
def _r_of_the_variance(x, upstream, eps):
    r = (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
    return (upstream - x * _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    You took the mean of `upstream` away. LayerNorm's gradient has that term, since LayerNorm takes a mean
    away; RMSNorm does not.""")
def _mean_of_upstream(x, upstream, eps):
    r = _size(x, eps)
    return (upstream - upstream.mean(-1, keepdim=True) - x * _along(x, upstream) / r**2) / r


@rms_norm_backward.slip("""
    That is the way back through LayerNorm. RMSNorm takes no mean away: r is made of the squares of x as they
    are, and `upstream` keeps its mean.""")
def _through_layer_norm(x, upstream, eps):
    centred = x - x.mean(-1, keepdim=True)
    r = _size(centred, eps)
    return (upstream - upstream.mean(-1, keepdim=True) - centred * _along(centred, upstream) / r**2) / r
