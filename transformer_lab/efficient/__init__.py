"""Attention that costs less, or does without: each in a module of its own. Here: what attention costs.

Costs are counted, not timed: FLOPs, of which a multiply-add is two; numbers and bytes to keep, and bytes that
move between memory and processor. Letters as in ``notation``: B batch, T queries, S keys, D model width, H
heads, G key/value heads, Dh head width, F feed-forward width, L layers. Sources: Vaswani et al. (2017),
section 4, https://arxiv.org/abs/1706.03762; Williams et al. (2009), *Roofline*, Communications of the ACM
52(4), https://doi.org/10.1145/1498765.1498785; what a cache keeps: DeepSeek-AI (2024), Table 1,
https://arxiv.org/abs/2405.04434.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CacheKind = Literal["multi-head", "grouped", "multi-query", "latent"]


def block_flops(
    n_tokens: int,
    *,
    d_model: int,
    d_ff: int,
    n_heads: int = 1,
    n_kv_heads: int | None = None,
    n_queries: int | None = None,
    n_batch: int = 1,
) -> dict[str, int]:
    """FLOPs of one Transformer block, forwards: attention to ``n_tokens`` tokens, and a feed-forward network.

    "projections": from x to queries, keys and values, and from the heads to the output; "scores": q kᵀ, and
    weights times values; "feed-forward": its two matrices. Softmax, norms, biases and sums along the way are
    not counted: they grow no faster, and are small beside the products. A causal mask saves nothing here: the
    whole table is computed.

    Args:
        n_tokens: keys S; also queries, if ``n_queries`` does not say otherwise.
        d_model: width D; d_ff: width F.
        n_heads, n_kv_heads: H and G; by default G = H, and then H changes nothing.
        n_queries: T, which are the only tokens to be projected: 1 is a step of writing with a cache.
        n_batch: B sequences.

    Raises:
        ValueError: a size below 1, ``d_model`` no multiple of ``n_heads``, or that of ``n_kv_heads``.

    >>> block_flops(10, d_model=4, d_ff=16)
    {'projections': 1280, 'scores': 1600, 'feed-forward': 2560}
    """
    n_queries = n_tokens if n_queries is None else n_queries
    d_kv = _width_of_keys(d_model, n_heads, n_kv_heads)
    check_sizes(n_tokens=n_tokens, d_ff=d_ff, n_queries=n_queries, n_batch=n_batch)
    rows = n_batch * n_queries
    return {
        "projections": 2 * rows * d_model * (2 * d_model + 2 * d_kv),
        "scores": 2 * 2 * rows * n_tokens * d_model,
        "feed-forward": 2 * 2 * rows * d_model * d_ff,
    }


def block_bytes(
    n_tokens: int,
    *,
    d_model: int,
    d_ff: int,
    n_heads: int,
    n_kv_heads: int | None = None,
    n_queries: int | None = None,
    n_batch: int = 1,
    bytes_per_number: int = 2,
    materialised: bool = True,
) -> dict[str, int]:
    """Bytes that move between memory and processor for the products that ``block_flops`` counts.

    Each product reads what it needs once and writes what it makes once. Weights are read once for the whole
    batch; keys and values are each sequence's own.

    Args:
        n_tokens ... n_batch: as in ``block_flops``; here the number of heads counts.
        bytes_per_number: 2 in half precision.
        materialised: scores and weights go to memory and come back, as in the formula. False: they stay in
            the processor, which is the least that attention can move.

    Raises:
        ValueError: as ``block_flops``.

    >>> block_bytes(10, d_model=4, d_ff=16, n_heads=2)
    {'projections': 768, 'scores': 1920, 'feed-forward': 1056}
    """
    n_queries = n_tokens if n_queries is None else n_queries
    d_kv = _width_of_keys(d_model, n_heads, n_kv_heads)
    check_sizes(
        n_tokens=n_tokens, d_ff=d_ff, n_queries=n_queries, n_batch=n_batch, bytes_per_number=bytes_per_number
    )
    rows, keys = n_batch * n_queries, n_batch * n_tokens

    def product(n_in: int, n_out: int) -> int:  # input, weights and output of one matrix
        return rows * n_in + n_in * n_out + rows * n_out

    table = n_heads * rows * n_tokens
    numbers = {
        "projections": 2 * product(d_model, d_model) + 2 * product(d_model, d_kv),
        "scores": 2 * rows * d_model + 2 * keys * d_kv + (4 * table if materialised else 0),
        "feed-forward": product(d_model, d_ff) + product(d_ff, d_model),
    }
    return {part: n * bytes_per_number for part, n in numbers.items()}


def crossover(d_model: int, d_ff: int) -> int:
    """The number of tokens at which "scores" cost as many FLOPs as all the rest of ``block_flops``.

    Below it attention's square does not matter much. With F = 4 D it is 6 D.

    Raises:
        ValueError: a size below 1.

    >>> crossover(512, 2048)
    3072
    """
    check_sizes(d_model=d_model, d_ff=d_ff)
    return 2 * d_model + d_ff  # 4 n² D = n (8 D² + 4 D F), solved for n


@dataclass(frozen=True)
class Hardware:
    """What a processor can do at best.

    Args:
        name: what it is.
        flops_per_second: its fastest arithmetic; bytes_per_second: between it and its memory.

    Raises:
        ValueError: a speed that is not positive.

    >>> Hardware("toy", flops_per_second=100.0, bytes_per_second=20.0).ridge
    5.0
    """

    name: str
    flops_per_second: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        for field in ("flops_per_second", "bytes_per_second"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} must be positive, got {getattr(self, field)}")

    @property
    def ridge(self) -> float:
        """FLOPs per byte at which arithmetic and memory take equally long."""
        return self.flops_per_second / self.bytes_per_second


# Half precision with dense matrices, from NVIDIA's datasheets: "A100 80GB SXM"; "H100 SXM", whose 1,979
# TFLOPS "with sparsity" are twice the dense figure.
A100 = Hardware("A100", 312e12, 2.039e12)
H100 = Hardware("H100", 989.5e12, 3.35e12)


def roofline(intensity: float, hardware: Hardware) -> float:
    """FLOPs per second that can be reached at ``intensity`` FLOPs per byte: memory's limit or arithmetic's.

    Source: Williams et al. (2009).

    Raises:
        ValueError: a negative intensity.

    >>> toy = Hardware("toy", flops_per_second=100.0, bytes_per_second=20.0)
    >>> roofline(2.0, toy), roofline(50.0, toy)
    (40.0, 100.0)
    """
    if not intensity >= 0:
        raise ValueError(f"intensity must be 0 or more FLOPs per byte, got {intensity}")
    return min(hardware.flops_per_second, intensity * hardware.bytes_per_second)


def fitted_exponent(sizes: Sequence[int | float], values: Sequence[int | float]) -> float:
    """The p of the power law c sizeᵖ nearest to ``values``: the slope of the least-squares line through the
    logarithms.

    Raises:
        ValueError: not two sizes or more, not one value for each, or a number that is not positive.

    >>> round(fitted_exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    if len(sizes) != len(values) or len(set(sizes)) < 2:
        raise ValueError(
            "a slope needs two different sizes or more and a value for each,"
            f" got {len(sizes)} sizes and {len(values)} values"
        )
    if not all(n > 0 for n in (*sizes, *values)):
        raise ValueError("sizes and values must be positive, since their logarithms are fitted")
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(n) for n in values]).slope


def cache_numbers(
    kind: CacheKind,
    *,
    n_heads: int | None = None,
    n_kv_heads: int | None = None,
    d_head: int | None = None,
    d_latent: int | None = None,
    d_rope: int | None = None,
) -> int:
    """Numbers that one layer keeps of one token: DeepSeek-AI (2024), Table 1.

    "multi-head": a key and a value for each head, 2 H Dh. "grouped": for each key/value head, 2 G Dh.
    "multi-query": for one, 2 Dh. "latent": a latent and a rotary key that all heads share, Dc + Dr.

    Args:
        kind: how attention is made. Of the sizes it looks at those that it needs; others may stand there.
        n_heads: H; n_kv_heads: G; d_head: Dh; d_latent: Dc; d_rope: Dr.

    Raises:
        ValueError: an unknown kind, or a size that it needs and does not get.

    >>> cache_numbers("grouped", n_kv_heads=8, d_head=128)  # LLaMA 2, 70B
    2048
    >>> cache_numbers("latent", d_latent=512, d_rope=64)  # DeepSeek-V2
    576
    """
    sizes = {
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_head": d_head,
        "d_latent": d_latent,
        "d_rope": d_rope,
    }
    needs = {
        "multi-head": ("n_heads", "d_head"),
        "grouped": ("n_kv_heads", "d_head"),
        "multi-query": ("d_head",),
        "latent": ("d_latent", "d_rope"),
    }
    if kind not in needs:
        raise ValueError(f"kind must be one of {', '.join(needs)}; got {kind!r}")
    needed = {name: sizes[name] for name in needs[kind]}
    missing = [name for name, size in needed.items() if size is None]
    if missing:
        raise ValueError(f"a {kind} cache is counted from {' and '.join(needed)}, {missing[0]} is missing")
    check_sizes(**needed)
    return sum(needed.values()) if kind == "latent" else 2 * math.prod(needed.values())


def cache_bytes(
    numbers: int, *, n_tokens: int, n_layers: int, n_batch: int = 1, bytes_per_number: int | float = 2
) -> int | float:
    """Bytes that a model keeps while it writes.

    Args:
        numbers: of one token in one layer, as ``cache_numbers`` counts them.
        n_tokens: kept tokens S; n_layers: L; n_batch: B; bytes_per_number: 2 in half precision.

    Raises:
        ValueError: a size below 1, or no bytes for a number.

    >>> cache_bytes(2048, n_tokens=4096, n_layers=80) / 2**30  # LLaMA 2, 70B: 1.25 GiB a text
    1.25
    """
    check_sizes(numbers=numbers, n_tokens=n_tokens, n_layers=n_layers, n_batch=n_batch)
    if not bytes_per_number > 0:
        raise ValueError(f"bytes_per_number must be positive, got {bytes_per_number}")
    return numbers * n_tokens * n_layers * n_batch * bytes_per_number


def _width_of_keys(d_model: int, n_heads: int, n_kv_heads: int | None) -> int:
    """G times Dh."""
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    check_sizes(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
    if d_model % n_heads or n_heads % n_kv_heads:
        raise ValueError(
            "d_model must be a multiple of n_heads, and that one of n_kv_heads,"
            f" got {d_model}, {n_heads} and {n_kv_heads}"
        )
    return d_model // n_heads * n_kv_heads


def check_sizes(**sizes: int) -> None:
    """Sizes by name.

    Raises:
        ValueError: one is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}")
