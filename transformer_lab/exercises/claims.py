"""Exercises of the chapter "Every claim, put to the test", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

from typing import Any

import numpy as np
import torch

from .check import Chapter

chapter = Chapter("claims", "Every claim, put to the test")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="A number that needs four others",
    statement="""
        A training run keeps 10,000 accelerators busy for 10 days. Each draws 400 watts, with its share of the
        machine around it. The building's overhead, its PUE, is 1.25.

        Before you run anything: how many megawatt-hours is that?
        """,
    hints=(
        "How many hours are 10 days? And how many hours of one accelerator is that, all of them together?",
        "2,400,000 hours of one accelerator. Each hour of one takes 0.4 kilowatt-hours.",
        "A megawatt-hour is 1,000 kilowatt-hours. The PUE multiplies what the machines draw.",
    ),
    expected=1200.0,
    wrong={
        960.0: "That is what the machines draw. The building draws a quarter more: multiply by the PUE.",
        768.0: "You divided by the PUE. It says how much more the building draws than the machines: "
        "multiply.",
        1200000.0: "The right energy, in kilowatt-hours. A megawatt-hour is a thousand of them.",
        1.2: "The right energy, in gigawatt-hours. Megawatt-hours are asked for.",
        50.0: "You took 10 hours in place of 10 days: 10 days are 240 hours.",
        0.12: "You counted one accelerator. There are 10,000 of them.",
        240.0: "You added a quarter of the draw only. The building draws all of it, and a quarter more.",
    },
    otherwise="Not that number. Accelerators times hours, times kilowatts, times PUE; and a thousand "
    "kilowatt-hours are a megawatt-hour.",
    form="one number",
)
def megawatt_hours():
    """1,200: about what is estimated for GPT-3. With a PUE of 1.1 it would be 1,056, and with 300 watts a
    quarter less: who gives such a number without its four inputs has given nothing that can be checked.
    """
    return 10_000 * 10 * 24 * 0.4 * 1.25 / 1000


# --- 2 -------------------------------------------------------------------------------------------------


def _models(rng: np.random.Generator, N: int) -> dict[str, Any]:
    def whole(low: int, high: int) -> np.ndarray:
        return rng.integers(low, high, N)

    return {
        "width": whole(3, 60),
        "hidden": whole(5, 200),
        "layers": whole(2, 12),
        "vocabulary": whole(20, 400),
        "positions": whole(7, 90),
    }


def _built_up(width, hidden, layers, vocabulary, positions):
    """Matrix by matrix."""
    totals = []
    for D, F, L, V, P in zip(width, hidden, layers, vocabulary, positions, strict=True):
        shapes = [(V, D), (P, D), (D,), (D,)]
        for _ in range(L):
            shapes += [(D, D), (D,)] * 4 + [(D, F), (F,), (F, D), (D,)] + [(D,)] * 4
        totals.append(sum(int(np.prod(shape)) for shape in shapes))
    return np.array(totals)


@chapter.implement(
    title="Count the weights of GPT",
    statement="""
        Five rows of N whole numbers describe N models built like GPT-2 and GPT-3: `width` D, `hidden` F,
        `layers` L, `vocabulary` V and `positions` P. Count the weights of each, N whole numbers:

        - a table of V rows and one of P rows, each row D numbers; the scores are made with the first again;
        - in each layer four matrices (D, D), a matrix (D, F) and one (F, D), each with its bias, and two
          norms of 2 D numbers;
        - one norm more at the end.

        For GPT-3 (12288, 49152, 96, 50257, 2048) that is 174,604,259,328.
        """,
    hints=(
        "By hand, with D = 2 and F = 3: attention 4 · 4 + 4 · 2 = 24, feed-forward 2 · 6 + 3 + 2 = 17, "
        "norms 8. "
        "So a layer has 49.",
        "A bias has as many numbers as its matrix makes: D for each of the four and for the last, F for the "
        "one in the middle.",
        "A layer: `4 * width**2 + 4 * width + 2 * width * hidden + hidden + width + 4 * width`.",
        "All: `layers` times that, plus `(vocabulary + positions) * width`, plus `2 * width` for the last "
        "norm.",
    ),
    axes="N",
    inputs=_models,
    sizes=((2,), (3,), (1,), (5,)),
    reference=_built_up,
    gradient=False,
)
def gpt_weights(width, hidden, layers, vocabulary, positions):
    """Weights of N models: five rows of N whole numbers to one."""
    attention = 4 * width**2 + 4 * width
    # The bias has F numbers where the hidden layer is made, and D where it is left.
    feed_forward = 2 * width * hidden + hidden + width
    tables = (vocabulary + positions) * width
    # Two norms a layer, and one after the last: D factors and D biases each.
    return layers * (attention + feed_forward + 4 * width) + tables + 2 * width


def _gpt(w, h, n, v, p, *, attention=(4, 4), feed_forward=(2, 1, 1), norms=4, end=2, tables=(1, 1)):
    """The count with other coefficients."""
    a, b = attention
    c, d, e = feed_forward
    layer = a * w**2 + b * w + c * w * h + d * h + e * w + norms * w
    return n * layer + (tables[0] * v + tables[1] * p) * w + end * w


@gpt_weights.slip("""
    You left out the biases. Each matrix has one, with as many numbers as the matrix makes.""")
def _no_biases(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, attention=(4, 0), feed_forward=(2, 0, 0))


@gpt_weights.slip("""
    You counted three matrices of attention. There are four: queries, keys, values, and the one behind the
    heads.""")
def _three_matrices(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, attention=(3, 3))


@gpt_weights.slip("""
    You counted one matrix of the feed-forward network. There are two, one in and one out.""")
def _one_way(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, feed_forward=(1, 1, 0))


@gpt_weights.slip("""
    You counted three matrices (D, F). That is a gated network, as in LLaMA; GPT's has two.""")
def _gated(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, feed_forward=(3, 2, 1))


@gpt_weights.slip("""
    Both biases of your feed-forward network have D numbers. The one in the middle has F.""")
def _biases_of_the_width(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, feed_forward=(2, 0, 2))


@gpt_weights.slip("""
    You counted one norm a layer. There are two, one before attention and one before the feed-forward
    network.""")
def _one_norm(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, norms=2)


@gpt_weights.slip("""
    Your norms have D numbers each. These have D factors and D biases; it is RMSNorm that has D.""")
def _narrow_norms(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, norms=2, end=1)


@gpt_weights.slip("""
    The last norm is missing: one stands behind the last layer, with 2 D numbers.""")
def _no_last_norm(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, end=0)


@gpt_weights.slip("""
    You counted the table of the vocabulary twice. The scores are made with the embedding again.""")
def _untied(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, tables=(2, 1))


@gpt_weights.slip("""
    The table of positions is missing: P rows of D numbers.""")
def _no_positions(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, layers, vocabulary, positions, tables=(1, 0))


@gpt_weights.slip("""
    That is one layer, with the tables. There are L of them.""")
def _one_layer(width, hidden, layers, vocabulary, positions):
    return _gpt(width, hidden, 1, vocabulary, positions)


@gpt_weights.slip("""
    You multiplied everything by the number of layers. The tables, and the norm at the end, are there
    once.""")
def _tables_in_each_layer(width, hidden, layers, vocabulary, positions):
    return layers * _gpt(width, hidden, 1, vocabulary, positions)


@gpt_weights.slip("""
    You took F = 4 D for granted. It is so in GPT, but `hidden` is given: use it.""")
def _four_times(width, hidden, layers, vocabulary, positions):
    return _gpt(width, 4 * width, layers, vocabulary, positions)


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="When distillation has paid",
    statement="""
        One forward pass of the teacher costs 10 GFLOP, one of the student 1 GFLOP. A training step on a
        sequence costs three forward passes. The student is distilled on 18 million sequences: for each, the
        teacher runs forwards once, and the student makes a training step.

        From then on the student answers in place of the teacher. After how many answers, in millions, has it
        saved what the distillation cost? (The teacher was there already.)
        """,
    hints=(
        "What does one sequence of the distillation cost, teacher and student together?",
        "10 + 3 · 1 = 13 GFLOP. And how much does one answer save?",
        "An answer costs 1 in place of 10, so it saves 9. How often must that be, to make up for 18 million "
        "times 13?",
    ),
    expected=26.0,
    wrong={
        18.0: "As many answers as sequences: but a sequence cost 13 and an answer saves 9.",
        20.0: "You left out the student's own training, 3 GFLOP a sequence.",
        22.0: "You let the student run forwards only while it learns. A training step costs three times "
        "that.",
        23.4: "You divided by 10. An answer saves what the teacher would have cost, less what the student "
        "costs.",
        66.0: "You trained the teacher as well. It only runs forwards: it was trained before.",
        234.0: "That is what the distillation cost, in million GFLOP. An answer saves 9 of them.",
        6.0: "You counted the student's training alone, 3 GFLOP a sequence. The teacher runs as well.",
    },
    otherwise="Not that number. A sequence costs 10 + 3, an answer saves 10 - 1, and there were 18 million.",
    form="one number, in millions",
)
def answers_until_it_pays():
    """26 million. Whoever answers less often than that has spent more with the small model than without it,
    and the training of the teacher is not even in the bill.
    """
    return 18 * (10 + 3 * 1) / (10 - 1)


# --- 4 -------------------------------------------------------------------------------------------------


def _lengths(rng: np.random.Generator, B: int, shortest: int) -> dict[str, Any]:
    return {"candidate": rng.integers(shortest, 12, B), "reference": rng.integers(4, 14, B)}


def _penalty(candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    c, r = 0, 0
    for ours, theirs in zip(candidate, reference, strict=True):
        c, r = c + int(ours), r + int(theirs)
    return np.array(1.0 if c > r else np.exp(1 - r / c))


@chapter.implement(
    title="Too short, and what it costs",
    statement="""
        Short translations have few n-grams, and these may all be hits. So BLEU has a penalty: with c tokens
        in *all* translations of the test set, and r in all references, it is 1 where c is larger than r, and
        else exp(1 - r / c).

        `candidate` and `reference` hold the number of tokens of each of the B translations and of its
        reference. Write the penalty, one number.
        """,
    hints=(
        "By hand: translations of 4 and 6 tokens, references of 5 and 10. c = 10 and r = 15; the penalty is "
        "exp(1 - 1.5) = 0.61.",
        "Add up first, over the whole test set: `candidate.sum()` and `reference.sum()`. One long "
        "translation "
        "can make up for a short one.",
        "Where c is larger than r, 1 - r / c is positive, so exp of it would be more than 1. "
        "`.clamp(max=1)` cuts that off.",
    ),
    axes="",
    inputs=_lengths,
    sizes=((2, 2), (3, 2), (1, 3), (1, 11), (4, 9), (6, 10), (9, 2), (5, 5)),
    reference=_penalty,
    gradient=False,
)
def brevity(candidate, reference):
    """BLEU's brevity penalty: tokens of B translations and of their references, to one number."""
    # Whole numbers divide into float32; these are few, and exact in float64.
    c, r = candidate.sum().double(), reference.sum()
    # Above 1 it would be a reward for saying more.
    return (1 - r / c).exp().clamp(max=1)


def _by(candidate, reference, how):
    c, r = candidate.sum().double(), reference.sum().double()
    return how(c, r)


@brevity.slip("""
    Your penalty may be larger than 1, which rewards long translations. Where c is larger than r it is 1.""")
def _rewarded(candidate, reference):
    return _by(candidate, reference, lambda c, r: (1 - r / c).exp())


@brevity.slip("""
    c and r have changed places: you punish translations that are too long.""")
def _long_ones(candidate, reference):
    return _by(candidate, reference, lambda c, r: (1 - c / r).exp().clamp(max=1))


@brevity.slip("""
    That is the mean of the sentences' own penalties. Add up the tokens of the whole test set first: one
    sentence may be short if another is long.""")
def _mean_of_sentences(candidate, reference):
    return (1 - reference / candidate.double()).exp().clamp(max=1).mean()


@brevity.slip("""
    You put a mean of r / c over the sentences into the formula. Add up the tokens first, and divide once.""")
def _mean_of_ratios(candidate, reference):
    return (1 - (reference / candidate.double()).mean()).exp().clamp(max=1)


@brevity.slip("""
    That is the share c / r, cut off at 1. BLEU's penalty is exp(1 - r / c), which is harsher.""")
def _plain_share(candidate, reference):
    return _by(candidate, reference, lambda c, r: (c / r).clamp(max=1))


@brevity.slip("""
    You left out the 1: exp(-r / c) punishes translations of the right length, too.""")
def _without_the_one(candidate, reference):
    return _by(candidate, reference, lambda c, r: torch.where(c > r, torch.ones_like(c), (-r / c).exp()))


@brevity.slip("""
    The sign is turned: exp(r / c - 1) is larger than 1 for short translations, so you cut it off to no
    penalty.""")
def _turned(candidate, reference):
    return _by(candidate, reference, lambda c, r: (r / c - 1).exp().clamp(max=1))


@brevity.slip("""
    You counted each sentence's missing tokens, and let no long one make up for them. Add up both sides
    first.""")
def _no_making_up(candidate, reference):
    c, r = torch.minimum(candidate, reference).sum().double(), reference.sum()
    return (1 - r / c).exp().clamp(max=1)


@brevity.slip("""
    That is 1 - r / c, cut off at 1. The exponential is still to come.""")
def _no_exponential(candidate, reference):
    return _by(candidate, reference, lambda c, r: (1 - r / c).clamp(max=1))


@brevity.slip("""
    That is a penalty for each sentence. One for the whole test set is asked for: add up first.""")
def _one_each(candidate, reference):
    return (1 - reference / candidate.double()).exp().clamp(max=1)


# --- 5 -------------------------------------------------------------------------------------------------


def _counts(rng: np.random.Generator, B: int) -> dict[str, Any]:
    """Hits and totals for n-grams of 1 to 4 tokens; every sentence has some hit of each length."""
    totals = rng.integers(5, 15, B)[:, None] - np.arange(4)
    hits = np.ceil(totals * rng.uniform(0.1, 0.95, (B, 4))).astype(np.int64)
    return {"hits": np.maximum(hits, 1), "totals": totals}


def _pooled(hits: np.ndarray, totals: np.ndarray) -> np.ndarray:
    product = 1.0
    for n in range(4):
        product *= sum(int(h) for h in hits[:, n]) / sum(int(t) for t in totals[:, n])
    return np.array(100 * product**0.25)


def corpus_precision(hits, totals):
    """BLEU without its penalty, 0 to 100: hits (B, 4) and totals (B, 4) to one number."""
    shares = hits.double() / totals
    each = shares.log().mean(dim=1).exp()
    return 100 * each.mean()


@chapter.debug(
    title="A BLEU that averages",
    statement="""
        This is BLEU without its brevity penalty. For each of B translations, `hits` and `totals` hold how
        many of its n-grams are hits, and how many it has, for n = 1 to 4.

        The symptom: two halves of a test set, with the same translations and the same references, do not give
        what [sacrebleu](https://github.com/mjpost/sacrebleu) gives for the whole. A sentence of five words
        counts as much as one of forty; and one without any hit of four words makes everything 0.

        Find the fault, repair it, and hand the function in.
        """,
    hints=(
        "By hand, with single words only: a sentence has 1 hit of 2, another 9 of 10. The mean of the "
        "shares is "
        "0.7. How many of all 12 words are hits?",
        "10 of 12. BLEU is a score of the whole test set: add up hits, add up totals, and divide then.",
        "`hits.sum(dim=0)` adds over the sentences and leaves four numbers, one for each n.",
        "Then the geometric mean of the four shares: the logarithm, its mean, and `exp`.",
    ),
    axes="",
    inputs=_counts,
    sizes=((2,), (3,), (1,), (5,), (8,)),
    reference=_pooled,
    broken=corpus_precision,
    gradient=False,
)
def corpus_precision(hits, totals):
    """BLEU without its penalty, 0 to 100: hits (B, 4) and totals (B, 4) to one number."""
    # Over all sentences first: a long sentence counts for more than a short one.
    shares = hits.sum(dim=0).double() / totals.sum(dim=0)
    return 100 * shares.log().mean().exp()


@corpus_precision.slip("""
    You still average over sentences: their scores, each a geometric mean. Add up hits and totals over all
    sentences, and divide then.""")
def _mean_of_scores(hits, totals):
    return 100 * (hits.double() / totals).log().mean(dim=1).exp().mean()


@corpus_precision.slip("""
    You average the shares of the sentences before the geometric mean. Add up hits and totals, not shares.""")
def _mean_of_shares(hits, totals):
    return 100 * (hits.double() / totals).mean(dim=0).log().mean().exp()


@corpus_precision.slip("""
    You took the logarithm of every sentence's shares, and one mean over all of them: a geometric mean over
    sentences too. Add up first.""")
def _geometric_over_all(hits, totals):
    return 100 * (hits.double() / totals).log().mean().exp()


@corpus_precision.slip("""
    The sums are right. Now a geometric mean of the four shares is wanted, not their plain mean.""")
def _plain_mean(hits, totals):
    return 100 * (hits.sum(dim=0).double() / totals.sum(dim=0)).mean()


@corpus_precision.slip("""
    You added up everything, all four lengths together. Each length has a share of its own.""")
def _all_lengths_together(hits, totals):
    return 100 * hits.sum().double() / totals.sum()


@corpus_precision.slip("""
    You multiplied the four shares. Their geometric mean is the fourth root of that.""")
def _no_root(hits, totals):
    return 100 * (hits.sum(dim=0).double() / totals.sum(dim=0)).prod()


@corpus_precision.slip("""
    You added up along the wrong axis: over the four lengths, and not over the sentences.""")
def _wrong_axis(hits, totals):
    return 100 * (hits.sum(dim=1).double() / totals.sum(dim=1)).log().mean().exp()


@corpus_precision.slip("""
    Right, as a share. BLEU runs from 0 to 100.""")
def _a_share(hits, totals):
    return (hits.sum(dim=0).double() / totals.sum(dim=0)).log().mean().exp()


# --- 6 -------------------------------------------------------------------------------------------------


def _tensor_of(rng: np.random.Generator, T: int, D: int, size: float) -> dict[str, Any]:
    """Numbers of five orders of magnitude; the largest in size is negative, and in one row."""
    x = size * rng.choice([-1.0, 1.0], (T, D)) * 10 ** -rng.uniform(0, 5, (T, D))
    x.flat[rng.integers(x.size)] = -2 * size
    return {"x": x}


def _rounded_by_hand(x: np.ndarray) -> np.ndarray:
    """E4M3 from its definition: three binary digits behind the leading one, exponents from -6 up."""
    scale = 448 / np.abs(x).max()
    v = x * scale
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(v), 1e-300))), -6)
    step = 2.0 ** (exponent - 3)
    return np.round(v / step) * step / scale


@chapter.implement(
    title="Eight bits, with a scale",
    statement="""
        `torch.float8_e4m3fn` is a number of eight bits; its largest is 448. Store `x`, of shape (T, D), in it
        so that as little as possible is lost, and take it out again: multiply by one scale for the whole
        tensor, so that its largest number (in size) becomes 448; convert; convert back; undo the scale.

        The answer has the shape and the type of `x`.
        """,
    hints=(
        "By hand: the largest of 0.5, -2 and 0.1 is -2, in size 2. So the scale is 448 / 2 = 224.",
        "`x.abs().max()` is the largest size, one number for all rows.",
        "`(x * scale).to(torch.float8_e4m3fn)` rounds, and `.to(x.dtype)` makes a usual number of it again.",
        "At the end divide by the scale: the answer should be about `x`.",
    ),
    axes="T D",
    inputs=_tensor_of,
    sizes=((2, 3, 1e-3), (3, 2, 100.0), (1, 4, 50.0), (4, 5, 300.0), (5, 3, 1e3), (7, 6, 2e3)),
    reference=_rounded_by_hand,
    gradient=False,
)
def eight_bits(x):
    """What is left of x (T, D) once stored in eight bits with one scale."""
    scale = 448 / x.abs().max()
    # What comes back from eight bits is in the scaled range: the scale must be undone.
    return (x * scale).to(torch.float8_e4m3fn).to(x.dtype) / scale


def _stored(x, scale, dtype=torch.float8_e4m3fn):
    """As in the chapter: what is too large becomes the largest."""
    largest = torch.finfo(dtype).max
    return (x * scale).clamp(-largest, largest).to(dtype).to(x.dtype) / scale


@eight_bits.slip("""
    You stored `x` as it is. Small numbers become 0, and large ones are cut off: multiply by a scale
    first.""")
def _no_scale(x):
    return _stored(x, 1.0)


@eight_bits.slip("""
    The scale is not undone: your answer is 448 at its largest. Divide by it at the end.""")
def _not_undone(x):
    scale = 448 / x.abs().max()
    return _stored(x, scale) * scale


@eight_bits.slip("""
    You took the largest number, not the largest in size. Here that one is negative, and it was cut off.""")
def _signed(x):
    return _stored(x, 448 / x.max().abs())


@eight_bits.slip("""
    You took a scale for each row. One for the whole tensor is asked for.""")
def _a_scale_each(x):
    return _stored(x, 448 / x.abs().amax(dim=1, keepdim=True))


@eight_bits.slip("""
    You took a scale for each column. One for the whole tensor is asked for.""")
def _a_scale_each_column(x):
    return _stored(x, 448 / x.abs().amax(dim=0, keepdim=True))


@eight_bits.slip("""
    Your scale makes the *mean* size 448. Everything that is larger than that was cut off.""")
def _from_the_mean(x):
    return _stored(x, 448 / x.abs().mean())


@eight_bits.slip("""
    Your largest number becomes 1. The format reaches up to 448, so the small numbers lose more than they need
    to.""")
def _to_one(x):
    return _stored(x, 1 / x.abs().max())


@eight_bits.slip("""
    Your scale is upside down: divide 448 by the largest size.""")
def _upside_down(x):
    return _stored(x, x.abs().max() / 448)


@eight_bits.slip("""
    That is the other format, E5M2, with two binary digits in place of three and a range up to 57,344. The
    numbers asked for are E4M3, `torch.float8_e4m3fn`.""")
def _other_format(x):
    return _stored(x, 448 / x.abs().max(), torch.float8_e5m2)


@eight_bits.slip("""
    Nothing is rounded in your answer: it is `x` itself. It must go through `torch.float8_e4m3fn`.""")
def _not_stored(x):
    return x * 1


@eight_bits.slip("""
    You rounded to whole numbers of the scaled range. E4M3 has finer steps where numbers are small: convert
    with `.to(torch.float8_e4m3fn)`.""")
def _whole_numbers(x):
    scale = 448 / x.abs().max()
    return (x * scale).round() / scale


# --- 7 -------------------------------------------------------------------------------------------------


@chapter.measure(
    title="What is lost without a scale",
    statement="""
        Draw at least 100,000 numbers from a normal distribution with mean 0 and standard deviation 0.001, and
        store them in `torch.float8_e4m3fn` as they are.

        Report two numbers: the share of them that became 0; and the relative error, the length of the
        difference (`.norm()`) divided by the length of what was stored.
        """,
    hints=(
        "`x = 0.001 * torch.randn(100_000)` and `y = x.to(torch.float8_e4m3fn).float()`.",
        "`(y == 0).float().mean()` is the share of zeros: between 0 and 1.",
        "The error: `(y - x).norm() / x.norm()`.",
    ),
    ranges={"share of zeros": (0.655, 0.687), "relative error": (0.54, 0.585)},
    slips={
        "The two numbers are the other way round: first the share of zeros, then the error.": (
            (0.54, 0.585),
            (0.655, 0.687),
        ),
        "Your first number is the share that is *not* 0.": ((0.313, 0.345), (0.54, 0.585)),
        "Your share is in percent. A number between 0 and 1 is asked for.": ((65.5, 68.7), (0.54, 0.585)),
        "Both are in percent. Numbers between 0 and 1 are asked for.": ((65.5, 68.7), (54.0, 58.5)),
        "That is what is left with a scale, or for numbers near 1. Store them as they are, with standard "
        "deviation 0.001.": ((0.0, 0.003), (0.02, 0.035)),
        "Your error is squared: the mean square of the difference over that of the numbers. `.norm()` has "
        "the root in it.": ((0.655, 0.687), (0.29, 0.345)),
        "That is the other format, E5M2: it has smaller numbers above 0, and two binary digits in place of "
        "three.": ((0.004, 0.009), (0.045, 0.06)),
        "Your numbers have a variance of 0.001, so a standard deviation of 0.03: multiply by 0.001, not by "
        "its "
        "root.": ((0.015, 0.035), (0.02, 0.04)),
    },
    at_most=(100.0, "A share of zeros and a relative error are far below that. What did you divide by?"),
    otherwise="Not in the range. Numbers of about 0.001, stored as they are: the share that became 0, and "
    "the "
    "length of the difference over the length of what was stored.",
)
def lost_without_a_scale():
    """Two thirds became 0, and the error is more than half of their size: the smallest number above 0 is
    about 0.002, and what is below half of that is gone. With a scale the error is 0.027.
    """
    x = 0.001 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    y = x.to(torch.float8_e4m3fn).float()
    return (y == 0).float().mean().item(), ((y - x).norm() / x.norm()).item()


# --- 8 -------------------------------------------------------------------------------------------------


def _rewards(rng: np.random.Generator, B: int, N: int) -> dict[str, Any]:
    """The last row is alike throughout, if there is more than one; all others are not."""
    rewards = rng.uniform(0, 2, (B, N))
    if B > 1:
        rewards[-1] = 1.25  # without rounding in either precision
    return {"rewards": rewards}


def _advantages(rewards: np.ndarray) -> np.ndarray:
    out = np.zeros_like(rewards)
    for b, row in enumerate(rewards):
        mean = sum(row) / len(row)
        variance = sum((r - mean) ** 2 for r in row) / (len(row) - 1)
        if variance > 0:
            out[b] = (row - mean) / np.sqrt(variance)
    return out


@chapter.implement(
    title="Better than the group",
    statement="""
        GRPO answers each of B questions N times, and gives each answer a reward. How much better is an answer
        than the others to the same question? Take away the mean of its row, and divide by the standard
        deviation of its row (that with N - 1, as `torch.std` has it; add nothing to it).

        In a row in which all rewards are alike, all advantages are 0. `rewards` and the answer have the
        shape (B, N).
        """,
    hints=(
        "By hand: the rewards 1, 0, 0, 1 have the mean 0.5 and the standard deviation 0.577; so the "
        "advantages "
        "are 0.866 and -0.866.",
        "`rewards.mean(dim=1, keepdim=True)` is a column: it can be taken from all numbers of its row.",
        "Where all are alike you divide 0 by 0, and get NaN.",
        "`torch.where(spread > 0, centred / spread, 0)` takes the quotient only where there is a spread. "
        "Or: divide by a spread in which 0 was replaced by 1.",
    ),
    axes="B N",
    inputs=_rewards,
    sizes=((2, 3), (3, 2), (1, 4), (4, 5), (3, 6)),
    reference=_advantages,
    gradient=False,
)
def advantages(rewards):
    """How much better each answer is than the others of its row: (B, N) to (B, N)."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = rewards.std(dim=1, keepdim=True)
    # A question that is always solved, or never, teaches nothing: 0, and not 0 / 0.
    return torch.where(spread > 0, centred / spread, 0.0)


def _safe(centred, spread):
    return torch.where(spread > 0, centred / spread, torch.zeros_like(centred))


@advantages.slip("""
    Where all rewards of a row are alike you divide 0 by 0: NaN, which spoils every weight of a model at the
    next step. Write 0 there.""")
def _nan(rewards):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / rewards.std(dim=1, keepdim=True)


@advantages.slip("""
    You took mean and standard deviation of all rewards. Each question has its own: an easy question would
    else make all its answers look good.""")
def _of_all(rewards):
    return (rewards - rewards.mean()) / rewards.std()


@advantages.slip("""
    You went along the wrong axis: mean and spread of a column. The answers to one question stand in a
    row.""")
def _columns(rewards):
    centred = rewards - rewards.mean(dim=0, keepdim=True)
    return _safe(centred, rewards.std(dim=0, keepdim=True, correction=min(1, len(rewards) - 1)))


@advantages.slip("""
    The mean is taken away; the division by the standard deviation is missing.""")
def _not_divided(rewards):
    return rewards - rewards.mean(dim=1, keepdim=True)


@advantages.slip("""
    You divided by the variance. The standard deviation is its root.""")
def _by_the_variance(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return _safe(centred, rewards.var(dim=1, keepdim=True))


@advantages.slip("""
    Your standard deviation divides by N. Here it is that with N - 1, which `torch.std` takes by itself.""")
def _by_n(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return _safe(centred, rewards.std(dim=1, keepdim=True, correction=0))


@advantages.slip("""
    The mean is not taken away: all answers with a reward become likelier, the poor ones too.""")
def _not_centred(rewards):
    return _safe(rewards, rewards.std(dim=1, keepdim=True))


@advantages.slip("""
    The sign is turned: you take the rewards from their mean, so that what is better becomes rarer.""")
def _turned_round(rewards):
    return -advantages.solve(rewards)


@advantages.slip("""
    You compare with the best answer of the row. The mean is asked for: then a group's advantages sum to
    0.""")
def _from_the_best(rewards):
    return _safe(rewards - rewards.amax(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True))


@advantages.slip("""
    That is a softmax over the group: shares that sum to 1. Advantages sum to 0, and half of them punish.""")
def _softmax(rewards):
    return rewards.softmax(dim=1)


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Which one can be tested?",
    statement="""
        Five sentences that one could read anywhere. One of them can be tested as it stands: it says what was
        measured, on what, and against what. Which?
        """,
    choices={
        "a": "Attention works on sequences of theoretically unlimited length.",
        "b": "On the same 2,000 sentences, cut by the same tool, system A scores 2.0 BLEU more than system "
        "B.",
        "c": "In 2024, 80 % of the world's large models were based on the Transformer.",
        "d": "The new code for positions is more than 100 times better.",
        "e": "Training the model took 1,900 MWh.",
    },
    hints=(
        "Ask of each: what would I see if it were false?",
        "What is large? What is better? How long is unlimited? Where a word has no measure, nothing can be "
        "seen.",
        "And energy: which inputs would you need, in order to work it out again?",
    ),
    expected="b",
    wrong={
        "a": "No finite test can refute it, for a longer sequence always remains. Ask instead: what is the "
        "loss "
        "at 16 times the length of training?",
        "c": "What is a large model, and what a variant? The share moves with the definition, and nobody "
        "says "
        "who counted.",
        "d": "A hundred times what: loss, length, speed? Without a metric there is nothing to be measured.",
        "e": "A number with a unit, and yet: with what power, what speed, what overhead? Without them nobody "
        "can work it out again.",
    },
)
def testable():
    """The second: it names the metric, the test set, the tool that cuts the text, and both systems. It may
    still be false, and that is the point.
    """
    said = {  # what each sentence says: a metric, on what, against what
        "a": (False, False, False),
        "b": (True, True, True),
        "c": (False, False, False),
        "d": (False, False, True),
        "e": (True, False, False),
    }
    return next(letter for letter, parts in said.items() if all(parts))
