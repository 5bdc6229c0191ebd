"""Endless, exactly known data for the NumberReader, and the loop that trains it."""

from functools import cache

import torch
from jaxtyping import Int
from num2words import num2words
from torch import Tensor
from torch.nn import functional as F

from ..models.number_reader import MAX_LEN, N_PLACES, PAD_ID, NumberReader, tokenize

LIMIT = 10**N_PLACES


@cache
def number_words(number: int) -> str:
    """The English words of a whole number from 0 to 999999.

    Raises:
        ValueError: a number that does not fit into six digits.

    >>> number_words(342_107)
    'three hundred and forty two thousand one hundred and seven'
    """
    if not 0 <= number < LIMIT:
        raise ValueError(f"the number must lie in 0 to {LIMIT - 1}, got {number}")
    return num2words(number).replace("-", " ").replace(",", "")


def sample_numbers(n: int, generator: torch.Generator) -> list[int]:
    """Draw ``n`` numbers with one to six digits, each length equally often, and about a third of digits zero.

    Plain uniform numbers would hardly ever show "twelve" or "nine hundred thousand".

    Raises:
        ValueError: ``n`` is negative.
    """
    if n < 0:
        raise ValueError(f"cannot draw {n} numbers")
    places = 10 ** torch.arange(N_PLACES)
    digits = torch.randint(10, (n, N_PLACES), generator=generator)
    digits[torch.rand(n, N_PLACES, generator=generator) < 0.25] = 0
    lengths = torch.randint(1, N_PLACES + 1, (n, 1), generator=generator)
    digits[torch.arange(N_PLACES) >= lengths] = 0
    return (digits * places).sum(1).tolist()


def encode(numbers: list[int]) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B P"]]:
    """Token ids of the words, padded to MAX_LEN, and the P = 6 digits, zeros in front.

    Raises:
        ValueError: no number, or one that does not fit into six digits.

    >>> tokens, digits = encode([12])
    >>> tokens[0, :3].tolist(), digits.tolist()
    ([14, 1, 0], [[0, 0, 0, 0, 1, 2]])
    """
    if not numbers:
        raise ValueError("there is no number to encode: the list is empty")
    rows = [tokenize(number_words(number)) for number in numbers]
    tokens = torch.tensor([row + [PAD_ID] * (MAX_LEN - len(row)) for row in rows])
    digits = torch.tensor([[int(c) for c in f"{number:0{N_PLACES}d}"] for number in numbers])
    return tokens, digits


def split(n_train: int = 20_000, n_test: int = 2_000, *, seed: int = 0) -> tuple[list[int], list[int]]:
    """Training numbers, and test numbers none of which is among them.

    Raises:
        ValueError: a negative size, or more test numbers asked for than are left.
    """
    generator = torch.Generator().manual_seed(seed)
    train = sample_numbers(n_train, generator)
    fresh = dict.fromkeys(sample_numbers(4 * n_test, generator))
    seen = set(train)
    test = [number for number in fresh if number not in seen][:n_test]
    if len(test) < n_test:
        raise ValueError(
            f"asked for {n_test} test numbers, but only {len(test)} drawn were new: ask for fewer"
        )
    return train, test


def train_number_reader(
    model: NumberReader,
    numbers: list[int],
    *,
    steps: int = 1200,
    batch_size: int = 256,
    lr: float = 3e-3,
    seed: int = 0,
) -> list[float]:
    """Train ``model`` in place on cross-entropy, with Adam and a learning rate that rises, then falls.

    Args:
        model: trained where its weights are.
        numbers: what to learn from, with repetitions as drawn.
        steps: number of batches; batch_size: numbers in each.
        lr: the largest learning rate.
        seed: of the choice of batches.

    Returns:
        The loss of every step, in nats per digit.

    Raises:
        ValueError: no numbers, or ``steps`` or ``batch_size`` below 1.
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"training needs a step and a number in each batch, got {steps} and {batch_size}")
    device = model.embed.weight.device
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same batches
    tokens, digits = (t.to(device) for t in encode(numbers))
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    losses = []
    for _ in range(steps):
        batch = torch.randint(len(numbers), (batch_size,), generator=generator).to(device)
        loss = F.cross_entropy(model(tokens[batch]).flatten(0, 1), digits[batch].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


@torch.no_grad()
def exact_match(model: NumberReader, numbers: list[int]) -> float:
    """Share of numbers of which all six digits are right; raises ValueError for an empty list."""
    tokens, digits = (t.to(model.embed.weight.device) for t in encode(numbers))
    return (model(tokens).argmax(-1) == digits).all(-1).float().mean().item()
