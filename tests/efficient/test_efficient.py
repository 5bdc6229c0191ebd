"""Costs: counted by the formulas as PyTorch counts them in the act; published figures; lines and roofs."""

import ast
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from transformer_lab import efficient
from transformer_lab.efficient import (
    A100,
    H100,
    Hardware,
    block_bytes,
    block_flops,
    cache_bytes,
    cache_numbers,
    crossover,
    fitted_exponent,
    roofline,
)
from transformer_lab.efficient.caches import GroupedQueryAttention, LatentAttention
from transformer_lab.feed_forward import FeedForward

MODELS = {  # D, F, H, G
    "multi-head": {"d_model": 24, "d_ff": 40, "n_heads": 6, "n_kv_heads": 6},
    "grouped": {"d_model": 24, "d_ff": 96, "n_heads": 6, "n_kv_heads": 2},
    "multi-query": {"d_model": 16, "d_ff": 8, "n_heads": 4, "n_kv_heads": 1},
}
models = pytest.mark.parametrize("sizes", MODELS.values(), ids=MODELS)


# --- counted in the act --------------------------------------------------------------------------


@models
@pytest.mark.parametrize(
    ("n_tokens", "n_queries", "n_batch"), [(5, None, 1), (9, None, 3), (9, 1, 2), (9, 4, 1)]
)
def test_flops_are_those_that_pytorch_counts(sizes, n_tokens, n_queries, n_batch):
    """Of our own modules: all tokens at once, or the last ones with a cache of those before."""
    D, F, H, G = sizes.values()
    attend = GroupedQueryAttention(d_model=D, n_heads=H, n_kv_heads=G)
    feed_forward = FeedForward(d_model=D, d_ff=F)
    x = torch.randn(n_batch, n_tokens, D)
    cache, n_new = attend.start(n_batch, n_tokens), n_queries or n_tokens
    if n_new < n_tokens:
        attend.step(x[:, :-n_new], cache)

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        feed_forward(attend.step(x[:, -n_new:], cache))
    counted = counter.get_flop_counts()["Global"]
    by_op = {str(op).split(".")[-1]: flops for op, flops in counted.items()}
    found = block_flops(n_tokens, **sizes, n_queries=n_queries, n_batch=n_batch)
    assert found["scores"] == by_op["bmm"]
    assert found["projections"] + found["feed-forward"] == counter.get_total_flops() - by_op["bmm"]
    assert found["feed-forward"] == flops_of(feed_forward, x[:, -n_new:])


def flops_of(module, x):
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


class Traffic(TorchDispatchMode):
    """Numbers that products read and write, and that a softmax does: for each matrix once."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if f in (aten.mm.default, aten.bmm.default, aten._softmax.default):
            self.numbers += out.numel() + sum(t.numel() for t in args if isinstance(t, torch.Tensor))
        return out


def traffic(run):
    with torch.no_grad(), Traffic() as counted:
        run()
    return counted.numbers


@pytest.mark.parametrize(
    "sizes", [MODELS["multi-head"], {"d_model": 8, "d_ff": 5, "n_heads": 2, "n_kv_heads": 1}]
)
@pytest.mark.parametrize(
    ("n_tokens", "n_queries", "n_batch"), [(5, None, 1), (9, None, 3), (9, 1, 2), (9, 4, 1)]
)
def test_bytes_are_those_of_the_products_in_the_act(sizes, n_tokens, n_queries, n_batch):
    D, F, H, G = sizes.values()
    T, S, Dh = n_queries or n_tokens, n_tokens, D // H
    x = torch.randn(n_batch, T, D)
    linear = {n: nn.Linear(*n, bias=False) for n in ((D, D), (D, G * Dh), (D, F), (F, D))}
    q = torch.randn(n_batch * G, H // G * T, Dh)  # the queries of a group read their keys together
    k = v = torch.randn(n_batch * G, S, Dh)
    wanted = {
        "projections": 2 * traffic(lambda: linear[D, D](x)) + 2 * traffic(lambda: linear[D, G * Dh](x)),
        "scores": traffic(lambda: (q @ k.mT).softmax(dim=-1) @ v),
        "feed-forward": traffic(lambda: linear[F, D](linear[D, F](x))),
    }
    about = {**sizes, "n_queries": n_queries, "n_batch": n_batch}
    assert block_bytes(n_tokens, **about, bytes_per_number=1) == wanted
    assert block_bytes(n_tokens, **about) == {part: 2 * n for part, n in wanted.items()}
    fused = block_bytes(n_tokens, **about, bytes_per_number=1, materialised=False)
    assert fused == wanted | {"scores": 2 * q.numel() + 2 * k.numel()}


# --- what follows from the counts ----------------------------------------------------------------


def test_the_chapter_s_numbers():
    """With F = 4 D: 24 n D² FLOPs against 4 n² D, which are equal at n = 6 D."""
    n, D = 100, 32
    parts = block_flops(n, d_model=D, d_ff=4 * D)
    assert parts == {"projections": 8 * n * D**2, "scores": 4 * n**2 * D, "feed-forward": 16 * n * D**2}
    assert crossover(512, 2048) == 6 * 512 and crossover(12288, 4 * 12288) == 73_728


@given(d_model=st.integers(1, 5000), d_ff=st.integers(1, 20000))
def test_at_the_crossover_scores_are_half_of_all(d_model, d_ff):
    n = crossover(d_model, d_ff)
    parts = block_flops(n, d_model=d_model, d_ff=d_ff)
    assert 2 * parts["scores"] == sum(parts.values())


def test_all_tokens_one_after_another_with_a_cache_cost_little_more_than_half_the_table():
    """Since no token looks at later ones."""
    about = {"d_model": 8, "d_ff": 32}
    steps = [block_flops(n, n_queries=1, **about) for n in range(1, 65)]
    at_once = block_flops(64, **about)
    assert sum(s["feed-forward"] for s in steps) == at_once["feed-forward"]
    assert sum(s["scores"] for s in steps) / at_once["scores"] == 65 / 128


def test_a_step_with_a_cache_moves_a_byte_for_each_flop_and_a_batch_helps_the_weights_only():
    about = {"d_model": 1024, "d_ff": 4096, "n_heads": 16, "n_queries": 1}

    def intensity(part, **change):
        flops, moved = (count(4096, **about | change) for count in (block_flops, block_bytes))
        return flops[part] / moved[part]

    for part in ("projections", "scores", "feed-forward"):
        assert intensity(part) == pytest.approx(1, rel=0.05)
    assert intensity("projections", n_batch=64) == pytest.approx(64, rel=0.15)
    assert intensity("scores", n_batch=64) == intensity("scores")
    assert intensity("scores", n_kv_heads=2) == pytest.approx(8, rel=0.25)


# --- what a cache keeps --------------------------------------------------------------------------


def test_published_caches():
    """DeepSeek-AI (2024), section 2.1.4: Dc = 4 Dh and Dr = Dh / 2 are as much as grouped queries with 2.25
    groups keep. Touvron et al. (2023), LLaMA 2, appendix A.2.1: 8 key/value heads for 64 query heads.
    """
    assert cache_numbers("latent", d_latent=4 * 128, d_rope=128 // 2) == 2.25 * 2 * 128
    llama = {"n_heads": 64, "n_kv_heads": 8, "d_head": 128}
    kept = {kind: cache_numbers(kind, **llama) for kind in ("multi-head", "grouped", "multi-query")}
    assert kept == {"multi-head": 16_384, "grouped": 2048, "multi-query": 256}
    assert cache_bytes(kept["grouped"], n_tokens=1, n_layers=80) == 320 * 2**10


def test_the_defaults_of_deepseek_v3_and_of_llama_keep_that_much():
    transformers = pytest.importorskip("transformers")
    v3 = transformers.DeepseekV3Config()
    assert cache_numbers("latent", d_latent=v3.kv_lora_rank, d_rope=v3.qk_rope_head_dim) == 576


def test_caches_keep_in_truth_what_is_counted():
    text = {"n_tokens": 7, "n_layers": 1, "n_batch": 3, "bytes_per_number": 4}
    sizes = {"n_heads": 6, "n_kv_heads": 2, "d_head": 4, "d_latent": 10, "d_rope": 2}
    for kind, n_kv_heads in (("multi-head", 6), ("grouped", 2), ("multi-query", 1)):
        ours = GroupedQueryAttention(d_model=24, n_heads=6, n_kv_heads=n_kv_heads)
        assert ours.start(3, 7).nbytes == cache_bytes(cache_numbers(kind, **sizes), **text)
    ours = LatentAttention(d_model=24, n_heads=6, d_head=4, d_latent=10, d_rope=2)
    assert ours.start(3, 7).nbytes == cache_bytes(cache_numbers("latent", **sizes), **text)


def test_a_cache_grows_with_each_of_its_sizes():
    assert cache_bytes(10, n_tokens=3, n_layers=5) == 300
    assert cache_bytes(10, n_tokens=3, n_layers=5, n_batch=7, bytes_per_number=0.5) == 525


# --- lines and roofs -----------------------------------------------------------------------------


@given(
    p=st.floats(-3, 3), c=st.floats(0.01, 100), sizes=st.sets(st.integers(1, 10_000), min_size=2, max_size=6)
)
def test_a_power_law_gives_back_its_exponent(p, c, sizes):
    sizes = sorted(sizes)
    assert fitted_exponent(sizes, [c * n**p for n in sizes]) == pytest.approx(p, abs=1e-6)


def test_the_line_is_that_of_least_squares():
    """1, 2 and 4 in steps of log 2 are 0, 1, 2; so 1, 8, 4 are 0, 3, 2: the slope is (2 - 0) / 2."""
    assert fitted_exponent([1, 2, 4], [1, 8, 4]) == pytest.approx(1)
    assert fitted_exponent([1, 2, 4, 8], [1, 8, 4, 8]) == pytest.approx(0.8)


@given(st.floats(0, 1e6))
def test_a_roof_has_two_sides(intensity):
    toy = Hardware("toy", flops_per_second=300.0, bytes_per_second=2.0)
    assert toy.ridge == 150
    reached = roofline(intensity, toy)
    assert reached == (2 * intensity if intensity <= 150 else 300)


def test_the_cards_are_those_of_the_datasheets():
    assert A100.name == "A100" and H100.name == "H100"
    assert A100.ridge == pytest.approx(153, abs=0.1) and H100.ridge == pytest.approx(295.4, abs=0.1)
    assert roofline(1.0, A100) == 2.039e12 and roofline(1e4, H100) == 989.5e12


def test_counting_loads_none_of_what_is_counted():
    """This module is loaded before each of the others."""
    tree = ast.parse(Path(efficient.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert names and {name.split(".")[0] for name in names} <= sys.stdlib_module_names


# --- bad input -----------------------------------------------------------------------------------

BLOCK = {"n_tokens": 4, "d_model": 8, "d_ff": 16, "n_heads": 4, "n_kv_heads": 2, "n_queries": 1, "n_batch": 1}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BLOCK)
@pytest.mark.parametrize("count", [block_flops, block_bytes])
def test_a_block_of_no_size_is_told(count, name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        count(**BLOCK | {name: 0})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "got"), [({"n_heads": 6}, "8, 6 and 2"), ({"n_kv_heads": 3}, "8, 4 and 3")]
)
@pytest.mark.parametrize("count", [block_flops, block_bytes])
def test_heads_that_do_not_divide_each_other_are_told(count, change, got):
    with pytest.raises(ValueError, match=f"multiple of n_heads, and that one of n_kv_heads, got {got}"):
        count(**BLOCK | change)


@pytest.mark.bad_input
def test_other_bad_input_says_what_was_wrong():
    for call, match in (
        (lambda: block_bytes(**BLOCK, bytes_per_number=0), "bytes_per_number must be 1 or more, got 0"),
        (lambda: crossover(0, 8), "d_model must be 1 or more, got 0"),
        (lambda: crossover(8, -1), "d_ff must be 1 or more, got -1"),
        (lambda: Hardware("toy", 0.0, 1.0), "flops_per_second must be positive, got 0.0"),
        (lambda: Hardware("toy", 1.0, float("nan")), "bytes_per_second must be positive, got nan"),
        (lambda: roofline(-1.0, A100), "intensity must be 0 or more FLOPs per byte, got -1.0"),
        (lambda: fitted_exponent([1, 2], [3]), "got 2 sizes and 1 values"),
        (lambda: fitted_exponent([2, 2], [3, 4]), "two different sizes or more"),
        (lambda: fitted_exponent([1, 2], [0, 1]), "must be positive, since their logarithms"),
        (lambda: cache_numbers("paged", d_head=4), "multi-query, latent; got 'paged'"),
        (lambda: cache_numbers("grouped", d_head=4), "from n_kv_heads and d_head, n_kv_heads is missing"),
        (lambda: cache_numbers("latent", d_latent=4), "from d_latent and d_rope, d_rope is missing"),
        (lambda: cache_numbers("multi-query", d_head=0), "d_head must be 1 or more, got 0"),
        (lambda: cache_bytes(0, n_tokens=1, n_layers=1), "numbers must be 1 or more, got 0"),
        (lambda: cache_bytes(1, n_tokens=0, n_layers=1), "n_tokens must be 1 or more, got 0"),
        (lambda: cache_bytes(1, n_tokens=1, n_layers=0), "n_layers must be 1 or more, got 0"),
        (lambda: cache_bytes(1, n_tokens=1, n_layers=1, n_batch=0), "n_batch must be 1 or more, got 0"),
        (
            lambda: cache_bytes(1, n_tokens=1, n_layers=1, bytes_per_number=0),
            "bytes_per_number must be positive, got 0",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
