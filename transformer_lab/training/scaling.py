"""The runs behind the chapter on scaling laws: sizes times lengths of training, and a text that runs out.

``python -m transformer_lab.training.scaling`` measures all of it again and stores it in
``results/scaling.json``, in less than half an hour on a free core. Sizes and learning rates are those of a
laptop: what is measured is how the loss changes with them, and not how low it can go.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..models.language_model import LanguageModel, LanguageModelConfig
from . import results
from .data import ALPHABET, ANIMALS, GOODS, NUMBERS, PEOPLE, TOWNS, encode_text, stories
from .language_model import loss_at_the_end, train_language_model

LENGTH, BATCH = 64, 16  # characters that a model reads, pieces in a batch
TOKENS_A_STEP = LENGTH * BATCH
N_LAYERS = 2
SEEDS = (0, 1, 2)

WIDTHS = (8, 12, 16, 24, 32, 48)  # the last one is held out of the fits
STEPS = (100, 200, 400, 800, 1600)
RATES = (0.005, 0.01, 0.02, 0.04, 0.08)
TUNING_STEPS = 400
WARMUP = 50

SHORT = 5_000  # characters of the text that runs out
SHORT_WIDTHS = (8, 16, 32, 48)
SHORT_STEPS = (200, 800)


def entropy_of_a_story() -> float:
    """Nats that the choices in one story of ``training.data`` are worth: no reader can be surprised by less.

    Each choice is even, and can be read off the text; so the entropy of the text is that of the choices. Two
    people, three to six sentences, the kind of each; a sum has two numbers and goods, a speech two to four
    words, a market a town, a number and goods; a walk and a chase have no choice of their own.

    >>> f"{entropy_of_a_story():.2f}"
    '34.22'
    """
    log = math.log
    people = log(len(PEOPLE)) + log(len(PEOPLE) - 1)
    a_sum = 2 * log(9) + log(len(GOODS))
    speech = log(3) + 3 * log(len(GOODS + ANIMALS + TOWNS))  # three words on average
    market = log(len(TOWNS)) + log(len(NUMBERS[2:])) + log(len(GOODS))
    sentence = log(5) + (a_sum + speech + market) / 5
    return people + log(4) + 4.5 * sentence


def entropy_of_stories() -> float:
    """Nats per character of stories without end, read from the beginning: none can be predicted better."""
    text = stories(1_000_000)
    whole = text[: text.rindex("\n") + 1]
    return entropy_of_a_story() * whole.count("\n") / len(whole)


def config(d_model: int) -> LanguageModelConfig:
    """The shape of a model of this width: two layers, heads of width 8, a hidden layer four times as wide."""
    return LanguageModelConfig(
        vocab_size=len(ALPHABET),
        d_model=d_model,
        n_heads=max(d_model // 8, 1),
        n_layers=N_LAYERS,
        d_ff=4 * d_model,
    )


@cache
def ample() -> Int[Tensor, "N"]:
    """Twice as many characters as the longest training draws from them: none is read often."""
    return encode_text(stories(2 * TOKENS_A_STEP * max(STEPS)))


@cache
def unseen() -> Int[Tensor, "N"]:
    """Other stories, on which all models are judged."""
    return encode_text(stories(200_000, seed=1))


def run(
    d_model: int, *, steps: int, lr: float, seed: int = 0, text: Int[Tensor, "N"] | None = None
) -> tuple[LanguageModel, float]:
    """Train a model of this width, and its loss on ``unseen`` stories, in nats per character.

    Args:
        d_model, steps, lr: width, number of batches, largest learning rate.
        seed: of the first weights and of the pieces of text.
        text: to be trained on, in numbers of ``ALPHABET``; the ``ample`` one if none is given.

    Raises:
        ValueError: as ``LanguageModelConfig`` and ``train_language_model``.
    """
    torch.manual_seed(seed)
    model = LanguageModel(config(d_model))
    train_language_model(
        model,
        ample() if text is None else text,
        steps=steps,
        length=LENGTH,
        batch_size=BATCH,
        lr=lr,
        warmup=min(WARMUP, steps // 2),
        seed=seed,
    )
    return model, loss_on(model, unseen())


def loss_on(model: LanguageModel, text: Int[Tensor, "N"]) -> float:
    """Mean loss over all characters of 1000 pieces of ``text``, in nats."""
    return loss_at_the_end(model, text, context=LENGTH, last=LENGTH, batch_size=1000)


def tuning() -> dict[str, list[float]]:
    """Loss after ``TUNING_STEPS`` at each of ``RATES``, for each width, from one start."""
    return {
        str(d): [round(run(d, steps=TUNING_STEPS, lr=lr)[1], 4) for lr in RATES]
        for d in sorted({*WIDTHS, *SHORT_WIDTHS})
    }


def best_rates(tuned: Mapping[str, Sequence[float]]) -> dict[int, float]:
    """Width -> the learning rate with the lowest loss.

    >>> best_rates({"8": [3.0, 2.0, 1.0, 1.5, 1.7]})
    {8: 0.02}
    """
    return {int(d): RATES[min(range(len(RATES)), key=losses.__getitem__)] for d, losses in tuned.items()}


def grid(rates: Mapping[int, float], seeds: Sequence[int] = SEEDS) -> dict[str, list[list[float]]]:
    """Width -> a row for each of ``STEPS``, a loss for each seed."""
    return {
        str(d): [
            [round(run(d, steps=steps, lr=rates[d], seed=seed)[1], 4) for seed in seeds] for steps in STEPS
        ]
        for d in WIDTHS
    }


def run_out(
    rates: Mapping[int, float], seeds: Sequence[int] = SEEDS
) -> dict[str, dict[str, list[list[float]]]]:
    """Width -> "unseen" and "trained on": a row for each of ``SHORT_STEPS``, a loss for each seed."""
    short = encode_text(stories(SHORT))
    measured: dict[str, dict[str, list[list[float]]]] = {}
    for d in SHORT_WIDTHS:
        rows = measured[str(d)] = {"unseen": [], "trained on": []}
        for steps in SHORT_STEPS:
            runs = [run(d, steps=steps, lr=rates[d], seed=seed, text=short) for seed in seeds]
            rows["unseen"].append([round(loss, 4) for _, loss in runs])
            rows["trained on"].append([round(loss_on(model, short), 4) for model, _ in runs])
    return measured


def measure(say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Everything that the chapter reads from its stored results; ``say`` hears how far it is."""
    tuned = tuning()
    rates = best_rates(tuned)
    say(f"learning rates: {rates}")
    losses = grid(rates)
    say(f"losses: {losses}")
    return {
        "widths": list(WIDTHS),
        "steps": list(STEPS),
        "rates": list(RATES),
        "tuning": tuned,
        "losses": losses,
        "short": {
            "characters": SHORT,
            "widths": list(SHORT_WIDTHS),
            "steps": list(SHORT_STEPS),
            "losses": run_out(rates),
        },
    }


if __name__ == "__main__":
    print(results.write("scaling", measure(print)).name)
