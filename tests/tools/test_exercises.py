"""tools/exercises.py: the package's exercises stand in the notebook, and their solutions pass there."""

import subprocess
import sys
from pathlib import Path
from symtable import symtable

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tools import execute, exercises

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", CHAPTERS, ids=[path.stem for path in CHAPTERS])


def run(*arguments):
    command = [sys.executable, exercises.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def exercise_cells(nb):
    tagged = [i for i, cell in enumerate(nb.cells) if exercises.TAG in cell.metadata.get("tags", [])]
    return [(cell.id, cell.source) for i in tagged for cell in nb.cells[i - 1 : i + 1]]


@EACH
def test_the_notebook_holds_the_exercises_of_its_chapter(path):
    wanted = [(cell.id, cell.source) for cell in exercises.cells(path.stem)]
    assert exercise_cells(execute.read(path)) == wanted


@EACH
def test_solved_every_exercise_passes_and_needs_no_more_of_the_chapter_than_its_imports(path):
    """What a learner sees who comes back to solve everything."""
    solved = run("--solve", path)
    assert solved.returncode == 0, solved.stdout + solved.stderr
    assert [line.split(":")[0] for line in solved.stdout.splitlines()] == [
        e.name for e in exercises.of(path.stem)
    ]
    assert all(": Passed: " in line for line in solved.stdout.splitlines())


def names_from_outside(table):
    """What code reads that is not its functions' own, at any depth."""
    yield from (name.get_name() for name in table.get_symbols() if name.is_global() and name.is_referenced())
    for inner in table.get_children():
        yield from names_from_outside(inner)


@EACH
def test_no_cell_gives_another_meaning_to_an_imported_name_that_exercises_use(path):
    """So what passes after the imports alone passes at the end of the whole chapter, too."""
    python = TransformerManager().transform_cell
    cells = [
        c
        for c in execute.read(path).cells
        if c.cell_type == "code" and exercises.TAG not in c.metadata.get("tags", [])
    ]
    names = [name for c in cells for name in symtable(python(c.source), c.id, "exec").get_symbols()]
    imported = {name.get_name() for name in names if name.is_imported()}
    rebound = {name.get_name() for name in names if name.is_assigned() and not name.is_imported()}
    solved = "\n".join(map(exercises.solved_cell, exercises.of(path.stem)))
    used = set(names_from_outside(symtable(solved, path.stem, "exec")))
    assert imported & used and not imported & used & rebound
    assert not any("torch.set_default" in c.source for c in cells)


@pytest.mark.slow
@EACH
def test_solved_from_top_to_bottom_every_exercise_passes(path):
    """The whole chapter runs with all solutions in it, and no check complains."""
    said = exercises.solve(execute.read(path), path.stem, path.parent)
    assert list(said) == [e.name for e in exercises.of(path.stem)]
    assert all(line.startswith("Passed: ") for line in said.values())


@pytest.fixture
def small(tmp_path):
    """A notebook that holds one exercise as it was yesterday, between two other cells."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("## Exercises"),
        new.new_code_cell(
            "import torch\nfrom torch import nn\nfrom transformer_lab.exercises import attention as ex"
        ),
        new.new_markdown_cell("### Exercise 1 · Old"),
        new.new_code_cell("...", metadata={"tags": [exercises.TAG]}),
        new.new_markdown_cell("## What you can now say"),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    path = tmp_path / "attention.ipynb"
    nbformat.write(new.new_notebook(cells=cells), path)
    return path


def test_what_stood_there_is_replaced_and_all_else_stays(small):
    assert f"holds {len(exercises.of('attention'))} exercises; execute it now" in run(small).stdout
    nb = execute.read(small)
    assert [cell.id for cell in nb.cells[:2]] + [nb.cells[-1].id] == ["cell-0", "cell-1", "cell-4"]
    assert nb.cells[2:-1] == exercises.cells("attention")
    before = small.read_bytes()
    assert run(small).returncode == 0 and small.read_bytes() == before


def test_a_notebook_without_a_place_for_them_stays_as_it_was(small):
    nb = execute.read(small)
    nb.cells[3].metadata = {}
    execute.write(nb, small)
    before = small.read_bytes()
    refused = run(small)
    assert refused.returncode == 1 and "no cell has the tag 'exercise'" in refused.stderr
    assert small.read_bytes() == before


def test_a_solution_that_does_not_pass_fails_the_run(small):
    run(small)
    nb = execute.read(small)
    nb.cells[1].source += "\nfrom spoiled import ex"
    execute.write(nb, small)
    (small.parent / "spoiled.py").write_text(
        "from transformer_lab.exercises import attention as ex\nex.score_shape.expected = (1, 2)\n"
    )
    solved = run("--solve", small)
    assert solved.returncode == 1 and "score_shape: Not yet: " in solved.stdout
    assert solved.stdout.count(": Passed: ") == len(exercises.of("attention")) - 1
