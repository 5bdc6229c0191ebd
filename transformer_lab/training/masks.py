"""Leaks: one small model, trained honestly and with five faults, for the chapter on masks.

python -m transformer_lab.training.masks
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data.made_up import ALPHABET, encode_text, stories
from ..masks import causal_mask, influence
from ..models.language_model import LanguageModel, LanguageModelConfig
from . import results
from .language_model import loss_at_the_end, train_language_model

CONFIG = LanguageModelConfig(vocab_size=len(ALPHABET), d_model=48, n_heads=4, n_layers=2, d_ff=96)
LENGTH, STEPS, SEEDS = 48, 400, (0, 1, 2)
TRAINING = {"length": LENGTH, "lr": 8e-3, "warmup": 30}  # how train_language_model is called


class MaskedModel(LanguageModel):
    """A ``LanguageModel`` with a mask of our choice, or with its tokens centred: x minus the row's mean.

    Args:
        make_mask: from the number of tokens T, what one layer may see: (1, 1, T, T), or None for all.
        centred: take the mean of all tokens of a row away, those that are still to come included.
    """

    def __init__(
        self,
        config: LanguageModelConfig = CONFIG,
        make_mask: Callable[[int], Tensor | None] = causal_mask,
        *,
        centred: bool = False,
    ) -> None:
        super().__init__(config)
        self.make_mask, self.centred = make_mask, centred

    def through(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        mask = self.make_mask(x.shape[1])
        if self.centred:
            x = x - x.mean(dim=1, keepdim=True)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class WithoutFuture(nn.Module):
    """The same model, asked anew for every character, with nothing behind it: as when it writes.

    >>> model = LanguageModel(CONFIG)  # an honest one gives the same scores, one by one or all at once
    >>> tokens = torch.tensor([[3, 1, 4, 1, 5]])
    >>> torch.allclose(WithoutFuture(model)(tokens), model(tokens), atol=1e-5)
    True
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        one_by_one = [self.model(tokens[:, : n + 1])[:, -1] for n in range(tokens.shape[1])]
        return torch.stack(one_by_one, dim=1)


def one_too_far(n: int) -> Tensor:
    """The causal mask with ``tril(1)``: each token sees its successor."""
    return torch.ones(n, n, dtype=torch.bool).tril(1)


FAULTS = {  # how the model is made, and how many characters ahead its targets lie
    "none": ({}, 1),
    "no mask": ({"make_mask": lambda n: None}, 1),
    "tril(diagonal=1)": ({"make_mask": one_too_far}, 1),
    "mean over the row": ({"centred": True}, 1),
    "targets not shifted": ({}, 0),
    "targets shifted twice": ({}, 2),
}


def run(fault: str, *, seed: int = 0, steps: int = STEPS) -> dict[str, float]:
    """Train with one of ``FAULTS``, then measure, in nats per character of a text that is new to the model.

    Returns:
        ``training``: mean loss of the last tenth of the steps. ``held out``: of new text, all characters of a
        piece at once. ``writing``: of the same characters, each with nothing behind it. ``influence``: the
        largest gradient of an output by a later input, 0 where the future is hidden.

    Raises:
        ValueError: an unknown fault.
    """
    if fault not in FAULTS:
        raise ValueError(f"fault must be one of {', '.join(FAULTS)}; got {fault!r}")
    made, ahead = FAULTS[fault]
    torch.manual_seed(seed)
    model = MaskedModel(**made)
    ids, new = encode_text(stories(200_000, seed=0)), encode_text(stories(20_000, seed=1))
    losses = train_language_model(model, ids, steps=steps, ahead=ahead, seed=seed, **TRAINING)
    tail = losses[-max(1, steps // 10) :]
    pieces = {"context": LENGTH, "last": LENGTH, "batch_size": 64}
    with torch.no_grad():
        x = model.embedded(new[None, :LENGTH])[0]
    return {
        "training": sum(tail) / len(tail),
        "held out": loss_at_the_end(model, new, **pieces),
        "writing": loss_at_the_end(WithoutFuture(model), new, **pieces),
        "influence": influence(model.through, x).triu(1).max().item(),
    }


def measure() -> dict[str, dict[str, list[float]]]:
    """Every fault from three starts: fault -> what was measured -> a number for each start."""
    runs = {fault: [run(fault, seed=seed) for seed in SEEDS] for fault in FAULTS}
    return {
        fault: {name: [round(one[name], 4) for one in several] for name in several[0]}
        for fault, several in runs.items()
    }


if __name__ == "__main__":
    results.write("masks", measure())
