"""Each mask against its rule, PyTorch's and Hugging Face's; properties; who reaches whom; bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right
from torch.testing import assert_close

from tests.conftest import gradients
from transformer_lab.attention import MultiHeadAttention, attention
from transformer_lab.feed_forward import FeedForward
from transformer_lab.masks import (
    causal_mask,
    global_mask,
    influence,
    packed_positions,
    packing_mask,
    padding_mask,
    prefix_mask,
    reach,
    sliding_window_mask,
    to_additive,
)
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig
from transformer_lab.norms import Residual
from transformer_lab.positional import rotate, sinusoidal


@pytest.fixture(autouse=True)
def float64():  # tight tolerances: a real error cannot hide in round-off
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


few = settings(max_examples=30, deadline=None)


def table(n_rows, n_columns, rule):
    return [[rule(i, j) for j in range(n_columns)] for i in range(n_rows)]


def build(**kw):
    torch.manual_seed(0)
    return MultiHeadAttention(d_model=8, n_heads=2, **kw)


def random(*shape, seed=1, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, requires_grad=grad)


def visible(call):
    """What any attention lets each query see: with equal scores and the identity as values, its weights."""
    return lambda n_queries, n_keys: (
        call(torch.zeros(1, 1, n_queries, 4), torch.zeros(1, 1, n_keys, 4), torch.eye(n_keys)[None, None])
    )[0, 0].gt(0)


# --- each mask against its rule ------------------------------------------------------------------


def test_causal_mask_is_a_lower_triangle():
    assert causal_mask(4).shape == (1, 1, 4, 4)
    assert causal_mask(4)[0, 0].tolist() == [[j <= i for j in range(4)] for i in range(4)]


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 3), (2, 5), (3, 2), (0, 2)])
def test_the_last_query_stands_at_the_last_key(n_queries, n_keys):
    whole = causal_mask(9)[0, 0]
    assert torch.equal(causal_mask(n_queries, n_keys)[0, 0], whole[9 - n_queries :, 9 - n_keys :])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_padding_mask_marks_the_real_tokens(dtype):
    mask = padding_mask(torch.tensor([[5, 7, 7], [5, 6, 7]], dtype=dtype), pad_id=7)
    assert mask.shape == (2, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[True, False, False], [True, True, False]]


@given(st.integers(0, 7), st.integers(0, 9), st.data())
@few
def test_windows_globals_and_prefixes_follow_their_rules(n, window, data):
    chosen = data.draw(st.sets(st.integers(0, n - 1))) if n else set()
    prefix = data.draw(st.integers(0, n))
    rules = {
        sliding_window_mask(n, window): lambda i, j: abs(i - j) <= window // 2,
        global_mask(n, sorted(chosen)): lambda i, j: i in chosen or j in chosen,
        prefix_mask(n, prefix): lambda i, j: j <= i or j < prefix,
    }
    for mask, rule in rules.items():
        assert mask.shape == (1, 1, n, n) and mask.dtype == torch.bool
        assert mask[0, 0].tolist() == table(n, n, rule)


def test_the_chapter_s_weights_by_hand():
    """Scores whose exponentials are 1, 3, 4; the third key blocked: 1/4 and 3/4, in the old proportion."""
    keys = torch.tensor([[1.0], [3.0], [4.0]]).log()
    _, weights = attention(torch.ones(1, 1), keys, torch.eye(3), torch.tensor([[True, True, False]]))
    assert_close(weights, torch.tensor([[1 / 4, 3 / 4, 0.0]]))


def test_the_chapter_s_packed_row_by_hand():
    """Three texts in one row: each token sees the past of its own text, and counts from 0 in it."""
    segments = torch.tensor([[0, 0, 0, 1, 1, 2]])
    mask = packing_mask(segments) & causal_mask(6)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert packed_positions(segments).tolist() == [[0, 1, 2, 0, 1, 0]]


@given(st.lists(st.integers(1, 4), min_size=0, max_size=5))
@few
def test_packed_positions_count_each_text_from_zero(lengths):
    names = [7, 2, 9, 4, 0]  # any numbers do, in any order
    texts = zip(names, lengths, strict=False)
    segments = torch.tensor([[name for name, k in texts for _ in range(k)]], dtype=torch.long)
    wanted = [[place for k in lengths for place in range(k)]]
    assert packed_positions(segments).tolist() == wanted


def test_masks_are_made_where_they_are_asked_for():
    masks = (
        causal_mask(2, device="meta"),
        sliding_window_mask(2, 2, device="meta"),
        global_mask(2, [0], device="meta"),
        prefix_mask(2, 1, device="meta"),
        padding_mask(torch.zeros(1, 2, dtype=torch.long, device="meta"), 0),
        packing_mask(torch.zeros(1, 2, dtype=torch.long, device="meta")),
        to_additive(torch.ones(2, 2, dtype=torch.bool, device="meta")),
    )
    assert {mask.device.type for mask in masks} == {"meta"}


@pytest.mark.gpu
def test_on_cuda_masks_are_the_same():
    segments = torch.tensor([[0, 0, 1, 1, 1]])
    for make in (
        lambda device: causal_mask(5, device=device),
        lambda device: sliding_window_mask(5, 2, device=device) | global_mask(5, [0], device=device),
        lambda device: prefix_mask(5, 2, device=device),
        lambda device: packing_mask(segments.to(device)),
        lambda device: packed_positions(segments.to(device)),
        lambda device: padding_mask(segments.to(device), 1),
        lambda device: to_additive(causal_mask(5, device=device)),
        lambda device: reach(sliding_window_mask(5, 2, device=device)[0, 0], 2),
    ):
        assert torch.equal(make("cuda").cpu(), make("cpu"))


# --- PyTorch's masks -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n_queries", "n_keys"), [(4, 4), (2, 5), (1, 3)])
def test_causal_lower_right_is_our_causal_mask_and_is_causal_is_not(n_queries, n_keys):
    bias = causal_lower_right(n_queries, n_keys)
    theirs = visible(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
    assert torch.equal(theirs(n_queries, n_keys), causal_mask(n_queries, n_keys)[0, 0])
    top_left = visible(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    seen = top_left(n_queries, n_keys)
    assert seen.tolist() == table(n_queries, n_keys, lambda i, j: j <= i)
    assert torch.equal(seen, causal_mask(n_queries, n_keys)[0, 0]) == (n_queries == n_keys)


def test_an_additive_mask_does_what_the_boolean_one_does(parity):
    mask = sliding_window_mask(5, 2) | global_mask(5, [0])
    q, k, v = (random(2, 3, 5, 4, seed=s, grad=True) for s in range(3))
    ours = F.scaled_dot_product_attention(q, k, v, mask)
    theirs = F.scaled_dot_product_attention(q, k, v, to_additive(mask))
    pairs = {"output": (ours, theirs)}
    for name, *two in zip("qkv", gradients(ours, q, k, v), gradients(theirs, q, k, v), strict=True):
        pairs[f"gradient of {name}"] = two
    parity("masks.to_additive", "torch: F.scaled_dot_product_attention with a float mask", pairs)


def test_padding_and_future_hidden_as_in_multihead_attention_with_its_masks_upside_down(parity):
    ours, tokens = build(), torch.tensor([[5, 6, 7, 8, 0], [5, 6, 0, 0, 0]])
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    copy_attention(ours, theirs)
    keep, real = causal_mask(5), padding_mask(tokens, 0)
    a, b = (random(2, 5, 8, grad=True) for _ in range(2))
    y = ours(a, a, keep & real)
    z, weights = theirs(
        b, b, b, attn_mask=~keep[0, 0], key_padding_mask=tokens == 0, average_attn_weights=False
    )
    pairs = {
        "output": (y, z),
        "weights": (ours.weights(a, a, keep & real), weights),
        "gradient of x": (gradients(y, a)[0], gradients(z, b)[0]),
    }
    parity("masks.padding_mask & masks.causal_mask", "torch: nn.MultiheadAttention, masks inverted", pairs)


def copy_attention(ours, theirs):
    with torch.no_grad():
        for name in ("weight", "bias"):
            parts = [getattr(getattr(ours, p), name) for p in ("q_proj", "k_proj", "v_proj")]
            getattr(theirs, f"in_proj_{name}").copy_(torch.cat(parts))
            getattr(theirs.out_proj, name).copy_(getattr(ours.out_proj, name))


def test_a_whole_layer_hides_what_pytorch_s_encoder_layer_hides(parity):
    attn, feed_forward = build(), FeedForward(d_model=8, d_ff=16)
    around = [Residual(8, placement="post") for _ in range(2)]
    theirs = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)  # norms start alike
    copy_attention(attn, theirs.self_attn)
    theirs.linear1.load_state_dict(feed_forward.up_proj.state_dict())
    theirs.linear2.load_state_dict(feed_forward.down_proj.state_dict())
    tokens = torch.tensor([[5, 6, 7, 8, 0], [5, 6, 0, 0, 0]])
    keep, real = causal_mask(5), padding_mask(tokens, 0)
    a, b = (random(2, 5, 8, grad=True) for _ in range(2))
    y = around[1](around[0](a, lambda x: attn(x, x, keep & real)), feed_forward)
    z = theirs(b, src_mask=~keep[0, 0], src_key_padding_mask=tokens == 0)
    pairs = {"output": (y, z), "gradient of x": (gradients(y, a)[0], gradients(z, b)[0])}
    parity("masks.causal_mask", "torch: nn.TransformerEncoderLayer, masks inverted", pairs)


def test_a_row_that_sees_nothing_is_zero_nan_or_a_plain_mean_by_convention():
    """What the chapter's table prints, and what later versions of PyTorch must be asked again."""
    q, k, v = (random(1, 1, n, 4, seed=n) for n in (2, 3, 4))
    v = v[:, :, :3]
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert (attention(q, k, v, mask)[0][0, 0, 1] == 0).all()
    assert (F.scaled_dot_product_attention(q, k, v, mask)[0, 0, 1] == 0).all()
    assert (F.scaled_dot_product_attention(q, k, v, to_additive(mask))[0, 0, 1] == 0).all()
    for lowest in (-1e30, torch.finfo(torch.float64).min):
        additive = torch.zeros(2, 3).masked_fill(~mask, lowest)
        assert_close(F.scaled_dot_product_attention(q, k, v, additive)[0, 0, 1], v[0, 0].mean(0))
    assert to_additive(mask).softmax(-1)[1].isnan().all()
    library = nn.MultiheadAttention(4, 1, batch_first=True)
    assert library(q[0], k[0], v[0], attn_mask=~mask)[0][0, 1].isnan().all()


# --- Hugging Face's masks ------------------------------------------------------------------------


def hf_config(implementation, window=None):
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=9)
    config.sliding_window, config._attn_implementation = window, implementation
    return config


def test_hugging_face_s_boolean_masks_are_ours():
    from transformers import masking_utils as theirs

    config, x, full = hf_config("sdpa", window=3), torch.zeros(2, 5, 8), torch.ones(2, 5).long()
    tokens = torch.tensor([[5, 6, 7, 8, 5], [0, 0, 5, 6, 7]])
    padded = theirs.create_causal_mask(config, x, (tokens != 0).long(), None)
    assert torch.equal(padded, causal_mask(5) & padding_mask(tokens, 0))
    # sliding_window=3 is three tokens, the token itself among them: two places back, and 2 // 2 is not 2
    window = theirs.create_sliding_window_causal_mask(config, x, full, None)
    assert torch.equal(window, (sliding_window_mask(5, 4) & causal_mask(5)).expand(2, -1, -1, -1))
    near = theirs.sliding_window_bidirectional_mask_function(2)
    both_ways = theirs.sdpa_mask(1, 5, 5, mask_function=near, allow_is_causal_skip=False)
    assert torch.equal(both_ways, sliding_window_mask(5, 4))
    segments = torch.tensor([[3, 3, 3, 1, 1], [0, 0, 0, 0, 0]])
    packed = theirs.create_causal_mask(config, x, None, None, position_ids=packed_positions(segments))
    assert torch.equal(packed, packing_mask(segments) & causal_mask(5))
    blocks = torch.tensor([[0, 0, 0, -1, -1]] * 2)
    prefix = theirs.create_causal_mask(config, x, None, None, block_sequence_ids=blocks)
    assert torch.equal(prefix, prefix_mask(5, 3).expand(2, -1, -1, -1))
    cached = theirs.sdpa_mask(1, 2, 5, q_offset=3, allow_is_causal_skip=False)
    assert torch.equal(cached, causal_mask(2, 5))


@pytest.mark.parametrize("which", ["masks.causal_mask", "masks.sliding_window_mask", "masks.packing_mask"])
def test_hugging_face_s_additive_masks_do_what_ours_do(which, parity):
    from transformers import masking_utils
    from transformers.models.gpt2.modeling_gpt2 import eager_attention_forward

    config, full = hf_config("eager", window=3), torch.ones(2, 5).long()
    q, k, v = (random(2, 2, 5, 4, seed=s, grad=True) for s in range(3))
    x, segments = torch.zeros(2, 5, 8), torch.tensor([[3, 3, 3, 1, 1], [0, 0, 1, 1, 1]])
    positions = packed_positions(segments)
    peer, mask, additive = {
        "masks.causal_mask": (
            "transformers: create_causal_mask, additive",
            causal_mask(5),
            masking_utils.create_causal_mask(config, x, full, None),
        ),
        "masks.sliding_window_mask": (
            "transformers: create_sliding_window_causal_mask, additive",
            sliding_window_mask(5, 4) & causal_mask(5),
            masking_utils.create_sliding_window_causal_mask(config, x, full, None),
        ),
        "masks.packing_mask": (
            "transformers: create_causal_mask with position_ids, additive",
            packing_mask(segments) & causal_mask(5),
            masking_utils.create_causal_mask(config, x, None, None, position_ids=positions),
        ),
    }[which]
    assert additive.dtype == torch.float64 and additive.min() == torch.finfo(torch.float64).min
    ours, weights = attention(q, k, v, mask)
    theirs, their_weights = eager_attention_forward(nn.Module().eval(), q, k, v, additive)
    theirs = theirs.transpose(1, 2)
    pairs = {"output": (ours, theirs), "weights": (weights, their_weights)}
    for name, *two in zip("qkv", gradients(ours, q, k, v), gradients(theirs, q, k, v), strict=True):
        pairs[f"gradient of {name}"] = two
    parity(which, peer, pairs)


def test_a_window_with_a_global_token_is_longformer_s(parity):
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=8, num_attention_heads=2, attention_window=[4], attention_probs_dropout_prob=0.0
    )
    ours, theirs = build(), LongformerSelfAttention(config, 0)
    ours.out_proj = nn.Identity()  # theirs ends before it
    for name in ("query", "key", "value"):  # ours has one set of projections for both kinds of token
        for twin in (name, f"{name}_global"):
            getattr(theirs, twin).load_state_dict(getattr(ours, f"{name[0]}_proj").state_dict())
    a, b = (random(1, 12, 8, grad=True) for _ in range(2))
    kind = torch.zeros(1, 12)
    kind[:, 3] = 10000.0
    mask = sliding_window_mask(12, 4) | global_mask(12, [3])
    y = ours(a, a, mask)
    z = theirs(
        b,
        attention_mask=kind,
        is_index_masked=kind < 0,
        is_index_global_attn=kind > 0,
        is_global_attn=True,
    )[0]
    pairs = {"output": (y, z), "gradient of x": (gradients(y, a)[0], gradients(z, b)[0])}
    why = "its softmax is in float32"
    parity("masks.global_mask", "transformers: LongformerSelfAttention", pairs, within=1e-6, why=why)


# --- properties ----------------------------------------------------------------------------------


def language_model(**kw):
    torch.manual_seed(0)
    sizes = {"vocab_size": 12, "d_model": 16, "n_heads": 2, "d_ff": 32}
    return LanguageModel(LanguageModelConfig(**sizes, **kw)).requires_grad_(False)


@given(st.integers(2, 8), st.data())
@few
def test_a_changed_future_changes_nothing_before_it(n, data):
    t = data.draw(st.integers(1, n - 1))
    tokens = torch.randint(0, 12, (1, n), generator=torch.Generator().manual_seed(n))
    changed = torch.cat([tokens[:, :t], (tokens[:, t:] + 1) % 12], dim=1)
    honest, leaky = language_model(), language_model(causal=False)
    assert_close(honest(changed)[:, :t], honest(tokens)[:, :t], rtol=0, atol=1e-12)
    assert not torch.allclose(leaky(changed)[:, :t], leaky(tokens)[:, :t])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3))
@few
def test_padding_is_inert(lengths, extra):
    """However many, whatever stands there: real tokens get what they get alone."""
    n, attn = max(lengths) + extra, build()
    tokens = torch.tensor([[1] * k + [0] * (n - k) for k in lengths])
    x = random(len(lengths), n, 8)
    y = attn(x, x, padding_mask(tokens, 0))
    noise = attn(x + 9 * (tokens == 0)[..., None], x + 9 * (tokens == 0)[..., None], padding_mask(tokens, 0))
    for row, k in enumerate(lengths):
        alone = attn(x[row : row + 1, :k], x[row : row + 1, :k])[0]
        assert_close(y[row, :k], alone)
        assert_close(noise[row, :k], alone)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(["added", "rope", "both"]))
@few
def test_packed_equals_separate(lengths, positions):
    """Several texts in one row give what each gives in a row of its own. RoPE needs no packed positions."""
    attn = build(rotary=None if positions == "added" else rotate)
    words = random(1, sum(lengths), 8)
    segments = torch.tensor([[text for text, k in enumerate(lengths) for _ in range(k)]])
    places = sinusoidal(8, 8) * (positions != "rope")
    x = words + places[packed_positions(segments)]
    packed = attn(x, x, packing_mask(segments) & causal_mask(sum(lengths)))
    for text, k in enumerate(lengths):
        alone = words[:, segments[0] == text] + places[:k]
        assert_close(packed[:, segments[0] == text], attn(alone, alone, causal_mask(k)))


@given(st.integers(1, 6), st.integers(0, 4), st.data())
@few
def test_reach_is_a_matrix_power_and_what_gradients_show(n, n_layers, data):
    cells = st.lists(st.booleans(), min_size=n * n, max_size=n * n)
    mask = torch.tensor(data.draw(cells)).view(n, n)
    reached = reach(mask, n_layers)
    step = mask.double() + torch.eye(n)
    assert torch.equal(reached, torch.linalg.matrix_power(step, n_layers) > 0)
    torch.manual_seed(0)
    layers = [MultiHeadAttention(d_model=8, n_heads=2) for _ in range(n_layers)]

    def stack(x):
        for layer in layers:
            x = x + layer(x, x, mask)
        return x

    assert torch.equal(influence(stack, random(n, 8)) > 0, reached)


@pytest.mark.parametrize(("n_layers", "seen"), [(1, 3), (2, 5), (3, 7)])
def test_a_window_widens_by_itself_with_every_layer(n_layers, seen):
    middle = reach(sliding_window_mask(15, 2)[0, 0], n_layers)[7]
    assert middle.sum() == seen and middle[7 - n_layers] and not middle[7 - n_layers - 1]


def test_one_global_token_joins_all_in_two_layers():
    mask = (sliding_window_mask(30, 2) | global_mask(30, [0]))[0, 0]
    assert not reach(mask, 1).all() and reach(mask, 2).all()


def test_masks_for_reading_alone_are_their_own_reach():
    """Causal, prefix and packing masks: more layers let nobody see more."""
    packing = (packing_mask(torch.tensor([[0, 0, 1, 1, 1]])) & causal_mask(5))[0, 0]
    for mask in (causal_mask(5)[0, 0], prefix_mask(5, 2)[0, 0], packing):
        assert torch.equal(reach(mask, 5), mask)


def test_cached_decoding_needs_the_last_query_at_the_last_key():
    attn, x = build(rotary=rotate), random(1, 6, 8)
    whole = attn(x, x, causal_mask(6))
    for new in (1, 2, 5):  # that many newest tokens ask all keys
        assert_close(attn(x[:, -new:], x, causal_mask(new, 6)), whole[:, -new:])
    top_left = torch.ones(2, 6, dtype=torch.bool).tril()
    assert not torch.allclose(attn(x[:, -2:], x, top_left), whole[:, -2:])


@pytest.mark.parametrize("causal", [True, False])
def test_influence_finds_what_a_change_finds(causal):
    model, tokens = language_model(causal=causal), torch.tensor([[3, 1, 4, 1, 5, 9]])
    x = model.embedded(tokens)[0]
    found = influence(model.through, x) > 0
    for s in range(6):
        moved = x.clone()
        moved[s] += random(16)
        change = (model.through(moved[None]) - model.through(x[None]))[0].abs().amax(-1)
        assert torch.equal(change > 1e-12, found[:, s])
    assert found.triu(1).any() != causal


def test_influence_overlooks_no_output_whose_entries_sum_to_the_same_always():
    """As after a layer norm: the plain sum of an output's entries would have no slope."""
    found = influence(lambda y: F.layer_norm(y.cumsum(1), (4,)), random(3, 4)) > 1e-3
    assert torch.equal(found, causal_mask(3)[0, 0])


def test_influence_leaves_its_input_alone_and_takes_any_width():
    x = random(3, 2)
    before = x.clone()
    assert influence(lambda y: y.sum(-1).cumsum(1), x).shape == (3, 3)  # an output of (1, T)
    assert influence(lambda y: y[:, :2, None] * torch.ones(4, 1), x).shape == (2, 3)
    assert torch.equal(x, before) and x.grad is None and not x.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_error_is_at_most_twice_that_of_pytorch_s_boolean_mask(dtype):
    q, k, v = (random(1, 2, 6, 4, seed=s) for s in range(3))
    mask = causal_mask(6)
    exact = F.scaled_dot_product_attention(q, k, v, mask)
    q, k, v = (t.to(dtype) for t in (q, k, v))
    additive = to_additive(mask, dtype)
    assert additive.dtype == dtype and to_additive(mask).dtype == torch.float64
    plain = (F.scaled_dot_product_attention(q, k, v, mask).double() - exact).abs().max()
    error = (F.scaled_dot_product_attention(q, k, v, additive).double() - exact).abs().max()
    assert error <= 2 * plain


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, on Python 3.13.0 alone
def test_masks_compile_into_one_graph_with_the_attention_that_uses_them():
    def call(q, k, v, tokens, segments):
        n = q.shape[-2]
        mask = (sliding_window_mask(n, 2) | global_mask(n, [0])) & prefix_mask(n, 2)
        mask = mask & causal_mask(n) & padding_mask(tokens, 0) & packing_mask(segments)
        return attention(q, k, v, mask, bias=to_additive(mask))[0] + packed_positions(segments)[..., None]

    q, k, v = (random(1, 1, 5, 4, seed=s) for s in range(3))
    inputs = (q, k, v, torch.tensor([[1, 2, 3, 4, 0]]), torch.tensor([[0, 0, 1, 1, 1]]))
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*inputs), call(*inputs))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: causal_mask(-1), ValueError, "0 or more queries and keys, got -1 and -1"),
        (lambda: causal_mask(2, -3), ValueError, "got 2 and -3"),
        (lambda: padding_mask(torch.zeros(2, 3), 0), TypeError, "whole-number ids, got torch.float64"),
        (lambda: padding_mask(torch.ones(2, 3).bool(), 0), TypeError, "got torch.bool"),
        (lambda: padding_mask(torch.tensor([1, 2]), 0), ValueError, r"axes \(B, S\), got shape \(2,\)"),
        (lambda: sliding_window_mask(-2, 4), ValueError, "0 or more, got -2 and 4"),
        (lambda: sliding_window_mask(4, -2), ValueError, "got 4 and -2"),
        (lambda: global_mask(4, [0, 4]), ValueError, r"lie in 0 to 3, got \[0, 4\]"),
        (lambda: global_mask(4, [-1]), ValueError, r"got \[-1\]"),
        (lambda: global_mask(2, [True, False]), TypeError, r"not a table of booleans; got \[True, False\]"),
        (lambda: global_mask(-4, []), ValueError, "n must be 0 or more, got -4"),
        (lambda: prefix_mask(4, 5), ValueError, "from 0 to n=4, got 5"),
        (lambda: prefix_mask(4, -1), ValueError, "got -1"),
        (lambda: packing_mask(torch.tensor([0, 1])), ValueError, r"axes \(B, T\), got shape \(2,\)"),
        (lambda: packed_positions(torch.tensor([0, 1])), ValueError, r"axes \(B, T\), got shape \(2,\)"),
        (lambda: to_additive(torch.ones(2, 2)), TypeError, "may attend; got torch.float64"),
        (lambda: reach(torch.ones(2, 2), 1), TypeError, "may attend; got torch.float64"),
        (lambda: reach(causal_mask(2), 1), ValueError, r"square table \(T, T\), got \(1, 1, 2, 2\)"),
        (lambda: reach(causal_mask(2, 3)[0, 0], 1), ValueError, r"got \(2, 3\)"),
        (lambda: reach(causal_mask(2)[0, 0], -1), ValueError, "0 or more, got -1"),
    ],
)
def test_bad_input_says_what_was_wrong(call, error, match):
    with pytest.raises(error, match=match):
        call()
