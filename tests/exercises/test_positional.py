"""The exercises of "Positions": other right answers, and what its checks say beyond the contract."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from transformer_lab.attention import attention
from transformer_lab.exercises import positional as ex
from transformer_lab.masks import causal_mask
from transformer_lab.positional import alibi_bias, alibi_slopes, change_layout, rotate, sinusoidal

# --- right answers in other words ----------------------------------------------------------------------


def sinusoid_by_loops(positions, d_model):
    rows = []
    for t in positions:
        row = []
        for i in range(d_model // 2):
            angle = t / 10000 ** (2 * i / d_model)
            row += [torch.sin(angle), torch.cos(angle)]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def sinusoid_filled_in(positions, d_model):
    table = positions.new_zeros(len(positions), d_model)
    rates = torch.exp(torch.arange(0, d_model, 2) * (-np.log(10000.0) / d_model))  # float32, as many write it
    table[:, 0::2] = torch.sin(positions[:, None] * rates)
    table[:, 1::2] = torch.cos(positions[:, None] * rates)
    return table


def sinusoid_by_outer(positions, d_model):
    angles = torch.outer(
        positions, 1 / 10000 ** (torch.arange(d_model // 2).double() * 2 / d_model).to(positions)
    )
    return torch.view_as_real(torch.polar(torch.ones_like(angles), torch.pi / 2 - angles)).flatten(1)


def shift_by_loops(offset, rates):
    D = 2 * len(rates)
    matrix = rates.new_zeros(D, D)
    for i, rate in enumerate(rates):
        b = offset * rate
        matrix[2 * i, 2 * i], matrix[2 * i, 2 * i + 1] = b.cos(), b.sin()
        matrix[2 * i + 1, 2 * i], matrix[2 * i + 1, 2 * i + 1] = -b.sin(), b.cos()
    return matrix


def shift_by_matrix_power(offset, rates):
    cos, sin = rates.cos(), rates.sin()
    one = torch.block_diag(*torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])]).permute(2, 0, 1))
    return torch.linalg.matrix_power(one, offset)


def rotate_complex(x, positions, rates):
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    angles = torch.outer(positions, rates)
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def rotate_filled_in(x, positions, rates):
    out, angles = torch.zeros_like(x), torch.einsum("t,p->tp", positions, rates)
    out[..., 0::2] = x[..., 0::2] * angles.cos() - x[..., 1::2] * angles.sin()
    out[..., 1::2] = x[..., 0::2] * angles.sin() + x[..., 1::2] * angles.cos()
    return out


class RotatesByMatrices(nn.Module):
    def forward(self, x, positions, rates):
        angles = positions[:, None] * rates
        cos, sin = angles.cos(), angles.sin()
        turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # (T, P, 2, 2)
        return (turn @ x.unflatten(-1, (-1, 2))[..., None]).flatten(-3)


def half_by_parts(x, angles):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


def half_complex(x, angles):
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def half_by_roll(x, angles):
    half = x.shape[-1] // 2
    sign = torch.cat([-torch.ones(half), torch.ones(half)]).to(x)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    return x * cos + x.roll(half, dims=-1) * sign * sin


def alibi_by_loops(scores, slopes):
    out, (T, S) = scores.clone(), scores.shape[-2:]
    for h, t, s in itertools.product(range(len(slopes)), range(T), range(S)):
        out[:, h, t, s] = scores[:, h, t, s] - slopes[h] * abs(S - T + t - s)
    return out


def alibi_by_einsum(scores, slopes):
    T, S = scores.shape[2:]
    far = torch.arange(S) - torch.arange(S - T, S).view(-1, 1)
    return scores + torch.einsum("h,ts->hts", slopes, -far.abs().to(slopes))


def cached_from_the_whole(q, k, v):
    """As if all tokens had asked, the older ones with queries of zeros; their answers are thrown away."""
    T, S = q.shape[-2], k.shape[-2]
    q = torch.cat([q.new_zeros(len(q), S - T, q.shape[-1]), q], dim=-2)
    places = torch.arange(S)
    out, _ = attention(rotate(q, places)[None], rotate(k, places)[None], v[None], causal_mask(S))
    return out[0, :, S - T :]


def cached_with_moved_keys(q, k, v):
    """Only distances count: so the queries may stand at 0, 1, ... if the keys go back as far."""
    T, S = q.shape[-2], k.shape[-2]
    q, k = rotate(q, torch.arange(T)), rotate(k, torch.arange(S) - (S - T))
    return attention(q[None], k[None], v[None], causal_mask(T, S))[0][0]


def cached_one_by_one(q, k, v):
    T, S, rows = q.shape[-2], k.shape[-2], []
    for t in range(T):
        end = S - T + t + 1
        query, keys = rotate(q[:, t : t + 1], torch.tensor([end - 1])), rotate(k[:, :end], torch.arange(end))
        rows.append(((query @ keys.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v[:, :end])
    return torch.cat(rows, dim=-2)


def halves_by_index(weight, n_heads):
    width = len(weight) // n_heads
    order = [h * width + i for h in range(n_heads) for i in [*range(0, width, 2), *range(1, width, 2)]]
    return weight[order]


def halves_head_by_head(weight, n_heads):
    return torch.cat([part for head in weight.chunk(n_heads) for part in (head[0::2], head[1::2])])


RIGHT = {
    "sinusoid": [sinusoid_by_loops, sinusoid_filled_in, sinusoid_by_outer],
    "shift_matrix": [shift_by_loops, shift_by_matrix_power],
    "rotate_pairs": [rotate_complex, rotate_filled_in, RotatesByMatrices()],
    "rotate_half": [half_by_parts, half_complex, half_by_roll],
    "add_alibi": [alibi_by_loops, alibi_by_einsum],
    "cached_attention": [cached_from_the_whole, cached_with_moved_keys, cached_one_by_one],
    "to_halves": [halves_by_index, halves_head_by_head, lambda w, n: change_layout(w, n, "half")],
}

NO_GRADIENT = "the rates come from whole numbers, and have no gradient"
PLACES = "places are whole numbers, and have no gradient"
ONE_LENGTH = "queries, keys and values are equally wide, and keys and values equally many"
LAST = "of two axes, 1 is the last"
NO_SIGN = "a distance has no sign"

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {
    "sinusoid": {
        "rates = (10000.0 ** (-torch.arange(0, d_model, 2).to(positions) / d_model)).detach()": NO_GRADIENT,
        "rates = 10000.0 ** (-torch.arange(0, d_model, 2).to(positions) / d_model).detach()": NO_GRADIENT,
        "rates = 10000.0 ** (-torch.arange(0, d_model, 2).to(positions).detach() / d_model)": NO_GRADIENT,
        "rates = 10000.0 ** (-torch.arange(0, d_model, 2).detach().to(positions) / d_model)": NO_GRADIENT,
        "rates = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)": "float32 is enough; it earns a remark",
    },
    "shift_matrix": {
        "blocks = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(1, (2, 2))": LAST,
        "blocks = torch.stack([cos, sin, -sin, cos], dim=1).unflatten(-1, (2, 2))": LAST,
    },
    "add_alibi": {
        "distances = (-(queries[:, None] - keys)).abs()": NO_SIGN,
        "distances = (keys - queries[:, None]).abs()": NO_SIGN,
        "distances = (queries[:, None] - keys).abs().detach()": PLACES,
        "distances = (queries[:, None] - keys).detach().abs()": PLACES,
        "keys = -torch.arange(S, device=scores.device)": NO_SIGN,
        "keys = torch.arange(S, device=scores.device).detach()": PLACES,
    },
    "cached_attention": {
        "T, S = (q.shape[-2], k.shape[1])": "of three axes, 1 is -2",
        "T, S = (q.shape[1], k.shape[-2])": "of three axes, 1 is -2",
        "T, S = (q.shape[-2], v.shape[-2])": ONE_LENGTH,
        "places = torch.arange(S).detach()": PLACES,
        "scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5": ONE_LENGTH,
        "scores = q @ k.transpose(-2, -1) / v.shape[-1] ** 0.5": ONE_LENGTH,
        "scores = q @ k.transpose(1, -1) / q.shape[-1] ** 0.5": "of three axes, 1 is -2",
    },
}


def test_the_chapter_has_twelve_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 12 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package -------------------------------------------------------------


def ours(exercise):
    """The inputs of each case as tensors by name, and the right answer."""
    for case in exercise.cases():
        yield dict(zip(case.inputs, case.tensors(), strict=True)), case.want


def near(answer, want):
    return np.allclose(answer.double().numpy(), want, atol=1e-5)


def test_sinusoids_are_the_package_s():
    for given, want in ours(ex.sinusoid):
        table = sinusoidal(401, given["d_model"])
        assert near(table[given["positions"].long()], want)


def test_the_matrix_shifts_the_package_s_sinusoids():
    rates = torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
    table = sinusoidal(50, 8).double()
    matrix = torch.from_numpy(ex.shift_matrix.reference(17, rates.numpy()))
    assert torch.allclose(table[:33] @ matrix.T, table[17:], atol=1e-5)


@pytest.mark.parametrize(("name", "layout"), [("rotate_pairs", "interleaved"), ("rotate_half", "half")])
def test_rotations_are_the_package_s(name, layout):
    x, positions = torch.randn(3, 4, 8, dtype=torch.float64), torch.tensor([3.0, 0.0, 99.0, 7.0]).double()
    rates = torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
    turns = (positions, rates) if name == "rotate_pairs" else (positions[:, None] * rates,)
    want = getattr(ex, name).reference(x.numpy(), *(turn.numpy() for turn in turns))
    assert near(rotate(x, positions, layout=layout), want)


def test_lowered_scores_are_the_package_s():
    scores = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    want = ex.add_alibi.reference(scores.numpy(), alibi_slopes(4).double().numpy())
    assert near(scores + alibi_bias(4, 3, 5), want)


def test_the_slope_of_the_prediction_is_the_package_s():
    assert ex.slope_of_a_head.expected == alibi_bias(4, 11)[2, 10, 6]


# --- what nobody may get away with ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rotate_pairs", "rotate_half", "add_alibi", "to_halves"])
def test_the_identity_is_refused_with_a_sentence_of_its_own(name):
    exercise = getattr(ex, name)
    result = exercise.check(lambda x, *rest: x * 1)
    says = {"add_alibi": "Nothing was taken away", "to_halves": "The rows are where they were"}
    assert result.status == "not yet" and says.get(name, "Nothing was turned") in result.message, result


def test_a_turn_that_keeps_scores_relative_is_still_refused_if_it_is_another():
    """Turning back, in the other layout, faster: scores stay relative, but weights would not fit."""
    for turn in (
        lambda x, m, rates: rotate_complex(x, -m, rates),
        lambda x, m, rates: rotate_complex(x, 2 * m, rates),
        lambda x, m, rates: ex._half_layout(x, m, rates),
    ):
        assert ex.rotate_pairs.check(turn).status == "not yet"


def test_rates_in_float32_pass_with_a_remark():
    result = ex.sinusoid.check(sinusoid_filled_in)
    assert result and "right to about 8 digits only" in result.message


def test_the_broken_function_agrees_with_the_package_as_long_as_all_tokens_ask():
    q, k, v = torch.randn(3, 2, 5, 6, dtype=torch.float64)
    broken = ex.cached_attention.broken
    assert torch.allclose(broken(q, k, v), ex.cached_attention.solve(q, k, v))
    assert not torch.allclose(broken(q[:, 4:], k, v), ex.cached_attention.solve(q[:, 4:], k, v))


def test_cutting_along_another_axis_is_not_told_to_work_with_halves():
    """Halves of the tokens raise the same error as tables that are too narrow: one sentence fits to both."""

    def halves_of_tokens(x, angles):
        a, b = x.chunk(2, dim=1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    assert "Rows of Dh numbers met a table" in ex.rotate_half.check(halves_of_tokens).message


@pytest.mark.parametrize("power", [lambda e: 10000**e, lambda e: torch.pow(10000, e)])
def test_rates_that_grow_are_named_in_float32_too(power):
    """Angles of thousands of radians have no three right digits there: so it is a slip of its own."""

    def faster(positions, d_model):
        angles = positions[:, None] * power(torch.arange(0, d_model, 2) / d_model)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)

    assert "faster and faster" in ex.sinusoid.check(faster).message


def test_the_matrix_of_the_chapter_is_told_that_its_gradients_are_cut_off():
    def from_numbers(offset, rates):
        pairs = zip((offset * rates).cos().tolist(), (offset * rates).sin().tolist(), strict=True)
        return torch.block_diag(*(torch.tensor([[c, s], [-s, c]]).to(rates) for c, s in pairs))

    result = ex.shift_matrix.check(from_numbers)
    assert result.status == "not yet" and "no gradient flows back" in result.message
    assert "gradients are checked too" in ex.shift_matrix.statement


# --- measurements --------------------------------------------------------------------------------------


def moves(turn, measure, seed=0, n_keys=1000):
    k = torch.randn(n_keys, 64, generator=torch.Generator().manual_seed(seed))
    return tuple(measure(turn(k, position), k).mean().item() for position in (1.0, 100.0))


def turned(k, position, **options):
    return rotate(k, torch.full((len(k),), position), **options)


def share(k, before):
    return (k - before).norm(dim=-1) / before.norm(dim=-1)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_any_honest_measurement_lands_in_the_range(layout):
    for seed in range(20):
        measured = moves(lambda k, position: turned(k, position, layout=layout), share, seed)
        assert ex.how_far_a_key_moves.check(measured), measured


def wrong_measurements():
    right = moves(turned, share)
    return {
        "other way round": right[::-1],
        "not yet divided by the length": moves(turned, lambda k, b: (k - b).norm(dim=-1)),
        "squares of distances": moves(turned, lambda k, b: (k - b).pow(2).sum(-1)),
        "These are squares. Take": moves(turned, lambda k, b: share(k, b) ** 2),
        "Both numbers are 0": moves(lambda k, position: k, share),
        "which a turn keeps": moves(turned, lambda k, b: k.norm(dim=-1) - b.norm(dim=-1)),
        "Both numbers are 1": moves(turned, lambda k, b: k.norm(dim=-1) / b.norm(dim=-1)),
        "cosines": moves(turned, lambda k, b: torch.cosine_similarity(k, b)),
        "divided by 64": moves(turned, lambda k, b: (k - b).norm(dim=-1) / 64),
        "by degrees": moves(lambda k, position: turned(k, position * np.pi / 180), share),
        "positions 0 and 99": moves(lambda k, position: turned(k, position - 1), share),
        "positions 2 and 101": moves(lambda k, position: turned(k, position + 1), share),
        "`dim=0`": moves(turned, lambda k, b: (k - b).norm(dim=0) / b.norm(dim=0)),
        "run from 0": moves(lambda k, position: rotate(k, torch.arange(len(k))), share),
        "above 2 is impossible": (0.25, 30.0),
        "Not in the range": (0.5, 1.0),
        "finite number": (float("nan"), right[1]),
        "Report 2 numbers": right[0],
    }


@pytest.mark.parametrize(("says", "answer"), wrong_measurements().items())
def test_each_wrong_measurement_is_told_why(says, answer):
    result = ex.how_far_a_key_moves.check(answer)
    assert result.status == "not yet" and says in result.message, result
