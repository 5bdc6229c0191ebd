"""benchmarks/training.py, peers.py: all contestants compute the same; the tables say what was measured."""

import re
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure, training
from benchmarks.peers import HuggingFace, TorchTransformer, XTransformers
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.generation import greedy
from transformer_lab.training.loop import Trainer

CPU = torch.device("cpu")
SMALL = TransformerConfig(
    vocab_size=19, d_model=16, n_heads=4, n_layers=2, d_ff=24, norm="pre", dropout=0.0, max_len=32
)
SIZE = training.Size(config=SMALL, sentences=6, longest=8, written=7)
TINY = training.SIZES["tiny"]
peers = pytest.mark.parametrize("kind", training.PEERS.values(), ids=lambda kind: kind.__name__)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pair_of(kind, seed=0):
    """Ours, with weights that say something, and a peer that has them."""
    torch.manual_seed(seed)
    ours = Transformer(SMALL)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter *= 4  # else each token is followed by itself
            elif "norm" in name and name.endswith("weight"):
                parameter += torch.randn_like(parameter) / 4
            elif kind is not XTransformers:  # which has no such biases
                parameter += torch.randn_like(parameter) / 10
        ours.embed.weight[:3] = 0  # nobody ends
    theirs = kind(SMALL).to(ours.embed.weight.dtype)
    theirs.load(ours)
    return ours.eval(), theirs.eval()


# --- the peers -----------------------------------------------------------------------------------


@peers
def test_with_our_weights_a_peer_gives_our_scores_and_our_gradient(kind, float64):
    ours, theirs = pair_of(kind)
    source, target = training.batch(SIZE, CPU)
    real = target != 0
    assert not real.all() and not (source != 0).all()
    a, b = ours(source, target)[real], theirs(source, target)[real]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    for scores in (a, b):
        scores.square().sum().backward()
    first = {TorchTransformer: "embed", HuggingFace: "model.model.shared"}
    if kind in first:  # x-transformers does not scale its embedding: the gradient is another
        its = theirs.get_submodule(first[kind]).weight.grad
        torch.testing.assert_close(its[3:], ours.embed.weight.grad[3:], rtol=0, atol=1e-10)


@peers
def test_a_peer_writes_what_greedy_search_does(kind, float64):
    ours, theirs = pair_of(kind)
    source = training.batch(SIZE, CPU)[0][:3]
    written = greedy(ours, source, max_len=9)
    assert written.shape == (3, 9) and len(set(written.flatten().tolist())) > 3
    assert torch.equal(theirs.write(source, max_len=9), written)


@peers
def test_a_peer_has_as_many_weights_as_ours(kind):
    ours, theirs = pair_of(kind)
    numbers = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (ours, theirs)]
    biases = 0
    if kind is XTransformers:  # of attention, and of all norms
        modules = [m for m in ours.modules() if isinstance(m, nn.LayerNorm)]
        modules += [m for name, m in ours.named_modules() if re.search(r"attention\..*_proj", name)]
        biases = sum(m.bias.numel() for m in modules)
    assert numbers[0] - numbers[1] == biases


@peers
def test_a_peer_drops_as_much_as_ours_at_the_same_places(kind, monkeypatch):
    dropped, plain = [], F.dropout

    def noted(x, p=0.5, training=True, inplace=False):
        if p and training:
            dropped.append((tuple(x.shape), p))
        return plain(x, p, training, inplace)

    def no_weight(*args, dropout_p=0.0, sdpa=F.scaled_dot_product_attention, **more):
        assert dropout_p == 0
        return sdpa(*args, **more)

    monkeypatch.setattr(F, "dropout", noted)
    monkeypatch.setattr(F, "scaled_dot_product_attention", no_weight)
    source, target = training.batch(SIZE, CPU)
    config = replace(SMALL, dropout=0.3)
    found = []
    for build in (Transformer, kind):
        build(config).train()(source, target[:, :5])
        found.append(dropped.copy())
        dropped.clear()
    assert found[0] == found[1] and len(found[0]) == 2 + 2 * (2 + 3)


def test_pytorch_s_rows_go_on_as_if_alone():
    model = TorchTransformer(SMALL).eval()
    source, target = training.batch(SIZE, CPU)
    index = torch.tensor([2, 0, 0])
    state = model.start(source)
    model.step(target[:, :2], state)
    further = model.step(target[index, 2:4], state.rows(index))
    torch.testing.assert_close(further, model(source[index], target[index, :4])[:, 2:])
    assert state.target.shape[1] == 2, "the branch must leave the tree as it was"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (HuggingFace, {"norm": "post", "final_norm": True}),
        (HuggingFace, {"final_norm": False}),
        (XTransformers, {"norm": "post"}),
        (XTransformers, {"final_norm": False}),
    ],
)
def test_what_a_peer_cannot_be_is_refused(kind, change):
    given = "norm='post'" if "norm" in change else "norm='pre' and final_norm=False"
    with pytest.raises(ValueError, match=given):
        kind(replace(SMALL, **change))


@peers
def test_every_peer_takes_the_activation_of_the_settings(kind):
    source, target = training.batch(SIZE, CPU)
    gelu = replace(SMALL, activation="gelu")
    torch.manual_seed(0)
    ours, theirs, other = Transformer(gelu).eval(), kind(gelu).eval(), kind(SMALL).eval()
    for model in (theirs, other):
        model.load(ours)
    real = target != 0
    torch.testing.assert_close(theirs(source, target)[real], ours(source, target)[real], rtol=0, atol=1e-4)
    assert not torch.allclose(other(source, target)[real], ours(source, target)[real], atol=1e-2)


# --- what is measured ----------------------------------------------------------------------------


def test_the_batch_has_sentences_of_half_the_length_up_to_all_of_it():
    source, target = training.batch(TINY, CPU)
    for side in (source, target):
        lengths = (side != 0).sum(dim=1)
        assert side.shape == (64, 12) and {6, 12} <= set(lengths.tolist()) <= set(range(6, 13))
        assert ((side != 0) == (torch.arange(12) < lengths[:, None])).all(), "padding stands at the end"
    assert (target[:, 0] == 1).all() and (target[:, 1:] != 1).all() and (source < 73).all()


def test_contestants_that_compute_something_else_are_found_out():
    models = training.contestants(SMALL, CPU)
    training.check(models, SIZE, CPU)
    with torch.no_grad():
        models["x-transformers"].encoder.attn_layers.final_norm.gamma += 0.1
    with pytest.raises(AssertionError, match=r"x-transformers: Tensor-likes are not close"):
        training.check(models, SIZE, CPU)

    models = training.contestants(SMALL, CPU)
    models["torch.nn.Transformer"].write = lambda source, max_len: torch.zeros(1, max_len, dtype=torch.long)
    with pytest.raises(AssertionError, match=r"torch.nn.Transformer writes other tokens"):
        training.check(models, SIZE, CPU)

    models = training.contestants(SMALL, CPU)
    with torch.no_grad():  # the end is as likely as what is likeliest, and comes before it
        models["ours"].embed.weight[2] = models["ours"].embed.weight[3:].mean(dim=0) + 2
        models["ours"].decoder_norm.bias += 1
    with pytest.raises(AssertionError, match="ours ended early"):
        training.check(models, SIZE, CPU)


@pytest.mark.parametrize("name", ["ours", *training.PEERS])
def test_a_step_is_one_of_the_training_loop(name):
    pair = training.batch(SIZE, CPU)
    model, same = (training.contestants(SMALL, CPU)[name] for _ in range(2))
    step = training.training_step(model, pair)
    before = training.translation_loss(model, pair).item()
    step()
    trainer = Trainer(same, lambda generator: [pair], training.TRAINING)
    trainer.train()
    shortened = 0.0
    for a, b in zip(model.parameters(), same.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad)
            shortened += a.grad.square().sum().item()
    assert shortened == pytest.approx(training.TRAINING.clip**2, rel=1e-4)
    for _ in range(20):
        step()
    assert training.translation_loss(model, pair).item() < 0.8 * before
    assert all(module.training for module in model.modules())


class Saves(nn.Module):
    """Scores of V = D numbers; ``f`` decides what the backward pass needs."""

    def __init__(self, f):
        super().__init__()
        self.config, self.f = SMALL, f
        self.embed, self.matrix = nn.Embedding(19, 19), nn.Parameter(torch.eye(19))

    def forward(self, source, target):
        return self.f(self.embed(target), self.matrix)


def test_what_is_saved_is_counted_once_and_without_the_weights():
    pair = training.batch(SIZE, CPU)
    one = 6 * 7 * 19 * 4  # bytes of (B, T, V) scores
    plain, square, product, copies = (
        training.saved_bytes(Saves(f), pair)
        for f in (
            lambda x, w: x + 0,
            lambda x, w: x * x,  # twice the same
            lambda x, w: x @ w,  # x, and a weight
            lambda x, w: x * x.clone(),
        )
    )
    assert (square - plain, product - plain, copies - plain) == (one, one, 2 * one)


def test_the_products_of_a_model_are_counted_as_pytorch_counts_them():
    model, pair = Transformer(TINY.config), training.batch(TINY, CPU)
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):  # it does not know all others
        training.translation_loss(model, pair).backward()
    assert training.flops(TINY.config, pair) == counter.get_total_flops()


# --- the tables ----------------------------------------------------------------------------------


def test_the_tables_hold_medians_and_their_ratios(monkeypatch, tmp_path, capsys):
    clock = {"ours": 4.0, "torch.nn.Transformer": 6.0, "x-transformers": 5.0, training.HUGGING_FACE: 10.0}
    monkeypatch.setattr(
        training, "medians", lambda runs, where, repeats: {name: clock[name] for name in runs}
    )
    monkeypatch.setitem(training.SIZES, "tiny", SIZE)
    monkeypatch.setattr(training, "device", lambda: CPU)
    monkeypatch.setattr(training, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["training", "--repeats", "7", "--save"])
    training.main()
    text = capsys.readouterr().out
    assert (tmp_path / "training-cpu.md").read_text() == text
    assert f"torch {torch.__version__}" in text and "x-transformers 2.31.10" in text and "median of 7" in text
    n_tokens = sum(int((side != 0).sum()) for side in training.batch(SIZE, CPU))
    rows = {
        name: re.findall(rf"^\| {name} \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", text, re.MULTILINE)
        for name in clock
    }
    assert rows["x-transformers"] == [("5.00", "1.25", f"{n_tokens / 0.005:,.0f}"), ("5.00", "1.25", "1,400")]
    assert [row[1] for row in rows[training.HUGGING_FACE]] == ["2.50", "2.50"]
    assert "The fastest peer, x-transformers, takes 1.25 times as long as ours." in text
    assert "Ours writes 2.50 times as fast as Hugging Face's." in text
    assert "| torch.nn.Transformer | 6.00 | 1.50 | 1,167 | no |" in text
    with_cache = re.findall(r"^\| (.*?) \|.*\| yes \|$", text, re.MULTILINE)
    assert with_cache == ["ours", "x-transformers", "Hugging Face's Pegasus"]


def test_medians_leave_out_the_warm_up_and_take_turns(monkeypatch):
    calls, given = [], iter([99.0] * 2 * measure.WARM_UP + [1.0, 5.0, 8.0, 6.0, 2.0, 9.0])
    monkeypatch.setattr(measure, "milliseconds", lambda run, where: run() or next(given))
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert measure.medians(runs, CPU, 3) == {"a": 2.0, "b": 6.0}
    assert calls == ["a", "b"] * (measure.WARM_UP + 3)


@pytest.mark.gpu
def test_on_a_gpu_the_share_of_its_peak_and_the_memory_are_given(monkeypatch):
    monkeypatch.setitem(training.SIZES, "tiny", SIZE)
    text = training.report("tiny", torch.device("cuda"), 2)
    shares = re.findall(r"([\d.]+)% \|$", text, re.MULTILINE)
    assert len(shares) == 4 and all(0 <= float(share) < 100 for share in shares)
    assert "memory of the step, MB" in text
