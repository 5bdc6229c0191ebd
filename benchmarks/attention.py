"""Our attention against PyTorch's, in one run on one machine.

    make bench, or: python benchmarks/attention.py --save

The formula line by line (which gives the weights, too) stands against PyTorch's fused kernel, our multi-head
module (which uses that kernel) against PyTorch's. They take turns, so that a busy moment hits all alike;
the table holds the median of the repeats. Ratios travel from machine to machine better than milliseconds do.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch.nn import functional as F

from transformer_lab import device
from transformer_lab.attention import MultiHeadAttention, attention

RESULTS = Path(__file__).parent / "results"
BATCH, HEADS, WIDTH = 4, 8, 256
WARM_UP = 2  # rounds that do not count


def milliseconds(run: Callable[[], torch.Tensor], where: torch.device) -> float:
    start = time.perf_counter()
    run().sum().backward()
    if where.type == "cuda":  # a GPU is given work and goes on alone: wait for it
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def contestants(tokens: int, where: torch.device) -> dict[str, Callable[[], torch.Tensor]]:
    shape = (BATCH, HEADS, tokens, WIDTH // HEADS)
    q, k, v = (torch.randn(shape, device=where, requires_grad=True) for _ in range(3))
    x = torch.randn(BATCH, tokens, WIDTH, device=where, requires_grad=True)
    ours = MultiHeadAttention(d_model=WIDTH, n_heads=HEADS).to(where)
    theirs = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, device=where)
    return {
        "attention, the formula": lambda: attention(q, k, v)[0],
        "F.scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(q, k, v),
        "MultiHeadAttention": lambda: ours(x, x),
        "nn.MultiheadAttention": lambda: theirs(x, x, x, need_weights=False)[0],
    }


def medians(tokens: int, where: torch.device, repeats: int) -> dict[str, float]:
    runs = contestants(tokens, where)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(WARM_UP + repeats):
        for name, run in runs.items():
            took = milliseconds(run, where)
            if repeat >= WARM_UP:
                times[name].append(took)
    return {name: statistics.median(taken) for name, taken in times.items()}


def table(where: torch.device, sizes: list[int], repeats: int) -> str:
    machine = torch.cuda.get_device_name() if where.type == "cuda" else platform.machine()
    lines = [
        f"{date.today()}, {where.type} ({machine}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}",
        f"batch {BATCH}, {HEADS} heads, D = {WIDTH}, float32; forward and backward, median of {repeats}",
        "",
        "| tokens | ours | ms | PyTorch's | ms | ours / PyTorch's |",
        "|---|---|---|---|---|---|",
    ]
    for tokens in sizes:
        pairs = list(medians(tokens, where, repeats).items())
        for (our_name, our), (name, their) in zip(pairs[::2], pairs[1::2], strict=True):
            lines.append(f"| {tokens} | {our_name} | {our:.2f} | {name} | {their:.2f} | {our / their:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Our attention against PyTorch's.")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--save", action="store_true", help="also write the table to benchmarks/results/")
    options = parser.parse_args()
    where = device()
    text = table(where, options.tokens, options.repeats)
    print(text, end="")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"attention-{where.type}.md").write_text(text)


if __name__ == "__main__":
    main()
