import pytest
from traitlets import TraitError

from transformer_lab.widgets import RotaryDials


def test_repr_is_the_same_for_the_same_state():
    assert repr(RotaryDials()) == "RotaryDials(q_position=8, k_position=5, together=False)"


def test_a_narrower_query_and_key_are_given_together():
    assert RotaryDials(q=[1.0, 0.0], k=[0.0, 1.0]).k == [0.0, 1.0]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"q_position": -1}, "q_position must be from 0 to 12, got -1"),
        ({"k_position": 13}, "k_position must be from 0 to 12, got 13"),
        ({"q": [0.5, 0.5, 0.5]}, r"q must be 2, 4, 6 or 8 numbers from -1 to 1, got \[0.5, 0.5, 0.5\]"),
        ({"k": [2.0] * 8}, "k must be 2, 4, 6 or 8 numbers from -1 to 1, got"),
        ({"k": [float("nan")] * 8}, "got .*nan"),
        ({"q": [0.5, 0.5]}, "q and k must be equally wide, got 2 and 8 numbers"),
        ({"base": 0.5}, "base must be 1 or more, got 0.5"),
        ({"base": float("inf")}, "got inf"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        RotaryDials(**traits)


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="RotaryDials has no trait 'dial'"):
        RotaryDials(dial=4)
