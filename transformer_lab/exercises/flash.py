"""Exercises of the chapter "FlashAttention", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .check import Chapter

chapter = Chapter("flash", "FlashAttention")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="One score too large",
    statement="""
        A row has the scores 12, 3 and 1, in float16, whose largest number is 65,504. The exponential of 12 is
        162,755, that of 3 about 20. Somebody writes

            weights = scores.exp() / scores.exp().sum()

        Before you run anything: which weights come out?
        """,
    choices={
        "a": "0.9999, 0.0001, 0.0000: the right ones",
        "b": "NaN, 0, 0",
        "c": "NaN, NaN, NaN",
        "d": "infinity, 0, 0",
    },
    hints=(
        "What is too large for a type of numbers becomes infinity. Write down the three exponentials.",
        "Now their sum: what is infinity plus 20?",
        "Divide each by the sum. A finite number divided by infinity is 0. And infinity divided by infinity?",
    ),
    expected="b",
    wrong={
        "a": "So it would be in float32, which holds 162,755 with ease. In float16 that exponential is "
        "infinity, and the sum as well.",
        "c": "All three would be NaN if all three exponentials were infinite. Those of 3 and 1 are finite, "
        "and a finite number divided by infinity is 0.",
        "d": "The first exponential is infinity, right. But the sum by which it is divided is infinity too, "
        "and infinity divided by infinity is not a number.",
    },
)
def one_score_too_large():
    """The exponentials are infinity, 20.09 and 2.72, their sum is infinity: NaN, 0 and 0. Two of the three
    weights look quite healthy. Subtract the largest score first, and the exponentials are 1 and two small
    numbers.
    """
    scores = torch.tensor([12.0, 3.0, 1.0], dtype=torch.float16)
    weights = (scores.exp() / scores.exp().sum()).float()
    nan, infinite = float("nan"), float("inf")
    claims = {"b": [nan, 0.0, 0.0], "c": [nan, nan, nan], "d": [infinite, 0.0, 0.0]}
    claims["a"] = scores.double().softmax(dim=0).tolist()
    return next(a for a, w in claims.items() if torch.allclose(weights, torch.tensor(w), equal_nan=True))


# --- 2 -------------------------------------------------------------------------------------------------


def _update_inputs(
    rng: np.random.Generator, T: int, C: int, high: float = 0.0, fresh: bool = False
) -> dict[str, Any]:
    """Running maxima and sums, and a tile; ``high``: how far apart they lie; ``fresh``: a row saw nothing."""
    largest, total = rng.standard_normal(T), 1 + 4 * rng.random(T)
    tile = 2 * rng.standard_normal((T, C))
    tile[::2] += high
    largest[1::2] += high
    if fresh:
        largest[0], total[0] = -np.inf, 0.0
    return {"largest": largest, "total": total, "tile": tile}


def _update_reference(largest: np.ndarray, total: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """One score after the other; before each, everything so far is put under the new maximum."""
    out = np.zeros((len(largest), 2))
    for t, (m, sum_so_far) in enumerate(zip(largest, total, strict=True)):
        for score in tile[t]:
            higher = max(m, score)
            sum_so_far = sum_so_far * np.exp(m - higher) + np.exp(score - higher)
            m = higher
        out[t] = m, sum_so_far
    return out


@chapter.implement(
    title="A tile comes in",
    statement=r"""
        Of each of T rows two numbers are kept: `largest` (T), the largest score m so far, and `total` (T),
        the sum $\sum e^{s - m}$ over the scores s so far. Now a tile comes in, `tile` (T, C), with C more
        scores for each row. Bring both numbers up to date.

        Return them side by side, a row for each row and two columns, first the maximum, then the sum:
        `torch.stack((m, total), dim=1)`.

        Scores may be in the hundreds. A row that has seen nothing yet has `largest` minus infinity and
        `total` 0.
        """,
    hints=(
        "First the new maximum: of the tile's scores and of the old one. `tile.amax(dim=1)` has T numbers, "
        "and `torch.maximum(a, b)` takes the larger of two at each place.",
        "The old sum was measured against the old maximum. Every term in it must become e to the power of "
        "(s - new maximum): by which factor?",
        "The factor is `(largest - new).exp()`, T numbers that are at most 1.",
        "The new terms are `(tile - new[:, None]).exp()`, summed along the row; `new[:, None]` is (T, 1).",
    ),
    axes="T 2",
    inputs=_update_inputs,
    sizes=((3, 4), (4, 3), (2, 5, 300.0), (5, 3, 0.0, True), (3, 2, 800.0, True), (1, 6)),
    probes=((3, 5, 4.0),),
    reference=_update_reference,
    forbidden=("softmax", "log_softmax", "logsumexp", "logcumsumexp"),
    gradient=False,
)
def one_update(largest, total, tile):
    """Bring largest (T,) and total (T,) up to date with the scores of a tile (T, C): an answer (T, 2)."""
    # Of all that was seen, the tile included.
    new = torch.maximum(largest, tile.amax(dim=1))
    # Each old term e^(s - largest), times this, is e^(s - new). In a fresh row it is e^-infinity = 0.
    shrink = (largest - new).exp()
    total = shrink * total + (tile - new[:, None]).exp().sum(dim=1)
    return torch.stack((new, total), dim=1)


def _updated(largest, total, tile, new=None, shrink=None, added=None):
    new = torch.maximum(largest, tile.amax(1)) if new is None else new
    shrink = (largest - new).exp() if shrink is None else shrink
    added = (tile - new[:, None]).exp().sum(1) if added is None else added
    return torch.stack((new, shrink * total + added), 1)


@one_update.slip("""
    The old sum goes in as it was. It was measured against the old maximum: where the new one is larger, all
    its terms are too large, by the factor e to the power of (old maximum - new maximum).""")
def _old_sum_as_it_was(largest, total, tile):
    return _updated(largest, total, tile, shrink=torch.ones_like(total))


@one_update.slip("""
    The factor is upside down: e to the power of (new - old) makes the old sum larger. Against a larger
    maximum the old terms weigh less.""")
def _factor_upside_down(largest, total, tile):
    new = torch.maximum(largest, tile.amax(1))
    return _updated(largest, total, tile, new, (new - largest).exp())


@one_update.slip("""
    You shrank the new terms as well. They are measured against the new maximum from the start: only what was
    there shrinks.""")
def _new_terms_shrunk_too(largest, total, tile):
    new = torch.maximum(largest, tile.amax(1))
    shrink = (largest - new).exp()
    return torch.stack((new, shrink * (total + (tile - new[:, None]).exp().sum(1))), 1)


@one_update.slip("""
    The tile's scores are measured against the old maximum. Where the tile goes higher its exponentials are
    larger than 1, and for scores in the hundreds infinite: subtract the new maximum.""")
def _tile_against_the_old_maximum(largest, total, tile):
    return _updated(largest, total, tile, added=(tile - largest[:, None]).exp().sum(1))


@one_update.slip("""
    The tile's scores are measured against the tile's own maximum. Where the old maximum is larger, the two
    sums are measured against different things and cannot be added: subtract the new maximum, which is the
    larger one of both.""")
def _tile_against_itself(largest, total, tile):
    return _updated(largest, total, tile, added=(tile - tile.amax(1, keepdim=True)).exp().sum(1))


@one_update.slip("""
    Two things were left as they came: the old sum is not shrunk, and the tile's scores are measured against
    the tile's own maximum. Both belong under the new maximum, the larger one of the two.""")
def _two_sums_added(largest, total, tile):
    return _updated(
        largest,
        total,
        tile,
        shrink=torch.ones_like(total),
        added=(tile - tile.amax(1, keepdim=True)).exp().sum(1),
    )


@one_update.slip("""
    Your maximum is that of the tile. The largest score *so far* may lie before it: `torch.maximum` of the old
    one and the tile's.""")
def _maximum_of_the_tile(largest, total, tile):
    return _updated(largest, total, tile, new=tile.amax(1))


@one_update.slip("""
    The maximum is still the old one. The tile may go higher: `torch.maximum(largest, tile.amax(dim=1))`.""")
def _old_maximum(largest, total, tile):
    return torch.stack((largest, total + (tile - largest[:, None]).exp().sum(1)), 1)


@one_update.slip("""
    You have one maximum for all rows. Each row has a maximum of its own: with that of another row, a low
    row's exponentials are all 0.""")
def _one_maximum_for_all(largest, total, tile):
    return _updated(largest, total, tile, new=torch.maximum(largest, tile.amax(1)).max().expand(len(largest)))


@one_update.slip("""
    The sum is multiplied by the difference of the maxima, and not by its exponential: the factor is
    `(largest - new).exp()`.""")
def _difference_without_exp(largest, total, tile):
    new = torch.maximum(largest, tile.amax(1))
    return _updated(largest, total, tile, new, largest - new)


@one_update.slip("""
    You added the factor to the new sum. The old sum times the factor is what has to be added.""")
def _factor_added(largest, total, tile):
    new = torch.maximum(largest, tile.amax(1))
    return torch.stack((new, (largest - new).exp() + (tile - new[:, None]).exp().sum(1)), 1)


@one_update.slip("""
    The old sum is lost: yours holds the tile's terms only. Add what was there, shrunk.""")
def _old_sum_lost(largest, total, tile):
    return _updated(largest, torch.zeros_like(total), tile)


@one_update.slip("""
    You took the mean of the new terms. It is a sum that runs, however many terms a tile has.""")
def _mean_of_the_terms(largest, total, tile):
    new = torch.maximum(largest, tile.amax(1))
    return _updated(largest, total, tile, new, added=(tile - new[:, None]).exp().mean(1))


@one_update.slip("""
    Of the tile only its largest score went into the sum, as a 1. Every score of it counts: `.sum(dim=1)`.""")
def _only_the_largest(largest, total, tile):
    new = torch.maximum(largest, tile.amax(1))
    return _updated(largest, total, tile, new, added=(tile.amax(1) - new).exp())


@one_update.slip("""
    The two columns are exchanged: first the maximum, then the sum.""")
def _columns_exchanged(largest, total, tile):
    return _updated(largest, total, tile).flip(1)


@one_update.slip("""
    The numbers are right and lie the other way: (2, T). `torch.stack((m, total), dim=1)` puts them side by
    side.""")
def _stacked_the_other_way(largest, total, tile):
    return _updated(largest, total, tile).T


@one_update.slip("""
    That is the logarithm of the sum plus the maximum, the row's log-sum-exp. Asked for are the maximum and
    the sum themselves.""")
def _log_of_the_sum(largest, total, tile):
    new, summed = _updated(largest, total, tile).unbind(1)
    return torch.stack((new, new + summed.log()), 1)


@one_update.slip("""
    The exponentials are those of the bare scores. Right on paper if the old sum is made bare as well, and for
    scores in the hundreds infinite: subtract the new maximum from each.""")
def _bare_exponentials(largest, total, tile):
    new = torch.maximum(largest, tile.amax(1))
    bare = largest.exp() * total + tile.exp().sum(1)
    return torch.stack((new, bare / new.exp()), 1)


@one_update.slip("""
    The new terms are exponentials of bare scores. Subtract the new maximum from each first.""")
def _tile_not_shifted(largest, total, tile):
    return _updated(largest, total, tile, added=tile.exp().sum(1))


@one_update.crash("""
    A row's number has no axis for the C scores: `new[:, None]` is (T, 1) and can be subtracted from all of
    them.""")
def _no_axis_for_the_scores(largest, total, tile):
    return tile - torch.maximum(largest, tile.amax(1))


@one_update.crash("""
    `max(dim=1)` gives two things, the largest entries and where they are. `amax(dim=1)` gives the entries
    alone.""")
def _maximum_of_two_things(largest, total, tile):
    return torch.maximum(largest, tile.max(1))


@one_update.crash("""
    `max(dim=1)` gives two things, the largest entries and where they are; that is a pair, and no row of
    numbers. `amax(dim=1)` gives the entries alone.""")
def _max_of_two_things(largest, total, tile):
    return torch.max(largest, tile.max(1))


@one_update.crash("""
    `amax(dim=0)` runs down the columns and gives C numbers. Each row has a maximum: `dim=1`.""")
def _maximum_down_the_columns(largest, total, tile):
    return torch.maximum(largest, tile.amax(0))


# --- 3 -------------------------------------------------------------------------------------------------


def _half(rng: np.random.Generator, T: int, S: int, Dh: int, shift: np.ndarray) -> list[np.ndarray]:
    scores, v = 2 * rng.standard_normal((T, S)) + shift[:, None], rng.standard_normal((S, Dh))
    largest = scores.max(-1)
    weights = np.exp(scores - largest[:, None])
    return [largest, weights.sum(-1), weights @ v]


def _merge_inputs(
    rng: np.random.Generator, T: int, Dh: int, apart: float = 0.0, level: float = 0.0, empty: bool = False
) -> dict[str, Any]:
    """What two halves of the keys gave, ``apart`` from each other, and rows at two levels; the second half of
    row 0 may be ``empty``."""
    rows = np.arange(T)
    levels, gaps = np.where(rows % 2, level, -level), np.where(rows % 3, -apart, apart)
    first, second = _half(rng, T, 4, Dh, levels), _half(rng, T, 7, Dh, levels + gaps)
    if empty:
        second[0][0], second[1][0], second[2][0] = -np.inf, 0.0, 0.0
    names = ("largest", "total", "output")
    return {
        f"{name}_{half}": x
        for half, xs in ((1, first), (2, second))
        for name, x in zip(names, xs, strict=True)
    }


def _merge_reference(largest_1, total_1, output_1, largest_2, total_2, output_2) -> np.ndarray:
    """Each half's output divided by its sum, weighted by its share of e^L, with L = m + ln l."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_1, log_2 = largest_1 + np.log(total_1), largest_2 + np.log(total_2)
        share_1, share_2 = 1 / (1 + np.exp(log_2 - log_1)), 1 / (1 + np.exp(log_1 - log_2))
    out = np.zeros_like(output_1)
    for t in range(len(out)):
        if total_1[t] > 0:
            out[t] += share_1[t] * output_1[t] / total_1[t]
        if total_2[t] > 0:
            out[t] += share_2[t] * output_2[t] / total_2[t]
    return out


@chapter.implement(
    title="Two halves of the keys",
    statement=r"""
        Two machines have shared the keys of T queries. Each has walked over its half and brings three things:
        `largest` (T), its largest score m of each row; `total` (T), its sum $\sum e^{s - m}$; and `output`
        (T, Dh), its sum $\sum e^{s - m} v$, not divided yet. The first machine's have a 1 in the name, the
        second's a 2.

        Return the output of the whole attention, (T, Dh), divided and done.

        The two halves may lie hundreds apart. A half of which a row sees nothing brings minus infinity, 0
        and 0; the other half then has seen something.
        """,
    hints=(
        "The two sums are measured against different maxima. Against which one number could both be "
        "measured?",
        "The larger of the two maxima, row by row: `torch.maximum`. Each half then gets a factor of its own, "
        "e to the power of (its maximum - the common one).",
        "The same two factors go to the sums and to the outputs: add up sums, add up outputs, divide once.",
        "A factor has T numbers, an output (T, Dh): `factor[:, None]` is (T, 1).",
    ),
    axes="T Dh",
    inputs=_merge_inputs,
    sizes=(
        *((3, 4), (4, 3, 3.0), (2, 5, 300.0), (3, 2, 1.0, 800.0), (5, 3, 1.0, 0.0, True), (1, 2, 2.0)),
        (4, 2, 1.0, 300.0),
    ),
    reference=_merge_reference,
)
def merge(largest_1, total_1, output_1, largest_2, total_2, output_2):
    """Put together two halves, each largest (T,), total (T,) and output (T, Dh): an answer (T, Dh)."""
    # Both halves under one maximum, row by row; where a half saw nothing its factor is e^-infinity = 0.
    largest = torch.maximum(largest_1, largest_2)
    factor_1, factor_2 = (largest_1 - largest).exp(), (largest_2 - largest).exp()
    total = factor_1 * total_1 + factor_2 * total_2
    output = factor_1[:, None] * output_1 + factor_2[:, None] * output_2
    # One division, at the very end.
    return output / total[:, None]


def _merged(given, one=None, other=None, for_total=None):
    """With other factors; ``for_total``: those of the sums, if they differ from those of the outputs."""
    m1, l1, o1, m2, l2, o2 = given
    m = torch.maximum(m1, m2)
    one = (m1 - m).exp() if one is None else one
    other = (m2 - m).exp() if other is None else other
    a, b = (one, other) if for_total is None else for_total
    return (one[:, None] * o1 + other[:, None] * o2) / (a * l1 + b * l2)[:, None]


def _ones(x):
    return torch.ones_like(x)


@merge.slip("""
    You added the two outputs and divided by the two sums, as they came. Each half is measured against a
    maximum of its own: bring both under the larger one first.""")
def _halves_as_they_came(*given):
    return _merged(given, _ones(given[0]), _ones(given[0]))


@merge.slip("""
    You took the mean of the two finished outputs. The halves do not count alike: one with higher scores, or
    with more keys, weighs more.""")
def _mean_of_the_halves(m1, l1, o1, m2, l2, o2):
    return (o1 / l1[:, None] + o2 / l2[:, None]) / 2


@merge.slip("""
    You added the two finished outputs. Each is an average already, and their sum is none.""")
def _sum_of_the_halves(m1, l1, o1, m2, l2, o2):
    return o1 / l1[:, None] + o2 / l2[:, None]


@merge.slip("""
    Only the second half got a factor. Where the second maximum is the larger one, it is the first half that
    must shrink.""")
def _first_not_shrunk(*given):
    return _merged(given, one=_ones(given[0]))


@merge.slip("""
    Only the first half got a factor. Where the first maximum is the larger one, it is the second half that
    must shrink.""")
def _second_not_shrunk(*given):
    return _merged(given, other=_ones(given[0]))


@merge.slip("""
    The two factors are exchanged: the first half gets that of the second. The half with the *lower* maximum
    is the one that shrinks.""")
def _factors_exchanged(*given):
    m1, _, _, m2, _, _ = given
    m = torch.maximum(m1, m2)
    return _merged(given, (m2 - m).exp(), (m1 - m).exp())


@merge.slip("""
    The factors are upside down: e to the power of (common maximum - own one) makes the lower half larger.""")
def _factors_upside_down(*given):
    m1, _, _, m2, _, _ = given
    m = torch.maximum(m1, m2)
    return _merged(given, (m - m1).exp(), (m - m2).exp())


@merge.slip("""
    Your factors are e to the power of the maxima themselves. On paper that cancels, but for scores in the
    hundreds it overflows, or is 0: subtract the larger maximum of the row first.""")
def _bare_factors(*given):
    return _merged(given, given[0].exp(), given[3].exp())


@merge.slip("""
    You measured both halves against the smaller maximum. The other half's factor is then larger than 1, and
    infinite when they lie hundreds apart: take the larger one.""")
def _against_the_smaller(*given):
    m1, _, _, m2, _, _ = given
    m = torch.minimum(m1, m2)
    return _merged(given, (m1 - m).exp(), (m2 - m).exp())


@merge.slip("""
    Both factors have been taken against the first half's maximum. Where the second lies hundreds higher, its
    factor is infinite: take the larger of the two, row by row.""")
def _against_the_first(*given):
    m1, _, _, m2, _, _ = given
    return _merged(given, (m1 - m1).exp(), (m2 - m1).exp())


@merge.slip("""
    You have one maximum for all rows. A row that lies far below it has two factors of 0, and 0 / 0 is NaN:
    each row needs its own.""")
def _one_maximum_for_all(*given):
    m = torch.maximum(given[0], given[3]).max()
    return _merged(given, (given[0] - m).exp(), (given[3] - m).exp())


@merge.slip("""
    The outputs are shrunk, the sums are not. Both were measured against the same maxima: the same factors
    belong to both.""")
def _sums_not_shrunk(*given):
    return _merged(given, for_total=(_ones(given[0]), _ones(given[0])))


@merge.slip("""
    The sums are shrunk, the outputs are not. Both were measured against the same maxima: the same factors
    belong to both.""")
def _outputs_not_shrunk(*given):
    m1, _, _, m2, _, _ = given
    m = torch.maximum(m1, m2)
    return _merged(given, _ones(m), _ones(m), for_total=((m1 - m).exp(), (m2 - m).exp()))


@merge.slip("""
    Merged, and not divided: what is asked for is the finished output. Divide by the merged sum.""")
def _not_divided(m1, l1, o1, m2, l2, o2):
    m = torch.maximum(m1, m2)
    return (m1 - m).exp()[:, None] * o1 + (m2 - m).exp()[:, None] * o2


@merge.slip("""
    You divided each half by its own sum and weighted with the factors alone. A half's weight is its factor
    times its sum: add up first, divide once.""")
def _each_divided_first(m1, l1, o1, m2, l2, o2):
    m = torch.maximum(m1, m2)
    a, b = (m1 - m).exp(), (m2 - m).exp()
    return (a[:, None] * o1 / l1[:, None] + b[:, None] * o2 / l2[:, None]) / (a + b)[:, None]


@merge.slip("""
    You divided each half by its own sum and added. Each is an average then, only shrunk; add up outputs and
    sums first, and divide once.""")
def _each_divided_and_added(m1, l1, o1, m2, l2, o2):
    m = torch.maximum(m1, m2)
    return (m1 - m).exp()[:, None] * o1 / l1[:, None] + (m2 - m).exp()[:, None] * o2 / l2[:, None]


@merge.slip("""
    Right where both halves have seen something. You divide each by its own sum, and where a row saw nothing
    that sum is 0: 0 / 0 is NaN. Add up first, and divide once.""")
def _empty_half_divided(m1, l1, o1, m2, l2, o2):
    share = ((m1 + l1.log()) - (m2 + l2.log())).sigmoid()[:, None]
    return share * o1 / l1[:, None] + (1 - share) * o2 / l2[:, None]


@merge.slip("""
    You took the half with the larger maximum and dropped the other one. It counts as well, only less.""")
def _larger_half_only(m1, l1, o1, m2, l2, o2):
    return torch.where((m1 >= m2)[:, None], o1 / l1[:, None], o2 / l2[:, None])


@merge.slip("""
    You divided by the two sums as a product. The sum over all keys is the sum over the first half plus the
    sum over the second, each times its factor.""")
def _sums_multiplied(m1, l1, o1, m2, l2, o2):
    m = torch.maximum(m1, m2)
    a, b = (m1 - m).exp(), (m2 - m).exp()
    return (a[:, None] * o1 + b[:, None] * o2) / (a * l1 * b * l2)[:, None]


@merge.crash("""
    A row's number has no axis for the Dh entries of its output: `factor[:, None]` is (T, 1) and fits all of
    them.""")
def _no_axis_for_the_entries(m1, l1, o1, m2, l2, o2):
    return (m1 - torch.maximum(m1, m2)).exp() * o1


# --- 4 -------------------------------------------------------------------------------------------------


def _tiles_inputs(
    rng: np.random.Generator,
    T: int,
    N: int,
    C: int,
    Dh: int,
    size: float = 1.0,
    rising: bool = False,
    low: float = 0.0,
) -> dict[str, Any]:
    """Queries, and keys and values in tiles; ``rising``: so do the scores from tile to tile; ``low``: its
    square is how far below 0 all scores lie."""
    q, k = size * rng.standard_normal((T, Dh)), rng.standard_normal((N, C, Dh))
    if rising:
        q[:, 0] = size * (2 + rng.random(T))
        k[:, :, 0] += 2 * np.arange(N)[:, None]
    if low:
        q[:, 0], k[:, :, 0] = low, -low * (1 + rng.random((N, C)))
    return {"q": q, "k_tiles": k, "v_tiles": rng.standard_normal((N, C, Dh))}


def _tiles_reference(q: np.ndarray, k_tiles: np.ndarray, v_tiles: np.ndarray) -> np.ndarray:
    """The formula, the table and all."""
    k, v = (x.reshape(-1, x.shape[-1]) for x in (k_tiles, v_tiles))
    scores = q @ k.T / np.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


TILES_SIZES = (
    *((2, 2, 3, 4), (3, 4, 2, 5, 1.0, True), (4, 3, 5, 2), (1, 2, 4, 3, 2.0, True)),
    *((3, 2, 4, 5, 400.0), (2, 5, 1, 3), (3, 2, 4, 5, 1.0, False, 20.0), (4, 2, 3, 2, 900.0, True)),
)


@chapter.implement(
    title="One block of queries",
    statement=r"""
        The heart of FlashAttention. A block of T queries stays where it is, `q` (T, Dh). Keys and values come
        by in N tiles of C: `k_tiles` and `v_tiles`, both (N, C, Dh). A score is the dot product of query and
        key, divided by $\sqrt{D_h}$; every query sees every key.

        Return the output of attention, (T, Dh). Keep a running maximum, a running sum and a running output,
        and never more than the scores of one tile. (The check sees only what comes out; that you build no
        table of all scores is between you and your memory.)

        Scores may be in the hundreds. `softmax`, `logsumexp` and PyTorch's attention are off limits.
        """,
    hints=(
        "`for k, v in zip(k_tiles, v_tiles):` gives one tile of each at a time, both (C, Dh). The scores of "
        "the tile are `q @ k.T / q.shape[1] ** 0.5`, (T, C).",
        "Before the loop: `largest = q.new_full((len(q), 1), float('-inf'))`, a sum of zeros of the same "
        "shape, and an output of zeros, (T, Dh).",
        "In the loop, in this order: the new maximum; the factor `(largest - new).exp()` for what is there; "
        "the weights `(scores - new).exp()`; then sum and output, each old one times the factor plus what is "
        "new.",
        "What the tile adds to the sum is `weights.sum(dim=1, keepdim=True)`, to the output `weights @ v`. "
        "After the loop comes the only division.",
    ),
    axes="T Dh",
    inputs=_tiles_inputs,
    sizes=TILES_SIZES,
    reference=_tiles_reference,
    forbidden=(
        *("softmax", "log_softmax", "softmin", "logsumexp", "scaled_dot_product_attention"),
        "multi_head_attention_forward",
    ),
    gradient=False,
)
def attend_in_tiles(q, k_tiles, v_tiles):
    """Attend from q (T, Dh) to keys and values that come in tiles (N, C, Dh): an output (T, Dh)."""
    largest = q.new_full((len(q), 1), float("-inf"))  # nothing seen yet
    total = torch.zeros_like(largest)
    output = torch.zeros_like(q)
    for k, v in zip(k_tiles, v_tiles, strict=True):
        scores = q @ k.T / q.shape[1] ** 0.5  # (T, C): one tile, and the only one
        new = torch.maximum(largest, scores.amax(dim=1, keepdim=True))
        # What is there was measured against the old maximum; against the new one it weighs less.
        shrink = (largest - new).exp()
        weights = (scores - new).exp()
        total = shrink * total + weights.sum(dim=1, keepdim=True)
        output = shrink * output + weights @ v
        largest = new
    # Divide once: until here every weight was right up to a common factor.
    return output / total


def _walk(q, k_tiles, v_tiles, update, scale=None):
    """Attention in tiles with another ``update``: (largest, total, output, scores, v) to the first three."""
    state = q.new_full((len(q), 1), float("-inf")), q.new_zeros(len(q), 1), torch.zeros_like(q)
    for k, v in zip(k_tiles, v_tiles, strict=True):
        state = update(*state, q @ k.T * (q.shape[1] ** -0.5 if scale is None else scale), v)
    return state[2] / state[1]


def _step(m, total, output, s, v, *, shrunk=("total", "output"), against="running", power=1):
    """The right update, unless told otherwise: which sums are shrunk, ``against`` which maximum."""
    tile = s.amax(1, keepdim=True)
    running = torch.maximum(m, tile)
    new = {"running": running, "tile": tile, "all": running.max().expand_as(m)}[against]
    shrink, w = (power * (m - new)).exp(), (s - new).exp()
    total = shrink * total if "total" in shrunk else total
    output = shrink * output if "output" in shrunk else output
    return new, total + w.sum(1, keepdim=True), output + w @ v


def _unshifted(m, total, output, s, v):
    return m, total + s.exp().sum(1, keepdim=True), output + s.exp() @ v


@attend_in_tiles.slip("""
    The sum is shrunk, the output is not. Both are sums of terms measured against the old maximum: the same
    factor belongs to both.""")
def _output_not_shrunk(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=("total",)))


@attend_in_tiles.slip("""
    The output is shrunk, the sum is not. Both are sums of terms measured against the old maximum: the same
    factor belongs to both.""")
def _sum_not_shrunk(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=("output",)))


@attend_in_tiles.slip("""
    Neither the sum nor the output is shrunk when the maximum grows, so the keys of earlier tiles count too
    much. The factor is `(largest - new).exp()`.""")
def _neither_shrunk(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=()))


@attend_in_tiles.slip("""
    Each tile is measured by its own maximum and then simply added. Terms measured against different maxima
    cannot be added: keep a running one, and shrink what is there when it grows.""")
def _each_by_its_own(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=(), against="tile"))


@attend_in_tiles.slip("""
    Your maximum is that of the current tile, not the largest so far. Where a tile lies lower than the one
    before, the factor is larger than 1, and for scores in the hundreds infinite: `torch.maximum(largest,
    ...)`.""")
def _maximum_of_the_tile(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, against="tile"))


@attend_in_tiles.slip("""
    You have one maximum for all queries. A query whose scores lie far below it has only zeros left, and 0 / 0
    is NaN: `amax(dim=1, keepdim=True)`, a maximum for each.""")
def _one_maximum_for_all(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, against="all"))


@attend_in_tiles.slip("""
    You shrink twice: the factor is squared. Perhaps the old maximum is overwritten before the output gets its
    factor, or the factor is applied in two places.""")
def _shrunk_twice(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, power=2))


@attend_in_tiles.slip("""
    All is NaN, from the first tile on. At the start the maximum is minus infinity: the weights need the *new*
    maximum, `(scores - new).exp()`, and the factor is e to the power of (old - new), not of (new - old).""")
def _not_a_number_at_once(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, power=-1))


@attend_in_tiles.slip("""
    Your maximum starts at 0, so it never falls below. A query whose scores all lie hundreds below 0 has only
    zeros left, and 0 / 0 is NaN: start at minus infinity.""")
def _starts_at_zero(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda m, *a: _step(m.clamp(min=0.0), *a))


@attend_in_tiles.slip("""
    The factor is made with the maximum of the tile. What is there must come under the running maximum, the
    larger one of the old and the tile's: `(largest - new).exp()`.""")
def _factor_of_the_tile(q, k_tiles, v_tiles):
    def update(m, total, output, s, v):
        new, shrink = torch.maximum(m, s.amax(1, keepdim=True)), (m - s.amax(1, keepdim=True)).exp()
        w = (s - new).exp()
        return new, shrink * total + w.sum(1, keepdim=True), shrink * output + w @ v

    return _walk(q, k_tiles, v_tiles, update)


@attend_in_tiles.slip("""
    The weights are made with the maximum of the tile. Where an earlier tile holds the larger one, they are
    measured against something else than what is there: subtract the running maximum.""")
def _weights_of_the_tile(q, k_tiles, v_tiles):
    def update(m, total, output, s, v):
        new = torch.maximum(m, s.amax(1, keepdim=True))
        shrink, w = (m - new).exp(), (s - s.amax(1, keepdim=True)).exp()
        return new, shrink * total + w.sum(1, keepdim=True), shrink * output + w @ v

    return _walk(q, k_tiles, v_tiles, update)


@attend_in_tiles.slip("""
    You shrink the new terms as well as the old ones. The new ones are measured against the new maximum from
    the start: only what was there shrinks.""")
def _new_terms_shrunk_too(q, k_tiles, v_tiles):
    def update(m, total, output, s, v):
        new = torch.maximum(m, s.amax(1, keepdim=True))
        shrink, w = (m - new).exp(), (s - new).exp()
        return new, shrink * (total + w.sum(1, keepdim=True)), shrink * (output + w @ v)

    return _walk(q, k_tiles, v_tiles, update)


@attend_in_tiles.slip("""
    No maximum is subtracted. Right for small scores, but `exp` overflows for large ones, and infinity divided
    by infinity is NaN.""")
def _no_maximum(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, _unshifted)


def _softmaxes(q, k_tiles, v_tiles):
    scores = torch.einsum("td,ncd->ntc", q, k_tiles) * q.shape[1] ** -0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True) @ v_tiles  # (N, T, Dh)


@attend_in_tiles.slip("""
    You added up the finished outputs of the tiles. Each of them is an average already; a sum of N averages is
    about N times too large.""")
def _softmaxes_added(q, k_tiles, v_tiles):
    return _softmaxes(q, k_tiles, v_tiles).sum(0)


@attend_in_tiles.slip("""
    You averaged the finished outputs of the tiles. Then a tile of low scores counts as much as one of high
    scores: divide once, at the end, by the sum over all keys.""")
def _softmaxes_averaged(q, k_tiles, v_tiles):
    return _softmaxes(q, k_tiles, v_tiles).mean(0)


@attend_in_tiles.slip("""
    Only the last tile is in your answer: each step writes over the output and the sum of the one before. The
    old ones, shrunk, are added to what is new.""")
def _last_tile_only(q, k_tiles, v_tiles):
    return _softmaxes(q, k_tiles, v_tiles)[-1]


@attend_in_tiles.slip("""
    Only the first tile is in your answer. Does a `return` stand inside the loop?""")
def _first_tile_only(q, k_tiles, v_tiles):
    return _softmaxes(q, k_tiles, v_tiles)[0]


@attend_in_tiles.slip("""
    The division is missing: after the loop, divide the output by the sum.""")
def _not_divided(q, k_tiles, v_tiles):
    def update(m, total, output, s, v):
        m, _, output = _step(m, total, output, s, v)
        return m, torch.ones_like(m), output

    return _walk(q, k_tiles, v_tiles, update)


@attend_in_tiles.slip("""
    You divide the output by the running sum after every tile. From the second tile on, what is already
    divided is added to what is not, and divided again: divide once, after the loop.""")
def _divided_in_the_loop(q, k_tiles, v_tiles):
    m, total, output = q.new_full((len(q), 1), float("-inf")), q.new_zeros(len(q), 1), torch.zeros_like(q)
    for k, v in zip(k_tiles, v_tiles, strict=True):
        m, total, output = _step(m, total, output, q @ k.T * q.shape[1] ** -0.5, v)
        output = output / total
    return output


@attend_in_tiles.slip("""
    The scores are not divided by the root of Dh.""")
def _no_scale(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, _step, 1.0)


@attend_in_tiles.slip("""
    The scores are divided by Dh, and not by its root.""")
def _scaled_without_root(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, _step, 1 / q.shape[1])


@attend_in_tiles.slip("""
    The scores are divided by the root of C, the number of keys in a tile. It should be Dh, the width of a
    query: `q.shape[1]`.""")
def _scaled_by_the_tile(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, _step, k_tiles.shape[1] ** -0.5)


@attend_in_tiles.slip("""
    The sum counts each tile's terms by their mean. It is a sum over keys: `weights.sum(dim=1,
    keepdim=True)`.""")
def _mean_in_the_sum(q, k_tiles, v_tiles):
    def update(m, total, output, s, v):
        new, grown, output = _step(m, total, output, s, v)
        old = (m - new).exp() * total
        return new, old + (grown - old) / s.shape[1], output

    return _walk(q, k_tiles, v_tiles, update)


@attend_in_tiles.crash("""
    The sum or the maximum has lost its axis: (T) does not fit the output (T, Dh). With `keepdim=True` it
    stays, one long: (T, 1).""")
def _axis_lost_before_the_output(q, k_tiles, v_tiles):
    return torch.zeros_like(q) * q.new_zeros(len(q))


@attend_in_tiles.crash("""
    `max(dim=1)` gives two things, the largest entries and where they are. `amax(dim=1, keepdim=True)` gives
    the entries alone.""")
def _max_of_two_things(q, k_tiles, v_tiles):
    return q - q.max(1, keepdim=True)


@attend_in_tiles.crash("""
    `k` of one tile is (C, Dh): it must be turned round, `q @ k.T`, so that the dot products run over Dh.""")
def _keys_not_turned(q, k_tiles, v_tiles):
    return q @ k_tiles[0]


@attend_in_tiles.crash("""
    `amax(dim=1)` has lost its axis: (T) does not fit (T, C). With `keepdim=True` it stays, one long:
    (T, 1).""")
def _axis_lost(q, k_tiles, v_tiles):
    scores = q @ k_tiles[0].T
    return scores - scores.amax(1)


# --- 5 -------------------------------------------------------------------------------------------------


def right_until_it_rises(q, k_tiles, v_tiles):
    """Attend from q (T, Dh) to keys and values that come in tiles (N, C, Dh): an output (T, Dh)."""
    largest = q.new_full((len(q), 1), float("-inf"))
    total = torch.zeros_like(largest)
    output = torch.zeros_like(q)
    for k, v in zip(k_tiles, v_tiles, strict=True):
        scores = q @ k.T / q.shape[1] ** 0.5
        largest = torch.maximum(largest, scores.amax(dim=1, keepdim=True))
        weights = (scores - largest).exp()
        total = total + weights.sum(dim=1, keepdim=True)
        output = output + weights @ v
    return output / total


@chapter.debug(
    broken=right_until_it_rises,
    title="Right, until it rises",
    statement="""
        Somebody has written attention in tiles as in the exercise before. It passed its test, in which each
        query's largest score happened to lie in the first tile. On other data its outputs are wrong: never
        outside the range of the values, but pulled towards those of the *early* keys. The more the scores
        rise from tile to tile, the worse.

        Find what is missing, repair it, and hand the function in.
        """,
    hints=(
        "What does the function do when a tile brings a new largest score? Follow one query with the scores "
        "0 and then 10, one key a tile, on paper.",
        "After the first tile the sum is 1, measured against the maximum 0. Measured against 10 that term is "
        "e to the power of -10. Which line should say so?",
        "Keep the old maximum before you overwrite it: `before, largest = largest, torch.maximum(...)`. The "
        "factor is `(before - largest).exp()`.",
        "Sum and output both need it: they were measured against the same maximum.",
    ),
    axes="T Dh",
    inputs=_tiles_inputs,
    sizes=((2, 2, 3, 4, 1.0, True), *TILES_SIZES[1:]),
    reference=_tiles_reference,
    forbidden=("softmax", "log_softmax", "softmin", "logsumexp", "scaled_dot_product_attention"),
    gradient=False,
)
def right_until_it_rises(q, k_tiles, v_tiles):
    """Attend from q (T, Dh) to keys and values that come in tiles (N, C, Dh): an output (T, Dh)."""
    largest = q.new_full((len(q), 1), float("-inf"))
    total = torch.zeros_like(largest)
    output = torch.zeros_like(q)
    for k, v in zip(k_tiles, v_tiles, strict=True):
        scores = q @ k.T / q.shape[1] ** 0.5
        # What is there was measured against the old maximum, and shrinks if the new one is larger.
        before, largest = largest, torch.maximum(largest, scores.amax(dim=1, keepdim=True))
        shrink = (before - largest).exp()
        weights = (scores - largest).exp()
        total = shrink * total + weights.sum(dim=1, keepdim=True)
        output = shrink * output + weights @ v
    return output / total


@right_until_it_rises.slip("""
    Your function gives what the broken one gave. Follow `total` on paper while the maximum grows from 0 to
    10.""")
def _as_it_was(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=()))


@right_until_it_rises.slip("""
    The sum shrinks now, and the output does not: it needs the same factor. As it is, outputs leave the range
    of the values.""")
def _output_forgotten(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=("total",)))


@right_until_it_rises.slip("""
    The output shrinks now, and the sum does not: it needs the same factor.""")
def _sum_forgotten(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=("output",)))


@right_until_it_rises.slip("""
    Your factor is upside down: e to the power of (new - old maximum) makes what is there larger. It has to
    weigh less, against a larger maximum.""")
def _upside_down(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, power=-1))


@right_until_it_rises.slip("""
    What was written so far is set to 0, or dropped, at every tile: only the last tile counts. It should
    *shrink*, by the factor e to the power of (old - new maximum).""")
def _only_the_last(q, k_tiles, v_tiles):
    return _softmaxes(q, k_tiles, v_tiles)[-1]


@right_until_it_rises.slip("""
    The maximum is now taken of each tile alone, and what is there still does not shrink: terms measured
    against different maxima are added. Keep the running maximum, and multiply by the factor.""")
def _own_maxima(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, shrunk=(), against="tile"))


@right_until_it_rises.slip("""
    You took the maximum out, and with small scores that is right. With large ones `exp` overflows: keep it,
    and shrink what is there when it grows.""")
def _no_maximum_now(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, _unshifted)


@right_until_it_rises.slip("""
    The new terms were given the factor as well. They are measured against the new maximum already: only what
    was there shrinks.""")
def _new_terms_too(q, k_tiles, v_tiles):
    def update(m, total, output, s, v):
        new = torch.maximum(m, s.amax(1, keepdim=True))
        shrink, w = (m - new).exp(), (s - new).exp()
        return new, shrink * (total + w.sum(1, keepdim=True)), shrink * (output + w @ v)

    return _walk(q, k_tiles, v_tiles, update)


@right_until_it_rises.slip("""
    The factor comes a tile too late: what is there is shrunk by what the tile *before* brought. Make this
    tile's factor first, then shrink and add.""")
def _a_tile_too_late(q, k_tiles, v_tiles):
    m = q.new_full((len(q), 1), float("-inf"))
    total, output, shrink = torch.zeros_like(m), torch.zeros_like(q), torch.ones_like(m)
    for k, v in zip(k_tiles, v_tiles, strict=True):
        s = q @ k.T * q.shape[1] ** -0.5
        new = torch.maximum(m, s.amax(1, keepdim=True))
        w = (s - new).exp()
        total, output = shrink * total + w.sum(1, keepdim=True), shrink * output + w @ v
        shrink, m = (m - new).exp(), new
    return output / total


@right_until_it_rises.slip("""
    The factor is squared: it acts twice on what is there. Once is enough.""")
def _twice(q, k_tiles, v_tiles):
    return _walk(q, k_tiles, v_tiles, lambda *a: _step(*a, power=2))


# --- 6 -------------------------------------------------------------------------------------------------


def _edge_inputs(
    rng: np.random.Generator, T: int, S: int, Dh: int, size: int, low: float = 0.0, large: float = 1.0
) -> dict[str, Any]:
    """Keys that leave places free in a tile; ``low``: its square is how far below 0 the scores lie."""
    q, k = large * rng.standard_normal((T, Dh)), rng.standard_normal((S, Dh))
    if low:
        q[:, 0], k[:, 0] = low, -low * (1 + rng.random(S))
    return {"q": q, "k": k, "v": 1 + rng.random((S, Dh)), "size": size}


def _edge_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    return _tiles_reference(q, k[None], v[None])


def pulled_to_zero(q, k, v, size):
    """Attend from q (T, Dh) to k and v (S, Dh), S at most `size`, in one whole tile: an output (T, Dh)."""
    filler = k.new_zeros(size - len(k), k.shape[1])
    k, v = torch.cat([k, filler]), torch.cat([v, filler])
    scores = q @ k.T / q.shape[1] ** 0.5
    weights = (scores - scores.amax(dim=1, keepdim=True)).exp()
    return weights @ v / weights.sum(dim=1, keepdim=True)


@chapter.debug(
    broken=pulled_to_zero,
    title="Pulled towards zero",
    statement="""
        A kernel's tiles have a fixed size. This function shows the last tile of a row: it has room for `size`
        keys, S of them are there, and the rest of keys and values is filled up with rows of zeros. With a
        full tile the function agrees with the formula. Otherwise it does not: every output lies too near to
        0, as if somebody had mixed zeros in.

        The filling-up is to stay, since a kernel needs whole tiles: repair what is done with it. Hand the
        function in.
        """,
    hints=(
        "Print `scores` for 2 keys in a tile of 5. What do the three rows of zeros get?",
        "A key of zeros has the score 0 with every query, and its exponential takes part in the sum. Which "
        "score would make that exponential 0?",
        "Minus infinity. Remember how many keys are real before they are filled up, `n_keys = len(k)`, and "
        "compare: `torch.arange(size) >= n_keys`.",
        "`scores = scores.masked_fill(beyond, float('-inf'))`, before the maximum is taken.",
    ),
    axes="T Dh",
    inputs=_edge_inputs,
    sizes=(
        *((2, 3, 4, 5), (3, 4, 2, 4), (2, 5, 3, 8, 1.5), (4, 1, 2, 3), (3, 6, 4, 7, 3.0)),
        *((3, 2, 5, 9, 0.0, 900.0), (2, 4, 3, 6, 0.0, 400.0), (2, 4, 3, 5, 20.0)),
    ),
    reference=_edge_reference,
    forbidden=("softmax", "log_softmax", "softmin", "logsumexp", "scaled_dot_product_attention"),
    gradient=False,
)
def pulled_to_zero(q, k, v, size):
    """Attend from q (T, Dh) to k and v (S, Dh), S at most `size`, in one whole tile: an output (T, Dh)."""
    beyond = torch.arange(size) >= len(k)  # the places without a key
    filler = k.new_zeros(size - len(k), k.shape[1])
    k, v = torch.cat([k, filler]), torch.cat([v, filler])
    scores = q @ k.T / q.shape[1] ** 0.5
    # A key of zeros has the score 0, and e^0 = 1 would count: only minus infinity keeps it out.
    scores = scores.masked_fill(beyond, float("-inf"))
    weights = (scores - scores.amax(dim=1, keepdim=True)).exp()
    return weights @ v / weights.sum(dim=1, keepdim=True)


def _edge(q, k, v, size, *, filler=0.0, fill_v=0.0, hide=None, off=0):
    """With other fillers; ``hide``: the score of those beyond the last key; ``off``: from which key on."""
    beyond, missing = torch.arange(size) >= len(k) + off, size - len(k)
    k, v = F.pad(k, (0, 0, 0, missing), value=filler), F.pad(v, (0, 0, 0, missing), value=fill_v)
    scores = q @ k.T * q.shape[1] ** -0.5
    if hide is not None:
        scores = scores.masked_fill(beyond, hide)
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return weights @ v / weights.sum(1, keepdim=True)


@pulled_to_zero.slip("""
    Your function gives what the broken one gave. Which score has a key of zeros, and what is its exponential?
    """)
def _zeros_still_count(q, k, v, size):
    return _edge(q, k, v, size)


@pulled_to_zero.slip("""
    You set the scores beyond the last key to -1. They count less, but they count: minus infinity is what
    makes them nothing.""")
def _hidden_with_minus_one(q, k, v, size):
    return _edge(q, k, v, size, hide=-1.0)


@pulled_to_zero.slip("""
    You set the scores beyond the last key to -100. Where the real scores lie far below that, the rows of
    zeros take everything: minus infinity is below all of them.""")
def _hidden_with_minus_hundred(q, k, v, size):
    return _edge(q, k, v, size, hide=-100.0)


@pulled_to_zero.slip("""
    One key too many is hidden: the last real one. The keys have the places 0 to S - 1, so those *from* S on
    are beyond.""")
def _one_too_many(q, k, v, size):
    return _edge(q, k, v, size, hide=float("-inf"), off=-1)


@pulled_to_zero.slip("""
    One key too few is hidden: the first row of zeros still counts. The keys have the places 0 to S - 1, so
    those from S on are beyond, S itself included: `>=`.""")
def _one_too_few(q, k, v, size):
    return _edge(q, k, v, size, hide=float("-inf"), off=1)


@pulled_to_zero.slip("""
    The real keys are hidden, and the rows of zeros are left: `masked_fill` fills where the mask is True, and
    True must stand *beyond* the last key.""")
def _real_keys_hidden(q, k, v, size):
    beyond, missing = torch.arange(size) >= len(k), size - len(k)
    k, v = F.pad(k, (0, 0, 0, missing)), F.pad(v, (0, 0, 0, missing))
    scores = (q @ k.T * q.shape[1] ** -0.5).masked_fill(~beyond, float("-inf"))
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return weights @ v / weights.sum(1, keepdim=True)


@pulled_to_zero.slip("""
    You fill up with ones in place of zeros. Then the sum of the query's entries is their score, and they
    count as well: whatever the rows hold, their scores must be minus infinity.""")
def _filled_with_ones(q, k, v, size):
    return _edge(q, k, v, size, filler=1.0, fill_v=1.0)


@pulled_to_zero.slip("""
    You fill the keys up with minus infinity. Times a query's negative entry that is plus infinity, and a sum
    of both is NaN: it is the *scores* that must be minus infinity.""")
def _filled_with_infinity(q, k, v, size):
    return _edge(q, k, v, size, filler=float("-inf"))


@pulled_to_zero.slip("""
    You fill the keys up with large negative numbers. A query's negative entries make large *positive* scores
    of them: it is the scores that must be minus infinity.""")
def _filled_with_large_negatives(q, k, v, size):
    return _edge(q, k, v, size, filler=-1e4)


@pulled_to_zero.slip("""
    You took the number of filled rows from the sum, as if each had the weight 1. Their weight is e to the
    power of (0 - maximum), another one in each row. Hide their scores instead.""")
def _sum_lowered_by_the_count(q, k, v, size):
    missing = size - len(k)
    scores = q @ F.pad(k, (0, 0, 0, missing)).T * q.shape[1] ** -0.5
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return weights @ F.pad(v, (0, 0, 0, missing)) / (weights.sum(1, keepdim=True) - missing)


@pulled_to_zero.slip("""
    You scaled the output by the share of real keys. The rows of zeros do not weigh the same everywhere: how
    much they took depends on each query's scores. Hide their scores instead.""")
def _scaled_by_the_share(q, k, v, size):
    return _edge(q, k, v, size) * size / len(k)


@pulled_to_zero.slip("""
    You filled the values up with their mean, which pulls every output to the middle instead of to 0. The
    rows of zeros should not count at all: hide their scores.""")
def _values_filled_with_the_mean(q, k, v, size):
    missing = size - len(k)
    scores = q @ F.pad(k, (0, 0, 0, missing)).T * q.shape[1] ** -0.5
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    filled = torch.cat([v, v.mean(0).expand(missing, -1)])
    return weights @ filled / weights.sum(1, keepdim=True)


# --- 7 -------------------------------------------------------------------------------------------------


def _counts(
    rng: np.random.Generator, n_queries: int, n_keys: int, block_q: int, block_k: int
) -> dict[str, Any]:
    return {"n_queries": n_queries, "n_keys": n_keys, "block_q": block_q, "block_k": block_k}


def _needed_reference(n_queries: int, n_keys: int, block_q: int, block_k: int) -> np.ndarray:
    """Whether any query of the tile sees any of its keys, pair by pair."""
    out = np.zeros((-(-n_queries // block_q), -(-n_keys // block_k)), dtype=bool)
    for i, j in np.ndindex(n_queries, n_keys):
        out[i // block_q, j // block_k] |= j <= i + n_keys - n_queries
    return out


@chapter.implement(
    title="Tiles that nobody needs",
    statement="""
        A causal mask hides each query's future; the last of `n_queries` queries stands at the last of
        `n_keys` keys. The table of scores is cut into tiles of `block_q` queries and `block_k` keys; the last
        tile in each direction may be smaller.

        Which tiles have to be computed? Return a table of booleans with a row for each block of queries and a
        column for each block of keys: True if at least one query of the block sees at least one of the keys.
        """,
    hints=(
        "Draw 4 queries and 4 keys with tiles of 2 by 2. Three tiles are needed, one is not: why?",
        "Of a block of queries the *last* one sees the most; of a block of keys the *first* one is seen by "
        "the most. It is enough to ask about these two.",
        "The first keys of the blocks are `torch.arange(0, n_keys, block_k)`; in the same way you get the "
        "first queries, and the last one of a block is `block_q - 1` further.",
        "Query i stands at position `i + n_keys - n_queries`, and sees the keys up to there. Compare all "
        "pairs: `keys[None, :] <= positions[:, None]`.",
    ),
    axes="query-blocks key-blocks",
    inputs=_counts,
    sizes=((4, 4, 2, 2), (6, 6, 2, 3), (3, 8, 2, 3), (7, 5, 2, 2), (2, 9, 1, 4), (9, 10, 4, 3), (5, 5, 5, 1)),
    probes=((9, 9, 3, 1), (8, 12, 3, 2), (6, 3, 1, 2), (12, 12, 4, 3)),
    reference=_needed_reference,
    gradient=False,
)
def tiles_to_compute(n_queries, n_keys, block_q, block_k):
    """Which tiles a causal mask leaves to compute: booleans (query-blocks, key-blocks)."""
    # The first key of a block is the one that most queries see.
    keys = torch.arange(0, n_keys, block_k)
    # The last query of a block sees the most; query i stands at the position i + n_keys - n_queries.
    positions = torch.arange(0, n_queries, block_q) + block_q - 1 + n_keys - n_queries
    return keys[None, :] <= positions[:, None]


def _needed(n_queries, n_keys, block_q, block_k, *, query=None, key=0, first=None):
    """``query``, ``key``: which one of a block is asked; ``first``: where query 0 stands."""
    query = block_q - 1 if query is None else query
    first = n_keys - n_queries if first is None else first
    keys = torch.arange(0, n_keys, block_k) + key
    positions = torch.arange(0, n_queries, block_q) + query + first
    return keys[None, :] <= positions[:, None]


@tiles_to_compute.slip("""
    The mask begins at the top left in your answer: query i is compared with key i. The *last* query stands at
    the last key, so query i stands at i + n_keys - n_queries.""")
def _top_left(*n):
    return _needed(*n, first=0)


@tiles_to_compute.slip("""
    You asked the first query of each block. The later ones see more: a tile is needed if any of them sees
    anything of it, and the last one sees the most.""")
def _first_query(*n):
    return _needed(*n, query=0)


@tiles_to_compute.slip("""
    You asked about the last key of each block. That finds the tiles whose last key is seen by the last query;
    a tile is needed as soon as its *first* key is seen.""")
def _last_key(*n):
    return _needed(*n, key=n[3] - 1)


@tiles_to_compute.slip("""
    These are the tiles that are seen *whole*, by all their queries. Asked for are those of which any query
    sees any key: compare the block's last query with its first key.""")
def _whole_only(*n):
    return _needed(*n, query=0, key=n[3] - 1)


@tiles_to_compute.slip("""
    A query sees its own key, too. Where the first key of a block lies just at the position of the last query,
    the tile is needed: `<=`.""")
def _strictly_before(*n):
    return _needed(*n, key=1)


@tiles_to_compute.slip("""
    You compared where the blocks begin, the first key with the first query. Two things are missing: the last
    query of a block sees more than the first one; and query i stands at position i + n_keys - n_queries.""")
def _where_blocks_begin(*n):
    return _needed(*n, query=0, first=0)


@tiles_to_compute.slip("""
    True and False are exchanged: these are the tiles that may be skipped.""")
def _skipped(*n):
    return ~_needed(*n)


@tiles_to_compute.slip("""
    Rows and columns are exchanged: a row for each block of queries, a column for each block of keys.""")
def _turned(*n):
    return _needed(*n).T


@tiles_to_compute.slip("""
    You compared the numbers of the blocks. Blocks of queries and blocks of keys are not equally large, and
    the mask may begin elsewhere: compare positions, `block number * block_k` with the position of the last
    query.""")
def _block_numbers(n_queries, n_keys, block_q, block_k):
    blocks_q, blocks_k = -(-n_queries // block_q), -(-n_keys // block_k)
    return torch.ones(blocks_q, blocks_k, dtype=torch.bool).tril()


@tiles_to_compute.slip("""
    You compared the numbers of the blocks, with the last block of queries at the last block of keys. Blocks
    are not equally large: compare positions, `block number * block_k` with the position of the last
    query.""")
def _block_numbers_from_the_end(n_queries, n_keys, block_q, block_k):
    blocks_q, blocks_k = -(-n_queries // block_q), -(-n_keys // block_k)
    return torch.ones(blocks_q, blocks_k, dtype=torch.bool).tril(blocks_k - blocks_q)


@tiles_to_compute.slip("""
    Your answer is the mask itself, a row for each query and a column for each key. Asked for is one boolean
    for each tile.""")
def _the_mask(n_queries, n_keys, block_q, block_k):
    return torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)


@tiles_to_compute.slip("""
    The last, smaller tiles are missing: `n // block` leaves the rest out. Round up, `-(-n // block)`, or use
    `torch.arange(0, n, block)`.""")
def _rest_left_out(n_queries, n_keys, block_q, block_k):
    return _needed(n_queries, n_keys, block_q, block_k)[: n_queries // block_q, : n_keys // block_k]


@tiles_to_compute.slip("""
    The block sizes are exchanged: `block_q` belongs to the queries, `block_k` to the keys.""")
def _sizes_exchanged(n_queries, n_keys, block_q, block_k):
    return _needed(n_queries, n_keys, block_k, block_q)


@tiles_to_compute.slip("""
    The offset has the wrong sign: with more keys than queries the queries stand *later*, at i + n_keys -
    n_queries.""")
def _offset_turned(n_queries, n_keys, block_q, block_k):
    return _needed(n_queries, n_keys, block_q, block_k, first=n_queries - n_keys)


@tiles_to_compute.slip("""
    All tiles are True: nothing is skipped. A causal mask leaves whole tiles in which no query sees
    anything.""")
def _all_of_them(n_queries, n_keys, block_q, block_k):
    return torch.ones_like(_needed(n_queries, n_keys, block_q, block_k))


@tiles_to_compute.slip("""
    One position too far: the last query of a block is `block_q - 1` behind the first one.""")
def _one_too_far(*n):
    return _needed(*n, query=n[2])


# --- 8 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="What fits into fast memory",
    statement="""
        Each processor of a graphics card has 192 KiB of fast memory, which is 192 times 1024 bytes. A kernel
        wants to hold there, at the same time: a block of b queries and b rows of the output, and a tile of b
        keys and of b values; all of these 128 numbers wide, 2 bytes each. And the b by b scores of the tile,
        4 bytes each. Block sizes are powers of 2.

        Before you run anything: what is the largest b?
        """,
    hints=(
        "Four tables of b rows, 128 numbers, 2 bytes: how many bytes for each b?",
        "4 times 128 times 2 is 1024, so the four tables take exactly b KiB. The scores take 4 times b "
        "times b bytes.",
        "Try b = 64, 128 and 256. For b = 128 the tables take 128 KiB; and the scores?",
    ),
    expected=128.0,
    wrong={
        256.0: "With 256 rows the four tables alone take 256 KiB. Did you count numbers, where a number has "
        "two bytes, and those of the scores four?",
        64.0: "64 fits, with room to spare: 64 KiB for the tables and 16 KiB for the scores. The next power "
        "of 2 fits as well, exactly.",
        192.0: "Without the scores 192 rows would fit, though that is no power of 2. The tile of scores "
        "needs a place too.",
        384.0: "That would be two tables of b rows. There are four, queries, output, keys and values, and "
        "the scores beside them.",
        32.0: "32 fits many times over. Four tables take b KiB, the scores 4 b b bytes: go on doubling.",
        512.0: "The four tables alone would take 512 KiB. Each row of the four takes 1024 bytes together.",
    },
    otherwise="Not that number. The four tables take 4 x b x 128 x 2 bytes, the scores b x b x 4; try the "
    "powers of 2.",
    form="one number",
)
def what_fits():
    """128 KiB for the four tables and 64 KiB for the scores: full to the last byte. With blocks twice as tall
    and tiles half as wide the count would be another one: the scores then take as much as before.
    """
    fits = [b for b in (2**i for i in range(12)) if 4 * b * 128 * 2 + b * b * 4 <= 192 * 1024]  # powers of 2
    return float(max(fits))


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="What moves",
    statement="""
        One head, 4096 tokens, queries, keys, values and output 128 numbers wide, 2 bytes a number: each of
        the four tables is 1 MiB large. The kernel takes blocks of 128 queries, one after the other. Each
        block is read once; while it stays, all keys and all values come by; its output is written once. No
        mask.

        Before you run anything: how many MiB move between slow and fast memory, all in all?
        """,
    hints=(
        "How many blocks of queries are there?",
        "4096 / 128 = 32. How many MiB of keys and values come by for each of them?",
        "32 times 2 MiB, and the queries and the output once each.",
    ),
    expected=66.0,
    wrong={
        64.0: "That is what keys and values make, 32 times 2 MiB. The queries come in once, too, and the "
        "output goes out.",
        65.0: "Nearly. Two tables move once: the queries come in, and the output goes out.",
        34.0: "You let only one of the two come by, the keys or the values. Each block of queries needs "
        "both.",
        33.0: "Either the two bytes of a number are missing, or keys or values. It is 32 blocks, 2 MiB for "
        "each, and two tables that move once.",
        4.0: "So it would be if the fast memory held everything at once. Keys and values come by again for "
        "each of the 32 blocks of queries.",
        132.0: "That is the formula's count: 4 MiB for the four tables, and 32 MiB four times for scores and "
        "weights, out and in. In tiles the table never moves.",
        98.0: "That is the order of 2022, with the keys outside: for each of 32 tiles of keys the queries "
        "come in, and the output in and out. Here the queries are outside.",
        128.0: "You counted 4 MiB for each of the 32 blocks. Of queries and output only the block's own rows "
        "move; all of the keys and values do.",
        8192.0: "Each *block* of queries lets the keys and values come by, not each query.",
    },
    otherwise="Not that number. Count table by table: the queries once, the output once, the keys and the "
    "values once for each block of queries.",
    form="one number",
)
def what_moves():
    """1 + 1 for queries and output, and 2 for each of 32 blocks. The formula moves 132 MiB: 4 for the tables,
    and scores and weights, 32 MiB each, go out and come in. Blocks twice as tall would halve the 64.
    """
    n, width, block, size = 4096, 128, 128, 2
    table = n * width * size / 2**20
    return 2 * table + n // block * 2 * table


# --- 10 ------------------------------------------------------------------------------------------------


def _scores_backward_inputs(
    rng: np.random.Generator, T: int, S: int, Dh: int, high: float = 0.0
) -> dict[str, Any]:
    scores = 2 * rng.standard_normal((T, S)) + high
    v, grad = rng.standard_normal((S, Dh)), rng.standard_normal((T, Dh))
    largest = scores.max(-1)
    exponentials = np.exp(scores - largest[:, None])
    total = exponentials.sum(-1)
    output = exponentials / total[:, None] @ v
    return {"scores": scores, "logs": largest + np.log(total), "v": v, "output": output, "grad": grad}


def _scores_backward_reference(
    scores: np.ndarray, logs: np.ndarray, v: np.ndarray, output: np.ndarray, grad: np.ndarray
) -> np.ndarray:
    """Row by row, the whole table of derivatives of a softmax: weight_i (1 if i = j, else 0 - weight_j)."""
    out = np.zeros_like(scores)
    for t, row in enumerate(scores):
        weights = np.exp(row - row.max())
        weights /= weights.sum()
        table = np.diag(weights) - np.outer(weights, weights)  # (S, S)
        out[t] = table @ (v @ grad[t])
    return out


@chapter.implement(
    title="The way back through the softmax",
    statement=r"""
        The way back of FlashAttention, for the scores. Of T queries and S keys there are: the `scores` (T,
        S); of each row the logarithm of the sum of their exponentials, `logs` (T); the values, `v` (S, Dh);
        the `output` (T, Dh) of the way forward; and `grad` (T, Dh), what came back for it: how the loss
        changes with each entry of the output.

        Return how the loss changes with each score, (T, S):

        $$\text{weight}_{ij} \cdot (\text{grad}_i \cdot v_j - \delta_i), \qquad \delta_i = \text{grad}_i \cdot
        \text{output}_i, \qquad \text{weight}_{ij} = e^{\,\text{score}_{ij} - \text{log}_i}$$

        The dots between rows are dot products. The scores are taken as they are: no $\sqrt{D_h}$. Autograd is
        off limits, you are doing its work.
        """,
    hints=(
        "First the weights, made again from the scores: `logs[:, None]` is (T, 1).",
        "The dot products of all rows of `grad` with all rows of `v` are one matrix product, (T, S): "
        "`grad @ v.T`.",
        "Delta is one number a row: multiply `grad` and `output` entry by entry and sum along the row, with "
        "`keepdim=True`.",
        "To check yourself: each row of the answer sums to 0, for adding a number to all scores of a row "
        "changes nothing.",
    ),
    axes="T S",
    inputs=_scores_backward_inputs,
    sizes=((2, 3, 4), (3, 5, 2, 100.0), (4, 2, 3), (1, 4, 5, -200.0), (3, 6, 2)),
    reference=_scores_backward_reference,
    forbidden=(
        "backward",
        "grad",
        "autograd",
        "vjp",
        "jacobian",
        "jacrev",
        "jacfwd",
        "softmax_backward_data",
    ),
    gradient=False,
)
def scores_backward(scores, logs, v, output, grad):
    """From scores (T, S), logs (T,), v (S, Dh), output and grad (T, Dh) to the scores' gradient (T, S)."""
    # Made again, not kept: this is what logs are for.
    weights = (scores - logs[:, None]).exp()
    # How the loss would change with each weight, if weights were free.
    grad_weights = grad @ v.T
    # But a row's weights sum to 1: what one gains, the others lose. Of the others, this one number is enough.
    delta = (grad * output).sum(dim=1, keepdim=True)
    return weights * (grad_weights - delta)


def _back(scores, logs, v, output, grad, *, weights=None, delta=None, product=None):
    weights = (scores - logs[:, None]).exp() if weights is None else weights
    delta = (grad * output).sum(1, keepdim=True) if delta is None else delta
    product = grad @ v.T if product is None else product
    return weights * (product - delta)


@scores_backward.slip("""
    Delta is missing. Then a weight changes and the others do not make up for it: the rows of your answer do
    not sum to 0.""")
def _no_delta(*given):
    return _back(*given, delta=0.0)


@scores_backward.slip("""
    The sign is turned: it is grad . v minus delta, and yours is delta minus grad . v.""")
def _sign_turned(*given):
    return -_back(*given)


@scores_backward.slip("""
    You added delta. It is what the row's other weights lose: subtract it.""")
def _delta_added(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, delta=-(grad * output).sum(1, keepdim=True))


@scores_backward.slip("""
    The weights are missing: each difference is multiplied by the weight of its key.""")
def _no_weights(*given):
    return _back(*given, weights=1.0)


@scores_backward.slip("""
    Your weights are exponentials of bare scores. Subtract the row's log first; then they sum to 1.""")
def _weights_not_divided(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, weights=scores.exp())


@scores_backward.slip("""
    Your weights are e to the power of (score - largest score). They lack the division by the sum, which is in
    `logs`: subtract `logs`.""")
def _weights_over_the_maximum(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, weights=(scores - scores.amax(1, keepdim=True)).exp())


@scores_backward.slip("""
    You divided the exponentials by `logs`. `logs` is the logarithm of the sum: subtract it from the scores
    before `exp`, and the division is done.""")
def _divided_by_the_log(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, weights=scores.exp() / logs[:, None])


@scores_backward.slip("""
    You added `logs` to the scores. It stands below the line, so it is subtracted.""")
def _log_added(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, weights=(scores + logs[:, None]).exp())


@scores_backward.slip("""
    Your weights sum to 1 down the columns. It is each query's row that sums to 1: `logs` has a number a
    row.""")
def _weights_down_the_columns(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, weights=scores.softmax(0))


@scores_backward.slip("""
    Your weights sum to 1 down the columns, and delta is made of them. It is each query's row that sums to 1:
    `softmax(dim=1)`, or `logs`.""")
def _all_down_the_columns(scores, logs, v, output, grad):
    weights, product = scores.softmax(0), grad @ v.T
    return weights * (product - (weights * product).sum(1, keepdim=True))


@scores_backward.slip("""
    Delta is a mean over the Dh entries in your answer. A dot product is a sum.""")
def _delta_a_mean(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, delta=(grad * output).mean(1, keepdim=True))


@scores_backward.slip("""
    You have one delta for all rows. Each row has its own: sum along the row, `dim=1`, with
    `keepdim=True`.""")
def _one_delta_for_all(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, delta=(grad * output).sum())


@scores_backward.slip("""
    Delta is the sum of `grad` alone. It is the dot product of `grad` with the `output` of the row.""")
def _delta_of_grad_alone(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, delta=grad.sum(1, keepdim=True))


@scores_backward.slip("""
    Delta is the sum of `output` alone. It is the dot product of `grad` with it.""")
def _delta_of_output_alone(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, delta=output.sum(1, keepdim=True))


@scores_backward.slip("""
    Delta is the plain mean of grad . v over the keys. It is their *weighted* mean, which is grad .
    output.""")
def _unweighted_mean(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, delta=(grad @ v.T).mean(1, keepdim=True))


@scores_backward.slip("""
    Delta is the plain sum of grad . v over the keys. Each counts with its weight, and that sum is grad .
    output.""")
def _unweighted_sum(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, delta=(grad @ v.T).sum(1, keepdim=True))


@scores_backward.slip("""
    You multiplied `output` with the values. It is the gradient that is multiplied with them: `grad @
    v.T`.""")
def _output_for_grad(scores, logs, v, output, grad):
    return _back(scores, logs, v, output, grad, product=output @ v.T)


@scores_backward.slip("""
    That is the slope of a sigmoid, weight times (1 - weight): how a weight changes with its *own* score. A
    score changes all weights of its row, and delta says how much.""")
def _own_weight_only(scores, logs, v, output, grad):
    weights = (scores - logs[:, None]).exp()
    return weights * (1 - weights) * (grad @ v.T)


@scores_backward.slip("""
    You divided by the root of Dh. That belongs to the way from the scores back to queries and keys; here the
    scores are taken as they are.""")
def _scaled(*given):
    return _back(*given) * given[2].shape[1] ** -0.5


@scores_backward.slip("""
    These are the gradients of the weights, grad . v. The scores are one step further back: through the
    softmax.""")
def _of_the_weights(scores, logs, v, output, grad):
    return grad @ v.T


@scores_backward.slip("""
    Only the product got its weight: * comes before -. Put brackets around the difference.""")
def _no_brackets(scores, logs, v, output, grad):
    weights = (scores - logs[:, None]).exp()
    return weights * (grad @ v.T) - (grad * output).sum(1, keepdim=True)


@scores_backward.crash("""
    Delta or `logs` has lost its axis: (T) does not fit (T, S). With `keepdim=True`, or as `logs[:, None]`,
    it is (T, 1).""")
def _axis_lost_on_the_way(scores, logs, v, output, grad):
    return scores - logs


@scores_backward.crash("""
    `grad` is (T, Dh) and `v` is (S, Dh): their dot products run over Dh, so `v` must be turned round,
    `grad @ v.T`.""")
def _values_not_turned(scores, logs, v, output, grad):
    return grad @ v


# --- 11 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="Where sums lose their digits",
    statement="""
        Measure what section 5 showed: how far attention in bfloat16 is from the truth when its running sums
        are bfloat16 too. Draw `torch.randn` queries (64, 64), keys (512, 64) and values (512, 64), and make
        them bfloat16. The truth is the formula in float64, `attention(q.double(), k.double(),
        v.double())[0]`, of these *rounded* numbers.

        Take the mean of the absolute difference over all entries of the output, over at least ten draws,
        times 1000, and report three of them: for `by_tiles(q, k, v, 64, 1)[0]` of section 4, one key in a
        tile; for `by_tiles(q, k, v, 64, 64)[0]`; and for the formula in bfloat16, `attention(q, k, v)[0]`.
        """,
    hints=(
        "One draw: `q, k, v = (torch.randn(n, 64).bfloat16() for n in (64, 512, 512))`.",
        "The error of an output: `1000 * (output.double() - truth).abs().mean().item()`.",
        "Collect three numbers for each draw in a list, and average each of the three at the end: "
        "`torch.tensor(rows).mean(dim=0)`.",
    ),
    ranges={"tiles of 1": (7.3, 8.7), "tiles of 64": (0.33, 0.41), "formula": (0.205, 0.262)},
    slips={
        "The three numbers are the other way round: first tiles of 1, then tiles of 64, then the formula.": (
            (0.205, 0.262),
            (0.33, 0.41),
            (7.3, 8.7),
        ),
        "The truth was computed from the numbers before they were rounded. Then the error of rounding q, k "
        "and v is in all three: make them bfloat16 first, and take `.double()` of those.": (
            (7.3, 8.7),
            (0.411, 0.45),
            (0.27, 0.31),
        ),
        "These are largest errors. Asked for is the mean over all entries.": (
            (40.0, 75.0),
            (2.0, 4.5),
            (1.4, 3.2),
        ),
        "These are errors of float16, which has three binary digits more than bfloat16.": (
            (0.19, 0.25),
            (0.04, 0.056),
            (0.024, 0.035),
        ),
        "These are errors of float32. Make q, k and v bfloat16 before you call anything.": (
            (1e-5, 6e-5),
            (1e-5, 6e-5),
            (1e-5, 6e-5),
        ),
        "All three are near 0: everything ran in float64. Make q, k and v bfloat16 first.": (
            (0.0, 1e-9),
            (0.0, 1e-9),
            (0.0, 1e-9),
        ),
        "The factor 1000 is missing.": ((0.0073, 0.0087), (0.00033, 0.00041), (0.000205, 0.000262)),
        "That is with 256 keys; take 512. (With fewer keys the sum hardly reaches the point where it stops "
        "growing.)": ((2.9, 3.9), (0.43, 0.53), (0.29, 0.36)),
        "The running sums were float32: that is the package's `flash_attention`. Use `by_tiles` of section "
        "4.": (
            (0.07, 0.2),
            (0.07, 0.2),
            (0.205, 0.262),
        ),
    },
    at_most=(
        200.0,
        "So large an error is more than the outputs themselves: were the same q, k and v used for the truth?",
    ),
    otherwise="Not in the range. Check: bfloat16 everywhere but in the truth, 512 keys of width 64, the "
    "mean of the absolute differences, times 1000, and the order of the three.",
)
def where_sums_lose_digits():
    """With one key in a tile the sum grows by one small term at a time, and bfloat16 loses them: the error is
    twenty times that of tiles of 64, where most of the adding happens inside a product. With the sums in
    float32, as the package keeps them, tiles come out nearer to the truth than the formula.
    """
    random = torch.Generator().manual_seed(0)

    def in_tiles(q, k, v, size):
        largest, total, output = (
            q.new_full((len(q), 1), float("-inf")),
            q.new_zeros(len(q), 1),
            q.new_zeros(q.shape),
        )
        for start in range(0, len(k), size):
            scores = q @ k[start : start + size].T * q.shape[1] ** -0.5
            before, largest = largest, torch.maximum(largest, scores.amax(dim=1, keepdim=True))
            shrink, weights = (before - largest).exp(), (scores - largest).exp()
            total = shrink * total + weights.sum(dim=1, keepdim=True)
            output = shrink * output + weights @ v[start : start + size]
        return output / total

    def formula(q, k, v):
        return (q @ k.T * q.shape[1] ** -0.5).softmax(dim=-1) @ v

    errors = []
    for _ in range(10):
        q, k, v = (torch.randn(n, 64, generator=random).bfloat16() for n in (64, 512, 512))
        truth = formula(q.double(), k.double(), v.double())
        outputs = in_tiles(q, k, v, 1), in_tiles(q, k, v, 64), formula(q, k, v)
        errors.append([1000 * (output.double() - truth).abs().mean().item() for output in outputs])
    return tuple(torch.tensor(errors).mean(dim=0).tolist())
