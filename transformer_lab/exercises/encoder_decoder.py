"""Exercises of the chapter "The full model", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import nn

from .check import Chapter
from .check.references import softmax as _softmax

chapter = Chapter("encoder_decoder", "The full model")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


def _triangle(T: int, diagonal: int = 0) -> torch.Tensor:
    return torch.ones(T, T, dtype=torch.bool).tril(diagonal)


def _hidden(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(~mask, -torch.inf)


def _chosen(table: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of each row of V numbers the one of its token."""
    return table.gather(-1, tokens[..., None]).squeeze(-1)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The numbers of a decoder layer",
    statement="""
        A decoder layer has the width D = 4, H = 2 heads and F = 8 hidden numbers in its feed-forward network.
        Every projection has a bias, those of attention too, and every LayerNorm has a weight and a bias.

        Before you run anything: how many numbers does the layer learn, weights and biases together?
        """,
    hints=(
        "Which sub-layers does a decoder layer have? It has one more than a layer of the encoder. Each comes "
        "with a norm of its own.",
        "An attention has four projections from D to D, each with D biases. The heads share these D columns "
        "out among themselves; they add none.",
        "The feed-forward network goes from D to F, with F biases, and back, with D. A LayerNorm has 2 D "
        "numbers.",
        "80 for each of the two attentions, 40 + 36 for the network, 8 for each of the three norms.",
    ),
    expected=260,
    wrong={
        252: "8 are missing: two norms, as in the encoder. A decoder layer has three sub-layers, each with "
        "a norm.",
        172: "That is a layer of the encoder: one attention, one network, two norms. The decoder's reads the "
        "source, too, with an attention and a norm more.",
        180: "One attention only. A decoder layer has two: one reads the target, the other the source.",
        204: "That is right without any bias. Here every projection and every norm has one.",
        216: "The matrices and the norms are right; the biases of the projections are missing, 4 for each of "
        "eight in attention, 8 and 4 in the network.",
        228: "The biases of the two attentions are missing: four projections each, with 4 biases each.",
        248: "12 are missing: either the biases of the network, 8 + 4, or those of the three norms.",
        236: "The norms are missing. A LayerNorm has a weight and a bias, D numbers each, and there are "
        "three.",
        220: "40 are missing. Either each attention lacks its fourth projection, which mixes what the heads "
        "bring home, or the network lacks its way up.",
        224: "The network's way back to D numbers is missing: 8 · 4 weights and 4 biases.",
        420: "Your attentions have all their matrices once for each head. The heads share out the D columns "
        "of one matrix.",
        380: "Each head has whole matrices for queries, keys and values in your count. The heads share out "
        "the D columns of one matrix.",
        184: "The network is missing: 4 · 8 + 8 on the way up, 8 · 4 + 4 on the way back.",
    },
    otherwise="Not that number. Count part by part: two attentions of four projections each, a network of "
    "two, three norms; each projection has a bias as long as what comes out of it.",
    form="one number",
)
def decoder_layer_numbers():
    """2 · 80 in the attentions, 76 in the feed-forward network, 24 in the norms: 260. The number of heads
    changes nothing; with the usual F = 4 D, the matrices alone hold 16 D² numbers, an encoder layer's 12 D².
    """
    layer = nn.TransformerDecoderLayer(d_model=4, nhead=2, dim_feedforward=8)
    return sum(parameter.numel() for parameter in layer.parameters())


# --- 2 -------------------------------------------------------------------------------------------------


def _targets(rng: np.random.Generator, B: int, T: int) -> dict[str, np.ndarray]:
    """Rows of T + 1 ids: <bos> 1, words, <eos> 2, then padding 0; the first is full, the last is short."""
    target = np.zeros((B, T + 1), dtype=np.int64)
    for row, words in zip(target, np.linspace(T - 1, 1, B).round().astype(int), strict=True):
        row[: words + 2] = 1, *rng.integers(3, 9, words), 2
    return {"target": target}


def _shifted_reference(target: np.ndarray) -> np.ndarray:
    B, T = target.shape[0], target.shape[1] - 1
    out = np.zeros((2, B, T), dtype=np.int64)
    for b, t in np.ndindex(B, T):
        out[:, b, t] = target[b, t], target[b, t + 1]
    return out


@chapter.implement(
    title="What is read and what is wanted",
    statement="""
        In training the decoder reads the right translation while it is asked for it: teacher forcing. A row
        of `target` (B, T + 1) holds `<bos>` (id 1), the words, `<eos>` (2), and padding (0) up to the end. At
        each place the model reads one token, and it should say the next one.

        Make both tables: what is read, (B, T), and what is wanted, (B, T), one behind the other in one
        tensor (2, B, T).
        """,
    hints=(
        "Write down one row: `<bos> a b <eos>`. What is read first, and what should the model say then? What "
        "is read last, and what is wanted there?",
        "Both tables are the whole rows without one column. Which column is never wanted, and which need "
        "not be read, because nothing comes after it?",
        "`target[:, :-1]` is all but the last column, `target[:, 1:]` all but the first. `torch.stack([a, "
        "b])` puts two tables one behind the other.",
    ),
    axes="2 B T",
    inputs=_targets,
    sizes=((2, 3), (3, 4), (1, 2), (4, 5), (3, 7)),
    reference=_shifted_reference,
    gradient=False,
)
def shifted(target):
    """What is read, and what is wanted there: target (B, T + 1) to (2, B, T)."""
    # After the last column nothing comes that could be asked for, and nobody asks for <bos>.
    read = target[:, :-1]
    wanted = target[:, 1:]
    return torch.stack([read, wanted])


@shifted.slip("""
    The two have changed places: your model reads the next token and is asked for the one before. What is
    read comes first, all but the last column.""")
def _other_way_round(target):
    return torch.stack([target[:, 1:], target[:, :-1]])


@shifted.slip("""
    Both tables lack the last column, so they are the same: each token is asked for where it is read.
    Wanted is the next one.""")
def _both_without_the_last(target):
    return torch.stack([target[:, :-1]] * 2)


@shifted.slip("""
    Both tables lack the first column, so they are the same, and `<bos>` is never read. That is what the
    model has in hand when it begins to write.""")
def _both_without_the_first(target):
    return torch.stack([target[:, 1:]] * 2)


@shifted.slip("""
    You moved the tokens with `roll`, and it wraps round: in the last place `<bos>` is wanted. That place
    has no next token; cut the column.""")
def _wrapped_round(target):
    return torch.stack([target, target.roll(-1, 1)])


@shifted.slip("""
    `roll(1)` moves the tokens to the right: at each place the token before is wanted, and at the first
    the last one. Wanted is the next token, and no column wraps round.""")
def _wrapped_to_the_right(target):
    return torch.stack([target, target.roll(1, 1)])


@shifted.slip("""
    Both tables are the whole target. Each place should ask for the token after the one that it reads, so
    each table lacks one column.""")
def _nothing_cut(target):
    return torch.stack([target, target])


@shifted.slip("""
    You shifted by two: wanted is the token after the next. Cut one column from each table.""")
def _two_places_on(target):
    return torch.stack([target[:, :-2], target[:, 2:]])


@shifted.slip("""
    What is read is right. What is wanted lacks `<eos>`, so the model would never learn to stop: `<eos>`
    is wanted after the last word.""")
def _end_never_wanted(target):
    wanted = target[:, 1:]
    return torch.stack([target[:, :-1], wanted.masked_fill(wanted == 2, 0)])


@shifted.slip("""
    What is wanted is right. In what is read you replaced `<eos>`. Leave it: padding is wanted after it,
    and that place is no part of the loss.""")
def _end_not_read(target):
    read = target[:, :-1]
    return torch.stack([read.masked_fill(read == 2, 0), target[:, 1:]])


@shifted.slip("""
    You added 1 to the ids. The next token is not the next word of the vocabulary: it stands one column
    further on.""")
def _id_plus_one(target):
    return torch.stack([target[:, :-1], target[:, :-1] + 1])


@shifted.slip("""
    Both tables are right, but they stand one below the other, (2 B, T). `torch.stack` gives them an axis
    of their own.""")
def _below_each_other(target):
    return torch.cat([target[:, :-1], target[:, 1:]])


@shifted.slip("""
    Both tables are right, but the new axis is the last one, (B, T, 2). It should come first.""")
def _pairs_in_the_last_axis(target):
    return torch.stack([target[:, :-1], target[:, 1:]], dim=-1)


@shifted.slip("""
    Both tables are right, but the new axis is the second one, (B, 2, T). It should come first.""")
def _pairs_in_the_second_axis(target):
    return torch.stack([target[:, :-1], target[:, 1:]], dim=1)


@shifted.crash("""
    The tables are not equally long: one of them lacks a column, the other none. Both lack one.""")
def _one_table_cut(target):
    return torch.stack([target, target[:, 1:]])


# --- 3 -------------------------------------------------------------------------------------------------


def _tokens_and_table(rng: np.random.Generator, B: int, T: int, V: int, D: int) -> dict[str, np.ndarray]:
    tokens = rng.integers(V, size=(B, T))
    tokens[0, -1] = V - 1  # neither 0 nor its place
    return {"tokens": tokens, "table": rng.standard_normal((V, D))}


def _embedded_reference(tokens: np.ndarray, table: np.ndarray) -> np.ndarray:
    (B, T), D = tokens.shape, table.shape[1]
    out = np.zeros((B, T, D))
    for b, t, i in np.ndindex(B, T, D):
        angle = t / 10000 ** ((i - i % 2) / D)
        out[b, t, i] = table[tokens[b, t], i] * D**0.5 + (np.cos(angle) if i % 2 else np.sin(angle))
    return out


@chapter.implement(
    title="The embedding of 2017",
    statement=r"""
        Both sides of the model begin alike. Each token becomes its row of the `table` (V, D), times
        $\sqrt{D}$, plus the code of its place (section 3.4 of the paper). The code is that of the chapter on
        positions: at place $t$, counted from 0,

        $$\text{entry } 2i: \; \sin\frac{t}{10000^{2i/D}} \qquad
        \text{entry } 2i + 1: \; \cos\frac{t}{10000^{2i/D}}$$

        `tokens` are ids, (B, T), and D is even. You may use `sinusoidal` of `transformer_lab.positional`.
        """,
    hints=(
        "A tensor of ids picks rows: `table[tokens]` has the shape (B, T, D).",
        "Only the rows of the table are made larger; the code is added after that, as it is.",
        "The code is a table (T, D), the same for all sentences: added to (B, T, D), it broadcasts.",
        "By hand: `rates = 10000.0 ** (-torch.arange(0, D, 2) / D)`, angles are places times rates, and "
        "`torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)` has sines and cosines in turn.",
    ),
    axes="B T D",
    inputs=_tokens_and_table,
    sizes=((1, 3, 4, 4), (2, 3, 5, 6), (3, 2, 4, 8), (2, 5, 7, 4), (1, 9, 3, 2)),
    reference=_embedded_reference,
)
def embedded(tokens, table):
    """Rows of the table times the root of D, plus sinusoids: tokens (B, T) and table (V, D) to (B, T, D)."""
    T, D = tokens.shape[1], table.shape[1]
    # In the table, which also makes the scores, rows are about 1 long; the code is the root of D / 2 long.
    x = table[tokens] * D**0.5
    rates = 10000.0 ** (-torch.arange(0, D, 2).to(table) / D)
    angles = torch.arange(T).to(table)[:, None] * rates  # (T, D / 2)
    # The sine and the cosine of an angle are neighbours; the same code for all sentences.
    return x + torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _angles(places, table, base=10000.0, step=2):
    D = table.shape[1]
    return places.to(table)[..., None] * base ** (-step * torch.arange(D // 2).to(table) / D)


def _in_turns(one, other):
    return torch.stack([one, other], dim=-1).flatten(-2)


def _code(places, table, **options):
    angles = _angles(places, table, **options)
    return _in_turns(angles.sin(), angles.cos())


def _places(tokens, start=0):
    return torch.arange(start, tokens.shape[1] + start)


def _rows(tokens, table):
    return table[tokens] * table.shape[1] ** 0.5


@embedded.slip(r"""
    The rows of the table are as they were: multiply them by the root of D before the code is added.""")
def _rows_not_enlarged(tokens, table):
    return table[tokens] + _code(_places(tokens), table)


@embedded.slip("""
    You multiplied by the root of V, the number of rows. It is the width that counts, D.""")
def _root_of_the_vocabulary(tokens, table):
    return table[tokens] * table.shape[0] ** 0.5 + _code(_places(tokens), table)


@embedded.slip("""
    You divided by the root of D, as attention does with its scores. Here the rows are multiplied by
    it.""")
def _rows_made_smaller(tokens, table):
    return table[tokens] / table.shape[1] ** 0.5 + _code(_places(tokens), table)


@embedded.slip("""
    You multiplied by D, not by its root.""")
def _by_the_whole_width(tokens, table):
    return table[tokens] * table.shape[1] + _code(_places(tokens), table)


@embedded.slip("""
    The code was multiplied by the root of D, too. Only the rows of the table are; the code is added after
    that.""")
def _code_enlarged_too(tokens, table):
    return (table[tokens] + _code(_places(tokens), table)) * table.shape[1] ** 0.5


@embedded.slip("""
    The code alone was multiplied by the root of D. It is the rows of the table that should be.""")
def _code_enlarged_instead(tokens, table):
    return table[tokens] + _code(_places(tokens), table) * table.shape[1] ** 0.5


@embedded.slip("""
    Your places begin with 1. They are counted from 0: the code of the first token is 0, 1, 0, 1 and so
    on.""")
def _places_from_one(tokens, table):
    return _rows(tokens, table) + _code(_places(tokens, 1), table)


@embedded.slip("""
    You put the code beside the rows, (B, T, 2 D). It is added to them, and the width stays D.""")
def _beside_each_other(tokens, table):
    code = _code(_places(tokens), table).expand(len(tokens), -1, -1)
    return torch.cat([_rows(tokens, table), code], dim=-1)


@embedded.slip("""
    The code is missing: these are the rows, times the root of D.""")
def _no_code(tokens, table):
    return _rows(tokens, table)


@embedded.slip("""
    You multiplied the rows by the code. It is added to them.""")
def _multiplied_by_the_code(tokens, table):
    return _rows(tokens, table) * _code(_places(tokens), table)


@embedded.slip("""
    All sines come first in your code, then all cosines. Here they take turns: the sine and the cosine of
    an angle are neighbours.""")
def _sines_then_cosines(tokens, table):
    angles = _angles(_places(tokens), table)
    return _rows(tokens, table) + torch.cat([angles.sin(), angles.cos()], dim=-1)


@embedded.slip("""
    In your code the cosine comes before the sine. Entry 2i is the sine.""")
def _cosine_first(tokens, table):
    angles = _angles(_places(tokens), table)
    return _rows(tokens, table) + _in_turns(angles.cos(), angles.sin())


@embedded.slip("""
    Your hands turn too fast: the exponent is 2i / D, and you have i / D.""")
def _half_the_exponent(tokens, table):
    return _rows(tokens, table) + _code(_places(tokens), table, step=1)


@embedded.slip("""
    Your hands turn too slowly: the exponent is 2i / D, where i counts the pairs, and you took the double,
    as if 2i had still to be multiplied by 2.""")
def _twice_the_exponent(tokens, table):
    return _rows(tokens, table) + _code(_places(tokens), table, step=4)


@embedded.slip("""
    You made the code of the ids. It is the place that is coded, 0 for the first token of a sentence
    whatever its word.""")
def _code_of_the_ids(tokens, table):
    return _rows(tokens, table) + _code(tokens, table)


@embedded.slip("""
    Your code changes from sentence to sentence and not from token to token: it belongs to the second
    axis, (T, D) added to (B, T, D).""")
def _code_of_the_sentences(tokens, table):
    return _rows(tokens, table) + _code(torch.arange(len(tokens)), table)[:, None]


@embedded.slip("""
    You made the root of what is in the table, or normalised its rows. They are only multiplied by a
    number, the root of D.""")
def _rows_normalised(tokens, table):
    rows = nn.functional.normalize(table[tokens], dim=-1) * table.shape[1] ** 0.5
    return rows + _code(_places(tokens), table)


@embedded.crash("""
    An id picks a row of `table`, which has V rows: `table[tokens]`. You picked columns.""")
def _columns_picked(tokens, table):
    return table.T[tokens + table.shape[1]]


# --- 4 -------------------------------------------------------------------------------------------------


def _logits_and_wanted(
    rng: np.random.Generator, B: int, T: int, V: int, pad_id: int, smoothing: float
) -> dict[str, Any]:
    """The first sentence is full, the last has one token; the rest is padding."""
    wanted = rng.choice([i for i in range(V) if i != pad_id], (B, T))
    for row, length in zip(wanted, np.linspace(T, 1, B).round().astype(int), strict=True):
        row[length:] = pad_id
    logits = 2 * rng.standard_normal((B, T, V))
    return {"logits": logits, "wanted": wanted, "pad_id": pad_id, "smoothing": smoothing}


def _smoothed_reference(logits: np.ndarray, wanted: np.ndarray, pad_id: int, smoothing: float) -> np.ndarray:
    losses, V = [], logits.shape[-1]
    for b, t in np.argwhere(wanted != pad_id):
        hoped = np.full(V, smoothing / V)
        hoped[wanted[b, t]] += 1 - smoothing
        losses.append(-hoped @ np.log(_softmax(logits[b, t])))
    return np.array(sum(losses) / len(losses))


@chapter.implement(
    title="The loss, smoothed and without padding",
    statement=r"""
        Write the loss of the paper (section 5.4). `logits` (B, T, V) are the scores of all V tokens at each
        place, `wanted` (B, T) the right ids, filled up with `pad_id`. With label smoothing $\varepsilon$
        (`smoothing`) the model should give the right token the probability $1 - \varepsilon$, and
        $\varepsilon$ is spread evenly over **all** V tokens, the right one among them:

        $$\text{loss} = -(1 - \varepsilon) \log p_\text{right}
        - \frac{\varepsilon}{V} \sum_{v=1}^{V} \log p_v$$

        Give one number, in nats: the mean over all real tokens of the batch. What is wanted as padding does
        not count. `F.cross_entropy`, which can do all this, is off limits.
        """,
    hints=(
        "First without padding: `logits.log_softmax(dim=-1)` is the table of all log p, (B, T, V). Its sum "
        "over the last axis is the second term.",
        "`gather` picks the right ones: `logs.gather(-1, wanted[..., None]).squeeze(-1)` is (B, T).",
        "Now the padding: `real = wanted != pad_id` says which places count. Add up the losses of these, and "
        "divide by their number.",
        "`losses[real].mean()` does both at once.",
    ),
    axes="",
    inputs=_logits_and_wanted,
    sizes=(
        (2, 3, 4, 0, 0.1),
        (1, 4, 5, 0, 0.2),
        (3, 4, 6, 5, 0.1),
        (2, 5, 3, 1, 0.0),
        (4, 3, 7, 2, 0.3),
        (3, 2, 4, 3, 0.6),
    ),
    reference=_smoothed_reference,
    forbidden=("cross_entropy", "nll_loss"),
)
def smoothed_loss(logits, wanted, pad_id, smoothing):
    """The mean loss of a real token, in nats: logits (B, T, V) and wanted (B, T) to one number."""
    logs = logits.log_softmax(dim=-1)
    right = logs.gather(-1, wanted[..., None]).squeeze(-1)  # (B, T)
    # The mean over V is the sum times 1 / V: an even share for every token.
    losses = -(1 - smoothing) * right - smoothing * logs.mean(dim=-1)
    # A batch has as many real tokens as it has: the mean is over these, not over B T places.
    return losses[wanted != pad_id].mean()


def _losses(logits, wanted, smoothing, spread=None, dim=-1):
    """At each place; ``spread`` makes the second term of the log-probabilities and the right one's."""
    logs = logits.log_softmax(dim)
    right = _chosen(logs, wanted)
    even = logs.mean(-1) if spread is None else spread(logs, right)
    return -(1 - smoothing) * right - smoothing * even


@smoothed_loss.slip("""
    You spread the share over the V - 1 other tokens. Here the right token gets its part, too: 1 / V for
    each of all V.""")
def _spread_over_the_others(logits, wanted, pad_id, smoothing):
    def others(logs, right):
        return (logs.sum(-1) - right) / (logs.shape[-1] - 1)

    return _losses(logits, wanted, smoothing, others)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    You spread the share over all tokens but padding and the right one, V - 2, as some implementations do.
    Here each of all V gets 1 / V.""")
def _spread_without_padding_and_right(logits, wanted, pad_id, smoothing):
    def others(logs, right):
        return (logs.sum(-1) - right - logs[..., pad_id]) / (logs.shape[-1] - 2)

    return _losses(logits, wanted, smoothing, others)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    You spread the share over all tokens but padding, V - 1. Here padding gets its 1 / V like any other
    token; what does not count is a place where padding is wanted.""")
def _spread_without_padding(logits, wanted, pad_id, smoothing):
    def others(logs, right):
        return (logs.sum(-1) - logs[..., pad_id]) / (logs.shape[-1] - 1)

    return _losses(logits, wanted, smoothing, others)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    Places where padding is wanted count in your mean like any other. Leave them out: compare `wanted`
    with `pad_id`.""")
def _padding_counted(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing).mean()


@smoothed_loss.slip("""
    The losses of padding are 0, and you divide by all B T places. A batch with much padding would have a
    small loss: divide by the number of real tokens.""")
def _divided_by_all_places(logits, wanted, pad_id, smoothing):
    return (_losses(logits, wanted, smoothing) * (wanted != pad_id)).mean()


@smoothed_loss.slip("""
    Each sentence has its mean in your answer, and these have theirs, so a token of a short sentence
    weighs more than one of a long sentence. Add up the losses of all real tokens, and divide once.""")
def _mean_of_means(logits, wanted, pad_id, smoothing):
    real = wanted != pad_id
    return ((_losses(logits, wanted, smoothing) * real).sum(-1) / real.sum(-1)).mean()


@smoothed_loss.slip("""
    You divide by the number of sentences. Divide by the number of real tokens of all of them.""")
def _per_sentence(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing)[wanted != pad_id].sum() / len(wanted)


@smoothed_loss.slip("""
    That is the sum over the real tokens. Divide by their number.""")
def _sum_of_all(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing)[wanted != pad_id].sum()


@smoothed_loss.slip("""
    `smoothing` has no effect: this is the plain cross-entropy, right for 0 only. The second term is
    missing, and the factor of the first.""")
def _not_smoothed(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, 0.0)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    The second term is missing: the share that was taken from the right token is spread over all V.""")
def _share_lost(logits, wanted, pad_id, smoothing):
    return (1 - smoothing) * _losses(logits, wanted, 0.0)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    The right token keeps its whole weight in your answer, 1. What is spread is taken from it: its factor
    is 1 - smoothing.""")
def _nothing_taken_from_the_right(logits, wanted, pad_id, smoothing):
    losses = _losses(logits, wanted, 0.0) - smoothing * logits.log_softmax(-1).mean(-1)
    return losses[wanted != pad_id].mean()


@smoothed_loss.slip("""
    The second term is the sum over the V tokens, not divided by V: each of them gets the whole share.""")
def _whole_share_for_each(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing, lambda logs, right: logs.sum(-1))[wanted != pad_id].mean()


@smoothed_loss.slip("""
    The two weights have changed places: `smoothing` belongs to the even share, 1 - smoothing to the right
    token.""")
def _weights_swapped(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, 1 - smoothing)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    The logarithm is missing: you took probabilities. A loss is minus the logarithm, and `log_softmax`
    gives it.""")
def _probabilities(logits, wanted, pad_id, smoothing):
    p = logits.softmax(-1)
    losses = -(1 - smoothing) * _chosen(p, wanted) - smoothing * p.mean(-1)
    return losses[wanted != pad_id].mean()


@smoothed_loss.slip("""
    You took the bare logits. Only their softmax makes probabilities of them: `log_softmax`.""")
def _bare_logits(logits, wanted, pad_id, smoothing):
    losses = -(1 - smoothing) * _chosen(logits, wanted) - smoothing * logits.mean(-1)
    return losses[wanted != pad_id].mean()


@smoothed_loss.slip("""
    The sign is turned: a loss is minus the logarithm of a probability, and never below 0.""")
def _sign_turned(logits, wanted, pad_id, smoothing):
    return -_losses(logits, wanted, smoothing)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    Your softmax runs over the places, the second axis. Each place shares its probability among the V
    tokens, the last axis.""")
def _softmax_over_places(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing, dim=1)[wanted != pad_id].mean()


@smoothed_loss.slip("""
    You took 0 for the padding. Its id comes as `pad_id`, and 0 may be a word like any other.""")
def _zero_is_padding(logits, wanted, pad_id, smoothing):
    losses = _losses(logits, wanted, smoothing)
    return (losses * (wanted != 0)).sum() / (wanted != 0).sum().clamp(min=1)


@smoothed_loss.slip("""
    You kept the padding and left the words out: compare with `!=`.""")
def _padding_only(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing)[wanted == pad_id].mean()


@smoothed_loss.slip("""
    The losses are right, one for each place. One number is asked for: the mean over the places where a
    real token is wanted.""")
def _each_place_its_own(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing)


@smoothed_loss.slip("""
    Right, but in bits: you took logarithms to the base 2. A nat belongs to the natural logarithm, which
    `log_softmax` gives.""")
def _in_bits(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing)[wanted != pad_id].mean() / np.log(2)


@smoothed_loss.slip("""
    You shifted inside: place t is held against the token that is wanted at t + 1. `wanted` is shifted
    already, each place stands beside its own answer.""")
def _shifted_once_more(logits, wanted, pad_id, smoothing):
    return smoothed_loss.solve(logits[:, :-1], wanted[:, 1:], pad_id, smoothing)


@smoothed_loss.slip("""
    Both terms are negative: a logarithm of a probability lies below 0, and minus makes a loss of it. Your
    second term has a plus.""")
def _second_term_with_a_plus(logits, wanted, pad_id, smoothing):
    return _losses(logits, wanted, smoothing, lambda logs, right: -logs.mean(-1))[wanted != pad_id].mean()


@smoothed_loss.slip("""
    The first term leaves padding out, the second does not: its mean runs over all places. Choose the real
    places after both have been added.""")
def _second_term_over_padding(logits, wanted, pad_id, smoothing):
    even = logits.log_softmax(-1).mean()
    return (1 - smoothing) * _losses(logits, wanted, 0.0)[wanted != pad_id].mean() - smoothing * even


@smoothed_loss.slip("""
    You wrote 0.1 into the formula. How much is spread comes as `smoothing`.""")
def _always_a_tenth(logits, wanted, pad_id, smoothing):
    return smoothed_loss.solve(logits, wanted, pad_id, 0.1)


@smoothed_loss.crash("""
    `gather` takes an index with as many axes as the tensor that it picks from: `wanted[..., None]` has
    three.""")
def _index_without_its_axis(logits, wanted, pad_id, smoothing):
    return -logits.log_softmax(-1).gather(-1, wanted)[wanted != pad_id].mean()


# --- 5 -------------------------------------------------------------------------------------------------


def _small_batches(rng: np.random.Generator, A: int) -> dict[str, np.ndarray]:
    """Their losses differ, and so do their numbers of tokens."""
    n_tokens = rng.permutation(np.arange(2, 2 + 3 * A, 3))
    return {"losses": 1 + 3 * rng.random(A), "n_tokens": n_tokens}


def _accumulated_reference(losses: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    n_all = 0
    for n in n_tokens:
        n_all += n
    return np.array([n * loss / n_all for loss, n in zip(losses, n_tokens, strict=True)])


@chapter.implement(
    title="Small batches that act like one",
    statement="""
        A batch that does not fit into memory is read as A small ones, and their gradients add up before the
        weights change once. `losses` (A) holds the loss of each small batch, the mean over its own real
        tokens; `n_tokens` (A) says how many these are, and no two batches have equally many.

        Give A numbers (A). When `.backward()` has been called on each, the gradient should be that of the
        one large batch: of the mean over all real tokens.
        """,
    hints=(
        "What is the loss of the large batch, made of the means and the numbers? Two batches, with losses 3 "
        "and 1 and with 10 and 30 tokens: the mean over 40 tokens is 1.5.",
        "A mean times its number of tokens is the sum over these tokens.",
        "The large batch divides the sum of all sums by the number of all tokens. Each small batch adds its "
        "sum, divided by that same number.",
    ),
    axes="A",
    inputs=_small_batches,
    sizes=((2,), (3,), (4,), (1,), (5,)),
    reference=_accumulated_reference,
)
def accumulated(losses, n_tokens):
    """What each small batch adds to the loss of all: losses (A) and n_tokens (A) to (A)."""
    # From the mean of a batch back to its sum; then all sums share one divisor, as in one large batch.
    sums = losses * n_tokens
    return sums / n_tokens.sum()


@accumulated.slip("""
    You divided each loss by the number of batches: a mean of means. A token of a small batch then weighs
    more than one of a large batch. Each batch should weigh as much as it has tokens.""")
def _mean_of_the_means(losses, n_tokens):
    return losses / len(losses)


@accumulated.slip("""
    These are the losses as they came. Added up, they make a gradient about A times too large, and every
    batch weighs the same: multiply each by its share of all tokens.""")
def _as_they_came(losses, n_tokens):
    return losses * 1


@accumulated.slip("""
    These are the sums of the batches. The large batch has a mean: divide by the number of all tokens.""")
def _sums_not_divided(losses, n_tokens):
    return losses * n_tokens


@accumulated.slip("""
    You divided the sums by the mean number of tokens of a batch, so that the gradient comes out A times
    too large. Divide by the number of all tokens together.""")
def _divided_by_the_mean_number(losses, n_tokens):
    return losses * n_tokens / n_tokens.double().mean().to(losses.dtype)


@accumulated.slip("""
    You divided the sums by the tokens of the largest batch. Divide by the number of all tokens
    together.""")
def _divided_by_the_largest(losses, n_tokens):
    return losses * n_tokens / n_tokens.max()


@accumulated.slip("""
    You divided by the tokens of each batch. The losses are means already: multiply by the number of
    tokens, and divide by that of all batches together.""")
def _divided_by_its_own(losses, n_tokens):
    return losses / n_tokens


@accumulated.slip("""
    You divided each loss by the number of all tokens, as if it were a sum. It is a mean: multiply by the
    batch's own number of tokens first.""")
def _means_taken_for_sums(losses, n_tokens):
    return losses / n_tokens.sum()


@accumulated.slip("""
    That is the loss of the large batch, one number. Each small batch has a backward pass of its own: give
    the A numbers that add up to it.""")
def _already_added_up(losses, n_tokens):
    return (losses * n_tokens).sum() / n_tokens.sum()


@accumulated.slip("""
    These are the weights of the batches, their shares of all tokens. Multiply them by the losses.""")
def _shares_alone(losses, n_tokens):
    return n_tokens.to(losses.dtype) / n_tokens.sum() + 0 * losses


@accumulated.slip("""
    `//` leaves whole numbers, and a share of all tokens is below 1: it becomes 0. Divide with `/`.""")
def _whole_division(losses, n_tokens):
    return losses * (n_tokens // n_tokens.sum())


@accumulated.slip("""
    You made the weights with a softmax of the numbers of tokens: nearly all goes to the largest batch. A
    share is a number divided by the sum.""")
def _softmax_of_numbers(losses, n_tokens):
    return losses * n_tokens.to(losses.dtype).softmax(0)


@accumulated.slip("""
    You divided the sums by A as well. The number of all tokens is divisor enough.""")
def _divided_twice(losses, n_tokens):
    return losses * n_tokens / n_tokens.sum() / len(losses)


@accumulated.slip("""
    You gave large batches little weight and small ones much. A batch weighs as much as it has tokens:
    multiply by its number, divide by that of all.""")
def _upside_down(losses, n_tokens):
    return losses * n_tokens.sum() / n_tokens


# --- 6 -------------------------------------------------------------------------------------------------

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def _decoder_layer_inputs(
    rng: np.random.Generator, B: int, T: int, S: int, H: int, Dh: int, d_ff: int
) -> dict[str, Any]:
    D = H * Dh
    weights: dict[str, np.ndarray] = {}
    linear = {f"{a}.{p}": (D, D) for a in ("self_attention", "cross_attention") for p in _PROJECTIONS}
    for name, (rows, columns) in (linear | {"up_proj": (d_ff, D), "down_proj": (D, d_ff)}).items():
        weights[f"{name}.weight"] = 1.5 * rng.standard_normal((rows, columns)) * columns**-0.5
        weights[f"{name}.bias"] = rng.standard_normal(rows)
    for name in ("self_norm", "cross_norm", "feed_forward_norm"):
        weights[f"{name}.weight"] = 0.5 + rng.random(D)
        weights[f"{name}.bias"] = rng.standard_normal(D)
    mask = np.arange(S) < np.linspace(S, 1, B).round()[:, None]
    return {
        "d_model": D,
        "n_heads": H,
        "d_ff": d_ff,
        **weights,
        "x": 2 * rng.standard_normal((B, T, D)) + 1,
        "memory": rng.standard_normal((B, S, D)),
        "source_mask": mask[:, None, None],
    }


def _decoder_layer_reference(
    d_model: int,
    n_heads: int,
    d_ff: int,
    x: np.ndarray,
    memory: np.ndarray,
    source_mask: np.ndarray,
    **weights: np.ndarray,
) -> np.ndarray:
    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attend(name: str, token: np.ndarray, seen: np.ndarray) -> np.ndarray:
        q, (k, v) = linear(f"{name}.q_proj", token), (linear(f"{name}.{p}", seen) for p in _PROJECTIONS[1:3])
        heads = [slice(i, i + d_model // n_heads) for i in range(0, d_model, d_model // n_heads)]
        found = [_softmax(k[:, h] @ q[h] / (d_model // n_heads) ** 0.5) @ v[:, h] for h in heads]
        return linear(f"{name}.out_proj", np.concatenate(found))

    out = np.zeros_like(x)
    for b, t in np.ndindex(x.shape[:2]):
        past = norm("self_norm", x[b, : t + 1])
        y = x[b, t] + attend("self_attention", past[-1], past)
        y = y + attend("cross_attention", norm("cross_norm", y), memory[b, source_mask[b, 0, 0]])
        hidden = np.maximum(linear("up_proj", norm("feed_forward_norm", y)), 0)
        out[b, t] = y + linear("down_proj", hidden)
    return out


@chapter.implement_module(
    title="A decoder layer",
    statement="""
        Put the parts together: a layer of the decoder, pre-norm. `x` (B, T, D) are the target tokens,
        `memory` (B, S, D) is what the encoder gave, already normalised, and `source_mask` (B, 1, 1, S) is
        True where the source is real. Three sub-layers follow each other, each with a norm before it and a
        skip connection round it:

        1. self-attention, in which a token sees itself and its past,
        2. attention to the source,
        3. a feed-forward network with a ReLU.

        Make `self_attention` and `cross_attention`, both
        `MultiHeadAttention(d_model=d_model, n_heads=n_heads)` of `transformer_lab.attention`; `up_proj`, an
        `nn.Linear` from D to `d_ff`, and `down_proj`, back to D; and three `nn.LayerNorm` of D numbers,
        `self_norm`, `cross_norm` and `feed_forward_norm`.

        An attention is called with `(asks, answers, mask)`, and its mask is boolean, True = may attend. No
        target has padding here.
        """,
    hints=(
        "Every sub-layer is one line, `x = x + sublayer(norm(x))`. Only the sub-layers differ.",
        "In self-attention the same normalised tokens ask and answer: `h = self.self_norm(x)`, then "
        "`self.self_attention(h, h, past)`. `past` is a boolean triangle (T, T).",
        "In the second sub-layer the target asks and the source answers: "
        "`self.cross_attention(self.cross_norm(x), memory, source_mask)`.",
        "The third: up, `.relu()`, down. Each line goes on with the `x` that the line before has made.",
    ),
    axes="B T D",
    settings=("d_model", "n_heads", "d_ff"),
    forward=("x", "memory", "source_mask"),
    inputs=_decoder_layer_inputs,
    sizes=(
        (1, 2, 3, 1, 2, 3),
        (2, 3, 4, 2, 2, 5),
        (1, 4, 2, 3, 1, 6),
        (3, 2, 5, 2, 3, 4),
        (2, 3, 3, 2, 1, 3),
    ),
    reference=_decoder_layer_reference,
    forbidden=("TransformerDecoderLayer",),
)
class DecoderLayer(nn.Module):
    """Reads the target, then the source, then thinks: x (B, T, D) and memory (B, S, D) to (B, T, D)."""

    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        from transformer_lab.attention import MultiHeadAttention

        self.self_norm = nn.LayerNorm(d_model)
        self.self_attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)
        self.cross_norm = nn.LayerNorm(d_model)
        self.cross_attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)
        self.feed_forward_norm = nn.LayerNorm(d_model)
        self.up_proj = nn.Linear(d_model, d_ff)
        self.down_proj = nn.Linear(d_ff, d_model)

    def forward(self, x, memory, source_mask):
        """Three sub-layers, each x + sublayer(norm(x)): an output (B, T, D)."""
        T = x.shape[1]
        past = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        h = self.self_norm(x)
        x = x + self.self_attention(h, h, past)
        # The target asks, the source answers. Its whole length may be seen, but no padding; memory comes
        # with the encoder's last norm and needs none here.
        x = x + self.cross_attention(self.cross_norm(x), memory, source_mask)
        hidden = self.up_proj(self.feed_forward_norm(x)).relu()
        return x + self.down_proj(hidden)


class _Layer(DecoderLayer.solve):
    """The solution taken apart, so that each slip spoils one part."""

    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))

    def past(self, T):
        return _triangle(T)

    def read_target(self, h):
        return self.self_attention(h, h, self.past(h.shape[1]))

    def read_source(self, h, memory, source_mask):
        return self.cross_attention(h, memory, source_mask)

    def think(self, h):
        return self.down_proj(self.up_proj(h).relu())


@DecoderLayer.slip("""
    Your cross-attention reads the target once more: `memory` has no effect. The target asks there, and
    `memory` answers.""")
class _SourceNeverRead(_Layer):
    def read_source(self, h, memory, source_mask):
        return self.cross_attention(h, h, self.past(h.shape[1]))


@DecoderLayer.slip("""
    The source is never read: the second sub-layer is missing. Between self-attention and network comes
    the attention to `memory`.""")
class _NoCrossAttention(_Layer):
    def read_source(self, h, memory, source_mask):
        return 0


@DecoderLayer.slip("""
    The target is never read: the first sub-layer, self-attention, is missing.""")
class _NoSelfAttention(_Layer):
    def read_target(self, h):
        return 0


@DecoderLayer.slip("""
    The feed-forward network is missing: it is the third sub-layer.""")
class _NoNetwork(_Layer):
    def think(self, h):
        return 0


@DecoderLayer.slip("""
    Your network gets `x` without a norm. Every sub-layer has a norm before it, the third one too:
    `feed_forward_norm`.""")
class _NoThirdNorm(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        return x + self.think(x)


@DecoderLayer.slip("""
    Your cross-attention asks with `x` as it is. Every sub-layer has a norm before it, the second one too:
    `cross_norm`.""")
class _NoSecondNorm(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(x, memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    Your self-attention gets `x` without a norm. Every sub-layer has a norm before it, the first one too:
    `self_norm`.""")
class _NoFirstNorm(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(x)
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    In your self-attention the normalised tokens ask, and `x` without its norm answers. Both are the
    normalised ones.""")
class _AnswersNotNormed(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.self_attention(self.self_norm(x), x, self.past(x.shape[1]))
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    You normalised `memory`, too, with the norm of the target. It comes from the encoder with its own
    norm: hand it on as it is.""")
class _MemoryNormed(_Layer):
    def read_source(self, h, memory, source_mask):
        return self.cross_attention(h, self.cross_norm(memory), source_mask)


@DecoderLayer.slip("""
    In self-attention each token sees the whole target: the mask is missing. In training the future stands
    there, and it must be hidden.""")
class _FutureSeen(_Layer):
    def past(self, T):
        return _triangle(T, T)


@DecoderLayer.slip("""
    Your triangle has one diagonal too many: each target token sees the next one. `tril()` without a
    number keeps itself and the past.""")
class _NextSeen(_Layer):
    def past(self, T):
        return _triangle(T, 1)


@DecoderLayer.slip("""
    No target token sees itself: your triangle leaves the diagonal out. `tril()` without a number keeps
    it.""")
class _ItselfHidden(_Layer):
    def past(self, T):
        return _triangle(T, -1)


@DecoderLayer.slip("""
    In self-attention your target tokens see themselves and the future. The past lies left of the
    diagonal: `tril`, not `triu`.""")
class _PastHidden(_Layer):
    def past(self, T):
        return _triangle(T).T


@DecoderLayer.slip("""
    In self-attention your mask is turned round: the future is seen and the rest hidden. Here True = may
    attend; `nn.MultiheadAttention` has it the other way.""")
class _MaskTurnedRound(_Layer):
    def past(self, T):
        return ~_triangle(T)


@DecoderLayer.slip("""
    `source_mask` has no effect: the target reads the padding of the source, too. Hand it to the
    cross-attention.""")
class _SourceMaskForgotten(_Layer):
    def read_source(self, h, memory, source_mask):
        return self.cross_attention(h, memory)


@DecoderLayer.slip("""
    Your source mask is turned round: the words are hidden and the padding is seen. True = may attend, so
    it can be handed on as it is.""")
class _SourceMaskTurnedRound(_Layer):
    def read_source(self, h, memory, source_mask):
        return self.cross_attention(h, memory, ~source_mask)


@DecoderLayer.slip("""
    The source is read with a triangle, too. All of it is there before the first word is written: only its
    padding is hidden.""")
class _SourceInATriangle(_Layer):
    def read_source(self, h, memory, source_mask):
        seen = torch.ones(h.shape[1], memory.shape[1], dtype=torch.bool).tril()
        return self.cross_attention(h, memory, source_mask & seen)


@DecoderLayer.slip("""
    The skip connection round self-attention is missing: what it gives is added to `x`.""")
class _NoFirstSkip(_Layer):
    def forward(self, x, memory, source_mask):
        x = self.read_target(self.self_norm(x))
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    The skip connection round cross-attention is missing: what it gives is added to `x`.""")
class _NoSecondSkip(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = self.read_source(self.cross_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    The skip connection round the network is missing: what it gives is added to `x`.""")
class _NoThirdSkip(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        return self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    All three skip connections are missing: each sub-layer's answer is added to the `x` that came in.""")
class _NoSkips(_Layer):
    def forward(self, x, memory, source_mask):
        x = self.read_target(self.self_norm(x))
        x = self.read_source(self.cross_norm(x), memory, source_mask)
        return self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    Your skip connections carry the normalised tokens: what is added to is `norm(x)`. In pre-norm `x` goes
    past each sub-layer as it is, and only what goes in is normalised.""")
class _NormedSkips(_Layer):
    def forward(self, x, memory, source_mask):
        x = self.self_norm(x)
        x = x + self.read_target(x)
        x = self.cross_norm(x)
        x = x + self.read_source(x, memory, source_mask)
        x = self.feed_forward_norm(x)
        return x + self.think(x)


@DecoderLayer.slip("""
    That is post-norm: each norm stands over the sum. In pre-norm it stands before the sub-layer, `x +
    sublayer(norm(x))`.""")
class _PostNorm(_Layer):
    def forward(self, x, memory, source_mask):
        x = self.self_norm(x + self.read_target(x))
        x = self.cross_norm(x + self.read_source(x, memory, source_mask))
        return self.feed_forward_norm(x + self.think(x))


@DecoderLayer.slip("""
    Each norm stands behind its sub-layer, before the sum. In pre-norm it stands before the sub-layer: `x
    + sublayer(norm(x))`.""")
class _NormBehind(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.self_norm(self.read_target(x))
        x = x + self.cross_norm(self.read_source(x, memory, source_mask))
        return x + self.feed_forward_norm(self.think(x))


@DecoderLayer.slip("""
    The source is read before the target. Self-attention comes first: what a token asks of the source
    depends on what has been written.""")
class _SourceFirst(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        x = x + self.read_target(self.self_norm(x))
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    All three sub-layers get the `x` that came in. They follow each other: each gets what the one before
    has made.""")
class _SideBySide(_Layer):
    def forward(self, x, memory, source_mask):
        found = self.read_target(self.self_norm(x))
        found = found + self.read_source(self.cross_norm(x), memory, source_mask)
        return x + found + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    `self_attention` and `cross_attention` have changed places: each has weights of its own.""")
class _AttentionsSwapped(_Layer):
    def forward(self, x, memory, source_mask):
        h = self.self_norm(x)
        x = x + self.cross_attention(h, h, self.past(x.shape[1]))
        x = x + self.self_attention(self.cross_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    `self_attention` reads the target and the source. The source has an attention of its own,
    `cross_attention`.""")
class _OneAttentionForBoth(_Layer):
    def read_source(self, h, memory, source_mask):
        return self.self_attention(h, memory, source_mask)


@DecoderLayer.slip("""
    `self_norm` and `cross_norm` have changed places: each has weights of its own, and a name that says where
    it stands.""")
class _NormsSwapped(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.cross_norm(x))
        x = x + self.read_source(self.self_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    `self_norm` stands before all three sub-layers. Each has a norm of its own.""")
class _OneNormForAll(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(self.self_norm(x), memory, source_mask)
        return x + self.think(self.self_norm(x))


@DecoderLayer.slip("""
    `self_norm` stands before two of the sub-layers, before the target and before the source. Each has a
    norm of its own.""")
class _OneNormForBothAttentions(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(self.self_norm(x), memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    `cross_norm` stands before the network, too. That has a norm of its own, `feed_forward_norm`.""")
class _CrossNormTwice(_Layer):
    def forward(self, x, memory, source_mask):
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(self.cross_norm(x), memory, source_mask)
        return x + self.think(self.cross_norm(x))


@DecoderLayer.slip("""
    Your cross-attention asks with the tokens as they were normalised for self-attention. What has come in
    since is missing: normalise the new `x`, with `cross_norm`.""")
class _AsksWithTheOldNorm(_Layer):
    def forward(self, x, memory, source_mask):
        h = self.self_norm(x)
        x = x + self.read_target(h)
        x = x + self.read_source(h, memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    Your cross-attention asks with the `x` that came in, normalised. It should ask with what
    self-attention has made of it.""")
class _AsksWithTheFirstX(_Layer):
    def forward(self, x, memory, source_mask):
        asks = self.cross_norm(x)
        x = x + self.read_target(self.self_norm(x))
        x = x + self.read_source(asks, memory, source_mask)
        return x + self.think(self.feed_forward_norm(x))


@DecoderLayer.slip("""
    At the end the network's answer is added to the `x` that came in, and what both attentions found is
    lost. Add it to the `x` that the second sub-layer has made.""")
class _AddedToTheFirstX(_Layer):
    def forward(self, x, memory, source_mask):
        y = x + self.read_target(self.self_norm(x))
        y = y + self.read_source(self.cross_norm(y), memory, source_mask)
        return x + self.think(self.feed_forward_norm(y))


@DecoderLayer.slip("""
    What the source gives is added to the `x` that came in, and what self-attention found is lost. Add it to
    the `x` that the first sub-layer has made.""")
class _SourceAddedToTheFirstX(_Layer):
    def forward(self, x, memory, source_mask):
        y = x + self.read_target(self.self_norm(x))
        y = x + self.read_source(self.cross_norm(y), memory, source_mask)
        return y + self.think(self.feed_forward_norm(y))


@DecoderLayer.slip("""
    The relu is missing between `up_proj` and `down_proj`: without it, two matrices in a row are no more
    than one.""")
class _NoRelu(_Layer):
    def think(self, h):
        return self.down_proj(self.up_proj(h))


@DecoderLayer.slip("""
    The relu comes after `down_proj`. It stands between the two matrices.""")
class _ReluBehind(_Layer):
    def think(self, h):
        return self.down_proj(self.up_proj(h)).relu()


@DecoderLayer.slip("""
    You put GELU between the two matrices, as many later models do. Here it is a relu.""")
class _Gelu(_Layer):
    def think(self, h):
        return self.down_proj(nn.functional.gelu(self.up_proj(h)))


@DecoderLayer.crash("""
    Your cross-attention lets the source ask and the target answer: `memory` came first. The order is
    (asks, answers, mask): the target asks, `memory` answers.""")
class _SourceAsks(_Layer):
    def read_source(self, h, memory, source_mask):
        return self.cross_attention(memory, h, source_mask)


# --- 7 -------------------------------------------------------------------------------------------------


def _square_weights(rng: np.random.Generator, D: int) -> dict[str, np.ndarray]:
    return {name: 2 * rng.standard_normal((D, D)) * D**-0.5 for name in ("w_q", "w_k", "w_v")}


def _full_rows(rng: np.random.Generator, B: int, T: int, V: int, D: int) -> dict[str, np.ndarray]:
    target = rng.integers(V, size=(B, T + 1))
    return {"target": target, "table": rng.standard_normal((V, D)), **_square_weights(rng, D)}


def _target_loss_reference(
    target: np.ndarray, table: np.ndarray, w_q: np.ndarray, w_k: np.ndarray, w_v: np.ndarray
) -> np.ndarray:
    losses = np.zeros((target.shape[0], target.shape[1] - 1))
    for b, t in np.ndindex(losses.shape):
        past = table[target[b, : t + 1]]  # what has been read, and nothing else
        weights = _softmax((past @ w_k) @ (past[-1] @ w_q) / table.shape[1] ** 0.5)
        logits = table @ (past[-1] + weights @ past @ w_v)
        losses[b, t] = -np.log(_softmax(logits)[target[b, t + 1]])
    return losses


class _Peeking:  # so that both functions of this name can be told apart
    @staticmethod
    def target_loss(target, table, w_q, w_k, w_v):
        """The loss of each wanted token: target (B, T + 1), table (V, D), w_q, w_k, w_v (D, D) to (B, T)."""
        read, wanted = target[:, :-1], target[:, 1:]
        x = table[read]
        scores = (x @ w_q) @ (x @ w_k).transpose(-2, -1) / x.shape[-1] ** 0.5
        past = torch.ones_like(scores, dtype=torch.bool).tril(diagonal=1)
        weights = scores.masked_fill(~past, float("-inf")).softmax(dim=-1)
        logs = ((x + weights @ (x @ w_v)) @ table.T).log_softmax(dim=-1)
        return -logs.gather(-1, wanted[..., None]).squeeze(-1)


@chapter.debug(
    broken=_Peeking.target_loss,
    title="Faster than it can be",
    statement="""
        With a small fault in its decoder, the number translator was trained from three seeds. The loss fell
        fast: after 50 steps it stood near 0.1 nats or below, where a sound model has 0.5 to 0.8. At the end,
        after 400 steps, both were below 0.001. But of 100 test numbers the sound models translated all, and
        these models none: one writes *sieben sieben sieben ...* and does not stop.

        Here is the fault in the smallest decoder there is, without a source: one embedding table, one
        self-attention, and the scores by the same table. `target` (B, T + 1) holds full rows, no padding;
        asked for is the loss of each wanted token, (B, T), in nats. Find what gives the answer away, and
        repair it.
        """,
    hints=(
        "In training the model finds the right answer somewhere. When it writes, the answer is not there "
        "yet. Which line decides what a place may look at?",
        "Print `past` for T = 3. Place t reads token t and is asked for token t + 1. May it see that one?",
        "`tril(diagonal=1)` keeps one diagonal above the main one. PyTorch's examples write "
        "`triu(diagonal=1)`, and mean the places to hide.",
    ),
    axes="B T",
    inputs=_full_rows,
    sizes=((1, 3, 4, 2), (2, 4, 5, 3), (3, 2, 6, 4), (2, 5, 7, 3), (1, 1, 3, 2)),
    reference=_target_loss_reference,
)
def target_loss(target, table, w_q, w_k, w_v):
    """The loss of each wanted token: target (B, T + 1), table (V, D), w_q, w_k, w_v (D, D) to (B, T)."""
    read, wanted = target[:, :-1], target[:, 1:]
    x = table[read]
    scores = (x @ w_q) @ (x @ w_k).transpose(-2, -1) / x.shape[-1] ** 0.5
    # Place t reads token t and is asked for token t + 1. The broken line kept one diagonal more, and there
    # the answer stood: to copy it is all that the model learned.
    past = torch.ones_like(scores, dtype=torch.bool).tril()
    weights = scores.masked_fill(~past, float("-inf")).softmax(dim=-1)
    logs = ((x + weights @ (x @ w_v)) @ table.T).log_softmax(dim=-1)
    return -logs.gather(-1, wanted[..., None]).squeeze(-1)


def _attention_scores(asks, answers, w_q, w_k):
    return (asks @ w_q) @ (answers @ w_k).mT / asks.shape[-1] ** 0.5


def _decoded(target, table, w_q, w_k, w_v, weigh, read=slice(None, -1)):
    """The log-probabilities at each place, where ``weigh`` makes weights of the scores."""
    x = table[target[:, read]]
    return ((x + weigh(_attention_scores(x, x, w_q, w_k)) @ (x @ w_v)) @ table.T).log_softmax(-1)


def _weigher(diagonal=0):
    return lambda scores: _hidden(scores, _triangle(scores.shape[-1], diagonal)).softmax(-1)


def _asked(target, *weights, weigh, wanted=slice(1, None)):
    return -_chosen(_decoded(target, *weights, weigh), target[:, wanted])


@target_loss.slip("""
    The leak is still there: each place sees the next token, and that is the one it is asked for. Print
    the mask for T = 3.""")
def _still_peeking(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=_weigher(1))


@target_loss.slip("""
    There is no mask any more, or one that hides nothing: each place sees all that is to come.""")
def _everything_seen(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=lambda scores: scores.softmax(-1))


@target_loss.slip("""
    One diagonal too many is gone: no place sees the token that it has just read, and the first sees
    nothing, which gives NaN. Keep the main diagonal.""")
def _own_token_hidden(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=_weigher(-1))


@target_loss.slip("""
    Your mask keeps the future and hides the past, itself included: `triu(diagonal=1)` marks what is to be
    hidden, and `past` marks what is seen. The last place sees nothing, which gives NaN.""")
def _future_kept(target, table, w_q, w_k, w_v):
    def weigh(scores):
        return scores.masked_fill(_triangle(scores.shape[-1]), -torch.inf).softmax(-1)

    return _asked(target, table, w_q, w_k, w_v, weigh=weigh)


@target_loss.slip("""
    Your triangle lies on the wrong side: each place sees itself and what comes after it. `tril` keeps the
    past.""")
def _wrong_triangle(target, table, w_q, w_k, w_v):
    return _asked(
        target, table, w_q, w_k, w_v, weigh=lambda s: _hidden(s, _triangle(s.shape[-1]).T).softmax(-1)
    )


@target_loss.slip("""
    The mask is right. But the hidden scores are 0 now, and exp(0) is 1, a weight: minus infinity was
    right.""")
def _hidden_with_zero(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=lambda scores: scores.tril().softmax(-1))


@target_loss.slip("""
    The triangle is right. But you put it on the weights, after the softmax: the future has taken its
    share, and the rest no longer sums to 1. Hide the scores.""")
def _hidden_after_the_softmax(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=lambda scores: scores.softmax(-1).tril())


@target_loss.slip("""
    The mask is right. But the softmax runs over the queries now: each place shares its weight among what
    it sees, the last axis. That line was right.""")
def _softmax_over_queries(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=lambda s: _hidden(s, _triangle(s.shape[-1])).softmax(1))


@target_loss.slip("""
    The mask is right. But you changed what is wanted: it is now the token that is read. The shift was
    right, `target[:, 1:]`.""")
def _shift_lost(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=_weigher(), wanted=slice(None, -1))


@target_loss.slip("""
    You changed what is wanted and left the leak: the model is now asked for the token that it has read.
    The shift was right; the mask is not.""")
def _shift_lost_instead(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=_weigher(1), wanted=slice(None, -1))


@target_loss.slip("""
    No place sees any other now: attention to itself alone. The past should be seen, all of it.""")
def _itself_alone(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=lambda s: torch.eye(s.shape[-1]).to(s).expand_as(s))


@target_loss.slip("""
    The attention is gone, and the leak with it. It should see the past: repair its mask.""")
def _attention_removed(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=torch.zeros_like)


@target_loss.slip("""
    The mask is right, and you took the mean of the losses. Here each place keeps its own, (B, T).""")
def _mean_of_places(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=_weigher()).mean()


@target_loss.slip("""
    The mask is right, and the skip connection is gone: what attention gives is added to `x`.""")
def _skip_removed(target, table, w_q, w_k, w_v):
    x = table[target[:, :-1]]
    logs = (_weigher()(_attention_scores(x, x, w_q, w_k)) @ (x @ w_v) @ table.T).log_softmax(-1)
    return -_chosen(logs, target[:, 1:])


@target_loss.slip("""
    The mask is right, and the root of D is gone from the scores. It was right.""")
def _root_of_d_removed(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=lambda s: _weigher()(s * table.shape[1] ** 0.5))


@target_loss.slip("""
    The mask is right, and the sign is turned: a loss is minus the logarithm of a probability.""")
def _sign_of_the_loss(target, table, w_q, w_k, w_v):
    return -_asked(target, table, w_q, w_k, w_v, weigh=_weigher())


@target_loss.slip("""
    You hid one diagonal more than the leak, and gave NaN the value 0: now no place sees the token that it
    has just read. Keep the main diagonal.""")
def _own_token_hidden_and_nan_removed(target, table, w_q, w_k, w_v):
    return _asked(target, table, w_q, w_k, w_v, weigh=lambda s: _weigher(-1)(s).nan_to_num(0.0))


# --- 8 -------------------------------------------------------------------------------------------------


def _pairs(rng: np.random.Generator, B: int, T: int, S: int, V: int, D: int) -> dict[str, Any]:
    """Sources without padding, targets filled up with an id that is no 0."""
    target = _targets(rng, B, T)["target"]
    pad_id = V - 1
    target = np.where(target == 0, pad_id, np.minimum(target, V - 2))
    source = rng.integers(3, V - 1, (B, S))
    table = rng.standard_normal((V, D))
    return {"source": source, "target": target, "table": table, **_square_weights(rng, D), "pad_id": pad_id}


def _pair_loss_reference(
    source: np.ndarray,
    target: np.ndarray,
    table: np.ndarray,
    w_q: np.ndarray,
    w_k: np.ndarray,
    w_v: np.ndarray,
    pad_id: int,
) -> np.ndarray:
    losses = []
    for words, row in zip(source, target, strict=True):
        for reads, wants in itertools.pairwise(row):
            if wants != pad_id:
                weights = _softmax((table[words] @ w_k) @ (table[reads] @ w_q) / table.shape[1] ** 0.5)
                logits = table @ (table[reads] + weights @ table[words] @ w_v)
                losses.append(-np.log(_softmax(logits)[wants]))
    return np.array(np.mean(losses))


class _Copying:  # so that both functions of this name can be told apart
    @staticmethod
    def pair_loss(source, target, table, w_q, w_k, w_v, pad_id):
        """The mean loss of a real target token: source (B, S), target (B, T + 1) to one number."""
        target = target[:, 1:]  # <bos> is no word
        x, memory = table[target], table[source]
        scores = (x @ w_q) @ (memory @ w_k).transpose(-2, -1) / x.shape[-1] ** 0.5
        x = x + scores.softmax(dim=-1) @ (memory @ w_v)
        logs = (x @ table.T).log_softmax(dim=-1)
        losses = -logs.gather(-1, target[..., None]).squeeze(-1)
        return losses[target != pad_id].mean()


@chapter.debug(
    broken=_Copying.pair_loss,
    title="The best loss of all",
    statement="""
        Somebody made the training loss tidier, and never before had the number translator learned so well:
        from three seeds, the mean loss of the first ten steps was between 0.3 and 0.5 nats, where it had been
        4.4 to 4.9 before, and after 50 steps it was below 0.002. Of 100 test numbers it translates none. It
        writes one word, over and over: *acht acht acht ...*

        Here is the loss with the smallest model there is: `table` (V, D) embeds source and target and makes
        the scores, and each target token asks the source, with `w_q`, `w_k`, `w_v` (D, D). `source` is
        (B, S), without padding; a row of `target` (B, T + 1) holds `<bos>`, the words, `<eos>` and `pad_id`
        up to the end. Asked for is the mean loss of the real tokens, `<eos>` among them, in nats. Repair it.
        """,
    hints=(
        "What does the model read at a place, and what is it asked for there? Write both down for one row.",
        "A model that writes has `<bos>` in hand before its first word. Did this one ever read it?",
        "Two tables are needed: what is read, all columns but the last, and what is wanted, all but the "
        "first. Which lines use the one, which the other?",
        "`read, wanted = target[:, :-1], target[:, 1:]`: `x` is made of `read`; `gather` and the comparison "
        "with `pad_id` take `wanted`.",
    ),
    axes="",
    inputs=_pairs,
    sizes=((2, 3, 2, 6, 2), (1, 2, 3, 7, 3), (3, 4, 2, 8, 4), (2, 5, 4, 9, 3), (4, 3, 5, 7, 2)),
    reference=_pair_loss_reference,
)
def pair_loss(source, target, table, w_q, w_k, w_v, pad_id):
    """The mean loss of a real target token: source (B, S), target (B, T + 1) to one number."""
    # The broken lines read and asked for the same token, and never read <bos>. What is read is one place
    # behind what is wanted.
    read, wanted = target[:, :-1], target[:, 1:]
    x, memory = table[read], table[source]
    scores = (x @ w_q) @ (memory @ w_k).transpose(-2, -1) / x.shape[-1] ** 0.5
    x = x + scores.softmax(dim=-1) @ (memory @ w_v)
    logs = (x @ table.T).log_softmax(dim=-1)
    losses = -logs.gather(-1, wanted[..., None]).squeeze(-1)
    return losses[wanted != pad_id].mean()


def _place_losses(source, read, wanted, table, w_q, w_k, w_v, dim=-1):
    x, memory = table[read], table[source]
    x = x + _attention_scores(x, memory, w_q, w_k).softmax(-1) @ (memory @ w_v)
    return -_chosen((x @ table.T).log_softmax(dim), wanted)


@pair_loss.slip("""
    Nothing has changed in what your function gives: each token without `<bos>` is read, and asked for
    where it is read.""")
def _still_copying(source, target, table, w_q, w_k, w_v, pad_id):
    words = target[:, 1:]
    return _place_losses(source, words, words, table, w_q, w_k, w_v)[words != pad_id].mean()


@pair_loss.slip("""
    `<bos>` is read now, but each token is still asked for where it is read: both tables lack the last
    column. What is wanted lacks the first.""")
def _copying_from_the_beginning(source, target, table, w_q, w_k, w_v, pad_id):
    words = target[:, :-1]
    return _place_losses(source, words, words, table, w_q, w_k, w_v)[words != pad_id].mean()


@pair_loss.slip("""
    The whole row is read now, and each token asked for where it is read, `<bos>` too. Cut one column from
    each table, and not the same.""")
def _copying_whole_rows(source, target, table, w_q, w_k, w_v, pad_id):
    return _place_losses(source, target, target, table, w_q, w_k, w_v)[target != pad_id].mean()


@pair_loss.slip("""
    The two tables have changed places: the model reads a token and is asked for the one before it.""")
def _looking_back(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, 1:], target[:, :-1]
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)[wanted != pad_id].mean()


@pair_loss.slip("""
    What is read comes without `<bos>`, and wanted is the token after it: so the first word is never asked
    for. Read from `<bos>` on.""")
def _first_word_never_asked_for(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, 1:-1], target[:, 2:]
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)[wanted != pad_id].mean()


@pair_loss.slip("""
    Wanted is the token after the next: shifted by two. One column is enough.""")
def _after_the_next(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-2], target[:, 2:]
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)[wanted != pad_id].mean()


@pair_loss.slip("""
    The shift is right, made with `roll`, and it wraps round: after the end of a full row `<bos>` is
    wanted. Cut the last place.""")
def _rolled(source, target, table, w_q, w_k, w_v, pad_id):
    wanted = target.roll(-1, 1)
    return _place_losses(source, target, wanted, table, w_q, w_k, w_v)[wanted != pad_id].mean()


@pair_loss.slip("""
    The shift is right. But places count where the token that is read is real, so padding is asked for
    after `<eos>`. Those count where a real token is wanted.""")
def _real_by_what_is_read(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)[read != pad_id].mean()


@pair_loss.slip("""
    The shift is right. But all places count now: padding is no part of the loss.""")
def _padding_asked_for(source, target, table, w_q, w_k, w_v, pad_id):
    return _place_losses(source, target[:, :-1], target[:, 1:], table, w_q, w_k, w_v).mean()


@pair_loss.slip("""
    The shift is right. But you divide by all places, those of padding too: the mean is over the real
    tokens.""")
def _divided_by_every_place(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    return (_place_losses(source, read, wanted, table, w_q, w_k, w_v) * (wanted != pad_id)).mean()


@pair_loss.slip("""
    The shift is right, and this is the sum. The mean over the real tokens is asked for.""")
def _summed(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)[wanted != pad_id].sum()


@pair_loss.slip("""
    The shift is right, and each place keeps its loss. One number is asked for, the mean over the real
    tokens.""")
def _each_real_place(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)


@pair_loss.slip("""
    The target is right now. But you cut the source as well: it is read whole, nothing of it is asked
    for.""")
def _source_cut(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    return _place_losses(source[:, :-1], read, wanted, table, w_q, w_k, w_v)[wanted != pad_id].mean()


@pair_loss.slip("""
    Now `<eos>` is not asked for, and the model would never learn to stop. Only padding is left out.""")
def _end_not_asked_for(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    words = (wanted != pad_id) & (wanted != 2)
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)[words].mean()


@pair_loss.slip("""
    The shift is right. But each sentence has its mean in your answer, and these have theirs. The mean is
    over all real tokens together.""")
def _mean_of_sentences(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    losses, real = _place_losses(source, read, wanted, table, w_q, w_k, w_v), wanted != pad_id
    return ((losses * real).sum(-1) / real.sum(-1)).mean()


@pair_loss.crash("""
    Two tables are not equally long: one has T columns, the other T + 1. What is read, what is wanted and
    the mask of the real tokens are all (B, T).""")
def _one_of_the_tables_whole(source, target, table, w_q, w_k, w_v, pad_id):
    read, wanted = target[:, :-1], target[:, 1:]
    return _place_losses(source, read, wanted, table, w_q, w_k, w_v)[target != pad_id].mean()


# --- 9 -------------------------------------------------------------------------------------------------


def _padded_source(
    rng: np.random.Generator, B: int, T: int, S: int, V: int, D: int, pad_id: int, side: str = "right"
) -> dict[str, Any]:
    """The first source is full, but not where padding stands in front; the last has one word.

    Words may have any id but that of padding.
    """
    source = rng.choice([i for i in range(V) if i != pad_id], (B, S))
    longest = S if side == "right" else S - 1
    for row, length in zip(source, np.linspace(longest, 1, B).round().astype(int), strict=True):
        row[length:] = pad_id
    source = source if side == "right" else source[:, ::-1].copy()
    x, table = rng.standard_normal((B, T, D)), rng.standard_normal((V, D))
    return {"x": x, "source": source, "table": table, "pad_id": pad_id}


def _read_reference(x: np.ndarray, source: np.ndarray, table: np.ndarray, pad_id: int) -> np.ndarray:
    out = x.copy()
    for b, words in enumerate(source):
        real = table[words[words != pad_id]]  # as if there were no padding
        memory = real + _softmax(real @ real.T / x.shape[-1] ** 0.5) @ real
        out[b] += _softmax(x[b] @ memory.T / x.shape[-1] ** 0.5) @ memory
    return out


class _Unmasked:  # so that both functions of this name can be told apart
    @staticmethod
    def read_source(x, source, table, pad_id):
        """The target reads the source: x (B, T, D), source (B, S) and table (V, D) to (B, T, D)."""
        h = table[source]
        scores = h @ h.transpose(-2, -1) / h.shape[-1] ** 0.5
        real = (source != pad_id)[:, None, :]
        weights = scores.masked_fill(~real, float("-inf")).softmax(dim=-1)
        memory = h + weights @ h
        scores = x @ memory.transpose(-2, -1) / x.shape[-1] ** 0.5
        return x + scores.softmax(dim=-1) @ memory


@chapter.debug(
    broken=_Unmasked.read_source,
    title="It depends on the company",
    statement="""
        With this fault the number translator was trained from three seeds. Its batches held numbers of like
        length, as is usual, so there was little padding, and the loss fell as in a sound model. Of 200 short
        test numbers, translated one by one, the three got 190 to 198 right. When the same numbers were padded
        to 24 places, one still got 198, the others 149 and 124. With a sound model padding changes nothing.

        Here is the way of the source through the smallest model there is, all matrices left out. `source`
        (B, S) holds ids, filled up with `pad_id`, at the end or at the start. The encoder embeds them with
        `table` (V, D), each of them attends to all, and the sum is `memory`. The target `x` (B, T, D) attends
        to it, and what it finds is added. What a sentence finds must not depend on how much padding stands
        beside it. Repair the function.
        """,
    hints=(
        "Read one short source alone, and again with two columns of padding. Print `memory` at its words, "
        "then the result: which of them has changed?",
        "Padding has keys like any word, and there are two attentions through which it can be seen. Which of "
        "them hides it?",
        "`real` (B, 1, S) is made for keys, and the keys are the same in both attentions: the places of the "
        "source.",
        '`scores.masked_fill(~real, float("-inf"))` belongs before the second softmax, too.',
    ),
    axes="B T D",
    inputs=_padded_source,
    sizes=(
        (2, 3, 4, 5, 2, 0),
        (3, 2, 4, 6, 5, 4),
        (1, 3, 2, 4, 4, 1),
        (2, 4, 5, 6, 3, 2, "left"),
        (4, 3, 3, 7, 2, 3),
        (3, 4, 4, 5, 2, 1, "left"),
    ),
    reference=_read_reference,
)
def read_source(x, source, table, pad_id):
    """The target reads the source: x (B, T, D), source (B, S) and table (V, D) to (B, T, D)."""
    h = table[source]
    scores = h @ h.transpose(-2, -1) / h.shape[-1] ** 0.5
    real = (source != pad_id)[:, None, :]
    weights = scores.masked_fill(~real, float("-inf")).softmax(dim=-1)
    memory = h + weights @ h
    # The encoder gives a vector for padding, too, and it means nothing. The broken line let the target see
    # it: the keys of both attentions are places of the source, and both need its mask.
    scores = (x @ memory.transpose(-2, -1) / x.shape[-1] ** 0.5).masked_fill(~real, float("-inf"))
    return x + scores.softmax(dim=-1) @ memory


def _looked_at(asks, answers, mask):
    return _hidden(asks @ answers.mT / asks.shape[-1] ** 0.5, mask).softmax(-1) @ answers


def _real(source, pad_id):
    return (source != pad_id)[:, None, :]


def _memory(source, table, mask):
    return table[source] + _looked_at(table[source], table[source], mask)


def _anything(source):
    return torch.ones_like(source, dtype=torch.bool)[:, None, :]


@read_source.slip("""
    The target still sees padding: the second attention has no mask. The keys are the places of the source
    there, too.""")
def _still_seen(x, source, table, pad_id):
    return x + _looked_at(x, _memory(source, table, _real(source, pad_id)), _anything(source))


@read_source.slip("""
    The target no longer sees padding, but the words of the source do: you moved the mask from the first
    attention to the second. Both need it.""")
def _mask_moved(x, source, table, pad_id):
    return x + _looked_at(x, _memory(source, table, _anything(source)), _real(source, pad_id))


@read_source.slip("""
    Padding is seen by all now: neither attention has a mask.""")
def _no_mask_at_all(x, source, table, pad_id):
    return x + _looked_at(x, _memory(source, table, _anything(source)), _anything(source))


@read_source.slip("""
    You set the memory of padding to 0. Its score is 0 then, and exp(0) is 1: it still takes a share of
    the weight. Give it the score minus infinity.""")
def _memory_set_to_zero(x, source, table, pad_id):
    real = _real(source, pad_id)
    return x + _looked_at(x, _memory(source, table, real) * real.mT, _anything(source))


@read_source.slip("""
    You set the weights of padding to 0 after the softmax, and what they held is lost: the weights of a
    short source no longer sum to 1. Hide the scores, before the softmax.""")
def _weights_set_to_zero(x, source, table, pad_id):
    real = _real(source, pad_id)
    memory = _memory(source, table, real)
    return x + (x @ memory.mT / x.shape[-1] ** 0.5).softmax(-1) * real @ memory


@read_source.slip("""
    The scores of padding became 0 in the second attention, and exp(0) is 1, a weight. Minus infinity gets
    none.""")
def _scores_set_to_zero(x, source, table, pad_id):
    real = _real(source, pad_id)
    memory = _memory(source, table, real)
    return x + (x @ memory.mT / x.shape[-1] ** 0.5 * real).softmax(-1) @ memory


@read_source.slip("""
    In the second attention your mask is turned round: the target sees the padding alone. Fill where
    `real` is False, `~real`.""")
def _padding_alone_seen(x, source, table, pad_id):
    real = _real(source, pad_id)
    memory = _memory(source, table, real)
    return x + _looked_at(x, memory, ~real)


@read_source.slip("""
    You took 0 for the padding. Its id comes as `pad_id`, and 0 may be a word like any other.""")
def _zero_for_padding(x, source, table, pad_id):
    real = _real(source, 0)
    return x + _looked_at(x, _memory(source, table, real), real)


@read_source.slip("""
    The mask of the second attention takes 0 for the padding; that of the first was right. The id comes as
    `pad_id`.""")
def _zero_for_padding_once(x, source, table, pad_id):
    memory = _memory(source, table, _real(source, pad_id))
    return x + _looked_at(x, memory, _real(source, 0))


@read_source.slip("""
    You hid from the first padding on. In some sources it stands at the start, and the words come after
    it: compare each id with `pad_id`.""")
def _from_the_first_on(x, source, table, pad_id):
    memory = _memory(source, table, _real(source, pad_id))
    return x + _looked_at(x, memory, ((source == pad_id).cumsum(-1) == 0)[:, None, :])


@read_source.slip("""
    You show as many places as a source has words, and always the first ones. In some sources padding
    stands at the start: compare each id with `pad_id`.""")
def _first_ones_seen(x, source, table, pad_id):
    real = _real(source, pad_id)
    seen = torch.arange(source.shape[1]) < real.sum(-1, keepdim=True)
    return x + _looked_at(x, _memory(source, table, real), seen)


@read_source.slip("""
    The mask is right. But the softmax of the second attention runs over the target tokens: each of them
    shares its weight among the places of the source, the last axis.""")
def _shared_among_the_target(x, source, table, pad_id):
    real = _real(source, pad_id)
    memory = _memory(source, table, real)
    return x + _hidden(x @ memory.mT / x.shape[-1] ** 0.5, real).softmax(1).nan_to_num(0.0) @ memory


@read_source.slip("""
    The mask is right, and `x` is gone: what the target finds is added to it.""")
def _found_alone(x, source, table, pad_id):
    real = _real(source, pad_id)
    return _looked_at(x, _memory(source, table, real), real)


@read_source.slip("""
    Padding is hidden, and the encoder with it: the target reads the bare embeddings. Keep `memory`.""")
def _embeddings_read(x, source, table, pad_id):
    return x + _looked_at(x, table[source], _real(source, pad_id))


@read_source.slip("""
    The mask is right, and the root of D is gone from the scores of the second attention. It was
    right.""")
def _scores_not_scaled(x, source, table, pad_id):
    real = _real(source, pad_id)
    memory = _memory(source, table, real)
    return x + _hidden(x @ memory.mT, real).softmax(-1) @ memory


@read_source.slip("""
    You hid the rows of padding in the encoder as well: a word that sees nothing gets NaN. It is keys that
    are hidden, the last axis.""")
def _rows_hidden_too(x, source, table, pad_id):
    real = _real(source, pad_id)
    return x + _looked_at(x, _memory(source, table, real & real.mT), real)


@read_source.crash("""
    `masked_fill` stretches the mask to the scores, (B, T, S). Yours is (B, S), and B would be taken for
    T: put an axis of length 1 between them.""")
def _mask_of_two_axes(x, source, table, pad_id):
    memory = _memory(source, table, _real(source, pad_id))
    return x + _looked_at(x, memory, (source != pad_id))


# --- 10 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="What a fresh model says",
    statement="""
        An untrained model knows nothing. Is its loss that of an even guess, ln V? Make ten models with a
        vocabulary of 1000, `Transformer(TransformerConfig.tiny(vocab_size=1000))`, each after
        `torch.manual_seed(seed)` with a seed of its own, and each in evaluation, `.eval()`. Give each at
        least 100 random pairs, sources of 12 tokens and targets of 13: `torch.randint(3, 1000, ...)`, no
        special tokens.

        Read `target[:, :-1]`, ask for `target[:, 1:]`. Report two numbers, each averaged over the models: by
        how much the loss lies above ln 1000, in nats, and the share of places at which the highest of the
        1000 scores belongs to the token that has just been **read**.
        """,
    hints=(
        "`scores = model(source, read)` has the shape (B, T, V). `F.cross_entropy(scores.flatten(0, 1), "
        "wanted.flatten())` is the mean loss, and `math.log(1000)` is ln 1000.",
        "`scores.argmax(dim=-1)` is (B, T), the likeliest token at each place: compare it with `read`.",
        "`torch.no_grad()` around it saves memory. `.eval()` switches dropout off, which blurs both numbers.",
    ),
    ranges={"loss above ln 1000": (0.49, 0.6), "share of copies": (0.68, 0.84)},
    slips={
        "The two numbers are the other way round: first the loss above ln 1000.": (
            (0.68, 0.84),
            (0.49, 0.6),
        ),
        "The first number is the loss itself. Take ln 1000 = 6.908 from it.": ((7.3, 7.6), (0.66, 0.86)),
        "The first number is turned round: take ln 1000 from the loss, which is the larger one.": (
            (-0.6, -0.49),
            (0.66, 0.86),
        ),
        "The first number is in bits. `F.cross_entropy` gives nats; leave them so, and take the natural "
        "logarithm of 1000.": ((0.7, 0.88), (0.66, 0.86)),
        "You asked for the tokens that are read: that loss lies far below ln 1000. Ask for "
        "`target[:, 1:]`.": ((-3.7, -3.1), (0.66, 0.86)),
        "The second number counts right guesses, which are as rare as chance has it. Compare the likeliest "
        "token with the one that was read.": ((0.49, 0.6), (0.0, 0.005)),
        "The second number is a probability, that of the token that was read. Count the places at which it "
        "is the likeliest: `argmax`.": ((0.49, 0.6), (0.03, 0.07)),
        "Right, but the share came as a percentage: write 0.5 for 50 %.": ((0.49, 0.6), (66.0, 86.0)),
    },
    at_most=(10.0, "One of these is too large: the loss is near 7, and a share is at most 1."),
    otherwise="Not in the range that ten fresh models give. Check: the tiny configuration with a vocabulary "
    "of 1000, `.eval()`, random ids from 3 to 999; what is read lacks the last column, what is wanted the "
    "first.",
)
def fresh_model():
    """A fresh model repeats what it reads. One table embeds the tokens and makes the scores; a token's row,
    times the root of D, is the largest part of the pre-norm stream, so its own score is the highest. The next
    word is another one, and so the loss begins about half a nat above an even guess.
    """
    from transformer_lab.encoder_decoder import Transformer, TransformerConfig

    above, copies = [], []
    for seed in range(10):
        torch.manual_seed(seed)
        model = Transformer(TransformerConfig.tiny(vocab_size=1000)).eval()
        source, target = torch.randint(3, 1000, (100, 12)), torch.randint(3, 1000, (100, 13))
        read, wanted = target[:, :-1], target[:, 1:]
        with torch.no_grad():
            scores = model(source, read)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), wanted.flatten())
        above.append(loss - torch.tensor(1000.0).log())
        copies.append((scores.argmax(dim=-1) == read).float().mean())
    return torch.stack(above).mean().item(), torch.stack(copies).mean().item()
