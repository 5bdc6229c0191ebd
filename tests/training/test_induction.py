"""The texts, models and runs behind the chapter on what heads do, and what is stored of them."""

import pytest
import torch

from transformer_lab.induction import LENGTH, VOCABULARY, cut, knock_out, pretrained, trace
from transformer_lab.training import induction as runs
from transformer_lab.training import results


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rows_repeat_a_segment_of_different_letters():
    rows, periods = runs.repeats(300, generator())
    assert rows.shape == (300, LENGTH + 1) and set(periods.tolist()) == set(range(6, 13))
    for row, period in zip(rows.tolist(), periods.tolist(), strict=True):
        assert len(set(row[:period])) == period
        assert all(row[t] == row[t - period] for t in range(period, LENGTH + 1))
    assert len(set(rows[:, 0].tolist())) == len(VOCABULARY), "every letter must occur"
    assert set(runs.repeats(9, generator(), period=8)[1].tolist()) == {8}


def test_what_can_be_known_begins_where_the_segment_comes_again():
    here = runs.known(torch.tensor([6, 12]))
    assert here.sum(dim=1).tolist() == [18, 12] and not here[0, 5] and here[0, 6]


@pytest.mark.parametrize("distance", [6, 9, 19])
def test_a_segment_comes_twice_and_all_else_once(distance):
    rows = runs.twice(50, generator(), distance=distance)
    assert rows.shape == (50, distance + runs.SEGMENT)
    assert torch.equal(rows[:, : runs.SEGMENT], rows[:, distance:])
    assert all(len(set(row[:distance])) == distance for row in rows.tolist())


def test_guessing_is_counted_where_the_next_letter_can_be_known():
    """A model that always says the first letter of the row, by weights written by hand."""
    model = runs.build(1)
    rows, periods = runs.repeats(100, generator())
    wanted = (rows[:, 1:] == rows[:, :1])[runs.known(periods)].double().mean().item()

    def first(logits):
        return torch.nn.functional.one_hot(rows[:, :1].expand(-1, LENGTH), len(VOCABULARY)).float()

    assert runs.share_right(model, (rows, periods), {"logits": first}) == pytest.approx(wanted)
    assert 0.05 < wanted < 0.2


def test_every_setting_makes_a_difference():
    tokens = runs.repeats(2, generator())[0][:, :-1]
    models = [runs.build(), runs.build(1), runs.build(norm="pre"), runs.build(tied=True), runs.build(seed=1)]
    sums = {f"{model(tokens).abs().sum().item():.6e}" for model in models}
    assert len(sums) == len(models)


def test_a_few_steps_of_training_lower_the_loss_and_are_counted():
    model, made, batch = runs.build(), [], runs.repeats(64, generator(9))
    before = runs.loss_known(model, batch)
    runs.train(model, steps=40, after_each=made.append)
    assert runs.loss_known(model, batch) < before - 0.1 and made == list(range(1, 41))


def test_the_seed_and_the_rate_of_training_matter():
    def trained(**settings):
        model = runs.build()
        runs.train(model, steps=2, **settings)
        return model.scores.weight.sum().item()

    assert trained() == trained()
    assert len({trained(), trained(seed=1), trained(lr=1e-3)}) == 3


def test_a_run_looks_every_few_steps():
    model, looks = runs.learning_run(2, steps=4, window=2)
    assert looks["steps"] == [2, 4] and all(len(looks[name]) == 2 for name in looks)
    assert looks["right"][-1] == round(runs.share_right(model, runs.new_rows()), 3)
    found = runs.scores(model)
    assert looks["induction"][-1] == [x for layer in found["induction"] for x in layer]
    assert looks["previous"][-1] == [x for layer in found["previous"] for x in layer]


# --- the model of the package --------------------------------------------------------------------------


def test_the_package_s_model_copies_and_has_the_heads_that_the_chapter_speaks_of():
    model = pretrained()
    assert not model.training
    assert runs.share_right(model, runs.new_rows()) > 0.99
    found = runs.scores(model)
    assert found["previous"][0][0] > 0.5 > 0.1 > found["previous"][0][1]
    assert min(found["induction"][1]) > 0.9
    assert min(runs.by_distance(model)) > 0.98 and min(runs.by_period(model)["right"]) > 0.99


def test_what_is_measured_without_heads_and_paths_is_what_the_edits_give():
    model, batch = pretrained(), runs.new_rows()
    fill = runs.average_run(model)
    without = runs.without(model, [[(1, 0), (1, 1)]])["1.0 1.1"]
    assert without["zero"] == round(runs.share_right(model, batch, knock_out([(1, 0), (1, 1)])), 3) < 0.1
    assert without["mean"] == round(runs.share_right(model, batch, knock_out([(1, 0), (1, 1)], fill)), 3)
    paths = runs.without_paths(model)
    with torch.no_grad():
        run = trace(model, batch[0][:, :-1])
    edits = cut(run, [(0, 0), (0, 1)], [(1, 0), (1, 1)], "k", fill)
    assert paths["k"] == round(runs.share_right(model, batch, edits), 3) < 0.3
    assert min(paths["q"], paths["v"]) > 0.98


# --- what is stored ------------------------------------------------------------------------------------

STORED = results.read("induction")
TWO, NORM, ONE, TIED = (STORED[name] for name in ("two layers", "two layers, norm", "one layer", "tied"))


def test_what_is_stored_is_whole():
    assert len(STORED["fresh"]) == len(TWO) == len(NORM) == len(ONE) == len(TIED) == len(runs.SEEDS)
    for start in (*TWO, *NORM):
        assert start["looks"]["steps"] == list(range(runs.WINDOW, runs.STEPS + 1, runs.WINDOW))
        assert list(start["without"]) == [runs.name_of(heads) for heads in runs.groups_of_heads()]
        assert list(start["paths"]) == ["q", "k", "v"]
    for start in (*TWO, *NORM, *ONE, *TIED):
        assert len(start["by distance"]) == len(runs.DISTANCES)
    for start in (*TWO, *NORM, *ONE):
        assert len(start["by period"]["right"]) == runs.PERIODS[1] - runs.PERIODS[0] + 1
    for start in ONE:
        assert start["looks"]["steps"][-1] == runs.LONGER


@pytest.mark.parametrize("start", [*TWO, *NORM])
def test_what_the_chapter_says_of_two_layers_holds_in_every_stored_run(start):
    right = {name: values["zero"] for name, values in start["without"].items()}
    first = max((0, 1), key=lambda h: start["scores"]["previous"][0][h])
    assert start["right"] > 0.99
    assert right[f"0.{first}"] < 0.3 and right[f"0.{1 - first}"] > 0.98
    assert min(right["1.0"], right["1.1"]) > 0.85 and right["1.0 1.1"] < 0.1
    assert start["paths"]["k"] < 0.3 and min(start["paths"]["q"], start["paths"]["v"]) > 0.98
    assert min(start["scores"]["induction"][1]) > 0.9 and min(start["by distance"]) > 0.95


def test_what_the_chapter_says_of_one_layer_holds_in_every_stored_run():
    for start in ONE:
        assert 0.4 < start["right"] < 0.7 and max(start["scores"]["induction"][0]) > 0.5
        far = [x for x, d in zip(start["by distance"], runs.DISTANCES, strict=True) if d > 12]
        assert max(far) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), [("two layers", "none"), ("two layers, norm", "pre")])
def test_two_layers_are_measured_again(name, norm):
    """Training is chaotic: where each start ends must come again, about; which head does what need not."""
    for seed, stored in zip(runs.SEEDS, STORED[name], strict=True):
        again = runs.two_layers(seed, norm=norm)
        assert again["right"] == pytest.approx(stored["right"], abs=0.02)
        for which, layer in (("previous", 0), ("induction", 1)):
            ours, theirs = (max(run["scores"][which][layer]) for run in (again, stored))
            assert ours == pytest.approx(theirs, abs=0.15)
        assert again["without"]["1.0 1.1"]["zero"] == pytest.approx(
            stored["without"]["1.0 1.1"]["zero"], abs=0.1
        )
        assert again["paths"] == pytest.approx(stored["paths"], abs=0.1)


def test_of_the_tied_models_one_copies_through_its_queries():
    by_keys = [start["paths"]["k"] < 0.3 for start in TIED]
    assert sorted(by_keys) == [False, True, True]
    for start, keys in zip(TIED, by_keys, strict=True):
        assert start["right"] > 0.9 and max(start["scores"]["induction"][1]) > 0.9
        previous, same = (max(start["scores"][name][0]) for name in ("previous", "same"))
        assert (previous > 0.25 > same) if keys else (same > 0.9 > 0.25 > previous)
        assert max(start["paths"]["q"], start["paths"]["v"]) < 0.3


@pytest.mark.slow
def test_tied_models_are_measured_again():
    """Which way a start takes is settled early, where training is not yet chaotic."""
    for seed, stored in zip(runs.SEEDS, TIED, strict=True):
        again = runs.tied_projection(seed)
        assert again["right"] == pytest.approx(stored["right"], abs=0.1)
        assert again["paths"] == pytest.approx(stored["paths"], abs=0.15)


@pytest.mark.slow
def test_one_layer_is_measured_again():
    for seed, stored in zip(runs.SEEDS, ONE, strict=True):
        again = runs.one_layer(seed)
        assert again["right"] == pytest.approx(stored["right"], abs=0.12)
        assert max(again["scores"]["induction"][0]) == pytest.approx(
            max(stored["scores"]["induction"][0]), abs=0.25
        )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: runs.repeats(1, generator(), period=5), "period must be from 6 to 12, got 5"),
        (lambda: runs.repeats(1, generator(), period=13), "period must be from 6 to 12, got 13"),
        (lambda: runs.twice(1, generator(), distance=5), "distance must be from 6 to 19, got 5"),
        (lambda: runs.twice(1, generator(), distance=20), "distance must be from 6 to 19, got 20"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
