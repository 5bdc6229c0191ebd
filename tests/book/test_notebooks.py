"""What every notebook must be, and proof that nbval, as we run it, notices a wrong output."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest

from tools import execute

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "book").glob("*.ipynb"))
CHAPTERS = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
NBVAL = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={ROOT}/tests/book/nbval.cfg"]


def test_the_book_has_chapters():
    assert PATHS


@CHAPTERS
def test_holds_no_fault(path):
    assert execute.faults(nbformat.read(path, as_version=4)) == []


@CHAPTERS
def test_was_run_from_top_to_bottom(path):
    """A cell without an execution count would pass nbval unseen; so would a chapter without outputs."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(cell.outputs for cell in code)


@CHAPTERS
def test_is_stored_in_the_one_form_of_our_tool(path, monkeypatch):
    """Read and tidied again, not a byte changes: ids, metadata and layout are the tool's."""
    monkeypatch.setattr(execute, "shrink", bytes)  # another machine's zlib may shrink a picture further
    nb = execute.read(path)
    stored = nb.metadata.transformer_lab
    execute.tidy(nb, stored.reproduced)
    nb.metadata.transformer_lab.versions = stored.versions  # another machine may have others
    assert nbformat.writes(nb, version=4) + "\n" == path.read_text(encoding="utf-8")


@CHAPTERS
def test_metadata_are_minimal(path):
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata.keys() - {"widgets"} == {"kernelspec", "language_info", "transformer_lab"}
    assert metadata["kernelspec"]["name"] == "python3"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", metadata["transformer_lab"]["reproduced"])
    assert metadata["transformer_lab"]["versions"].keys() == {"python", *execute.VERSIONS_OF}


# The gate itself: book/conftest.py alters outputs in memory; here files are altered, and nbval runs on them.


def nbval(folder: Path, **copies: list) -> subprocess.CompletedProcess:
    """Run nbval, as the README does, on notebooks that hold these cells."""
    (folder / "conftest.py").write_text((ROOT / "book" / "conftest.py").read_text())
    for name, cells in copies.items():
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    setting = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={folder}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *setting, *NBVAL, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def cell(source: str, printed: str, count: int = 1, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    made = nbformat.v4.new_code_cell(source, execution_count=count, metadata={"tags": list(tags)})
    if printed:
        made.outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)]
    return made


@CHAPTERS
def test_one_number_changed_by_hand_is_noticed(path, tmp_path):
    """A copy of the chapter up to its first printed number passes; with it changed, that cell fails."""
    cells = nbformat.read(path, as_version=4).cells
    end = next(n for n, c in enumerate(cells) if re.search(r"\d", "".join(_printed(c)))) + 1
    changed = deepcopy(cells[:end])
    output = next(out for out in changed[-1].outputs if re.search(r"\d", out.get("text", "")))
    output.text = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), output.text, count=1)

    result = nbval(tmp_path, as_it_is=cells[:end], changed=changed)
    failed = re.findall(r"^FAILED .*?(\w+)\.ipynb::Cell (\d+)", result.stdout, re.MULTILINE)
    last = sum(c.cell_type == "code" for c in changed) - 1
    assert failed == [("changed", str(last))] and "Cell outputs differ" in result.stdout, result.stdout


def _printed(c: nbformat.NotebookNode) -> list[str]:
    return [out.text for out in c.get("outputs", []) if out.output_type == "stream"]


def test_a_chapter_that_prints_what_it_computes_passes(tmp_path):
    cells = [cell("print(6 * 7)", "42\n"), cell("print('Measured here: 3 s, about')\nprint(5)", "", 2)]
    cells[1].outputs = cell("", "Measured here: 8 s, about\n5\n").outputs
    passed = nbval(tmp_path, copy=cells)
    assert passed.returncode == 0 and "3 passed" in passed.stdout, passed.stdout


def test_the_first_cell_may_tell_the_hardware_and_nothing_else(tmp_path):
    told = cell("print('Measured here:', 'lab.hardware()')", "Measured here: another machine\n")
    assert nbval(tmp_path, copy=[told, cell("print(7)", "7\n", 2)]).returncode == 0
    failed = nbval(tmp_path, copy=[cell("print(7)", "7\n"), told])
    assert f"1 of 2 cells with output are compared, nine of ten must be: Cell 1 {BARE}" in failed.stdout


BARE = "prints no number and no words"
NOT_COMPARED = [
    (cell("print(True)", "True\n"), BARE),
    (cell("print('ok')", "ok\n"), BARE),
    (cell("print('<Figure 1>')", "<Figure 1>\n"), BARE),
    (cell("print('Measured here: 7 s')", "Measured here: 8 s\n"), BARE),
    (cell("print('1\\r2')", "1\r2\n"), "hides 1 of 2 alterations"),
    (cell("print(7)", "7\n", tags=("nbval-ignore-output",)), "is marked as not to be compared"),
    (cell("print(7)", "7\n", tags=("nbval-skip",)), "did not run, or failed"),
    (cell("print(7)", "8\n"), "did not run, or failed"),
]


def test_an_output_that_cannot_be_compared_does_not_count(tmp_path):
    failed = nbval(tmp_path, copy=[cell("print(6 * 7)", "42\n"), *(c for c, _ in NOT_COMPARED)])
    assert failed.returncode == 1
    assert "1 of 9 cells with output are compared, nine of ten must be: Cell 1 " in failed.stdout
    for n, (_, reason) in enumerate(NOT_COMPARED, start=1):
        assert f"Cell {n} {reason}" in failed.stdout


def test_nine_of_ten_are_enough(tmp_path):
    cells = [cell(f"print({n})", f"{n}\n", n) for n in range(1, 10)]
    assert nbval(tmp_path, copy=[*cells, cell("print(True)", "True\n", 10)]).returncode == 0
