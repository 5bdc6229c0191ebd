"""Exercises of the chapter "Positions", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

import math
from typing import Any

import numpy as np
import torch

from .check import Chapter

chapter = Chapter("positional", "Positions")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="A shuffled sentence",
    statement="""
        Five tokens go through one self-attention layer that knows nothing of positions. Then the same five
        tokens go through it again, in another order. Two experiments:

        1. The layer has no mask.
        2. The layer has a causal mask: each token sees itself and those before it.

        Before you run anything: are the outputs of the shuffled sentence just those of the first one,
        shuffled in the same way?
        """,
    choices={
        "a": "Yes in both experiments.",
        "b": "Yes without the mask, no with it.",
        "c": "No without the mask, yes with it.",
        "d": "No in both.",
    },
    hints=(
        "Follow one token. Which query does it have after the shuffle, and which pairs of key and value does "
        "it meet? A sum does not care in which order its terms come.",
        "Without a mask every token meets all five pairs, in either order of the sentence.",
        "With a causal mask the token that stands first meets one pair only, its own. Is it the same token "
        "after the shuffle?",
    ),
    expected="b",
    wrong={
        "a": "Right without the mask. With it, whom a token sees depends on where it stands: the one that "
        "comes first sees itself only, and after the shuffle another one comes first.",
        "c": "It is the other way round. Without a mask every token meets all five pairs in any order; the "
        "mask shows each token those before it, and the shuffle changes which these are.",
        "d": "Right with the mask. Without it each token keeps its query and meets the same five pairs, in "
        "another order: what does a sum make of the order of its terms?",
    },
)
def shuffled_sentence():
    """Without a mask the layer carries the order along and never uses it. A causal mask is a position signal
    of its own: it shows the first token one pair, the last one five. So a decoder can learn something of
    order even without a position code.
    """
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5, 8, generator=random, dtype=torch.float64)
    w_q, w_k, w_v = torch.randn(3, 8, 8, generator=random, dtype=torch.float64) / 8**0.5
    places = [3, 0, 4, 1, 2]

    def attend(x, mask):
        scores = (x @ w_q) @ (x @ w_k).T / 8**0.5
        return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ (x @ w_v)

    everyone = torch.ones(5, 5, dtype=torch.bool)
    bare, causal = (
        torch.allclose(attend(x[places], mask), attend(x, mask)[places])
        for mask in (everyone, everyone.tril())
    )
    if bare:
        return "a" if causal else "b"
    return "c" if causal else "d"


# --- 2 -------------------------------------------------------------------------------------------------


def _sinusoid_inputs(rng: np.random.Generator, T: int, D: int, end: int) -> dict[str, Any]:
    return {"positions": rng.choice(end, T, replace=False).astype(float), "d_model": D}


def _sinusoid_reference(positions: np.ndarray, d_model: int) -> np.ndarray:
    """Each hand as a complex number of length 1, that many times a first small turn."""
    out = np.zeros((len(positions), d_model))
    for i in range(d_model // 2):
        hand = np.exp(1j * positions / 10000 ** (2 * i / d_model))
        out[:, 2 * i], out[:, 2 * i + 1] = hand.imag, hand.real
    return out


@chapter.implement(
    title="The sinusoidal code",
    statement=r"""
        Write the code of the first Transformer. For each of T positions make a row of D numbers, D / 2 clock
        hands with a sine and a cosine each:

        $$\text{entry } 2i: \; \sin\frac{t}{10000^{2i/D}}$$

        $$\text{entry } 2i + 1: \; \cos\frac{t}{10000^{2i/D}}$$

        Here $t$ is one of the `positions`, which come in any order, and $i$ counts the hands from 0. D is
        even. Use the functions of torch throughout: gradients are checked too.
        """,
    hints=(
        "First the rates, D / 2 of them: how far each hand turns a position. `torch.arange(0, d_model, 2)` "
        "has the numbers 2i.",
        "Every position meets every rate: `positions[:, None] * rates` is a table (T, D / 2) of angles.",
        "The sine and the cosine of one angle are neighbours. `torch.stack([a, b], dim=-1)` puts two tables "
        "behind each other, (T, D / 2, 2); `flatten(1)` then reads each row in turns.",
    ),
    axes="T D",
    inputs=_sinusoid_inputs,
    sizes=((3, 4, 6), (2, 6, 9), (1, 2, 5), (4, 8, 9), (5, 6, 400), (2, 10, 9)),
    reference=_sinusoid_reference,
)
def sinusoid(positions, d_model):
    """The codes of positions (T,): a table (T, D), sines and cosines in turn."""
    # Hand i turns by 10000^(-2i / D) radians a position: the first by 1, the last by hardly anything.
    rates = 10000.0 ** (-torch.arange(0, d_model, 2).to(positions) / d_model)
    angles = positions[:, None] * rates  # (T, 1) times (D / 2,) -> (T, D / 2)
    # Stacked behind each other and flattened, the sine and the cosine of a hand become neighbours.
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _angles(positions, d_model):
    return positions[:, None] * 10000.0 ** (-torch.arange(0, d_model, 2).to(positions) / d_model)


def _in_turns(one, other):
    return torch.stack([one, other], dim=-1).flatten(-2)


@sinusoid.slip("""
    The numbers are right and stand in another order: first all sines, then all cosines. The formula wants
    them in turns, the cosine of each hand right behind its sine: stack along a new last axis, then flatten.
    """)
def _all_sines_first(positions, d_model):
    angles = _angles(positions, d_model)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@sinusoid.slip("""
    Sine and cosine have changed places: even entries are sines, odd ones are cosines.""")
def _cosine_first(positions, d_model):
    angles = _angles(positions, d_model)
    return _in_turns(angles.cos(), angles.sin())


@sinusoid.slip("""
    The cosines turn at rates of their own: for entry j you took the exponent j / D. A sine and its cosine
    belong to one hand and share its angle, with the exponent 2i / D.""")
def _a_rate_for_each_entry(positions, d_model):
    angles = positions[:, None] * 10000.0 ** (-torch.arange(d_model).to(positions) / d_model)
    return _in_turns(angles[:, 0::2].sin(), angles[:, 1::2].cos())


@sinusoid.slip("""
    The slow hands turn too fast: your exponent is i / D. It is 2i / D, which comes near 1 for the last hand.
    """)
def _two_forgotten(positions, d_model):
    angles = positions[:, None] * 10000.0 ** (-torch.arange(d_model // 2).to(positions) / d_model)
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    The slow hands turn too slowly: your exponent runs up to nearly 2. You seem to have doubled twice:
    `torch.arange(0, d_model, 2)` has the numbers 2i already.""")
def _doubled_twice(positions, d_model):
    angles = positions[:, None] * 10000.0 ** (-2 * torch.arange(0, d_model, 2).to(positions) / d_model)
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    Your hands get faster and faster: you multiply the position by the power of 10000. Divide by it, or take
    the power of the negative exponent.""")
def _faster_and_faster(positions, d_model):
    angles = positions[:, None] * 10000.0 ** (torch.arange(0, d_model, 2).to(positions) / d_model)
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    Your hands get faster and faster: each position is multiplied by a power of 10000, as `10000 ** (...)` of
    a positive exponent gives it. Divide by this power.""")
def _faster_and_faster_in_float32(positions, d_model):
    # Angles of thousands of radians: what float32 makes of the powers is another answer than the slip above.
    angles = positions[:, None] * 10000 ** (torch.arange(0, d_model, 2) / d_model)
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    For entry j you took the exponent 2j / D. The i of the formula counts hands, not entries: entries 2i and
    2i + 1 share the exponent 2i / D.""")
def _entries_for_hands(positions, d_model):
    angles = positions[:, None] * 10000.0 ** (-2 * torch.arange(d_model).to(positions) / d_model)
    return _in_turns(angles[:, 0::2].sin(), angles[:, 1::2].cos())


@sinusoid.slip("""
    Your exponents go from 0 to 1 in steps of 1 / (D / 2 - 1). Some models do so; the formula asked for here
    has steps of 2 / D, and its last hand does not quite reach 10000.""")
def _up_to_the_end(positions, d_model):
    rates = 10000.0 ** (-torch.linspace(0, 1, d_model // 2).to(positions))
    angles = positions[:, None] * rates
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    All your hands turn at the same rate, one radian a position: after 6 or 7 positions the code nearly
    repeats. Divide each hand's angle by its power of 10000.""")
def _one_rate_for_all(positions, d_model):
    angles = positions[:, None].expand(-1, d_model // 2)
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    You count positions from 1. Position 0 is a position too: there all sines are 0 and all cosines 1.""")
def _counted_from_one(positions, d_model):
    angles = _angles(positions + 1, d_model)
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    Your rows are those of the positions 0, 1, 2, ..., whatever `positions` says. Take the positions that are
    given: they may start anywhere and come in any order.""")
def _positions_ignored(positions, d_model):
    angles = _angles(torch.arange(len(positions)).to(positions), d_model) + 0 * positions[:, None]
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    There are only sines: each stands twice. The second number of a hand is the cosine. With a sine alone,
    nobody can tell a hand on its way up from one on its way down.""")
def _only_sines(positions, d_model):
    return _angles(positions, d_model).sin().repeat_interleave(2, dim=-1)


@sinusoid.slip("""
    These are the bare angles. Take their sine and their cosine.""")
def _bare_angles(positions, d_model):
    return _angles(positions, d_model).repeat_interleave(2, dim=-1)


@sinusoid.slip("""
    You took the angles for degrees. The formula has radians, as `sin` and `cos` of torch do: nothing needs to
    be converted.""")
def _degrees(positions, d_model):
    angles = torch.deg2rad(_angles(positions, d_model))
    return _in_turns(angles.sin(), angles.cos())


@sinusoid.slip("""
    The numbers are right, and each hand still has an axis of its own. Flatten the last two axes, so that a
    position has one row of D numbers.""")
def _not_flattened(positions, d_model):
    angles = _angles(positions, d_model)
    return torch.stack([angles.sin(), angles.cos()], dim=-1)


@sinusoid.slip("""
    Positions lie along the columns of your table. It should have a row for each position.""")
def _turned_round(positions, d_model):
    angles = _angles(positions, d_model)
    return _in_turns(angles.sin(), angles.cos()).T


@sinusoid.crash("""
    A row of T positions and a row of D / 2 rates do not fit entry by entry. Every position should meet every
    rate: give the positions an axis, `positions[:, None]`.""")
def _no_new_axis(positions, d_model):
    return positions * 10000.0 ** (-torch.arange(0, d_model, 2).to(positions) / d_model)


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="What two hands score",
    statement="""
        A query and a key of two numbers each, one pair: the query is (2, 0), the key is (3, 0). Rotary
        embedding turns each of them by 30 degrees a position. The query stands at position 5, the key at
        position 3.

        Before you run anything: what is the dot product of the turned query and the turned key?
        """,
    hints=(
        "Draw both as hands of a clock. Before they are turned they point the same way. By how many degrees "
        "does each of them turn?",
        "The query turns by 150 degrees, the key by 90. What is the angle between them now?",
        "A dot product is the product of both lengths and the cosine of the angle between them. The cosine "
        "of 60 degrees is 0.5.",
    ),
    expected=3.0,
    wrong={
        6.0: "That is the score before anything was turned, 2 times 3. The two turn by different angles, so "
        "the angle between them is no longer 0.",
        -3.0: "That is the score of hands 120 or 240 degrees apart. If you added 150 and 90: what counts is "
        "the angle between the hands, their difference.",
        -5.196: "That is the score of hands 150 degrees apart, as if the query alone were turned. Both are "
        "turned, each by its own position.",
        0.0: "That is the score of hands at a right angle, as if the key alone were turned. Both are turned, "
        "each by its own position.",
        6 * math.cos(60): "This is 6 times the cosine of 60 radians. `math.cos` takes radians, and here are "
        "60 degrees: `math.radians(60)` turns them into radians.",
        6 * math.cos(2): "This is the score at a radian a position, the rate of the first pair in the "
        "formula. Here a position is 30 degrees.",
        60.0: "That is the angle between the turned hands, in degrees. The score has its cosine, and both "
        "lengths.",
        5.196: "You took the sine of the angle between the hands, or turned by one position only. The "
        "distance is two positions, 60 degrees, and a dot product has the cosine.",
        0.5: "That is the cosine of the angle between them. The lengths count as well: 2 and 3.",
        1.5: "The length of the query is missing: the score is 2 times 3 times the cosine of the angle.",
        1.0: "The length of the key is missing: the score is 2 times 3 times the cosine of the angle.",
    },
    otherwise="Not that number. Take the angle between the turned hands, its cosine, and both lengths.",
    form="one number",
)
def two_hands_score():
    """The hands are two positions apart, so 60 degrees: 2 · 3 · cos 60° = 3. Any other two positions with the
    same distance give the same score.
    """

    def turn(length, degrees):
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return length * torch.stack([angle.cos(), angle.sin()])

    return round((turn(2, 5 * 30) @ turn(3, 3 * 30)).item(), 6)


# --- 4 -------------------------------------------------------------------------------------------------


def _shift_inputs(rng: np.random.Generator, P: int) -> dict[str, Any]:
    rates = np.sort(rng.uniform(0.05, 1, P))[::-1]  # from fast to slow
    return {"offset": int(rng.integers(2, 9)), "rates": rates.copy()}


def _shift_reference(offset: int, rates: np.ndarray) -> np.ndarray:
    """A column says where a hand goes that points along it: to the right (sine 1), or up (cosine 1)."""
    matrix = np.zeros((2 * len(rates), 2 * len(rates)))
    for i, rate in enumerate(rates):
        for column, start in ((2 * i, np.pi / 2), (2 * i + 1, 0.0)):
            matrix[2 * i, column] = np.sin(start + offset * rate)
            matrix[2 * i + 1, column] = np.cos(start + offset * rate)
    return matrix


@chapter.implement(
    title="Moving on by a matrix",
    statement=r"""
        Why sines and cosines? Because moving on by a few positions is then one matrix, the same wherever one
        starts. Make this matrix M, with D = 2P rows and columns: for the code $c_t$ of any position $t$, as a
        column of D numbers (sine and cosine of each hand in turn),

        $$M\,c_t = c_{t + \text{offset}}$$

        `rates` (P,) says how far each hand turns a position, in radians. Outside its blocks the matrix has
        zeros. What you need of school mathematics:

        $$\sin(a + b) = \sin a \cos b + \cos a \sin b$$

        $$\cos(a + b) = \cos a \cos b - \sin a \sin b$$

        Use the functions of torch throughout: gradients are checked too.
        """,
    hints=(
        "Hands do not mix: the sine and the cosine of one hand become new ones, made of these two numbers "
        "only. So there is a block of 2 rows and 2 columns for each hand.",
        "Let a be where the hand stands, and b = offset times its rate. The first row of the block makes the "
        "new sine: which numbers are multiplied by sin a and by cos a?",
        "The block is [[cos b, sin b], [-sin b, cos b]]. Fill `rates.new_zeros(D, D)` with blocks in a loop; "
        "or make them by `torch.stack`, since `torch.tensor` of tensors cuts gradients off, and let "
        "`torch.block_diag(*blocks)` put them along the diagonal.",
    ),
    axes="D D",
    inputs=_shift_inputs,
    sizes=((2,), (3,), (1,), (4,), (5,)),
    reference=_shift_reference,
)
def shift_matrix(offset, rates):
    """The matrix (D, D) that takes a code on by `offset` positions; rates (P,)."""
    angles = offset * rates  # how far each hand turns on the way
    cos, sin = angles.cos(), angles.sin()
    # The new sine is cos · (old sine) + sin · (old cosine), the new cosine -sin · (sine) + cos · (cosine).
    blocks = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))  # (P, 2, 2)
    return torch.block_diag(*blocks)  # hands do not mix


def _blocks(one, two, three, four):
    return torch.block_diag(*torch.stack([one, two, three, four], dim=-1).unflatten(-1, (2, 2)))


@shift_matrix.slip("""
    Your matrix goes back by `offset` instead of forward: the minus belongs to the sine in the second row,
    which makes the new cosine.""")
def _backward(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return _blocks(cos, -sin, sin, cos)


@shift_matrix.slip("""
    Both sines are positive in your blocks. Then hands grow and shrink instead of turning: of cos(a + b), the
    part with the two sines has a minus.""")
def _no_minus(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return _blocks(cos, sin, sin, cos)


@shift_matrix.slip("""
    Both sines are negative in your blocks. Only the one in the second row is, the row that makes the new
    cosine.""")
def _two_minuses(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return _blocks(cos, -sin, -sin, cos)


@shift_matrix.slip("""
    This matrix changes nothing: it takes each code to itself. Each hand has to turn, by `offset` times its
    rate.""")
def _nothing_moves(offset, rates):
    return torch.eye(2 * len(rates)).to(rates) + 0 * rates.sum()


@shift_matrix.slip("""
    Your hands turn by one position, whatever `offset` says: the angle is offset times rate.""")
def _one_step_only(offset, rates):
    return _blocks(rates.cos(), rates.sin(), -rates.sin(), rates.cos())


@shift_matrix.slip("""
    All your hands turn by the same angle, `offset` radians. Each has its own rate: the angle is offset times
    rate.""")
def _one_angle_for_all(offset, rates):
    angles = offset + 0 * rates
    return _blocks(angles.cos(), angles.sin(), -angles.sin(), angles.cos())


@shift_matrix.slip("""
    You added `offset` to the rate. The hand turns by its rate once for each position: multiply.""")
def _added(offset, rates):
    angles = offset + rates
    return _blocks(angles.cos(), angles.sin(), -angles.sin(), angles.cos())


@shift_matrix.slip("""
    Sine and cosine have changed places in your blocks: cosines belong on the diagonal, so that an offset of 0
    changes nothing.""")
def _sines_on_the_diagonal(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return _blocks(sin, cos, -cos, sin)


@shift_matrix.slip("""
    The columns of your blocks have changed places. A code has the sine of a hand first: so the first column
    holds what the old sine is multiplied by, the second one what the old cosine is.""")
def _columns_swapped(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return _blocks(sin, cos, cos, -sin)


@shift_matrix.slip("""
    The rows of your blocks have changed places. A code has the sine of a hand first: so the first row makes
    the new sine, the second one the new cosine.""")
def _rows_swapped(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return _blocks(-sin, cos, cos, sin)


@shift_matrix.slip("""
    The second rows of your blocks stand as in the formula, cos b and -sin b. But the first column meets the
    old sine: what is multiplied by sin a, in the formula for cos(a + b)?""")
def _second_row_as_in_the_formula(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return _blocks(cos, sin, cos, -sin)


@shift_matrix.slip("""
    Your blocks overlap: each begins one row and one column further than the one before. A block fills two, so
    that of hand i begins at 2i.""")
def _blocks_overlap(offset, rates):
    matrix = rates.new_zeros(2 * len(rates), 2 * len(rates))
    for i, (c, s) in enumerate(zip((offset * rates).cos(), (offset * rates).sin(), strict=True)):
        matrix[i, i], matrix[i, i + 1], matrix[i + 1, i], matrix[i + 1, i + 1] = c, s, -s, c
    return matrix


@shift_matrix.slip("""
    Your matrix has cosines on the diagonal and nothing else. The new sine needs the old cosine as well, and
    the new cosine the old sine.""")
def _only_the_diagonal(offset, rates):
    cos = (offset * rates).cos()
    return torch.block_diag(*cos.repeat_interleave(2)[:, None, None])


@shift_matrix.slip("""
    The matrix is right for codes with all sines first and all cosines behind them. Here they stand in turns,
    so what belongs to one hand is a block of neighbours on the diagonal.""")
def _for_the_other_layout(offset, rates):
    cos, sin = ((offset * rates).cos().diag(), (offset * rates).sin().diag())
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])


@shift_matrix.slip("""
    You have the right blocks, one behind the other. Put them along the diagonal of one matrix, with zeros
    elsewhere: `torch.block_diag(*blocks)`.""")
def _bare_blocks(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))


@shift_matrix.slip("""
    You have the right blocks, one below the other in two columns. Each belongs beside the diagonal of one
    matrix, with zeros elsewhere: `torch.block_diag(*blocks)`.""")
def _blocks_in_a_column(offset, rates):
    cos, sin = (offset * rates).cos(), (offset * rates).sin()
    return torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2)).flatten(0, 1)


# --- 5 -------------------------------------------------------------------------------------------------


def _pairs_inputs(rng: np.random.Generator, H: int, T: int, P: int, end: int) -> dict[str, Any]:
    return {
        "x": rng.standard_normal((H, T, 2 * P)),
        "positions": 1.0 + rng.choice(end, T, replace=False),
        "rates": rng.uniform(0.1, 1, P),
    }


def _pairs_reference(x: np.ndarray, positions: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """A pair is a complex number; to turn it is to multiply it by another of length 1."""
    out = np.zeros_like(x)
    for h, t, i in np.ndindex(x.shape[0], x.shape[1], len(rates)):
        pair = complex(x[h, t, 2 * i], x[h, t, 2 * i + 1]) * np.exp(1j * positions[t] * rates[i])
        out[h, t, 2 * i : 2 * i + 2] = pair.real, pair.imag
    return out


@chapter.implement(
    title="Rotary embedding, pair by pair",
    statement=r"""
        Now turn queries and keys themselves, as the paper on rotary embedding does. `x` has the shape (H, T,
        Dh): H heads, T tokens, Dh = 2P numbers, and neighbours are pairs. Token t stands at position $m$ =
        `positions[t]`, and its pair $(a, b)$ = (entry 2i, entry 2i + 1) turns by the angle $\theta = m \cdot$
        `rates[i]`:

        $$a \;\to\; a \cos\theta - b \sin\theta$$

        $$b \;\to\; a \sin\theta + b \cos\theta$$

        The answer has the shape of `x`, each number in its place.
        """,
    hints=(
        "First the angles: each of T positions meets each of P rates, a table (T, P).",
        "`x[..., 0::2]` has the first numbers of all pairs, (H, T, P), `x[..., 1::2]` the second ones. "
        "Angles (T, P) fit to them, the same for every head.",
        "`torch.stack([first, second], dim=-1)` puts the new numbers into pairs again, (H, T, P, 2), and "
        "`flatten(-2)` reads them in turns.",
    ),
    axes="H T Dh",
    inputs=_pairs_inputs,
    sizes=((1, 3, 2, 5), (2, 2, 3, 9), (3, 4, 1, 9), (2, 1, 4, 9), (3, 5, 4, 200), (1, 4, 5, 9)),
    reference=_pairs_reference,
)
def rotate_pairs(x, positions, rates):
    """Turn the pairs of neighbours in x (H, T, Dh): positions (T,), rates (P,)."""
    angles = positions[:, None] * rates  # (T, P), alike for all heads
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., 0::2], x[..., 1::2]  # (H, T, P) each
    # Both new numbers are made of both old ones: so neither may be written over before the other is made.
    turned = [a * cos - b * sin, a * sin + b * cos]
    return torch.stack(turned, dim=-1).flatten(-2)  # (H, T, P, 2) -> (H, T, Dh)


def _turned(x, angles, *, minus=(1, 1), both=True):
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., 0::2], x[..., 1::2]
    return a * cos - minus[0] * b * sin, minus[1] * a * sin + (b * cos if both else 0)


@rotate_pairs.slip("""
    Nothing was turned: your answer is `x` as it came. Each pair turns by its position times its rate.""")
def _identity(x, positions, rates):
    return x + 0 * positions.sum() + 0 * rates.sum()


@rotate_pairs.slip("""
    Your pairs turn the other way round. The minus belongs into the first number, a cos - b sin.""")
def _turned_back(x, positions, rates):
    return _in_turns(*_turned(x, -positions[:, None] * rates))


@rotate_pairs.slip("""
    There is no minus in your answer, so pairs change their length. A turn keeps it: the first number is a cos
    - b sin.""")
def _minus_missing(x, positions, rates):
    return _in_turns(*_turned(x, positions[:, None] * rates, minus=(-1, 1)))


@rotate_pairs.slip("""
    There is a minus in both of your numbers, so pairs change their length. Only the first has one: the second
    is a sin + b cos.""")
def _minus_twice(x, positions, rates):
    return _in_turns(*_turned(x, positions[:, None] * rates, minus=(1, -1)))


@rotate_pairs.slip("""
    You turn pairs of entries that lie half a row apart, i and i + Dh / 2. Many models do, but here neighbours
    make a pair, 2i and 2i + 1. Weights made for one way do not fit the other.""")
def _half_layout(x, positions, rates):
    a, b = x.chunk(2, dim=-1)
    angles = positions[:, None] * rates
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=-1)


@rotate_pairs.slip("""
    Every number is right, but they stand in another order: first numbers of all pairs, then all second ones.
    Each belongs where it came from, in turns: stack along a new last axis, then flatten.""")
def _not_in_turns(x, positions, rates):
    return torch.cat(_turned(x, positions[:, None] * rates), dim=-1)


@rotate_pairs.slip("""
    You took the two halves of a row for the first and the second numbers of its pairs, and wrote the result
    in turns. Here neighbours are pairs: take `x[..., 0::2]` and `x[..., 1::2]`.""")
def _halves_into_turns(x, positions, rates):
    a, b = x.chunk(2, dim=-1)
    angles = positions[:, None] * rates
    return _in_turns(a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())


@rotate_pairs.slip("""
    The second number was made of the new first one: `a` was written over too early. Make both from the old
    pair, then put them back.""")
def _overwritten(x, positions, rates):
    angles = positions[:, None] * rates
    a, b = x[..., 0::2], x[..., 1::2]
    a = a * angles.cos() - b * angles.sin()
    return _in_turns(a, a * angles.sin() + b * angles.cos())


@rotate_pairs.slip("""
    You multiplied by the cosine and stopped there, so pairs shrink. In a turn the two numbers of a pair mix:
    the parts with the sine are missing.""")
def _only_cosines(x, positions, rates):
    angles = positions[:, None] * rates
    return _in_turns(x[..., 0::2] * angles.cos(), x[..., 1::2] * angles.cos())


@rotate_pairs.slip("""
    Sine and cosine have changed places: at position 0 nothing should turn, and there the cosine is 1.""")
def _sine_for_cosine(x, positions, rates):
    return _in_turns(*_turned(x, torch.pi / 2 - positions[:, None] * rates))


@rotate_pairs.slip("""
    You turn every pair by the same angle, its position in radians. Each pair has a rate of its own: the angle
    is position times rate.""")
def _rates_ignored(x, positions, rates):
    return _in_turns(*_turned(x, positions[:, None] + 0 * rates))


@rotate_pairs.slip("""
    All pairs of a token turn by the same angle, with the first of the `rates`. Each pair has its own.""")
def _first_rate_for_all(x, positions, rates):
    return _in_turns(*_turned(x, positions[:, None] * rates[:1] + 0 * rates))


@rotate_pairs.slip("""
    You turn by rates of 10000^(-2i / Dh), as the paper does. Here the rates are given: take `rates`.""")
def _rates_of_the_paper(x, positions, rates):
    return _in_turns(*_turned(x, _angles(positions, x.shape[-1])))


@rotate_pairs.slip("""
    You turn entries that lie half a row apart, by rates of 10000^(-2i / Dh), as the `rotate` of the package
    does. Here neighbours make a pair, and the rates are given.""")
def _package_as_it_comes(x, positions, rates):
    return _half_layout(x, positions, _angles(torch.ones(1).to(x), x.shape[-1])[0])


@rotate_pairs.slip("""
    You took the angles for degrees. They are radians, as `sin` and `cos` of torch take them: nothing needs to
    be converted.""")
def _pairs_by_degrees(x, positions, rates):
    return _in_turns(*_turned(x, torch.deg2rad(positions[:, None] * rates)))


@rotate_pairs.slip("""
    Your first numbers are right. In the second ones sine and cosine have changed places: a goes with the sine
    there, b with the cosine.""")
def _second_number_mixed(x, positions, rates):
    angles = positions[:, None] * rates
    a, b = x[..., 0::2], x[..., 1::2]
    return _in_turns(a * angles.cos() - b * angles.sin(), a * angles.cos() + b * angles.sin())


@rotate_pairs.slip("""
    Your pairs overlap: entries 0 and 1, then 1 and 2, and the end of each row stays empty. Pair i is made of
    the entries 2i and 2i + 1.""")
def _pairs_overlap(x, positions, rates):
    out, angles = torch.zeros_like(x), positions[:, None] * rates
    for i in range(len(rates)):
        cos, sin, a, b = angles[:, i].cos(), angles[:, i].sin(), x[..., i], x[..., i + 1]
        out[..., i], out[..., i + 1] = a * cos - b * sin, a * sin + b * cos
    return out


@rotate_pairs.slip("""
    You turn tokens by their place in `x`: 0, 1, 2, ... They say themselves where they stand, in `positions`:
    in a later piece of a text the first token does not stand at 0.""")
def _places_for_positions(x, positions, rates):
    places = torch.arange(len(positions)).to(positions) + 0 * positions
    return _in_turns(*_turned(x, places[:, None] * rates))


@rotate_pairs.slip("""
    You turn tokens by their place in `x`, counted from 1. They say themselves where they stand, in
    `positions`.""")
def _places_from_one(x, positions, rates):
    places = torch.arange(1, len(positions) + 1).to(positions) + 0 * positions
    return _in_turns(*_turned(x, places[:, None] * rates))


@rotate_pairs.slip("""
    You turn one position too far: you count from 1. Position 0 is the one at which nothing turns.""")
def _one_too_far(x, positions, rates):
    return _in_turns(*_turned(x, (positions[:, None] + 1) * rates))


@rotate_pairs.slip("""
    You turned by position plus rate. A pair turns by its rate once for each position: multiply.""")
def _rate_added(x, positions, rates):
    return _in_turns(*_turned(x, positions[:, None] + rates))


@rotate_pairs.slip("""
    You added a code to `x`, as the first Transformer does. Rotary embedding adds nothing: it turns what is
    there.""")
def _code_added(x, positions, rates):
    angles = positions[:, None] * rates
    return x + _in_turns(angles.sin(), angles.cos())


@rotate_pairs.slip("""
    The numbers are right, and pairs still have an axis of their own. Flatten the last two axes.""")
def _pairs_apart(x, positions, rates):
    return torch.stack(_turned(x, positions[:, None] * rates), dim=-1)


@rotate_pairs.crash("""
    A row of T positions and a row of P rates do not fit entry by entry. Every position should meet every
    rate: give the positions an axis, `positions[:, None]`.""")
def _flat_positions(x, positions, rates):
    return positions * rates


# --- 6 -------------------------------------------------------------------------------------------------


def _half_inputs(rng: np.random.Generator, H: int, T: int, P: int) -> dict[str, Any]:
    return {"x": rng.standard_normal((H, T, 2 * P)), "angles": rng.uniform(0.3, 6, (T, P))}


def _half_reference(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    out, half = np.zeros_like(x), x.shape[-1] // 2
    for h, t, i in np.ndindex(*x.shape[:2], half):
        pair = complex(x[h, t, i], x[h, t, i + half]) * np.exp(1j * angles[t, i])
        out[h, t, i], out[h, t, i + half] = pair.real, pair.imag
    return out


@chapter.implement(
    title="The layout of LLaMA",
    statement="""
        LLaMA's code, as Hugging Face has it, turns other pairs: entry i goes with entry i + Dh / 2. Then
        everything can be done for whole halves of a row at once. Turn `x` (H, T, Dh) in this layout. `angles`
        (T, P) holds, for each token, the angles of its P = Dh / 2 pairs; they are the same for all heads.
        """,
    hints=(
        "Write down what the first half of the answer is, and what the second: with a and b for the halves "
        "of `x`, they are a cos - b sin and b cos + a sin.",
        "So the answer is `x * cos + turned * sin` for some `turned` as long as `x`. Which numbers stand in "
        "its first half, which in its second?",
        "`a, b = x.chunk(2, dim=-1)` cuts rows in the middle, `torch.cat([..., ...], dim=-1)` joins halves. "
        "The halves of `turned` are -b and a; those of the table `cos` are both `angles.cos()`.",
    ),
    axes="H T Dh",
    inputs=_half_inputs,
    sizes=((1, 2, 2), (2, 4, 3), (3, 2, 1), (2, 6, 4), (3, 4, 5)),
    reference=_half_reference,
)
def rotate_half(x, angles):
    """Turn the pairs (i, i + Dh / 2) of x (H, T, Dh) by angles (T, P): as x."""
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)  # (T, P) -> (T, Dh), for both halves
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat([-b, a], dim=-1)  # every pair (a, b) a quarter further: (-b, a)
    return x * cos + turned * sin


def _tables(angles):
    return angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


@rotate_half.slip("""
    Nothing was turned: your answer is `x` as it came. Each pair turns by its angle.""")
def _unturned(x, angles):
    return x + 0 * angles.sum()


@rotate_half.slip("""
    Your pairs turn the other way round: the minus belongs to the second half, where it comes first, `[-b,
    a]`.""")
def _half_turned_back(x, angles):
    cos, sin = _tables(angles)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([b, -a], dim=-1) * sin


@rotate_half.slip("""
    There is no minus in your answer, so pairs change their length. A quarter turn makes (-b, a) of (a, b).
    """)
def _half_without_minus(x, angles):
    cos, sin = _tables(angles)
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


@rotate_half.slip("""
    You put a minus before both halves, so pairs change their length. A quarter turn makes (-b, a) of (a, b).
    """)
def _half_minus_twice(x, angles):
    cos, sin = _tables(angles)
    return x * cos - x.roll(x.shape[-1] // 2, dims=-1) * sin


@rotate_half.slip("""
    The halves were not exchanged: the sine meets (-a, b), and should meet (-b, a). In a turn the two numbers
    of a pair mix.""")
def _halves_in_place(x, angles):
    cos, sin = _tables(angles)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-a, b], dim=-1) * sin


@rotate_half.slip("""
    You turn neighbours, 2i with 2i + 1, as the paper does. In this layout entry i goes with entry i + Dh / 2:
    exchange the halves of the row.""")
def _neighbours(x, angles):
    cos, sin = angles.cos().repeat_interleave(2, dim=-1), angles.sin().repeat_interleave(2, dim=-1)
    turned = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin


@rotate_half.slip("""
    The halves are exchanged as they should be, but your tables are made for neighbours: each column twice,
    side by side. Here entry i and entry i + Dh / 2 share an angle, so the whole table comes twice: `repeat(1,
    2)`.""")
def _tables_for_neighbours(x, angles):
    cos, sin = angles.cos().repeat_interleave(2, dim=-1), angles.sin().repeat_interleave(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


@rotate_half.slip("""
    Your tables fit to halves, but you exchange neighbours, 2i with 2i + 1. In this layout entry i goes with
    entry i + Dh / 2: exchange the halves of the row.""")
def _neighbours_with_tables_for_halves(x, angles):
    cos, sin = _tables(angles)
    turned = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin


@rotate_half.slip("""
    You read the pairs as neighbours and wrote them as halves. `x[..., 0::2]` takes every second number; the
    halves of a row are what `chunk(2, dim=-1)` gives.""")
def _neighbours_as_halves(x, angles):
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


@rotate_half.slip("""
    Every number is right, but they stand in turns, as neighbours would. Here all first numbers make the first
    half of a row, and all second ones the second: join them with `torch.cat([..., ...], dim=-1)`.""")
def _halves_in_turns(x, angles):
    return _in_turns(*rotate_half.solve(x, angles).chunk(2, dim=-1))


@rotate_half.slip("""
    Every number is right, but the halves of your rows have changed places: a cos - b sin comes first.""")
def _halves_of_the_answer_swapped(x, angles):
    return rotate_half.solve(x, angles).roll(x.shape[-1] // 2, dims=-1)


@rotate_half.slip("""
    Your first halves are right. The second ones were made of the new first ones: `a` was written over too
    early. Make both from the old halves.""")
def _half_overwritten(x, angles):
    a, b = x.chunk(2, dim=-1)
    a = a * angles.cos() - b * angles.sin()
    return torch.cat([a, b * angles.cos() + a * angles.sin()], dim=-1)


@rotate_half.slip("""
    You turn token t by t times 10000^(-2i / Dh), as the `rotate` of the package does. Here the angles are
    given: take `angles`.""")
def _angles_of_the_package(x, angles):
    places = torch.arange(x.shape[-2]).to(x)
    return rotate_half.solve(x, _angles(places, x.shape[-1]))


@rotate_half.slip("""
    Sine and cosine have changed places: `x` itself goes with the cosine, what was turned by a quarter with
    the sine.""")
def _tables_swapped(x, angles):
    cos, sin = _tables(angles)
    a, b = x.chunk(2, dim=-1)
    return x * sin + torch.cat([-b, a], dim=-1) * cos


@rotate_half.slip("""
    You multiplied by the cosine and stopped there, so pairs shrink. What was turned by a quarter, times the
    sine, comes in addition.""")
def _cosine_only(x, angles):
    return x * _tables(angles)[0]


@rotate_half.slip("""
    You cut along the tokens: token 0 was turned with a token further on. Pairs lie within a token, along the
    last axis: `dim=-1`, for `chunk` and for `cat`.""")
def _tokens_halved(x, angles):
    cos, sin = _tables(angles)
    a, b = x.chunk(2, dim=-2)
    return x * cos + torch.cat([-b, a], dim=-2) * sin


@rotate_half.slip("""
    You exchanged the halves and turned each of them round end for end: `flip` makes the last number the
    first. Each half keeps its order.""")
def _flipped(x, angles):
    cos, sin = _tables(angles)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b.flip(-1), a.flip(-1)], dim=-1) * sin


@rotate_half.slip("""
    You multiplied by the bare angles. A turn takes their cosine and their sine.""")
def _angles_for_tables(x, angles):
    a, b = x.chunk(2, dim=-1)
    both = angles.repeat(1, 2)
    return x * both + torch.cat([-b, a], dim=-1) * both


@rotate_half.crash("""
    Rows of Dh numbers met a table of P = Dh / 2. Repeat the table, `.repeat(1, 2)`, or cut each row in the
    middle, `x.chunk(2, dim=-1)`.""")
def _narrow_tables(x, angles):
    a, b = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()


@rotate_half.crash("""
    There is one head in this input, so what is taken apart along the first axis gives one part. A row is cut
    along the last axis: `a, b = x.chunk(2, dim=-1)`.""")
def _heads_halved(x, angles):
    a, b = x.chunk(2)
    return torch.cat([a, b])


# --- 7 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The slope of a head",
    statement="""
        ALiBi with 4 heads: head h = 1, 2, 3, 4 has the slope 2 to the power of -8h / 4. The third head, that
        with h = 3, looks from a query at position 10 at a key at position 6.

        Before you run anything: what is added to its score?
        """,
    hints=(
        "First the slope: what is 8 times 3, divided by 4?",
        "The slope is 2 to the power of -6, one part in 64. How far apart are the two tokens?",
        "Distance counts against a key: minus the slope times the distance of 4.",
    ),
    expected=-0.0625,
    wrong={
        0.0625: "The size is right, the sign is not: distance counts against a key.",
        -0.015625: "That is the slope of this head alone, with a minus (or what the fourth head adds). "
        "Count the slope once for each of the 4 steps from 6 to 10.",
        0.015625: "That is the slope alone. It is counted once for each position of distance, and against "
        "the key.",
        -0.25: "That is what the second head adds, h = 2, with a slope of one part in 16. This is h = 3.",
        -0.015625 * 10: "You multiplied by the position of the query. It is the distance that counts, 10 "
        "minus 6.",
        -0.015625 * 6: "You multiplied by the position of the key. It is the distance that counts, 10 minus "
        "6.",
        -0.015625 * 5: "You counted both ends: from 6 to 10 it is four steps, not five.",
        -4.0: "That is the distance with a minus. It is multiplied by the slope of the head.",
        -0.5: "You took 2 to the power of -h as the slope. The exponent is -8h / H, here -6.",
        -1.0: "That is what the first head adds, with a slope of a quarter. This is h = 3.",
        -0.015625 * 3: "You counted the tokens that stand between the two, 7, 8 and 9. From 6 to 10 it is "
        "four steps.",
        -256.0: "Your slope is 64, which is 2 to the power of 6. The exponent has a minus: a power of -6 is "
        "one part in 64.",
        256.0: "Two signs are lost. The exponent has a minus, so the slope is one part in 64, not 64; and "
        "distance counts against a key.",
        -6.0: "That is the exponent. The slope is 2 to this power, and it is multiplied by the distance.",
        -0.06: "That is rounded. Write all digits, or let Python divide.",
    },
    otherwise="Not that number. Take 2 to the power of -8 · 3 / 4, times the distance of the two tokens, and "
    "a minus.",
    form="one number",
)
def slope_of_a_head():
    """The slope is 2^-6 = 1 / 64, the distance 4: the score falls by 4 / 64. A key four tokens back keeps
    e^-0.0625, or 94 hundredths, of the share it would have had. In the first head (slope 1 / 4) it keeps 37
    hundredths.
    """
    slope = 2.0 ** (-8 * 3 / 4)
    return -slope * (10 - 6)


# --- 8 -------------------------------------------------------------------------------------------------


def _alibi_inputs(rng: np.random.Generator, B: int, H: int, T: int, S: int) -> dict[str, Any]:
    return {"scores": rng.standard_normal((B, H, T, S)), "slopes": rng.uniform(0.1, 0.9, H)}


def _alibi_reference(scores: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    out, (T, S) = scores.copy(), scores.shape[-2:]
    for h, t, s in np.ndindex(*scores.shape[1:]):
        out[:, h, t, s] -= slopes[h] * abs((S - T + t) - s)
    return out


@chapter.implement(
    title="Attention with linear biases",
    statement="""
        ALiBi turns nothing and adds nothing to the tokens: it lowers scores. `scores` has the shape (B, H, T,
        S): T queries, the newest of S tokens, look at all S of them; so the last query stands where the last
        key does. From each score take the slope of its head, `slopes[h]`, times the distance of query and
        key.

        There is no mask here, and some keys come after the query: their distance counts just the same.
        """,
    hints=(
        "Where do the S keys stand? At 0, 1, ..., S - 1. And the T queries, if the last of them is at S - 1?",
        "With `keys = torch.arange(S)` the queries stand at `keys[S - T:]`. `queries[:, None] - keys` is a "
        "table (T, S) of differences; a distance has no sign: `.abs()`.",
        "The slopes (H,) need two more axes to meet the table (T, S): `slopes[:, None, None]`.",
    ),
    axes="B H T S",
    inputs=_alibi_inputs,
    sizes=((1, 2, 3, 4), (2, 3, 4, 4), (1, 4, 1, 5), (3, 1, 2, 6), (2, 4, 3, 7)),
    reference=_alibi_reference,
)
def add_alibi(scores, slopes):
    """Lower scores (B, H, T, S) by slopes (H,) times distances: as scores."""
    T, S = scores.shape[-2:]
    keys = torch.arange(S, device=scores.device)
    queries = keys[S - T :]  # the last query stands at the last key
    distances = (queries[:, None] - keys).abs()  # (T, S)
    return scores - slopes[:, None, None] * distances


def _distances(scores):
    T, S = scores.shape[-2:]
    keys = torch.arange(S)
    return (keys[S - T :, None] - keys).abs()


@add_alibi.slip("""
    Nothing was taken away: these are the scores as they came. Each loses slope times distance.""")
def _untouched_scores(scores, slopes):
    return scores + 0 * slopes.sum()


@add_alibi.slip("""
    You added where distance should count against a key: far keys come out on top. Subtract.""")
def _distance_added(scores, slopes):
    return scores + slopes[:, None, None] * _distances(scores)


@add_alibi.slip("""
    Your first query stands at the first key. The queries are the newest of the S tokens: the last query
    stands at the last key, so they start at S - T.""")
def _top_left(scores, slopes):
    T, S = scores.shape[-2:]
    distances = (torch.arange(T)[:, None] - torch.arange(S)).abs()
    return scores - slopes[:, None, None] * distances


@add_alibi.slip("""
    Your distances have a sign: a key after the query gains what one before it loses. Below a causal mask
    nobody would notice, since such keys are hidden; here, take `.abs()`.""")
def _signed(scores, slopes):
    T, S = scores.shape[-2:]
    return scores - slopes[:, None, None] * (torch.arange(S)[S - T :, None] - torch.arange(S))


@add_alibi.slip("""
    Keys after the query lose nothing in your answer. Their distance counts just as that of keys before it.
    """)
def _only_backward(scores, slopes):
    T, S = scores.shape[-2:]
    before = (torch.arange(S)[S - T :, None] - torch.arange(S)).clamp(min=0)
    return scores - slopes[:, None, None] * before


@add_alibi.slip("""
    The slopes were left out: each score loses the bare distance. Multiply it by the slope of the head.""")
def _no_slopes(scores, slopes):
    return scores - _distances(scores) + 0 * slopes.sum()


@add_alibi.slip("""
    All heads have the slope of the first one. Each has its own, and that is their use: some look near, some
    far.""")
def _first_slope_for_all(scores, slopes):
    return scores - slopes[0] * _distances(scores)


@add_alibi.slip("""
    The slopes are in reverse order: the first belongs to the first head.""")
def _slopes_reversed(scores, slopes):
    return scores - slopes.flip(0)[:, None, None] * _distances(scores)


@add_alibi.slip("""
    You count the distance from 1, so that a query pays even for the key at its own place. There the distance
    is 0.""")
def _from_one(scores, slopes):
    return scores - slopes[:, None, None] * (_distances(scores) + 1)


@add_alibi.slip("""
    You squared the distance. The biases are linear: twice as far costs twice as much.""")
def _squared(scores, slopes):
    return scores - slopes[:, None, None] * _distances(scores) ** 2


@add_alibi.slip("""
    You multiplied the scores by the bias. A negative score would gain by distance then: subtract instead.""")
def _multiplied(scores, slopes):
    return scores * -(slopes[:, None, None] * _distances(scores))


@add_alibi.slip("""
    This is the bias alone. It is added to the scores: return both together.""")
def _bias_alone(scores, slopes):
    return (-slopes[:, None, None] * _distances(scores)).expand_as(scores) + 0 * scores


@add_alibi.slip("""
    This is the bias alone, a table (T, S) for each head. Add it to the scores.""")
def _bias_without_batch(scores, slopes):
    return -slopes[:, None, None] * _distances(scores)


@add_alibi.slip("""
    You count from the first key, as BLOOM does: slope times position of the key, added. Below a causal mask a
    softmax makes the same weights of that, but the scores are others: here, each loses slope times distance.
    """)
def _from_the_first_key(scores, slopes):
    return scores + slopes[:, None, None] * torch.arange(scores.shape[-1])


@add_alibi.slip("""
    The distances were taken off as they should be, but you hide keys after the query. There is no mask here:
    they lose slope times distance as all others do.""")
def _masked(scores, slopes):
    T, S = scores.shape[-2:]
    keys = torch.arange(S)
    return add_alibi.solve(scores, slopes).masked_fill(keys > keys[S - T :, None], -torch.inf)


@add_alibi.slip("""
    These are weights: the lowered scores went through a softmax. Return the scores as they are before it.
    """)
def _softmaxed(scores, slopes):
    return add_alibi.solve(scores, slopes).softmax(dim=-1)


@add_alibi.slip("""
    Your queries stand one place too far: of S tokens, counted from 0, the last stands at S - 1.""")
def _queries_too_far(scores, slopes):
    T, S = scores.shape[-2:]
    distances = (torch.arange(S - T, S)[:, None] + 1 - torch.arange(S)).abs()
    return scores - slopes[:, None, None] * distances


@add_alibi.slip("""
    You made slopes of your own, 2^(-8h / H). Take the `slopes` that are given: they may be others.""")
def _own_slopes(scores, slopes):
    H = scores.shape[1]
    own = 2.0 ** (-8 * torch.arange(1, H + 1).to(scores) / H)
    return scores - own[:, None, None] * _distances(scores)


@add_alibi.crash("""
    H slopes met a table of T rows, one slope a row. They need an axis for T and one for S: `slopes[:, None,
    None]`.""")
def _one_axis_for_slopes(scores, slopes):
    return scores - slopes[:, None] * _distances(scores)


@add_alibi.crash("""
    Slopes (H,) met a table (T, S) along its last axis. Give them axes for T and S: `slopes[:, None, None]`.
    """)
def _flat_slopes(scores, slopes):
    return scores - slopes * _distances(scores)


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.measure(
    title="How far a key is carried",
    statement=r"""
        Rotary scores depend on distances only. Do the keys, too? Measure it. Draw at least a thousand random
        keys of 64 numbers (`torch.randn`), and let `rotate` from `transformer_lab.positional` turn them: once
        as if all stood at position 1, once as if all stood at position 100, with its usual base of 10000. How
        far is a turned key from the key as it was?

        Report the mean of $\lVert k' - k \rVert / \lVert k \rVert$, distance by length, first for position 1,
        then for position 100.
        """,
    hints=(
        "`rotate(k, positions)` takes a position for each row: for 1000 keys at position 100 that is "
        "`torch.full((1000,), 100.0)`.",
        "`(turned - k).norm(dim=-1)` is the distance for each key, `k.norm(dim=-1)` its length.",
        "Divide row by row, then take the mean over the keys; do it for positions of 1 and of 100.",
    ),
    ranges={"at position 1": (0.242, 0.266), "at position 100": (0.91, 0.955)},
    slips={
        "The two numbers are the other way round: first position 1, then position 100.": (
            (0.91, 0.955),
            (0.242, 0.266),
        ),
        "These are distances, not yet divided by the length of the key, which is about 8.": (
            (1.93, 2.1),
            (7.2, 7.6),
        ),
        "These are squares of distances, not divided by anything. Take the length of the difference, "
        "`.norm(dim=-1)`, and divide it by the length of the key.": ((4.0, 4.6), (53.5, 58.5)),
        "These are squares. Take the root of the sum of squares: `.norm(dim=-1)`.": (
            (0.062, 0.071),
            (0.85, 0.905),
        ),
        "Both numbers are 0. Either nothing was turned, or you compared the lengths, which a turn keeps: "
        "take the "
        "length of the difference, `(turned - k).norm(dim=-1)`.": ((-1e-5, 1e-5), (-1e-5, 1e-5)),
        "Both numbers are 1: you divided the length of the turned key by that of the key. A turn keeps "
        "lengths; "
        "take the length of the difference, `(turned - k).norm(dim=-1)`.": ((0.999, 1.001), (0.999, 1.001)),
        "These are cosines of the angle between both keys. Report how far their tips are apart, divided by "
        "the "
        "length.": ((0.96, 0.972), (0.54, 0.58)),
        "You divided by 64, the number of entries. The length of a key is the root of the sum of their "
        "squares, "
        "`k.norm(dim=-1)`, about 8.": ((0.03, 0.033), (0.112, 0.119)),
        "You turned by degrees: the angles are 57 times too small. `rotate` takes positions as they are.": (
            (0.0042, 0.0048),
            (0.4, 0.435),
        ),
        "These are the positions 0 and 99. At position 0 nothing is turned; the first asked for is 1, the "
        "second "
        "100.": ((-1e-5, 1e-5), (0.97, 1.04)),
        "These are the positions 2 and 101. `rotate` takes positions as they are: at position 0 nothing is "
        "turned.": ((0.455, 0.482), (0.895, 0.925)),
        "These numbers come out if norms run along the keys, `dim=0`. A key is a row: `.norm(dim=-1)`.": (
            (0.1222, 0.1233),
            (0.688, 0.691),
        ),
        "You let the positions run from 0 to the number of keys. All keys should stand at one position: "
        "`torch.full((1000,), 100.0)`.": ((1.17, 1.3), (1.17, 1.3)),
    },
    at_most=(
        2.0,
        "A share above 2 is impossible: two tips of equally long hands are at most two lengths apart. Divide "
        "by the length of each key.",
    ),
    otherwise="Not in the range that a thousand keys give. Check: 64 numbers, the usual base, all keys at "
    "position 1 and all at position 100, distance divided by length, mean over the keys, and at least two "
    "decimals.",
)
def how_far_a_key_moves():
    """At position 100 a key lies nearly as far from where it began as it is long. So rotary embedding writes
    the absolute position into every key; only the score, in which query and key are turned alike, forgets it.
    """
    from transformer_lab.positional import rotate

    random = torch.Generator().manual_seed(0)
    k = torch.randn(4000, 64, generator=random)

    def moved(position):
        turned = rotate(k, torch.full((4000,), position))
        return ((turned - k).norm(dim=-1) / k.norm(dim=-1)).mean().item()

    return moved(1.0), moved(100.0)


# --- 10 ------------------------------------------------------------------------------------------------


def _cache_inputs(rng: np.random.Generator, H: int, T: int, S: int, P: int) -> dict[str, Any]:
    return {name: 2 * rng.standard_normal((H, n, 2 * P)) for name, n in (("q", T), ("k", S), ("v", S))}


def _cache_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Pairs as complex numbers: in a score, only the distance of query and key turns them."""
    out, (H, T, width), S = np.zeros_like(q), q.shape, k.shape[1]
    half = width // 2
    rates = 10000.0 ** (-np.arange(half) / half)
    for h, t in np.ndindex(H, T):
        place = S - T + t
        query = q[h, t, :half] + 1j * q[h, t, half:]
        scores = []
        for s in range(place + 1):
            key = k[h, s, :half] + 1j * k[h, s, half:]
            scores.append((query * key.conj() * np.exp(1j * (place - s) * rates)).sum().real / width**0.5)
        shares = np.exp(np.array(scores) - max(scores))
        out[h, t] = (shares / shares.sum()) @ v[h, : place + 1]
    return out


def cached_attention(q, k, v):
    """The newest T tokens q (H, T, Dh) attend to all S, k and v (H, S, Dh): as q."""
    from transformer_lab.positional import rotate

    T, S = q.shape[-2], k.shape[-2]
    places = torch.arange(S)
    visible = places <= places[S - T :, None]  # (T, S): no query sees a later key
    q = rotate(q, places[:T])
    k = rotate(k, places)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.masked_fill(~visible, float("-inf")).softmax(dim=-1) @ v


@chapter.debug(
    broken=cached_attention,
    title="Right at once, wrong one by one",
    statement="""
        A text is written token by token. Keys and values of earlier tokens are kept; each step brings one new
        query, or a few, which attend to all tokens so far. This function does it with rotary embedding, and
        one of its lines is wrong. Its symptom: handed all tokens at once (T = S), it agrees with the package.
        With fewer queries than keys it does not, and the longer the text, the stranger its weights: as if
        every new token stood at its beginning.

        Find the line, repair it, and hand the function in.
        """,
    hints=(
        "Where does the newest token of a text of S tokens stand? And where does this function think it "
        "stands?",
        "Scores depend on the distance of query and key. Take T = 1 and S = 100: at which position is the "
        "query turned, and at which the key of the token itself?",
        "The mask knows better: it compares the keys with `places[S - T:]`.",
    ),
    axes="H T Dh",
    inputs=_cache_inputs,
    sizes=((2, 1, 4, 2), (1, 3, 3, 2), (2, 2, 5, 3), (3, 1, 6, 1), (1, 3, 7, 4)),
    reference=_cache_reference,
)
def cached_attention(q, k, v):
    """The newest T tokens q (H, T, Dh) attend to all S, k and v (H, S, Dh): as q."""
    from transformer_lab.positional import rotate

    T, S = q.shape[-2], k.shape[-2]
    places = torch.arange(S)
    visible = places <= places[S - T :, None]  # (T, S): no query sees a later key
    # The newest T of S tokens stand at the end. The broken line turned them as if at the beginning.
    q = rotate(q, places[S - T :])
    k = rotate(k, places)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.masked_fill(~visible, float("-inf")).softmax(dim=-1) @ v


def _cached(q, k, v, *, queries=None, keys=None, values=None, seen=None, divide=True):
    from transformer_lab.positional import rotate

    T, S = q.shape[-2], k.shape[-2]
    places = torch.arange(S)
    seen = places <= places[S - T :, None] if seen is None else seen
    q = rotate(q, places[S - T :] if queries is None else queries)
    k = rotate(k, places if keys is None else keys)
    v = v if values is None else rotate(v, values)
    scores = q @ k.mT / (q.shape[-1] ** 0.5 if divide else 1)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v


@cached_attention.slip("""
    The symptom is still there: your function gives what the broken one gave. The newest tokens are turned as
    if they stood at the positions 0, 1, ...; where do they stand?""")
def _still_at_the_beginning(q, k, v):
    return _cached(q, k, v, queries=torch.arange(q.shape[-2]))


@cached_attention.slip("""
    Nothing is turned any more: no score knows where its tokens stand. Turn queries and keys, each by its own
    position.""")
def _rotation_removed(q, k, v):
    return _cached(q, k, v, queries=torch.zeros(q.shape[-2]), keys=torch.zeros(k.shape[-2]))


@cached_attention.slip("""
    The queries are not turned, the keys are. A score depends on the distance only if both are turned, each by
    its own position.""")
def _queries_not_turned(q, k, v):
    return _cached(q, k, v, queries=torch.zeros(q.shape[-2]))


@cached_attention.slip("""
    The keys are no longer turned. They were right: key s stands at position s. The fault is in another line.
    """)
def _keys_not_turned(q, k, v):
    return _cached(q, k, v, keys=torch.zeros(k.shape[-2]))


@cached_attention.slip("""
    The keys are no longer turned, and the queries still stand at the beginning. The keys were right: key s
    stands at position s. The fault is in another line.""")
def _keys_not_turned_still_broken(q, k, v):
    return _cached(q, k, v, queries=torch.arange(q.shape[-2]), keys=torch.zeros(k.shape[-2]))


@cached_attention.slip("""
    You turn the queries one position too far: of S tokens, counted from 0, the last stands at S - 1.""")
def _one_position_too_far(q, k, v):
    T, S = q.shape[-2], k.shape[-2]
    return _cached(q, k, v, queries=torch.arange(S - T, S) + 1)


@cached_attention.slip("""
    You turn the queries one position too little. They end at S - 1, the place of the last token.""")
def _one_position_too_little(q, k, v):
    T, S = q.shape[-2], k.shape[-2]
    return _cached(q, k, v, queries=torch.arange(S - T, S) - 1)


@cached_attention.slip("""
    You turn the queries as if they came after all S tokens, at S, S + 1, ... They are the newest of these S
    tokens themselves.""")
def _after_all_tokens(q, k, v):
    T, S = q.shape[-2], k.shape[-2]
    return _cached(q, k, v, queries=torch.arange(T) + S)


@cached_attention.slip("""
    You turn all queries as if they stood at the position of the last token. That is right for one query; of
    several, each has its own.""")
def _all_at_the_last_place(q, k, v):
    return _cached(q, k, v, queries=torch.full((q.shape[-2],), k.shape[-2] - 1))


@cached_attention.slip("""
    You turn all queries as if they stood at the position of the first new token. That is right for one query;
    of several, each has its own.""")
def _all_at_the_first_new_place(q, k, v):
    return _cached(q, k, v, queries=torch.full((q.shape[-2],), k.shape[-2] - q.shape[-2]))


@cached_attention.slip("""
    You found the line and repaired it. But you turn the values as well, and what comes out is a mean of
    turned values: positions belong into scores only, so turn queries and keys.""")
def _values_turned(q, k, v):
    return _cached(q, k, v, values=torch.arange(k.shape[-2]))


@cached_attention.slip("""
    The queries are right now, but you changed the mask, and that was right before: the newest queries see all
    keys up to their own place, not only the first ones.""")
def _repaired_mask_broken(q, k, v):
    T, S = q.shape[-2], k.shape[-2]
    return _cached(q, k, v, seen=torch.arange(S) <= torch.arange(T)[:, None])


@cached_attention.slip("""
    You changed the mask to fit the fault: now new tokens see only the beginning of the text. The mask was
    right; the fault is in another line.""")
def _mask_changed(q, k, v):
    T, S = q.shape[-2], k.shape[-2]
    return _cached(q, k, v, queries=torch.arange(T), seen=torch.arange(S) <= torch.arange(T)[:, None])


@cached_attention.slip("""
    The queries are right now, but the mask is gone: of several new queries, the first ones see keys that come
    after them.""")
def _repaired_mask_removed(q, k, v):
    return _cached(q, k, v, seen=torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool))


# --- 11 ------------------------------------------------------------------------------------------------


def _layout_inputs(rng: np.random.Generator, H: int, P: int, D: int) -> dict[str, Any]:
    return {"weight": rng.standard_normal((2 * H * P, D)), "n_heads": H}


def _layout_reference(weight: np.ndarray, n_heads: int) -> np.ndarray:
    out, width = np.zeros_like(weight), len(weight) // n_heads
    for h, i in np.ndindex(n_heads, width // 2):
        out[h * width + i] = weight[h * width + 2 * i]
        out[h * width + i + width // 2] = weight[h * width + 2 * i + 1]
    return out


@chapter.implement(
    title="Weights that change their layout",
    statement="""
        A model was trained with pairs of neighbours, (2i, 2i + 1); the code at hand turns the pairs (i, i +
        Dh / 2). Its queries and keys must be reordered, and that can be done once for all: in the rows of the
        matrices that make them.

        `weight` has the shape (E, D), with E = H · Dh rows: the rows of head 0, then those of head 1, and so
        on, as in `q_proj.weight`. Within each head, bring the rows 0, 2, 4, ... to the front, in this order,
        and let the rows 1, 3, 5, ... follow. H is `n_heads`.
        """,
    hints=(
        "Take one head with four rows. In which order do they come out? 0, 2, 1, 3. And two heads of four "
        "rows? 0, 2, 1, 3, 4, 6, 5, 7.",
        "Cut the rows into heads and pairs: `weight.unflatten(0, (n_heads, -1, 2))` has the shape "
        "(H, Dh / 2, 2, D). Which two axes should change places?",
        "Swap the axis of the pairs with the one inside a pair, `transpose(1, 2)`, and flatten all three "
        "again.",
    ),
    axes="E D",
    inputs=_layout_inputs,
    sizes=((2, 3, 2), (1, 3, 4), (3, 4, 1), (2, 5, 3), (4, 3, 5)),
    reference=_layout_reference,
)
def to_halves(weight, n_heads):
    """Reorder the rows of weight (E, D): in each head even ones, then odd ones."""
    pairs = weight.unflatten(0, (n_heads, -1, 2))  # (H, Dh / 2, 2, D): head, pair, first or second of it
    # Swapped, all first ones of a head come before all second ones; then it is rows again.
    return pairs.transpose(1, 2).flatten(0, 2)


@to_halves.slip("""
    The rows are where they were. Within each head, the even ones should come first.""")
def _rows_unmoved(weight, n_heads):
    return weight * 1


@to_halves.slip("""
    This is the way back, from halves to neighbours: row i + Dh / 2 went behind row i. Here neighbours come
    in, and halves go out.""")
def _the_way_back(weight, n_heads):
    return weight.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


@to_halves.slip("""
    You reordered all rows at once, as if there were one head: rows of one head went into another. Every head
    is reordered by itself.""")
def _across_heads(weight, n_heads):
    return torch.cat([weight[0::2], weight[1::2]])


@to_halves.slip("""
    Odd rows come first in your heads, even ones behind them. It is the other way round: 0, 2, 4, ... lead.
    """)
def _odd_first(weight, n_heads):
    return weight.unflatten(0, (n_heads, -1, 2)).flip(2).transpose(1, 2).flatten(0, 2)


@to_halves.slip("""
    You exchanged the two rows of each pair. Pairs should be taken apart: all first rows of a head, then all
    second ones.""")
def _pairs_exchanged(weight, n_heads):
    return weight.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


@to_halves.slip("""
    You exchanged the halves of each head. Its even rows should come first, then its odd ones.""")
def _halves_exchanged(weight, n_heads):
    return weight.unflatten(0, (n_heads, 2, -1)).flip(1).flatten(0, 2)


@to_halves.slip("""
    You cut heads of `n_heads` rows each. `n_heads` is how many heads there are; each has E / n_heads rows.
    """)
def _count_for_width(weight, n_heads):
    order = sorted(range(len(weight)), key=lambda row: (row // n_heads, row % n_heads % 2, row))
    return weight[order]


@to_halves.slip("""
    You took the rows of a head in turns with those of the other heads: head and pair changed places. The rows
    of a head lie together, so cut into (H, Dh / 2, 2), in this order.""")
def _heads_in_turns(weight, n_heads):
    return weight.unflatten(0, (-1, n_heads, 2)).movedim(1, 0).transpose(1, 2).flatten(0, 2)


@to_halves.slip("""
    The rows of each head are in the right order, and heads still have an axis of their own. Flatten the first
    two axes, so that there are E rows.""")
def _heads_apart(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, -1))
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1)


@to_halves.slip("""
    You swapped the axes of heads and of pairs. Heads stay where they are: swap the axis of the pairs with the
    one inside a pair, 1 and 2.""")
def _heads_swapped_with_pairs(weight, n_heads):
    return weight.unflatten(0, (n_heads, -1, 2)).transpose(0, 1).flatten(0, 2)


@to_halves.slip("""
    You reordered columns: 0, 2, 4, ... of each row came to the front. What belongs to a head are rows, along
    the first axis.""")
def _columns_reordered(weight, n_heads):
    return torch.cat([weight[:, 0::2], weight[:, 1::2]], dim=1)


@to_halves.slip("""
    The rows are in the right order, and heads and halves still have axes of their own. Flatten all three
    again, so that there are E rows.""")
def _still_apart(weight, n_heads):
    return weight.unflatten(0, (n_heads, -1, 2)).transpose(1, 2)


# --- 12 ------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Twice as long",
    statement="""
        Five small models of characters differ in their position code only: none at all (a causal mask alone),
        sinusoids, a learned table that has enough rows, rotary embedding, ALiBi. All were trained on pieces
        of 64 characters. Now they read pieces of 128, with their codes as they are, and what counts is the
        loss on the last characters.

        The chapter measured it. Before you look it up: which of them predict these as well as at the length
        they were trained on, to a tenth of a nat?
        """,
    choices={
        "a": "ALiBi and rotary embedding: both count distances.",
        "b": "ALiBi only.",
        "c": "ALiBi and the model without a code: neither meets a number it never saw.",
        "d": "All but the learned table, whose further rows were never trained.",
    },
    hints=(
        "For each code ask what the model meets at position 100 that it never met in training.",
        "Sinusoids: new rows are added to the tokens. Rotary embedding: distances from 64 to 127 turn query "
        "and key against each other by angles that no training step has seen.",
        "Without a code there is nothing new but the number of keys. Does a softmax over 128 keys share out "
        "like one over 64? And what does ALiBi do to keys that are far away?",
    ),
    expected="b",
    wrong={
        "a": "Rotary scores depend on distances only, but distances beyond 63 are new, and the model has "
        "learned nothing of their angles: its loss rises. Relative is not the same as reaching further.",
        "c": "The loss of the model without a code rises, too: in training its queries shared themselves "
        "among 64 keys at most, and 128 are more than it ever saw.",
        "d": "A formula gives a row for every position, but the model must have learned to read it. Rows "
        "that it never met help a sinusoid as little as a table.",
    },
)
def twice_as_long():
    """Only ALiBi: the further a key, the more it is lowered, so in most heads the new far keys take little
    from the near ones. It gains nothing from them, either. Rotary embedding needs some further training at
    the new length.
    """
    from transformer_lab.training import results

    runs = results.read("positional")["runs"].values()
    codes = ("none", "sinusoidal", "learned", "rope", "alibi")
    well = {code for code in codes if all(run[code]["128"] < run[code]["64"] + 0.1 for run in runs)}
    answers = {"a": {"alibi", "rope"}, "b": {"alibi"}, "c": {"alibi", "none"}, "d": set(codes) - {"learned"}}
    return next(letter for letter, chosen in answers.items() if chosen == well)
