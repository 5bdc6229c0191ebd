"""Make a chapter that works, with everything that belongs to it.

    python tools/new_chapter.py feed_forward "Feed-forward networks"

Notebook, module, exercises and both tests come from tools/template/; the chapter is entered in _toc.yml, in
the import layers of pyproject.toml and in CHANGELOG.md, and executed. Then put your own part in place of the
example.
"""

import argparse
import datetime
import keyword
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat

if __package__:
    from . import as_text, execute, exercises, first_cells
else:  # run as a file, as above
    import as_text
    import execute
    import exercises
    import first_cells

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).resolve().parent / "template"
FILES = {  # one stem for all; the notebook is added when the exercises can be imported
    "transformer_lab/{}.py": "module.txt",
    "transformer_lab/exercises/{}.py": "exercises.txt",
    "tests/test_{}.py": "test_module.txt",
    "tests/exercises/test_{}.py": "test_exercises.txt",
}
NOTEBOOK = "book/{}.ipynb"


class Refused(Exception):
    """The chapter cannot be made; nothing was changed."""


def check_names(stem: str, title: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem) or keyword.iskeyword(stem):
        raise Refused(f"a stem names Python modules (lower-case letters, digits, _), got {stem!r}")
    if not title.strip() or re.search(r'["\\\n]', title) or len(title) > 60:
        raise Refused(f"a title has 1 to 60 characters, no quotation marks and no backslash, got {title!r}")


def fill(template: str, stem: str, title: str) -> str:
    return (
        (TEMPLATE / template)
        .read_text(encoding="utf-8")
        .replace("__STEM__", stem)
        .replace("__TITLE__", title)
    )


# What changes in files that exist.


def with_entry(toc: str, stem: str) -> str:
    """The chapter after the last one that is a notebook; the closing one, on claims, stays behind all."""
    entries = re.findall(r"^ *- file: book/(?!claims\n)\w+\n", toc, re.MULTILINE)
    last = next((e for e in reversed(entries) if (ROOT / f"{e.split()[-1]}.ipynb").exists()), None)
    if last is None:
        return toc
    return toc.replace(last, last + re.sub(r"book/\w+", f"book/{stem}", last))


def with_layer(pyproject: str, stem: str) -> str:
    """The module beside the other parts, in import-linter's layers."""
    return re.sub(r'^( +"attention\b[^"]*)"', rf'\1 : {stem}"', pyproject, flags=re.MULTILINE)


def with_news(changelog: str, title: str) -> str:
    """The chapter before all other news; right after a release there are none, and a section follows."""
    entry = f"- New chapter: {title}.\n"
    after = changelog.replace("## Unreleased\n\n", f"## Unreleased\n\n{entry}", 1)
    return after.replace(f"{entry}##", f"{entry}\n##")


def edited(name: str, change: Callable[[str, str], str], word: str) -> str:
    before = (ROOT / name).read_text(encoding="utf-8")
    after = change(before, word)
    if after == before:
        raise Refused(f"{name} has no place for a new chapter where this tool looks for one")
    return after


# The notebook.


def make_notebook(stem: str, title: str) -> str:
    text = fill("chapter.txt", stem, title).replace("__OPENING__\n", first_cells.opening())
    made = as_text.to_text(nbformat.v4.new_notebook(cells=exercises.cells(stem)))
    path = ROOT / NOTEBOOK.format(stem)
    as_text.save(text.replace("__EXERCISES__\n", made), path)
    for command in ("check", "--select=I", "--fix"), ("format",):  # the order of imports hangs on the stem
        subprocess.run([sys.executable, "-m", "ruff", *command, "-q", "--no-cache", str(path)], check=True)
    return execute.execute(path, datetime.date.today().isoformat())


# All or nothing.


def make(stem: str, title: str) -> str:
    """Make the chapter; give back what its execution took."""
    check_names(stem, title)
    new = {ROOT / path.format(stem): fill(template, stem, title) for path, template in FILES.items()}
    if there := [path for path in [*new, ROOT / NOTEBOOK.format(stem)] if path.exists()]:
        raise Refused(f"{there[0].relative_to(ROOT)} exists already")
    new[ROOT / "_toc.yml"] = edited("_toc.yml", with_entry, stem)
    new[ROOT / "pyproject.toml"] = edited("pyproject.toml", with_layer, stem)
    new[ROOT / "CHANGELOG.md"] = edited("CHANGELOG.md", with_news, title)
    old = {path: path.read_bytes() for path in new if path.exists()}
    try:
        for path, text in new.items():
            path.write_text(text, encoding="utf-8", newline="\n")
        return make_notebook(stem, title)
    except BaseException:
        for path in [*new, ROOT / NOTEBOOK.format(stem)]:
            path.write_bytes(old[path]) if path in old else path.unlink(missing_ok=True)
        raise


def main() -> int | str:
    parser = argparse.ArgumentParser(description="Make a chapter with its companion files.")
    parser.add_argument("stem", help="names the notebook, the module, the exercises and the tests")
    parser.add_argument("title", help="the chapter's heading")
    options = parser.parse_args()
    try:
        took = make(options.stem, options.title)
    except (Refused, execute.Refused) as reason:
        return f"No chapter made: {reason}."
    print(f"{NOTEBOOK.format(options.stem)} is made and executed ({took}). Everything passes: make test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
