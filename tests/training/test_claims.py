"""The runs behind the closing chapter, and what is stored of them."""

import pytest
import torch

from transformer_lab.claims import group_advantages
from transformer_lab.models.language_model import LanguageModel
from transformer_lab.training import claims as runs
from transformer_lab.training import results


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Reinforcement.


def test_a_question_names_two_digits():
    asked = runs.questions(500, generator())
    assert asked.shape == (500, 4)
    assert set(asked[:, 0].tolist()) == set(asked[:, 2].tolist()) == set(range(10))
    assert (asked[:, 1] == runs.OR).all() and (asked[:, 3] == runs.ASK).all()


@pytest.mark.parametrize(
    ("answer", "formed", "right"),
    [
        ([runs.THINK, runs.UNTHINK, runs.ANSWER, 7], True, True),
        ([runs.THINK, runs.UNTHINK, runs.ANSWER, 5], True, False),
        ([runs.UNTHINK, runs.THINK, runs.ANSWER, 7], False, False),
        ([runs.THINK, runs.UNTHINK, 7, 7], False, False),
        ([runs.THINK, runs.UNTHINK, runs.ANSWER, runs.ANSWER], False, False),
    ],
)
def test_the_rules_judge_the_form_and_the_digit(answer, formed, right):
    for asked in ([7, runs.OR, 5, runs.ASK], [5, runs.OR, 7, runs.ASK]):
        both = torch.tensor([asked]), torch.tensor([answer])
        assert [mark.item() for mark in runs.judged(*both)] == [formed, right]
        assert runs.rewards(*both).item() == pytest.approx(0.2 * formed + right)


def test_the_talker_knows_the_form_a_little_and_nothing_of_the_question():
    model = runs.talker()
    asked = runs.questions(2000, generator(1))
    formed, right = (
        mark.double().mean() for mark in runs.judged(asked, runs.write(model, asked, generator(2)))
    )
    assert 0.2 < formed < 0.4 and right < 0.06


def test_log_probabilities_are_those_of_writing_token_by_token():
    torch.manual_seed(0)
    model = runs.talker().double()
    asked = runs.questions(3, generator())
    answers = runs.write(model, asked, generator())
    found = runs.log_probabilities(model, asked, answers)
    for n in range(runs.WRITTEN):
        rows = torch.cat([asked, answers[:, :n]], dim=1)
        alone = model(rows)[:, -1].log_softmax(dim=-1)[torch.arange(3), answers[:, n]]
        torch.testing.assert_close(found[:, n], alone)


def test_a_few_steps_teach_the_form_and_a_run_is_repeatable(monkeypatch):
    monkeypatch.setattr(runs, "WINDOW", 8)
    base = runs.grpo_run(steps=8)
    assert base == runs.grpo_run(steps=8) != runs.grpo_run(steps=8, seed=1)
    assert base["formed"][-1] > base["formed"][0] + 0.2
    assert all(len(values) == 2 for values in base.values())


def test_the_variants_differ_in_what_they_say(monkeypatch):
    monkeypatch.setattr(runs, "WINDOW", 2)
    found = [runs.grpo_run(variant, steps=2) for variant in runs.VARIANTS]
    assert len({str(run) for run in found}) == len(runs.VARIANTS)
    for kind, weight in runs.VARIANTS.values():
        assert group_advantages(torch.rand(2, 3), kind).shape == (2, 3) and weight > 0


def test_the_network_of_the_talker_is_the_package_s_and_nothing_is_added_to_it():
    assert type(runs.talker()) is LanguageModel


# Distances.


@pytest.mark.parametrize("way", [0, 1])
def test_triangles_go_through_all_third_points(way):
    torch.manual_seed(0)
    layer = runs.Triangles(3).double()
    z = torch.randn(1, 4, 4, 3, dtype=torch.float64)
    wanted = z
    for side in range(way + 1):
        h = layer.before[side](wanted)
        a, b, open_a, open_b = layer.sides[side](h).chunk(4, dim=-1)
        a, b = a * open_a.sigmoid(), b * open_b.sigmoid()
        met = torch.zeros_like(wanted)
        for i in range(4):
            for j in range(4):
                for k in range(4):
                    met[0, i, j] += a[0, i, k] * b[0, j, k] if side == 0 else a[0, k, i] * b[0, k, j]
        wanted = wanted + layer.outs[side](layer.after[side](met)) * layer.gates[side](h).sigmoid()
    if way == 0:
        torch.nn.init.zeros_(layer.outs[1].weight)
        torch.nn.init.zeros_(layer.outs[1].bias)
    torch.testing.assert_close(layer(z), wanted)


def test_only_mixers_let_pairs_hear_of_each_other():
    for mixer in runs.MIXERS:
        torch.manual_seed(0)
        model = runs.DistanceModel(mixer)
        told, known = torch.rand(1, 5, 5), torch.ones(1, 5, 5)
        other = told.clone()
        other[0, 0, 1] += 1
        moved = (model(told, known) - model(other, known)).abs()[0]
        assert moved[0, 1] > 1e-6
        for far in ((0, 4), (2, 3)):  # a pair with a point in common, and one without
            assert (moved[far] > 0) == (mixer != "none"), (mixer, far)


def test_what_is_hidden_is_hidden_from_both_ends_and_about_half():
    apart, hidden = runs.distances(200, generator())
    assert torch.equal(hidden, hidden.mT) and not hidden.diagonal(dim1=1, dim2=2).any()
    torch.testing.assert_close(apart, apart.mT)
    n = runs.POINTS
    assert 0.45 < hidden.double().mean() * n / (n - 1) < 0.55


def test_the_model_sees_no_hidden_distance():
    torch.manual_seed(0)
    seen = []
    model = runs.DistanceModel("none")
    model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
    apart, hidden = runs.distances(3, generator())
    runs._squared_error(model, apart, hidden)
    told, known = seen[0]
    assert not told[hidden].any() and torch.equal(known.bool(), ~hidden)
    torch.testing.assert_close(told[~hidden], apart[~hidden])


def test_a_short_run_is_repeatable_and_its_settings_matter():
    base = runs.distance_run("triangles", steps=3)
    assert base == runs.distance_run("triangles", steps=3)
    others = [runs.distance_run(mixer, steps=3, seed=seed) for mixer in runs.MIXERS for seed in (0, 1)]
    assert sum(other == base for other in others) == 1


# What is stored.


def test_what_is_stored_is_whole():
    grpo, apart = (results.read("claims")[part] for part in ("grpo", "distances"))
    assert (grpo["steps"], grpo["window"]) == (runs.RL_STEPS, runs.WINDOW)
    assert list(grpo["runs"]) == list(runs.VARIANTS)
    for of_seeds in grpo["runs"].values():
        assert len(of_seeds) == len(runs.SEEDS)
        for run in of_seeds:
            assert {len(values) for values in run.values()} == {runs.RL_STEPS // runs.WINDOW + 1}
    assert apart["steps"] == runs.DISTANCE_STEPS
    assert list(apart["errors"]) == list(apart["weights"]) == list(runs.MIXERS)
    assert {len(errors) for errors in apart["errors"].values()} == {len(runs.SEEDS)}
    for mixer, weights in apart["weights"].items():
        assert weights == sum(p.numel() for p in runs.DistanceModel(mixer).parameters())


@pytest.mark.slow
@pytest.mark.parametrize("variant", runs.VARIANTS)
def test_reinforcement_is_measured_again(variant):
    """Training is chaotic: the form, and about how many answers are right, must come again."""
    stored = results.read("claims")["grpo"]["runs"][variant]
    for seed, run in zip(runs.SEEDS, stored, strict=True):
        again = runs.grpo_run(variant, seed=seed)
        assert again["formed"][-1] == pytest.approx(run["formed"][-1], abs=0.03)
        assert again["right"][-1] == pytest.approx(run["right"][-1], abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("mixer", runs.MIXERS)
def test_distances_are_measured_again(mixer):
    stored = results.read("claims")["distances"]["errors"][mixer]
    for seed, error in zip(runs.SEEDS, stored, strict=True):
        assert runs.distance_run(mixer, seed=seed) == pytest.approx(error, abs=0.04)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: runs.grpo_run("freely"), "variant must be one of against the group; .* got 'freely'"),
        (lambda: runs.distance_run("squares"), "mixer must be one of none; .* got 'squares'"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
