"""Scans: the parallel one is the loop; and Mamba's block, equal to Hugging Face's, at once as in steps."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from benchmarks.peer_layers import as_in_mamba_mixer, mamba
from tests.conftest import gradients
from tests.efficient import with_gradients
from transformer_lab.efficient.selective_scan import (
    MambaBlock,
    convolution_kernel,
    parallel_scan,
    scan,
    zero_order_hold,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def block(seed=0, **settings):
    torch.manual_seed(seed)
    return MambaBlock(**{"d_model": 8, "d_state": 4} | settings).double()


@settings(max_examples=40, deadline=None)
@given(T=st.integers(1, 33), seed=st.integers(0, 99))
def test_the_parallel_scan_is_the_loop_in_values_and_gradients(T, seed):
    decay, new = draw(2, T, 3, seed=seed).sigmoid(), draw(2, T, 3, seed=seed + 1)
    found, wanted = (with_gradients(f, decay, new) for f in (parallel_scan, scan))
    assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_parallel_scan_makes_twice_the_loop_s_joins_and_few_steps():
    """Counted by the elements of all products; and by the products that follow each other."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        elements = calls = 0

        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            out = f(*args, **(kwargs or {}))
            if f is torch.ops.aten.mul.Tensor:
                self.elements, self.calls = self.elements + out.numel(), self.calls + 1
            return out

    n = 1024
    with Counting() as counted:
        parallel_scan(torch.ones(1, n), torch.ones(1, n))
    assert counted.elements <= 3 * n  # decay by decay, decay by news, and again on the way back
    assert counted.calls == 3 * 10  # three for each halving of 1024


def test_without_selection_the_recurrence_is_a_convolution():
    E, N, T = 3, 4, 16
    decay, write, read = draw(E, N).sigmoid(), draw(E, N, seed=1), draw(E, N, seed=2)
    x = draw(1, T, E, seed=3)
    states = scan(decay.expand(1, T, E, N), x[..., None] * write)
    by_recurrence = (states * read).sum(dim=-1)
    kernel = convolution_kernel(decay, write, read, T)
    n = 2 * T  # room, so that the end does not come round to the beginning
    spectrum = torch.fft.rfft(x.mT, n) * torch.fft.rfft(kernel, n)
    assert_close(torch.fft.irfft(spectrum, n)[..., :T].mT, by_recurrence, rtol=1e-12, atol=1e-12)


def test_zero_order_hold_is_what_many_small_steps_come_to():
    rate, x, n = torch.tensor([[-2.0]]).double(), 0.7, 100_000
    decay, weight = zero_order_hold(rate, torch.tensor([0.3]).double())
    state = 1.5
    for _ in range(n):
        state += 0.3 / n * (-2.0 * state + x)
    assert (decay * 1.5 + weight * x).item() == pytest.approx(state, abs=1e-5)


def test_the_weight_of_a_short_step_keeps_its_digits():
    """exp(x) - 1 would lose them: just below 1, float32 has multiples of 6e-8 only."""
    step = torch.tensor([1.7e-7])
    assert_close(zero_order_hold(torch.tensor([[-1.0]]), step)[1][0], step, rtol=1e-6, atol=0)


@pytest.mark.parametrize("change", [{}, {"gate": False}, {"selective": False}, {"d_conv": 1}], ids=str)
def test_step_by_step_it_is_what_it_is_at_once(change):
    ours, x = block(**change), draw(2, 9, 8)
    state = ours.start(2)
    sizes = state.recent.shape, state.state.shape
    assert state.recent.dtype == state.state.dtype == x.dtype
    steps = torch.cat([ours.step(x[:, t : t + 1], state) for t in range(9)], dim=1)
    assert_close(steps, ours(x), rtol=1e-12, atol=1e-12)
    assert (state.recent.shape, state.state.shape) == sizes, "what is kept must not grow"


def test_no_token_sees_a_later_one():
    ours, x = block(), draw(1, 7, 8)
    later = x.clone()
    later[:, 4:] += 1
    assert torch.equal(ours(x)[:, :4], ours(later)[:, :4])
    assert not torch.allclose(ours(x)[:, 4], ours(later)[:, 4])


def test_a_step_of_zero_ignores_the_token_and_a_long_one_forgets_the_past():
    ours, x = block(), draw(1, 1, 8)
    for bias, kept in ((-40.0, 1.0), (40.0, 0.0)):
        nn.init.zeros_(ours.step_proj.weight)
        nn.init.constant_(ours.step_proj.bias, bias)
        state = ours.start(1)
        state.state += 1.0
        with torch.no_grad():
            decay, *_ = ours._recurrence(torch.ones(1, 1, 16).double())
            ours.step(x, state)
        assert_close(decay, torch.full_like(decay, kept), rtol=0, atol=1e-12)
        if kept:
            assert_close(state.state, torch.ones_like(state.state), rtol=0, atol=1e-12)


def test_it_equals_hugging_face_s_mamba(parity):
    ours, x = block(), draw(2, 11, 8).requires_grad_()
    theirs = mamba(ours)
    found, wanted = ours(x), theirs(x)
    its = dict(theirs.named_parameters())
    mine = as_in_mamba_mixer(ours.named_parameters())
    grads = zip(
        ("x", *its),
        gradients(found, x, *(mine[name] for name in its)),
        gradients(wanted, x, *its.values()),
        strict=True,
    )
    pairs = {"output": (found, wanted)} | {f"gradient of {name}": (a, b) for name, a, b in grads}
    why = "MambaMixer.slow_forward() makes decay and state in float32"
    parity("efficient.selective_scan.MambaBlock", "transformers: MambaMixer", pairs, within=1e-6, why=why)


def test_a_new_block_has_the_sizes_and_the_decays_of_hugging_face_s():
    """And steps between 0.001 and 0.1, as Mamba's authors begin."""
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    ours = MambaBlock(d_model=40, d_state=5, d_conv=3, expand=3)
    theirs = MambaMixer(MambaConfig(hidden_size=40, state_size=5, conv_kernel=3, expand=3), layer_idx=0)
    mine, its = as_in_mamba_mixer(ours.state_dict().items()), theirs.state_dict()
    assert {name: t.shape for name, t in mine.items()} == {name: t.shape for name, t in its.items()}
    assert_close((mine["A_log"], mine["D"]), (its["A_log"], its["D"]))
    steps = nn.functional.softplus(ours.step_proj.bias)
    assert 0.001 <= steps.min() < 0.002 and 0.05 < steps.max() <= 0.1
    assert 0.007 < steps.log().mean().exp() < 0.014  # the middle is 0.01
    assert ours.step_proj.weight.abs().max() <= 3**-0.5


def test_without_a_gate_there_is_no_projection_for_one():
    assert block(gate=False).in_proj.weight.shape == (16, 8) and block().in_proj.weight.shape == (32, 8)


@pytest.mark.bad_input
@pytest.mark.parametrize("f", [scan, parallel_scan])
@pytest.mark.parametrize(
    ("decay", "new"),
    [((1, 3, 2), (1, 3)), ((1, 3, 2), (1, 3, 1)), ((1, 0), (1, 0)), ((3,), (3,))],
)
def test_a_scan_of_shapes_that_do_not_fit_is_told(f, decay, new):
    got = re.escape(f"must have one shape (B, T, ...) with tokens, got {decay} and {new}")
    with pytest.raises(ValueError, match=got):
        f(torch.ones(decay), torch.ones(new))


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["d_model", "d_state", "d_conv", "expand"])
def test_a_size_below_one_is_told(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        MambaBlock(**{"d_model": 8, name: 0})


@pytest.mark.bad_input
def test_another_width_is_told():
    with pytest.raises(ValueError, match=r"x must be \(B, T, d_model=8\), got \(1, 2, 7\)"):
        block()(draw(1, 2, 7))
    with pytest.raises(ValueError, match=r"x must be \(B, T, d_model=8\), got \(2, 8\)"):
        block()(draw(2, 8))
