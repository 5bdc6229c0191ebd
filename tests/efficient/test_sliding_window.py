"""Windows: equal to the formula under the band's mask, also at the borders; and Longformer's attention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.testing import assert_close

from benchmarks.peer_layers import longformer
from tests.conftest import gradients
from tests.efficient import with_gradients
from transformer_lab.attention import attention
from transformer_lab.efficient.sliding_window import WindowAttention, sliding_window_attention
from transformer_lab.masks import sliding_window_mask


def draw(T, *, B=2, H=2, Dh=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, T, Dh, generator=generator, dtype=torch.float64) for _ in range(3)]


def band(T, window, dilation, causal):
    """By its definition, place by place."""
    seen = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        for step in range(-(window // 2), window // 2 + 1):
            j = i + step * dilation
            if 0 <= j < T and (step <= 0 or not causal):
                seen[i, j] = True
    return seen


def chance(T, seed, share):
    return torch.rand(2, T, generator=torch.Generator().manual_seed(seed)) < share


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(1, 20),
    half=st.integers(1, 8),
    dilation=st.integers(1, 4),
    causal=st.booleans(),
    share=st.sampled_from([1.0, 0.6, 0.0]),
    n_global=st.sampled_from([None, 0.0, 0.3]),
    seed=st.integers(0, 99),
)
def test_it_is_the_formula_with_a_mask(T, half, dilation, causal, share, n_global, seed):
    q, k, v = draw(T, seed=seed)
    real = chance(T, seed, share)
    seen = band(T, 2 * half, dilation, causal)[None, None] & real[:, None, None]
    is_global = None
    if n_global is not None:
        is_global = chance(T, seed + 1, n_global)
        seen = seen | (is_global & real)[:, None, None]
    about = {"window": 2 * half, "dilation": dilation, "causal": causal, "is_global": is_global}
    found = with_gradients(lambda *qkv: sliding_window_attention(*qkv, real, **about), q, k, v)
    wanted = with_gradients(lambda *qkv: attention(*qkv, seen)[0], q, k, v)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_the_mask_of_the_chapter_on_masks_is_this_window():
    q, k, v = draw(9)
    wanted = attention(q, k, v, sliding_window_mask(9, 4))[0]
    assert_close(sliding_window_attention(q, k, v, window=4), wanted)


def test_layers_see_a_window_further_each():
    """l layers reach l w tokens to each side: what lies beyond cannot matter."""
    x = torch.eye(41, dtype=torch.float64)[None, None]
    y = x
    for n_layers in (1, 2, 3):
        y = sliding_window_attention(0 * y, 0 * y, y, window=8)
        reached = (y[0, 0, 20] > 0).nonzero()[:, 0]
        assert reached.tolist() == list(range(20 - 4 * n_layers, 20 + 4 * n_layers + 1))


def test_the_scores_grow_with_the_length_and_not_with_its_square(monkeypatch):
    """Three blocks of keys for a block of queries; two where what comes later is not seen."""
    scores = []

    def counted(q, k, v, mask):
        scores.append(q.shape[:-1].numel() * k.shape[-2])
        return kernel(q, k, v, mask)

    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    for causal, blocks in ((False, 3), (True, 2)):
        for T in (16, 32, 64):
            sliding_window_attention(*draw(T, B=1, H=1), window=8, causal=causal)
            assert scores.pop() == T * blocks * 4
    sliding_window_attention(*draw(9, B=1, H=1), window=1000)
    assert scores.pop() == 16 * 24  # two blocks of 8 queries: none is wider than the text


def test_no_text_is_no_error():
    empty = torch.zeros(2, 2, 0, 4)
    assert sliding_window_attention(empty, empty, empty, window=2).shape == empty.shape


@pytest.mark.parametrize("with_global", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_it_equals_hugging_face_s_longformer(parity, with_global, padded):
    """Gradients without padding; see below for rows with different numbers of global tokens."""
    torch.manual_seed(0)
    ours = WindowAttention(d_model=8, n_heads=2, window=4).double()
    theirs = longformer(ours)
    ours.out_proj = torch.nn.Identity()  # theirs stands outside of the class
    x = torch.randn(2, 12, 8, dtype=torch.float64, requires_grad=True)  # theirs takes whole windows only
    real = torch.ones(2, 12, dtype=torch.bool)
    if padded:
        real[1, 9:] = False
    is_global = torch.zeros(2, 12, dtype=torch.bool)
    if with_global:
        is_global[0, [0, 5]] = is_global[1, [3] if padded else [3, 8]] = True
    kinds = torch.where(real, 0.0, -10000.0).masked_fill(is_global, 10000.0).double()
    wanted = theirs(
        x,
        attention_mask=kinds,
        is_index_masked=kinds < 0,
        is_index_global_attn=kinds > 0,
        is_global_attn=bool((kinds > 0).any()),
    )[0]
    found = ours(x, real, is_global if with_global else None)
    pairs = {"output": (found[real], wanted[real])}
    name = "efficient.sliding_window.WindowAttention" + ", global tokens" * with_global
    if padded:
        name += ", padding"
    else:
        weights = {
            f"{kind}{part}_proj.weight": f"{its}{ending}.weight"
            for kind, ending in (("", ""), ("global_", "_global"))[: 1 + with_global]
            for part, its in (("q", "query"), ("k", "key"), ("v", "value"))
        }
        mine = gradients(found, x, *(ours.get_parameter(w) for w in weights))
        its = gradients(wanted, x, *(theirs.get_parameter(w) for w in weights.values()))
        pairs |= {f"gradient of {w}": p for w, *p in zip(("x", *weights), mine, its, strict=True)}
    why = "LongformerSelfAttention.forward() takes its softmax in float32"
    parity(name, "transformers: LongformerSelfAttention", pairs, within=1e-6, why=why)


@pytest.mark.parametrize("padded", [False, True])
def test_unequal_numbers_of_global_tokens_too(padded):
    """In float32. In float64 their gradients are NaN: a filler row, in which all is forbidden, has the
    lowest number of its type for a score, and that is minus infinity in the float32 of their softmax.
    """
    torch.manual_seed(0)
    ours = WindowAttention(d_model=8, n_heads=2, window=4)
    theirs = longformer(ours)
    ours.out_proj = torch.nn.Identity()
    x = torch.randn(2, 12, 8, requires_grad=True)
    real = torch.ones(2, 12, dtype=torch.bool)
    real[1, 9:] = not padded
    is_global = torch.zeros(2, 12, dtype=torch.bool)
    is_global[0, [0, 5]] = is_global[1, 3] = True
    kinds = torch.where(real, 0.0, -10000.0).masked_fill(is_global, 10000.0)
    about = {"is_index_masked": kinds < 0, "is_index_global_attn": kinds > 0, "is_global_attn": True}
    wanted = theirs(x, attention_mask=kinds, **about)[0][real]
    found = ours(x, real, is_global)[real]
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert_close(gradients(found, x), gradients(wanted, x), rtol=1e-5, atol=1e-5)


def test_it_equals_pytorch_s_flex_attention(parity):
    """Its plain description, without a fused kernel; on a CPU it has no gradients."""
    q, k, v = draw(300)
    near = create_block_mask(lambda b, h, i, j: (i - j).abs() <= 20, None, None, 300, 300, device="cpu")
    wanted = torch.compile(flex_attention, backend="eager")(q, k, v, block_mask=near)
    found = sliding_window_attention(q, k, v, window=40)
    ours = "efficient.sliding_window.sliding_window_attention"
    parity(ours, "torch: flex_attention with a block mask", {"output": (found, wanted)})


def test_the_module_sees_as_far_as_it_is_told():
    """Window and dilation, by what a token can change; and no text, or no token, is no error here either."""
    x = torch.randn(1, 15, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed = x.clone()
    changed[:, 7] += 1
    for window, dilation in ((2, 1), (2, 3), (4, 3)):
        ours = WindowAttention(d_model=8, n_heads=2, window=window, dilation=dilation).double()
        moved = (ours(x) - ours(changed)).abs().amax(dim=(0, 2)) > 1e-9
        reach = window // 2 * dilation
        assert moved.nonzero()[:, 0].tolist() == list(range(7 - reach, 7 + reach + 1, dilation))
    for B, T in ((2, 0), (0, 3)):
        assert ours(torch.zeros(B, T, 8).double(), None, torch.zeros(B, T, dtype=torch.bool)).shape == (
            B,
            T,
            8,
        )


def test_every_parameter_has_a_say():
    torch.manual_seed(0)
    ours = WindowAttention(d_model=8, n_heads=2, window=2).double()
    y = ours(torch.randn(1, 6, 8).double(), None, torch.tensor([[True, *[False] * 5]]))
    gradients = torch.autograd.grad(y.square().sum(), dict(ours.named_parameters()).values())
    for (name, _), gradient in zip(ours.named_parameters(), gradients, strict=True):
        biases_of_keys = name.endswith("k_proj.bias")  # add the same to all scores of a query
        assert biases_of_keys or gradient.abs().max() > 1e-6, name


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"k": torch.zeros(1, 1, 5, 4)}, r"must all be \(B, H, T, Dh\), got \(1, 1, 6, 4\), \(1, 1, 5, 4\)"),
        ({"v": torch.zeros(1, 1, 6, 5)}, r"must all be .*, \(1, 1, 6, 4\), \(1, 1, 6, 5\)"),
        (dict.fromkeys("qkv", torch.zeros(1, 6, 4)), r"must all be \(B, H, T, Dh\), got \(1, 6, 4\), "),
        ({"window": 3}, "window must be an even number of 2 or more, got 3"),
        ({"window": 0}, "window must be an even number of 2 or more, got 0"),
        ({"dilation": 0}, "dilation must be 1 or more, got 0"),
        ({"real": torch.ones(1, 5, dtype=torch.bool)}, r"real must be \(B, T\) = \(1, 6\), got \(1, 5\)"),
    ],
)
def test_bad_input_says_what_was_wrong(change, match):
    good = dict.fromkeys("qkv", torch.zeros(1, 1, 6, 4)) | {"window": 2}
    with pytest.raises(ValueError, match=match):
        sliding_window_attention(**good | change)


@pytest.mark.bad_input
def test_heads_that_do_not_divide_the_width_are_told():
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads, got 8 and 3"):
        WindowAttention(d_model=8, n_heads=3, window=2)
