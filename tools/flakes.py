"""Run the chapters under nbval many times in a row, and report each cell that fails, and how often.

    python tools/flakes.py [book/attention.ipynb ...] [--runs 10]

All chapters, unless some are named. A cell that fails in some of the runs prints what chance or the machine
decides; one that fails in all of them has changed. OMP_NUM_THREADS=2 before the command gives two threads.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
NBVAL = "--nbval --nbval-current-env --nbval-sanitize-with=tests/book/nbval.cfg -n auto --dist loadscope"


def run(chapters: list[Path]) -> tuple[int, list[str]]:
    """How many cells ran, and which of them failed, by chapter and by nbval's number."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *NBVAL.split(), f"--junitxml={report}", *chapters]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode > 1:  # 1 is a cell that failed
            sys.exit(f"nbval did not run: {done.stdout}{done.stderr}")
        cells = list(ElementTree.parse(report).iter("testcase"))
    failed = [c for c in cells if c.find("failure") is not None or c.find("error") is not None]
    return len(cells), [f"{cell.get('classname').split('.')[-2]}, {cell.get('name')}" for cell in failed]


def main() -> int:
    parser = argparse.ArgumentParser(description="Report the cells that fail in some runs of nbval.")
    parser.add_argument("chapters", nargs="*", type=Path, metavar="book/STEM.ipynb", help="all, if none")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="in a row (10)")
    options = parser.parse_args()
    chapters = [path.resolve() for path in options.chapters] or [ROOT / "book"]
    times: Counter[str] = Counter()
    for n in range(1, options.runs + 1):
        start = time.perf_counter()
        cells, failed = run(chapters)
        minutes = (time.perf_counter() - start) / 60
        print(f"run {n}: {len(failed)} of {cells} cells failed, {minutes:.1f} minutes", flush=True)
        times.update(failed)
    for cell, count in sorted(times.items()):
        print(f"{cell}: failed in {count} of {options.runs} runs")
    return 1 if times else 0


if __name__ == "__main__":
    sys.exit(main())
