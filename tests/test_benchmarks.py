"""benchmarks/attention.py compares what computes the same, and says what it measured."""

import re
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch.nn.attention import SDPBackend

from benchmarks import attention, measure
from tests.strict import require

CPU = torch.device("cpu")
MAKES = {name: contest.make for name, contest in attention.CONTESTS.items()}


@pytest.fixture
def small(monkeypatch):
    """Every contest in short texts, with a window that is shorter still; FlexAttention without a compiler."""
    monkeypatch.setattr(attention, "WINDOW", 4)
    for name, contest in attention.CONTESTS.items():
        monkeypatch.setitem(attention.CONTESTS, name, replace(contest, sizes=(12, 24)))
    torch.compiler.set_stance("force_eager")
    yield attention.CONTESTS
    torch.compiler.set_stance("default")


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize("name", MAKES)
def test_who_should_compute_the_same_does(name, small):
    attention.check(small[name], CPU)
    runs = small[name].make(12, CPU)
    named = [other for names in small[name].equal for other in names if "kernels" not in other]
    assert set(named) <= set(runs), "a name without a contestant is never checked"


def test_who_computes_something_else_is_told(small):
    contest = replace(
        small["scans"], make=lambda n, where: {"a": lambda: torch.ones(2), "b": lambda: torch.zeros(2)}
    )
    with pytest.raises(AssertionError, match="a and b: "):
        attention.check(replace(contest, equal=(("a", "b"),)), CPU)


@pytest.mark.parametrize("name", ["windows", "scans", "writing"])
def test_a_table_holds_each_contestant_with_its_exponents(name, small):
    text, found = attention.report(name, CPU, repeats=1)
    ways = ["reading"] if name == "writing" else ["reading", "learning"]
    assert list(found) == ways and re.findall(r"^(\w+):$", text, re.MULTILINE) == ways
    for row in found["reading"].values():
        assert len(row["ms"]) == len(row["bytes"]) == 2 and min(row["ms"] + row["bytes"]) > 0
    assert set(found["reading"]) == set(small[name].make(12, CPU))
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {7}


def rows(**ms):
    """As if measured: linear memory, the given milliseconds."""
    return {name: {"ms": list(taken), "bytes": [1.0, 2.0]} for name, taken in ms.items()}


def test_the_verdicts_are_what_was_measured(small):
    found = {
        "windows": {
            "reading": rows(
                **{"sliding_window_attention": (1, 2), "F.scaled_dot_product_attention, all keys": (4, 16)}
            )
        },
        "exact": {
            "learning": rows(**{"flash_attention, tiles in Python": (1, 1)})
            | {"attention, the formula": {"ms": [1, 1], "bytes": [1.0, 4.0]}}
        },
        "scans": {"reading": rows(**{"scan, a loop": (5, 12), "parallel_scan": (1, 2)})},
        "writing": {"reading": rows(**{"without a cache": (1, 4), "with a cache": (1, 2)})},
    }
    assert attention.verdicts(found).splitlines() == [
        "- Reading with a window: exponent 1.00; at 24 tokens 8.0 times as fast as PyTorch's with all keys.",
        "- Memory of learning: exponent 1.00 by tiles, 2.00 by the formula.",
        "- parallel_scan at 24 tokens: 6.0 times as fast as the loop.",
        "- Writing n tokens: exponents 2.00 without a cache, 1.00 with a cache.",
    ]


def test_the_figure_has_a_panel_for_each_contest(small):
    found = {"scans": {"reading": rows(**{"scan, a loop": (5, 12), "parallel_scan": (1, 2)})}}
    drawing = attention.figure(found)
    assert [ax.get_title(loc="left") for ax in drawing.axes] == ["A scan of 64 channels"]
    assert [text.get_text() for text in drawing.axes[0].get_legend().get_texts()] == [
        "scan, a loop",
        "parallel_scan",
    ]
    attention.plt.close(drawing)


@pytest.mark.compiled
def test_kernels_are_measured_both_ways():
    require(find_spec("triton") is not None, "no kernel was measured: there is no Triton on this machine")
    text = attention.kernels(
        CPU, sizes=(16,), widths=(16,), heads=1, tiles=((16, 16),), peer=SDPBackend.MATH, repeats=1
    )
    assert re.search(r"^\| 16 \| 16 \| 16 x 16 \| \d\.\d\d \| \d\.\d\d \|$", text, re.MULTILINE)


def test_the_most_memory_is_counted_and_not_what_is_left():
    def run():
        a = torch.ones(1000)
        b = a + 1
        del a, b
        torch.ones(500)

    assert 8000 <= measure.peak_bytes(run, CPU) < 8100  # and a few for the number 1


def test_the_circumstances_name_what_was_measured_with():
    text = measure.circumstances(CPU, "transformers")
    assert f"torch {torch.__version__}" in text and "transformers 5" in text and "threads" in text
