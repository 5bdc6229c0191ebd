"""One stem for everything that belongs to a chapter; what is missing on purpose stands in one map."""

import json
import re
from pathlib import Path

import pytest

from book._ext import toc

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
COMPANIONS = (
    "transformer_lab/{}.py",
    "transformer_lab/exercises/{}.py",
    "tests/test_{}.py",
    "tests/exercises/test_{}.py",
)
WITHOUT: dict[str, set[str]] = {}  # chapter -> the companions that it does without


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_has_its_companions(stem):
    """A companion may also be a package of the same name, or lie in the folder of its family."""
    missing = {c for c in COMPANIONS if not _exists(c.format(stem))}
    assert missing == WITHOUT.get(stem, set())


def _exists(path: str) -> bool:
    place = ROOT / path
    family, package = place.parent / "efficient" / place.name, place.with_suffix("") / "__init__.py"
    return place.exists() or family.exists() or package.exists()


@pytest.mark.parametrize("stem", CHAPTERS)
def test_the_first_code_cell_installs_this_release_from_the_one_public_repository(stem):
    url = re.search(
        r"^repository:\n(?:  .*\n)*?  url: (\S+)", (ROOT / "_config.yml").read_text(), re.MULTILINE
    )[1]
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    cells = json.loads((ROOT / "book" / f"{stem}.ipynb").read_text())["cells"]
    first = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
    assert first.startswith(
        "try:\n"
        "    import transformer_lab as lab\n"
        "except ModuleNotFoundError:  # in Colab\n"
        f'    %pip install --quiet "transformer-lab[chapters] @ git+{url}@v{version}"\n'
        "    import transformer_lab as lab\n"
    )
    assert first.endswith('print("Measured here:", lab.hardware())')


def test_the_exceptions_are_chapters():
    assert WITHOUT.keys() <= set(CHAPTERS)


def test_a_chapter_is_in_the_table_of_contents_once():
    entries = re.findall(r"file: book/(\w+)", (ROOT / "_toc.yml").read_text())
    assert len(entries) == len(set(entries))
    assert set(CHAPTERS) == {entry for entry in entries if (ROOT / "book" / f"{entry}.ipynb").exists()}


def test_the_table_of_contents_names_files_that_exist():
    assert toc.missing((ROOT / "_toc.yml").read_text(), ROOT) == []


def test_exercises_belong_to_a_chapter():
    stems = {path.stem for path in (ROOT / "transformer_lab" / "exercises").glob("*.py")}
    assert stems - {"__init__"} <= set(CHAPTERS)


def test_a_widget_belongs_to_a_chapter_and_comes_in_two_files():
    folder = ROOT / "transformer_lab" / "widgets"
    for stem in (path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")):
        assert (folder / f"{stem}.js").exists(), stem
        assert any(stem.startswith(f"{chapter}_") for chapter in CHAPTERS), stem
