"""The exercises of "Every claim, put to the test": other right answers, and what checks say beyond the
contract."""

import math

import numpy as np
import pytest
import torch

from transformer_lab import claims as package
from transformer_lab.exercises import claims as ex

# --- right answers in other words ----------------------------------------------------------------------


def weights_by_the_package(width, hidden, layers, vocabulary, positions):
    rows = zip(*(t.tolist() for t in (width, hidden, layers, vocabulary, positions)), strict=True)
    return torch.tensor(
        [
            package.n_weights(
                package.Shape(d_model=D, d_ff=F, n_layers=L, vocab_size=V, n_positions=P, n_outer_norms=1)
            )
            for D, F, L, V, P in rows
        ]
    )


def weights_in_one_line(width, hidden, layers, vocabulary, positions):
    layer = width * (4 * width + 9 + 2 * hidden) + hidden
    return layers * layer + width * (vocabulary + positions + 2)


def brevity_by_the_package(candidate, reference):
    c, r = int(candidate.sum()), int(reference.sum())
    return torch.tensor(package.brevity_penalty(c, r), dtype=torch.float64)


def brevity_by_cases(candidate, reference):
    c, r = candidate.sum().item(), reference.sum().item()
    return torch.tensor(1.0 if c > r else math.exp(1 - r / c))


def precision_by_a_product(hits, totals):
    return 100 * (hits.sum(0) / totals.sum(0).double()).prod() ** 0.25


def precision_by_loops(hits, totals):
    logs = [math.log(hits[:, n].sum().item() / totals[:, n].sum().item()) for n in range(4)]
    return torch.tensor(100 * math.exp(sum(logs) / 4), dtype=torch.float64)


def eight_bits_by_the_package(x):
    return package.through_fp8(x, package.fp8_scale(x))


def eight_bits_by_dividing(x):
    unit = x.abs().amax() / 448
    return unit * torch.as_tensor(x / unit).to(torch.float8_e4m3fn).to(x)


def advantages_by_rows(rewards):
    rows = []
    for row in rewards:
        spread = row.std()
        rows.append((row - row.mean()) / spread if spread > 0 else torch.zeros_like(row))
    return torch.stack(rows)


def advantages_with_one_for_zero(rewards):
    spread = rewards.std(1, keepdim=True)
    return (rewards - rewards.mean(1, keepdim=True)) / spread.masked_fill(spread == 0, 1)


RIGHT = {
    "gpt_weights": [weights_by_the_package, weights_in_one_line],
    "brevity": [brevity_by_the_package, brevity_by_cases],
    "corpus_precision": [precision_by_a_product, precision_by_loops],
    "eight_bits": [eight_bits_by_the_package, eight_bits_by_dividing],
    "advantages": [advantages_by_rows, advantages_with_one_for_zero],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {
    "brevity": {
        "c, r = (candidate.sum(), reference.sum())": "few tokens: the quotient is good enough in float32",
    },
    "corpus_precision": {
        "shares = hits.sum(dim=0) / totals.sum(dim=0)": "few n-grams: float32 is good enough",
    },
    "eight_bits": {
        "scale = -(448 / x.abs().max())": "a sign that is undone with the scale",
        "scale = 448 / -x.abs().max()": "a sign that is undone with the scale",
        "return (x * scale).to(torch.float8_e4m3fn).to(scale.dtype) / scale": "the scale has the type of x",
    },
    "advantages": {
        "spread = centred.std(dim=1, keepdim=True)": "a mean that is taken away changes no spread",
    },
}


def test_the_chapter_has_nine_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 9 and set(kinds) == {"implement", "predict", "debug", "measure"}


def test_the_number_in_the_statement_is_gpt_3s():
    sizes = [torch.tensor([n]) for n in (12_288, 49_152, 96, 50_257, 2048)]
    counted = ex.gpt_weights.solve(*sizes).item()
    assert counted == package.n_weights(package.NAMED["GPT-3"].shape)
    assert f"{counted:,}" in ex.gpt_weights.statement


# --- measurements --------------------------------------------------------------------------------------


def measured(size=1e-3, seed=0, n=100_000, dtype=torch.float8_e4m3fn, scaled=False):
    x = size * torch.randn(n, generator=torch.Generator().manual_seed(seed))
    scale = 448 / x.abs().max() if scaled else torch.tensor(1.0)
    y = (x * scale).to(dtype).float() / scale
    return (y == 0).float().mean().item(), ((y - x).norm() / x.norm()).item()


@pytest.mark.parametrize("seed", range(10))
def test_any_honest_measurement_lands_in_the_range(seed):
    assert ex.lost_without_a_scale.check(measured(seed=seed))
    assert ex.lost_without_a_scale.check(measured(seed=seed, n=1_000_000))


@pytest.mark.parametrize("seed", range(3))
def test_each_wrong_measurement_is_told_why(seed):
    told = ex.lost_without_a_scale.check
    zeros, error = measured(seed=seed)
    for answer, says in (
        ((error, zeros), "the other way round"),
        ((1 - zeros, error), "is *not* 0"),
        ((100 * zeros, error), "Your share is in percent"),
        ((100 * zeros, 100 * error), "Both are in percent"),
        ((zeros, error**2), "Your error is squared"),
        (measured(seed=seed, scaled=True), "with a scale"),
        (measured(1.0, seed), "with a scale"),
        (measured(seed=seed, dtype=torch.float8_e5m2), "the other format"),
        (measured(0.001**0.5, seed), "a variance of 0.001"),
        ((0.5, 0.2), "Not in the range"),
        ((67.0, 400.0), "What did you divide by?"),
    ):
        assert says in told(answer).message, answer


# --- the references agree with the package -------------------------------------------------------------


def test_the_reference_of_eight_bits_rounds_as_the_type_does():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(2000) * 10.0**power for power in range(-5, 3)])
    theirs = package.through_fp8(torch.tensor(x), package.fp8_scale(torch.tensor(x)))
    assert np.allclose(ex._rounded_by_hand(x), theirs.numpy(), rtol=1e-12, atol=1e-15)


def test_the_reference_of_advantages_is_the_package_s_where_there_is_a_spread():
    for case in ex.advantages.cases():
        rewards = torch.tensor(case.inputs["rewards"])
        assert np.allclose(package.group_advantages(rewards).numpy(), case.want, atol=1e-4)
