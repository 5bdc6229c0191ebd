"""Edit a chapter as plain text, without its outputs, and make it a notebook again.

    python tools/as_text.py book/attention.ipynb > draft.txt
    python tools/as_text.py draft.txt book/attention.ipynb
    python tools/execute.py book/attention.ipynb

A line `%%% markdown NAME` or `%%% code NAME` opens a cell; NAME is its id (leave it out in a new cell). The
cell's metadata may follow as JSON: `%%% code plot {"mystnb": {"image": {"alt": "A line that rises."}}}`.
"""

import json
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

if __package__:
    from .execute import Refused, read, write
else:  # run as a file, as above
    from execute import Refused, read, write

OPENING = re.compile(r"%%% (markdown|code)(?: ([\w-]{1,64}))?(?: (\{.*\}))?", re.ASCII)


def to_text(nb: NotebookNode) -> str:
    cells = []
    for cell in nb.cells:
        metadata = f" {json.dumps(cell.metadata, ensure_ascii=False)}" if cell.metadata else ""
        cells.append(f"%%% {cell.cell_type} {cell.id}{metadata}\n{cell.source.rstrip()}\n")
    return "\n".join(cells)


def to_notebook(text: str) -> NotebookNode:
    """The notebook, not yet executed; a cell without a name has no id until ``execute.read``."""
    cells: list[dict] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("%%%"):
            cells.append(_open(line, number))
        elif cells:
            cells[-1]["source"] += line + "\n"
        elif line.strip():
            raise Refused(f"line {number} stands before the first cell: open one with '%%% markdown'")
    for cell in cells:
        cell["source"] = cell["source"].strip("\n")
    return nbformat.from_dict({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def _open(line: str, number: int) -> dict:
    if not (found := OPENING.fullmatch(line.rstrip())):
        raise Refused(
            f"line {number} opens no cell: write '%%% markdown NAME' or '%%% code NAME', got {line!r}"
        )
    kind, name, metadata = found.groups()
    try:
        cell = {"cell_type": kind, "metadata": json.loads(metadata or "{}"), "source": ""}
    except ValueError as error:
        raise Refused(f"line {number} holds metadata that are not JSON: {error}") from None
    if kind == "code":
        cell |= {"outputs": [], "execution_count": None}
    return cell | ({"id": name} if name else {})


def save(text: str, path: Path) -> None:
    """Write the notebook to ``path``, every cell with an id."""
    path.write_text(json.dumps(to_notebook(text)), encoding="utf-8")
    write(read(path), path)


def main(arguments: list[str]) -> int | str:
    try:
        match [Path(argument) for argument in arguments]:
            case [chapter] if chapter.suffix == ".ipynb":
                print(to_text(read(chapter)), end="")
            case [draft, chapter] if chapter.suffix == ".ipynb":
                save(draft.read_text(encoding="utf-8"), chapter)
            case _:
                return __doc__
    except (Refused, OSError) as reason:
        return f"{' '.join(arguments)}: {reason}"
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
