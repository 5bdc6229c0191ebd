"""What an exercise says, in a terminal and in a notebook: short, the same on every run, no scripts."""

import functools
import html
import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH = 88
LARGEST = (6, 4)  # rows and columns of a picture: two of them side by side fill the width
MARKED = "background:rgba(213,94,0,.18)"  # reads on light and on dark
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
    corner: tuple[int, int]  # the indices of its first row and column
    axes: tuple[str, ...]  # what the rows and the columns are, in the book's letters
    whole: tuple[int, ...] = ()  # rows and columns of the matrix that it is cut from, if it is

    @classmethod
    def around(
        cls,
        spot: tuple[int, ...],
        expected: np.ndarray,
        given: np.ndarray,
        wrong: np.ndarray,
        axes: Sequence[str],
    ) -> "Picture":
        """The part of the last two axes in which ``spot`` lies, as large as fits a screen."""
        whole = expected.shape[-2:]
        for fewer in range(LARGEST[1]):  # columns, where numbers are long
            largest = (LARGEST[0], LARGEST[1] - fewer)
            rows, columns = (
                slice(start := min(max(at - 1, 0), max(length - most, 0)), start + most)
                for at, length, most in zip(spot[-2:], whole, largest, strict=True)
            )
            if largest[1] == 1:  # the one that differs, not its neighbour
                columns = slice(spot[-1], spot[-1] + 1)
            window, corner = (*spot[:-2], rows, columns), (rows.start, columns.start)
            picture = cls(expected[window], given[window], wrong[window], corner, tuple(axes[-2:]), whole)
            if max(map(len, picture.text().splitlines())) <= WIDTH:
                break
        return picture

    def text(self) -> str:
        given = [[(self._number(x), bad) for x, bad in row] for row in self._marked()]
        expected = [[self._number(x) for x in row] for row in self.expected.tolist()]
        wide = max(len(x) for x in (*itertools.chain(*expected), *(x for row in given for x, _ in row)))
        head = "".join(f"{j:>{wide}}  " for j in self._labels(1))
        left = [head, *("".join(f"{x:>{wide}}  " for x in row) for row in expected)]
        right = [head, *("".join(f"{x:>{wide}}{' *'[bad]} " for x, bad in row) for row in given)]
        labels = [self._corner(), *self._labels(0)]
        margin, width = max(map(len, labels)), max(len(head), len("expected")) + 3
        lines = [
            " " * margin + "  " + "expected".ljust(width) + "given (* differs)",
            *(f"{name:>{margin}}  {a:{width}}{b}" for name, a, b in zip(labels, left, right, strict=True)),
        ]
        return "\n".join(f"    {line}".rstrip() for line in lines)

    def html(self) -> str:
        as_it_should_be = [[(x, False) for x in row] for row in self.expected]
        tables = (
            self._table("expected", as_it_should_be),
            self._table("given (* differs)", self._marked()),
        )
        return f'<div style="display:flex;flex-wrap:wrap;gap:0 2em">{"".join(tables)}</div>'

    def _table(self, caption: str, rows: list[list[tuple[float, bool]]]) -> str:
        def cell(x: float, bad: bool) -> str:
            number = html.escape(self._number(x).strip())
            inside = f"<strong>{number}*</strong>" if bad else number
            return f'<td style="text-align:right{"; " + MARKED if bad else ""}">{inside}</td>'

        heads = "".join(f"<th>{j}</th>" for j in self._labels(1))
        body = "".join(
            f"<tr><th>{i}</th>{''.join(cell(*entry) for entry in row)}</tr>"
            for i, row in zip(self._labels(0), rows, strict=True)
        )
        caption = f'<caption style="caption-side:top;text-align:left">{caption}</caption>'
        head = f"<tr><th>{html.escape(self._corner())}</th>{heads}</tr>"
        return f'<table style="margin:.3em 0">{caption}{head}{body}</table>'

    def _marked(self) -> list[list[tuple[float, bool]]]:
        """The numbers that came, each with whether it differs."""
        pairs = zip(self.given.tolist(), self.wrong.tolist(), strict=True)
        return [list(zip(row, marks, strict=True)) for row, marks in pairs]

    def _number(self, x: float) -> str:
        return _number(x, self._digits)

    @functools.cached_property
    def _digits(self) -> int:
        """Three decimals, none for a mask or whole numbers, or as many as tell apart what is marked."""
        least = 3 if self.expected.dtype.kind == "f" else 0
        pairs = list(zip(self.expected[self.wrong], self.given[self.wrong], strict=True))
        return next(
            (d for d in range(least, 17) if all(_number(a, d) != _number(b, d) for a, b in pairs)),
            least,
        )

    def _labels(self, axis: int) -> list[str]:
        """The indices along an axis; dots where rows or columns are left out."""
        start, shown = self.corner[axis], self.expected.shape[axis]
        labels = [str(index) for index in range(start, start + shown)]
        if start > 0 and self.whole:
            labels[0] = f"... {labels[0]}"
        if self.whole and start + shown < self.whole[axis]:
            labels[-1] += " ..."
        return labels

    def _corner(self) -> str:
        return " \\ ".join(self.axes)


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


def an(name: str) -> str:
    """The name with its article.

    >>> an("int"), an("float"), an("ndarray")
    ('an int', 'a float', 'an ndarray')
    """
    return f"an {name}" if name[:1].lower() in "aeiou" or name == "ndarray" else f"a {name}"


def _text(block: str | Code | Picture) -> str:
    if not isinstance(block, str):
        return block.text()
    return textwrap.fill(block, WIDTH, break_long_words=False, break_on_hyphens=False)


def _html(block: str | Code | Picture) -> str:
    if not isinstance(block, str):
        return block.html()
    return f'<p style="margin:.3em 0">{marked(block)}</p>'


def marked(sentence: str) -> str:
    """The sentence in HTML; what stands in backticks is code.

    >>> marked("`a < b` holds")
    '<code>a &lt; b</code> holds'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(sentence))


def _number(x: float, digits: int = 3) -> str:
    """Seven characters wide at least; decimals while the number is small enough for them."""
    return f"{x:7.{digits}f}" if abs(x) < 1000 or not np.isfinite(x) else f"{x:7.{max(digits - 2, 0)}e}"
