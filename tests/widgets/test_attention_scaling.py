import pytest
from traitlets import TraitError

from transformer_lab.widgets import AttentionScaling


def test_repr_is_the_same_for_the_same_state():
    assert repr(AttentionScaling()) == "AttentionScaling(d_k=4, n_keys=8, divided=False)"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"d_k": 3}, "d_k must be a power of two from 1 to 256, got 3"),
        ({"d_k": 512}, "got 512"),
        ({"n_keys": 1}, "n_keys must be from 2 to 12, got 1"),
        ({"n_keys": 13}, "got 13"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        AttentionScaling(**traits)


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="AttentionScaling has no trait 'dk'"):
        AttentionScaling(dk=4)
