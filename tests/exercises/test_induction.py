"""What the contract (test_contract.py, test_mutants.py) asks of this chapter; its own special cases follow here."""

import torch


def by_loop(x):
    return torch.stack([row - row.sum() / len(row) for row in x])


def by_matrix(x):
    width = x.shape[-1]
    return x @ (torch.eye(width, dtype=x.dtype) - torch.full((width, width), 1 / width, dtype=x.dtype))


RIGHT = {"centred": [by_loop, by_matrix]}

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {"centred": {"return x - x.mean(1, keepdim=True)": "of two axes, 1 is the last"}}
