"""The kernels compute what the tiles of ``flash`` compute; without a GPU, by Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.efficient import with_gradients
from tests.strict import require

try:
    from transformer_lab.efficient.flash_kernels import flash_attention
except ModuleNotFoundError as missing:
    require(False, str(missing))
from transformer_lab import device
from transformer_lab.attention import attention
from transformer_lab.masks import causal_mask

pytestmark = pytest.mark.compiled


def draw(T, S, *, B=2, H=2, Dh=16, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    lengths = (T, S, S)
    return [(scale * torch.randn(B, H, n, Dh, generator=generator)).to(device()) for n in lengths]


def formula(q, k, v, padding=None, *, causal=False):
    mask = padding
    if causal:
        future = causal_mask(q.shape[2], k.shape[2], device=q.device)
        mask = future if mask is None else mask & future
    return attention(q, k, v, mask)[0]


def assert_the_formula(tensors, padding=None, *, causal=False, rtol=0.0, atol=1e-5, **blocks):
    found = with_gradients(lambda *qkv: flash_attention(*qkv, padding, causal=causal, **blocks), *tensors)
    exact = [t.double() for t in tensors]
    wanted = with_gradients(lambda *qkv: formula(*qkv, padding, causal=causal), *exact)
    for name, a, b in zip(("output", "q", "k", "v"), found, wanted, strict=True):
        assert_close(a.double(), b, rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@settings(max_examples=20, deadline=None)
@given(
    T=st.integers(1, 40),
    S=st.integers(1, 40),
    causal=st.booleans(),
    share=st.sampled_from([None, 1.0, 0.6, 0.0]),
    block_q=st.sampled_from([16, 32]),
    block_k=st.sampled_from([16, 32]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_the_formula_s(T, S, causal, share, block_q, block_k, seed):
    padding = None
    if share is not None:
        generator = torch.Generator().manual_seed(seed)
        padding = (torch.rand(2, 1, 1, S, generator=generator) < share).to(device())
    tensors = draw(T, S, seed=seed)
    assert_the_formula(tensors, padding, causal=causal, block_q=block_q, block_k=block_k)


def test_logits_in_the_thousands_do_not_overflow():
    assert_the_formula(draw(20, 33, scale=30.0), causal=True, atol=2e-3, rtol=1e-4)


def test_other_layouts_of_memory_are_read_aright():
    """As a model makes them: (B, T, H, Dh) turned to (B, H, T, Dh)."""
    tensors = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in draw(20, 33)]
    assert_the_formula(tensors)


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)], ids=str
)
def test_in_low_precision_it_is_at_most_twice_as_far_from_the_truth_as_pytorch(dtype):
    tensors = [t.to(dtype) for t in draw(40, 40, Dh=32)]
    truth = with_gradients(lambda *qkv: formula(*qkv, causal=True), *(t.double() for t in tensors))
    theirs = with_gradients(lambda *qkv: formula(*qkv, causal=True), *tensors)
    ours = with_gradients(lambda *qkv: flash_attention(*qkv, causal=True), *tensors)
    for name, exact, a, b in zip(("output", "q", "k", "v"), truth, ours, theirs, strict=True):
        mine, its = ((x.double() - exact).abs().max() for x in (a, b))
        assert mine <= 2 * its, f"{name}: {mine:.1e} against {its:.1e}"


def test_a_gradient_of_a_gradient_is_refused_and_not_wrong():
    q, k, v = (t.requires_grad_() for t in draw(4, 4, B=1, H=1))
    (grad,) = torch.autograd.grad(flash_attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"q": torch.zeros(1, 2, 16)}, ValueError, r"q must be \(B, H, tokens, Dh\), got \(1, 2, 16\)"),
        (dict.fromkeys("qkv", torch.zeros(1, 1, 2, 24)), ValueError, "Dh must be a power of 2.*got 24"),
        (dict.fromkeys("qkv", torch.zeros(1, 1, 2, 8)), ValueError, "Dh must be a power of 2.*got 8"),
        ({"block_q": 8}, ValueError, "block_q must be a power of 2, 16 or more, got 8"),
        ({"block_k": 48}, ValueError, "block_k must be a power of 2, 16 or more, got 48"),
        (dict.fromkeys("qkv", torch.zeros(1, 1, 2, 16).double()), TypeError, "bfloat16, got torch.float64"),
        ({"k": torch.zeros(1, 1, 2, 16).half()}, TypeError, r"got torch\.float16 and torch\.float32"),
        (
            {"q": torch.zeros(1, 1, 2, 16, device="meta")},
            ValueError,
            "q, k, v and padding must be on one device",
        ),
        (
            dict.fromkeys("qkv", torch.zeros(1, 1, 2, 16).bfloat16()),
            TypeError,
            "interpreter knows no bfloat16",
        ),
    ],
)
def test_bad_input_says_what_was_wrong(change, error, match):
    good = dict.fromkeys("qkv", torch.zeros(1, 1, 2, 16))
    with pytest.raises(error, match=match):
        flash_attention(**good | change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU nothing is interpreted")
def test_where_triton_came_before_a_sentence_says_what_to_do():
    program = "import triton\nimport transformer_lab.efficient.flash_kernels"
    surroundings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(
        "ImportError: without a GPU kernels need TRITON_INTERPRET=1"
    )
