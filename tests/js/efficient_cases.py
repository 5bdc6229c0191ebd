"""What models cost, as transformer_lab.efficient counts it and, for latents, as PyTorch counts it at work."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from transformer_lab.efficient import (
    Hardware,
    block_bytes,
    block_flops,
    cache_bytes,
    cache_numbers,
    crossover,
    roofline,
)
from transformer_lab.efficient.caches import LatentAttention
from transformer_lab.widgets.efficient_calculator import DEVICES, MODELS

SMALL = {"d_model": 32, "d_ff": 48, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "gated": False}
OWN = [SMALL, {**SMALL, "n_kv_heads": 1, "gated": True}]


def cost_cases() -> dict:
    return {
        "models": MODELS,
        "devices": DEVICES,
        "shared": [
            shared(sizes, n_tokens, n_batch)
            for sizes in (*MODELS.values(), *OWN)
            for n_tokens, n_batch in ((128, 1), (5000, 3))
        ],
        "latent": [latent(sizes, n, 2) for sizes in (SMALL, MODELS["base, 2017"]) for n in (3, 7)],
        "times": [time(flops, moved) for flops, moved in ((1e12, 1e6), (1e9, 1e9), (3e9, 2e8))],
    }


def shared(sizes: dict, n_tokens: int, n_batch: int) -> dict:
    """With keys and values for G heads. A gate is as much work as half of the two matrices beside it."""
    n_layers, gated = sizes["n_layers"], sizes["gated"]
    d_model, d_ff = sizes["d_model"], sizes["d_ff"]
    heads = {name: sizes[name] for name in ("n_heads", "n_kv_heads")}
    as_wide = d_ff * 3 // 2 if gated else d_ff
    per_token = cache_numbers("grouped", n_kv_heads=heads["n_kv_heads"], d_head=d_model // heads["n_heads"])
    whole = {"n_layers": n_layers, "n_tokens": n_tokens, "n_batch": n_batch}
    case = {
        "sizes": sizes,
        "n_tokens": n_tokens,
        "batch": n_batch,
        "cache_numbers": per_token,
        "cache": cache_bytes(per_token, **whole, bytes_per_number=4),
        "crossover": crossover(d_model, as_wide) if heads["n_heads"] == heads["n_kv_heads"] else None,
    }
    for name, n_queries in (("reading", n_tokens), ("writing", 1)):
        tokens = {"n_tokens": n_tokens, "n_queries": n_queries, "n_batch": n_batch, "d_model": d_model}
        flops = block_flops(**tokens, d_ff=as_wide, **heads)
        moved = block_bytes(**tokens, d_ff=d_ff, **heads, bytes_per_number=1, materialised=False)
        moved["feed-forward"] += gated * (n_batch * n_queries * (d_model + d_ff) + d_model * d_ff)
        case[name] = {
            "flops": [n_layers * number for number in flops.values()],
            "moved": [n_layers * number for number in moved.values()],
        }
    return case


def latent(sizes: dict, n_tokens: int, n_batch: int) -> dict:
    """One layer's attention, its FLOPs counted by PyTorch as it runs."""
    n_heads, d_model = sizes["n_heads"], sizes["d_model"]
    d_head = d_model // n_heads
    widths = {"d_latent": 4 * d_head, "d_rope": d_head // 2}
    attention = LatentAttention(d_model=d_model, n_heads=n_heads, d_head=d_head, **widths)
    x = torch.zeros(n_batch, n_tokens, d_model)
    cache = attention.start(n_batch, n_tokens)
    cache.append(*attention.latents(x[:, 1:]))
    per_token = cache_numbers("latent", **widths)
    asked = n_batch * n_heads * (2 * widths["d_latent"] + widths["d_rope"])  # queries, and what comes back
    return {
        "sizes": {**sizes, "n_layers": 1},
        "n_tokens": n_tokens,
        "batch": n_batch,
        "cache_numbers": per_token,
        "reading": flops_of(lambda: attention(x, x)),
        "writing": flops_of(lambda: attention.step(x[:, :1], cache)),
        "writing_moves": asked + n_batch * n_tokens * per_token,
        "weights": sum(weight.numel() for weight in attention.parameters())
        - widths["d_latent"],  # the norm's
    }


def time(flops: float, moved: float) -> dict:
    """Of a device, by the roofline; numbers of two bytes."""
    device = DEVICES["T4"]
    hardware = Hardware("T4", flops_per_second=device["flops"][2], bytes_per_second=device["bandwidth"])
    intensity = flops / (2 * moved)
    return {
        "flops": flops,
        "moved": moved,
        "seconds": flops / roofline(intensity, hardware),
        "bound": "arithmetic" if intensity > hardware.ridge else "memory",
    }


def flops_of(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
