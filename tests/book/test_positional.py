"""What the chapter on positions prints as a range holds for starts that it does not show."""

import re
from pathlib import Path

import matplotlib
import nbformat
import pytest
from matplotlib import pyplot as plt

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "positional.ipynb"


def seeded(source: str, seed: int) -> str:
    """The cell that trains the model, from another start and with other batches."""
    source, runs = re.subn(r'(bench\.train\("rope"),', rf"\1, seed={seed},", source)
    assert runs == 1
    return source


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_every_range_of_the_trained_model_holds_from_another_start(seed):
    matplotlib.use("agg")
    names: dict[str, object] = {}
    with plt.rc_context():
        for cell in nbformat.read(CHAPTER, as_version=4).cells:
            if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
                source = seeded(cell.source, seed) if cell.id == "live-train" else cell.source
                source = re.sub(
                    r"^    %pip .*$", "    raise", source, flags=re.MULTILINE
                )  # the package is here
                exec(compile(source, cell.id, "exec"), names)  # the asserts are the chapter's own
                plt.close("all")
