"""The exercises of "Attention": other right answers, and what its checks say beyond the contract."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab.attention import MultiHeadAttention, attention
from transformer_lab.exercises import attention as ex
from transformer_lab.exercises.check import source
from transformer_lab.exercises.check.compare import gradients
from transformer_lab.exercises.check.written import slipped_gradients

# --- right answers in other words ----------------------------------------------------------------------


def average_by_loops(weights, values):
    rows = []
    for row in weights.tolist():
        columns = zip(*values.tolist(), strict=True)
        rows.append([sum(w * x for w, x in zip(row, column, strict=True)) for column in columns])
    return torch.tensor(rows)  # float32 also for float64 inputs


def average_into_zeros(weights, values):
    out = torch.zeros(len(weights), values.shape[1])
    for t, s in itertools.product(range(len(weights)), range(len(values))):
        out[t] += weights[t, s] * values[s]
    return out


def softmax_row_by_row(scores):
    out = torch.zeros_like(scores)
    for t, row in enumerate(scores):
        e = torch.stack([(score - max(row)).exp() for score in row])
        out[t] = e / sum(e)
    return out


def softmax_in_powers_of_two(scores):
    powers = torch.exp2((scores - scores.max(dim=1, keepdim=True).values) * math.log2(math.e))
    return torch.nn.functional.normalize(powers, p=1, dim=1)


def sdpa_by_loops(q, k, v):
    out = torch.zeros_like(q)
    for b, h, t in itertools.product(*map(range, q.shape[:3])):
        scores = torch.stack([q[b, h, t] @ key for key in k[b, h]])
        e = ((scores - scores.max()) / q.shape[-1] ** 0.5).exp()
        out[b, h, t] = (e[:, None] * v[b, h]).sum(0) / e.sum()
    return out


def sdpa_by_einsum(q, k, v):
    weights = torch.softmax(torch.einsum("bhtd,bhsd->bhts", q, k) / q.size(3) ** 0.5, dim=3)
    return torch.einsum("bhts,bhsd->bhtd", weights, v)


class SdpaModule(nn.Module):
    def forward(self, q, k, v):
        return attention(q, k, v)[0]


def masked_by_renormalising(q, k, v, mask):
    e = (q @ k.mT * q.shape[-1] ** -0.5).exp() * mask
    return e @ v / e.sum(-1, keepdim=True).clamp_min(1e-30)


def masked_row_by_row(q, k, v, mask):
    mask = mask.expand(*q.shape[:3], k.shape[2])
    out = torch.zeros_like(q)
    for b, h, t in itertools.product(*map(range, q.shape[:3])):
        seen = mask[b, h, t].nonzero().squeeze(1)
        if len(seen):
            weights = (k[b, h, seen] @ q[b, h, t] / q.shape[-1] ** 0.5).softmax(0)
            out[b, h, t] = weights @ v[b, h, seen]
    return out


def masked_nan_to_num(q, k, v, mask):
    scores = torch.where(mask, q @ k.mT / q.shape[-1] ** 0.5, -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def split_by_view(x, n_heads):
    B, T, D = x.shape
    return x.view(B, T, n_heads, D // n_heads).permute(0, 2, 1, 3).contiguous()


def split_by_loop(x, n_heads):
    width = x.shape[2] // n_heads
    return torch.stack([x[:, :, h * width : (h + 1) * width] for h in range(n_heads)], dim=1)


def repaired_with_the_library(x, w_q, w_k, w_v, w_o, n_heads):
    q, k, v = (split_by_view(x @ w, n_heads) for w in (w_q, w_k, w_v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ w_o


def repaired_head_by_head(x, w_q, w_k, w_v, w_o, n_heads):
    width, heads = x.shape[-1] // n_heads, []
    for start in range(0, x.shape[-1], width):
        q, k, v = (x @ w[:, start : start + width] for w in (w_q, w_k, w_v))
        heads.append((q @ k.mT / width**0.5).softmax(-1) @ v)
    return torch.cat(heads, dim=-1) @ w_o


def repaired_in_place(x, w_q, w_k, w_v, w_o, n_heads):
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    q, k, v = (t.unflatten(-1, (n_heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, H, T, Dh)
    scores = q @ k.transpose(-2, -1) / (x.shape[-1] / n_heads) ** 0.5
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2) @ w_o


class Projections(nn.Module):
    """The layers of `CausalAttention`, made in another order."""

    def __init__(self, width):
        super().__init__()
        self.v_proj, self.k_proj, self.q_proj = (nn.Linear(width, width) for _ in range(3))


class CausalByLoops(Projections):
    def forward(self, x):
        rows = []
        for t in range(x.shape[1]):
            query, past = self.q_proj(x[:, t : t + 1]), x[:, : t + 1]
            weights = (query @ self.k_proj(past).mT / x.shape[-1] ** 0.5).softmax(-1)
            rows.append(weights @ self.v_proj(past))
        return torch.cat(rows, dim=1)


class CausalByComparison(Projections):
    def forward(self, x):
        place = torch.arange(x.shape[1])
        scores = torch.einsum("btd,bsd->bts", self.q_proj(x), self.k_proj(x)) / x.shape[2] ** 0.5
        return torch.where(place[:, None] >= place, scores, -torch.inf).softmax(-1) @ self.v_proj(x)


class CausalByTheLibrary(Projections):
    def forward(self, x):
        return F.scaled_dot_product_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), is_causal=True)


class Layers(nn.Module):
    """The four layers, made in another way and in another order."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for name in ("out_proj", "v_proj", "k_proj", "q_proj"):
            self.add_module(name, nn.Linear(width, width))


class LayerByTheLibrary(Layers):
    def forward(self, x, context, mask):
        q, k, v = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        q, k, v = (split_by_view(t, self.heads) for t in (q, k, v))
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(heads.transpose(1, 2).reshape(x.shape))


class LayerHeadByHead(Layers):
    def forward(self, asks, answers, seen):
        pieces = [self.q_proj(asks), self.k_proj(answers), self.v_proj(answers)]
        heads = []
        for q, k, v in zip(*(t.chunk(self.heads, dim=-1) for t in pieces), strict=True):
            scores = torch.where(seen[:, 0], q @ k.mT / q.shape[-1] ** 0.5, -torch.inf)
            heads.append(scores.softmax(-1) @ v)
        return self.out_proj(torch.cat(heads, dim=-1))


class LayerByTheChapter(Layers):
    def forward(self, x, context, mask):
        q, k, v = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        heads, _ = attention(*(split_by_view(t, self.heads) for t in (q, k, v)), mask)
        return self.out_proj(heads.transpose(1, 2).flatten(2))


RIGHT = {
    "weighted_average": [
        average_by_loops,
        average_into_zeros,
        lambda w, v: torch.einsum("ts,sd->td", w, v),
        lambda w, v: (w[:, :, None] * v).sum(1),
        torch.mm,
        torch.no_grad()(lambda w, v: w @ v),
    ],
    "stable_softmax": [
        softmax_row_by_row,
        softmax_in_powers_of_two,
        lambda scores: (scores - scores.logsumexp(1, keepdim=True)).exp(),
    ],
    "scaled_dot_product": [sdpa_by_loops, sdpa_by_einsum, SdpaModule(), SdpaModule().double()],
    "masked_attention": [
        masked_by_renormalising,
        masked_row_by_row,
        masked_nan_to_num,
        lambda q, k, v, mask: attention(q, k, v, mask)[0],
    ],
    "into_heads": [split_by_view, split_by_loop],
    "CausalAttention": [CausalByLoops, CausalByComparison, CausalByTheLibrary],
    "find_the_fault": [repaired_in_place, repaired_with_the_library, repaired_head_by_head],
    "MultiHead": [LayerByTheLibrary, LayerHeadByHead, LayerByTheChapter],
}

SAME_WIDTH = "queries, keys and values are equally wide"
TWO_AXES = "of two axes, 1 is the last"
TRIANGLE = "may_attend = torch.ones(T, T, dtype=torch.bool, device=x.device)"
NO_GRADIENT = "a mask has no gradient"
CANCELS = "above and below the line it cancels"

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {
    "stable_softmax": {
        "exponentials = -shifted.exp()": CANCELS,
        "exponentials = 2 * shifted.exp()": CANCELS,
        "shifted = scores - scores.amax(dim=-1, keepdim=True).detach()": "the shift changes no weight, so no "
        "gradient flows through it either",
        "shifted = scores - scores.amax(dim=1, keepdim=True)": TWO_AXES,
        "return exponentials / exponentials.sum(dim=1, keepdim=True)": TWO_AXES,
    },
    "scaled_dot_product": {
        "scores = scores / k.shape[-1] ** 0.5": SAME_WIDTH,
        "scores = scores / v.shape[-1] ** 0.5": SAME_WIDTH,
    },
    **{
        name: {
            "scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5": SAME_WIDTH,
            "scores = q @ k.transpose(-2, -1) / v.shape[-1] ** 0.5": SAME_WIDTH,
        }
        for name in ("masked_attention", "find_the_fault", "MultiHead")
    },
    "CausalAttention": {
        f"{TRIANGLE}.tril().detach()": NO_GRADIENT,
        f"{TRIANGLE}.detach().tril()": NO_GRADIENT,
        **{f"T = {name}.shape[1]": "as many queries, keys and values as tokens" for name in "qkv"},
        "scores = q @ k.transpose(1, -1) / q.shape[-1] ** 0.5": "of three axes, 1 is -2",
        **{
            f"scores = q @ k.transpose(-2, -1) / {name}.shape[-1] ** 0.5": "one head is as wide as the model"
            for name in "kvx"
        },
    },
}


def test_the_chapter_has_twelve_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) >= 12 and set(kinds) == {"implement", "predict", "debug", "measure"}


def test_a_right_answer_in_another_precision_passes_with_a_remark():
    result = ex.weighted_average.check(average_by_loops)
    assert result and "for float64 inputs your answer came as float32" in result.message


@pytest.mark.parametrize("exercise", [ex.scaled_dot_product, ex.masked_attention], ids=lambda e: e.name)
def test_the_reference_agrees_with_the_package(exercise):
    for case in exercise.cases():
        ours, _ = attention(*case.tensors())
        assert np.allclose(ours.double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_the_whole_layer_agrees_with_the_package():
    for case in ex.MultiHead.cases():
        inputs = dict(zip(case.inputs, case.tensors(), strict=True))
        package = MultiHeadAttention(d_model=inputs.pop("d_model"), n_heads=inputs.pop("n_heads"))
        arguments = tuple(inputs.pop(name) for name in ("x", "context", "mask"))
        ours = torch.func.functional_call(package, inputs, arguments)
        assert np.allclose(ours.detach().double().numpy(), case.want, atol=1e-5)


def test_a_slip_that_shows_in_the_gradient_only():
    """Its values are right, so nothing but the gradient tells."""
    exercise, slip = ex.masked_attention, ex._nan_in_the_gradient.__name__
    slip = next(s for s in exercise.slips if s.answer.__name__ == slip)
    case = exercise.cases()[1]
    assert np.allclose(slip.function(*case.tensors()).double().numpy(), case.want)
    gradient = gradients(slip.function, case)
    assert np.isnan(gradient["q"]).any() and slipped_gradients(slip, [case], [gradient])


def softmax_renormalised(q, k, v, mask):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) * mask
    return weights / weights.sum(-1, keepdim=True) @ v


def exp_renormalised(q, k, v, mask):
    e = (q @ k.mT / q.shape[-1] ** 0.5).exp() * mask
    return e @ v / e.sum(-1, keepdim=True)


def only_minus_infinity(q, k, v, mask):
    return torch.where(mask, q @ k.mT / q.shape[-1] ** 0.5, -torch.inf).softmax(-1) @ v


def minus_infinity_added(q, k, v, mask):
    hidden = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    return (q @ k.mT / q.shape[-1] ** 0.5 + hidden).softmax(-1) @ v


def nan_replaced_in_the_output(q, k, v, mask):
    return only_minus_infinity(q, k, v, mask).nan_to_num()


def nan_replaced_by_where(q, k, v, mask):
    out = only_minus_infinity(q, k, v, mask)
    return torch.where(out.isnan(), 0.0, out)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (softmax_renormalised, "its weights sum to 0, and you divide by that sum."),
        (exp_renormalised, "its weights sum to 0, and you divide by that sum."),
        (only_minus_infinity, "its row of scores is all minus infinity"),
        (minus_infinity_added, "its row of scores is all minus infinity"),
        (nan_replaced_in_the_output, "the NaN was replaced only after it had met `v`"),
        (nan_replaced_by_where, "the NaN was replaced only after it had met `v`"),
    ],
)
def test_each_way_to_nan_is_told_apart(answer, says):
    assert says in ex.masked_attention.check(answer).message


def exp_without_softmax(q, k, v):
    e = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).exp()
    return e / e.sum(-1, keepdim=True) @ v


def exp_by_loops(q, k, v):
    out = torch.zeros_like(q)
    for b, h, t in itertools.product(*map(range, q.shape[:3])):
        e = torch.stack([q[b, h, t] @ key for key in k[b, h]]).div(q.shape[-1] ** 0.5).exp()
        out[b, h, t] = (e[:, None] * v[b, h]).sum(0) / e.sum()
    return out


def test_one_float32_input_has_scores_above_100():
    cases = [case for case in ex.scaled_dot_product.cases() if case.dtype == torch.float32]
    scores = [q @ k.mT / q.shape[-1] ** 0.5 for q, k, _ in (case.tensors() for case in cases)]
    assert max(s.max() for s in scores) > 100


@pytest.mark.parametrize("answer", [exp_without_softmax, exp_by_loops])
def test_an_exp_that_overflows_is_told_so(answer):
    assert "exp overflowed: subtract the largest score first" in ex.scaled_dot_product.check(answer).message


def test_a_slip_is_named_although_some_answers_overflow():
    def unscaled_without_softmax(q, k, v):
        e = (q @ k.mT).exp()
        return e / e.sum(-1, keepdim=True) @ v

    message = ex.scaled_dot_product.check(unscaled_without_softmax).message
    assert "You left out the division by sqrt(Dh)" in message


def in_square_brackets(q, k, v, mask):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores[~mask] = -torch.inf
    return scores.softmax(-1) @ v


PRODUCT = "The shapes do not fit. `A @ B` sums over the last axis of A"
ENTRIES = "The shapes do not fit. `{}` works entry by entry"
ROWS = "swap the last two axes of k, `k.transpose(-2, -1)`"


@pytest.mark.parametrize(
    ("exercise", "answer", "says"),
    [
        (ex.weighted_average, lambda weights, values: weights * values, ENTRIES.format("*")),
        (ex.weighted_average, lambda weights, values: weights @ values.T, PRODUCT),
        (ex.weighted_average, lambda weights, values: torch.stack([w @ values.T for w in weights]), PRODUCT),
        (ex.weighted_average, lambda weights, values: torch.stack([w @ values[0] for w in weights]), PRODUCT),
        (ex.scaled_dot_product, lambda q, k, v: (q * k).softmax(-1) @ v, ENTRIES.format("*")),
        (ex.scaled_dot_product, lambda q, k, v: (q @ k.mT).mT @ v, PRODUCT),
        (ex.scaled_dot_product, lambda q, k, v: q + k, ENTRIES.format("+")),
        (ex.scaled_dot_product, lambda q, k, v: (q @ k).softmax(-1) @ v, ROWS),
        (ex.scaled_dot_product, lambda q, k, v: (q @ k.T).softmax(-1) @ v, ROWS),
        (ex.masked_attention, lambda q, k, v, mask: (q @ k).softmax(-1) @ v, ROWS),
        (
            ex.masked_attention,
            in_square_brackets,
            "`masked_fill` stretches it to fit, square brackets do not.",
        ),
    ],
)
def test_an_error_is_explained_before_it_is_quoted(exercise, answer, says):
    message = exercise.check(answer).message
    assert 0 <= message.find(says) < message.find("Your code raised"), message


# --- what learners wrote, and what they should hear ----------------------------------------------------


def stable(line, *, after="return e / e.sum(-1, keepdim=True)"):
    """`stable_softmax` with this line in it."""
    names = {"torch": torch}
    exec(f"def stable_softmax(scores):\n    {line}\n    {after}", names)
    return names["stable_softmax"]


SOFTMAX = {
    "scores = scores - scores.exp().sum(-1, keepdim=True).log(); return scores.exp()": "before you take its "
    "logarithm: shift each row by its maximum first.",
    "e = (scores - scores.max(-1, keepdim=True)[1]).exp()": "You subtracted where the maxima are, not the",
    "e = (scores - scores.argmax(-1, keepdim=True)).exp()": "You subtracted where the maxima are, not the",
    "return scores.exp()": "These are bare exponentials. Two things are missing",
    "e = (scores - 300).exp()": "the first difference is at",  # a constant, but no slip of ours: no guess
    "e = torch.where(scores > 80, scores - scores.amax(-1, keepdim=True), scores).exp()": "An overflow",
    "e = scores.exp() / scores.exp().sum(-1, keepdim=True); return e.nan_to_num()": "You put zeros where NaN",
    "scores -= scores.amax(-1, keepdim=True); e = scores.exp()": "`-=` writes into the tensor that is there. "
    "Write `x = x - ...`, which makes a new one.",
    "scores[0] = 0; e = scores.exp()": "in place. An assignment such as `x[0] = ...` writes into the tensor",
    "scores.exp_(); e = scores": "`exp_` writes into the tensor that is there. `exp`, without the last `_`,",
    "scores.numpy()[:] = 0; e = scores": "in place. Work on a new tensor: operations whose name ends in _",
}


@pytest.mark.parametrize(("line", "says"), SOFTMAX.items())
def test_what_is_said_of_a_softmax(line, says):
    message = ex.stable_softmax.check(stable(line)).message
    assert says in message and message.count("You ") <= 1, message


def test_a_softmax_whose_values_were_written_over_is_told_by_which_operator():
    line = "e = (scores - scores.amax(-1, keepdim=True)).exp(); e /= e.sum(-1, keepdim=True)"
    message = ex.stable_softmax.check(stable(line, after="return e")).message
    assert message.startswith(
        "The values are right, but the gradient needs numbers that your code has written"
    )
    assert "`/=` writes into the tensor that is there. Write `x = x / ...`" in message
    assert "one of the variables" not in message


def spoiled(exercise, **lines):
    """The solution of an exercise with lines of its source replaced: `was=becomes`, in words or in code."""
    text = source(exercise.solve)
    for was, becomes in lines["lines"].items():
        assert text.count(was) == 1, was
        text = text.replace(was, becomes)
    names = {"torch": torch, "nn": nn, "F": F, "attention": attention, **lines.get("names", {})}
    exec(text, names)
    return names[exercise.name]


LEAK = {".tril()": ".tril(diagonal=1)"}
STILL = "The leak is still there: look at who may see whom."
CAUSAL = [
    ({"x.shape[1]": "x.shape[0]"}, "T became the number of sentences, axis 0 of `x`"),
    ({"x.shape[1]": "len(x)", **LEAK}, "T became the number of sentences, axis 0 of `x`"),
    ({"x.shape[1]": "x.shape[2]"}, "T became the width, the last axis of `x`"),
    ({"x.shape[1]": "x.shape[1] - 1"}, "You made T one smaller"),
    ({"x.shape[1]": "x.shape[1] + 1"}, "You made T one larger"),
    ({'float("-inf")': "0.0", **LEAK}, STILL),
    ({'float("-inf")': "-10.0", **LEAK}, STILL),
    ({'float("-inf")': 'float("inf")', **LEAK}, STILL),
    ({"dim=-1": "dim=-2", **LEAK}, STILL),
    ({"dim=-1": "dim=1", **LEAK}, STILL),
    (
        {'scores.masked_fill(~may_attend, float("-inf")).softmax(dim=-1)': "scores.softmax(-1) * may_attend"}
        | LEAK,
        STILL,
    ),
    ({"q @ k.transpose": "k @ q.transpose", **LEAK}, STILL),
    ({"q.shape[-1] ** 0.5": "T ** 0.5", **LEAK}, STILL),
    ({"weights @ v": "weights.transpose(-2, -1) @ v", **LEAK}, STILL),
    ({"k.transpose(-2, -1)": "k.T"}, "`.T` turns all axes round, the first one too; `transpose(-2, -1)`"),
]


@pytest.mark.parametrize(("lines", "says"), CAUSAL)
def test_what_is_said_of_a_repair(lines, says):
    message = ex.CausalAttention.check(spoiled(ex.CausalAttention, lines=lines)).message
    assert says in message and "nothing is hidden at all" not in message, message


MASKED = 'scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)'
CUT = "t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)"
ROOT = "/ q.shape[-1] ** 0.5"
WHOLE = [
    ({MASKED: "(scores + mask).softmax(-1)"}, "You added the mask to the scores"),
    ({MASKED: "(scores * mask).softmax(-1)"}, "Hidden scores became 0."),
    ({MASKED: "scores.masked_fill(~mask, 0).softmax(-1)"}, "Hidden scores became 0."),
    ({MASKED: "scores.masked_fill(~mask, -1).softmax(-1)"}, "Hidden scores became -1."),
    ({MASKED: "scores.softmax(-1) * mask"}, "You masked the weights after the softmax"),
    ({MASKED: "scores.softmax(-1).masked_fill(~mask, 0)"}, "You masked the weights after the softmax"),
    ({"~mask": "~mask[0, 0]"}, "You took `mask[0, 0]`, the mask of the first sentence"),
    ({"dim=-1": "dim=1"}, "Your softmax runs over the heads"),
    ({"dim=-1": "dim=-2"}, "Your softmax runs over the queries"),
    ({".softmax(dim=-1)": ""}, "There is no softmax"),
    ({" ** 0.5": ""}, "You divided by Dh, not by its square root"),
    ({ROOT: "* q.shape[-1] ** 0.5"}, "You multiplied by sqrt(Dh)"),
    ({ROOT: "/ self.n_heads ** 0.5"}, "You divided by the square root of the number of heads"),
    ({ROOT: "/ x.shape[1] ** 0.5"}, "You divided by the square root of the number of tokens"),
    ({"(self.n_heads, -1)": "(-1, self.n_heads)"}, "You cut heads of n_heads features each"),
    ({"(self.n_heads, -1)": "(2, -1)"}, "Right for two heads only."),
    ({"(self.n_heads, -1)": "(8, -1)"}, "`unflatten` keeps every number: the new sizes must multiply up"),
    ({CUT: "t.view(len(t), -1, 5)"}, "`view` keeps every number: the new sizes must multiply up"),
    ({"(self.n_heads, -1)).transpose(1, 2)": "(self.n_heads, -1))"}, "After the cut the heads still stand"),
    ({"(weights @ v).transpose(1, 2)": "(weights @ v).permute(0, 2, 3, 1)"}, "in turns: head and feature"),
    ({"self.k_proj(context)": "self.q_proj(context)"}, "Your keys come from `q_proj`."),
    ({"self.v_proj(context)": "self.v_proj(x)"}, "your values come from `x`, which has T tokens"),
    (
        {"return self.out_proj(heads)": "return self.out_proj(self.out_proj(heads))"},
        "`out_proj` is applied twice",
    ),
    ({"return self.out_proj(heads)": "return x + self.out_proj(heads)"}, "That is a residual connection"),
    (
        {"return self.out_proj(heads)": "return self.out_proj(heads[..., :1])"},
        "A linear layer for rows of 4 numbers got rows of 1",
    ),
    ({"~mask": "~mask[..., :2]"}, "`masked_fill` stretches the mask to the tensor that it fills"),
    ({"(weights @ v)": "(weights @ v.T)"}, "`.T` turns all axes round"),
    (
        {"x, context, mask)": "context, x, mask)"},
        "`forward` is called with (x, context, mask), and yours takes",
    ),
]


@pytest.mark.parametrize(("lines", "says"), WHOLE)
def test_what_is_said_of_a_whole_layer(lines, says):
    message = ex.MultiHead.check(spoiled(ex.MultiHead, lines=lines)).message
    assert says in message, message


def into_heads(x, n_heads): ...


WITH_HELPERS = [
    ("into_heads(t, self.n_heads).contiguous()", "`into_heads` still holds its dots, so it gives `None`."),
    ("into_heads(t, self.n_heads) / 1", "`into_heads` still holds its dots, so it gives `None`."),
    (f"attention(t, t, t) + {CUT}", "`attention` returns two things, the output and the weights"),
]


@pytest.mark.parametrize(("cut", "says"), WITH_HELPERS)
def test_a_helper_that_gives_something_else_is_named(cut, says):
    answer = spoiled(ex.MultiHead, lines={CUT: cut}, names={"into_heads": into_heads})
    message = ex.MultiHead.check(answer).message
    assert message.startswith(says) and "Your code raised" in message, message


def test_hints_of_the_leak_do_not_give_the_repair_away():
    assert not re.search(r"tril\(\)|diagonal=0", " ".join(ex.CausalAttention.hints))


def test_the_statements_say_what_is_off_limits_in_the_whole_layer():
    assert "`MultiHeadAttention`, the package's or PyTorch's, is off limits" in ex.MultiHead.statement
    assert "`F.scaled_dot_product_attention`" in ex.MultiHead.statement


def test_the_leak_s_first_input_has_axes_that_no_slip_of_t_confuses():
    B, T, D = ex.CausalAttention.sizes[0]
    assert len({1, B, D, T - 1, T, T + 1}) == 6


def test_an_error_that_has_nothing_to_do_with_shapes_is_only_quoted():
    assert ex.scaled_dot_product.check(lambda q, k, v: 1 / 0).message.startswith("Your code raised")


def test_a_list_of_rows_is_told_how_to_become_a_tensor():
    say = (
        "Return a tensor; this is a list. `torch.stack(rows)` makes a tensor of a list of equally long rows."
    )
    assert say in ex.weighted_average.check(lambda weights, values: [w @ values for w in weights]).message
    assert "torch.stack" not in ex.weighted_average.check(lambda weights, values: weights.tolist()).message


def test_numbers_that_round_alike_are_shown_with_more_digits():
    message = ex.scaled_dot_product.check(lambda q, k, v: ex.scaled_dot_product.solve(q, k, v) + 1e-5).message
    expected, given = re.search(r"expected (\S+), given (\S+);", message).groups()
    assert expected != given and "they differ by 1.0e-05" in message
    message = ex.scaled_dot_product.check(lambda q, k, v: q).message
    assert "they differ" not in message


def test_a_mask_that_was_not_used_reminds_of_the_assignment():
    def unassigned(q, k, v, mask):
        scores = q @ k.mT / q.shape[-1] ** 0.5
        scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v

    message = ex.masked_attention.check(unassigned).message
    assert "write `scores = scores.masked_fill(...)`" in message


@pytest.mark.parametrize("exercise", [ex.scaled_dot_product, ex.masked_attention], ids=lambda e: e.name)
def test_the_library_s_attention_is_off_limits_and_the_statement_says_so(exercise):
    assert "`F.scaled_dot_product_attention` is off limits" in exercise.statement
    assert "is off limits in this exercise" in exercise.check(F.scaled_dot_product_attention).message


def test_the_first_input_to_be_split_has_axes_of_different_lengths():
    message = ex.into_heads.check(lambda x, n_heads: x).message
    assert "it should be (B, H, T, Dh) = (1, 2, 3, 4)" in message


# --- measurements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared_keys", [False, True])
def test_any_honest_measurement_lands_in_the_range(shared_keys):
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        q = torch.randn(1000, 1, 64, generator=random)
        k = torch.randn(1 if shared_keys else 1000, 32, 64, generator=random)
        scores = (q * k).sum(-1)
        entropies = [torch.distributions.Categorical(logits=s).entropy().mean() for s in (scores, scores / 8)]
        assert ex.head_entropy.check(entropies), entropies
        assert ex.head_entropy.check(tuple(float(x) for x in entropies))


def wrong_measurements():
    random = torch.Generator().manual_seed(3)
    scores = (torch.randn(2000, 1, 64, generator=random) * torch.randn(2000, 32, 64, generator=random)).sum(
        -1
    )
    e = {d: torch.distributions.Categorical(logits=scores / d).entropy() for d in (1.0, 8.0, 64.0)}
    bare, scaled, flat = (x.mean().item() for x in e.values())
    return {
        "other way round": (scaled, bare),
        "bits": (bare / np.log(2), scaled / np.log(2)),
        "base 10": (bare / np.log(10), scaled / np.log(10)),
        "divided by d_k": (bare, flat),
        "minus sign": (-bare, -scaled),
        "mean over the keys": (bare / 32, scaled / 32),
        "You report e to the entropy": tuple(e[d].exp().mean().item() for d in (1.0, 8.0)),
        "entropy of scaled scores": (scaled, scaled),
        "entropy of bare scores": (bare, bare),
        "More than ln 32 = 3.47 is impossible for 32 keys": (1.0, 6.4),
        "does your softmax, or your sum, run over the queries?": (bare * 2000 / 32, scaled * 2000 / 32),
        "Not in the range": (1.0, 2.0),
        "finite number": (float("nan"), scaled),
        "Report 2 numbers": bare,
    }


@pytest.mark.parametrize(("says", "answer"), wrong_measurements().items())
def test_each_wrong_measurement_is_told_why(says, answer):
    result = ex.head_entropy.check(answer)
    assert result.status == "not yet" and says in result.message, result
