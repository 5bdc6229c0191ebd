"""Trained weights for a widget: they come when the reader asks, and no notebook stores them.

The front end sets ``asset_wanted``. In a kernel, Python answers by filling ``asset_data`` from the live
model; on a page without one, ``book/_assets/widget-host.js`` does, from files that ``asset_scripts`` wrote.
"""

import base64
import json

import anywidget
import traitlets as t
from torch import nn

PART = 1 << 16  # characters in one script


def export_model(model: nn.Module, *, config: dict, vocabulary: tuple[str, ...]) -> dict:
    """``asset_data`` for ``model``: plain JSON, each tensor as little-endian float32 in base64."""
    tensors = {name: _tensor(value) for name, value in model.state_dict().items()}
    return {"config": config, "vocabulary": list(vocabulary), "tensors": tensors}


def asset_scripts(name: str, data: dict) -> list[str]:
    """Classic scripts: a page opened from a file may load nothing else. In parts, to show how far it is."""
    text = _compact(data)
    parts = [text[i : i + PART] for i in range(0, len(text), PART)]
    return [
        f"globalThis.transformerLabAsset({json.dumps(name)}, {i}, {len(parts)}, {json.dumps(part)});\n"
        for i, part in enumerate(parts)
    ]


def asset_bytes(data: dict) -> int:
    """What the reader's browser has to load."""
    return len(_compact(data))


def _tensor(value) -> dict:
    data = value.detach().cpu().numpy().astype("<f4").tobytes()
    return {"shape": list(value.shape), "data": base64.b64encode(data).decode("ascii")}


def _compact(data: dict) -> str:
    return json.dumps(data, separators=(",", ":"))


class AssetWidget(anywidget.AnyWidget):
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
            self.asset_data = self.export()
            self.asset_wanted = False  # so that asking again is a change again
