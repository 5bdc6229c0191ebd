"""The runs behind the chapter on why there is attention, and what is stored of them."""

import pytest
import torch

from transformer_lab.training import results
from transformer_lab.training import why_attention as runs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n", "wanted"), [(4, [1, 2, 3]), (16, [1, 2, 4, 8, 15]), (8, [1, 2, 4, 7])])
def test_distances_are_powers_of_two_and_the_first_token(n, wanted):
    assert runs.distances(n) == wanted


def test_one_token_of_the_first_quarter_is_loud_and_is_the_answer():
    rows, answers = runs.one_loud_token(400, 16, generator())
    assert rows.shape == (400, 16) and answers.shape == (400,)
    assert (rows[:, -1] == runs.ASK).all()
    loud = (rows >= runs.LOUD) & (rows < runs.ASK)
    assert (loud.sum(dim=1) == 1).all() and not loud[:, 4:].any() and loud[:, :4].any(dim=0).all()
    assert torch.equal(rows[loud] - runs.LOUD, answers)
    assert (rows[:, :-1][~loud[:, :-1]] < runs.SYMBOLS).all()
    assert answers.unique().tolist() == list(range(runs.SYMBOLS))


def test_a_reader_answers_from_the_last_token():
    model = runs.Reader("LSTM", d_model=4, reach=6)
    rows, _ = runs.one_loud_token(3, 6, generator())
    whole = model.layer(model.embed(rows))
    torch.testing.assert_close(model(rows), model.scores(whole[:, -1]))


@pytest.mark.parametrize("n", runs.TASK_LENGTHS)
def test_readers_are_of_one_size(n):
    sizes = [runs.size(runs.Reader(name, d_model=runs.width(name, n), reach=n)) for name in runs.READERS]
    assert 0.93 * runs.WEIGHTS < min(sizes) <= max(sizes) <= runs.WEIGHTS


def test_a_short_run_is_repeatable_and_its_settings_matter(monkeypatch):
    monkeypatch.setattr(runs, "WINDOW", 2)
    base = runs.task_run("attention", 8, rate=1e-2, steps=20)
    assert len(base["curve"]) == 10 and base == runs.task_run("attention", 8, rate=1e-2, steps=20)
    assert base["curve"][-1] > 0.5
    for other in (
        runs.task_run("attention", 8, rate=1e-3, steps=20),
        runs.task_run("attention", 8, rate=1e-2, steps=20, seed=1),
        runs.task_run("attention", 12, rate=1e-2, steps=20),
        runs.task_run("attention", 8, rate=1e-2, steps=20, spread=0.3),
        runs.task_run("convolutions", 8, rate=1e-2, steps=20),
    ):
        assert other != base


def test_the_best_settings_have_the_highest_curve(monkeypatch):
    asked = []

    def run(name, n, *, rate, spread, seed, steps):
        assert (name, n, seed, steps) == ("LSTM", 16, runs.CHOOSING, 5)
        asked.append((rate, spread))
        return {"curve": [0.1, 0.9 if (rate, spread) == (runs.RATES[1], runs.SPREADS[1]) else 0.5]}

    monkeypatch.setattr(runs, "task_run", run)
    best = runs.best_settings("LSTM", 16, steps=5)
    assert best == {"rate": runs.RATES[1], "spread": runs.SPREADS[1]}
    assert len(set(asked)) == len(runs.RATES) * len(runs.SPREADS) and runs.CHOOSING not in runs.SEEDS


def test_what_is_stored_is_whole():
    stored = results.read("why_attention")
    start, task, patient = stored["start"], stored["task"], stored["patient"]
    assert start["lengths"] == list(runs.LENGTHS) and list(start["gradient"]) == list(runs.NAMES)
    for n in runs.LENGTHS:
        assert start["distances"][str(n)] == runs.distances(n)
        for of_lengths in start["gradient"].values():
            assert len(of_lengths[str(n)]) == len(runs.distances(n))
    assert (task["lengths"], task["steps"]) == (list(runs.TASK_LENGTHS), runs.STEPS)
    assert list(task["runs"]) == list(runs.READERS)
    for name, of_lengths in task["runs"].items():
        for n, run in of_lengths.items():
            assert run["rate"] in runs.RATES and run["spread"] in runs.SPREADS
            assert run["width"] == runs.width(name, int(n))
            assert {len(curve) for curve in run["curves"]} == {runs.STEPS // runs.WINDOW}
            assert len(run["curves"]) == len(run["longer"]) == len(runs.SEEDS)
    assert (patient["length"], patient["steps"]) == (runs.PATIENT_LENGTH, runs.PATIENT)
    assert list(patient["curves"]) == list(runs.READERS[1:4])
    for of_spreads in patient["curves"].values():
        assert list(of_spreads) == [str(spread) for spread in runs.SPREADS]
        for curves in of_spreads.values():
            assert [len(curve) for curve in curves] == [runs.PATIENT // runs.WINDOW] * len(runs.SEEDS)
    assert list(stored["gate"]["curves"]) == [str(bias) for bias in runs.GATE_BIASES]
    for curves in stored["gate"]["curves"].values():
        assert [len(curve) for curve in curves] == [runs.STEPS // runs.WINDOW] * len(runs.SEEDS)


def test_a_gate_run_is_the_lstm_s_with_another_bias(monkeypatch):
    monkeypatch.setattr(runs, "WINDOW", 1)
    monkeypatch.setattr(runs, "PATIENT_LENGTH", 6)
    base = runs.gate_run(3.0, steps=8)
    settings = {"rate": runs.PATIENT_RATE, "spread": runs.GATE_SPREAD, "steps": 8}
    assert base == runs.task_run("LSTM, gate open", 6, **settings)["curve"]
    assert base not in (runs.gate_run(0.0, steps=8), runs.gate_run(3.0, seed=1, steps=8))


@pytest.mark.slow
def test_what_the_gate_s_bias_decides_is_measured_again():
    stored = results.read("why_attention")["gate"]["curves"]
    for bias in (0.0, 5.0):
        for seed, curve in zip(runs.SEEDS, stored[str(bias)], strict=True):
            if curve[-1] > 0.95 or curve[-1] < 0.2:
                assert runs.gate_run(bias, seed=seed)[-1] == pytest.approx(curve[-1], abs=0.15)


@pytest.mark.parametrize("name", runs.NAMES)
def test_gradients_at_the_start_are_measured_again(name):
    """On 64 tokens; the faintest differ in their last digits from machine to machine."""
    stored = results.read("why_attention")["start"]["gradient"][name]["64"]
    assert runs.gradients(name, 64) == pytest.approx(stored, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", runs.NAMES)
def test_gradients_over_all_lengths_are_measured_again(name):
    stored = results.read("why_attention")["start"]["gradient"][name]
    for n in runs.LENGTHS:
        assert runs.gradients(name, n) == pytest.approx(stored[str(n)], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", runs.READERS)
@pytest.mark.parametrize("n", [16, 64])
def test_the_task_is_measured_again(name, n):
    """Training is chaotic: who learns it and who does not must come again, start by start."""
    stored = results.read("why_attention")["task"]["runs"][name][str(n)]
    settings = {"rate": stored["rate"], "spread": stored["spread"]}
    again = [runs.task_run(name, n, **settings, seed=seed)["curve"][-1] for seed in runs.SEEDS]
    ends = [curve[-1] for curve in stored["curves"]]
    for found, end in zip(again, ends, strict=True):
        if end > 0.95 or end < 0.2:
            assert found == pytest.approx(end, abs=0.15)


@pytest.mark.bad_input
def test_bad_input_says_what_was_wrong():
    with pytest.raises(ValueError, match=r"name must be one of tanh RNN; .* got 'GRU'"):
        runs.task_run("GRU", 16, rate=1e-3)
