"""The list of claims, and the arithmetic of the closing chapter."""

import json
import math
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab import claims
from transformer_lab.encoder_decoder import Transformer, TransformerConfig

# The list.

LISTED = claims.read()


def test_all_54_claims_are_there_in_order_each_with_what_was_said_and_what_is_right():
    assert [claim.id for claim in LISTED] == [f"C{n:02}" for n in range(1, 55)]
    for claim in LISTED:
        assert len(claim.said) > 15 and len(claim.right) > 30, claim.id


def test_the_verdicts_are_those_of_the_fact_check():
    wanted = {
        "correct": "08 12 14 17 21 24 33 35 38 39 40 41 45 47 54",
        "split": "16",
        "wrong": "04 06 07 23 28 31 32 43 48",
        "unverifiable": "36 49 50 52",
        "unsourced": "09 29",
    }
    for verdict, numbers in wanted.items():
        found = [claim.id.removeprefix("C") for claim in LISTED if claim.verdict == verdict]
        assert found == numbers.split(), verdict
    assert Counter(claim.verdict for claim in LISTED)["imprecise"] == 23


def test_every_claim_has_a_source_but_those_for_which_none_was_found():
    assert [claim.id for claim in LISTED if not claim.sources] == ["C09", "C29", "C49", "C52"]
    for claim in LISTED:
        for source in claim.sources:
            assert source.name and (source.link == "" or source.link.startswith("https://")), claim.id
    assert {source.check for claim in LISTED for source in claim.sources} == set(claims.CHECKS)


def test_at_least_35_claims_have_an_experiment_and_the_others_say_why_not():
    assert sum(bool(claim.evidence) for claim in LISTED) >= 35
    assert all(len(claim.without) > 20 for claim in LISTED if not claim.evidence)


def test_the_ten_that_do_most_damage():
    worst = sorted((c for c in LISTED if c.damage), key=lambda c: c.damage)
    assert [c.damage for c in worst] == list(range(1, 11))
    assert [c.id for c in worst] == "C31 C43 C48 C32 C28 C04 C50 C36 C42 C23".split()


def test_no_number_of_an_experiment_is_typed():
    """Words about a number leave its place open, once, and the expression has one group."""
    for evidence in (e for claim in LISTED for e in claim.evidence):
        assert evidence.says.count("{}") == 1, evidence
        assert re.compile(evidence.find).groups == 1, evidence


def evidence(find=r"error (\d+)", says="an error of {}"):
    return claims.Evidence("norms", "cell", find, says)


def test_the_number_comes_from_the_output():
    assert evidence().taken_from("x\nerror 12\ny") == "an error of 12"
    assert evidence().taken_from("x\nerror 13\ny") == "an error of 13"
    assert evidence(r"^last (.+)$", "from {}").taken_from("last 1   to  2\n") == "from 1 to 2"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("output", "match"),
    [
        ("nothing", "the output of norms, cell cell, once; it matches 0 times"),
        ("error 1, error 2", "it matches 2 times"),
        ("ok\nMeasured here: error 3", "'Measured here: error 3' differs from run to run"),
    ],
)
def test_a_number_that_is_not_there_once_or_not_compared_is_refused(output, match):
    with pytest.raises(ValueError, match=match):
        evidence().taken_from(output)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"verdict": "nearly"}, "C01: verdict must be one of correct, .* got 'nearly'"),
        ({"without": ""}, "C01 needs evidence, or else a reason"),
        ({"evidence": [{"chapter": "a", "cell": "b", "find": "(c)", "says": "{}"}]}, "and not both"),
        ({"sources": [{"name": "a", "check": "seen"}]}, "C01: check must be one of .* got 'seen'"),
    ],
)
def test_an_entry_that_is_not_whole_is_refused(change, match, tmp_path):
    entry = {"id": "C01", "said": "a", "verdict": "wrong", "right": "b", "without": "c"}
    path = tmp_path / "claims.json"
    path.write_text(json.dumps([entry]))
    assert claims.read(path)[0].without == "c"
    path.write_text(json.dumps([entry | change]))
    with pytest.raises(ValueError, match=match):
        claims.read(path)


# Weights.


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", ["Transformer base", "Transformer big"])
def test_the_models_of_2017_have_as_many_weights_as_the_package_s(name):
    shape = claims.NAMED[name].shape
    config = TransformerConfig(
        vocab_size=shape.vocab_size,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        n_layers=shape.n_layers,
        d_ff=shape.d_ff,
        norm="post",
    )
    with torch.device("meta"):
        assert parameters(Transformer(config)) == claims.n_weights(shape)


def on_meta(make):
    """What ``make(transformers)`` builds, without memory."""
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        return make(transformers)


def as_bert(shape):
    return lambda t: t.BertModel(
        t.BertConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.d_model,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            intermediate_size=shape.d_ff,
        )
    )


def as_gpt_1(shape):
    return lambda t: t.OpenAIGPTModel(
        t.OpenAIGPTConfig(
            vocab_size=shape.vocab_size,
            n_positions=shape.n_positions,
            n_embd=shape.d_model,
            n_layer=shape.n_layers,
            n_head=shape.n_heads,
        )
    )


def as_gpt_2(shape):
    return lambda t: t.GPT2Model(
        t.GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.n_positions,
            n_embd=shape.d_model,
            n_layer=shape.n_layers,
            n_head=shape.n_heads,
        )
    )


def as_llama(shape):
    return lambda t: t.LlamaForCausalLM(
        t.LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.d_model,
            intermediate_size=shape.d_ff,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_kv_heads or shape.n_heads,
        )
    )


def as_vit(shape, patch=16):
    return lambda t: t.ViTModel(
        t.ViTConfig(
            hidden_size=shape.d_model,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            intermediate_size=shape.d_ff,
            patch_size=patch,
        ),
        add_pooling_layer=False,
    )


def as_whisper(shape):
    return lambda t: t.WhisperModel(
        t.WhisperConfig(
            vocab_size=shape.vocab_size,
            d_model=shape.d_model,
            encoder_layers=shape.n_layers,
            decoder_layers=shape.n_decoder_layers,
            encoder_attention_heads=shape.n_heads,
            decoder_attention_heads=shape.n_heads,
            encoder_ffn_dim=shape.d_ff,
            decoder_ffn_dim=shape.d_ff,
        )
    )


HUGGING_FACE = {
    "BERT base": as_bert,
    "BERT large": as_bert,
    "TinyBERT, 4 layers": as_bert,
    "GPT-1": as_gpt_1,
    "GPT-2 XL": as_gpt_2,
    "GPT-3": as_gpt_2,
    "LLaMA 7B": as_llama,
    "LLaMA 13B": as_llama,
    "LLaMA 33B": as_llama,
    "LLaMA 65B": as_llama,
    "Llama 2 70B": as_llama,
    "Llama 3.1 405B": as_llama,
    "ViT-B/16": as_vit,
    "ViT-L/16": as_vit,
    "ViT-H/14": lambda shape: as_vit(shape, patch=14),
    "Whisper tiny": as_whisper,
    "Whisper large": as_whisper,
}


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_a_named_model_has_as_many_weights_as_hugging_face_s(name):
    shape = claims.NAMED[name].shape
    theirs = on_meta(HUGGING_FACE[name](shape))
    fixed = 1500 * shape.d_model if name.startswith("Whisper") else 0  # positions that are not trained
    assert parameters(theirs) - fixed == claims.n_weights(shape)


def test_every_named_model_is_held_against_another_s():
    assert claims.NAMED.keys() == HUGGING_FACE.keys() | {"Transformer base", "Transformer big"}


def test_counts_are_near_what_is_published_but_for_three_that_the_chapter_names():
    off = {name: claims.n_weights(m.shape) / m.published - 1 for name, m in claims.NAMED.items()}
    assert {name for name, share in off.items() if abs(share) > 0.02} == {
        "Transformer base",
        "GPT-2 XL",
        "Whisper tiny",
    }
    assert max(map(abs, off.values())) < 0.05


BASE = claims.Shape(
    n_layers=2, n_decoder_layers=2, d_model=8, d_ff=16, n_heads=4, vocab_size=30, n_positions=5, n_segments=2
)


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"n_layers": 3}, 4 * 72 + 16 * 16 + 24 + 32),
        ({"n_decoder_layers": 3}, 2 * 4 * 72 + 16 * 16 + 24 + 48),
        ({"d_ff": 17}, 4 * 17),
        ({"n_kv_heads": 2}, -6 * 2 * (8 * 4 + 4)),
        ({"vocab_size": 31}, 8),
        ({"n_tables": 2}, 240),
        ({"n_positions": 6}, 8),
        ({"n_segments": 3}, 8),
        ({"gated": True}, 4 * (8 * 16 + 16)),
        ({"biases": False}, -6 * 32 - 4 * 24),
        ({"key_bias": False}, -6 * 8),
        ({"norm_biases": False}, -10 * 8),
        ({"n_outer_norms": 1}, 16),
        ({"pooler": True}, 72),
        ({"stem": 7}, 7),
    ],
)
def test_every_setting_changes_the_count_by_hand(change, more):
    assert claims.n_weights(replace(BASE, **change)) - claims.n_weights(BASE) == more


def test_the_number_of_heads_alone_changes_nothing():
    assert claims.n_weights(replace(BASE, n_heads=2)) == claims.n_weights(BASE)


# Energy and distillation.

GPT_3 = {"flops_per_second": 24.6e12, "watts": 330.0, "overhead": 1.10}


def test_the_published_inputs_give_the_published_total():
    assert round(claims.training_energy(3.14e23, **GPT_3)) == 1287


@pytest.mark.parametrize(
    ("change", "factor"),
    [({"flops_per_second": 49.2e12}, 0.5), ({"watts": 660.0}, 2), ({"overhead": 2.2}, 2)],
)
def test_every_input_of_the_energy_counts(change, factor):
    before, after = (claims.training_energy(1e20, **inputs) for inputs in (GPT_3, GPT_3 | change))
    assert after == pytest.approx(factor * before)


def test_the_band_holds_what_lies_within_its_bounds():
    bounds = {"flops_per_second": (2e13, 3e13), "watts": (300.0, 400.0), "overhead": (1.1, 1.6)}
    low, high = claims.energy_band(1e20, **bounds)
    inside = [
        claims.training_energy(1e20, flops_per_second=s, watts=w, overhead=o)
        for s in bounds["flops_per_second"]
        for w in bounds["watts"]
        for o in bounds["overhead"]
    ]
    assert (low, high) == pytest.approx((min(inside), max(inside))) and low < high


def test_the_bill_of_a_distillation_by_hand():
    assert claims.distilling(10.0, 2.0) == 16.0
    assert claims.break_even(4.0, teacher=10.0, student=2.0) == 4 * 16 / 8
    assert claims.break_even(8.0, teacher=10.0, student=2.0) == 8 * 16 / 8


# BLEU.


def some(seed, n, words=9):
    draw = random.Random(seed)
    candidates = [[draw.randrange(words) for _ in range(draw.randint(1, 12))] for _ in range(n)]
    references = [
        [w if draw.random() < 0.7 else draw.randrange(words) for w in row] + [1] * draw.randint(0, 2)
        for row in candidates
    ]
    return candidates, references


@given(st.integers(0, 10_000), st.integers(20, 60), st.booleans())
def test_corpus_bleu_is_sacrebleu_s(seed, n, exchanged):
    candidates, references = some(seed, n)
    if exchanged:
        candidates, references = references, candidates
    texts = [[" ".join(map(str, row)) for row in side] for side in (candidates, references)]
    metric = sacrebleu.BLEU(tokenize="none", smooth_method="none")
    theirs = metric.corpus_score(texts[0], [texts[1]]).score
    assert claims.corpus_bleu(candidates, references) == pytest.approx(theirs, abs=1e-9)


def test_hits_are_clipped():
    the, cat = ["the"] * 4, "the cat sat on".split()
    assert claims.corpus_bleu([the], [cat], longest=1) == pytest.approx(25)


def test_bleu_is_no_mean_over_sentences():
    candidates, references = [["a"], list("bcdefghij")], [["x"], list("bcdefghij")]
    assert claims.corpus_bleu(candidates, references, longest=1) == pytest.approx(90)


def test_longer_runs_are_harder():
    candidates, references = [list("abcdef")], [list("abcxef")]
    scores = [claims.corpus_bleu(candidates, references, longest=n) for n in (1, 2, 3, 4)]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1] == 0


def test_the_penalty_is_for_what_is_short_only():
    assert claims.brevity_penalty(11, 10) == claims.brevity_penalty(10, 10) == 1
    assert claims.brevity_penalty(10, 20) == pytest.approx(math.exp(-1))


# Eight bits.


@pytest.mark.parametrize("dtype", claims.FP8_LARGEST)
def test_the_largest_number_of_each_type_is_known(dtype):
    assert torch.finfo(dtype).max == claims.FP8_LARGEST[dtype]


@pytest.mark.parametrize("dtype", claims.FP8_LARGEST)
def test_with_its_scale_no_number_is_cut_off_or_lost(dtype):
    x = 1e-3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    left = claims.through_fp8(x, claims.fp8_scale(x, dtype), dtype)
    assert left.abs().max() == pytest.approx(x.abs().max().item())
    kept = x.abs() > x.abs().max() * 1e-3
    steps = {torch.float8_e4m3fn: 1 / 16, torch.float8_e5m2: 1 / 8}
    assert ((left - x).abs()[kept] <= steps[dtype] * x.abs()[kept] * 1.001).all()


def test_what_is_stored_as_it_is_vanishes():
    x = torch.tensor([1e-4, -1e-4, 1000.0])
    assert claims.through_fp8(x).tolist() == [0.0, 0.0, 448.0]
    assert claims.through_fp8(x, dtype=torch.float8_e5m2)[0] > 0


def test_zeros_and_nothing_have_the_scale_one():
    for x in (torch.zeros(3), torch.zeros(0)):
        assert claims.fp8_scale(x) == 1
        assert torch.equal(claims.through_fp8(x, claims.fp8_scale(x)), x)


# Groups.


def test_advantages_of_a_group_sum_to_zero_and_have_the_spread_one():
    rewards = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = claims.group_advantages(rewards)
    torch.testing.assert_close(found.sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.std(1), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-4)
    assert torch.equal(claims.group_advantages(rewards, "none"), rewards)
    assert not torch.allclose(claims.group_advantages(rewards, "mean"), found)


def test_a_group_that_agrees_teaches_nothing():
    new = torch.randn(4, 3, requires_grad=True)
    gain = claims.group_advantages(torch.ones(1, 4))[0]
    loss = claims.grpo_loss(new, new.detach() - 0.1, new.detach(), gain, kl_weight=0.0)
    assert not torch.autograd.grad(loss, new)[0].any()


def loss_of(ratio, gain, **rest):
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    zero = torch.zeros(1, 1)
    loss = claims.grpo_loss(new, zero, zero, torch.tensor([gain]), **({"kl_weight": 0.0} | rest))
    return loss.item(), torch.autograd.grad(loss, new)[0].item()


@pytest.mark.parametrize(
    ("ratio", "gain", "loss", "moves"),
    [
        (1.0, 2.0, -2.0, True),
        (1.5, 2.0, -2.4, False),  # enough is earned
        (0.5, 2.0, -1.0, True),
        (0.5, -2.0, 1.6, False),
        (1.5, -2.0, 3.0, True),  # a loss is felt in full
    ],
)
def test_gains_are_bounded_and_losses_are_not(ratio, gain, loss, moves):
    found, gradient = loss_of(ratio, gain)
    assert found == pytest.approx(loss, abs=1e-6) and (abs(gradient) > 1e-6) == moves


def test_the_settings_of_the_loss_count():
    assert loss_of(1.5, 2.0, clip=0.4)[0] == pytest.approx(-2.8, abs=1e-6)
    assert loss_of(1.5, 0.0, kl_weight=1.0)[0] == pytest.approx(1 / 1.5 - 1 + math.log(1.5), abs=1e-6)
    new = torch.zeros(1, 1)
    losses = {claims.grpo_loss(new, new, new - far, torch.zeros(1)).item() for far in (0.0, 1.0)}
    assert min(losses) == 0 and max(losses) > 0


# Products.


@pytest.mark.parametrize(("n", "count"), [(1, 1), (2, 7), (4, 49), (8, 343)])
def test_strassen_multiplies_with_fewer_products(n, count):
    a, b = torch.randn(2, n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    product, used = claims.strassen(a, b)
    torch.testing.assert_close(product, a @ b, rtol=0, atol=1e-11)
    assert used == count


# Errors.


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: replace(BASE, n_layers=0), "n_layers must be 1 or more, got 0"),
        (lambda: replace(BASE, vocab_size=-1), "vocab_size must be 0 or more, got -1"),
        (lambda: replace(BASE, n_kv_heads=3), "d_model must be a multiple .* got 8, 4 and 3"),
        (lambda: claims.training_energy(0, **GPT_3), "flop must be positive, got 0"),
        (lambda: claims.training_energy(1, **GPT_3 | {"overhead": 0.9}), "1 or more, got 0.9"),
        (
            lambda: claims.energy_band(1, flops_per_second=(1, 2), watts=(3, 2), overhead=(1, 1)),
            r"watts must be \(lowest, highest\), got \(3, 2\)",
        ),
        (lambda: claims.distilling(1, 0), "must be positive, got 1 and 0"),
        (lambda: claims.break_even(0, teacher=2, student=1), "n_sequences must be positive, got 0"),
        (lambda: claims.break_even(1, teacher=1, student=1), "cheaper than the teacher, got 1 and 1"),
        (lambda: claims.brevity_penalty(0, 3), "both sides need a token, got 0 and 3"),
        (lambda: claims.corpus_bleu([], []), "got 0 candidates and 0 references"),
        (lambda: claims.corpus_bleu([["a"]], []), "got 1 candidates and 0 references"),
        (lambda: claims.corpus_bleu([["a"]], [["a"]], longest=0), "longest must be 1 or more, got 0"),
        (lambda: claims.fp8_scale(torch.ones(2), torch.float16), "dtype must be .* got torch.float16"),
        (lambda: claims.through_fp8(torch.ones(2), dtype=torch.float16), "got torch.float16"),
        (lambda: claims.group_advantages(torch.ones(2, 2), "rank"), "kind must be .* got 'rank'"),
        (lambda: claims.strassen(torch.eye(3), torch.eye(3)), "power of two, got 3"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
