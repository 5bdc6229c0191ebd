"""A chapter run from another start: its own asserts say whether what it prints as a range holds there."""

import re
from collections.abc import Mapping

import matplotlib
import nbformat
from matplotlib import pyplot as plt

from .conftest import ROOT


def run_from(stem: str, changes: Mapping[str, Mapping[str, str]]) -> None:
    """Run every cell of a chapter but its exercises.

    ``changes``: cell -> what stands in it, once -> what is to stand there.
    """
    matplotlib.use("agg")
    names: dict[str, object] = {}
    met = set()
    with plt.rc_context():
        for cell in nbformat.read(ROOT / "book" / f"{stem}.ipynb", as_version=4).cells:
            if cell.cell_type != "code" or "exercise" in cell.metadata.get("tags", []):
                continue
            # the package is here, and must not be fetched
            source = re.sub(r"^    %pip .*$", "    raise", cell.source, flags=re.MULTILINE)
            for old, new in changes.get(cell.id, {}).items():
                assert source.count(old) == 1, (cell.id, old)
                source = source.replace(old, new)
                met.add(cell.id)
            exec(compile(source, cell.id, "exec"), names)  # the asserts are the chapter's own
            plt.close("all")
    assert met == set(changes)
