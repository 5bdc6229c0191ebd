"""Exercises of the chapter "Attention", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from .check import Chapter
from .check.references import softmax as _softmax

chapter = Chapter("attention", "Attention")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


def _weighted_average_inputs(rng: np.random.Generator, T: int, S: int, D: int) -> dict[str, Any]:
    return {"weights": _softmax(2 * rng.standard_normal((T, S))), "values": rng.standard_normal((S, D))}


@chapter.implement(
    title="A weighted average",
    statement="""
        Attention ends in an average. Each of T tokens has one row of weights over S tokens; a row sums to 1.
        Each of the S tokens has a row of values, D numbers long. Mix the values: row t of your answer is the
        sum of all rows of `values`, each times its weight in row t of `weights`.

        A loop is as good as an operator here; `torch.stack(rows)` turns a list of rows into a table.
        """,
    hints=(
        "Do one row by hand first: for token t the answer is "
        "`weights[t, 0] * values[0] + weights[t, 1] * values[1] + ...`, D numbers.",
        "Look at the shapes, (T, S) and (S, D), and at what must come out, (T, D). "
        "Which axis has gone? That is the one to sum over.",
        "A sum over the axis that the left one has last and the right one has first: that is a matrix "
        "product. Python writes it `@`.",
    ),
    axes="T D",
    inputs=_weighted_average_inputs,
    sizes=((2, 3, 4), (3, 2, 4), (1, 4, 3), (4, 1, 2), (5, 6, 7)),
    reference=lambda weights, values: np.stack([(row[:, None] * values).sum(0) for row in weights]),
    gradient=False,  # a warm-up: numbers collected in a list are welcome
)
def weighted_average(weights, values):
    """Average the rows of values (S, D) with the weights (T, S): an answer (T, D)."""
    # Row t times column d, summed over the S tokens: what a matrix product is.
    return weights @ values


@weighted_average.slip("""
    You divided by the number of tokens as well. The weights of a row already sum to 1: the weighted sum is
    the average.""")
def _divided_again(weights, values):
    return weights @ values / values.shape[0]


@weighted_average.slip("""
    Every token counts the same in your answer: this is the plain mean of the values. Let each row of weights
    decide how much of each token it takes.""")
def _plain_mean(weights, values):
    return values.mean(0).expand(weights.shape[0], -1)


@weighted_average.slip("""
    You took the value of the token with the largest weight. An average takes a share of every token, also of
    those with small weights.""")
def _largest_only(weights, values):
    return values[weights.argmax(-1)]


@weighted_average.slip("""
    You ran a softmax over the weights. They are weights already, and a second softmax makes them nearly
    equal.""")
def _softmax_twice(weights, values):
    return weights.softmax(-1) @ values


@weighted_average.slip("""
    You weighted the values but did not add them up: your answer still has the axis of the S tokens. Sum over
    it.""")
def _not_summed(weights, values):
    return weights[:, :, None] * values


@weighted_average.slip("""
    You summed over the D features and kept the S tokens. It is the tokens that are averaged: sum over them,
    keep the features.""")
def _features_summed(weights, values):
    return (weights[:, :, None] * values).sum(-1)


@weighted_average.slip("""
    Only the first row came back. A `return` inside a loop ends the function at once: collect all rows first.
    """)
def _first_row_only(weights, values):
    return weights[0] @ values


@weighted_average.slip("""
    Of each sum only the last term is left: every step wrote over the one before. Add up, with `+=`.""")
def _last_term_only(weights, values):
    return weights[:, -1:] * values[-1]


@weighted_average.slip("""
    The numbers are right and stand in one long row. `torch.stack(rows)` puts rows under each other, `cat` one
    behind the other.""")
def _one_long_row(weights, values):
    return (weights @ values).flatten()


@weighted_average.crash("""
    It is the other way round: the rows of `weights` mix the rows of `values`, so `weights` stands on the
    left.""")
def _values_on_the_left(weights, values):
    return values @ weights


@weighted_average.crash("""
    `weights` is (T, S) already, a row for each token that asks; turned round, its rows no longer sum to
    1.""")
def _weights_turned_round(weights, values):
    return weights.T @ values


# --- 2 -------------------------------------------------------------------------------------------------


def _far_apart(
    rng: np.random.Generator, T: int, S: int, rows: float = 0.0, one: float = 0.0
) -> dict[str, Any]:
    """Scores; every second row lies higher by ``rows``, and one entry of each row by ``one``."""
    scores = 2 * rng.standard_normal((T, S))
    scores[::2] += rows
    scores[np.arange(T), rng.integers(S, size=T)] += one
    return {"scores": scores}


def _softmax_reference(scores: np.ndarray) -> np.ndarray:
    """Each weight from the differences to it: 1 / (e^(s_1 - s_j) + ... + e^(s_S - s_j))."""
    with np.errstate(over="ignore"):  # 1 / infinity is the 0 that is meant
        return np.array([[1 / np.exp(row - score).sum() for score in row] for row in scores])


@chapter.implement(
    title="A softmax that cannot overflow",
    statement="""
        `scores` has the shape (T, S): each of T tokens has a score for each of S tokens. Make weights of
        them: in every row, exponentiate and divide by the sum of the row.

        Scores may be as large as 1000, or as small as -1000, and the exponential of 1000 is too large for any
        number that the machine has. Find a way around it that changes no weight. `softmax` and `log_softmax`
        are off limits: you are writing it.

        A sum over an axis loses that axis: of (T, S) it leaves (T). With `keepdim=True` the axis stays, one
        long: by (T, 1) a table (T, S) can be divided, each row by its own number. Gradients are checked too.
        """,
    hints=(
        "First forget about large scores: `scores.exp()`, divided by its sum along each row, which is "
        "`.sum(dim=-1, keepdim=True)`.",
        "Section 2 of the chapter: the same number subtracted from all scores of a row changes no weight.",
        "Which number makes the largest score of a row 0? `x.amax(dim=-1, keepdim=True)` finds the largest "
        "entry of each row.",
    ),
    axes="T S",
    inputs=_far_apart,
    sizes=((2, 3), (3, 2), (1, 4), (4, 3, 1000.0), (3, 5, -1000.0), (4, 2, 0.0, 1000.0), (5, 6, 0.0, 500.0)),
    # Near the largest exponent of float64: how much a row was shifted decides whether it overflows.
    probes=((6, 8, 0.0, 711.0), (2, 3, 0.0, 500.0), (2, 3, -400.0)),
    reference=_softmax_reference,
    forbidden=("softmax", "log_softmax", "softmin", "scaled_dot_product_attention"),
)
def stable_softmax(scores):
    """Make the scores (T, S) of each token into weights (T, S) that sum to 1 along each row."""
    # Only differences within a row count, so the largest score may be 0: then no exp exceeds 1.
    shifted = scores - scores.amax(dim=-1, keepdim=True)
    exponentials = shifted.exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


@stable_softmax.slip("""
    Right for small scores, but `exp` overflows for large ones, and infinity divided by infinity is NaN.
    Subtract something from each row first.""")
def _exp_overflows(scores):
    return scores.exp() / scores.exp().sum(-1, keepdim=True)


@stable_softmax.slip("""
    You subtracted the largest score of the whole table. A row that lies far below it has only zeros left, and
    0 / 0 is NaN: each row needs its own largest score.""")
def _one_maximum_for_all(scores):
    e = (scores - scores.max()).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You subtracted the mean of each row. When one score stands far above the others, it is far above their
    mean, too, and still overflows: subtract the largest.""")
def _mean_subtracted(scores):
    e = (scores - scores.mean(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You subtracted the smallest score of each row. It is the large ones that overflow: subtract the largest.
    """)
def _minimum_subtracted(scores):
    e = (scores - scores.amin(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    A number that is the same for all scores saves the large ones and ruins the small ones: `exp(-1000)` is 0,
    and 0 / 0 is NaN. Each row has its own largest score; subtract that.""")
def _constant_subtracted(scores):
    e = (scores - 1000).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You divided each row by its largest score. That changes the differences between the scores, and with them
    the weights; subtract it instead.""")
def _divided_by_the_maximum(scores):
    e = (scores / scores.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You cut large scores off at a bound. Above it all scores look alike, and a row of large ones gets equal
    weights: shift the whole row instead, which keeps its differences.""")
def _cut_off_above(scores):
    e = scores.clamp(max=60).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You cut scores off at both ends. Beyond the bounds all scores look alike, and their rows get equal
    weights: shift the whole row instead, which keeps its differences.""")
def _cut_off_at_both_ends(scores):
    e = scores.clamp(-60, 60).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You calculate in float64. That only moves the limit: there `exp` overflows above 709. Subtract something
    from each row instead.""")
def _wider_numbers(scores):
    e = scores.double().exp()
    return (e / e.sum(-1, keepdim=True)).to(scores.dtype)


@stable_softmax.slip("""
    You subtract the logarithm of the sum, and that is right on paper. But the sum overflows to infinity, or
    is 0, before you take its logarithm: shift each row by its maximum first.""")
def _logarithm_of_an_infinite_sum(scores):
    return (scores - scores.exp().sum(-1, keepdim=True).log()).exp()


@stable_softmax.slip("""
    You subtracted where the maxima are, not the maxima: `argmax`, and the second thing that `max(dim=-1)`
    gives, are positions. The largest entries are what `amax` gives.""")
def _positions_subtracted(scores):
    e = (scores - scores.argmax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You added the largest score, and so the large scores become twice as large. Subtract it.""")
def _maximum_added(scores):
    e = (scores + scores.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    The difference is the wrong way round, maximum minus score: the largest score gets the smallest weight.
    Write score minus maximum.""")
def _subtracted_from_the_maximum(scores):
    e = (scores.amax(-1, keepdim=True) - scores).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You subtracted the largest absolute value. In a row of scores near -1000 that is 1000, so they sink to
    -2000, all exponentials are 0, and 0 / 0 is NaN: subtract the largest score, with its sign.""")
def _largest_absolute_value(scores):
    e = (scores - scores.abs().amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You shift only rows with large scores. Rows of very low ones need it too: `exp(-1000)` is 0, and 0 / 0 is
    NaN. Shift every row, it changes no weight.""")
def _only_large_ones_shifted(scores):
    largest = scores.amax(-1, keepdim=True)
    e = (scores - largest.where(largest > 50, 0)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You subtracted the maximum of each column, so the scores of a row are shifted by different amounts, and
    its weights change. Each row needs one number, its own maximum: `amax(dim=-1, keepdim=True)`.""")
def _maximum_of_the_columns(scores):
    e = (scores - scores.amax(0)).exp()
    return e / e.sum(-1, keepdim=True)


@stable_softmax.slip("""
    You shifted each row by its own maximum, which is right, and then divided by the sum of the whole table.
    Each row has a sum of its own: `sum(dim=-1, keepdim=True)`.""")
def _shifted_rows_over_one_sum(scores):
    e = (scores - scores.amax(-1, keepdim=True)).exp()
    return e / e.sum()


@stable_softmax.slip("""
    You shifted each row, which is right, and then divided by the sums of the columns. It is the rows that
    should sum to 1: `sum(dim=-1, keepdim=True)`.""")
def _shifted_rows_over_column_sums(scores):
    e = (scores - scores.amax(-1, keepdim=True)).exp()
    return e / e.sum(0)


@stable_softmax.slip("""
    You put zeros where NaN was. Those weights are lost, not zero: do not let them overflow in the first
    place, and subtract something from each row.""")
def _zeros_for_nan(scores):
    return (scores.exp() / scores.exp().sum(-1, keepdim=True)).nan_to_num()


@stable_softmax.slip("""
    Your softmax runs down the columns: each column sums to 1. It is each row that should.""")
def _down_the_columns(scores):
    e = (scores - scores.amax(0)).exp()
    return e / e.sum(0)


@stable_softmax.slip("""
    You divided by the sum of the whole table. Each row has a sum of its own.""")
def _one_sum_for_all(scores):
    e = (scores - scores.max()).exp()
    return e / e.sum()


@stable_softmax.slip("""
    You divided the bare scores by their sum. Scores may be negative, so these are no weights: exponentiate
    first.""")
def _no_exp(scores):
    return scores / scores.sum(-1, keepdim=True)


@stable_softmax.slip("""
    The exponentials are there; what is missing is the division by the sum of each row.""")
def _no_division(scores):
    return (scores - scores.amax(-1, keepdim=True)).exp()


@stable_softmax.slip("""
    These are bare exponentials. Two things are missing: the division by the sum of each row, and before it a
    shift that keeps the exponentials of large scores finite.""")
def _bare_exp_of_scores(scores):
    return scores.exp()


@stable_softmax.slip("""
    You subtracted below the line and not above it: the same exponentials belong in both places.""")
def _numerator_not_shifted(scores):
    return scores.exp() / (scores - scores.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True)


@stable_softmax.slip("""
    These are the logarithms of the weights. Take `exp` of them, and you are there.""")
def _logarithms(scores):
    return scores - scores.logsumexp(-1, keepdim=True)


@stable_softmax.slip("""
    That is a sigmoid: each score is judged alone, and a row does not sum to 1.""")
def _each_alone(scores):
    return scores.sigmoid()


@stable_softmax.slip("""
    The weights are right, but for large scores their gradient is NaN: `exp` of a difference became
    infinite, and 1 / infinity is 0 only until you ask for its slope. Subtract the largest score of the
    row first.""")
def _infinite_differences(scores):
    return 1 / (scores[:, None, :] - scores[:, :, None]).exp().sum(-1)


@stable_softmax.crash("""
    A table (T, S) and one number for each row, (T), do not fit together: let the sum and the maximum keep
    their axis, `keepdim=True`.""")
def _axis_lost(scores):
    return scores.exp() / scores.exp().sum(-1)


@stable_softmax.crash("""
    `max(dim=-1)` gives two things, the largest entries and where they are. `amax` gives the entries alone.
    """)
def _largest_and_where(scores):
    return scores - scores.max(dim=-1, keepdim=True)


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The shape of the scores",
    statement="""
        Queries `q` have the shape (2, 4, 3, 8): two sentences, four heads, three query tokens, eight numbers
        a query. Keys `k` have the shape (2, 4, 5, 8): the same, with five key tokens.

        Before you run anything: what is the shape of `q @ k.transpose(-2, -1)`? Answer with a tuple of four
        whole numbers.
        """,
    hints=(
        "The first two axes are only carried along: sentences do not mix, heads do not mix.",
        "What is left is, for one head, three rows of eight numbers and five rows of eight numbers. "
        "Every row of the first meets every row of the second.",
        "Each meeting leaves one number: the eight are multiplied in pairs and summed. How many meetings are "
        "there, and what are their rows and columns?",
    ),
    expected=(2, 4, 3, 5),
    wrong={
        (2, 4, 5, 3): "You have keys in the rows. Rows belong to the queries: `q` stands on the left.",
        (2, 4, 3, 8): "That is the shape of the queries, and of the output at the very end. A score is one "
        "number for each pair of a query and a key.",
        (2, 4, 5, 8): "That is the shape of the keys. A score is one number for each pair of a query and a "
        "key; the eight features are summed away.",
        (2, 4, 8, 8): "You kept the features and summed over the tokens, as if the queries had been "
        "transposed. The product sums over the last axis of `q`: the eight features.",
        (2, 4, 3, 3): "You compared the queries with themselves. There are five keys, so each query gets "
        "five scores.",
        (2, 4, 5, 5): "You compared the keys with themselves. There are three queries, so there are three "
        "rows of scores.",
        (3, 5): "Right for one head of one sentence. There are two sentences with four heads each, and none "
        "of them is lost.",
        (2, 3, 5): "Right for one head. There are four of them, and each has scores of its own.",
        (2, 3, 5, 4): "The numbers are right, the places are not: heads stay the second axis, where they are "
        "in `q` and `k`.",
        (2, 4, 15): "Three times five scores is right. The product leaves them as a table of three rows and "
        "five columns.",
    },
    otherwise="Not that shape. The two leading axes are carried along; then comes one row for each query, "
    "with one score for each key.",
    form="a tuple of four whole numbers",
)
def score_shape():
    """Each of 2 sentences and 4 heads has its own table, 3 queries by 5 keys. The 8 features are summed."""
    q, k = torch.zeros(2, 4, 3, 8), torch.zeros(2, 4, 5, 8)
    return tuple((q @ k.transpose(-2, -1)).shape)  # (B, H, T, Dh) @ (B, H, Dh, S) -> (B, H, T, S)


# --- 4 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How far dot products spread",
    statement="""
        A query and a key have 64 entries each. All entries are independent random numbers with mean 0 and
        variance 1. Their dot product is a random number too, with mean 0.

        Before you run anything: what is its standard deviation?
        """,
    hints=(
        "The dot product is a sum of 64 terms, each a product of two independent numbers. "
        "What is the variance of one such product?",
        "One product has the variance 1 · 1 = 1. For independent terms, the variance of the sum is the sum "
        "of the variances.",
        "So the variance is known. The question asks for the standard deviation: take the root.",
    ),
    expected=8.0,
    wrong={
        64.0: "64 is the variance. The standard deviation is its square root.",
        1.0: "1 is the standard deviation of a single product. There are 64 of them in the sum, and "
        "variances add up.",
        4096.0: "That is 64 squared. Independent terms partly cancel: it is variances that add up, 64 "
        "times 1, and then comes the root.",
        0.125: "That is the factor which brings the spread back to 1, the 1/sqrt(d_k) of the formula. "
        "The question is what it has to bring back.",
        0.0: "0 is the mean. Single dot products lie on both sides of it; how far away, typically?",
        16.0: "Twice too much: the terms are 64, not the 128 entries of both vectors, and a product of two "
        "such entries has the variance 1.",
        128.0**0.5: "You counted the 128 entries of both vectors. The sum has 64 terms, each the product of "
        "one pair.",
        32.0: "That is half of 64. Add up 64 variances of 1, then take the square root.",
    },
    otherwise="Not that number. Add up the variances of the 64 terms, then take the square root.",
    form="one number",
)
def dot_product_spread():
    """64 independent terms of variance 1 add up to 64: dot products spread as `sqrt(d_k)`, here 8."""
    variance_of_one_term = 1.0  # E[q² k²] = E[q²] E[k²] = 1 · 1, and the mean is 0
    return (64 * variance_of_one_term) ** 0.5


# --- 5 -------------------------------------------------------------------------------------------------


def _qkv(rng: np.random.Generator, B: int, H: int, T: int, S: int, Dh: int) -> dict[str, np.ndarray]:
    return {name: rng.standard_normal((B, H, n, Dh)) for name, n in (("q", T), ("k", S), ("v", S))}


def _attend(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Equation (1) for one query, in sums that can be followed with a pencil."""
    scores = np.array([sum(a * b for a, b in zip(query, key, strict=True)) for key in keys])
    scores = scores / np.sqrt(len(query))
    shares = np.exp(scores - scores.max())  # the largest may be anywhere, and exp must not leave its range
    return sum(share / shares.sum() * value for share, value in zip(shares, values, strict=True))


def _quiet_or_loud(
    rng: np.random.Generator, B: int, H: int, T: int, S: int, Dh: int, loud: float = 1.0
) -> dict[str, np.ndarray]:
    """Queries ``loud`` times as long give scores as large, too large for a bare exp in float32."""
    qkv = _qkv(rng, B, H, T, S, Dh)
    return {**qkv, "q": loud * qkv["q"]}


def _scaled_dot_product_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    out = np.zeros_like(q)
    for b, h, t in np.ndindex(q.shape[:3]):
        out[b, h, t] = _attend(q[b, h, t], k[b, h], v[b, h])
    return out


@chapter.implement(
    title="Scaled dot-product attention",
    statement=r"""
        Write the formula of the chapter as a function:

        $$\mathrm{softmax}\left(\frac{q\,k^\top}{\sqrt{d_k}}\right) v$$

        `q` has the shape (B, H, T, Dh); `k` and `v` have the shape (B, H, S, Dh); $d_k$ is Dh. Return only
        the output, not the weights. It should work for any sizes, in float32 and float64, and gradients
        should flow through it. `F.scaled_dot_product_attention` is off limits: you are writing it.
        """,
    hints=(
        "Three lines: scores, weights, output. Print the shape of each and compare it with the chapter's.",
        "The scores need `k` with its last two axes swapped: `k.transpose(-2, -1)`. Divide them by the "
        "square root of Dh, which is `q.shape[-1]`.",
        "The weights of one query must sum to 1 over the keys, and keys are the last axis of the scores: "
        "`scores.softmax(dim=-1)`.",
        "The output is the weighted average of the first exercise, `weights @ v`.",
    ),
    axes="B H T Dh",
    inputs=_quiet_or_loud,
    sizes=(
        (1, 1, 2, 3, 4),
        (2, 3, 4, 5, 6),
        (1, 2, 3, 1, 5),
        (3, 2, 1, 4, 8),
        (1, 2, 3, 5, 4, 60.0),
        (2, 4, 5, 7, 3),
    ),
    reference=_scaled_dot_product_reference,
    forbidden=("scaled_dot_product_attention", "multi_head_attention_forward"),
)
def scaled_dot_product(q, k, v):
    """Attend with q (B, H, T, Dh) to k and v (B, H, S, Dh): an output (B, H, T, Dh)."""
    # One score for each pair of query and key: (B, H, T, Dh) @ (B, H, Dh, S) -> (B, H, T, S).
    scores = q @ k.transpose(-2, -1)
    # A sum of Dh products spreads as sqrt(Dh); dividing keeps the softmax from saturating.
    scores = scores / q.shape[-1] ** 0.5
    # Each query shares itself out over the keys, the last axis: rows sum to 1.
    weights = scores.softmax(dim=-1)
    return weights @ v


@scaled_dot_product.slip("""
    You left out the division by sqrt(Dh). The scores spread too far, and the softmax puts nearly all its
    weight on one key.""")
def _unscaled(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


@scaled_dot_product.slip("""
    You divided by Dh, not by its square root: the weights come out too flat.""")
def _divided_by_width(q, k, v):
    return (q @ k.mT / q.shape[-1]).softmax(-1) @ v


@scaled_dot_product.slip("""
    You multiplied by sqrt(Dh) where the formula divides: the weights come out far too sharp.""")
def _multiplied(q, k, v):
    return (q @ k.mT * q.shape[-1] ** 0.5).softmax(-1) @ v


@scaled_dot_product.slip("""
    You divided after the softmax. That shrinks the output but leaves the weights as sharp as before: divide
    the scores, then take the softmax.""")
def _divided_too_late(q, k, v):
    return (q @ k.mT).softmax(-1) / q.shape[-1] ** 0.5 @ v


@scaled_dot_product.slip("""
    Your softmax runs over the queries: each key shares itself out. It is each query that shares itself out
    over the keys, the last axis of the scores.""")
def _softmax_over_queries(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v


@scaled_dot_product.slip("""
    Your softmax runs over the heads (dim=1), so heads compete with each other. It should run over the keys,
    the last axis.""")
def _softmax_over_heads(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(1) @ v


@scaled_dot_product.slip("""
    Your softmax runs over all pairs of a query and a key at once. Each query has a softmax of its own: each
    row should sum to 1.""")
def _softmax_over_all_pairs(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.flatten(-2).softmax(-1).view_as(scores) @ v


@scaled_dot_product.slip("""
    You divided by the square root of the number of keys. What spreads the scores is the width of a head, Dh,
    the last axis of q.""")
def _scaled_by_keys(q, k, v):
    return (q @ k.mT / k.shape[-2] ** 0.5).softmax(-1) @ v


@scaled_dot_product.slip("""
    You divided by the square root of the number of queries. What spreads the scores is the width of a head,
    Dh, the last axis of q.""")
def _scaled_by_queries(q, k, v):
    return (q @ k.mT / q.shape[-2] ** 0.5).softmax(-1) @ v


@scaled_dot_product.slip("""
    You divided by the square root of H times Dh, the width of the whole model. Each head sums over its own Dh
    numbers only.""")
def _scaled_by_model_width(q, k, v):
    return (q @ k.mT / (q.shape[1] * q.shape[-1]) ** 0.5).softmax(-1) @ v


@scaled_dot_product.slip("""
    You divided by the square root of the number of heads, axis 1. What spreads the scores is the width of a
    head, Dh, the last axis of q.""")
def _scaled_by_heads_alone(q, k, v):
    return (q @ k.mT / q.shape[1] ** 0.5).softmax(-1) @ v


@scaled_dot_product.slip("""
    Two things at once: the division by sqrt(Dh) is missing, and your softmax runs over the queries, not over
    the keys.""")
def _unscaled_over_queries(q, k, v):
    return (q @ k.mT).softmax(-2) @ v


@scaled_dot_product.slip("""
    You made queries and keys equally long before you compared them. The formula takes the dot product as it
    is: a longer query asks more sharply.""")
def _directions_compared(q, k, v):
    q, k = (t / t.norm(dim=-1, keepdim=True) for t in (q, k))
    return (q @ k.mT).softmax(-1) @ v


@scaled_dot_product.slip("""
    There is no softmax: your weights are the bare scores. They may be negative and do not sum to 1.""")
def _no_softmax(q, k, v):
    return q @ k.mT / q.shape[-1] ** 0.5 @ v


@scaled_dot_product.slip("""
    You made the scores into weights by a sigmoid. Then each key is judged alone and rows do not sum to 1;
    the softmax makes keys compete.""")
def _sigmoid(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).sigmoid() @ v


@scaled_dot_product.slip("""
    You returned the weights. One step is left: with them, average the values.""")
def _weights_returned(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


@scaled_dot_product.slip("""
    Keys and values are swapped: you compared the queries with the values and averaged the keys.""")
def _keys_and_values_swapped(q, k, v):
    return (q @ v.mT / q.shape[-1] ** 0.5).softmax(-1) @ k


@scaled_dot_product.slip("""
    You averaged the keys. The keys only say where to look; what is taken from there are the values.""")
def _keys_averaged(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ k


@scaled_dot_product.slip("""
    exp overflowed: subtract the largest score first, or use `softmax`.""")
def _bare_exp(q, k, v):
    e = (q @ k.mT / q.shape[-1] ** 0.5).exp()
    return e / e.sum(-1, keepdim=True) @ v


_ROWS_MEET_ROWS = """
    Rows of q meet rows of k: swap the last two axes of k, `k.transpose(-2, -1)` (`.T` turns all axes round).
    """


@scaled_dot_product.crash(_ROWS_MEET_ROWS)
def _keys_not_swapped(q, k, *_):
    return q @ k


@scaled_dot_product.crash(_ROWS_MEET_ROWS)
def _keys_turned_round(q, k, *_):
    return q @ k.T


@scaled_dot_product.crash("""
    `torch.sqrt` wants a tensor, and a width is a plain number: write `q.shape[-1] ** 0.5`.""")
def _root_of_a_number(q, k, v):
    return q @ k.mT / torch.sqrt(q.shape[-1])


@scaled_dot_product.crash("""
    The sums have lost their axis: `sum(dim=-1, keepdim=True)` has the shape (B, H, T, 1), and divides
    each row of (B, H, T, S) by its own sum.""")
def _sums_without_axis(q, k, v):
    e = (q @ k.mT).exp()
    return e / e.sum(-1)


# --- 6 -------------------------------------------------------------------------------------------------


@chapter.measure(
    title="What scaling does to the weights",
    statement=r"""
        Measure what the division by $\sqrt{d_k}$ is for. Draw at least a thousand random queries and, for
        each, 32 random keys, all 64 numbers wide, with independent entries of mean 0 and variance 1
        (`torch.randn`). For each query take the softmax of its 32 scores, and the entropy of these weights in
        nats:

        $$-\sum_{s=1}^{32} w_s \ln w_s$$

        It is 0 when one key has all the weight, and $\ln 32 \approx 3.47$ when all keys share equally. Report
        the mean over the queries, first for the bare scores, then for the scores divided by $\sqrt{d_k}$.
        """,
    hints=(
        "Make `q` of the shape (1000, 64) and `k` of the shape (1000, 32, 64). The scores of query n are "
        "`k[n] @ q[n]`, 32 numbers; all at once they are `(k * q[:, None]).sum(-1)`.",
        "Where a weight is so small that it is stored as 0, its logarithm is minus infinity and the product "
        "NaN. `scores.log_softmax(-1)` gives the logarithms without this accident.",
        "The entropy sums over the 32 keys; then comes the mean over the queries: "
        "`-(weights * logs).sum(-1).mean()`. Do it once for `scores` and once for `scores / 64**0.5`.",
    ),
    ranges={"without scaling": (0.42, 0.58), "with scaling": (2.96, 3.07)},
    slips={
        "The two numbers are the other way round: first without scaling, then with it.": (
            (2.96, 3.07),
            (0.42, 0.58),
        ),
        "These are bits: you took the logarithm to the base 2. Nats take the natural one, `torch.log`.": (
            (0.61, 0.84),
            (4.27, 4.43),
        ),
        "These come from the logarithm to the base 10. Nats take the natural one, `torch.log`.": (
            (0.18, 0.252),
            (1.28, 1.34),
        ),
        "The second number is too close to ln 32: you divided by d_k, not by its square root.": (
            (0.42, 0.58),
            (3.44, 3.467),
        ),
        "An entropy is not negative: the sum of w ln w is, so there is a minus sign in front of it.": (
            (-0.58, -0.42),
            (-3.07, -2.96),
        ),
        "You took the mean over the keys, too. Sum over the 32 keys, then take the mean over the queries.": (
            (0.0131, 0.0182),
            (0.0925, 0.096),
        ),
        "You report e to the entropy, roughly the number of keys that share the weight. Report the entropy "
        "itself.": (
            (1.4, 2.3),
            (18.5, 22.5),
        ),
        "Both numbers are the entropy of scaled scores. For the first one, leave out the division.": (
            (2.96, 3.07),
            (2.96, 3.07),
        ),
        "Both numbers are the entropy of bare scores. For the second one, divide by the root of 64.": (
            (0.42, 0.58),
            (0.42, 0.58),
        ),
    },
    at_most=(
        3.48,
        "More than ln 32 = 3.47 is impossible for 32 keys: does your softmax, or your sum, run over the "
        "queries?",
    ),
    otherwise="Not in the range that a thousand queries give. Check: 64 entries of variance 1, 32 keys, the "
    "softmax over the keys, the sum over the keys of -w ln w, the mean over the queries.",
)
def head_entropy():
    """Without scaling about 0.5 nats, as if a query saw 1.6 keys; with it 3.0, as if it saw 20 of the 32."""
    random = torch.Generator().manual_seed(0)
    q = torch.randn(4000, 1, 64, generator=random)  # one query each ...
    k = torch.randn(4000, 32, 64, generator=random)  # ... with 32 keys of its own
    scores = (q * k).sum(-1)  # (4000, 32)

    def entropy(scores):
        logs = scores.log_softmax(-1)  # not softmax().log(): a weight may underflow to 0
        return -(logs.exp() * logs).sum(-1).mean().item()

    return entropy(scores), entropy(scores / 64**0.5)


# --- 7 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Two words change places",
    statement="""
        Three words ask (queries), five different words of another sentence answer (keys and values), without
        a mask and without positions. Two experiments change places in the sentence that answers:

        1. Its first and its last word change places, each with its key and its value.
        2. Only their two keys change places; all values stay where they were.

        Before you run anything: how do the three outputs compare with those of the untouched sentence?
        """,
    choices={
        "a": "As before in both experiments.",
        "b": "As before in the first, different in the second.",
        "c": "Different in the first, as before in the second.",
        "d": "Different in both.",
    },
    hints=(
        "Take one word that asks. Its query is what it was. Write its output as a sum of five terms, each a "
        "weight times a value: what becomes of the five terms?",
        "In the first experiment the same five terms are added up in another order.",
        "In the second, the weight that the first key earned now meets the value of the last word. Are these "
        "the terms from before?",
    ),
    expected="b",
    wrong={
        "a": "Right for the first. In the second, a weight no longer meets the value that belongs to its "
        "key: the words have exchanged how strongly they count.",
        "c": "It is the other way round. A key and its value that move together stay a pair, and a sum does "
        "not care where the pair stands; keys alone do not take their values along.",
        "d": "Right for the second. In the first each key keeps its value, so the same five terms are added "
        "up, in another order. What does a sum make of the order of its terms?",
    },
)
def two_words_change_places():
    """An output is a sum of five terms, weight times value, and a sum does not care for their order: keys and
    values are a bag of pairs. But it is a bag of pairs. When keys move without their values, each weight
    meets another value, and other terms are added up.
    """
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, 8, generator=random, dtype=torch.float64) for n in (3, 5, 5))
    places = [4, 1, 2, 3, 0]
    pairs = ((k, v), (k[places], v[places]), (k[places], v))  # untouched, both moved, only keys moved
    before, both, keys = ((q @ key.T / 8**0.5).softmax(dim=-1) @ value for key, value in pairs)
    if torch.allclose(both, before):
        return "a" if torch.allclose(keys, before) else "b"
    return "c" if torch.allclose(keys, before) else "d"


# --- 8 -------------------------------------------------------------------------------------------------


def _masked_inputs(
    rng: np.random.Generator, B: int, H: int, T: int, S: int, Dh: int, per: str, blind: bool, far: float = 0.0
) -> dict[str, np.ndarray]:
    """A mask with the axes ``per``; every row sees something and misses something, or the first is blind.

    With one query a head, the scores of the visible keys may lie lower by ``far``.
    """
    length = {"B": B, "H": H, "T": T, "S": S, "1": 1}
    mask = rng.random([length[axis] for axis in per]) < 0.5
    rows = mask.reshape(-1, S)
    rows[:, 0] = rng.random(len(rows)) < 0.5
    rows[:, 1] = ~rows[:, 0]
    if blind:
        rows[0] = False
    qkv = _qkv(rng, B, H, T, S, Dh)
    if far:
        q = qkv["q"]
        along = q * Dh**0.5 / (q * q).sum(-1, keepdims=True)  # a key whose score is 1
        qkv["k"] = qkv["k"] - far * along * mask.swapaxes(-2, -1)
    return {**qkv, "mask": mask}


def _masked_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out, seen = np.zeros_like(q), np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))
    for b, h, t in np.ndindex(q.shape[:3]):
        if seen[b, h, t].any():  # the keys that may not be seen are simply not there
            out[b, h, t] = _attend(q[b, h, t], k[b, h, seen[b, h, t]], v[b, h, seen[b, h, t]])
    return out


@chapter.implement(
    title="Attention with a mask",
    statement="""
        Now some keys may not be seen: padding, or words that come later. `mask` is boolean, **True = may
        attend**, and broadcasts to the scores (B, H, T, S). A key that may not be seen must get the weight 0,
        and the weights of the others must still sum to 1.

        One case needs care: a query that may see nothing at all. Its output should be zeros, not NaN, and its
        gradient should be finite. `F.scaled_dot_product_attention` is off limits here too.
        """,
    hints=(
        "Start from your answer to the exercise before. The mask acts between the scores and the softmax.",
        "A softmax gives the weight 0 exactly where the score is minus infinity: "
        '`scores.masked_fill(~mask, float("-inf"))`. The `~` turns "may attend" into "may not".',
        "A row of nothing but minus infinity comes out of the softmax as NaN. What may not be seen has "
        "the weight 0 in any case: set it, after the softmax, by a second `masked_fill`.",
    ),
    axes="B H T Dh",
    inputs=_masked_inputs,
    sizes=(
        (1, 1, 2, 3, 4, "TS", False),
        (1, 2, 3, 4, 2, "TS", True),
        (2, 3, 4, 5, 6, "B11S", False),
        (3, 2, 1, 4, 5, "B11S", True),
        (2, 4, 5, 3, 7, "B1TS", True),
        (2, 3, 4, 6, 5, "BHTS", True),
        (2, 1, 1, 4, 3, "B11S", False, 60.0),  # a finite number for hidden scores must lie far below
    ),
    # So low that exp gives 0 for all that may be seen: who masks after the exp divides by a sum that is 0.
    probes=((2, 2, 1, 4, 3, "B11S", True, 1000.0),),
    reference=_masked_reference,
    forbidden=("scaled_dot_product_attention", "multi_head_attention_forward"),
)
def masked_attention(q, k, v, mask):
    """Attend only where mask is True; a query that may see nothing gets zeros: an output (B, H, T, Dh)."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    # exp(-inf) = 0: what may not be seen takes no part in the softmax, and the others share the 1.
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)
    # A row of nothing but -inf came out as 0 / 0 = NaN. Its weights are 0 as well.
    weights = weights.masked_fill(~mask, 0.0)
    return weights @ v


def _scores(q, k):
    return q @ k.mT / q.shape[-1] ** 0.5


@masked_attention.slip("""
    Your mask works the wrong way round: you hid what may be seen. True means "may attend", so fill where the
    mask is False (`~mask`).""")
def _polarity_flipped(q, k, v, mask):
    return _scores(q, k).masked_fill(mask, -torch.inf).softmax(-1).masked_fill(mask, 0.0) @ v


@masked_attention.slip("""
    You set hidden scores to 0. But exp(0) is 1, so a score of 0 still gets weight; only minus infinity gets
    none.""")
def _scores_times_mask(q, k, v, mask):
    return (_scores(q, k) * mask).softmax(-1) @ v


@masked_attention.slip("""
    You zeroed hidden weights after the softmax, and what they held is lost: the rows no longer sum to 1. Mask
    the scores, before the softmax.""")
def _masked_too_late(q, k, v, mask):
    return (_scores(q, k).softmax(-1) * mask) @ v


@masked_attention.slip("""
    A query that may see nothing gives NaN: its row of scores is all minus infinity, and the softmax divides 0
    by 0. Set those weights to 0.""")
def _nan_for_the_blind(q, k, v, mask):
    return _scores(q, k).masked_fill(~mask, -torch.inf).softmax(-1) @ v


@masked_attention.slip("""
    A query that may see nothing gives NaN: its weights sum to 0, and you divide by that sum.""")
def _divided_by_nothing(q, k, v, mask):
    weights = _scores(q, k).softmax(-1) * mask
    return weights / weights.sum(-1, keepdim=True) @ v


@masked_attention.slip("""
    A query that may see nothing gets the plain average of everything: in a row of equal scores, however low,
    the softmax shares evenly. It should get zeros.""")
def _average_for_the_blind(q, k, v, mask):
    return _scores(q, k).masked_fill(~mask, -1e9).softmax(-1) @ v


@masked_attention.slip("""
    A query that may see nothing sees everything: you lowered all its scores by the same large number, and
    only differences count. It should get zeros.""")
def _all_lowered_alike(q, k, v, mask):
    return (_scores(q, k) + ~mask * -1e9).softmax(-1) @ v


@masked_attention.slip("""
    Where the mask is True you multiplied minus infinity by 0, and that is NaN. Fill the hidden scores instead
    of adding to them: `masked_fill`.""")
def _zero_times_infinity(q, k, v, mask):
    return (_scores(q, k) + ~mask * -torch.inf).softmax(-1) @ v


@masked_attention.slip("""
    You added the mask to the scores, as 1 and 0. A visible key is then favoured a little, and nothing is
    hidden; what is hidden needs minus infinity.""")
def _mask_added(q, k, v, mask):
    return (_scores(q, k) + mask).softmax(-1) @ v


@masked_attention.slip("""
    Your output is as if there were no mask. If you called `scores.masked_fill(...)`: it returns a new tensor,
    so write `scores = scores.masked_fill(...)`.""")
def _mask_ignored(q, k, v, mask):
    return _scores(q, k).softmax(-1) @ v


@masked_attention.slip("""
    The mask is right, but the division by sqrt(Dh) got lost on the way.""")
def _masked_unscaled(q, k, v, mask):
    return (q @ k.mT).masked_fill(~mask, -torch.inf).softmax(-1).masked_fill(~mask, 0.0) @ v


@masked_attention.slip("""
    You set hidden scores to 0 and hidden weights to 0. In between, a score of 0 took its share in the
    softmax, and that share is lost: give hidden keys the score minus infinity.""")
def _scores_and_weights_times_mask(q, k, v, mask):
    return ((_scores(q, k) * mask).softmax(-1) * mask) @ v


@masked_attention.slip("""
    Your softmax runs over the queries. It is each query that shares itself out over the keys it may see: the
    last axis.""")
def _masked_softmax_over_queries(q, k, v, mask):
    return _scores(q, k).masked_fill(~mask, -torch.inf).softmax(-2).nan_to_num() @ v


@masked_attention.slip("""
    The values are right, but the gradient of a query that may see nothing is NaN: NaN arises in its softmax,
    and setting the result to 0 afterwards does not keep it out of the backward pass. `masked_fill` on the
    scores does, adding minus infinity does not.""")
def _nan_in_the_gradient(q, k, v, mask):
    hidden = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    return (_scores(q, k) + hidden).softmax(-1).masked_fill(~mask, 0.0) @ v


@masked_attention.slip("""
    The output is right, but a gradient is NaN: the NaN was replaced only after it had met `v`. Set the
    weights to 0, before `weights @ v`.""")
def _nan_replaced_too_late(q, k, v, mask):
    return _nan_for_the_blind(q, k, v, mask).nan_to_num()


masked_attention.crash(_ROWS_MEET_ROWS)(_keys_not_swapped)
masked_attention.crash(_ROWS_MEET_ROWS)(_keys_turned_round)


@masked_attention.crash("""
    `not` asks for one truth value of the whole mask. `~mask` turns each entry.""")
def _not_mask(q, k, v, mask):
    return _scores(q, k).masked_fill(not mask, -torch.inf)


@masked_attention.crash("""
    The mask may be smaller than the scores. `masked_fill` stretches it to fit, square brackets do not.""")
def _mask_in_square_brackets(q, k, v, mask):
    return _scores(q, k)[~mask]


# --- 9 -------------------------------------------------------------------------------------------------


def _causal_inputs(rng: np.random.Generator, B: int, T: int, D: int) -> dict[str, Any]:
    weights = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        weights[f"{name}.weight"] = 2 * rng.standard_normal((D, D)) * D**-0.5
        weights[f"{name}.bias"] = rng.standard_normal(D)
    return {"d_model": D, **weights, "x": rng.standard_normal((B, T, D))}


def _causal_reference(d_model: int, x: np.ndarray, **weights: np.ndarray) -> np.ndarray:
    q, k, v = (
        x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"] for name in ("q_proj", "k_proj", "v_proj")
    )
    out = np.zeros_like(x)
    for b, t in np.ndindex(x.shape[:2]):
        out[b, t] = _attend(q[b, t], k[b, : t + 1], v[b, : t + 1])  # itself and the past
    return out


class _Broken:  # so that both classes of this name can be told apart
    class CausalAttention(nn.Module):
        """Attention in which each word sees itself and the words before it: x (B, T, D) to (B, T, D)."""

        def __init__(self, d_model):
            super().__init__()
            self.q_proj = nn.Linear(d_model, d_model)
            self.k_proj = nn.Linear(d_model, d_model)
            self.v_proj = nn.Linear(d_model, d_model)

        def forward(self, x):
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
            T = x.shape[1]
            may_attend = torch.ones(T, T, dtype=torch.bool, device=x.device).tril(diagonal=1)
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            weights = scores.masked_fill(~may_attend, float("-inf")).softmax(dim=-1)
            return weights @ v


@chapter.debug_module(
    broken=_Broken.CausalAttention,
    title="Find the leak",
    statement="""
        This module is causal attention with one head: each word should see itself and the words before it.
        One line is wrong. The symptom: a model built on it learns to predict the next word almost without
        error, and when it has to write by itself, where no next word is there yet, it writes nonsense.

        A test shows more. Change the last word of a sentence, and the output of the word before it changes
        as well; earlier outputs do not. A sentence of one word comes out right.

        Find the line, repair it, and hand the class in.
        """,
    hints=(
        "The output of a word changes with the word after it: which line decides who may see whom?",
        "Print `may_attend` for T = 4. Row t belongs to word t; which entries of it should be True?",
        "`tril` keeps what lies on a diagonal and below it. Print `torch.ones(4, 4).tril(diagonal=d)` for "
        "d = -1, 0 and 1: in which of the three does each word see itself and the past, and nothing else?",
    ),
    axes="B T D",
    settings=("d_model",),
    forward=("x",),
    inputs=_causal_inputs,
    sizes=((2, 5, 3), (3, 4, 2), (1, 2, 3), (4, 2, 5), (2, 1, 3), (2, 6, 4)),
    reference=_causal_reference,
)
class CausalAttention(nn.Module):
    """Attention in which each word sees itself and the words before it: x (B, T, D) to (B, T, D)."""

    def __init__(self, d_model):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)

    def forward(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        T = x.shape[1]
        # True on and below the main diagonal: word t sees the words 0 to t. The broken line kept one diagonal
        # more, so each word saw the next one: the answer, when the next word is to be predicted.
        may_attend = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~may_attend, float("-inf")).softmax(dim=-1)
        return weights @ v


class _Causal(CausalAttention.solve):
    """The solution, but for the attention itself, which each slip spoils."""

    def forward(self, x):
        return self.attend(self.q_proj(x), self.k_proj(x), self.v_proj(x))


def _seen_where(q, k, v, may_attend):
    return _scores(q, k).masked_fill(~may_attend, -torch.inf).softmax(-1) @ v


def _square(q):
    return torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool)


@CausalAttention.slip("""
    The leak is still there: your module gives what the broken one gave. How many words may the first word
    see, and how many does it?""")
class _StillLeaking(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q).tril(1))


@CausalAttention.slip("""
    One diagonal too many is gone: no word sees itself any more, and the first one, which sees nothing at all,
    gives NaN. Each word sees itself and the past.""")
class _ItselfHidden(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q).tril(-1))


@CausalAttention.slip("""
    You turned the triangle over: each word now sees itself and the future. Rows are the words that ask, so
    the past of a word lies left of the main diagonal, below it.""")
class _FutureOnly(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q).triu())


@CausalAttention.slip("""
    Now nothing is hidden at all: every word sees the whole sentence. The mask is needed, with one diagonal
    less.""")
class _NothingHidden(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q))


@CausalAttention.slip("""
    Each word now sees what comes after it and nothing else; the last one, which sees nothing at all,
    gives NaN. Keep the lower triangle, and hide what is not in it: `masked_fill` fills where its mask is
    True.""")
class _AllowedHidden(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, ~_square(q).tril())


@CausalAttention.slip("""
    You took the `~` away, and now what may be seen is hidden. That line was right; look at how
    `may_attend` is made.""")
class _TildeRemoved(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, ~_square(q).tril(1))


@CausalAttention.slip("""
    Each word now sees itself and nothing else. The past should be seen too: all of the triangle, not the
    diagonal alone.""")
class _ItselfOnly(_Causal):
    def attend(self, q, k, v):
        return v


@CausalAttention.slip("""
    You moved the triangle the wrong way: each word now sees two words ahead.""")
class _TwoAhead(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q).tril(2))


@CausalAttention.slip("""
    The triangle is right, but the softmax now runs over the queries. It is each query that shares itself out
    over the keys, the last axis; that line was right.""")
class _LeakRepairedAxisMoved(_Causal):
    def attend(self, q, k, v):
        return _scores(q, k).masked_fill(~_square(q).tril(), -torch.inf).softmax(-2) @ v


@CausalAttention.slip("""
    The triangle is right, but hidden scores became 0, not minus infinity, and exp(0) is 1: a weight.""")
class _HiddenScoresZero(_Causal):
    def attend(self, q, k, v):
        return (_scores(q, k) * _square(q).tril()).softmax(-1) @ v


@CausalAttention.slip("""
    The triangle is right, but you use it after the softmax: what hidden words took is lost, and the rows no
    longer sum to 1. The line that hid their scores was right.""")
class _HiddenAfterTheSoftmax(_Causal):
    def attend(self, q, k, v):
        return (_scores(q, k).softmax(-1) * _square(q).tril()) @ v


@CausalAttention.slip("""
    The division was right, by sqrt(Dh), and you took the root away. The leak is still there: look at who may
    see whom.""")
class _LeakingWithoutRoot(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q / q.shape[-1] ** 0.5, k, v, _square(q).tril(1))


@CausalAttention.slip("""
    The division by sqrt(Dh) was right, and you took it away. The leak is still there: look at who may see
    whom.""")
class _LeakingUnscaled(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q * q.shape[-1] ** 0.5, k, v, _square(q).tril(1))


_LEAK = " The leak is still there: look at who may see whom."


@CausalAttention.slip(
    """
    Hidden scores became 0, and exp(0) is 1, a weight: minus infinity was right."""
    + _LEAK
)
class _LeakingHiddenScoresZero(_Causal):
    def attend(self, q, k, v):
        return (_scores(q, k) * _square(q).tril(1)).softmax(-1) @ v


@CausalAttention.slip(
    """
    Hidden scores became -10. That leaves them a little weight; minus infinity was right."""
    + _LEAK
)
class _LeakingHiddenScoresLow(_Causal):
    def attend(self, q, k, v):
        return _scores(q, k).masked_fill(~_square(q).tril(1), -10.0).softmax(-1) @ v


@CausalAttention.slip(
    """
    Hidden scores became plus infinity, which asks for all the weight and gives NaN: minus infinity was
    right."""
    + _LEAK
)
class _LeakingHiddenScoresInfinite(_Causal):
    def attend(self, q, k, v):
        return _scores(q, k).masked_fill(~_square(q).tril(1), torch.inf).softmax(-1) @ v


@CausalAttention.slip(
    """
    You moved the softmax to the queries. It was right over the keys, the last axis."""
    + _LEAK
)
class _LeakingAxisMoved(_Causal):
    def attend(self, q, k, v):
        return _scores(q, k).masked_fill(~_square(q).tril(1), -torch.inf).softmax(-2) @ v


@CausalAttention.slip(
    """
    You mask after the softmax, and what hidden words took is lost. The scores were the right place, before
    the softmax."""
    + _LEAK
)
class _LeakingHiddenAfterTheSoftmax(_Causal):
    def attend(self, q, k, v):
        return (_scores(q, k).softmax(-1) * _square(q).tril(1)) @ v


@CausalAttention.slip(
    """
    You turned queries and keys round. Rows belong to the queries, so `q` was right on the left."""
    + _LEAK
)
class _LeakingKeysAsk(_Causal):
    def attend(self, q, k, v):
        return _seen_where(k, q, v, _square(q).tril(1))


@CausalAttention.slip(
    """
    You divide by the square root of the number of words. The width, Dh, was right."""
    + _LEAK
)
class _LeakingScaledByWords(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q * (q.shape[-1] / q.shape[-2]) ** 0.5, k, v, _square(q).tril(1))


@CausalAttention.slip(
    """
    You turned the weights over before they met the values. Their rows belong to the words that ask, and that
    was right."""
    + _LEAK
)
class _LeakingWeightsTurned(_Causal):
    def attend(self, q, k, v):
        return _scores(q, k).masked_fill(~_square(q).tril(1), -torch.inf).softmax(-1).mT @ v


@CausalAttention.slip("""
    The leak is gone. But the scores were divided by sqrt(Dh), which was right, and now the root is
    missing.""")
class _RepairedWithoutRoot(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q / q.shape[-1] ** 0.5, k, v, _square(q).tril())


@CausalAttention.slip("""
    The leak is gone. But the division by sqrt(Dh), which was right, has gone with it.""")
class _RepairedUnscaled(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q * q.shape[-1] ** 0.5, k, v, _square(q).tril())


@CausalAttention.crash("""
    T became the number of sentences, axis 0 of `x`, and the mask does not fit the scores. T was right: it is
    the number of words, `x.shape[1]`. Look at the line that makes `may_attend` of it.""")
class _CountsSentences(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q.transpose(0, 1)).tril())


@CausalAttention.crash("""
    T became the width, the last axis of `x`, and the mask does not fit the scores. T was right: it is the
    number of words, `x.shape[1]`. Look at the line that makes `may_attend` of it.""")
class _CountsFeatures(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q.mT).tril())


@CausalAttention.crash("""
    You made T one smaller, and the mask no longer fits the scores, which have a row and a column for each
    word. T was right, `x.shape[1]`. Look at the line that makes `may_attend` of it.""")
class _CountsOneLess(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(q[:, 1:]).tril())


@CausalAttention.crash("""
    You made T one larger, and the mask no longer fits the scores, which have a row and a column for each
    word. T was right, `x.shape[1]`. Look at the line that makes `may_attend` of it.""")
class _CountsOneMore(_Causal):
    def attend(self, q, k, v):
        return _seen_where(q, k, v, _square(torch.cat([q, q[:, :1]], dim=1)).tril())


# --- 10 ------------------------------------------------------------------------------------------------


def _into_heads_inputs(rng: np.random.Generator, B: int, T: int, H: int, Dh: int) -> dict[str, Any]:
    return {"x": rng.standard_normal((B, T, H * Dh)), "n_heads": H}


@chapter.implement(
    title="Split into heads",
    statement="""
        After a projection, `x` has the shape (B, T, D), and its D features are the heads side by side: the
        first Dh belong to head 0, the next Dh to head 1, and so on, with Dh = D / n_heads. Attention wants
        the heads as an axis of their own, in front of the tokens: (B, H, T, Dh).

        Move the numbers there. Nothing is computed, and every number keeps its token.
        """,
    hints=(
        "Two steps, in this order: first cut the last axis in two, then move one axis.",
        "Cutting D into (H, Dh) gives (B, T, H, Dh): `x.unflatten(-1, (n_heads, -1))`. H comes before Dh, "
        "for the features of one head lie together.",
        "Now H stands behind T and should stand before it: `transpose(1, 2)` swaps these two axes. A "
        "`reshape` would give the same shape and mix the tokens.",
    ),
    axes="B H T Dh",
    inputs=_into_heads_inputs,
    sizes=((1, 3, 2, 4), (2, 3, 4, 5), (2, 5, 1, 4), (3, 1, 2, 4), (1, 4, 3, 1), (2, 6, 3, 4)),
    reference=lambda x, n_heads: np.stack(np.split(x, n_heads, axis=-1), axis=1),
)
def into_heads(x, n_heads):
    """Give each head its own axis: x (B, T, D) becomes (B, H, T, Dh)."""
    # The features of one head lie together, so D is cut into H pieces of Dh: (B, T, H, Dh).
    x = x.unflatten(-1, (n_heads, -1))
    # Swap tokens and heads: (B, H, T, Dh). A reshape would cut the same memory at other places.
    return x.transpose(1, 2)


@into_heads.slip("""
    The shape is right, the numbers are not: a bare reshape reads memory in order and mixes the tokens. Cut
    the last axis first, then swap two axes.""")
def _bare_reshape(x, n_heads):
    B, T, D = x.shape
    return x.reshape(B, n_heads, T, D // n_heads)


@into_heads.slip("""
    Your heads are interleaved: head 0 got the features 0, H, 2H, ... The features of one head lie together,
    so cut D into (H, Dh), in this order.""")
def _interleaved(x, n_heads):
    return x.unflatten(-1, (-1, n_heads)).permute(0, 3, 1, 2)


@into_heads.slip("""
    The cut is right, and the heads still stand behind the tokens: (B, T, H, Dh). Swap these two axes.""")
def _not_moved(x, n_heads):
    return x.unflatten(-1, (n_heads, -1))


@into_heads.slip("""
    You put the heads in front of the batch: (H, B, T, Dh). Stack them along axis 1, behind the batch.""")
def _heads_first(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1))


@into_heads.slip("""
    Tokens and features of each head are swapped: (B, H, Dh, T). Each row should be one token.""")
def _tokens_last(x, n_heads):
    return x.unflatten(-1, (n_heads, -1)).permute(0, 2, 3, 1)


@into_heads.slip("""
    You swapped axes first and reshaped then: the reshape reads along the tokens and mixes them with features.
    First cut the last axis, then swap.""")
def _transposed_then_reshaped(x, n_heads):
    B, T, D = x.shape
    return x.transpose(1, 2).reshape(B, n_heads, T, D // n_heads)


@into_heads.slip("""
    You made heads of n_heads features each. `n_heads` is how many heads there are; each is D / n_heads
    wide.""")
def _count_taken_for_width(x, n_heads):
    return x.unflatten(-1, (-1, n_heads)).transpose(1, 2)


@into_heads.slip("""
    The heads are the last axis, (B, T, Dh, H). They belong in front of the tokens, (B, H, T, Dh): swap axis 1
    with axis 2, after the cut.""")
def _heads_last(x, n_heads):
    return x.unflatten(-1, (n_heads, -1)).transpose(-2, -1)


_WHOLE_NUMBERS = """
    A size must be a whole number, and `/` gives a fraction in Python, 4.0 for 8 / 2: write `//`.
    """


@into_heads.crash(_WHOLE_NUMBERS)
def _fraction_in_view(x, n_heads):
    return x.view(*x.shape[:2], n_heads, x.shape[2] / n_heads)


@into_heads.crash(_WHOLE_NUMBERS)
def _fraction_in_reshape(x, n_heads):
    return x.reshape(*x.shape[:2], n_heads, x.shape[2] / n_heads)


# --- 11 ------------------------------------------------------------------------------------------------


def _find_the_fault_inputs(rng: np.random.Generator, B: int, T: int, H: int, Dh: int) -> dict[str, Any]:
    D = H * Dh
    matrices = {name: rng.standard_normal((D, D)) * D**-0.5 for name in ("w_q", "w_k", "w_v", "w_o")}
    return {"x": 2 * rng.standard_normal((B, T, D)), **matrices, "n_heads": H}


def _multi_head_reference(
    x: np.ndarray, w_q: np.ndarray, w_k: np.ndarray, w_v: np.ndarray, w_o: np.ndarray, n_heads: int
) -> np.ndarray:
    out, width = np.zeros_like(x), x.shape[-1] // n_heads
    for b, h in np.ndindex(len(x), n_heads):
        head = slice(h * width, (h + 1) * width)
        q, k, v = (x[b] @ w[:, head] for w in (w_q, w_k, w_v))
        out[b, :, head] = [_attend(query, k, v) for query in q]
    return out @ w_o


def find_the_fault(x, w_q, w_k, w_v, w_o, n_heads):
    """Attend with several heads: x (B, T, D) and matrices (D, D) to an output (B, T, D)."""
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    q, k, v = (t.unflatten(-1, (n_heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, H, T, Dh)
    scores = q @ k.transpose(-2, -1) / x.shape[-1] ** 0.5
    weights = scores.softmax(dim=-1)
    heads = weights @ v
    return heads.transpose(1, 2).flatten(2) @ w_o


@chapter.debug(
    broken=find_the_fault,
    title="Find the fault",
    statement="""
        This function is multi-head self-attention, and one of its lines is wrong. Its symptom: with one head
        it agrees with PyTorch to the last digit. With more heads it does not, and the more heads there are,
        the flatter the weights come out: every token looks a little at every other one.

        Find the line, repair it, and hand the function in.
        """,
    hints=(
        "Which lines know how many heads there are, and which should know but do not?",
        "Flat weights mean scores that are too small. Which line decides how large the scores are?",
        "Scores spread as the square root of the number of products in their sum. After the split, how long "
        "is one query?",
        "A query of one head is Dh = D / n_heads long, and that is `q.shape[-1]`. `x` was never split.",
    ),
    axes="B T D",
    inputs=_find_the_fault_inputs,
    sizes=((1, 3, 2, 2), (2, 4, 3, 4), (1, 3, 1, 4), (2, 5, 4, 3), (1, 1, 2, 3), (2, 4, 6, 1)),
    reference=_multi_head_reference,
)
def find_the_fault(x, w_q, w_k, w_v, w_o, n_heads):
    """Attend with several heads: x (B, T, D) and matrices (D, D) to an output (B, T, D)."""
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    q, k, v = (t.unflatten(-1, (n_heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, H, T, Dh)
    # Each score sums over the Dh numbers of one head, so it spreads as sqrt(Dh). The broken line divided by
    # sqrt(D), the width before the split: too much by a factor sqrt(n_heads), and nothing for one head.
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    weights = scores.softmax(dim=-1)
    heads = weights @ v
    return heads.transpose(1, 2).flatten(2) @ w_o


def _multi_head(x, w_q, w_k, w_v, w_o, n_heads, divisor, dim=-1, swapped_back=True):
    q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)).transpose(1, 2) for w in (w_q, w_k, w_v))
    heads = (q @ k.mT / divisor).softmax(dim) @ v
    return (heads.transpose(1, 2) if swapped_back else heads).reshape(x.shape) @ w_o


@find_the_fault.slip("""
    The symptom is still there: your function gives what the broken one gave. How long is a query of one head,
    and what does the scaling think it is?""")
def _still_broken(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, x.shape[-1] ** 0.5)


@find_the_fault.slip("""
    You found the line and took the scaling away. The weights are too sharp now, for one head too: it should
    divide, by something smaller than before.""")
def _scaling_removed(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, 1.0)


@find_the_fault.slip("""
    You found the line and the right width, Dh, but lost the square root.""")
def _root_lost(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, x.shape[-1] / n_heads)


@find_the_fault.slip("""
    You found the line, but you divide by the square root of the number of heads. It is their width, Dh, that
    spreads the scores.""")
def _scaled_by_heads(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, n_heads**0.5)


@find_the_fault.slip("""
    You are nearly there: you divide by sqrt(D) / n_heads. The number of heads belongs under the root,
    sqrt(D / n_heads).""")
def _heads_outside_the_root(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, x.shape[-1] ** 0.5 / n_heads)


@find_the_fault.slip("""
    You found the line, but you divide by the square root of the number of tokens. It is the width of a head,
    Dh, that spreads the scores.""")
def _scaled_by_tokens(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, x.shape[1] ** 0.5)


@find_the_fault.slip("""
    You moved the softmax to the queries. It was right: each query shares itself out over the keys, the last
    axis. The fault is in another line.""")
def _softmax_moved(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, x.shape[-1] ** 0.5, dim=-2)


@find_the_fault.slip("""
    You changed how the heads are joined, and that was right: without the swap, a reshape mixes the
    tokens. The fault is in another line.""")
def _join_changed(x, w_q, w_k, w_v, w_o, n_heads):
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, x.shape[-1] ** 0.5, swapped_back=False)


@find_the_fault.slip("""
    You found the fault and repaired it. But you also changed how the heads are joined, and that was right:
    without the swap, a reshape mixes the tokens.""")
def _repaired_join_changed(x, w_q, w_k, w_v, w_o, n_heads):
    divisor = (x.shape[-1] / n_heads) ** 0.5
    return _multi_head(x, w_q, w_k, w_v, w_o, n_heads, divisor, swapped_back=False)


# --- 12 ------------------------------------------------------------------------------------------------


def _multi_head_inputs(rng: np.random.Generator, B: int, T: int, S: int, H: int, Dh: int) -> dict[str, Any]:
    D = H * Dh
    weights = {}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        weights[f"{name}.weight"] = 2 * rng.standard_normal((D, D)) * D**-0.5
        weights[f"{name}.bias"] = rng.standard_normal(D)
    mask = rng.random((B, 1, T, S)) < 0.5
    mask[..., 0] |= ~mask.any(-1)  # every query sees a key
    asks_and_answers = {"x": rng.standard_normal((B, T, D)), "context": rng.standard_normal((B, S, D))}
    return {"d_model": D, "n_heads": H, **weights, **asks_and_answers, "mask": mask}


def _multi_head_layer_reference(
    d_model: int, n_heads: int, x: np.ndarray, context: np.ndarray, mask: np.ndarray, **weights: np.ndarray
) -> np.ndarray:
    def project(name: str, rows: np.ndarray) -> np.ndarray:
        return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    out, width = np.zeros_like(x), d_model // n_heads
    for b, t, h in np.ndindex(*x.shape[:2], n_heads):
        head, seen = slice(h * width, (h + 1) * width), mask[b, 0, t]
        q, k, v = project("q_proj", x[b, t]), project("k_proj", context[b]), project("v_proj", context[b])
        out[b, t, head] = _attend(q[head], k[seen, head], v[seen, head])
    return project("out_proj", out)


@chapter.implement_module(
    title="The whole layer",
    statement="""
        Put it all together: multi-head attention with a mask, as a module. `x` (B, T, D) asks and `context`
        (B, S, D) answers; `mask` (B, 1, T, S) is boolean, True = may attend, and every query sees at least
        one key. The output has the shape (B, T, D).

        Make four layers `nn.Linear(d_model, d_model)`, named `q_proj`, `k_proj`, `v_proj` and `out_proj`: the
        check puts weights of its own into them, and compares outputs and gradients. You may call what you
        wrote in the exercises above, `attention` of the chapter and `F.scaled_dot_product_attention`. To take
        over `MultiHeadAttention`, the package's or PyTorch's, is off limits: you are writing it.
        """,
    hints=(
        "`__init__` makes the four layers and keeps `n_heads`, each as an attribute of `self`. `forward` has "
        "five steps: project, split into heads, attend, join the heads, project.",
        "Queries come from `x`, keys and values from `context`. After the split each has the shape "
        "(B, H, T, Dh) or (B, H, S, Dh), and the mask, (B, 1, T, S), broadcasts over the heads.",
        "Joining undoes the split: first swap heads and tokens back, `.transpose(1, 2)`, then put the heads "
        "side by side, `.flatten(2)`. `out_proj` comes last.",
        "With the functions from above: `q = into_heads(self.q_proj(x), self.n_heads)`, `k` and `v` likewise "
        "from `context`; then `masked_attention(q, k, v, mask)`, joined, through `self.out_proj`.",
    ),
    axes="B T D",
    settings=("d_model", "n_heads"),
    forward=("x", "context", "mask"),
    inputs=_multi_head_inputs,
    sizes=(
        (1, 2, 3, 2, 2),
        (2, 5, 4, 3, 6),
        (1, 4, 2, 1, 3),
        (2, 1, 5, 2, 4),
        (2, 4, 4, 3, 3),
        (3, 5, 2, 4, 1),
    ),
    reference=_multi_head_layer_reference,
    forbidden=("MultiHeadAttention", "MultiheadAttention", "multi_head_attention_forward"),
)
class MultiHead(nn.Module):
    """Attention with several heads and a mask: x (B, T, D) asks, context (B, S, D) answers."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        # The matrices of all heads side by side: what is asked, where it is found, what is handed over ...
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        # ... and one that mixes what the heads bring home.
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x, context, mask):
        """Attend with x to context where mask (B, 1, T, S) is True: an output (B, T, D)."""
        q, k, v = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        # Heads become an axis of their own: (B, T, D) -> (B, H, T, Dh).
        q, k, v = (t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, H, T, S)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
        # Back to one row a token, its heads side by side: (B, H, T, Dh) -> (B, T, D).
        heads = (weights @ v).transpose(1, 2).flatten(2)
        return self.out_proj(heads)


class _Parts(MultiHead.solve):
    """The solution taken apart, so that each slip spoils one part."""

    def forward(self, x, context, mask):
        q, k, v = (self.split(t) for t in self.project(x, context))
        return self.join(self.weights(q, k, mask) @ v)

    def project(self, x, context):
        return self.q_proj(x), self.k_proj(context), self.v_proj(context)

    def split(self, x):
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def weights(self, q, k, mask):
        return _scores(q, k).masked_fill(~mask, -torch.inf).softmax(-1)

    def join(self, heads):
        return self.out_proj(heads.transpose(1, 2).flatten(2))


@MultiHead.slip("""
    `k_proj` and `v_proj` have changed places: keys, which are compared with the queries, come from `k_proj`;
    values, which are averaged, from `v_proj`.""")
class _KeysAndValuesSwapped(_Parts):
    def project(self, x, context):
        return self.q_proj(x), self.v_proj(context), self.k_proj(context)


@MultiHead.slip("""
    Your values are the bare `context`. They go through `v_proj` first.""")
class _ValuesNotProjected(_Parts):
    def project(self, x, context):
        return self.q_proj(x), self.k_proj(context), context


@MultiHead.slip("""
    Your values come from `k_proj`. Values have a matrix of their own, `v_proj`.""")
class _KeysAsValues(_Parts):
    def project(self, x, context):
        return self.q_proj(x), self.k_proj(context), self.k_proj(context)


@MultiHead.slip("""
    The last step is missing: what the heads bring home goes through `out_proj`.""")
class _NotMixed(_Parts):
    def join(self, heads):
        return heads.transpose(1, 2).flatten(2)


@MultiHead.slip("""
    The shape is right, the numbers are not: the heads were joined by a bare reshape, which mixes the tokens.
    Swap heads and tokens back first, then flatten.""")
class _JoinedByReshape(_Parts):
    def join(self, heads):
        B, H, T, Dh = heads.shape
        return self.out_proj(heads.reshape(B, T, H * Dh))


@MultiHead.slip("""
    The heads were cut by a bare reshape, which mixes the tokens. Cut the last axis, then swap heads and
    tokens.""")
class _CutByReshape(_Parts):
    def split(self, x):
        B, T, D = x.shape
        return x.reshape(B, self.n_heads, T, D // self.n_heads)


@MultiHead.slip("""
    Heads were cut by a bare reshape and joined by another. The two do not cancel: in between, each head
    attends with pieces of several tokens. Cut the last axis, then swap; swap back, then flatten.""")
class _CutAndJoinedByReshape(_CutByReshape):
    def join(self, heads):
        B, H, T, Dh = heads.shape
        return self.out_proj(heads.reshape(B, T, H * Dh))


@MultiHead.slip("""
    You have one wide head: nothing was split, so every query has one row of weights for all its features.""")
class _OneHead(_Parts):
    def split(self, x):
        return x[:, None]


@MultiHead.slip("""
    Your answer has an axis too many. Nothing was split into heads, and the mask, which has an axis for them,
    brought one in: split q, k and v first.""")
class _NotSplit(_Parts):
    def split(self, x):
        return x

    def join(self, heads):
        return self.out_proj(heads)


@MultiHead.slip("""
    `q_proj`, `k_proj` and `v_proj` are never used: queries, keys and values are `x` and `context` as they
    came.""")
class _NothingProjected(_Parts):
    def project(self, x, context):
        return x, context, context


@MultiHead.slip("""
    Neither `context` nor `mask` has a say: keys and values come from `x`, and every query sees every key.""")
class _SelfAttentionUnmasked(_Parts):
    def project(self, x, context):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def weights(self, q, k, mask):
        return _scores(q, k).softmax(-1)


@MultiHead.slip("""
    You divided by sqrt(D), the width of the model. Each score sums over the Dh numbers of one head: divide by
    sqrt(Dh).""")
class _ScaledByTheModel(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q / self.n_heads**0.5, k, mask)


@MultiHead.slip("""
    The division by sqrt(Dh) is missing: the weights come out too sharp.""")
class _NotScaled(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q * q.shape[-1] ** 0.5, k, mask)


@MultiHead.slip("""
    Your mask works the wrong way round. True means "may attend": fill where the mask is False (`~mask`).""")
class _MaskUpsideDown(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q, k, ~mask)


@MultiHead.slip("""
    You hand the mask on upside down, and queries that then see nothing get zeros. True means "may attend":
    is there one `~` too many?""")
class _MaskUpsideDownInZeros(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q, k, ~mask).nan_to_num()


@MultiHead.slip("""
    Your output is as if there were no mask: `forward` gets one, and the scores should feel it.""")
class _MaskForgotten(_Parts):
    def weights(self, q, k, mask):
        return _scores(q, k).softmax(-1)


@MultiHead.slip("""
    Your softmax runs over the queries. Each query shares itself out over the keys, the last axis.""")
class _SoftmaxOverQueries(_Parts):
    def weights(self, q, k, mask):
        return _scores(q, k).masked_fill(~mask, -torch.inf).softmax(-2)


@MultiHead.slip("""
    Hidden scores became 0. But exp(0) is 1, so a score of 0 still gets weight; only minus infinity gets
    none.""")
class _HiddenScoresAreZero(_Parts):
    def weights(self, q, k, mask):
        return (_scores(q, k) * mask).softmax(-1)


@MultiHead.slip("""
    Hidden scores became -1. That is a score like any other, and it gets weight; only minus infinity gets
    none.""")
class _HiddenScoresAreMinusOne(_Parts):
    def weights(self, q, k, mask):
        return _scores(q, k).masked_fill(~mask, -1.0).softmax(-1)


@MultiHead.slip("""
    You added the mask to the scores, as 1 and 0. A visible key is then favoured a little, and nothing is
    hidden; what is hidden needs minus infinity.""")
class _MaskAdded(_Parts):
    def weights(self, q, k, mask):
        return (_scores(q, k) + mask).softmax(-1)


@MultiHead.slip("""
    You masked the weights after the softmax, and what hidden keys held is lost: the rows no longer sum to 1.
    Mask the scores, before the softmax.""")
class _MaskedAfterTheSoftmax(_Parts):
    def weights(self, q, k, mask):
        return _scores(q, k).softmax(-1) * mask


@MultiHead.slip("""
    You took `mask[0, 0]`, the mask of the first sentence, for all of them. `mask` (B, 1, T, S) broadcasts
    over the heads as it is.""")
class _FirstMaskForAll(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q, k, mask[:1])


@MultiHead.slip("""
    You divided by Dh, not by its square root: the weights come out too flat.""")
class _RootForgotten(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q / q.shape[-1] ** 0.5, k, mask)


@MultiHead.slip("""
    You multiplied by sqrt(Dh) where the formula divides: the weights come out far too sharp.""")
class _MultipliedByTheRoot(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q * q.shape[-1], k, mask)


@MultiHead.slip("""
    You divided by the square root of the number of heads. What spreads the scores is the width of a head,
    Dh, the last axis of q.""")
class _ScaledByHeads(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q * (q.shape[-1] / self.n_heads) ** 0.5, k, mask)


@MultiHead.slip("""
    You divided by the square root of the number of tokens that ask. What spreads the scores is the width of a
    head, Dh, the last axis of q.""")
class _ScaledByTokens(_Parts):
    def weights(self, q, k, mask):
        return super().weights(q * (q.shape[-1] / q.shape[-2]) ** 0.5, k, mask)


@MultiHead.slip("""
    Your softmax runs over the heads (dim=1), so heads compete with each other. It should run over the keys,
    the last axis.""")
class _SoftmaxOverHeads(_Parts):
    def weights(self, q, k, mask):
        return _scores(q, k).masked_fill(~mask, -torch.inf).softmax(1)


@MultiHead.slip("""
    There is no softmax: your weights are the bare scores, with minus infinity among them. The softmax makes
    weights of them, and zeros of minus infinity.""")
class _NoSoftmax(_Parts):
    def weights(self, q, k, mask):
        return _scores(q, k).masked_fill(~mask, -torch.inf)


@MultiHead.slip("""
    You cut heads of n_heads features each. `n_heads` is how many heads there are; each is D / n_heads
    wide.""")
class _CountTakenForWidth(_Parts):
    def split(self, x):
        return x.unflatten(-1, (-1, self.n_heads)).transpose(1, 2)


@MultiHead.slip("""
    Your heads are interleaved: head 0 got the features 0, H, 2H, ... The features of one head lie together,
    so cut D into (H, Dh), in this order.""")
class _Interleaved(_Parts):
    def split(self, x):
        return x.unflatten(-1, (-1, self.n_heads)).permute(0, 3, 1, 2)


@MultiHead.slip("""
    The heads are joined with their features in turns: head and feature changed places, (B, T, Dh, H). One
    head stays together, beside the next: (B, T, H, Dh), then flatten.""")
class _JoinedInTurns(_Parts):
    def join(self, heads):
        return self.out_proj(heads.permute(0, 2, 3, 1).flatten(2))


@MultiHead.slip("""
    Your keys come from `q_proj`. Keys have a matrix of their own, `k_proj`.""")
class _KeysFromQueries(_Parts):
    def project(self, x, context):
        return self.q_proj(x), self.q_proj(context), self.v_proj(context)


@MultiHead.slip("""
    Your queries come from `k_proj`, and your keys from `q_proj`. Queries are what is asked, `q_proj(x)`.""")
class _QueriesAndKeysSwapped(_Parts):
    def project(self, x, context):
        return self.k_proj(x), self.q_proj(context), self.v_proj(context)


@MultiHead.slip("""
    `out_proj` is applied twice. Once is enough, after the heads are joined.""")
class _MixedTwice(_Parts):
    def join(self, heads):
        return self.out_proj(super().join(heads))


@MultiHead.slip("""
    You added `x` to the answer. That is a residual connection, which comes around this layer in a whole
    Transformer; it is not part of it.""")
class _ResidualAdded(_Parts):
    def forward(self, x, context, mask):
        return x + super().forward(x, context, mask)


@MultiHead.slip("""
    Right for two heads only. The number of heads comes as `n_heads`: keep it, `self.n_heads = n_heads`, and
    cut by it.""")
class _AlwaysTwoHeads(_Parts):
    def split(self, x):
        heads = self.n_heads if x.shape[-1] % 2 else 2
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)


@MultiHead.crash("""
    After the cut the heads still stand behind the tokens: (B, T, H, Dh). Swap these two axes,
    `.transpose(1, 2)`, so that within each head tokens meet tokens.""")
class _NotMoved(_Parts):
    def split(self, x):
        return x.unflatten(-1, (self.n_heads, -1))


@MultiHead.crash("""
    There is one row of weights for S keys, and your values come from `x`, which has T tokens. What answers is
    `context`, for values as for keys.""")
class _ValuesFromTheWrongSide(_Parts):
    def project(self, x, context):
        return self.q_proj(x), self.k_proj(context), self.v_proj(x)


@MultiHead.crash("""
    `q_proj` takes rows of D numbers, and yours are cut into heads already, Dh wide. Project first, then
    split.""")
class _SplitThenProjected(_Parts):
    def forward(self, x, context, mask):
        return self.q_proj(self.split(x))


@MultiHead.crash("""
    The scores do not fit the mask, which has a row for each of the T tokens of `x` and a column for each
    of the S tokens of `context`. Queries come from `x`, keys and values from `context`; queries stand on
    the left.""")
class _SelfAttention(_Parts):
    def project(self, x, context):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


@MultiHead.crash("""
    Your queries come from `context`, which has S tokens; `x` asks, with T, and the mask has a row for each of
    these.""")
class _ContextAsks(_Parts):
    def project(self, x, context):
        return self.q_proj(context), self.k_proj(context), self.v_proj(context)


@MultiHead.crash("""
    `out_proj` takes rows of D numbers, and your heads are still apart. Swap heads and tokens back, then
    flatten the last two axes.""")
class _NotJoined(_Parts):
    def join(self, heads):
        return self.out_proj(heads)


@MultiHead.crash("""
    `n_heads` is known in `__init__` only: keep it there, `self.n_heads = n_heads`, and use `self.n_heads` in
    `forward`.""")
class _CountNotKept(_Parts):
    def split(self, x):
        raise NameError("name 'n_heads' is not defined")
