"""The exercises of "Mamba: a memory of fixed size": other right answers, and what checks say beyond the
contract."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from transformer_lab.efficient import selective_scan as package
from transformer_lab.exercises import selective_scan as ex

# --- right answers in other words ----------------------------------------------------------------------


def recurrence_in_place_of_a_list(decay, new):
    states = [new[0]]
    for a, b in zip(decay[1:], new[1:], strict=True):
        states.append(a * states[-1] + b)
    return torch.stack(states)


def recurrence_by_the_package(decay, new):
    return package.parallel_scan(decay[None], new[None])[0]


def recurrence_as_weighted_sums(decay, new):
    rows = []
    for t in range(len(new)):
        shares = [torch.prod(decay[s + 1 : t + 1], dim=0) * new[s] for s in range(t + 1)]
        rows.append(sum(shares))
    return torch.stack(rows)


def kernel_by_the_package(decay, write, read, n_tokens):
    return package.convolution_kernel(decay, write, read, n_tokens)


def kernel_by_an_impulse(decay, write, read, n_tokens):
    state, columns = write, []
    for _ in range(n_tokens):
        columns.append((read * state).sum(-1))
        state = decay * state
    return torch.stack(columns, dim=-1)


def kernel_by_einsum(decay, write, read, n_tokens):
    powers = torch.stack([decay**t for t in range(n_tokens)])
    return torch.einsum("dn,dn,tdn->dt", read, write, powers)


def hold_by_the_package(state, x, rate, step):
    decay, weight = package.zero_order_hold(rate, step)
    return decay * state + weight * x[:, None]


def hold_as_the_way_to_rest(state, x, rate, step):
    rest = -x.unsqueeze(-1) / rate
    return rest + (state - rest) * torch.exp(rate * step.unsqueeze(-1))


def hold_without_expm1(state, x, rate, step):
    decay = torch.exp(torch.einsum("dn,d->dn", rate, step))
    return decay * state + (decay - 1) / rate * x.view(-1, 1)


def bias_by_log1p(step):
    return step + torch.log1p(-torch.exp(-step))


def bias_in_two_ranges(step):
    short = step.clamp(max=20.0)
    return torch.where(step > 20, step, torch.log(torch.expm1(short)))


def joined_row_by_row(first, second):
    (a1, b1), (a2, b2) = first, second
    return torch.stack((a1 * a2, b2 + b1 * a2))


def joined_by_multiplying(first, second):
    return first * second[0] + torch.stack([torch.zeros_like(second[0]), second[1]])


def rounds_with_padding(decay, new):
    reach = 1
    while reach < len(new):
        before_decay = F.pad(decay, (0, 0, reach, 0), value=1.0)[: len(new)]
        before_new = F.pad(new, (0, 0, reach, 0))[: len(new)]
        new, decay = decay * before_new + new, decay * before_decay
        reach *= 2
    return new


def rounds_with_a_mask(decay, new):
    reach, t = 1, torch.arange(len(new))[:, None]
    while reach < len(new):
        new = torch.where(t >= reach, decay * new.roll(reach, dims=0), 0) + new
        decay = decay * decay.roll(reach, dims=0)
        reach *= 2
    return new


def convolution_by_conv1d(x, weight, bias):
    n_seen = weight.shape[1]
    return F.conv1d(F.pad(x.mT, (n_seen - 1, 0)), weight[:, None], bias, groups=x.shape[-1]).mT


def convolution_padded_on_both_sides_and_cut(x, weight, bias):
    n_seen = weight.shape[1]
    y = F.conv1d(x.mT, weight[:, None], bias, padding=n_seen - 1, groups=len(bias))
    return y[..., : x.shape[1]].mT


def convolution_token_by_token(x, weight, bias):
    n_seen = weight.shape[1]
    rows = []
    for t in range(x.shape[1]):
        seen = x[:, max(0, t - n_seen + 1) : t + 1]
        rows.append((seen * weight.T[n_seen - seen.shape[1] :]).sum(1) + bias)
    return torch.stack(rows, dim=1)


def token_by_einsum(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(-torch.einsum("dn,d->dn", log_rate.exp(), step))
    new = torch.einsum("d,d,n->dn", step, x, write)
    return torch.einsum("dn,n->d", decay * state + new, read) + skip * x


def token_channel_by_channel(state, x, step, write, read, log_rate, skip):
    out = []
    for d in range(len(x)):
        h = torch.exp(-step[d] * torch.exp(log_rate[d])) * state[d] + step[d] * x[d] * write
        out.append((h * read).sum() + skip[d] * x[d])
    return torch.stack(out)


RIGHT = {
    "recurrence": [
        recurrence_in_place_of_a_list,
        recurrence_by_the_package,
        recurrence_as_weighted_sums,
    ],
    "kernel": [kernel_by_the_package, kernel_by_an_impulse, kernel_by_einsum],
    "hold": [hold_by_the_package, hold_as_the_way_to_rest, hold_without_expm1],
    "first_bias": [bias_by_log1p, bias_in_two_ranges],
    "join": [joined_row_by_row, joined_by_multiplying],
    "doubling_scan": [rounds_with_padding, rounds_with_a_mask],
    "short_convolution": [
        convolution_by_conv1d,
        convolution_padded_on_both_sides_and_cut,
        convolution_token_by_token,
    ],
    "selective_step": [token_by_einsum, token_channel_by_channel],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
ZEROS = "zeros are zeros, whatever they are like, and no gradient starts from them"
EQUIVALENT = {
    "recurrence": {
        "state, states = (-torch.zeros_like(new[0]), [])": ZEROS,
        "state, states = (2 * torch.zeros_like(new[0]), [])": ZEROS,
        "state, states = (torch.zeros_like(new[0]).detach(), [])": ZEROS,
        "state, states = (torch.zeros_like(decay[0]), [])": ZEROS,
        "state, states = (torch.zeros_like(new[-1]), [])": ZEROS,
        "for t in range(len(decay)):": "decay and new have a row for each token",
    },
    "kernel": {
        "powers = decay[..., None] ** torch.arange(n_tokens, device=decay.device).detach()": (
            "whole numbers have no gradient"
        ),
    },
    "doubling_scan": {
        "while reach < len(decay):": "decay and new have a row for each token",
        "while reach < 2 * len(new):": "a round of more than all tokens finds nobody to join",
        "decay = torch.cat([new[:reach], decay[reach:] * decay[:-reach]])": (
            "tokens that stand for all before them join nothing more: their decays are not used again"
        ),
    },
}


def test_the_chapter_has_eleven_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 11 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package -------------------------------------------------------------


@pytest.mark.parametrize("exercise", [ex.recurrence, ex.doubling_scan], ids=lambda e: e.name)
def test_the_reference_of_a_scan_agrees_with_the_package(exercise):
    for case in exercise.cases():
        decay, new = case.tensors()
        ours = package.scan(decay[None], new[None])[0]
        assert np.allclose(ours.double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_one_token_agrees_with_the_block():
    """The block with its projections set so that they hand the choices on as they were given."""
    for case in ex.selective_step.cases():
        state, x, step, write, read, log_rate, skip = (t.double() for t in case.tensors())
        block = package.MambaBlock(d_model=1, d_state=len(write), expand=len(x)).double()
        with torch.no_grad():
            block.log_rate.copy_(log_rate)
            block.skip.copy_(skip)
            block.x_proj.weight.zero_()
            block.step_proj.bias.copy_(torch.log(torch.expm1(step)))
            decay, new, _ = block._recurrence(x[None, None])
            assert not new.any()  # nothing is written yet: what follows adds what the token chose
            states = decay[:, 0] * state + (step * x)[:, None] * write
            y = (states @ read)[0] + block.skip * x
        assert np.allclose(y.numpy(), case.want, atol=1e-5)


def test_the_reference_of_the_bias_is_undone_by_softplus():
    for case in ex.first_bias.cases():
        assert np.allclose(np.logaddexp(0, case.want), case.inputs["step"], rtol=1e-9)


# --- measurements --------------------------------------------------------------------------------------


def steps(seed, n=100_000, log=True):
    draw = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    low, high = math.log(0.001), math.log(0.1)
    return (low + draw * (high - low)).exp() if log else 0.001 + draw * 0.099


def counted(rate, step):
    """Whole tokens, by multiplying again and again."""
    left, n, decay = torch.ones_like(step), torch.zeros_like(step), (-rate * step).exp()
    while (left > 0.5).any():
        n += left > 0.5
        left = left * decay
    return n


@pytest.mark.parametrize("seed", range(10))
def test_any_honest_measurement_lands_in_the_range(seed):
    step = steps(seed)
    assert ex.half_lives.check([(math.log(2) / (rate * step)).median() for rate in (1, 16)])
    assert ex.half_lives.check([counted(rate, step).median() for rate in (1, 16)])


@pytest.mark.parametrize(
    ("says", "measured"),
    [
        ("1/e = 37 %", lambda rate, step: (1 / (rate * step)).median()),
        ("has the base 10", lambda rate, step: (math.log10(2) / (rate * step)).median()),
        ("That is the mean of the half-lives", lambda rate, step: (math.log(2) / (rate * step)).mean()),
        ("the half-life of the mean step", lambda rate, step: math.log(2) / (rate * step.mean())),
        ("You took `exp` of 1", lambda rate, step: (math.log(2) / (math.exp(rate) * step)).median()),
    ],
)
def test_each_wrong_measurement_is_told_why(says, measured):
    for seed in range(5):
        step = steps(seed)
        assert says in ex.half_lives.check([measured(rate, step) for rate in (1, 16)]).message


def test_other_wrong_measurements_are_told_why():
    told = ex.half_lives.check
    step = steps(0)
    first, second = ((math.log(2) / (rate * step)).median() for rate in (1, 16))
    assert "the other way round" in told((second, first)).message
    assert "divide, do not multiply" in told((first, 16 * first)).message
    assert "Both numbers belong to the rate -1" in told((first, first)).message
    even = steps(0, log=False)
    evenly = [(math.log(2) / (rate * even)).median() for rate in (1, 16)]
    assert "Draw evenly between the logarithms" in told(evenly).message
    assert "693" in told((69_000.0, 4300.0)).message
    assert "Not in the range" in told((50.0, 3.0)).message
