"""Attention by tiles: the formula, whatever the tiles, in values and gradients; and what it keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.efficient import with_gradients
from transformer_lab.attention import attention
from transformer_lab.efficient.flash import flash_attention, tiles_forward, traffic
from transformer_lab.masks import causal_mask


def draw(T, S, *, B=2, H=2, Dh=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((B, H, n, Dh) for n in (T, S, S))
    return [torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def mask(T, S, padding, causal):
    seen = torch.ones(1, 1, T, S, dtype=torch.bool) if padding is None else padding
    return seen & causal_mask(T, S) if causal else seen


@settings(max_examples=40, deadline=None)
@given(
    T=st.integers(1, 9),
    S=st.integers(1, 9),
    block_q=st.integers(1, 10),
    block_k=st.integers(1, 10),
    causal=st.booleans(),
    padded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_formula_in_values_and_gradients(T, S, block_q, block_k, causal, padded, seed):
    """With more queries than keys, causal queries see nothing; so do those whose keys are all padding."""
    q, k, v = draw(T, S, seed=seed)
    padding = torch.rand(2, 1, 1, S, generator=torch.Generator().manual_seed(seed)) < 0.5 if padded else None
    tiles = {"causal": causal, "block_q": block_q, "block_k": block_k}
    found = with_gradients(lambda *qkv: flash_attention(*qkv, padding, **tiles), q, k, v)
    wanted = with_gradients(lambda *qkv: attention(*qkv, mask(T, S, padding, causal))[0], q, k, v)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_scores_overflow_nowhere(size):
    q, k, v = draw(5, 7)
    found = with_gradients(lambda *qkv: flash_attention(*qkv, block_q=2, block_k=2), q * size, k, v)
    wanted = with_gradients(lambda *qkv: attention(*qkv)[0], q * size, k, v)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("block_k", [1, 16])
def test_low_precision_is_no_worse_than_twice_the_formula_s(dtype, block_k):
    """In values and gradients; narrow tiles add up many terms, more than half precision can count."""
    tensors = draw(64, 320, Dh=16, dtype=dtype)
    exact = with_gradients(lambda *qkv: attention(*qkv)[0], *(t.double() for t in tensors))
    ours = with_gradients(lambda *qkv: flash_attention(*qkv, block_q=16, block_k=block_k), *tensors)
    formula = with_gradients(lambda *qkv: attention(*qkv)[0], *tensors)
    for mine, theirs, wanted in zip(ours, formula, exact, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - wanted).abs().max() <= 2 * (theirs.double() - wanted).abs().max()


def test_nothing_is_rounded_to_half_precision_but_the_output():
    tensors = draw(24, 40, Dh=16, dtype=torch.bfloat16)
    wide = flash_attention(*(t.float() for t in tensors), block_q=8, block_k=8)
    assert torch.equal(flash_attention(*tensors, block_q=8, block_k=8), wide.bfloat16())


def test_its_logarithms_are_those_of_the_sums():
    q, k, v = draw(5, 7)
    _, logs = tiles_forward(q, k, v, block_q=2, block_k=3)
    assert_close(logs, (q @ k.mT / 2).logsumexp(dim=-1))


def test_it_keeps_no_table_for_the_way_back():
    """What is saved grows with T, not with T²."""

    def kept(n):
        sizes = []
        tensors = [t.requires_grad_() for t in draw(n, n, B=1, H=1)]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            flash_attention(*tensors, block_q=8, block_k=8)
        return sum(sizes)

    assert kept(64) == 2 * kept(32) == 64 * (4 * 4 + 1)


def test_tiles_of_the_future_are_not_computed(monkeypatch):
    """Half of the work, that is: of 4 by 4 tiles, 10."""
    from transformer_lab.efficient import flash

    exp, calls = flash._exp, []
    monkeypatch.setattr(flash, "_exp", lambda s, m: (calls.append(s.shape), exp(s, m))[1])
    flash_attention(*draw(8, 8), causal=True, block_q=2, block_k=2)
    assert len(calls) == 2 * 10  # the weights of a tile, and by how much what was there shrinks


def test_traffic_counts_what_moves():
    """By hand: 4 tokens of width 1, a fast memory of 8 numbers, so blocks of 2 queries."""
    assert traffic(4, 1, 8) == {"standard": 8 + 16 + 32 + 16 + 8, "flash": 2 * 4 + 2 * 2 * 4}


def test_a_larger_fast_memory_saves_ways():
    ways = [traffic(4096, 64, fast)["flash"] for fast in (25_000, 50_000, 100_000)]
    assert ways[0] / ways[1] == pytest.approx(2, rel=0.05) and ways[1] / ways[2] == pytest.approx(2, rel=0.05)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"q": torch.zeros(1, 2, 4)}, ValueError, r"q must be \(B, H, tokens, Dh\), got \(1, 2, 4\)"),
        ({"k": torch.zeros(1, 1, 2, 3)}, ValueError, "q, k and v must agree in B, H and Dh"),
        ({"q": torch.zeros(1, 1, 2, 3)}, ValueError, r"must agree in .* \(1, 1, 2, 3\), \(1, 1, 2, 4\) and"),
        ({"q": torch.zeros(2, 1, 2, 4)}, ValueError, r"must agree in .* \(2, 1, 2, 4\), \(1, 1, 2, 4\) and"),
        ({"v": torch.zeros(1, 1, 3, 4)}, ValueError, r"must agree in .* \(1, 1, 2, 4\) and \(1, 1, 3, 4\)"),
        (
            {"padding": torch.ones(1, 1, 1, 2)},
            TypeError,
            "padding must be bool, True = real; got torch.float32",
        ),
        (
            {"padding": torch.ones(1, 2, dtype=torch.bool)},
            ValueError,
            r"padding must be \(B, 1, 1, S\) = \(1, 1, 1, 2\)",
        ),
        ({"block_q": 0}, ValueError, "block_q and block_k must be 1 or more, got 0 and 64"),
    ],
)
def test_bad_input_says_what_was_wrong(change, error, match):
    good = dict.fromkeys("qkv", torch.zeros(1, 1, 2, 4))
    with pytest.raises(error, match=match):
        flash_attention(**good | change)


@pytest.mark.bad_input
def test_a_fast_memory_that_holds_nothing_is_told():
    with pytest.raises(ValueError, match="fast at least 4 d_head, got 8, 4 and 15"):
        traffic(8, 4, 15)


def test_autocast_does_not_round_within_the_tiles():
    tensors = draw(20, 20, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = flash_attention(*tensors)
    assert_close(inside, flash_attention(*tensors), rtol=0, atol=0)


def test_a_gradient_of_a_gradient_is_refused_and_not_wrong():
    q, k, v = (t.requires_grad_() for t in draw(4, 4))
    (grad,) = torch.autograd.grad(flash_attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
