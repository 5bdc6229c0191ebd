"""What the chapter on norms prints as a range holds for starts that it does not show."""

import re
from pathlib import Path

import matplotlib
import nbformat
import pytest
from matplotlib import pyplot as plt

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "norms.ipynb"


def seeded(source: str, seed: int) -> str:
    """The cell that trains with and without warm-up, from another start and with other batches."""
    source, changed = re.subn(r"train_and_watch\(warmup\)", f"train_and_watch(warmup, seed={seed})", source)
    assert changed == 1
    return source


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5])
def test_the_ranges_of_warm_up_hold_from_another_start(seed):
    matplotlib.use("agg")
    names: dict[str, object] = {}
    with plt.rc_context():
        for cell in nbformat.read(CHAPTER, as_version=4).cells:
            if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
                source = seeded(cell.source, seed) if cell.id == "warm-train" else cell.source
                source = re.sub(r"^    %pip .*$", "    raise", source, flags=re.MULTILINE)
                exec(compile(source, cell.id, "exec"), names)  # the asserts are the chapter's own
                plt.close("all")
