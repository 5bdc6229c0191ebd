"""How far position codes reach: models trained on 64 characters, tested on up to 1024.

    python -m transformer_lab.training.positional

measures again what the chapter on positions reads, in about a quarter of an hour on a free core.
"""

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from ..data.made_up import ALPHABET, encode_text, stories
from ..models.language_model import LanguageModel, LanguageModelConfig, Positions
from . import results
from .language_model import loss_at_the_end, train_language_model

TRAINED = 64  # characters that a model could read in training
LONGER = 256  # characters that one is tuned for afterwards
TUNING = (100, 300)  # steps of it
CONTEXTS = (32, 64, 96, 128, 256, 512, 1024)
SEEDS = (0, 1, 2)


@cache
def text(seed: int) -> Int[Tensor, "N"]:
    """Stories as numbers: seed 0 to train on, seed 1 to test on."""
    return encode_text(stories(200_000, seed=seed))


def train(
    positions: Positions,
    *,
    seed: int = 0,
    n_layers: int = 2,
    steps: int = 1000,
    device: torch.device | str | None = None,
) -> LanguageModel:
    """A model of the given position code, trained on pieces of ``TRAINED`` characters.

    Args:
        positions: as in ``LanguageModelConfig``; the table of learned positions has 1024 rows, of which
            training reaches the first ``TRAINED``.
        seed: of the first weights and of the choice of pieces.
        n_layers: number of layers; steps: number of batches.
        device: where to train; the first weights are the same everywhere.
    """
    torch.manual_seed(seed)
    config = LanguageModelConfig(
        vocab_size=len(ALPHABET), positions=positions, n_layers=n_layers, max_len=max(CONTEXTS)
    )
    model = LanguageModel(config).to(device)
    train_language_model(model, text(0), steps=steps, length=TRAINED, seed=seed)
    return model


def interpolated(model: LanguageModel, longer: int) -> LanguageModel:
    """The same weights, with positions squeezed so that ``longer`` of them take the room of ``TRAINED``."""
    return _copy(model, position_scale=TRAINED / longer)


def tuned(model: LanguageModel, *, steps: int, seed: int = 0) -> LanguageModel:
    """A copy of ``model``, trained a little further on pieces of ``LONGER`` characters."""
    model = _copy(model)
    train_language_model(model, text(0), steps=steps, length=LONGER, lr=1e-3, warmup=10, seed=seed)
    return model


def losses(model: LanguageModel, contexts: tuple[int, ...] = CONTEXTS) -> dict[str, float]:
    """For each context, the loss on the last 32 characters of 64 pieces of the test text."""
    return {
        str(context): round(loss_at_the_end(model, text(1), context=context, batch_size=64), 3)
        for context in contexts
    }


def measure(seed: int) -> dict[str, dict[str, float]]:
    """What one seed gives: for each model the loss in nats per character, by context."""
    models = {code: train(code, seed=seed) for code in get_args(Positions)}
    measured = {code: losses(model) for code, model in models.items()}
    rope = models["rope"]
    measured["rope, interpolated"] = {
        str(longer): losses(interpolated(rope, longer), (longer,))[str(longer)] for longer in CONTEXTS[1:]
    }
    for steps in TUNING:
        measured[f"rope, tuned {steps}"] = losses(tuned(rope, steps=steps, seed=seed))
        squeezed = tuned(interpolated(rope, LONGER), steps=steps, seed=seed)
        measured[f"rope, interpolated, tuned {steps}"] = losses(squeezed)
    for code in ("none", "rope"):
        measured[f"{code}, one layer"] = losses(train(code, seed=seed, n_layers=1), (TRAINED,))
    return measured


def _copy(model: LanguageModel, **changes: Any) -> LanguageModel:
    copy = LanguageModel(replace(model.config, **changes))
    copy.load_state_dict(model.state_dict())
    return copy


if __name__ == "__main__":
    runs = {str(seed): measure(seed) for seed in SEEDS}
    print(results.write("positional", {"trained": TRAINED, "longer": LONGER, "runs": runs}))
