"""Windows of attention, as sliding_window_attention lets tokens see each other, and how far they reach."""

from itertools import product

import torch

from transformer_lab.efficient.sliding_window import sliding_window_attention
from transformer_lab.masks import causal_mask, reach

LAYERS = (1, 2, 3, 7)


def window_cases():
    """Every kind of window over a short text; and the one that the widget opens with."""
    states = product((2, 4, 8), (1, 2, 3), (False, True), ([], [0], [3, 10]))
    for window, dilation, causal, places in states:
        yield case(11, window, dilation, causal, places)
    yield case(41, 4, 1, False, [])


def case(n: int, window: int, dilation: int, causal: bool, places: list[int]) -> dict:
    mask = seen(n, window, dilation, causal, places)
    whole = torch.arange(1, n + 1) if causal else torch.full((n,), n)
    return {
        "state": {
            "n_tokens": n,
            "window": window,
            "dilation": dilation,
            "causal": causal,
            "global_tokens": places,
        },
        "mask": mask.tolist(),
        "pairs": {
            "computed": int(mask.sum()),
            "all": int(causal_mask(n).sum()) if causal else n * n,
        },
        "reached": {str(n_layers): reach(mask, n_layers).tolist() for n_layers in LAYERS},
        "untilAll": layers_until(mask, whole),
    }


def seen(n: int, window: int, dilation: int, causal: bool, places: list[int]) -> torch.Tensor:
    """(T, T): where a value comes through, when all scores are equal and each value is a token's own."""
    x = torch.eye(n, dtype=torch.float64)[None, None]
    is_global = torch.zeros(1, n, dtype=torch.bool)
    is_global[0, places] = True
    y = sliding_window_attention(
        0 * x, x, x, window=window, dilation=dilation, causal=causal, is_global=is_global
    )
    mask = (y[0, 0] > 0) | is_global[0][:, None]  # a global token sees all, in a function of its own
    return mask & causal_mask(n)[0, 0] if causal else mask  # global ones, too, are seen from behind only


def layers_until(mask: torch.Tensor, whole: torch.Tensor) -> list[int | None]:
    """For each token, after how many layers it has heard from so many; None: never."""
    after = torch.stack([reach(mask, n_layers).sum(dim=1) for n_layers in range(len(mask))])
    complete = after == whole
    return [int(column.int().argmax()) if column.any() else None for column in complete.T]
