"""Exercises of the chapter "What heads do", in rising order. attention.py shows the other kinds."""

from typing import Any

import numpy as np

from .check import Chapter

chapter = Chapter("induction", "What heads do")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


def _rows(rng: np.random.Generator, T: int, D: int) -> dict[str, Any]:
    return {"x": rng.standard_normal((T, D)) + 1}


@chapter.implement(
    title="Take the mean away",
    statement="""
        Each of the T rows of `x` has a mean of its own. Take it away, so that every row sums to 0.
        """,
    hints=(
        "Do one row by hand: 1, 2, 6 has the mean 3.",
        "`x.mean(-1)` gives T means. Which axis is lost, and which shape does the subtraction need?",
        "`keepdim=True` keeps the axis, with length 1, and (T, 1) broadcasts along the rows.",
    ),
    axes="T D",
    inputs=_rows,
    sizes=((2, 3), (3, 2), (1, 4), (4, 5)),
    reference=lambda x: np.stack([row - row.sum() / len(row) for row in x]),
)
def centred(x):
    """The rows of x (T, D), each without its mean: an answer (T, D)."""
    # (T, 1): one mean a row, subtracted all along it
    return x - x.mean(-1, keepdim=True)


@centred.slip("""
    You took away the mean of each column. A row is one token, and each token has its own mean.""")
def _columns(x):
    return x - x.mean(0)


@centred.slip("""
    You took away one mean for all of `x`. Each row has its own.""")
def _one_for_all(x):
    return x - x.mean()
