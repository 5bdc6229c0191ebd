"""The exercises of "Why attention": other right answers, and what checks say beyond the contract."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab import why_attention as package
from transformer_lab.attention import attention
from transformer_lab.exercises import why_attention as ex

# --- right answers in other words ----------------------------------------------------------------------


def average_by_exp(scores, values):
    weights = torch.exp(scores)
    return (weights[:, None] * values).sum(0) / weights.sum()


def average_by_attention(scores, values):
    """A query 1 and keys that are the scores: the width is 1, and nothing is divided."""
    return attention(torch.ones(1, 1, dtype=scores.dtype), scores[:, None], values)[0][0]


def average_token_by_token(scores, values):
    parts = [torch.exp(s - torch.logsumexp(scores, 0)) * v for s, v in zip(scores, values, strict=True)]
    return sum(parts)


def taps_with_zeros_in_front(x, now, before, back):
    zeros = torch.zeros(back, x.shape[1], dtype=x.dtype)
    return x @ now + torch.cat([zeros, x])[: x.shape[0]] @ before


def taps_by_conv1d(x, now, before, back):
    weight = torch.stack([before.T, now.T], dim=-1)
    return F.conv1d(F.pad(x.T, (back, 0)), weight, dilation=back).T


def taps_token_by_token(x, now, before, back):
    rows = [x[t] @ now + (x[t - back] @ before if t >= back else 0) for t in range(len(x))]
    return torch.stack(rows)


def carried_by_diagonal_matrices(states, weight):
    table = torch.eye(weight.shape[0], dtype=weight.dtype)
    for t in range(1, len(states)):
        table = torch.diag(1 - states[t] ** 2) @ weight @ table
    return table


def carried_from_the_end(states, weight):
    table = torch.eye(weight.shape[1], dtype=weight.dtype)
    for h in states[1:].flip(0):
        table = table @ (weight * (1 - h.square()).unsqueeze(-1))
    return table


def step_by_slices(gates, cell):
    d = len(cell)
    new = torch.sigmoid(gates[d : 2 * d]) * cell
    new = new + torch.sigmoid(gates[:d]) * torch.tanh(gates[2 * d : 3 * d])
    return torch.stack((torch.sigmoid(gates[3 * d :]) * torch.tanh(new), new))


def step_by_rows(gates, cell):
    i, f, g, o = gates.view(4, -1)
    new = cell / (1 + torch.exp(-f)) + torch.tanh(g) / (1 + torch.exp(-i))
    return torch.cat([torch.tanh(new) / (1 + torch.exp(-o)), new]).view(2, -1)


def running_by_cumsum(scores, values):
    weights = scores.exp()
    return (weights[:, None] * values).cumsum(0) / weights.cumsum(0)[:, None]


def running_row_by_row(scores, values):
    rows = [scores[: t + 1].softmax(0) @ values[: t + 1] for t in range(len(scores))]
    return torch.stack(rows)


def heard_by_products(hops):
    table = torch.eye(hops.shape[1], dtype=torch.int)
    for hop in hops:
        table = (hop.int() @ table).clamp(max=1)
    return table[-1].bool()


def heard_by_counting_ways(hops):
    ways = hops[-1, -1].double()
    for hop in reversed(list(hops[:-1])):
        ways = ways @ hop.double()
    return ways > 0


RIGHT = {
    "weighted_average": [average_by_exp, average_by_attention, average_token_by_token],
    "two_taps": [taps_with_zeros_in_front, taps_by_conv1d, taps_token_by_token],
    "carried": [carried_by_diagonal_matrices, carried_from_the_end],
    "lstm_step": [step_by_slices, step_by_rows],
    "running_average": [running_by_cumsum, running_row_by_row],
    "heard": [heard_by_products, heard_by_counting_ways],
}
# The mutants of the solutions that pass, each because it computes what the solution computes.
FLAT = "the scores have one axis, which is the first and the last"
END = "rows are added or taken away behind the last token, and only the first T are kept"
EQUIVALENT = {
    "weighted_average": {"weights = scores.softmax(dim=-1)": FLAT},
    "two_taps": {
        "earlier = torch.nn.functional.pad(x, (0, 0, back, 1))[:len(x)]": END,
        "earlier = torch.nn.functional.pad(x, (0, 0, back, -1))[:len(x)]": END + "; `back` is 1 or more",
    },
    "carried": {
        "table = torch.eye(len(weight), dtype=states.dtype, device=weight.device)": (
            "states and weight are of one type"
        ),
    },
    "running_average": {
        "seen = torch.ones(n, n, dtype=torch.bool, device=scores.device).tril().detach()": (
            "booleans have no gradient"
        ),
        "seen = torch.ones(n, n, dtype=torch.bool, device=scores.device).detach().tril()": (
            "booleans have no gradient"
        ),
        "n = len(values)": "each token has a score and a value",
        "table = scores.masked_fill(~seen, float('-inf'))": "the mask has T rows, and the scores broadcast",
        "return table.softmax(dim=1) @ values": "the table has two axes: the last is number 1",
    },
    "heard": {"for hop in 2 * hops[:-1].flip(0):": "twice True is as true: any"},
}


def test_the_chapter_has_eleven_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 11 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with PyTorch, and with the package -------------------------------------------


def test_the_reference_of_a_step_agrees_with_pytorch_s_lstm():
    for case in ex.lstm_step.cases():
        gates, cell = (t.double() for t in case.tensors())
        lstm = nn.LSTMCell(1, len(cell)).double()
        with torch.no_grad():
            for weight in lstm.parameters():
                weight.zero_()
            lstm.bias_ih.copy_(gates)
            found = lstm(torch.zeros(1, 1).double(), (torch.zeros_like(cell)[None], cell[None]))
        assert np.allclose(torch.cat(found).numpy(), case.want, atol=1e-5)


def test_the_reference_of_the_taps_agrees_with_the_package_s_convolution():
    for case in ex.two_taps.cases():
        x, now, before = (t.double() for t in case.tensors()[:3])
        conv = nn.Conv1d(x.shape[1], x.shape[1], 2, dilation=case.inputs["back"], bias=False).double()
        with torch.no_grad():
            conv.weight.copy_(torch.stack([before.T, now.T], dim=-1))
            stack = package.DilatedConvolutions(d_model=x.shape[1], reach=2)
            stack.layers = nn.ModuleList([conv])
            y = stack(x[None])[0] - x  # without the skip connection, and with a relu before
            wanted = ex.two_taps.solve(x.relu(), now, before, case.inputs["back"])
        assert np.allclose(y, wanted, atol=1e-9)


def test_the_reference_of_what_is_carried_agrees_with_autograd():
    for case in ex.carried.cases():
        states, weight = (t.double() for t in case.tensors())
        first = states[0].clone()

        def last(h, states=states, weight=weight):
            for wanted in states[1:]:  # an input that leads from the state before to this one
                given = torch.atanh(wanted) - (weight @ h).detach()
                h = torch.tanh(weight @ h + given)
            return h

        assert np.allclose(torch.autograd.functional.jacobian(last, first), case.want, atol=1e-4)


@pytest.mark.parametrize("distance", range(1, 128))
def test_leaps_are_counted_as_a_search_finds_them(distance):
    fewest = {0: 0}
    for layer in range(7):
        for here, used in list(fewest.items()):
            fewest[here + 2**layer] = min(used + 1, fewest.get(here + 2**layer, 99))
    assert fewest[distance] == f"{distance:b}".count("1")


# --- measurements --------------------------------------------------------------------------------------


class Gru(nn.Module):
    def __init__(self, seed, change=lambda gru: None):
        super().__init__()
        torch.manual_seed(seed)
        self.gru = nn.GRU(64, 64, batch_first=True)
        with torch.no_grad():
            change(self.gru)

    def forward(self, x):
        return self.gru(x)[0]


def opened(gru, part=slice(64, 128), to=3.0):
    gru.bias_ih_l0[part] = to


def lost(layer, seed, log=math.log10):
    near, far = package.gradient_by_distance(layer, [1, 32], d_model=64, n_tokens=64, seed=seed)
    return log(near / far)


@pytest.mark.parametrize("seed", range(6))
def test_any_honest_measurement_lands_in_the_range(seed):
    assert ex.open_gate.check((lost(Gru(seed), seed), lost(Gru(seed, opened), seed)))


def both_biases(gru):
    gru.bias_ih_l0[64:128], gru.bias_hh_l0[64:128] = 3.0, 0.0


def test_whoever_sets_the_other_bias_to_0_is_right_as_well():
    assert ex.open_gate.check((lost(Gru(0), 0), lost(Gru(0, both_biases), 0)))


@pytest.mark.parametrize(
    ("says", "measured"),
    [
        ("fits the *reset* gate", lambda s: lost(Gru(s, lambda gru: opened(gru, slice(0, 64))), s)),
        ("You closed the gate", lambda s: lost(Gru(s, lambda gru: opened(gru, to=-3.0)), s)),
        ("Both numbers belong", lambda s: lost(Gru(s), s)),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_each_wrong_second_number_is_told_why(says, measured, seed):
    assert says in ex.open_gate.check((lost(Gru(seed), seed), measured(seed))).message


def test_other_wrong_measurements_are_told_why():
    told = ex.open_gate.check
    first, second = lost(Gru(0), 0), lost(Gru(0, opened), 0)
    assert "the other way round" in told((second, first)).message
    assert "upside down" in told((-first, -second)).message
    assert "natural logarithms" in told((first * math.log(10), second * math.log(10))).message
    assert "not the ratio itself" in told((10**first, 10**second)).message
    assert "Not in the range" in told((3.0, 3.0)).message
