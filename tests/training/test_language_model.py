import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab.data.made_up import ALPHABET, encode_text, stories
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig
from transformer_lab.training.language_model import loss_at_the_end, train_language_model

TEXT = encode_text(stories(3000))


def build():
    torch.manual_seed(0)
    return LanguageModel(LanguageModelConfig(vocab_size=len(ALPHABET), d_model=16, n_heads=2, d_ff=32))


class Steps(nn.Module):
    """No model: one weight, whose gradient never turns, so that Adam moves it by the learning rate."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.path = []

    def forward(self, tokens):
        self.path.append(self.weight.item())
        scores = torch.zeros(*tokens.shape, len(ALPHABET))
        return scores + F.one_hot(torch.tensor(len(ALPHABET) - 4), len(ALPHABET)) * self.weight


def test_it_learns_and_the_same_seed_gives_the_same():
    losses = [train_language_model(model := build(), TEXT, steps=40, seed=s, length=32) for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][-1] < losses[0][0] - 0.5
    assert model.embed.weight.grad is not None


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"decay": False}, [1, 1, 1, 1]),
        ({"decay": False, "warmup": 4}, [0.25, 0.5, 0.75, 1]),
        ({}, [0.5 + 0.5 * math.cos(math.pi * i / 4) for i in range(4)]),
        ({"warmup": 2}, [0.5, *(0.5 + 0.5 * math.cos(math.pi * i / 4) for i in range(1, 4))]),
    ],
)
def test_the_learning_rate_rises_and_falls_as_asked(settings, shares):
    model = Steps()
    train_language_model(model, TEXT, steps=4, lr=1e-3, **settings)
    path = [*model.path, model.weight.item()]
    moved = [abs(b - a) / 1e-3 for a, b in pairwise(path)]
    assert moved == pytest.approx(shares, rel=0.05)


def test_what_it_is_fed():
    seen = []

    class Spy(Steps):
        def forward(self, tokens):
            seen.append(tokens)
            return super().forward(tokens)

    train_language_model(Spy(), torch.arange(40) % 30, steps=3, length=7, batch_size=5)
    assert [tuple(tokens.shape) for tokens in seen] == [(5, 7)] * 3
    assert all(((row[1:] - row[:-1]) % 30 == 1).all() for tokens in seen for row in tokens)


def test_the_loss_at_the_end_is_that_of_the_last_characters():
    model, text = build(), encode_text(stories(2000))
    whole = loss_at_the_end(model, text, context=64, last=8, batch_size=3)
    ends = torch.linspace(1024, 1999, 3).long().tolist()
    with torch.no_grad():
        by_hand = [
            F.cross_entropy(model(text[None, e - 64 : e])[0, -8:], text[e - 7 : e + 1]).item() for e in ends
        ]
    assert whole == pytest.approx(sum(by_hand) / 3, rel=1e-5)


def test_every_context_is_judged_on_the_same_characters():
    class Nothing(nn.Module):  # it knows how often each character comes, and reads nothing
        def __init__(self):
            super().__init__()
            self.scores = nn.Parameter(torch.randn(len(ALPHABET), generator=torch.Generator().manual_seed(0)))

        def forward(self, tokens):
            return self.scores.expand(*tokens.shape, -1)

    text = encode_text(stories(3000))
    losses = [loss_at_the_end(Nothing(), text, context=c) for c in (32, 64, 512, 1024)]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: train_language_model(build(), TEXT, steps=0), "got 0, 16, 64"),
        (
            lambda: train_language_model(build(), TEXT[:64], steps=1),
            "longer than length=64, got 64 characters",
        ),
        (lambda: loss_at_the_end(build(), TEXT, context=16), "from 1 to context=16, got 32"),
        (lambda: loss_at_the_end(build(), TEXT[:1030], context=64), "1040 characters or more, got 1030"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
