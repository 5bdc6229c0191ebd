"""Five faults, what finds each, and that the chapter's stored runs come out again."""

import pytest
import torch
from torch.nn import functional as F

from transformer_lab.masks import causal_mask
from transformer_lab.models.language_model import LanguageModel
from transformer_lab.training import results
from transformer_lab.training.language_model import train_language_model
from transformer_lab.training.masks import CONFIG, FAULTS, SEEDS, MaskedModel, WithoutFuture, run


def built(fault):
    torch.manual_seed(0)
    return MaskedModel(**FAULTS[fault][0]).requires_grad_(False)


def test_without_a_fault_it_is_the_language_model():
    torch.manual_seed(0)
    honest, tokens = LanguageModel(CONFIG), torch.tensor([[3, 1, 4, 1, 5, 9]])
    assert torch.equal(built("none")(tokens), honest(tokens))
    assert not torch.allclose(
        MaskedModel(make_mask=lambda n: causal_mask(n).flip(-1))(tokens), honest(tokens)
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_scores_without_a_future_differ_where_the_future_leaks(fault):
    """Faults of the targets are no leaks: no test of the mask finds them."""
    model, tokens = built(fault), torch.tensor([[3, 1, 4, 1, 5, 9]])
    together, alone = model(tokens), WithoutFuture(model)(tokens)
    leaks = fault in ("no mask", "tril(diagonal=1)", "mean over the row")
    assert torch.allclose(together, alone, atol=1e-4) != leaks
    assert torch.allclose(together[:, -1], alone[:, -1], atol=1e-4)  # the last token has no future anyway


def test_one_short_run_measures_every_number():
    quick, other = run("no mask", steps=3), run("no mask", steps=3, seed=1)
    assert quick.keys() == {"training", "held out", "writing", "influence"}
    assert quick == run("no mask", steps=3) != other
    assert quick["influence"] > 0 == run("targets shifted twice", steps=3)["influence"]


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_model_learns_the_character_it_is_asked_for(ahead):
    """In 0, 1, ..., 9, 0, 1, ... the character some places ahead is known from the one just read."""
    torch.manual_seed(0)
    model, ids = MaskedModel(), torch.arange(400) % 10
    train_language_model(model, ids, steps=60, length=8, lr=1e-2, ahead=ahead)
    assert torch.equal(model(ids[None, 10:18]).argmax(-1)[0], ids[10 + ahead : 18 + ahead])


def test_hugging_face_shifts_labels_itself():
    """So whoever shifts them too trains the fault "targets shifted twice"."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=12, n_positions=8, n_embd=8, n_layer=1, n_head=1)).eval()
    ids = torch.tensor([[3, 1, 4, 1, 5, 9]])
    scores = model(ids).logits
    for labels, targets, n in ((ids, ids[0, 1:], 5), (ids[:, 1:], ids[0, 2:], 4)):
        theirs = model(ids[:, : labels.shape[1]], labels=labels).loss
        assert torch.allclose(theirs, F.cross_entropy(scores[0, :n], targets))


def test_the_stored_runs_tell_the_chapter_s_story():
    stored = results.read("masks")
    assert stored.keys() == FAULTS.keys()
    assert all(len(values) == len(SEEDS) for measured in stored.values() for values in measured.values())
    for fault, m in stored.items():
        leaks = fault in ("no mask", "tril(diagonal=1)", "mean over the row")
        assert all((i > 0) == leaks for i in m["influence"])
        for held_out, writing in zip(m["held out"], m["writing"], strict=True):
            assert (writing > held_out + 0.1) == leaks
    assert max(stored["no mask"]["training"] + stored["tril(diagonal=1)"]["training"]) < 0.2
    assert min(stored["mean over the row"]["training"]) > 0.5  # nothing to be surprised at


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_stored_run_comes_out_again(fault):
    stored, again = results.read("masks")[fault], run(fault, seed=SEEDS[-1])
    for name in ("training", "held out", "writing"):
        assert again[name] == pytest.approx(stored[name][-1], rel=0.25, abs=0.05), name
    assert (again["influence"] > 0) == (stored["influence"][-1] > 0)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: run("no idea"), "one of none, no mask, .*; got 'no idea'"),
        (
            lambda: train_language_model(MaskedModel(), torch.arange(20), steps=1, length=4, ahead=-1),
            "ahead must be 0 or more, got -1",
        ),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
