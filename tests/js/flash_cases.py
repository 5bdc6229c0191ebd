"""FlashAttention's steps, each from all keys until then at once, and what the package's own tiles give."""

import math
from itertools import product

import torch

from transformer_lab.attention import attention
from transformer_lab.efficient.flash import flash_attention, tiles_forward, traffic
from transformer_lab.masks import causal_mask
from transformer_lab.widgets import FlashTiles


def tile_cases() -> dict:
    generator = torch.Generator().manual_seed(0)
    sizes = [(8, 8, 4, 2), (5, 9, 2, 4), (9, 5, 3, 3), (2, 10, 10, 1), (7, 7, 1, 7)]
    return {
        "widget": {name: getattr(FlashTiles(), name) for name in ("q", "k", "v", "block_q", "block_k")},
        "walks": [
            walked(generator, *size, causal, scale)
            for size, causal, scale in product(sizes, (False, True), (1.0, 100.0))
        ],
        "traffic": [
            {"n": n, "block_q": block, **traffic(n, 2, 8 * block)} for n in (2, 6, 10) for block in (1, 2, 4)
        ],
    }


def walked(generator, T, S, block_q, block_k, causal, scale) -> dict:
    q, k, v = ((torch.randint(-20, 21, (n, 2), generator=generator) / 10).double() for n in (T, S, S))
    mask = causal_mask(T, S)[0, 0] if causal else torch.ones(T, S, dtype=torch.bool)
    scores = (scale * (q @ k.T) / math.sqrt(2)).masked_fill(~mask, -math.inf)
    steps = []
    for top in range(0, T, block_q):
        rows = slice(top, min(top + block_q, T))
        for left in range(0, S, block_k):
            columns = slice(0, min(left + block_k, S))  # all keys until now, not only those of the tile
            if mask[rows, left : columns.stop].any():
                steps.append(so_far(scores[rows, columns], v[columns]))
        steps.append({"output": attention(scale * q, k, v, mask)[0][rows].tolist()})
    tiled = [x.expand(1, 1, -1, -1) for x in (scale * q, k, v)]
    blocks = {"causal": causal, "block_q": block_q, "block_k": block_k}
    return {
        "state": {"q": q.tolist(), "k": k.tolist(), "v": v.tolist(), "scale": scale, **blocks},
        "scores": finite(scores),
        "steps": steps,
        "output": flash_attention(*tiled, **blocks)[0, 0].tolist(),
        "logs": finite(tiles_forward(*tiled, **blocks)[1][0, 0]),
    }


def so_far(scores: torch.Tensor, v: torch.Tensor) -> dict:
    """Maximum, sum of exponentials and their sum of values over all keys until now, without a running sum."""
    largest = scores.amax(dim=-1)
    weights = (scores - largest.nan_to_num(neginf=0.0)[:, None]).exp()
    return {"m": finite(largest), "l": weights.sum(dim=-1).tolist(), "output": (weights @ v).tolist()}


def finite(numbers: torch.Tensor) -> list:
    """JSON knows no infinity: minus infinity becomes null."""

    def plain(x):
        return [plain(part) for part in x] if isinstance(x, list) else None if x == -math.inf else x

    return plain(numbers.tolist())
