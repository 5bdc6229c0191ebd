"""The exercises of "Attention through a window": other right answers, and what checks say beyond that."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab.attention import attention
from transformer_lab.efficient.sliding_window import WindowAttention, sliding_window_attention
from transformer_lab.exercises import sliding_window as ex
from transformer_lab.masks import reach, sliding_window_mask

# --- right answers in other words ----------------------------------------------------------------------


def dilated_by_steps(n_tokens, window, dilation):
    mask = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    for t in range(n_tokens):
        for step in range(-(window // 2), window // 2 + 1):
            if 0 <= t + step * dilation < n_tokens:
                mask[t, t + step * dilation] = True
    return mask


def dilated_by_strands(n_tokens, window, dilation):
    """Tokens of one rest stand side by side: a plain window over where they stand among themselves."""
    t = torch.arange(n_tokens)
    rest, place = t % dilation, t // dilation
    return (rest[:, None] == rest) & ((place[:, None] - place).abs() * 2 <= window)


def key_blocks_by_joining(k, half):
    own = k.unflatten(1, (-1, half))
    nothing = torch.zeros_like(own[:, :1])
    before, behind = torch.cat([nothing, own[:, :-1]], dim=1), torch.cat([own[:, 1:], nothing], dim=1)
    return torch.cat([before, own, behind], dim=2)


def key_blocks_by_index(k, half):
    block = torch.arange(k.shape[1] // half)[:, None]
    place = block * half + torch.arange(3 * half) - half
    there = ((place >= 0) & (place < k.shape[1]))[..., None]
    return k[:, place.clamp(0, k.shape[1] - 1)] * there


def allowed_by_loops(n_tokens, half):
    blocks = []
    for first in range(0, n_tokens, half):
        rows = []
        for query in range(first, first + half):
            keys = range(first - half, first + 2 * half)
            rows.append([abs(key - query) <= half and key in range(n_tokens) for key in keys])
        blocks.append(rows)
    return torch.tensor(blocks)


def allowed_by_unfold(n_tokens, half):
    short = -n_tokens % half
    there = F.pad(torch.ones(n_tokens), (half, half + short)).unfold(0, 3 * half, half) > 0
    band = torch.ones(half, 3 * half, dtype=torch.bool).triu().tril(2 * half)
    return band & there[:, None]


def repaired_by_the_package(q, k, v, half):
    q, k, v = (x[None, None] for x in (q, k, v))
    return sliding_window_attention(q, k, v, window=2 * half)[0, 0]


def repaired_by_a_full_table(q, k, v, half):
    return attention(q, k, v, sliding_window_mask(len(q), 2 * half)[0, 0])[0]


def one_softmax_by_exponentials(near_scores, near_values, allowed, global_scores, global_values):
    near, everywhere = near_scores.exp() * allowed, global_scores.exp()
    total = near.sum(-1, keepdim=True) + everywhere.sum(-1, keepdim=True)
    summed = torch.einsum("btw,btwd->btd", near, near_values)
    return (summed + torch.einsum("btg,bgd->btd", everywhere, global_values)) / total


def one_softmax_by_joining_values(near_scores, near_values, allowed, global_scores, global_values):
    T = near_scores.shape[1]
    scores = torch.cat([torch.where(allowed, near_scores, -torch.inf), global_scores], dim=-1)
    values = torch.cat([near_values, global_values[:, None].expand(-1, T, -1, -1)], dim=2)
    return (scores.softmax(-1)[:, :, None] @ values).squeeze(2)


class Projections(nn.Module):
    """The three layers, made in another order."""

    def __init__(self, width):
        super().__init__()
        self.global_v_proj = nn.Linear(width, width)
        self.global_k_proj = nn.Linear(width, width)
        self.global_q_proj = nn.Linear(width, width)


class RowsByTheKernel(Projections):
    def forward(self, x, local, is_global):
        q, k, v = self.global_q_proj(x), self.global_k_proj(x), self.global_v_proj(x)
        y = F.scaled_dot_product_attention(q, k, v)
        return is_global[..., None] * y + ~is_global[..., None] * local


class RowByRow(Projections):
    def forward(self, x, local, is_global):
        out = local.clone()
        for b, t in is_global.nonzero().tolist():
            scores = self.global_k_proj(x[b]) @ self.global_q_proj(x[b, t]) / x.shape[-1] ** 0.5
            out[b, t] = scores.softmax(0) @ self.global_v_proj(x[b])
        return out


def slots_by_a_loop(n_tokens, size):
    slots, rows = torch.full((size,), -1), []
    for t in range(n_tokens):
        slots[t % size] = t
        rows.append(slots.clone())
    return torch.stack(rows)


def slots_by_search(n_tokens, size):
    table = torch.full((n_tokens, size), -1)
    for t in range(n_tokens):
        for token in range(t + 1):
            table[t, token % size] = token
    return table


RIGHT = {
    "dilated_window": [dilated_by_steps, dilated_by_strands],
    "key_blocks": [key_blocks_by_joining, key_blocks_by_index],
    "allowed_in_blocks": [allowed_by_loops, allowed_by_unfold],
    "find_the_border": [repaired_by_the_package, repaired_by_a_full_table],
    "one_softmax": [one_softmax_by_exponentials, one_softmax_by_joining_values],
    "GlobalRows": [RowsByTheKernel, RowByRow],
    "rolling_slots": [slots_by_a_loop, slots_by_search],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
ABSOLUTE = "the same without its sign"
WHOLE = "no gradient flows through places, which are whole numbers"
BAND, BORDERS = "(column - half - row).abs()", "(place >= 0) & (place < n_tokens)"
OTHER_SIGN = "(-(column - half - row)).abs()", "(row - (column - half)).abs()"
CUT_OFF = (
    "((column - half).detach() - row).abs()",
    "(column - half - row).abs().detach()",
    "(column - half - row).detach().abs()",
)
EQUIVALENT = {
    "dilated_window": {
        "distance = (-(places[:, None] - places)).abs()": ABSOLUTE,
        "distance = (places - places[:, None]).abs()": ABSOLUTE,
        "places = -torch.arange(n_tokens)": ABSOLUTE,
        "near = distance <= window / 2 * dilation": "the window is even",
        "return near & (-(distance % dilation) == 0)": "0 is 0 with either sign",
        "return near & (2 * (distance % dilation) == 0)": "twice 0 is 0",
    },
    "allowed_in_blocks": {
        "band = (-(column - half - row)).abs() <= half": ABSOLUTE,
        "band = (row - (column - half)).abs() <= half": ABSOLUTE,
        "block = torch.arange(-(-n_tokens / half))[:, None, None]": "arange rounds up as well",
    },
    "find_the_border": {
        **{f"allowed = ({band} <= half) & {BORDERS}": ABSOLUTE for band in OTHER_SIGN},
        **{f"allowed = ({band} <= half) & {BORDERS}": WHOLE for band in CUT_OFF},
        f"allowed = (({BAND} <= half) & {BORDERS}).detach()": WHOLE,
        f"allowed = (({BAND} <= half) & (place >= 0)).detach() & (place < n_tokens)": WHOLE,
        "column, row = (torch.arange(3 * half), torch.arange(half).detach()[:, None])": WHOLE,
        "column, row = (torch.arange(3 * half).detach(), torch.arange(half)[:, None])": WHOLE,
        "place = (torch.arange(len(queries))[:, None, None] * half + column - half).detach()": WHOLE,
        "place = (torch.arange(len(queries))[:, None, None] * half + column).detach() - half": WHOLE,
        "place = (torch.arange(len(queries))[:, None, None] * half).detach() + column - half": WHOLE,
        "place = torch.arange(len(queries)).detach()[:, None, None] * half + column - half": WHOLE,
        "place = torch.arange(len(keys))[:, None, None] * half + column - half": "a piece for each block",
        "place = torch.arange(len(values))[:, None, None] * half + column - half": "a piece for each block",
        "n_tokens, width = k.shape": "queries, keys and values have one shape here",
        "n_tokens, width = v.shape": "queries, keys and values have one shape here",
    },
    "one_softmax": {
        "near, everywhere = weights.split([allowed.shape[-1], global_scores.shape[-1]], dim=-1)": (
            "the mask is as wide as the near scores"
        ),
    },
    "GlobalRows": {
        f"weights = (q @ k.mT / {name}.shape[-1] ** 0.5).softmax(dim=-1)": "all of them are D wide"
        for name in ("q", "k", "v", "local")
    },
}


def test_the_chapter_has_eleven_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 11 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package -------------------------------------------------------------


def test_the_reference_of_the_dilated_window_is_the_package_s_window():
    """Values that are unit vectors show who is seen."""
    for case in ex.dilated_window.cases():
        T, window, dilation = case.tensors()
        x = torch.eye(T)[None, None]
        seen = sliding_window_attention(0 * x, 0 * x, x, window=window, dilation=dilation)[0, 0] > 0
        assert seen.tolist() == case.want.tolist()


def test_the_reference_of_the_border_is_the_package_s():
    for case in ex.find_the_border.cases():
        ours = repaired_by_the_package(*case.tensors())
        assert np.allclose(ours.double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_the_rows_is_the_package_s():
    """With the window's projections and the last one set aside: global rows come from the layer itself."""
    for case in ex.GlobalRows.cases():
        given = dict(zip(case.inputs, case.tensors(), strict=True))
        D, x, is_global = given.pop("d_model"), given["x"], given["is_global"]
        if not is_global.any():
            continue
        layer = WindowAttention(d_model=D, n_heads=1, window=2).to(x.dtype)
        layer.out_proj = nn.Identity()
        layer.load_state_dict(
            {name: value for name, value in given.items() if name.startswith("global")}, strict=False
        )
        ours = layer(x, is_global=is_global)[is_global]
        wanted = torch.from_numpy(case.want)[is_global]
        assert np.allclose(ours.detach().double(), wanted, atol=1e-5)


def test_the_reference_of_the_blocks_is_the_band():
    """Laid out in the table of the text, the small masks are the window."""
    for case in ex.allowed_in_blocks.cases():
        T, half = case.tensors()
        table = torch.zeros(T, T, dtype=torch.bool)
        for b, r, c in np.argwhere(case.want):
            query, key = b * half + r, b * half + c - half
            if query < T:
                table[query, key] = True
        assert torch.equal(table, sliding_window_mask(T, 2 * half)[0, 0])


def test_the_stack_of_the_prediction_hears_all_within_its_reach():
    """As its praise says."""
    heard = {0}
    for half, dilation in ((2, 1), (2, 2), (4, 3)):
        heard = {h + step * dilation for h in heard for step in range(-half, half + 1)}
    assert heard == set(range(-18, 19))


# --- measurements --------------------------------------------------------------------------------------


def measured(n_layers=9, half=3, n_tokens=121, skip=False, back_only=False):
    x = torch.eye(n_tokens, dtype=torch.float64)[None, None]
    y = x
    for _ in range(n_layers):
        mean = sliding_window_attention(0 * x, 0 * x, y, window=2 * half, causal=back_only)
        y = (y + mean) / 2 if skip else mean
    share = y[0, 0, n_tokens // 2]
    distance = torch.arange(n_tokens) - n_tokens // 2
    return share, distance


def numbers(share, distance):
    return distance[share > 0].abs().max(), (share * distance**2).sum().sqrt()


def test_an_honest_measurement_passes():
    assert ex.reach_and_spread.check(numbers(*measured()))
    stack = sliding_window_mask(121, 6)[0, 0]
    assert reach(stack, 9)[60].nonzero().max() - 60 == 27


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        ("the other way round", lambda: numbers(*measured())[::-1]),
        ("mean of the squared distances", lambda: (27, numbers(*measured())[1] ** 2)),
        ("mean distance without its sign", lambda: (27, (measured()[0] * measured()[1].abs()).sum())),
        ("6 places to each side", lambda: numbers(*measured(half=6))),
        ("after eight layers", lambda: numbers(*measured(n_layers=8))),
        ("after ten layers", lambda: numbers(*measured(n_layers=10))),
        ("a single layer", lambda: numbers(*measured(n_layers=1))),
        ("counts tokens", lambda: (55, numbers(*measured())[1])),
        ("very small gradients", lambda: (int((measured()[0] > 1e-4).sum()) // 2, 6.0)),
        ("looks back only", lambda: numbers(*measured(back_only=True))),
        ("skip connection", lambda: numbers(*measured(skip=True))),
        ("equal shares", lambda: numbers((measured()[0] > 0) / 55, measured()[1])),
        ("more than 60 places", lambda: (81, 9)),
        ("Not these numbers", lambda: (20, 3)),
    ],
)
def test_each_wrong_measurement_is_told_why(says, answer):
    assert says in ex.reach_and_spread.check(answer()).message


# --- code ----------------------------------------------------------------------------------------------


def rows_in_one_tensor(n_tokens, size):
    slots, rows = torch.full((size,), -1), []
    for t in range(n_tokens):
        slots[t % size] = t
        rows.append(slots)
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("exercise", "answer", "says"),
    [
        (ex.rolling_slots, rows_in_one_tensor, "All rows are the last one"),
        (ex.dilated_window, lambda n, w, d: sliding_window_mask(n, w)[0, 0], "the plain window"),
        (ex.key_blocks, lambda k, half: k.unflatten(1, (-1, half)).repeat(1, 1, 3, 1), "three times"),
        (ex.one_softmax, lambda n, nv, a, g, gv: g.softmax(-1) @ gv, "the global tokens alone"),
    ],
)
def test_what_learners_write_is_named(exercise, answer, says):
    result = exercise.check(answer)
    assert result.status == "not yet" and says in result.message, result
