"""Put a chapter's exercises into its notebook, or solve them there.

    python tools/exercises.py book/attention.ipynb
    python tools/exercises.py --solve book/attention.ipynb

The first writes text, hints and stubs into the chapter, as transformer_lab/exercises/STEM.py words them;
tools/execute.py comes next. The second leaves the chapter alone: every solution runs in its cell, after the
chapter's imports, and what each check says is printed. All must pass.
"""

import argparse
import ast
import importlib
import sys
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from transformer_lab.exercises.check import Exercise, source
from transformer_lab.exercises.check.written import Implement

if __package__:
    from . import execute
else:  # run as a file, as above
    import execute

TAG = "exercise"


def of(stem: str) -> list[Exercise]:
    """The exercises of a chapter, in order."""
    importlib.invalidate_caches()
    return list(importlib.import_module(f"transformer_lab.exercises.{stem}").chapter.exercises.values())


def cells(stem: str) -> list[NotebookNode]:
    """Two cells for each exercise: what it asks, and the stub with its check."""
    made = []
    for number, exercise in enumerate(of(stem), start=1):
        name = exercise.name.replace("_", "-")
        made += [
            nbformat.v4.new_markdown_cell(exercise.markdown(number), id=f"exercise-{name}"),
            nbformat.v4.new_code_cell(exercise.cell(), id=f"answer-{name}", metadata={"tags": [TAG]}),
        ]
    return made


def put(nb: NotebookNode, stem: str) -> None:
    """The exercises of the package in place of those that the notebook holds."""
    held = [i for i, cell in enumerate(nb.cells) if TAG in cell.metadata.get("tags", [])]
    if not held:
        raise execute.Refused(
            f"no cell has the tag {TAG!r}: give it to one code cell, where they should stand"
        )
    nb.cells[held[0] - 1 : held[-1] + 1] = cells(stem)


def solved_cell(exercise: Exercise) -> str:
    """The exercise's code cell as somebody leaves it who wrote our solution."""
    answer = exercise.name if isinstance(exercise, Implement) else f"{exercise.name}()"
    return f"{source(exercise.solve)}\n\n\nex.{exercise.name}.check({answer})"


def without_experiments(nb: NotebookNode) -> None:
    """Of the chapter its imports and its exercises: all that a learner runs who comes back for these."""
    python = TransformerManager().transform_cell  # without the magic of the first cell
    code = [ast.parse(python(cell.source)) for cell in nb.cells if cell.cell_type == "code"]
    lines = [line for cell in code for line in cell.body if isinstance(line, ast.Import | ast.ImportFrom)]
    imports = nbformat.v4.new_code_cell("\n".join(map(ast.unparse, lines)))
    nb.cells = [imports, *(cell for cell in nb.cells if TAG in cell.metadata.get("tags", []))]


def solve(nb: NotebookNode, stem: str, folder: Path) -> dict[str, str]:
    """What the check of each exercise says, after a run of the whole notebook with all solutions in it."""
    answers = [cell for cell in nb.cells if TAG in cell.metadata.get("tags", [])]
    for cell, exercise in zip(answers, of(stem), strict=True):
        cell.source = solved_cell(exercise)
    execute.run(nb, folder)
    if faults := execute.faults(nb):
        raise execute.Refused("; ".join(faults))
    said = (cell.outputs[-1].data["text/plain"] for cell in answers)
    return dict(zip((exercise.name for exercise in of(stem)), said, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description="Put a chapter's exercises into its notebook.")
    parser.add_argument("chapters", nargs="+", type=Path, metavar="book/STEM.ipynb")
    parser.add_argument("--solve", action="store_true", help="run the solutions instead")
    options = parser.parse_args()
    failed = 0
    for path in options.chapters:
        try:
            nb = execute.read(path)
            if not options.solve:
                put(nb, path.stem)
                execute.write(nb, path)
                print(f"{path}: holds {len(of(path.stem))} exercises; execute it now")
                continue
            without_experiments(nb)
            for name, said in solve(nb, path.stem, path.parent).items():
                print(f"{name}: {' '.join(said.split())}")
                failed += not said.startswith("Passed")
        except execute.Refused as reason:
            failed += 1
            print(f"{path}: left as it was, because {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
