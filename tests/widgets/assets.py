"""Reading back what the package wrote for the browser."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import torch

MODELS = Path(__file__).parents[2] / "book" / "_assets" / "models"
CALL = re.compile(r'globalThis\.transformerLabAsset\("(\w+)", (\d+), (\d+), ("[^\n]*")\);\n')


def tensor(record: dict) -> torch.Tensor:
    if "scales" in record:
        steps = np.frombuffer(base64.b64decode(record["data"]), "i1").reshape(record["shape"])
        scales = np.frombuffer(base64.b64decode(record["scales"]), "<f4")
        return torch.from_numpy(np.diag(scales) @ steps.astype("f4"))
    flat = np.frombuffer(base64.b64decode(record["data"]), "<f4").copy()
    return torch.from_numpy(flat).reshape(record["shape"])


def load(scripts: list[str], name: str) -> dict:
    """The data in scripts that ``asset_scripts`` wrote."""
    text = ""
    for i, script in enumerate(scripts):
        found, part, count, piece = CALL.fullmatch(script).groups()
        assert (found, int(part), int(count)) == (name, i, len(scripts))
        text += json.loads(piece)
    return json.loads(text)


def page_scripts(name: str) -> list[str]:
    """The scripts of a model that the book's pages load, in order."""
    files = sorted(MODELS.glob(f"{name}.*.js"), key=lambda path: int(path.suffixes[0][1:]))
    return [path.read_text("utf8") for path in files]
