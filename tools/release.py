"""A release: its version and its date go into every place at once.

    python tools/release.py 0.2.0           # then look at the changes, commit them, tag v0.2.0 and push
    python tools/release.py --notes v0.2.0  # what readers gain by it, if all places agree

The chapters' first cells follow by tools/first_cells.py; the tag starts .github/workflows/release.yml.
"""

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

import yaml

if __package__:
    from .address import is_placeholder, of_book
else:  # run as a file, as above
    from address import is_placeholder, of_book

ROOT = Path(__file__).resolve().parent.parent
UNRELEASED = "## Unreleased\n\n"
SECTION = r"(?ms)^## {version}, \d{{4}}-\d\d-\d\d\n\n(.+?)(?=^## |\Z)"
FIRST = "run tools/release.py before you tag"


class Refused(Exception):
    """There is no such release; nothing was changed."""


def read(name: str) -> str:
    return (ROOT / name).read_text("utf8")


def numbers(version: str) -> tuple[int, ...]:
    """
    >>> numbers("0.10.0") > numbers("0.9.1")
    True
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"a version is three numbers such as 0.2.0, got {version!r}")
    return tuple(map(int, version.split(".")))


def current(pyproject: str) -> str:
    return re.search(r'^version = "(.+)"$', pyproject, re.MULTILINE)[1]


# What changes in each place.


def with_version(pyproject: str, version: str) -> str:
    return pyproject.replace(f'version = "{current(pyproject)}"', f'version = "{version}"', 1)


def with_section(changelog: str, version: str, date: str) -> str:
    """What was unreleased becomes the section of this version."""
    released = re.findall(r"^## (\S+), ", changelog, re.MULTILINE)
    if released and numbers(version) <= numbers(released[0]):
        raise Refused(f"{version} does not come after {released[0]}, the last release in CHANGELOG.md")
    if f"{UNRELEASED}- " not in changelog:
        raise Refused("CHANGELOG.md has no line under Unreleased: say what readers gain")
    return changelog.replace(UNRELEASED, f"{UNRELEASED}## {version}, {date}\n\n", 1)


def with_release(citation: str, version: str, date: str, repository: str) -> str:
    """Version and date at the end; and the public addresses, once there are any."""
    kept = re.sub(r"^(version|date-released|repository-code|url): .*\n", "", citation, flags=re.MULTILINE)
    lines = [f"version: {version}", f"date-released: {date}"]
    if not is_placeholder(repository):
        lines += [f"repository-code: {repository}", f"url: {of_book(ROOT / '_config.yml')}"]
    return kept + "\n".join(lines) + "\n"


def with_pages(addresses: str, toc: str) -> str:
    """Every page that is published now, after those that ever were; none is taken out."""
    pages = re.findall(r"(?:file|root): (\S+)", toc)
    return "\n".join(dict.fromkeys([*addresses.split(), *pages])) + "\n"


# The two commands.


def release(version: str, date: str) -> None:
    before = current(read("pyproject.toml"))
    if numbers(version) < numbers(before):
        raise Refused(f"{version} comes before {before}, the version in pyproject.toml")
    repository = yaml.safe_load(read("_config.yml"))["repository"]["url"]
    changed = {
        "CHANGELOG.md": with_section(read("CHANGELOG.md"), version, date),
        "pyproject.toml": with_version(read("pyproject.toml"), version),
        "CITATION.cff": with_release(read("CITATION.cff"), version, date, repository),
        "book/addresses.txt": with_pages(read("book/addresses.txt"), read("_toc.yml")),
    }
    for name, text in changed.items():
        (ROOT / name).write_text(text, "utf8", newline="\n")
    subprocess.run([sys.executable, ROOT / "tools" / "first_cells.py"], check=True)


def notes(tag: str) -> str:
    """What CHANGELOG.md says of the release ``tag``."""
    version = tag.removeprefix("v")
    cited = str(yaml.safe_load(read("CITATION.cff"))["version"])
    for name, found in {"pyproject.toml": current(read("pyproject.toml")), "CITATION.cff": cited}.items():
        if version != found:
            raise Refused(f"{tag} is the tag and {found} the version in {name}: {FIRST}")
    section = re.search(SECTION.format(version=re.escape(version)), read("CHANGELOG.md"))
    if not section:
        raise Refused(f"CHANGELOG.md has no section {version} with a date: {FIRST}")
    return section[1].strip()


def main() -> int | str:
    parser = argparse.ArgumentParser(description="Put a version into every place, or say what it brings.")
    parser.add_argument("version", nargs="?", help="such as 0.2.0")
    parser.add_argument("--notes", metavar="TAG", help="such as v0.2.0")
    options = parser.parse_args()
    if (options.version is None) == (options.notes is None):
        parser.error("name a version, or a tag after --notes")
    try:
        if options.notes:
            print(notes(options.notes))
        else:
            release(options.version, datetime.date.today().isoformat())
            print(f"Look at the changes, commit them, and push them with a tag v{options.version}.")
    except Refused as reason:
        return f"No release: {reason}."
    return 0


if __name__ == "__main__":
    sys.exit(main())
