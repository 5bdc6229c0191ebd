"""tools/new_chapter.py, in a copy of the repository: a new chapter passes everything, or nothing changes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import new_chapter

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("book", "tests", "tools", "transformer_lab")
NBVAL = ("--nbval", "--nbval-current-env", "--nbval-sanitize-with=tests/book/nbval.cfg")
pytestmark = pytest.mark.xdist_group("new_chapter")  # one copy, one chapter: one worker
STEM, TITLE = "feed_forward_trial", "A chapter on trial"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    for name in NEEDED:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


def run(copy, *command):
    """Run a module of this Python in the copy; the copy's package hides the installed one."""
    environment = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, timeout=300
    )


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(copy):
    before = contents(copy)
    said = run(copy, "tools/new_chapter.py", STEM, TITLE)
    assert said.returncode == 0, said
    after = contents(copy)
    assert before.keys() <= after.keys()
    return copy, {str(path) for path in after if after[path] != before.get(path)}


def test_makes_the_chapter_and_all_that_belongs_to_it(made):
    assert made[1] == {
        f"book/{STEM}.ipynb",
        f"transformer_lab/{STEM}.py",
        f"transformer_lab/exercises/{STEM}.py",
        f"tests/test_{STEM}.py",
        f"tests/exercises/test_{STEM}.py",
        "_toc.yml",
        "pyproject.toml",
        "CHANGELOG.md",
    }


@pytest.mark.parametrize(
    "command",
    [
        (
            *("pytest", "-k", STEM, "tests/test_chapters.py", "tests/book/test_notebooks.py"),
            *(f"tests/test_{STEM}.py", f"tests/exercises/test_{STEM}.py", f"transformer_lab/{STEM}.py"),
        ),
        (
            *("pytest", "--jaxtyping-packages=transformer_lab,beartype.beartype"),
            *("-m", "not bad_input", f"tests/test_{STEM}.py"),
        ),
        ("pytest", *NBVAL, f"book/{STEM}.ipynb"),
        ("ruff", "check", f"book/{STEM}.ipynb", f"transformer_lab/{STEM}.py", f"tests/test_{STEM}.py"),
        ("ruff", "format", "--check", f"book/{STEM}.ipynb", f"transformer_lab/{STEM}.py"),
        ("ruff", "format", "--check", f"tests/test_{STEM}.py", f"tests/exercises/test_{STEM}.py"),
        ("ruff", "format", "--check", f"transformer_lab/exercises/{STEM}.py"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_new_chapter_passes(made, command):
    passed = run(made[0], "-m", *command)
    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_the_new_chapter_keeps_the_import_layers(made):
    passed = run(made[0], "-c", "from importlinter.cli import lint_imports_command as run; run()")
    assert passed.returncode == 0 and "1 kept, 0 broken" in passed.stdout, passed.stdout + passed.stderr


@pytest.mark.parametrize(
    ("stem", "title", "says"),
    [
        ("Feed", "T", "a stem names Python modules (lower-case letters, digits, _), got 'Feed'"),
        ("2nd", "T", "a stem names Python modules"),
        ("../up", "T", "a stem names Python modules"),
        ("class", "T", "a stem names Python modules"),
        ("fine", " ", "a title has 1 to 60 characters"),
        ("fine", 'a "quoted" one', "a title has 1 to 60 characters, no quotation marks"),
        ("attention", "Again", "transformer_lab/attention.py exists already"),
    ],
)
def test_what_cannot_be_made_changes_nothing(copy, monkeypatch, stem, title, says):
    monkeypatch.setattr(new_chapter, "ROOT", copy)
    before = contents(copy)
    with pytest.raises(new_chapter.Refused, match=re.escape(says)):
        new_chapter.make(stem, title)
    assert contents(copy) == before


@pytest.mark.parametrize("file", ["_toc.yml", "pyproject.toml", "CHANGELOG.md"])
def test_a_file_without_a_place_for_it_is_named(copy, monkeypatch, file):
    monkeypatch.setattr(new_chapter, "ROOT", copy)
    text = (copy / file).read_text()
    (copy / file).write_text("")
    before = contents(copy)
    with pytest.raises(new_chapter.Refused, match=f"{file} has no place for a new chapter"):
        new_chapter.make("fine", "Fine")
    assert contents(copy) == before
    (copy / file).write_text(text)


def test_a_chapter_that_does_not_run_leaves_nothing_behind(copy):
    template = copy / "tools" / "template" / "chapter.txt"
    text = template.read_text()
    template.write_text(text + "\n%%% code fault\n1 / 0\n")
    before = contents(copy)
    refused = run(copy, "tools/new_chapter.py", "fine", "Fine")
    template.write_text(text)
    assert refused.returncode == 1
    assert refused.stderr.startswith("No chapter made: cell ") and "ZeroDivisionError" in refused.stderr
    assert contents(copy) == before | {template.relative_to(copy): text.encode()}
