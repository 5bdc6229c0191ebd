"""Parity with PyTorch and Hugging Face in float64, properties, examples by hand, low precision, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from tests.conftest import gradients
from transformer_lab.attention import MultiHeadAttention
from transformer_lab.feed_forward import FeedForward
from transformer_lab.masks import causal_mask
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig
from transformer_lab.norms import LayerNorm, Residual, RMSNorm, token_diversity


@pytest.fixture(autouse=True)
def float64():  # tight tolerances: a real error cannot hide in round-off
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape, seed=1):
    """Vectors that are not at home yet: mean and size differ from 0 and 1, and from token to token."""
    return random(*shape, seed=seed) * 3 + random(*shape[:-1], 1, seed=seed + 1) + 0.5


def stirred(norm, seed=3):
    """The norm with weights, and biases where it has them, that are not 1 and 0."""
    with torch.no_grad():
        for i, parameter in enumerate(norm.parameters()):
            parameter += random(len(parameter), seed=seed + i) / 2
    return norm


def in_all(norm, x, weights):
    """Output and the gradients of input and weights, by name."""
    x = x.clone().requires_grad_()
    y = norm(x)
    return {"output": y} | dict(
        zip(("gradient of x", *weights), gradients(y, x, *weights.values()), strict=True)
    )


def pairs(a, b):
    return {name: (a[name], b[name]) for name in a}


norms = pytest.mark.parametrize("make", [LayerNorm, RMSNorm])
few = settings(max_examples=30, deadline=None)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 9))


# --- the norms, by hand and against others -------------------------------------------------------


def test_the_chapter_s_example_by_hand():
    """-1, 7, 5, 5: mean 4, what is left -5, 3, 1, 1 with squares 36 = 4 * 9, mean square 100 / 4 = 25."""
    x = torch.tensor([[-1.0, 7.0, 5.0, 5.0]])
    assert_close(LayerNorm(4, eps=1e-30)(x), torch.tensor([[-5.0, 3.0, 1.0, 1.0]]) / 3)
    assert_close(RMSNorm(4, eps=1e-30)(x), x / 5)


def test_the_chapter_s_gradient_by_hand():
    x = torch.tensor([-1.0, 7.0, 5.0, 5.0], requires_grad=True)
    upstream = torch.tensor([1.0, 0.0, 0.0, 0.0])
    (gradient,) = torch.autograd.grad(LayerNorm(4, eps=1e-30)(x), x, upstream)
    assert_close(gradient, torch.tensor([1.0, 3.0, -2.0, -2.0]) / 54)


def test_layer_norm_equals_pytorch_s(parity):
    ours, theirs = stirred(LayerNorm(7)), nn.LayerNorm(7)
    theirs.load_state_dict(ours.state_dict())
    x = tokens(2, 3, 7)
    a, b = (
        in_all(norm, x, {"gradient of weight": norm.weight, "gradient of bias": norm.bias})
        for norm in (ours, theirs)
    )
    parity("norms.LayerNorm", "torch: nn.LayerNorm", pairs(a, b))

    def function(x):
        return F.layer_norm(x, (7,), theirs.weight, theirs.bias, ours.eps)

    c = in_all(function, x, {"gradient of weight": theirs.weight, "gradient of bias": theirs.bias})
    parity("norms.LayerNorm", "torch: F.layer_norm", pairs(a, c))


def test_rms_norm_equals_pytorch_s(parity):
    ours, theirs = stirred(RMSNorm(7)), nn.RMSNorm(7, eps=1e-6)
    theirs.load_state_dict(ours.state_dict())
    x = tokens(2, 3, 7)
    a, b = (in_all(norm, x, {"gradient of weight": norm.weight}) for norm in (ours, theirs))
    parity("norms.RMSNorm", "torch: nn.RMSNorm", pairs(a, b))


def test_rms_norm_equals_that_of_llama_and_of_t5(parity):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    ours, x = stirred(RMSNorm(7)), tokens(2, 3, 7)
    a = in_all(ours, x, {"gradient of weight": ours.weight})
    for theirs, peer, why in (
        (llama.LlamaRMSNorm(7, eps=1e-6), "transformers: LlamaRMSNorm", "forward() casts x to float32"),
        (
            t5.T5LayerNorm(7, eps=1e-6),
            "transformers: T5LayerNorm",
            "forward() takes the mean square in float32",
        ),
    ):
        theirs.double().load_state_dict(ours.state_dict())
        b = in_all(theirs, x, {"gradient of weight": theirs.weight})
        parity("norms.RMSNorm", peer, pairs(a, b), within=1e-6, why=why)


def test_t5_s_layer_norm_is_none():
    """It bears the name, and keeps the mean."""
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    x = tokens(2, 7)
    theirs = t5.T5LayerNorm(7)(x)
    assert_close(theirs, RMSNorm(7)(x), atol=1e-6, rtol=0)
    assert (theirs - LayerNorm(7)(x)).abs().max() > 0.1


@norms
def test_gradients_pass_the_numerical_check(make):
    assert torch.autograd.gradcheck(stirred(make(5)), (tokens(2, 5).requires_grad_(),))


# --- properties of the norms ---------------------------------------------------------------------


@given(shapes, st.floats(0.01, 1000), st.floats(-100, 100))
@few
def test_size_and_for_layer_norm_the_mean_of_what_comes_in_do_not_matter(shape, scale, shift):
    x, D = tokens(*shape), shape[-1]
    assert_close(RMSNorm(D, eps=1e-30)(scale * x), RMSNorm(D, eps=1e-30)(x))
    norm = LayerNorm(D, eps=1e-30)
    assert_close(norm(scale * x + shift), norm(x), atol=1e-7, rtol=1e-7)


@given(shapes)
@few
def test_what_comes_out_has_the_promised_moments(shape):
    x, D = tokens(*shape), shape[-1]
    y = LayerNorm(D, eps=1e-30)(x)
    assert_close(y.mean(-1), torch.zeros(shape[:-1]))
    assert_close(y.var(-1, correction=0), torch.ones(shape[:-1]))
    assert_close(RMSNorm(D, eps=1e-30)(x).square().mean(-1), torch.ones(shape[:-1]))


@norms
def test_each_token_is_normalised_by_itself(make):
    norm, x = make(6), tokens(2, 4, 6)
    changed = x.clone()
    changed[:, 2] = random(2, 6, seed=9)
    moved = (norm(changed) - norm(x)).abs().amax(-1) > 0
    assert moved.tolist() == [[False, False, True, False]] * 2
    assert_close(norm(x[0, 0]), norm(x)[0, 0])


@given(st.integers(2, 16), st.floats(0.1, 100), st.integers(0, 1000))
@few
def test_layer_norm_s_gradient_has_no_part_along_the_ones_and_none_along_its_result(D, scale, seed):
    x = (scale * random(3, D, seed=100 + seed)).requires_grad_()  # not the numbers that come back
    y = LayerNorm(D, eps=1e-30)(x)
    (gradient,) = gradients(y, x)
    gradient = gradient * x.std(-1, correction=0, keepdim=True)  # by its natural size
    assert_close(gradient.sum(-1), torch.zeros(3), atol=1e-9, rtol=0)
    assert_close((gradient * y).sum(-1), torch.zeros(3), atol=1e-9, rtol=0)
    assert D == 2 or (gradient.norm(dim=-1) > 1e-7).all()  # in two dimensions nothing is left


def test_rms_norm_s_gradient_has_no_part_along_x_but_one_along_the_ones():
    x = tokens(3, 6).requires_grad_()
    (gradient,) = gradients(RMSNorm(6, eps=1e-30)(x), x)
    assert_close((gradient * x).sum(-1), torch.zeros(3))
    assert (gradient.sum(-1).abs() > 1e-2).all()


@norms
@pytest.mark.parametrize("scale", [10.0, 0.1])
def test_an_input_ten_times_as_long_gets_a_tenth_of_the_gradient(make, scale):
    norm, x = stirred(make(6, eps=1e-30)), tokens(3, 6)
    near, far = x.clone().requires_grad_(), (scale * x).requires_grad_()
    (small,) = gradients(norm(near), near)
    (large,) = gradients(norm(far), far)
    assert_close(large, small / scale)


@norms
def test_every_parameter_changes_the_result(make):
    x = tokens(2, 6)
    plain = make(6)(x)
    assert not torch.allclose(make(6, eps=1.0)(x), plain)
    norm = make(6)
    assert all((p == (1 if name == "weight" else 0)).all() for name, p in norm.named_parameters())
    for name, parameter in norm.named_parameters():
        before = norm(x)
        with torch.no_grad():
            parameter[2] += 1
        moved = (norm(x) - before).abs().amax(0) > 0
        assert moved.tolist() == [False, False, True, False, False, False], name
    assert make(6).eps == {LayerNorm: 1e-5, RMSNorm: 1e-6}[make]


@norms
def test_equal_entries_and_zeros_stay_finite_in_values_and_gradients(make):
    """eps stands under the root: zeros give zeros, and a slope of weight / sqrt(eps), not of infinity."""
    for x in (torch.zeros(1, 4), torch.full((1, 4), 7.0)):
        x.requires_grad_()
        y = make(4)(x)
        (gradient,) = gradients(y, x)
        assert y.isfinite().all() and gradient.isfinite().all()
    zero = torch.zeros(1, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(make(4, eps=1e-4)(zero), zero, torch.tensor([[1.0, -1, 0, 0]]))
    assert_close(gradient, torch.tensor([[100.0, -100, 0, 0]]))


@norms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_error_is_at_most_twice_that_of_plain_pytorch(make, dtype):
    x = tokens(4, 32).to(dtype)
    exact = make(32)(x.double())
    theirs = {LayerNorm: nn.LayerNorm(32), RMSNorm: nn.RMSNorm(32, eps=1e-6)}[make].to(dtype)
    ours = make(32).to(dtype)(x)
    assert ours.dtype == dtype
    plain = (theirs(x).double() - exact).abs().max()
    assert (ours.double() - exact).abs().max() <= 2 * plain


@norms
def test_large_half_precision_numbers_do_not_overflow(make):
    x = (1000 * random(3, 16)).half()  # their squares are above 65504, the largest number of float16
    assert_close(make(16).half()(x).double(), make(16)(x.double()), atol=2e-3, rtol=2e-3)


@norms
@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, on Python 3.13.0 alone
def test_it_compiles_into_one_graph(make):
    for placement in ("pre", "post"):
        block = Residual(6, placement=placement, norm=lambda d: stirred(make(d)))
        compiled = torch.compile(lambda x, b=block: b(x, torch.tanh), fullgraph=True, backend="aot_eager")
        assert_close(compiled(tokens(2, 3, 6)), block(tokens(2, 3, 6), torch.tanh))


@norms
@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(make):
    norm, x = stirred(make(6)), tokens(2, 3, 6)
    on_cpu = Residual(6, norm=lambda d: norm)(x, torch.tanh)
    on_gpu = Residual(6, norm=lambda d: norm).cuda()(x.cuda(), torch.tanh)
    assert_close(on_gpu.cpu(), on_cpu)
    assert_close(token_diversity(x.cuda()).cpu(), token_diversity(x))


# --- residuals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["pre", "post", "none"])
@pytest.mark.parametrize("make", [LayerNorm, RMSNorm])
def test_each_placement_is_its_formula(placement, make):
    block, x = Residual(4, placement=placement, norm=lambda d: stirred(make(d))), tokens(2, 3, 4)
    f, norm = torch.tanh, block.norm
    wanted = {"pre": lambda: x + f(norm(x)), "post": lambda: norm(x + f(x)), "none": lambda: x + f(x)}
    assert_close(block(x, f), wanted[placement]())
    assert isinstance(norm, nn.Identity if placement == "none" else make)


def our_layer(placement):
    torch.manual_seed(0)
    parts = nn.ModuleDict(
        {
            "attention": MultiHeadAttention(d_model=8, n_heads=2),
            "feed_forward": FeedForward(d_model=8, d_ff=16),
            "around_attention": Residual(8, placement=placement, norm=lambda d: stirred(LayerNorm(d))),
            "around_feed_forward": Residual(8, placement=placement, norm=lambda d: stirred(LayerNorm(d), 5)),
        }
    )

    def forward(x, mask=None):
        x = parts["around_attention"](x, lambda h: parts["attention"](h, h, mask))
        return parts["around_feed_forward"](x, parts["feed_forward"])

    return parts, forward


def torch_twin(parts, norm_first):
    """PyTorch's encoder layer with a copy of our weights."""
    theirs = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    attention, feed_forward = parts["attention"], parts["feed_forward"]
    with torch.no_grad():
        for name in ("weight", "bias"):
            stacked = [getattr(getattr(attention, p), name) for p in ("q_proj", "k_proj", "v_proj")]
            getattr(theirs.self_attn, f"in_proj_{name}").copy_(torch.cat(stacked))
    theirs.self_attn.out_proj.load_state_dict(attention.out_proj.state_dict())
    theirs.linear1.load_state_dict(feed_forward.up_proj.state_dict())
    theirs.linear2.load_state_dict(feed_forward.down_proj.state_dict())
    theirs.norm1.load_state_dict(parts["around_attention"].norm.state_dict())
    theirs.norm2.load_state_dict(parts["around_feed_forward"].norm.state_dict())
    return theirs


@pytest.mark.parametrize(
    ("placement", "norm_first", "ours", "peer"),
    [
        (
            "pre",
            True,
            'norms.Residual(placement="pre")',
            "torch: nn.TransformerEncoderLayer(norm_first=True)",
        ),
        (
            "post",
            False,
            'norms.Residual(placement="post")',
            "torch: nn.TransformerEncoderLayer(norm_first=False)",
        ),
    ],
)
def test_a_layer_equals_pytorch_s_encoder_layer(parity, placement, norm_first, ours, peer):
    parts, forward = our_layer(placement)
    theirs = torch_twin(parts, norm_first)
    x = tokens(2, 5, 8)

    def weights(norm, attention, feed_forward):
        return {
            "gradient of the first norm's weight": norm.weight,
            "gradient of out_proj": attention.out_proj.weight,
            "gradient of down_proj": feed_forward.weight,
        }

    a = in_all(
        forward,
        x,
        weights(parts["around_attention"].norm, parts["attention"], parts["feed_forward"].down_proj),
    )
    b = in_all(theirs, x, weights(theirs.norm1, theirs.self_attn, theirs.linear2))
    parity(ours, peer, pairs(a, b))


def test_a_pre_norm_layer_equals_gpt_2_s_block(parity):
    gpt2 = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
    config = gpt2.GPT2Config(
        n_embd=8, n_head=2, n_inner=16, n_layer=1, activation_function="relu", attn_implementation="eager"
    )
    config.attn_pdrop = config.resid_pdrop = config.embd_pdrop = 0.0
    parts, forward = our_layer("pre")
    theirs = gpt2.GPT2Block(config, layer_idx=0).double()
    attention, feed_forward = parts["attention"], parts["feed_forward"]
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    with torch.no_grad():  # its matrices stand the other way round
        theirs.attn.c_attn.weight.copy_(torch.cat([p.weight for p in projections]).T)
        theirs.attn.c_attn.bias.copy_(torch.cat([p.bias for p in projections]))
        for copy, ours in (
            (theirs.attn.c_proj, attention.out_proj),
            (theirs.mlp.c_fc, feed_forward.up_proj),
            (theirs.mlp.c_proj, feed_forward.down_proj),
        ):
            copy.weight.copy_(ours.weight.T)
            copy.bias.copy_(ours.bias)
    theirs.ln_1.load_state_dict(parts["around_attention"].norm.state_dict())
    theirs.ln_2.load_state_dict(parts["around_feed_forward"].norm.state_dict())
    x, keep = tokens(2, 5, 8), causal_mask(5)
    hidden = torch.zeros(1, 1, 5, 5).masked_fill(~keep, -math.inf)

    def block(x):
        out = theirs(x, attention_mask=hidden)
        return out[0] if isinstance(out, tuple) else out

    first, second = parts["around_attention"].norm, parts["around_feed_forward"].norm
    names = ("gradient of the first norm's weight", "gradient of the second norm's weight")
    a = in_all(lambda x: forward(x, keep), x, dict(zip(names, (first.weight, second.weight), strict=True)))
    b = in_all(block, x, dict(zip(names, (theirs.ln_1.weight, theirs.ln_2.weight), strict=True)))
    parity('norms.Residual(placement="pre")', "transformers: GPT2Block", pairs(a, b))


@given(st.integers(1, 4), st.integers(0, 100))
@few
def test_the_stream_of_a_pre_norm_model_is_the_embedding_plus_all_writes(n_layers, seed):
    torch.manual_seed(seed)
    model = LanguageModel(LanguageModelConfig(vocab_size=9, d_model=8, n_heads=2, d_ff=16, n_layers=n_layers))
    writes = []

    def keep(module, inputs, output):
        writes.append(output)

    for layer in model.layers:
        layer.attention.register_forward_hook(keep)
        layer.feed_forward.register_forward_hook(keep)
    ids = torch.randint(9, (2, 5))
    assert_close(model.stream(ids), model.embedded(ids) + sum(writes))
    assert len(writes) == 2 * n_layers


def test_the_slope_of_a_pre_norm_layer_contains_the_identity():
    """A sub-layer that gives nothing leaves x and the gradient as they were, but not before a post-norm."""
    x = tokens(3, 4).requires_grad_()
    for placement, same in (("pre", True), ("none", True), ("post", False)):
        y = Residual(4, placement=placement)(x, lambda h: 0 * h)
        upstream = random(3, 4)
        (gradient,) = torch.autograd.grad(y, x, upstream)
        assert torch.allclose(y, x) is same and torch.allclose(gradient, upstream) is same


@pytest.mark.parametrize("placement", ["pre", "post", "none"])
def test_dropout_acts_on_what_the_sublayer_gives_and_in_training_only(placement):
    torch.manual_seed(0)
    block, x = Residual(50, placement=placement, norm=lambda d: nn.Identity(), dropout=0.5), tokens(4, 50)
    assert_close(block.eval()(x, torch.ones_like), x + 1)
    written = block.train()(x, torch.ones_like) - x
    kept = written.abs() > 1e-9
    assert 0.3 < kept.double().mean() < 0.7
    assert_close(written[kept], torch.full_like(written[kept], 2.0))


# --- token diversity -----------------------------------------------------------------------------


def test_token_diversity_by_hand():
    """Tokens (3, 1) and (1, 3): mean (2, 2), what is left (1, -1) and (-1, 1): sqrt(4) / sqrt(20)."""
    assert_close(token_diversity(torch.tensor([[3.0, 1.0], [1.0, 3.0]])).item(), math.sqrt(4 / 20))
    assert_close(token_diversity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 1.0)


@given(st.integers(1, 3), st.integers(1, 6), st.floats(0.01, 100), st.permutations(range(4)))
@few
def test_token_diversity_is_a_share_that_size_and_order_do_not_change(B, D, scale, order):
    x = tokens(B, 4, D)
    diversity = token_diversity(x)
    assert diversity.shape == (B,) and ((0 <= diversity) & (diversity <= 1)).all()
    assert_close(token_diversity(scale * x[:, order]), diversity)
    assert_close(token_diversity(x[0]), diversity[0])


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: LayerNorm(0), "d_model must be 1 or more, got 0"),
        (lambda: RMSNorm(-2), "d_model must be 1 or more, got -2"),
        (lambda: LayerNorm(4, eps=0.0), "eps must be positive, got 0.0"),
        (lambda: RMSNorm(4, eps=-1.0), "eps must be positive, got -1.0"),
        (lambda: LayerNorm(4, eps=math.nan), "eps must be positive, got nan"),
        (lambda: LayerNorm(4)(torch.zeros(4, 3)), r"x must end in d_model=4, got \(4, 3\)"),
        (lambda: RMSNorm(4)(torch.zeros(2, 1)), r"x must end in d_model=4, got \(2, 1\)"),
        (lambda: RMSNorm(4)(torch.tensor(1.0)), r"x must end in d_model=4, got \(\)"),
        (
            lambda: Residual(4, placement="first"),
            "placement must be 'pre', 'post' or 'none', got 'first'",
        ),
        (lambda: Residual(4, dropout=1.0), "dropout must be a probability below 1, got 1.0"),
        (lambda: Residual(4, dropout=-0.1), "dropout must be a probability below 1, got -0.1"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
