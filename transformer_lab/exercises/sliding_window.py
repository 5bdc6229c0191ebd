"""Exercises of the chapter "Attention through a window", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .check import Chapter

chapter = Chapter("sliding_window", "Attention through a window")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The pairs in a band",
    statement="""
        A text has 10 tokens. With a window of 4, a token sees two neighbours to either side, and itself,
        as far as they exist.

        Before you run anything: how many pairs of a query and a key are allowed?
        """,
    hints=(
        "How many keys does a token in the middle see? And how many would that be for ten such tokens?",
        "Now the ends. How many keys does token 0 lack, and how many token 1?",
        "The band has 10 times 5 places. At each end 2 + 1 of them lie outside the table.",
    ),
    expected=44,
    wrong={
        50: "So it would be if every token had two neighbours on both sides. Those near the ends have fewer: "
        "how many keys do the tokens 0 and 1 lack?",
        40: "You did not count the tokens themselves: each sees itself, too. And near the ends some "
        "neighbours are missing.",
        34: "You left out the pairs of a token with itself: there are ten of them.",
        47: "You went to one end only. At the other end as many are missing.",
        46: "You took two away at each end. Token 0 lacks two neighbours, and token 1 still lacks one.",
        48: "You took one away at each end. Token 0 lacks two neighbours, and token 1 lacks one.",
        27: "You looked to one side only, or counted two neighbours as one pair. Query 3 with key 4 is one "
        "pair, query 4 with key 3 another.",
        30: "You looked to one side only. A window of 4 has two neighbours before the token and two behind "
        "it.",
        70: "Your window reaches four places to either side. A window of 4 is two and two.",
        90: "Your window reaches four places to either side. A window of 4 is two and two; and near the ends "
        "some neighbours are missing.",
        100: "That is the full table. Token 0 does not see token 9.",
    },
    otherwise="Not that number. Write down how many keys each of the ten tokens sees, and add up.",
    form="one number",
)
def pairs_in_the_band():
    """The ten tokens see 3, 4, 5, 5, 5, 5, 5, 5, 4 and 3 keys. In general there are T (w + 1) places in the
    band, and w/2 (w/2 + 1) of them lie outside the table.
    """
    places = torch.arange(10)
    return int(((places[:, None] - places).abs() <= 2).sum())


# --- 2 -------------------------------------------------------------------------------------------------


def _dilated_reference(n_tokens: int, window: int, dilation: int) -> np.ndarray:
    mask = np.zeros((n_tokens, n_tokens), dtype=bool)
    for t in range(n_tokens):
        for step in range(-(window // 2), window // 2 + 1):
            if 0 <= t + step * dilation < n_tokens:
                mask[t, t + step * dilation] = True
    return mask


@chapter.implement(
    title="A window with gaps",
    statement="""
        With a dilation d, a token sees itself and, to either side, `window // 2` tokens that stand d places
        apart: those d, 2 d, 3 d, ... places away. With d = 1 it is the plain window.

        Write the mask (T, T) for `n_tokens` tokens: boolean, True = may attend. `window` is even.
        """,
    hints=(
        "`places = torch.arange(n_tokens)` and `(places[:, None] - places).abs()` give the distance of every "
        "query from every key.",
        "Two things must hold of the distance: it is not too large, and it is a multiple of d.",
        "A multiple of d leaves no remainder: `distance % dilation == 0`. And how far away is the last one "
        "that may be seen, if there are `window // 2` of them, d places apart?",
        "Both must hold: `&`, with each comparison in brackets.",
    ),
    axes="T T",
    inputs=lambda rng, T, window, d: {"n_tokens": T, "window": window, "dilation": d},
    sizes=((5, 2, 2), (7, 4, 1), (9, 4, 2), (12, 6, 3), (6, 2, 4), (8, 4, 3), (1, 2, 2)),
    reference=_dilated_reference,
    gradient=False,
)
def dilated_window(n_tokens, window, dilation):
    """True where a query may see a key, every `dilation`-th of those around it: a mask (T, T)."""
    places = torch.arange(n_tokens)
    distance = (places[:, None] - places).abs()
    # window // 2 tokens to either side, `dilation` places apart: the last one is so far away.
    near = distance <= window // 2 * dilation
    return near & (distance % dilation == 0)


def _distance(n_tokens):
    places = torch.arange(n_tokens)
    return (places[:, None] - places).abs()


@dilated_window.slip("""
    This is the plain window: `dilation` plays no part. The tokens seen stand `dilation` places apart.""")
def _not_dilated(n_tokens, window, dilation):
    return _distance(n_tokens) <= window // 2


@dilated_window.slip("""
    Your window reaches as far as it should, but it has no gaps: of the distances, only multiples of
    `dilation` are seen.""")
def _no_gaps(n_tokens, window, dilation):
    return _distance(n_tokens) <= window // 2 * dilation


@dilated_window.slip("""
    Your window has its gaps, but it ends after `window // 2` places. There should be `window // 2` tokens to
    either side, and `dilation` places from one to the next.""")
def _not_further(n_tokens, window, dilation):
    distance = _distance(n_tokens)
    return (distance <= window // 2) & (distance % dilation == 0)


@dilated_window.slip("""
    Your window is twice as wide as it should be: `window` tokens to either side. Half of them stand before
    the token, half behind it.""")
def _window_to_each_side(n_tokens, window, dilation):
    distance = _distance(n_tokens)
    return (distance <= window * dilation) & (distance % dilation == 0)


@dilated_window.slip("""
    You compared the distance with `window`, the whole of it. Half of the window lies to each side,
    `window // 2` tokens, and they stand `dilation` places apart.""")
def _whole_window_undilated(n_tokens, window, dilation):
    distance = _distance(n_tokens)
    return (distance <= window) & (distance % dilation == 0)


@dilated_window.slip("""
    `distance // dilation` counts whole steps and rounds down: what lies between two steps counts as the
    nearer one. Only distances that leave no remainder are seen, `distance % dilation == 0`.""")
def _rounded_to_steps(n_tokens, window, dilation):
    return _distance(n_tokens) // dilation <= window // 2


@dilated_window.slip("""
    The last token to the right is missing: a `range` stops before its end, so it should end at
    `window // 2 + 1`.""")
def _range_without_its_end(n_tokens, window, dilation):
    places = torch.arange(n_tokens)
    ahead = places - places[:, None]
    return dilated_window.solve(n_tokens, window, dilation) & (ahead < window // 2 * dilation)


@dilated_window.slip("""
    The outermost tokens are missing: what is exactly `window // 2 * dilation` places away is still seen,
    `<=`.""")
def _without_the_last(n_tokens, window, dilation):
    distance = _distance(n_tokens)
    return (distance < window // 2 * dilation) & (distance % dilation == 0)


@dilated_window.slip("""
    Your window looks back only. It should look to both sides: take the distance without its sign,
    `.abs()`.""")
def _back_only(n_tokens, window, dilation):
    return dilated_window.solve(n_tokens, window, dilation).tril()


@dilated_window.slip("""
    Your window is open to one side: without `.abs()`, every later key has a negative distance, which is
    small enough.""")
def _open_to_the_future(n_tokens, window, dilation):
    places = torch.arange(n_tokens)
    distance = places[:, None] - places
    return (distance <= window // 2 * dilation) & (distance % dilation == 0)


@dilated_window.slip("""
    Your window is open to one side: without `.abs()`, every earlier key has a negative distance, which is
    small enough.""")
def _open_to_the_past(n_tokens, window, dilation):
    places = torch.arange(n_tokens)
    distance = places - places[:, None]
    return (distance <= window // 2 * dilation) & (distance % dilation == 0)


@dilated_window.slip("""
    No token sees itself. Its distance is 0, which is a multiple of everything.""")
def _not_itself(n_tokens, window, dilation):
    distance = _distance(n_tokens)
    return dilated_window.solve(n_tokens, window, dilation) & (distance > 0)


@dilated_window.slip("""
    You chose the keys at the places 0, d, 2 d, ... of the text, the same ones for every query. The steps are
    counted from the query: the *distance* must be a multiple of `dilation`.""")
def _same_keys_for_all(n_tokens, window, dilation):
    return (_distance(n_tokens) <= window // 2 * dilation) & (torch.arange(n_tokens) % dilation == 0)


@dilated_window.slip("""
    You joined the two conditions with `|`: to be near was enough, and so was a multiple of `dilation`. Both
    must hold: `&`.""")
def _one_is_enough(n_tokens, window, dilation):
    distance = _distance(n_tokens)
    return (distance <= window // 2 * dilation) | (distance % dilation == 0)


@dilated_window.slip("""
    Your mask says True where a key is hidden. Here True = may attend.""")
def _hidden_is_true(n_tokens, window, dilation):
    return ~dilated_window.solve(n_tokens, window, dilation)


@dilated_window.slip("""
    Every `dilation`-th token is seen, however far away. Only `window // 2` of them to either side should
    be.""")
def _no_end(n_tokens, window, dilation):
    return _distance(n_tokens) % dilation == 0


@dilated_window.slip("""
    Your gaps are one place too wide: `dilation` counts the steps from one token to the next, and not the
    tokens left out between them. With dilation 1 nothing is left out.""")
def _gaps_counted(n_tokens, window, dilation):
    return dilated_window.solve(n_tokens, window, dilation + 1)


@dilated_window.slip("""
    The first rows lack tokens or have wrong ones: a slice that begins at a number below 0 counts from the
    end of the row. Let it begin at 0 or later.""")
def _slice_from_below_zero(n_tokens, window, dilation):
    mask = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    reach = window // 2 * dilation
    for t in range(n_tokens):
        mask[t, t - reach : t + reach + 1 : dilation] = True
    return mask


@dilated_window.crash("""
    Python's `and` asks for one truth value, and a table holds many. `&` works entry by entry.""")
def _python_s_and(n_tokens, window, dilation):
    distance = _distance(n_tokens)
    return (distance <= window // 2 * dilation) and (distance % dilation == 0)


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How far a stack hears",
    statement="""
        Three layers stand on each other, with skip connections. Their windows are 4, 4 and 8, their dilations
        1, 2 and 3, from the bottom to the top. There are no global tokens, and the text is long.

        Before you run anything: how many places away is the furthest token that a token at the top can have
        heard from?
        """,
    hints=(
        "In one layer with window w and dilation d, how far away is the outermost token that is seen?",
        "Half the window lies to each side: w / 2 tokens, d places apart. The layers' distances add up.",
        "The three layers reach 2 times 1, 2 times 2 and 4 times 3 places.",
    ),
    expected=18,
    wrong={
        16: "You added up the windows. Half of each lies to one side; and dilation makes it reach further.",
        8: "You left the dilations out. With dilation d the tokens seen stand d places apart, so that the "
        "window reaches d times as far.",
        36: "You took the whole windows. Half of each lies before the token, half behind it.",
        37: "That is how many tokens lie within reach, to both sides and itself. How far away is the last of "
        "them?",
        19: "One too many: the token itself is 0 places away.",
        12: "That is the top layer alone. What it hears from has itself heard from further away.",
        96: "You multiplied the layers' reaches. Each layer carries news so many places further: they add "
        "up.",
        48: "You used the largest dilation for all, and whole windows. Each layer has its own; and half a "
        "window lies to each side.",
        24: "You used the largest dilation for all three layers. Each has its own.",
        6: "You added up the dilations. Each is a step; how many steps does each layer's window go to one "
        "side?",
    },
    otherwise="Not that number. For each layer: half the window, times the dilation. Then add up.",
    form="one number",
)
def how_far_a_stack_hears():
    """2 times 1, 2 times 2 and 4 times 3 places, 18 together, in whatever order the layers stand. How far a
    stack reaches does not say that it hears all in between: here it does.
    """
    steps = [torch.arange(-2, 3), 2 * torch.arange(-2, 3), 3 * torch.arange(-4, 5)]
    heard = {0}
    for layer in steps:
        heard = {place + step for place in heard for step in layer.tolist()}
    return max(heard)


# --- 4 -------------------------------------------------------------------------------------------------


def _key_blocks_reference(k: np.ndarray, half: int) -> np.ndarray:
    B, T, Dh = k.shape
    out = np.zeros((B, T // half, 3 * half, Dh))
    for block, c in np.ndindex(T // half, 3 * half):
        place = (block - 1) * half + c
        if 0 <= place < T:
            out[:, block, c] = k[:, place]
    return out


@chapter.implement(
    title="The keys of each block",
    statement="""
        The tokens are cut into blocks of `half`. The queries of a block find all their keys in three blocks:
        the one before, their own, the one after. `k` holds the keys, of shape (B, T, Dh), and T is a
        multiple of `half`.

        Return these keys for every block, in the order of the text: shape (B, T / half, 3 half, Dh). Where
        the text has no tokens, before its beginning and after its end, put zeros.
        """,
    hints=(
        "First put zeros on both sides of the text, so that the first and the last block have neighbours: "
        "`torch.nn.functional.pad`. Its list of numbers begins with the *last* axis, two for each axis.",
        "`x.unfold(1, size, step)` cuts axis 1 into pieces of `size`, a new one every `step`. Pieces may "
        "overlap.",
        "`unfold` puts the new axis last: (B, blocks, Dh, size). Exchange the last two axes, `.mT`; do not "
        "reshape, which would mix the numbers.",
        "`pad(k, (0, 0, half, half))`, then `.unfold(1, 3 * half, half)`, then `.mT`.",
    ),
    axes="B block key Dh",
    inputs=lambda rng, B, T, Dh, half: {"k": rng.standard_normal((B, T, Dh)), "half": half},
    sizes=((1, 4, 3, 2), (2, 9, 4, 3), (1, 5, 2, 1), (3, 8, 5, 2), (2, 4, 5, 4)),
    reference=_key_blocks_reference,
)
def key_blocks(k, half):
    """The keys that each block of queries needs: k (B, T, Dh) to (B, T / half, 3 half, Dh)."""
    # One block of zeros on each side: then every block has two neighbours.
    padded = nn.functional.pad(k, (0, 0, half, half))
    # Pieces three blocks long, a new one at each block; unfold puts their axis last.
    return padded.unfold(1, 3 * half, half).mT


def _cut(x, half):
    return x.unfold(1, 3 * half, half).mT


@key_blocks.slip("""
    All the zeros stand in front: each block got its own keys last, and two blocks before them. The block
    behind is missing.""")
def _padded_in_front(k, half):
    return _cut(F.pad(k, (0, 0, 2 * half, 0)), half)


@key_blocks.slip("""
    All the zeros stand behind: each block got its own keys first, and two blocks after them. The block before
    is missing.""")
def _padded_behind(k, half):
    return _cut(F.pad(k, (0, 0, 0, 2 * half)), half)


@key_blocks.slip("""
    Your text is a ring: the block before the first one is the last one. Before the beginning and behind the
    end there should be zeros.""")
def _a_ring(k, half):
    return _cut(torch.cat([k[:, -half:], k, k[:, :half]], dim=1), half)


@key_blocks.slip("""
    Outside the text you repeated its first and its last token. There should be zeros.""")
def _edges_repeated(k, half):
    first, last = k[:, :1].repeat(1, half, 1), k[:, -1:].repeat(1, half, 1)
    return _cut(torch.cat([first, k, last], dim=1), half)


@key_blocks.slip("""
    The right blocks in another order: the own one stands first. In the order of the text it is the block
    before, the own one, the block after.""")
def _own_first(k, half):
    before, own, behind = key_blocks.solve(k, half).split(half, dim=2)
    return torch.cat([own, before, behind], dim=2)


@key_blocks.slip("""
    The right blocks in the wrong order: the block after comes first. In the order of the text it is the
    block before, the own one, the block after.""")
def _behind_first(k, half):
    before, own, behind = key_blocks.solve(k, half).split(half, dim=2)
    return torch.cat([behind, own, before], dim=2)


@key_blocks.slip("""
    The keys of each piece stand in reverse order.""")
def _each_piece_reversed(k, half):
    return key_blocks.solve(k, half).flip(2)


@key_blocks.slip("""
    Each block got its own keys three times. Its neighbours are the blocks before and after.""")
def _own_three_times(k, half):
    own = k.unflatten(1, (-1, half))
    return torch.cat([own, own, own], dim=2)


@key_blocks.slip("""
    Each block finds itself, and zeros for its neighbours. The blocks before and after hold real keys, except
    at the two ends of the text.""")
def _neighbours_of_zeros(k, half):
    own = k.unflatten(1, (-1, half))
    return F.pad(own, (0, 0, half, half))


@key_blocks.slip("""
    The block after is always zeros. It should hold the keys that come next, except at the end of the
    text.""")
def _nothing_behind(k, half):
    blocks = key_blocks.solve(k, half)
    return torch.cat([blocks[:, :, : 2 * half], 0 * blocks[:, :, 2 * half :]], dim=2)


@key_blocks.slip("""
    The block before is always zeros. It should hold the keys that came last, except at the beginning of the
    text.""")
def _nothing_before(k, half):
    blocks = key_blocks.solve(k, half)
    return torch.cat([0 * blocks[:, :, :half], blocks[:, :, half:]], dim=2)


@key_blocks.slip("""
    Token 0 is missing: it is a token like the others, and its place is 0.""")
def _token_0_lost(k, half):
    return key_blocks.solve(torch.cat([0 * k[:, :1], k[:, 1:]], dim=1), half)


@key_blocks.slip("""
    A new piece begins at every token: there are pieces for the queries one by one. Each *block* of queries
    needs one piece: the step of `unfold` is `half`.""")
def _a_piece_for_each_token(k, half):
    return F.pad(k, (0, 0, half, half)).unfold(1, 3 * half, 1).mT


@key_blocks.slip("""
    Nearly: `unfold` has put its new axis last, (B, blocks, Dh, 3 half). Exchange the last two axes,
    `.mT`.""")
def _axes_as_unfold_leaves_them(k, half):
    return F.pad(k, (0, 0, half, half)).unfold(1, 3 * half, half)


@key_blocks.slip("""
    The shape is right, and the numbers are mixed: to exchange two axes is not to reshape. `.mT`, or
    `.transpose(-1, -2)`.""")
def _reshaped(k, half):
    pieces = F.pad(k, (0, 0, half, half)).unfold(1, 3 * half, half)
    return pieces.reshape(*pieces.shape[:2], 3 * half, k.shape[-1])


@key_blocks.crash("""
    `unfold` found a text that is too short for a piece of three blocks: were the zeros put on both sides
    first, and along the axis of the tokens? The numbers of `pad` begin with the last axis:
    `(0, 0, half, half)`.""")
def _padded_along_the_width(k, half):
    return F.pad(k, (half, half)).unfold(1, 3 * half, half).mT


@key_blocks.crash("""
    At its two ends the text has no block before, or none behind, so the slices there are shorter than the
    others (and a slice that begins below 0 counts from the end). First put zeros on both sides, then
    slice.""")
def _slices_of_the_bare_text(k, half):
    blocks = range(k.shape[1] // half)
    return torch.stack([k[:, (block - 1) * half : (block + 2) * half] for block in blocks], dim=1)


# --- 5 -------------------------------------------------------------------------------------------------


def _allowed_reference(n_tokens: int, half: int) -> np.ndarray:
    blocks = (n_tokens + half - 1) // half
    out = np.zeros((blocks, half, 3 * half), dtype=bool)
    for block, r, c in np.ndindex(out.shape):
        query, key = block * half + r, block * half + c - half
        out[block, r, c] = max(query - half, 0) <= key <= min(query + half, n_tokens - 1)
    return out


@chapter.implement(
    title="What each block may use",
    statement="""
        The queries of a block find three blocks of keys: column c of the piece of block b is the token at
        place `b * half + c - half`. Write the mask: shape (blocks, half, 3 half), True where row r, the query
        at place `b * half + r`, may use the key. It may if the key is no more than `half` places away, and if
        there is a token at that place: 0 up to `n_tokens - 1`.

        Here `n_tokens` need not be a multiple of `half`. There are as many blocks as are needed, the last one
        filled up; rows of queries that only fill up follow the same rule.
        """,
    hints=(
        "Make three ranges that broadcast against each other: the block (blocks, 1, 1), the row (half, 1), "
        "the column (3 half).",
        "The distance of query and key, column - half - row, is the same in every block. The place of the "
        "key is not.",
        "Three conditions with `&`: the distance without its sign is at most `half`, the place is at least "
        "0, and it is below `n_tokens`.",
        "How many blocks? `n_tokens / half`, rounded up: `-(-n_tokens // half)`.",
    ),
    axes="block row key",
    inputs=lambda rng, n_tokens, half: {"n_tokens": n_tokens, "half": half},
    sizes=((6, 2), (5, 2), (12, 3), (7, 3), (2, 4), (3, 1), (9, 4)),
    reference=_allowed_reference,
    gradient=False,
)
def allowed_in_blocks(n_tokens, half):
    """Which keys of its three blocks each query may use: a mask (blocks, half, 3 half)."""
    # (blocks, 1, 1), rounded up: a last block that is not full is a block, too.
    block = torch.arange(-(-n_tokens // half))[:, None, None]
    row, column = torch.arange(half)[:, None], torch.arange(3 * half)
    # The band: the same in every block.
    band = (column - half - row).abs() <= half
    # The border: is there a token at the key's place?
    place = block * half + column - half
    return band & (place >= 0) & (place < n_tokens)


def _laid_out(n_tokens, half):
    """(blocks, 1, 3 half): the place of each key; (half, 3 half): its distance from each query."""
    block = torch.arange(-(-n_tokens // half))[:, None, None]
    row, column = torch.arange(half)[:, None], torch.arange(3 * half)
    return block * half + column - half, column - half - row


@allowed_in_blocks.slip("""
    The borders are missing: at the beginning and at the end of the text, places without a token are True.
    Their keys are zeros, and zeros get weight, since the exponential of 0 is 1.""")
def _no_borders(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half).expand(len(place), -1, -1).clone()


@allowed_in_blocks.slip("""
    The beginning is missing: places below 0 hold no token. (The end is right.)""")
def _only_the_end(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half) & (place < n_tokens)


@allowed_in_blocks.slip("""
    The end is missing: places from `n_tokens` on hold no token. (The beginning is right.)""")
def _only_the_beginning(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half) & (place >= 0)


@allowed_in_blocks.slip("""
    Your text ends where its last block ends. It ends with token `n_tokens - 1`: what fills up the last block
    is no token.""")
def _the_filling_too(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half) & (place >= 0) & (place < -(-n_tokens // half) * half)


@allowed_in_blocks.slip("""
    One place too many at the end: the last token stands at place `n_tokens - 1`, so `<` and not `<=`.""")
def _one_behind_the_end(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half) & (place >= 0) & (place <= n_tokens)


@allowed_in_blocks.slip("""
    Token 0 is never seen: places are counted from 0, so `>= 0`.""")
def _token_0_hidden(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half) & (place > 0) & (place < n_tokens)


@allowed_in_blocks.slip("""
    The band is missing: a query sees all tokens in its three blocks. It may see those at most `half` places
    away.""")
def _no_band(n_tokens, half):
    place, _ = _laid_out(n_tokens, half)
    return ((place >= 0) & (place < n_tokens)).expand(-1, half, -1).clone()


@allowed_in_blocks.slip("""
    Your band ends one place too early: what is exactly `half` places away is still seen, `<=`.""")
def _band_too_narrow(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() < half) & (place >= 0) & (place < n_tokens)


@allowed_in_blocks.slip("""
    Your band stands too far to the left: column `half`, not column 0, is where the block itself begins. The
    distance is column - half - row.""")
def _band_from_column_0(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return ((steps + half).abs() <= half) & (place >= 0) & (place < n_tokens)


@allowed_in_blocks.slip("""
    Your band is open to one side: compare the distance without its sign, `.abs()`, or ask for both ends of
    it.""")
def _band_without_abs(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps <= half) & (place >= 0) & (place < n_tokens)


@allowed_in_blocks.slip("""
    Your queries look back only. They should also see what comes up to `half` places after them.""")
def _band_of_the_past(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half) & (steps <= 0) & (place >= 0) & (place < n_tokens)


@allowed_in_blocks.slip("""
    The place of a key is half a window off: the piece of block b begins with the block before, at
    `(b - 1) * half`.""")
def _place_of_the_block(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return (steps.abs() <= half) & (place + half < n_tokens)


@allowed_in_blocks.slip("""
    You asked where the *query* stands. A key may be missing although the query is there: `place` is the
    key's, block * half + column - half.""")
def _place_of_the_query(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    query = place - steps
    return (steps.abs() <= half) & (query < n_tokens)


@allowed_in_blocks.slip("""
    A block is missing where `n_tokens` is no multiple of `half`: `//` rounds down. Round up,
    `-(-n_tokens // half)`.""")
def _rounded_down(n_tokens, half):
    return allowed_in_blocks.solve(n_tokens, half)[: n_tokens // half]


@allowed_in_blocks.slip("""
    There is a block too many where `n_tokens` is a multiple of `half`: `n_tokens // half + 1` is right for
    the other lengths only.""")
def _one_block_more(n_tokens, half):
    place, steps = _laid_out((n_tokens // half + 1) * half, half)
    return (steps.abs() <= half) & (place >= 0) & (place < n_tokens)


@allowed_in_blocks.slip("""
    Two things: a slice stops before its end, so that the last token of the band is missing; and at both ends
    of the text places without a token are True.""")
def _slices_without_borders(n_tokens, half):
    place, steps = _laid_out(n_tokens, half)
    return ((steps >= -half) & (steps < half)).expand(len(place), -1, -1).clone()


@allowed_in_blocks.slip("""
    Your mask says True where a key is hidden. Here True = may use.""")
def _blocked_is_true(n_tokens, half):
    return ~allowed_in_blocks.solve(n_tokens, half)


# --- 6 -------------------------------------------------------------------------------------------------


def _border_inputs(rng: np.random.Generator, T: int, Dh: int, half: int) -> dict[str, Any]:
    q, k, v = (rng.standard_normal((T, Dh)) for _ in range(3))
    return {"q": q, "k": k, "v": v + 2, "half": half}


def _border_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, half: int) -> np.ndarray:
    out = np.zeros_like(v)
    for t in range(len(q)):
        near = slice(max(0, t - half), t + half + 1)
        weights = np.exp(k[near] @ q[t] / np.sqrt(q.shape[1]))
        out[t] = weights @ v[near] / weights.sum()
    return out


def find_the_border(q, k, v, half):
    """Attention through a window: q, k, v (T, Dh) to an output (T, Dh), for any number of tokens."""
    n_tokens, width = q.shape
    short = -n_tokens % half
    q, k, v = (nn.functional.pad(x, (0, 0, 0, short)) for x in (q, k, v))
    queries = q.unflatten(0, (-1, half))
    keys, values = (nn.functional.pad(x, (0, 0, half, half)).unfold(0, 3 * half, half) for x in (k, v))
    column, row = torch.arange(3 * half), torch.arange(half)[:, None]
    place = torch.arange(len(queries))[:, None, None] * half + column - half
    allowed = ((column - half - row).abs() <= half) & (place >= 0) & (place < len(q))
    scores = queries @ keys / width**0.5
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    return (weights @ values.mT).flatten(0, 1)[:n_tokens]


@chapter.debug(
    broken=find_the_border,
    title="Right for 12 tokens, wrong for 13",
    statement="""
        This is attention through a window in blocks, for one head, with `half` neighbours to either side. It
        was tested with 12 tokens and `half` = 4, and with 12 tokens and `half` = 3, and was right to the last
        digit.

        The symptom: with 13 tokens and `half` = 4, the last four tokens come out wrong, nearer to 0 than they
        should be. All others are right.

        Find the fault, repair it, and hand the function in.
        """,
    hints=(
        "What is different when the number of tokens is no multiple of `half`? Which line deals with that?",
        "`pad` fills up the last block with zeros. Print `place` and `allowed` of the last block, for 5 "
        "tokens and `half` = 2. Which places are allowed that hold no token?",
        "A key of zeros has the score 0 and takes part in the softmax. After the first `pad`, how long is "
        "`q`? And how long is the text?",
        "One comparison asks whether a place lies in the filled-up text. It should ask for the text.",
    ),
    axes="T Dh",
    inputs=_border_inputs,
    sizes=((4, 3, 2), (5, 3, 2), (7, 2, 4), (3, 5, 4), (8, 6, 3), (9, 4, 1), (10, 2, 6)),
    reference=_border_reference,
)
def find_the_border(q, k, v, half):
    """Attention through a window: q, k, v (T, Dh) to an output (T, Dh), for any number of tokens."""
    n_tokens, width = q.shape
    short = -n_tokens % half
    q, k, v = (nn.functional.pad(x, (0, 0, 0, short)) for x in (q, k, v))
    queries = q.unflatten(0, (-1, half))
    keys, values = (nn.functional.pad(x, (0, 0, half, half)).unfold(0, 3 * half, half) for x in (k, v))
    column, row = torch.arange(3 * half), torch.arange(half)[:, None]
    place = torch.arange(len(queries))[:, None, None] * half + column - half
    # The text ends at n_tokens. By now q is longer: the broken line let the filling of the last block pass.
    allowed = ((column - half - row).abs() <= half) & (place >= 0) & (place < n_tokens)
    scores = queries @ keys / width**0.5
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    return (weights @ values.mT).flatten(0, 1)[:n_tokens]


def _through_blocks(q, k, v, half, allows, scale=None, hide=None):
    """The function with another mask: ``allows`` gets place, distance, length of the text, and filled up."""
    n_tokens, width = q.shape
    q, k, v = (F.pad(x, (0, 0, 0, -n_tokens % half)) for x in (q, k, v))
    queries = q.unflatten(0, (-1, half))
    keys, values = (F.pad(x, (0, 0, half, half)).unfold(0, 3 * half, half) for x in (k, v))
    column, row = torch.arange(3 * half), torch.arange(half)[:, None]
    place = torch.arange(len(queries))[:, None, None] * half + column - half
    allowed = allows(place, column - half - row, n_tokens, len(q))
    scores = queries @ keys * (width**-0.5 if scale is None else scale)
    if hide is None:
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1).masked_fill(~allowed, 0.0)
    else:
        weights = hide(scores, allowed)
    return (weights @ values.mT).flatten(0, 1)[:n_tokens]


def _both_borders(place, steps, n_tokens, filled, half):
    return (steps.abs() <= half) & (place >= 0) & (place < n_tokens)


@find_the_border.slip("""
    The fault is still there: your function gives what the broken one gave. Which places does the last block
    let through that hold no token? (To take their weights away *after* the softmax changes nothing: their
    values are zeros. What they take from the others is the fault.)""")
def _filling_still_seen(q, k, v, half):
    return _through_blocks(q, k, v, half, lambda p, s, n, filled: (s.abs() <= half) & (p >= 0) & (p < filled))


@find_the_border.slip("""
    Nearly: the last token stands at place `n_tokens - 1`. With `<=`, one place too many is let through.""")
def _one_place_too_many(q, k, v, half):
    return _through_blocks(q, k, v, half, lambda p, s, n, filled: (s.abs() <= half) & (p >= 0) & (p <= n))


@find_the_border.slip("""
    Now the last token is hidden from all others: it stands at place `n_tokens - 1`, and that is still
    text.""")
def _last_token_hidden(q, k, v, half):
    return _through_blocks(
        q, k, v, half, lambda p, s, n, filled: (s.abs() <= half) & (p >= 0) & ((p < n - 1) | (s == 0))
    )


@find_the_border.slip("""
    You took the border at the end away. Now whatever stands behind the text is let through, even where it was
    right before: the last tokens give weight to zeros.""")
def _end_open(q, k, v, half):
    return _through_blocks(q, k, v, half, lambda p, s, n, filled: (s.abs() <= half) & (p >= 0))


@find_the_border.slip("""
    The end is right now. But the border at the beginning is gone, which was right: the first tokens give
    weight to zeros.""")
def _beginning_open(q, k, v, half):
    return _through_blocks(q, k, v, half, lambda p, s, n, filled: (s.abs() <= half) & (p < n))


@find_the_border.slip("""
    The end is right now. But you changed the beginning, too, and token 0 is hidden: its place is 0, so
    `>= 0`.""")
def _token_0_lost(q, k, v, half):
    return _through_blocks(
        q, k, v, half, lambda p, s, n, filled: (s.abs() <= half) & ((p > 0) | (s == 0)) & (p < n)
    )


@find_the_border.slip("""
    The end is right now. But you changed the band as well: what is exactly `half` places away should still be
    seen.""")
def _band_narrower(q, k, v, half):
    return _through_blocks(q, k, v, half, lambda p, s, n, filled: (s.abs() < half) & (p >= 0) & (p < n))


@find_the_border.slip("""
    The end is right now. But the band is gone: each query sees all of its three blocks.""")
def _band_gone(q, k, v, half):
    return _through_blocks(q, k, v, half, lambda p, s, n, filled: ((p >= 0) & (p < n)).expand(-1, half, -1))


@find_the_border.slip("""
    Hidden scores are set to 0 now, and the exponential of 0 is 1: they get weight. Minus infinity gets
    none.""")
def _hidden_by_zero(q, k, v, half):
    return _through_blocks(
        *(q, k, v, half),
        lambda p, s, n, filled: _both_borders(p, s, n, filled, half),
        hide=lambda scores, allowed: scores.masked_fill(~allowed, 0.0).softmax(-1),
    )


@find_the_border.slip("""
    The border is right now. But the scores are no longer divided by the root of the width.""")
def _scale_lost(q, k, v, half):
    return _through_blocks(
        q, k, v, half, lambda p, s, n, filled: _both_borders(p, s, n, filled, half), scale=1.0
    )


@find_the_border.slip("""
    You cut the text down to whole blocks: the last tokens are missing. Fill up the last block, and hide what
    fills it.""")
def _cut_down(q, k, v, half):
    whole = max(half, len(q) // half * half)
    return _border_in_numbers(q[:whole], k[:whole], v[:whole], half)


@find_the_border.slip("""
    The values are right, but the answer has the filling at its end: cut it down to `n_tokens` rows, as
    before.""")
def _not_cut(q, k, v, half):
    y = _border_in_numbers(q, k, v, half)
    return F.pad(y, (0, 0, 0, -len(q) % half))


def _border_in_numbers(q, k, v, half):
    return _through_blocks(q, k, v, half, lambda p, s, n, filled: _both_borders(p, s, n, filled, half))


# --- 7 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How much the blocks save",
    statement="""
        Longformer reads texts of n = 4096 tokens with a window of w = 512. A full table has n times n scores.
        In blocks, the tokens are cut into blocks of w / 2, and every query is compared with three blocks of
        keys.

        Before you run anything: how many times more scores does the full table have than the blocks?
        """,
    hints=(
        "With how many keys is one query compared, in the full table and in blocks?",
        "A block has 256 tokens. Three blocks are 768 keys.",
        "Divide 4096 by 768.",
    ),
    expected=16 / 3,
    wrong={
        8.0: "That would be n / w: each query compared with 512 keys. In blocks it is compared with three "
        "times 256.",
        4096
        / 513: "That is what the band itself would save, 513 keys a query. The blocks compute more than the "
        "band: three times 256 keys a query.",
        8 / 3: "You took blocks of 512. A block is half a window: 256 tokens.",
        16.0: "You counted one block of keys. Every query is compared with three: the one before, its own, "
        "the one behind.",
        4.0: "That would be twice the window, as in the paper's own chunks. In our blocks a query is "
        "compared with one and a half times the window.",
        3 / 16: "That is the share that is left. How many times as large is the full table?",
        32 / 3: "You took blocks of 128 tokens. Half of 512 is 256.",
        1.5: "That is how much the blocks compute beyond the band. The question compares them with the full "
        "table.",
        3145728.0: "That is how many scores the blocks have. How many times does it go into 4096 squared?",
        5.3: "Very nearly: 4096 / 768 goes on. Give one digit more, or the fraction.",
        5.0: "Nearly: 4096 / 768 is no whole number.",
        3.0: "Three blocks of keys for each query, yes. But how many keys are that, and how many are there "
        "in the full table?",
    },
    otherwise="Not that number. Count the keys that one query is compared with: 4096 in the full table, and "
    "in three blocks of 256?",
    form="one number",
)
def how_much_blocks_save():
    """4096 keys a query against 768: 16/3, or 5.33. The band itself has 513 keys a query; the blocks compute
    half as much again, and get whole matrices for it.
    """
    n, w = 4096, 512
    return (n * n) / (n * 3 * (w // 2))


# --- 8 -------------------------------------------------------------------------------------------------


def _two_sources(rng: np.random.Generator, B: int, T: int, W: int, G: int, D: int) -> dict[str, Any]:
    allowed = rng.random((T, W)) < 0.6
    allowed[:, 0] |= ~allowed.any(-1)  # no row of the window is empty
    return {
        "near_scores": rng.standard_normal((B, T, W)),
        "near_values": rng.standard_normal((B, T, W, D)),
        "allowed": allowed,
        "global_scores": rng.standard_normal((B, T, G)) + 0.5,
        "global_values": rng.standard_normal((B, G, D)) + 1,
    }


def _two_sources_reference(
    near_scores: np.ndarray,
    near_values: np.ndarray,
    allowed: np.ndarray,
    global_scores: np.ndarray,
    global_values: np.ndarray,
) -> np.ndarray:
    B, T, W, D = near_values.shape
    out = np.zeros((B, T, D))
    for b, t in np.ndindex(B, T):
        total = 0.0
        for c in range(W):
            if allowed[t, c]:
                weight = np.exp(near_scores[b, t, c])
                out[b, t] += weight * near_values[b, t, c]
                total += weight
        for g in range(global_values.shape[1]):
            weight = np.exp(global_scores[b, t, g])
            out[b, t] += weight * global_values[b, g]
            total += weight
        out[b, t] /= total
    return out


@chapter.implement(
    title="One softmax, two sources",
    statement="""
        A query looks at W keys around it (its own counts, too) and at G global tokens. The scores are there
        already, scaled: `near_scores` (B, T, W) and `global_scores` (B, T, G). The values around it are its
        own, `near_values` (B, T, W, D); those of the global tokens are the same for all queries,
        `global_values` (B, G, D). `allowed` (T, W), True = may attend, hides places outside the text, and
        those near places that hold a global token, which would be counted twice.

        Return the output (B, T, D): one weighted average over all that a query may see, with weights that sum
        to 1 over both sources together.
        """,
    hints=(
        "First hide what is not allowed, by scores of minus infinity.",
        "One softmax over both: join the two tables of scores along their last axis, (B, T, W + G), before "
        "the softmax.",
        "Then take the weights apart again: the first W belong to the near values, the others to the global "
        "ones.",
        "The near values have a table for each query: `(w[..., None, :] @ near_values)[..., 0, :]`, or "
        "`(w[..., None] * near_values).sum(-2)`. The global ones: a plain `@`.",
    ),
    axes="B T D",
    inputs=_two_sources,
    sizes=((2, 3, 4, 1, 5), (1, 2, 3, 2, 4), (1, 4, 2, 3, 3), (3, 2, 5, 4, 1), (2, 5, 3, 2, 4)),
    reference=_two_sources_reference,
)
def one_softmax(near_scores, near_values, allowed, global_scores, global_values):
    """Average what stands near and the global tokens by one softmax: an output (B, T, D)."""
    near_scores = near_scores.masked_fill(~allowed, float("-inf"))
    # One softmax over both tables: what one key gets, all others lack.
    weights = torch.cat([near_scores, global_scores], dim=-1).softmax(dim=-1)
    near, everywhere = weights.split([near_scores.shape[-1], global_scores.shape[-1]], dim=-1)
    # Each query has near values of its own, and all share the global ones.
    return (near[..., None] * near_values).sum(dim=-2) + everywhere @ global_values


def _average(near, near_values, everywhere, global_values):
    return (near[..., None] * near_values).sum(-2) + everywhere @ global_values


def _hidden(scores, allowed):
    return scores.masked_fill(~allowed, float("-inf"))


def _parts(near_scores, global_scores):
    W = near_scores.shape[-1]
    weights = torch.cat([near_scores, global_scores], dim=-1).softmax(-1)
    return weights[..., :W], weights[..., W:]


@one_softmax.slip("""
    You took two softmaxes and added what they give: each query hands out the weight 1 twice. One softmax over
    both tables together.""")
def _two_softmaxes(near_scores, near_values, allowed, global_scores, global_values):
    near = _hidden(near_scores, allowed).softmax(-1)
    return _average(near, near_values, global_scores.softmax(-1), global_values)


@one_softmax.slip("""
    You took two softmaxes and averaged them: near and far got half of the weight each, whatever the scores
    say. One softmax over both tables together.""")
def _mean_of_two(near_scores, near_values, allowed, global_scores, global_values):
    return _two_softmaxes(near_scores, near_values, allowed, global_scores, global_values) / 2


@one_softmax.slip("""
    `allowed` plays no part: places outside the text, and global tokens for the second time, got weight. Set
    their scores to minus infinity before the softmax.""")
def _nothing_hidden(near_scores, near_values, allowed, global_scores, global_values):
    near, everywhere = _parts(near_scores, global_scores)
    return _average(near, near_values, everywhere, global_values)


@one_softmax.slip("""
    You hid what is allowed and let through what is not. True = may attend: fill where it is False,
    `~allowed`.""")
def _hidden_the_other_way(near_scores, near_values, allowed, global_scores, global_values):
    near, everywhere = _parts(_hidden(near_scores, ~allowed), global_scores)
    return _average(near, near_values, everywhere, global_values)


@one_softmax.slip("""
    You set weights to 0 after the softmax, and the rest no longer sums to 1. Hide the scores, before it.""")
def _hidden_behind(near_scores, near_values, allowed, global_scores, global_values):
    near, everywhere = _parts(near_scores, global_scores)
    return _average(near.masked_fill(~allowed, 0.0), near_values, everywhere, global_values)


@one_softmax.slip("""
    You set hidden scores to 0. The exponential of 0 is 1: they get weight. Minus infinity gets none.""")
def _zero_for_infinity(near_scores, near_values, allowed, global_scores, global_values):
    near, everywhere = _parts(near_scores.masked_fill(~allowed, 0.0), global_scores)
    return _average(near, near_values, everywhere, global_values)


@one_softmax.slip("""
    The global tokens are missing: this is the window alone.""")
def _near_alone(near_scores, near_values, allowed, global_scores, global_values):
    near = _hidden(near_scores, allowed).softmax(-1)
    return (near[..., None] * near_values).sum(-2)


@one_softmax.slip("""
    What stands near is missing: these are the global tokens alone.""")
def _global_alone(near_scores, near_values, allowed, global_scores, global_values):
    return global_scores.softmax(-1) @ global_values


@one_softmax.slip("""
    One softmax over both, but then only the near part was used. Add what the global tokens give.""")
def _global_part_forgotten(near_scores, near_values, allowed, global_scores, global_values):
    near, _ = _parts(_hidden(near_scores, allowed), global_scores)
    return (near[..., None] * near_values).sum(-2)


@one_softmax.slip("""
    One softmax over both, but then only the global part was used. Add what stands near.""")
def _near_part_forgotten(near_scores, near_values, allowed, global_scores, global_values):
    _, everywhere = _parts(_hidden(near_scores, allowed), global_scores)
    return everywhere @ global_values


@one_softmax.slip("""
    The softmax runs over the queries. The weights of *one* query sum to 1: the last axis.""")
def _softmax_over_queries(near_scores, near_values, allowed, global_scores, global_values):
    W = near_scores.shape[-1]
    weights = torch.cat([_hidden(near_scores, allowed), global_scores], -1).softmax(1).nan_to_num()
    return _average(weights[..., :W], near_values, weights[..., W:], global_values)


@one_softmax.slip("""
    You joined the global scores in front and then took the first W weights for the near values. The order in
    which you join is the order in which you take apart.""")
def _joined_the_other_way(near_scores, near_values, allowed, global_scores, global_values):
    W, G = near_scores.shape[-1], global_scores.shape[-1]
    weights = torch.cat([global_scores, _hidden(near_scores, allowed)], -1).softmax(-1)
    return _average(weights[..., :W], near_values, weights[..., W : W + G], global_values)


@one_softmax.slip("""
    The scores were scaled once more. They are as the softmax needs them.""")
def _scaled_again(near_scores, near_values, allowed, global_scores, global_values):
    scale = near_values.shape[-1] ** -0.5
    near, everywhere = _parts(_hidden(near_scores, allowed) * scale, global_scores * scale)
    return _average(near, near_values, everywhere, global_values)


@one_softmax.slip("""
    All weights are exponentials, but they are not divided by their sum: they do not add up to 1.""")
def _not_divided(near_scores, near_values, allowed, global_scores, global_values):
    return _average(_hidden(near_scores, allowed).exp(), near_values, global_scores.exp(), global_values)


@one_softmax.crash("""
    The near values have an axis more than the global ones: every query has W of its own, (B, T, W, D). So its
    W weights need an axis, too: `w[..., None] * near_values`, summed over W.""")
def _plain_product(near_scores, near_values, allowed, global_scores, global_values):
    near, everywhere = _parts(_hidden(near_scores, allowed), global_scores)
    return near @ near_values + everywhere @ global_values


# --- 9 -------------------------------------------------------------------------------------------------


def _rows_inputs(
    rng: np.random.Generator, B: int, T: int, D: int, *chosen: tuple[int, int]
) -> dict[str, Any]:
    is_global = np.zeros((B, T), dtype=bool)
    for b, t in chosen:
        is_global[b, t] = True
    weights = {
        f"global_{name}_proj.{part}": rng.standard_normal((D, D) if part == "weight" else D)
        for name in "qkv"
        for part in ("weight", "bias")
    }
    x, local = rng.standard_normal((B, T, D)), rng.standard_normal((B, T, D)) + 1
    return {"d_model": D, **weights, "x": x, "local": local, "is_global": is_global}


def _rows_reference(
    d_model: int, x: np.ndarray, local: np.ndarray, is_global: np.ndarray, **weights: np.ndarray
) -> np.ndarray:
    out = local.copy()
    for b, t in np.argwhere(is_global):
        q, k, v = (
            x[b] @ weights[f"global_{name}_proj.weight"].T + weights[f"global_{name}_proj.bias"]
            for name in "qkv"
        )
        shares = np.exp(k @ q[t] / np.sqrt(d_model))
        out[b, t] = shares @ v / shares.sum()
    return out


_CHOSEN = (
    (1, 3, 2, (0, 1)),
    (2, 4, 3, (0, 0), (1, 2), (1, 3)),
    (1, 5, 4),
    (3, 2, 5, (1, 0)),
    (2, 6, 1, (0, 5), (1, 0), (1, 4)),
)


@chapter.implement_module(
    title="The rows of the global tokens",
    statement=r"""
        A global token sees all tokens, by projections of its own. Write that as a module, with one head.
        `__init__` gets the width `d_model` (D) and makes `global_q_proj`, `global_k_proj` and
        `global_v_proj`, each an `nn.Linear` from D to D numbers.

        `forward` gets the tokens `x` (B, T, D), what the window gave each of them, `local` (B, T, D), and
        `is_global` (B, T), boolean. Where a token is global, its output is attention over all tokens of its
        text,

        $$\operatorname{softmax}\left(\frac{q k^\top}{\sqrt{D}}\right) v,$$

        with q, k and v made from `x` by the three projections. Everywhere else the output is `local`.
        """,
    hints=(
        "It is simplest to compute the attention for all tokens and keep it where it is wanted. (A real "
        "layer computes it for the global tokens only.)",
        "`q @ k.mT / D ** 0.5` has the shape (B, T, T). The softmax runs along the last axis.",
        "`torch.where(condition, a, b)` takes `a` where the condition holds and `b` elsewhere. The condition "
        "has to fit (B, T, D): `is_global[..., None]`.",
    ),
    axes="B T D",
    settings=("d_model",),
    forward=("x", "local", "is_global"),
    inputs=_rows_inputs,
    sizes=_CHOSEN,
    reference=_rows_reference,
)
class GlobalRows(nn.Module):
    """What global tokens get, who see all: x, local (B, T, D) and is_global (B, T) to (B, T, D)."""

    def __init__(self, d_model):
        super().__init__()
        self.global_q_proj = nn.Linear(d_model, d_model)
        self.global_k_proj = nn.Linear(d_model, d_model)
        self.global_v_proj = nn.Linear(d_model, d_model)

    def forward(self, x, local, is_global):
        """Attention over all tokens where one is global, and `local` elsewhere: (B, T, D)."""
        q, k, v = self.global_q_proj(x), self.global_k_proj(x), self.global_v_proj(x)
        # No mask: who is global sees all.
        weights = (q @ k.mT / x.shape[-1] ** 0.5).softmax(dim=-1)
        # Only the rows of global tokens change; the others keep what the window gave them.
        return torch.where(is_global[..., None], weights @ v, local)


class _Rows(GlobalRows.solve):
    """The solution in parts, so that each slip spoils one."""

    def seeing_all(self, x, seen=None, scale=None, dim=-1):
        q, k, v = self.global_q_proj(x), self.global_k_proj(x), self.global_v_proj(x)
        scores = q @ k.mT * (x.shape[-1] ** -0.5 if scale is None else scale)
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None], float("-inf"))
        return scores.softmax(dim).nan_to_num() @ v


@GlobalRows.slip("""
    The other way round: the global tokens kept what the window gave them, and all others got the attention to
    everything.""")
class _OthersReplaced(_Rows):
    def forward(self, x, local, is_global):
        return torch.where(is_global[..., None], local, self.seeing_all(x))


@GlobalRows.slip("""
    Every token got the attention to everything. Tokens that are not global keep `local`.""")
class _AllReplaced(_Rows):
    def forward(self, x, local, is_global):
        return self.seeing_all(x)


@GlobalRows.slip("""
    Your answer is `local`, everywhere. Where a token is global, attention over all tokens takes its
    place.""")
class _NoneReplaced(_Rows):
    def forward(self, x, local, is_global):
        return local + 0 * self.seeing_all(x)


@GlobalRows.slip("""
    A global token got the sum of both. What it sees of everything takes the place of what its window
    gave.""")
class _BothAdded(_Rows):
    def forward(self, x, local, is_global):
        return local + torch.where(is_global[..., None], self.seeing_all(x), 0.0)


@GlobalRows.slip("""
    The global tokens are right, and all others got 0. They keep `local`.""")
class _LocalLost(_Rows):
    def forward(self, x, local, is_global):
        return self.seeing_all(x) * is_global[..., None]


@GlobalRows.slip("""
    Your global tokens see each other only: you masked the keys. Who is global sees *all* tokens, so there is
    no mask.""")
class _GlobalKeysOnly(_Rows):
    def forward(self, x, local, is_global):
        return torch.where(is_global[..., None], self.seeing_all(x, is_global), local)


@GlobalRows.slip("""
    The scores are not divided by the root of D.""")
class _NotScaled(_Rows):
    def forward(self, x, local, is_global):
        return torch.where(is_global[..., None], self.seeing_all(x, scale=1.0), local)


@GlobalRows.slip("""
    You divided the scores by D. It is the root of D.""")
class _ScaledByWidth(_Rows):
    def forward(self, x, local, is_global):
        return torch.where(is_global[..., None], self.seeing_all(x, scale=1 / x.shape[-1]), local)


@GlobalRows.slip("""
    Your softmax runs over the queries. The weights of one query, over all keys, sum to 1: the last axis.""")
class _SoftmaxDown(_Rows):
    def forward(self, x, local, is_global):
        return torch.where(is_global[..., None], self.seeing_all(x, dim=-2), local)


@GlobalRows.slip("""
    The projections were given `local`. Queries, keys and values are made from the tokens themselves,
    `x`.""")
class _FromLocal(_Rows):
    def forward(self, x, local, is_global):
        return torch.where(is_global[..., None], self.seeing_all(local), local)


@GlobalRows.slip("""
    The softmax is missing: scores are no weights yet.""")
class _NoSoftmax(_Rows):
    def forward(self, x, local, is_global):
        q, k, v = self.global_q_proj(x), self.global_k_proj(x), self.global_v_proj(x)
        return torch.where(is_global[..., None], q @ k.mT / x.shape[-1] ** 0.5 @ v, local)


@GlobalRows.slip("""
    Queries and keys have changed places: the scores are turned round, so that each row belongs to a key.""")
class _TurnedRound(_Rows):
    def forward(self, x, local, is_global):
        q, k, v = self.global_q_proj(x), self.global_k_proj(x), self.global_v_proj(x)
        weights = (k @ q.mT / x.shape[-1] ** 0.5).softmax(-1)
        return torch.where(is_global[..., None], weights @ v, local)


@GlobalRows.slip("""
    What the global tokens took the average of are the tokens `x` themselves. Values are made by
    `global_v_proj`.""")
class _ValuesUnprojected(_Rows):
    def forward(self, x, local, is_global):
        q, k = self.global_q_proj(x), self.global_k_proj(x)
        weights = (q @ k.mT / x.shape[-1] ** 0.5).softmax(-1)
        return torch.where(is_global[..., None], weights @ x, local) + 0 * self.global_v_proj(x)


@GlobalRows.slip("""
    What the global tokens took the average of is `local`. Values are made from `x`, by `global_v_proj`.""")
class _ValuesOfTheWindow(_Rows):
    def forward(self, x, local, is_global):
        q, k = self.global_q_proj(x), self.global_k_proj(x)
        weights = (q @ k.mT / x.shape[-1] ** 0.5).softmax(-1)
        return torch.where(is_global[..., None], weights @ local, local) + 0 * self.global_v_proj(x)


@GlobalRows.crash("""
    `is_global` has the shape (B, T), and it should choose among tokens of D numbers. With
    `is_global[..., None]`, (B, T, 1), it fits.""")
class _ConditionTooFlat(_Rows):
    def forward(self, x, local, is_global):
        return torch.where(is_global, self.seeing_all(x), local)


# --- 10 ------------------------------------------------------------------------------------------------


def _slots_reference(n_tokens: int, size: int) -> np.ndarray:
    table, slots = np.zeros((n_tokens, size), dtype=np.int64), [-1] * size
    for t in range(n_tokens):
        slots[t % size] = t
        table[t] = slots
    return table


@chapter.implement(
    title="What is in the rolling cache",
    statement="""
        A rolling cache has `size` slots, numbered from 0. Token t is written into slot t % size, over what
        was there. So with 3 slots, after token 4 the slots hold the tokens 3, 4 and 2.

        Return a table of whole numbers, (T, size): in row t, which token stands in each slot when token t has
        just been written; -1 where a slot is still empty. Whoever needs a key's place in the text when it
        is read needs this table: it is no longer its place in the cache.
        """,
    hints=(
        "Write the table for 5 tokens and 3 slots on paper. How does a row come from the one above?",
        "A loop is an answer: keep a row, change one of its entries at each step, and store a copy of it. "
        "Without a copy, all rows are the same row.",
        "Without a loop: slot s holds the newest token that is not after t and leaves the remainder s when "
        "divided by `size`. How far back from t is it?",
        "It is (t - s) % size back: `t - (t - s) % size`, with t as a column and s as a row. Where that is "
        "below 0, no such token has been written yet.",
    ),
    axes="T slot",
    inputs=lambda rng, T, size: {"n_tokens": T, "size": size},
    sizes=((5, 3), (2, 4), (7, 2), (9, 4), (3, 1), (6, 5)),
    reference=_slots_reference,
    gradient=False,
)
def rolling_slots(n_tokens, size):
    """Which token stands in each slot after each step, -1 for none: whole numbers (T, size)."""
    t, slot = torch.arange(n_tokens)[:, None], torch.arange(size)
    # The newest token up to t whose rest is this slot: so many steps back.
    newest = t - (t - slot) % size
    return newest.clamp(min=-1)


def _times(n_tokens, size):
    return torch.arange(n_tokens)[:, None], torch.arange(size)


@rolling_slots.slip("""
    You gave the newest tokens in the order of the text. In the cache they stand in their slots: token t in
    slot t % size, and it stays there until it is overwritten.""")
def _in_order(n_tokens, size):
    t, slot = _times(n_tokens, size)
    return (t - size + 1 + slot).clamp(min=-1)


@rolling_slots.slip("""
    You gave the newest tokens, the newest one first. In the cache they stand in their slots: token t in slot
    t % size.""")
def _newest_first(n_tokens, size):
    t, slot = _times(n_tokens, size)
    return (t - slot).clamp(min=-1)


@rolling_slots.slip("""
    Empty slots hold numbers below -1 in your table: tokens from before the beginning. Put -1 there.""")
def _before_the_beginning(n_tokens, size):
    t, slot = _times(n_tokens, size)
    return t - (t - slot) % size


@rolling_slots.slip("""
    Empty slots hold 0 in your table, as if token 0 stood there. Put -1 there.""")
def _zero_for_empty(n_tokens, size):
    return rolling_slots.solve(n_tokens, size).clamp(min=0)


@rolling_slots.slip("""
    Your rows show the cache before token t is written. It should be there already.""")
def _one_step_late(n_tokens, size):
    return torch.cat([torch.full((1, size), -1), rolling_slots.solve(n_tokens, size)[:-1]])


@rolling_slots.slip("""
    Slot s holds the number s for ever. Either you stored the number of the slot, t % size, and not the token
    t; or each slot kept its first token, and nothing was overwritten.""")
def _never_overwritten(n_tokens, size):
    t, slot = _times(n_tokens, size)
    return torch.where(slot <= t, slot, -1)


@rolling_slots.slip("""
    All rows are the last one: they are one tensor, changed again and again. Store a copy of it in each step,
    `.clone()`.""")
def _one_row_for_all(n_tokens, size):
    return rolling_slots.solve(n_tokens, size)[-1].repeat(n_tokens, 1)


@rolling_slots.slip("""
    Only the slot just written is filled. The others keep what they held before.""")
def _only_the_newest(n_tokens, size):
    t, slot = _times(n_tokens, size)
    return torch.where(t % size == slot, t, -1)


@rolling_slots.slip("""
    Only the slot just written is filled, and all others hold 0. They keep what they held before; and what is
    empty holds -1.""")
def _only_the_newest_and_zeros(n_tokens, size):
    t, slot = _times(n_tokens, size)
    return torch.where(t % size == slot, t, 0)


@rolling_slots.slip("""
    You start again whenever the cache is full: all older tokens are thrown away. Only the slot that is
    written loses its token.""")
def _emptied_when_full(n_tokens, size):
    t, _ = _times(n_tokens, size)
    newest = rolling_slots.solve(n_tokens, size)
    return torch.where(newest >= t - t % size, newest, -1)


@rolling_slots.slip("""
    Your first token went into slot 1. Token 0 goes into slot 0: t % size, with t counted from 0.""")
def _from_slot_1(n_tokens, size):
    return rolling_slots.solve(n_tokens, size).roll(1, 1)


@rolling_slots.slip("""
    Your cache forgets from the other end: when it was full, the newest entry was overwritten. The oldest one
    goes.""")
def _the_newest_goes(n_tokens, size):
    t, slot = _times(n_tokens, size)
    newest = torch.where(slot == size - 1, t, slot)
    return torch.where(slot <= t, newest, -1)


@rolling_slots.slip("""
    Your steps go the wrong way: (slot - t) % size is how far ahead the next token for this slot is. How far
    *back* is the last one?""")
def _next_in_place_of_last(n_tokens, size):
    t, slot = _times(n_tokens, size)
    return t - (slot - t) % size


@rolling_slots.slip("""
    Your table has a row for each slot and a column for each token. It should be the other way round, (T,
    size).""")
def _slots_down(n_tokens, size):
    return rolling_slots.solve(n_tokens, size).mT


# --- 11 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="Reach, and what arrives",
    statement=r"""
        How far does a gradient travel, and where does most of it come from? Take a text of 121 tokens, nine
        layers, and a window of 6. All scores are 0, so that each layer replaces a token by the plain mean of
        those it sees; there are no skip connections, no dilation and no global tokens.

        Look at the middle token, number 60, at the top: the gradient of its output by each of the 121 inputs
        is the share that it takes from it. Report two numbers: the *reach*, which is the largest distance
        with a gradient that is not 0; and the *spread*, the root of the mean squared distance, in which each
        distance counts by its share,

        $$\sqrt{\textstyle\sum_j \text{share}_j \cdot (j - 60)^2}.$$
        """,
    hints=(
        "`sliding_window_attention(q, k, v, window=6)` with queries and keys of zeros gives plain means. Its "
        "arguments have the shape (B, H, T, Dh).",
        "Let `x = torch.zeros(1, 1, 121, 1, dtype=torch.float64, requires_grad=True)` go through nine "
        "layers, and ask for `torch.autograd.grad(y[0, 0, 60, 0], x)`.",
        "The shares sum to 1. `distance = torch.arange(121) - 60`; the reach is `distance[share > 0].max()`.",
        "The spread is `(share * distance ** 2).sum().sqrt()`.",
    ),
    ranges={"reach": (26.9, 27.1), "spread": (5.98, 6.02)},
    slips={
        "The two numbers are the other way round: first the reach, then the spread.": (
            (5.98, 6.02),
            (26.9, 27.1),
        ),
        "The second number is the mean of the squared distances. The spread is its root.": (
            (26.9, 27.1),
            (35.9, 36.1),
        ),
        "The second number is the mean distance without its sign. Square the distances, average, take the "
        "root.": ((26.9, 27.1), (4.6, 4.95)),
        "Those are the numbers for a window that reaches 6 places to each side. A window of 6 is three and "
        "three.": ((53.9, 54.1), (11.1, 11.35)),
        "Those are the numbers after eight layers. One more.": ((23.9, 24.1), (5.6, 5.7)),
        "Those are the numbers after ten layers. One less.": ((29.9, 30.1), (6.28, 6.36)),
        "Those are the numbers of a single layer. The output of a layer is the input of the next; nine of "
        "them.": ((2.9, 3.1), (1.98, 2.02)),
        "The first number counts tokens, to both sides and the middle one. The reach is a distance.": (
            (54.9, 55.1),
            (5.98, 6.02),
        ),
        "The spread is right. The reach came out too small, since you took very small gradients for 0: "
        "compare with 0 itself, in float64.": ((15, 26.5), (5.9, 6.02)),
        "That is a window that looks back only, and its spread about 0. Here the window looks to both "
        "sides.": ((26.9, 27.1), (13.8, 14.1)),
        "The spread is too small: tokens kept themselves by a skip connection, or the shares do not sum to "
        "1. Here each token becomes a plain mean.": ((26.9, 27.1), (4.0, 4.5)),
        "The spread is that of equal shares over all that is within reach. Each distance counts by its "
        "gradient.": ((26.9, 27.1), (15.6, 16.1)),
    },
    at_most=(60.0, "No token is more than 60 places away from the middle of 121."),
    otherwise="Not these numbers. Check: nine layers, window 6, scores 0, token 60 of 121, no skip "
    "connections, and the root of the mean squared distance.",
)
def reach_and_spread():
    """Nine layers of three places reach 27 places. The squares of the spreads add up, 4 in each layer, so
    that the spread is 6: a bell curve. Twice the layers reach twice as far; the spread grows by the root of
    2 only.
    """
    x = torch.zeros(121, dtype=torch.float64, requires_grad=True)
    y = x
    for _ in range(9):
        y = torch.stack([y[max(0, t - 3) : t + 4].mean() for t in range(121)])
    share = torch.autograd.grad(y[60], x)[0]
    distance = torch.arange(121) - 60
    spread = (share * distance**2).sum().sqrt()
    return distance[share > 0].max().item(), round(spread.item(), 6)
