"""Parity with PyTorch in float64, properties, one example by hand, low precision, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from tests.conftest import gradients
from transformer_lab.attention import MultiHeadAttention, attention
from transformer_lab.masks import causal_mask, padding_mask
from transformer_lab.positional import rotate


@pytest.fixture(autouse=True)
def float64():  # tight tolerances: a real error cannot hide in round-off
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(d_model=8, n_heads=2, **kw):
    torch.manual_seed(0)
    return MultiHeadAttention(d_model=d_model, n_heads=n_heads, **kw).eval()


def torch_twin(ours):
    """PyTorch's module with a copy of our weights."""
    theirs = nn.MultiheadAttention(ours.d_model, ours.n_heads, batch_first=True).eval()
    with torch.no_grad():
        for name in ("weight", "bias"):
            parts = [getattr(getattr(ours, p), name) for p in ("q_proj", "k_proj", "v_proj")]
            getattr(theirs, f"in_proj_{name}").copy_(torch.cat(parts))
            getattr(theirs.out_proj, name).copy_(getattr(ours.out_proj, name))
    return theirs


def random_qkv(B=2, H=3, T=4, S=5, Dh=6):
    g = torch.Generator().manual_seed(1)
    return tuple(torch.randn(B, H, n, Dh, generator=g, requires_grad=True) for n in (T, S, S))


sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.sampled_from([1, 2, 4]))
few = settings(max_examples=30, deadline=None)


# --- the formula ---------------------------------------------------------------------------------


def test_the_chapter_s_example_by_hand():
    """One query, three keys, d_k = 4: scores 4/2, 0/2, 2/2, exponentials over their sum."""
    q = torch.tensor([[1.0, 1, 1, 1]])
    k = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, 0, 0]])
    v = torch.tensor([[10.0, 0], [0, 10], [5, 5]])
    e = [math.exp(2), 1.0, math.exp(1)]
    by_hand = torch.tensor([[x / sum(e) for x in e]])
    output, weights = attention(q, k, v)
    assert_close(weights, by_hand)
    assert_close(output, torch.tensor([[10 * e[0] + 5 * e[2], 10 * e[1] + 5 * e[2]]]) / sum(e))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_output_and_gradients_equal_pytorch_s(masked, biased):
    (qa, ka, va), (qb, kb, vb) = random_qkv(), random_qkv()
    bias = torch.randn(2, 3, 4, 5) if biased else None
    mask = causal_mask(4, 5) if masked else None
    table = bias if mask is None else mask if bias is None else bias.masked_fill(~mask, -math.inf)
    ours, _ = attention(qa, ka, va, mask, bias=bias)
    theirs = F.scaled_dot_product_attention(qb, kb, vb, table)
    assert_close(ours, theirs)
    up = torch.randn_like(ours)
    ours.backward(up)
    theirs.backward(up)
    for a, b in ((qa, qb), (ka, kb), (va, vb)):
        assert_close(a.grad, b.grad)


def test_the_formula_in_the_parity_table(parity):
    (qa, ka, va), (qb, kb, vb) = random_qkv(), random_qkv()
    mask = causal_mask(4, 5)
    ours, theirs = attention(qa, ka, va, mask)[0], F.scaled_dot_product_attention(qb, kb, vb, mask)
    pairs = {"output": (ours, theirs)}
    names = ("q", "k", "v")
    for name, a, b in zip(names, gradients(ours, qa, ka, va), gradients(theirs, qb, kb, vb), strict=True):
        pairs[f"gradient of {name}"] = (a, b)
    parity("attention.attention", "torch: F.scaled_dot_product_attention", pairs)


def test_gradients_pass_the_numerical_check():
    q, k, v = random_qkv(1, 1, 2, 3, 2)
    mask = causal_mask(2, 3)
    assert torch.autograd.gradcheck(lambda *t: attention(*t, mask), (q, k, v))


@given(sizes, st.randoms())
@few
def test_each_row_of_weights_sums_to_one_or_to_nothing(s, random):
    B, T, S, H = s
    q, k, v = random_qkv(B, H, T, S)
    mask = torch.tensor([[random.random() < 0.5 for _ in range(S)] for _ in range(T)])
    output, weights = attention(q, k, v, mask)
    assert_close(weights.sum(-1), mask.any(-1).double().expand(B, H, T))
    assert (weights[:, :, ~mask] == 0).all()
    for d in range(6):  # a weighted average lies between the smallest and the largest value
        low, high = v[..., d].amin(-1, True), v[..., d].amax(-1, True)
        inside = (output[..., d] >= low - 1e-12) & (output[..., d] <= high + 1e-12)
        assert (inside | ~mask.any(-1)).all()


def test_a_query_that_sees_no_key_gets_zero_and_a_finite_gradient():
    q, k, v = random_qkv(1, 1, 2, 2)
    mask = torch.tensor([[True, True], [False, False]])
    output, weights = attention(q, k, v, mask)
    assert_close(weights[0, 0, 1], torch.zeros(2))
    assert_close(output[0, 0, 1], torch.zeros(6))
    output.sum().backward()
    assert q.grad.isfinite().all() and k.grad.isfinite().all()


def test_scores_that_would_overflow_stay_finite():
    q = torch.full((1, 2), 1e200)
    output, weights = attention(q, torch.stack([q[0] * 1e-100, -q[0] * 1e-100]), torch.eye(2))
    assert_close(weights, torch.tensor([[1.0, 0.0]]))
    assert output.isfinite().all()


def test_values_may_be_wider_than_keys():
    q, k, _ = random_qkv()
    assert attention(q, k, torch.ones(2, 3, 5, 9))[0].shape == (2, 3, 4, 9)


# --- the module ----------------------------------------------------------------------------------


@given(sizes)
@few
def test_the_module_equals_pytorch_s_in_output_weights_and_every_gradient(s):
    B, T, S, H = s
    ours = build(n_heads=H)
    theirs = torch_twin(ours)
    x, context = torch.randn(B, T, 8), torch.randn(B, S, 8)
    xa, xb, ca, cb = (t.clone().requires_grad_() for t in (x, x, context, context))
    ya = ours(xa, ca)
    yb, wb = theirs(xb, cb, cb, average_attn_weights=False)
    assert_close(ya, yb)
    assert_close(ours.weights(xa, ca), wb)
    up = torch.randn_like(ya)
    ya.backward(up)
    yb.backward(up)
    assert_close(xa.grad, xb.grad)
    assert_close(ca.grad, cb.grad)
    for name in ("weight", "bias"):
        parts = [getattr(getattr(ours, p), name).grad for p in ("q_proj", "k_proj", "v_proj")]
        assert_close(torch.cat(parts), getattr(theirs, f"in_proj_{name}").grad)
        assert_close(getattr(ours.out_proj, name).grad, getattr(theirs.out_proj, name).grad)


def test_the_module_in_the_parity_table(parity):
    ours, keep = build(), causal_mask(5)
    theirs = torch_twin(ours)
    xa, xb = (torch.ones(2, 5, 8).cumsum(1).sin().mul(torch.arange(8)).requires_grad_() for _ in range(2))
    ya = ours(xa, xa, keep)
    yb, weights = theirs(xb, xb, xb, attn_mask=~keep[0, 0], average_attn_weights=False)
    (ga, *wa), (gb, wb) = (
        gradients(ya, xa, ours.q_proj.weight, ours.k_proj.weight, ours.v_proj.weight),
        gradients(yb, xb, theirs.in_proj_weight),
    )
    pairs = {
        "output": (ya, yb),
        "weights": (ours.weights(xa, xa, keep), weights),
        "gradient of x": (ga, gb),
        "gradient of the projections": (torch.cat(wa), wb),
    }
    parity("attention.MultiHeadAttention", "torch: nn.MultiheadAttention", pairs)


def test_the_module_equals_pytorch_s_under_a_mask_of_the_opposite_polarity():
    ours, x, keep = build(), torch.randn(2, 5, 8), causal_mask(5)
    y, w = torch_twin(ours)(x, x, x, attn_mask=~keep[0, 0], average_attn_weights=False)
    assert_close(ours(x, x, keep), y)
    assert_close(ours.weights(x, x, keep), w)


def test_forward_and_weights_tell_the_same_story_with_mask_and_bias():
    attn, x = build(), torch.randn(2, 5, 8)
    mask, bias = causal_mask(5), torch.randn(2, 5, 5)
    w = attn.weights(x, x, mask, bias=bias)
    v = attn.v_proj(x).unflatten(-1, (2, -1)).transpose(1, 2)
    assert_close(attn(x, x, mask, bias=bias), attn.out_proj((w @ v).transpose(1, 2).flatten(2)))
    assert not torch.allclose(w, attn.weights(x, x, mask))
    assert not torch.allclose(w, attn.weights(x, x, bias=bias))


def test_a_query_that_sees_no_key_gets_the_output_bias_alone():
    attn, x = build(), torch.randn(1, 2, 8, requires_grad=True)
    for bias in (None, torch.zeros(2, 2)):
        y = attn(x, x, torch.tensor([[True, True], [False, False]]), bias=bias)
        assert_close(y[0, 1], attn.out_proj.bias)
        y.sum().backward()
        assert x.grad.isfinite().all()


@given(st.integers(1, 6), st.data())
@few
def test_causal_output_ignores_the_future(T, data):
    t = data.draw(st.integers(0, T - 1))
    attn, x = build(), torch.randn(1, T, 8)
    changed = x.clone()
    changed[:, t + 1 :] += 10 * torch.randn(1, T - t - 1, 8)
    mask, seen = causal_mask(T), slice(t + 1)
    assert_close(attn(x, x, mask)[:, seen], attn(changed, changed, mask)[:, seen])


def test_padding_is_inert():
    attn, tokens = build(), torch.tensor([[5, 6, 7, 0], [5, 0, 0, 0]])
    x = torch.randn(2, 4, 8)
    changed = torch.where((tokens == 0)[..., None], 9.0, x)
    mask = padding_mask(tokens, pad_id=0)
    assert_close(attn(x, x, mask)[0, :3], attn(changed, changed, mask)[0, :3])
    assert_close(attn(x, x, mask)[1, :1], attn(changed, changed, mask)[1, :1])


@given(st.permutations(range(6)))
@few
def test_permuting_tokens_permutes_outputs_and_permuting_the_context_changes_nothing(order):
    attn, x, context = build(), torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    assert_close(attn(x[:, order], x[:, order]), attn(x, x)[:, order])
    assert_close(attn(x, context[:, order]), attn(x, context))


def test_dropout_acts_in_training_only():
    attn, x = build(dropout=0.5), torch.randn(1, 6, 8)
    assert_close(attn(x, x), build()(x, x))
    attn.train()
    assert not torch.equal(attn(x, x), attn(x, x))


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_keys_and_values_can_be_kept_and_added_to(cuts):
    """A cache: asked with pieces of the keys joined, the layer gives what it gives at once."""
    attn = build(rotary=rotate)
    n = sum(cuts)
    x, kept, begin = torch.randn(2, n, 8), [], 0
    whole = attn(x, x, causal_mask(n))
    for size in cuts:
        piece = x[:, begin : begin + size]
        kept.append(attn.keys_values(piece, start=begin))
        begin += size
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*kept, strict=True))
        y = attn.attend(piece, keys, values, causal_mask(size, begin))
        assert_close(y, whole[:, begin - size : begin])


def test_rotary_turns_queries_and_keys_by_position_with_the_ends_aligned():
    seen = []

    def rotary(x, positions):
        seen.append(positions.tolist())
        return x * (1 + positions)[:, None]

    plain, turned, x = build(), build(rotary=rotary), torch.randn(1, 4, 8)
    assert not torch.allclose(plain(x, x), turned(x, x))
    seen.clear()
    whole = turned(x, x, causal_mask(4))
    assert_close(turned(x[:, 2:], x, causal_mask(2, 4)), whole[:, 2:])  # as in cached decoding
    assert seen == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [2, 3]]
    turned(x, x[:, :2])
    assert seen[-2:] == [[0, 1], [-2, -1, 0, 1]]


def test_low_precision_error_is_at_most_twice_that_of_plain_pytorch():
    ours, x = build(), torch.randn(2, 16, 8)
    theirs = torch_twin(ours)
    exact = ours(x, x)
    half = x.bfloat16()
    plain = (theirs.bfloat16()(half, half, half)[0].double() - exact).abs().max()
    error = (ours.bfloat16()(half, half).double() - exact).abs().max()
    assert error <= 2 * plain


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, on Python 3.13.0 alone
def test_it_compiles_into_one_graph():
    attn, x = build(), torch.randn(2, 5, 8)
    compiled = torch.compile(attn, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, x, causal_mask(5)), attn(x, x, causal_mask(5)))


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu():
    attn, x, mask = build(), torch.randn(2, 5, 8), causal_mask(5, 5) & torch.rand(2, 1, 5, 5).gt(0.3)
    on_gpu = build().cuda()(x.cuda(), x.cuda(), mask.cuda())
    assert_close(on_gpu.cpu(), attn(x, x, mask))


# --- bad input -----------------------------------------------------------------------------------


def zeros(*shape):
    return torch.zeros(shape)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: attention(zeros(2, 3), zeros(3), zeros(2, 3)), ValueError, r"k must be .* got \(3,\)"),
        (lambda: attention(zeros(2, 3), zeros(2, 4), zeros(2, 4)), ValueError, "equally wide, got 3 and 4"),
        (lambda: attention(zeros(2, 3), zeros(5, 3), zeros(4, 3)), ValueError, "got 5 keys and 4 values"),
        (
            lambda: attention(zeros(2, 2, 3), zeros(3, 2, 3), zeros(3, 2, 3)),
            ValueError,
            r"agree in the axes before the last two, got \(2, 2, 3\), \(3, 2, 3\)",
        ),
        (
            lambda: attention(zeros(2, 3), zeros(5, 3), zeros(5, 3), zeros(2, 5)),
            TypeError,
            r"mask must be bool, True = may attend; got torch.float",
        ),
        (
            lambda: attention(zeros(2, 3), zeros(5, 3), zeros(5, 3), zeros(5, 2).bool()),
            ValueError,
            r"mask must broadcast to the scores \(2, 5\), got \(5, 2\)",
        ),
        (
            lambda: attention(zeros(2, 3), zeros(5, 3), zeros(5, 3), bias=zeros(2, 5).bool()),
            TypeError,
            "bias must be floating-point, it is added to the scores; got torch.bool",
        ),
        (
            lambda: attention(zeros(2, 3), zeros(5, 3), zeros(5, 3), bias=zeros(1, 1, 4)),
            ValueError,
            r"bias must broadcast to the scores \(2, 5\), got \(1, 1, 4\)",
        ),
        (
            lambda: attention(zeros(2, 3), zeros(5, 3), zeros(5, 3), zeros(1, 2, 5).bool()),
            ValueError,
            r"mask must broadcast to the scores \(2, 5\), got \(1, 2, 5\)",
        ),
        (lambda: build(d_model=10, n_heads=3), ValueError, "multiple of n_heads, got 10 and 3"),
        (lambda: build(n_heads=0), ValueError, "got 8 and 0"),
        (lambda: build(d_model=0), ValueError, "got 0 and 2"),
        (lambda: build(dropout=1.5), ValueError, "probability below 1, got 1.5"),
        (
            lambda: build()(zeros(1, 2, 7), zeros(1, 2, 8)),
            ValueError,
            r"x must be \(batch, tokens, d_model=8\), got \(1, 2, 7\)",
        ),
        (lambda: build()(zeros(1, 2, 8), zeros(2, 8)), ValueError, r"context must be .* got \(2, 8\)"),
        (lambda: build()(zeros(2, 2, 8), zeros(3, 2, 8)), ValueError, "equally many sequences, got 2 and 3"),
        (
            lambda: build()(zeros(1, 2, 8), zeros(1, 2, 8), torch.ones(1, 1, 2, 2)),
            TypeError,
            "True = may attend",
        ),
        (
            lambda: build()(zeros(1, 2, 8), zeros(1, 3, 8), causal_mask(3)),
            ValueError,
            r"mask must broadcast to the scores \(1, 2, 2, 3\), got \(1, 1, 3, 3\)",
        ),
        (
            lambda: build()(zeros(1, 2, 8), zeros(1, 2, 8), bias=zeros(3, 2, 2)),
            ValueError,
            r"bias must broadcast to the scores \(1, 2, 2, 2\), got \(3, 2, 2\)",
        ),
    ],
)
def test_bad_input_says_what_was_wrong(call, error, match):
    with pytest.raises(error, match=match):
        call()
