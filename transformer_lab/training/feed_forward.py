"""What feed-forward networks add to a language model, gated and plain ones compared, and experts with a load.

    python -m transformer_lab.training.feed_forward

trains the small models of which the chapter prints what came out, and stores it in
``results/feed_forward.json``: some ten minutes on one quiet core.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..data.made_up import ALPHABET, NUMBERS, PEOPLE, animal, encode_text, home, stories, trade
from ..feed_forward import FeedForward, GatedFeedForward, MixtureOfExperts, gated_width
from ..models.language_model import LanguageModel, LanguageModelConfig
from . import results
from .language_model import loss_at_the_end, train_language_model

D, F = 48, 192  # the width of all models, and the hidden width of a plain network
LENGTH = 64  # characters that a model reads
SEEDS = (0, 1, 2)

# Name -> what makes the network from the width D; all have nearly as many weights.
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "no activation": lambda d: FeedForward(d_model=d, d_ff=F, activation="identity"),
    "ReLU": lambda d: FeedForward(d_model=d, d_ff=F, activation="relu"),
    "GELU": lambda d: FeedForward(d_model=d, d_ff=F, activation="gelu"),
    "SiLU": lambda d: FeedForward(d_model=d, d_ff=F, activation="silu"),
    "bilinear": lambda d: GatedFeedForward(d_model=d, d_ff=gated_width(F), activation="identity"),
    "GLU": lambda d: GatedFeedForward(d_model=d, d_ff=gated_width(F), activation="sigmoid"),
    "ReGLU": lambda d: GatedFeedForward(d_model=d, d_ff=gated_width(F), activation="relu"),
    "GEGLU": lambda d: GatedFeedForward(d_model=d, d_ff=gated_width(F), activation="gelu"),
    "SwiGLU": lambda d: GatedFeedForward(d_model=d, d_ff=gated_width(F), activation="silu"),
}
# Name -> (layers, hidden width: none) of models of attention alone.
SIZES = {"same weights": (6, 0), "same depth": (2, 0)}


def facts() -> list[tuple[str, str]]:
    """What the stories' readers must remember, as (text, how it goes on): three facts of each person.

    >>> facts()[1]
    ('\\nada the baker lives in ', 'arden')
    """
    return [pair for person in PEOPLE for pair in facts_of(person)]


def facts_of(person: str) -> list[tuple[str, str]]:
    """Trade, home and animal of one person, each as (text, how it goes on)."""
    start = f"\n{person} the "
    where = f"{start}{trade(person)} lives in "
    return [
        (start, trade(person)),
        (where, home(person)),
        (f"{where}{home(person)} with a ", animal(person)),
    ]


def sums() -> list[tuple[str, str]]:
    """All 81 sums of the stories, as (text, how it goes on)."""
    return [
        (f". gus has {NUMBERS[a]} nails, pia has {NUMBERS[b]}, that is ", f"{NUMBERS[a + b]} ")
        for a in range(1, 10)
        for b in range(1, 10)
    ]


@torch.no_grad()
def recalled(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """For each (text, how it goes on): is each letter of the answer the model's first choice?

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("there is nothing to recall: the list is empty")
    device = next(model.parameters()).device
    longest = max(len(text) + len(answer) for text, answer in pairs)
    # what is filled in stands behind the answer, where a model that reads from left to right does not look
    ids = torch.stack([encode_text((text + answer).ljust(longest)) for text, answer in pairs]).to(device)
    right = model(ids[:, :-1]).argmax(-1) == ids[:, 1:]
    return [
        right[i, len(text) - 1 : len(text) + len(answer) - 1].all().item()
        for i, (text, answer) in enumerate(pairs)
    ]


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in module.parameters())


@cache
def texts() -> tuple[Tensor, Tensor]:
    """Stories to learn from, and others, as numbers."""
    return encode_text(stories(1_000_000)), encode_text(stories(200_000, seed=1))


def trained(
    *,
    n_layers: int = 2,
    d_ff: int = F,
    feed_forward: Callable[[int], nn.Module] | None = None,
    steps: int,
    seed: int,
    penalty: Callable[[LanguageModel], Callable[[], Tensor]] | None = None,
) -> LanguageModel:
    """A language model of width D that has read the stories for so many steps."""
    torch.manual_seed(seed)
    config = LanguageModelConfig(vocab_size=len(ALPHABET), d_model=D, n_layers=n_layers, d_ff=d_ff)
    model = LanguageModel(config, feed_forward=feed_forward)
    train_language_model(
        model,
        texts()[0],
        steps=steps,
        length=LENGTH,
        batch_size=8,
        lr=4e-3,
        warmup=50,
        seed=seed,
        penalty=penalty(model) if penalty else None,
    )
    return model


def judged(model: LanguageModel) -> dict[str, int | float]:
    """Weights, loss on fresh stories in nats a character, facts and sums recalled."""
    return {
        "weights": parameters(model),
        "loss": round(loss_at_the_end(model, texts()[1], context=LENGTH, batch_size=512), 4),
        "facts": sum(recalled(model, facts())),
        "sums": sum(recalled(model, sums())),
    }


def attention_only(size: str, *, steps: int = 600, seed: int) -> dict[str, int | float]:
    """One of ``SIZES``: as many weights, or as many layers, as a model with feed-forward networks."""
    n_layers, d_ff = SIZES[size]
    return judged(trained(n_layers=n_layers, d_ff=d_ff, steps=steps, seed=seed))


def with_network(name: str, *, steps: int = 600, seed: int) -> dict[str, int | float]:
    """Two layers with one of ``NETWORKS``."""
    return judged(trained(feed_forward=NETWORKS[name], steps=steps, seed=seed))


def with_experts(balance: float, *, steps: int = 600, seed: int) -> dict[str, Any]:
    """Two layers with eight small experts each, of which a token uses two; ``balance`` times balance_loss."""
    experts = partial(MixtureOfExperts, d_ff=gated_width(F) // 2, n_experts=8, top_k=2)

    def penalty(model: LanguageModel) -> Callable[[], Tensor]:
        inputs = inputs_of_experts(model)
        return lambda: balance * sum(layer.feed_forward.balance_loss(inputs[layer]) for layer in model.layers)

    model = trained(
        feed_forward=lambda d: experts(d_model=d),
        steps=steps,
        seed=seed,
        penalty=penalty if balance else None,
    )
    inputs = inputs_of_experts(model)
    measured = judged(model)
    with torch.no_grad():
        model(texts()[1][: 64 * LENGTH].view(64, LENGTH))
        loads = [layer.feed_forward.load(inputs[layer]).tolist() for layer in model.layers]
    return measured | {"load": [[round(share, 4) for share in load] for load in loads]}


def inputs_of_experts(model: LanguageModel) -> dict[nn.Module, Tensor]:
    """Layer -> what its feed-forward network read last; filled anew by each pass through the model."""
    inputs: dict[nn.Module, Tensor] = {}
    for layer in model.layers:
        layer.feed_forward.register_forward_pre_hook(
            lambda _, args, layer=layer: inputs.__setitem__(layer, args[0])
        )
    return inputs


RUNS = {
    "networks": (with_network, tuple(NETWORKS)),
    "attention only": (attention_only, tuple(SIZES)),
    "experts": (with_experts, (0.0, 0.01)),
}


def main() -> None:
    measured: dict[str, Any] = {part: {} for part in RUNS}
    for seed in SEEDS:
        for part, (run, settings) in RUNS.items():
            for setting in settings:
                once = run(setting, seed=seed)
                kept = measured[part].setdefault(str(setting), {key: [] for key in once})
                for key, value in once.items():
                    kept[key].append(value)
                print(seed, part, setting, once, flush=True)
    results.write("feed_forward", measured)


if __name__ == "__main__":
    main()
