"""Numbers for scaling_budget.test.mjs: losses and best divisions, as the package computes them."""

from transformer_lab.scaling import HOFFMANN
from transformer_lab.widgets import ComputeBudget
from transformer_lab.widgets.scaling_budget import EXPONENTS, SIZES


def budget_cases():
    """Every budget with every size."""
    widget = ComputeBudget()
    return {"law": widget.law, "sizes": widget.sizes, "all": list(map(divisions, EXPONENTS))}


def divisions(exponent):
    flops = 10.0**exponent
    n, d = HOFFMANN.optimum(flops)
    losses = [HOFFMANN(size, flops / 6 / size) for size in SIZES]
    return {"exponent": exponent, "best": {"n": n, "d": d}, "lowest": HOFFMANN(n, d), "losses": losses}
