"""What the chapter on masks prints as a range holds for starts that it does not show."""

import re
from pathlib import Path

import matplotlib
import nbformat
import pytest
from matplotlib import pyplot as plt

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "masks.ipynb"


def seeded(source: str, seed: int) -> str:
    """The cell that trains the two models, from another start and with other batches."""
    source, starts = re.subn(r"torch\.manual_seed\(0\)", f"torch.manual_seed({seed})", source)
    source, runs = re.subn(r"(train_language_model\(model, text)", rf"\1, seed={seed}", source)
    assert starts == runs == 1
    return source


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_every_range_of_the_leak_holds_from_another_start(seed):
    matplotlib.use("agg")
    names: dict[str, object] = {}
    with plt.rc_context():
        for cell in nbformat.read(CHAPTER, as_version=4).cells:
            if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
                source = seeded(cell.source, seed) if cell.id == "leak-train" else cell.source
                source = re.sub(
                    r"^    %pip .*$", "    raise", source, flags=re.MULTILINE
                )  # the package is here
                exec(compile(source, cell.id, "exec"), names)  # the asserts are the chapter's own
                plt.close("all")
