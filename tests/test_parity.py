"""The parity table holds what tests measure: no row without its test, none too large, none alike."""

import re
from pathlib import Path

from tests.conftest import read

TESTS = Path(__file__).resolve().parent


def test_every_module_of_the_parts_stands_in_the_table():
    modules = {row["ours"].split(".")[0] for row in read()}
    assert {"attention", "positional", "feed_forward", "norms"} <= modules


def test_each_row_is_small_and_says_why_it_is_not_smaller():
    for row in read():
        assert 0 <= row["measured"] <= row["within"], row
        assert row["within"] <= 1e-10 or (row["within"] <= 1e-6 and row["why"]), row


def test_no_row_is_left_of_a_test_that_is_gone():
    texts = "".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    for row in read():
        names = [*re.findall(r"\w+", row["ours"]), re.findall(r"\w+", row["peer"].split(": ")[1])[-1]]
        assert all(name in texts for name in names), row
