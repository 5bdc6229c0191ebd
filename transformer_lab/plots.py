"""One house style for figures: the book's colours, a paper-like ground that reads in light and dark pages."""

from collections.abc import Sequence

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .notation import COLOURS

INK, PAPER, RULE = "#1b1f24", "#fcfcfa", "#c9cdd2"


def use_house_style() -> None:
    """Make it the style of every figure that follows."""
    plt.rcParams.update(
        {
            "figure.dpi": 144,
            "figure.facecolor": PAPER,
            "figure.constrained_layout.use": True,
            "savefig.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "axes.edgecolor": RULE,
            "axes.labelcolor": INK,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=list(COLOURS.values())),
            "font.size": 9,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "legend.frameon": False,
            "lines.linewidth": 2,
        }
    )


def panels(
    n: int = 1, *, width: float = 7.0, height: float = 2.6, stacked: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with ``n`` panels, side by side or ``stacked``; sizes of the whole in inches.

    Raises:
        ValueError: fewer than one panel.

    >>> figure, axes = panels(3)
    >>> len(axes)
    3
    >>> plt.close(figure)
    """
    if n < 1:
        raise ValueError(f"a figure needs at least one panel, got {n}")
    rows, columns = (n, 1) if stacked else (1, n)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    return figure, list(axes.flat)


def weight_map(
    ax: Axes,
    weights: object,
    *,
    queries: Sequence[str],
    keys: Sequence[str],
    title: str = "",
) -> None:
    """Attention weights as a table of colours, a row per query, with the weights of 0.10 and more in numbers.

    Args:
        ax: where to draw.
        weights: (T, S), a tensor or anything that NumPy can read, each from 0 (dark) to 1 (light).
        queries: T labels; keys: S labels.
        title: above the table.

    Raises:
        ValueError: not one label for each row and column, or a weight outside 0 to 1.
    """
    table = np.asarray(weights.detach().cpu() if hasattr(weights, "detach") else weights, dtype=float)
    if table.shape != (len(queries), len(keys)):
        raise ValueError(f"{len(queries)} queries and {len(keys)} keys need such a table, got {table.shape}")
    if table.min() < -1e-6 or table.max() > 1 + 1e-6:
        low, high = table.min(), table.max()
        raise ValueError(f"weights must lie in 0 to 1, got {low:.3g} to {high:.3g}; are these scores?")
    ax.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(keys)), keys, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(queries)), queries)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    for (i, j), weight in np.ndenumerate(table):
        if weight >= 0.095:  # what would print as 0.10
            ink = INK if weight > 0.5 else PAPER
            ax.text(j, i, f"{weight:.2f}".lstrip("0"), ha="center", va="center", fontsize=7.5, color=ink)
