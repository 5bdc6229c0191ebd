"""Layers that carry news over a distance: what they are, and how they are measured."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from transformer_lab.attention import attention
from transformer_lab.masks import causal_mask
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig
from transformer_lab.why_attention import (
    NAMES,
    OPEN,
    Blocks,
    CausalAttention,
    DilatedConvolutions,
    Recurrent,
    gradient_by_distance,
    longest_chain,
    make_layer,
    path_length,
    reads_from,
)

every_layer = pytest.mark.parametrize("name", NAMES)


def layer(name, d_model=8, reach=16, seed=0):
    torch.manual_seed(seed)
    return make_layer(name, d_model=d_model, reach=reach).double()


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the layers ------------------------------------------------------------------------------------


def test_a_recurrence_is_its_formula_step_by_step():
    rnn, x = layer("tanh RNN"), tokens(2, 5, 8)
    part = rnn.recurrence
    h, rows = torch.zeros(2, 8).double(), []
    for t in range(5):
        inward = x[:, t] @ part.weight_ih_l0.T + part.bias_ih_l0
        h = torch.tanh(inward + h @ part.weight_hh_l0.T + part.bias_hh_l0)
        rows.append(h)
    assert_close(rnn(x), torch.stack(rows, dim=1))


def test_an_open_gate_is_the_forget_gate_and_lets_nearly_all_stand():
    """With weights of 0 a cell is multiplied by sigmoid(OPEN) at every step: from 1, by hand."""
    lstm = layer("LSTM, gate open")
    part = lstm.recurrence
    with torch.no_grad():
        part.weight_ih_l0.zero_()
        part.weight_hh_l0.zero_()
        for bias in (part.bias_ih_l0, part.bias_hh_l0):
            bias[:8] = -100.0  # nothing comes in
    ones = torch.ones(1, 1, 8).double()
    cell = part(tokens(1, 4, 8), (0 * ones, ones))[1][1]
    assert_close(cell, ones / (1 + math.exp(-OPEN)) ** 4)


def test_an_open_gate_changes_nothing_but_the_bias_of_one_gate():
    default, opened = layer("LSTM").recurrence, layer("LSTM, gate open").recurrence
    assert_close(opened.weight_hh_l0, default.weight_hh_l0)
    forget = slice(8, 16)
    assert_close(opened.bias_ih_l0[forget] + opened.bias_hh_l0[forget], torch.full((8,), OPEN).double())
    assert_close(opened.bias_ih_l0[16:], default.bias_ih_l0[16:])
    assert_close(opened.bias_ih_l0[:8], default.bias_ih_l0[:8])


def test_an_orthogonal_start_keeps_lengths():
    weight = layer("orthogonal RNN").recurrence.weight_hh_l0
    assert_close(weight @ weight.T, torch.eye(8).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("reach", "n_layers"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (64, 6), (65, 7)])
def test_convolutions_are_as_many_as_it_takes(reach, n_layers):
    assert len(DilatedConvolutions(d_model=2, reach=reach).layers) == n_layers


def test_convolutions_are_sums_of_two_taps_token_by_token():
    stack, x = layer("convolutions", reach=4), tokens(1, 7, 8)
    y = x[0]
    for conv, back in zip(stack.layers, (1, 2), strict=True):
        r = y.relu()
        before = [r[t - back] if t >= back else torch.zeros(8).double() for t in range(7)]
        y = y + torch.stack(before) @ conv.weight[..., 0].T + r @ conv.weight[..., 1].T + conv.bias
    assert_close(stack(x)[0], y)


def test_attention_is_the_formula_under_a_causal_mask():
    ours, x = CausalAttention(d_model=8, n_heads=1).double(), tokens(2, 5, 8)
    part = ours.attention
    output, weights = attention(part.q_proj(x), part.k_proj(x), part.v_proj(x), causal_mask(5)[0, 0])
    assert_close(ours(x), part.out_proj(output))
    assert_close(ours.weights(x)[:, 0], weights)


def test_blocks_are_those_of_the_language_model():
    blocks = Blocks(d_model=8, n_heads=2, n_layers=2)
    config = LanguageModelConfig(vocab_size=3, d_model=8, n_heads=2, n_layers=2, d_ff=32, positions="none")
    model = LanguageModel(config)
    model.layers.load_state_dict(blocks.layers.state_dict())
    x = torch.randn(2, 5, 8)
    assert_close(blocks(x), model.through(x))


@every_layer
def test_no_layer_sees_the_future_and_every_layer_sees_all_of_the_past(name):
    table = reads_from(layer(name), d_model=8, n_tokens=16)
    assert torch.equal(table, torch.ones(16, 16, dtype=torch.bool).tril())


class SometimesShut(nn.Module):
    """Lets a token through where its first number is above 0."""

    def forward(self, x):
        return x * (x[..., :1] > 0)


def test_what_is_shut_by_chance_counts_as_read():
    for seed in range(5):
        assert reads_from(SometimesShut(), d_model=2, n_tokens=3, seed=seed).diagonal().sum() >= 2
    tables = [reads_from(SometimesShut(), d_model=2, n_tokens=3, seed=seed).sum() for seed in range(5)]
    assert sum(tables) >= 14  # four sequences: one token in sixteen is shut in all of them


def test_convolutions_see_no_further_than_their_reach():
    assert (
        reads_from(layer("convolutions", reach=4), d_model=8, n_tokens=6)[-1].tolist()
        == [False] * 2 + [True] * 4
    )


def test_layers_differ_and_their_sizes_matter():
    x = tokens(1, 6, 8)
    assert len({f"{layer(name)(x).sum().item():.9f}" for name in NAMES}) == len(NAMES)
    heads = {f"{attend(x).sum().item():.9f}" for attend in map(attention_with, (1, 2, 4))}
    assert len(heads) == 3
    assert len(Blocks(d_model=8, n_heads=2, n_layers=3).layers) == 3


def attention_with(n_heads):
    torch.manual_seed(0)
    return CausalAttention(d_model=8, n_heads=n_heads).double()


# --- gradients by distance -------------------------------------------------------------------------


class Fading(nn.Module):
    """y_t = Σ 0.5^(t - s) x_s: the gradient at distance k is 0.5^k times that at 0."""

    def __init__(self, keep=0.5):
        super().__init__()
        self.keep = nn.Parameter(torch.tensor(keep, dtype=torch.float64))

    def forward(self, x):
        age = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
        weights = torch.where(age >= 0, self.keep ** age.clamp(min=0), 0.0)
        return weights @ x


@settings(max_examples=30, deadline=None)
@given(keep=st.floats(0.1, 1.5), n=st.integers(2, 40), seed=st.integers(0, 99))
def test_a_known_decay_is_measured_as_it_is(keep, n, seed):
    """v alone is passed back: at distance 0 it is the mean length of v, a distance k takes keep^k of it."""
    found = gradient_by_distance(Fading(keep), range(n), d_model=3, n_tokens=n, seed=seed)
    v = torch.randn(8, 1, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    length = v.norm(dim=-1).mean().item()
    assert found == pytest.approx([length * keep**k for k in range(n)], rel=1e-9)


def test_faint_gradients_are_not_lost_to_squares():
    """0.5^700 is 2e-211, whose square is below what float64 can hold."""
    (found,) = gradient_by_distance(Fading(), [700], d_model=2, n_tokens=701)
    assert found == pytest.approx(gradient_by_distance(Fading(), [0], d_model=2, n_tokens=1)[0] * 0.5**700)


def test_every_argument_of_the_measurement_matters():
    lstm = layer("LSTM")
    base = {"distances": [1], "d_model": 8, "n_tokens": 6}
    values = [
        gradient_by_distance(lstm, **base | change)[0]
        for change in ({}, {"distances": [2]}, {"n_tokens": 7}, {"n_batch": 3}, {"seed": 5})
    ]
    assert len(set(values)) == len(values)
    assert gradient_by_distance(lstm, **base) == values[:1]


def test_what_the_chapter_says_of_fresh_layers_holds_for_three_starts():
    """Plain recurrences fade with distance, an open gate does not, attention is flat, whatever the start."""
    for seed in range(3):
        at = {
            name: gradient_by_distance(
                layer(name, d_model=64, reach=128, seed=seed), [1, 64], d_model=64, n_tokens=128, seed=seed
            )
            for name in NAMES
        }
        ratio = {name: near / far for name, (near, far) in at.items()}
        assert ratio["tanh RNN"] > 1e18 and 1e6 < ratio["orthogonal RNN"] < 1e10
        assert ratio["LSTM"] > 1e12 and ratio["LSTM, gate open"] < 10
        assert 0.5 < ratio["attention"] < 2 and 0.5 < ratio["six blocks"] < 2
        assert at["LSTM, gate open"][1] > 10 * at["attention"][1]


def test_what_reaches_one_token_by_attention_falls_as_one_over_their_number():
    attend = layer("attention", d_model=64)
    products = []
    for n in (64, 512):
        distances = range(1, n - 1)
        found = gradient_by_distance(attend, distances, d_model=64, n_tokens=n)
        products.append(n * sum(found) / len(found))
    assert products[1] == pytest.approx(products[0], rel=0.2)


@pytest.mark.parametrize(("far", "bits"), [(32, 1), (48, 2), (56, 3), (60, 4), (62, 5), (63, 6)])
def test_each_step_of_a_convolution_s_path_costs_and_distance_itself_does_not(far, bits):
    """Distance 63 = 32 + 16 + 8 + 4 + 2 + 1 needs six second taps; 32 needs one, and is as strong as 1."""
    stack = layer("convolutions", d_model=64, reach=64)
    at_one, found = gradient_by_distance(stack, [1, far], d_model=64, n_tokens=64)
    assert 0.1 < (found / at_one) ** (1 / max(1, bits - 1)) < (1.5 if bits == 1 else 0.55)


# --- paths and chains ------------------------------------------------------------------------------


def hops_of(name, n):
    """What one round of each reads: a step of a recurrence, one convolution, one attention."""
    made = layer(name, reach=n)
    if name == "convolutions":
        return [reads_from(one(conv), d_model=8, n_tokens=n) for conv in made.layers]
    if name == "tanh RNN":
        return [reads_from(Step(made.recurrence), d_model=8, n_tokens=n)] * n
    return [reads_from(made, d_model=8, n_tokens=n)]


def one(conv):
    stack = DilatedConvolutions(d_model=8, reach=2).double()
    stack.layers = nn.ModuleList([conv])
    return stack


class Step(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, h):
        before = F.pad(h, (0, 0, 1, 0))[:, :-1]
        return torch.tanh(h @ self.rnn.weight_ih_l0.T + before @ self.rnn.weight_hh_l0.T)


@pytest.mark.parametrize("n", [2, 3, 8, 16, 33])
def test_paths_are_as_long_as_the_paper_says(n):
    assert path_length(hops_of("tanh RNN", n)) == n - 1
    assert path_length(hops_of("convolutions", n)) == math.ceil(math.log2(n))
    assert path_length(hops_of("attention", n)) == 1


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 8), seed=st.integers(0, 999))
def test_a_path_is_the_shortest_that_any_walk_finds(n, seed):
    """Against a search: who is known to the last token after each round, backwards."""
    generator = torch.Generator().manual_seed(seed)
    hop = torch.rand(n, n, generator=generator) < 0.4
    seen, rounds = {n - 1}, 0
    while 0 not in seen or rounds == 0:
        seen, rounds = {s for t in seen for s in range(n) if hop[t, s]}, rounds + 1
        if rounds > n * n:
            with pytest.raises(ValueError, match="the last token does not depend on the first"):
                path_length([hop] * (n * n))
            return
    assert path_length([hop] * (n * n)) == rounds


def test_hops_are_taken_in_their_order():
    """First from 0 to 1, then from 1 to 2; the other way round nothing arrives."""
    first, second = torch.zeros(2, 3, 3, dtype=torch.bool)
    first[1, 0] = second[2, 1] = True
    assert path_length([first, second]) == 2
    with pytest.raises(ValueError, match="after 2 hops"):
        path_length([second, first])


@pytest.mark.parametrize("n", [4, 16, 64])
def test_chains_of_products(n):
    """A recurrence waits n times, convolutions log n, attention four: values, scores, sum, output."""
    x = tokens(1, n, 8)
    assert longest_chain(layer("tanh RNN")(x)) == n
    assert longest_chain(layer("LSTM")(x)) == n
    assert longest_chain(layer("convolutions", reach=n)(x)) == math.log2(n)
    assert longest_chain(layer("attention")(x)) == 4
    assert longest_chain(layer("six blocks")(x)) == 6 * (4 + 2)


def test_the_chain_counts_products_and_not_what_stands_between_them():
    x, w = tokens(3, 3), tokens(3, 3, seed=1).requires_grad_()
    assert longest_chain((x @ w).relu() + 1) == 1
    assert longest_chain(w.exp()) == 0
    assert longest_chain((x @ w) @ (x @ w).relu() + (x @ w)) == 2
    assert longest_chain(w @ x[0]) == 1


def test_both_kernels_of_attention_are_two_products():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    x = torch.randn(1, 6, 8)
    attend = CausalAttention(d_model=8, n_heads=2)
    with sdpa_kernel(SDPBackend.MATH):
        by_formula = longest_chain(attend(x))
    assert longest_chain(attend(x)) == by_formula == 4


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Recurrent(d_model=0, cell="lstm"), "d_model must be 1 or more, got 0"),
        (lambda: Recurrent(d_model=4, cell="gru"), "cell must be 'tanh' or 'lstm', got 'gru'"),
        (
            lambda: Recurrent(d_model=4, cell="tanh", start="open"),
            "'tanh' starts 'default' or 'orthogonal', got 'open'",
        ),
        (
            lambda: Recurrent(d_model=4, cell="lstm", start="orthogonal"),
            "'lstm' starts 'default' or 'open', got 'orthogonal'",
        ),
        (lambda: DilatedConvolutions(d_model=4, reach=0), "reach must be 1 or more, got 0"),
        (lambda: Blocks(d_model=4, n_heads=2, n_layers=0), "n_layers must be 1 or more, got 0"),
        (lambda: make_layer("GRU", d_model=4, reach=4), "name must be one of tanh RNN; .* got 'GRU'"),
        (lambda: make_layer("LSTM", d_model=4, reach=0), "reach must be 1 or more, got 0"),
        (
            lambda: gradient_by_distance(nn.Identity(), [0, 3], d_model=2, n_tokens=3),
            r"distances must be from 0 to n_tokens - 1 = 2, got \[0, 3\]",
        ),
        (
            lambda: gradient_by_distance(nn.Identity(), [-1], d_model=2, n_tokens=3),
            r"distances must be from 0 to n_tokens - 1 = 2, got \[-1\]",
        ),
        (
            lambda: gradient_by_distance(nn.Identity(), [0], d_model=2, n_tokens=3, n_batch=0),
            "n_batch must be 1 or more, got 0",
        ),
        (lambda: reads_from(nn.Identity(), d_model=2, n_tokens=0), "n_tokens must be 1 or more, got 0"),
        (lambda: path_length([torch.eye(3).bool()]), "after 1 hops the last token does not depend"),
        (lambda: longest_chain(torch.ones(2)), "output must come from weights with gradients"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_recurrence_in_one_kernel_is_not_taken_for_a_short_chain():
    """What hides its steps must not count as 0 or 1; where a machine has no such kernel, all are counted."""
    output = layer("LSTM").float()(torch.randn(1, 6, 8))
    try:
        assert longest_chain(output) == 6
    except ValueError as refused:
        assert "hides its products" in str(refused)
