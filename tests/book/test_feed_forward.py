"""What the chapter on feed-forward networks prints as a range holds for starts that it does not show."""

import re
from pathlib import Path

import matplotlib
import nbformat
import pytest
from matplotlib import pyplot as plt

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "feed_forward.ipynb"
SEEDED = {  # cell -> what starts there, and how often
    "curve-code": (r"torch\.manual_seed\(0\)", "torch.manual_seed({seed})", 1),
    "memory-train": (
        r"torch\.manual_seed\(0\)|warmup=30",
        "torch.manual_seed({seed})|warmup=30, seed={seed}",
        2,
    ),
    "collapse-code": (r"    torch\.manual_seed\(0\)", "    torch.manual_seed({seed})", 1),
}


def seeded(name: str, source: str, seed: int) -> str:
    """The source of a cell that trains, from another start and with other batches."""
    if name not in SEEDED:
        return source
    pattern, replacements, times = SEEDED[name]
    for one, other in zip(pattern.split("|"), replacements.split("|"), strict=True):
        source, n = re.subn(one, other.format(seed=seed), source)
        times -= n
    assert times == 0, name
    return source


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_range_holds_from_another_start(seed):
    matplotlib.use("agg")
    names: dict[str, object] = {}
    with plt.rc_context():
        for cell in nbformat.read(CHAPTER, as_version=4).cells:
            if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
                source = seeded(cell.id, cell.source, seed)
                source = re.sub(r"^    %pip .*$", "    raise", source, flags=re.MULTILINE)  # it is here
                exec(compile(source, cell.id, "exec"), names)  # the asserts are the chapter's own
                plt.close("all")
