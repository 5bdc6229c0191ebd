"""tools/as_text.py: text becomes a notebook and text again; a slip in it is named by its line."""

import subprocess
import sys

import nbformat
import pytest

from tools import as_text, execute

TEXT = """\
%%% markdown title
# A chapter

with %% signs and $x$

%%% code plot {"mystnb": {"image": {"alt": "Größe"}}, "tags": ["exercise"]}
%matplotlib inline

plot()
"""


def run(*arguments):
    command = [sys.executable, as_text.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_text_to_notebook_and_back(tmp_path):
    draft, chapter = tmp_path / "draft.txt", tmp_path / "chapter.ipynb"
    draft.write_text(TEXT, encoding="utf-8")
    assert run(draft, chapter).returncode == 0
    nb = nbformat.read(chapter, as_version=4)
    assert [(c.cell_type, c.id) for c in nb.cells] == [("markdown", "title"), ("code", "plot")]
    assert nb.cells[0].source == "# A chapter\n\nwith %% signs and $x$"
    assert nb.cells[1].metadata == {"mystnb": {"image": {"alt": "Größe"}}, "tags": ["exercise"]}
    assert run(chapter).stdout == TEXT


def test_a_cell_without_a_name_gets_an_id_from_its_text(tmp_path):
    as_text.save("%%% code\nx = 1\n\n%%% code\nx = 1\n", tmp_path / "chapter.ipynb")
    first, second = (cell.id for cell in execute.read(tmp_path / "chapter.ipynb").cells)
    assert first.startswith("code-") and second == f"{first}-2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\nhello\n%%% code", "line 2 stands before the first cell: open one with '%%% markdown'"),
        (
            "%%% python",
            "line 1 opens no cell: write '%%% markdown NAME' or '%%% code NAME', got '%%% python'",
        ),
        ("%%% code a\n%%% code two words", "line 2 opens no cell"),
        ("%%% code a {tags}", "line 1 holds metadata that are not JSON"),
    ],
)
def test_a_slip_is_named_by_its_line(tmp_path, text, says):
    draft, chapter = tmp_path / "draft.txt", tmp_path / "chapter.ipynb"
    draft.write_text(text)
    refused = run(draft, chapter)
    assert refused.returncode == 1 and says in refused.stderr
    assert not chapter.exists()


def test_without_arguments_it_says_how_to_call_it():
    assert "python tools/as_text.py draft.txt book/attention.ipynb" in run().stderr


def test_a_missing_file_is_named():
    assert "nowhere.ipynb: there is no such file" in run("nowhere.ipynb").stderr
