"""For every test and every kernel of nbval: the surroundings in which the outputs were stored."""

import os
import tempfile
from collections import Counter
from importlib.util import find_spec

import pytest

# One thread: sums come out alike on any machine, and the workers do not crowd each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A notebook's progress bar is a widget that every run draws otherwise.
os.environ.setdefault("TQDM_DISABLE", "1")
# Tests neither see nor touch what the person at this machine has solved.
_nowhere = tempfile.TemporaryDirectory()
os.environ["TRANSFORMER_LAB_PROGRESS"] = os.path.join(_nowhere.name, "progress.json")

import torch  # noqa: E402  only now: it reads the number of threads when it comes in

# Without a GPU, Triton's kernels run by its interpreter: to be said before anything imports it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Kernels need Triton, which there is for Linux: elsewhere nobody looks for examples in their docstrings.
collect_ignore_glob = [] if find_spec("triton") else ["*/efficient/*_kernels.py", "*/efficient/_triton.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-parity", action="store_true", help="write what `parity` measures into book/parity.json"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for what was skipped and why, however many tests it was."""
    skipped = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in skipped.items():
        terminalreporter.write_line(f"{count} tests skipped: {reason.removeprefix('Skipped: ')}")
