"""README's example does what it says."""

import doctest
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_its_example_runs():
    ran = doctest.testfile(str(README), module_relative=False)
    assert ran.attempted >= 5 and ran.failed == 0
