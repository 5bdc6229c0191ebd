"""The exercises of "Masks": other right answers, and what its checks say beyond the contract."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab import masks
from transformer_lab.exercises import masks as ex

# --- right answers in other words ----------------------------------------------------------------------


def causal_by_loops(n_queries, n_keys):
    mask = torch.zeros(n_queries, n_keys, dtype=torch.bool)
    for t in range(n_queries):
        mask[t, : max(0, n_keys - n_queries + t + 1)] = True
    return mask


def causal_from_the_square(n_queries, n_keys):
    n = max(n_queries, n_keys)
    return torch.ones(n, n).tril().bool()[n - n_queries :, n - n_keys :]


def conventions_by_a_table(mask, convention):
    allowed = {"blocked": False, "additive": 0.0, "ones": 1}
    return mask.eq(allowed[convention])


def conventions_by_sign(mask, convention):
    if convention == "additive":
        return mask > -1.0
    return ~mask if convention == "blocked" else mask.bool()


def padding_by_loops(tokens, pad_id):
    B, S = tokens.shape
    mask = torch.zeros(B, 1, 1, S, dtype=torch.bool)
    for b, s in itertools.product(range(B), range(S)):
        mask[b, 0, 0, s] = tokens[b, s].item() != pad_id
    return mask


def decoder_by_loops(tokens, pad_id):
    B, T = tokens.shape
    rows = [(tokens[b] != pad_id) & (torch.arange(T) <= t) for b in range(B) for t in range(T)]
    return torch.stack(rows).view(B, 1, T, T)


def softmax_filled_low(scores, mask):
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return torch.where(mask, weights, 0.0)


def softmax_by_hand(scores, mask):
    low = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    e = (low - low.amax(-1, keepdim=True)).exp() * mask
    return e / e.sum(-1, keepdim=True).clamp_min(1e-30)


def softmax_of_rows_that_see(scores, mask):
    sees = mask.any(-1, keepdim=True)
    return scores.masked_fill(~mask & sees, -torch.inf).softmax(-1) * sees


def loss_by_the_library(logits, tokens):
    return F.cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")


def loss_by_loops(logits, tokens):
    B, T = tokens.shape
    rows = [[-F.log_softmax(logits[b, t], 0)[tokens[b, t + 1]] for t in range(T - 1)] for b in range(B)]
    return torch.stack([torch.stack(row) for row in rows])


def window_by_writing(is_global, window):
    T = len(is_global)
    mask = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        mask[t, max(0, t - window // 2) : t + window // 2 + 1] = True
    mask[is_global] = True
    mask[:, is_global] = True
    return mask


def window_by_triangles(is_global, window):
    T, half = len(is_global), window // 2
    band = torch.ones(T, T).tril(half).triu(-half).bool()
    return band | is_global.unsqueeze(0) | is_global.unsqueeze(1)


def packing_by_blocks(segments):
    out = []
    for row in segments:
        _, lengths = torch.unique_consecutive(row, return_counts=True)
        out.append(torch.block_diag(*[torch.ones(n, n).tril() for n in lengths.tolist()]))
    return torch.stack(out)[:, None].bool()


def positions_by_counting(segments):
    rows = []
    for row in segments.tolist():
        rows.append([sum(1 for other in row[:t] if other == text) for t, text in enumerate(row)])
    return torch.tensor(rows)


class BlockParts(nn.Module):
    def __init__(self, width):
        super().__init__()
        for name in ("v_proj", "k_proj", "q_proj"):
            self.add_module(name, nn.Linear(width, width))


class BlockByTheLibrary(BlockParts):
    def forward(self, x):
        centred = x - x.sum(2, keepdim=True) / x.shape[2]
        q, k, v = self.q_proj(centred), self.k_proj(centred), self.v_proj(centred)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True) + x


class BlockByLoops(BlockParts):
    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        rows = []
        for t in range(x.shape[1]):
            query, past = self.q_proj(centred[:, t : t + 1]), centred[:, : t + 1]
            weights = (query @ self.k_proj(past).mT / x.shape[-1] ** 0.5).softmax(-1)
            rows.append(x[:, t : t + 1] + weights @ self.v_proj(past))
        return torch.cat(rows, dim=1)


RIGHT = {
    "causal": [
        causal_by_loops,
        causal_from_the_square,
        lambda n_queries, n_keys: masks.causal_mask(n_queries, n_keys)[0, 0],
        lambda T, S: torch.ones(T, S, dtype=torch.bool).tril(S - T),
    ],
    "may_attend": [conventions_by_a_table, conventions_by_sign],
    "padding": [
        padding_by_loops,
        masks.padding_mask,
        lambda tokens, pad_id: ~(tokens == pad_id).unsqueeze(1).unsqueeze(2),
    ],
    "decoder_mask": [
        decoder_by_loops,
        lambda tokens, pad_id: (
            masks.causal_mask(tokens.shape[1]) * (tokens != pad_id).view(len(tokens), 1, 1, -1)
        ),
    ],
    "masked_softmax": [softmax_filled_low, softmax_by_hand, softmax_of_rows_that_see],
    "next_token_loss": [loss_by_the_library, loss_by_loops],
    "window_with_global": [
        window_by_writing,
        window_by_triangles,
        lambda is_global, window: (
            masks.sliding_window_mask(len(is_global), window)
            | masks.global_mask(len(is_global), is_global.nonzero()[:, 0].tolist())
        )[0, 0],
    ],
    "packing": [
        packing_by_blocks,
        lambda segments: masks.packing_mask(segments) & masks.causal_mask(segments.shape[1]),
    ],
    "positions_anew": [positions_by_counting, masks.packed_positions],
    "CausalBlock": [BlockByTheLibrary, BlockByLoops],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
SQUARE = "past = torch.ones_like(scores, dtype=torch.bool)"
NEAR = ".abs() <= window // 2"
NO_SIGN = "the distance loses its sign"
EQUIVALENT = {
    "masked_softmax": {"weights = scores.softmax(dim=1)": "of two axes, 1 is the last"},
    "window_with_global": {
        "places = -torch.arange(len(is_global), device=is_global.device)": NO_SIGN,
        f"near = (places - places[:, None]){NEAR}": NO_SIGN,
        f"near = (-(places[:, None] - places)){NEAR}": NO_SIGN,
        "near = (places[:, None] - places).abs() <= window / 2": "between two whole numbers lies no distance",
    },
    "positions_anew": {
        "places = 2 * torch.arange(segments.shape[1], device=segments.device)": "twice as large, they stand "
        "in the same order",
    },
    "CausalBlock": {
        f"{SQUARE}.tril().detach()": "a mask has no gradient",
        f"{SQUARE}.detach().tril()": "a mask has no gradient",
        "scores = q @ k.transpose(1, -1) / q.shape[-1] ** 0.5": "of three axes, 1 is -2",
        **{
            f"scores = q @ k.transpose(-2, -1) / {name}.shape[-1] ** 0.5": "all are as wide as the model"
            for name in ("centred", "k", "v", "x")
        },
    },
}


def test_the_chapter_has_fourteen_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) >= 14 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- masks and whole numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exercise", "answer", "says"),
    [
        (ex.causal, lambda T, S: torch.ones(T, S).tril(S - T), "this is float32"),
        (ex.padding, lambda tokens, pad_id: (tokens != pad_id).long()[:, None, None], "this is int64"),
        (ex.packing, lambda s: ex.packing.solve(s).to(torch.uint8), "this is uint8"),
        (ex.positions_anew, lambda s: ex.positions_anew.solve(s).float(), "whole numbers, int64"),
        (
            ex.masked_softmax,
            lambda scores, mask: mask,
            "Return float32, the type of the inputs; this is bool",
        ),
    ],
)
def test_an_answer_of_another_type_is_told_so(exercise, answer, says):
    result = exercise.check(answer)
    assert result.status == "not yet" and says in result.message


def test_a_boolean_mask_is_called_so():
    message = ex.causal.check(lambda T, S: torch.ones(T, S)).message
    assert "Return a boolean mask, True = may attend" in message


def test_a_mask_that_no_slip_knows_is_shown_in_ones_and_zeros():
    shown = repr(ex.causal.check(lambda T, S: torch.ones(T, S, dtype=torch.bool).triu(2)))
    assert "expected True, given False" in shown and "1.000" not in shown
    assert "n_queries = 2, n_keys = 3:" in shown  # no precision where there are no real numbers


def test_positions_that_no_slip_knows_are_shown_as_whole_numbers():
    message = repr(ex.positions_anew.check(lambda s: ex.positions_anew.solve(s) + 5))
    assert "expected 0, given 5" in message


@pytest.mark.parametrize("exercise", [ex.causal, ex.padding, ex.positions_anew], ids=lambda e: e.name)
def test_a_right_answer_gets_no_remark_about_its_type(exercise):
    assert "remark" not in exercise.check(exercise.solve).message


# --- what the symptoms say -----------------------------------------------------------------------------


def test_the_broken_softmax_has_right_values_and_a_gradient_of_nan():
    for case in ex.masked_softmax.cases():
        assert np.allclose(ex._AddedUp.masked_softmax(*case.tensors()), case.want, atol=1e-6)
    scores, mask = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2, dtype=torch.bool)
    ex._AddedUp.masked_softmax(scores, mask)[0, 0].backward()
    assert scores.grad.isnan().all()


def replaced_by_where(scores, mask):
    weights = (scores + torch.where(mask, 0.0, -torch.inf)).softmax(-1)
    return torch.where(weights.isnan(), 0.0, weights)


def divided_by_a_sum_of_zero(scores, mask):
    e = scores.exp() * mask
    return (e / e.sum(-1, keepdim=True)).masked_fill(~mask, 0.0)


def filled_before_and_replaced(scores, mask):
    return scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0)


def test_other_ways_to_nan_in_the_gradient_get_the_sentence_about_it():
    for answer in (replaced_by_where, divided_by_a_sum_of_zero):
        assert "the gradient still holds NaN" in ex.masked_softmax.check(answer).message
    # masked_fill alone keeps the NaN from getting out, so this one is right
    assert ex.masked_softmax.check(filled_before_and_replaced)


def test_influence_shows_the_leak_of_the_broken_block_and_none_in_the_repaired_one():
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    for block, leaks in ((ex._Leaking.CausalBlock(4), True), (ex.CausalBlock.solve(4), False)):
        assert bool(masks.influence(block, x).triu(1).any()) is leaks


def test_the_layers_needed_are_what_reach_says():
    mask = (masks.sliding_window_mask(64, 4) & masks.causal_mask(64))[0, 0]
    assert [bool(masks.reach(mask, n)[30, 9]) for n in (10, 11)] == [False, True]


def test_the_right_row_in_booleans_is_not_called_wrong():
    row = masks.causal_mask(2, 5)[0, 0, 0]
    assert "in True and False" in ex.first_of_two.check(row).message
    assert ex.first_of_two.check(row.int())


def test_the_first_of_two_rows_is_the_package_s():
    assert tuple(masks.causal_mask(2, 5)[0, 0, 0].int().tolist()) == ex.first_of_two.expected


# --- measurements --------------------------------------------------------------------------------------


def shares(seed, *, longest=False, padded_rows=True, either=False, upside_down=False, future=False, size=16):
    random = torch.Generator().manual_seed(seed)
    keys, pairs = [], []
    for _ in range(1000):
        lengths = torch.randint(1, 65, (size,), generator=random)
        T = 64 if longest else int(lengths.max())
        real = masks.padding_mask((torch.arange(T) < lengths[:, None]).int(), 0)
        pair = real | masks.causal_mask(T) if either else real & masks.causal_mask(T)
        pair = real if future else pair
        pair = pair if padded_rows else pair & real.mT
        keys.append((~real if upside_down else real).float().mean())
        pairs.append((~pair if upside_down else pair).float().mean())
    return torch.stack(keys).mean().item(), torch.stack(pairs).mean().item()


@pytest.mark.parametrize("seed", range(5))
def test_any_honest_measurement_lands_in_the_range(seed):
    assert ex.shares_used.check(shares(seed))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"longest": True}, "Your tables are 64 long, or nearly"),
        ({"size": 64}, "Your tables are 64 long, or nearly"),
        ({"size": 1}, "Every key is real"),
        ({"either": True}, "`&`, not `|`"),
        ({"padded_rows": False, "future": True}, "the future is seen"),
        ({"padded_rows": False}, "padded queries count for nothing"),
        ({"upside_down": True}, "These are the shares of False"),
    ],
)
def test_each_wrong_measurement_is_told_why(options, says):
    result = ex.shares_used.check(shares(7, **options))
    assert result.status == "not yet" and says in result.message
