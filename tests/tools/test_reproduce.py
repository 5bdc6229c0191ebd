"""tools/reproduce.py reports what came out otherwise, cell by cell, and dates what came out the same."""

import base64
import io
import json
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from tools import execute, reproduce


def chapter(*outputs, models=()):
    """One cell that shows these; the state of its widgets."""
    cell = new_code_cell("show()\nagain()", id="one", outputs=list(outputs), execution_count=1)
    nb = new_notebook(cells=[cell])
    state = {f"{n:032x}": {"model_name": "Model", "state": state} for n, state in enumerate(models, 1)}
    nb.metadata["widgets"] = nbformat.from_dict({execute.WIDGET_STATE: {"state": state}})
    return nb


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def shown(content, kind="text/plain"):
    return new_output("display_data", {kind: content})


def picture(*colours, height=1):
    """One pixel of each grey, from left to right."""
    image = Image.new("L", (len(colours), height))
    image.putdata(colours * height)
    file = io.BytesIO()
    image.save(file, "PNG")
    return shown(base64.b64encode(file.getvalue()).decode(), "image/png")


VIEW = shown({"model_id": f"{1:032x}"}, execute.WIDGET_VIEW)
WHERE = "cell 1 ('show()'), id one: "


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [printed("loss 0.25\n"), shown("'x'"), shown("<b>x</b>", "text/html")],
        [new_output("error", ename="E", evalue="no")],
        [picture(0, 9, 255)],
    ],
)
def test_the_same_is_no_change(outputs):
    assert list(reproduce.changes(chapter(*outputs), chapter(*outputs))) == []


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ([printed("a\n0.25\n")], [printed("a\n0.26\n")], "stdout\n      -0.25\n      +0.26"),
        ([shown("'x'")], [shown("'y'")], "text/plain\n      -'x'\n      +'y'"),
        (
            [shown("<b>1</b>", "text/html")],
            [shown("<b>2</b>", "text/html")],
            "text/html\n      -<b>1</b>\n      +<b>2</b>",
        ),
        ([], [printed("new\n")], "nothing has become stdout\n      +new"),
        ([printed("old\n")], [], "stdout has become nothing\n      -old"),
        ([printed("same\n")], [printed("same\n", "stderr")], "stdout has become stderr"),
        (
            [printed("7\n")],
            [new_output("error", ename="E", evalue="no")],
            "stdout has become error\n      -7\n      +E: no",
        ),
        ([picture(0, 9)], [picture(0, 90)], "image/png: 1 of 2 pixels differ, by up to 81 of 255"),
        ([picture(0, 9)], [picture(0, 9, height=2)], "image/png of 2 x 1 pixels has become one of 2 x 2"),
    ],
)
def test_a_change_is_told_with_its_cell(before, now, says):
    assert list(reproduce.changes(chapter(*before), chapter(*now))) == [WHERE + says]


def test_what_differs_on_every_run_is_no_change():
    before, now = printed("Measured here: 3 s\n"), printed("Measured here: 4 s\n")
    assert list(reproduce.changes(chapter(before), chapter(now))) == []
    faint = picture(100, 100 + reproduce.VISIBLE), picture(100 + reproduce.VISIBLE, 100)
    assert list(reproduce.changes(*map(chapter, faint))) == []
    drawn = chapter(picture(0)), chapter(picture(255))
    for nb in drawn:
        nb.cells[0].metadata.tags = ["picture-varies"]
    assert list(reproduce.changes(*drawn)) == []
    drawn[1].cells[0].outputs.append(printed("more\n"))
    assert len(list(reproduce.changes(*drawn))) == 1


def test_all_of_a_widget_counts():
    """Its own model and those inside of it."""
    box, inner = {"children": [f"IPY_MODEL_{2:032x}"]}, {"value": 3}
    stored = chapter(VIEW, models=[box, inner])
    assert list(reproduce.changes(stored, chapter(VIEW, models=[box, inner]))) == []
    (change,) = reproduce.changes(stored, chapter(VIEW, models=[box, {"value": 4}]))
    assert change == WHERE + 'widget\n      -   "value": 3\n      +   "value": 4'


def test_of_a_long_difference_the_beginning_is_shown():
    now = printed("\n".join(f"{n}{'x' * 200}" for n in range(9)))
    (change,) = reproduce.changes(chapter(), chapter(now))
    _, *lines, last = change.splitlines()
    assert len(lines) == reproduce.LINES and last == "      ... 3 lines more"
    assert {len(line) for line in lines} == {6 + reproduce.WIDTH}


THREADS = "import os\nint(os.environ['OMP_NUM_THREADS'])"


@pytest.fixture
def book(tmp_path):
    """Three chapters: one comes out as it was stored, one otherwise on two threads, one stops at an error."""
    for stem, source in {"same": "2 - 1", "threads": THREADS, "wrong": "1 / 0"}.items():
        cell = new_code_cell(source, id="only", execution_count=1)
        cell.outputs = [new_output("execute_result", {"text/plain": "1"}, execution_count=1)]
        nbformat.write(new_notebook(cells=[cell]), tmp_path / f"{stem}.ipynb")
    return tmp_path


def test_what_came_out_the_same_is_dated_and_nothing_else_is_touched(book):
    paths = sorted(book.iterdir())
    before = [path.read_bytes() for path in paths]
    options = ["--threads", "2", "--stamp", "--date", "2026-01-31", *paths]
    done = subprocess.run([sys.executable, reproduce.__file__, *options], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    said = re.sub(r"\d+\.\d minutes", "0.5 minutes", done.stdout)
    assert said.startswith(
        "same: 0 changes, 0.5 minutes\n"
        "threads: 1 changes, 0.5 minutes\n"
        "  cell 1 ('import os'), id only: text/plain\n      -1\n      +2\n"
        "wrong: 1 changes, 0.5 minutes\n"
        "  cell 1 ('1 / 0') raises ZeroDivisionError: division by zero\n"
        "2 of 3 chapters differ; "
    )
    assert re.search(
        r"; \S.*, threads: 2, python 3\.\d+\.\d+, torch \S+, matplotlib \S+, anywidget \S+$", said
    )

    same, *others = [path.read_bytes() for path in paths]
    assert others == before[1:]
    dated = json.loads(same)
    assert dated["metadata"].pop("transformer_lab") == execute.reproduced("2026-01-31")
    assert dated == json.loads(before[0])


def test_unasked_it_dates_nothing(book, monkeypatch, capsys):
    same = book / "same.ipynb"
    before = same.read_bytes()
    monkeypatch.setattr(reproduce, "reproduce", lambda path, threads: [])
    monkeypatch.setattr("sys.argv", ["reproduce.py", str(same)])
    assert reproduce.main() == 0 and same.read_bytes() == before
    assert "\n0 of 1 chapters differ; " in capsys.readouterr().out
