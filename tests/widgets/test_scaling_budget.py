import pytest
from traitlets import TraitError

from transformer_lab.scaling import HOFFMANN, JointLaw
from transformer_lab.widgets import ComputeBudget


def test_repr_is_the_same_for_the_same_state():
    assert repr(ComputeBudget()) == "ComputeBudget(exponent=21, place=12)"
    assert repr(ComputeBudget(exponent=23, place=0)) == "ComputeBudget(exponent=23, place=0)"


def test_it_holds_the_published_law_and_sizes_on_an_even_scale():
    widget = ComputeBudget()
    assert JointLaw(**widget.law) == HOFFMANN
    assert (widget.sizes[0], widget.sizes[-1]) == pytest.approx((1e7, 1e13))
    steps = [b / a for a, b in zip(widget.sizes, widget.sizes[1:], strict=False)]
    assert steps == pytest.approx([10 ** (1 / 3)] * 18)


def test_the_best_size_of_every_budget_is_within_the_sizes():
    widget = ComputeBudget()
    for exponent in range(18, 27):
        assert widget.sizes[0] < HOFFMANN.optimum(10.0**exponent)[0] < widget.sizes[-1]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"exponent": 17}, "exponent must be from 18 to 26, got 17"),
        ({"place": 19}, "place must be from 0 to 18, got 19"),
        ({"place": -1}, "place must be from 0 to 18, got -1"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        ComputeBudget(**traits)
