"""Checkpoints of a ``Trainer``: one safetensors file with all that is needed to go on as if nothing had been.

It holds numbers only, no code, so that opening a stranger's file runs nothing. A file is written beside its
place, then moved there in one move: whenever the machine stops, there is the old checkpoint or the new one.
"""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from .loop import Trainer


def save(trainer: "Trainer", path: Path) -> None:
    """Store a trainer's state.

    Raises:
        OSError: no place, or no right to write there.
    """
    tensors = {f"model.{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    for i, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors |= {f"chance.{name}": state for name, state in trainer.chance.items()}
    tensors["losses"] = torch.tensor(trainer.losses, dtype=torch.float64)
    tensors["read"] = torch.tensor(trainer.read)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(
            {name: t.detach().contiguous() for name, t in tensors.items()}, unfinished, _settings(trainer)
        )
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def load(trainer: "Trainer", path: Path) -> None:
    """Give a trainer the state that was stored.

    Raises:
        ValueError: the file is no checkpoint, or one of another model or of other settings.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            settings = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no checkpoint that can be read: {error}") from None
    _compare(settings, _settings(trainer), path)
    model = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    trainer.model.load_state_dict(model)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, i, entry = name.split(".")
            state.setdefault(int(i), {})[entry] = tensor
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict() | {"state": state})
    chance = {name.removeprefix("chance."): t for name, t in tensors.items() if name.startswith("chance.")}
    trainer.chance |= {name: state for name, state in chance.items() if name in trainer.chance}
    trainer.losses, trainer.read = tensors["losses"].tolist(), int(tensors["read"])


def _settings(trainer: "Trainer") -> dict[str, str]:
    return {"model": json.dumps(asdict(trainer.model.config)), "training": json.dumps(asdict(trainer.config))}


def _compare(stored: dict[str, str], wanted: dict[str, str], path: Path) -> None:
    for kind in ("model", "training"):
        if kind not in stored:
            raise ValueError(
                f"{path} is no checkpoint of a Trainer: it does not tell the settings of its {kind}"
            )
        before, now = json.loads(stored[kind]), json.loads(wanted[kind])
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                was, is_ = before.get(name), now.get(name)
                raise ValueError(
                    f"{path} belongs to another {kind}: its {name} is {was!r}, yours {is_!r};"
                    " give the same settings, or another checkpoint_path"
                )
