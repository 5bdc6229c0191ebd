"""The runs behind the chapter on scaling laws: sizes times lengths of training, a text that runs out, plays.

``python -m transformer_lab.training.scaling`` measures all of it again and stores it in
``results/scaling.json``, in less than half an hour on a free core; it fetches Tiny Shakespeare (1.1 MB), the
only text that is not made by rule. Sizes and learning rates are those of a
laptop: what is measured is how the loss changes with them, and not how low it can go.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..data.made_up import ALPHABET, ANIMALS, GOODS, NUMBERS, PEOPLE, TOWNS, encode_text, stories
from ..data.text import tiny_shakespeare
from ..models.language_model import LanguageModel, LanguageModelConfig
from . import results
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
PLAYS_RATES = (0.01, 0.02, 0.04, 0.08, 0.16)  # the best ones are larger than for the stories


def entropy_of_a_story() -> float:
    """Nats that the choices in one story of ``data.made_up`` are worth: no reader can be surprised by less.

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


def config(d_model: int, vocab_size: int = len(ALPHABET)) -> LanguageModelConfig:
    """The shape of a model of this width: two layers, heads of width 8, a hidden layer four times as wide."""
    return LanguageModelConfig(
        vocab_size=vocab_size,
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


@cache
def shakespeare(folder: str | os.PathLike[str] | None = None) -> tuple[Int[Tensor, "N"], Int[Tensor, "P"]]:
    """Tiny Shakespeare in numbers of its own 65 characters: nine tenths to be trained on, and the last one.

    Args:
        folder: where to keep the file, as in ``registry.fetch``.

    Raises:
        FetchError: the file could not be had.
    """
    parts = tiny_shakespeare(folder=folder)
    number = {character: i for i, character in enumerate(sorted(set("".join(parts))))}
    train, last = (torch.tensor([number[character] for character in part]) for part in parts)
    return train, last


def run(
    d_model: int,
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    text: Int[Tensor, "N"] | None = None,
    judged_on: Int[Tensor, "P"] | None = None,
) -> tuple[LanguageModel, float]:
    """Train a model of this width, and its loss on a text that it has not seen, in nats per character.

    Args:
        d_model, steps, lr: width, number of batches, largest learning rate.
        seed: of the first weights and of the pieces of text.
        text: to be trained on, in numbers of ``ALPHABET`` or of a larger one; the ``ample`` one if none is
            given.
        judged_on: the other text, in the same numbers; the ``unseen`` stories if none is given.

    Raises:
        ValueError: as ``LanguageModelConfig`` and ``train_language_model``.
    """
    text = ample() if text is None else text
    judged_on = unseen() if judged_on is None else judged_on
    torch.manual_seed(seed)
    model = LanguageModel(config(d_model, max(len(ALPHABET), 1 + int(torch.cat([text, judged_on]).max()))))
    train_language_model(
        model,
        text,
        steps=steps,
        length=LENGTH,
        batch_size=BATCH,
        lr=lr,
        warmup=min(WARMUP, steps // 2),
        seed=seed,
    )
    return model, loss_on(model, judged_on)


def loss_on(model: LanguageModel, text: Int[Tensor, "N"]) -> float:
    """Mean loss over all characters of 1000 pieces of ``text``, in nats."""
    return loss_at_the_end(model, text, context=LENGTH, last=LENGTH, batch_size=1000)


def tuning() -> dict[str, list[float]]:
    """Loss after ``TUNING_STEPS`` at each of ``RATES``, for each width, from one start."""
    return {
        str(d): [round(run(d, steps=TUNING_STEPS, lr=lr)[1], 4) for lr in RATES]
        for d in sorted({*WIDTHS, *SHORT_WIDTHS})
    }


def best_rates(tuned: Mapping[str, Sequence[float]], rates: Sequence[float] = RATES) -> dict[int, float]:
    """Width -> the learning rate with the lowest loss, of those that were tried.

    >>> best_rates({"8": [3.0, 2.0, 1.0, 1.5, 1.7]})
    {8: 0.02}
    """
    return {int(d): rates[losses.index(min(losses))] for d, losses in tuned.items()}


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


def on_shakespeare(seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Tuning and losses on Tiny Shakespeare: width -> a row for each of ``SHORT_STEPS``, a loss a seed."""
    text, rest = shakespeare()
    of = {"text": text, "judged_on": rest}
    tuned = {
        str(d): [round(run(d, steps=TUNING_STEPS, lr=lr, **of)[1], 4) for lr in PLAYS_RATES]
        for d in SHORT_WIDTHS
    }
    rates = best_rates(tuned, PLAYS_RATES)
    losses = {
        str(d): [
            [round(run(d, steps=steps, lr=rates[d], seed=seed, **of)[1], 4) for seed in seeds]
            for steps in SHORT_STEPS
        ]
        for d in SHORT_WIDTHS
    }
    return {"rates": list(PLAYS_RATES), "tuning": tuned, "losses": losses}


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
        "shakespeare": on_shakespeare(),
    }


if __name__ == "__main__":
    print(results.write("scaling", measure(print)).name)
