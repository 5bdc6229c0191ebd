"""Parity with Hugging Face and PyTorch in float64, algebra, examples by hand, low precision, bad input."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from tests.conftest import gradients
from transformer_lab.attention import MultiHeadAttention, attention
from transformer_lab.masks import causal_mask
from transformer_lab.positional import (
    LearnedPositions,
    alibi_bias,
    alibi_slopes,
    change_layout,
    frequencies,
    rotate,
    sinusoidal,
)

LAYOUTS = ("half", "interleaved")


@pytest.fixture(autouse=True)
def float64():  # tight tolerances: a real error cannot hide in round-off
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def cos_and_sin(positions, width):
    """Of all angles, (T, width / 2), written apart from ours."""
    angles = torch.tensor([[t * 10000.0 ** (-2 * i / width) for i in range(width // 2)] for t in positions])
    return angles.cos(), angles.sin()


few = settings(max_examples=30, deadline=None)
shifts = st.integers(-40, 40)
widths = st.sampled_from([2, 4, 6, 8, 64])


# --- parity --------------------------------------------------------------------------------------


def test_sinusoids_equal_roformer_s_and_marian_s(parity):
    """Theirs stand in another order, all sines first, and were rounded to float32."""
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding as Marian
    from transformers.models.roformer.modeling_roformer import (
        RoFormerSinusoidalPositionalEmbedding as RoFormer,
    )

    ours = sinusoidal(50, 16)
    regrouped = torch.cat([ours[:, 0::2], ours[:, 1::2]], dim=1)
    why = "create_weight casts its table to float32; it holds all sines, then all cosines"
    peers = {
        "transformers: RoFormerSinusoidalPositionalEmbedding": RoFormer,
        "transformers: MarianSinusoidalPositionalEmbedding": Marian,
    }
    for peer, theirs in peers.items():
        table = theirs(50, 16).create_weight()
        parity("positional.sinusoidal", peer, {"table": (regrouped, table)}, within=1e-6, why=why)


def test_learned_positions_equal_those_of_gpt2(parity):
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    theirs = GPT2Model(GPT2Config(n_layer=0, n_embd=8, n_head=2, n_positions=7, vocab_size=5)).eval()
    theirs.ln_f = nn.Identity()
    ours = LearnedPositions(max_len=7, d_model=8)
    ours.table.load_state_dict(theirs.wpe.state_dict())
    a, b = draw(2, 7, 8), draw(2, 7, 8)
    y, z = ours(a), theirs(inputs_embeds=b).last_hidden_state
    pairs = zip(
        ("gradient of x", "gradient of the table"),
        gradients(y, a, ours.table.weight),
        gradients(z, b, theirs.wpe.weight),
        strict=True,
    )
    peer = "transformers: GPT2Model without layers"
    parity("positional.LearnedPositions", peer, {"output": (y, z)} | {n: (g, h) for n, g, h in pairs})


def test_half_layout_equals_llama_s_attention(parity):
    """All of it, weights copied; cos and sin given to theirs in float64."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention

    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, attention_bias=True)
    config._attn_implementation = "sdpa"  # the eager one casts its softmax to float32
    theirs = LlamaAttention(config, layer_idx=0).eval()
    ours = MultiHeadAttention(d_model=16, n_heads=2, rotary=rotate)
    ours.load_state_dict({k.replace("o_proj", "out_proj"): v for k, v in theirs.state_dict().items()})
    cos, sin = (torch.cat([t, t], dim=-1)[None] for t in cos_and_sin(range(6), 8))
    a, b, mask = draw(2, 6, 16), draw(2, 6, 16), causal_mask(6)
    y = ours(a, a, mask)
    table = torch.zeros(1, 1, 6, 6).masked_fill(~mask, -math.inf)
    z, _ = theirs(b, position_embeddings=(cos, sin), attention_mask=table)
    ga, gb = (
        gradients(y, a, ours.q_proj.weight, ours.k_proj.bias),
        gradients(z, b, theirs.q_proj.weight, theirs.k_proj.bias),
    )
    pairs = {"output": (y, z)}
    pairs |= {f"gradient of {n}": p for n, *p in zip(("x", "W_Q", "b_K"), ga, gb, strict=True)}
    parity("positional.rotate, half", "transformers: LlamaAttention", pairs)


def test_angles_equal_llama_s(parity):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=16, num_attention_heads=2)
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(8)[None])
    ours = rotate(torch.eye(8)[:, None].expand(8, 8, 8), torch.arange(8))  # each unit vector, turned
    theirs = torch.eye(8)[:, None] * cos + torch.eye(8).roll(4, 1)[:, None] * sin * torch.tensor(
        [-1.0] * 4 + [1.0] * 4
    )
    why = "LlamaRotaryEmbedding.forward computes its angles in float32"
    peer = "transformers: LlamaRotaryEmbedding"
    parity("positional.rotate, half", peer, {"all rotations": (ours, theirs)}, within=1e-6, why=why)


def test_interleaved_layout_equals_gpt_j_s_and_roformer_s(parity):
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb
    from transformers.models.roformer.modeling_roformer import RoFormerSelfAttention

    cos, sin = cos_and_sin(range(9), 6)
    turn = partial(rotate, positions=torch.arange(9), layout="interleaved")
    a, b = draw(2, 3, 9, 6), draw(2, 3, 9, 6)
    y = turn(a)
    z = apply_rotary_pos_emb(b.transpose(1, 2), sin[None], cos[None]).transpose(1, 2)
    pairs = {"output": (y, z), "gradient of x": (*gradients(y, a), *gradients(z, b))}
    parity("positional.rotate, interleaved", "transformers: GPT-J's apply_rotary_pos_emb", pairs)

    both = torch.cat([sin, cos], dim=-1)[None, None]
    z, _ = RoFormerSelfAttention.apply_rotary_position_embeddings(both, b, b)
    pairs = {"output": (y, z), "gradient of x": (*gradients(turn(a), a), *gradients(z, b))}
    peer = "transformers: RoFormer's apply_rotary_position_embeddings"
    parity("positional.rotate, interleaved", peer, pairs)


@pytest.mark.parametrize("n_heads", [4, 6])
def test_alibi_gives_bloom_s_attention_weights(parity, n_heads):
    """Theirs counts from the first key: the same but for a constant for each query, which no softmax sees."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    (qa, qb), k = (draw(1, n_heads, 7, 4), draw(1, n_heads, 7, 4)), draw(1, n_heads, 7, 4, seed=2)
    v, mask = draw(1, n_heads, 7, 4, seed=3), causal_mask(7)
    theirs = build_alibi_tensor(torch.ones(1, 7), n_heads, torch.float64)  # (H, 1, S)
    assert not torch.allclose(alibi_bias(n_heads, 7), theirs.expand(n_heads, 7, 7))
    y, weights = attention(qa, k, v, mask, bias=alibi_bias(n_heads, 7))
    z, their_weights = attention(qb, k, v, mask, bias=theirs)
    pairs = {"weights": (weights, their_weights), "gradient of q": (*gradients(y, qa), *gradients(z, qb))}
    why = "_get_alibi_slopes computes in float32" if n_heads == 6 else ""
    within = 1e-6 if why else 1e-10
    peers = {
        4: "transformers: BLOOM's build_alibi_tensor, 4 heads",
        6: "transformers: BLOOM's build_alibi_tensor, 6 heads",
    }
    parity("positional.alibi_bias", peers[n_heads], pairs, within=within, why=why)


def test_alibi_in_the_module_equals_pytorch_s_kernel(parity):
    a, b = draw(2, 4, 5, 6), draw(2, 4, 5, 6)
    by_hand = torch.tensor(
        [[[-(0.25**h) * abs(i - j) for j in range(5)] for i in range(5)] for h in (1, 2, 3, 4)]
    )
    y, _ = attention(a, a, a, bias=alibi_bias(4, 5))
    z = F.scaled_dot_product_attention(b, b, b, by_hand)
    pairs = {"output": (y, z), "gradient of x": (*gradients(y, a), *gradients(z, b))}
    parity("positional.alibi_bias", "torch: F.scaled_dot_product_attention", pairs)


# --- sinusoids -----------------------------------------------------------------------------------


def test_the_chapter_s_sinusoids_by_hand():
    """D = 4: a hand that turns 1 radian a step, and one that turns 0.01."""
    rows = [[math.sin(t), math.cos(t), math.sin(0.01 * t), math.cos(0.01 * t)] for t in range(4)]
    assert_close(sinusoidal(4, 4), torch.tensor(rows))


@given(st.integers(0, 200), st.integers(0, 50), widths)
@few
def test_a_shift_is_a_turn_of_every_hand(position, shift, width):
    table = sinusoidal(position + shift + 1, width).unflatten(-1, (-1, 2))
    sin, cos = table[position].unbind(-1)
    c, s = (shift * frequencies(width)).cos(), (shift * frequencies(width)).sin()
    turned = torch.stack([sin * c + cos * s, cos * c - sin * s], dim=-1)
    assert_close(table[position + shift], turned, rtol=0, atol=1e-12)


@given(widths, st.integers(1, 30))
@few
def test_products_of_sinusoids_depend_on_the_offset_alone_and_not_on_its_sign(width, offset):
    table = sinusoidal(100, width)
    products = (table[offset:] * table[: 100 - offset]).sum(-1)
    assert_close(products, (offset * frequencies(width)).cos().sum().expand(100 - offset))
    assert_close((table * table).sum(-1), torch.full((100,), width / 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_table_is_computed_exactly_and_rounded_once(dtype):
    exact = sinusoidal(5000, 8)
    torch.set_default_dtype(dtype)
    assert torch.equal(sinusoidal(5000, 8), exact.to(dtype))


# --- learned -------------------------------------------------------------------------------------


def test_learned_positions_add_the_rows_from_start_on():
    ours, x = LearnedPositions(max_len=6, d_model=4), draw(2, 3, 4)
    assert_close(ours(x), x + ours.table.weight[:3])
    assert_close(ours(x, start=3), x + ours.table.weight[3:])
    assert_close(ours(torch.cat([x, x], dim=1))[:, 3:], ours(x, start=3))  # as in cached decoding
    assert ours(x[0]).shape == (3, 4)


def test_rows_beyond_the_tokens_get_no_gradient():
    ours = LearnedPositions(max_len=6, d_model=4)
    ours(draw(1, 2, 4)).sum().backward()
    assert ours.table.weight.grad.any(dim=-1).tolist() == [True, True, False, False, False, False]


# --- RoPE ----------------------------------------------------------------------------------------


def test_the_chapter_s_turn_by_hand():
    """One pair turns by 1 radian a position: a query at 3 and a key at 1 end 2 radians apart."""
    q, k = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    turned_q, turned_k = rotate(q, torch.tensor([3])), rotate(k, torch.tensor([1]))
    assert_close(turned_q, torch.tensor([[math.cos(3), math.sin(3)]]))
    assert_close((turned_q * turned_k).sum(), torch.tensor(math.cos(2)))


@pytest.mark.parametrize(("layout", "pairs"), [("half", [(0, 2), (1, 3)]), ("interleaved", [(0, 1), (2, 3)])])
def test_each_layout_turns_its_pairs(layout, pairs):
    x, t = draw(1, 4), 5
    y = rotate(x, torch.tensor([t]), layout=layout)
    for (i, j), angle in zip(pairs, (t, 0.01 * t), strict=True):
        a, b, c, s = x[0, i], x[0, j], math.cos(angle), math.sin(angle)
        assert_close(y[0, [i, j]], torch.stack([a * c - b * s, a * s + b * c]))


@given(st.sampled_from(LAYOUTS), widths, shifts, st.integers(0, 50), st.integers(0, 50))
@few
def test_scores_depend_on_the_offset_alone_while_keys_stay_absolute(layout, width, shift, m, n):
    q, k = draw(9, width, seed=3), draw(1, width, seed=4)  # nine: one may score the same again by chance

    def at(x, position):
        return rotate(x, torch.full(x.shape[:1], position), layout=layout)

    assert_close(at(q, m) @ at(k, n).T, at(q, m + shift) @ at(k, n + shift).T, rtol=0, atol=1e-11)
    assert_close(at(q, m).norm(), q.norm())
    if shift:
        assert not torch.allclose(at(k, n), at(k, n + shift))
        assert not torch.allclose(at(q, m) @ at(k, n).T, at(q, m + shift) @ at(k, n).T)


def test_values_are_not_turned():
    """Keys that are all alike leave the plain mean of the values, wherever they stand."""
    ours, x = MultiHeadAttention(d_model=8, n_heads=2, rotary=rotate), draw(1, 5, 8)
    with torch.no_grad():
        ours.q_proj.weight.zero_()
        ours.q_proj.bias.zero_()
    mean = ours.out_proj(ours.v_proj(x).mean(1, keepdim=True))
    assert_close(ours(x, x), mean.expand(1, 5, 8))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_turning_back_gives_back(layout):
    x, positions = draw(2, 5, 8), torch.tensor([0.0, 1.5, 7, 100, 4000])
    turn = partial(rotate, layout=layout)
    assert_close(turn(turn(x, positions), -positions), x)
    assert torch.equal(turn(x, 0 * positions), x)


def test_cached_decoding_equals_the_full_pass():
    torch.manual_seed(0)
    ours, x = MultiHeadAttention(d_model=8, n_heads=2, rotary=rotate), draw(1, 6, 8)
    whole = ours(x, x, causal_mask(6))
    for t in range(6):
        assert_close(ours(x[:, t : t + 1], x[:, : t + 1], causal_mask(1, t + 1))[:, 0], whole[:, t])


@given(st.sampled_from([(1, 2), (1, 8), (2, 4), (3, 6), (4, 2)]), st.sampled_from(LAYOUTS))
@few
def test_changed_weights_give_all_scores_of_the_other_layout(heads, to):
    n_heads, width = heads
    other = LAYOUTS[to == "half"]
    d_model = n_heads * width
    torch.manual_seed(n_heads)
    ours = MultiHeadAttention(d_model=d_model, n_heads=n_heads, rotary=partial(rotate, layout=other))
    changed = MultiHeadAttention(d_model=d_model, n_heads=n_heads, rotary=partial(rotate, layout=to))
    changed.load_state_dict(ours.state_dict())
    x = draw(2, 5, d_model)
    if width > 2:
        assert not torch.allclose(changed.weights(x, x), ours.weights(x, x))
    with torch.no_grad():
        for name in ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias"):
            changed.get_parameter(name).copy_(change_layout(ours.get_parameter(name), n_heads, to))
    assert_close(changed.weights(x, x), ours.weights(x, x))
    assert_close(changed(x, x), ours(x, x))
    there = change_layout(ours.q_proj.weight, n_heads, to)
    assert torch.equal(change_layout(there, n_heads, other), ours.q_proj.weight)


# --- ALiBi ---------------------------------------------------------------------------------------


def test_the_chapter_s_bias_by_hand():
    by_hand = [[0, -0.25, -0.5], [-0.25, 0, -0.25], [-0.5, -0.25, 0]]
    assert_close(alibi_bias(4, 3)[0], torch.tensor(by_hand))
    assert_close(alibi_bias(4, 3)[1], torch.tensor(by_hand) / 4)


def test_slopes_of_heads_that_are_no_power_of_two():
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(6).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    for n_heads in range(1, 40):
        assert len(set(alibi_slopes(n_heads).tolist())) == n_heads


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 5))
@few
def test_biases_are_aligned_at_the_last_key(n_heads, n_queries, earlier):
    whole = alibi_bias(n_heads, n_queries + earlier)
    assert_close(alibi_bias(n_heads, n_queries, n_queries + earlier), whole[:, earlier:])
    assert_close(alibi_bias(n_heads, n_queries + 2, n_queries)[:, 2:], alibi_bias(n_heads, n_queries))


def test_among_equal_scores_the_nearest_key_has_most_weight():
    q = torch.zeros(1, 4, 8, 2)
    _, weights = attention(q, q, q, causal_mask(8), bias=alibi_bias(4, 8))
    seen = weights[0, :, -1]
    assert (seen.diff(dim=-1) > 0).all()  # rises towards the present
    powers = [math.exp(-0.25 * distance) for distance in range(7, -1, -1)]
    assert_close(seen[0], torch.tensor(powers) / sum(powers))


# --- every parameter counts, low precision, compilation, devices -----------------------------------


def test_every_parameter_changes_the_result():
    x, t = draw(3, 8), torch.arange(3)
    assert not torch.allclose(rotate(x, t), rotate(x, t, base=100.0))
    assert not torch.allclose(rotate(x, t), rotate(x, t, layout="interleaved"))
    assert not torch.allclose(rotate(x, t), rotate(x, 2 * t))
    assert not torch.allclose(sinusoidal(3, 8), sinusoidal(3, 8, base=100.0))
    assert not torch.allclose(frequencies(8), frequencies(8, 100.0))
    assert sinusoidal(3, 8, device="meta").device.type == "meta"
    assert alibi_bias(2, 3, device="meta").device.type == "meta"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_error_is_at_most_twice_that_of_plain_pytorch(layout, dtype):
    """Plain: the same turn as complex numbers, exact in float32 and rounded to the dtype at the end."""
    x, t = draw(2000, 8).detach().to(dtype), torch.arange(2000)
    exact = rotate(x.double(), t, layout=layout)
    wide = x.float()
    pairs = wide.unflatten(-1, (2, 4)).transpose(-1, -2) if layout == "half" else wide.unflatten(-1, (4, 2))
    cos, sin = cos_and_sin(range(2000), 8)
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin).cfloat())
    plain = (turned.transpose(-1, -2) if layout == "half" else turned).flatten(-2).to(dtype)
    error = (rotate(x, t, layout=layout).double() - exact).abs().max()
    assert error <= 2 * (plain.double() - exact).abs().max()
    assert rotate(x, t, layout=layout).dtype == dtype


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, on Python 3.13.0 alone
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_compiles_into_one_graph(layout):
    torch.manual_seed(0)
    attn = MultiHeadAttention(d_model=8, n_heads=2, rotary=partial(rotate, layout=layout))
    learned, x = LearnedPositions(max_len=5, d_model=8), draw(2, 5, 8)

    def all_of_it(x):
        h = learned(x) + sinusoidal(5, 8)
        return attn(h, h, causal_mask(5), bias=alibi_bias(2, 5))

    compiled = torch.compile(all_of_it, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), all_of_it(x))
    assert_close(gradients(compiled(x), x), gradients(all_of_it(x), x))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cuda_agrees_with_the_cpu(layout):
    x, t = draw(2, 5, 8), torch.arange(5)
    assert_close(rotate(x.cuda(), t.cuda(), layout=layout).cpu(), rotate(x, t, layout=layout))
    assert_close(sinusoidal(5, 8, device="cuda").cpu(), sinusoidal(5, 8))
    assert_close(alibi_bias(2, 3, 5, device="cuda").cpu(), alibi_bias(2, 3, 5))
    learned = LearnedPositions(max_len=5, d_model=8)
    expected = learned(x)
    assert_close(learned.cuda()(x.cuda()).cpu(), expected)


# --- bad input -----------------------------------------------------------------------------------


def learned(**sizes):
    return LearnedPositions(**{"max_len": 4, "d_model": 2} | sizes)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: sinusoidal(-1, 4), "n_positions must be 0 or more, got -1"),
        (lambda: sinusoidal(3, 5), "the width must be even and 2 or more, got 5"),
        (lambda: sinusoidal(3, 0), "the width must be even and 2 or more, got 0"),
        (lambda: sinusoidal(3, 4, base=0.0), "base must be positive, got 0.0"),
        (lambda: frequencies(4, -2.0), "base must be positive, got -2.0"),
        (lambda: frequencies(4, math.nan), "base must be positive, got nan"),
        (lambda: learned(max_len=0), "must be 1 or more, got 0 and 2"),
        (lambda: learned(d_model=0), "must be 1 or more, got 4 and 0"),
        (lambda: learned()(torch.zeros(1, 5, 2)), "the table ends at max_len=4, got positions 0 to 4"),
        (lambda: learned()(torch.zeros(1, 2, 2), start=3), "max_len=4, got positions 3 to 4"),
        (lambda: learned()(torch.zeros(1, 2, 2), start=-1), "got positions -1 to 0"),
        (lambda: rotate(torch.zeros(3, 4), torch.arange(2)), r"each of the 3 tokens, got \(2,\)"),
        (lambda: rotate(torch.zeros(4), torch.arange(2)), r"each of the 0 tokens, got \(2,\)"),
        (lambda: rotate(torch.zeros(3, 5), torch.arange(3)), "the width must be even and 2 or more, got 5"),
        (lambda: rotate(torch.zeros(3, 4), torch.arange(3), base=-1.0), "base must be positive, got -1.0"),
        (lambda: rotate(torch.zeros(3, 4), torch.arange(3), layout="pairs"), "got 'pairs'"),
        (lambda: change_layout(torch.zeros(6, 2), 2, to="half"), "6 rows do not make 2 heads of an even"),
        (lambda: change_layout(torch.zeros(6, 2), 0, to="half"), "6 rows do not make 0 heads"),
        (lambda: change_layout(torch.zeros(4, 2), 1, to="halves"), "'interleaved', got 'halves'"),
        (lambda: alibi_slopes(0), "n_heads must be 1 or more, got 0"),
        (lambda: alibi_bias(0, 2), "n_heads must be 1 or more, got 0"),
        (lambda: alibi_bias(2, -1), "0 or more queries and keys, got -1 and -1"),
        (lambda: alibi_bias(2, 3, -2), "0 or more queries and keys, got 3 and -2"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
