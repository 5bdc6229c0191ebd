"""The loop that trains a LanguageModel on characters, and how well it then predicts them."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F


def train_language_model(
    model: nn.Module,
    ids: Int[Tensor, "N"],
    *,
    steps: int,
    length: int = 64,
    batch_size: int = 16,
    lr: float = 3e-3,
    warmup: int = 0,
    decay: bool = True,
    ahead: int = 1,
    seed: int = 0,
    penalty: Callable[[], Tensor] | None = None,
) -> list[float]:
    """Train ``model`` in place to predict each next character, with Adam.

    Args:
        model: (B, T) token ids -> (B, T, V) scores; trained where its weights are.
        ids: the text, as numbers.
        steps: number of batches; batch_size: pieces of text in each; length: characters T that a piece
            predicts.
        lr: the largest learning rate.
        warmup: steps over which it rises from 0; decay: whether it then falls to 0 along a cosine.
        ahead: which character is to be predicted: 1 is the next; 0, the one just read, and 2 are faults.
        seed: of the choice of pieces.
        penalty: asked after each pass through the model; what it says is added to what training lowers.

    Returns:
        The loss of every step, in nats per character, without the penalty.

    Raises:
        ValueError: a text no longer than ``length``, a size below 1, or a negative ``ahead``.
    """
    if min(steps, batch_size, length) < 1:
        raise ValueError(
            f"steps, batch_size and length must be 1 or more, got {steps}, {batch_size}, {length}"
        )
    if ahead < 0:
        raise ValueError(f"ahead must be 0 or more, got {ahead}")
    if len(ids) <= length:
        raise ValueError(f"the text must be longer than length={length}, got {len(ids)} characters")

    def share(step: int) -> float:  # of the largest learning rate
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return rise * (0.5 + 0.5 * math.cos(math.pi * step / steps) if decay else 1.0)

    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same batches
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    pieces = ids.unfold(0, length + ahead, 1)
    losses = []
    for _ in range(steps):
        batch = pieces[torch.randint(len(pieces), (batch_size,), generator=generator)].to(device)
        loss = F.cross_entropy(model(batch[:, :length]).flatten(0, 1), batch[:, ahead:].flatten())
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty()).backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


@torch.no_grad()
def loss_at_the_end(
    model: nn.Module, ids: Int[Tensor, "N"], *, context: int, last: int = 32, batch_size: int = 16
) -> float:
    """Mean loss, in nats per character, of the ``last`` characters of pieces that are ``context`` long.

    So models are compared on the same characters, whatever they could read before: the pieces end at the same
    places for every ``context`` up to 1024.

    Args:
        model: (B, T) token ids -> (B, T, V) scores.
        ids: text that the model was not trained on.
        context: characters read; last: how many of them count; batch_size: pieces.

    Raises:
        ValueError: not 1 <= last <= context, or a text that is too short.
    """
    if not 1 <= last <= context:
        raise ValueError(f"last must be from 1 to context={context}, got {last}")
    furthest = max(context, 1024)
    if len(ids) < furthest + batch_size:
        raise ValueError(f"the text must have {furthest + batch_size} characters or more, got {len(ids)}")
    device = next(model.parameters()).device
    ends = torch.linspace(furthest, len(ids) - 1, batch_size).long()  # the last character to be predicted
    pieces = torch.stack([ids[end - context : end + 1] for end in ends.tolist()]).to(device)
    scores = model(pieces[:, :-1])[:, -last:]
    return F.cross_entropy(scores.flatten(0, 1), pieces[:, -last:].flatten()).item()
