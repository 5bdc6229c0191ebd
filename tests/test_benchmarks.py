"""benchmarks/attention.py compares what computes the same, and prints a table that a reader can check."""

import re

import pytest
import torch

from benchmarks import attention


def test_the_formula_and_the_kernel_compute_the_same():
    runs = attention.contestants(5, torch.device("cpu"))
    ours, theirs = (runs[name]() for name in ("attention, the formula", "F.scaled_dot_product_attention"))
    torch.testing.assert_close(ours, theirs)
    assert all(run().requires_grad for run in runs.values())


def test_the_table_holds_medians_and_their_ratios():
    text = attention.table(torch.device("cpu"), [4, 8], repeats=3)
    rows = re.findall(r"^\| (\d+) \|.*?\| ([\d.]+) \|.*?\| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == ["4", "4", "8", "8"]
    for _, ours, theirs, ratio in rows:
        assert float(ratio) == pytest.approx(float(ours) / float(theirs), rel=0.2)
    assert f"torch {torch.__version__}" in text and "median of 3" in text
