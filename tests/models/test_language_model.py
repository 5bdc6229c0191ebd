import dataclasses

import pytest
import torch
from torch.testing import assert_close

from transformer_lab.feed_forward import SwiGLU
from transformer_lab.masks import influence
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
WAYS = ("none", "sinusoidal", "learned", "rope", "alibi")


def build(feed_forward=None, **settings):
    torch.manual_seed(0)
    sizes = {"vocab_size": 10, "d_model": 8, "n_heads": 2, "d_ff": 16} | settings
    return LanguageModel(LanguageModelConfig(**sizes), feed_forward=feed_forward).double()


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
@pytest.mark.parametrize("positions", WAYS)
def test_the_future_changes_nothing_before_it(positions, norm):
    model = build(positions=positions, norm=norm)
    changed = TOKENS.clone()
    changed[:, 5:] = 0
    assert_close(model(changed)[:, :5], model(TOKENS)[:, :5], rtol=0, atol=1e-14)
    assert not torch.allclose(model(changed)[:, 5], model(TOKENS)[:, 5])


@pytest.mark.parametrize("positions", WAYS)
def test_without_the_mask_the_future_leaks(positions):
    model = build(positions=positions, causal=False)
    seen = influence(model.through, model.embedded(TOKENS)[0])
    assert (seen > 0).all()


@pytest.mark.parametrize("positions", [way for way in WAYS if way != "none"])
def test_every_way_to_tell_positions_tells_them(positions):
    """Unmasked, only positions can tell that the tokens stand in another order."""
    order = [2, 0, 3, 1, 7, 5, 4, 6]
    told, untold = build(positions=positions, causal=False), build(positions="none", causal=False)
    assert not torch.allclose(told(TOKENS[:, order]), told(TOKENS)[:, order])
    assert_close(untold(TOKENS[:, order]), untold(TOKENS)[:, order])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("d_model", 12),
        ("n_heads", 1),
        ("n_layers", 3),
        ("d_ff", 0),
        ("norm", "post"),
        ("position_scale", 0.5),
        ("tied", False),
    ],
)
def test_every_setting_changes_the_scores(name, value):
    assert not torch.allclose(build(**{name: value})(TOKENS), build()(TOKENS))


def test_no_feed_forward_network_leaves_attention_only():
    names = {name for name, _ in build(d_ff=0).named_parameters()}
    assert not any("feed_forward" in name for name in names)
    assert {name for name, _ in build().named_parameters()} > names


def test_the_feed_forward_network_can_be_exchanged():
    model = build(feed_forward=lambda d: SwiGLU(d_model=d, d_ff=5))
    assert isinstance(model.layers[1].feed_forward, SwiGLU)
    assert model(TOKENS).shape == (1, 8, 10)


def test_the_embedding_makes_the_scores_and_a_post_norm_model_has_no_final_norm():
    model = build(norm="post")
    assert_close(model(TOKENS), model.stream(TOKENS) @ model.embed.weight.T)
    model = build()
    assert_close(model(TOKENS), model.norm(model.stream(TOKENS)) @ model.embed.weight.T)


def test_interpolation_halves_what_rope_turns():
    """At half the scale, a token twice as far away is turned as before."""
    model = build()
    half = LanguageModel(dataclasses.replace(model.config, position_scale=0.5)).double()
    half.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    x[:, 2] = x[:, 1]
    one, two = (m.layers[0].attention.weights(x, x) for m in (model, half))
    ratio = one[0, :, 0, 1] / one[0, :, 0, 0]
    assert_close(two[0, :, 0, 2] / two[0, :, 0, 0], ratio)


@pytest.mark.compiled
def test_it_compiles_into_one_graph():
    model = build()
    assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(TOKENS), model(TOKENS))


@pytest.mark.gpu
@pytest.mark.parametrize("positions", WAYS)
def test_cuda_agrees_with_the_cpu(positions):
    assert_close(build(positions=positions).cuda()(TOKENS.cuda()).cpu(), build(positions=positions)(TOKENS))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: build(vocab_size=0), "vocab_size must be 1 or more, got 0"),
        (lambda: build(n_layers=-1), "n_layers must be 1 or more, got -1"),
        (lambda: build(d_ff=-2), "d_ff must be 0 or more, got -2"),
        (lambda: build(positions="rotary"), "none, sinusoidal, learned, rope, alibi; got 'rotary'"),
        (lambda: build(positions="alibi", position_scale=0.5), "needs positions='rope', got 'alibi'"),
        (lambda: build(norm="middle"), "got 'middle'"),
        (lambda: build(positions="learned", max_len=4)(TOKENS), "max_len=4, got positions 0 to 7"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_untied_scores_come_from_weights_of_their_own():
    model = build(tied=False)
    x = model.stream(TOKENS)
    assert_close(model(TOKENS), model.norm(x) @ model.scores.weight.T)
    assert_close(model.read_out(x), model(TOKENS))
    assert model.scores.weight.shape == model.embed.weight.shape
