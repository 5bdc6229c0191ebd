"""tools/first_cells.py, in a copy of the repository: one setting, one command, no chapter forgotten."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import first_cells

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    """All that the tool and the test of first cells read."""
    for name in ("_config.yml", "_toc.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tools", "book/_ext", "tests/test_chapters.py", *(f"book/{n}" for n in chapters())):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    return tmp_path


def chapters():
    return [path.name for path in (ROOT / "book").glob("*.ipynb")]


def run(folder, *command):
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )


def gate(folder):
    """What the project's own test says of the first cells."""
    return run(
        folder, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_chapters.py", "-k", "first_code_cell"
    )


def test_a_new_address_and_a_new_release_reach_every_chapter_and_a_forgotten_one_is_found(copy):
    config, project = copy / "_config.yml", copy / "pyproject.toml"
    assert gate(copy).returncode == 0
    config.write_text(re.sub(r"(  url: )\S+", r"\1https://github.com/someone/a-book", config.read_text()))
    project.write_text(re.sub(r'(?m)^version = ".+"', 'version = "9.8.7"', project.read_text()))
    assert f"{len(chapters())} failed" in gate(copy).stdout

    told = run(copy, "tools/first_cells.py")
    assert told.returncode == 0 and told.stdout.count(": follows") == len(chapters())
    assert gate(copy).returncode == 0
    line = '%pip install --quiet "transformer-lab[chapters] @ git+https://github.com/someone/a-book@v9.8.7"'
    for name in chapters():
        new, old = ((json.loads((base / "book" / name).read_text())) for base in (copy, ROOT))
        differ = [
            i
            for i, cells in enumerate(zip(new["cells"], old["cells"], strict=True))
            if len(set(map(str, cells))) > 1
        ]
        assert len(differ) == 1 and line in "".join(new["cells"][differ[0]]["source"])
        assert new["cells"][differ[0]]["outputs"] == old["cells"][differ[0]]["outputs"]
    assert run(copy, "tools/first_cells.py").stdout == ""  # nothing is left to do


def test_a_chapter_that_begins_otherwise_is_named_and_left(copy):
    path = copy / "book" / "masks.ipynb"
    path.write_text(
        before := path.read_text().replace("import transformer_lab as lab", "import transformer_lab")
    )
    told = run(copy, "tools/first_cells.py")
    assert told.returncode == 1 and path.read_text() == before
    assert told.stderr == (
        "book/masks.ipynb: left as it was, because its first code cell does not begin by importing"
        " transformer_lab as lab\n"
    )


def test_a_new_chapter_opens_like_the_others():
    assert first_cells.OPENING.fullmatch(first_cells.opening())
