"""Attention of all kinds, ours and other people's: time and memory against the number of tokens.

    make bench, or: python -m benchmarks.attention --save

Each table is a contest. Those who compute the same are first held to it, then all take turns at the clock.
"reading" is a forward pass without gradients, "learning" one forward and backward. Exponents are slopes in
log-log: 1 is linear, 2 is quadratic. Ratios travel from machine to machine better than milliseconds do.
On a GPU the kernels are measured as well, against PyTorch's own. FlexAttention is compiled, on a CPU too,
which takes a C++ compiler and a minute for each size; --eager leaves it as it is without one: slow.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks import peer_layers
from benchmarks.measure import RESULTS, circumstances, medians, peak_bytes
from transformer_lab import device, plots
from transformer_lab.attention import MultiHeadAttention, attention
from transformer_lab.efficient import fitted_exponent
from transformer_lab.efficient.caches import GroupedQueryAttention, LatentAttention
from transformer_lab.efficient.flash import flash_attention
from transformer_lab.efficient.linear import linear_attention
from transformer_lab.efficient.selective_scan import MambaBlock, parallel_scan, scan
from transformer_lab.efficient.sliding_window import WindowAttention, sliding_window_attention
from transformer_lab.masks import causal_mask, sliding_window_mask

HEADS, WIDTH, WINDOW = 2, 64, 256  # heads, width of a head, window
CHANNELS = 64  # of a scan
D_MODEL = HEADS * WIDTH
TILE = 256  # rows and columns: Python walks over the tiles, so they are large
# FlexAttention learns on a GPU only; Hugging Face's Mamba, without its kernels, in minutes and in gigabytes.
ON_GPU_ONLY = ("flex", "MambaMixer")
Runs = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True)
class Contest:
    """Who takes part, at which sizes.

    Args:
        title: what is compared; make: (tokens, device) -> the runs by name, the reference first.
        sizes: numbers of tokens on a CPU; equal: groups of names that compute the same.
        learns: whether there is a backward pass to be measured.
    """

    title: str
    make: Callable[[int, torch.device], Runs]
    sizes: tuple[int, ...]
    equal: tuple[tuple[str, ...], ...] = ()
    learns: bool = True


# --- who takes part ------------------------------------------------------------------------------


def drawn(*shape: int, where: torch.device) -> Tensor:
    """Half precision on a GPU, as there everybody computes."""
    kind = torch.bfloat16 if where.type == "cuda" else torch.float32
    return torch.randn(shape, device=where, dtype=kind).requires_grad_()


def flex(where: torch.device, **about: object) -> Callable[..., Tensor]:
    """FlexAttention, which has no backward pass on a CPU."""
    compiled = torch.compile(flex_attention, dynamic=False)

    def run(*tensors: Tensor) -> Tensor:
        if where.type == "cpu":
            tensors = tuple(t.detach() for t in tensors)
        with warnings.catch_warnings():  # it says that it is slow where it is not compiled
            warnings.simplefilter("ignore")
            return compiled(*tensors, **about)

    return run


def exact(n: int, where: torch.device) -> Runs:
    q, k, v = (drawn(1, HEADS, n, WIDTH, where=where) for _ in range(3))
    flexible = flex(where)
    runs = {
        "F.scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(q, k, v),
        "attention, the formula": lambda: attention(q, k, v)[0],
        "flash_attention, tiles in Python": lambda: flash_attention(q, k, v, block_q=TILE, block_k=TILE),
        "flex_attention": lambda: flexible(q, k, v),
    }
    if where.type == "cuda":
        from transformer_lab.efficient import flash_kernels

        runs["flash_kernels.flash_attention"] = lambda: flash_kernels.flash_attention(q, k, v)
    return runs


def modules(n: int, where: torch.device) -> Runs:
    x = drawn(4, n, D_MODEL, where=where)
    ours = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS).to(x)
    theirs = nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True).to(x)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([p.weight for p in (ours.q_proj, ours.k_proj, ours.v_proj)]),
            "in_proj_bias": torch.cat([p.bias for p in (ours.q_proj, ours.k_proj, ours.v_proj)]),
            "out_proj.weight": ours.out_proj.weight,
            "out_proj.bias": ours.out_proj.bias,
        }
    )
    return {
        "nn.MultiheadAttention": lambda: theirs(x, x, x, need_weights=False)[0],
        "MultiHeadAttention": lambda: ours(x, x),
    }


def windows(n: int, where: torch.device) -> Runs:
    q, k, v = (drawn(1, HEADS, n, WIDTH, where=where) for _ in range(3))
    band = sliding_window_mask(n, WINDOW, device=where)
    blocks = create_block_mask(
        lambda b, h, i, j: (i - j).abs() <= WINDOW // 2, None, None, n, n, device=where
    )
    flexible = flex(where, block_mask=blocks)
    return {
        "F.scaled_dot_product_attention, all keys": lambda: F.scaled_dot_product_attention(q, k, v),
        "F.scaled_dot_product_attention, masked": lambda: F.scaled_dot_product_attention(q, k, v, band),
        "flex_attention, masked": lambda: flexible(q, k, v),
        "sliding_window_attention": lambda: sliding_window_attention(q, k, v, window=WINDOW),
    }


def longformers(n: int, where: torch.device) -> Runs:
    x = drawn(1, n, D_MODEL, where=where)
    ours = WindowAttention(d_model=D_MODEL, n_heads=HEADS, window=WINDOW).to(x)
    theirs = peer_layers.longformer(ours)
    ours.out_proj = nn.Identity()  # theirs stands outside of the class
    kinds = torch.zeros(1, n, device=where)  # no padding, no global token
    about = {
        "attention_mask": kinds.to(x.dtype),
        "is_index_masked": kinds < 0,
        "is_index_global_attn": kinds > 0,
        "is_global_attn": False,
    }
    return {
        "Hugging Face's LongformerSelfAttention": lambda: theirs(x, **about)[0],
        "WindowAttention": lambda: ours(x),
    }


def linear(n: int, where: torch.device) -> Runs:
    q, k, v = (drawn(1, HEADS, n, WIDTH, where=where) for _ in range(3))
    return {
        "F.scaled_dot_product_attention, causal": lambda: F.scaled_dot_product_attention(
            q, k, v, is_causal=True
        ),
        "attention, the formula, causal": lambda: attention(q, k, v, causal_mask(n, device=where))[0],
        "linear_attention, another function": lambda: linear_attention(q, k, v),
    }


def scans(n: int, where: torch.device) -> Runs:
    new = drawn(1, n, CHANNELS, where=where)
    decay = drawn(1, n, CHANNELS, where=where).detach().sigmoid().requires_grad_()
    runs = {"scan, a loop": lambda: scan(decay, new), "parallel_scan": lambda: parallel_scan(decay, new)}
    if where.type == "cuda":
        from transformer_lab.efficient import scan_kernels

        runs["scan_kernels.scan"] = lambda: scan_kernels.scan(decay, new)
    return runs


def mambas(n: int, where: torch.device) -> Runs:
    x = drawn(1, n, D_MODEL, where=where)
    ours = MambaBlock(d_model=D_MODEL).to(x)
    theirs = peer_layers.mamba(ours)
    return {
        "Hugging Face's MambaMixer, without its kernels": lambda: theirs(x),
        "MambaBlock": lambda: ours(x),
    }


@torch.no_grad()
def without_cache(layer: MultiHeadAttention, x: Tensor) -> Tensor:
    """Each token is written by reading all before it again."""
    last = [
        layer(x[:, : t + 1], x[:, : t + 1], causal_mask(t + 1, device=x.device))[:, -1:]
        for t in range(x.shape[1])
    ]
    return torch.cat(last, dim=1)


@torch.no_grad()
def in_steps(layer: nn.Module, x: Tensor, *room: int) -> Tensor:
    """Token by token, with what the layer keeps of those before."""
    kept = layer.start(len(x), *room)
    return torch.cat([layer.step(x[:, t : t + 1], kept) for t in range(x.shape[1])], dim=1)


def writing(n: int, where: torch.device) -> Runs:
    x = drawn(1, n, D_MODEL, where=where).detach()
    full = GroupedQueryAttention(d_model=D_MODEL, n_heads=HEADS, n_kv_heads=HEADS).to(x)
    again = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS).to(x)
    again.load_state_dict(full.state_dict())
    single = GroupedQueryAttention(d_model=D_MODEL, n_heads=HEADS, n_kv_heads=1).to(x)
    latent = LatentAttention(d_model=D_MODEL, n_heads=HEADS, d_head=WIDTH, d_latent=64, d_rope=32).to(x)
    mamba = MambaBlock(d_model=D_MODEL).to(x)
    return {
        "without a cache": lambda: without_cache(again, x),
        "with a cache": lambda: in_steps(full, x, n),
        "with a cache, one key/value head": lambda: in_steps(single, x, n),
        "with a cache of latents": lambda: in_steps(latent, x, n),
        "MambaBlock": lambda: in_steps(mamba, x),
    }


CONTESTS = {
    "exact": Contest(
        "Exact attention: the same function, on different ways",
        exact,
        (1024, 2048, 4096, 8192),
        equal=(
            (
                "F.scaled_dot_product_attention",
                "attention, the formula",
                "flash_attention, tiles in Python",
                "flex_attention",
                "flash_kernels.flash_attention",
            ),
        ),
    ),
    "modules": Contest(
        "Multi-head attention, as a module, 4 sequences",
        modules,
        (64, 256, 1024),
        equal=(("nn.MultiheadAttention", "MultiHeadAttention"),),
    ),
    "windows": Contest(
        f"A window of {WINDOW} tokens",
        windows,
        (1024, 2048, 4096, 8192),
        equal=(
            (
                "F.scaled_dot_product_attention, masked",
                "flex_attention, masked",
                "sliding_window_attention",
            ),
        ),
    ),
    "longformers": Contest(
        f"A window of {WINDOW} tokens, as a module",
        longformers,
        (1024, 2048, 4096, 8192),
        equal=(("Hugging Face's LongformerSelfAttention", "WindowAttention"),),
    ),
    "linear": Contest("Linear attention", linear, (1024, 2048, 4096, 8192)),
    "scans": Contest(
        f"A scan of {CHANNELS} channels",
        scans,
        (512, 1024, 2048, 4096),
        equal=(("scan, a loop", "parallel_scan", "scan_kernels.scan"),),
    ),
    "mambas": Contest(
        "Mamba's block",
        mambas,
        (512, 1024, 2048, 4096),
        equal=(("Hugging Face's MambaMixer, without its kernels", "MambaBlock"),),
    ),
    "writing": Contest(
        "Writing n tokens, one at a time, with one layer of attention",
        writing,
        (128, 256, 512, 1024),
        equal=(("without a cache", "with a cache"),),
        learns=False,
    ),
}


# --- what is measured ----------------------------------------------------------------------------


@torch.no_grad()
def check(contest: Contest, where: torch.device) -> None:
    """Raises AssertionError where two that should compute the same do not."""
    torch.manual_seed(0)
    found = {name: run() for name, run in contest.make(contest.sizes[0], where).items()}
    near = 3e-2 if where.type == "cuda" else 1e-4  # bfloat16 has 8 bits
    for names in contest.equal:
        there = [name for name in names if name in found]
        for one, other in pairwise(there):
            message = lambda m, pair=(one, other): f"{pair[0]} and {pair[1]}: {m}"  # noqa: E731
            torch.testing.assert_close(found[one], found[other], rtol=near, atol=near, msg=message)


@torch.no_grad()
def read(run: Callable[[], Tensor]) -> None:
    run()


def learn(run: Callable[[], Tensor]) -> None:
    run().sum().backward()


def measured(
    contest: Contest, way: Callable[[Callable[[], Tensor]], None], where: torch.device, repeats: int
) -> dict[str, dict[str, list[float]]]:
    """By name: "ms" and "bytes", a number for each size; without those who have no backward pass here."""
    found: dict[str, dict[str, list[float]]] = {}
    for n in contest.sizes:
        torch.manual_seed(0)
        runs = {name: partial(way, run) for name, run in contest.make(n, where).items()}
        if way is learn and where.type == "cpu":
            runs = {name: run for name, run in runs.items() if not any(word in name for word in ON_GPU_ONLY)}
        times = medians(runs, where, repeats)
        for name, run in runs.items():
            row = found.setdefault(name, {"ms": [], "bytes": []})
            row["ms"].append(times[name])
            row["bytes"].append(peak_bytes(run, where))
    return found


def markdown(contest: Contest, found: dict[str, dict[str, list[float]]]) -> str:
    sizes = contest.sizes
    head = ["", *(f"ms at {n}" for n in sizes), "exponent", f"MiB at {sizes[-1]}", "exponent"]
    lines = [head, ["---"] * len(head)]
    for name, row in found.items():
        lines.append(
            [
                name,
                *(f"{ms:.2f}" for ms in row["ms"]),
                f"{fitted_exponent(sizes, row['ms']):.2f}",
                f"{row['bytes'][-1] / 2**20:.1f}",
                f"{fitted_exponent(sizes, row['bytes']):.2f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(name: str, where: torch.device, repeats: int) -> tuple[str, dict]:
    """The tables of one contest, and what they hold, by "reading" and "learning"."""
    contest = CONTESTS[name]
    check(contest, where)
    ways = {"reading": read} | ({"learning": learn} if contest.learns else {})
    found = {way: measured(contest, f, where, repeats) for way, f in ways.items()}
    tables = [f"{way}:\n\n{markdown(contest, rows)}" for way, rows in found.items()]
    return "\n\n".join([f"## {contest.title}", *tables]), found


def verdicts(found: dict[str, dict]) -> str:
    """What the tables come to, for the claims that the book makes."""
    lines = []
    if "windows" in found:
        rows, sizes = found["windows"]["reading"], CONTESTS["windows"].sizes
        ours, all_keys = (
            rows["sliding_window_attention"]["ms"],
            rows["F.scaled_dot_product_attention, all keys"]["ms"],
        )
        lines.append(
            f"Reading with a window: exponent {fitted_exponent(sizes, ours):.2f};"
            f" at {sizes[-1]} tokens {all_keys[-1] / ours[-1]:.1f} times as fast as PyTorch's with all keys."
        )
    if "exact" in found:
        rows, sizes = found["exact"]["learning"], CONTESTS["exact"].sizes
        tiles, formula = (
            fitted_exponent(sizes, rows[name]["bytes"])
            for name in ("flash_attention, tiles in Python", "attention, the formula")
        )
        lines.append(f"Memory of learning: exponent {tiles:.2f} by tiles, {formula:.2f} by the formula.")
    if "scans" in found:
        rows, n = found["scans"]["reading"], CONTESTS["scans"].sizes[-1]
        for name in list(rows)[1:]:
            times = rows["scan, a loop"]["ms"][-1] / rows[name]["ms"][-1]
            lines.append(f"{name} at {n} tokens: {times:.1f} times as fast as the loop.")
    if "writing" in found:
        rows, sizes = found["writing"]["reading"], CONTESTS["writing"].sizes
        lines.append(
            "Writing n tokens: exponents "
            + ", ".join(f"{fitted_exponent(sizes, row['ms']):.2f} {name}" for name, row in rows.items())
            + "."
        )
    return "\n".join(f"- {line}" for line in lines)


def figure(found: dict[str, dict]) -> plt.Figure:
    """Time against tokens, reading, a panel for each contest."""
    plots.use_house_style()
    drawing, axes = plots.panels(len(found), width=7.0, height=2.6 * len(found), stacked=True)
    for ax, (name, ways) in zip(axes, found.items(), strict=True):
        for label, row in ways["reading"].items():
            ax.loglog(CONTESTS[name].sizes, row["ms"], marker="o", markersize=3, label=label)
        ax.set(title=CONTESTS[name].title, xlabel="tokens", ylabel="ms")
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawing


# --- kernels, on a GPU ---------------------------------------------------------------------------


def kernels(
    where: torch.device,
    *,
    sizes: tuple[int, ...] = (4096, 16384),
    widths: tuple[int, ...] = (64, 128),
    heads: int = 16,
    tiles: tuple[tuple[int, int], ...] = ((64, 64), (128, 64), (64, 128), (128, 128)),
    peer: SDPBackend = SDPBackend.FLASH_ATTENTION,
    repeats: int = 20,
) -> str:
    """Our Triton kernels against PyTorch's flash back end, by tiles: its time over ours, both ways.

    All heads of one sequence, causal, in bfloat16 on a GPU.
    """
    from triton.runtime.errors import OutOfResources

    from transformer_lab.efficient import flash_kernels

    lines = [
        "| tokens | Dh | tile | forward: PyTorch's ms / ours | backward: PyTorch's ms / ours |",
        "|---|---|---|---|---|",
    ]
    for n, width, (block_q, block_k) in product(sizes, widths, tiles):
        inputs = [drawn(1, heads, n, width, where=where) for _ in range(3)]
        tile = {"block_q": block_q, "block_k": block_k}
        runs = {
            "ours": partial(flash_kernels.flash_attention, *inputs, causal=True, **tile),
            "theirs": partial(by_backend, peer, *inputs),
        }
        try:
            times = [
                medians({name: way(run, inputs) for name, run in runs.items()}, where, repeats)
                for way in (forwards, backwards)
            ]
            cells = [f"{took['theirs'] / took['ours']:.2f}" for took in times]
        except OutOfResources:  # the fast memory does not hold such a tile
            cells = ["too large", "too large"]
        lines.append(f"| {n} | {width} | {block_q} x {block_k} | {' | '.join(cells)} |")
    return "\n".join([f"## Kernels, causal, {heads} heads", "", *lines])


def by_backend(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def forwards(run: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], None]:
    return partial(read, run)


def backwards(run: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    output = run()
    return partial(torch.autograd.grad, output, inputs, torch.ones_like(output), retain_graph=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention of all kinds: time and memory against tokens.")
    parser.add_argument("contests", nargs="*", help=f"of {', '.join(CONTESTS)}; none names all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="do not compile FlexAttention")
    parser.add_argument(
        "--save", action="store_true", help="also write table and plot to benchmarks/results/"
    )
    options = parser.parse_args()
    if options.eager:
        torch.compiler.set_stance("force_eager")
    where = device()
    found, parts = {}, [circumstances(where, "transformers")]
    for name in options.contests or CONTESTS:
        text, found[name] = report(name, where, options.repeats)
        parts.append(text)
        print(text, flush=True)
    parts.insert(1, verdicts(found))
    if where.type == "cuda":
        parts.append(kernels(where))
    print("\n\n".join([parts[0], parts[1], *parts[len(found) + 2 :]]))
    if options.save:
        (RESULTS / f"attention-{where.type}.md").write_text("\n\n".join(parts) + "\n")
        figure(found).savefig(RESULTS / f"attention-{where.type}.png", dpi=90)


if __name__ == "__main__":
    main()
