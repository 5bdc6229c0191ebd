"""Caches, grouped queries and latents: with a cache as without; equal to Hugging Face's and PyTorch's."""

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
from transformer_lab.efficient.caches import (
    GroupedQueryAttention,
    KeyValueCache,
    LatentAttention,
    QuantisedCache,
    dequantise,
    quantise,
)
from transformer_lab.masks import causal_mask
from transformer_lab.norms import RMSNorm
from transformer_lab.positional import rotate

few = settings(max_examples=30, deadline=None)


@pytest.fixture(autouse=True)
def float64():  # tight tolerances: a real error cannot hide in round-off
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grouped(seed=0, **change):
    torch.manual_seed(seed)
    sizes = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2, "rotary": rotate}
    return GroupedQueryAttention(**sizes | change)


def latent(seed=0, **change):
    torch.manual_seed(seed)
    sizes = {"d_model": 24, "n_heads": 3, "d_head": 6, "d_latent": 10, "d_rope": 4}
    ours = LatentAttention(**sizes | change)
    nn.init.normal_(ours.latent_proj.weight)  # so the norm could not be left out
    nn.init.uniform_(ours.latent_norm.weight, 0.5, 1.5)
    return ours


MAKERS = {
    "grouped": grouped,
    "without rotation": partial(grouped, rotary=None),
    "multi-query": partial(grouped, n_kv_heads=1),
    "multi-head": partial(grouped, n_kv_heads=6),
    "latent": latent,
    "latent, interleaved": partial(latent, rotary=partial(rotate, layout="interleaved")),
}
every = pytest.mark.parametrize("kind", list(MAKERS))


def written(ours, x, parts, cache):
    return torch.cat([ours.step(part, cache) for part in x.split(parts, dim=1)], dim=1)


# --- with a cache as without ---------------------------------------------------------------------


@few
@given(
    kind=st.sampled_from(list(MAKERS)),
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    spare=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_prompts_and_steps_with_a_cache_are_all_at_once(kind, parts, spare, seed):
    """Whatever the parts in which the text comes, and however much room is left."""
    ours, x = MAKERS[kind](seed), draw(2, sum(parts), 24, seed=seed)
    cache = ours.start(2, sum(parts) + spare)
    found = written(ours, x, parts, cache)
    assert_close(found, ours(x, x, causal_mask(sum(parts))), rtol=1e-10, atol=1e-10)
    assert cache.length == sum(parts)


@every
def test_a_few_last_tokens_ask_all(kind):
    """The last query stands at the last key."""
    ours, x = MAKERS[kind](), draw(2, 7, 24)
    assert_close(ours(x[:, 4:], x, causal_mask(3, 7)), ours(x, x, causal_mask(7))[:, 4:])
    assert_close(ours(x[:, 4:], x), ours(x, x)[:, 4:])


@every
def test_no_token_sees_a_later_one(kind):
    ours, x = MAKERS[kind](), draw(1, 7, 24)
    later = x.clone()
    later[:, 4:] += 1
    a, b = (written(ours, x, [7], ours.start(1, 7)) for x in (x, later))
    assert_close(a[:, :4], b[:, :4], rtol=0, atol=1e-14)
    assert (a[:, 4:] - b[:, 4:]).abs().amin(dim=(0, 2)).min() > 1e-6


@every
def test_padding_says_nothing_and_a_query_without_keys_gets_nothing(kind):
    ours, x = MAKERS[kind](), draw(2, 5, 24)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None]
    changed = x.clone()
    changed[1, 3:] += 1
    assert_close(ours(x, x, real)[1, :3], ours(x, changed, real)[1, :3])
    assert (ours(x, x)[1] - ours(x, changed)[1]).abs().max() > 1e-3
    if isinstance(ours, GroupedQueryAttention):
        nothing = ours.out_proj.bias.expand(2, 5, 24)
    else:
        nothing = torch.zeros(2, 5, 24)
    assert_close(ours(x, x, torch.zeros(1, 1, 5, 5, dtype=torch.bool)), nothing)


@every
def test_masks_may_differ_from_head_to_head(kind):
    ours, x = MAKERS[kind](), draw(2, 5, 24)
    seen = draw(2, ours.n_heads, 5, 5) > -0.5
    seen |= torch.eye(5, dtype=torch.bool)

    def heads(mask):
        kept = []
        handle = ours.out_proj.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        ours(x, x, mask)
        handle.remove()
        return kept[0].unflatten(2, (ours.n_heads, -1))  # (B, T, H, Dh)

    for head in range(ours.n_heads):
        assert_close(heads(seen)[:, :, head], heads(seen[:, [head]])[:, :, head])


@every
def test_writing_is_without_gradients_and_keeps_no_graph(kind):
    ours, x = MAKERS[kind](), draw(1, 3, 24).requires_grad_()
    cache = ours.start(1, 3)
    assert not ours.step(x, cache).requires_grad
    assert not cache.keys.requires_grad and not cache.values.requires_grad


def test_a_step_reads_the_kept_keys_once_for_all_queries_of_a_group(monkeypatch):
    """And where they lie: the kernel gets the cache itself, and a group's queries in one row."""
    ours, cache, seen = grouped(), grouped().start(2, 5), []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *qkv: seen.append(qkv) or kernel(*qkv))
    ours.step(draw(2, 1, 24), cache)
    q, k, v = seen.pop()
    assert q.shape == (2, 2, 3, 4)  # (B, G, H / G, Dh)
    assert k.data_ptr() == cache.keys.data_ptr() and v.data_ptr() == cache.values.data_ptr()


@every
def test_an_empty_cache_is_of_the_kind_of_the_weights(kind):
    for dtype in (torch.float32, torch.float64):
        ours = MAKERS[kind]().to(dtype)
        cache = ours.start(1, 3)
        assert cache.keys.dtype == cache.values.dtype == dtype
        assert cache.keys.device == ours.k_proj.weight.device
        assert ours.step(draw(1, 3, 24).to(dtype), cache).dtype == dtype


@every
def test_every_parameter_has_a_say(kind):
    ours, x = MAKERS[kind](), draw(2, 5, 24)
    found = gradients(ours(x, x, causal_mask(5)), *ours.parameters())
    for (name, _), gradient in zip(ours.named_parameters(), found, strict=True):
        harmless = name == "k_proj.bias" and ours.rotary is None  # adds the same to all scores of a query
        assert harmless or gradient.abs().max() > 1e-6, name


# --- the cache itself ----------------------------------------------------------------------------


def test_room_is_reserved_once_and_what_comes_back_lies_in_it():
    cache = KeyValueCache(2, 3, 7, 4)
    assert cache.nbytes == 2 * 3 * 7 * (4 + 4) * 8 and cache.length == 0
    room = cache.keys.data_ptr(), cache.values.data_ptr()
    new = [(draw(2, 3, n, 4, seed=n), draw(2, 3, n, 4, seed=n + 10)) for n in (3, 1, 3)]
    first = [t.clone() for t in cache.append(*new[0])]
    for part in new[1:]:
        keys, values = cache.append(*part)
    assert (keys.data_ptr(), values.data_ptr()) == room
    assert torch.equal(keys, torch.cat([k for k, _ in new], dim=2))
    assert torch.equal(values, torch.cat([v for _, v in new], dim=2))
    assert torch.equal(keys[:, :, :3], first[0]) and torch.equal(values[:, :, :3], first[1])
    assert cache.length == 7 and cache.nbytes == 2 * 3 * 7 * (4 + 4) * 8


def test_a_cache_counts_the_bytes_of_its_kind_and_widths():
    assert KeyValueCache(2, 3, 7, 4, d_value=6, dtype=torch.bfloat16).nbytes == 2 * 3 * 7 * (4 + 6) * 2
    assert grouped().start(2, 7).nbytes == 2 * 7 * (2 * 2 * 4) * 8  # 2 G Dh numbers of a token
    assert latent().start(2, 7).nbytes == 2 * 7 * (10 + 4) * 8  # Dc + Dr
    assert KeyValueCache(1, 1, 1, 1, device="meta").keys.device.type == "meta"
    assert QuantisedCache(1, 1, 1, 2, device="meta").value_scales.device.type == "meta"


# --- quantised -----------------------------------------------------------------------------------

bits = pytest.mark.parametrize("bits", [8, 4])


@few
@given(bits=st.sampled_from([8, 4]), size=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_a_number_is_off_by_half_a_step_at_most(bits, size, seed):
    x = draw(2, 3, 5, 6, seed=seed) * size
    whole, steps = quantise(x, bits)
    assert steps.shape == x.shape[:-1]
    bound = x.abs().amax(dim=-1, keepdim=True) / (2 ** (bits - 1) - 1) / 2
    error = (dequantise(whole, steps) - x).abs()
    assert (error <= bound * (1 + 1e-4)).all()  # steps are float32
    assert (error > bound / 2).any(), "steps should be no finer than needed"


def test_an_example_by_hand():
    """The largest is 2.54, so with 8 bits a step is 0.02, of which 1.031 is 51.55."""
    whole, step = quantise(torch.tensor([2.54, -0.047, 1.031, 0.0]), 8)
    assert whole.tolist() == [127, -2, 52, 0] and step.item() == pytest.approx(0.02)
    whole, step = quantise(torch.tensor([-7.0, 1.0, 6.0, 0.4]), 4)
    assert whole.tolist() == [(-7 + 8) + 16 * (1 + 8), (6 + 8) + 16 * (0 + 8)] and step.item() == 1
    assert dequantise(whole, step).tolist() == [-7.0, 1.0, 6.0, 0.0]


@bits
def test_a_row_of_zeros_stays_so(bits):
    assert (dequantise(*quantise(torch.zeros(2, 4), bits)) == 0).all()


@bits
def test_where_float32_has_no_digits_left_numbers_keep_their_sign(bits):
    """A step of 1.57e-45 or 2.9e-44 is rounded to a whole multiple of 1.4e-45: the largest is more steps."""
    x = torch.tensor([2e-43, -2e-43])
    assert (dequantise(*quantise(x, bits)) / x > 0.8).all()


@bits
def test_the_quantised_cache_gives_back_what_it_rounded(bits):
    cache = QuantisedCache(2, 3, 7, 4, d_value=6, bits=bits)
    assert cache.nbytes == 2 * 3 * 7 * ((4 + 6) * bits // 8 + 2 * 4)
    new = [(draw(2, 3, n, 4, seed=n), draw(2, 3, n, 6, seed=n + 10)) for n in (3, 1, 2)]
    for part in new:
        keys, values = cache.append(*part)
    for found, given_ in ((keys, [k for k, _ in new]), (values, [v for _, v in new])):
        wanted = torch.cat(given_, dim=2)
        assert found.dtype == wanted.dtype
        assert_close(found, dequantise(*quantise(wanted, bits)).double(), rtol=0, atol=0)
    assert cache.length == 6
    assert (
        cache.append(*(torch.zeros(2, 3, 1, n, dtype=torch.bfloat16) for n in (4, 6)))[1].dtype
        == torch.bfloat16
    )


@pytest.mark.parametrize("make", [grouped, latent])
def test_attention_writes_with_it_nearly_as_with_all_digits(make):
    """Eight bits are sixteen times as fine as four."""
    ours, x = make(), draw(2, 40, 24)
    full = ours.start(2, 40)
    exact, errors = written(ours, x, [20] + 20 * [1], full), {}
    for bits in (8, 4):
        cache = QuantisedCache(
            2, full.keys.shape[1], 40, full.keys.shape[3], d_value=full.values.shape[3], bits=bits
        )
        errors[bits] = (written(ours, x, [20] + 20 * [1], cache) - exact).norm() / exact.norm()
        assert cache.nbytes < full.nbytes / 2
    assert errors[8] < 0.01 and 8 < errors[4] / errors[8] < 32


# --- equal to others' ----------------------------------------------------------------------------


def test_with_as_many_keys_as_queries_it_is_multi_head_attention():
    ours = grouped(n_kv_heads=6)
    theirs = MultiHeadAttention(d_model=24, n_heads=6, rotary=rotate)
    theirs.load_state_dict(ours.state_dict())
    x, context = draw(2, 4, 24).requires_grad_(), draw(2, 5, 24, seed=2).requires_grad_()
    for mask in (None, causal_mask(4, 5)):
        y, z = ours(x, context, mask), theirs(x, context, mask)
        assert_close(y, z, rtol=1e-10, atol=1e-10)
        a, b = gradients(y, x, context), gradients(z, x, context)
        assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3])
def test_it_is_multi_head_attention_with_repeated_keys_and_values(n_kv_heads):
    ours = grouped(n_kv_heads=n_kv_heads)
    theirs = MultiHeadAttention(d_model=24, n_heads=6, rotary=rotate)
    repeated = {
        name: p.unflatten(0, (n_kv_heads, 4)).repeat_interleave(6 // n_kv_heads, dim=0).flatten(0, 1)
        if name[0] in "kv"
        else p
        for name, p in ours.state_dict().items()
    }
    theirs.load_state_dict(repeated)
    x = draw(2, 5, 24)
    for mask in (None, causal_mask(5)):
        assert_close(ours(x, x, mask), theirs(x, x, mask), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [True, False])
def test_grouped_queries_equal_pytorch_s(parity, masked):
    ours = grouped(rotary=None)
    x, mask = draw(2, 5, 24).requires_grad_(), causal_mask(5) if masked else None
    q, k, v = (p(x).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (ours.q_proj, ours.k_proj, ours.v_proj))
    z = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    z = ours.out_proj(z.transpose(1, 2).flatten(2))
    y = ours(x, x, mask)
    of = {"x": x, "W_K": ours.k_proj.weight, "W_V": ours.v_proj.weight}
    grads = zip(of, gradients(y, *of.values()), gradients(z, *of.values()), strict=True)
    pairs = {"output": (y, z)} | {f"gradient of {name}": (a, b) for name, a, b in grads}
    peer = "torch: F.scaled_dot_product_attention, enable_gqa"
    parity("efficient.caches.GroupedQueryAttention", peer, pairs)


def cos_and_sin(n, width):
    angles = torch.arange(n)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.cat([angles, angles], dim=-1)[None]
    return angles.cos(), angles.sin()


def additive(mask):
    return torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))


def all_gradients(ours, theirs, x, y, z, names):
    """Of x and of every weight, by our names; ``names`` has theirs."""
    a = gradients(y, x, *(ours.get_parameter(name) for name in names))
    b = gradients(z, x, *(theirs.get_parameter(name) for name in names.values()))
    return {f"gradient of {name}": pair for name, *pair in zip(("x", *names), a, b, strict=True)}


@pytest.mark.parametrize("n_kv_heads", [1, 2, 6])
def test_grouped_queries_equal_llama_s(parity, n_kv_heads):
    """Rotation and all, weights copied; cos and sin given to theirs in float64."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention

    ours = grouped(n_kv_heads=n_kv_heads, bias=False)
    config = LlamaConfig(hidden_size=24, num_attention_heads=6, num_key_value_heads=n_kv_heads)
    config._attn_implementation = "sdpa"  # the eager one casts its softmax to float32
    theirs = LlamaAttention(config, layer_idx=0)
    names = {f"{part}_proj.weight": f"{part}_proj.weight" for part in "qkv"}
    names["out_proj.weight"] = "o_proj.weight"
    theirs.load_state_dict({its: ours.get_parameter(name) for name, its in names.items()})
    x, mask = draw(2, 7, 24).requires_grad_(), causal_mask(7)
    y = ours(x, x, mask)
    z, _ = theirs(x, position_embeddings=cos_and_sin(7, 4), attention_mask=additive(mask))
    pairs = {"output": (y, z)} | all_gradients(ours, theirs, x, y, z, names)
    parity("efficient.caches.GroupedQueryAttention", "transformers: LlamaAttention", pairs)


def deepseek(ours, *, interleaved):
    """Theirs with our weights, and its names for ours."""
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

    config = DeepseekV3Config(
        hidden_size=ours.d_model,
        num_attention_heads=ours.n_heads,
        num_key_value_heads=ours.n_heads,
        q_lora_rank=None,
        kv_lora_rank=ours.d_latent,
        qk_nope_head_dim=ours.d_head,
        v_head_dim=ours.d_head,
        qk_rope_head_dim=ours.d_rope,
        rope_interleave=interleaved,
    )
    config._attn_implementation = "sdpa"  # the eager one casts its softmax to float32
    theirs = DeepseekV3Attention(config, layer_idx=0)
    up = [p.weight.unflatten(0, (ours.n_heads, -1)) for p in (ours.k_proj, ours.v_proj)]
    theirs.load_state_dict(
        {
            "q_proj.weight": ours.q_proj.weight,
            "kv_a_proj_with_mqa.weight": torch.cat([ours.latent_proj.weight, ours.rope_proj.weight]),
            "kv_a_layernorm.weight": ours.latent_norm.weight,
            "kv_b_proj.weight": torch.cat(up, dim=1).flatten(0, 1),  # per head: its key's rows, its value's
            "o_proj.weight": ours.out_proj.weight,
        }
    )
    return theirs


def compared_with_deepseek(ours, theirs, x, mask):
    y = ours(x, x, mask)
    cos_sin = cos_and_sin(x.shape[1], ours.d_rope)
    z, _ = theirs(x, position_embeddings=cos_sin, attention_mask=additive(mask))
    mine = dict(zip(("x", *dict(ours.named_parameters())), gradients(y, x, *ours.parameters()), strict=True))
    its = dict(
        zip(("x", *dict(theirs.named_parameters())), gradients(z, x, *theirs.parameters()), strict=True)
    )
    down, up = its["kv_a_proj_with_mqa.weight"], its["kv_b_proj.weight"].unflatten(0, (ours.n_heads, 2, -1))
    theirs_by_our_names = {
        "x": its["x"],
        "q_proj.weight": its["q_proj.weight"],
        "latent_proj.weight": down[: ours.d_latent],
        "rope_proj.weight": down[ours.d_latent :],
        "latent_norm.weight": its["kv_a_layernorm.weight"],
        "k_proj.weight": up[:, 0].flatten(0, 1),
        "v_proj.weight": up[:, 1].flatten(0, 1),
        "out_proj.weight": its["o_proj.weight"],
    }
    assert theirs_by_our_names.keys() == mine.keys()
    grads = {f"gradient of {name}": (mine[name], theirs_by_our_names[name]) for name in mine}
    return {"output": (y, z)} | grads


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_latents_equal_deepseek_s(parity, layout):
    """DeepSeek's own weights are for the interleaved layout; its config knows both."""
    ours = latent(rotary=partial(rotate, layout=layout))
    theirs = deepseek(ours, interleaved=layout == "interleaved")
    x, mask = draw(1, 6, 24).requires_grad_(), causal_mask(6)
    pairs = compared_with_deepseek(ours, theirs, x, mask)
    parity(
        f"efficient.caches.LatentAttention, {layout}",
        "transformers: DeepseekV3Attention",
        pairs,
        within=1e-6,
        why="DeepseekV3RMSNorm casts the latent to float32",
    )
    theirs.kv_a_layernorm = RMSNorm(ours.d_latent)  # without the cast all digits are the same
    theirs.kv_a_layernorm.load_state_dict(ours.latent_norm.state_dict())
    for name, (a, b) in compared_with_deepseek(ours, theirs, x, mask).items():
        assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


# --- low precision -------------------------------------------------------------------------------


def plain_grouped(ours, x):
    """As it is told: keys and values repeated for every query head, the formula, the projection."""
    q, k, v = (
        p(x).unflatten(-1, (-1, ours.d_head)).transpose(1, 2) for p in (ours.q_proj, ours.k_proj, ours.v_proj)
    )
    positions = torch.arange(x.shape[1])
    k, v = (t.repeat_interleave(ours.n_heads // ours.n_kv_heads, dim=1) for t in (rotate(k, positions), v))
    y = attention(rotate(q, positions), k, v, causal_mask(x.shape[1]))[0]
    return ours.out_proj(y.transpose(1, 2).flatten(2))


def plain_latent(ours, x):
    """Keys and values of every head written out: DeepSeek-AI (2024), equations (9) to (11), (14) to (19)."""
    positions = torch.arange(x.shape[1])
    q, rotary_q = (
        ours.q_proj(x).unflatten(-1, (ours.n_heads, -1)).transpose(1, 2).split([ours.d_head, ours.d_rope], -1)
    )
    c = ours.latent_norm(ours.latent_proj(x))
    k, v = (p(c).unflatten(-1, (ours.n_heads, -1)).transpose(1, 2) for p in (ours.k_proj, ours.v_proj))
    rotary_k = rotate(ours.rope_proj(x), positions)[:, None].expand(-1, ours.n_heads, -1, -1)
    q, k = torch.cat([q, rotate(rotary_q, positions)], dim=-1), torch.cat([k, rotary_k], dim=-1)
    y = attention(q, k, v, causal_mask(x.shape[1]))[0]
    return ours.out_proj(y.transpose(1, 2).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("make", "plain"), [(grouped, plain_grouped), (latent, plain_latent)])
def test_low_precision_is_no_worse_than_twice_the_plain_way_s(make, plain, dtype):
    ours, x = make().to(dtype), draw(4, 48, 24).to(dtype)
    wide = make().to(dtype).double()  # the rounded weights
    exact = plain(wide, x.double())
    assert_close(wide(x.double(), x.double(), causal_mask(48)), exact, rtol=1e-10, atol=1e-10)
    limit = 2 * (plain(ours, x).double() - exact).abs().max()
    assert (ours(x, x, causal_mask(48)).double() - exact).abs().max() <= limit
    assert (written(ours, x, [16] + 32 * [1], ours.start(4, 48)).double() - exact).abs().max() <= limit


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize("make", [KeyValueCache, QuantisedCache])
def test_a_cache_says_what_does_not_fit(make):
    cache = make(2, 3, 5, 4, d_value=6)
    good = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 6)
    cache.append(*good)
    with pytest.raises(ValueError, match="room for max_len=5 tokens and holds 4; got 2 more"):
        cache.append(*(t[:, :, :2] for t in good))
    assert cache.length == 4
    for keys, values, match in (
        (torch.zeros(2, 2, 1, 4), good[1], r"keys must be .* = \(2, 3, 1, 4\), got \(2, 2, 1, 4\)"),
        (torch.zeros(1, 3, 1, 4), good[1], r"keys must be .* = \(2, 3, 1, 4\), got \(1, 3, 1, 4\)"),
        (torch.zeros(3, 1, 4), good[1], r"keys must be .* = \(2, 3, 1, 4\), got \(3, 1, 4\)"),
        (
            torch.zeros(2, 3, 1, 4),
            torch.zeros(2, 3, 2, 6),
            r"values must be .* = \(2, 3, 1, 6\), got \(2, 3, 2, 6\)",
        ),
        (
            torch.zeros(2, 3, 1, 4),
            torch.zeros(2, 3, 1, 4),
            r"values must be .* = \(2, 3, 1, 6\), got \(2, 3, 1, 4\)",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            cache.append(keys, values)


@pytest.mark.bad_input
def test_numbers_of_another_kind_are_told():
    cache, x = KeyValueCache(1, 1, 2, 4), torch.zeros(1, 1, 1, 4)
    with pytest.raises(TypeError, match=r"keys must be torch\.float64 as the cache is, got torch\.float32"):
        cache.append(x.float(), x)
    with pytest.raises(TypeError, match=r"values must be torch\.float64 as the cache is, got torch\.float32"):
        cache.append(x, x.float())
    assert cache.length == 0


@pytest.mark.bad_input
@pytest.mark.parametrize("make", [KeyValueCache, QuantisedCache])
@pytest.mark.parametrize("name", ["n_batch", "n_kv_heads", "max_len", "d_head", "d_value"])
def test_a_cache_without_room_is_told(make, name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        make(**{"n_batch": 1, "n_kv_heads": 1, "max_len": 1, "d_head": 2, name: 0})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "make", [partial(QuantisedCache, 1, 1, 1), lambda d, **about: quantise(torch.ones(d), **about)]
)
def test_bits_that_do_not_fit_are_told(make):
    with pytest.raises(ValueError, match="bits must be 8 or 4, got 5"):
        make(4, bits=5)
    with pytest.raises(ValueError, match="the width must be even, got 3"):
        make(3, bits=4)


@pytest.mark.bad_input
def test_an_odd_value_is_told():
    with pytest.raises(ValueError, match="the width must be even, got 3"):
        QuantisedCache(1, 1, 1, 4, d_value=3, bits=4)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_heads": 5}, "d_model must be a multiple of n_heads, got 24 and 5"),
        ({"n_kv_heads": 4}, "n_heads must be a multiple of n_kv_heads, got 6 and 4"),
        ({"n_kv_heads": 0}, "n_heads must be a multiple of n_kv_heads, got 6 and 0"),
    ],
)
def test_heads_that_do_not_divide_each_other_are_told(change, match):
    with pytest.raises(ValueError, match=match):
        grouped(**change)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["d_model", "n_heads", "d_head", "d_latent", "d_rope"])
def test_latents_of_no_width_are_told(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        latent(**{name: 0})


@pytest.mark.bad_input
@pytest.mark.parametrize("kind", ["grouped", "latent"])
def test_bad_input_says_what_was_wrong(kind):
    ours, x = MAKERS[kind](), draw(2, 3, 24)
    for args, error, match in (
        ((x[0], x), ValueError, r"x must be \(batch, tokens, d_model=24\), got \(3, 24\)"),
        ((x, x[..., :5]), ValueError, r"context must be \(batch, tokens, d_model=24\), got \(2, 3, 5\)"),
        ((x, x[:1]), ValueError, "equally many sequences, got 2 and 1"),
        ((x, x, torch.ones(3, 3)), TypeError, "mask must be bool, True = may attend; got torch.float64"),
        ((x, x, torch.ones(3, 4, dtype=torch.bool)), ValueError, r"mask must broadcast .* got \(3, 4\)"),
    ):
        with pytest.raises(error, match=match):
            ours(*args)
    with pytest.raises(ValueError, match=r"x must be \(batch, tokens, d_model=24\), got \(2, 3, 5\)"):
        ours.step(x[..., :5], ours.start(2, 3))
    with pytest.raises(ValueError, match=r"keys must be .*, got \(2, "):
        ours.step(x, ours.start(1, 3))
