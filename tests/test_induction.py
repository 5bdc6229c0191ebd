"""A run that can be watched and changed: equal to the model, and every edit to a plain recomputation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from transformer_lab.induction import (
    after_earlier_copy,
    cut,
    earlier_copy,
    induction_score,
    knock_out,
    logit_difference,
    logit_lens,
    patch,
    previous_token_score,
    same_token_score,
    trace,
)
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])


def build(seed=0, **settings):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 10, "d_model": 8, "n_heads": 2, "d_ff": 0, "positions": "learned", "tied": False}
    return LanguageModel(LanguageModelConfig(**sizes | settings)).double()


def gradients(logits, model):
    upstream = torch.arange(logits.numel(), dtype=logits.dtype).sin().view_as(logits)
    parameters = list(model.parameters())
    return torch.autograd.grad((logits * upstream).sum(), parameters, materialize_grads=True)


# --- trace -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        *({"positions": way} for way in ("none", "sinusoidal", "learned", "rope", "alibi")),
        *({"norm": norm} for norm in ("pre", "post", "none")),
        {"d_ff": 12},
        {"d_ff": 12, "norm": "post"},
        {"causal": False},
        {"tied": True},
        {"n_layers": 3, "n_heads": 4},
        {"n_layers": 1, "n_heads": 1},
    ],
    ids=str,
)
def test_a_run_without_edits_is_the_model_in_values_and_gradients(change):
    model = build(**change)
    ours, wanted = trace(model, TOKENS)["logits"], model(TOKENS)
    assert_close(ours, wanted, rtol=0, atol=1e-10)
    assert_close(gradients(ours, model), gradients(wanted, model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_the_weights_and_streams_are_those_of_the_model(norm):
    model = build(norm=norm)
    run, x = trace(model, TOKENS), model.embedded(TOKENS)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    for number, layer in enumerate(model.layers):
        assert_close(run[f"stream.{number}"], x)
        h = layer.around_attention.norm(x) if norm == "pre" else x
        assert_close(run[f"weights.{number}"], layer.attention.weights(h, h, mask))
        x = layer(x, mask)
    assert_close(run["stream.2"], x)


def test_the_stream_is_a_sum_of_what_the_heads_write():
    model = build(norm="none")
    run = trace(model, TOKENS)
    biases = sum(layer.attention.out_proj.bias for layer in model.layers)
    total = run["stream.0"] + run["out.0"].sum(dim=1) + run["out.1"].sum(dim=1) + biases
    assert_close(run["stream.2"], total)


def test_an_edit_changes_what_follows_and_nothing_before():
    model = build()
    plain = trace(model, TOKENS)
    for place in plain:
        changed = trace(model, TOKENS, {place: lambda x: x + 1.0 * (torch.arange(x.shape[-1]) == 0)})
        before = list(plain)[: list(plain).index(place)]
        assert all(torch.equal(changed[name], plain[name]) for name in before), place
        assert not torch.allclose(changed["logits"], plain["logits"]), place


def test_queries_keys_and_values_read_each_for_themselves():
    model = build(norm="none")
    plain = trace(model, TOKENS)
    for name, same in (("q", ("k", "v")), ("k", ("q", "v")), ("v", ("q", "k"))):
        run = trace(model, TOKENS, {f"{name}_in.1": lambda x: 2 * x})
        assert all(torch.equal(run[f"{other}_in.1"], plain[f"{other}_in.1"]) for other in same)
        assert torch.equal(run["weights.1"], plain["weights.1"]) == (name == "v")
        assert not torch.allclose(run["out.1"], plain["out.1"])


# --- edits against plain recomputation -------------------------------------------------------------


def plain_model(model, tokens, *, gone=(), fill=None, unread=()):
    """Loops over tokens and heads, weights read from the model: no hook, no einsum.

    gone: heads that add nothing, or what ``fill`` says, (layer, head) -> (T, D).
    unread: (what, writer, reader): that reader's q, k or v does not see what the writer wrote.
    """
    wrote, logits = {}, []
    for b, row in enumerate(tokens):
        n = len(row)
        x = [model.embed.weight[i] * 8**0.5 + model.learned.table.weight[t] for t, i in enumerate(row)]
        for number, layer in enumerate(model.layers):
            part, added = layer.attention, [torch.zeros(8, dtype=torch.float64) for _ in x]
            for h in range(2):
                cuts = [(what, writer) for what, writer, reader in unread if reader == (number, h)]
                rows_of = slice(4 * h, 4 * h + 4)
                read = {}
                for name in ("q", "k", "v"):
                    lost = [wrote[b, writer] for what, writer in cuts if what == name]
                    read[name] = [x[t] - sum(rows[t] for rows in lost) for t in range(n)]
                q, k, v = (
                    [
                        getattr(part, f"{name}_proj").weight[rows_of] @ r
                        + getattr(part, f"{name}_proj").bias[rows_of]
                        for r in read[name]
                    ]
                    for name in ("q", "k", "v")
                )
                wrote[b, (number, h)] = []
                for t in range(n):
                    e = [torch.exp(q[t] @ k[s] / math.sqrt(4)) for s in range(t + 1)]
                    z = sum(e[s] / sum(e) * v[s] for s in range(t + 1))
                    out = part.out_proj.weight[:, rows_of] @ z
                    if (number, h) in gone:
                        out = torch.zeros_like(out) if fill is None else fill[number, h][t]
                    wrote[b, (number, h)].append(out)
                    added[t] = added[t] + out
            x = [x[t] + added[t] + part.out_proj.bias for t in range(n)]
        logits.append(torch.stack([model.scores.weight @ y for y in x]))
    return torch.stack(logits)


HEADS = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("heads", [[], *([h] for h in HEADS), [(0, 1), (1, 1)], [(1, 0), (1, 1)]], ids=str)
def test_a_knocked_out_head_adds_nothing(heads):
    model = build(norm="none")
    ours = trace(model, TOKENS, knock_out(heads))["logits"]
    wanted = plain_model(model, TOKENS, gone=heads)
    assert_close(ours, wanted, rtol=0, atol=1e-10)
    assert_close(gradients(ours, model), gradients(wanted, model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("heads", [[(0, 1)], [(0, 0), (1, 1)]], ids=str)
def test_or_it_adds_what_it_adds_on_average(heads):
    model = build(norm="none")
    others = torch.randint(10, (7, 6), generator=torch.Generator().manual_seed(0))
    fill = trace(model, others)
    means = {(layer, h): fill[f"out.{layer}"][:, h].mean(0) for layer, h in HEADS}
    ours = trace(model, TOKENS, knock_out(heads, fill))["logits"]
    assert_close(ours, plain_model(model, TOKENS, gone=heads, fill=means), rtol=0, atol=1e-10)


@pytest.mark.parametrize("reads", ["q", "k", "v"])
@pytest.mark.parametrize("writers", [[(0, 0)], [(0, 0), (0, 1)]], ids=str)
@pytest.mark.parametrize("readers", [[(1, 1)], [(1, 0), (1, 1)]], ids=str)
def test_a_cut_path_is_not_read_and_all_others_are(reads, writers, readers):
    model = build(norm="none")
    run = trace(model, TOKENS)
    ours = trace(model, TOKENS, cut(run, writers, readers, reads))["logits"]
    unread = [(reads, w, r) for w in writers for r in readers]
    assert_close(ours, plain_model(model, TOKENS, unread=unread), rtol=0, atol=1e-10)
    assert not torch.allclose(ours, run["logits"])


def test_a_path_filled_with_its_own_mean_changes_one_sequence_not_at_all():
    model = build()
    run = trace(model, TOKENS[:1])
    edits = cut(run, [(0, 0)], [(1, 0)], "k", fill=run)  # the mean of one is that one
    assert_close(trace(model, TOKENS[:1], edits)["logits"], run["logits"])
    other = cut(run, [(0, 0)], [(1, 0)], "k", fill=trace(model, TOKENS[1:]))
    assert not torch.allclose(trace(model, TOKENS[:1], other)["logits"], run["logits"])


def test_a_patched_stream_brings_its_logits_along():
    model = build()
    clean, other = trace(model, TOKENS), trace(model, TOKENS.flip(0))
    whole = trace(model, TOKENS.flip(0), patch(clean, "stream.1", range(6)))
    assert_close(whole["logits"], clean["logits"])
    last = trace(model, TOKENS.flip(0), patch(clean, "stream.2", [5]))["logits"]
    assert_close(last[:, 5], clean["logits"][:, 5])
    assert torch.equal(last[:, :5], other["logits"][:, :5])
    one = trace(model, TOKENS.flip(0), patch(clean, "stream.0", [2]))
    wanted = TOKENS.flip(0).clone()
    wanted[:, 2] = TOKENS[:, 2]
    assert_close(one["logits"], model(wanted))
    row = trace(model, TOKENS.flip(0), patch(clean, "weights.0", [3]))["weights.0"]
    assert torch.equal(row[:, :, 3], clean["weights.0"][:, :, 3])
    assert torch.equal(row[:, :, 4], other["weights.0"][:, :, 4])


@pytest.mark.parametrize("norm", ["pre", "none"])
def test_the_lens_reads_every_stream_and_ends_with_the_answer(norm):
    model = build(norm=norm)
    run = trace(model, TOKENS)
    lens = logit_lens(model, run)
    assert lens.shape == (3, 2, 6, 10)
    assert_close(lens[-1], run["logits"])
    assert_close(lens[1], model.norm(run["stream.1"]) @ model.scores.weight.T)


def test_a_difference_of_logits_is_taken_at_the_end():
    logits = torch.zeros(2, 3, 5)
    logits[:, -1] = torch.arange(10.0).view(2, 5) ** 2
    found = logit_difference(logits, torch.tensor([3, 4]), torch.tensor([1, 0]))
    assert found.tolist() == [9.0 - 1.0, 81.0 - 25.0]


# --- scores ----------------------------------------------------------------------------------------


def weights_of(seed, B=2, H=3, T=7):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(B, H, T, T, generator=generator, dtype=torch.float64)
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), V=st.integers(1, 6))
def test_the_scores_are_what_loops_count(seed, V):
    weights = weights_of(seed)
    tokens = torch.randint(V, (2, 7), generator=torch.Generator().manual_seed(seed))
    before, induced, same = [[] for _ in range(3)], [[] for _ in range(3)], [[] for _ in range(3)]
    for b, row in enumerate(tokens.tolist()):
        for t in range(7):
            copies = [s for s in range(t) if row[s] == row[t]]
            for h in range(3):
                if t:
                    before[h].append(weights[b, h, t, t - 1].item())
                if copies:
                    induced[h].append(sum(weights[b, h, t, s + 1].item() for s in copies))
                    same[h].append(sum(weights[b, h, t, s].item() for s in copies))
    assert_close(previous_token_score(weights).tolist(), [sum(x) / len(x) for x in before])
    if induced[0]:
        assert_close(induction_score(weights, tokens).tolist(), [sum(x) / len(x) for x in induced])
        assert_close(same_token_score(weights, tokens).tolist(), [sum(x) / len(x) for x in same])


def test_by_hand():
    """a b c a b: the second a looks for b, the second b for c."""
    tokens = torch.tensor([[0, 1, 2, 0, 1]])
    assert after_earlier_copy(tokens).nonzero().tolist() == [[0, 3, 1], [0, 4, 2]]
    assert earlier_copy(tokens).nonzero().tolist() == [[0, 3, 0], [0, 4, 1]]
    assert after_earlier_copy(torch.tensor([[4, 4]])).nonzero().tolist() == [[0, 1, 1]]
    weights = torch.zeros(1, 2, 5, 5)
    weights[0, 0, 3, 1] = weights[0, 0, 4, 2] = 1.0  # a perfect induction head
    weights[0, 1, range(1, 5), range(4)] = 1.0  # a perfect previous-token head
    assert induction_score(weights, tokens).tolist() == [1.0, 0.0]
    assert previous_token_score(weights).tolist() == [0.0, 1.0]
    assert same_token_score(weights, tokens).tolist() == [0.0, 0.0]


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m, r: trace(m, TOKENS, {"out.2": abs}), "no place 'out.2': this model has .*out .0 to .1"),
        (lambda m, r: trace(m, TOKENS, {"out.0": lambda x: x[:1]}), r"out.0 must keep \(2, 2, .*got \(1, 2,"),
        (lambda m, r: trace(m, TOKENS, knock_out([(0, 2)])), "heads are numbered from 0 to 1, got 2"),
        (lambda m, r: trace(m, TOKENS, knock_out([(0, -1)])), "heads are numbered from 0 to 1, got -1"),
        (lambda m, r: trace(m, TOKENS, knock_out([(5, 0)])), "no place 'out.5'"),
        (lambda m, r: cut(r, [(1, 0)], [(1, 1)], "k"), r"earlier layer, got \(1, 0\) for \(1, 1\)"),
        (lambda m, r: cut(r, [(0, 0)], [(1, 1)], "o"), "reads must be 'q', 'k' or 'v', got 'o'"),
        (lambda m, r: patch(r, "stream.9", [0]), "no place 'stream.9' in this run; it has stream.0"),
        (lambda m, r: patch(r, "stream.1", [6]), "positions go from 0 to 5, got 6"),
        (lambda m, r: patch(r, "stream.1", [-1]), "positions go from 0 to 5, got -1"),
        (lambda m, r: previous_token_score(r["weights.0"][..., :1, :1]), "none before, got 1"),
        (lambda m, r: previous_token_score(r["weights.0"][..., :4]), r"\(B, H, T, T\), got \(2, 2, 6, 4\)"),
        (lambda m, r: previous_token_score(r["weights.0"][0]), r"\(B, H, T, T\), got \(2, 6, 6\)"),
        (lambda m, r: induction_score(r["weights.0"], TOKENS[:, :5]), r"got \(2, 2, 6, 6\) for \(2, 5\)"),
        (lambda m, r: induction_score(r["weights.0"], torch.arange(12).view(2, 6)), "no token comes twice"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    model = build()
    with pytest.raises(ValueError, match=match):
        call(model, trace(model, TOKENS))
