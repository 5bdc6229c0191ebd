"""The long run of the chapter on positions: its pieces, and what is stored of it."""

import pytest
import torch
from torch.testing import assert_close

from transformer_lab.training import positional as bench
from transformer_lab.training import results

CODES = ("none", "sinusoidal", "learned", "rope", "alibi")


@pytest.fixture(scope="module")
def barely_trained():
    return bench.train("rope", steps=2)


def test_a_seed_decides_everything(barely_trained):
    again, other = bench.train("rope", steps=2), bench.train("rope", steps=2, seed=1)
    assert torch.equal(again.embed.weight, barely_trained.embed.weight)
    assert not torch.equal(other.embed.weight, barely_trained.embed.weight)


def test_models_differ_in_code_and_layers_alone(barely_trained):
    shallow = bench.train("none", n_layers=1, steps=1)
    assert (shallow.config.positions, len(shallow.layers)) == ("none", 1)
    assert shallow.config.d_model == barely_trained.config.d_model


def test_training_reaches_the_first_rows_of_the_learned_table():
    rows = bench.train("learned", steps=1).learned.table.weight
    torch.manual_seed(0)
    fresh = bench.train("learned", steps=2).learned.table.weight
    changed = (rows != fresh).any(dim=1)
    assert len(rows) == max(bench.CONTEXTS)
    assert changed[: bench.TRAINED].all() and not changed[bench.TRAINED :].any()


def test_interpolation_squeezes_positions_and_leaves_the_weights(barely_trained):
    tokens = bench.text(1)[None, :128]
    same, squeezed = (bench.interpolated(barely_trained, longer) for longer in (bench.TRAINED, 128))
    assert torch.equal(same(tokens), barely_trained(tokens))
    assert not torch.allclose(squeezed(tokens), barely_trained(tokens))
    assert squeezed.config.position_scale == 0.5
    for ours, theirs in zip(squeezed.parameters(), barely_trained.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_tuning_leaves_the_model_it_began_with(barely_trained):
    before = barely_trained.embed.weight.clone()
    after = bench.tuned(bench.interpolated(barely_trained, bench.LONGER), steps=1)
    assert torch.equal(barely_trained.embed.weight, before)
    assert not torch.equal(after.embed.weight, before)
    assert after.config.position_scale == bench.TRAINED / bench.LONGER


def test_losses_are_rounded_and_named_by_context(barely_trained):
    measured = bench.losses(barely_trained, (32, 64))
    assert list(measured) == ["32", "64"]
    assert all(0 < loss < 5 and loss == round(loss, 3) for loss in measured.values())


def test_test_text_is_not_training_text():
    assert len(bench.text(0)) == len(bench.text(1)) == 200_000
    assert not torch.equal(bench.text(0), bench.text(1))


# --- what is stored ------------------------------------------------------------------------------


def runs():
    return results.read("positional")["runs"]


def test_every_seed_and_context_is_stored():
    stored = results.read("positional")
    assert (stored["trained"], stored["longer"]) == (bench.TRAINED, bench.LONGER)
    assert list(stored["runs"]) == [str(seed) for seed in bench.SEEDS]
    for run in runs().values():
        for code in CODES:
            assert list(run[code]) == [str(context) for context in bench.CONTEXTS]


@pytest.mark.parametrize("seed", [str(seed) for seed in bench.SEEDS])
def test_the_stored_numbers_say_what_the_chapter_says(seed):
    run = runs()[seed]
    guessing = torch.tensor(30.0).log().item()
    for code in ("sinusoidal", "learned", "rope"):
        assert run[code]["64"] < 0.45 and run[code]["256"] > 3, code
    assert run["sinusoidal"]["96"] > guessing and run["learned"]["96"] > guessing > 1 > run["rope"]["96"]
    assert run["alibi"]["1024"] < run["alibi"]["64"] + 0.1
    assert run["none"]["64"] > 2 * run["rope"]["64"]
    assert run["none, one layer"]["64"] > run["none"]["64"] + 0.3
    squeezed = run["rope, interpolated"]
    assert squeezed["128"] > run["rope"]["128"] + 1  # worse where raw RoPE still half works
    for name in ("rope, tuned", "rope, interpolated, tuned"):
        assert run[f"{name} 300"]["256"] < run[f"{name} 100"]["256"] < guessing, name
        assert run[f"{name} 300"]["1024"] > 1, name  # further than it was tuned for, it fails again


@pytest.mark.slow
def test_measured_again_they_are_alike():
    """Training is chaotic: another machine ends elsewhere, but in the same place to the eye."""
    again, stored = bench.measure(0), runs()["0"]
    assert again.keys() == stored.keys()
    for name, losses in stored.items():
        assert again[name].keys() == losses.keys()
        for context, loss in losses.items():
            assert_close(again[name][context], loss, rtol=0.25, atol=0.1)
