"""tools/release.py, on a copy of what it changes: every place at once, or nothing."""

import doctest
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tools import new_chapter, release

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("CITATION.cff", "pyproject.toml", "_config.yml", "_toc.yml", "book/addresses.txt", "CHANGELOG.md")
NEWS = "- One thing.\n- Another.\n"
CHANGELOG = f"# What is new, for readers\n\n## Unreleased\n\n{NEWS}\n## 0.0.1, 2026-01-01\n\n- The old.\n"
FOLLOWS = "from pathlib import Path; Path('first_cells').write_text(Path('pyproject.toml').read_text())"
DATE = "2027-01-31"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    for name in PLACES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    set_repository(tmp_path, "https://example.org/a-placeholder")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "first_cells.py").write_text(FOLLOWS)  # only shows when it was called
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    return tmp_path


def set_repository(folder, url):
    config = folder / "_config.yml"
    config.write_text(re.sub(r"(?<=\nrepository:\n  url: )\S+", url, config.read_text()))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cited(folder):
    return yaml.safe_load((folder / "CITATION.cff").read_text())


def test_every_place_names_the_version_and_the_first_cells_follow_it(copy):
    release.release("3.1.0", DATE)
    assert tomllib.loads((copy / "pyproject.toml").read_text())["project"]["version"] == "3.1.0"
    assert (cited(copy)["version"], str(cited(copy)["date-released"])) == ("3.1.0", DATE)
    section = f"## Unreleased\n\n## 3.1.0, {DATE}\n\n{NEWS}\n## 0.0.1"
    assert section in (copy / "CHANGELOG.md").read_text()
    assert 'version = "3.1.0"' in (copy / "first_cells").read_text()
    assert release.notes("v3.1.0") == NEWS.strip()


def test_nothing_else_changes(copy):
    before = {name: (copy / name).read_text() for name in PLACES}
    release.release("3.1.0", DATE)
    after = {name: (copy / name).read_text() for name in PLACES}
    assert (
        re.sub(r'"3\.1\.0"', f'"{release.current(before["pyproject.toml"])}"', after["pyproject.toml"])
        == (before["pyproject.toml"])
    )
    assert after["CHANGELOG.md"].replace(f"## 3.1.0, {DATE}\n\n", "") == before["CHANGELOG.md"]
    assert [after[name] == before[name] for name in ("_config.yml", "_toc.yml")] == [True, True]


def test_the_addresses_of_a_release_are_kept_for_good(copy):
    (copy / "book" / "addresses.txt").write_text("book/gone\nbook/attention\n")
    toc = "root: book/intro\nchapters:\n  - file: book/attention\n  - file: book/new\n"
    (copy / "_toc.yml").write_text(toc)
    release.release("3.1.0", DATE)
    kept = (copy / "book" / "addresses.txt").read_text()
    assert kept == "book/gone\nbook/attention\nbook/intro\nbook/new\n"


def test_the_citation_names_the_repository_once_it_is_public(copy):
    release.release("3.0.0", DATE)
    assert not {"repository-code", "url"} & cited(copy).keys()
    (copy / "CHANGELOG.md").write_text(CHANGELOG)
    set_repository(copy, "https://github.com/a/b")
    for version in ("3.1.0", "3.2.0"):
        release.release(version, DATE)
        changelog = (copy / "CHANGELOG.md").read_text()
        (copy / "CHANGELOG.md").write_text(new_chapter.with_news(changelog, "Next"))
    assert cited(copy)["repository-code"] == "https://github.com/a/b"
    assert cited(copy)["url"] == "https://a.github.io/b/" and cited(copy)["version"] == "3.2.0"
    assert (copy / "CITATION.cff").read_text().count("url: ") == 1


def test_the_next_news_stand_above_the_release(copy):
    release.release("3.1.0", DATE)
    changelog = new_chapter.with_news((copy / "CHANGELOG.md").read_text(), "Next")
    assert f"## Unreleased\n\n- New chapter: Next.\n\n## 3.1.0, {DATE}\n\n- " in changelog
    (copy / "CHANGELOG.md").write_text(changelog)
    release.release("3.1.1", DATE)
    assert release.notes("v3.1.1") == "- New chapter: Next."


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("3.1", "a version is three numbers such as 0.2.0, got '3.1'"),
        ("v3.1.0", "a version is three numbers such as 0.2.0, got 'v3.1.0'"),
        ("0.0.1", "0.0.1 comes before 0.1.0, the version in pyproject.toml"),
    ],
)
def test_a_version_that_cannot_be_changes_nothing(copy, version, says):
    (copy / "pyproject.toml").write_text('version = "0.1.0"\n')
    before = contents(copy)
    with pytest.raises(release.Refused, match=re.escape(says)):
        release.release(version, DATE)
    assert contents(copy) == before


def test_a_second_release_of_a_version_and_one_without_news_are_refused(copy):
    release.release("3.1.0", DATE)
    before = contents(copy)
    with pytest.raises(release.Refused, match=r"3\.1\.0 does not come after 3\.1\.0, the last release"):
        release.release("3.1.0", DATE)
    with pytest.raises(release.Refused, match=r"CHANGELOG\.md has no line under Unreleased"):
        release.release("3.2.0", DATE)
    assert contents(copy) == before


@pytest.mark.parametrize(
    ("place", "change", "says"),
    [
        ("pyproject.toml", ("3.1.0", "3.0.0"), "v3.1.0 is the tag and 3.0.0 the version in pyproject.toml"),
        ("CITATION.cff", ("3.1.0", "3.0.0"), "v3.1.0 is the tag and 3.0.0 the version in CITATION.cff"),
        ("CHANGELOG.md", (f", {DATE}", ""), "CHANGELOG.md has no section 3.1.0 with a date"),
        ("CHANGELOG.md", ("3.1.0", "3x1.0"), "CHANGELOG.md has no section 3.1.0 with a date"),
    ],
)
def test_a_tag_that_a_place_does_not_agree_with_is_no_release(copy, place, change, says):
    release.release("3.1.0", DATE)
    text = (copy / place).read_text()
    (copy / place).write_text(text.replace(*change))
    with pytest.raises(release.Refused, match=re.escape(says)):
        release.notes("v3.1.0")
    (copy / place).write_text(text)
    assert release.notes("v3.1.0")


def test_the_command(copy, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["release.py", "3.1.0"])
    assert release.main() == 0
    assert capsys.readouterr().out.endswith("push them with a tag v3.1.0.\n")
    monkeypatch.setattr(sys, "argv", ["release.py", "--notes", "v3.1.0"])
    assert release.main() == 0 and capsys.readouterr().out.startswith("- ")
    monkeypatch.setattr(sys, "argv", ["release.py", "--notes", "v9.0.0"])
    assert release.main().startswith("No release: v9.0.0 is the tag and 3.1.0 the version in")
    assert doctest.testmod(release).failed == 0


# The citation as it stands


def test_the_citation_says_what_the_other_places_say():
    citation, config = cited(ROOT), yaml.safe_load((ROOT / "_config.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["type"] == "software"
    assert (citation["title"], citation["version"]) == (config["title"], project["version"])
    assert citation["authors"] == [{"name": config["author"]}] and config["copyright"] == config["author"]
    assert " AND ".join(citation["license"]) == project["license"]
    assert citation.get("repository-code", config["repository"]["url"]) == config["repository"]["url"]
    for name in ("LICENSE", "LICENSE-text"):
        assert f"Copyright (c) 2026 {config['author']}\n" in (ROOT / name).read_text()
