"""The runs behind the chapter: quick tests of their parts, and a slow one that measures again."""

import json

import pytest
import torch

from transformer_lab.data.made_up import NUMBERS, PEOPLE, encode_text, stories
from transformer_lab.feed_forward import MixtureOfExperts
from transformer_lab.training import feed_forward as runs
from transformer_lab.training import results


class Knows(torch.nn.Module):
    """Predicts each next letter of the texts it was given, and a full stop elsewhere."""

    def __init__(self, texts):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.texts = [encode_text(text).tolist() for text in texts]

    def forward(self, tokens):
        scores = torch.zeros(*tokens.shape, 30)
        for b, row in enumerate(tokens.tolist()):
            for t in range(len(row)):
                seen = row[: t + 1]
                known = [text for text in self.texts if text[: t + 1] == seen and len(text) > t + 1]
                scores[b, t, known[0][t + 1] if known else 29] = 1.0
        return scores


def test_facts_and_sums_are_those_of_the_stories():
    text = stories(300_000)
    assert len(runs.facts()) == 3 * len(PEOPLE) == 60 and len(runs.sums()) == 81
    for start, answer in runs.facts()[3:]:
        assert start + answer in text
    for start, answer in runs.sums():
        a, b = (NUMBERS.index(word) for word in start.replace(",", "").split() if word in NUMBERS)
        assert NUMBERS.index(answer.strip()) == a + b


def test_recalled_asks_for_every_letter_of_the_answer():
    pairs = [("\nada the ", "baker"), ("\nada the baker lives in ", "arden"), ("\nbela ", "the")]
    assert runs.recalled(Knows(["\nada the baker lives in arden", "\nbela the"]), pairs) == [True] * 3
    assert runs.recalled(Knows(["\nada the baker lives in ardez"]), pairs) == [True, False, False]
    with pytest.raises(ValueError, match="the list is empty"):
        runs.recalled(Knows([]), [])


@pytest.mark.parametrize("name", runs.NETWORKS)
def test_all_networks_have_nearly_as_many_weights(name):
    plain, other = runs.NETWORKS["ReLU"](runs.D), runs.NETWORKS[name](runs.D)
    assert 0.98 < runs.parameters(other) / runs.parameters(plain) <= 1


def test_attention_alone_has_as_many_weights_in_more_layers():
    stored = results.read("feed_forward")
    alone = stored["attention only"]["same weights"]["weights"][0]
    assert 0.98 < alone / stored["networks"]["GELU"]["weights"][0] < 1.02


def test_a_run_measures_everything_and_the_penalty_reaches_the_router():
    with_it, without = (runs.with_experts(balance, steps=3, seed=0) for balance in (100.0, 0.0))
    assert with_it.keys() == {"weights", "loss", "facts", "sums", "load"}
    assert [len(load) for load in with_it["load"]] == [8, 8]
    assert all(abs(sum(load) - 1) < 1e-3 for load in with_it["load"])
    assert with_it["load"] != without["load"]


def test_inputs_of_experts_are_what_their_network_read():
    model = runs.trained(
        feed_forward=lambda d: MixtureOfExperts(d_model=d, d_ff=4, n_experts=2, top_k=1), steps=1, seed=0
    )
    inputs = runs.inputs_of_experts(model)
    model(torch.zeros(1, 5, dtype=torch.long))
    assert [inputs[layer].shape for layer in model.layers] == [(1, 5, runs.D)] * 2


def test_what_is_stored_comes_from_these_runs():
    stored = results.read("feed_forward")
    assert {part: list(kept) for part, kept in stored.items()} == {
        part: [str(setting) for setting in settings] for part, (_, settings) in runs.RUNS.items()
    }
    for kept in stored.values():
        assert all(len(values) == len(runs.SEEDS) for row in kept.values() for values in row.values())
    assert json.dumps(stored).count("NaN") == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "setting"),
    [(part, setting) for part, (_, settings) in runs.RUNS.items() for setting in settings],
)
def test_measured_again(part, setting):
    """Sums in another order make other models of like quality: what is stored holds within a tolerance."""
    stored, seed = results.read("feed_forward")[part][str(setting)], runs.SEEDS[0]
    again = runs.RUNS[part][0](setting, seed=seed)
    assert again["weights"] == stored["weights"][0]
    assert again["loss"] == pytest.approx(stored["loss"][0], abs=0.06)
