"""The runs behind the chapter on scaling laws, and what is stored of them."""

import math
import os
import re

import pytest
import torch

from tests.data.mirrors import make_up
from tests.strict import require
from transformer_lab.data.made_up import encode_text, stories
from transformer_lab.training import results
from transformer_lab.training import scaling as runs

MADE_UP = "Nobody:\nO text, that is no play, yet LONG enough!\n\n" * 500


@pytest.fixture
def small(monkeypatch):
    """Texts and trainings of a second."""
    monkeypatch.setattr(runs, "STEPS", (2, 4))
    monkeypatch.setattr(runs, "WIDTHS", (8, 16))
    monkeypatch.setattr(runs, "RATES", (0.01, 0.02))
    monkeypatch.setattr(runs, "TUNING_STEPS", 2)
    monkeypatch.setattr(runs, "SHORT_WIDTHS", (8,))
    monkeypatch.setattr(runs, "SHORT_STEPS", (2, 3))
    for made in (runs.ample, runs.unseen):
        made.cache_clear()
    yield
    for made in (runs.ample, runs.unseen):
        made.cache_clear()


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A file in place of Shakespeare's, in a mirror that the registry trusts."""
    make_up(monkeypatch, tmp_path, "tiny_shakespeare", {"input.txt": MADE_UP.encode()})
    runs.shakespeare.cache_clear()
    yield
    runs.shakespeare.cache_clear()


# --- the entropy of the stories --------------------------------------------------------------------

KINDS = {"walks to": "walk", "has": "sum", "runs after": "chase", "says": "speech", "sells": "market"}


def sentences_of(story):
    """The sentences after the first, each with its kind."""
    _, *rest = re.findall(r"[^.]+\.", story)
    return [next(kind for words, kind in KINDS.items() if f" {words} " in sentence) for sentence in rest]


def test_the_choices_that_are_counted_are_those_that_are_made():
    """How often what happens in the text: even choices, so an entropy that is a sum of logarithms."""
    told = [sentences_of(story) for story in stories(1_000_000).split("\n")[:-1]]
    lengths = [len(kinds) for kinds in told]
    for n in (3, 4, 5, 6):
        assert lengths.count(n) / len(lengths) == pytest.approx(1 / 4, abs=0.03)
    kinds = [kind for story in told for kind in story]
    for kind in KINDS.values():
        assert kinds.count(kind) / len(kinds) == pytest.approx(1 / 5, abs=0.01)


def test_the_entropy_of_the_parts_is_that_of_their_frequencies():
    """Sums and markets, as they stand in a long text: as many different ones as counted, each as often."""
    text = stories(6_000_000)
    pairs = re.findall(r"has (\w+) (\w+), \w+ has (\w+),", text)
    assert len(set(pairs)) == 9 * 9 * 6
    markets = re.findall(r"in (\w+) \w+ sells (\w+) (\w+) to", text)
    assert len(set(markets)) == 5 * 17 * 6
    for found in (pairs, markets):
        counts = torch.tensor([found.count(one) for one in set(found)], dtype=torch.float64)
        share = counts / counts.sum()
        entropy = -(share * share.log()).sum().item()
        assert entropy == pytest.approx(math.log(len(set(found))), abs=0.03)
    speeches = re.findall(r"says ([a-z ]+), and", text)
    words = [len(speech.split()) for speech in speeches]
    for n in (2, 3, 4):
        assert words.count(n) / len(words) == pytest.approx(1 / 3, abs=0.02)
    assert len({word for speech in speeches for word in speech.split()}) == 16


def test_the_entropy_of_a_character_is_that_of_a_story_over_its_length():
    text = stories(2_000_000, seed=3)
    whole = text[: text.rindex("\n") + 1]
    length = len(whole) / whole.count("\n")
    assert runs.entropy_of_stories() == pytest.approx(runs.entropy_of_a_story() / length, rel=0.01)


# --- runs ------------------------------------------------------------------------------------------


def test_a_run_is_repeatable_and_all_that_is_chosen_matters(small):
    base = runs.run(8, steps=3, lr=0.01)[1]
    assert base == runs.run(8, steps=3, lr=0.01)[1]
    others = [
        runs.run(16, steps=3, lr=0.01)[1],
        runs.run(8, steps=4, lr=0.01)[1],
        runs.run(8, steps=3, lr=0.02)[1],
        runs.run(8, steps=3, lr=0.01, seed=1)[1],
        runs.run(8, steps=3, lr=0.01, text=encode_text(stories(500)))[1],
    ]
    assert len({base, *others}) == 6


def test_a_run_judges_on_stories_that_were_not_trained_on(small):
    model, loss = runs.run(8, steps=2, lr=0.01)
    assert loss == runs.loss_on(model, runs.unseen()) != runs.loss_on(model, runs.ample())
    assert not torch.equal(runs.unseen()[:1000], runs.ample()[:1000])
    assert len(runs.ample()) == 2 * 4 * runs.TOKENS_A_STEP


def test_the_text_in_ample_supply_is_drawn_from_once_at_most_on_average():
    assert max(runs.STEPS) * runs.TOKENS_A_STEP <= len(runs.ample())


def test_the_best_rate_is_that_of_the_lowest_loss():
    tuned = {"8": [2.0, 1.0, 1.5, 1.6, 1.7], "16": [2.0, 1.9, 1.8, 1.7, 1.6]}
    assert runs.best_rates(tuned) == {8: runs.RATES[1], 16: runs.RATES[4]}
    assert runs.best_rates({"8": [2.0, 1.0]}, (0.3, 0.5)) == {8: 0.5}


def test_another_text_brings_its_own_characters_and_is_cut_at_nine_tenths(made_up):
    text, rest = runs.shakespeare()
    alphabet = sorted(set(MADE_UP))
    assert "".join(alphabet[i] for i in torch.cat([text, rest]).tolist()) == MADE_UP
    assert len(text) == len(MADE_UP) * 9 // 10


def test_a_run_judges_on_the_text_that_it_is_given_and_knows_all_its_characters(small):
    text, rest = torch.arange(40).repeat(60), torch.full((2400,), 64)
    model, loss = runs.run(8, steps=2, lr=0.01, text=text, judged_on=rest)
    assert loss == runs.loss_on(model, rest) != runs.loss_on(model, text)
    assert model(rest[None, :5]).shape[-1] == 65
    assert runs.run(8, steps=2, lr=0.01)[0](text[None, :5] % 30).shape[-1] == 30


def test_everything_is_measured_and_told_on_the_way(small, made_up):
    heard = []
    measured = runs.measure(heard.append)
    assert len(heard) == 2 and "learning rates" in heard[0]
    assert measured["widths"] == [8, 16] and measured["steps"] == [2, 4]
    assert set(measured["tuning"]) == set(measured["losses"]) == {"8", "16"}
    assert [len(losses) for losses in measured["tuning"].values()] == [2, 2]
    assert [[len(row) for row in table] for table in measured["losses"].values()] == [[3, 3], [3, 3]]
    short = measured["short"]
    assert short["characters"] == runs.SHORT and short["steps"] == [2, 3]
    assert [[len(row) for row in short["losses"]["8"][of]] for of in ("unseen", "trained on")] == [
        [3, 3],
        [3, 3],
    ]
    plays = measured["shakespeare"]
    assert [len(plays["tuning"]["8"]), *map(len, plays["losses"]["8"])] == [5, 3, 3]


# --- what is stored --------------------------------------------------------------------------------


def test_what_is_stored_is_whole():
    stored = results.read("scaling")
    assert (stored["widths"], stored["steps"]) == (list(runs.WIDTHS), list(runs.STEPS))
    assert stored["rates"] == list(runs.RATES)
    assert set(stored["tuning"]) == {str(d) for d in {*runs.WIDTHS, *runs.SHORT_WIDTHS}}
    assert {len(losses) for losses in stored["tuning"].values()} == {len(runs.RATES)}
    assert list(stored["losses"]) == [str(d) for d in runs.WIDTHS]
    for table in stored["losses"].values():
        assert [len(row) for row in table] == [len(runs.SEEDS)] * len(runs.STEPS)
    short = stored["short"]
    assert (short["characters"], short["steps"]) == (runs.SHORT, list(runs.SHORT_STEPS))
    assert list(short["losses"]) == [str(d) for d in runs.SHORT_WIDTHS]
    for rows in short["losses"].values():
        for of in ("unseen", "trained on"):
            assert [len(row) for row in rows[of]] == [len(runs.SEEDS)] * len(runs.SHORT_STEPS)
    plays = stored["shakespeare"]
    assert list(plays["tuning"]) == list(plays["losses"]) == [str(d) for d in runs.SHORT_WIDTHS]
    assert plays["rates"] == list(runs.PLAYS_RATES)
    assert {len(losses) for losses in plays["tuning"].values()} == {len(runs.PLAYS_RATES)}
    for rows in plays["losses"].values():
        assert [len(row) for row in rows] == [len(runs.SEEDS)] * len(runs.SHORT_STEPS)


def test_no_stored_loss_is_below_what_the_text_is_worth():
    stored = results.read("scaling")
    losses = [loss for table in stored["losses"].values() for row in table for loss in row]
    assert runs.entropy_of_stories() < min(losses)


@pytest.mark.slow
@pytest.mark.parametrize("d_model", runs.WIDTHS)
def test_losses_are_measured_again(d_model):
    """The short form: every size, up to 400 steps. Training is chaotic: losses must come again, about."""
    stored = results.read("scaling")
    rate = runs.best_rates(stored["tuning"])[d_model]
    for steps, row in zip(runs.STEPS[:3], stored["losses"][str(d_model)], strict=False):
        for seed, loss in zip(runs.SEEDS, row, strict=True):
            assert runs.run(d_model, steps=steps, lr=rate, seed=seed)[1] == pytest.approx(loss, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("d_model", [8, 48])
def test_the_tuning_is_measured_again(d_model):
    stored = results.read("scaling")["tuning"][str(d_model)]
    again = [runs.run(d_model, steps=runs.TUNING_STEPS, lr=lr)[1] for lr in runs.RATES[:4]]
    assert again == pytest.approx(stored[:4], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("d_model", [16, 48])
def test_the_text_that_runs_out_is_measured_again(d_model):
    stored = results.read("scaling")
    rate = runs.best_rates(stored["tuning"])[d_model]
    rows = stored["short"]["losses"][str(d_model)]
    text = encode_text(stories(runs.SHORT))
    for i, steps in enumerate(runs.SHORT_STEPS):
        model, loss = runs.run(d_model, steps=steps, lr=rate, text=text)
        assert loss == pytest.approx(rows["unseen"][i][0], rel=0.2)
        assert runs.loss_on(model, text) == pytest.approx(rows["trained on"][i][0], rel=0.25)


@pytest.mark.slow
def test_shakespeare_is_measured_again():
    """The smallest and the largest model, from one start; the file from a mirror."""
    require(bool(os.environ.get("TRANSFORMER_LAB_DATA")), "TRANSFORMER_LAB_DATA names no mirror of the data")
    text, rest = runs.shakespeare()
    assert (len(text), len(rest), int(text.max())) == (1_003_854, 111_540, 64)
    stored = results.read("scaling")["shakespeare"]
    rates = runs.best_rates(stored["tuning"], stored["rates"])
    for d_model in (runs.SHORT_WIDTHS[0], runs.SHORT_WIDTHS[-1]):
        for steps, row in zip(runs.SHORT_STEPS, stored["losses"][str(d_model)], strict=True):
            _, loss = runs.run(d_model, steps=steps, lr=rates[d_model], text=text, judged_on=rest)
            assert loss == pytest.approx(row[0], rel=0.1)
