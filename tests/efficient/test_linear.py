"""Linear attention: its definition, at once, in chunks and step by step; and that it grows no faster."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from tests.efficient import with_gradients
from transformer_lab.attention import attention
from transformer_lab.efficient.linear import LinearState, elu_feature, linear_attention
from transformer_lab.masks import causal_mask


def draw(T, S=None, *, B=2, H=3, Dh=4, Dv=5, seed=0, dtype=torch.float64):
    S = T if S is None else S
    generator = torch.Generator().manual_seed(seed)
    sizes = ((T, Dh), (S, Dh), (S, Dv))
    return [torch.randn(B, H, *size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def definition(q, k, v, seen=None, feature=lambda x: F.elu(x) + 1):
    """Equation (3) of Katharopoulos et al. (2020), with the whole table of similarities."""
    table = feature(q) @ feature(k).mT
    if seen is not None:
        table = table.masked_fill(~seen, 0.0)
    divisor = table.sum(dim=-1, keepdim=True)
    return table / divisor.masked_fill(divisor == 0, 1.0) @ v


def chance(S, seed, share=0.6):
    return torch.rand(2, 1, 1, S, generator=torch.Generator().manual_seed(seed)) < share


FEATURES = {"elu": elu_feature, "wider": lambda x: torch.cat([x.square(), x.exp()], dim=-1)}


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(1, 13),
    chunk=st.integers(1, 15),
    padded=st.booleans(),
    feature=st.sampled_from(list(FEATURES)),
    seed=st.integers(0, 99),
)
def test_chunks_are_the_definition_in_values_and_gradients(T, chunk, padded, feature, seed):
    """Whatever the chunks; queries that see padding only get 0."""
    q, k, v = draw(T, seed=seed)
    padding = chance(T, seed) if padded else None
    seen = causal_mask(T) if padding is None else padding & causal_mask(T)
    about = {"chunk": chunk, "feature": FEATURES[feature]}
    found = with_gradients(lambda *qkv: linear_attention(*qkv, padding, **about), q, k, v)
    wanted = with_gradients(lambda *qkv: definition(*qkv, seen, FEATURES[feature]), q, k, v)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(T=st.integers(1, 7), S=st.integers(1, 9), padded=st.booleans(), seed=st.integers(0, 99))
def test_without_a_direction_all_keys_count(T, S, padded, seed):
    q, k, v = draw(T, S, seed=seed)
    padding = chance(S, seed) if padded else None
    found = with_gradients(lambda *qkv: linear_attention(*qkv, padding, causal=False), q, k, v)
    wanted = with_gradients(lambda *qkv: definition(*qkv, padding), q, k, v)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_a_prompt_and_then_steps_are_all_at_once_in_values_and_gradients(parts, seed):
    def stepwise(q, k, v):
        state = LinearState(2, 3, 4, d_value=5, dtype=torch.float64)
        pieces = zip(*(t.split(parts, dim=2) for t in (q, k, v)), strict=True)
        return torch.cat([state.step(*piece) for piece in pieces], dim=2)

    tensors = draw(sum(parts), seed=seed)
    found, wanted = with_gradients(stepwise, *tensors), with_gradients(linear_attention, *tensors)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_the_state_does_not_grow_and_counts_its_bytes():
    state = LinearState(2, 3, 4, d_value=5)
    assert state.nbytes == 2 * 3 * 4 * (5 + 1) * 4
    for _ in range(3):
        state.step(*draw(9))
        assert state.sums.shape == (2, 3, 4, 6) and state.sums.dtype == torch.float32
    assert LinearState(2, 3, 4).nbytes == 2 * 3 * 4 * (4 + 1) * 4
    assert LinearState(2, 3, 4, dtype=torch.float64).nbytes == 2 * 3 * 4 * (4 + 1) * 8


def test_a_state_takes_another_feature_and_its_width():
    q, k, v = draw(6)
    state = LinearState(2, 3, 8, d_value=5, feature=FEATURES["wider"], dtype=torch.float64)
    assert_close(state.step(q, k, v), definition(q, k, v, causal_mask(6), FEATURES["wider"]))


def test_an_example_by_hand():
    """The query's feature is 1, those of the keys are 1, e⁻¹ and 3: weights, once divided by their sum."""
    q, k = torch.zeros(1, 1, 3, 1), torch.tensor([0.0, -1.0, 2.0]).view(1, 1, 3, 1)
    v = torch.tensor([6.0, 2.0, 4.0]).view(1, 1, 3, 1)
    e = 0.36787944
    wanted = [6.0, (6 + 2 * e) / (1 + e), (6 + 2 * e + 12) / (4 + e)]
    assert_close(linear_attention(q, k, v, chunk=2).flatten(), torch.tensor(wanted))


def test_it_is_not_softmax_attention():
    """Not even near: with long queries softmax looks at one key, a mean of products cannot."""
    q, k, v = draw(16, Dh=8)
    for scale in (1.0, 4.0):
        ours, softmax = linear_attention(scale * q, k, v), attention(scale * q, k, v, causal_mask(16))[0]
        assert (ours - softmax).abs().max() > 0.3


def test_the_feature_is_elu_and_one_and_stays_above_zero():
    x = torch.linspace(-15, 15, 301, dtype=torch.float64)
    found, wanted = with_gradients(elu_feature, x), with_gradients(lambda x: F.elu(x) + 1, x)
    assert_close(found, wanted, rtol=1e-8, atol=1e-15)
    far = torch.tensor([-30.0], requires_grad=True)
    assert elu_feature(far) == far.exp() and F.elu(far) + 1 == 0
    (gradient,) = torch.autograd.grad(elu_feature(torch.cat([far, far + 500])).sum(), far)
    assert_close(gradient, far.exp() + 1)


def test_no_token_sees_a_later_one():
    q, k, v = draw(11)
    later = [t.clone() for t in (q, k, v)]
    for t in later:
        t[:, :, 6:] += 1
    ours, changed = linear_attention(q, k, v, chunk=4), linear_attention(*later, chunk=4)
    assert torch.equal(ours[:, :, :6], changed[:, :, :6])
    assert (ours[:, :, 6:] - changed[:, :, 6:]).abs().amin(dim=-1).max() > 1e-3


@pytest.mark.parametrize("causal", [True, False])
def test_work_and_memory_grow_with_the_length_and_not_with_its_square(causal):
    def cost(n):
        kept = []
        tensors = [t.requires_grad_() for t in draw(n, B=1, H=1)]
        keep = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t)
        with FlopCounterMode(display=False) as counter, keep:
            linear_attention(*tensors, causal=causal, chunk=16)
        return counter.get_total_flops(), sum(kept)

    flops, kept = zip(cost(128), cost(256), cost(512), strict=True)
    assert flops[1] == 2 * flops[0] and flops[2] == 4 * flops[0]
    assert kept[2] - kept[1] == 2 * (kept[1] - kept[0])


@pytest.mark.parametrize("causal", [True, False])
def test_low_precision_is_no_worse_than_twice_the_definition_s(causal):
    q, k, v = draw(200, dtype=torch.bfloat16)
    seen = causal_mask(200) if causal else None
    exact = definition(q.double(), k.double(), v.double(), seen)
    ours = linear_attention(q, k, v, causal=causal)
    plain = definition(q, k, v, seen)
    assert ours.dtype == torch.bfloat16
    assert (ours.double() - exact).abs().max() <= 2 * (plain.double() - exact).abs().max()


def test_sums_of_half_precision_are_taken_in_float32():
    tensors = draw(90, dtype=torch.bfloat16)
    wide = [t.float() for t in tensors]
    assert torch.equal(linear_attention(*tensors), linear_attention(*wide).bfloat16())
    state = LinearState(2, 3, 4, d_value=5)
    state.step(*tensors)
    assert_close(state.sums[..., -1], elu_feature(wide[1]).sum(dim=2))


def test_what_is_small_everywhere_is_divided_by_its_own_sum():
    q, k, v = draw(6)
    far = q - 12, k - 12, v
    assert_close(linear_attention(*far), definition(*far, causal_mask(6), elu_feature))


def test_a_lone_token_costs_no_chunk():
    state, token = LinearState(1, 1, 4, d_value=5), draw(1, B=1, H=1, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        state.step(*token)
    assert counter.get_total_flops() == 2 * (4 * 6 + 4 * 6 + 4 + 6)  # written, read, and seen by itself


def test_no_token_is_no_error():
    assert linear_attention(*draw(0)).shape == (2, 3, 0, 5)
    assert (linear_attention(*draw(2, 0), causal=False) == 0).all()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"q": torch.zeros(1, 2, 4)}, ValueError, r"q must be \(B, H, tokens, width\), got \(1, 2, 4\)"),
        ({"v": torch.zeros(1, 2, 4)}, ValueError, r"v must be \(B, H, tokens, width\), got \(1, 2, 4\)"),
        ({"k": torch.zeros(1, 1, 2, 3)}, ValueError, r"must agree in .* \(1, 1, 2, 3\) and \(1, 1, 2, 4\)"),
        ({"v": torch.zeros(1, 1, 3, 4)}, ValueError, r"must agree in .* \(1, 1, 2, 4\) and \(1, 1, 3, 4\)"),
        ({"q": torch.zeros(2, 1, 2, 4)}, ValueError, r"must agree in B and H, .* got \(2, 1, 2, 4\)"),
        ({"q": torch.zeros(1, 1, 3, 4)}, ValueError, "got 3 queries and 2 keys; .* use LinearState"),
        ({"chunk": 0}, ValueError, "chunk must be 1 or more, got 0"),
        (
            {"padding": torch.ones(1, 1, 1, 2)},
            TypeError,
            "padding must be bool, True = real; got torch.float32",
        ),
        (
            {"padding": torch.ones(1, 2, dtype=torch.bool)},
            ValueError,
            r"padding must be \(B, 1, 1, S\) = \(1, 1, 1, 2\), got \(1, 2\)",
        ),
    ],
)
def test_bad_input_says_what_was_wrong(change, error, match):
    good = dict.fromkeys("qkv", torch.zeros(1, 1, 2, 4))
    with pytest.raises(error, match=match):
        linear_attention(**good | change)


@pytest.mark.bad_input
def test_a_state_of_other_sizes_is_told():
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match=r"need a state of \(1, 1, 4, 5\), this one is \(1, 1, 3, 4\)"):
        LinearState(1, 1, 3).step(x, x, x)
    with pytest.raises(ValueError, match="got 1 queries and 2 keys"):
        LinearState(1, 1, 4).step(x[:, :, :1], x, x)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["n_batch", "n_heads", "d_head", "d_value"])
def test_a_size_below_one_is_told(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        LinearState(**{"n_batch": 1, "n_heads": 1, "d_head": 1, name: 0})
