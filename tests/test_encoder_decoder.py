"""The whole model: equal to PyTorch's and Hugging Face's, step by step as all at once, blind to padding."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from benchmarks.peers import HuggingFace, TorchTransformer
from tests.conftest import gradients
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.masks import causal_mask

SMALL = {
    "vocab_size": 19,
    "d_model": 16,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 24,
    "dropout": 0.0,
    "max_len": 32,
}
norms = pytest.mark.parametrize("norm", ["pre", "post"])


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(seed=0, **settings):
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig(**SMALL | settings))
    with torch.no_grad():  # biases and norms that say something
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += torch.randn_like(parameter) / 4
    return model


def sentences(seed=1):
    """Source and target of different lengths, the second row of each shorter and filled up."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(3, 19, (3, 7), generator=generator)
    target = torch.randint(3, 19, (3, 5), generator=generator)
    target[:, 0] = 1
    source[1, 5:] = target[2, 3:] = 0
    return source, target


def real(scores, target):
    """The scores at real target tokens; what is said of padding is nobody's business."""
    return scores[target != 0]


# --- against others ------------------------------------------------------------------------------


def peer(kind, model):
    """Somebody else's model with the weights of ours."""
    theirs = kind(model.config).to(model.embed.weight.dtype)
    theirs.load(model)
    return theirs


def two_of_each_layer(ours, theirs):
    """Pairs of parameters, ours and PyTorch's."""
    its = [*theirs.layers.encoder.layers, *theirs.layers.decoder.layers]
    pairs = []
    for a, b in zip([*ours.encoder, *ours.decoder], its, strict=True):
        pairs += [(a.feed_forward.up_proj.weight, b.linear1.weight)]
        pairs += [(a.self_attention.out_proj.weight, b.self_attn.out_proj.weight)]
    return pairs


@norms
def test_it_equals_pytorch_s_transformer(norm, parity):
    model = build(norm=norm, final_norm=True)
    theirs = peer(TorchTransformer, model)
    source, target = sentences()
    a, b = real(model(source, target), target), real(theirs(source, target), target)
    weights = [(model.embed.weight, theirs.embed.weight), *two_of_each_layer(model, theirs)]
    ours, its = (
        gradients(scores, *copies) for scores, copies in zip((a, b), zip(*weights, strict=True), strict=True)
    )
    together = [torch.cat([gradient.flatten() for gradient in of[1:]]) for of in (ours, its)]
    pairs = {"scores": (a, b), "gradient of the embedding": (ours[0], its[0])}
    pairs["gradients of two matrices of each layer"] = together
    parity(f'encoder_decoder.Transformer(norm="{norm}", final_norm=True)', "torch: nn.Transformer", pairs)


@pytest.mark.parametrize(("norm", "kind"), [("post", "Marian"), ("pre", "Pegasus")])
def test_its_cross_attention_looks_where_hugging_face_s_looks(norm, kind):
    model = build(norm=norm)
    theirs = peer(HuggingFace, model).model
    assert type(theirs).__name__.startswith(kind)
    theirs.set_attn_implementation("eager")  # the others keep no weights
    source, target = sentences()
    its = theirs(
        input_ids=source,
        attention_mask=(source != 0).long(),
        decoder_input_ids=target,
        decoder_attention_mask=(target != 0).long(),
        output_attentions=True,
    ).cross_attentions
    ours = model.cross_weights(source, target)
    assert len(ours) == len(its) == 2 and not ours[0].requires_grad
    for a, b in zip(ours, its, strict=True):
        assert_close(real(a.transpose(1, 2), target), real(b.transpose(1, 2), target), rtol=0, atol=1e-6)
        assert (a[1, :, :, 5:] == 0).all()
    before = model(source, target)
    model.cross_weights(source, target)
    assert_close(model(source, target), before, rtol=0, atol=0)
    assert not any(layer.around_cross_attention._forward_pre_hooks for layer in model.decoder)


@pytest.mark.parametrize(("norm", "kind"), [("post", "Marian"), ("pre", "Pegasus")])
def test_it_equals_hugging_face_s(norm, kind, parity):
    model = build(norm=norm)
    theirs = peer(HuggingFace, model)
    source, target = sentences()
    a, b = real(model(source, target), target), real(theirs(source, target), target)
    theirs = theirs.model
    assert type(theirs).__name__.startswith(kind)
    last = model.encoder[-1].feed_forward.up_proj.weight, theirs.model.encoder.layers[-1].fc1.weight
    cross = (
        model.decoder[0].cross_attention.k_proj.weight,
        theirs.model.decoder.layers[0].encoder_attn.k_proj.weight,
    )
    ours, its = zip((model.embed.weight, theirs.model.shared.weight), last, cross, strict=True)
    names = (
        "gradient of the embedding",
        "gradient of the encoder's last layer",
        "gradient of the first keys",
    )
    gradient = {n: p for n, *p in zip(names, gradients(a, *ours), gradients(b, *its), strict=True)}
    parity(
        f'encoder_decoder.Transformer(norm="{norm}")', f"transformers: {kind}", {"scores": (a, b)} | gradient
    )


def test_the_base_model_has_the_parameters_of_the_chapter():
    with torch.device("meta"):
        base = Transformer(TransformerConfig.base())
    attention, feed_forward, norm = 4 * (512 * 512 + 512), 2 * 512 * 2048 + 2048 + 512, 2 * 512
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    assert sum(p.numel() for p in base.parameters()) == 37_000 * 512 + 6 * (encoder + decoder) == 63_082_496
    tiny = Transformer(TransformerConfig.tiny(vocab_size=100))
    assert 0.65e6 < sum(p.numel() for p in tiny.parameters()) < 0.75e6


# --- what must hold whatever the weights ---------------------------------------------------------


@norms
@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99), padded=st.booleans()
)
def test_written_in_pieces_it_is_what_it_is_at_once(norm, cuts, seed, padded):
    model, (source, target) = build(seed, norm=norm), sentences(seed)
    if not padded:
        source = source.masked_fill(source == 0, 3)
    state, pieces, begin = model.start(source), [], 0
    for size in [*cuts, target.shape[1]]:
        piece = target[:, begin : begin + size]
        if piece.shape[1]:
            pieces.append(model.step(piece, state))
            begin += piece.shape[1]
            assert state.length == begin
    whole = model(source, target)
    assert_close(real(torch.cat(pieces, dim=1), target), real(whole, target), rtol=0, atol=1e-12)
    assert_close(model.decode(target, model.encode(source), source), whole, rtol=0, atol=1e-12)


@norms
def test_a_state_s_rows_go_on_as_if_alone(norm):
    model, (source, target) = build(norm=norm), sentences()
    index = torch.tensor([2, 0, 0])
    for read in (0, 2, 4):  # at 4 a row holds padding
        state = model.start(source)
        if read:
            model.step(target[:, :read], state)
        rows = state.rows(index)
        assert rows.length == read
        wanted, rest = model(source[index], target[index])[:, read:], target[index, read:]
        assert_close(real(model.step(rest, rows), rest), real(wanted, rest), rtol=0, atol=1e-12)
        assert state.length == read, "the branch must leave the tree as it was"


@norms
def test_padding_changes_nothing(norm):
    model, (source, target) = build(norm=norm), sentences()
    short = model(source[1:2, :5], target[1:2])
    assert_close(model(source, target)[1:2], short, rtol=0, atol=1e-12)
    wider = nn.functional.pad(source, (0, 4)), nn.functional.pad(target, (0, 3))
    assert_close(model(*wider)[:, :5][target != 0], model(source, target)[target != 0], rtol=0, atol=1e-12)


@norms
def test_no_score_depends_on_a_later_target_token_and_every_one_on_the_source(norm):
    model, (source, target) = build(norm=norm), sentences()
    before = model(source, target)
    for t in range(1, 5):
        changed = target.clone()
        changed[0, t] = 3 + (changed[0, t] - 2) % 16
        after = model(source, changed)
        assert torch.equal(before[0, :t], after[0, :t])
        assert not torch.allclose(before[0, t], after[0, t])
    changed = source.clone()
    changed[0, 0] = 3 + (changed[0, 0] - 2) % 16
    assert ((before - model(changed, target))[0].abs().amax(dim=-1) > 1e-6).all()


@norms
def test_every_parameter_changes_the_scores(norm):
    model, (source, target) = build(norm=norm), sentences()
    real(model(source, target), target).square().sum().backward()
    for name, parameter in model.named_parameters():
        if not name.endswith("attention.k_proj.bias"):  # the same number added to all scores of a row
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "pre"},
        {"final_norm": True},
        {"activation": "gelu"},
        {"n_heads": 2},
        {"pad_id": 5, "eos_id": 0},
    ],
    ids=str,
)
def test_every_setting_changes_the_scores(change):
    source, target = sentences()
    plain = build(norm="post")
    other = build(**{"norm": "post"} | change)
    other.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(plain(source, target), other(source, target))


def test_dropout_acts_in_training_only_and_on_what_the_paper_names():
    source, target = sentences()
    model = build(norm="post", dropout=0.5)
    model.eval()
    assert_close(model(source, target), build(norm="post")(source, target))
    model.train()
    assert not torch.allclose(model(source, target), model(source, target))
    dropped = {name for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.p}
    kinds = {re.sub(r"(encoder|decoder)\.\d\.", "", name) for name in dropped}
    assert kinds == {
        "dropout",
        "around_attention.dropout",
        "around_self_attention.dropout",
        "around_cross_attention.dropout",
        "around_feed_forward.dropout",
    }
    for module in [m for m in model.modules() if isinstance(m, nn.Dropout)]:
        plain = build(norm="post").train()  # each of them alone makes a difference
        same = dict(plain.named_modules())[next(n for n, m in model.named_modules() if m is module)]
        same.p = 0.5 if module.p else 0.0
        assert torch.equal(plain(source, target), plain(source, target)) is (module.p == 0)


def test_a_fresh_model_starts_with_scores_of_about_one():
    model = Transformer(TransformerConfig(**SMALL | {"d_model": 64, "norm": "pre"}))
    assert 0.5 < model(*sentences()).std() < 2
    assert model.embed.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)


@pytest.mark.compiled
@norms
def test_compiled_it_gives_the_same(norm):
    model, (source, target) = build(norm=norm), sentences()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(compiled(source, target), model(source, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@norms
def test_low_precision_is_no_worse_than_twice_pytorch_s(norm, dtype):
    model = build(norm=norm, final_norm=True)
    theirs = peer(TorchTransformer, model).layers
    source, target = sentences()
    source, target = source[:1], target[:1]  # without padding
    exact = model(source, target)
    embedded = [model.embed(t) * 4 + model.positions[: t.shape[1]] for t in (source, target)]
    model, theirs = model.to(dtype), theirs.to(dtype)
    error = (model(source, target).double() - exact).abs().max()
    out = theirs(*(e.to(dtype) for e in embedded), tgt_mask=~causal_mask(5)[0, 0])
    its_error = ((out @ model.embed.weight.T).double() - exact).abs().max()
    assert error <= 2 * its_error, (error, its_error)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_layers": 0}, "n_layers must be 1 or more, got 0"),
        ({"max_len": 0}, "max_len must be 1 or more, got 0"),
        ({"norm": "both"}, "norm must be 'pre' or 'post', got 'both'"),
        ({"eos_id": 1}, r"three different ids below vocab_size=19, got \(0, 1, 1\)"),
        ({"eos_id": 19}, r"three different ids below vocab_size=19, got \(0, 1, 19\)"),
        ({"n_heads": 3}, "d_model must be a multiple of n_heads, got 16 and 3"),
        ({"d_model": 17, "n_heads": 1}, "width must be even"),
        ({"dropout": 1.0}, "dropout must be a probability below 1, got 1.0"),
        ({"activation": "tanh"}, "activation must be one of"),
    ],
)
def test_bad_settings_say_what_was_wrong(settings, match):
    with pytest.raises(ValueError, match=match):
        build(**settings)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("source", "target", "error", "match"),
    [
        ([[5] * 33], [[1]], ValueError, "source rows may have max_len=32 tokens, got 33"),
        ([[5]], [[1] * 33], ValueError, "target rows may have max_len=32 tokens, got 33"),
        ([5], [[1]], ValueError, r"tokens must have axes \(B, S\), got shape \(1,\)"),
        ([[5.0]], [[1]], TypeError, "tokens must be whole-number ids, got torch.float64"),
        ([[5]], [[1.0]], TypeError, "target must hold whole-number ids, got torch.float64"),
        ([[5]], [1], ValueError, r"target must have axes \(B, T\), got shape \(1,\)"),
        ([[5], [6]], [[1]], ValueError, "source and target must hold equally many sentences, got 2 and 1"),
        ([[19]], [[1]], ValueError, "source holds the token 19; the vocabulary has ids from 0 to 18"),
        ([[5]], [[-1]], ValueError, "target holds the token -1; the vocabulary has ids from 0 to 18"),
    ],
)
def test_bad_tokens_say_what_was_wrong(source, target, error, match):
    with pytest.raises(error, match=match):
        build()(torch.tensor(source), torch.tensor(target))


@pytest.mark.bad_input
def test_too_long_in_pieces_is_told_as_well():
    model = build()
    state = model.start(torch.tensor([[5]]))
    model.step(torch.ones(1, 30, dtype=torch.long), state)
    with pytest.raises(ValueError, match="target rows may have max_len=32 tokens, got 33"):
        model.step(torch.ones(1, 3, dtype=torch.long), state)
    assert state.length == 30, "nothing is lost"
