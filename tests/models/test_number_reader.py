import pytest
import torch
from torch.testing import assert_close

from transformer_lab.attention import attention
from transformer_lab.models.number_reader import MAX_LEN, N_PLACES, PAD_ID, VOCABULARY, NumberReader, tokenize
from transformer_lab.training.number_reader import encode


def build(**sizes):
    torch.manual_seed(0)
    return NumberReader(**sizes).double().eval()


def test_shapes_of_all_that_it_shows():
    model, (tokens, _) = build(d_model=12, n_heads=3), encode([7, 123456])
    assert model(tokens).shape == (2, N_PLACES, 10)
    assert model.place_weights(tokens).shape == (2, 3, N_PLACES, MAX_LEN)
    assert model.word_weights(tokens).shape == (2, 3, MAX_LEN, MAX_LEN)


def test_weights_sum_to_one_over_the_words_and_padding_gets_none():
    model, (tokens, _) = build(), encode([7, 123456])
    for weights in (model.place_weights(tokens), model.word_weights(tokens)):
        assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
        assert (weights.movedim(-1, 1)[tokens == PAD_ID] == 0).all()


def test_padding_does_not_change_what_is_read():
    model, (tokens, _) = build(), encode([42])
    assert_close(model(tokens[:, :3]), model(tokens))


def test_a_digit_is_made_of_the_values_of_bare_words():
    """No context reaches a digit but through the weights."""
    model, (tokens, _) = build(), encode([42])
    values = model.v_proj(model.embed(tokens)).unflatten(-1, (2, -1)).transpose(1, 2)
    mixed = (model.place_weights(tokens) @ values).transpose(1, 2).flatten(2)
    assert_close(model(tokens), model.digit_head(mixed))


def test_a_word_keeps_itself_when_the_others_add_nothing():
    """The first attention is added to the word: silence it, and keys are made of word and position."""
    model, (tokens, _) = build(), encode([142])
    model.self_attention.out_proj.weight.data.zero_()
    model.self_attention.out_proj.bias.data.zero_()
    x = model.embed(tokens) + model.positions.weight
    keys = model.k_proj(x).unflatten(-1, (2, -1)).transpose(1, 2)
    queries = model.q_proj(model.places.weight).unflatten(-1, (2, -1)).transpose(0, 1)
    mask = (tokens != PAD_ID)[:, None, None]
    assert_close(model.place_weights(tokens), attention(queries, keys, keys, mask)[1])


@pytest.mark.parametrize("part", ["self_attention.q_proj.weight", "positions.weight", "places.weight"])
def test_every_part_matters(part):
    model, (tokens, _) = build(), encode([142])
    before = model(tokens)
    model.get_parameter(part).data.mul_(-3)
    assert not torch.allclose(model(tokens), before)


def test_read_is_the_largest_logit_of_each_place():
    model, (tokens, _) = build(), encode([42])
    assert model.read("Forty-two") == "".join(str(int(d)) for d in model(tokens)[0].argmax(-1))


@pytest.mark.parametrize("text", ["Forty-two", "forty two", "FORTY,two.", "  forty\ntwo "])
def test_spelling_details_do_not_matter(text):
    assert [VOCABULARY[i] for i in tokenize(text)] == ["forty", "two", "."]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: tokenize(" "), "holds no word"),
        (lambda: tokenize("forty million"), "'million' is no English number word below a million"),
        (lambda: tokenize("<pad>"), "'<pad>' is no English number word"),
        (lambda: tokenize("one " * 12), "at most 11 words, got 12"),
        (lambda: NumberReader().read("forti"), "'forti'"),
        (lambda: NumberReader()(torch.ones(1, 13, dtype=torch.long)), "at most 12 tokens in a row, got 13"),
        (lambda: NumberReader()(torch.ones(5, dtype=torch.long)), r"axes \(B, S\), got shape \(5,\)"),
        (lambda: NumberReader(d_model=9, n_heads=2), "got 9 and 2"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
