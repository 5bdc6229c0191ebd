"""The table of three starts: a short run of it says what it should."""

import re

from benchmarks import number_words


def test_a_row_has_the_shares_after_each_quarter_and_the_seconds():
    right, seconds = number_words.row(0, steps=8)
    assert len(right) == 4 and all(0 <= share <= 1 for share in right) and seconds > 0


def test_the_table_has_a_row_for_each_start(monkeypatch):
    asked = []

    def row(seed, steps):
        asked.append((seed, steps))
        return [0.25, 0.5, 0.75, 0.996], 61.4

    monkeypatch.setattr(number_words, "row", row)
    table = number_words.table(400)
    assert asked == [(0, 400), (1, 400), (2, 400)]
    assert "| start | after 100 | after 200 | after 300 | after 400 | seconds of training |" in table
    assert re.findall(r"^\| (\d) \| 0.250 \| 0.500 \| 0.750 \| 0.996 \| 61 \|$", table, re.M) == [
        "0",
        "1",
        "2",
    ]
