"""The exercises of "FlashAttention": other right answers, and what checks say beyond the contract."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from transformer_lab.attention import attention
from transformer_lab.efficient import flash
from transformer_lab.exercises import flash as ex
from transformer_lab.masks import causal_mask

# --- right answers in other words ----------------------------------------------------------------------


def update_by_logarithms(largest, total, tile):
    new = torch.cat([largest[:, None], tile], dim=1).amax(dim=1)
    terms = torch.cat([(largest - new)[:, None], tile - new[:, None]], dim=1).exp()
    return torch.stack((new, terms[:, 0] * total + terms[:, 1:].sum(dim=1)), dim=1)


def update_row_by_row(largest, total, tile):
    rows = []
    for m, so_far, scores in zip(largest, total, tile, strict=True):
        new = torch.maximum(m, scores.max())
        rows.append(torch.stack([new, so_far * torch.exp(m - new) + torch.exp(scores - new).sum()]))
    return torch.stack(rows)


def update_with_division(largest, total, tile):
    new = tile.amax(1).where(tile.amax(1) > largest, largest).unsqueeze(1)
    added = torch.exp(tile - new).sum(1, keepdim=True)
    return torch.cat([new, total[:, None] / (new - largest[:, None]).exp() + added], dim=1)


def merge_by_shares(largest_1, total_1, output_1, largest_2, total_2, output_2):
    largest = torch.stack([largest_1, largest_2]).amax(dim=0)
    a, b = (torch.exp(m - largest).unsqueeze(-1) for m in (largest_1, largest_2))
    return (a * output_1 + b * output_2) / (a * total_1.unsqueeze(-1) + b * total_2.unsqueeze(-1))


def merge_row_by_row(largest_1, total_1, output_1, largest_2, total_2, output_2):
    rows = []
    for m1, l1, o1, m2, l2, o2 in zip(
        largest_1, total_1, output_1, largest_2, total_2, output_2, strict=True
    ):
        higher = m1 if m1 >= m2 else m2
        a, b = torch.exp(m1 - higher), torch.exp(m2 - higher)
        rows.append((a * o1 + b * o2) / (a * l1 + b * l2))
    return torch.stack(rows)


def tiles_by_a_table(q, k_tiles, v_tiles):
    k, v = k_tiles.flatten(0, 1), v_tiles.flatten(0, 1)
    scores = torch.einsum("td,sd->ts", q, k) / q.shape[-1] ** 0.5
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    return weights @ v / weights.sum(dim=-1, keepdim=True)


def tiles_divided_as_in_2022(q, k_tiles, v_tiles):
    largest = q.new_full((len(q), 1), float("-inf"))
    total, output = torch.zeros_like(largest), torch.zeros_like(q)
    for k, v in zip(k_tiles, v_tiles, strict=True):
        scores = q @ k.mT * q.shape[1] ** -0.5
        new = torch.maximum(largest, scores.amax(1, keepdim=True))
        weights = (scores - new).exp()
        grown = (largest - new).exp() * total + weights.sum(1, keepdim=True)
        output = ((largest - new).exp() * total * output + weights @ v) / grown
        largest, total = new, grown
    return output


def tiles_by_merging(q, k_tiles, v_tiles):
    logs, outputs = [], []
    for k, v in zip(k_tiles, v_tiles, strict=True):
        scores = q @ k.T / q.shape[1] ** 0.5
        m = scores.amax(1, keepdim=True)
        weights = (scores - m).exp()
        logs.append(m + weights.sum(1, keepdim=True).log())
        outputs.append(weights @ v / weights.sum(1, keepdim=True))
    logs, outputs = torch.stack(logs), torch.stack(outputs)
    shares = (logs - logs.amax(0)).exp()
    return (shares * outputs).sum(0) / shares.sum(0)


def edge_without_filling(q, k, v, size):
    scores = torch.einsum("td,sd->ts", q, k) * q.shape[1] ** -0.5
    weights = torch.exp(scores - scores.amax(1, keepdim=True))
    return weights / weights.sum(1, keepdim=True) @ v


def edge_with_weights_struck_out(q, k, v, size):
    real = (torch.arange(size) < len(k)).to(q.dtype)
    k, v = (F.pad(x, (0, 0, 0, size - len(k))) for x in (k, v))
    scores = q @ k.T / q.shape[1] ** 0.5
    largest = torch.where(real.bool(), scores, -1e9).amax(1, keepdim=True)
    weights = torch.where(real.bool(), scores - largest, -1e9).exp()
    return weights @ v / (weights * real).sum(1, keepdim=True)


def needed_by_the_mask(n_queries, n_keys, block_q, block_k):
    seen = causal_mask(n_queries, n_keys)[0, 0]
    rows = [
        [seen[i : i + block_q, j : j + block_k].any().item() for j in range(0, n_keys, block_k)]
        for i in range(0, n_queries, block_q)
    ]
    return torch.tensor(rows)


def needed_by_pooling(n_queries, n_keys, block_q, block_k):
    seen = causal_mask(n_queries, n_keys)[0, 0]
    padded = F.pad(seen, (0, -n_keys % block_k, 0, -n_queries % block_q))
    return padded.unflatten(1, (-1, block_k)).unflatten(0, (-1, block_q)).any(dim=3).any(dim=1)


def backward_by_the_table(scores, logs, v, output, grad):
    rows = []
    for row, log, g in zip(scores, logs, grad, strict=True):
        weights = (row - log).exp()
        rows.append((torch.diag(weights) - torch.outer(weights, weights)) @ (v @ g))
    return torch.stack(rows)


def backward_by_differences(scores, logs, v, output, grad):
    weights = scores.softmax(dim=-1)
    return weights * torch.einsum("td,tsd->ts", grad, v[None] - output[:, None])


RIGHT = {
    "one_update": [update_by_logarithms, update_row_by_row, update_with_division],
    "merge": [merge_by_shares, merge_row_by_row],
    "attend_in_tiles": [tiles_by_a_table, tiles_divided_as_in_2022, tiles_by_merging],
    "right_until_it_rises": [tiles_by_a_table, tiles_divided_as_in_2022],
    "pulled_to_zero": [edge_without_filling, edge_with_weights_struck_out],
    "tiles_to_compute": [needed_by_the_mask, needed_by_pooling],
    "scores_backward": [backward_by_the_table, backward_by_differences],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
START = "the factor of the first tile is 0: what the sums start from is forgotten"
WIDE = "it stretches: a row's one number to Dh, all equal, or Dh zeros to one"
CANCELS = "a factor of all weights stands above and below the line"
SAME_WIDTH = "queries, keys, values and output are equally wide"
WALK = {
    "largest = 2 * q.new_full((len(q), 1), float('-inf'))": "twice minus infinity",
    "largest = k_tiles.new_full((len(q), 1), float('-inf'))": "the same type",
    "largest = v_tiles.new_full((len(q), 1), float('-inf'))": "the same type",
    "total = -torch.zeros_like(largest)": START,
    "total = 2 * torch.zeros_like(largest)": START,
    "output = -torch.zeros_like(q)": START,
    "output = 2 * torch.zeros_like(q)": START,
    "total = torch.zeros_like(q)": WIDE,
    "output = torch.zeros_like(largest)": WIDE,
    "output = torch.zeros_like(total)": WIDE,
    "scores = q @ k.T / k.shape[1] ** 0.5": SAME_WIDTH,
    "scores = q @ k.T / v.shape[1] ** 0.5": SAME_WIDTH,
    "scores = q @ k.T / output.shape[1] ** 0.5": SAME_WIDTH,
}
EITHER = "the larger one, whichever comes first"
EQUIVALENT = {
    "one_update": {"new = torch.maximum(tile.amax(dim=1), largest)": EITHER},
    "merge": {
        "largest = torch.maximum(largest_2, largest_1)": EITHER,
        "largest = torch.maximum(largest_1, largest_2).detach()": "the common maximum cancels: no slope",
    },
    "attend_in_tiles": WALK
    | {
        "new = torch.maximum(scores.amax(dim=1, keepdim=True), largest)": EITHER,
        "weights = -(scores - new).exp()": CANCELS,
        "weights = 2 * (scores - new).exp()": CANCELS,
    },
    "right_until_it_rises": WALK
    | {
        "before, largest = (largest, torch.maximum(scores.amax(dim=1, keepdim=True), largest))": EITHER,
        "weights = -(scores - largest).exp()": CANCELS,
        "weights = 2 * (scores - largest).exp()": CANCELS,
    },
    "pulled_to_zero": {
        "beyond = torch.arange(size) >= len(v)": "as many values as keys",
        "filler = k.new_zeros(size - len(v), k.shape[1])": "as many values as keys",
        "filler = -k.new_zeros(size - len(k), k.shape[1])": "minus zero",
        "filler = 2 * k.new_zeros(size - len(k), k.shape[1])": "twice zero",
        "filler = beyond.new_zeros(size - len(k), k.shape[1])": "`cat` turns False into 0",
        "filler = q.new_zeros(size - len(k), k.shape[1])": "the same type",
        "filler = v.new_zeros(size - len(k), k.shape[1])": "the same type",
        "filler = k.new_zeros(size - len(k), q.shape[1])": SAME_WIDTH,
        "filler = k.new_zeros(size - len(k), v.shape[1])": SAME_WIDTH,
        "scores = q @ k.T / k.shape[1] ** 0.5": SAME_WIDTH,
        "scores = q @ k.T / v.shape[1] ** 0.5": SAME_WIDTH,
        "scores = q @ k.T / filler.shape[1] ** 0.5": SAME_WIDTH,
        "weights = -(scores - scores.amax(dim=1, keepdim=True)).exp()": CANCELS,
        "weights = 2 * (scores - scores.amax(dim=1, keepdim=True)).exp()": CANCELS,
    },
}


def test_the_chapter_has_eleven_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 11 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package and with PyTorch --------------------------------------------


def agree(ours, case):
    assert np.allclose(ours.double().numpy(), case.want, rtol=1e-5, atol=1e-5)


def test_the_reference_of_the_update_agrees_with_pytorch_s_logsumexp():
    for case in ex.one_update.cases():
        largest, total, tile = case.tensors()
        before = (largest + total.log())[:, None]  # what was seen, as one score
        new = torch.cat([largest[:, None], tile], dim=1).amax(dim=1)
        total = (torch.cat([before, tile], dim=1).logsumexp(dim=1) - new).exp()
        assert np.allclose(torch.stack((new, total), dim=1).double().numpy(), case.want, rtol=1e-3)


@pytest.mark.parametrize("exercise", [ex.attend_in_tiles, ex.right_until_it_rises])
def test_the_reference_of_tiles_agrees_with_the_package(exercise):
    for case in exercise.cases():
        q, k, v = case.tensors()
        k, v = (x.flatten(0, 1)[None, None] for x in (k, v))
        agree(flash.flash_attention(q[None, None], k, v, block_q=2, block_k=2)[0, 0], case)


def test_the_reference_of_the_edge_agrees_with_pytorch():
    for case in ex.pulled_to_zero.cases():
        q, k, v, _ = case.tensors()
        agree(F.scaled_dot_product_attention(q, k, v), case)


def test_the_reference_of_merging_is_the_attention_to_all_keys():
    """Two halves as the package leaves them: an output that is divided, and a log for each row."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, n, 4, generator=generator, dtype=torch.float64) for n in (3, 9, 9))
    halves = [flash.tiles_forward(q, k[:, :, part], v[:, :, part]) for part in (slice(0, 5), slice(5, 9))]
    given = [(logs[0, 0], torch.ones(3, dtype=torch.float64), output[0, 0]) for output, logs in halves]
    merged = ex.merge.reference(*(x.numpy() for half in given for x in half))
    assert np.allclose(merged, attention(q, k, v)[0][0, 0].numpy(), rtol=0, atol=1e-12)


def test_the_reference_of_the_way_back_agrees_with_autograd():
    for case in ex.scores_backward.cases():
        scores, _, v, _, grad = (x.double() for x in case.tensors())
        scores.requires_grad_()
        (found,) = torch.autograd.grad(scores.softmax(dim=1) @ v, scores, grad)
        agree(found, case)


def test_the_tiles_that_are_needed_are_those_that_the_package_computes(monkeypatch):
    scores, found = flash._scores, []
    monkeypatch.setattr(flash, "_scores", lambda *a: (found.append(tile := scores(*a)), tile)[1])
    for n_queries, n_keys, block_q, block_k in ex.tiles_to_compute.sizes:
        q, k = torch.zeros(1, 1, n_queries, 2), torch.zeros(1, 1, n_keys, 2)
        found.clear()
        flash.tiles_forward(q, k, k, causal=True, block_q=block_q, block_k=block_k)
        needed = ex.tiles_to_compute.solve(n_queries, n_keys, block_q, block_k)
        assert [tile is not None for tile in found] == needed.flatten().tolist()


def test_what_moves_is_what_the_package_counts():
    counted = flash.traffic(4096, 128, 4 * 128 * 128)
    assert ex.what_moves.expected == counted["flash"] * 2 / 2**20
    assert "132 MiB" in ex.what_moves.solve.__doc__ and counted["standard"] * 2 / 2**20 == 132


# --- what is off limits --------------------------------------------------------------------------------


def by_softmax(q, k_tiles, v_tiles):
    return (q @ k_tiles.flatten(0, 1).T / q.shape[1] ** 0.5).softmax(dim=1) @ v_tiles.flatten(0, 1)


def by_pytorch(q, k_tiles, v_tiles):
    return F.scaled_dot_product_attention(q, k_tiles.flatten(0, 1), v_tiles.flatten(0, 1))


def by_logsumexp(largest, total, tile):
    both = torch.cat([(largest + total.log())[:, None], tile], dim=1)
    new = torch.maximum(largest, tile.amax(1))
    return torch.stack((new, (both.logsumexp(1) - new).exp()), dim=1)


def by_autograd(scores, logs, v, output, grad):
    scores = scores.detach().requires_grad_()
    return torch.autograd.grad((scores - logs[:, None]).exp() @ v, scores, grad)[0]


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (ex.attend_in_tiles, by_softmax),
        (ex.attend_in_tiles, by_pytorch),
        (ex.one_update, by_logsumexp),
        (ex.scores_backward, by_autograd),
    ],
)
def test_who_calls_what_is_to_be_written_is_told_so(exercise, answer):
    result = exercise.check(answer)
    assert result.status == "not yet" and "is off limits in this exercise" in result.message, result


# --- measurements --------------------------------------------------------------------------------------


def in_tiles(q, k, v, size):
    return ex.attend_in_tiles.solve(q, k.unflatten(0, (-1, size)), v.unflatten(0, (-1, size)))


def in_the_package(q, k, v, size):
    return flash.flash_attention(q[None, None], k[None, None], v[None, None], block_k=size)[0, 0]


def measured(seed, *, dtype=torch.bfloat16, draws=10, n_keys=512, of="mean", rounded=True, tiled=in_tiles):
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(draws):
        q, k, v = (torch.randn(n, 64, generator=generator, dtype=torch.float64) for n in (64, n_keys, n_keys))
        low = [t.to(dtype) for t in (q, k, v)]
        truth = attention(*(t.double() for t in (low if rounded else (q, k, v))))[0]
        outputs = tiled(*low, 1), tiled(*low, 64), attention(*low)[0]
        rows.append([1000 * getattr((out.double() - truth).abs(), of)().item() for out in outputs])
    return torch.tensor(rows).mean(dim=0).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_any_honest_measurement_lands_in_the_range(seed):
    assert ex.where_sums_lose_digits.check(measured(seed))


@pytest.mark.parametrize(
    ("says", "settings"),
    [
        ("before they were rounded", {"rounded": False}),
        ("These are largest errors", {"of": "amax"}),
        ("errors of float16", {"dtype": torch.float16}),
        ("errors of float32", {"dtype": torch.float32}),
        ("everything ran in float64", {"dtype": torch.float64}),
        ("with 256 keys", {"n_keys": 256}),
        ("The running sums were float32", {"tiled": in_the_package}),
    ],
)
def test_each_wrong_measurement_is_told_why(says, settings):
    for seed in range(3):
        message = ex.where_sums_lose_digits.check(measured(seed, **settings)).message
        assert says in message, (measured(seed, **settings), message)


def test_other_wrong_measurements_are_told_why():
    right, told = measured(0), ex.where_sums_lose_digits.check
    assert "the other way round" in told(right[::-1]).message
    assert "1000 is missing" in told([x / 1000 for x in right]).message
    assert "more than the outputs themselves" in told([800.0, 900.0, 700.0]).message
    assert "Not in the range" in told((1.0, 1.0, 1.0)).message
