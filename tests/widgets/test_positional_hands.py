import pytest
from traitlets import TraitError

from transformer_lab.widgets import SinusoidHands


def test_repr_is_the_same_for_the_same_state():
    assert repr(SinusoidHands()) == "SinusoidHands(position=3, offset=4, d_model=16)"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"position": -1}, "position must be from 0 to 100, got -1"),
        ({"position": 101}, "got 101"),
        ({"offset": 13}, "offset must be from -12 to 12, got 13"),
        ({"offset": -13}, "got -13"),
        ({"d_model": 6}, "d_model must be 4, 8 or 16, got 6"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        SinusoidHands(**traits)


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="SinusoidHands has no trait 'd'"):
        SinusoidHands(d=4)
