"""tools/flakes.py counts over the runs which cells fail."""

import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.tools.test_make import make
from tools import flakes


def test_it_runs_the_chapters_as_make_does():
    recipe = make("--dry-run", "test").stdout.replace("\\\n", "").split()
    assert f"{flakes.NBVAL} book/" in " ".join(recipe)


def test_a_failing_cell_is_named(tmp_path, monkeypatch):
    cells = [new_code_cell(f"print({n})", execution_count=n) for n in (1, 2)]
    for cell in cells:
        cell.outputs = [new_output("stream", name="stdout", text="1\n")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "chapter.ipynb")
    monkeypatch.setattr(flakes, "NBVAL", flakes.NBVAL.replace("auto", "0"))  # one chapter needs no more
    assert flakes.run([tmp_path / "chapter.ipynb"]) == (2, ["chapter, Cell 1"])


def test_a_run_that_never_began_ends_it(monkeypatch):
    done = subprocess.CompletedProcess([], 4, "", "file or directory not found")
    monkeypatch.setattr(flakes.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(SystemExit, match="nbval did not run: file or directory not found"):
        flakes.run([])


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        (([], [], []), ""),
        (
            (["masks, Cell 3"], [], ["masks, Cell 3", "norms, Cell 1"]),
            "masks, Cell 3: failed in 2 of 3 runs\nnorms, Cell 1: failed in 1 of 3 runs\n",
        ),
    ],
)
def test_it_says_how_often_each_failed(failed, says, monkeypatch, capsys):
    runs = iter(failed)
    monkeypatch.setattr(flakes, "run", lambda chapters: (9, next(runs)))
    monkeypatch.setattr("sys.argv", ["flakes.py", "--runs", "3"])
    assert flakes.main() == bool(says)
    first, rest = capsys.readouterr().out.split("run 2: ")
    assert first == f"run 1: {len(failed[0])} of 9 cells failed, 0.0 minutes\n"
    assert rest.split("minutes\n")[-1] == says
