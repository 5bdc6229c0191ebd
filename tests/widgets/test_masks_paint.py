import pytest
from traitlets import TraitError

from transformer_lab.masks import causal_mask
from transformer_lab.widgets import MaskPainter


def test_repr_is_the_same_for_the_same_state():
    assert repr(MaskPainter()) == "MaskPainter(8 tokens, 36 True in the mask, n_layers=1)"
    widget = MaskPainter(tokens=["a", "b"], mask=[[False, False], [True, False]], n_layers=3)
    assert repr(widget) == "MaskPainter(2 tokens, 1 True in the mask, n_layers=3)"


@pytest.mark.parametrize("tokens", [["a", "b"], list("abcdefghij")])
def test_the_mask_is_causal_unless_another_is_given(tokens):
    assert MaskPainter(tokens=tokens).mask == causal_mask(len(tokens))[0, 0].tolist()


def test_a_mask_of_the_package_can_be_shown():
    mask = ~causal_mask(8)[0, 0]
    assert MaskPainter(mask=mask.tolist()).mask == mask.tolist()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"tokens": ["one"]}, "tokens must be two to ten words, got 1"),
        ({"tokens": list("abcdefghijk")}, "got 11"),
        ({"tokens": ["a", "a"]}, r"tokens must be different words, got \['a', 'a'\]"),
        ({"tokens": ["a", " "]}, "tokens must be different words"),
        ({"mask": [[True]]}, r"mask must have 8 rows of 8, one per token, got rows of \[1\]"),
        ({"tokens": ["a", "b"], "mask": [[True, True], [True]]}, r"2 rows of 2, .* got rows of \[2, 1\]"),
        ({"n_layers": 0}, "n_layers must be from 1 to 8, got 0"),
        ({"n_layers": 9}, "got 9"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        MaskPainter(**traits)


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="MaskPainter has no trait 'layers'"):
        MaskPainter(layers=4)
