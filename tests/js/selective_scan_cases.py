"""States of a channel with zero-order hold, and what each input weighs in the last, by its gradient."""

import torch

from transformer_lab.efficient.selective_scan import scan, zero_order_hold
from transformer_lab.widgets import SelectiveState


def scan_cases() -> dict:
    widget = SelectiveState()
    names = ("tokens", "x", "content", "rates", "selective", "steps", "common_step", "chosen")
    return {"runs": list(runs()), "widget": {name: getattr(widget, name) for name in names}}


def runs():
    rows = [10 ** (4 * torch.rand(12, dtype=torch.float64) - 3) for _ in range(4)]
    rows += [torch.full((12,), step, dtype=torch.float64) for step in (0, 1e-12, 0.3, 1000)]
    rows.append(torch.tensor([1, 0, 0, 700, 0, 1e-9, 0, 50, 0, 0.7, 0, 0], dtype=torch.float64))
    for steps in rows:
        rates = -torch.tensor([0.5, 1, 4], dtype=torch.float64)
        x = torch.randn(12, dtype=torch.float64, requires_grad=True)
        decay, weight = zero_order_hold(rates[None], steps[:, None])  # (T, 1, N)
        states = scan(decay[None], (weight * x[:, None, None])[None])[0, :, 0]  # (T, N)
        left = [torch.autograd.grad(last, x, retain_graph=True)[0] for last in states[-1]]
        yield {
            "steps": steps.tolist(),
            "rates": rates.tolist(),
            "x": x.tolist(),
            "decay": decay[:, 0].T.tolist(),
            "weight": weight[:, 0].T.tolist(),
            "states": states.T.tolist(),
            "left": torch.stack(left).tolist(),
        }
