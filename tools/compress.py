"""Lay a compressed twin beside every text of the built book, for hosts that send such files as they are.

    python tools/compress.py    # after every make html; nginx sends the twins after `gzip_static on`

GitHub Pages and most other hosts of static pages compress by themselves: for them this is of no use.
"""

import gzip
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent / "_build" / "html"
TEXTS = {".css", ".html", ".ipynb", ".js", ".json", ".svg", ".txt", ".webmanifest", ".xml"}


def compress(folder: Path) -> tuple[int, int]:
    """Twins for the texts in ``folder``, the same bytes in every run; returns the bytes before and after."""
    for twin in folder.rglob("*.gz"):
        twin.unlink()  # it may be that of an older text
    before = after = 0
    for path in sorted(folder.rglob("*.*")):
        text = path.read_bytes() if path.suffix in TEXTS else b""
        packed = gzip.compress(text, mtime=0)
        if len(packed) < len(text):
            path.with_name(f"{path.name}.gz").write_bytes(packed)
            before, after = before + len(text), after + len(packed)
    return before, after


def main() -> int | str:
    if not (BOOK / "index.html").exists():
        return "There is no book in _build/html yet: build it first, with make html."
    before, after = compress(BOOK)
    print(f"{before / 1e6:.1f} MB of text, {after / 1e6:.1f} MB compressed beside it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
