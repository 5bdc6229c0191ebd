"""Make requirements.lock again: each package that requirements.txt leads to, its version, its files' SHA-256.

    python tools/lock.py               # after an edit of requirements.txt
    python tools/lock.py --upgrade     # and all that requirements.txt does not pin in its newest version

One lock serves Python 3.11 to 3.13 on Linux, macOS and Windows. PyTorch is not in it, nor what its GPU build
alone brings: its files differ by platform, and pip wants a hash for each package or for none. So the lock is
installed first, and what it leaves out comes with requirements.txt.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_HASH = re.compile(r"torch|(?:nvidia|cuda)-[\w-]+")
HEADER = "# Made by tools/lock.py from requirements.txt: see there.\n"
RESOLVE = (
    *("uv", "pip", "compile", "requirements.txt", "--output-file=requirements.lock"),
    *("--universal", "--python-version=3.11", "--fork-strategy=fewest"),  # one version for each Python
    *("--generate-hashes", "--no-header", "--no-annotate", "--quiet", "--no-config"),
)


def entries(lock: str) -> dict[str, str]:
    """The lock's entries by the package's name: version, where it applies, hashes."""
    found = re.findall(r"^[a-z].*(?:\n[ ].*)*", lock, re.MULTILINE)
    return {entry.split("==")[0]: entry for entry in found}


def main() -> int:
    parser = argparse.ArgumentParser(description="Make requirements.lock again from requirements.txt.")
    parser.add_argument("--upgrade", action="store_true", help="what is not pinned, in its newest version")
    command = [*RESOLVE, "--upgrade"] if parser.parse_args().upgrade else RESOLVE
    if code := subprocess.call(command, cwd=ROOT):
        return code
    lock = ROOT / "requirements.lock"
    kept = [e for name, e in entries(lock.read_text()).items() if not WITHOUT_HASH.fullmatch(name)]
    lock.write_text(HEADER + "\n".join(kept) + "\n", encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
