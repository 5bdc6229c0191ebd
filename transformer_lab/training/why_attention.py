"""The long runs of the chapter on why there is attention: gradients by distance, and one task for all layers.

``python -m transformer_lab.training.why_attention`` measures all of it again and stores it, in less than an
hour on a free core.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..why_attention import NAMES, LayerName, gradient_by_distance, make_layer, set_forget_bias
from . import results

SEEDS = (0, 1, 2)

# --- gradients at the start ------------------------------------------------------------------------

WIDTH = 64
LENGTHS = (16, 32, 64, 128, 256, 512)


def distances(n_tokens: int) -> list[int]:
    """1, 2, 4, ... and the distance of the first token.

    >>> distances(16)
    [1, 2, 4, 8, 15]
    """
    return [2**i for i in range((n_tokens - 1).bit_length() - 1)] + [n_tokens // 2, n_tokens - 1]


def gradients(name: LayerName, n_tokens: int, seeds: Sequence[int] = SEEDS) -> list[float]:
    """The middle of the seeds' gradients at each of ``distances``, for fresh layers, to three digits."""
    rows = []
    for seed in seeds:
        torch.manual_seed(seed)
        layer = make_layer(name, d_model=WIDTH, reach=n_tokens).double()
        row = gradient_by_distance(layer, distances(n_tokens), d_model=WIDTH, n_tokens=n_tokens, seed=seed)
        rows.append(row)
    return [float(f"{sorted(column)[len(column) // 2]:.2e}") for column in zip(*rows, strict=True)]


def gradient_runs() -> dict[str, object]:
    """``gradients`` of every layer, for every length."""
    kept = {name: {str(n): gradients(name, n) for n in LENGTHS} for name in NAMES}
    return {"lengths": list(LENGTHS), "distances": {str(n): distances(n) for n in LENGTHS}, "gradient": kept}


# --- one task for all ------------------------------------------------------------------------------

SYMBOLS = 8
LOUD, ASK = SYMBOLS, 2 * SYMBOLS  # the first loud token; the question
READERS: tuple[LayerName, ...] = NAMES[:-1]
WEIGHTS = 12_000  # of every reader, or a little less
TASK_LENGTHS = (16, 32, 64)
RATES = (1e-3, 3e-3, 1e-2)
SPREADS = (1.0, 0.3)  # of the embedding: large tokens drive the states of recurrences to their ends
STEPS, WINDOW, BATCH = 1000, 50, 32
GATE_BIASES, GATE_SPREAD = (0.0, 1.0, 3.0, 5.0), 0.3  # of forget gates; of the embedding
PATIENT, PATIENT_LENGTH, PATIENT_RATE = 2000, 64, 3e-3  # three recurrences get these steps once more
CHOOSING = 100  # the seed with which rate and spread are chosen
Rows = tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]  # what is read, and the answers


def one_loud_token(n_rows: int, n_tokens: int, generator: torch.Generator) -> Rows:
    """Rows of quiet symbols; one of the first quarter is loud; at the end, a question: which symbol was it?

    There are ``SYMBOLS`` quiet tokens, as many loud ones, and the question.

    >>> rows, answers = one_loud_token(2, 8, torch.Generator().manual_seed(0))
    >>> loud = (rows >= LOUD) & (rows < ASK)
    >>> torch.equal(rows[loud] - LOUD, answers)
    True
    """
    rows = torch.randint(SYMBOLS, (n_rows, n_tokens), generator=generator)
    answers = torch.randint(SYMBOLS, (n_rows,), generator=generator)
    places = torch.randint(max(1, n_tokens // 4), (n_rows, 1), generator=generator)
    rows.scatter_(1, places, LOUD + answers[:, None])
    rows[:, -1] = ASK
    return rows, answers


class Reader(nn.Module):
    """An embedding, one of the layers, and scores for the answer from what stands at the last token.

    Args:
        name: the layer; d_model: width D; reach: tokens that the last one must see.
        spread: standard deviation of the embedding's numbers at the start.

    >>> Reader("attention", d_model=4, reach=5)(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 8])
    """

    def __init__(self, name: LayerName, *, d_model: int, reach: int, spread: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(ASK + 1, d_model)
        nn.init.normal_(self.embed.weight, std=spread)
        self.layer = make_layer(name, d_model=d_model, reach=reach)
        self.scores = nn.Linear(d_model, SYMBOLS)

    def forward(self, rows: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        return self.scores(self.layer(self.embed(rows))[:, -1])


def size(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters())


def width(name: LayerName, reach: int) -> int:
    """The largest even width with which a reader has at most ``WEIGHTS`` numbers."""
    d_model = 2
    while size(Reader(name, d_model=d_model + 2, reach=reach)) <= WEIGHTS:
        d_model += 2
    return d_model


@torch.no_grad()
def share_right(model: nn.Module, rows: Int[Tensor, "B T"], answers: Int[Tensor, "B"]) -> float:
    """The share of answers that get the highest score."""
    return (model(rows).argmax(dim=-1) == answers).double().mean().item()


def train(
    model: nn.Module,
    n_tokens: int,
    *,
    rate: float,
    steps: int = STEPS,
    seed: int = 0,
    after_each: Callable[[int], None] = lambda step: None,
) -> None:
    """Train ``model`` in place with Adam, gradients clipped to length 1, on fresh rows in every step.

    ``after_each`` is called with the number of steps made, 1 and up.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)  # on the CPU: every device sees the same rows
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for step in range(1, steps + 1):
        rows, answers = (t.to(device) for t in one_loud_token(BATCH, n_tokens, generator))
        optimizer.zero_grad()
        F.cross_entropy(model(rows), answers).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        after_each(step)


def task_run(
    name: LayerName, n_tokens: int, *, rate: float, spread: float = 1.0, seed: int = 0, steps: int = STEPS
) -> dict[str, list[float] | float]:
    """Train one reader on rows of ``n_tokens``, and let it answer 500 new ones.

    Returns:
        "curve": the share of right answers every ``WINDOW`` steps; "longer": at the end, for rows four times
        as long.

    Raises:
        ValueError: an unknown layer.
    """
    torch.manual_seed(seed)
    model = Reader(name, d_model=width(name, n_tokens), reach=n_tokens, spread=spread)
    curve = _watched(model, n_tokens, rate=rate, steps=steps, seed=seed)
    return {"curve": curve, "longer": round(share_right(model, *_new_rows(4 * n_tokens)), 3)}


def _new_rows(n_tokens: int) -> Rows:
    return one_loud_token(500, n_tokens, torch.Generator().manual_seed(1000))


def _watched(model: nn.Module, n_tokens: int, *, rate: float, steps: int, seed: int) -> list[float]:
    """Train ``model``; the share of right answers to new rows, every ``WINDOW`` steps."""
    new, curve = _new_rows(n_tokens), []

    def look(step: int) -> None:
        if step % WINDOW == 0:
            curve.append(round(share_right(model, *new), 3))

    train(model, n_tokens, rate=rate, steps=steps, seed=seed, after_each=look)
    return curve


def best_settings(name: LayerName, n_tokens: int, steps: int = STEPS) -> dict[str, float]:
    """The rate of ``RATES`` and the spread of ``SPREADS`` whose curve is highest on average.

    They are chosen with a seed that is used for nothing else.
    """

    def height(settings: dict[str, float]) -> float:
        return sum(task_run(name, n_tokens, **settings, seed=CHOOSING, steps=steps)["curve"])

    return max(({"rate": rate, "spread": spread} for rate in RATES for spread in SPREADS), key=height)


def task_runs(seeds: Sequence[int] = SEEDS) -> dict[str, object]:
    """``task_run`` of every reader, for every length, at its best settings: one entry per seed."""
    runs: dict[str, dict[str, object]] = {name: {} for name in READERS}
    for n in TASK_LENGTHS:
        for name in READERS:
            settings = best_settings(name, n)
            found = [task_run(name, n, **settings, seed=seed) for seed in seeds]
            runs[name][str(n)] = settings | {
                "width": width(name, n),
                "weights": size(Reader(name, d_model=width(name, n), reach=n)),
                "curves": [run["curve"] for run in found],
                "longer": [run["longer"] for run in found],
            }
    return {"lengths": list(TASK_LENGTHS), "steps": STEPS, "window": WINDOW, "runs": runs}


def patient_runs(seeds: Sequence[int] = SEEDS) -> dict[str, object]:
    """Three recurrences on ``PATIENT_LENGTH`` tokens once more, for ``PATIENT`` steps: curves by spread."""
    curves = {
        name: {
            str(spread): [
                task_run(name, PATIENT_LENGTH, rate=PATIENT_RATE, spread=spread, seed=seed, steps=PATIENT)[
                    "curve"
                ]
                for seed in seeds
            ]
            for spread in SPREADS
        }
        for name in READERS[1:4]
    }
    return {"length": PATIENT_LENGTH, "steps": PATIENT, "rate": PATIENT_RATE, "curves": curves}


def gate_run(bias: float, *, seed: int = 0, steps: int = STEPS) -> list[float]:
    """The curve of an LSTM whose forget gates start with ``bias``, on ``PATIENT_LENGTH`` tokens."""
    torch.manual_seed(seed)
    reach = PATIENT_LENGTH
    model = Reader("LSTM", d_model=width("LSTM", reach), reach=reach, spread=GATE_SPREAD)
    set_forget_bias(model.layer.recurrence, bias)
    return _watched(model, reach, rate=PATIENT_RATE, seed=seed, steps=steps)


def gate_runs(seeds: Sequence[int] = SEEDS) -> dict[str, object]:
    """``gate_run`` for each of ``GATE_BIASES``: a curve per seed."""
    curves = {str(bias): [gate_run(bias, seed=seed) for seed in seeds] for bias in GATE_BIASES}
    return {"steps": STEPS, "curves": curves}


def measure() -> dict[str, object]:
    """Everything that the chapter and its widget read from the stored results."""
    return {
        "start": gradient_runs(),
        "task": task_runs(),
        "patient": patient_runs(),
        "gate": gate_runs(),
    }


if __name__ == "__main__":
    print(results.write("why_attention", measure()).name)
