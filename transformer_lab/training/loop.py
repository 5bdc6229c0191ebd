"""The training loop of the full model: what happens in a step, and how nothing is lost when it stops.

Sources: Vaswani et al. (2017), sections 5.3 and 5.4, https://arxiv.org/abs/1706.03762 (Adam, inverse root,
label smoothing); Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983 (cosine).
"""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.pairs import Batch
from . import checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of a ``Trainer``.

    Args:
        steps: how often the weights are changed.
        schedule: how the learning rate goes on after the warm-up: "inverse_root" as in 2017, or "cosine".
        warmup: steps over which it rises.
        lr: the largest learning rate.
        betas, eps: Adam's; as in the paper.
        smoothing: label smoothing: the share of each target that is spread over all tokens.
        clip: the gradient of all weights together is shortened to this length.
        accumulate: batches whose gradients make one step, as if they were one batch.
        seed: of the order of the batches, and of dropout.

    Raises:
        ValueError: a number out of range, or an unknown schedule.
    """

    steps: int
    schedule: Literal["inverse_root", "cosine"] = "inverse_root"
    warmup: int = 4000
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-9
    smoothing: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "warmup", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("lr", "eps", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must be from 0 to below 1, got {self.smoothing}")
        if self.schedule not in ("inverse_root", "cosine"):
            raise ValueError(f"schedule must be 'inverse_root' or 'cosine', got {self.schedule!r}")


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step, counted from 1.

    Both rise evenly to ``lr`` at step ``warmup``. "inverse_root" then falls with the root of the step:
    equation (3) of Vaswani et al. (2017), whose ``lr`` is (d_model warmup)^-0.5. "cosine" falls to 0.

    >>> config = TrainingConfig(steps=16, warmup=4, lr=1.0)
    >>> [learning_rate(step, config) for step in (1, 4, 16)]
    [0.25, 1.0, 0.5]
    """
    if step <= config.warmup:
        return config.lr * step / config.warmup
    if config.schedule == "inverse_root":
        return config.lr * (config.warmup / step) ** 0.5
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (0.5 + 0.5 * math.cos(math.pi * done))


def translation_loss(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Float[Tensor, ""]:
    """The loss of all real target tokens of a batch together, in nats.

    What is read is the target without its last token, what is wanted the target without its first.
    """
    source, target = batch
    scores = model(source, target[:, :-1])
    return F.cross_entropy(
        scores.flatten(0, 1),
        target[:, 1:].flatten(),
        ignore_index=model.config.pad_id,
        label_smoothing=smoothing,
        reduction="sum",
    )


class Trainer:
    """Trains an encoder-decoder in place; it can stop at any time, and go on as if it had not.

    Args:
        model: trained where its weights are; in half precision where that is a CUDA device.
        batches: from a source of chance, the batches of one epoch.
        config: the settings.
        checkpoint_path: where to store the state; None: nowhere.
        every: steps between two checkpoints.

    Raises:
        ValueError: an epoch without a batch, or a checkpoint of another model or other settings.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[torch.Generator], Iterable[Batch]],
        config: TrainingConfig,
        *,
        checkpoint_path: str | Path | None = None,
        every: int = 500,
    ) -> None:
        self.model, self.batches, self.config = model, batches, config
        self.checkpoint_path = None if checkpoint_path is None else Path(checkpoint_path)
        self.every = every
        self.optimizer = torch.optim.Adam(model.parameters(), config.lr, betas=config.betas, eps=config.eps)
        self.chance: dict[str, Tensor] = {}  # the state of each generator that dropout draws from
        self.losses: list[float] = []  # of every step, in nats per target token, smoothing included
        self.read = 0  # batches
        self.device = next(model.parameters()).device
        cuda = self.device.type == "cuda"
        self._half = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float16
        self._scaler = torch.amp.GradScaler("cuda", enabled=cuda and self._half == torch.float16)
        with self._own_chance():
            torch.manual_seed(config.seed)
        if self.checkpoint_path is not None and self.checkpoint_path.exists():
            checkpoint.load(self, self.checkpoint_path)

    def train(self, steps: int | None = None) -> list[float]:
        """Go on, for so many steps or to the end. Ctrl-C, or the stop button, ends it after a step.

        Returns:
            The loss of every step since the beginning, in nats per target token, smoothing included.
        """
        end = self.config.steps if steps is None else min(self.config.steps, len(self.losses) + steps)
        stream = self._stream()
        self.model.train()
        with self._own_chance(), _interrupt_as_flag() as interrupted, self._bar(end) as bar:
            while len(self.losses) < end and not interrupted.is_set():
                n_tokens = self._step([next(stream) for _ in range(self.config.accumulate)])
                bar.update()
                speed = n_tokens * (bar.format_dict["rate"] or 0)
                bar.set_postfix_str(f"loss {self.losses[-1]:.3f}, {speed:,.0f} tokens/s", refresh=False)
                if len(self.losses) % self.every == 0:
                    self._note_chance()
                    self.save()
        self.save()
        return self.losses

    def save(self) -> None:
        """Store everything that is needed to go on, where there is a place for it."""
        if self.checkpoint_path is not None:
            checkpoint.save(self, self.checkpoint_path)

    def _step(self, batches: list[Batch]) -> int:
        n_tokens = sum(int((target[:, 1:] != self.model.config.pad_id).sum()) for _, target in batches)
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for source, target in batches:
            batch = source.to(self.device), target.to(self.device)
            with torch.autocast("cuda", self._half, enabled=self.device.type == "cuda"):
                loss = translation_loss(self.model, batch, self.config.smoothing) / n_tokens
            self._scaler.scale(loss).backward()
            total += loss.detach()
        self._scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(len(self.losses) + 1, self.config)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.losses.append(float(total))
        self.read += len(batches)
        return n_tokens

    def _stream(self) -> Iterator[Batch]:
        """Batches without end from the first that was not read; an epoch's order follows from its number."""
        epoch, before = 0, 0
        while True:
            generator = torch.Generator().manual_seed(1_000_003 * self.config.seed + epoch)
            count = 0
            for batch in self.batches(generator):
                count += 1
                if before + count > self.read:
                    yield batch
            if count == 0:
                raise ValueError("there is nothing to train on: an epoch has no batch")
            epoch, before = epoch + 1, before + count

    @contextmanager
    def _own_chance(self) -> Iterator[None]:
        """Inside, chance goes on where this trainer left it; outside, nobody notices."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            if self.chance:
                torch.set_rng_state(self.chance["cpu"])
            if "cuda" in self.chance:
                torch.cuda.set_rng_state(self.chance["cuda"], self.device)
            try:
                yield
            finally:
                self._note_chance()

    def _note_chance(self) -> None:
        self.chance = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            self.chance["cuda"] = torch.cuda.get_rng_state(self.device)

    def _bar(self, end: int) -> tqdm:
        quiet = "TQDM_DISABLE" in os.environ  # tqdm's own switch, which it does not heed in notebooks
        return tqdm(
            total=end, initial=len(self.losses), unit="step", desc="training", leave=False, disable=quiet
        )


@contextmanager
def _interrupt_as_flag() -> Iterator[threading.Event]:
    """Inside, the first interrupt only sets the flag, so that a step is whole; the second one interrupts."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there are signals received
        yield flag
        return

    def first(signum: int, frame: object) -> None:
        flag.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
