"""Numbers for feed_forward_knots.test.mjs: the same networks, and the best weights, as PyTorch finds them."""

import torch

from .runtime_cases import randn

XS = torch.arange(-60, 61, dtype=torch.float64) / 20
TARGETS = {
    "bump": 2 * (-2 * XS**2).exp(),
    "step": 1 + XS.sign(),
    "sine": 2 * (torch.pi * XS / 2).sin(),
}


def knot_cases():
    """Networks of every size, some with knots that coincide, with the relu and without."""
    for target, n_units in [("bump", 1), ("step", 3), ("sine", 5), ("bump", 8)]:
        knots = (6 * torch.rand(n_units, dtype=torch.float64) - 3).round(decimals=1)
        knots[-1] = knots[0]
        sides = torch.randint(2, (n_units,)).double() * 2 - 1
        weights, offset = randn(n_units), randn(1)
        for nonlinear in (True, False):
            sums = sides * (XS[:, None] - knots)
            hidden = sums.relu() if nonlinear else sums
            curve = hidden @ weights + offset
            columns = torch.cat([torch.ones_like(XS)[:, None], hidden], dim=1)
            best = columns @ torch.linalg.lstsq(columns, TARGETS[target], driver="gelsd").solution
            yield {
                "state": {
                    "units": torch.stack([knots, sides, weights], dim=1).tolist(),
                    "offset": offset.item(),
                    "target": target,
                    "nonlinear": nonlinear,
                },
                "curve": curve.tolist(),
                "error": (curve - TARGETS[target]).square().mean().item(),
                "best": best.tolist(),
            }
