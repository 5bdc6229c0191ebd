"""The long runs of the closing chapter: reinforcement with rules as rewards, and distances that are hidden.

``python -m transformer_lab.training.claims`` measures all of it again and stores it, in about a quarter of an
hour on a free core.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..claims import group_advantages, grpo_loss
from ..models.language_model import LanguageModel, LanguageModelConfig
from . import results

SEEDS = (0, 1, 2)

# --- reinforcement -----------------------------------------------------------------------------------
# A question is "a or b ?", an answer is four tokens: <think> </think> <answer> and a digit. It is right
# if the digit is the larger of the two. Digits are their own token ids.

OR, ASK, THINK, UNTHINK, ANSWER, OTHER = range(10, 16)
VOCABULARY = 16
FORMAT = (THINK, UNTHINK, ANSWER)
WRITTEN = 4  # tokens of an answer
GROUP, QUESTIONS = 16, 32  # answers to each question, and questions, in a step
WARM_STEPS, RL_STEPS, WINDOW = 150, 120, 20
BROKEN = 0.35  # of the tokens that the model is first trained on are drawn at random
VARIANTS = {  # name: kind of advantage, weight of the distance to the model before
    "against the group": ("mean and spread", 0.03),
    "rewards as they are": ("none", 0.03),
    "hardly held back": ("mean and spread", 0.001),
}


def questions(n: int, generator: torch.Generator) -> Int[Tensor, "B T"]:
    """Rows "a or b ?" with digits drawn evenly.

    >>> questions(1, torch.Generator().manual_seed(0)).shape
    torch.Size([1, 4])
    """
    a, b = torch.randint(10, (2, n), generator=generator)
    return torch.stack([a, torch.full((n,), OR), b, torch.full((n,), ASK)], dim=1)


def judged(
    asked: Int[Tensor, "B 4"], answers: Int[Tensor, "B 4"]
) -> tuple[Bool[Tensor, "B"], Bool[Tensor, "B"]]:
    """Two rules, no model: whether an answer has the form that is wanted, and whether it is also right.

    >>> judged(torch.tensor([[7, 10, 5, 11]]), torch.tensor([[12, 13, 14, 7]]))
    (tensor([True]), tensor([True]))
    """
    formed = (answers[:, :3] == torch.tensor(FORMAT)).all(dim=1) & (answers[:, 3] < 10)
    right = answers[:, 3] == torch.maximum(asked[:, 0], asked[:, 2])
    return formed, formed & right


def rewards(asked: Int[Tensor, "B 4"], answers: Int[Tensor, "B 4"]) -> Float[Tensor, "B"]:
    """0.2 for the form, and 1 more if the digit is right as well."""
    formed, right = judged(asked, answers)
    return 0.2 * formed.float() + right.float()


def talker(seed: int = 0) -> LanguageModel:
    """A model that has read answers with random digits, in which ``BROKEN`` of all tokens are random too."""
    torch.manual_seed(seed)
    model = LanguageModel(LanguageModelConfig(vocab_size=VOCABULARY, d_model=64, n_heads=4, n_layers=2))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(WARM_STEPS):
        asked = questions(64, generator)
        answers = torch.cat(
            [torch.tensor(FORMAT).expand(64, 3), torch.randint(10, (64, 1), generator=generator)], dim=1
        )
        broken = torch.rand(64, WRITTEN, generator=generator) < BROKEN
        answers = torch.where(broken, torch.randint(VOCABULARY, (64, WRITTEN), generator=generator), answers)
        rows = torch.cat([asked, answers], dim=1)
        loss = F.cross_entropy(model(rows[:, :-1])[:, -WRITTEN:].flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def write(model: nn.Module, asked: Int[Tensor, "B 4"], generator: torch.Generator) -> Int[Tensor, "B 4"]:
    """Answers, each token drawn with the model's own probability."""
    rows = asked
    for _ in range(WRITTEN):
        chances = model(rows)[:, -1].softmax(dim=-1)
        rows = torch.cat([rows, torch.multinomial(chances, 1, generator=generator)], dim=1)
    return rows[:, -WRITTEN:]


def log_probabilities(
    model: nn.Module, asked: Int[Tensor, "B 4"], answers: Int[Tensor, "B 4"]
) -> Float[Tensor, "B 4"]:
    """Of each token of the answers."""
    scores = model(torch.cat([asked, answers], dim=1)[:, :-1])[:, -WRITTEN:]
    return scores.log_softmax(dim=-1).gather(2, answers[..., None])[..., 0]


def grpo_run(
    variant: str = "against the group", *, seed: int = 0, steps: int = RL_STEPS
) -> dict[str, list[float]]:
    """Reinforce ``talker`` with rewards by rule; nothing else changes.

    Returns:
        "formed" and "right": shares of new answers, before the first step and after every ``WINDOW``;
        "spread": at the same times, how many different digits the answers to a question have, as the exponent
        of their entropy.

    Raises:
        ValueError: an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {'; '.join(VARIANTS)}, got {variant!r}")
    advantages, kl_weight = VARIANTS[variant]
    model, reference = talker(seed), talker(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    found: dict[str, list[float]] = {"formed": [], "right": [], "spread": []}
    _look(model, found)
    for step in range(1, steps + 1):
        asked = questions(QUESTIONS, generator).repeat_interleave(GROUP, dim=0)
        answers = write(model, asked, generator)
        gained = rewards(asked, answers).view(QUESTIONS, GROUP)
        gain = group_advantages(gained, advantages).flatten()
        with torch.no_grad():
            old = log_probabilities(model, asked, answers)
            start = log_probabilities(reference, asked, answers)
        for _ in range(2):
            new = log_probabilities(model, asked, answers)
            loss = grpo_loss(new, old, start, gain, kl_weight=kl_weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % WINDOW == 0:
            _look(model, found)
    return found


@torch.no_grad()
def _look(model: nn.Module, found: dict[str, list[float]]) -> None:
    asked = questions(2000, torch.Generator().manual_seed(7))
    formed, right = judged(asked, write(model, asked, torch.Generator().manual_seed(8)))
    found["formed"].append(round(formed.double().mean().item(), 3))
    found["right"].append(round(right.double().mean().item(), 3))
    begun = torch.cat([asked, torch.tensor(FORMAT).expand(len(asked), 3)], dim=1)
    chances = model(begun)[:, -1, :10].softmax(dim=-1)
    entropy = torch.special.entr(chances).sum(dim=-1).mean()
    found["spread"].append(round(entropy.exp().item(), 2))


def grpo_runs(seeds: Sequence[int] = SEEDS) -> dict[str, object]:
    """``grpo_run`` of every variant: one entry per seed."""
    runs = {variant: [grpo_run(variant, seed=seed) for seed in seeds] for variant in VARIANTS}
    return {"steps": RL_STEPS, "window": WINDOW, "runs": runs}


# --- distances that are hidden -----------------------------------------------------------------------
# Twelve points in space. Half of their distances are told, the other half is wanted: what kind of layer finds
# them? The triangle update is that of AlphaFold's pair representation.

POINTS, DISTANCE_STEPS = 12, 600
MIXERS = ("none", "rows and columns", "triangles")
Pairs = Float[Tensor, "B N N D"]  # D numbers for each pair of N points


class Triangles(nn.Module):
    """For a pair (i, j): over all third points k, what is known of (i, k) times what is known of (j, k).

    Then the same over (k, i) and (k, j). Products with gates, no softmax. Source: Abramson et al. (2024),
    https://doi.org/10.1038/s41586-024-07487-w; written from the equations.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(2))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.after = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, z: Pairs) -> Pairs:
        for way, over in enumerate(("bikd,bjkd->bijd", "bkid,bkjd->bijd")):
            h = self.before[way](z)
            a, b, open_a, open_b = self.sides[way](h).chunk(4, dim=-1)
            met = torch.einsum(over, a * open_a.sigmoid(), b * open_b.sigmoid())
            z = z + self.outs[way](self.after[way](met)) * self.gates[way](h).sigmoid()
        return z


class RowsAndColumns(nn.Module):
    """A pair hears the mean of its row and of its column."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(2 * width, width)

    def forward(self, z: Pairs) -> Pairs:
        h = self.norm(z)
        means = [h.mean(dim=axis, keepdim=True).expand_as(h) for axis in (1, 2)]
        return z + self.out(torch.cat(means, dim=-1))


class DistanceModel(nn.Module):
    """Three layers, each a mixer of pairs and a small network for every pair by itself.

    Args:
        mixer: one of ``MIXERS``; "none" leaves every pair alone. width: numbers for each pair.

    Raises:
        ValueError: an unknown mixer.
    """

    def __init__(self, mixer: str, width: int = 24) -> None:
        super().__init__()
        if mixer not in MIXERS:
            raise ValueError(f"mixer must be one of {'; '.join(MIXERS)}, got {mixer!r}")
        kinds = {"rows and columns": RowsAndColumns, "triangles": Triangles}
        self.embed, self.out = nn.Linear(2, width), nn.Linear(width, 1)
        self.mixers = nn.ModuleList(kinds.get(mixer, lambda _: nn.Identity())(width) for _ in range(3))
        self.own = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
            )
            for _ in range(3)
        )

    def forward(self, told: Float[Tensor, "B N N"], known: Float[Tensor, "B N N"]) -> Float[Tensor, "B N N"]:
        """All distances, from those that are ``told`` and a table that says which are ``known``."""
        z = self.embed(torch.stack([told, known], dim=-1))
        for mixer, own in zip(self.mixers, self.own, strict=True):
            z = mixer(z)
            z = z + own(z)
        found = self.out(z)[..., 0]
        return (found + found.mT) / 2


def distances(n: int, generator: torch.Generator) -> tuple[Float[Tensor, "B N N"], Bool[Tensor, "B N N"]]:
    """Of ``n`` clouds of points: all distances, and which of them are hidden, the same from both ends."""
    points = torch.randn(n, POINTS, 3, generator=generator)
    apart = (points[:, :, None] - points[:, None]).norm(dim=-1)
    draw = torch.rand(n, POINTS, POINTS, generator=generator).triu(1)
    hidden = (draw + draw.mT) > 0.5
    return apart, hidden


def distance_run(mixer: str, *, seed: int = 0, steps: int = DISTANCE_STEPS) -> float:
    """Train one model; the root of the mean squared error of the hidden distances of new clouds.

    Raises:
        ValueError: an unknown mixer.
    """
    torch.manual_seed(seed)
    model = DistanceModel(mixer)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        loss = _squared_error(model, *distances(16, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        new = _squared_error(model, *distances(300, torch.Generator().manual_seed(1000)))
    return round(new.sqrt().item(), 3)


def _squared_error(model: nn.Module, apart: Tensor, hidden: Tensor) -> Tensor:
    found = model(apart.masked_fill(hidden, 0.0), (~hidden).float())
    return (found - apart)[hidden].square().mean()


def distance_runs(seeds: Sequence[int] = SEEDS) -> dict[str, object]:
    """``distance_run`` of every mixer, one number per seed; and the spread of the distances themselves."""
    apart, hidden = distances(300, torch.Generator().manual_seed(1000))
    errors = {mixer: [distance_run(mixer, seed=seed) for seed in seeds] for mixer in MIXERS}
    return {
        "steps": DISTANCE_STEPS,
        "spread": round(apart[hidden].std().item(), 3),
        "weights": {mixer: sum(p.numel() for p in DistanceModel(mixer).parameters()) for mixer in MIXERS},
        "errors": errors,
    }


def measure() -> dict[str, object]:
    """Everything that the chapter reads from its stored results."""
    return {"grpo": grpo_runs(), "distances": distance_runs()}


if __name__ == "__main__":
    print(results.write("claims", measure()).name)
