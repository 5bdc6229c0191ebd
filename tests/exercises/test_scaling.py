"""The exercises of "Scaling laws": other right answers, and what checks say beyond the contract."""

import numpy as np
import pytest
import torch

from transformer_lab import scaling as package
from transformer_lab.exercises import scaling as ex

# --- right answers in other words ----------------------------------------------------------------------


def parameters_by_the_package(widths, n_layers, vocab_size):
    rows = []
    for d in widths.tolist():
        counted = package.count_parameters(n_layers=n_layers, d_model=d, d_ff=4 * d, vocab_size=vocab_size)
        rows.append([package.without_embedding(counted), sum(counted.values())])
    return torch.tensor(rows)


def parameters_as_one_polynomial(widths, n_layers, vocab_size):
    n = 12 * n_layers * widths * widths + (13 * n_layers + 2) * widths
    return torch.stack((n, n + widths * vocab_size), dim=1)


def line_by_the_package(x, loss):
    law = package.fit_power_law(x, loss)
    return torch.stack([law.scale, law.exponent]).to(x.dtype)


def line_by_lstsq(x, loss):
    table = torch.stack([torch.ones_like(x), -x.log()], dim=1)
    start, exponent = torch.linalg.lstsq(table, loss.log()[:, None]).solution[:, 0]
    return torch.stack([start.exp(), exponent])


def line_with_base_two(x, loss):
    lx, ly = x.log2(), loss.log2()
    slope = torch.cov(torch.stack([lx, ly]))[0, 1] / lx.var()
    return torch.stack([2 ** (ly.mean() - slope * lx.mean()), -slope])


def floor_by_the_line(x, loss, floor):
    return torch.stack([ex.power_law.solve(x, row - low) for row, low in zip(loss, floor, strict=True)])


def floor_by_lstsq(x, loss, floor):
    table = torch.stack([torch.ones_like(x), -x.log()], dim=1)
    found = torch.linalg.lstsq(table, (loss - floor.unsqueeze(1)).log().T).solution
    return torch.stack([found[0].exp(), found[1]], dim=1)


def search_by_hand(x, loss, exponents):
    rows = []
    for exponent in exponents:
        t = 1 / x**exponent
        scale = ((t - t.mean()) * loss).sum() / ((t - t.mean()) ** 2).sum()
        floor = loss.mean() - scale * t.mean()
        rows.append((((floor + scale * t - loss) ** 2).sum().item(), torch.stack([floor, scale, exponent])))
    return min(rows, key=lambda row: row[0])[1]


def search_all_at_once(x, loss, exponents):
    t = x ** -exponents[:, None]
    table = torch.stack([torch.ones_like(t), t], dim=-1)
    sizes = torch.linalg.lstsq(table, loss.expand(len(exponents), -1)[..., None]).solution
    best = ((table @ sizes)[..., 0] - loss).square().sum(-1).argmin()
    return torch.cat([sizes[best, :, 0], exponents[best].view(1)])


def draws_one_by_one(x, loss, picks):
    return torch.stack([ex.power_law.solve(x[row], loss[row])[1] for row in picks])


def draws_by_the_package(x, loss, picks):
    return package.fit_power_law(x[picks], loss[picks]).exponent.to(x.dtype)


def optimum_by_the_package(flops, law):
    A, alpha, B, beta = law.tolist()
    joint = package.JointLaw(floor=0.0, of_parameters=A, alpha=alpha, of_data=B, beta=beta)
    return torch.tensor([joint.optimum(budget) for budget in flops.tolist()], dtype=flops.dtype)


def optimum_in_logarithms(flops, law):
    A, alpha, B, beta = law
    budget = (flops / 6).log()
    n = ((alpha * A / beta / B).log() + beta * budget) / (alpha + beta)
    return torch.stack([n.exp(), (budget - n).exp()], dim=1)


RIGHT = {
    "parameters": [parameters_by_the_package, parameters_as_one_polynomial],
    "power_law": [line_by_the_package, line_by_lstsq, line_with_base_two],
    "above_the_floor": [floor_by_the_line, floor_by_lstsq],
    "fit_with_floor": [search_by_hand, search_all_at_once],
    "exponents_of_draws": [draws_one_by_one, draws_by_the_package],
    "optimum": [optimum_by_the_package, optimum_in_logarithms],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
SMALLEST = "the smallest sum of squares is where the smallest of their doubles, or of turned errors, is"
EQUIVALENT = {
    "power_law": {
        "slope = (across @ ly).sum() / (across ** 2).sum()": "the product of two vectors is that sum",
    },
    "fit_with_floor": {
        "error = (-(table @ sizes - loss)).square().sum()": SMALLEST,
        "error = (2 * (table @ sizes - loss)).square().sum()": SMALLEST,
        "error = (2 * (table @ sizes - loss).square()).sum()": SMALLEST,
        "error = (loss - table @ sizes).square().sum()": SMALLEST,
        "error = 2 * (table @ sizes - loss).square().sum()": SMALLEST,
        "table = torch.stack([torch.ones_like(loss), x ** (-exponent)], dim=1)": "ones, one for each point",
    },
}


def test_the_chapter_has_ten_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 10 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package -------------------------------------------------------------


def test_the_reference_of_the_optimum_is_the_lowest_loss():
    for case in ex.optimum.cases():
        A, alpha, B, beta = case.inputs["law"]
        for budget, (n, d) in zip(case.inputs["flops"], case.want, strict=True):
            assert 6 * n * d == pytest.approx(budget, rel=1e-5)
            losses = [A * (n * f) ** -alpha + B * (d / f) ** -beta for f in (0.99, 1.0, 1.01)]
            assert np.argmin(losses) == 1


def test_draws_hold_two_points_that_differ_and_one_that_comes_twice():
    cases = ex.exponents_of_draws.cases()
    rows = [row for case in cases for row in case.inputs["picks"]]
    assert all(len(set(row)) >= 2 for row in rows)
    assert any(len(set(row)) < len(row) for row in rows)


def test_in_the_search_the_best_exponent_is_seldom_the_first_or_the_last():
    places = [list(case.inputs["exponents"]).index(case.want[2]) for case in ex.fit_with_floor.cases()]
    inner = [
        0 < i < len(case.inputs["exponents"]) - 1
        for i, case in zip(places, ex.fit_with_floor.cases(), strict=True)
    ]
    assert sum(inner) >= 3


# --- measurements --------------------------------------------------------------------------------------


def ratios(*, backward=True, parameters=25_472, factor=6, pieces=16):
    from torch.nn import functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig

    config = LanguageModelConfig(vocab_size=30, d_model=32, n_heads=4, n_layers=2, d_ff=128)
    model, found = LanguageModel(config), []
    for length in (64, 512):
        tokens = torch.zeros(16, length, dtype=torch.long)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
            if backward:
                loss.backward()
        found.append(counter.get_total_flops() / (factor * parameters * pieces * length))
    return found


@pytest.mark.parametrize("parameters", [25_472, 25_408])
def test_an_honest_count_lands_in_the_range(parameters):
    """With the norm behind the last layer, and without it."""
    assert ex.what_6nd_leaves_out.check(ratios(parameters=parameters))


@pytest.mark.parametrize(
    ("says", "settings"),
    [
        ("the way forwards alone, a third", {"backward": False}),
        ("Your N includes the embedding", {"parameters": 26_432}),
        ("You divided by 2 N D", {"factor": 2}),
        ("You took one piece", {"pieces": 1}),
    ],
)
def test_each_wrong_count_is_told_why(says, settings):
    assert says in ex.what_6nd_leaves_out.check(ratios(**settings)).message


def test_a_count_without_attention_and_one_turned_round_are_told_why():
    told = ex.what_6nd_leaves_out.check
    matrices, scores = 2 * 12 * 32**2, 32 * 30
    unseen = (matrices + scores) / 25_472  # for 6 N D of both lengths
    assert "Attention is not counted" in told((unseen, unseen)).message
    assert "the other way round" in told(ratios()[::-1]).message


def floors(seed, *, size=0.02, added=False, of="floor", share=(0.05, 0.95), sets=2000):
    from transformer_lab import scaling

    x = torch.tensor([1e3, 3e3, 1e4, 3e4])
    truth = 0.5 + 20 / x**0.5
    noise = size * torch.randn(sets, 4, generator=torch.Generator().manual_seed(seed))
    law = scaling.fit_with_floor(x.expand(sets, -1), truth + noise if added else truth * (1 + noise))
    return [getattr(law, of).quantile(s).item() for s in share]


@pytest.mark.parametrize("seed", range(10))
def test_any_honest_set_of_floors_lands_in_the_range(seed):
    assert ex.floors_of_four_points.check(floors(seed))


@pytest.mark.parametrize(
    ("says", "settings"),
    [
        ("You added the noise", {"added": True}),
        ("twenty percent", {"size": 0.2}),
        ("0.2 percent", {"size": 0.002}),
        ("the quarters", {"share": (0.25, 0.75)}),
        ("the exponents", {"of": "exponent"}),
        ("higher than the lowest loss", {"of": "scale"}),
        ("the other way round", {"share": (0.95, 0.05)}),
    ],
)
def test_each_wrong_set_of_floors_is_told_why(says, settings):
    for seed in range(5):
        assert says in ex.floors_of_four_points.check(floors(seed, **settings)).message
