"""The models and runs behind the chapter on Mamba, and what is stored of them."""

import pytest
import torch
from torch import nn

from transformer_lab.training import results
from transformer_lab.training import selective_scan as runs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(**settings):
    torch.manual_seed(0)
    return runs.MambaModel(**{"vocab_size": 10, "d_model": 8, "n_layers": 2, "d_state": 4} | settings)


def test_a_model_is_its_blocks_each_with_a_norm_before_it_and_a_skip_around_it():
    model, tokens = small(), torch.randint(10, (2, 5), generator=generator())
    x = model.embed(tokens)
    for norm, block in zip(model.norms, model.blocks, strict=True):
        x = x + block(norm(x))
    torch.testing.assert_close(model(tokens), model.norm(x) @ model.scores.weight.T)
    assert [block.d_state for block in model.blocks] == [4, 4]


def test_every_setting_makes_a_difference():
    tokens = torch.randint(10, (2, 5), generator=generator())
    changes = ({}, {"n_layers": 1}, {"d_state": 3}, {"gate": False}, {"selective": False})
    sums = {f"{small(**change)(tokens).abs().sum().item():.6e}" for change in changes}
    assert len(sums) == len(changes)


def test_symbols_stand_among_noise_in_the_order_in_which_they_are_wanted():
    rows, wanted = runs.selective_copying(100, generator())
    assert rows.shape == (100, runs.SLOTS + runs.COPIED) and wanted.shape == (100, runs.COPIED)
    assert (rows[:, runs.SLOTS :] == runs.ASK).all()
    told = rows[:, : runs.SLOTS]
    assert torch.equal(told[told < runs.SYMBOLS].view(100, -1), wanted)
    assert ((told < runs.SYMBOLS) | (told == runs.NOISE)).all()
    assert (told != runs.NOISE).any(dim=0).all(), "every place must occur"


@pytest.mark.parametrize("pairs", [1, 5, 16])
def test_keys_are_asked_for_in_another_order_and_have_one_value_each(pairs):
    rows, wanted = runs.recall(50, pairs, generator())
    assert rows.shape == (50, 3 * pairs) and wanted.shape == (50, pairs)
    for row, answers in zip(rows.tolist(), wanted.tolist(), strict=True):
        told = dict(zip(row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        assert len(told) == pairs and min(told) >= runs.VALUES > max(told.values())
        assert [told[key] for key in row[2 * pairs :]] == answers
    assert pairs == 1 or any(row[0 : 2 * pairs : 2] != row[2 * pairs :] for row in rows.tolist())


class Knowing(nn.Module):
    """Scores that are right on all but the last answer."""

    def __init__(self, wanted):
        super().__init__()
        self.wanted = wanted

    def forward(self, rows):
        scores = torch.zeros(*rows.shape, 10)
        scores[:, -self.wanted.shape[1] :] = nn.functional.one_hot(self.wanted, 10).float()
        scores[:, -1] = -scores[:, -1]
        return scores


def test_the_share_of_right_answers_counts_the_last_tokens():
    rows, wanted = runs.selective_copying(20, generator())
    assert runs.share_right(Knowing(wanted), (rows, wanted)) == pytest.approx(0.75)


def test_a_few_steps_of_training_lower_the_loss_and_are_counted():
    model, made = small(gate=False), []
    rows, wanted = runs.selective_copying(32, generator())

    def loss():
        return nn.functional.cross_entropy(model(rows)[:, -4:].flatten(0, 1), wanted.flatten()).item()

    before = loss()
    runs.train(model, lambda _: (rows, wanted), steps=20, after_each=made.append)
    assert loss() < before - 0.2 and made == list(range(1, 21))


def test_the_seed_of_training_chooses_the_batches():
    seen = []

    def batch(generator):
        seen.append(generator.initial_seed())
        return runs.selective_copying(2, generator)

    for seed in (0, 7):
        runs.train(small(), batch, steps=1, seed=seed)
    assert seen == [0, 7]


def test_a_short_run_is_repeatable_and_its_settings_matter(monkeypatch):
    monkeypatch.setattr(runs, "WINDOW", 2)
    monkeypatch.setattr(runs, "RECALL_WINDOW", 2)
    base = runs.copying_run("selective", steps=4)
    assert len(base) == 2 and base == runs.copying_run("selective", steps=4)
    others = [runs.copying_run(variant, steps=4) for variant in runs.VARIANTS]
    others += [runs.copying_run("selective", steps=4, seed=1)]
    assert sum(other == base for other in others) == 1
    base = runs.recall_run("Mamba, N = 2", steps=4)
    assert len(base["curve"]) == 2 and len(base["shares"]) == len(runs.PAIRS)
    assert base == runs.recall_run("Mamba, N = 2", steps=4)
    assert base != runs.recall_run("Mamba, N = 2", steps=4, seed=1)
    assert base != runs.recall_run("Mamba, N = 8", steps=4)
    assert base != runs.recall_run("attention", steps=4)


def test_the_memories_have_about_the_same_number_of_weights():
    sizes = [sum(p.numel() for p in make().parameters()) for make in runs.MEMORIES.values()]
    assert max(sizes) < 1.25 * min(sizes)


def test_what_is_stored_is_whole():
    stored = results.read("selective_scan")
    copying, recall = stored["copying"], stored["recall"]
    assert (copying["steps"], copying["window"]) == (runs.COPY_STEPS, runs.WINDOW)
    assert list(copying["shares"]) == list(runs.VARIANTS)
    for of_seeds in copying["shares"].values():
        assert [len(run) for run in of_seeds] == [runs.COPY_STEPS // runs.WINDOW] * len(runs.SEEDS)
    assert {len(run) for run in copying["longer"].values()} == {runs.LONGER // runs.WINDOW}
    settings = (recall["steps"], recall["window"], recall["pairs"], recall["trained"])
    assert settings == (runs.RECALL_STEPS, runs.RECALL_WINDOW, list(runs.PAIRS), runs.TRAINED_PAIRS)
    assert list(recall["runs"]) == list(runs.MEMORIES)
    for of_seeds in recall["runs"].values():
        assert [len(run["shares"]) for run in of_seeds] == [len(runs.PAIRS)] * len(runs.SEEDS)
        assert {len(run["curve"]) for run in of_seeds} == {runs.RECALL_STEPS // runs.RECALL_WINDOW}


@pytest.mark.slow
@pytest.mark.parametrize("variant", runs.VARIANTS)
def test_copying_is_measured_again(variant):
    """Training is chaotic: where each start ends must come again, about."""
    stored = results.read("selective_scan")["copying"]["shares"][variant]
    for seed, run in zip(runs.SEEDS, stored, strict=True):
        assert runs.copying_run(variant, seed=seed)[-1] == pytest.approx(run[-1], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["fixed", "fixed, gate"])
def test_where_copying_without_selection_ends_is_measured_again(variant):
    stored = results.read("selective_scan")["copying"]["longer"][variant]
    assert runs.copying_run(variant, steps=runs.LONGER)[-1] == pytest.approx(stored[-1], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("memory", runs.MEMORIES)
def test_recall_is_measured_again(memory):
    """Training is chaotic: how many answers are right, for each number of pairs, must come again, about."""
    stored = results.read("selective_scan")["recall"]["runs"][memory]
    for seed, run in zip(runs.SEEDS, stored, strict=True):
        assert runs.recall_run(memory, seed=seed)["shares"] == pytest.approx(run["shares"], abs=0.12)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: runs.copying_run("both"), "variant must be one of selective; fixed; .* got 'both'"),
        (lambda: runs.recall_run("a notebook"), "memory must be one of attention; .* got 'a notebook'"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
