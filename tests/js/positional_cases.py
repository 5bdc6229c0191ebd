"""What the package computes, for positional_hands.js and positional_dials.js."""

import torch

from transformer_lab.positional import rotate, sinusoidal

from .runtime_cases import randn


def hands_cases():
    """Codes, and the similarity of two of them."""
    for width in (4, 8, 16):
        table = sinusoidal(125, width).double()
        pairs = [(0, 0), (3, 7), (7, 3), (100, 124), (60, 36), (124, 0)]
        yield {
            "width": width,
            "codes": [{"position": t, "code": table[t].tolist()} for t in (0, 1, 50, 124)],
            "similar": [
                [one, other, (table[one] @ table[other]).item() / (width / 2)] for one, other in pairs
            ],
        }


def dials_cases():
    """Scores of turned queries and keys; neighbours make a pair, as in the paper."""
    for width, base in [(2, 10000.0), (4, 100.0), (8, 100.0), (8, 10000.0)]:
        q, k = randn(width), randn(width)
        for i, j in [(0, 0), (8, 5), (5, 8), (12, 0), (0, 12)]:
            rows = rotate(torch.stack([q, k]), torch.tensor([i, j]).double(), base, "interleaved")
            state = {"q": q.tolist(), "k": k.tolist(), "base": base, "q_position": i, "k_position": j}
            parts = rows.prod(0).unflatten(0, (-1, 2)).sum(-1)
            yield {"state": state, "parts": parts.tolist(), "turned": rows.tolist()}
