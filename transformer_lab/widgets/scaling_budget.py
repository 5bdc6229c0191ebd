"""How to divide a compute budget between parameters and tokens -- book chapter "Scaling laws".

Front end: scaling_budget.js.
"""

from dataclasses import asdict
from pathlib import Path

import traitlets as t

from ..scaling import HOFFMANN
from ._base import BookWidget
from ._bundle import bundle

EXPONENTS = range(18, 27)  # of ten: budgets in FLOPs
SIZES = [10 ** (7 + i / 3) for i in range(19)]  # parameters: ten million to ten trillion


class ComputeBudget(BookWidget):
    """What a model of some size loses at a given compute, by the law of Hoffmann et al. (2022).

    Traits:
        exponent: the budget is ten to this power, in FLOPs; one of ``EXPONENTS``.
        place: which of ``SIZES`` the cursor reads, from 0.
        law: ``floor``, ``of_parameters``, ``alpha``, ``of_data`` and ``beta`` of the law; sizes: ``SIZES``.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    exponent = t.Int(21).tag(sync=True)
    place = t.Int(12).tag(sync=True)
    law = t.Dict(asdict(HOFFMANN), read_only=True).tag(sync=True)
    sizes = t.List(SIZES, read_only=True).tag(sync=True)

    @t.validate("exponent")
    def _a_budget_on_offer(self, proposal):
        if proposal["value"] not in EXPONENTS:
            raise t.TraitError(
                f"exponent must be from {EXPONENTS[0]} to {EXPONENTS[-1]}, got {proposal['value']}"
            )
        return proposal["value"]

    @t.validate("place")
    def _a_size_on_offer(self, proposal):
        if not 0 <= proposal["value"] < len(SIZES):
            raise t.TraitError(f"place must be from 0 to {len(SIZES) - 1}, got {proposal['value']}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        return f"ComputeBudget(exponent={self.exponent}, place={self.place})"
