"""The parity table: what the tests that compare ours with another's measure, and the book prints."""

import json
from pathlib import Path

import pytest
import torch

TABLE = Path(__file__).resolve().parent.parent / "book" / "parity.json"


@pytest.fixture
def parity(request):
    """``parity(ours, peer, pairs, within=...)``: each pair is equal; the largest difference is in the table.

    ours: our function, as readers call it, such as "norms.RMSNorm"; peer: the other's, with its library.
    pairs: what to compare by name, {"output": (a, b), "gradient of x": (a, b)}, in float64.
    within: the largest absolute difference allowed; ``why`` names the place where the peer computes in
        float32.
    """

    def compare(ours, peer, pairs, *, within=1e-10, why=""):
        largest = 0.0
        for name, (a, b) in pairs.items():
            assert a.shape == b.shape, (name, a.shape, b.shape)
            assert a.isfinite().all() and b.isfinite().all() and b.abs().max() > 0, f"{name} says nothing"
            difference = (a.double() - b.double()).abs().max().item()
            assert difference <= within, f"{name}: {ours} and {peer} differ by {difference:.1e}"
            largest = max(largest, difference)
        row = {"ours": ours, "peer": peer, "compared": list(pairs), "within": within, "why": why}
        if request.config.getoption("--write-parity"):
            rows = [r for r in read() if (r["ours"], r["peer"]) != (ours, peer)]
            rows = sorted(
                [*rows, row | {"measured": float(f"{largest:.0e}")}], key=lambda r: (r["ours"], r["peer"])
            )
            TABLE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            return
        stored = [{k: v for k, v in r.items() if k != "measured"} for r in read()]
        assert row in stored, "the book's table lacks this: run this test file alone, with --write-parity"

    return compare


def read() -> list[dict]:
    return json.loads(TABLE.read_text("utf-8")) if TABLE.exists() else []


def gradients(output, *inputs):
    """The gradients of ``output``, summed with fixed random weights, by each of ``inputs``."""
    generator = torch.Generator().manual_seed(7)
    upstream = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    return torch.autograd.grad(output, inputs, upstream)
