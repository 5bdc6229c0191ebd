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


def architecture(
    encoder: Sequence[str], decoder: Sequence[str], *, n_layers: int, reads: str, top: Sequence[str]
) -> Figure:
    """An encoder and a decoder as columns of boxes, to be read from the bottom to the top.

    Args:
        encoder, decoder: what stands in one layer, lowest first. "Add & Norm" adds what went around the box
            below; attention is drawn blue, a norm grey, the rest green.
        n_layers: how often each layer stands there.
        reads: the box of the decoder into which the encoder's output goes.
        top: what stands above the decoder's layers.

    Raises:
        ValueError: the decoder has no box ``reads``.
    """
    if reads not in decoder:
        raise ValueError(f"reads must name a box of the decoder, got {reads!r}")
    tallest = len(decoder) + len(top) + 3
    figure, ax = plt.subplots(figsize=(6.4, 0.42 * tallest))
    ax.set_axis_off()
    ends = []
    for x, name, layer, above in ((0.0, "source", encoder, ()), (3.4, "target", decoder, top)):
        boxes = [f"{name} embedding · √D", "+ position", *layer, *above]
        for y, label in enumerate(boxes):
            _box(ax, x, y, label)
            _arrow(ax, (x + 1.1, y - 0.6), (x + 1.1, y - 0.2))
            if label == "Add & Norm":  # what is added goes around the part below
                ax.plot([x + 1.1, x + 2.3, x + 2.3], [y - 1.4, y - 1.4, y + 0.1], color=INK, lw=0.8)
                _arrow(ax, (x + 2.3, y + 0.1), (x + 2.2, y + 0.1))
        ax.text(x + 1.1, -0.62, f"{name} tokens", ha="center", va="top", fontsize=8.5)
        low, high = 1.52, 2 + len(layer) - 0.42
        frame = {"fill": False, "linestyle": (0, (3, 2)), "edgecolor": INK, "linewidth": 0.8}
        ax.add_patch(plt.Rectangle((x - 0.12, low), 2.55, high - low, **frame))
        side = x - 0.2 if x == 0 else x + 2.5
        ax.text(side, (low + high) / 2, f"{n_layers} ×", ha="right" if x == 0 else "left", va="center")
        ends.append(2 + len(layer))
    into, above = 2.1 + decoder.index(reads), ends[0] - 0.15
    ax.plot([1.1, 1.1, 2.85, 2.85], [ends[0] - 0.6, above, above, into], color=INK, lw=1.2)
    _arrow(ax, (2.85, into), (3.4, into))
    ax.text(2.8, above + 0.06, "keys and values", ha="right", va="bottom", fontsize=7.5)
    _arrow(ax, (4.5, ends[1] + len(top) - 0.6), (4.5, ends[1] + len(top) - 0.1))
    ax.set_xlim(-0.75, 6.3)
    ax.set_ylim(-1.0, tallest - 0.6)
    return figure


def _box(ax: Axes, x: float, y: int, label: str) -> None:
    name = "masked" if "Norm" in label else "query" if "attention" in label else "value"
    ax.add_patch(plt.Rectangle((x, y - 0.2), 2.2, 0.6, facecolor=COLOURS[name] + "33", edgecolor=RULE))
    ax.text(x + 1.1, y + 0.1, label, ha="center", va="center", fontsize=8.5)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8, "lw": 1}
    ax.annotate("", xy=end, xytext=start, arrowprops=style)


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


def frame(ax: Axes, row: int, column: int) -> None:
    """Draw a frame around one entry of a ``weight_map``."""
    edge = {"fill": False, "edgecolor": COLOURS["key"], "linewidth": 1.6}
    ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, **edge))
