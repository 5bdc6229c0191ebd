"""Exercises of the chapter "What attention costs", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it. G is the number of key/value
heads, Dc the width of a latent.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .check import Chapter
from .check.references import softmax as _softmax

chapter = Chapter("efficient", "What attention costs")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How much of it is quadratic",
    statement="""
        A block is D = 8192 wide, with the usual feed-forward network of four times that width. For each
        token, its matrices (four of the attention, two of the feed-forward network) hold 12 D² numbers, and
        each of these costs a multiplication and an addition. A text of n = 12,288 tokens goes through the
        block.

        Before you run anything: which share of all its FLOPs do the scores and the weighted sums take, the
        two products that grow with n²? Give a number from 0 to 1; every pair counts, hidden or not.
        """,
    hints=(
        "The matrices cost 2 · 12 D² for each token, so 24 n D² together. Write the other part down in the "
        "same way.",
        "The scores are a product of (n, D) and (D, n), all heads together: 2 n² D. The weighted sums cost "
        "the same once more.",
        "4 n² D against 24 n D²: divide both by 4 n D. What is left is n against 6 D, and n is 1.5 D.",
        "A share is the part divided by the whole: n / (n + 6 D).",
    ),
    expected=0.2,
    wrong={
        0.25: "That is the quadratic part divided by the rest. A share is the part divided by the whole.",
        0.111111: "You counted one of two products. Scores and weighted sums cost 2 n² D each.",
        0.428571: "You left the feed-forward network out. Its two matrices hold 8 D² numbers, twice as many "
        "as the four of the attention.",
        0.8: "That is the share of the matrices. Asked for is the other part.",
        0.333333: "You counted each number of the matrices as one operation, and the products as two. Both "
        "are multiplied and added: 24 n D² and 4 n² D.",
        0.6: "Here n = 1.5 D is right, and 6 D is missing: the matrices hold 12 D² numbers and not 2 D².",
        20.0: "That is percent. Give the share as a number from 0 to 1.",
    },
    otherwise="Not that number. Matrices: 24 n D². Scores and weighted sums: 4 n² D. Divide the second by "
    "the sum of both.",
    form="one number from 0 to 1",
)
def share_of_the_scores():
    """n / (n + 6 D) = 1.5 / 7.5. The quadratic part has caught up with the matrices only at n = 6 D, which is
    49,152 tokens here. In a wide model it matters late.
    """
    n, d_model = 12_288, 8192
    matrices = 2 * n * 12 * d_model**2
    quadratic = 2 * (2 * n * n * d_model)  # scores, and weighted sums
    return quadratic / (quadratic + matrices)


# --- 2 -------------------------------------------------------------------------------------------------


def _block_inputs(rng: np.random.Generator, N: int, H: int, G: int, Dh: int, d_ff: int) -> dict[str, Any]:
    lengths = rng.permutation(np.arange(2, 30))[:N]
    return {"lengths": lengths, "d_model": H * Dh, "n_heads": H, "n_kv_heads": G, "d_ff": d_ff}


def _block_reference(
    lengths: np.ndarray, d_model: int, n_heads: int, n_kv_heads: int, d_ff: int
) -> np.ndarray:
    """Each product of an (a, b) and a (b, c) matrix costs 2 a b c, and here they all are."""

    def cost(*products: tuple[int, int, int]) -> int:
        return sum(2 * a * b * c for a, b, c in products)

    rows, d_head = [], d_model // n_heads
    for n in lengths.tolist():
        kv = (n, d_model, n_kv_heads * d_head)
        rows.append(
            (
                cost((n, d_model, d_model), kv, kv, (n, d_model, d_model)),
                n_heads * cost((n, d_head, n), (n, n, d_head)),
                cost((n, d_model, d_ff), (n, d_ff, d_model)),
            )
        )
    return np.array(rows)


@chapter.implement(
    title="The FLOPs of a block",
    statement="""
        Count what one Transformer block costs. `lengths` holds N lengths of texts, whole numbers. The block
        is `d_model` (D) wide, has `n_heads` heads (H) for the queries and `n_kv_heads` heads (G) for keys and
        values, each D / H wide, and a feed-forward network of two matrices, up to `d_ff` numbers and back to
        D. The product of an (a, b) and a (b, c) matrix costs 2 a b c FLOPs: a multiplication and an addition
        for each pair of numbers that meet.

        For each length return three whole numbers, so (N, 3): the FLOPs of the **projections** (queries,
        keys, values, output), of **scores** and weighted sums together, and of the **feed-forward** network.
        All n² pairs count, also those that a mask would hide. Softmax, norms and biases are left out.
        """,
    hints=(
        "Write the shapes of all eight products down first: four projections, two with an n by n table, two "
        "of the feed-forward network.",
        "Queries: (n, D) times (D, D). Keys: (n, D) times (D, G · D / H), and so are the values. What the "
        "heads give is D wide again, and the output projection is (D, D).",
        "One head: (n, D / H) times (D / H, n) for the scores, (n, n) times (n, D / H) for the sums. Each of "
        "H heads does that: shared keys are fewer to store, but as many to meet.",
        "`d_model // n_heads` keeps whole numbers whole, and `torch.stack([a, b, c], dim=-1)` makes three "
        "rows of N numbers a table (N, 3).",
    ),
    axes="N 3",
    inputs=_block_inputs,
    sizes=((2, 4, 1, 3, 10), (1, 4, 2, 3, 20), (4, 6, 3, 5, 70), (2, 4, 4, 2, 24), (5, 8, 1, 2, 40)),
    reference=_block_reference,
    gradient=False,
)
def block_flops(lengths, d_model, n_heads, n_kv_heads, d_ff):
    """What one block costs at each of N lengths (N,): projections, scores, feed-forward, (N, 3)."""
    # Queries and output have a matrix (D, D); keys and values are only as wide as their heads together.
    numbers = 2 * d_model**2 + 2 * d_model * (d_model // n_heads * n_kv_heads)
    # Each number of a matrix is multiplied and added once for each token.
    projections = 2 * lengths * numbers
    # Two products with an n by n table, 2 n² D each: query heads are D wide together, whoever shares keys.
    scores = 4 * lengths**2 * d_model
    feed_forward = 2 * lengths * 2 * d_model * d_ff
    return torch.stack([projections, scores, feed_forward], dim=-1)


def _columns(lengths, projections, scores, feed_forward):
    return torch.stack([lengths * projections, scores + 0 * lengths, lengths * feed_forward], -1)


def _counted(lengths, D, H, G, F, *, projections=None, scores=None, feed_forward=None):
    """The right answer with one column changed."""
    return _columns(
        lengths,
        4 * D * D + 4 * D * (D // H * G) if projections is None else projections,
        4 * lengths**2 * D if scores is None else scores,
        4 * D * F if feed_forward is None else feed_forward,
    )


@block_flops.slip("""
    Half of what it should be, everywhere: each pair of numbers that meet is multiplied *and* added, two
    operations.""")
def _multiplications_alone(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return block_flops.solve(lengths, d_model, n_heads, n_kv_heads, d_ff) // 2


@block_flops.slip("""
    You made keys and values as wide as the queries. They have only `n_kv_heads` heads, each D / H wide.""")
def _keys_of_all_heads(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, projections=8 * d_model**2)


@block_flops.slip("""
    You let queries and output shrink with the keys. Only keys and values have `n_kv_heads` heads; queries and
    output are D wide.""")
def _all_four_shrink(lengths, d_model, n_heads, n_kv_heads, d_ff):
    narrow = 8 * d_model * (d_model // n_heads * n_kv_heads)
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, projections=narrow)


@block_flops.slip("""
    Your scores shrink with the number of key/value heads. Sharing saves keys, not comparisons: each of the H
    query heads still meets n keys.""")
def _scores_shrink(lengths, d_model, n_heads, n_kv_heads, d_ff):
    scores = 4 * lengths**2 * (d_model // n_heads * n_kv_heads)
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, scores=scores)


@block_flops.slip("""
    `n_kv_heads` stands in the wrong place. Keys and values are narrow, so the projections have it; all H
    query heads compare, so the scores do not.""")
def _groups_in_the_wrong_place(lengths, d_model, n_heads, n_kv_heads, d_ff):
    scores = 4 * lengths**2 * (d_model // n_heads * n_kv_heads)
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, projections=8 * d_model**2, scores=scores)


@block_flops.slip("""
    The output projection is missing: what the heads give goes through one more (D, D) matrix.""")
def _no_output(lengths, d_model, n_heads, n_kv_heads, d_ff):
    three = 2 * d_model**2 + 4 * d_model * (d_model // n_heads * n_kv_heads)
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, projections=three)


@block_flops.slip("""
    Of keys and values you projected only one. Both have a matrix of their own.""")
def _keys_without_values(lengths, d_model, n_heads, n_kv_heads, d_ff):
    three = 4 * d_model**2 + 2 * d_model * (d_model // n_heads * n_kv_heads)
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, projections=three)


@block_flops.slip("""
    The second column holds one product of two: the scores, q times k, and the weighted sums, weights times v,
    cost 2 n² D each.""")
def _scores_without_sums(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, scores=2 * lengths**2 * d_model)


@block_flops.slip("""
    The second column is that of one head. There are H of them, together D wide.""")
def _one_head(lengths, d_model, n_heads, n_kv_heads, d_ff):
    scores = 4 * lengths**2 * (d_model // n_heads)
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, scores=scores)


@block_flops.slip("""
    The second column is H times too large: a head is D / H wide, so all H of them together are D wide.""")
def _heads_twice(lengths, d_model, n_heads, n_kv_heads, d_ff):
    scores = 4 * lengths**2 * d_model * n_heads
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, scores=scores)


@block_flops.slip("""
    Your scores grow with n, not with n²: each of n queries meets each of n keys.""")
def _one_query(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, scores=4 * lengths * d_model)


@block_flops.slip("""
    You counted the pairs that a causal mask leaves. Here all n² pairs count, as they are computed by a plain
    product of matrices.""")
def _causal_pairs(lengths, d_model, n_heads, n_kv_heads, d_ff):
    scores = 2 * lengths * (lengths + 1) * d_model
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, scores=scores)


@block_flops.slip("""
    The feed-forward network has two matrices, one up and one down; you counted one.""")
def _one_matrix(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, feed_forward=2 * d_model * d_ff)


@block_flops.slip("""
    You counted three matrices in the feed-forward network. Gated ones (SwiGLU) have three; this one has two.
    """)
def _three_matrices(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, feed_forward=6 * d_model * d_ff)


@block_flops.slip("""
    You took four times D for the hidden width. Here it comes as `d_ff`.""")
def _four_times_as_wide(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return _counted(lengths, d_model, n_heads, n_kv_heads, d_ff, feed_forward=16 * d_model**2)


@block_flops.slip("""
    Projections and feed-forward network are counted for one token. Each of the n tokens goes through them.
    """)
def _one_token(lengths, d_model, n_heads, n_kv_heads, d_ff):
    right = block_flops.solve(lengths, d_model, n_heads, n_kv_heads, d_ff)
    return torch.stack([right[:, 0] // lengths, right[:, 1], right[:, 2] // lengths], -1)


@block_flops.slip("""
    You counted parameters in the first and the last column: each of them costs two operations for each of
    the n tokens.""")
def _parameters(lengths, d_model, n_heads, n_kv_heads, d_ff):
    right = block_flops.solve(lengths, d_model, n_heads, n_kv_heads, d_ff)
    return torch.stack([right[:, 0] // lengths // 2, right[:, 1], right[:, 2] // lengths // 2], -1)


@block_flops.slip("""
    The three numbers are right and stand in another order: projections, scores, feed-forward.""")
def _another_order(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return block_flops.solve(lengths, d_model, n_heads, n_kv_heads, d_ff)[:, [0, 2, 1]]


@block_flops.slip("""
    You added the three up. Keep them apart, in three columns.""")
def _added_up(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return block_flops.solve(lengths, d_model, n_heads, n_kv_heads, d_ff).sum(-1)


@block_flops.slip("""
    A column for each length and a row for each part: it should be the other way round, (N, 3). `dim=-1` in
    `torch.stack` does that.""")
def _stacked_in_rows(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return block_flops.solve(lengths, d_model, n_heads, n_kv_heads, d_ff).T


@block_flops.crash("""
    `torch.tensor` makes a tensor of numbers. These are tensors already, of N numbers each:
    `torch.stack([...], dim=-1)` puts them side by side.""")
def _tensor_of_tensors(lengths, d_model, n_heads, n_kv_heads, d_ff):
    return torch.tensor([lengths, lengths, lengths])


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The cache of Llama 3 70B",
    statement="""
        Llama 3 70B has 80 layers. It is 8192 numbers wide and has 64 heads, but only 8 heads for keys and
        values (Grattafiori et al. 2024, Table 3). Its cache holds numbers of 2 bytes.

        Before you run anything: how much memory does the cache of *one* text of 8192 tokens take? Answer in
        GiB (1 GiB is 2³⁰ bytes).
        """,
    hints=(
        "Start with one token in one layer: a key and a value for each of the key/value heads. How wide is a "
        "head?",
        "A head is 8192 / 64 = 128 wide, also the shared ones. So a token leaves 2 · 8 · 128 numbers in each "
        "layer.",
        "Times 80 layers, times 2 bytes: 327,680 bytes a token. Times 8192 tokens; divide by 2³⁰.",
    ),
    expected=2.5,
    wrong={
        20.0: "So it would be with keys and values of all 64 heads. Only 8 heads are stored.",
        1.25: "Half of it is missing: a key *and* a value for each token, and two bytes for each number.",
        5.0: "Twice too much. A number takes 2 bytes here; or did you count keys and values twice?",
        0.3125: "You stored one key/value head. Here 8 are shared by 64 query heads.",
        0.03125: "That is the cache of one layer. Each of the 80 layers has its own.",
        10.0: "That is half of what all 64 heads would need. Stored are 8 heads, keys and values, 2 bytes "
        "each.",
        160.0: "You made each of the 8 heads 8192 wide. 64 query heads share that width, so a head has 128 "
        "numbers.",
        2.684: "That is in units of 10⁹ bytes. Asked for is GiB, units of 2³⁰.",
        2.68: "That is in GB, units of 10⁹ bytes. Asked for is GiB, units of 2³⁰.",
        2684354560.0: "These are bytes. Divide by 2³⁰.",
        327680.0: "These are the bytes of one token. The text has 8192; then divide by 2³⁰.",
        2560.0: "That is in MiB. Divide by 1024.",
        0.000305: "That is the cache of one token. The text has 8192.",
    },
    otherwise="Not that number. Multiply: 2 (a key and a value), 80 layers, 8 heads, 128 numbers a head, 2 "
    "bytes, 8192 tokens. Then divide by 2³⁰.",
    form="one number, in GiB",
)
def cache_of_llama():
    """Keys and values of 8 heads of 128 numbers, in 80 layers, 2 bytes each: 320 KiB for every token. With
    all 64 heads it would be 20 GiB, a quarter of a GPU of 80 GB, for one text.
    """
    d_head = 8192 // 64
    per_token = 2 * 80 * 8 * d_head * 2  # key and value, layers, heads, width, bytes
    return per_token * 8192 / 2**30


# --- 4 -------------------------------------------------------------------------------------------------


def _append_inputs(rng: np.random.Generator, B: int, G: int, S: int, T: int, Dh: int) -> dict[str, Any]:
    return {"cache": rng.standard_normal((B, G, S, Dh)), "new": rng.standard_normal((B, T, G * Dh))}


def _append_reference(cache: np.ndarray, new: np.ndarray) -> np.ndarray:
    B, G, S, Dh = cache.shape
    out = np.zeros((B, G, S + new.shape[1], Dh))
    for b, g in np.ndindex(B, G):
        for s in range(S):
            out[b, g, s] = cache[b, g, s]
        for t in range(new.shape[1]):
            out[b, g, S + t] = new[b, t, g * Dh : (g + 1) * Dh]
    return out


@chapter.implement(
    title="Append to a cache",
    statement="""
        `cache` holds the keys of S tokens, (B, G, S, Dh): sentences, heads, tokens, width of a head. Now T
        more tokens were read, and the projection of the keys gave `new`, (B, T, G · Dh): for each token the
        keys of all heads lie side by side, head 0 first.

        Split them into heads and put them behind the old ones: (B, G, S + T, Dh). S may be 0. The cache that
        came in should stay as it is; return a new one.
        """,
    hints=(
        "Two steps: bring `new` into the layout of the cache, then join both along the tokens.",
        "`new.unflatten(-1, (G, Dh))` is (B, T, G, Dh): each token's keys, cut into heads. Which two axes "
        "still stand in the wrong order?",
        "`transpose(1, 2)` brings the heads before the tokens. `torch.cat([a, b], dim=...)` joins along the "
        "axis of the tokens, which is 2 in (B, G, S, Dh).",
    ),
    axes="B G S+T Dh",
    inputs=_append_inputs,
    sizes=((1, 2, 3, 1, 4), (2, 3, 4, 5, 2), (1, 4, 0, 3, 2), (3, 2, 5, 4, 1), (2, 1, 6, 3, 5)),
    reference=_append_reference,
)
def append_to_cache(cache, new):
    """Keys of T more tokens, new (B, T, G * Dh), behind those in cache (B, G, S, Dh): (B, G, S + T, Dh)."""
    G, Dh = cache.shape[1], cache.shape[3]
    # A token's row is cut into heads first; only then may the axes change places.
    heads = new.unflatten(-1, (G, Dh)).transpose(1, 2)  # (B, T, G * Dh) -> (B, G, T, Dh)
    # Old tokens first: place s of the cache belongs to position s.
    return torch.cat([cache, heads], dim=2)


def _split(cache, new):
    return new.unflatten(-1, (cache.shape[1], -1)).transpose(1, 2)


@append_to_cache.slip("""
    You cut the row of numbers anew instead of swapping two axes: `view` or `reshape` to (B, G, T, Dh) hands
    a head numbers of other heads and other tokens. With T = 1 it is even right. First (B, T, G, Dh), then
    `transpose(1, 2)`.""")
def _cut_anew(cache, new):
    B, T, _ = new.shape
    return torch.cat([cache, new.reshape(B, cache.shape[1], T, cache.shape[3])], 2)


@append_to_cache.slip("""
    The new keys stand before the old ones. Place s of the cache belongs to the token at position s: new ones
    go to the end.""")
def _new_ones_first(cache, new):
    return torch.cat([_split(cache, new), cache], 2)


@append_to_cache.slip("""
    You cut each row into Dh pieces of G numbers. Head 0 has the first Dh numbers of a row, head 1 the next:
    `unflatten(-1, (G, Dh))`.""")
def _dealt_out(cache, new):
    return torch.cat([cache, new.unflatten(-1, (-1, cache.shape[1])).permute(0, 3, 1, 2)], 2)


@append_to_cache.slip("""
    Only the new keys are there: the old ones were replaced. Join both.""")
def _old_ones_lost(cache, new):
    return _split(cache, new)


@append_to_cache.slip("""
    The cache came back as it was. `torch.cat` makes a new tensor; is it the one that you return?""")
def _nothing_appended(cache, new):
    return cache


@append_to_cache.slip("""
    The cache is as long as before, and the oldest tokens are gone. It should grow: S + T tokens.""")
def _oldest_dropped(cache, new):
    return torch.cat([cache, _split(cache, new)], 2)[:, :, new.shape[1] :]


@append_to_cache.slip("""
    The new keys were written over the last ones of the cache. They belong behind them.""")
def _newest_overwritten(cache, new):
    kept = max(cache.shape[2] - new.shape[1], 0)
    return torch.cat([cache[:, :, :kept], _split(cache, new)], 2)


@append_to_cache.slip("""
    The new tokens stand in reverse order, the newest first. Keep them as they came.""")
def _newest_first(cache, new):
    return torch.cat([cache, _split(cache, new).flip(2)], 2)


@append_to_cache.slip("""
    The heads stand in reverse order in the new part.""")
def _heads_reversed(cache, new):
    return torch.cat([cache, _split(cache, new).flip(1)], 2)


@append_to_cache.slip("""
    All sentences got the new keys of the first one. Each has its own: the first axis stays as it is.""")
def _one_sentence_for_all(cache, new):
    return torch.cat([cache, _split(cache, new)[:1].expand(len(cache), -1, -1, -1)], 2)


@append_to_cache.slip("""
    All heads got the keys of the first one. Each has its own part of the row.""")
def _one_head_for_all(cache, new):
    return torch.cat([cache, _split(cache, new)[:, :1].expand(-1, cache.shape[1], -1, -1)], 2)


@append_to_cache.slip("""
    Of T new tokens only the last was appended. A prompt brings many at once: all of them go in.""")
def _last_one_alone(cache, new):
    return torch.cat([cache, _split(cache, new)[:, :, -1:]], 2)


@append_to_cache.slip("""
    Of T new tokens only the first was appended. A prompt brings many at once: all of them go in.""")
def _first_one_alone(cache, new):
    return torch.cat([cache, _split(cache, new)[:, :, :1]], 2)


@append_to_cache.slip("""
    The keys are right, with tokens before heads: (B, S + T, G, Dh). The cache keeps (B, G, S + T, Dh), so
    that each head's keys lie together.""")
def _tokens_before_heads(cache, new):
    return torch.cat([cache, _split(cache, new)], 2).transpose(1, 2)


@append_to_cache.slip("""
    The keys are right, with all heads in one row. Keep them apart: (B, G, S + T, Dh).""")
def _heads_in_one_row(cache, new):
    return torch.cat([cache, _split(cache, new)], 2).transpose(1, 2).flatten(2)


@append_to_cache.crash("""
    `new` has three axes, (B, T, G · Dh), and the cache has four: cut each row into heads first.""")
def _not_cut_into_heads(cache, new):
    return torch.cat([cache, new], 2)


@append_to_cache.crash("""
    You joined along the heads. New tokens make the axis of the tokens longer, and that is axis 2.""")
def _along_the_heads(cache, new):
    return torch.cat([cache, _split(cache, new)], 1)


@append_to_cache.crash("""
    You joined along the width of the heads. New tokens make the axis of the tokens longer, and that is axis
    2.""")
def _along_the_width(cache, new):
    return torch.cat([cache, _split(cache, new)], -1)


@append_to_cache.crash("""
    The new keys are (B, T, G, Dh), with tokens before heads; the cache is (B, G, S, Dh). Swap two axes of the
    new ones before you join.""")
def _not_swapped(cache, new):
    return torch.cat([cache, new.unflatten(-1, (cache.shape[1], -1))], 2)


# --- 5 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Waiting for memory",
    statement="""
        A chip can do 200 · 10¹² FLOPs a second, and its memory delivers 10¹² bytes a second. A model writes B
        texts at once, one token for each in every step. All numbers take 2 bytes.

        - Each weight of the model is read once in a step, and used for each of the B texts: a multiplication
          and an addition.
        - Each number of the caches is read once in a step as well. There are 32 query heads and 8 key/value
          heads, and every number of a key or a value is multiplied and added once for each query head that
          shares it.

        Before you run anything, two numbers: how large must B be so that multiplying by the weights is bound
        by arithmetic and no longer by memory? And with that B, how many FLOPs does attention do for each byte
        that it reads of the caches?
        """,
    hints=(
        "In a second the chip can do 200 FLOPs for each byte that arrives. Less work than that for each "
        "byte, and it waits for memory.",
        "A weight: 2 FLOPs for each of B texts, and 2 bytes. How many FLOPs is that for one byte?",
        "A number of the cache belongs to one text. How many query heads share it? The B texts do not.",
        "So a number of the cache gives 4 · 2 FLOPs for its 2 bytes, however large B is.",
    ),
    expected=(200, 4),
    wrong={
        (200, 800): "B is right. But a cache belongs to one text: a larger batch reads more caches, and each "
        "number is still used for its own text alone.",
        (200, 1): "B is right. In the cache, 32 query heads share 8 key/value heads: each number serves four "
        "queries.",
        (200, 8): "B is right. 8 are the FLOPs for each *number* of the cache, and a number takes 2 bytes.",
        (200, 2): "B is right. In the cache each number is multiplied and added for 4 query heads, and takes "
        "2 bytes.",
        (200, 32): "B is right. Not all query heads share a key: each of 8 key/value heads serves 4 of the "
        "32.",
        (200, 200): "B is right. But attention's work on the cache does not grow with B: each text has its "
        "own cache.",
        (200, 16): "B is right. A number of the cache serves 4 query heads with 2 FLOPs each, so 8 FLOPs for "
        "2 bytes.",
        (200, 0.25): "B is right. The second number is turned round: these are bytes for each FLOP.",
        (100, 4): "The second number is right. For the first: a weight gives 2 B FLOPs for its 2 bytes, so "
        "B FLOPs for a byte.",
        (400, 4): "The second number is right. For the first: a weight gives 2 B FLOPs, multiplied *and* "
        "added, and takes 2 bytes, so B FLOPs for a byte.",
        (50, 4): "The second number is right. Heads do not share weights: each weight is used once for each "
        "of the B texts.",
        (1, 4): "The second number is right. With B = 1 a weight gives 2 FLOPs for its 2 bytes, and the chip "
        "could do 200 for each byte.",
        (4, 200): "These are the two numbers the other way round: first B.",
        (400, 8): "Both are counted for a number, not for a byte: a number takes 2 bytes, and 2 FLOPs are "
        "done with it each time.",
    },
    otherwise="Not these. The chip can do 200 FLOPs for each byte. A weight gives 2 B FLOPs for 2 bytes; a "
    "number of the cache gives 2 FLOPs for each of the query heads that share it, for 2 bytes.",
    form="a tuple of two numbers",
)
def waiting_for_memory():
    """Many texts share the weights, so a batch of 200 keeps the chip busy there. Nobody shares a cache: at 4
    FLOPs for each byte, attention waits for memory whatever the batch is. Hence the wish for smaller caches.
    """
    flops_per_byte = 200e12 / 1e12
    batch = flops_per_byte * 2 / 2  # 2 B FLOPs for 2 bytes
    sharing = 32 / 8
    return batch, sharing * 2 / 2


# --- 6 -------------------------------------------------------------------------------------------------


def _grouped_inputs(
    rng: np.random.Generator, B: int, H: int, G: int, T: int, S: int, Dh: int
) -> dict[str, Any]:
    shapes = {"q": (B, H, T, Dh), "k": (B, G, S, Dh), "v": (B, G, S, Dh)}
    return {name: 1.5 * rng.standard_normal(shape) for name, shape in shapes.items()}


def _grouped_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    out, sharing = np.zeros_like(q), q.shape[1] // k.shape[1]
    for b, h in np.ndindex(q.shape[:2]):
        keys, values = k[b, h // sharing], v[b, h // sharing]
        out[b, h] = _softmax(q[b, h] @ keys.T / q.shape[-1] ** 0.5) @ values
    return out


@chapter.implement(
    title="Grouped-query attention",
    statement="""
        H query heads share G heads of keys and values. Neighbours share: with H = 6 and G = 2 the query heads
        0, 1, 2 ask the first key/value head, and 3, 4, 5 the second (Ainslie et al. 2023, section 2.2). `q`
        has the shape (B, H, T, Dh), `k` and `v` have (B, G, S, Dh), and G divides H. There is no mask.

        Return what each query head reads: (B, H, T, Dh). PyTorch's `scaled_dot_product_attention` is off
        limits.
        """,
    hints=(
        "Which key/value head does query head h ask? Write it down for H = 6 and G = 2, h from 0 to 5.",
        "0, 0, 0, 1, 1, 1. There is a function that repeats each entry, and another one that repeats the "
        "whole row: 0, 1, 0, 1, 0, 1. Which is which?",
        "`k.repeat_interleave(H // G, dim=1)` gives each query head its keys; the same for `v`. From here on "
        "it is the attention you know.",
        "Scores divided by the root of Dh, softmax over the keys (the last axis), times the values.",
    ),
    axes="B H T Dh",
    inputs=_grouped_inputs,
    sizes=(
        (1, 4, 2, 3, 5, 2),
        (2, 6, 3, 1, 4, 5),
        (1, 6, 2, 4, 3, 5),
        (3, 4, 1, 2, 6, 5),
        (2, 3, 3, 4, 5, 1),
        (2, 8, 2, 1, 7, 4),
    ),
    reference=_grouped_reference,
    forbidden=("scaled_dot_product_attention", "multi_head_attention_forward", "MultiheadAttention"),
)
def grouped_query_attention(q, k, v):
    """H query heads, q (B, H, T, Dh), ask G key/value heads, k and v (B, G, S, Dh): (B, H, T, Dh)."""
    # Each key/value head stands there once for each of its neighbours: 0, 0, 0, 1, 1, 1.
    sharing = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(sharing, dim=1)
    v = v.repeat_interleave(sharing, dim=1)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ v


def _asked(q, k, v, keys=None, values=None, *, scale=None, dim=-1):
    """Attention in which query head h asks the head ``keys[h]`` and reads ``values[h]``."""
    H, G = q.shape[1], k.shape[1]
    right = [h // (H // G) for h in range(H)]
    k, v = k[:, right if keys is None else keys], v[:, right if values is None else values]
    return (q @ k.mT / (q.shape[-1] ** 0.5 if scale is None else scale)).softmax(dim) @ v


def _in_turn(q, k):
    return [h % k.shape[1] for h in range(q.shape[1])]


@grouped_query_attention.slip("""
    Your key/value heads come in turn, 0, 1, 0, 1: that is what `repeat` makes. Neighbours share one, 0, 0, 1,
    1: `repeat_interleave`.""")
def _repeated_in_turn(q, k, v):
    return _asked(q, k, v, _in_turn(q, k), _in_turn(q, k))


@grouped_query_attention.slip("""
    The keys are shared by neighbours, and the values come in turn, 0, 1, 0, 1. Both need `repeat_interleave`:
    a weight belongs to a key and to the value of the same head.""")
def _values_in_turn(q, k, v):
    return _asked(q, k, v, None, _in_turn(q, k))


@grouped_query_attention.slip("""
    The values are shared by neighbours, and the keys come in turn, 0, 1, 0, 1. Both need `repeat_interleave`.
    """)
def _keys_in_turn(q, k, v):
    return _asked(q, k, v, _in_turn(q, k), None)


@grouped_query_attention.slip("""
    All query heads ask the first key/value head. Here there are G of them.""")
def _first_for_all(q, k, v):
    H = q.shape[1]
    return _asked(q, k, v, [0] * H, [0] * H)


@grouped_query_attention.slip("""
    You averaged the key/value heads into one. That turns a trained model into a multi-query one; here G heads
    stay apart.""")
def _averaged(q, k, v):
    return _first_for_all(q, k.mean(1, keepdim=True), v.mean(1, keepdim=True))


@grouped_query_attention.slip("""
    The groups ask the key/value heads in reverse order: the first queries ask the last head.""")
def _groups_reversed(q, k, v):
    return _asked(q, k.flip(1), v.flip(1))


@grouped_query_attention.slip("""
    Each head reads what it should, but the heads come out in another order. If you cut the H axis into
    (G, H / G), put it together in the same order.""")
def _heads_in_another_order(q, k, v):
    y = _asked(q, k, v)
    return y.unflatten(1, (k.shape[1], -1)).transpose(1, 2).flatten(1, 2)


@grouped_query_attention.slip("""
    You used the first G query heads only. All H of them ask; what is shared are keys and values.""")
def _few_queries(q, k, v):
    return _asked(q[:, : k.shape[1]], k, v)


@grouped_query_attention.slip("""
    You averaged the queries of a group. They stay apart, each with its own output: what is shared are keys
    and values.""")
def _queries_averaged(q, k, v):
    return _asked(q.unflatten(1, (k.shape[1], -1)).mean(2), k, v)


@grouped_query_attention.slip("""
    Each head reads what it should, and the axis of the heads is still cut in two. Put (G, H / G) together
    again: `flatten(1, 2)`.""")
def _still_in_groups(q, k, v):
    return _asked(q, k, v).unflatten(1, (k.shape[1], -1))


@grouped_query_attention.slip("""
    The groups are right, but the outputs of a group were added up. Each of H query heads keeps its own.""")
def _outputs_added(q, k, v):
    return _asked(q, k, v).unflatten(1, (k.shape[1], -1)).sum(2)


@grouped_query_attention.slip("""
    The groups are right; the scores are not scaled. Divide them by the root of Dh.""")
def _not_scaled(q, k, v):
    return _asked(q, k, v, scale=1)


@grouped_query_attention.slip("""
    The groups are right; you divided the scores by Dh, not by its root.""")
def _scaled_without_root(q, k, v):
    return _asked(q, k, v, scale=q.shape[-1])


@grouped_query_attention.slip("""
    The groups are right; you divided the scores by the root of the model's width, H · Dh. A head is Dh wide.
    """)
def _scaled_by_the_model(q, k, v):
    return _asked(q, k, v, scale=(q.shape[1] * q.shape[-1]) ** 0.5)


@grouped_query_attention.slip("""
    The groups are right; you divided the scores by the root of the number of heads. It is the root of Dh, the
    last axis.""")
def _scaled_by_the_heads(q, k, v):
    return _asked(q, k, v, scale=q.shape[1] ** 0.5)


@grouped_query_attention.slip("""
    The groups are right; your softmax runs over the queries. The weights of one query sum to 1: the last
    axis.""")
def _softmax_over_queries(q, k, v):
    return _asked(q, k, v, dim=-2)


@grouped_query_attention.slip("""
    The groups are right; your softmax runs over the heads. The weights of one query sum to 1: the last
    axis.""")
def _softmax_over_heads(q, k, v):
    return _asked(q, k, v, dim=1)


@grouped_query_attention.slip("""
    The groups are right, and the softmax is missing: its weights make the sum of values an average.""")
def _no_softmax(q, k, v):
    H, G = q.shape[1], k.shape[1]
    k, v = (x.repeat_interleave(H // G, 1) for x in (k, v))
    return q @ k.mT / q.shape[-1] ** 0.5 @ v


@grouped_query_attention.slip("""
    These are the weights, (B, H, T, S). One step is left: multiply by the values.""")
def _weights_returned(q, k, v):
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


@grouped_query_attention.slip("""
    Your scores forbid a query to see later keys. There is no mask here.""")
def _causal(q, k, v):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    T, S = q.shape[2], k.shape[2]
    hidden = torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    return weights.nan_to_num(0.0) @ v


@grouped_query_attention.crash("""
    H query heads and G key heads do not meet by themselves: only an axis of length 1 is stretched. Give each
    query head its keys first.""")
def _not_repeated(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


@grouped_query_attention.crash("""
    `repeat_interleave` without an axis first makes one long row of everything. Say which axis: `dim=1`, the
    heads.""")
def _repeated_without_axis(q, k, v):
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1]).mT


# --- 7 -------------------------------------------------------------------------------------------------


def _prompt_inputs(rng: np.random.Generator, T: int, n_prompt: int, P: int) -> dict[str, Any]:
    D = 2 * P
    matrices = {name: 1.5 * rng.standard_normal((D, D)) * D**-0.5 for name in ("w_q", "w_k", "w_v")}
    return {"x": 1.5 * rng.standard_normal((T, D)), "n_prompt": n_prompt, **matrices}


def _prompt_reference(
    x: np.ndarray, n_prompt: int, w_q: np.ndarray, w_k: np.ndarray, w_v: np.ndarray
) -> np.ndarray:
    """All at once, with pairs as complex numbers: a score knows only how far apart its tokens stand."""
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    (T, D), out = x.shape, np.zeros_like(v)
    half = D // 2
    rates = 10000.0 ** (-np.arange(half) / half)
    q, k = q[:, :half] + 1j * q[:, half:], k[:, :half] + 1j * k[:, half:]
    for t in range(T):
        turns = [np.exp(1j * (t - s) * rates) for s in range(t + 1)]
        scores = [(q[t] * k[s].conj() * turn).sum().real for s, turn in enumerate(turns)]
        out[t] = _softmax(np.array(scores) / D**0.5) @ v[: t + 1]
    return out


class _OneTooFar:  # so that both functions of this name can be told apart
    @staticmethod
    def read_then_write(x, n_prompt, w_q, w_k, w_v):
        """Causal attention, x (T, D) to (T, D): n_prompt tokens at once, the others one by one."""
        from transformer_lab.positional import rotate

        D = x.shape[1]
        prompt, places = x[:n_prompt], torch.arange(n_prompt)
        keys, values = rotate(prompt @ w_k, places), prompt @ w_v  # the cache
        scores = rotate(prompt @ w_q, places) @ keys.T / D**0.5
        visible = places <= places[:, None]
        outputs = [scores.masked_fill(~visible, float("-inf")).softmax(dim=-1) @ values]
        for token in x[n_prompt:].split(1):
            values = torch.cat([values, token @ w_v])
            place = torch.tensor([len(values)])
            keys = torch.cat([keys, rotate(token @ w_k, place)])
            scores = rotate(token @ w_q, place) @ keys.T / D**0.5
            outputs.append(scores.softmax(dim=-1) @ values)
        return torch.cat(outputs)


@chapter.debug(
    broken=_OneTooFar.read_then_write,
    title="Right alone, wrong after a prompt",
    statement="""
        A layer with rotary positions reads a prompt of `n_prompt` tokens at once, and then the other tokens
        one at a time, with a cache of keys and values. It should give what a pass over all tokens at once
        gives. `x` has the shape (T, D), the matrices have (D, D), and there is one head.

        The symptom: the outputs of the prompt are right, all those after it are wrong. No error is raised.
        And when somebody tests the cache without a prompt (`n_prompt` = 0, every token by itself), everything
        is right, up to rounding.

        Find the faulty line, repair it, and hand the function in.
        """,
    hints=(
        "Rotary scores depend only on how far query and key stand apart. So if *all* tokens stand one place "
        "too far, nobody notices. Who notices if only some do?",
        "Take a prompt of 3 tokens, at the places 0, 1, 2. Where should the next token stand? Go through the "
        "first round of the loop: what is `place`?",
        "When `place` is made, the new token's value is in `values` already, and its key is not yet in "
        "`keys`.",
    ),
    axes="T D",
    inputs=_prompt_inputs,
    sizes=((3, 2, 1), (5, 3, 2), (4, 0, 3), (6, 2, 2), (7, 5, 3), (5, 1, 1)),
    reference=_prompt_reference,
)
def read_then_write(x, n_prompt, w_q, w_k, w_v):
    """Causal attention, x (T, D) to (T, D): n_prompt tokens at once, the others one by one."""
    from transformer_lab.positional import rotate

    D = x.shape[1]
    prompt, places = x[:n_prompt], torch.arange(n_prompt)
    keys, values = rotate(prompt @ w_k, places), prompt @ w_v  # the cache
    scores = rotate(prompt @ w_q, places) @ keys.T / D**0.5
    visible = places <= places[:, None]
    outputs = [scores.masked_fill(~visible, float("-inf")).softmax(dim=-1) @ values]
    for token in x[n_prompt:].split(1):
        values = torch.cat([values, token @ w_v])
        # The new token stands behind those in the cache. The broken line counted its own value, too.
        place = torch.tensor([len(keys)])
        keys = torch.cat([keys, rotate(token @ w_k, place)])
        scores = rotate(token @ w_q, place) @ keys.T / D**0.5
        outputs.append(scores.softmax(dim=-1) @ values)
    return torch.cat(outputs)


def _placed(x, n_prompt, ws, after, *, before=None, queries=None, keys=None, visible=None, values=None):
    """All at once: the prompt at ``before``, the others at ``after``; queries or keys apart, if given."""
    from transformer_lab.positional import rotate

    w_q, w_k, w_v = ws
    T, D = x.shape
    before = torch.arange(n_prompt) if before is None else before
    places = torch.cat([before, after])
    visible = torch.ones(T, T, dtype=torch.bool).tril() if visible is None else visible
    q = rotate(x @ w_q, places if queries is None else torch.cat([before, queries]))
    k = rotate(x @ w_k, places if keys is None else torch.cat([before, keys]))
    v = x @ w_v if values is None else rotate(x @ w_v, values)
    weights = (q @ k.T / D**0.5).masked_fill(~visible, -torch.inf).softmax(-1)
    return weights.nan_to_num(0.0) @ v


@read_then_write.slip("""
    The symptom is still there: your function gives what the broken one gave. The tokens after the prompt
    stand one place too far from it.""")
def _still_too_far(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(n_prompt, len(x)) + 1)


@read_then_write.slip("""
    Now the tokens after the prompt stand one place too early: the first of them at the place of the prompt's
    last. Counted from 0, it stands at `n_prompt`.""")
def _too_early(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(n_prompt, len(x)) - 1)


@read_then_write.slip("""
    You moved the prompt, and in the wrong direction: now there are two places between it and the next token.
    """)
def _prompt_moved_away(x, n_prompt, w_q, w_k, w_v):
    after, before = torch.arange(n_prompt, len(x)) + 1, torch.arange(n_prompt) - 1
    return _placed(x, n_prompt, (w_q, w_k, w_v), after, before=before)


@read_then_write.slip("""
    The query stands right now, its key does not: the key that goes into the cache is turned one place too
    far. Repair the place itself, and both are right.""")
def _query_alone_repaired(x, n_prompt, w_q, w_k, w_v):
    after = torch.arange(n_prompt, len(x))
    return _placed(x, n_prompt, (w_q, w_k, w_v), after, keys=after + 1)


@read_then_write.slip("""
    The key stands right now, its query does not: the query is turned one place too far. Repair the place
    itself, and both are right.""")
def _key_alone_repaired(x, n_prompt, w_q, w_k, w_v):
    after = torch.arange(n_prompt, len(x))
    return _placed(x, n_prompt, (w_q, w_k, w_v), after, queries=after + 1)


@read_then_write.slip("""
    Every token after the prompt stands at place 0, or is not turned at all, which is the same. Each stands
    behind all that came before it.""")
def _all_at_0(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.zeros(len(x) - n_prompt))


@read_then_write.slip("""
    The places begin again at 0 after the prompt. They go on where the prompt ended.""")
def _begun_again(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(len(x) - n_prompt))


@read_then_write.slip("""
    The places begin again after the prompt, at 1. They go on where the prompt ended.""")
def _begun_again_at_1(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(len(x) - n_prompt) + 1)


@read_then_write.slip("""
    All tokens after the prompt stand at one place, `n_prompt`. That is right for the first of them; each
    further one stands one place further.""")
def _all_behind_the_prompt(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.full((len(x) - n_prompt,), n_prompt))


@read_then_write.slip("""
    All tokens after the prompt stand at the last place of the text. When one is written, those after it are
    not there yet: count the tokens before it.""")
def _all_at_the_end(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.full((len(x) - n_prompt,), len(x) - 1))


@read_then_write.slip("""
    All tokens after the prompt stand behind the whole text, at T. When one is written, those after it are not
    there yet: count the tokens before it.""")
def _all_behind_the_text(x, n_prompt, w_q, w_k, w_v):
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.full((len(x) - n_prompt,), len(x)))


@read_then_write.slip("""
    Nothing is turned any more, not even the prompt, which was right: no score knows how far apart its tokens
    stand.""")
def _nothing_turned(x, n_prompt, w_q, w_k, w_v):
    nowhere = torch.zeros(len(x))
    return _placed(x, n_prompt, (w_q, w_k, w_v), nowhere[n_prompt:], before=nowhere[:n_prompt])


@read_then_write.slip("""
    The places are right, but the values are turned as well. Positions belong into scores only: turn queries
    and keys.""")
def _values_turned(x, n_prompt, w_q, w_k, w_v):
    after = torch.arange(n_prompt, len(x))
    return _placed(x, n_prompt, (w_q, w_k, w_v), after, values=torch.arange(len(x)))


@read_then_write.slip("""
    The places are right, but the prompt has lost its mask: its tokens see what comes after them.""")
def _mask_lost(x, n_prompt, w_q, w_k, w_v):
    visible = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    visible[:n_prompt, :n_prompt] = True
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(n_prompt, len(x)), visible=visible)


@read_then_write.slip("""
    The places are right, and every token sees the whole text, also what comes after it. One at a time that
    cannot happen; at once, only the mask prevents it.""")
def _future_seen(x, n_prompt, w_q, w_k, w_v):
    visible = torch.ones(len(x), len(x), dtype=torch.bool)
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(n_prompt, len(x)), visible=visible)


@read_then_write.slip("""
    The places are right, but the tokens after the prompt do not see themselves: key and value go into the
    cache before the scores are made.""")
def _itself_not_seen(x, n_prompt, w_q, w_k, w_v):
    visible = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    visible[n_prompt:] &= ~torch.eye(len(x), dtype=torch.bool)[n_prompt:]
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(n_prompt, len(x)), visible=visible)


@read_then_write.slip("""
    The places are right, but the tokens after the prompt no longer see it: the cache was begun anew.""")
def _prompt_forgotten(x, n_prompt, w_q, w_k, w_v):
    visible = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    visible[n_prompt:, :n_prompt] = False
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(n_prompt, len(x)), visible=visible)


@read_then_write.slip("""
    The places are right, but the cache does not grow: each new token sees the prompt and itself, and nothing
    of what was written in between.""")
def _cache_does_not_grow(x, n_prompt, w_q, w_k, w_v):
    visible = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    visible[n_prompt:, n_prompt:] = torch.eye(len(x) - n_prompt, dtype=torch.bool)
    return _placed(x, n_prompt, (w_q, w_k, w_v), torch.arange(n_prompt, len(x)), visible=visible)


@read_then_write.slip("""
    You turn all keys of the cache again with every new token. What is in the cache has been turned already:
    only the new key needs its turn.""")
def _turned_again(x, n_prompt, w_q, w_k, w_v):
    from transformer_lab.positional import rotate

    D, places = x.shape[1], torch.arange(len(x))
    right = _placed(x, n_prompt, (w_q, w_k, w_v), places[n_prompt:])
    keys, outputs = rotate(x[:n_prompt] @ w_k, places[:n_prompt]), [right[:n_prompt]]
    for t in range(n_prompt, len(x)):
        keys = rotate(torch.cat([keys, x[t : t + 1] @ w_k]), places[: t + 1])
        scores = rotate(x[t : t + 1] @ w_q, places[t : t + 1]) @ keys.T / D**0.5
        outputs.append(scores.softmax(-1) @ (x[: t + 1] @ w_v))
    return torch.cat(outputs)


@read_then_write.crash("""
    `rotate` wants a row of places, one for each token: keep the square brackets, `torch.tensor([...])`.""")
def _no_brackets(x, n_prompt, w_q, w_k, w_v):
    from transformer_lab.positional import rotate

    return rotate(x[n_prompt : n_prompt + 1] @ w_k, torch.tensor(n_prompt))


@read_then_write.crash("""
    You give the places of all tokens to one: only the new key is turned here, and it stands at one place.
    """)
def _all_places_for_one(x, n_prompt, w_q, w_k, w_v):
    from transformer_lab.positional import rotate

    return rotate(x[n_prompt : n_prompt + 1] @ w_k, torch.arange(n_prompt))


# --- 8 -------------------------------------------------------------------------------------------------


def _rows(
    rng: np.random.Generator, S: int, C: int, bits: int, empty: bool = False, negative: bool = False
) -> dict[str, Any]:
    """Rows of different size; ``empty``: the first is all zeros; ``negative``: its largest is below 0."""
    x = rng.standard_normal((S, C)) * 10 ** rng.uniform(-1, 1, (S, 1))
    if negative:
        x[:, 0] = -1.5 * np.abs(x).max(-1)
    if empty:
        x[0] = 0.0
    return {"x": x, "bits": bits}


def _rows_reference(x: np.ndarray, bits: int) -> np.ndarray:
    out = np.zeros_like(x)
    most = sum(2**b for b in range(bits - 1))  # 1 + 2 + 4 + ...: the sign takes one of the bits
    for row, kept in zip(x, out, strict=True):
        largest = max(abs(row))
        for i, number in enumerate(row):
            if largest > 0:
                kept[i] = np.rint(number * most / largest) * largest / most
    return out


@chapter.implement(
    title="A cache of few bits",
    statement=r"""
        Make the cache smaller: keep each number as one of few whole multiples of a scale. Each row of `x`
        (S, C), a key or a value of one token, gets a scale of its own. With `bits` bits, one of them for the
        sign, the largest multiple is $m = 2^{\text{bits} - 1} - 1$, which is 127 for 8 bits and 7 for 4; the
        scale is such that the row's largest number in size comes to $\pm m$:

        $$\text{scale} = \frac{\max_c |x_c|}{m}, \qquad \text{kept} =
        \text{scale} \cdot \text{round}\left(\frac{x}{\text{scale}}\right)$$

        Return what is read back, `kept`, (S, C), as ordinary numbers. A row of zeros stays a row of zeros.
        """,
    hints=(
        "`x.abs().amax(dim=-1, keepdim=True)` has the shape (S, 1): the largest size in each row.",
        "Divide by the scale, `.round()`, multiply by the scale. With 4 bits a row has 15 different numbers "
        "at most: print one.",
        "A row of zeros has the scale 0, and 0 / 0 is NaN. `scale.masked_fill(scale == 0, 1.0)` makes it "
        "harmless; so does `scale.clamp(min=...)` with a tiny number.",
    ),
    axes="S C",
    inputs=_rows,
    sizes=(
        (1, 4, 3),
        (2, 5, 4, False, True),
        (3, 4, 8),
        (4, 6, 4, True),
        (2, 7, 2),
        (5, 3, 6, True, True),
    ),
    reference=_rows_reference,
    forbidden=("fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine"),
    gradient=False,
)
def few_bits(x, bits):
    """Each row of x (S, C) as whole multiples of a scale of its own, read back: (S, C)."""
    # One bit is the sign; as many steps below 0 as above it, so one pattern of the bits is never used.
    most = 2 ** (bits - 1) - 1
    scale = x.abs().amax(dim=-1, keepdim=True) / most
    # A row of zeros has no scale. With any other than 0 its multiples are 0, and so is what is read back.
    scale = scale.masked_fill(scale == 0, 1.0)
    return (x / scale).round() * scale


def _kept(x, most, largest, whole=torch.round):
    scale = (largest / most).expand_as(x)
    return whole(x / scale.masked_fill(scale == 0, 1.0)) * scale


def _largest(x, dim=-1):
    return x.abs().amax(dim, keepdim=True)


@few_bits.slip("""
    You have one scale for all rows. A row of small numbers is then rounded away beside one of large numbers:
    each row gets its own, `dim=-1` and `keepdim=True`.""")
def _one_scale_for_all(x, bits):
    return _kept(x, 2 ** (bits - 1) - 1, x.abs().max())


@few_bits.slip("""
    You have a scale for each column, dim=0. Asked for is one for each row: the last axis. (For keys the
    other way can be the better one; the chapter shows it.)""")
def _scale_of_columns(x, bits):
    return _kept(x, 2 ** (bits - 1) - 1, _largest(x, 0))


@few_bits.slip("""
    You used 2 to the power of `bits`, less 1, steps on each side of 0. One of the bits is the sign: it is
    2 ** (bits - 1) - 1.""")
def _sign_forgotten(x, bits):
    return _kept(x, 2**bits - 1, _largest(x))


@few_bits.slip("""
    You used 2 ** (bits - 1) steps on each side. That is one too many above 0: 8 bits hold -128 to 127. It is
    2 ** (bits - 1) - 1.""")
def _one_step_too_many(x, bits):
    return _kept(x, 2 ** (bits - 1), _largest(x))


@few_bits.slip("""
    The 1 was subtracted from the scale, and not from the number of steps: / comes before -. Put brackets
    around `2 ** (bits - 1) - 1`.""")
def _brackets_missing(x, bits):
    scale = _largest(x) / 2 ** (bits - 1) - 1
    return (x / scale).round() * scale


@few_bits.slip("""
    `bits` has no effect: you always take 127 steps on each side. It is 2 ** (bits - 1) - 1.""")
def _always_127(x, bits):
    return _kept(x, 127, _largest(x))


@few_bits.slip("""
    You cut the digits off, towards 0, as `.int()`, `.long()` and `.trunc()` do. Round to the nearest whole
    number: the error is half as large.""")
def _cut_off(x, bits):
    return _kept(x, 2 ** (bits - 1) - 1, _largest(x), torch.trunc)


@few_bits.slip("""
    You rounded down, as `.floor()` and `//` do. Round to the nearest whole number.""")
def _rounded_down(x, bits):
    return _kept(x, 2 ** (bits - 1) - 1, _largest(x), torch.floor)


@few_bits.slip("""
    The scale comes from the largest number of each row. It should come from the largest in size: take the
    absolute value first, or a row whose largest is negative does not fit.""")
def _sign_kept(x, bits):
    return _kept(x, 2 ** (bits - 1) - 1, x.amax(-1, keepdim=True))


@few_bits.slip("""
    These are the whole multiples. Read them back: multiply by the scale.""")
def _not_read_back(x, bits):
    scale = _largest(x) / (2 ** (bits - 1) - 1)
    return (x / scale.masked_fill(scale == 0, 1.0)).round()


@few_bits.slip("""
    You divided by the scale once more where you should multiply.""")
def _divided_twice(x, bits):
    scale = _largest(x) / (2 ** (bits - 1) - 1)
    scale = scale.masked_fill(scale == 0, 1.0)
    return (x / scale).round() / scale


@few_bits.slip("""
    A row of zeros became NaN: its scale is 0, and 0 / 0 is no number. All other rows are right.""")
def _zeros_to_nan(x, bits):
    scale = _largest(x) / (2 ** (bits - 1) - 1)
    return (x / scale).round() * scale


@few_bits.slip("""
    The numbers came back as they were. Between dividing by the scale and multiplying by it they have to be
    rounded.""")
def _not_rounded(x, bits):
    return x.clone()


@few_bits.slip("""
    You rounded the numbers themselves. What is rounded are multiples of the scale: divide by it first.""")
def _rounded_without_scale(x, bits):
    return x.round()


@few_bits.slip("""
    Your steps run from the smallest to the largest number of each row, with an offset (asymmetric). Here they
    lie evenly around 0: the scale is the largest size divided by 2 ** (bits - 1) - 1.""")
def _from_smallest_to_largest(x, bits):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return ((x - low) / scale.masked_fill(scale == 0, 1.0)).round() * scale + low


@few_bits.slip("""
    The scale comes from the mean size of a row. The largest number must fit, so take the largest size:
    `amax`.""")
def _mean_size(x, bits):
    return _kept(x, 2 ** (bits - 1) - 1, x.abs().mean(-1, keepdim=True))


@few_bits.slip("""
    You divided by the largest size alone, so that only -1, 0 and 1 are left after rounding. The scale is the
    largest size divided by 2 ** (bits - 1) - 1.""")
def _three_numbers(x, bits):
    return _kept(x, 1, _largest(x))


@few_bits.crash("""
    `max` along an axis gives two things, the largest values and their places. `amax` gives the values
    alone.""")
def _two_things(x, bits):
    return x.abs().max(dim=-1, keepdim=True) / bits


# --- 9 -------------------------------------------------------------------------------------------------


def _linear_inputs(rng: np.random.Generator, B: int, T: int, Dk: int, Dv: int) -> dict[str, Any]:
    widths = {"q": Dk, "k": Dk, "v": Dv}
    return {name: 1.5 * rng.standard_normal((B, T, width)) for name, width in widths.items()}


def _linear_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """From the definition, a weight for each pair: no state at all."""

    def features(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    out = np.zeros_like(v)
    for b, t in np.ndindex(q.shape[:2]):
        weights = [features(q[b, t]) @ features(k[b, s]) for s in range(t + 1)]
        out[b, t] = sum(w * v[b, s] for s, w in enumerate(weights)) / sum(weights)
    return out


@chapter.implement(
    title="Attention with a memory of fixed size",
    statement=r"""
        In linear attention (Katharopoulos et al. 2020) the weight of a pair is no exponential, but the dot
        product $\varphi(q_t) \cdot \varphi(k_s)$ of two positive vectors, with
        $\varphi(x) = \text{elu}(x) + 1$ entry by entry. Each token reads a weighted average of all tokens up
        to itself, and the weights are divided by their sum. That needs no table of pairs, only a running
        state (section 3.4 of the paper): a matrix $S_t$ (Dk, Dv) and a vector $z_t$ (Dk),

        $$S_t = S_{t-1} + \varphi(k_t)^\top v_t, \qquad z_t = z_{t-1} + \varphi(k_t), \qquad
        y_t = \frac{\varphi(q_t)\, S_t}{\varphi(q_t) \cdot z_t}$$

        Both are 0 at the start. `q` and `k` have the shape (B, T, Dk), `v` has (B, T, Dv). Return all y,
        (B, T, Dv).
        """,
    hints=(
        "Start with one sentence and T = 2, on paper. For the first token the answer is `v` itself, whatever "
        "the query: there is one value to average.",
        "`torch.nn.functional.elu(k) + 1` gives the features. A loop over the tokens keeps `state`, of shape "
        "(B, Dk, Dv), and `total`, (B, Dk). Both may start as the number 0.",
        "The outer product of a sentence's key and value: `k[:, t, :, None] * v[:, t, None, :]`, of shape "
        "(B, Dk, Dv). First add, then read: a token sees itself.",
        "Reading: `q[:, t, None, :] @ state` is (B, 1, Dv). Its divisor is `(q[:, t] * total).sum(-1)`, one "
        "number a sentence. `torch.stack(rows, dim=1)` puts the tokens together.",
    ),
    axes="B T Dv",
    inputs=_linear_inputs,
    sizes=((1, 2, 3, 2), (2, 3, 2, 4), (1, 5, 4, 3), (3, 4, 1, 2), (2, 1, 5, 3)),
    reference=_linear_reference,
)
def linear_attention(q, k, v):
    """Causal linear attention, q and k (B, T, Dk), v (B, T, Dv), as a running state: (B, T, Dv)."""
    q, k = torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1
    # All that is kept of the past, however long it is: a matrix and a vector for each sentence.
    state, total, read = 0, 0, []
    for query, key, value in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        # Write first: a token sees itself.
        state = state + key[:, :, None] * value[:, None, :]
        total = total + key
        # What is read is a sum; divided by the sum of its weights it is an average.
        summed = (query[:, :, None] * state).sum(dim=1)
        read.append(summed / (query * total).sum(dim=1, keepdim=True))
    return torch.stack(read, dim=1)


def _features(x):
    return F.elu(x) + 1


def _read(q, k, v, *, seen=None, divisor=None):
    """With a table of pairs; ``seen``: which, all up to itself if not given; ``divisor`` of its rows."""
    T = q.shape[1]
    pairs = (q @ k.mT) * (torch.ones(T, T, dtype=torch.bool).tril() if seen is None else seen)
    return pairs @ v / (pairs.sum(-1, keepdim=True) if divisor is None else divisor)


@linear_attention.slip("""
    The sum is right, and the division is missing: what comes out grows with the number of tokens. Divide by
    z · φ(q).""")
def _no_divisor(q, k, v):
    return _read(_features(q), _features(k), v, divisor=1)


@linear_attention.slip("""
    You divided by the number of tokens. The weights are not all alike: divide by their sum, z · φ(q).""")
def _divided_by_count(q, k, v):
    count = torch.arange(1, q.shape[1] + 1, dtype=q.dtype)[:, None]
    return _read(_features(q), _features(k), v, divisor=count)


@linear_attention.slip("""
    Each token reads the whole text, also what comes after it. The state at token t holds the tokens up to t.
    """)
def _future_read(q, k, v):
    return _read(_features(q), _features(k), v, seen=torch.ones(q.shape[1], q.shape[1], dtype=torch.bool))


@linear_attention.slip("""
    The sum holds the tokens up to t, and its divisor those of the whole text. Both run on together: z_t
    belongs to S_t.""")
def _divisor_of_the_whole(q, k, v):
    q, k = _features(q), _features(k)
    return _read(q, k, v, divisor=(q @ k.mT).sum(-1, keepdim=True))


@linear_attention.slip("""
    You read before you wrote: a token does not see itself, and the first one divides 0 by 0. Add key and
    value to the state first.""")
def _read_before_written(q, k, v):
    earlier = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril(-1)
    return _read(_features(q), _features(k), v, seen=earlier)


@linear_attention.slip("""
    φ is missing. Without it weights can be negative, and their sum can come near 0.""")
def _no_features(q, k, v):
    return _read(q, k, v)


@linear_attention.slip("""
    Your φ is elu without the 1: it reaches down to -1, and weights must be positive.""")
def _one_forgotten(q, k, v):
    return _read(F.elu(q), F.elu(k), v)


@linear_attention.slip("""
    Your φ is relu. It has no slope below 0, and a token may end with no weight at all; asked for is
    elu(x) + 1.""")
def _relu(q, k, v):
    return _read(q.relu(), k.relu(), v)


@linear_attention.slip("""
    Your φ is relu(x) + 1. Below 0, elu(x) + 1 is exp(x), and not 1.""")
def _relu_plus_one(q, k, v):
    return _read(q.relu() + 1, k.relu() + 1, v)


@linear_attention.slip("""
    Your φ is the exponential. That is elu(x) + 1 below 0 only; above 0 it is x + 1.""")
def _exponential(q, k, v):
    return _read(q.exp(), k.exp(), v)


@linear_attention.slip("""
    φ acts on the keys only. The query goes through it as well.""")
def _keys_alone(q, k, v):
    return _read(q, _features(k), v)


@linear_attention.slip("""
    φ acts on the queries only. The keys go through it as well.""")
def _queries_alone(q, k, v):
    return _read(_features(q), k, v)


@linear_attention.slip("""
    φ acts on the values, too. They are what is averaged: leave them as they are.""")
def _features_of_values(q, k, v):
    return _read(_features(q), _features(k), _features(v))


@linear_attention.slip("""
    z adds up the keys themselves. It should add up φ(k), as the state does.""")
def _sum_of_bare_keys(q, k, v):
    divisor = (_features(q) * k.cumsum(1)).sum(-1, keepdim=True)
    return _read(_features(q), _features(k), v, divisor=divisor)


@linear_attention.slip("""
    You divided by the sum of z alone. The divisor is z · φ(q): how much weight this query gives in all.""")
def _query_not_in_the_divisor(q, k, v):
    k = _features(k)
    return _read(_features(q), k, v, divisor=k.cumsum(1).sum(-1, keepdim=True))


@linear_attention.slip("""
    You divided entry by entry by z before the query read. First read, then divide by one number, z · φ(q).
    """)
def _state_divided(q, k, v):
    q, k = _features(q), _features(k)
    state = (k[..., None] * v[:, :, None]).cumsum(1) / k.cumsum(1)[..., None]
    return (q[..., None] * state).sum(2)


@linear_attention.slip("""
    Each token reads its own value only: the state is written over instead of added to.""")
def _written_over(q, k, v):
    return v.clone()


@linear_attention.slip("""
    The state is added up, and z holds the last token only. Both run on: z_t = z_(t-1) + φ(k_t).""")
def _divisor_written_over(q, k, v):
    q, k = _features(q), _features(k)
    return _read(q, k, v, divisor=(q * k).sum(-1, keepdim=True))


@linear_attention.slip("""
    That is softmax attention. It needs all keys at every step; here weights are φ(q) · φ(k), so that a state
    of fixed size is enough.""")
def _softmax_attention(q, k, v):
    hidden = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1) @ v


@linear_attention.slip("""
    You put φ(q) · φ(k) through a softmax, exponential and all. These products are weights already: divide
    them by their sum.""")
def _softmax_of_products(q, k, v):
    hidden = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    return (_features(q) @ _features(k).mT).masked_fill(hidden, -torch.inf).softmax(-1) @ v


@linear_attention.slip("""
    You put φ(q) · φ(k) through a softmax, in which the zeros of later tokens count as well: exp(0) is 1. The
    products are weights already: divide them by their sum.""")
def _softmax_of_zeros(q, k, v):
    return (_features(q) @ _features(k).mT).tril().softmax(-1) @ v


@linear_attention.slip("""
    Your weights sum to 1 along the queries. Each *query's* weights should: sum over the keys, the last
    axis.""")
def _divided_by_columns(q, k, v):
    pairs = (_features(q) @ _features(k).mT).tril()
    return pairs / pairs.sum(-2, keepdim=True) @ v


@linear_attention.slip("""
    All sentences write into one state. Each has its own: keep the axis B.""")
def _one_state_for_all(q, k, v):
    q, k = _features(q), _features(k)
    state = (k[..., None] * v[:, :, None]).cumsum(1).sum(0, keepdim=True)
    total = k.cumsum(1).sum(0, keepdim=True)
    return (q[..., None] * state).sum(2) / (q * total).sum(-1, keepdim=True)


@linear_attention.slip("""
    Only the last token's y is there. Each token reads when it has been written: keep all T.""")
def _last_alone(q, k, v):
    return _read(_features(q), _features(k), v)[:, -1:]


@linear_attention.crash("""
    `torch.zeros` makes float32, and these inputs are float64. `q.new_zeros(...)` makes zeros of the kind of
    q; the number 0 does as well.""")
def _zeros_of_another_kind(q, k, v):
    nothing = q[:, :1] @ torch.zeros(q.shape[0], q.shape[2], v.shape[2])
    return linear_attention.solve(q, k, v) + nothing


@linear_attention.crash("""
    `torch.outer` takes two rows; here are B of them. `k[:, t, :, None] * v[:, t, None, :]` makes an outer
    product for each sentence.""")
def _outer_of_a_batch(q, k, v):
    return torch.outer(k[:, 0], v[:, 0])


# --- 10 ------------------------------------------------------------------------------------------------


def _latent_inputs(rng: np.random.Generator, H: int, D: int, Dc: int, Dh: int) -> dict[str, Any]:
    shapes = {"w_q": (D, H * Dh), "w_uk": (Dc, H * Dh)}
    return {**{name: rng.standard_normal(shape) for name, shape in shapes.items()}, "n_heads": H}


def _latent_reference(w_q: np.ndarray, w_uk: np.ndarray, n_heads: int) -> np.ndarray:
    """What each pair of unit vectors scores: that is an entry of the matrix."""
    (D, width), Dc = w_q.shape, len(w_uk)
    Dh = width // n_heads
    out = np.zeros((n_heads, D, Dc))
    for h, i, j in np.ndindex(out.shape):
        head = slice(h * Dh, (h + 1) * Dh)
        query, key = np.eye(D)[i] @ w_q, np.eye(Dc)[j] @ w_uk
        out[h, i, j] = query[head] @ key[head] / Dh**0.5
    return out


@chapter.implement(
    title="Keys that are never made",
    statement=r"""
        In multi-head latent attention a token leaves one short row c of Dc numbers in the cache, the
        *latent*. All its keys can be made of it: `c @ w_uk` holds those of all H heads side by side, Dh
        numbers each, head 0 first. Queries are made as usual, `x @ w_q`, laid out in the same way. The score
        of head h is

        $$\frac{(x W^Q_h) \cdot (c\, W^{UK}_h)}{\sqrt{D_h}} = x\, M_h\, c^\top$$

        with one matrix $M_h$ for each head. So no key need ever be made (DeepSeek-V2, section 2.1.2, without
        the rotary part). `w_q` is (D, H · Dh), `w_uk` is (Dc, H · Dh). Return all $M_h$, scale included:
        (H, D, Dc).
        """,
    hints=(
        "One head first: its query matrix is (D, Dh), its W^UK is (Dc, Dh). Which product of the two is "
        "(D, Dc)?",
        "The dot product of two rows a and b is `a @ b.T`. So (x W)(c U)ᵀ = x W Uᵀ cᵀ, and what stands "
        "between x and cᵀ is M.",
        "`w_q.unflatten(-1, (n_heads, -1))` is (D, H, Dh): the columns of head h are `[:, h]`. The same for "
        "`w_uk`.",
        "For each h: `w_q[:, h] @ w_uk[:, h].T / Dh ** 0.5`, stacked; or bring H to the front and multiply "
        "all heads at once.",
    ),
    axes="H D Dc",
    inputs=_latent_inputs,
    sizes=((1, 3, 2, 4), (2, 4, 3, 5), (3, 5, 4, 2), (4, 2, 6, 3), (3, 7, 1, 2)),
    reference=_latent_reference,
)
def absorbed(w_q, w_uk, n_heads):
    """One matrix a head between token and latent, of w_q (D, H * Dh) and w_uk (Dc, H * Dh): (H, D, Dc)."""
    # Columns of one head lie side by side: (D, H * Dh) -> (H, D, Dh), and the same for the keys.
    w_q = w_q.unflatten(-1, (n_heads, -1)).transpose(0, 1)
    w_uk = w_uk.unflatten(-1, (n_heads, -1)).transpose(0, 1)
    # (x W)(c U)^T = x (W U^T) c^T. The scale is that of the keys, which are Dh wide, whoever meets whom.
    return w_q @ w_uk.transpose(1, 2) / w_q.shape[-1] ** 0.5


def _by_heads(w_q, w_uk, n_heads):
    return (w.unflatten(-1, (n_heads, -1)).transpose(0, 1) for w in (w_q, w_uk))


def _unscaled(w_q, w_uk, n_heads):
    w_q, w_uk = _by_heads(w_q, w_uk, n_heads)
    return w_q @ w_uk.mT


@absorbed.slip("""
    The matrices are right, the scale is missing: divide by the root of Dh.""")
def _no_scale(w_q, w_uk, n_heads):
    return _unscaled(w_q, w_uk, n_heads)


@absorbed.slip("""
    You divided by the root of Dc. Token and latent meet over Dc numbers now, but the score is still the one
    of keys that are Dh wide.""")
def _scale_of_the_latent(w_q, w_uk, n_heads):
    return _unscaled(w_q, w_uk, n_heads) / len(w_uk) ** 0.5


@absorbed.slip("""
    You divided by the root of D, the width of the model. The score is that of keys that are Dh wide.""")
def _scale_of_the_model(w_q, w_uk, n_heads):
    return _unscaled(w_q, w_uk, n_heads) / len(w_q) ** 0.5


@absorbed.slip("""
    You divided by the root of H · Dh, the width of all heads together. One head is Dh wide.""")
def _scale_of_all_heads(w_q, w_uk, n_heads):
    return _unscaled(w_q, w_uk, n_heads) / w_q.shape[1] ** 0.5


@absorbed.slip("""
    You divided by Dh, not by its root.""")
def _scale_without_root(w_q, w_uk, n_heads):
    return _unscaled(w_q, w_uk, n_heads) / (w_q.shape[1] // n_heads)


@absorbed.slip("""
    You multiplied by the root of Dh where the formula divides.""")
def _scale_multiplied(w_q, w_uk, n_heads):
    return _unscaled(w_q, w_uk, n_heads) * (w_q.shape[1] // n_heads) ** 0.5


@absorbed.slip("""
    Your heads are dealt out, every H-th column to one head. They lie side by side, Dh columns each:
    `unflatten(-1, (n_heads, -1))`.""")
def _dealt_out_columns(w_q, w_uk, n_heads):
    w_q, w_uk = (w.unflatten(-1, (-1, n_heads)).movedim(-1, 0) for w in (w_q, w_uk))
    return w_q @ w_uk.mT / w_q.shape[-1] ** 0.5


@absorbed.slip("""
    You cut the matrices anew: `view` or `reshape` to (H, D, Dh) mixes rows. First (D, H, Dh), then swap the
    first two axes.""")
def _cut_anew_matrices(w_q, w_uk, n_heads):
    w_q, w_uk = (w.reshape(n_heads, len(w), -1) for w in (w_q, w_uk))
    return w_q @ w_uk.mT / w_q.shape[-1] ** 0.5


@absorbed.slip("""
    Yours are (H, Dc, D), the other way round: token first, then latent.""")
def _other_way_round(w_q, w_uk, n_heads):
    return absorbed.solve(w_q, w_uk, n_heads).mT


@absorbed.slip("""
    You have one matrix for all heads: their columns were not kept apart, and their scores are added up. Each
    head has its own.""")
def _heads_added_up(w_q, w_uk, n_heads):
    return w_q @ w_uk.T / (w_q.shape[1] // n_heads) ** 0.5


@absorbed.slip("""
    You have one matrix for all heads, and scaled it by the width of all heads. Keep their columns apart: each
    head has a matrix and a scale of its own.""")
def _all_as_one_head(w_q, w_uk, n_heads):
    return w_q @ w_uk.T / w_q.shape[1] ** 0.5


@absorbed.slip("""
    All heads have the matrix of the first one. Each has columns of its own.""")
def _first_head_for_all(w_q, w_uk, n_heads):
    return absorbed.solve(w_q, w_uk, n_heads)[:1].expand(n_heads, -1, -1)


@absorbed.slip("""
    The axes are (D, H, Dc). Bring the heads to the front: (H, D, Dc).""")
def _heads_in_the_middle(w_q, w_uk, n_heads):
    return absorbed.solve(w_q, w_uk, n_heads).transpose(0, 1)


@absorbed.crash("""
    W^Q is (D, Dh) and W^UK is (Dc, Dh) for one head: the dot product of query and key sums over Dh, the
    *last* axis of both. Turn one of them round.""")
def _not_turned_round(w_q, w_uk, n_heads):
    return torch.einsum("hdw,hwc->hdc", *_by_heads(w_q, w_uk, n_heads))


# --- 11 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="How steep it is",
    statement=r"""
        "Attention is quadratic": where? Let PyTorch count the FLOPs of a whole block, at short and at long
        texts. The block is `torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True,
        device="meta")`, a text of n tokens is `torch.empty(1, n, 512, device="meta")`. (The device "meta"
        knows shapes and computes nothing, so even long texts take no time.) This counts:

            from torch.utils.flop_counter import FlopCounterMode

            with FlopCounterMode(display=False) as counter:
                block(text)
            flops = counter.get_total_flops()

        If FLOPs grow like $n^a$, then $\log(\text{FLOPs})$ against $\log n$ is a straight line with the
        slope a, the **exponent**. Report two of them: for n = 64, 128, 256, and for n = 8192, 16384, 32768.
        """,
    hints=(
        "A function `count(n)` that returns the FLOPs of one text, called for three lengths, gives three "
        "numbers. What are their logarithms?",
        "`numpy.polyfit(x, y, 1)` fits a straight line; the first of the two numbers that it gives is the "
        "slope. x and y are logarithms, both of the same base.",
        "Without a fit: from 64 to 256 tokens, n grows 4 times. If FLOPs grow r times, the exponent is "
        "log(r) / log(4).",
    ),
    ranges={"short": (1.025, 1.055), "long": (1.81, 1.89)},
    slips={
        "The two numbers are the other way round: first the short texts, then the long ones.": (
            (1.81, 1.89),
            (1.025, 1.055),
        ),
        "These are factors: by how much the FLOPs grow when n doubles. The exponent is the logarithm of that "
        "to the base 2.": ((2.0, 2.1), (3.4, 3.75)),
        "These are factors: by how much the FLOPs grow when n grows 4 times. The exponent is their "
        "logarithm, divided by log(4).": ((4.2, 4.3), (12.0, 13.5)),
        "Both exponents are 1: your text has 64 *sentences* of one token each, or your layer believes so. "
        "`batch_first=True` says that the first axis is the batch.": ((0.995, 1.005), (0.995, 1.005)),
        "Both exponents are 2: that is the table of pairs alone. Asked for is the whole block, with its "
        "matrices.": ((1.99, 2.01), (1.99, 2.01)),
        "That is attention without the feed-forward network. Asked for is the whole block.": (
            (1.075, 1.13),
            (1.925, 1.96),
        ),
        "You fitted n against FLOPs. Exchange the two: log(FLOPs) over log(n).": (
            (0.94, 0.975),
            (0.53, 0.56),
        ),
        "You mixed two logarithms, base e for FLOPs and base 10 for n. Any will do, the same for both.": (
            (2.36, 2.43),
            (4.15, 4.35),
        ),
        "You mixed two logarithms, base 10 for FLOPs and base e for n. Any will do, the same for both.": (
            (0.44, 0.46),
            (0.785, 0.82),
        ),
        "You mixed two logarithms, base 2 for FLOPs and base e for n. Any will do, the same for both.": (
            (1.48, 1.52),
            (2.6, 2.73),
        ),
        "You mixed two logarithms, base e for FLOPs and base 2 for n. Any will do, the same for both.": (
            (0.71, 0.735),
            (1.25, 1.31),
        ),
        "You divided log(FLOPs) by log(n). The exponent is a slope: differences of logarithms, divided.": (
            (4.0, 4.6),
            (2.6, 3.0),
        ),
        "These are the exponents of FLOPs for each token. Leave the FLOPs of the whole text together.": (
            (0.03, 0.05),
            (0.8, 0.89),
        ),
        "You fitted all six lengths together. Fit three and three: the slope is not the same everywhere.": (
            (1.3, 1.45),
            (1.3, 1.45),
        ),
        "The first number is right, and the second is the same again. For the second take n = 8192, 16384 "
        "and 32768.": ((1.025, 1.055), (1.025, 1.055)),
        "The second number is right, and the first is the same again. For the first take n = 64, 128 and "
        "256.": ((1.81, 1.89), (1.81, 1.89)),
        "You took the logarithm of the FLOPs alone. Take that of n as well.": ((0.0, 0.02), (0.0, 0.001)),
    },
    at_most=(
        3.0,
        "An exponent above 3 is impossible here: nothing in a block costs more than n². Take the logarithm "
        "of both, n and FLOPs, and then the slope.",
    ),
    otherwise="Not in the range that the counter gives. Check: a block with batch_first=True, one text of n "
    "tokens, FLOPs of the whole block, logarithms of both, a fit to the three short lengths and one to the "
    "three long ones.",
)
def how_steep():
    """At a few hundred tokens a block of this width is as good as linear; at 32,768 its exponent has not yet
    reached 2. "Quadratic" is what it tends to, and how soon depends on the width.
    """
    from torch.utils.flop_counter import FlopCounterMode

    block = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True, device="meta")

    def count(n):
        with FlopCounterMode(display=False) as counter:
            block(torch.empty(1, n, 512, device="meta"))
        return counter.get_total_flops()

    def exponent(lengths):
        x, y = (torch.tensor(row).double().log() for row in (lengths, [count(n) for n in lengths]))
        return ((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).square().sum()).item()

    return exponent([64, 128, 256]), exponent([8192, 16384, 32768])
