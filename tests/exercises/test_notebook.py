"""A chapter's notebook holds its exercises as the package writes them: text, stub, check, in order."""

import importlib
import json
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book"
PACKAGE = "transformer_lab.exercises"
CHAPTERS = ["attention"]


def exercises(stem):
    return list(importlib.import_module(f"{PACKAGE}.{stem}").chapter.exercises.values())


@pytest.mark.parametrize("stem", CHAPTERS)
def test_the_notebook_holds_the_exercises_of_its_chapter(stem):
    cells = json.loads((BOOK / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    tagged = [i for i, cell in enumerate(cells) if "exercise" in cell["metadata"].get("tags", [])]
    stored = [("".join(cells[i - 1]["source"]), "".join(cells[i]["source"])) for i in tagged]
    wanted = [(e.markdown(number), e.cell()) for number, e in enumerate(exercises(stem), 1)]
    assert stored == wanted


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_cell_ends_with_its_check(stem):
    for exercise in exercises(stem):
        assert exercise.cell().splitlines()[-1].startswith(f"ex.{exercise.name}.check(")
        assert exercise.markdown(3).startswith(f"### Exercise 3 · {exercise.title}\n\n")
        assert exercise.markdown(3).count("<details>") == len(exercise.hints)
