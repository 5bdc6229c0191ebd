"""Exercises of the chapter "What heads do": scores, knock-outs, paths and patches, in rising order."""

from typing import Any

import numpy as np
import torch

from .check import Chapter

chapter = Chapter("induction", "What heads do")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Causal attention weights (..., T, T): each row sums to 1."""
    T = shape[-1]
    raw = rng.uniform(0.2, 1.0, (*shape, T)) * np.tril(np.ones((T, T)))
    return raw / raw.sum(axis=-1, keepdims=True)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Where to look",
    statement="""
        A model has read the letters *m o s a i c m o s*, in this order. Places are counted from 1, so the
        last letter, an *s*, stands at place 9. A perfect induction head makes the prediction after it.

        Before you run anything: at which place does the query of the last letter look?
        """,
    hints=(
        "What should be said next? Find that letter in the text.",
        "The head copies what it looks at. So it must look at the answer.",
        "The earlier s stands at place 3. The answer is what came after it.",
    ),
    expected=4.0,
    wrong={
        3.0: "That is the earlier copy, an s. A head that looks there and copies says s again. It should "
        "look at what came after it.",
        2.0: "That is the letter before the earlier copy. What is said next came after it.",
        8.0: "That is where a previous-token head looks: at the letter before. An induction head looks for "
        "what followed an earlier copy.",
        9.0: "That is the letter itself. It says what was read, and not what comes next.",
        10.0: "Place 10 is not there yet: it is what is to be said. Which letter of the text is it?",
        5.0: "Counted from 1, the i stands at place 5. The earlier s is at 3; the answer is one behind it.",
    },
    otherwise="Not that place. Find the earlier s, and then the letter that came after it.",
    form="one number, a place counted from 1",
)
def where_to_look():
    """Place 4, the a: it stands behind the earlier copy of s. The head finds it by a note that the first
    layer left there: "before me stands an s".
    """
    text = "mosaicmos"
    return text.index(text[-1]) + 2  # one for counting from 1, one for the letter behind the copy


# --- 2 -------------------------------------------------------------------------------------------------


def _score_inputs(rng: np.random.Generator, H: int, T: int) -> dict[str, Any]:
    return {"weights": _weights(rng, H, T)}


def _previous_reference(weights: np.ndarray) -> np.ndarray:
    T = weights.shape[-1]
    return np.array([np.mean([head[t, t - 1] for t in range(1, T)]) for head in weights])


@chapter.implement(
    title="Previous-token score",
    statement="""
        `weights` (H, T, T) are the attention weights of H heads on one text: row t belongs to the token that
        looks, column s to the token looked at. Write, for each head, the mean weight that a token gives to
        the token just before it: (H). The first token has none before it and is not asked.
        """,
    hints=(
        "On paper, for three tokens: which entries of the table are these? Row 1 looks at column 0, row 2 at "
        "column 1.",
        "They stand on a diagonal, one below the main one. `torch.diagonal` takes which diagonal, and of "
        "which two axes.",
        "`weights.diagonal(-1, dim1=1, dim2=2)` is (H, T - 1).",
    ),
    axes="H",
    inputs=_score_inputs,
    sizes=((2, 3), (3, 5), (1, 2), (2, 6)),
    reference=_previous_reference,
)
def previous_token_score(weights):
    """For each head the mean weight on the token just before: weights (H, T, T), an answer (H)."""
    # Row t, column t - 1: the diagonal below the main one has T - 1 entries, and the first row is not in it.
    return weights.diagonal(-1, dim1=1, dim2=2).mean(dim=1)


@previous_token_score.slip("""
    That is the diagonal above the main one: how much a token looks at the one after it. In a causal model
    that is 0. Rows look, columns are looked at.""")
def _looks_ahead(weights):
    return weights.diagonal(1, dim1=-2, dim2=-1).mean(dim=-1)


@previous_token_score.slip("""
    That is the main diagonal: how much a token looks at itself.""")
def _looks_at_itself(weights):
    return weights.diagonal(0, dim1=-2, dim2=-1).mean(dim=-1)


@previous_token_score.slip("""
    You divided by all T tokens. The first has none before it: T - 1 are asked.""")
def _divides_by_all(weights):
    return weights.diagonal(-1, dim1=-2, dim2=-1).sum(dim=-1) / weights.shape[-1]


@previous_token_score.slip("""
    That is a sum. The score is a mean, so that it does not grow with the text.""")
def _sums(weights):
    return weights.diagonal(-1, dim1=-2, dim2=-1).sum(dim=-1)


@previous_token_score.slip("""
    That is the weight on the first token, column 0. The token just before is another one in each row.""")
def _first_token(weights):
    return weights[:, 1:, 0].mean(dim=-1)


@previous_token_score.slip("""
    That is one mean over all heads. Each head has a score of its own.""")
def _mean_of_heads(weights):
    score = weights.diagonal(-1, dim1=-2, dim2=-1).mean()
    return score.expand(weights.shape[0])


@previous_token_score.slip("""
    The mean of all entries of the table says nothing: rows sum to 1, so it is always 1 / T.""")
def _mean_of_all(weights):
    return weights.mean(dim=(-2, -1))


@previous_token_score.slip("""
    That is one row only, the last token's. The score is a mean over all tokens but the first.""")
def _last_row(weights):
    return weights[:, -1, -2]


# --- 3 -------------------------------------------------------------------------------------------------


def _text_inputs(rng: np.random.Generator, T: int, V: int) -> dict[str, Any]:
    return {"tokens": rng.integers(0, V, T)}


def _behind_reference(tokens: np.ndarray) -> np.ndarray:
    T = len(tokens)
    table = np.zeros((T, T), dtype=bool)
    for t in range(T):
        for s in range(t):
            if tokens[s] == tokens[t]:
                table[t, s + 1] = True
    return table


@chapter.implement(
    title="The places behind earlier copies",
    statement="""
        `tokens` (T) are the ids of a text. Write a table of booleans, (T, T): in row t, column s is True if
        the token at s comes directly **after** an earlier copy of token t. So an induction head at t looks
        there.

        On the ids 5, 7, 5 there is one True: row 2, column 1. On 4, 4 there is one, too: row 1, column 1, for
        the second 4 itself comes after an earlier 4.
        """,
    hints=(
        "First the earlier copies themselves: where is token t equal to token s, with s before t?",
        "`tokens[:, None] == tokens[None, :]` compares all with all; `.tril(-1)` keeps what lies before.",
        "Then everything one column to the right. `roll(1, dims=1)` moves in a circle: what comes round? The "
        "last column of the copies is empty, since nothing lies before in it.",
    ),
    axes="T S",
    inputs=_text_inputs,
    sizes=((4, 2), (6, 3), (8, 3), (5, 2), (2, 1), (9, 4)),
    reference=_behind_reference,
    gradient=False,
)
def behind_copies(tokens):
    """Where the token of column s comes directly after an earlier copy of token t: tokens (T) to (T, T)."""
    # Everybody against everybody, and only what lies before: the earlier copies.
    copies = (tokens[:, None] == tokens[None, :]).tril(-1)
    # What stands behind a copy is one column further. The last column is empty, so nothing comes round.
    return copies.roll(1, dims=1)


@behind_copies.slip("""
    These are the earlier copies themselves. What came after them stands one column further to the right.""")
def _the_copies(tokens):
    return (tokens[:, None] == tokens[None, :]).tril(-1)


@behind_copies.slip("""
    One column too far to the left: these places come before the earlier copies.""")
def _before_the_copies(tokens):
    return (tokens[:, None] == tokens[None, :]).tril(-1).roll(-1, dims=1)


@behind_copies.slip("""
    A token counts itself as an earlier copy: `.tril()` keeps the diagonal. Then the token after it is marked,
    which is in the future, or comes round to column 0. Earlier means `.tril(-1)`.""")
def _itself_too(tokens):
    return (tokens[:, None] == tokens[None, :]).tril().roll(1, dims=1)


@behind_copies.slip("""
    Later copies are in your table, too. Only what lies before can be looked at: `.tril(-1)`, before you
    move it.
    """)
def _later_too(tokens):
    copies = tokens[:, None] == tokens[None, :]
    return (copies & ~torch.eye(len(tokens), dtype=torch.bool)).roll(1, dims=1)


@behind_copies.slip("""
    Your table is turned over: rows are the tokens that look, columns those looked at.""")
def _turned(tokens):
    return (tokens[:, None] == tokens[None, :]).tril(-1).roll(1, dims=1).T


@behind_copies.slip("""
    You moved the rows. A row is the token that looks, and it stays; the columns move by one.""")
def _moved_rows(tokens):
    return (tokens[:, None] == tokens[None, :]).tril(-1).roll(1, dims=0)


@behind_copies.slip("""
    You took the latest earlier copy only. All of them count.""")
def _latest_only(tokens):
    copies = (tokens[:, None] == tokens[None, :]).tril(-1)
    n = len(tokens)
    latest = torch.stack(
        [row & (torch.arange(n) == row.nonzero().max()) if row.any() else row for row in copies]
    )
    return latest.roll(1, dims=1)


@behind_copies.slip("""
    You took the first earlier copy only. All of them count.""")
def _first_only(tokens):
    copies = (tokens[:, None] == tokens[None, :]).tril(-1)
    n = len(tokens)
    first = torch.stack(
        [row & (torch.arange(n) == row.nonzero().min()) if row.any() else row for row in copies]
    )
    return first.roll(1, dims=1)


@behind_copies.slip("""
    Your table forbids a token to look at itself. In 4, 4 the second one does come directly after an earlier
    copy, so it belongs in the table.""")
def _never_itself(tokens):
    return (tokens[:, None] == tokens[None, :]).tril(-1).roll(1, dims=1).tril(-1)


# --- 4 -------------------------------------------------------------------------------------------------


def _induction_inputs(rng: np.random.Generator, H: int, T: int, V: int) -> dict[str, Any]:
    tokens = rng.integers(0, V, T)
    tokens[-1] = tokens[0]  # one token comes twice at least
    tokens[1] = V  # and one comes once
    return {"weights": _weights(rng, H, T), "tokens": tokens}


def _induction_reference(weights: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    scores = []
    for head in weights:
        sums = []
        for t in range(len(tokens)):
            behind = [s + 1 for s in range(t) if tokens[s] == tokens[t]]
            if behind:
                sums.append(sum(head[t, s] for s in behind))
        scores.append(np.mean(sums))
    return np.array(scores)


def induction_score(weights, tokens):
    """For each head the mean weight behind earlier copies: weights (H, T, T), tokens (T), an answer (H)."""
    places = (tokens[:, None] == tokens[None, :]).tril(-1)
    on = (weights * places).sum(dim=-1)
    return on.mean(dim=-1)


@chapter.debug(
    title="A score that finds nothing",
    statement="""
        Somebody looked for induction heads in a model that copies perfectly, with this function. It gave 0.01
        for every head.

        The score should be: for each token that has an earlier copy of itself, the sum of the weights on the
        places directly behind such copies; and the mean of that over **these** tokens.

        There are two faults. Find both, repair them, and hand the function in. `weights` is (H, T, T),
        `tokens` (T), the answer (H).
        """,
    hints=(
        "By hand, on 5, 7, 5: which entry of the table should count? Which one does the code take?",
        "The code marks the copies themselves. You have written a function that marks what stands behind "
        "them.",
        "And then: over how many tokens is the mean taken? Who has nothing to look back to gives a 0, and "
        "should not be asked.",
        "`places.any(dim=-1)` says who is asked, (T). `on[:, asked].mean(dim=-1)`.",
    ),
    axes="H",
    inputs=_induction_inputs,
    sizes=((2, 5, 2), (1, 6, 2), (3, 7, 3), (2, 4, 1)),
    reference=_induction_reference,
    broken=induction_score,
)
def induction_score(weights, tokens):
    """For each head the mean weight behind earlier copies: weights (H, T, T), tokens (T), an answer (H)."""
    # One column further than the copies: there stands what followed them.
    places = (tokens[:, None] == tokens[None, :]).tril(-1).roll(1, dims=1)
    on = (weights * places).sum(dim=-1)
    # Only tokens that have such a place are asked.
    asked = places.any(dim=1)
    return on[:, asked].mean(dim=1)


def _copies(tokens):
    return (tokens[:, None] == tokens[None, :]).tril(-1)


@induction_score.slip("""
    One fault is gone, the other is there: the weights on the copies themselves are still counted. What
    followed them stands one column further.""")
def _still_on_the_copies(weights, tokens):
    places = _copies(tokens)
    return (weights * places).sum(dim=-1)[:, places.any(dim=-1)].mean(dim=-1)


@induction_score.slip("""
    One fault is gone, the other is there: tokens without an earlier copy still count, as zeros. Ask only
    those that have one.""")
def _still_everybody(weights, tokens):
    return (weights * _copies(tokens).roll(1, dims=1)).sum(dim=-1).mean(dim=-1)


@induction_score.slip("""
    You look one place before the earlier copies. What followed them stands one column further to the
    right.""")
def _one_before(weights, tokens):
    copies = _copies(tokens)
    return (weights * copies.roll(-1, dims=1)).sum(dim=-1)[:, copies.any(dim=-1)].mean(dim=-1)


@induction_score.slip("""
    You take the mean over all places that count. A token with two earlier copies then counts twice: first
    the sum of its weights, then the mean over tokens.""")
def _mean_of_places(weights, tokens):
    places = _copies(tokens).roll(1, dims=1)
    return weights[:, places].mean(dim=-1)


@induction_score.slip("""
    That is the sum over the tokens. Divide by how many are asked.""")
def _sum_of_tokens(weights, tokens):
    return (weights * _copies(tokens).roll(1, dims=1)).sum(dim=(-2, -1))


@induction_score.slip("""
    Later copies count, too, and who asks counts as a copy of itself. `.tril(-1)` keeps what lies before.""")
def _all_copies(weights, tokens):
    places = (tokens[:, None] == tokens[None, :]).roll(1, dims=1)
    return (weights * places).sum(dim=-1)[:, places.any(dim=-1)].mean(dim=-1)


@induction_score.slip("""
    You moved the rows of the table, so that each token looks with the eyes of the one before. Rows stay;
    columns move by one.""")
def _moves_rows(weights, tokens):
    places = _copies(tokens).roll(1, dims=0)
    return (weights * places).sum(dim=-1)[:, places.any(dim=-1)].mean(dim=-1)


# --- 5 -------------------------------------------------------------------------------------------------


def _knock_inputs(rng: np.random.Generator, T: int, H: int, Dh: int, head: int) -> dict[str, Any]:
    D = H * Dh
    return {
        "z": rng.standard_normal((T, H, Dh)),
        "weight": rng.standard_normal((D, D)),
        "bias": rng.standard_normal(D),
        "head": head,
    }


def _knock_reference(z: np.ndarray, weight: np.ndarray, bias: np.ndarray, head: int) -> np.ndarray:
    T, H, Dh = z.shape
    out = np.tile(bias, (T, 1))
    for h in range(H):
        if h != head:
            out = out + z[:, h] @ weight[:, h * Dh : (h + 1) * Dh].T
    return out


@chapter.implement(
    title="Knock out a head",
    statement="""
        `z` (T, H, Dh) is what H heads found for T tokens. Side by side they are D = H · Dh numbers for each
        token; the last projection of the layer takes them, `weight` (D, D) with a row for each number of the
        stream, and `bias` (D). Write what the layer adds to the stream, (T, D), **without** the head number
        `head`, counted from 0: what it found is zero in its place. The bias is no head's, and stays.
        """,
    hints=(
        "With all heads it would be `z.flatten(1) @ weight.T + bias`.",
        "What goes missing is one head's part of a sum: its Dh numbers, times the columns of the weight that "
        "take them.",
        "Or set the numbers to zero before the projection. Do not write into `z`: make a copy, or multiply "
        "by a row of ones with a zero in it.",
        "`keep = torch.arange(z.shape[1]) != head`, and then `z * keep[:, None]`.",
    ),
    axes="T D",
    inputs=_knock_inputs,
    sizes=((2, 2, 3, 1), (1, 3, 2, 0), (3, 2, 2, 0), (2, 4, 2, 2), (2, 3, 3, 1)),
    reference=_knock_reference,
)
def without_head(z, weight, bias, head):
    """What a layer adds without one head: z (T, H, Dh), weight (D, D), bias (D), answer (T, D)."""
    # One factor for each head: 0 for the one that goes.
    keep = torch.arange(z.shape[1]) != head
    # The numbers of the heads side by side, as the projection expects them.
    return (z * keep[:, None]).flatten(1) @ weight.T + bias


def _mask_of(z, head):
    return (torch.arange(z.shape[1]) != head).to(z.dtype)[:, None]


@without_head.slip("""
    All heads are still there.""")
def _nothing_gone(z, weight, bias, head):
    return z.flatten(1) @ weight.T + bias


@without_head.slip("""
    The bias went with the head. It is added once for all heads, and belongs to none.""")
def _bias_gone(z, weight, bias, head):
    return (z * _mask_of(z, head)).flatten(1) @ weight.T


@without_head.slip("""
    You kept the head that should go, and took the others away.""")
def _only_that_one(z, weight, bias, head):
    return (z * (1 - _mask_of(z, head))).flatten(1) @ weight.T + bias


@without_head.slip("""
    You set Dh numbers of the *stream* to zero, after the projection. There every head has added to every
    number; take the head away before.""")
def _after_the_projection(z, weight, bias, head):
    Dh = z.shape[2]
    keep = (torch.arange(weight.shape[0]) // Dh != head).to(z.dtype)
    return (z.flatten(1) @ weight.T + bias) * keep


@without_head.slip("""
    You set rows of the weight to zero. Rows belong to the numbers of the stream; a head's numbers come in
    through columns.""")
def _rows(z, weight, bias, head):
    Dh = z.shape[2]
    keep = (torch.arange(weight.shape[0]) // Dh != head).to(z.dtype)
    return z.flatten(1) @ (weight * keep[:, None]).T + bias


@without_head.slip("""
    That is another head: they are counted from 0.""")
def _counted_from_one(z, weight, bias, head):
    return (z * _mask_of(z, head - 1)).flatten(1) @ weight.T + bias


@without_head.slip("""
    The projection is turned over. `weight` has a row for each number of the stream: `@ weight.T`, as in
    `nn.Linear`.""")
def _turned_over(z, weight, bias, head):
    return (z * _mask_of(z, head)).flatten(1) @ weight + bias


@without_head.slip("""
    You took number `head` of every head away, and not all numbers of one head: the axes of z are tokens,
    heads, numbers.""")
def _last_axis(z, weight, bias, head):
    keep = (torch.arange(z.shape[2]) != head).to(z.dtype)
    return (z * keep).flatten(1) @ weight.T + bias


@without_head.slip("""
    The numbers stand side by side in the wrong order: all first numbers of the heads, then all second ones.
    Head by head is what the projection expects: `flatten(1)` of (T, H, Dh).""")
def _interleaved(z, weight, bias, head):
    return (z * _mask_of(z, head)).transpose(1, 2).flatten(1) @ weight.T + bias


@without_head.crash("""
    The projection takes D = H · Dh numbers a token: put the heads side by side with `.flatten(1)` first.""")
def _not_flattened(z, weight, bias, head):
    return (z * _mask_of(z, head)) @ weight.T + bias


# --- 6 -------------------------------------------------------------------------------------------------


def _mean_inputs(rng: np.random.Generator, H: int, T: int, D: int, B: int, head: int) -> dict[str, Any]:
    others = rng.standard_normal((B, H, T, D)) + 1 + np.arange(T)[:, None]
    return {"out": rng.standard_normal((H, T, D)), "others": others, "head": head}


def _mean_reference(out: np.ndarray, others: np.ndarray, head: int) -> np.ndarray:
    total = np.zeros(out.shape[1:])
    for h in range(len(out)):
        total = total + (sum(text[h] for text in others) / len(others) if h == head else out[h])
    return total


@chapter.implement(
    title="Its mean in its place",
    statement="""
        `out` (H, T, D) is what each of H heads adds to the stream in one text. `others` (B, H, T, D) is the
        same in B other texts. Write what the heads add together, (T, D), if the head number `head` says
        nothing about this text: in place of what it adds comes its mean over the other texts, at each place
        by itself.
        """,
    hints=(
        "Which axis of `others` are the texts? After the mean over it, what is left for one head?",
        "`others[:, head].mean(dim=0)` is (T, D).",
        "The sum of all heads, minus what this one adds, plus its mean.",
    ),
    axes="T D",
    inputs=_mean_inputs,
    sizes=((2, 3, 2, 4, 0), (3, 2, 4, 5, 2), (2, 4, 3, 2, 1), (3, 3, 2, 4, 1)),
    reference=_mean_reference,
)
def with_mean(out, others, head):
    """What H heads add, one replaced by its mean: out (H, T, D), others (B, H, T, D), answer (T, D)."""
    # The mean over texts: a place keeps a mean of its own.
    usual = others[:, head].mean(dim=0)
    return out.sum(dim=0) - out[head] + usual


@with_mean.slip("""
    The head is taken away, and nothing comes in its place. That is a knock-out with zeros; here its mean is
    wanted.""")
def _zero(out, others, head):
    return out.sum(dim=0) - out[head]


@with_mean.slip("""
    Your mean comes on top of what the head adds here. Take that away.""")
def _on_top(out, others, head):
    return out.sum(dim=0) + others[:, head].mean(dim=0)


@with_mean.slip("""
    You took the mean over the places, too: one vector for all of them. A head may say something else at each
    place, and that is to stay.""")
def _one_for_all_places(out, others, head):
    return out.sum(dim=0) - out[head] + others[:, head].mean(dim=(0, 1))


@with_mean.slip("""
    Your mean is taken over the places of this text. It still knows the text. It should come from the
    others.""")
def _mean_of_this_text(out, others, head):
    return out.sum(dim=0) - out[head] + out[head].mean(dim=0)


@with_mean.slip("""
    You took the mean over all heads of the other texts. The head should be replaced by its own.""")
def _mean_of_all_heads(out, others, head):
    return out.sum(dim=0) - out[head] + others.mean(dim=(0, 1))


@with_mean.slip("""
    All heads are replaced by their means. One was asked for; the rest speak about this text.""")
def _all_replaced(out, others, head):
    return others.mean(dim=0).sum(dim=0)


@with_mean.slip("""
    That is the sum over the other texts. Divide by how many they are.""")
def _sum_of_texts(out, others, head):
    return out.sum(dim=0) - out[head] + others[:, head].sum(dim=0)


@with_mean.slip("""
    The heads are averaged at the end. They add to the stream: sum them.""")
def _averaged(out, others, head):
    return (out.sum(dim=0) - out[head] + others[:, head].mean(dim=0)) / len(out)


# --- 7 -------------------------------------------------------------------------------------------------


def _lens_inputs(rng: np.random.Generator, L: int, T: int, D: int, V: int) -> dict[str, Any]:
    streams = np.cumsum(rng.standard_normal((L, T, D)), axis=0)
    streams[:, 0] = streams[-1, 0]  # a token whose answer stands from the beginning
    return {"streams": streams, "unembed": rng.standard_normal((V, D))}


def _lens_reference(streams: np.ndarray, unembed: np.ndarray) -> np.ndarray:
    L, T, _ = streams.shape
    found = []
    for t in range(T):
        tops = [int(np.argmax(unembed @ streams[row, t])) for row in range(L)]
        row = L - 1
        while row and tops[row - 1] == tops[-1]:
            row -= 1
        found.append(row)
    return np.array(found)


@chapter.implement(
    title="From where on the answer stands",
    statement="""
        The logit lens reads the stream early. `streams` (L, T, D) is the stream at L moments: before the
        first layer, after it, and so on to the end. `unembed` (V, D) is the last projection, a row for each
        letter; there is no norm.

        For each of the T tokens write the first moment **from which on** the letter with the highest score is
        the one that has it at the end: (T), whole numbers from 0 to L - 1. (If the letter leads early, loses,
        and leads again, the early lead does not count.)
        """,
    hints=(
        "`(streams @ unembed.T).argmax(dim=-1)` are the leaders, (L, T).",
        "Where are they the final one, `leaders == leaders[-1]`? You want the length of the unbroken run of "
        "True at the end.",
        "Read backwards: flip the moments. A product that runs along, `cumprod`, is 1 until the first 0, and "
        "0 from there on.",
        "So `same.flip(0).cumprod(dim=0).sum(dim=0)` is how long the run is; the moment is L minus that.",
    ),
    axes="T",
    inputs=_lens_inputs,
    sizes=((3, 4, 3, 3), (5, 6, 2, 3), (2, 3, 4, 5), (6, 7, 3, 2), (4, 8, 2, 2)),
    reference=_lens_reference,
    gradient=False,
)
def settled(streams, unembed):
    """The moment from which on the final letter leads: streams (L, T, D), unembed (V, D), an answer (T)."""
    leaders = (streams @ unembed.T).argmax(dim=-1)
    same = leaders == leaders[-1]
    # From the end backwards, the product stays 1 as long as the lead is unbroken.
    run = same.flip(0).cumprod(dim=0).sum(dim=0)
    return len(streams) - run


def _leaders(streams, unembed):
    return (streams @ unembed.T).argmax(dim=-1)


@settled.slip("""
    You took the first moment at which the letter leads. If it loses the lead afterwards, that does not
    count: from this moment on it must lead to the end.""")
def _first_lead(streams, unembed):
    leaders = _leaders(streams, unembed)
    return (leaders == leaders[-1]).long().argmax(dim=0)


@settled.slip("""
    You counted the moments at which the letter leads, wherever they are. Only the unbroken run at the end
    counts.
    """)
def _counts(streams, unembed):
    leaders = _leaders(streams, unembed)
    return len(streams) - (leaders == leaders[-1]).sum(dim=0)


@settled.slip("""
    That is how long the last unbroken lead is. Asked for is when it begins: L minus that.""")
def _length_of_the_run(streams, unembed):
    leaders = _leaders(streams, unembed)
    return (leaders == leaders[-1]).long().flip(0).cumprod(dim=0).sum(dim=0)


@settled.slip("""
    One too small: that is the last moment at which another letter leads. From the next one on it stands.
    (Where none other ever led, you have -1.)""")
def _last_other(streams, unembed):
    leaders = _leaders(streams, unembed)
    return len(streams) - 1 - (leaders == leaders[-1]).long().flip(0).cumprod(dim=0).sum(dim=0)


@settled.slip("""
    One too large: moments are counted from 0, so the last is L - 1.""")
def _from_one(streams, unembed):
    leaders = _leaders(streams, unembed)
    return len(streams) + 1 - (leaders == leaders[-1]).long().flip(0).cumprod(dim=0).sum(dim=0)


@settled.slip("""
    You took the letter with the *lowest* score.""")
def _lowest(streams, unembed):
    leaders = (streams @ unembed.T).argmin(dim=-1)
    return len(streams) - (leaders == leaders[-1]).long().flip(0).cumprod(dim=0).sum(dim=0)


@settled.slip("""
    You compared with the letter that leads at the *beginning*. The model's answer is the one that leads at
    the end.""")
def _first_answer(streams, unembed):
    leaders = _leaders(streams, unembed)
    return len(streams) - (leaders == leaders[0]).long().flip(0).cumprod(dim=0).sum(dim=0)


@settled.slip("""
    You wanted all tokens to be settled at once: one moment for all. Each token has its own.""")
def _all_at_once(streams, unembed):
    leaders = _leaders(streams, unembed)
    same = (leaders == leaders[-1]).all(dim=1, keepdim=True).expand_as(leaders)
    return len(streams) - same.long().flip(0).cumprod(dim=0).sum(dim=0)


# --- 8 -------------------------------------------------------------------------------------------------


def _patch_inputs(rng: np.random.Generator, T: int, V: int, answer: int) -> dict[str, Any]:
    good, bad = rng.standard_normal((T, V)), rng.standard_normal((T, V))
    good[-1, answer] += 2.5
    bad[-1, answer] -= 1.5
    patched = (good + bad) / 2 + 0.2 * rng.standard_normal((T, V))
    return {"good": good, "bad": bad, "patched": patched, "answer": answer}


def _log_softmax(row: np.ndarray) -> np.ndarray:
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def _patch_reference(good: np.ndarray, bad: np.ndarray, patched: np.ndarray, answer: int) -> np.ndarray:
    a, b, c = (_log_softmax(run[-1])[answer] for run in (good, bad, patched))
    return np.asarray((c - b) / (a - b))


@chapter.implement(
    title="How much came back",
    statement="""
        Activation patching ends in one number. Three runs gave logits (T, V): the good text, `good`; the
        changed text, `bad`; the changed text with one vector put back, `patched`. The right letter after
        the last token is `answer`, a whole number. Take its **log probability** after the last token in
        each run, and write which share of what was lost came back: 0 if the patched run is as bad as the
        bad one, 1 if it is as good as the good one. One number, of shape ().
        """,
    hints=(
        "The log probability is `log_softmax` over the letters, at the last token: "
        "`run[-1].log_softmax(dim=-1)`.",
        "What was lost is the good one's minus the bad one's. What came back is the patched one's minus the "
        "bad one's.",
        "A helper for one run, called three times, keeps it short.",
    ),
    axes="",
    inputs=_patch_inputs,
    sizes=((2, 3, 1), (1, 4, 0), (3, 5, 4), (4, 3, 2)),
    reference=_patch_reference,
)
def restored(good, bad, patched, answer):
    """Which share of the lost log probability came back: three runs (T, V), a letter, one number."""
    # At the last token only: the answer is what comes after it.
    top, low, now = (run.log_softmax(dim=1)[-1, answer] for run in (good, bad, patched))
    return (now - low) / (top - low)


def _share(good, bad, patched, of):
    top, low, now = of(good), of(bad), of(patched)
    return (now - low) / (top - low)


@restored.slip("""
    You took probabilities. Their logarithm is asked for; in between, the two give different shares.""")
def _probabilities(good, bad, patched, answer):
    return _share(good, bad, patched, lambda run: run[-1].softmax(dim=-1)[answer])


@restored.slip("""
    You took the logits themselves. A logit means something only beside the others: `log_softmax` first.""")
def _logits(good, bad, patched, answer):
    return _share(good, bad, patched, lambda run: run[-1][answer])


@restored.slip("""
    That is which share is still missing: 1 minus what was asked for.""")
def _missing(good, bad, patched, answer):
    return 1 - restored.solve(good, bad, patched, answer)


@restored.slip("""
    You did not take away what the bad run has anyway: the patched one's is divided by the good one's.""")
def _not_from_the_bad(good, bad, patched, answer):
    top, now = (run[-1].log_softmax(dim=-1)[answer] for run in (good, patched))
    return now / top


@restored.slip("""
    What came back is not yet a share: divide by what was lost.""")
def _not_divided(good, bad, patched, answer):
    low, now = (run[-1].log_softmax(dim=-1)[answer] for run in (bad, patched))
    return now - low


@restored.slip("""
    You asked at all tokens and took the mean. The answer comes after the last one.""")
def _all_tokens(good, bad, patched, answer):
    return _share(good, bad, patched, lambda run: run.log_softmax(dim=-1)[:, answer].mean())


@restored.slip("""
    You asked at the first token. The answer comes after the last one.""")
def _first_of_all(good, bad, patched, answer):
    return _share(good, bad, patched, lambda run: run[0].log_softmax(dim=-1)[answer])


@restored.slip("""
    Your softmax runs over the tokens. The letters of one token share a probability of 1: the last axis.""")
def _over_tokens(good, bad, patched, answer):
    return _share(good, bad, patched, lambda run: run.log_softmax(dim=0)[-1, answer])


# --- 9 -------------------------------------------------------------------------------------------------


def _path_inputs(rng: np.random.Generator, T: int, D: int, Dh: int) -> dict[str, Any]:
    return {
        "stream": rng.standard_normal((T, D)),
        "written": rng.standard_normal((T, D)),
        "w_q": rng.standard_normal((Dh, D)) / D**0.5,
        "w_k": rng.standard_normal((Dh, D)) / D**0.5,
    }


def _path_reference(stream: np.ndarray, written: np.ndarray, w_q: np.ndarray, w_k: np.ndarray) -> np.ndarray:
    T, Dh = len(stream), len(w_q)
    table = np.zeros((T, T))
    for t in range(T):
        for s in range(t + 1):
            table[t, s] = (w_q @ stream[t]) @ (w_k @ (stream[s] - written[s])) / np.sqrt(Dh)
    table[np.triu_indices(T, 1)] = -np.inf
    table = np.exp(table - table.max(axis=1, keepdims=True))
    return table / table.sum(axis=1, keepdims=True)


def keys_without(stream, written, w_q, w_k):
    """Weights of a head whose keys do not see what was written: stream, written (T, D), answer (T, T)."""
    stream = stream - written
    q, k = stream @ w_q.T, stream @ w_k.T
    scores = q @ k.T / w_q.shape[0] ** 0.5
    place = torch.arange(len(stream))
    ahead = place > place[:, None]
    return scores.masked_fill(ahead, float("-inf")).softmax(dim=1)


@chapter.debug(
    title="A path that cuts too much",
    statement="""
        This function should show what a head of the second layer looks at if its **keys** do not see what a
        head of the first layer wrote: `written` (T, D), a part of the sum `stream` (T, D). The head's
        matrices are `w_q` and `w_k`, (Dh, D). The answer is the table of weights, (T, T), causal.

        The symptom: somebody cuts the keys, the queries, and both, and all three give the same weights. So it
        seemed that queries matter as much as keys.

        Find the fault, repair it, and hand the function in.
        """,
    hints=(
        "Who reads `stream` after its first line?",
        "Queries are made of it as well. They should see all of it.",
        "Leave `stream` as it is, and take `written` away only where the keys are made.",
    ),
    axes="T S",
    inputs=_path_inputs,
    sizes=((3, 4, 2), (2, 3, 1), (4, 6, 3), (5, 4, 4)),
    reference=_path_reference,
    broken=keys_without,
)
def keys_without(stream, written, w_q, w_k):
    """Weights of a head whose keys do not see what was written: stream, written (T, D), answer (T, T)."""
    # One path only: the queries still read the whole stream.
    q, k = stream @ w_q.T, (stream - written) @ w_k.T
    scores = q @ k.T / w_q.shape[0] ** 0.5
    place = torch.arange(len(stream))
    ahead = place > place[:, None]
    return scores.masked_fill(ahead, float("-inf")).softmax(dim=1)


def _looks(q, k, scale=True):
    scores = q @ k.T / (q.shape[1] ** 0.5 if scale else 1)
    ahead = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(ahead, float("-inf")).softmax(dim=-1)


@keys_without.slip("""
    Now nothing is cut: the keys see what was written, too.""")
def _nothing_cut(stream, written, w_q, w_k):
    return _looks(stream @ w_q.T, stream @ w_k.T)


@keys_without.slip("""
    Now the path into the *queries* is cut. It is the keys that should not see what was written.""")
def _queries_cut(stream, written, w_q, w_k):
    return _looks((stream - written) @ w_q.T, stream @ w_k.T)


@keys_without.slip("""
    Your keys see what was written twice over: it is added. It is a part of the stream already; take it
    away.""")
def _added(stream, written, w_q, w_k):
    return _looks(stream @ w_q.T, (stream + written) @ w_k.T)


@keys_without.slip("""
    Your keys see *only* what was written. They should see everything else.""")
def _only_written(stream, written, w_q, w_k):
    return _looks(stream @ w_q.T, written @ w_k.T)


@keys_without.slip("""
    You took the written part away from the stream, and not its key from the keys: `written` goes through
    `w_k`, and here it went through `w_q`.""")
def _through_the_wrong_matrix(stream, written, w_q, w_k):
    return _looks(stream @ w_q.T, stream @ w_k.T - written @ w_q.T)


@keys_without.slip("""
    The keys are cut as they should be, and the division by the root of Dh got lost on the way.""")
def _unscaled(stream, written, w_q, w_k):
    return _looks(stream @ w_q.T, (stream - written) @ w_k.T, scale=False)


@keys_without.slip("""
    The keys are cut as they should be, and the mask got lost on the way: tokens look ahead.""")
def _unmasked(stream, written, w_q, w_k):
    return (stream @ w_q.T @ ((stream - written) @ w_k.T).T / w_q.shape[0] ** 0.5).softmax(dim=-1)


# --- 10 ------------------------------------------------------------------------------------------------


@chapter.predict(
    title="What one layer can learn by heart",
    statement="""
        A model of one layer has a single head, which looks 9 places back, always, and says the letter that it
        sees there. The text is a segment of n different letters, again and again.

        Before you run anything: for **how many** of the lengths n = 2, 3, 4, ..., 12 does the model name the
        next letter rightly, once it is far enough in the text?
        """,
    hints=(
        "Let the last letter stand at place t. The model looks at place t - 9. Which place should it copy?",
        "The next letter, at t + 1, is the same as the one at t + 1 - n. For which n is that place t - 9?",
        "n = 10 is one. But the letter at t + 1 is also the same as that at t + 1 - 2n, t + 1 - 3n, ...",
        "So 10 must be a multiple of n.",
    ),
    expected=3.0,
    wrong={
        1.0: "n = 10, yes. But a shorter segment comes back more often: with n = 5 the place 10 before the "
        "next letter holds it, too.",
        2.0: "Count the divisors of 10 among 2 to 12. If you took those of 9, one more step: 9 back from the "
        "last letter is 10 back from the next one.",
        4.0: "The lengths begin at 2: a segment of one letter is not among them.",
        11.0: "All? Try n = 4: the text a b c d a b c d a b c d, and then look 9 places back from the last.",
        10.0: "That is one of the lengths for which it is right. The question is for how many it is.",
        0.0: "Try n = 10 with a pencil: the last letter at place 12, say, looks at place 3. What comes next?",
    },
    otherwise="Not that many. The next letter stands 10 places after the one looked at; for which n are two "
    "places that are 10 apart alike?",
    form="one number",
)
def by_heart():
    """Three: n = 2, 5 and 10, the divisors of 10. On these texts the head gets every answer right and a full
    induction score, and it has looked nothing up. So a score needs texts of several lengths.
    """
    return sum(10 % n == 0 for n in range(2, 13))


# --- 11 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="A perfect head in its place",
    statement="""
        We say that head 0.0 of `pretrained()` looks at the letter before. If that is all that matters about
        where it looks, then a *perfect* previous-token pattern in place of its weights should do as well, and
        an even one should not.

        Take `runs.new_rows()`. With an edit of `weights.0`, replace the weights of head 0 (and no other) by
        (a) 1 on the letter before, everywhere; the first letter looks at itself; (b) the same weight on every
        letter up to the own one. Report the share of right answers, as `runs.share_right` counts it, for (a)
        and for (b).
        """,
    hints=(
        "An edit is a function that gets the weights (B, H, T, S) and returns new ones. `trace` and "
        "`share_right` take them as a dictionary: `{'weights.0': edit}`.",
        "Inside: `new = weights.clone()`, then `new[:, 0] = pattern` with a pattern (T, T), and return it.",
        "(a): `torch.diag(torch.ones(23), -1)` is 1 on the letter before; the entry of row 0, column 0 is "
        "still to be set to 1.",
        "(b): ones below and on the diagonal, each row divided by its sum.",
    ),
    ranges={"a, perfect": (0.985, 1.0), "b, even": (0.265, 0.335)},
    slips={
        "You edited head 1 of the layer, which nothing hangs on. Head 0 is the one that looks back.": (
            (0.985, 1.0),
            (0.985, 1.0),
        ),
        "The two numbers are the other way round: first the perfect pattern, then the even one.": (
            (0.265, 0.335),
            (0.985, 1.0),
        ),
        "You edited the second layer. The previous-token head is in the first: `weights.0`.": (
            (0.8, 0.9),
            (0.985, 1.0),
        ),
        "Your share counts all letters, also those of the first segment, which nobody can know. "
        "`runs.share_right` leaves them out.": ((0.63, 0.69), (0.2, 0.25)),
        "In (a) each letter looks at itself. The letter before stands on the diagonal below: -1.": (
            (0.03, 0.07),
            (0.265, 0.335),
        ),
        "In (a) each letter looks at the one after it: the diagonal is above the main one. Below is -1.": (
            (0.0, 0.02),
            (0.265, 0.335),
        ),
        "In (a) each letter looks two places back. The letter before is one place back: -1.": (
            (0.075, 0.1),
            (0.265, 0.335),
        ),
        "These are percentages. Report shares, from 0 to 1.": ((98.5, 100.0), (26.5, 33.5)),
    },
    at_most=(1.0, "A share is at most 1. What did you count?"),
    otherwise="Not in the range. Edit the weights of head 0 in `weights.0`, and count with "
    "`runs.share_right` on `runs.new_rows()`.",
)
def perfect_pattern():
    """Everything stays right with the perfect pattern, at all 24 places, although the head itself stops
    looking back after place 13; and with the even one three in ten are left. So what matters about where
    this head looks is that it looks at the letter before. That is stronger than a score: we put the story in
    the head's place, and the model did not notice.
    """
    from transformer_lab.induction import pretrained
    from transformer_lab.training import induction as runs

    T = 24
    perfect = torch.diag(torch.ones(T - 1), -1)
    perfect[0, 0] = 1  # the first letter has only itself
    even = torch.ones(T, T).tril()
    even = even / even.sum(dim=1, keepdim=True)

    def in_place(pattern):
        def edit(weights):
            new = weights.clone()
            new[:, 0] = pattern
            return new

        return {"weights.0": edit}

    model, rows = pretrained(), runs.new_rows()
    return tuple(runs.share_right(model, rows, in_place(pattern)) for pattern in (perfect, even))
