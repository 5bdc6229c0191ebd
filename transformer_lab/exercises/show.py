"""What an exercise says, in a terminal and in a notebook: short, the same on every run, no scripts."""

import html
import re
import textwrap
from dataclasses import dataclass, field

import numpy as np

WIDTH = 88
COLOURS = {"passed": "#009E73", "not yet": "#D55E00", "not attempted": "#999999"}


@dataclass(frozen=True)
class Code:
    """Lines to be shown as they are."""

    source: str

    def text(self) -> str:
        return textwrap.indent(self.source, "    ")

    def html(self) -> str:
        return f'<pre style="margin:.4em 0">{html.escape(self.source)}</pre>'


@dataclass(frozen=True)
class Picture:
    """A small matrix as it should be beside the one that came; a star marks what differs."""

    expected: np.ndarray
    given: np.ndarray
    wrong: np.ndarray

    def text(self) -> str:
        left = [" ".join(_number(x) + " " for x in row) for row in self.expected]
        right = [
            " ".join(_number(x) + ("*" if bad else " ") for x, bad in zip(row, marks, strict=True))
            for row, marks in zip(self.given, self.wrong, strict=True)
        ]
        width = max(len(left[0]), len("expected")) + 4
        rows = [
            "expected".ljust(width) + "given (* differs)",
            *(a.ljust(width) + b for a, b in zip(left, right, strict=True)),
        ]
        return "\n".join("    " + row.rstrip() for row in rows)

    def html(self) -> str:
        tables = (
            _table("expected", self.expected, np.zeros_like(self.wrong)),
            _table("given (* differs)", self.given, self.wrong),
        )
        return f'<div style="display:flex;flex-wrap:wrap;gap:2em">{"".join(tables)}</div>'


@dataclass(frozen=True, repr=False)
class Shown:
    """A heading and what follows it: sentences (with `code` in backticks), code, pictures."""

    heading: str
    blocks: tuple[str | Code | Picture, ...] = ()

    @property
    def colour(self) -> str:
        return "#0072B2"

    def __repr__(self) -> str:
        return "\n".join([self.heading, *(_text(block) for block in self.blocks)])

    def _repr_html_(self) -> str:
        body = "".join(_html(block) for block in self.blocks)
        return (
            f'<div style="border-left:4px solid {self.colour};padding:.2em .8em;margin:.4em 0">'
            f"<strong>{html.escape(self.heading)}</strong>{body}</div>"
        )


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """The outcome of a check; true if and only if the answer passed."""

    status: str = field(kw_only=True)

    @property
    def colour(self) -> str:
        return COLOURS[self.status]

    @property
    def message(self) -> str:
        """All sentences on one line, as tests like them."""
        return " ".join(block for block in self.blocks if isinstance(block, str))

    def __bool__(self) -> bool:
        return self.status == "passed"


def _text(block: str | Code | Picture) -> str:
    if not isinstance(block, str):
        return block.text()
    return textwrap.fill(block, WIDTH, break_long_words=False, break_on_hyphens=False)


def _html(block: str | Code | Picture) -> str:
    if not isinstance(block, str):
        return block.html()
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(block))
    return f'<p style="margin:.3em 0">{marked}</p>'


def _number(x: float) -> str:
    """Seven characters wide at least, three decimals while the number is small enough for them."""
    return f"{x:7.3f}" if abs(x) < 1000 or not np.isfinite(x) else f"{x:7.1e}"


def _table(caption: str, values: np.ndarray, wrong: np.ndarray) -> str:
    def cell(x: float, bad: bool) -> str:
        inside = html.escape(_number(x).strip())
        return f'<td style="text-align:right">{f"<strong>{inside}*</strong>" if bad else inside}</td>'

    rows = (
        "<tr>" + "".join(cell(x, bad) for x, bad in zip(row.tolist(), marks.tolist(), strict=True)) + "</tr>"
        for row, marks in zip(values, wrong, strict=True)
    )
    head = f'<caption style="caption-side:top;text-align:left">{caption}</caption>'
    return f'<table style="margin:.3em 0">{head}{"".join(rows)}</table>'
