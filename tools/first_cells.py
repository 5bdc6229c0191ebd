"""Make the first cell of every chapter follow the repository's address and the release.

    python tools/first_cells.py

Where the package is missing, as in Colab, that cell installs one release of it: the version that
pyproject.toml names, from the repository that _config.yml names. After a change of either, run this; the
tests find a chapter that was forgotten. Outputs stay as they are.
"""

import re
import sys
from pathlib import Path

if __package__:
    from . import execute
else:  # run as a file, as above
    import execute

ROOT = Path(__file__).resolve().parent.parent
OPENING = re.compile(r"try:\n    (import transformer_lab as lab\n).*?\n    \1", re.DOTALL)


def opening() -> str:
    """The lines that import the package and install it before, if need be: what is there is not replaced."""
    url = re.search(r"^repository:\n(?:  .*\n)*?  url: (\S+)", _text("_config.yml"), re.MULTILINE)[1]
    version = re.search(r'^version = "(.+)"', _text("pyproject.toml"), re.MULTILINE)[1]
    return (
        "try:\n"
        "    import transformer_lab as lab\n"
        "except ModuleNotFoundError:  # in Colab\n"
        f'    %pip install --quiet "transformer-lab[chapters] @ git+{url}@v{version}"\n'
        "    import transformer_lab as lab\n"
    )


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def follow(path: Path) -> bool:
    """Bring a chapter's first cell up to date; whether anything had to change."""
    nb = execute.read(path)
    first = next(cell for cell in nb.cells if cell.cell_type == "code")
    if not (old := OPENING.match(first.source)):
        raise execute.Refused("its first code cell does not begin by importing transformer_lab as lab")
    before, first.source = first.source, opening() + first.source[old.end() :]
    if first.source == before:
        return False
    execute.write(nb, path)
    return True


def main() -> int:
    refused = 0
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        try:
            if follow(path):
                print(f"book/{path.name}: follows")
        except execute.Refused as reason:
            refused += 1
            print(f"book/{path.name}: left as it was, because {reason}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
