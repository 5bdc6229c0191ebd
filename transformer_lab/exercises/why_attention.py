"""Exercises of the chapter "Why attention", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .check import Chapter

chapter = Chapter("why_attention", "Why attention")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


def _scored(rng: np.random.Generator, S: int, D: int) -> dict[str, Any]:
    return {"scores": rng.standard_normal(S), "values": rng.standard_normal((S, D)) + 0.5}


def _average_one_by_one(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    total, out = 0.0, np.zeros(values.shape[1])
    for score, value in zip(scores, values, strict=True):
        total += math.exp(score)
        out += math.exp(score) * value
    return out / total


@chapter.implement(
    title="A weighted average",
    statement=r"""
        S tokens answer a question. Each has a score, in `scores` (S), and something to say, a row of `values`
        (S, D). The weight of token s is $e^{\text{score}_s}$, divided by the sum of $e^{\text{score}}$ over
        all S tokens. Write the weighted average of the values, (D).
        """,
    hints=(
        "By hand, with two tokens: scores log 3 and 0, values 8 and 4. e to the score is 3 and 1, the "
        "weights are 3/4 and 1/4, the average is 6 + 1 = 7.",
        "`scores.softmax(dim=0)` makes the S weights at once; they sum to 1.",
        "A sum over tokens of weight times value is a product of a row (S) and a table (S, D): `weights @ "
        "values`.",
    ),
    axes="D",
    inputs=_scored,
    sizes=((2, 3), (3, 2), (5, 4), (1, 2), (4, 1)),
    reference=_average_one_by_one,
)
def weighted_average(scores, values):
    """The average of the values (S, D), weighted by softmax of the scores (S): (D)."""
    # One weight a token; together they are 1, so that the result is of the values' size.
    weights = scores.softmax(dim=0)
    return weights @ values


@weighted_average.slip("""
    You weigh by the scores themselves. They may be negative, and do not sum to 1: take e to the score, and
    divide by the sum.""")
def _by_scores(scores, values):
    return scores @ values


@weighted_average.slip("""
    You divide the scores by their sum. That makes weights that sum to 1, and some of them negative: take e to
    the score first.""")
def _scores_by_sum(scores, values):
    return scores / scores.sum() @ values


@weighted_average.slip("""
    Your weights are e to the score, and not divided by their sum: the result grows with the number of
    tokens.""")
def _not_divided(scores, values):
    return scores.exp() @ values


@weighted_average.slip("""
    The scores have no part in your answer: it is the plain mean.""")
def _plain_mean(scores, values):
    return values.mean(0)


@weighted_average.slip("""
    You took the sigmoid of each score. That lies between 0 and 1, but the weights of all tokens together must
    be 1: softmax.""")
def _sigmoids(scores, values):
    return scores.sigmoid() @ values


@weighted_average.slip("""
    Your softmax runs over the D numbers of a value. It runs over the S scores, one for each token.""")
def _softmax_of_values(scores, values):
    return scores @ values.softmax(-1)


@weighted_average.slip("""
    You give everything to the token with the highest score. The weights are e to the score: the others count
    as well, and only so is there a gradient for the scores.""")
def _the_best_alone(scores, values):
    return values[scores.argmax()] + 0 * scores.sum()


@weighted_average.slip("""
    The smaller the score, the larger your weight: a minus stands in your exponent.""")
def _worst_first(scores, values):
    return (-scores).softmax(0) @ values


@weighted_average.slip("""
    Divided by S as well? The weights sum to 1: their weighted sum is the average already.""")
def _divided_again(scores, values):
    return scores.softmax(0) @ values / len(scores)


@weighted_average.slip("""
    Your weights have the base 2. Here it is e: `exp`, or `softmax`.""")
def _base_two(scores, values):
    weights = 2**scores
    return weights / weights.sum() @ values


@weighted_average.slip("""
    These are the weighted values, (S, D), one row a token. Sum them over the tokens.""")
def _not_summed(scores, values):
    return scores.softmax(0)[:, None] * values


@weighted_average.slip("""
    These are the weights. The average of the values is wanted: `weights @ values`.""")
def _weights_returned(scores, values):
    return scores.softmax(0)


# --- 2 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Layers that see a thousand tokens",
    statement="""
        A stack of causal convolutions, each with *three* taps: the token itself and two earlier ones. In the
        first layer the taps are 1 apart, in the second 3, in the third 9, and so on: each dilation is three
        times that of the layer below.

        Before you run anything: how many layers does it take until the last token sees 1000 tokens, itself
        the last of them?
        """,
    hints=(
        "After one layer the last token sees 3 tokens. In the second layer it looks at three of these "
        "triples, 3 apart: do they overlap? Is there a gap?",
        "After two layers it sees 9. And after three?",
        "3, 9, 27, 81, ...: which is the first of at least 1000?",
    ),
    expected=7.0,
    wrong={
        6.0: "After 6 layers it is 3 · 3 · 3 · 3 · 3 · 3 = 729 tokens: not enough yet.",
        10.0: "So many it takes with two taps, and dilations of 1, 2, 4, .... With three taps the reach "
        "grows three times with each layer.",
        500.0: "So many it would take without dilation: each layer would add two tokens. Here each layer "
        "multiplies the reach by three.",
        334.0: "You divided 1000 by 3. Each layer does not add three tokens, it multiplies their number by "
        "three.",
        1000.0: "That is a recurrence's way, a step a token. Each layer here multiplies the reach by three.",
        8.0: "One too many. The first layer sees 3 tokens already, and 3 to the power of 7 is 2187.",
    },
    otherwise="Not that number. With each layer the reach becomes three times as large: 3, 9, 27, ....",
    form="one number",
)
def layers_of_three_taps():
    """7: 3 to the power of 7 is 2187, and 729 is too few. A thousand times the distance costs six layers
    more: that is what the logarithm in the paper's table means.
    """
    n_layers, reach = 0, 1
    while reach < 1000:
        n_layers, reach = n_layers + 1, 3 * reach
    return n_layers


# --- 3 -------------------------------------------------------------------------------------------------


def _taps(rng: np.random.Generator, T: int, D: int, back: int) -> dict[str, Any]:
    return {
        "x": rng.standard_normal((T, D)),
        "now": rng.standard_normal((D, D)),
        "before": rng.standard_normal((D, D)),
        "back": back,
    }


def _taps_one_by_one(x: np.ndarray, now: np.ndarray, before: np.ndarray, back: int) -> np.ndarray:
    out = np.zeros_like(x)
    for t in range(len(x)):
        out[t] = np.einsum("d,de->e", x[t], now)
        if t >= back:
            out[t] += np.einsum("d,de->e", x[t - back], before)
    return out


@chapter.implement(
    title="Two taps, so many apart",
    statement=r"""
        One layer of a dilated causal convolution. `x` has the shape (T, D). Each token looks at itself,
        through the matrix `now` (D, D), and at the token `back` places before it, through `before` (D, D):

        $$y_t = x_t\, \text{now} + x_{t - \text{back}}\, \text{before}$$

        What lies before the first token is 0. Write y, (T, D). `back` is 1 or more, and may be larger than T.
        """,
    hints=(
        "You need a second table, in which row t is the row t - back of x, and 0 where there is none.",
        "`F.pad(x, (0, 0, back, 0))` (with `from torch.nn import functional as F`) puts `back` rows of zeros "
        "before the first token. Now there are T + back rows: which T of them do you need?",
        "The first T: `earlier = padded[:len(x)]`. Its row t is row t - back of x.",
        "`x @ now + earlier @ before`.",
    ),
    axes="T D",
    inputs=_taps,
    sizes=((4, 2, 1), (5, 3, 2), (6, 2, 4), (3, 4, 3), (2, 3, 5), (7, 1, 3)),
    reference=_taps_one_by_one,
)
def two_taps(x, now, before, back):
    """y_t = x_t now + x_(t-back) before, with zeros before the first token: x (T, D) to (T, D)."""
    # Row t of the padded table is row t - back of x. Its end, the newest rows, is nobody's past.
    earlier = torch.nn.functional.pad(x, (0, 0, back, 0))[: len(x)]
    return x @ now + earlier @ before


def _earlier(x, back):
    return F.pad(x, (0, 0, back, 0))[: len(x)]


@two_taps.slip("""
    Your second tap looks ahead: to the token `back` places *after*. The zeros belong before the first token,
    and then the first T rows are kept.""")
def _looks_ahead(x, now, before, back):
    return x @ now + F.pad(x, (0, 0, 0, back))[back:] @ before


@two_taps.slip("""
    What lies before the first token is the end of the sequence in your answer: `roll` moves in a circle.
    There should be zeros.""")
def _in_a_circle(x, now, before, back):
    return x @ now + x.roll(back, dims=0) @ before


@two_taps.slip("""
    You look one token back, always. The distance is `back`.""")
def _one_back(x, now, before, back):
    return x @ now + _earlier(x, 1) @ before


@two_taps.slip("""
    The two matrices have changed places: `now` belongs to the token itself, `before` to the earlier one.""")
def _exchanged(x, now, before, back):
    return x @ before + _earlier(x, back) @ now


@two_taps.slip("""
    The token itself is missing in your answer: `x @ now` must be added.""")
def _itself_missing(x, now, before, back):
    return _earlier(x, back) @ before


@two_taps.slip("""
    Your matrices are transposed. Here a row is multiplied from the left: `x @ now`. (It is `nn.Linear`, and
    `nn.Conv1d`, whose weight has the outputs first.)""")
def _transposed(x, now, before, back):
    return x @ now.T + _earlier(x, back) @ before.T


@two_taps.slip("""
    Your second tap sees all tokens up to the one `back` places before, and adds them. It looks at that one
    token alone.""")
def _all_earlier(x, now, before, back):
    return x @ now + _earlier(x, back).cumsum(0) @ before


@two_taps.slip("""
    You look `back - 1` places back. A distance of 1 is the token before.""")
def _too_near(x, now, before, back):
    return x @ now + _earlier(x, back - 1) @ before


@two_taps.slip("""
    You look `back + 1` places back: one too far. A distance of 1 is the token before.""")
def _too_far(x, now, before, back):
    return x @ now + _earlier(x, back + 1) @ before


@two_taps.slip("""
    What lies before the first token is a copy of the first token in your answer. There should be zeros.""")
def _first_repeated(x, now, before, back):
    return x @ now + torch.cat([x[:1].expand(back, -1), x])[: len(x)] @ before


@two_taps.slip("""
    You averaged the two taps. It is their sum.""")
def _averaged(x, now, before, back):
    return (x @ now + _earlier(x, back) @ before) / 2


@two_taps.slip("""
    Your zeros stand before the first number of each vector, not before the first token: the pairs in `F.pad`
    are counted from the last axis, so the rows need the third and fourth place.""")
def _wrong_axis(x, now, before, back):
    return x @ now + F.pad(x, (back, 0))[:, : x.shape[1]] @ before


@two_taps.crash("""
    The two tables have not the same number of rows: after padding there are T + back, and the first T are
    wanted, `[:len(x)]`.""")
def _not_cut(x, now, before, back):
    return x @ now + F.pad(x, (0, 0, back, 0)) @ before


# --- 4 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Leaps",
    statement="""
        A stack of seven dilated causal convolutions of two taps, 1, 2, 4, ... 64 apart, each with a skip
        connection: in each layer a token can stay where it is, or leap by that layer's dilation.

        Before you run anything: what is the smallest number of leaps that carries news from a token to one
        100 places later?
        """,
    hints=(
        "Each layer offers one leap, of its own length, and each can be used once. Which of 1, 2, 4, 8, 16, "
        "32, 64 add up to 100?",
        "Begin with the largest that fits: 64. Then 36 are left.",
        "64 + 32 + 4. It is how 100 is written with ones and zeros, 1100100, and the ones are counted.",
    ),
    expected=3.0,
    wrong={
        7.0: "Seven layers there are, and the news goes through all of them. But in most it can stay where "
        "it is, on the skip connection: how many leaps are needed?",
        100.0: "That is a recurrence's way. Here a leap may be as long as 64.",
        2.0: "No two of 1, 2, 4, 8, 16, 32, 64 add up to 100: after 64, 36 are left.",
        25.0: "Each layer can be used once: not 25 leaps of 4. Begin with 64.",
        4.0: "One too many. 64 and 32 are 96; which single leap does the rest?",
        1.0: "There is no leap of 100: the dilations are 1, 2, 4, 8, 16, 32, 64.",
        50.0: "Each layer can be used once: not 50 leaps of 2. Begin with 64.",
    },
    otherwise="Not that number. Write 100 as a sum of different numbers out of 1, 2, 4, 8, 16, 32, 64.",
    form="one number",
)
def leaps():
    """3 leaps, 64 + 32 + 4. So at distance 100 the gradient of such a stack is larger than at 63, which needs
    six: in dilated convolutions near and far mean something else.
    """
    return f"{100:b}".count("1")


# --- 5 -------------------------------------------------------------------------------------------------


def _states(rng: np.random.Generator, T: int, D: int) -> dict[str, Any]:
    return {
        "states": np.tanh(rng.standard_normal((T, D))),
        "weight": rng.standard_normal((D, D)),
    }


def _carried_by_columns(states: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Push each unit change through the steps, one after the other."""
    D = states.shape[1]
    table = np.zeros((D, D))
    for j in range(D):
        change = np.zeros(D)
        change[j] = 1.0
        for h in states[1:]:
            change = np.array([(1 - h[i] ** 2) * np.dot(weight[i], change) for i in range(D)])
        table[:, j] = change
    return table


@chapter.implement(
    title="What a recurrence carries",
    statement=r"""
        A recurrence $h_t = \tanh(W h_{t-1} + \text{input}_t)$ has gone through T states: `states` (T, D), a
        row for each time. `weight` is W, (D, D). When the first state moves a little, by how much does the
        last one move? Step by step a change is multiplied by W and then, number by number, by the slope of
        tanh, which is $1 - h_t^2$ at the state that comes *out* of the step:

        $$\frac{\partial h_T}{\partial h_1} = \operatorname{diag}(1 - h_T^2)\, W \;\cdots\;
        \operatorname{diag}(1 - h_2^2)\, W$$

        Write this table, (D, D): row i, column j says how much number i of the last state moves with number j
        of the first. With T = 1 the last state is the first.
        """,
    hints=(
        "From T states to the next there are T - 1 steps. Start with what is right for no step: a table that "
        "changes nothing.",
        "`table = torch.eye(D)`; then for each state from the second on, one more factor. On which side "
        "does it come in? The last step stands on the left.",
        "One factor is `(1 - h**2)[:, None] * weight`: each row of W times the slope of its own number.",
        "So in the loop over `states[1:]`: `table = ((1 - h**2)[:, None] * weight) @ table`. Give the "
        "identity the type of the weight: `torch.eye(D, dtype=weight.dtype)`.",
    ),
    axes="D D",
    inputs=_states,
    sizes=((2, 2), (3, 3), (1, 2), (4, 3), (5, 4)),
    reference=_carried_by_columns,
    gradient=False,
)
def carried(states, weight):
    """How the last of T states (T, D) moves with the first, through W (D, D): (D, D)."""
    # No step yet: every number moves with itself.
    table = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    for h in states[1:]:
        # First W, then the slope where the step came out; later steps stand on the left.
        table = ((1 - h**2)[:, None] * weight) @ table
    return table


def _through(states, weight, factor=None, join=lambda new, old: new @ old, part=slice(1, None)):
    """The product of the factors of some states, another factor or joined in another way."""
    factor = factor or (lambda h: (1 - h**2)[:, None] * weight)
    table = torch.eye(len(weight), dtype=weight.dtype) + 0 * weight.sum() + 0 * states.sum()
    for h in states[part]:
        table = join(factor(h), table)
    return table


@carried.slip("""
    Your factors stand in the wrong order: the first step must come first, and in a product of matrices that
    is on the right. `factor @ table`.""")
def _other_order(states, weight):
    return _through(states, weight, join=lambda new, old: old @ new)


@carried.slip("""
    The slope of tanh is missing: in your answer W alone is multiplied. Where a state is near 1 or -1, tanh is
    flat, and little goes through.""")
def _no_slope(states, weight):
    return _through(states, weight, factor=lambda h: weight + 0 * h.sum())


@carried.slip("""
    There is one factor too many: the first state is where the change begins. T states are T - 1 steps.""")
def _first_counted(states, weight):
    return _through(states, weight, part=slice(None))


@carried.slip("""
    You take the slope where a step begins, `states[:-1]`. It belongs to the state that comes out of the step,
    `states[1:]`.""")
def _slope_at_the_start(states, weight):
    return _through(states, weight, part=slice(None, -1))


@carried.slip("""
    Your slope multiplies the columns of W. A change goes through W first, and what comes out, number by
    number, is multiplied by the slope: that is a factor for each *row*, `[:, None]`.""")
def _slope_on_columns(states, weight):
    return _through(states, weight, factor=lambda h: weight * (1 - h**2))


@carried.slip("""
    Your slope is 1 - tanh(h)². The states are what comes out of the tanh: the slope is 1 - h², as they
    are.""")
def _tanh_again(states, weight):
    return _through(states, weight, factor=lambda h: (1 - h.tanh() ** 2)[:, None] * weight)


@carried.slip("""
    Your slope is 1 - h. It is 1 - h².""")
def _not_squared(states, weight):
    return _through(states, weight, factor=lambda h: (1 - h)[:, None] * weight)


@carried.slip("""
    You multiply tables number by number. One step after the other is a product of matrices, `@`.""")
def _number_by_number(states, weight):
    return _through(states, weight, join=lambda new, old: new * old)


@carried.slip("""
    Your W is transposed. In `W @ h` number i of the result is made by row i of W.""")
def _w_transposed(states, weight):
    return _through(states, weight, factor=lambda h: (1 - h**2)[:, None] * weight.T)


@carried.slip("""
    The table is right, and lies on its side: row i is number i of the *last* state, column j number j of the
    first.""")
def _on_its_side(states, weight):
    return _through(states, weight).T


@carried.slip("""
    You added up the factors of the steps. A change goes through all of them, one after the other: they are
    multiplied.""")
def _sum_of_steps(states, weight):
    return _through(states, weight, join=lambda new, old: new + old)


@carried.slip("""
    That is the last step alone. The change goes through all T - 1 of them.""")
def _last_step_alone(states, weight):
    return _through(states, weight, part=slice(max(1, len(states) - 1), None))


# --- 6 -------------------------------------------------------------------------------------------------


def _gates(rng: np.random.Generator, D: int) -> dict[str, Any]:
    return {"gates": 1.5 * rng.standard_normal(4 * D), "cell": rng.standard_normal(D)}


def _step_number_by_number(gates: np.ndarray, cell: np.ndarray) -> np.ndarray:
    D = len(cell)
    out = np.zeros((2, D))
    for d in range(D):
        let_in, keep, let_out = (1 / (1 + math.exp(-gates[k * D + d])) for k in (0, 1, 3))
        out[1, d] = keep * cell[d] + let_in * math.tanh(gates[2 * D + d])
        out[0, d] = let_out * math.tanh(out[1, d])
    return out


@chapter.implement(
    title="One step of an LSTM",
    statement=r"""
        An LSTM has a memory, the *cell* c, (D). At each step it computes four times D numbers from the token
        and its last output; they are given, `gates` (4 D), in PyTorch's order: D for the *input gate* i, D
        for the *forget gate* f, D for the *candidate* g, D for the *output gate* o. With the sigmoid σ,
        number by number:

        $$c \leftarrow \sigma(f)\, c + \sigma(i) \tanh(g), \qquad h = \sigma(o) \tanh(c)$$

        Write the new output h and the new cell c, as the two rows of (2, D).
        """,
    hints=(
        "Four parts first: `i, f, g, o = gates.chunk(4)`.",
        "Three of them are gates, numbers between 0 and 1: `sigmoid()`. The candidate is what may be "
        "written, between -1 and 1: `tanh()`.",
        "The new cell before the output: h is read from the cell that this step has made.",
        "`torch.stack([h, cell])` makes one tensor (2, D) of two rows.",
    ),
    axes="2 D",
    inputs=_gates,
    sizes=((2,), (1,), (3,), (5,)),
    reference=_step_number_by_number,
)
def lstm_step(gates, cell):
    """The output and the new cell, (2, D), from gates (4 D) in the order i, f, g, o and the old cell (D)."""
    i, f, g, o = gates.chunk(4)
    # The memory is kept by a factor near 1 and added to: no matrix stands in its way.
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    # How much of the memory is shown is a decision of its own.
    return torch.stack([o.sigmoid() * cell.tanh(), cell])


def _step(gates, cell, order=(0, 1, 2, 3), keep=None, shown=None):
    """Another order of parts, another new cell, another output."""
    i, f, g, o = (gates.chunk(4)[k] for k in order)
    new = f.sigmoid() * cell + i.sigmoid() * g.tanh() if keep is None else keep(i, f, g, cell)
    return torch.stack([o.sigmoid() * new.tanh() if shown is None else shown(o, new, cell), new])


@lstm_step.slip("""
    Input gate and forget gate have changed places. The order is i, f, g, o, and f is for the old cell.""")
def _input_for_forget(gates, cell):
    return _step(gates, cell, order=(1, 0, 2, 3))


@lstm_step.slip("""
    Candidate and output gate have changed places: the order is i, f, g, o. (Some libraries have i, f, o,
    g.)""")
def _output_before_candidate(gates, cell):
    return _step(gates, cell, order=(0, 1, 3, 2))


@lstm_step.slip("""
    Your forget gate forgets where it is 1. In spite of its name it says how much *stays*: σ(f) · c.""")
def _forgets_by_name(gates, cell):
    return _step(gates, cell, keep=lambda i, f, g, c: (1 - f.sigmoid()) * c + i.sigmoid() * g.tanh())


@lstm_step.slip("""
    Your output is read from the old cell. First the cell gets its new value, then h is read from it.""")
def _reads_the_old(gates, cell):
    return _step(gates, cell, shown=lambda o, new, old: o.sigmoid() * old.tanh())


@lstm_step.slip("""
    The tanh of the candidate is missing: g goes in as it is.""")
def _raw_candidate(gates, cell):
    return _step(gates, cell, keep=lambda i, f, g, c: f.sigmoid() * c + i.sigmoid() * g)


@lstm_step.slip("""
    The tanh around the cell is missing in your output: h = σ(o) · tanh(c).""")
def _raw_output(gates, cell):
    return _step(gates, cell, shown=lambda o, new, old: o.sigmoid() * new)


@lstm_step.slip("""
    You put the candidate through the sigmoid. It is no gate: it may be negative, tanh(g).""")
def _candidate_as_gate(gates, cell):
    return _step(gates, cell, keep=lambda i, f, g, c: f.sigmoid() * c + i.sigmoid() * g.sigmoid())


@lstm_step.slip("""
    The forget gate is missing: the old cell stays whole. (So it was in the LSTM of 1997. The gate came in
    2000.)""")
def _forgets_nothing(gates, cell):
    return _step(gates, cell, keep=lambda i, f, g, c: c + i.sigmoid() * g.tanh())


@lstm_step.slip("""
    The input gate is missing: the candidate goes in whole.""")
def _lets_all_in(gates, cell):
    return _step(gates, cell, keep=lambda i, f, g, c: f.sigmoid() * c + g.tanh())


@lstm_step.slip("""
    You weigh the candidate by 1 - σ(f), as a GRU does. An LSTM has an input gate of its own.""")
def _coupled(gates, cell):
    return _step(gates, cell, keep=lambda i, f, g, c: f.sigmoid() * c + (1 - f.sigmoid()) * g.tanh())


@lstm_step.slip("""
    The gates are not closed by a sigmoid: they are multiplied as they came, and may be negative or above
    1.""")
def _open_ended(gates, cell):
    i, f, g, o = gates.chunk(4)
    new = f * cell + i * g.tanh()
    return torch.stack([o * new.tanh(), new])


@lstm_step.slip("""
    Your two rows have changed places: first the output h, then the cell.""")
def _rows_exchanged(gates, cell):
    return _step(gates, cell).flip(0)


@lstm_step.slip("""
    You put the *new* cell through a tanh and kept that as the cell. Only the output is read through a tanh;
    the memory itself stays as it is, or it would shrink at every step.""")
def _cell_shrunk(gates, cell):
    return _step(
        gates,
        cell,
        keep=lambda i, f, g, c: (f.sigmoid() * c + i.sigmoid() * g.tanh()).tanh(),
        shown=lambda o, new, old: o.sigmoid() * new,
    )


@lstm_step.slip("""
    You cut `gates` into groups of four, one for each number. PyTorch has D numbers of i first, then D of f,
    and so on: `chunk(4)`.""")
def _interleaved(gates, cell):
    return _step(gates.view(-1, 4).T.flatten(), cell)


# --- 7 -------------------------------------------------------------------------------------------------


def _running(rng: np.random.Generator, T: int, D: int) -> dict[str, Any]:
    return {"scores": rng.standard_normal(T), "values": rng.standard_normal((T, D)) + 0.5}


def _running_one_by_one(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    rows = []
    for t in range(len(scores)):
        weights = np.exp(scores[: t + 1])
        rows.append((weights[:, None] * values[: t + 1]).sum(axis=0) / weights.sum())
    return np.stack(rows)


def running_average(scores, values):
    """Each token's weighted average of the values (T, D) up to its own, by softmax of scores (T): (T, D)."""
    weights = scores.softmax(dim=0)
    seen = torch.ones(len(scores), len(scores), device=scores.device).tril()
    return (seen * weights) @ values


@chapter.debug(
    title="An average that knows the end",
    statement="""
        At every token a model takes the weighted average of what it has read so far: of `values` (T, D),
        weighted by softmax of `scores` (T). The future is hidden by a triangle of ones and zeros.

        Two symptoms. The first outputs are far too small. And when the score of the *last* token changes, all
        outputs change, although no value of the future comes in.

        Find the fault, repair it, and hand the function in: row t of the answer, (T, D), is the weighted
        average of the values 0 to t, with weights that sum to 1.
        """,
    hints=(
        "Print the row sums of `seen * weights`. What should they be?",
        "The softmax divides by a sum over all T tokens: so the future is in every weight. By which sum "
        "should row t be divided?",
        "Hide the future *before* the softmax. A score of which value gets the weight 0? It is not 0: e to "
        "the 0 is 1.",
        "`table = scores.expand(T, T)` has the scores in every row. "
        "`table.masked_fill(~seen, float('-inf')).softmax(dim=-1)`, with `seen` a boolean triangle, has rows "
        "that sum to 1.",
    ),
    axes="T D",
    inputs=_running,
    sizes=((3, 2), (2, 3), (1, 2), (4, 3), (6, 2)),
    reference=_running_one_by_one,
    broken=running_average,
)
def running_average(scores, values):
    """Each token's weighted average of the values (T, D) up to its own, by softmax of scores (T): (T, D)."""
    n = len(scores)
    seen = torch.ones(n, n, dtype=torch.bool, device=scores.device).tril()
    # Hidden before the softmax: each row is divided by the sum of what it sees.
    table = scores.expand(n, n).masked_fill(~seen, float("-inf"))
    return table.softmax(dim=-1) @ values


def _hidden(scores, hide, dim=-1):
    """Softmax of the scores, the same in each row, after ``hide(table, seen)``."""
    n = len(scores)
    return hide(scores.expand(n, n), torch.ones(n, n, dtype=torch.bool).tril()).softmax(dim)


def _minus_infinity(table, seen):
    return table.masked_fill(~seen, float("-inf"))


@running_average.slip("""
    That is the broken version still: the softmax divides by a sum over all tokens, those of the future
    too.""")
def _as_it_was(scores, values):
    weights = scores.softmax(0)
    return (torch.ones(len(scores), len(scores)).tril().to(weights) * weights) @ values


@running_average.slip("""
    You set the scores of the future to 0. That is a score like others, e to the 0 is 1: the future still
    counts. Set them to minus infinity.""")
def _zero_scores(scores, values):
    return _hidden(scores, lambda table, seen: table * seen) @ values


@running_average.slip("""
    Your triangle is the other one: each token sees itself and the future.""")
def _upper(scores, values):
    return _hidden(scores, lambda table, seen: table.masked_fill(~seen.T, float("-inf"))) @ values


@running_average.slip("""
    Your outputs are moved by one: each token sees those before it and not itself. (The first one has nobody
    then.) Token t sees 0 to t.""")
def _not_itself(scores, values):
    rows = _hidden(scores, _minus_infinity) @ values
    return torch.cat([torch.zeros_like(rows[:1]), rows[:-1]])


@running_average.slip("""
    You took the softmax along the columns. Each *row* is one token's average: `dim=-1`.""")
def _columns(scores, values):
    return _hidden(scores, lambda table, seen: table.masked_fill(~seen, -1e4), dim=0) @ values


@running_average.slip("""
    The triangle is gone in your answer: every token sees all of them.""")
def _all_of_them(scores, values):
    return (scores.softmax(0) @ values).expand(len(scores), -1) + 0 * values


@running_average.slip("""
    You divide row t by t + 1, as a plain average would. The weights of what is seen must sum to 1: divide by
    *their* sum.""")
def _divided_by_number(scores, values):
    count = torch.arange(1, len(scores) + 1).to(scores)[:, None]
    return (scores.exp()[:, None] * values).cumsum(0) / count


@running_average.slip("""
    Your weights are not divided by their sum: the outputs grow from token to token.""")
def _running_sum(scores, values):
    return (scores.exp()[:, None] * values).cumsum(0)


@running_average.slip("""
    The scores have no part in your answer: each row is the plain mean of what was read so far.""")
def _plain_means(scores, values):
    return values.cumsum(0) / torch.arange(1, len(scores) + 1).to(values)[:, None] + 0 * scores.sum()


# --- 8 -------------------------------------------------------------------------------------------------


def _hops(rng: np.random.Generator, L: int, T: int) -> dict[str, Any]:
    hops = rng.random((L, T, T)) < 1.5 / T
    hops[:, np.arange(T), rng.integers(0, T, T)] = True  # everybody reads somebody
    return {"hops": hops}


def _by_walking(hops: np.ndarray) -> np.ndarray:
    """From the last token back through the layers, the highest first."""
    L, T, _ = hops.shape
    here = {T - 1}
    for layer in range(L - 1, -1, -1):
        here = {s for t in here for s in range(T) if hops[layer, t, s]}
    return np.array([s in here for s in range(T)])


@chapter.implement(
    title="Who has been heard",
    statement="""
        A model has L layers, the first one lowest. `hops` (L, T, T) says who reads whom: `hops[l, t, s]` is
        True where token t reads token s in layer l. A token's own news stays with it only where it reads
        itself.

        Which tokens of the input does the last token's output depend on? Write T booleans, one for each
        token.
        """,
    hints=(
        "Begin at the top: in the last layer the last token reads from `hops[-1, -1]`. From whom have "
        "*those* got their news?",
        "Somebody is heard if any of those who are listened to read him: `hop[heard].any(dim=0)`, where "
        "`heard` are T booleans, takes the rows of those who are listened to.",
        "So start with `heard = hops[-1, -1]`, and go down: `for hop in hops[:-1].flip(0)`.",
    ),
    axes="T",
    inputs=_hops,
    sizes=((1, 3), (2, 3), (2, 4), (3, 4), (3, 5), (4, 6), (2, 7)),
    probes=((3, 6), (2, 5), (4, 7), (3, 8)),
    reference=_by_walking,
    gradient=False,
)
def heard(hops):
    """On which of T tokens the last one depends, after layers (L, T, T) of who (rows) reads whom."""
    # Backwards, from the top: those whom the last token reads in the last layer.
    listened = hops[-1, -1]
    for hop in hops[:-1].flip(0):
        # Then all whom any of these read, one layer below.
        listened = hop[listened].any(dim=0)
    return listened


@heard.slip("""
    That is whom the last token reads in the last layer. Those have news from others, by the layers below.""")
def _last_layer_alone(hops):
    return hops[-1, -1]


@heard.slip("""
    You put together whom the last token reads itself, in any layer. What it reads in a higher layer has
    read others before: go down from those.""")
def _own_readings(hops):
    return hops[:, -1].any(0)


@heard.slip("""
    Your layers run in the wrong direction: you begin with the lowest. The last token's output is made by the
    highest layer; from there the way goes down.""")
def _upside_down(hops):
    return heard.solve(hops.flip(0))


@heard.slip("""
    You wanted everybody of those who are listened to to have read a token: `all`. One is enough: `any`.""")
def _everybody(hops):
    listened = hops[-1, -1]
    for hop in hops[:-1].flip(0):
        listened = hop[listened].all(0)
    return listened


@heard.slip("""
    Rows and columns have changed places: row t of a layer is whom token t *reads*.""")
def _columns_for_rows(hops):
    return heard.solve(hops.mT)


@heard.slip("""
    That is who depends on the last token, not on whom it depends. Go the other way: from the last token to
    those whom it reads.""")
def _who_hears_the_last(hops):
    heard_by = hops[0, :, -1]
    for hop in hops[1:]:
        heard_by = hop[:, heard_by].any(1)
    return heard_by


@heard.slip("""
    You let each token keep its own news from layer to layer. Here it does only where it reads itself: a layer
    without a skip connection replaces what was there.""")
def _with_skips(hops):
    listened = hops[-1, -1]
    for hop in hops[:-1].flip(0):
        listened = listened | hop[listened].any(0)
    return listened


@heard.slip("""
    You asked for the first token. It is the *last* one whose output is wanted: row -1.""")
def _of_the_first(hops):
    listened = hops[-1, 0]
    for hop in hops[:-1].flip(0):
        listened = hop[listened].any(0)
    return listened


@heard.slip("""
    You left out the lowest layer: the input is read there.""")
def _without_the_lowest(hops):
    return heard.solve(hops[1:]) if len(hops) > 1 else hops[-1, -1]


@heard.slip("""
    A token counts for you only if it is read in every layer in the same place. News goes from one to another:
    who is read in one layer has read somebody else in the layer below.""")
def _in_every_layer(hops):
    return hops.all(0)[-1]


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Where the square overtakes an LSTM",
    statement="""
        An LSTM of width D has eight matrices of D times D: on n tokens that is 16 n D² FLOPs (a
        multiply-add is two). In an attention layer of the same width, scores and weighted sums together
        take 4 n² D FLOPs; the projections come on top, and are not to be counted here.

        The width is D = 512. Before you run anything: at how many tokens do the scores and sums cost as
        much as the LSTM?
        """,
    hints=(
        "Write the two side by side: 16 n D² and 4 n² D. What can be cancelled?",
        "n and D stand on both sides: 16 D = 4 n.",
        "n = 4 D.",
    ),
    expected=2048.0,
    wrong={
        512.0: "That is the rule of the paper, n = D, and holds for a plain recurrence of two matrices. An "
        "LSTM has eight.",
        128.0: "Upside down: 16 D = 4 n, so n is four times D.",
        1024.0: "That is where the scores meet attention's own projections, 8 n D². An LSTM is twice as "
        "dear.",
        3072.0: "That is where the scores meet all the rest of a Transformer block. Here it is an LSTM: 16 "
        "D = 4 n.",
        4096.0: "You counted a multiply-add as one on one side and as two on the other. 16 D = 4 n.",
        8192.0: "16 n D² and 4 n² D: the 4 has been lost. 16 D = 4 n.",
        4.0: "Four times what? The width D is 512.",
    },
    otherwise="Not that number. Set 16 n D² equal to 4 n² D, and cancel what stands on both sides.",
    form="one number",
)
def overtakes_an_lstm():
    """2048 tokens, four times the width. For shorter texts the square is the smaller part of the bill; and it
    is a bill of arithmetic, not of waiting: the LSTM's 2048 steps wait for each other.
    """
    return 16 * 512 / 4


# --- 10 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="A gate that you open",
    statement="""
        A GRU is a recurrence with two gates. PyTorch's `nn.GRU` has its biases in the order reset gate,
        *update gate*, candidate, D numbers each; where the update gate is near 1, the state stays.

        Make an `nn.GRU(64, 64, batch_first=True)` and measure, with the chapter's `gradient_by_distance` (or
        your own), the gradient at the distances 1 and 32, for n_tokens=64. (The function wants a layer that
        gives one tensor: write a small module that returns `gru(x)[0]`.) By how many *powers of ten* does
        the gradient at distance 32 lie below that at distance 1? Report log10 of the ratio.

        Then open the gate: set the update gate's numbers in `bias_ih_l0` to 3, and measure again.
        """,
    hints=(
        "The update gate stands second: `gru.bias_ih_l0[64:128]`. Change it inside of `with "
        "torch.no_grad():`.",
        "near, far = gradient_by_distance(layer, [1, 32], d_model=64, n_tokens=64).",
        "`math.log10(near / far)`: 3 means a thousandth is left, 0 that nothing was lost.",
    ),
    ranges={"as it comes": (6.0, 7.5), "gate open": (0.5, 0.95)},
    slips={
        "The two numbers are the other way round: first the GRU as it comes, then with the gate open.": (
            (0.5, 0.95),
            (6.0, 7.5),
        ),
        "The second number fits the *reset* gate. PyTorch's order is reset, update, candidate: the update "
        "gate's "
        "biases are the second D numbers, 64 to 127.": ((6.0, 7.5), (4.2, 5.7)),
        "You closed the gate in the second run: the bias must be +3. (In some papers the update gate lets "
        "the new "
        "in; in PyTorch it keeps the old.)": ((6.0, 7.5), (16.0, 20.0)),
        "Both numbers belong to the GRU as it comes: has the bias really been changed before the second "
        "run?": (
            (6.0, 7.5),
            (6.0, 7.5),
        ),
        "These are natural logarithms. Powers of ten: `math.log10`.": ((13.8, 17.3), (1.2, 2.2)),
        "Your ratio is upside down: the logarithm of near divided by far is positive.": (
            (-7.5, -6.0),
            (-0.95, -0.5),
        ),
    },
    at_most=(300.0, "Report the logarithm of the ratio, `math.log10(near / far)`, not the ratio itself."),
    otherwise="Not in the range of what others measure, 6 to 7.5 and 0.5 to 0.95: is it the distance 32, "
    "divided from the distance 1, for 64 tokens of width 64?",
)
def open_gate():
    """One bias, and six powers of ten. The same cell, with the same number of weights, reads differently far
    before it has learned anything. (What it then learns is another question.)
    """
    return 6.8, 0.7


# --- 11 ------------------------------------------------------------------------------------------------


@chapter.predict(
    title="What a curve shows",
    statement="""
        A talk shows two curves: the gradient by distance, before training, of PyTorch's LSTM as it comes,
        and of one attention layer. The LSTM's falls below a billionth at distance 50. Attention's is flat.

        Which conclusion does the curve allow?
        """,
    choices={
        "a": "LSTMs cannot carry a gradient over 50 tokens.",
        "b": "This LSTM, from these first weights, carries hardly any gradient over 50 tokens.",
        "c": "After training, attention will use tokens at any distance.",
        "d": "With attention the length of a text does no harm to gradients.",
    },
    hints=(
        "How many LSTMs were measured, and from which first weights?",
        "What happened to the gradient when one bias of the LSTM was set to 3?",
        "Flat in *distance*. And when the text becomes longer, what becomes of the whole line?",
    ),
    expected="b",
    wrong={
        "a": "One start was measured. With an open forget gate the same layer carries a gradient further "
        "than attention's: you have seen the curve.",
        "c": "The curve is from before training. A gradient that arrives makes it possible to learn "
        "something; it does not say what is learned.",
        "d": "Flat in distance, yes. But the line as a whole sinks as 1/n: each token's gradient gets "
        "smaller as the text gets longer.",
    },
)
def what_a_curve_shows():
    """A curve says what was measured: this layer, these first weights, before training. The comparison
    that is missing is the best start of each.
    """
    return "b"
