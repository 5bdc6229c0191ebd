"""Exercises of the chapter "Masks", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from .check import Chapter
from .check.references import softmax as _softmax

chapter = Chapter("masks", "Masks")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


def _square(n: int) -> torch.Tensor:
    return torch.ones(n, n, dtype=torch.bool)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The newest two of five",
    statement="""
        A model writes and keeps the keys of its five tokens. It now asks with the newest two only, so there
        are 2 queries and 5 keys, and the mask is `causal_mask(2, 5)`, aligned at the bottom right: the last
        query stands at the last key.

        Before you run anything: what does the first of its two rows hold? Answer with five numbers, 1 for
        True and 0 for False.
        """,
    hints=(
        "Give the five tokens the places 0 to 4. At which places do the newest two stand?",
        "The first of the two queries stands at place 3. A query sees the keys up to its own place.",
        "So it sees the places 0, 1, 2 and 3.",
    ),
    expected=(1, 1, 1, 1, 0),
    wrong={
        (1, 0, 0, 0, 0): "That is the first row of a triangle in the top left corner, as if the query stood "
        "at place 0. The two queries are the newest tokens, at the places 3 and 4.",
        (1, 1, 1, 1, 1): "That is the second row. The first query stands one place before the last key, and "
        "that key lies in its future.",
        (0, 0, 0, 0, 1): "That is the mask upside down: 1 where the key is hidden. True = may attend.",
        (1, 1, 1, 0, 0): "Here the query does not see its own place, number 3. It sees the keys up to its "
        "own place, that one included.",
        (
            True,
            True,
            True,
            True,
            False,
        ): "That is the row, in True and False. Write it in numbers, 1 for True and 0 for False.",
        (0, 0, 0, 1, 0): "That is its own place alone. A causal mask shows the whole past as well.",
        (1, 1, 0, 0, 0): "That is the second row of a triangle in the top left corner. You were asked for "
        "the first row, and the queries stand at the places 3 and 4.",
        (0, 0, 0, 1, 1): "That is its own place and the future. It is the past that may be seen.",
    },
    otherwise="Not that row. It has five numbers, one for each key, 1 where the first of the two queries may "
    "look. At which place does this query stand, and which keys lie up to there?",
    form="a tuple of five numbers, each 0 or 1",
)
def first_of_two():
    """The first query stands at place 3 of 0 to 4: it sees four keys, and the last one is its future."""
    mask = torch.ones(2, 5, dtype=torch.bool).tril(diagonal=5 - 2)
    return tuple(mask[0].int().tolist())


# --- 2 -------------------------------------------------------------------------------------------------


def _causal_reference(n_queries: int, n_keys: int) -> np.ndarray:
    mask = np.zeros((n_queries, n_keys), dtype=bool)
    for t, s in np.ndindex(mask.shape):
        mask[t, s] = n_keys - 1 - s >= n_queries - 1 - t  # counted from the last, which belong together
    return mask


@chapter.implement(
    title="The causal mask",
    statement="""
        Write the causal mask for `n_queries` queries and `n_keys` keys: a boolean tensor of shape (T, S),
        True where the query may see the key. The last query stands at the place of the last key; each sees
        the keys up to its own place. There may be more keys than queries, or fewer: then the first queries
        see nothing.
        """,
    hints=(
        "Draw the mask for 2 queries and 3 keys. The last row is all True: the last query sees everything. "
        "What does the row above it see?",
        "Two ways lead there. One: a table of True, of which `tril(diagonal=d)` keeps what lies on diagonal "
        "d and below. Another: compare the places of queries and keys, `places[:, None] >= torch.arange(S)`.",
        "Query t stands at place S - T + t, so the diagonal to keep is number S - T.",
        "`torch.ones(..., dtype=torch.bool)` makes a table of True.",
    ),
    axes="T S",
    inputs=lambda rng, T, S: {"n_queries": T, "n_keys": S},
    sizes=((2, 3), (3, 3), (1, 4), (4, 2), (5, 7), (3, 1)),
    reference=_causal_reference,
    gradient=False,
)
def causal(n_queries, n_keys):
    """True where a query may see a key, the last query at the last key: a mask (T, S)."""
    # The queries are the newest of all tokens: query 0 stands at place S - T, the last one at place S - 1.
    places = torch.arange(n_keys - n_queries, n_keys)
    # (T, 1) against (S): each query sees the keys up to its own place.
    return places[:, None] >= torch.arange(n_keys)


def _ones(T, S):
    return torch.ones(T, S, dtype=torch.bool)


@causal.slip("""
    Your triangle starts in the top left corner: the first query sees the first key only. The last query
    should stand at the last key; that moves the diagonal by S - T.""")
def _top_left(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril()


@causal.slip("""
    You moved the diagonal the wrong way. With more keys than queries each query sees more: it moves by
    S - T, up and to the right.""")
def _moved_the_wrong_way(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril(n_queries - n_keys)


@causal.slip("""
    No query sees the key at its own place. It should: the keys up to its own place, and that one too.""")
def _itself_hidden(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril(n_keys - n_queries - 1)


@causal.slip("""
    Each query sees one key too many, the next one: the future leaks. The last query but one should not see
    the last key.""")
def _one_too_many(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril(n_keys - n_queries + 1)


@causal.slip("""
    Your triangle lies on the wrong side of the diagonal: each query sees its own place and the future. Rows
    are queries, so the past of a query lies on the left.""")
def _wrong_side(n_queries, n_keys):
    return _ones(n_queries, n_keys).triu(n_keys - n_queries)


@causal.slip("""
    Your mask says True where a key is hidden. Here True = may attend: turn it round with `~`.""")
def _true_is_hidden(n_queries, n_keys):
    return ~_ones(n_queries, n_keys).tril(n_keys - n_queries)


@causal.slip("""
    Nothing is hidden: all entries are True. What lies in the future of a query should be False.""")
def _nothing_hidden(n_queries, n_keys):
    return _ones(n_queries, n_keys)


@causal.slip("""
    Rows and columns have changed places: your mask has the shape (S, T). Each row belongs to a query, each
    column to a key.""")
def _turned_round(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril(n_keys - n_queries).T


@causal.slip("""
    Your mask is a square, T by T. It should have a column for each of the S keys.""")
def _square_of_queries(n_queries, n_keys):
    return _ones(n_queries, n_queries).tril()


@causal.slip("""
    Your mask is a square, S by S. It should have a row for each of the T queries only: the last T rows.""")
def _square_of_keys(n_queries, n_keys):
    return _ones(n_keys, n_keys).tril()


@causal.slip("""
    The entries are right. The package's mask has four axes, (1, 1, T, S); here two are asked for, (T, S).""")
def _four_axes(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril(n_keys - n_queries)[None, None]


@causal.slip("""
    Your triangle lies on the wrong side of the diagonal, the side of the future, and starts in the top left
    corner. The past of a query lies on the left, and the last query should stand at the last key.""")
def _wrong_side_top_left(n_queries, n_keys):
    return _ones(n_queries, n_keys).triu()


@causal.slip("""
    Your mask says True in the future of a query and False in its past, and its diagonal starts in the top
    left corner. Here True = may attend, and the last query should stand at the last key.""")
def _true_is_hidden_top_left(n_queries, n_keys):
    return _ones(n_queries, n_keys).triu(1)


@causal.slip("""
    Right, as long as there are no more queries than keys. With more, S - T is below 0, and you gave it the
    other sign: the first queries see keys that they should not.""")
def _sign_of_the_diagonal_lost(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril(abs(n_keys - n_queries))


@causal.slip("""
    Right, as long as there are no more queries than keys. With more, S - T is below 0, and your triangle
    starts in the top left corner again: the first queries should see nothing.""")
def _diagonal_from_zero_on(n_queries, n_keys):
    return _ones(n_queries, n_keys).tril(max(0, n_keys - n_queries))


@causal.slip("""
    Right, as long as there are no more queries than keys. With more, a first query has fewer than 0 keys to
    see, and a slice that ends at a number below 0 counts from the end: let it end at 0.""")
def _slice_that_ends_below_zero(n_queries, n_keys):
    mask = torch.zeros(n_queries, n_keys, dtype=torch.bool)
    for t in range(n_queries):
        mask[t, : n_keys - n_queries + t + 1] = True
    return mask


@causal.slip("""
    You took rows from the top of a triangle S by S. The queries are the newest tokens: with more keys than
    queries they are its last rows, and with fewer keys it has not rows enough.""")
def _first_rows_of_the_square(n_queries, n_keys):
    return _ones(n_keys, n_keys).tril()[:n_queries]


@causal.slip("""
    Right, as long as there are no more queries than keys. With more, a triangle S by S has not enough rows:
    the first queries, which see nothing, are missing.""")
def _last_rows_of_the_square(n_queries, n_keys):
    return _ones(n_keys, n_keys).tril()[-n_queries:]


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The same mask, handed to a layer of PyTorch",
    statement="""
        You make `mask = causal_mask(4)[0, 0]`, True = may attend, and hand it to PyTorch's own layer,
        `outputs, weights = nn.MultiheadAttention(...)(x, x, x, attn_mask=mask)`, for an `x` of four tokens.

        Before you run anything: what becomes of the four outputs?
        """,
    choices={
        "a": "Each token sees itself and its past, as the mask says.",
        "b": "Each token sees what comes after it and nothing else; the last output is NaN.",
        "c": "Each token sees itself and what comes after it; no output is NaN.",
        "d": "PyTorch refuses the mask with an error.",
    },
    hints=(
        "Look up `attn_mask` in the documentation of `nn.MultiheadAttention`: what does True mean there?",
        "There True means: this key may not be seen. So what is left to the first token, whose row is True, "
        "False, False, False?",
        "The row of the last token is True everywhere. It may see nothing at all: what does a softmax make "
        "of a row of minus infinities?",
    ),
    expected="b",
    wrong={
        "a": "That would be so if True meant the same everywhere. In `nn.MultiheadAttention` a True hides.",
        "c": "Nearly: the mask does work the other way round. But its diagonal is True as well, so a token "
        "does not see itself; what is left to the last one?",
        "d": "A mask of the right shape and type is taken without a word: the layer cannot know which of "
        "the two you mean. That is what makes this slip so common.",
    },
)
def upside_down():
    """In `nn.MultiheadAttention` True means "may not": the past and the token itself are hidden, the future
    is seen. The last token sees nothing, and its output is NaN. Hand over `~mask`.
    """
    torch.manual_seed(0)
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(1, 4, 8)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    with torch.no_grad():
        output, weights = layer(x, x, x, attn_mask=mask)
    seen = weights[0, :3] > 0
    if output[0, 3].isnan().any():
        return "b" if torch.equal(seen, ~mask[:3]) else "d"
    return "a" if torch.equal(seen, mask[:3]) else "c"


# --- 4 -------------------------------------------------------------------------------------------------


def _in_a_convention(
    rng: np.random.Generator, T: int, S: int, convention: str, low: float = -np.inf
) -> dict[str, Any]:
    """The mask of a few tokens, written in this convention; hidden entries of an additive one are ``low``."""
    seen = rng.random((T, S)) < 0.5
    seen[0, :2] = True, False
    written = {"blocked": ~seen, "additive": np.where(seen, 0.0, low), "ones": seen.astype(np.int64)}
    return {"mask": written[convention], "convention": convention}


def _may_attend_reference(mask: np.ndarray, convention: str) -> np.ndarray:
    allowed = {"blocked": False, "additive": 0.0, "ones": 1}[convention]
    return np.array([[entry == allowed for entry in row] for row in mask.tolist()])


@chapter.implement(
    title="Three conventions, one meaning",
    statement="""
        Libraries write the same mask in three ways. Turn each into the book's: boolean, True = may attend.
        `mask` has the shape (T, S), and `convention` is a word:

        - `"blocked"`: boolean, True = may **not** attend, as `nn.MultiheadAttention` wants it;
        - `"additive"`: numbers to add to the scores, 0 = may attend; what is hidden is minus infinity, or a
          finite number far below zero, such as -1e9, as many models have it;
        - `"ones"`: whole numbers, 1 = may attend and 0 = hidden, as tokenizers give it.
        """,
    hints=(
        "Three cases, three lines: `if convention == ...`.",
        "`~` turns a boolean mask round. It does not work on numbers: a comparison, such as `mask == 1`, "
        "makes booleans of them.",
        "Which number does an additive mask hold where a key may be seen? Compare with that one: the hidden "
        "ones may be infinite or not.",
    ),
    axes="T S",
    inputs=_in_a_convention,
    sizes=(
        (2, 3, "blocked"),
        (2, 3, "additive"),
        (3, 2, "ones"),
        (1, 4, "additive", -1e9),
        (4, 3, "additive", -3e38),
        (3, 5, "blocked"),
        (2, 4, "ones"),
        (3, 4, "additive", -100.0),
    ),
    reference=_may_attend_reference,
    gradient=False,
)
def may_attend(mask, convention):
    """The same mask (T, S), boolean, True = may attend."""
    if convention == "blocked":
        return ~mask
    # To add 0 to a score changes nothing. What hides is minus infinity or just low: do not compare with it.
    if convention == "additive":
        return mask == 0
    return mask == 1


@may_attend.slip("""
    A mask that says what is "blocked" came back as it was. There True hides; turn it round with `~`.""")
def _blocked_as_it_was(mask, convention):
    return mask if convention == "blocked" else may_attend.solve(mask, convention)


@may_attend.slip("""
    Your additive mask is right only where hidden entries are minus infinity. They may be finite, such as
    -1e9: compare with the number that changes nothing, 0.""")
def _only_infinity_hides(mask, convention):
    return mask != -torch.inf if convention == "additive" else may_attend.solve(mask, convention)


@may_attend.slip("""
    Your additive mask comes out upside down: what is 0 may be seen there, and you made it False.""")
def _additive_upside_down(mask, convention):
    return mask != 0 if convention == "additive" else may_attend.solve(mask, convention)


@may_attend.slip("""
    The mask of "ones" comes out upside down: there 1 = may attend, and should become True.""")
def _ones_upside_down(mask, convention):
    return mask == 0 if convention == "ones" else may_attend.solve(mask, convention)


@may_attend.slip("""
    You made booleans of whatever came, True for all that is not 0. That is right for "ones" only: in the two
    others such an entry hides a key.""")
def _whatever_is_not_zero(mask, convention):
    return mask.bool()


@may_attend.slip("""
    In all three conventions your answer says True where a key is hidden. The book's masks say True where it
    may be seen.""")
def _all_upside_down(mask, convention):
    return ~may_attend.solve(mask, convention)


@may_attend.slip("""
    You read an additive mask as if it held 1 and 0. It holds 0 where a key may be seen, and never 1.""")
def _additive_read_as_ones(mask, convention):
    return mask == 1 if convention == "additive" else may_attend.solve(mask, convention)


@may_attend.slip("""
    You drew the line between seen and hidden far below 0, and some models hide with a number that is not so
    low. An additive mask holds 0 where a key may be seen: compare with that.""")
def _line_far_below(mask, convention):
    return mask > -1e4 if convention == "additive" else may_attend.solve(mask, convention)


@may_attend.crash("""
    `~` turns booleans and whole numbers round, not real ones. An additive mask holds real numbers: compare
    them with 0.""")
def _tilde_on_numbers(mask, convention):
    return ~mask


@may_attend.crash("""
    Python's `and`, `or`, `not` and `if` ask for one truth value, and a table holds many. `&`, `|` and `~`
    work entry by entry.""")
def _not_for_tilde(mask, convention):
    return not mask


# --- 5 -------------------------------------------------------------------------------------------------


def _padded(rng: np.random.Generator, B: int, S: int, pad_id: int = 0, side: str = "right") -> dict[str, Any]:
    """Sentences of different lengths, the first one full, the last one short; filled up with ``pad_id``."""
    ids = [i for i in range(9) if i != pad_id]
    tokens = rng.choice(ids, (B, S))
    for b, length in enumerate(np.linspace(S, 1, B).round().astype(int)):
        tokens[b, length:] = pad_id
    tokens[0, 0], tokens[-1, 0] = ids[0], ids[-1]  # below the id of padding and above it
    return {"tokens": tokens if side == "right" else tokens[:, ::-1].copy(), "pad_id": pad_id}


def _padding_reference(tokens: np.ndarray, pad_id: int) -> np.ndarray:
    mask = np.ones((len(tokens), 1, 1, tokens.shape[1]), dtype=bool)
    for b, s in np.argwhere(tokens == pad_id):
        mask[b, 0, 0, s] = False
    return mask


@chapter.implement(
    title="The padding mask",
    statement="""
        Sentences of different lengths share a table `tokens` of ids, shape (B, S); the short ones are filled
        up with `pad_id`, which may be any number, at the end or, in some tables, at the start. Write the mask
        that hides the padding from every query of every head: boolean, True = may attend, of shape
        (B, 1, 1, S), so that it broadcasts to scores (B, H, T, S).
        """,
    hints=(
        "First without thinking of axes: which entries of `tokens` are real tokens? That is one comparison.",
        "The answer has the shape (B, S). The scores are (B, H, T, S): B comes first and S last, and in "
        "between two axes are missing.",
        "`x[:, None]` puts an axis of length 1 behind the first; `x.unsqueeze(1)` does the same.",
    ),
    axes="B 1 1 S",
    inputs=_padded,
    sizes=((2, 3), (3, 4, 5), (4, 5, 3), (3, 6, 2, "left"), (2, 5, 8), (3, 2, 4)),
    reference=_padding_reference,
    gradient=False,
)
def padding(tokens, pad_id):
    """True where there is a token and no padding: tokens (B, S) to a mask (B, 1, 1, S)."""
    real = tokens != pad_id
    # The same for all heads and all queries: axes of length 1 stand in their places.
    return real[:, None, None, :]


@padding.slip("""
    Your mask is True on the padding. True = may attend, so it belongs on the real tokens.""")
def _true_on_padding(tokens, pad_id):
    return (tokens == pad_id)[:, None, None, :]


@padding.slip("""
    The entries are right, but there are two axes. Scores are (B, H, T, S), and (B, S) would be taken for
    (T, S): put two axes of length 1 between them.""")
def _two_axes(tokens, pad_id):
    return tokens != pad_id


@padding.slip("""
    The entries are right, but one axis is missing: (B, 1, S) would be taken for (H, T, S). Put two axes of
    length 1 between B and S.""")
def _three_axes(tokens, pad_id):
    return (tokens != pad_id)[:, None]


@padding.slip("""
    Your tokens lie along the third axis, the one of the queries, so the mask would hide rows. It is keys that
    are hidden: they belong to the last axis.""")
def _along_the_queries(tokens, pad_id):
    return (tokens != pad_id)[:, None, :, None]


@padding.slip("""
    Your tokens lie along the second axis, the one of the heads. Keys belong to the last axis.""")
def _along_the_heads(tokens, pad_id):
    return (tokens != pad_id)[:, :, None, None]


@padding.slip("""
    Your mask has the entries in the right order but the new axes in front: (1, 1, B, S) takes sentences for
    queries. B comes first.""")
def _axes_in_front(tokens, pad_id):
    return (tokens != pad_id)[None, None]


@padding.slip("""
    You took 0 for the padding. Its id comes as `pad_id`, and 0 may be a word like any other.""")
def _zero_is_padding(tokens, pad_id):
    return (tokens != 0)[:, None, None, :]


@padding.slip("""
    You took all ids up to `pad_id` for padding. Only that one is; smaller ids are words, too.""")
def _above_the_padding(tokens, pad_id):
    return (tokens > pad_id)[:, None, None, :]


@padding.slip("""
    You took all ids from `pad_id` on for padding. Only that one is; larger ids are words, too.""")
def _below_the_padding(tokens, pad_id):
    return (tokens < pad_id)[:, None, None, :]


@padding.slip("""
    Your mask is a square for each sentence, and padded queries see nothing in it. Asked for is the mask of
    the keys alone, (B, 1, 1, S): what a padded query sees harms nobody.""")
def _queries_hidden_too(tokens, pad_id):
    real = tokens != pad_id
    return real[:, None, :, None] & real[:, None, None, :]


@padding.slip("""
    Nothing is hidden: all entries are True. Where `tokens` holds `pad_id`, the mask should be False.""")
def _padding_seen(tokens, pad_id):
    return torch.ones_like(tokens, dtype=torch.bool)[:, None, None, :]


@padding.slip("""
    You hid the last place of each sentence, whatever stands there. Sentences differ in length: compare each
    entry with `pad_id`.""")
def _last_place_hidden(tokens, pad_id):
    return (torch.arange(tokens.shape[1]) < tokens.shape[1] - 1).expand_as(tokens)[:, None, None, :]


@padding.slip("""
    You hid everything from the first padding on. In some tables the filling stands at the start, and the
    words come after it: compare each entry with `pad_id`.""")
def _from_the_first_padding_on(tokens, pad_id):
    return ((tokens == pad_id).cumsum(-1) == 0)[:, None, None, :]


@padding.slip("""
    You show as many places as a sentence has real tokens, and always the first ones. In some tables the
    filling stands at the start: compare each entry with `pad_id`.""")
def _counted_from_the_left(tokens, pad_id):
    lengths = (tokens != pad_id).sum(-1, keepdim=True)
    return (torch.arange(tokens.shape[1]) < lengths)[:, None, None, :]


@padding.slip("""
    The entries are right, and you repeated them, a row for each query. One row serves all queries: leave that
    axis 1 long.""")
def _a_row_for_each_query(tokens, pad_id):
    return (tokens != pad_id)[:, None, None, :].expand(-1, -1, tokens.shape[1], -1)


# --- 6 -------------------------------------------------------------------------------------------------


def _decoder_reference(tokens: np.ndarray, pad_id: int) -> np.ndarray:
    (B, T), mask = tokens.shape, np.zeros((len(tokens), 1, *tokens.shape[1:] * 2), dtype=bool)
    for b in range(B):
        for t in range(T):
            mask[b, 0, t, : t + 1] = [token != pad_id for token in tokens[b, : t + 1]]
    return mask


@chapter.implement(
    title="Causal and without padding",
    statement="""
        A decoder needs both: a token sees neither what comes after it nor any padding. Write the mask for a
        table `tokens` of ids, shape (B, T), filled up with `pad_id` as in exercise 5: boolean, True = may
        attend, of shape (B, 1, T, T). The triangle is the same for all sentences, the padding is not.
        """,
    hints=(
        "You have both parts already: the triangle (T, T) from exercise 2, the padding (B, 1, 1, T) from "
        "exercise 5.",
        "A key may be seen if the triangle allows it and the padding allows it: which operator says that, "
        "`&` or `|`?",
        "The two broadcast by themselves: (T, T) and (B, 1, 1, T) give (B, 1, T, T).",
    ),
    axes="B 1 T T",
    inputs=_padded,
    sizes=((2, 3), (3, 4, 5), (4, 5, 3), (3, 6, 2, "left"), (2, 5, 8), (5, 4, 1)),
    reference=_decoder_reference,
    gradient=False,
)
def decoder_mask(tokens, pad_id):
    """True where a token may see another: itself and its past, no padding. (B, T) to a mask (B, 1, T, T)."""
    T = tokens.shape[1]
    past = torch.ones(T, T, dtype=torch.bool, device=tokens.device).tril()
    real = (tokens != pad_id)[:, None, None, :]
    # Both must allow it: (T, T) and (B, 1, 1, T) give (B, 1, T, T).
    return past & real


def _both(tokens, pad_id):
    return _square(tokens.shape[1]).tril(), (tokens != pad_id)[:, None, None, :]


@decoder_mask.slip("""
    You let a key be seen if it lies in the past or is a real token. Both must hold: `&`, not `|`.""")
def _or_for_and(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past | real


@decoder_mask.slip("""
    The padding is seen: this is the triangle alone. Combine it with the mask of the padding.""")
def _triangle_alone(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past.expand(len(real), 1, -1, -1)


@decoder_mask.slip("""
    The triangle alone has no place for the sentences: its shape lacks B. Combine it with the padding mask,
    (B, 1, 1, T).""")
def _triangle_of_no_sentence(tokens, pad_id):
    return _both(tokens, pad_id)[0]


@decoder_mask.slip("""
    The future is seen: this is the padding mask alone. Combine it with the triangle.""")
def _padding_alone(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return real.expand(-1, -1, len(past), -1)


@decoder_mask.slip("""
    This is the padding mask alone, with one row for all queries. With the triangle, `&`, it gets a row for
    each.""")
def _padding_in_one_row(tokens, pad_id):
    return _both(tokens, pad_id)[1]


@decoder_mask.slip("""
    Your triangle lies on the wrong side: each token sees itself and what comes after it. `tril` keeps the
    past, which lies left of the diagonal.""")
def _future_side(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past.mT & real


@decoder_mask.slip("""
    No token sees itself: your triangle leaves the diagonal out. A token may see the past and itself.""")
def _diagonal_left_out(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past.tril(-1) & real


@decoder_mask.slip("""
    Each token sees the next one as well: the future leaks. Your triangle has one diagonal too many.""")
def _diagonal_too_many(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return _square(len(past)).tril(1) & real


@decoder_mask.slip("""
    You hid the rows of padded queries instead of the columns of padded keys. The padding belongs to the last
    axis, (B, 1, 1, T).""")
def _rows_hidden(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past & real.mT


@decoder_mask.slip("""
    You hid the rows of padded queries, too. Asked for are hidden keys alone: nobody reads the output of a
    padded query, and a row that sees nothing only invites NaN.""")
def _rows_hidden_too(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past & real & real.mT


@decoder_mask.slip("""
    Your mask says True where a key is hidden. Here True = may attend.""")
def _hidden_is_true(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return ~(past & real)


@decoder_mask.slip("""
    The triangle is right, but you show the padding and hide the words: compare with `!=`, not with `==`.""")
def _words_hidden(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past & ~real


@decoder_mask.slip("""
    You took 0 for the padding. Its id comes as `pad_id`.""")
def _zero_taken_for_padding(tokens, pad_id):
    past, real = _both(tokens, 0)
    return past & real


@decoder_mask.slip("""
    The entries are right, but an axis is missing: (B, T, T) would be taken for (H, T, T). Put an axis of
    length 1, for the heads, behind B.""")
def _no_axis_for_heads(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return (past & real)[:, 0]


@decoder_mask.crash("""
    (T, T) and (B, T) do not fit together: B would have to be T. Give the padding the axes (B, 1, 1, T)
    first.""")
def _padding_without_axes(tokens, pad_id):
    return _both(tokens, pad_id)[0] & (tokens != pad_id)


@decoder_mask.slip("""
    The triangle alone is the same for all sentences: its shape, (1, 1, T, T), lacks B. Combine it with the
    padding mask, (B, 1, 1, T).""")
def _triangle_with_axes_of_one(tokens, pad_id):
    return _both(tokens, pad_id)[0][None, None]


@decoder_mask.slip("""
    `&` binds more tightly than `!=`: `triangle & tokens != pad_id` compares `triangle & tokens` with
    `pad_id`. Put the comparison into brackets.""")
def _and_before_the_comparison(tokens, pad_id):
    return (_both(tokens, pad_id)[0] & tokens[:, None, None, :]) != pad_id


@decoder_mask.slip("""
    `&` binds more tightly than `!=`: `tokens != pad_id & triangle` compares the tokens with
    `pad_id & triangle`. Put the comparison into brackets.""")
def _and_before_the_comparison_too(tokens, pad_id):
    return tokens[:, None, None, :] != (pad_id & _both(tokens, pad_id)[0])


@decoder_mask.slip("""
    Each padded token still sees itself: your diagonal is True whatever stands there. Here nobody sees
    padding, not even the padding.""")
def _padding_sees_itself(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past & (real | torch.eye(len(past), dtype=torch.bool))


@decoder_mask.crash("""
    Python's `and`, `or`, `not` and `if` ask for one truth value, and a table holds many. `&`, `|` and `~`
    work entry by entry.""")
def _python_s_and(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past and real


@decoder_mask.crash("""
    `&` works on booleans, and one of your tables holds real numbers: so does `torch.ones(T, T)`, unless it is
    given `dtype=torch.bool`.""")
def _triangle_of_real_numbers(tokens, pad_id):
    past, real = _both(tokens, pad_id)
    return past.float() & real


@decoder_mask.crash("""
    You call an exercise, such as `ex.causal`, as if it were your function. Your own has the bare name,
    `causal`, once its cell has run.""")
def _exercise_called(tokens, pad_id):
    return causal(tokens.shape[1], tokens.shape[1]) & padding(tokens, pad_id)


# --- 7 -------------------------------------------------------------------------------------------------


def _scores_and_mask(
    rng: np.random.Generator, T: int, S: int, blind: bool = False, far: float = 0.0
) -> dict[str, np.ndarray]:
    """Every row sees something and misses something, or the first is blind; hidden scores lie ``far`` up."""
    mask = rng.random((T, S)) < 0.5
    mask[:, 0] = rng.random(T) < 0.5
    mask[:, 1] = ~mask[:, 0]
    if blind:
        mask[0] = False
    return {"scores": 2 * rng.standard_normal((T, S)) + far * ~mask, "mask": mask}


def _masked_softmax_reference(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.zeros_like(scores)
    for t, seen in enumerate(mask):
        if seen.any():
            out[t, seen] = _softmax(scores[t, seen])
    return out


class _AddedUp:  # so that both functions of this name can be told apart
    @staticmethod
    def masked_softmax(scores, mask):
        """Weights (T, S) of the scores (T, S) where mask is True; a row that sees nothing gets zeros."""
        hidden = torch.zeros_like(scores).masked_fill(~mask, float("-inf"))
        weights = (scores + hidden).softmax(dim=-1)
        return weights.nan_to_num(0.0)


@chapter.debug(
    broken=_AddedUp.masked_softmax,
    title="Right at the first step, NaN at the second",
    statement="""
        A masked softmax: weights where the mask is True, zeros elsewhere, and zeros in a row that sees
        nothing. The values of this function are right, always. And yet: with it, the loss of the first step
        of training is a number, and from the second step on all weights of the model are NaN. It happens when
        a batch holds a row that sees nothing.

        Look for the NaN where nobody prints it: in the gradient. Repair the function so that values and
        gradients are right.
        """,
    hints=(
        "Make a row that sees nothing, call `weights[0].sum().backward()` and print `scores.grad`.",
        "The softmax of a row of minus infinities is NaN. `nan_to_num` puts zeros over it, in the values; on "
        "the way back the gradient goes through the softmax itself, which multiplies by its NaN.",
        "The NaN must not get as far as `scores`. `masked_fill` lets no gradient through where it filled; an "
        "addition lets everything through.",
        "Fill the scores with minus infinity, and after the softmax fill the weights with 0, both where the "
        "mask is False.",
    ),
    axes="T S",
    inputs=_scores_and_mask,
    sizes=((2, 3), (3, 4, True), (1, 4), (4, 5, True), (3, 2, True, 60.0), (5, 6)),
    reference=_masked_softmax_reference,
)
def masked_softmax(scores, mask):
    """Weights (T, S) of the scores (T, S) where mask is True; a row that sees nothing gets zeros."""
    # Where masked_fill wrote, no gradient flows back: the NaN of a row that sees nothing stays in here.
    # The broken line added instead, and a sum hands every gradient on, NaN too.
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0)


@masked_softmax.slip("""
    The values are right and the gradient still holds NaN: in a row that sees nothing a NaN is made on
    the way, and what is put over it afterwards mends the values only. Hide the scores with `masked_fill`,
    which lets no gradient through where it filled, and fill the weights with 0 in the same places.""")
def _nan_on_the_way_back(scores, mask):
    return _AddedUp.masked_softmax(scores, mask)


@masked_softmax.slip("""
    A row that sees nothing gives NaN now: somewhere 0 is divided by 0. Its weights should be 0. Fill the
    scores before the softmax and the weights after it, both where the mask is False.""")
def _nan_in_the_open(scores, mask):
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


@masked_softmax.slip("""
    A row that sees nothing shares its weight evenly among all keys: its scores are all equal, however low.
    Its weights should be 0: fill them after the softmax.""")
def _evenly_shared(scores, mask):
    return scores.masked_fill(~mask, -1e9).softmax(-1)


@masked_softmax.slip("""
    A row that sees nothing sees everything: all its scores are lowered alike, and only differences count. Its
    weights should be 0: fill them after the softmax.""")
def _lowered_alike(scores, mask):
    return (scores + ~mask * -1e9).softmax(-1)


@masked_softmax.slip("""
    You set weights to 0 after the softmax, and what they held is lost: rows no longer sum to 1. The scores
    must be hidden before it as well.""")
def _hidden_too_late(scores, mask):
    return scores.softmax(-1) * mask


@masked_softmax.slip("""
    Your mask works the wrong way round. True = may attend: fill where it is False, `~mask`.""")
def _polarity(scores, mask):
    return masked_softmax.solve(scores, ~mask)


@masked_softmax.slip("""
    The mask has no effect. `masked_fill` returns a new tensor: write `scores = scores.masked_fill(...)`.""")
def _unmasked(scores, mask):
    return scores.softmax(-1)


@masked_softmax.slip("""
    Hidden scores became 0, and exp(0) is 1: a weight. Minus infinity gets none.""")
def _hidden_score_zero(scores, mask):
    return scores.masked_fill(~mask, 0.0).softmax(-1)


@masked_softmax.slip("""
    Hidden scores became 0 and their weights too. In between they took their share in the softmax, and it is
    lost: minus infinity gets no share.""")
def _hidden_score_and_weight_zero(scores, mask):
    return scores.masked_fill(~mask, 0.0).softmax(-1).masked_fill(~mask, 0.0)


@masked_softmax.slip("""
    Your softmax runs down the columns, over the queries. Each query shares its weight among the keys, the
    last axis; that was right.""")
def _down_the_columns(scores, mask):
    return scores.masked_fill(~mask, -torch.inf).softmax(0).masked_fill(~mask, 0.0)


@masked_softmax.slip("""
    Hidden scores took part in the exponentials or their sum, and where they are far above the others, these
    are lost beside them. Hide the scores before the softmax, with minus infinity.""")
def _divided_again(scores, mask):
    weights = scores.softmax(-1) * mask
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)


# --- 8 -------------------------------------------------------------------------------------------------


def _logits_and_tokens(rng: np.random.Generator, B: int, T: int, V: int) -> dict[str, np.ndarray]:
    return {"logits": 2 * rng.standard_normal((B, T, V)), "tokens": rng.integers(V, size=(B, T))}


def _next_token_loss_reference(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    B, T = tokens.shape
    losses = np.zeros((B, T - 1))
    for b, t in np.ndindex(losses.shape):
        losses[b, t] = -np.log(_softmax(logits[b, t])[tokens[b, t + 1]])
    return losses


class _Unshifted:  # so that both functions of this name can be told apart
    @staticmethod
    def next_token_loss(logits, tokens):
        """How surprising each next token is, in nats: logits (B, T, V), tokens (B, T) to (B, T - 1)."""
        logs = logits.log_softmax(dim=-1)
        targets = tokens
        return -logs.gather(-1, targets[..., None]).squeeze(-1)


@chapter.debug(
    broken=_Unshifted.next_token_loss,
    title="A perfect mask, and the answer in the question",
    statement="""
        This is the loss of a causal model: `logits[b, t]` are the scores of all V tokens, made from the
        tokens 0 to t of sentence b. The mask is right. The symptom: in training the loss falls to nearly 0,
        and what the model writes is one token, again and again.

        A causal mask shows a token itself and its past. What is it asked for here? Repair the function: the
        loss, in nats, of each next token, of shape (B, T - 1).
        """,
    hints=(
        "Output t has seen token t. With which token does the function compare it?",
        "The model learns to repeat what it just read. Output t must be judged by the token that it has not "
        "seen yet: number t + 1.",
        "The last output has no next token in the table, the first token is nobody's next one: "
        "`logits[:, :-1]` and `tokens[:, 1:]`.",
    ),
    axes="B T-1",
    inputs=_logits_and_tokens,
    sizes=((2, 3, 4), (1, 4, 3), (3, 5, 6), (2, 6, 5), (4, 3, 2)),
    reference=_next_token_loss_reference,
)
def next_token_loss(logits, tokens):
    """How surprising each next token is, in nats: logits (B, T, V), tokens (B, T) to (B, T - 1)."""
    # The broken line judged output t by token t, which it has seen. Its question is token t + 1, and the
    # last output, whose next token is not in the table, is not judged.
    logs = logits[:, :-1].log_softmax(dim=-1)
    targets = tokens[:, 1:]
    return -logs.gather(-1, targets[..., None]).squeeze(-1)


def _losses(logits, targets, dim=-1):
    return -logits.log_softmax(dim).gather(-1, targets[..., None]).squeeze(-1)


@next_token_loss.slip("""
    Every output is still judged by the token that it has seen, number t. It should be judged by the next one,
    number t + 1, so the last output has nothing to be judged by.""")
def _still_judged_by_itself(logits, tokens):
    return _losses(logits, tokens)


@next_token_loss.slip("""
    The shape is right, but you cut the last place off both: output t is still judged by token t. Cut the last
    output and the first token.""")
def _both_cut_at_the_end(logits, tokens):
    return _losses(logits[:, :-1], tokens[:, :-1])


@next_token_loss.slip("""
    The shape is right, but you cut the first place off both: output t is still judged by token t. Cut the
    last output and the first token.""")
def _both_cut_at_the_start(logits, tokens):
    return _losses(logits[:, 1:], tokens[:, 1:])


@next_token_loss.slip("""
    You moved the tokens the wrong way: each output is judged by the token before the one it has just seen. It
    is the next token that should be guessed.""")
def _judged_by_the_one_before(logits, tokens):
    return _losses(logits[:, 1:], tokens[:, :-1])


@next_token_loss.slip("""
    You rolled the tokens round: the last output is judged by the first token of its sentence. It has no next
    token; leave it out.""")
def _rolled_round(logits, tokens):
    return _losses(logits, tokens.roll(-1, 1))


@next_token_loss.slip("""
    The tokens are right, but the sign is not: a loss is minus the logarithm of the probability, and never
    below 0.""")
def _sign_turned(logits, tokens):
    return -_losses(logits[:, :-1], tokens[:, 1:])


@next_token_loss.slip("""
    The tokens are right, but you summed the losses up, or took their mean. Here each place keeps its own:
    (B, T - 1).""")
def _mean_of_all(logits, tokens):
    return _losses(logits[:, :-1], tokens[:, 1:]).mean()


@next_token_loss.slip("""
    The tokens are right, but the softmax runs over the places, not over the V tokens, the last axis. That
    line was right.""")
def _softmax_over_places(logits, tokens):
    return _losses(logits[:, :-1], tokens[:, 1:], dim=1)


@next_token_loss.slip("""
    The tokens are right, but these are probabilities, with a minus in front. The loss is minus their
    logarithm: `log_softmax` was right.""")
def _probabilities(logits, tokens):
    return -logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


@next_token_loss.slip("""
    The tokens are right, but you took the bare logits. Only their softmax makes probabilities of them:
    `log_softmax` was right.""")
def _bare_logits(logits, tokens):
    return -logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]


@next_token_loss.slip("""
    Right, but for the last axis, which is 1 long: take it away again, `.squeeze(-1)`.""")
def _axis_too_many(logits, tokens):
    return _losses(logits[:, :-1], tokens[:, 1:])[..., None]


@next_token_loss.slip("""
    You rolled the tokens the wrong way: each output is judged by the token before the one it has just seen,
    and the first by the last of its sentence. It is the next token that should be guessed.""")
def _rolled_the_wrong_way(logits, tokens):
    return _losses(logits, tokens.roll(1, 1))[:, :-1]


@next_token_loss.slip("""
    Shifted twice: each output is judged by the token after the next, and a place is missing. The next token,
    number t + 1, is asked for.""")
def _shifted_twice(logits, tokens):
    return _losses(logits[:, :-2], tokens[:, 2:])


@next_token_loss.slip("""
    You added 1 to the ids. The next token is not the next word of the vocabulary: it is what stands one place
    further on in `tokens`.""")
def _next_id(logits, tokens):
    return _losses(logits, (tokens + 1) % logits.shape[-1])[:, :-1]


@next_token_loss.slip("""
    You cut a sentence off, the first axis. It is places that have no partner: the second axis, (B, T).""")
def _sentences_cut(logits, tokens):
    return _losses(logits[:-1], tokens[1:])


@next_token_loss.slip("""
    The tokens are right, but you took a mean over the places of each sentence. Here each place keeps its own
    loss: (B, T - 1).""")
def _mean_of_each_sentence(logits, tokens):
    return _losses(logits[:, :-1], tokens[:, 1:]).mean(-1)


@next_token_loss.slip("""
    Right, but in bits: you took logarithms to the base 2. A nat belongs to the natural logarithm, and that is
    what `log_softmax` gives.""")
def _in_bits(logits, tokens):
    return _losses(logits[:, :-1], tokens[:, 1:]) / np.log(2)


@next_token_loss.crash("""
    `gather` takes an index with as many axes as the tensor that it picks from: `targets[..., None]` has
    three. That line was right.""")
def _index_without_its_axis(logits, tokens):
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:])


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How far a window reaches",
    statement="""
        Each layer of a model has the mask `sliding_window_mask(64, window=4) & causal_mask(64)`: a token sees
        itself and the two tokens before it. The layers stand on each other, with skip connections.

        Before you run anything: after how many layers can the output at place 30 depend on the token at
        place 9? Answer with the smallest such number.
        """,
    hints=(
        "After one layer, place 30 knows of the places 28 and 29, besides itself.",
        "In the second layer it looks at place 28 again, which by then knows of the places 26 and 27.",
        "Each layer carries news two places further. The way is 30 - 9 = 21 places long.",
    ),
    expected=11,
    wrong={
        21: "That would be one place a layer. A token sees the two tokens before it, so news travels two "
        "places a layer.",
        6: "That would be four places a layer, the whole window. But half of it lies in the future, and the "
        "causal mask took that away: two places are left.",
        5: "Even at four places a layer, the whole window, 5 layers would not be enough for 21 places. And "
        "half of the window lies in the future, which the causal mask took away.",
        10: "After 10 layers news has travelled 20 places, to place 29 from place 9. One is missing.",
        10.5: "There is no half a layer: how many whole ones are needed for 21 places?",
        7: "That would be three places a layer. A token sees three places, but one of them is its own.",
        1: "In one layer place 30 looks at the places 28 to 30. Place 9 lies far outside; others must hand "
        "it on.",
        22: "Even at one place a layer 21 layers would be enough. And news travels further than that.",
        20: "At one place a layer, 20 layers would carry news 20 places, and the way is 21 long. But a token "
        "sees two tokens before it.",
        12: "One too many: 11 layers carry news 22 places far, and 21 are enough.",
    },
    otherwise="Not that number. How many places does news travel in one layer, and how long is the way?",
    form="one number",
)
def layers_needed():
    """Two places a layer: 10 layers carry news 20 places, 11 carry it 22, and the way is 21 places long."""
    places = torch.arange(64)
    distance = places[:, None] - places
    step = ((distance >= 0) & (distance <= 2)).float()  # 1 where a token may look in one layer
    reached, n_layers = step, 1
    while reached[30, 9] == 0:
        reached, n_layers = (step @ reached > 0).float(), n_layers + 1
    return n_layers


# --- 10 ------------------------------------------------------------------------------------------------


def _global_tokens(rng: np.random.Generator, T: int, window: int, *chosen: int) -> dict[str, Any]:
    return {"is_global": np.isin(np.arange(T), chosen), "window": window}


def _window_reference(is_global: np.ndarray, window: int) -> np.ndarray:
    T = len(is_global)
    mask = np.zeros((T, T), dtype=bool)
    for t in range(T):
        mask[t, max(0, t - window // 2) : t + window // 2 + 1] = True
    for g in np.flatnonzero(is_global):
        mask[g], mask[:, g] = True, True
    return mask


@chapter.implement(
    title="A window, and tokens that see all",
    statement="""
        Long texts are read through a window: a token sees those at most `window // 2` places away, to both
        sides. A few tokens are global: they see all tokens, and all tokens see them. `is_global` is boolean,
        of shape (T), True for each of these.

        Write the mask (T, T), boolean, True = may attend.
        """,
    hints=(
        "The window first: the distance of places t and s is `(places[:, None] - places).abs()`.",
        "A global token sees all: its row is True. And it is seen by all: its column is True. "
        "`is_global[:, None]` has the shape (T, 1), a column of its own; what does it do when it is combined "
        "with a table (T, T)?",
        "One of three reasons is enough: near, or the query is global, or the key is. Which operator is it?",
    ),
    axes="T T",
    inputs=_global_tokens,
    sizes=((4, 2, 0), (6, 2, 3), (5, 3, 4), (7, 4, 0, 5), (5, 0, 2), (8, 4), (3, 6, 1)),
    reference=_window_reference,
    gradient=False,
)
def window_with_global(is_global, window):
    """A token sees its neighbours, a global one sees all and is seen by all: (T) to a mask (T, T)."""
    places = torch.arange(len(is_global), device=is_global.device)
    near = (places[:, None] - places).abs() <= window // 2
    # One reason is enough: near, or the query is global (its row), or the key is (its column).
    return near | is_global[:, None] | is_global


def _near(is_global, reach):
    places = torch.arange(len(is_global))
    return (places[:, None] - places).abs() <= reach


@window_with_global.slip("""
    Global tokens see all, but not all see them: only their rows are True. Their columns should be, too.""")
def _rows_only(is_global, window):
    return _near(is_global, window // 2) | is_global[:, None]


@window_with_global.slip("""
    All see the global tokens, but these do not see all: only their columns are True. Their rows should be,
    too.""")
def _columns_only(is_global, window):
    return _near(is_global, window // 2) | is_global


@window_with_global.slip("""
    Only pairs of two global tokens got their True. One global token of the two is enough: `|`, not `&`.""")
def _both_must_be_global(is_global, window):
    return _near(is_global, window // 2) | (is_global[:, None] & is_global)


@window_with_global.slip("""
    This is the window alone. Rows and columns of global tokens should be True as well.""")
def _window_alone(is_global, window):
    return _near(is_global, window // 2)


@window_with_global.slip("""
    Rows and columns of global tokens are right; the window is missing.""")
def _global_alone(is_global, window):
    return is_global[:, None] | is_global


@window_with_global.slip("""
    Your window reaches `window` places to each side, twice as far as it should: `window // 2` to each.""")
def _window_not_halved(is_global, window):
    return _near(is_global, window) | is_global[:, None] | is_global


@window_with_global.slip("""
    Your window ends one place too early: a token `window // 2` places away may still be seen, `<=`.""")
def _window_too_narrow(is_global, window):
    return _near(is_global, window // 2 - 1) | is_global[:, None] | is_global


@window_with_global.slip("""
    Your window reaches back only. It should reach to both sides: compare the distance without its sign,
    `.abs()`.""")
def _window_of_the_past(is_global, window):
    return _near(is_global, window // 2).tril() | is_global[:, None] | is_global


@window_with_global.slip("""
    Your window is open to one side: without `.abs()`, all tokens on the other side count as near.""")
def _distance_with_its_sign(is_global, window):
    return _square(len(is_global)).triu(-(window // 2)) | is_global[:, None] | is_global


@window_with_global.slip("""
    Your window is open to one side: without `.abs()`, all tokens of the past count as near.""")
def _distance_with_the_other_sign(is_global, window):
    return _square(len(is_global)).tril(window // 2) | is_global[:, None] | is_global


@window_with_global.slip("""
    You took the future away. Here tokens see to both sides; `& causal` would be a mask of its own.""")
def _past_only(is_global, window):
    return window_with_global.solve(is_global, window).tril()


@window_with_global.slip("""
    Your mask says True where a key is hidden. Here True = may attend.""")
def _far_is_true(is_global, window):
    return ~window_with_global.solve(is_global, window)


@window_with_global.slip("""
    You joined window and global tokens with `&`: a pair had to be near, too. To be near is one reason, to be
    global another, and one is enough: `|`.""")
def _near_and_global(is_global, window):
    return _near(is_global, window // 2) & (is_global[:, None] | is_global)


@window_with_global.slip("""
    `|` binds more tightly than `<=`: the distance was compared with `window // 2 | is_global ...`. Put the
    comparison into brackets.""")
def _or_before_the_comparison(is_global, window):
    places = torch.arange(len(is_global))
    return (places[:, None] - places).abs() <= (window // 2 | is_global | is_global[:, None])


@window_with_global.slip("""
    The first rows lost their window: a slice that begins at a number below 0 counts from the end. Let it
    begin at 0.""")
def _slice_that_begins_below_zero(is_global, window):
    mask = is_global[:, None] | is_global
    for t in range(len(is_global)):
        mask[t, t - window // 2 : t + window // 2 + 1] = True
    return mask


@window_with_global.slip("""
    Your window ends one place too early on the right: a slice stops before its end, so that it must end at
    `t + window // 2 + 1`.""")
def _slice_without_its_end(is_global, window):
    mask = is_global[:, None] | is_global
    for t in range(len(is_global)):
        mask[t, max(0, t - window // 2) : t + window // 2] = True
    return mask


@window_with_global.slip("""
    The entries are right, but there are four axes, (1, 1, T, T); here two are asked for, (T, T).""")
def _two_axes_too_many(is_global, window):
    return window_with_global.solve(is_global, window)[None, None]


@window_with_global.crash("""
    Python's `and`, `or`, `not` and `if` ask for one truth value, and a table holds many. `&`, `|` and `~`
    work entry by entry.""")
def _python_s_or(is_global, window):
    return _near(is_global, window // 2) or is_global


# --- 11 ------------------------------------------------------------------------------------------------


_PACKED = (  # each word is a row, each letter a token of the text of that name
    ("aab", "abb"),
    ("aabb", "abcc", "aaaa"),
    ("aaabbcc",),
    ("abbccc", "aabbbb"),
    ("abcde", "aabbb", "aaaab", "abbbc"),
)


def _segments(rng: np.random.Generator, *rows: str) -> dict[str, np.ndarray]:
    """A row for each word: its letters are the texts. The numbers of the texts come in no order."""
    letters = sorted({letter for row in rows for letter in row})
    numbers = dict(zip(letters, rng.permutation(9)[: len(letters)], strict=True))
    return {"segments": np.array([[numbers[letter] for letter in row] for row in rows])}


def _packing_reference(segments: np.ndarray) -> np.ndarray:
    B, T = segments.shape
    mask = np.zeros((B, 1, T, T), dtype=bool)
    for b, t in np.ndindex(B, T):
        s = t
        while s >= 0 and segments[b, s] == segments[b, t]:  # back to where the text begins
            mask[b, 0, t, s] = True
            s -= 1
    return mask


@chapter.implement(
    title="Several texts in one row",
    statement="""
        To waste no room on padding, short texts are packed into one row, one after another. `segments` has
        the shape (B, T) and says which text each token belongs to, by a number, for instance 7 7 7 2 2 4; the
        numbers are in no order, and the tokens of one text stand side by side.

        Write the mask of a causal model, so that the texts of a row know nothing of each other: boolean,
        True = may attend, of shape (B, 1, T, T).
        """,
    hints=(
        "Two conditions: the key belongs to the same text as the query, and it does not come later.",
        "To compare each token with each other one, (B, T, 1) meets (B, 1, T): "
        "`segments[:, :, None] == segments[:, None, :]`.",
        "Both must hold, `&` with the triangle (T, T); then an axis for the heads is missing.",
    ),
    axes="B 1 T T",
    inputs=_segments,
    sizes=_PACKED,
    reference=_packing_reference,
    gradient=False,
)
def packing(segments):
    """A token sees itself and the past of its own text: segments (B, T) to a mask (B, 1, T, T)."""
    T = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]  # (B, T, 1) against (B, 1, T): all pairs
    past = torch.ones(T, T, dtype=torch.bool, device=segments.device).tril()
    return (same & past)[:, None]


def _same(segments):
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def _past_of(segments):
    return _square(segments.shape[1]).tril()


@packing.slip("""
    The texts are kept apart, but within a text each token sees the future. Combine it with the triangle.""")
def _apart_but_not_causal(segments):
    return _same(segments)


@packing.slip("""
    The future is hidden, but the texts know of each other: this is the triangle alone. Keep only pairs of the
    same text.""")
def _causal_but_not_apart(segments):
    return _past_of(segments).expand(len(segments), 1, -1, -1)


@packing.slip("""
    One condition is enough in your mask, same text or past. Both must hold: `&`, not `|`.""")
def _one_is_enough(segments):
    return _same(segments) | _past_of(segments)


@packing.slip("""
    You compared the numbers of the texts by size. They are names, in no order: only whether they are equal
    counts.""")
def _numbers_in_order(segments):
    return ((segments[:, :, None] >= segments[:, None, :]) & _past_of(segments))[:, None]


@packing.slip("""
    Your triangle lies on the wrong side: each token sees itself and the rest of its text, not its beginning.
    """)
def _rest_of_the_text(segments):
    return _same(segments) & _past_of(segments).T


@packing.slip("""
    No token sees itself, and the first of each text sees nothing. The diagonal belongs to the triangle.""")
def _no_token_sees_itself(segments):
    return _same(segments) & _past_of(segments).tril(-1)


@packing.slip("""
    Each token sees the next one of its text, too: the triangle has one diagonal too many.""")
def _next_one_seen(segments):
    return _same(segments) & _square(segments.shape[1]).tril(1)


@packing.slip("""
    A token sees the past of all texts but its own: compare with `==`, not with `!=`.""")
def _other_texts(segments):
    return ~_same(segments) & _past_of(segments)


@packing.slip("""
    Your mask says True where a key is hidden. Here True = may attend.""")
def _apart_is_true(segments):
    return ~(_same(segments) & _past_of(segments))


@packing.slip("""
    The entries are right, but the axis for the heads is missing: put one of length 1 behind B.""")
def _without_heads(segments):
    return (_same(segments) & _past_of(segments))[:, 0]


@packing.slip("""
    You used the texts of the first row for all rows. Each row is packed in its own way.""")
def _first_row_for_all(segments):
    return (_same(segments) & _past_of(segments))[:1].expand(len(segments), -1, -1, -1)


@packing.slip("""
    You compared the numbers of the texts by size, `<=`. They are names, in no order: only whether they are
    equal counts.""")
def _numbers_in_the_other_order(segments):
    return ((segments[:, :, None] <= segments[:, None, :]) & _past_of(segments))[:, None]


@packing.slip("""
    The entries are right, but the axis of the heads stands in front: (1, B, T, T) takes sentences for heads.
    It belongs behind B.""")
def _heads_in_front(segments):
    return (_same(segments) & _past_of(segments)).transpose(0, 1)


@packing.slip("""
    `&` binds more tightly than `==`: what was compared on the right is `segments & triangle`. Put the
    comparison into brackets.""")
def _and_before_equal(segments):
    return segments[:, None, :, None] == (segments[:, None, None, :] & _past_of(segments))


@packing.crash("""
    `&` works on booleans, and one of your tables holds real numbers: so does `torch.ones(T, T)`, unless it is
    given `dtype=torch.bool`.""")
def _triangle_in_real_numbers(segments):
    return _same(segments) & _past_of(segments).float()


# --- 12 ------------------------------------------------------------------------------------------------


def _positions_reference(segments: np.ndarray) -> np.ndarray:
    positions = np.zeros(segments.shape, dtype=np.int64)
    for b, t in np.argwhere(segments[:, 1:] == segments[:, :-1]):
        positions[b, t + 1] = positions[b, t] + 1  # argwhere goes from left to right
    return positions


@chapter.implement(
    title="Positions that begin again",
    statement="""
        A mask keeps packed texts apart, but a model that numbers its places from 0 to T - 1 still tells the
        second text that it begins in the middle. Number the tokens of each text by themselves: whole numbers
        of shape (B, T), 0, 1, 2 and so on, and 0 again where the next text begins. `segments` is as in the
        exercise before, so 7 7 7 2 2 4 becomes 0 1 2 0 1 0.
        """,
    hints=(
        "The position of a token is how many tokens of its own text stand before it.",
        "So count in the mask of the exercise before: how many keys does a token see, besides itself?",
        "Make a mask (B, T, T) of pairs of the same text in which the key comes earlier; `.sum(dim=-1)` "
        "counts the True of each row.",
    ),
    axes="B T",
    inputs=_segments,
    sizes=_PACKED,
    reference=_positions_reference,
    gradient=False,
)
def positions_anew(segments):
    """The position of each token within its own text: segments (B, T) to whole numbers (B, T)."""
    places = torch.arange(segments.shape[1], device=segments.device)
    same = segments[:, :, None] == segments[:, None, :]
    earlier = places < places[:, None]  # row: a token; column: one that may stand before it
    return (same & earlier).sum(dim=-1)  # how many of its own text stand before it


def _restart(segments):
    return packing.solve(segments)[:, 0].sum(-1) - 1


@positions_anew.slip("""
    You number the places of the whole row. Each text should begin with 0 again.""")
def _whole_row(segments):
    return torch.arange(segments.shape[1]).expand_as(segments)


@positions_anew.slip("""
    Your positions begin with 1: each token counted itself as well. Count those before it only.""")
def _from_one(segments):
    return _restart(segments) + 1


@positions_anew.slip("""
    You count backwards, to the end of each text: count the tokens before, not those after.""")
def _backwards(segments):
    return (_same(segments) & _past_of(segments).T)[:, 0].sum(-1) - 1


@positions_anew.slip("""
    You number the texts, not the tokens: all tokens of a text got the same number.""")
def _number_of_the_text(segments):
    begins = torch.zeros_like(segments)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return begins.cumsum(1)


@positions_anew.slip("""
    Every token got the length of its text. Count only the tokens of the text that stand before it.""")
def _length_of_the_text(segments):
    return _same(segments)[:, 0].sum(-1)


@positions_anew.slip("""
    Your numbers say where in the row each text begins: so many tokens of other texts stand before it. Count
    those of its own text that stand before the token.""")
def _where_the_text_begins(segments):
    return torch.arange(segments.shape[1]) - _restart(segments)


@positions_anew.slip("""
    You numbered the first row and used it for all. Each row is packed in its own way.""")
def _first_row_numbered(segments):
    return _restart(segments)[:1].expand_as(segments)


@positions_anew.slip("""
    All tokens of a text got the same number, its length less 1. Count only the tokens of the text that stand
    before each.""")
def _length_less_one(segments):
    return _same(segments)[:, 0].sum(-1) - 1


@positions_anew.slip("""
    All your positions are 0. If you keep counts in a dictionary: a tensor of one number is a new key each
    time, `.item()` or `.tolist()` makes a number of it.""")
def _all_zero(segments):
    return torch.zeros_like(segments)


@positions_anew.slip("""
    Your count stands still where a text begins, and goes on after that. It should begin with 0 again.""")
def _stands_still(segments):
    same = torch.zeros_like(segments)
    same[:, 1:] = segments[:, 1:] == segments[:, :-1]
    return same.cumsum(1)


@positions_anew.slip("""
    A text of one row was counted on in the next row, where its number means another text. Begin a new count
    for each row.""")
def _counted_through_all_rows(segments):
    seen, rows = {}, []
    for row in segments.tolist():
        rows.append([])
        for text in row:
            seen[text] = seen.get(text, -1) + 1
            rows[-1].append(seen[text])
    return torch.tensor(rows)


@positions_anew.slip("""
    Your count goes on from the row before, if no other text begins in between. It should begin with 0 in each
    row.""")
def _row_begins_with_the_old_count(segments):
    out, count = torch.zeros_like(segments), 0
    for b, row in enumerate(segments):
        for t in range(1, len(row)):
            count = count + 1 if row[t] == row[t - 1] else 0
            out[b, t] = count
    return out


# --- 13 ------------------------------------------------------------------------------------------------


def _block_inputs(rng: np.random.Generator, B: int, T: int, D: int) -> dict[str, Any]:
    weights = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        weights[f"{name}.weight"] = 2 * rng.standard_normal((D, D)) * D**-0.5
        weights[f"{name}.bias"] = rng.standard_normal(D)
    return {"d_model": D, **weights, "x": rng.standard_normal((B, T, D)) + 1}


def _block_reference(d_model: int, x: np.ndarray, **weights: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    for b, t in np.ndindex(x.shape[:2]):
        past = np.stack([token - token.sum() / d_model for token in x[b, : t + 1]])  # itself and what it saw
        q, k, v = (
            past @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
            for name in ("q_proj", "k_proj", "v_proj")
        )
        out[b, t] = x[b, t] + _softmax(k @ q[-1] / d_model**0.5) @ v
    return out


class _Leaking:  # so that both classes of this name can be told apart
    class CausalBlock(nn.Module):
        """Takes the mean out of each token, attends to the past, adds that to x: (B, T, D) to (B, T, D)."""

        def __init__(self, d_model):
            super().__init__()
            self.q_proj = nn.Linear(d_model, d_model)
            self.k_proj = nn.Linear(d_model, d_model)
            self.v_proj = nn.Linear(d_model, d_model)

        def forward(self, x):
            centred = x - x.mean(dim=1, keepdim=True)
            q, k, v = self.q_proj(centred), self.k_proj(centred), self.v_proj(centred)
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            past = torch.ones_like(scores, dtype=torch.bool).tril()
            weights = scores.masked_fill(~past, float("-inf")).softmax(dim=-1)
            return x + weights @ v


@chapter.debug_module(
    broken=_Leaking.CausalBlock,
    title="A leak beside the mask",
    statement="""
        This block should take from each token the mean of its D features, attend to the past, and add what
        it found to `x`. Its mask is right, and the future leaks all the same: change the last token, and
        every output changes. `masks.influence` shows it at once, with numbers above the diagonal.

        Find the line through which the tokens see each other without asking the mask, repair it, and hand the
        class in.
        """,
    hints=(
        "Go through `forward` line by line, with the shape (B, T, D) in mind. Which lines treat each token "
        "by itself, and which mix tokens? Only one should mix.",
        "`x.mean(dim=1, keepdim=True)` of (B, T, D) has the shape (B, 1, D). What was averaged away?",
        "Each token should lose the mean of its own features: average over the last axis.",
    ),
    axes="B T D",
    settings=("d_model",),
    forward=("x",),
    inputs=_block_inputs,
    sizes=((2, 5, 3), (3, 4, 2), (1, 2, 3), (4, 2, 5), (2, 6, 4)),
    reference=_block_reference,
)
class CausalBlock(nn.Module):
    """Takes the mean out of each token, attends to the past, adds that to x: (B, T, D) to (B, T, D)."""

    def __init__(self, d_model):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)

    def forward(self, x):
        # Over the features of each token. The broken line averaged over the tokens, those to come as well:
        # whatever mixes places before or after attention needs a mask of its own.
        centred = x - x.mean(dim=-1, keepdim=True)
        q, k, v = self.q_proj(centred), self.k_proj(centred), self.v_proj(centred)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        past = torch.ones_like(scores, dtype=torch.bool).tril()
        weights = scores.masked_fill(~past, float("-inf")).softmax(dim=-1)
        return x + weights @ v


class _Block(CausalBlock.solve):
    """The solution taken apart, so that each slip spoils one part."""

    def forward(self, x):
        centred = self.centre(x)
        q, k, v = self.q_proj(centred), self.k_proj(centred), self.v_proj(centred)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        return x + scores.masked_fill(~self.past(x.shape[1]), -torch.inf).softmax(-1) @ v

    def centre(self, x):
        return x - x.mean(-1, keepdim=True)

    def past(self, T):
        return _square(T).tril()


@CausalBlock.slip("""
    The leak is still there: each token still loses the mean of all tokens, the later ones too. It should lose
    the mean of its own features, the last axis.""")
class _MeanOfAllTokens(_Block):
    def centre(self, x):
        return x - x.mean(1, keepdim=True)


@CausalBlock.slip("""
    One number for each sentence is taken away now, the mean of all features of all tokens, and the later
    tokens are still in it. Average over the last axis alone.""")
class _MeanOfTheSentence(_Block):
    def centre(self, x):
        return x - x.mean((1, 2), keepdim=True)


@CausalBlock.slip("""
    One number is taken away from everything, the mean of the whole batch: now even other sentences leak.
    Average over the last axis alone.""")
class _MeanOfTheBatch(_Block):
    def centre(self, x):
        return x - x.mean()


@CausalBlock.slip("""
    You average over the sentences of the batch: the future no longer leaks, other sentences do. Average over
    the features, the last axis.""")
class _MeanOverSentences(_Block):
    def centre(self, x):
        return x - x.mean(0, keepdim=True)


@CausalBlock.slip("""
    The leak is gone, and with it the mean: nothing is taken away any more. Each token should lose the mean of
    its own features.""")
class _NothingTakenAway(_Block):
    def centre(self, x):
        return x


@CausalBlock.slip("""
    The leak is gone, but each token now loses the mean of the tokens up to it. Asked for is the mean of its
    own D features, one number for each token.""")
class _MeanOfThePast(_Block):
    def centre(self, x):
        return x - x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


@CausalBlock.slip("""
    You changed the mask, which was right; now no token sees itself, and the first output is NaN. The leak
    is elsewhere: which line averages over the tokens?""")
class _MaskWithoutDiagonal(_MeanOfAllTokens):
    def past(self, T):
        return _square(T).tril(-1)


@CausalBlock.slip("""
    The mean is right now, but the mask, which was right, lost its diagonal: no token sees itself, and the
    first output is NaN.""")
class _RepairedWithoutDiagonal(_Block):
    def past(self, T):
        return _square(T).tril(-1)


@CausalBlock.slip("""
    You took the mask away. It was right; it is the mean that lets the future in.""")
class _NoMask(_MeanOfAllTokens):
    def past(self, T):
        return _square(T)


@CausalBlock.slip("""
    The mean is right now, but the mask is gone, and the future comes in that way.""")
class _RepairedWithoutMask(_Block):
    def past(self, T):
        return _square(T)


@CausalBlock.slip("""
    The mean is right, but `x` itself is centred now, also where it is added at the end. Only what goes into
    the three projections loses its mean; the sum begins with `x` as it came.""")
class _CentredSum(_Block):
    def forward(self, x):
        return super().forward(x) - x.mean(-1, keepdim=True)


@CausalBlock.slip("""
    You divided each token by its length, or its spread, as well. Here only the mean is taken away; the whole
    normalisation has a chapter of its own.""")
class _Normalised(_Block):
    def centre(self, x):
        return nn.functional.layer_norm(x, x.shape[-1:])


@CausalBlock.slip("""
    The last line was `x` plus what attention found, and the `x` is gone. The leak is not there: bring the sum
    back.""")
class _RepairedWithoutSkip(_Block):
    def forward(self, x):
        return super().forward(x) - x


@CausalBlock.slip("""
    You divided each token by its standard deviation as well. Here only the mean is taken away; the whole
    normalisation has a chapter of its own.""")
class _Standardised(_Block):
    def centre(self, x):
        return super().centre(x) / x.std(-1, keepdim=True)


@CausalBlock.slip("""
    Queries and keys lose their mean, the values do not. All three are made from what the mean was taken from.
    """)
class _ValuesAsTheyCame(_Block):
    def forward(self, x):
        means = x.mean(-1, keepdim=True)
        q, k, v = self.q_proj(x - means), self.k_proj(x - means), self.v_proj(x)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~self.past(x.shape[1]), -torch.inf)
        return x + scores.softmax(-1) @ v


@CausalBlock.slip("""
    The mean is right now, but the softmax, which was right, runs over the queries: each query shares its
    weight among the keys, the last axis.""")
class _RepairedWithSoftmaxOverQueries(_Block):
    def forward(self, x):
        centred = self.centre(x)
        q, k, v = self.q_proj(centred), self.k_proj(centred), self.v_proj(centred)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~self.past(x.shape[1]), -torch.inf)
        return x + scores.softmax(1) @ v


@CausalBlock.slip("""
    The mean is right now, but the mask, which was right, was turned round: the past is hidden.""")
class _RepairedWithMaskTurnedRound(_Block):
    def past(self, T):
        return ~_square(T).tril()


@CausalBlock.crash("""
    A mean over dim=-1 has the shape (B, T), which does not fit (B, T, D). With `keepdim=True` it has
    (B, T, 1), and can be taken away.""")
class _AxisOfTheMeanLost(_Block):
    def centre(self, x):
        return x - x.mean(-1)


# --- 14 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="How much of the table is used",
    statement="""
        What do masks throw away? Draw texts of random lengths, each length from 1 to 64 equally likely, in
        batches of 16, and pad each batch to the longest of its texts. Do it for at least 1000 batches.

        For each batch take the mean of its padding mask (B, 1, 1, T), the share of keys that are real, and of
        the mask of exercise 6 (B, 1, T, T), the share of pairs that may attend: `mask.float().mean()`. Report
        both shares, each averaged over the batches.
        """,
    hints=(
        "A batch needs only lengths: `torch.randint(1, 65, (16,))`. The longest of them is T, and "
        "`torch.arange(T) < lengths[:, None]` says which places hold real tokens.",
        "With `padding_mask` and `causal_mask` of the package, ids are needed: real tokens may all be 1 and "
        "padding 0, `tokens = (torch.arange(T) < lengths[:, None]).int()`.",
        "Take the two means of every batch, collect them in two lists, and average each list.",
    ),
    ranges={"real keys": (0.525, 0.55), "pairs that may attend": (0.343, 0.361)},
    slips={
        "The two numbers are the other way round: first the keys, then the pairs.": (
            (0.343, 0.361),
            (0.525, 0.55),
        ),
        "These are the shares of False. `mask.float().mean()` counts the True ones.": (
            (0.45, 0.475),
            (0.639, 0.657),
        ),
        "Your tables are 64 long, or nearly, in every batch. Take 16 texts a batch, and pad each batch to "
        "the longest of its own texts.": (
            (0.495, 0.522),
            (0.33, 0.355),
        ),
        "The second number counts only the keys, once more: combine the mask with the triangle, `&`.": (
            (0.525, 0.55),
            (0.525, 0.55),
        ),
        "The second number is that of the triangle alone: combine it with the padding mask, `&`.": (
            (0.525, 0.55),
            (0.505, 0.515),
        ),
        "The second number holds all pairs that the past or the padding allows: `&`, not `|`.": (
            (0.525, 0.55),
            (0.68, 0.705),
        ),
        "In the second number padded queries count for nothing. In the mask of exercise 6 they keep their "
        "rows.": (
            (0.525, 0.55),
            (0.18, 0.21),
        ),
        "In the second number both tokens of a pair are real, and the future is seen. The mask of exercise 6 "
        "hides the future, and keeps the rows of padded queries.": (
            (0.525, 0.55),
            (0.37, 0.39),
        ),
        "Every key is real: so it is if each text is padded to its own length. Put 16 texts into one "
        "table.": (
            (0.999, 1.0),
            (0.5, 0.56),
        ),
    },
    at_most=(1.0, "A share is at most 1: divide by the number of entries, as `.mean()` does."),
    otherwise="Not in the range that 1000 batches give. Check: lengths from 1 to 64, 16 texts a batch, T the "
    "longest of them, the mean over all entries of each mask; report at least three digits.",
)
def shares_used():
    """A little over half of the keys are real, and only about a third of the pairs may attend: the rest of
    the table is computed and thrown away. Packing texts, and kernels that skip what is masked, win it back.
    """
    random = torch.Generator().manual_seed(0)
    keys, pairs = [], []
    for _ in range(1000):
        lengths = torch.randint(1, 65, (16, 1), generator=random)
        T = int(lengths.max())
        real = (torch.arange(T) < lengths)[:, None, None, :]  # (B, 1, 1, T)
        past = torch.ones(T, T, dtype=torch.bool).tril()
        keys.append(real.float().mean())
        pairs.append((real & past).float().mean())
    return torch.stack(keys).mean().item(), torch.stack(pairs).mean().item()
