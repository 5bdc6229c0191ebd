"""Reading back what the package wrote for the browser."""

import base64
import json

import numpy as np
import torch


def tensor(record: dict) -> torch.Tensor:
    if "scales" in record:
        steps = np.frombuffer(base64.b64decode(record["data"]), "i1").reshape(record["shape"])
        scales = np.frombuffer(base64.b64decode(record["scales"]), "<f4")
        return torch.from_numpy(np.diag(scales) @ steps.astype("f4"))
    flat = np.frombuffer(base64.b64decode(record["data"]), "<f4").copy()
    return torch.from_numpy(flat).reshape(record["shape"])


def load(script: str, name: str) -> dict:
    """The data in a script that ``asset_script`` wrote."""
    start, end = f'globalThis.transformerLabAsset("{name}", ', ");\n"
    assert script.startswith(start) and script.endswith(end)
    return json.loads(script.removeprefix(start).removesuffix(end))
