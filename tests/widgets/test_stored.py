"""What the notebooks of the book have stored of their widgets."""

import json
from pathlib import Path

import pytest

from transformer_lab import widgets

NOTEBOOKS = sorted((Path(__file__).parents[2] / "book").glob("*.ipynb"))
STATE = "application/vnd.jupyter.widget-state+json"


def stored(path: Path) -> list[dict]:
    records = json.loads(path.read_text("utf8"))["metadata"].get("widgets", {}).get(STATE, {"state": {}})
    return [record["state"] for record in records["state"].values() if "_esm" in record["state"]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_widgets_hold_no_weights_and_the_module_of_today(path):
    for state in stored(path):
        cls = getattr(widgets, state["_anywidget_id"].rpartition(".")[2])
        assert state.get("asset_data") is None and state.get("asset_wanted", False) is False
        assert state["_esm"] == cls._esm, f"stale: run python tools/execute.py book/{path.name}"
