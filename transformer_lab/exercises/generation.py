"""Exercises of the chapter "How a model writes", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it. K is the number of beams, C
and R are the lengths of a candidate and of a reference translation.
"""

import math
from typing import Any

import numpy as np
import torch

from .check import Chapter
from .check.references import softmax as _softmax

chapter = Chapter("generation", "How a model writes")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="What greedy search walks past",
    statement="""
        A model translates *the bank* into two German words, and then it ends for certain. These are its
        probabilities (invented ones):

        - the first word is *die*, 0.6, or *das*, 0.4;
        - after *die* comes *Bank*, 0.4, *Sandbank*, 0.3, or *Bankfiliale*, 0.3;
        - after *das* comes *Ufer*, 0.9, or *Geldhaus*, 0.1.

        Before you run anything: how likely is the translation that greedy search writes, and how likely is
        the likeliest of all five? Answer with the two numbers, in this order.
        """,
    hints=(
        "A translation is as likely as its first word times its second word after that first one.",
        "Greedy search decides on the first word before it has seen any second one. Which does it take?",
        "It writes *die Bank*: 0.6 · 0.4. For the second number multiply along all five ways and take the "
        "largest product.",
    ),
    expected=(0.24, 0.36),
    wrong={
        (0.36, 0.24): "These are the two numbers the other way round: first what greedy search writes.",
        (0.24, 0.24): "What greedy search writes is right. But its first step, the best one by itself, led "
        "to words of middling probability: multiply along the ways that begin with *das*, too.",
        (
            0.36,
            0.36,
        ): "The likeliest translation is right. Greedy search does not find it: it takes the first "
        "word before it knows how sure the second will be.",
        (0.6, 0.9): "These are the largest numbers of each step. A whole translation has the product of its "
        "own two numbers.",
        (0.24, 0.54): "0.6 and 0.9 do not belong to one translation: 0.9 is what *Ufer* has after *das*, and "
        "*das* has 0.4.",
        (0.54, 0.36): "0.6 and 0.9 do not belong to one translation: greedy search has written *die*, and "
        "after *die* the best word has 0.4.",
        (0.6, 0.4): "These are the first words alone. Multiply each by what comes after it.",
        (0.4, 0.9): "These are the second words alone. Multiply each by its first word.",
        (1.0, 1.3): "You added the two steps. Probabilities of steps that follow each other multiply.",
        (24, 36): "These are percent. Give them as shares: 1 is certain.",
    },
    otherwise="Not these. Multiply along each way from the first word to the second. Greedy search takes the "
    "larger number at each step; the likeliest translation has the largest product.",
    form="a tuple of two numbers",
)
def greedy_and_likeliest():
    """Greedy search writes *die Bank*, 0.6 · 0.4 = 0.24, and *das Ufer* has 0.4 · 0.9 = 0.36. A beam of two
    keeps both first words for one step more, and that is enough to find it.
    """
    tree = {
        "die": (0.6, {"Bank": 0.4, "Sandbank": 0.3, "Bankfiliale": 0.3}),
        "das": (0.4, {"Ufer": 0.9, "Geldhaus": 0.1}),
    }
    first, after = max(tree.values(), key=lambda branch: branch[0])  # what comes later does not count
    greedy = first * max(after.values())
    likeliest = max(first * second for first, after in tree.values() for second in after.values())
    return round(greedy, 4), round(likeliest, 4)


# --- 2 -------------------------------------------------------------------------------------------------


def _under_way(
    rng: np.random.Generator, states: str, V: int, pad_id: int, eos_id: int, low: float = 0.0
) -> dict[str, Any]:
    """A sentence for each letter: w writes on, e has just ended, p ended before; P writes on and its best
    score is that of padding, E writes on and its best is the end. Scores lie ``low`` below 0.
    """
    words = [i for i in range(V) if i not in (pad_id, eos_id)]
    scores = rng.standard_normal((len(states), V))
    last = rng.choice(words, len(states))
    for b, state in enumerate(states):
        if state in "PE":
            scores[b, pad_id if state == "P" else eos_id] = scores[b].max() + 1
        if state in "ep":
            last[b] = eos_id if state == "e" else pad_id
    return {"scores": scores - low, "last": last, "pad_id": pad_id, "eos_id": eos_id}


def _next_tokens_reference(scores: np.ndarray, last: np.ndarray, pad_id: int, eos_id: int) -> np.ndarray:
    written = []
    for row, before in zip(scores, last, strict=True):
        ranking = [token for token in np.argsort(-row) if token != pad_id]
        written.append(pad_id if before in (pad_id, eos_id) else ranking[0])
    return np.array(written)


@chapter.implement(
    title="One step of greedy search, for many sentences",
    statement="""
        A batch of sentences is written together, and some have ended while others go on. `scores` has the
        shape (B, V): what the model thinks of each of the V tokens. `last`, of shape (B), holds the token
        that each sentence got in the step before. A sentence has ended if that was `eos_id`, or `pad_id`.

        Write the token that each sentence gets now: whole numbers, shape (B). One that has ended gets
        `pad_id`. One that goes on gets the token of the highest score, and that is never `pad_id`, however
        high its score: padding fills up, it says nothing.
        """,
    hints=(
        "Three questions, one after another: which sentences have ended? Which token has the highest score, "
        "padding apart? Who gets which of the two?",
        "A score of minus infinity is never the highest. Write it into a copy, `scores.clone()`, so that the "
        "scores that you were given stay as they are.",
        "A sentence has ended if `last` is `eos_id` or `pad_id`: two comparisons, joined with `|`.",
        "`best.masked_fill(ended, pad_id)` puts padding where `ended` is True.",
    ),
    axes="B",
    inputs=_under_way,
    sizes=(
        ("wep", 5, 0, 2),
        ("PEwe", 6, 3, 1),
        ("pPw", 4, 0, 2, 9.0),
        ("Ee", 5, 4, 0),
        ("wwEwpP", 7, 5, 2, 9.0),
        ("wP", 6, 2, 3),
        ("epe", 4, 1, 3),
    ),
    reference=_next_tokens_reference,
    gradient=False,
)
def next_tokens(scores, last, pad_id, eos_id):
    """The tokens (B) that follow: the best of the scores (B, V), and padding where the end came before."""
    # Padding never wins. In a copy: whoever called still needs the scores as they are.
    allowed = scores.clone()
    allowed[:, pad_id] = float("-inf")
    # Right after its end a sentence shows eos_id, from then on padding: both mean that it has ended.
    ended = (last == eos_id) | (last == pad_id)
    return allowed.argmax(dim=-1).masked_fill(ended, pad_id)


def _best(scores, *never):
    return scores.index_fill(-1, torch.tensor(never), -torch.inf).argmax(-1)


@next_tokens.slip("""
    Sentences that have ended write on. Where `last` is `eos_id` or `pad_id`, they should get `pad_id`.""")
def _ended_ones_write_on(scores, last, pad_id, eos_id):
    return _best(scores, pad_id)


@next_tokens.slip("""
    A sentence gets padding right after its end, and one step later it writes again: by then `last` is
    `pad_id`, and that means ended, too.""")
def _awake_after_one_step(scores, last, pad_id, eos_id):
    return _best(scores, pad_id).masked_fill(last == eos_id, pad_id)


@next_tokens.slip("""
    A sentence that has just ended writes one more token: its `last` is `eos_id`, and you look for `pad_id`
    only.""")
def _one_token_after_the_end(scores, last, pad_id, eos_id):
    return _best(scores, pad_id).masked_fill(last == pad_id, pad_id)


@next_tokens.slip("""
    A sentence that goes on was given padding, because padding had the highest score. Give it a score of minus
    infinity before you look for the highest.""")
def _padding_may_win(scores, last, pad_id, eos_id):
    return scores.argmax(-1).masked_fill((last == pad_id) | (last == eos_id), pad_id)


@next_tokens.slip("""
    That is the highest score of each row and nothing else. Two rules are missing: sentences that have ended
    get padding, and those that go on never do.""")
def _highest_score_alone(scores, last, pad_id, eos_id):
    return scores.argmax(-1)


@next_tokens.slip("""
    Those that go on get the lowest score instead of the highest: `argmax`.""")
def _lowest_score(scores, last, pad_id, eos_id):
    allowed = scores.index_fill(-1, torch.tensor([pad_id]), torch.inf)
    return allowed.argmin(-1).masked_fill((last == pad_id) | (last == eos_id), pad_id)


@next_tokens.slip("""
    You looked for the best sentence of each token, along the first axis. Each sentence looks for its best
    token, along the axis of the vocabulary, the last one.""")
def _along_the_batch(scores, last, pad_id, eos_id):
    return scores.index_fill(-1, torch.tensor([pad_id]), -torch.inf).argmax(0)


@next_tokens.slip("""
    You took 0 for the padding. Its id comes as `pad_id`, and 0 may be a word like any other.""")
def _zero_is_padding(scores, last, pad_id, eos_id):
    return next_tokens.solve(scores, last, 0, eos_id)


@next_tokens.slip("""
    Sentences that have ended get `eos_id` again and again. They end once; after that they get `pad_id`.""")
def _ends_again_and_again(scores, last, pad_id, eos_id):
    return _best(scores, pad_id).masked_fill((last == pad_id) | (last == eos_id), eos_id)


@next_tokens.slip("""
    Sentences that have ended get the token that they had before, so one that has just ended ends twice. They
    should get `pad_id`.""")
def _last_token_repeated(scores, last, pad_id, eos_id):
    return torch.where((last == pad_id) | (last == eos_id), last, _best(scores, pad_id))


@next_tokens.slip("""
    You let the end never win, so no sentence would ever end. Only padding is forbidden to those that go
    on.""")
def _never_ends(scores, last, pad_id, eos_id):
    best = _best(scores, pad_id, eos_id)
    return best.masked_fill((last == pad_id) | (last == eos_id), pad_id)


@next_tokens.slip("""
    You gave padding to the sentences that go on, and the ended ones write. Turn the condition round.""")
def _wrong_ones_get_padding(scores, last, pad_id, eos_id):
    return _best(scores, pad_id).masked_fill((last != pad_id) & (last != eos_id), pad_id)


@next_tokens.slip("""
    A sentence that ends now lost its end: you put padding over it. It gets `eos_id` now, and padding from
    the next step on. What counts is `last`, the token of the step before.""")
def _end_overwritten(scores, last, pad_id, eos_id):
    best = next_tokens.solve(scores, last, pad_id, eos_id)
    return best.masked_fill(best == eos_id, pad_id)


@next_tokens.slip("""
    As soon as one sentence has ended, you give padding to all. Each ends for itself: decide it for each row,
    with `masked_fill` or `torch.where`.""")
def _one_ends_all(scores, last, pad_id, eos_id):
    ended = ((last == pad_id) | (last == eos_id)).any()
    return _best(scores, pad_id).masked_fill(ended, pad_id)


@next_tokens.slip("""
    You give padding only when all sentences have ended. Each ends for itself: decide it for each row, with
    `masked_fill` or `torch.where`.""")
def _all_end_together(scores, last, pad_id, eos_id):
    ended = ((last == pad_id) | (last == eos_id)).all()
    return _best(scores, pad_id).masked_fill(ended, pad_id)


@next_tokens.slip("""
    You gave padding the score 0, and where all other scores lie below 0 it still wins. Minus infinity lies
    below every score.""")
def _padding_scores_zero(scores, last, pad_id, eos_id):
    best = scores.index_fill(-1, torch.tensor([pad_id]), 0.0).argmax(-1)
    return best.masked_fill((last == pad_id) | (last == eos_id), pad_id)


@next_tokens.slip("""
    You left out the sentences that have ended. They stay in the batch, and get `pad_id`: shape (B).""")
def _ended_ones_left_out(scores, last, pad_id, eos_id):
    return _best(scores, pad_id)[(last != pad_id) & (last != eos_id)]


@next_tokens.slip("""
    The tokens are right, with an axis too many: (B, 1). Asked for is (B): no `keepdim`.""")
def _axis_kept(scores, last, pad_id, eos_id):
    return next_tokens.solve(scores, last, pad_id, eos_id)[:, None]


@next_tokens.slip("""
    `argmax()` without an axis counts through the whole table and gives one number. Each sentence has its own
    best token: `argmax(dim=-1)`.""")
def _one_for_all(scores, last, pad_id, eos_id):
    return scores.index_fill(-1, torch.tensor([pad_id]), -torch.inf).argmax()


@next_tokens.slip("""
    You look at the token that was just chosen. Whether a sentence has ended shows in `last`, the token of the
    step before; one that ends now still writes its `eos_id`.""")
def _the_chosen_one_looked_at(scores, last, pad_id, eos_id):
    best = _best(scores, pad_id)
    return best.masked_fill(best == eos_id, pad_id)


@next_tokens.crash("""
    Python's `and`, `or`, `not` and `if` ask for one truth value, and a row of sentences holds many. `|` and
    `&` work entry by entry.""")
def _python_s_or(scores, last, pad_id, eos_id):
    return _best(scores, pad_id).masked_fill(last == eos_id or last == pad_id, pad_id)


# --- 3 -------------------------------------------------------------------------------------------------


def _finished(rng: np.random.Generator, K: int, alpha: float) -> dict[str, Any]:
    lengths = rng.permutation(np.arange(2, 2 + 3 * K))[:K]
    return {"log_probabilities": -lengths * rng.uniform(0.1, 2.0, K), "lengths": lengths, "alpha": alpha}


def _length_scores_reference(log_probabilities: np.ndarray, lengths: np.ndarray, alpha: float) -> np.ndarray:
    pairs = zip(log_probabilities.tolist(), lengths.tolist(), strict=True)
    return np.array([p * math.exp(-alpha * (math.log(5 + n) - math.log(6))) for p, n in pairs])


@chapter.implement(
    title="Long translations get their due",
    statement=r"""
        Each token more makes a translation less likely, so whoever ranks by probability prefers short ones.
        Beam search divides the log-probability by a penalty that grows with the number of tokens n, equation
        (14) of Wu et al. (2016):

        $$\left(\frac{5 + n}{6}\right)^\alpha$$

        Given are K finished translations, by `log_probabilities` and by `lengths`, both of shape (K), and
        `alpha`. Write the scores by which they are ranked, shape (K).
        """,
    hints=(
        "Put in n = 1: the penalty is 1, whatever alpha is. With alpha = 0 it is 1 for all lengths, and the "
        "scores are the log-probabilities.",
        "In Python `**` goes before `*` and `/`, and these before `+`. Where does the formula need brackets?",
        "The penalty is `((5 + lengths) / 6) ** alpha`, and the log-probability is divided by it.",
    ),
    axes="K",
    inputs=_finished,
    sizes=((3, 0.6), (2, 1.0), (4, 2.0), (3, 0.0), (5, 0.6)),
    reference=_length_scores_reference,
    gradient=False,
)
def length_scores(log_probabilities, lengths, alpha):
    """What K finished translations are ranked by: log-probability divided by the length penalty, (K)."""
    # A log-probability lies below 0: divided by more it comes nearer to 0, so the long ones gain.
    return log_probabilities / ((5 + lengths) / 6) ** alpha


@length_scores.slip("""
    You multiplied by the penalty. A log-probability lies below 0, so that makes long translations still
    worse: divide.""")
def _multiplied(log_probabilities, lengths, alpha):
    return log_probabilities * ((5 + lengths) / 6) ** alpha


@length_scores.slip("""
    That is the mean for each token. It goes further than the formula: divide by ((5 + n) / 6) ** alpha, not
    by n.""")
def _mean_of_tokens(log_probabilities, lengths, alpha):
    return log_probabilities / lengths


@length_scores.slip("""
    You divided by n ** alpha. The formula has (5 + n) / 6 in place of n, which is milder to short
    translations.""")
def _bare_length(log_probabilities, lengths, alpha):
    return log_probabilities / lengths**alpha


@length_scores.slip("""
    Only 5 + n was raised to the power alpha, and 6 was not. The whole fraction has the exponent: put it into
    brackets.""")
def _six_without_exponent(log_probabilities, lengths, alpha):
    return log_probabilities / ((5 + lengths) ** alpha / 6)


@length_scores.slip("""
    Only 6 was raised to the power alpha: in Python `**` goes before `/`. The whole fraction has the exponent:
    put it into brackets.""")
def _only_six_has_the_exponent(log_probabilities, lengths, alpha):
    return log_probabilities / ((5 + lengths) / 6**alpha)


@length_scores.slip("""
    The penalty has no brackets around it: you divided by 5 + n, and then by 6 ** alpha as well.""")
def _divided_twice(log_probabilities, lengths, alpha):
    return log_probabilities / (5 + lengths) / 6**alpha


@length_scores.slip("""
    `5 + n / 6` is 5 and a sixth of n: in Python `/` goes before `+`. Put 5 + n into brackets.""")
def _sum_without_brackets(log_probabilities, lengths, alpha):
    return log_probabilities / (5 + lengths / 6) ** alpha


@length_scores.slip("""
    `alpha` has no effect: the fraction should be raised to the power alpha.""")
def _without_alpha(log_probabilities, lengths, alpha):
    return log_probabilities / ((5 + lengths) / 6)


@length_scores.slip("""
    `alpha` became a factor. It is an exponent, `** alpha`.""")
def _alpha_as_factor(log_probabilities, lengths, alpha):
    return log_probabilities / (alpha * (5 + lengths) / 6)


@length_scores.slip("""
    These are the log-probabilities as they came: the lengths have no effect.""")
def _no_penalty(log_probabilities, lengths, alpha):
    return log_probabilities


@length_scores.slip("""
    That is the penalty. The log-probability is divided by it.""")
def _penalty_alone(log_probabilities, lengths, alpha):
    return ((5 + lengths) / 6) ** alpha


@length_scores.slip("""
    You turned the sign: now the least likely translation has the highest score. Log-probabilities lie below
    0, and so do the scores.""")
def _sign_turned(log_probabilities, lengths, alpha):
    return -log_probabilities / ((5 + lengths) / 6) ** alpha


@length_scores.slip("""
    You took the penalty away from the log-probability. It divides.""")
def _penalty_subtracted(log_probabilities, lengths, alpha):
    return log_probabilities - ((5 + lengths) / 6) ** alpha


@length_scores.slip("""
    You divided the probability and then took the logarithm, which takes alpha · ln((5 + n) / 6) away and
    makes long translations still worse. It is the log-probability that is divided.""")
def _probability_divided(log_probabilities, lengths, alpha):
    return log_probabilities - alpha * ((5 + lengths) / 6).log()


@length_scores.slip("""
    You divided probabilities. It is their logarithms that are divided, so leave out `exp`.""")
def _probabilities(log_probabilities, lengths, alpha):
    return log_probabilities.exp() / ((5 + lengths) / 6) ** alpha


@length_scores.slip("""
    The exponent belongs to the penalty alone. You raised the whole quotient to the power alpha, and a number
    below 0 has no such power: NaN.""")
def _quotient_to_the_power(log_probabilities, lengths, alpha):
    return (log_probabilities / ((5 + lengths) / 6)) ** alpha


@length_scores.slip("""
    You divided by (5 + n) / 5. The number below is 6, so that a translation of one token has the penalty
    1.""")
def _five_below(log_probabilities, lengths, alpha):
    return log_probabilities / ((5 + lengths) / 5) ** alpha


@length_scores.slip("""
    You added 6 to the length and divided by 6. The formula adds 5: a translation of one token has the
    penalty 1.""")
def _six_above(log_probabilities, lengths, alpha):
    return log_probabilities / ((6 + lengths) / 6) ** alpha


@length_scores.slip("""
    The scores are right, and you sorted them. Leave them where their translations stand.""")
def _sorted(log_probabilities, lengths, alpha):
    return length_scores.solve(log_probabilities, lengths, alpha).sort(descending=True).values


@length_scores.slip("""
    `//` gives whole numbers, so that six lengths in a row share one penalty. Divide with `/`.""")
def _whole_penalties(log_probabilities, lengths, alpha):
    return log_probabilities / ((5 + lengths) // 6) ** alpha


# --- 4 -------------------------------------------------------------------------------------------------


def _beams(rng: np.random.Generator, K: int, V: int, first: bool = False) -> dict[str, np.ndarray]:
    """K beams and what may follow each; in the ``first`` step all are alike, and only one may branch."""
    totals = -rng.uniform(1.0, 3.0, K)
    if first:
        totals = np.array([0.0, *[-np.inf] * (K - 1)])
    return {"totals": totals, "log_p": np.log(_softmax(1.5 * rng.standard_normal((K, V))))}


def _beam_step_reference(totals: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    ways = [(total + p, k, v) for k, total in enumerate(totals) for v, p in enumerate(log_p[k])]
    return np.array([way[1:] for way in sorted(ways, reverse=True)[: len(totals)]])


@chapter.implement(
    title="One step of beam search",
    statement="""
        K beams are open: beginnings of one translation. `totals`, of shape (K), are the log-probabilities of
        what each has written; `log_p`, of shape (K, V), those of every next token after it. So there are
        K · V ways to go on.

        Write the K likeliest of them, the best first: whole numbers of shape (K, 2), in each row the number
        of the beam that is continued, and the token. One beam may go on in several ways, and another in none.
        """,
    hints=(
        "How likely is beam k with token v behind it? Probabilities multiply, so their logarithms add: "
        "`totals[k] + log_p[k, v]`, a table (K, V).",
        "All ways compete with each other, those of one beam with those of another. `flatten()` puts the "
        "table into one row of K · V numbers, and `topk(K)` gives the K best of a row and their places.",
        "In that row beam 0 has the places 0 to V - 1, beam 1 the places from V to 2V - 1. Which beam has "
        "place i, and which token?",
        "The beam is `i // V` and the token `i % V`; `torch.stack([beams, tokens], dim=-1)` makes pairs.",
    ),
    axes="K 2",
    inputs=_beams,
    sizes=((2, 3), (3, 5), (3, 4, True), (2, 6), (4, 7), (5, 6)),
    reference=_beam_step_reference,
    gradient=False,
)
def beam_step(totals, log_p):
    """The K best ways to go on, as rows (beam, token): totals (K) and log_p (K, V) to (K, 2)."""
    # Each beam with each token: probabilities multiply, so their logarithms add.
    reached = totals[:, None] + log_p
    # All in one row, so that the ways of one beam compete with those of the others.
    best = reached.flatten().topk(len(totals)).indices
    V = log_p.shape[1]
    return torch.stack([best // V, best % V], dim=-1)


def _pairs(flat, V):
    return torch.stack([flat // V, flat % V], dim=-1)


def _top(table, k):
    return _pairs(table.flatten().topk(k).indices, table.shape[1])


def _from_each(totals, log_p):
    """The best way of each beam, and how likely it is."""
    best, token = (totals[:, None] + log_p).max(-1)
    return best, torch.stack([torch.arange(len(totals)), token], dim=-1)


@beam_step.slip("""
    You took the best way of each beam, one from each. All ways compete: a beam may go on in several, and
    another in none.""")
def _one_from_each(totals, log_p):
    return _from_each(totals, log_p)[1]


@beam_step.slip("""
    You took the best way of each beam and sorted these. All ways compete: the second best of one beam may be
    better than the best of another.""")
def _one_from_each_sorted(totals, log_p):
    best, pairs = _from_each(totals, log_p)
    return pairs[best.argsort(descending=True)]


@beam_step.slip("""
    You forgot `totals`: what a beam has written already counts as much as what comes next.""")
def _totals_forgotten(totals, log_p):
    return _top(log_p, len(totals))


@beam_step.slip("""
    You added probabilities. Steps that follow each other multiply, which is a sum of logarithms: leave out
    `exp`.""")
def _probabilities_added(totals, log_p):
    return _top(totals.exp()[:, None] + log_p.exp(), len(totals))


@beam_step.slip("""
    You made probabilities of `log_p` and left `totals` logarithms. Both are logarithms: add them as they
    are.""")
def _one_logarithm_one_not(totals, log_p):
    return _top(totals[:, None] + log_p.exp(), len(totals))


@beam_step.slip("""
    You multiplied logarithms. To multiply probabilities, add their logarithms.""")
def _logarithms_multiplied(totals, log_p):
    return _top(totals[:, None] * log_p, len(totals))


@beam_step.slip("""
    Every way comes from one beam, the best. Its weaker ways may be less likely than the best of another: let
    the ways of all beams compete.""")
def _best_beam_alone(totals, log_p):
    k = int(totals.argmax())
    return _pairs(k * log_p.shape[1] + log_p[k].topk(len(totals)).indices, log_p.shape[1])


@beam_step.slip("""
    In each pair the token comes first. The beam should: (beam, token).""")
def _token_first(totals, log_p):
    return beam_step.solve(totals, log_p).flip(-1)


@beam_step.slip("""
    You divided the places by K. A row of the table is V long, so V is what tells beam and token apart:
    `i // V` and `i % V`.""")
def _divided_by_k(totals, log_p):
    return _pairs((totals[:, None] + log_p).flatten().topk(len(totals)).indices, len(totals))


@beam_step.slip("""
    These are places in the row of all K · V ways. Take them apart: the beam is `i // V`, the token `i % V`.
    """)
def _places_not_taken_apart(totals, log_p):
    return (totals[:, None] + log_p).flatten().topk(len(totals)).indices


@beam_step.slip("""
    The pairs stand in columns, (2, K). Each way should be a row: `torch.stack(..., dim=-1)`.""")
def _in_columns(totals, log_p):
    return beam_step.solve(totals, log_p).T


@beam_step.slip("""
    The right ways, but the worst of them first. Turn the order round.""")
def _worst_of_them_first(totals, log_p):
    return beam_step.solve(totals, log_p).flip(0)


@beam_step.slip("""
    These are the least likely ways of all. A logarithm nearer to 0 is a higher probability: take the
    largest.""")
def _least_likely(totals, log_p):
    reached = totals[:, None] + log_p
    return _pairs(reached.flatten().topk(len(totals), largest=False).indices, reached.shape[1])


@beam_step.slip("""
    The right ways, but in the order of the beams. The best should come first, whichever beam it
    continues.""")
def _in_the_order_of_the_beams(totals, log_p):
    pairs = beam_step.solve(totals, log_p)
    return pairs[pairs[:, 0].argsort(stable=True)]


@beam_step.slip("""
    You kept twice as many ways as there are beams. Some implementations do, to have a reserve for ways that
    end; here K are asked for.""")
def _twice_as_many(totals, log_p):
    return _top(totals[:, None] + log_p, 2 * len(totals))


@beam_step.slip("""
    You kept one way only. The point of a beam is to keep K.""")
def _one_way_only(totals, log_p):
    return _top(totals[:, None] + log_p, 1)


@beam_step.slip("""
    You put the table into one row column by column. Then beams lie side by side, and `i // V` is no beam:
    flatten it as it is, with the tokens in the last axis.""")
def _flattened_by_columns(totals, log_p):
    return _pairs((totals[:, None] + log_p).T.flatten().topk(len(totals)).indices, log_p.shape[1])


@beam_step.slip("""
    `topk` looks along the last axis, so these are the K best tokens of each beam, K · K ways. Put all ways
    into one row first, with `flatten()`.""")
def _best_tokens_of_each(totals, log_p):
    return (totals[:, None] + log_p).topk(len(totals)).indices


@beam_step.crash("""
    (K) and (K, V) do not fit entry by entry: the last axes are K and V. Give the totals an axis of length 1
    behind K, `totals[:, None]`.""")
def _totals_without_their_axis(totals, log_p):
    return _top(totals + log_p, len(totals))


# --- 5 -------------------------------------------------------------------------------------------------


def _scores_and_p(rng: np.random.Generator, B: int, V: int, p: float, spread: float = 1.5) -> dict[str, Any]:
    return {"scores": spread * rng.standard_normal((B, V)), "p": p}


def _keep_top_p_reference(scores: np.ndarray, p: float) -> np.ndarray:
    out = np.full_like(scores, -np.inf)
    for b, probabilities in enumerate(_softmax(scores)):
        reached = 0.0
        for v in np.argsort(-probabilities):
            if reached < p:
                out[b, v] = scores[b, v]
            reached += probabilities[v]
    return out


@chapter.implement(
    title="The nucleus",
    statement="""
        Before a token is drawn by chance, the tail of unlikely ones is cut off. Top-p sampling keeps, in each
        row of `scores` (B, V), the fewest of the likeliest tokens whose probabilities together reach `p`; the
        token with which they reach it is one of them. So at least one is kept.

        Write the scores (B, V) in which all others are minus infinity. The ones that are kept stay as they
        are, and where they are.
        """,
    hints=(
        "On paper: probabilities 0.2, 0.5, 0.3 and p = 0.7. The likeliest has 0.5, with the next it is 0.8. "
        "Which tokens are kept, and what do you know about a token that is not?",
        "A token is left out if those before it, in falling order, have reached p without it.",
        "`scores.sort(dim=-1, descending=True)` gives the scores in falling order and `order`, the place "
        "where each came from. With `softmax` and `cumsum` you have the sums; those *before* a token are the "
        "cumulated sum less its own probability.",
        "You now know in falling order who is left out. To bring it back into the order of the vocabulary: "
        "`torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, left_out)`.",
    ),
    axes="B V",
    inputs=_scores_and_p,
    sizes=((2, 3, 0.7), (3, 5, 0.9), (1, 6, 0.5), (4, 3, 0.2), (3, 8, 0.8, 3.0), (2, 7, 0.95, 0.3)),
    reference=_keep_top_p_reference,
    gradient=False,
)
def keep_top_p(scores, p):
    """The fewest likeliest tokens of each row that reach p keep their scores (B, V); others get -inf."""
    ordered, order = scores.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    # By those before it: the token that crosses p is still needed, the one after it is not.
    left_out = probabilities.cumsum(dim=-1) - probabilities >= p
    # Back from falling order: entry i of a row goes to the place that it came from, order[i].
    left_out = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, left_out)
    return scores.masked_fill(left_out, float("-inf"))


def _falling(scores):
    """Probabilities in falling order, their sums up to and with each, and where each came from."""
    ordered, order = scores.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    return probabilities, probabilities.cumsum(-1), order


def _without(scores, order, left_out, value=-torch.inf):
    return scores.masked_fill(torch.zeros_like(left_out).scatter(-1, order, left_out), value)


@keep_top_p.slip("""
    The token that crosses p is missing, and a row whose likeliest token has p already loses all. Leave a
    token out only if those before it have reached p without it.""")
def _crossing_token_dropped(scores, p):
    _, sums, order = _falling(scores)
    return _without(scores, order, sums > p)


@keep_top_p.slip("""
    The token that crosses p is missing, except where it is the likeliest one. It always belongs to those that
    are kept.""")
def _crossing_token_dropped_but_the_first(scores, p):
    _, sums, order = _falling(scores)
    left_out = sums > p
    left_out[:, 0] = False
    return _without(scores, order, left_out)


@keep_top_p.slip("""
    You kept one token too many: the one after the one that crosses p. Once p is reached, it is enough.""")
def _one_too_many(scores, p):
    probabilities, sums, order = _falling(scores)
    return _without(scores, order, sums - probabilities - probabilities.roll(1, -1) >= p)


@keep_top_p.slip("""
    You sorted from the lowest score up, so the unlikely tokens were kept first. Sort with
    `descending=True`.""")
def _from_the_lowest_up(scores, p):
    ordered, order = scores.sort(-1)
    probabilities = ordered.softmax(-1)
    return _without(scores, order, probabilities.cumsum(-1) - probabilities >= p)


@keep_top_p.slip("""
    The scores come back in falling order. Each should stand where it came from: bring what you know of each
    token back with `scatter`.""")
def _left_in_falling_order(scores, p):
    probabilities, sums, order = _falling(scores)
    return scores.gather(-1, order).masked_fill(sums - probabilities >= p, -torch.inf)


@keep_top_p.slip("""
    What you found out in falling order you applied to the scores as they stand, so places are mixed up. Bring
    it back into the order of the vocabulary first, with `scatter`.""")
def _places_mixed_up(scores, p):
    probabilities, sums, _ = _falling(scores)
    return scores.masked_fill(sums - probabilities >= p, -torch.inf)


@keep_top_p.slip("""
    `gather`, or an index, reads from the places in `order`; here you must write to them: `scatter`.""")
def _gathered(scores, p):
    probabilities, sums, order = _falling(scores)
    return scores.masked_fill((sums - probabilities >= p).gather(-1, order), -torch.inf)


@keep_top_p.slip("""
    You summed scores. It is probabilities that reach p: take the softmax first.""")
def _scores_summed(scores, p):
    ordered, order = scores.sort(-1, descending=True)
    return _without(scores, order, ordered.cumsum(-1) - ordered >= p)


@keep_top_p.slip("""
    You compared each probability by itself with p. It is their sum that should reach p, from the likeliest
    down: `cumsum`.""")
def _each_by_itself(scores, p):
    return scores.masked_fill(scores.softmax(-1) < p, -torch.inf)


@keep_top_p.slip("""
    You kept every token that is at least p times as likely as the likeliest. That is min-p, another rule:
    here the probabilities are summed until they reach p.""")
def _compared_with_the_likeliest(scores, p):
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


@keep_top_p.slip("""
    You summed the probabilities in the order of the vocabulary. The likeliest come first: sort before you
    sum.""")
def _in_the_order_of_the_vocabulary(scores, p):
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities.cumsum(-1) - probabilities >= p, -torch.inf)


@keep_top_p.slip("""
    You kept the share p of all tokens, a fixed number. How many are kept should depend on the row: as many as
    it takes to reach the probability p.""")
def _share_of_the_vocabulary(scores, p):
    least = scores.topk(max(1, int(p * scores.shape[-1]))).values[..., -1:]
    return scores.masked_fill(scores < least, -torch.inf)


@keep_top_p.slip("""
    You kept the tail and cut off the likeliest tokens. Turn the comparison round.""")
def _tail_kept(scores, p):
    probabilities, sums, order = _falling(scores)
    return _without(scores, order, sums - probabilities < p)


@keep_top_p.slip("""
    The tokens that are left out have the score 0, and exp(0) is 1: they can still be drawn. Minus infinity
    cannot.""")
def _zero_for_minus_infinity(scores, p):
    probabilities, sums, order = _falling(scores)
    return _without(scores, order, sums - probabilities >= p, 0.0)


@keep_top_p.slip("""
    You returned probabilities. Asked for are scores: those that are kept, as they were, and minus infinity
    for the others.""")
def _probabilities_returned(scores, p):
    return keep_top_p.solve(scores, p).softmax(-1)


@keep_top_p.slip("""
    You returned log-probabilities. Asked for are the scores as they were, and minus infinity for those that
    are left out.""")
def _log_probabilities_returned(scores, p):
    return keep_top_p.solve(scores, p).log_softmax(-1)


@keep_top_p.slip("""
    Your softmax runs along the batch. The probabilities of one row sum to 1: the last axis.""")
def _softmax_along_the_batch(scores, p):
    ordered, order = scores.sort(-1, descending=True)
    probabilities = ordered.softmax(0)
    return _without(scores, order, probabilities.cumsum(-1) - probabilities >= p)


@keep_top_p.slip("""
    Everything is kept: the scores came back as they were. `masked_fill` returns a new tensor; is it the one
    that you return?""")
def _everything_kept(scores, p):
    return scores


@keep_top_p.slip("""
    Only the likeliest token is kept in each row: that is greedy search. Keep on until the probabilities reach
    p.""")
def _likeliest_alone(scores, p):
    return scores.masked_fill(scores < scores.amax(-1, keepdim=True), -torch.inf)


# --- 6 -------------------------------------------------------------------------------------------------


def _one_layer(rng: np.random.Generator, T: int, V: int, D: int) -> dict[str, np.ndarray]:
    """A model of one layer of attention; its table of positions is longer than any place or id here."""
    matrices = {name: 2 * rng.standard_normal((D, D)) * D**-0.5 for name in ("w_q", "w_k", "w_v")}
    return {
        "tokens": rng.integers(V, size=T),
        "embed": rng.standard_normal((V, D)),
        "positions": rng.standard_normal((T + V, D)),
        **matrices,
    }


def _all_at_once_reference(
    tokens: np.ndarray,
    embed: np.ndarray,
    positions: np.ndarray,
    w_q: np.ndarray,
    w_k: np.ndarray,
    w_v: np.ndarray,
) -> np.ndarray:
    T, D = len(tokens), embed.shape[1]
    x = embed[tokens] + positions[:T]
    scores = (x @ w_q) @ (x @ w_k).T / np.sqrt(D)
    scores[np.triu_indices(T, 1)] = -np.inf  # all tokens at once, so the future must be hidden
    return (x + _softmax(scores) @ (x @ w_v)) @ embed.T


class _AlwaysFirst:  # so that both functions of this name can be told apart
    @staticmethod
    def scores_one_by_one(tokens, embed, positions, w_q, w_k, w_v):
        """The scores (T, V) after each of T tokens, which are read one at a time, with a cache."""
        keys = values = embed[:0]  # the cache: a row for each token that was read
        rows = []
        for token in tokens:
            x = embed[token][None]
            x = x + positions[: len(x)]
            keys = torch.cat([keys, x @ w_k])
            values = torch.cat([values, x @ w_v])
            weights = (x @ w_q @ keys.T / x.shape[1] ** 0.5).softmax(dim=-1)
            rows.append((x + weights @ values) @ embed.T)
        return torch.cat(rows)


@chapter.debug(
    broken=_AlwaysFirst.scores_one_by_one,
    title="A cache that loses count",
    statement="""
        A small decoder of one layer of attention reads T tokens one at a time. What it needs of earlier
        tokens it keeps in a cache: their keys and values. So it should give the scores (T, V) that a pass
        over all tokens at once gives, with a causal mask. It does for the first token, and for no other.

        Put into the book's translator of number words, the same slip leaves the first token of every
        translation right. Of 1,000 numbers that the model never saw it spoils only about 20: 99054, for
        instance, comes out as 99040. No error is raised. That is how it gets past a quick look.

        Find the faulty line and repair it. `embed` has the shape (V, D), `positions` has a row of D numbers
        for each position, and `w_q`, `w_k`, `w_v` have the shape (D, D).
        """,
    hints=(
        "The first token is right and the second is not. Go through the second round by hand: from which "
        "tables does it take rows, and which rows? Which line takes the same row as in the first round?",
        "`x` holds one token, so `len(x)` is 1 in every round. Which rows of `positions` does that take?",
        "The new token stands behind all those that were read. Something in the loop knows how many these "
        "are.",
        "As many tokens were read as the cache has rows: take `positions[len(keys)]`, before the new key is "
        "put in.",
    ),
    axes="T V",
    inputs=_one_layer,
    sizes=((3, 4, 2), (4, 5, 3), (1, 3, 2), (5, 3, 4), (6, 7, 5)),
    reference=_all_at_once_reference,
    gradient=False,
)
def scores_one_by_one(tokens, embed, positions, w_q, w_k, w_v):
    """The scores (T, V) after each of T tokens, which are read one at a time, with a cache."""
    keys = values = embed[:0]  # the cache: a row for each token that was read
    rows = []
    for token in tokens:
        x = embed[token][None]
        # The new token stands behind all that are in the cache. The broken line counted the new token alone,
        # so each one stood at position 0.
        x = x + positions[len(keys)]
        keys = torch.cat([keys, x @ w_k])
        values = torch.cat([values, x @ w_v])
        weights = (x @ w_q @ keys.T / x.shape[1] ** 0.5).softmax(dim=-1)
        rows.append((x + weights @ values) @ embed.T)
    return torch.cat(rows)


def _read(x, embed, w_q, w_k, w_v, mask=None):
    """The scores (T, V) for x (T, D), all at once; causal unless another mask is given."""
    T, D = x.shape
    mask = torch.ones(T, T, dtype=torch.bool).tril() if mask is None else mask
    scores = (x @ w_q @ (x @ w_k).T / D**0.5).masked_fill(~mask, -torch.inf)
    return (x + scores.softmax(-1).nan_to_num(0.0) @ (x @ w_v)) @ embed.T


def _at(places, tokens, embed, positions):
    return embed[tokens] + positions[places]


@scores_one_by_one.slip("""
    Every token still stands at position 0. `x` holds the new token alone, so its length says nothing of where
    it stands; the length of the cache does.""")
def _still_at_position_0(tokens, embed, positions, w_q, w_k, w_v):
    return _read(_at(0, tokens, embed, positions), embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    Every token stands one position too far, the first at 1. Count before the new key goes into the cache: the
    first token finds it empty, and stands at 0.""")
def _counted_from_1(tokens, embed, positions, w_q, w_k, w_v):
    places = torch.arange(1, len(tokens) + 1)
    return _read(_at(places, tokens, embed, positions), embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    Every token stands one position too early, and the first at -1, which is the last row of the table. Before
    the new key goes in, the length of the cache is the position: take nothing away.""")
def _counted_from_minus_1(tokens, embed, positions, w_q, w_k, w_v):
    places = torch.arange(len(tokens)) - 1
    return _read(_at(places, tokens, embed, positions), embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    You took as many positions as the cache has rows. For the first token that is none, and a token plus no
    row is no token: nothing is left. The new token needs one row, the one at its own position.""")
def _as_many_as_the_cache(tokens, embed, positions, w_q, w_k, w_v):
    return embed.new_zeros(0, len(embed))


@scores_one_by_one.slip("""
    You looked up the position under the token's id. An id says which word it is; where it stands is the
    number of tokens before it.""")
def _id_for_position(tokens, embed, positions, w_q, w_k, w_v):
    return _read(_at(tokens, tokens, embed, positions), embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    The positions are gone: no token knows where it stands. Each needs the row of `positions` that belongs to
    its place.""")
def _no_positions(tokens, embed, positions, w_q, w_k, w_v):
    return _read(embed[tokens], embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    Your slice of `positions` begins at 0 and ends at the new token, so the one token becomes several. Take
    the one row at which it stands.""")
def _slice_from_0(tokens, embed, positions, w_q, w_k, w_v):
    keys = values = embed[:0]
    rows = []
    for t, token in enumerate(tokens):
        x = embed[token] + positions[: t + 1]
        keys, values = torch.cat([keys, x @ w_k]), torch.cat([values, x @ w_v])
        weights = (x @ w_q @ keys.T / x.shape[1] ** 0.5).softmax(-1)
        rows.append((x + weights @ values) @ embed.T)
    return torch.cat(rows)


@scores_one_by_one.slip("""
    Your slice begins at the new token and goes on to the end of the table, so the one token becomes several.
    Take one row: an index without a colon.""")
def _slice_to_the_end(tokens, embed, positions, w_q, w_k, w_v):
    keys = values = embed[:0]
    rows = []
    for token in tokens:
        x = embed[token] + positions[len(keys) :]
        keys, values = torch.cat([keys, x @ w_k]), torch.cat([values, x @ w_v])
        weights = (x @ w_q @ keys.T / x.shape[1] ** 0.5).softmax(-1)
        rows.append((x + weights @ values) @ embed.T)
    return torch.cat(rows)


@scores_one_by_one.slip("""
    All tokens stand behind the last one, at position T. While token t is read, only t tokens stand before it:
    count these, not all T.""")
def _all_behind_the_last(tokens, embed, positions, w_q, w_k, w_v):
    return _read(_at(len(tokens), tokens, embed, positions), embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    You count from the end: the first token stands at the last position. It stands at 0, and each one after it
    at the number of tokens before it.""")
def _counted_from_the_end(tokens, embed, positions, w_q, w_k, w_v):
    places = torch.arange(len(tokens)).flip(0)
    return _read(_at(places, tokens, embed, positions), embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    All tokens stand at the position of the last one. While token t is read, only t tokens stand before it:
    count these, not all T.""")
def _all_at_the_last(tokens, embed, positions, w_q, w_k, w_v):
    return _read(_at(len(tokens) - 1, tokens, embed, positions), embed, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    The position is right, but the cache is empty at each new token: it sees itself alone. Make the cache
    before the loop and let it grow.""")
def _cache_begun_anew(tokens, embed, positions, w_q, w_k, w_v):
    x = _at(torch.arange(len(tokens)), tokens, embed, positions)
    return _read(x, embed, w_q, w_k, w_v, torch.eye(len(tokens), dtype=torch.bool))


@scores_one_by_one.slip("""
    The position is right, but a token does not see itself: its key and value go into the cache before
    attention looks there, as they did.""")
def _itself_not_in_the_cache(tokens, embed, positions, w_q, w_k, w_v):
    x = _at(torch.arange(len(tokens)), tokens, embed, positions)
    return _read(x, embed, w_q, w_k, w_v, torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril(-1))


@scores_one_by_one.slip("""
    You read all tokens at once, and without a mask: each sees what comes after it. One at a time that cannot
    happen, since the later ones are not yet in the cache.""")
def _future_seen(tokens, embed, positions, w_q, w_k, w_v):
    x = _at(torch.arange(len(tokens)), tokens, embed, positions)
    return _read(x, embed, w_q, w_k, w_v, torch.ones(len(tokens), len(tokens), dtype=torch.bool))


def _with_positions_in(parts, tokens, embed, positions, w_q, w_k, w_v):
    """As the solution, but only these of query, key, value and the sum at the end know the position."""
    bare, placed = embed[tokens], _at(torch.arange(len(tokens)), tokens, embed, positions)
    q, k, v, x = (placed if part in parts else bare for part in "qkvx")
    scores = (q @ w_q @ (k @ w_k).T / x.shape[1] ** 0.5).masked_fill(
        torch.ones(len(x), len(x), dtype=torch.bool).triu(1), -torch.inf
    )
    return (x + scores.softmax(-1) @ (v @ w_v)) @ embed.T


@scores_one_by_one.slip("""
    The position reaches the query only. Add it to `x` before keys and values are made from it.""")
def _query_alone(tokens, embed, positions, w_q, w_k, w_v):
    return _with_positions_in("q", tokens, embed, positions, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    The position comes too late: keys and values were made without it. Add it before them, where the broken
    line stood.""")
def _after_the_cache(tokens, embed, positions, w_q, w_k, w_v):
    return _with_positions_in("qx", tokens, embed, positions, w_q, w_k, w_v)


@scores_one_by_one.slip("""
    Query, key and value know the position; the `x` that attention is added to does not. Add the position to
    `x` itself.""")
def _not_in_the_sum(tokens, embed, positions, w_q, w_k, w_v):
    return _with_positions_in("qkv", tokens, embed, positions, w_q, w_k, w_v)


# --- 7 -------------------------------------------------------------------------------------------------


def _two_translations(rng: np.random.Generator, C: int, R: int, n: int, V: int) -> dict[str, Any]:
    """Tokens of a small vocabulary, so that n-grams come again."""
    return {"candidate": rng.integers(V, size=C), "reference": rng.integers(V, size=R), "n": n}


def _crossed_off(candidate: np.ndarray, reference: np.ndarray, n: int) -> np.ndarray:
    left = [tuple(reference[i : i + n].tolist()) for i in range(len(reference) - n + 1)]
    hits = total = 0
    for i in range(len(candidate) - n + 1):
        gram = tuple(candidate[i : i + n].tolist())
        total += 1
        if gram in left:
            left.remove(gram)  # each of the reference's serves once
            hits += 1
    return np.array([hits, total])


@chapter.implement(
    title="Hits, and no more than there are",
    statement="""
        BLEU counts how many n-grams of a translation, runs of n tokens, stand in a reference. So that nobody
        gains by saying *the the the*, hits are clipped: an n-gram counts at most as often as the reference
        has it.

        `candidate` and `reference` are rows of token ids, of lengths C and R. Write two whole numbers, shape
        (2): the clipped hits, and the number of all n-grams of the candidate. A candidate shorter than n has
        none.
        """,
    hints=(
        "By hand, with n = 1: the candidate 7 7 7 5 and the reference 7 5 7. The 7 stands there twice, so it "
        "counts twice; the answer is 3 of 4.",
        "`tokens.tolist()` makes a list of numbers, and `tuple(ids[i : i + n])` the n-gram that begins at "
        "place i. At how many places can one begin?",
        "At C - n + 1 places, so `range(len(ids) - n + 1)`: a range of a number below 1 is empty.",
        "For each different n-gram of the candidate, `set(ours)`: the hits are the smaller of "
        "`ours.count(gram)` and `theirs.count(gram)`. `torch.tensor([hits, len(ours)])` is the answer.",
    ),
    axes="2",
    inputs=_two_translations,
    sizes=(
        (4, 3, 1, 2),
        (6, 7, 2, 2),
        (3, 6, 1, 3),
        (7, 5, 2, 2),
        (2, 5, 4, 3),
        (5, 2, 4, 2),
        (9, 12, 3, 2),
        (12, 9, 2, 3),
    ),
    reference=_crossed_off,
    gradient=False,
)
def clipped_hits(candidate, reference, n):
    """Clipped hits and number of n-grams: candidate (C) and reference (R), ids of tokens, to (2)."""
    # As tuples of plain numbers: in a set these are one if their numbers are equal, and tensors are not.
    ours, theirs = (
        [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        for ids in (candidate.tolist(), reference.tolist())
    )
    # Each different n-gram once; it counts as often as the candidate has it, if the reference has as many.
    hits = sum(min(ours.count(gram), theirs.count(gram)) for gram in set(ours))
    return torch.tensor([hits, len(ours)])


def _grams(tokens, n):
    ids = tokens.tolist()
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


def _matches(ours, theirs):
    return sum(min(ours.count(gram), theirs.count(gram)) for gram in set(ours))


@clipped_hits.slip("""
    Your hits are not clipped: an n-gram that the candidate repeats counts each time, even where the reference
    has it once. It counts at most as often as the reference has it.""")
def _not_clipped(candidate, reference, n):
    ours, theirs = _grams(candidate, n), _grams(reference, n)
    return torch.tensor([sum(gram in theirs for gram in ours), len(ours)])


@clipped_hits.slip("""
    You add the smaller count again for each repetition of an n-gram. Once for each different one is enough:
    go through `set(ours)`.""")
def _repetitions_added_again(candidate, reference, n):
    ours, theirs = _grams(candidate, n), _grams(reference, n)
    return torch.tensor([sum(min(ours.count(gram), theirs.count(gram)) for gram in ours), len(ours)])


@clipped_hits.slip("""
    Each different n-gram counts once in your hits. It counts as often as both have it: the smaller of the two
    counts.""")
def _each_once(candidate, reference, n):
    ours, theirs = _grams(candidate, n), _grams(reference, n)
    return torch.tensor([len(set(ours) & set(theirs)), len(ours)])


@clipped_hits.slip("""
    You made sets of the n-grams, in which each stands once. Repetitions count, in the hits and in the total.
    """)
def _sets(candidate, reference, n):
    ours, theirs = set(_grams(candidate, n)), set(_grams(reference, n))
    return torch.tensor([len(ours & theirs), len(ours)])


@clipped_hits.slip("""
    Your total is right for the set of different n-grams. All n-grams of the candidate count, repeated ones
    too.""")
def _total_of_the_set(candidate, reference, n):
    ours = _grams(candidate, n)
    return torch.tensor([_matches(ours, _grams(reference, n)), len(set(ours))])


@clipped_hits.slip("""
    Your total counts the n-grams of the reference: with it one gets recall. BLEU asks how much of the
    candidate is right, its precision.""")
def _recall(candidate, reference, n):
    theirs = _grams(reference, n)
    return torch.tensor([_matches(_grams(candidate, n), theirs), len(theirs)])


@clipped_hits.slip("""
    Candidate and reference have changed places, and the hits are not clipped: you count the n-grams of the
    reference that stand in the candidate.""")
def _changed_places(candidate, reference, n):
    ours, theirs = _grams(candidate, n), _grams(reference, n)
    return torch.tensor([sum(gram in ours for gram in theirs), len(theirs)])


@clipped_hits.slip("""
    Your hits count the n-grams of the reference that stand in the candidate. Go through the candidate's, each
    at most as often as the reference has it.""")
def _hits_of_the_reference(candidate, reference, n):
    ours, theirs = _grams(candidate, n), _grams(reference, n)
    return torch.tensor([sum(gram in ours for gram in theirs), len(ours)])


@clipped_hits.slip("""
    The two numbers are the other way round: first the hits, then the total.""")
def _total_first(candidate, reference, n):
    return clipped_hits.solve(candidate, reference, n).flip(0)


@clipped_hits.slip("""
    Your n-grams are one token too long: `ids[i : i + n]` has n tokens, since a slice stops before its
    end.""")
def _one_longer(candidate, reference, n):
    return clipped_hits.solve(candidate, reference, n + 1)


@clipped_hits.slip("""
    You left out the last n-gram: one can begin at C - n + 1 places, `range(len(ids) - n + 1)`.""")
def _last_one_left_out(candidate, reference, n):
    return clipped_hits.solve(
        candidate[: max(0, len(candidate) - 1)], reference[: max(0, len(reference) - 1)], n
    )


@clipped_hits.slip("""
    You let an n-gram begin at every place, so that the last ones are shorter than n. None begins after place
    C - n.""")
def _short_ones_at_the_end(candidate, reference, n):
    ours, theirs = (
        [tuple(ids[i : i + n]) for i in range(len(ids))] for ids in (candidate.tolist(), reference.tolist())
    )
    return torch.tensor([_matches(ours, theirs), len(ours)])


@clipped_hits.slip("""
    The hits are right, but your total counts tokens. A candidate of C tokens has C - n + 1 n-grams.""")
def _tokens_counted(candidate, reference, n):
    hits = _matches(_grams(candidate, n), _grams(reference, n))
    return torch.tensor([hits, len(candidate)])


@clipped_hits.slip("""
    The total of a candidate shorter than n is wrong: it has no n-gram, so it is 0. C - n + 1 alone falls
    below that.""")
def _total_below_zero(candidate, reference, n):
    hits = _matches(_grams(candidate, n), _grams(reference, n))
    return torch.tensor([hits, len(candidate) - n + 1])


@clipped_hits.slip("""
    You compared place by place. An n-gram may stand anywhere in the reference: BLEU does not ask where.""")
def _place_by_place(candidate, reference, n):
    ours, theirs = _grams(candidate, n), _grams(reference, n)
    return torch.tensor([sum(a == b for a, b in zip(ours, theirs, strict=False)), len(ours)])


@clipped_hits.slip("""
    Your n-grams do not overlap: you went on by n places each time. One begins at every place up to C - n.""")
def _without_overlap(candidate, reference, n):
    ours, theirs = _grams(candidate, n)[::n], _grams(reference, n)[::n]
    return torch.tensor([_matches(ours, theirs), len(ours)])


@clipped_hits.slip("""
    You do not mind the order of tokens within an n-gram. It does matter: 7 5 and 5 7 are two.""")
def _order_lost(candidate, reference, n):
    ours, theirs = ([tuple(sorted(g)) for g in _grams(tokens, n)] for tokens in (candidate, reference))
    return torch.tensor([_matches(ours, theirs), len(ours)])


@clipped_hits.slip("""
    You counted n-grams of all lengths up to n. Here those of n tokens are asked for; BLEU puts the lengths
    together later.""")
def _all_lengths(candidate, reference, n):
    return sum(clipped_hits.solve(candidate, reference, m) for m in range(1, n + 1))


@clipped_hits.slip("""
    You counted single tokens: `n` has no effect.""")
def _single_tokens(candidate, reference, n):
    return clipped_hits.solve(candidate, reference, 1)


@clipped_hits.slip("""
    Nothing is ever found. As a key, or in a set, a tensor is equal to itself only, and so is a tuple of
    tensors: make plain numbers of them first, with `.tolist()`.""")
def _tensors_as_keys(candidate, reference, n):
    return torch.tensor([0, len(_grams(candidate, n))])


@clipped_hits.crash("""
    A set, or a dictionary, takes no lists: they can change. Make a tuple of each n-gram,
    `tuple(ids[i : i + n])`.""")
def _lists_in_a_set(candidate, reference, n):
    ids = candidate.tolist()
    ours = {ids[i : i + n] for i in range(len(ids) - n + 1)}
    return torch.tensor([len(ours), len(ids)])


# --- 8 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Up by 44 percent?",
    statement="""
        Of its largest model, the paper *Attention Is All You Need* reports 28.4 BLEU from English to German
        and 41.8 BLEU from English to French, each on the test set of WMT 2014. (In the
        conference version it was 41.0.) A popular article makes one line of this:

        > BLEU 28.4 → 41.0, +44 %

        What do the paper's numbers let you say?
        """,
    choices={
        "a": "The Transformer translates 44 % better than the best system before it.",
        "b": "The same model translates into French 44 % better than into German.",
        "c": "The article took the older number: with 41.8 the gain is 47 %.",
        "d": "Nothing of the two together. Each number can only be held against others on the same test set.",
    },
    hints=(
        "Which two things does the arrow join? Look up which language each of the two numbers belongs to.",
        "41.0 / 28.4 is 1.44, so the arithmetic is right. For a gain one would have to measure before and "
        "after on the same test.",
        "BLEU counts n-grams that one reference happens to use. How many of them can be hit depends on the "
        "language, on how it is cut into tokens, and on how many good translations a sentence has.",
    ),
    expected="d",
    wrong={
        "a": "28.4 is not the score of an earlier system: it is the new model's own, in German. Earlier "
        "systems have other numbers, on each of the two tests.",
        "b": "Two test sets, two languages, two sets of references: a good translation may score higher in "
        "one than a good one in the other. BLEU is no share of what is right.",
        "c": "The arithmetic is right, and the comparison is as empty as before: one number is German, the "
        "other French.",
    },
)
def what_the_numbers_say():
    """Nothing of the two together: one is German, the other French. On the same test sets, the paper lists
    26.36 and 41.29 for the best earlier ensembles. So the gains are 2.0 BLEU in German and 0.5 in French.
    """
    scores = {  # test set -> the best ensemble before, and the Transformer
        "English to German": (26.36, 28.4),
        "English to French": (41.29, 41.8),
    }
    # Only two numbers of one test set make a gain. The article's two come from different ones.
    gains = {test: round(after - before, 1) for test, (before, after) in scores.items()}
    return "d" if gains == {"English to German": 2.0, "English to French": 0.5} else "a"


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.measure(
    title="How sure it is when it is wrong",
    statement="""
        The translator of number words learned numbers below 100,000. Let it write longer ones, and ask how
        sure it is of them. `NUMBERS.split().longer[:50]` are 50 numbers of six digits, and `NUMBERS.of(...)`
        gives their pairs of English and German words; `NUMBERS` comes from
        `transformer_lab.training.encoder_decoder`. The translator is
        `transformer_lab.translator.pretrained("number_words")`.

        Let it write each English number with a beam of 1. Report two numbers: the share of the 50
        translations that are right, letter by letter, and the mean of the probabilities that the model gives
        to its own translations.
        """,
    hints=(
        'After `writer = translator.pretrained("number_words")`, `writer.hypotheses(english, beam_size=1)` '
        "gives a list of one pair: `text, found = writer.hypotheses(...)[0]`.",
        "`found.log_probability` is the natural logarithm of the probability of all its tokens together: "
        "`math.exp` makes a probability of it.",
        "Go through the 50 pairs, collect `text == german` in one list and "
        "`math.exp(found.log_probability)` in another, and take the mean of each.",
    ),
    ranges={"share that is right": (0.0, 0.04), "mean probability": (0.735, 0.7465)},
    slips={
        "The two numbers are the other way round: first the share, then the probability.": (
            (0.735, 0.7465),
            (0.0, 0.04),
        ),
        "That is the best of several hypotheses, which a beam of 2 or more finds. Ask for a beam of 1.": (
            (0.0, 0.04),
            (0.7475, 0.76),
        ),
        "These are numbers that it learned to say, or others below 100,000. Take the first 50 of "
        "`NUMBERS.split().longer`.": ((0.96, 1.0), (0.95, 1.0)),
        "These are logarithms. `math.exp` makes a probability of each, and then comes the mean.": (
            (0.0, 0.04),
            (-0.4, -0.31),
        ),
        "These are scores, divided by the length penalty, and logarithms. Take `log_probability`, and `exp` "
        "of it.": ((0.0, 0.04), (-0.29, -0.19)),
        "You took `exp` of the score, which was divided by the length penalty, or more numbers than the first"
        " 50 of `longer`. Take these 50, and `exp` of `log_probability`.": ((0.0, 0.04), (0.8025, 0.89)),
        "You took the mean of the logarithms first and `exp` of it after. Asked for is the mean of the "
        "probabilities.": ((0.0, 0.04), (0.69, 0.72)),
        "That is the mean probability of one token, or the sum over several hypotheses of a beam. Asked for "
        "is the product of all tokens of one hypothesis: `exp` of the whole `log_probability`, with a beam "
        "of 1.": ((0.0, 0.04), (0.9, 0.98)),
        "That is the probability of the least likely token of each translation. A translation has the "
        "product of all its tokens.": ((0.0, 0.04), (0.78, 0.802)),
        "That is the last, and least likely, of several hypotheses. Ask for a beam of 1, which gives one.": (
            (0.0, 0.04),
            (0.0011, 0.17),
        ),
        "That is the probability of the right translations, which the model hardly thinks possible. Asked "
        "for are those that it wrote itself.": ((0.0, 0.04), (0.0, 0.001)),
        "The second number is a percentage. Report a probability: 1 is certain.": (
            (0.0, 4.0),
            (73.0, 76.0),
        ),
    },
    at_most=(1.0, "A share and a probability are at most 1. Did you divide by 50, and take `exp` of each?"),
    otherwise="Not in the range that these 50 numbers give. Check: the first 50 of `longer`, a beam of 1, "
    "`math.exp(found.log_probability)` for each, and the mean of the 50; at least two decimals.",
)
def sure_and_wrong():
    """Not one is right, and on average it gives its own words a probability of 0.74; over all 1,000 numbers
    of `longer` it is even 0.81, and again not one is right. A probability says how the model's tokens go
    together with what it saw in training, not whether they are true.
    """
    from transformer_lab import translator
    from transformer_lab.training.encoder_decoder import NUMBERS

    writer = translator.pretrained("number_words")
    right, probabilities = [], []
    for english, german in NUMBERS.of(NUMBERS.split().longer[:50]):
        text, found = writer.hypotheses(english, beam_size=1)[0]
        right.append(text == german)
        probabilities.append(found.log_probability)
    return sum(right) / 50, torch.tensor(probabilities).exp().mean().item()
