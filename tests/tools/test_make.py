"""The Makefile: thin, the same as README's plain commands, and clear where it cannot go on."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from book._ext import toc
from tests.strict import require

ROOT = Path(__file__).resolve().parents[2]
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
# without those: under `make test`, a make of ours would take itself for a part of that run, and say so


def make(*arguments, folder=ROOT):
    require(shutil.which("make") is not None, "there is no make on this machine")
    return subprocess.run(["make", *arguments], cwd=folder, env=ENV, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path):
    """The Makefile over an environment that is ready and a book that builds in no time."""
    for name in ("Makefile", "tools/serve.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tools" / "environment.py").write_text("")
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").write_text("the book")
    tool = tmp_path / ".venv" / "bin" / "jupyter-book"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho built\n")
    tool.chmod(0o755)
    (tool.parent / "python").symlink_to(sys.executable)
    return tmp_path


def test_book_builds_serves_and_ends_quietly(project):
    require(shutil.which("make") is not None, "there is no make on this machine")
    running = subprocess.Popen(
        ["make", "book"],
        cwd=project,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        lines = [running.stdout.readline() for _ in range(3)]
    finally:
        os.killpg(running.pid, signal.SIGINT)  # what Ctrl-C does
        rest, _ = running.communicate(timeout=30)
    assert lines[1] == "built\n" and "The book is at http://localhost:" in lines[2]
    assert rest == "\n"


def test_html_does_not_serve(project):
    assert make("html", folder=project).stdout.endswith("built\n")


def test_a_missing_python_is_named():
    stopped = make("html", "PYTHON=python-that-is-not-here")
    assert stopped.returncode
    assert stopped.stderr.startswith("There is no python-that-is-not-here here: install Python 3.11 to 3.13,")


def test_the_port_reaches_the_server(project):
    stopped = make("book", "PORT=70000", folder=project)
    assert stopped.returncode and stopped.stderr.startswith("A port is a number from 1 to 65535, got 70000.")


def test_a_failing_step_stops_the_tests(project):
    """ruff comes first: when it fails, nothing after it runs."""
    ruff = project / ".venv" / "bin" / "ruff"
    ruff.write_text("#!/bin/sh\nexit 1\n")
    ruff.chmod(0o755)
    stopped = make("test", folder=project)
    assert stopped.returncode and stopped.stdout == ".venv/bin/ruff check .\n"


@pytest.mark.parametrize("target", ["html", "pdf", "epub", "lab", "test"])
def test_the_readme_gives_the_same_in_plain_commands(target):
    recipe, readme = make("--dry-run", target).stdout, (ROOT / "README.md").read_text()
    commands = [line.removeprefix(".venv/bin/") for line in _lines(recipe) if line.startswith(".venv/bin/")]
    assert commands and set(commands) <= set(_lines(readme))


def _lines(text):
    """One line a command: a backslash at the end goes on in the next."""
    return [" ".join(line.split()) for line in text.replace("\\\n", "").splitlines()]


def test_what_the_readme_s_tree_names_is_there():
    tree = (ROOT / "README.md").read_text().split("## What is where\n\n")[1].split("\n\n")[0]
    folders = {4: ROOT}  # by how far their contents are indented
    for line in tree.splitlines():
        indent, names = re.fullmatch(r"( +)(?:(\S+(?: \S+)*)  )?.*", line).groups()
        for name in (names or "").split():
            found = folders[len(indent)] / name
            assert found.exists() or list(found.parent.glob(f"*{name}")), line
            folders[len(indent) + 2] = found


def test_a_chapter_that_nobody_wrote_is_named(tmp_path):
    class App:
        srcdir = tmp_path

    (tmp_path / "intro.md").write_text("# Intro")
    (tmp_path / "_toc.yml").write_text("root: intro\nchapters:\n- file: lost\n")
    with pytest.raises(SystemExit, match=r"_toc\.yml names lost, but there is no lost\.ipynb or \.md"):
        toc.check(App, None)
    (tmp_path / "lost.ipynb").write_text("{}")
    toc.check(App, None)
