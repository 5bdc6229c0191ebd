"""What runs too long for a chapter measured: a JSON file a chapter, which a slow test measures again."""

import json
import re
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def read(stem: str) -> dict[str, Any]:
    """What the runs of one chapter measured.

    Raises:
        ValueError: a chapter that stored nothing.
    """
    path = _FOLDER / f"{stem}.json"
    if not path.exists():
        stored = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.json")))
        raise ValueError(f"no results are stored for {stem!r}; there are {stored or 'none'}")
    return json.loads(path.read_text("utf-8"))


def write(stem: str, measured: dict[str, Any]) -> Path:
    """Store what the runs of one chapter measured, in place of what stood there."""
    path = _FOLDER / f"{stem}.json"
    text = json.dumps(measured, indent=1)
    # a list, a line
    rows = re.sub(r"\[\s+([^][{}]+?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)
    path.write_text(rows + "\n", encoding="utf-8")
    return path
