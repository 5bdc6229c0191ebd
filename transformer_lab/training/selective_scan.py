"""The long runs of the chapter on Mamba: copying with and without selection, and what a fixed state recalls.

``python -m transformer_lab.training.selective_scan`` measures all of it again and stores it, in less than
half an hour on a free core.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..efficient.selective_scan import MambaBlock
from ..models.language_model import LanguageModel, LanguageModelConfig
from ..norms import RMSNorm
from . import results

SEEDS = (0, 1, 2)
LEARNING_RATE = 5e-3
Batch = tuple[Int[Tensor, "B T"], Int[Tensor, "B P"]]  # rows, and the answers to their last P tokens


class MambaModel(nn.Module):
    """Scores for every token, from blocks of Mamba alone: no attention, no feed-forward network.

    Args:
        vocab_size: number of different tokens V; d_model: width D; n_layers: blocks, each with a norm before
            it and a skip connection around it; block: further settings of ``MambaBlock``.

    >>> MambaModel(vocab_size=10, d_model=8, n_layers=2)(torch.zeros(1, 5, dtype=torch.long)).shape
    torch.Size([1, 5, 10])
    """

    def __init__(self, *, vocab_size: int, d_model: int, n_layers: int, **block: int | bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(MambaBlock(d_model=d_model, **block) for _ in range(n_layers))
        self.norms = nn.ModuleList(RMSNorm(d_model) for _ in range(n_layers))
        self.norm = RMSNorm(d_model)
        self.scores = nn.Linear(d_model, vocab_size, bias=False)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        x = self.embed(tokens)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.scores(self.norm(x))


def train(
    model: nn.Module,
    batch: Callable[[torch.Generator], Batch],
    *,
    steps: int,
    seed: int = 0,
    after_each: Callable[[int], None] = lambda step: None,
) -> None:
    """Train ``model`` in place with Adam, at one rate, to answer at the end of each row.

    ``after_each`` is called with the number of steps made, 1 and up.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    for step in range(1, steps + 1):
        rows, wanted = batch(generator)
        loss = F.cross_entropy(model(rows)[:, -wanted.shape[1] :].flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_each(step)


@torch.no_grad()
def share_right(model: nn.Module, batch: Batch) -> float:
    """The share of the answers that get the highest score."""
    rows, wanted = batch
    return (model(rows)[:, -wanted.shape[1] :].argmax(dim=-1) == wanted).double().mean().item()


# --- selective copying -----------------------------------------------------------------------------

SYMBOLS, SLOTS, COPIED = 8, 24, 4
NOISE, ASK = SYMBOLS, SYMBOLS + 1
COPY_STEPS, WINDOW = 1000, 100
LONGER = 3000  # steps that those without selection get once more, to see where they end
VARIANTS = {  # name: settings of the blocks
    "selective": {"gate": False, "selective": True},
    "fixed": {"gate": False, "selective": False},
    "selective, gate": {"gate": True, "selective": True},
    "fixed, gate": {"gate": True, "selective": False},
}


def selective_copying(n: int, generator: torch.Generator) -> Batch:
    """Rows of ``SLOTS`` tokens, of which ``COPIED`` are symbols and all others noise; then as many questions.

    The answers are the symbols in their order. They stand at other places in each row, so that counting does
    not help. Source: section 3.1 of Gu and Dao (2023).

    >>> rows, wanted = selective_copying(1, torch.Generator().manual_seed(0))
    >>> torch.equal(rows[rows < SYMBOLS], wanted[0])
    True
    """
    wanted = torch.randint(SYMBOLS, (n, COPIED), generator=generator)
    places = torch.rand(n, SLOTS, generator=generator).argsort(dim=1)[:, :COPIED].sort(dim=1).values
    rows = torch.full((n, SLOTS), NOISE).scatter(1, places, wanted)
    return F.pad(rows, (0, COPIED), value=ASK), wanted


def copying_run(variant: str, *, seed: int = 0, steps: int = COPY_STEPS) -> list[float]:
    """Train two blocks on selective copying; the share of right answers to new rows, every ``WINDOW`` steps.

    Raises:
        ValueError: an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {'; '.join(VARIANTS)}, got {variant!r}")
    torch.manual_seed(seed)
    model = MambaModel(vocab_size=SYMBOLS + 2, d_model=24, n_layers=2, d_state=8, **VARIANTS[variant])
    new = selective_copying(500, torch.Generator().manual_seed(1000))
    shares: list[float] = []

    def look(step: int) -> None:
        if step % WINDOW == 0:
            shares.append(round(share_right(model, new), 3))

    train(model, lambda generator: selective_copying(32, generator), steps=steps, seed=seed, after_each=look)
    return shares


def copying_runs(seeds: Sequence[int] = SEEDS) -> dict[str, object]:
    """``copying_run`` of every variant, one list per seed, and ``LONGER`` ones without selection."""
    shares = {variant: [copying_run(variant, seed=seed) for seed in seeds] for variant in VARIANTS}
    longer = {variant: copying_run(variant, steps=LONGER) for variant in ("fixed", "fixed, gate")}
    return {"steps": COPY_STEPS, "window": WINDOW, "shares": shares, "longer": longer}


# --- recall ----------------------------------------------------------------------------------------

KEYS, VALUES = 32, 8
TRAINED_PAIRS = 8  # at most, while training
PAIRS = (1, 2, 4, 6, 8, 12, 16)  # asked for afterwards
RECALL_STEPS, RECALL_WINDOW = 2000, 250
MEMORIES = {  # name: how the model is made
    "attention": lambda: LanguageModel(
        LanguageModelConfig(vocab_size=VALUES + KEYS, d_model=16, n_heads=2, n_layers=2, d_ff=48)
    ),
    "Mamba, N = 2": lambda: MambaModel(vocab_size=VALUES + KEYS, d_model=16, n_layers=2, d_state=2),
    "Mamba, N = 8": lambda: MambaModel(vocab_size=VALUES + KEYS, d_model=16, n_layers=2, d_state=8),
}


def recall(n: int, pairs: int, generator: torch.Generator) -> Batch:
    """Rows of ``pairs`` keys, each with its value behind it; then the keys again, in another order.

    The answer to a key is its value. Keys of a row differ; values may be alike. After Arora et al. (2023),
    section 3, https://arxiv.org/abs/2312.04927.

    >>> rows, wanted = recall(1, 3, torch.Generator().manual_seed(0))
    >>> told = dict(zip(rows[0, 0:6:2].tolist(), rows[0, 1:6:2].tolist()))
    >>> [told[key] for key in rows[0, 6:].tolist()] == wanted[0].tolist()
    True
    """
    keys = VALUES + torch.rand(n, KEYS, generator=generator).argsort(dim=1)[:, :pairs]
    values = torch.randint(VALUES, (n, pairs), generator=generator)
    order = torch.rand(n, pairs, generator=generator).argsort(dim=1)
    told = torch.stack([keys, values], dim=2).flatten(1)
    return torch.cat([told, keys.gather(1, order)], dim=1), values.gather(1, order)


def recall_run(memory: str, *, seed: int = 0, steps: int = RECALL_STEPS) -> dict[str, list[float]]:
    """Train one of ``MEMORIES`` on rows of 1 to ``TRAINED_PAIRS`` pairs, and let it answer new ones.

    Returns:
        "shares": of right answers, for each of ``PAIRS``; "curve": for ``TRAINED_PAIRS`` pairs, every
        ``RECALL_WINDOW`` steps.

    Raises:
        ValueError: an unknown memory.
    """
    if memory not in MEMORIES:
        raise ValueError(f"memory must be one of {'; '.join(MEMORIES)}, got {memory!r}")
    torch.manual_seed(seed)
    model = MEMORIES[memory]()
    new = {pairs: recall(200, pairs, torch.Generator().manual_seed(1000 + pairs)) for pairs in PAIRS}
    curve: list[float] = []

    def some(generator: torch.Generator) -> Batch:
        pairs = torch.randint(1, TRAINED_PAIRS + 1, (), generator=generator).item()
        return recall(32, pairs, generator)

    def look(step: int) -> None:
        if step % RECALL_WINDOW == 0:
            curve.append(round(share_right(model, new[TRAINED_PAIRS]), 3))

    train(model, some, steps=steps, seed=seed, after_each=look)
    return {"shares": [round(share_right(model, new[pairs]), 3) for pairs in PAIRS], "curve": curve}


def recall_runs(seeds: Sequence[int] = SEEDS) -> dict[str, object]:
    """``recall_run`` of every memory: one entry per seed."""
    runs = {memory: [recall_run(memory, seed=seed) for seed in seeds] for memory in MEMORIES}
    settings = {
        "steps": RECALL_STEPS,
        "window": RECALL_WINDOW,
        "pairs": list(PAIRS),
        "trained": TRAINED_PAIRS,
    }
    return settings | {"runs": runs}


def measure() -> dict[str, object]:
    """Everything that the chapter reads from its stored results."""
    return {"copying": copying_runs(), "recall": recall_runs()}


if __name__ == "__main__":
    print(results.write("selective_scan", measure()).name)
