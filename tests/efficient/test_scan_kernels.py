"""The kernel computes what the loop computes; without a GPU, by Triton's interpreter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.efficient import with_gradients
from tests.strict import require
from transformer_lab import device
from transformer_lab.efficient import selective_scan

try:
    from transformer_lab.efficient import scan_kernels
except ModuleNotFoundError as missing:
    require(False, str(missing))

pytestmark = pytest.mark.compiled


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    decay, new = (torch.randn(shape, generator=generator) for _ in range(2))
    return decay.sigmoid().to(device()), new.to(device())


def small_blocks(decay, new):
    """The interpreter takes its time for each number."""
    return scan_kernels.scan(decay, new, block_t=4, block_c=2)


def assert_the_loop(decay, new, atol=1e-5):
    found = with_gradients(small_blocks, decay, new)
    wanted = with_gradients(selective_scan.scan, decay.double(), new.double())
    for name, a, b in zip(("states", "decay", "new"), found, wanted, strict=True):
        assert_close(a.double(), b, rtol=1e-5, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@settings(max_examples=15, deadline=None)
@given(T=st.integers(1, 13), C=st.integers(1, 5), seed=st.integers(0, 99))
def test_values_and_gradients_are_the_loop_s(T, C, seed):
    assert_the_loop(*draw(2, T, C, seed=seed))


def test_the_blocks_change_nothing():
    decay, new = draw(2, 9, 5)
    assert_close(scan_kernels.scan(decay, new, block_t=8, block_c=4), small_blocks(decay, new))


@pytest.mark.parametrize("rest", [(), (2, 3)], ids=str)
def test_any_axes_may_follow_the_tokens(rest):
    assert_the_loop(*draw(2, 9, *rest))


def test_decays_of_0_and_1_and_large_news():
    decay, new = draw(1, 20, 3)
    decay[:, ::7], decay[:, 1::7] = 0.0, 1.0
    assert_the_loop(decay, 1e4 * new, atol=0.5)


def test_other_layouts_of_memory_are_read_aright():
    decay, new = (t.mT.contiguous().mT for t in draw(2, 9, 5))
    assert_the_loop(decay, new)


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)], ids=str
)
def test_in_low_precision_it_is_at_most_twice_as_far_from_the_truth_as_the_loop(dtype):
    tensors = [t.to(dtype) for t in draw(1, 64, 3)]
    truth = with_gradients(selective_scan.scan, *(t.double() for t in tensors))
    loop = with_gradients(selective_scan.scan, *tensors)
    ours = with_gradients(small_blocks, *tensors)
    for name, exact, a, b in zip(("states", "decay", "new"), truth, ours, loop, strict=True):
        mine, its = ((x.double() - exact).abs().max() for x in (a, b))
        assert mine <= 2 * its, f"{name}: {mine:.1e} against {its:.1e}"


def test_a_gradient_of_a_gradient_is_refused_and_not_wrong():
    decay, new = (t.requires_grad_() for t in draw(1, 3, 2))
    (grad,) = torch.autograd.grad(small_blocks(decay, new).square().sum(), new, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.bad_input
@pytest.mark.parametrize("scan", [scan_kernels.scan, selective_scan.scan, selective_scan.parallel_scan])
def test_shapes_that_differ_are_told(scan):
    with pytest.raises(ValueError, match=r"must have one shape.*got \(1, 2, 3\) and \(1, 2, 4\)"):
        scan(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"with tokens, got \(1, 0\) and \(1, 0\)"):
        scan(torch.zeros(1, 0), torch.zeros(1, 0))


@pytest.mark.bad_input
@pytest.mark.parametrize("blocks", [{"block_t": 3}, {"block_c": 0}], ids=str)
def test_blocks_of_another_size_are_told(blocks):
    with pytest.raises(ValueError, match=r"block_. must be a power of 2, got [30]"):
        scan_kernels.scan(torch.zeros(1, 2), torch.zeros(1, 2), **blocks)


@pytest.mark.bad_input
def test_numbers_of_another_type_are_told():
    with pytest.raises(TypeError, match=r"float16 or bfloat16, got torch\.float32 and torch\.float64"):
        scan_kernels.scan(torch.zeros(1, 2), torch.zeros(1, 2).double())
