"""Masks and how far they reach, as transformer_lab.masks has them."""

import torch

from transformer_lab.masks import (
    causal_mask,
    global_mask,
    packing_mask,
    prefix_mask,
    reach,
    sliding_window_mask,
)
from transformer_lab.widgets import MaskPainter


def mask_cases() -> dict:
    n_tokens = (5, 8, 10)
    return {
        "presets": [{"n": n, "masks": presets(n)} for n in n_tokens],
        "reached": [reached(mask) for n in n_tokens for mask in (*random_masks(n), *presets(n).values())],
        "tokens": MaskPainter().tokens,
    }


def presets(n: int) -> dict[str, list[list[bool]]]:
    """The widget's presets by its names for them."""
    window = sliding_window_mask(n, 2)
    texts = (torch.arange(n) >= n / 2).int()[None]
    masks = {
        "causal": causal_mask(n),
        "window 2": window,
        "window 2, first token global": window | global_mask(n, [0]),
        "prefix of 3": prefix_mask(n, 3),
        "two texts, packed": packing_mask(texts) & causal_mask(n),
        "everything": torch.ones(1, 1, n, n, dtype=torch.bool),
        "nothing": torch.zeros(1, 1, n, n, dtype=torch.bool),
    }
    return {name: mask[0, 0].tolist() for name, mask in masks.items()}


def random_masks(n: int):
    """Sparse enough that something takes several layers, and something never comes."""
    for share in (0.1, 0.2, 0.4):
        yield (torch.rand(n, n) < share).tolist()


def reached(mask: list[list[bool]]) -> dict:
    after = [reach(torch.tensor(mask), n_layers).tolist() for n_layers in range(9)]
    return {"mask": mask, "after": after}
