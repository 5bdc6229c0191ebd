"""The runs behind the chapter on what heads do: copying in context, and what becomes of it without a head.

``python -m transformer_lab.training.induction`` measures all of it again and stores it, in about ten minutes
on a free core.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from ..induction import (
    LENGTH,
    VOCABULARY,
    Edits,
    Head,
    Norm,
    Run,
    attention_only,
    cut,
    induction_score,
    knock_out,
    previous_token_score,
    same_token_score,
    trace,
)
from ..models.language_model import LanguageModel
from . import results

PERIODS = (6, 12)  # the shortest and the longest segment
SCORED = 11  # the length of the segments on which heads are scored
SEEDS = (0, 1, 2)
SEGMENT, DISTANCES = 6, tuple(range(6, 20))  # letters that come twice, and how far apart
STEPS, WINDOW = 500, 10
LONGER = 3000  # steps that one layer gets
TIED_STEPS = 1500
HEADS = tuple(itertools.product(range(2), range(2)))  # of the model with two layers
Batch = tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]  # rows of LENGTH + 1 tokens, their periods


def build(n_layers: int = 2, *, norm: Norm = "none", tied: bool = False, seed: int = 0) -> LanguageModel:
    """``attention_only``, with first weights that ``seed`` chooses."""
    torch.manual_seed(seed)
    return attention_only(n_layers, norm=norm, tied=tied)


def repeats(n: int, generator: torch.Generator, *, period: int | None = None) -> Batch:
    """Rows of ``LENGTH`` + 1 tokens: a random segment of ``PERIODS`` different tokens, again and again.

    Args:
        n: rows; generator: of what is random; period: the length of all segments, instead of a random one.

    Raises:
        ValueError: a period that is not between ``PERIODS``.

    >>> rows, period = repeats(1, torch.Generator().manual_seed(0))
    >>> torch.equal(rows[0, period.item() :], rows[0, : -period.item()])
    True
    """
    shortest, longest = PERIODS
    if period is not None and not shortest <= period <= longest:
        raise ValueError(f"period must be from {shortest} to {longest}, got {period}")
    segments = torch.rand(n, len(VOCABULARY), generator=generator).argsort(dim=1)[:, :longest]
    periods = torch.randint(shortest, longest + 1, (n,), generator=generator)
    if period is not None:
        periods = torch.full_like(periods, period)
    places = torch.arange(LENGTH + 1) % periods[:, None]
    return segments.gather(1, places), periods


def twice(n: int, generator: torch.Generator, *, distance: int) -> Int[Tensor, "B T"]:
    """Rows in which ``SEGMENT`` letters come twice, ``distance`` apart; what lies between comes once.

    Raises:
        ValueError: a distance at which the copies overlap, or that the model cannot read.

    >>> row = twice(1, torch.Generator().manual_seed(0), distance=9)[0]
    >>> torch.equal(row[:6], row[9:]), len(set(row.tolist()))
    (True, 9)
    """
    if not SEGMENT <= distance <= LENGTH + 1 - SEGMENT:
        raise ValueError(f"distance must be from {SEGMENT} to {LENGTH + 1 - SEGMENT}, got {distance}")
    letters = torch.rand(n, len(VOCABULARY), generator=generator).argsort(dim=1)[:, :distance]
    return torch.cat([letters, letters[:, :SEGMENT]], dim=1)


def known(periods: Int[Tensor, "B"]) -> Bool[Tensor, "B T"]:
    """After which tokens the next one can be known: from the first one that is a repetition on."""
    return torch.arange(LENGTH) >= periods[:, None]


def train(
    model: LanguageModel,
    *,
    steps: int = STEPS,
    seed: int = 0,
    lr: float = 3e-3,
    after_each: Callable[[int], None] = lambda step: None,
) -> None:
    """Train ``model`` in place with Adam to predict every next token, the unknowable ones too.

    The rate rises over 50 steps and falls to 0 over the last third. ``after_each`` is called with the number
    of steps made, 1 and up.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same batches
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for step in range(1, steps + 1):
        left = (steps - step + 1) / steps
        optimizer.param_groups[0]["lr"] = lr * min(1.0, step / 50, 3 * left)
        rows = repeats(64, generator)[0].to(model.embed.weight.device)
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_each(step)


@torch.no_grad()
def share_right(model: LanguageModel, batch: Batch, edits: Edits | None = None) -> float:
    """The share of the next tokens that can be known and get the highest score."""
    rows, periods = batch
    tokens = rows[:, :-1].to(model.embed.weight.device)
    guessed = trace(model, tokens, edits)["logits"].argmax(dim=-1).cpu()
    return (guessed == rows[:, 1:])[known(periods)].double().mean().item()


@torch.no_grad()
def loss_known(model: LanguageModel, batch: Batch) -> float:
    """The mean loss, in nats, where the next token can be known."""
    rows, periods = batch
    here = known(periods)
    return F.cross_entropy(model(rows[:, :-1])[here], rows[:, 1:][here]).item()


@torch.no_grad()
def scores(model: LanguageModel, seed: int = 2000) -> dict[str, list[list[float]]]:
    """The three scores of every head, a row for each layer, on segments of ``SCORED`` tokens."""
    tokens = repeats(500, torch.Generator().manual_seed(seed), period=SCORED)[0][:, :-1]
    run = trace(model, tokens)
    weights = [run[f"weights.{number}"] for number in range(len(model.layers))]
    found = {
        "previous": [previous_token_score(w) for w in weights],
        "induction": [induction_score(w, tokens) for w in weights],
        "same": [same_token_score(w, tokens) for w in weights],
    }
    return {name: [rounded(row) for row in rows] for name, rows in found.items()}


@torch.no_grad()
def by_period(model: LanguageModel) -> dict[str, list]:
    """For segments of each length: right answers, and the induction score of every head of the last layer."""
    right, score = [], []
    for period in range(PERIODS[0], PERIODS[1] + 1):
        batch = repeats(500, torch.Generator().manual_seed(4000), period=period)
        tokens = batch[0][:, :-1]
        weights = trace(model, tokens)[f"weights.{len(model.layers) - 1}"]
        right.append(round(share_right(model, batch), 3))
        score.append(rounded(induction_score(weights, tokens)))
    return {"right": right, "induction": score}


@torch.no_grad()
def by_distance(model: LanguageModel) -> list[float]:
    """Right answers in the second copy of a segment, but for its first letter, for each of ``DISTANCES``."""
    shares = []
    for distance in DISTANCES:
        rows = twice(500, torch.Generator().manual_seed(5000), distance=distance)
        guessed = model(rows[:, :-1]).argmax(dim=-1)
        shares.append(round((guessed == rows[:, 1:])[:, distance:].double().mean().item(), 3))
    return shares


def rounded(row: Tensor) -> list[float]:
    return [round(value, 3) for value in row.tolist()]


def new_rows(n: int = 500) -> Batch:
    """Rows that no run was trained on: its generator is another one."""
    return repeats(n, torch.Generator().manual_seed(1000))


def average_run(model: LanguageModel) -> Run:
    """A run over other rows, whose mean outputs can stand in for a head's."""
    with torch.no_grad():
        return trace(model, repeats(500, torch.Generator().manual_seed(3000))[0][:, :-1])


# --- runs ------------------------------------------------------------------------------------------


def learning_run(
    n_layers: int,
    *,
    norm: Norm = "none",
    tied: bool = False,
    seed: int = 0,
    steps: int = STEPS,
    window: int = WINDOW,
) -> tuple[LanguageModel, dict[str, object]]:
    """Train a model; its share of right answers, loss and scores on the way, every ``window`` steps.

    Returns:
        The model, and "steps", "right", "loss", "previous" and "induction", an entry for each look.
    """
    model, batch = build(n_layers, norm=norm, tied=tied, seed=seed), new_rows()
    looks: dict[str, list] = {"steps": [], "right": [], "loss": [], "previous": [], "induction": []}

    def look(step: int) -> None:
        if step % window:
            return
        found = scores(model)
        looks["steps"].append(step)
        looks["right"].append(round(share_right(model, batch), 3))
        looks["loss"].append(round(loss_known(model, batch), 3))
        for name in ("previous", "induction"):
            looks[name].append([score for layer in found[name] for score in layer])

    train(model, steps=steps, seed=seed, after_each=look)
    return model, looks


def without(model: LanguageModel, groups: Sequence[Sequence[Head]]) -> dict[str, dict[str, float]]:
    """The share of right answers without each group of heads: zero in their place, and their mean."""
    batch, fill = new_rows(), average_run(model)
    return {
        name_of(heads): {
            "zero": round(share_right(model, batch, knock_out(heads)), 3),
            "mean": round(share_right(model, batch, knock_out(heads, fill)), 3),
        }
        for heads in groups
    }


def name_of(heads: Sequence[Head]) -> str:
    """As heads are called in what is stored.

    >>> name_of([(0, 1), (1, 0)])
    '0.1 1.0'
    """
    return " ".join(f"{layer}.{head}" for layer, head in heads)


def without_paths(model: LanguageModel) -> dict[str, float]:
    """The share of right answers without what layer 1 reads of layer 0, by its queries, keys or values."""
    batch, fill = new_rows(), average_run(model)
    with torch.no_grad():
        run = trace(model, batch[0][:, :-1])
    first, second = HEADS[:2], HEADS[2:]
    return {
        reads: round(share_right(model, batch, cut(run, first, second, reads, fill)), 3)
        for reads in ("q", "k", "v")
    }


def groups_of_heads() -> list[tuple[Head, ...]]:
    """Every head alone, and every pair."""
    return [(head,) for head in HEADS] + list(itertools.combinations(HEADS, 2))


def two_layers(seed: int, norm: Norm = "none") -> dict[str, object]:
    """Everything that is stored of one start with two layers."""
    model, looks = learning_run(2, norm=norm, seed=seed)
    return {
        "looks": looks,
        "scores": scores(model),
        "right": round(share_right(model, new_rows()), 3),
        "without": without(model, groups_of_heads()),
        "paths": without_paths(model),
        "by period": by_period(model),
        "by distance": by_distance(model),
    }


def tied_projection(seed: int) -> dict[str, object]:
    """Two layers whose embedding is the last projection, too; with more steps, as they learn more slowly."""
    model, _ = learning_run(2, tied=True, seed=seed, steps=TIED_STEPS, window=TIED_STEPS)
    return {
        "scores": scores(model),
        "right": round(share_right(model, new_rows()), 3),
        "paths": without_paths(model),
        "by distance": by_distance(model),
    }


def one_layer(seed: int) -> dict[str, object]:
    """The same with one layer, which gets more steps."""
    model, looks = learning_run(1, seed=seed, steps=LONGER, window=LONGER // 20)
    return {
        "looks": looks,
        "scores": scores(model),
        "right": round(share_right(model, new_rows()), 3),
        "by period": by_period(model),
        "by distance": by_distance(model),
    }


def measure() -> dict[str, object]:
    """Everything that the chapter reads from its stored results."""
    return {
        "fresh": [scores(build(2, seed=seed)) for seed in SEEDS],
        "two layers": [two_layers(seed) for seed in SEEDS],
        "two layers, norm": [two_layers(seed, norm="pre") for seed in SEEDS],
        "one layer": [one_layer(seed) for seed in SEEDS],
        "tied": [tied_projection(seed) for seed in SEEDS],
    }


if __name__ == "__main__":
    print(results.write("induction", measure()).name)
