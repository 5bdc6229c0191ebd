"""Trained weights for a widget: they come when the reader asks, and no notebook stores them.

The front end sets ``asset_wanted``. In a kernel, Python answers by filling ``asset_data`` from the live
model; on a page without one, ``book/_assets/widget-host.js`` does, from files that ``asset_scripts`` wrote.
"""

import base64
import json

import numpy as np
import torch
import traitlets as t
from torch import nn

from ..int8 import from_int8, to_int8
from ._base import BookWidget

PART = 1 << 16  # characters in one script
DTYPES = ("float32", "int8")


def export_model(
    model: nn.Module, *, config: dict, vocabulary: tuple[str, ...], dtype: str = "float32"
) -> dict:
    """``asset_data`` for ``model``: plain JSON, each tensor's numbers little-endian in base64.

    Args:
        model: its state holds vectors and matrices.
        config: what the front end needs to know besides the weights.
        vocabulary: the tokens, in the order of their ids.
        dtype: "int8" makes matrices a quarter as large. A row has a scale, 1/127 of its largest number in
            size; each number becomes a whole multiple of it, off by half a scale at most. Vectors: float32.

    Raises:
        ValueError: another dtype, a tensor with more than two axes, or a number that is not finite.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype}")
    tensors = {name: _record(name, value, dtype) for name, value in model.state_dict().items()}
    return {"config": config, "vocabulary": list(vocabulary), "tensors": tensors}


def exported_weights(data: dict) -> dict[str, torch.Tensor]:
    """The numbers that a front end computes with, rounded ones for int8, as a state for the model to load."""
    return {name: _read(record) for name, record in data["tensors"].items()}


def asset_scripts(name: str, data: dict) -> list[str]:
    """Classic scripts: a page opened from a file may load nothing else. In parts, to show how far it is."""
    text = json.dumps(data, separators=(",", ":"))
    parts = [text[i : i + PART] for i in range(0, len(text), PART)]
    return [
        f"globalThis.transformerLabAsset({json.dumps(name)}, {i}, {len(parts)}, {json.dumps(part)});\n"
        for i, part in enumerate(parts)
    ]


def asset_bytes(data: dict) -> int:
    """What the reader's browser has to load."""
    return sum(map(len, asset_scripts("", data)))


def _record(name: str, tensor: torch.Tensor, dtype: str) -> dict:
    values = tensor.detach().cpu().float()
    if values.ndim > 2:
        raise ValueError(f"{name} must be a vector or a matrix, got axes {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"{name} must hold finite numbers, got infinity or NaN")
    shape = list(values.shape)
    if dtype == "float32" or values.ndim < 2:
        return {"shape": shape, "data": _base64(values)}
    whole, scales = to_int8(values)
    return {"shape": shape, "data": _base64(whole), "scales": _base64(scales)}


def _read(record: dict) -> torch.Tensor:
    if "scales" not in record:
        return _numbers(record["data"], "<f4").reshape(record["shape"])
    whole = _numbers(record["data"], "i1").reshape(record["shape"])
    return from_int8(whole, _numbers(record["scales"], "<f4"))


def _numbers(text: str, dtype: str) -> torch.Tensor:
    return torch.tensor(np.frombuffer(base64.b64decode(text), dtype))


def _base64(tensor: torch.Tensor) -> str:
    values = tensor.numpy()
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode("ascii")


class AssetWidget(BookWidget):
    """A widget that shows a trained model.

    Traits:
        asset: name of the model; on a page, of its files in ``models/``.
        asset_bytes: its size, which the reader is told before it is loaded.
        asset_wanted: the front end asks.
        asset_progress: what share of it has come, from 0 to 1; a kernel answers at once.
        asset_data: the answer, or ``{"error": sentence}``; None until someone asks.
    """

    asset = t.Unicode().tag(sync=True)
    asset_bytes = t.Int().tag(sync=True)
    asset_wanted = t.Bool(False).tag(sync=True)
    asset_progress = t.Float(0.0).tag(sync=True)
    asset_data = t.Dict(default_value=None, allow_none=True).tag(sync=True)

    def export(self) -> dict:
        """``asset_data`` as it is now."""
        raise NotImplementedError

    @t.observe("asset_wanted")
    def _answer(self, change) -> None:
        if change["new"]:
            try:
                self.asset_data = self.export()
            except ValueError as error:
                self.asset_data = {"error": f"This model cannot be shown: {error}."}
            self.asset_wanted = False  # so that asking again is a change again
