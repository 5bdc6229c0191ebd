"""Parity with PyTorch and Hugging Face in float64, properties, one example by hand, low precision, errors."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from tests.conftest import gradients
from transformer_lab.feed_forward import (
    ACTIVATIONS,
    FeedForward,
    GatedFeedForward,
    MixtureOfExperts,
    SwiGLU,
    gated_width,
)

few = settings(max_examples=30, deadline=None)
gates = st.sampled_from(sorted(ACTIVATIONS))


@pytest.fixture(autouse=True)
def float64():  # tight tolerances: a real error cannot hide in round-off
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def plain(d_model=8, d_ff=12, seed=0, **kw):
    torch.manual_seed(seed)
    return FeedForward(d_model=d_model, d_ff=d_ff, **kw).eval()


def gated(d_model=8, d_ff=12, activation="silu"):
    torch.manual_seed(0)
    return GatedFeedForward(d_model=d_model, d_ff=d_ff, activation=activation)


def experts(d_model=8, d_ff=6, n_experts=4, top_k=2, seed=0):
    torch.manual_seed(seed)
    return MixtureOfExperts(d_model=d_model, d_ff=d_ff, n_experts=n_experts, top_k=top_k)


def tokens(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def copied(theirs, weights):
    """The other's module with copies of our weights, by its names for them."""
    theirs = theirs.double().eval()
    with torch.no_grad():
        for name, weight in weights.items():
            theirs.get_parameter(name).copy_(weight)
    return theirs


def in_pairs(ours, theirs, x, weights):
    """Outputs, gradients of the input, and of each weight by the other's name."""
    (a, b), names = (ours(x), theirs(x)), list(weights)
    ga, gb = gradients(a, x, *weights.values()), gradients(b, x, *(theirs.get_parameter(n) for n in names))
    pairs = zip(
        ["gradient of x", *(f"gradient of {n}" for n in names)], zip(ga, gb, strict=True), strict=True
    )
    return {"output": (a, b)} | dict(pairs)


def gate_up_down(ours, gate="gate_proj", up="up_proj", down="down_proj"):
    parts = {gate: ours.gate_proj, up: ours.up_proj, down: ours.down_proj}
    return {f"{name}.weight": part.weight for name, part in parts.items()}


# --- the plain network ---------------------------------------------------------------------------


def test_the_chapter_s_example_by_hand():
    """Two numbers in, three hidden, two out; the middle hidden unit says no and hands on nothing."""
    network = plain(2, 3)
    with torch.no_grad():
        network.up_proj.weight.copy_(torch.tensor([[1.0, 1], [-1, 0], [0, 2]]))  # a row per hidden unit
        network.up_proj.bias.copy_(torch.tensor([0.0, 1, -3]))
        network.down_proj.weight.copy_(torch.tensor([[1.0, 5, 2], [0, 5, -1]]))
        network.down_proj.bias.copy_(torch.tensor([0.0, 10]))
    x = torch.tensor([2.0, 3.0])
    assert_close(network.hidden(x), torch.tensor([5.0, 0.0, 3.0]))  # of 5, -1, 3
    assert_close(network(x), torch.tensor([5 + 2 * 3.0, 10 - 3.0]))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_parity_with_pytorch_s_encoder_layer(activation, parity):
    """Its feed-forward part alone: linear1, the activation, linear2."""
    ours, x = plain(activation=activation), tokens(2, 5, 8)
    weights = {
        "linear1.weight": ours.up_proj.weight,
        "linear1.bias": ours.up_proj.bias,
        "linear2.weight": ours.down_proj.weight,
        "linear2.bias": ours.down_proj.bias,
    }
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, activation=activation, batch_first=True)
    theirs = copied(layer, weights)
    theirs.forward = theirs._ff_block
    if activation == "relu":
        peer = "torch: nn.TransformerEncoderLayer (ReLU)"
    else:
        peer = "torch: nn.TransformerEncoderLayer (GELU)"
    parity("feed_forward.FeedForward", peer, in_pairs(ours, theirs, x, weights))


def test_parity_with_two_convolutions_of_width_1(parity):
    """As section 3.3 of Vaswani et al. says; PyTorch's convolutions want the tokens last."""
    ours, x = plain(), tokens(2, 5, 8)
    up, down = nn.Conv1d(8, 12, kernel_size=1).double(), nn.Conv1d(12, 8, kernel_size=1).double()
    with torch.no_grad():
        for theirs, mine in ((up, ours.up_proj), (down, ours.down_proj)):
            theirs.weight.copy_(mine.weight[..., None])
            theirs.bias.copy_(mine.bias)
    a, b = ours(x), down(up(x.mT).relu()).mT
    ga = gradients(a, x, ours.up_proj.weight, ours.up_proj.bias, ours.down_proj.weight, ours.down_proj.bias)
    gb = gradients(b, x, up.weight, up.bias, down.weight, down.bias)
    names = ["gradient of x", *(f"gradient of {n}" for n in ("W_up", "b_up", "W_down", "b_down"))]
    pairs = {name: (p, q.view_as(p)) for name, p, q in zip(names, ga, gb, strict=True)}
    parity("feed_forward.FeedForward", "torch: nn.Conv1d(kernel_size=1)", {"output": (a, b)} | pairs)


@given(st.integers(1, 4), st.integers(1, 6), gates, st.data())
@few
def test_each_token_is_by_itself(B, T, activation, data):
    """Position-wise: changing one token changes that token's output and no other; order is carried along."""
    network, x = plain(activation=activation), tokens(B, T, 8).detach()
    t, order = data.draw(st.integers(0, T - 1)), torch.tensor(data.draw(st.permutations(range(T))))
    changed = x.clone()
    changed[:, t] += 1
    moved = (network(changed) != network(x)).any(-1)
    assert moved[:, t].all() and moved.sum() == B
    assert_close(network(x[:, order]), network(x)[:, order])
    assert_close(network(x[0, 0]), network(x)[0, 0])


@given(gates, st.integers(1, 5))
@few
def test_the_output_is_a_sum_of_values_weighted_by_the_hidden_units(activation, T):
    """The memory of Geva et al. (2021): rows of W_up are keys, columns of W_down values."""
    network, x = plain(activation=activation), tokens(T, 8).detach()
    coefficients = ACTIVATIONS[activation](x @ network.up_proj.weight.T + network.up_proj.bias)
    total = sum(coefficients[:, f, None] * network.down_proj.weight[:, f] for f in range(12))
    assert_close(network.hidden(x), coefficients)
    assert_close(network(x), total + network.down_proj.bias)


def test_without_a_nonlinearity_two_matrices_are_one():
    network, x = plain(d_ff=3, activation="identity"), tokens(50, 8).detach()
    one = network.down_proj.weight @ network.up_proj.weight
    shift = network.down_proj.weight @ network.up_proj.bias + network.down_proj.bias
    assert_close(network(x), x @ one.T + shift)
    assert torch.linalg.matrix_rank(one) == 3  # no more than the narrower of the two


@given(st.integers(2, 12), st.integers(0, 5))
@few
def test_with_relu_it_is_piecewise_linear_with_a_knot_a_hidden_unit_at_most(d_ff, seed):
    network = plain(1, d_ff, seed=seed)
    knots = (-network.up_proj.bias / network.up_proj.weight[:, 0]).detach().sort().values
    for low, high in pairwise(knots):
        x = torch.stack([low, (low + high) / 2, high])[:, None]
        y = network(x)[:, 0]
        assert_close(y[1], (y[0] + y[2]) / 2)


def test_gradients_pass_the_numerical_check():
    x = tokens(2, 4)
    for network in (plain(4, 5, activation="gelu"), gated(4, 5), experts(4, 3)):
        assert torch.autograd.gradcheck(network, (x,))


def test_dropout_acts_in_training_only_and_on_hidden_numbers():
    network, x = plain(dropout=0.5), tokens(1, 6, 8).detach()
    assert_close(network(x), plain()(x))
    network.train()
    assert not torch.equal(network(x), network(x))
    with torch.no_grad():
        network.down_proj.weight.zero_()  # what is dropped stands before it: the bias always arrives
    assert_close(network(x), network.down_proj.bias.expand(1, 6, 8))


def test_every_activation_is_another_and_is_what_its_name_says():
    x = torch.linspace(-3, 3, 13)
    known = {
        "relu": x.clamp(min=0),
        "gelu": x * torch.distributions.Normal(0.0, 1.0).cdf(x),
        "silu": x / (1 + (-x).exp()),
        "sigmoid": 1 / (1 + (-x).exp()),
        "identity": x,
    }
    assert known.keys() == ACTIVATIONS.keys()
    for name, values in known.items():
        assert_close(ACTIVATIONS[name](x), values)


# --- gated kin -----------------------------------------------------------------------------------


def test_parity_with_llama_s_swiglu(parity):
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP

    torch.manual_seed(0)
    ours, x = SwiGLU(d_model=8, d_ff=12), tokens(2, 5, 8)
    weights = gate_up_down(ours)
    theirs = copied(
        LlamaMLP(LlamaConfig(hidden_size=8, intermediate_size=12, num_attention_heads=2)), weights
    )
    parity("feed_forward.SwiGLU", "transformers: LlamaMLP", in_pairs(ours, theirs, x, weights))


@pytest.mark.parametrize(
    ("activation", "name"),
    [("gelu", "feed_forward.GatedFeedForward (GEGLU)"), ("relu", "feed_forward.GatedFeedForward (ReGLU)")],
)
def test_parity_with_t5_s_gated_network(activation, name, parity):
    """Its "gated-gelu", as Gemma's, is the tanh approximation unless told otherwise, as here."""
    from transformers.models.t5.modeling_t5 import T5Config, T5DenseGatedActDense

    ours, x = gated(activation=activation), tokens(2, 5, 8)
    weights = gate_up_down(ours, "wi_0", "wi_1", "wo")
    config = T5Config(d_model=8, d_ff=12, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    config.dense_act_fn = activation
    theirs = copied(T5DenseGatedActDense(config), weights)
    pairs = in_pairs(ours, theirs, x, weights)
    parity(name, "transformers: T5DenseGatedActDense", pairs)


def test_parity_with_pytorch_s_glu(parity):
    """F.glu takes both halves in one tensor and puts the sigmoid on the second."""
    ours, x = gated(activation="sigmoid"), tokens(2, 5, 8)
    parts = (ours.gate_proj.weight, ours.up_proj.weight, ours.down_proj.weight)
    gate, up, down = (p.detach().clone().requires_grad_() for p in parts)
    a, b = ours(x), F.linear(F.glu(F.linear(x, torch.cat([up, gate]))), down)
    names = ["gradient of x", *(f"gradient of W_{n}" for n in ("gate", "up", "down"))]
    both = zip(gradients(a, x, *parts), gradients(b, x, gate, up, down), strict=True)
    pairs = {"output": (a, b)} | dict(zip(names, both, strict=True))
    parity("feed_forward.GatedFeedForward (GLU)", "torch: F.glu", pairs)


def test_the_bilinear_layer_is_of_second_degree():
    network, x = gated(activation="identity"), tokens(3, 8).detach()
    assert_close(network(2 * x), 4 * network(x))
    assert_close(network(-x), network(x))


def test_swiglu_is_the_gated_network_with_silu():
    torch.manual_seed(0)
    named, x = SwiGLU(d_model=8, d_ff=12), tokens(3, 8)
    assert_close(named(x), gated(activation="silu")(x))
    assert not torch.allclose(named(x), gated(activation="gelu")(x))


@given(st.integers(1, 3000), st.integers(1, 300))
@few
def test_gated_width_is_two_thirds_rounded_up(d_ff, multiple_of):
    width = gated_width(d_ff, multiple_of)
    assert width % multiple_of == 0
    assert width >= 2 * d_ff / 3 > width - multiple_of


@pytest.mark.parametrize(("d_model", "d_ff"), [(4096, 11008), (5120, 13824), (6656, 17920), (8192, 22016)])
def test_gated_width_gives_the_widths_of_llama(d_model, d_ff):
    assert gated_width(4 * d_model, multiple_of=256) == d_ff


@pytest.mark.parametrize("kv_heads", [4, 1])
def test_a_layer_of_llama_has_the_weights_of_the_chapter_s_formula(kv_heads):
    """2 D D + 2 D D_kv for attention, 3 D F for the feed-forward network, 2 D for the norms."""
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaDecoderLayer

    config = LlamaConfig(
        hidden_size=8, intermediate_size=12, num_attention_heads=4, num_key_value_heads=kv_heads
    )
    layer = LlamaDecoderLayer(config, layer_idx=0)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 64 + 2 * 8 * 2 * kv_heads + 3 * 8 * 12 + 16


# --- experts -------------------------------------------------------------------------------------


def by_loop(ours, x):
    """One token after the other, as the formula says it: the reference."""
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        scores = ours.router.weight @ token
        best = scores.argsort(descending=True)[: ours.top_k]
        weights = scores[best].exp() / scores[best].exp().sum()
        rows.append(sum(w * ours.experts[e](token) for w, e in zip(weights, best.tolist(), strict=True)))
    return torch.stack(rows).view_as(x)


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.data())
@few
def test_each_token_gets_its_experts_weighted_mean(B, T, E, data):
    ours, x = experts(n_experts=E, top_k=data.draw(st.integers(1, E))), tokens(B, T, 8).detach()
    assert_close(ours(x), by_loop(ours, x))
    assert_close(ours(x[0, 0]), ours(x)[0, 0])
    weights, chosen = ours.route(x)
    assert_close(weights.sum(-1), torch.ones(B, T))
    assert (weights.diff(dim=-1) <= 0).all()  # best first
    assert all(len(set(row)) == ours.top_k for row in chosen.flatten(0, 1).tolist())


def test_parity_with_mixtral_s_sparse_block(parity):
    from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

    ours, x = experts(), tokens(2, 5, 8)
    config = MixtralConfig(
        hidden_size=8, intermediate_size=6, num_local_experts=4, num_experts_per_tok=2, num_attention_heads=2
    )
    theirs = (
        MixtralSparseMoeBlock(config).double().eval()
    )  # it keeps gate and up of all experts in one tensor
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.weight)
        for e, one in enumerate(ours.experts):
            theirs.experts.gate_up_proj[e].copy_(torch.cat([one.gate_proj.weight, one.up_proj.weight]))
            theirs.experts.down_proj[e].copy_(one.down_proj.weight)
    a, b = ours(x), theirs(x)
    gate = [one.gate_proj.weight for one in ours.experts]
    up = [one.up_proj.weight for one in ours.experts]
    down = [one.down_proj.weight for one in ours.experts]
    gx, gr, *rest = gradients(a, x, ours.router.weight, *gate, *up, *down)
    of = [theirs.gate.weight, theirs.experts.gate_up_proj, theirs.experts.down_proj]
    tx, tr, tgu, td = gradients(b, x, *of)
    gu = torch.stack([torch.cat([rest[e], rest[e + 4]]) for e in range(4)])
    pairs = {
        "output": (a, b),
        "gradient of x": (gx, tx),
        "gradient of the router": (gr, tr),
        "gradient of gate and up": (gu, tgu),
        "gradient of down": (torch.stack(rest[8:]), td),
    }
    why = "its router takes the softmax in float32"
    parity(
        "feed_forward.MixtureOfExperts", "transformers: MixtralSparseMoeBlock", pairs, within=1e-6, why=why
    )


def test_parity_with_mixtral_s_balance_loss_which_is_top_k_times_ours(parity):
    """Theirs counts choices per token: its shares sum to top_k, ours to 1."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    ours, x = experts(), tokens(40, 8)
    a = ours.balance_loss(x)
    b = load_balancing_loss_func((ours.router(x),), num_experts=4, top_k=2).double() / 2
    both = zip(gradients(a, x, ours.router.weight), gradients(b, x, ours.router.weight), strict=True)
    pairs = {"value": (a, b)} | dict(zip(["gradient of x", "gradient of the router"], both, strict=True))
    peer = "transformers: Mixtral's load_balancing_loss_func / top_k"
    why = "it adds up the probabilities in float32"
    parity("feed_forward.MixtureOfExperts.balance_loss", peer, pairs, within=1e-6, why=why)


def test_parity_with_the_balance_loss_of_switch_transformers_for_one_expert_a_token(parity):
    from transformers.models.switch_transformers.modeling_switch_transformers import load_balancing_loss_func

    ours, x = experts(top_k=1), tokens(1, 40, 8)
    a, scores = ours.balance_loss(x), ours.router(x)
    b = load_balancing_loss_func(scores.softmax(-1), scores.argmax(-1))
    both = zip(gradients(a, x, ours.router.weight), gradients(b, x, ours.router.weight), strict=True)
    pairs = {"value": (a, b)} | dict(zip(["gradient of x", "gradient of the router"], both, strict=True))
    peer = "transformers: SwitchTransformers' load_balancing_loss_func"
    parity("feed_forward.MixtureOfExperts.balance_loss", peer, pairs, within=1e-6, why="it counts in float32")


def test_experts_that_no_token_chose_get_a_gradient_of_exactly_zero():
    ours, x = experts(n_experts=6, top_k=2), tokens(1, 8).detach()
    ours(x).square().sum().backward()
    chosen = set(ours.route(x)[1].flatten().tolist())
    assert len(chosen) == 2
    for e, one in enumerate(ours.experts):
        moved = any((p.grad != 0).any() for p in one.parameters())
        assert moved == (e in chosen)
    unchosen = [e for e in range(6) if e not in chosen]
    assert (ours.router.weight.grad[unchosen] == 0).all()  # the softmax is over the chosen ones only


def test_with_one_expert_a_token_the_router_learns_nothing_from_the_output():
    ours, x = experts(top_k=1), tokens(9, 8).detach()
    ours(x).square().sum().backward()
    assert ours.router.weight.grad.abs().max() == 0
    ours.balance_loss(x).backward()
    assert ours.router.weight.grad.abs().max() > 0


def test_balance_loss_is_1_when_all_are_used_alike_and_E_when_one_does_everything():
    even, lone = experts(d_model=4, top_k=1), experts(d_model=4, top_k=1)
    with torch.no_grad():
        even.router.weight.copy_(torch.eye(4))
        lone.router.weight.copy_(torch.zeros(4, 4))
        lone.router.weight[2] = 100.0
    x = 50 * torch.eye(4)
    assert_close(even.balance_loss(x), torch.tensor(1.0))
    assert_close(lone.balance_loss(x), torch.tensor(4.0))
    assert_close(even.load(x), torch.full((4,), 0.25))
    assert_close(lone.load(x), torch.tensor([0.0, 0, 1, 0]))
    assert_close(even.load(x[0]), torch.tensor([1.0, 0, 0, 0]))
    assert_close(lone.balance_loss(x[0]), torch.tensor(4.0))


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 9))
@few
def test_loads_sum_to_1(n, top_k, seed):
    ours = experts(top_k=top_k, seed=seed)
    load = ours.load(tokens(n, 8, seed=seed))
    assert_close(load.sum(), torch.tensor(1.0))
    assert load.max() <= 1 / top_k + 1e-12  # a token does not choose an expert twice


def test_a_token_uses_the_weights_that_its_experts_have():
    ours = experts(d_model=8, d_ff=6, n_experts=5, top_k=2)
    assert ours.parameters_per_token() == 5 * 8 + 2 * 3 * 8 * 6
    assert sum(p.numel() for p in ours.parameters()) == 5 * 8 + 5 * 3 * 8 * 6
    assert experts(top_k=4).parameters_per_token() == sum(p.numel() for p in experts().parameters())


# --- every parameter, low precision, compiled, on a GPU --------------------------------------------


@pytest.mark.parametrize("network", [plain, gated, experts])
def test_every_weight_changes_the_result(network):
    module, x = network(), tokens(40, 8).detach()
    before = module(x)
    for name, weight in module.named_parameters():
        with torch.no_grad():
            kept = weight.clone()
            weight.mul_(2)
            assert not torch.allclose(module(x), before), name
            weight.copy_(kept)


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 1), (4, 3), (3, 2)])
def test_number_and_choice_of_experts_change_the_result(n_experts, top_k):
    x = tokens(5, 8).detach()
    assert not torch.allclose(experts(n_experts=n_experts, top_k=top_k)(x), experts()(x))


def in_plain_pytorch(ours, x):
    """The same weights through nothing but PyTorch's own functions."""
    if isinstance(ours, FeedForward):
        hidden = F.linear(x, ours.up_proj.weight, ours.up_proj.bias).relu()
        return F.linear(hidden, ours.down_proj.weight, ours.down_proj.bias)
    gate, up = F.linear(x, ours.gate_proj.weight), F.linear(x, ours.up_proj.weight)
    return F.linear(F.silu(gate) * up, ours.down_proj.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("network", [plain, gated])
def test_low_precision_error_is_at_most_twice_that_of_plain_pytorch(network, dtype):
    ours, x = network(), tokens(2, 16, 8).detach()
    exact = ours(x)
    ours, x = ours.to(dtype), x.to(dtype)
    error = (ours(x).double() - exact).abs().max()
    assert error <= 2 * (in_plain_pytorch(ours, x).double() - exact).abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_experts_in_low_precision_are_at_most_twice_as_far_off_as_the_loop(dtype):
    ours, x = experts(top_k=4), tokens(16, 8).detach()  # all chosen: round-off cannot choose others
    exact = by_loop(ours, x)
    ours, x = ours.to(dtype), x.to(dtype)
    error = (ours(x).double() - exact).abs().max()
    assert error <= 2 * (by_loop(ours, x).double() - exact).abs().max()


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, on Python 3.13.0 alone
@pytest.mark.parametrize("network", [plain, gated])
def test_it_compiles_into_one_graph(network):
    """Experts do not: how many tokens chose one is known only when the numbers are there."""
    ours, x = network(), tokens(2, 5, 8).detach()
    assert_close(torch.compile(ours, fullgraph=True, backend="aot_eager")(x), ours(x))


@pytest.mark.gpu
@pytest.mark.parametrize("network", [plain, gated, experts])
def test_cuda_agrees_with_the_cpu(network):
    x = tokens(2, 5, 8).detach()
    assert_close(network().cuda()(x.cuda()).cpu(), network()(x))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: plain(d_model=0), "d_model and d_ff must be 1 or more, got 0 and 12"),
        (lambda: plain(d_ff=-1), "got 8 and -1"),
        (lambda: plain(activation="tanh"), "must be one of relu, .*identity; got 'tanh'"),
        (lambda: plain(dropout=1.0), "probability below 1, got 1.0"),
        (lambda: plain(dropout=-0.1), "probability below 1, got -0.1"),
        (lambda: plain()(torch.zeros(2, 7)), r"x must end in d_model=8, got \(2, 7\)"),
        (lambda: plain().hidden(torch.tensor(1.0)), r"x must end in d_model=8, got \(\)"),
        (lambda: gated(d_ff=0), "got 8 and 0"),
        (lambda: gated(activation="swish"), "got 'swish'"),
        (lambda: gated()(torch.zeros(2, 9)), r"x must end in d_model=8, got \(2, 9\)"),
        (lambda: SwiGLU(d_model=0, d_ff=3), "got 0 and 3"),
        (lambda: gated_width(0), "must be 1 or more, got 0 and 1"),
        (lambda: gated_width(8, multiple_of=0), "got 8 and 0"),
        (lambda: experts(top_k=0), "top_k must be from 1 to n_experts=4, got 0"),
        (lambda: experts(top_k=5), "from 1 to n_experts=4, got 5"),
        (lambda: experts(n_experts=0), "from 1 to n_experts=0, got 2"),
        (lambda: experts(d_ff=0), "got 8 and 0"),
        (lambda: experts()(torch.zeros(2, 7)), r"x must end in d_model=8, got \(2, 7\)"),
        (lambda: experts().route(torch.zeros(2, 7)), r"got \(2, 7\)"),
        (lambda: experts().load(torch.zeros(2, 7)), r"got \(2, 7\)"),
        (lambda: experts().balance_loss(torch.zeros(2, 6)), r"d_model=8, got \(2, 6\)"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
