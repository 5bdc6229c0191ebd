"""The exercises of "What attention costs": other right answers, and what checks say beyond the contract."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from transformer_lab import efficient, positional
from transformer_lab.efficient import caches, linear
from transformer_lab.exercises import efficient as ex

# --- right answers in other words ----------------------------------------------------------------------


def flops_by_loops(lengths, d_model, n_heads, n_kv_heads, d_ff):
    rows = []
    for n in lengths.tolist():
        d_head = d_model // n_heads
        projections = 2 * n * d_model * d_head * (n_heads + n_kv_heads + n_kv_heads + n_heads)
        scores = sum(2 * n * d_head * n + 2 * n * n * d_head for _ in range(n_heads))
        rows.append([projections, scores, 2 * n * d_model * d_ff + 2 * n * d_ff * d_model])
    return torch.tensor(rows)


def flops_by_the_counter(lengths, d_model, n_heads, n_kv_heads, d_ff):
    """Nothing is counted by hand: PyTorch does it, on tensors without numbers."""
    width = d_model // n_heads

    def count(*shapes):
        with FlopCounterMode(display=False) as counter:
            for a, b in shapes:
                torch.empty(a, device="meta") @ torch.empty(b, device="meta")
        return counter.get_total_flops()

    rows = []
    for n in lengths.tolist():
        x, square, narrow = (n, d_model), (d_model, d_model), (d_model, n_kv_heads * width)
        heads, turned, weights = (n_heads, n, width), (n_heads, width, n), (n_heads, n, n)
        rows.append(
            (
                count((x, square), (x, narrow), (x, narrow), (x, square)),
                count((heads, turned), (weights, heads)),
                count((x, (d_model, d_ff)), ((n, d_ff), (d_ff, d_model))),
            )
        )
    return torch.tensor(rows)


def append_by_loops(cache, new):
    B, G, S, Dh = cache.shape
    out = cache.new_zeros(B, G, S + new.shape[1], Dh)
    out[:, :, :S] = cache
    for g in range(G):
        out[:, g, S:] = new[:, :, g * Dh : (g + 1) * Dh]
    return out


def append_by_chunks(cache, new):
    return torch.cat([cache, torch.stack(new.chunk(cache.shape[1], dim=-1), dim=1)], dim=-2)


def append_by_view(cache, new):
    B, G, _, Dh = cache.shape
    return torch.cat((cache, new.view(B, -1, G, Dh).permute(0, 2, 1, 3)), 2)


def grouped_by_loops(q, k, v):
    sharing = q.shape[1] // k.shape[1]
    heads = []
    for h in range(q.shape[1]):
        weights = (q[:, h] @ k[:, h // sharing].mT / math.sqrt(q.shape[-1])).softmax(-1)
        heads.append(weights @ v[:, h // sharing])
    return torch.stack(heads, dim=1)


def grouped_by_einsum(q, k, v):
    q = q.unflatten(1, (k.shape[1], -1))
    scores = torch.einsum("bgrtd,bgsd->bgrts", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bgrts,bgsd->bgrtd", scores.softmax(-1), v).flatten(1, 2)


def grouped_by_expand(q, k, v):
    B, G, S, Dh = k.shape
    k, v = (x[:, :, None].expand(-1, -1, q.shape[1] // G, -1, -1).reshape(B, -1, S, Dh) for x in (k, v))
    return torch.softmax(q @ k.transpose(2, 3) / Dh**0.5, dim=3) @ v


def written_at_once(x, n_prompt, w_q, w_k, w_v):
    places, D = torch.arange(len(x)), x.shape[1]
    q, k = positional.rotate(x @ w_q, places), positional.rotate(x @ w_k, places)
    scores = (q @ k.T / D**0.5).masked_fill(places > places[:, None], float("-inf"))
    return scores.softmax(-1) @ x @ w_v


def written_from_place_one(x, n_prompt, w_q, w_k, w_v):
    """All tokens stand one place too far, the prompt too: then nobody notices."""
    rotate = positional.rotate
    prompt, places = x[:n_prompt], torch.arange(n_prompt) + 1
    keys, values = rotate(prompt @ w_k, places), prompt @ w_v
    scores = rotate(prompt @ w_q, places) @ keys.T / x.shape[1] ** 0.5
    outputs = [scores.masked_fill(places > places[:, None], float("-inf")).softmax(-1) @ values]
    for token in x[n_prompt:].split(1):
        values = torch.cat([values, token @ w_v])
        place = torch.tensor([len(values)])
        keys = torch.cat([keys, rotate(token @ w_k, place)])
        outputs.append((rotate(token @ w_q, place) @ keys.T / x.shape[1] ** 0.5).softmax(-1) @ values)
    return torch.cat(outputs)


def written_one_by_one(x, n_prompt, w_q, w_k, w_v):
    keys = values = x[:0]
    outputs = []
    for t, token in enumerate(x.split(1)):
        place = torch.tensor([t])
        keys = torch.cat([keys, positional.rotate(token @ w_k, place)])
        values = torch.cat([values, token @ w_v])
        weights = (positional.rotate(token @ w_q, place) @ keys.T / x.shape[1] ** 0.5).softmax(-1)
        outputs.append(weights @ values)
    return torch.cat(outputs)


def few_bits_by_loops(x, bits):
    most, kept = 2 ** (bits - 1) - 1, torch.zeros_like(x)
    for row, out in zip(x, kept, strict=True):
        scale = max(abs(number) for number in row.tolist()) / most
        if scale:
            out.copy_(torch.round(row / scale) * scale)
    return kept


def few_bits_with_a_floor(x, bits):
    scale = torch.max(x.abs(), dim=1).values[:, None].clamp(min=1e-30) / (2 ** (bits - 1) - 1)
    return torch.clamp(torch.round(x / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale


def few_bits_by_nan_to_num(x, bits):
    scale = x.abs().max(-1, keepdim=True)[0] / (2 ** (bits - 1) - 1)
    return (scale * torch.round(x / scale)).nan_to_num(0.0)


def linear_by_a_table(q, k, v):
    q, k = F.elu(q) + 1, F.elu(k) + 1
    pairs = (q @ k.mT).tril()
    return pairs @ v / pairs.sum(-1, keepdim=True)


def linear_by_running_sums(q, k, v):
    q, k = F.elu(q) + 1, F.elu(k) + 1
    state = torch.einsum("btk,btv->btkv", k, v).cumsum(dim=1)
    return torch.einsum("btk,btkv->btv", q, state) / torch.einsum("btk,btk->bt", q, k.cumsum(1))[..., None]


def linear_token_by_token(q, k, v):
    def features(x):
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())

    rows = []
    for b in range(len(q)):
        state, total = 0, 0
        for t in range(q.shape[1]):
            state = state + torch.outer(features(k[b, t]), v[b, t])
            total = total + features(k[b, t])
            rows.append(features(q[b, t]) @ state / (features(q[b, t]) @ total))
    return torch.stack(rows).unflatten(0, q.shape[:2])


def absorbed_by_loops(w_q, w_uk, n_heads):
    width = w_q.shape[1] // n_heads
    heads = [slice(h * width, (h + 1) * width) for h in range(n_heads)]
    return torch.stack([w_q[:, head] @ w_uk[:, head].T / math.sqrt(width) for head in heads])


def absorbed_by_einsum(w_q, w_uk, n_heads):
    w_q, w_uk = (w.view(len(w), n_heads, -1) for w in (w_q, w_uk))
    return torch.einsum("dhw,chw->hdc", w_q, w_uk) * w_q.shape[2] ** -0.5


def absorbed_by_chunks(w_q, w_uk, n_heads):
    pairs = zip(w_q.chunk(n_heads, dim=1), w_uk.chunk(n_heads, dim=1), strict=True)
    return torch.stack([a / a.shape[1] ** 0.5 @ b.t() for a, b in pairs])


RIGHT = {
    "block_flops": [flops_by_loops, flops_by_the_counter],
    "append_to_cache": [append_by_loops, append_by_chunks, append_by_view],
    "grouped_query_attention": [grouped_by_loops, grouped_by_einsum, grouped_by_expand],
    "read_then_write": [written_at_once, written_from_place_one, written_one_by_one],
    "few_bits": [few_bits_by_loops, few_bits_with_a_floor, few_bits_by_nan_to_num],
    "linear_attention": [linear_by_a_table, linear_by_running_sums, linear_token_by_token],
    "absorbed": [absorbed_by_loops, absorbed_by_einsum, absorbed_by_chunks],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
CANCELS = "numerator and divisor both change by this factor"
COLUMNS = "scores are (T, S): the last axis is axis 1"
NO_GRADIENT = "places carry no gradient anyway"
SQUARE = "the matrices are (D, D)"
TURNED = "the multiples change their sign as the scale does"
ZEROS = "the multiples of a row of zeros are 0, whatever the scale"

EQUIVALENT = {
    "block_flops": {
        "return torch.stack([projections, scores, feed_forward], dim=1)": "two axes: the last is axis 1",
    },
    "grouped_query_attention": {
        "sharing = q.shape[1] // v.shape[1]": "as many values as keys",
        "scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5": "keys are as wide as queries",
        "scores = q @ k.transpose(-2, -1) / v.shape[-1] ** 0.5": "values are as wide as queries",
    },
    "read_then_write": {
        "prompt, places = (x[:n_prompt], torch.arange(n_prompt).detach())": NO_GRADIENT,
        "place = torch.tensor([len(keys)]).detach()": NO_GRADIENT,
        "D = w_k.shape[1]": SQUARE,
        "D = w_q.shape[1]": SQUARE,
        "D = w_v.shape[1]": SQUARE,
        "outputs = [scores.masked_fill(~visible, float('-inf')).softmax(dim=1) @ values]": COLUMNS,
        "outputs.append(scores.softmax(dim=1) @ values)": COLUMNS,
    },
    "few_bits": {
        "most = 1 - 2 ** (bits - 1)": TURNED,
        "most = -(2 ** (bits - 1) - 1)": TURNED,
        "scale = -(x.abs().amax(dim=-1, keepdim=True) / most)": TURNED,
        "scale = -scale.masked_fill(scale == 0, 1.0)": TURNED,
        "scale = -x.abs().amax(dim=-1, keepdim=True) / most": TURNED,
        "scale = scale.masked_fill(scale == 0, 2.0)": ZEROS,
        "scale = scale.masked_fill(scale == 0, -1.0)": ZEROS,
        "scale = scale.masked_fill(x == 0, 1.0)": "a scale for each number, and that of a 0 does not matter",
        "scale = x.abs().amax(dim=1, keepdim=True) / most": "two axes: the last is axis 1",
    },
    "linear_attention": {
        "q, k = (-(torch.nn.functional.elu(q) + 1), torch.nn.functional.elu(k) + 1)": CANCELS,
        "q, k = (2 * (torch.nn.functional.elu(q) + 1), torch.nn.functional.elu(k) + 1)": CANCELS,
        "q, k = (torch.nn.functional.elu(q) + 1, -(torch.nn.functional.elu(k) + 1))": CANCELS,
        "q, k = (torch.nn.functional.elu(q) + 1, 2 * (torch.nn.functional.elu(k) + 1))": CANCELS,
        "state = state + key[:, :, None] @ value[:, None, :]": "a column times a row, either way",
    },
    "absorbed": {
        "w_q = w_q.unflatten(1, (n_heads, -1)).transpose(0, 1)": "two axes: the last is axis 1",
        "w_uk = w_uk.unflatten(1, (n_heads, -1)).transpose(0, 1)": "two axes: the last is axis 1",
        "return w_q @ w_uk.transpose(1, 2) / w_uk.shape[-1] ** 0.5": "keys are as wide as queries",
    },
}


def test_the_chapter_has_eleven_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 11 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the exercises agree with the package --------------------------------------------------------------


def test_the_share_is_the_package_s():
    cost = efficient.block_flops(12_288, d_model=8192, d_ff=4 * 8192)
    assert ex.share_of_the_scores.expected == cost["scores"] / sum(cost.values())


def test_the_reference_of_the_flops_agrees_with_the_package():
    for case in ex.block_flops.cases():
        lengths, *sizes = case.inputs.values()
        names = ("d_model", "n_heads", "n_kv_heads", "d_ff")
        rows = [efficient.block_flops(n, **dict(zip(names, sizes, strict=True))) for n in lengths.tolist()]
        assert case.want.tolist() == [list(row.values()) for row in rows]


def test_the_cache_of_llama_is_the_package_s():
    numbers = efficient.cache_numbers("grouped", n_kv_heads=8, d_head=128)
    assert ex.cache_of_llama.expected == efficient.cache_bytes(numbers, n_tokens=8192, n_layers=80) / 2**30


def test_the_reference_of_the_cache_agrees_with_the_package():
    for case in ex.append_to_cache.cases():
        old, new = case.tensors()
        B, G, S, Dh = old.shape
        kept = caches.KeyValueCache(B, G, S + new.shape[1], Dh, dtype=old.dtype)
        kept.append(old, old)
        new = new.unflatten(-1, (G, Dh)).transpose(1, 2)
        assert np.array_equal(kept.append(new, new)[0].double().numpy(), case.want)


def test_the_reference_of_grouped_queries_agrees_with_pytorch():
    for case in ex.grouped_query_attention.cases():
        theirs = F.scaled_dot_product_attention(*case.tensors(), enable_gqa=True)
        assert np.allclose(theirs.double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_few_bits_agrees_with_the_package():
    seen = 0
    for case in ex.few_bits.cases():
        x, bits = case.tensors()
        if bits == 8 or (bits == 4 and x.shape[1] % 2 == 0):
            theirs = caches.dequantise(*caches.quantise(x, bits))
            assert np.allclose(theirs.double().numpy(), case.want, atol=1e-4)
            seen += 1
    assert seen >= 2


def test_the_reference_of_linear_attention_agrees_with_the_package():
    for case in ex.linear_attention.cases():
        theirs = linear.linear_attention(*(t[:, None] for t in case.tensors()))[:, 0]
        assert np.allclose(theirs.double().numpy(), case.want, atol=1e-4)


def test_the_reference_of_the_absorbed_matrices_gives_the_scores_of_keys_that_are_made():
    random = np.random.default_rng(0)
    for case in ex.absorbed.cases():
        w_q, w_uk, n_heads = case.inputs.values()
        x, latents = random.standard_normal((3, len(w_q))), random.standard_normal((5, len(w_uk)))
        q, k = ((y @ w).reshape(len(y), n_heads, -1) for y, w in ((x, w_q), (latents, w_uk)))
        scores = np.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
        assert np.allclose(x @ case.want @ latents.T, scores)


def test_the_broken_cache_is_right_without_a_prompt_and_wrong_after_one():
    """The symptom of the statement."""
    for case in ex.read_then_write.cases():
        given = case.tensors()
        broken = ex.read_then_write.broken(*given).double().numpy()
        n_prompt = case.inputs["n_prompt"]
        apart = np.abs(broken - case.want).max(axis=1)
        assert apart[:n_prompt].max(initial=0.0) < 1e-5
        assert (apart[n_prompt:].max() > 1e-3) == (n_prompt > 0)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (
            ex.grouped_query_attention,
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        ),
        (
            ex.few_bits,
            lambda x, bits: torch.fake_quantize_per_channel_affine(
                x.float(),
                x.float().abs().amax(1).clamp(min=1e-9) / (2 ** (bits - 1) - 1),
                torch.zeros(len(x), dtype=torch.int32),
                0,
                -(2 ** (bits - 1)),
                2 ** (bits - 1) - 1,
            ),
        ),
    ],
)
def test_who_calls_what_is_to_be_written_is_told_so(exercise, answer):
    result = exercise.check(answer)
    assert result.status == "not yet" and "is off limits in this exercise" in result.message, result


# --- the measurement -----------------------------------------------------------------------------------

SHORT, LONG = (64, 128, 256), (8192, 16384, 32768)


def counted(n, *, batch_first=True, train=True, text=(1, -1)):
    block = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=batch_first, device="meta").train(train)
    shape = tuple(n if size < 0 else size for size in text)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train):
        block(torch.empty(*shape, 512, device="meta"))
    return counter.get_total_flops()


def exponents(count, fit=efficient.fitted_exponent):
    return tuple(fit(lengths, [count(n) for n in lengths]) for lengths in (SHORT, LONG))


def line_through(x, y):
    return float(np.polyfit(x, y, 1)[0])


@pytest.mark.parametrize("train", [True, False])
def test_any_honest_count_lands_in_the_range(train):
    assert ex.how_steep.check(exponents(lambda n: counted(n, train=train)))
    assert ex.how_steep.check(exponents(counted, lambda n, y: line_through(np.log10(n), np.log10(y))))
    two_points = exponents(counted, lambda n, y: math.log(y[2] / y[0]) / math.log(n[2] / n[0]))
    assert ex.how_steep.check(two_points)


@pytest.mark.parametrize(
    ("says", "measured"),
    [
        ("`batch_first=True` says", lambda: exponents(lambda n: counted(n, batch_first=False))),
        ("`batch_first=True` says", lambda: exponents(lambda n: counted(n, text=(-1, 1)))),
        ("the table of pairs alone", lambda: exponents(lambda n: 4 * n * n * 512)),
        ("without the feed-forward", lambda: exponents(lambda n: 8 * n * 512**2 + 4 * n * n * 512)),
        ("when n doubles", lambda: exponents(counted, lambda n, y: y[1] / y[0])),
        ("when n doubles", lambda: exponents(counted, lambda n, y: y[2] / y[1])),
        ("when n grows 4 times", lambda: exponents(counted, lambda n, y: y[2] / y[0])),
        ("the other way round", lambda: exponents(counted)[::-1]),
        ("fitted n against", lambda: exponents(counted, lambda n, y: line_through(np.log(y), np.log(n)))),
        ("base 10 for n", lambda: exponents(counted, lambda n, y: line_through(np.log10(n), np.log(y)))),
        ("base e for n", lambda: exponents(counted, lambda n, y: line_through(np.log(n), np.log10(y)))),
        ("base 2 for FLOPs", lambda: exponents(counted, lambda n, y: line_through(np.log(n), np.log2(y)))),
        ("base 2 for n", lambda: exponents(counted, lambda n, y: line_through(np.log2(n), np.log(y)))),
        ("is a slope", lambda: exponents(counted, lambda n, y: float((np.log(y) / np.log(n)).mean()))),
        ("for each token", lambda: exponents(lambda n: counted(n) / n)),
        ("that of n as well", lambda: exponents(counted, lambda n, y: line_through(n, np.log(y)))),
        ("all six lengths", lambda: exponents(counted, lambda n, y: 1.378)),
        ("above 3 is impossible", lambda: exponents(counted, line_through)),
        ("Not in the range", lambda: (1.5, 1.5)),
    ],
)
def test_each_wrong_measurement_is_told_why(says, measured):
    assert says in ex.how_steep.check(measured()).message


def test_the_six_lengths_together_give_what_the_slip_says():
    lengths = (*SHORT, *LONG)
    assert 1.3 < efficient.fitted_exponent(lengths, [counted(n) for n in lengths]) < 1.45
