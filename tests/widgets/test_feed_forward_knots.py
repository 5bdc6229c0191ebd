import math

import pytest
from traitlets import TraitError

from transformer_lab.widgets import ReluKnots


def test_repr_is_the_same_for_the_same_state():
    assert repr(ReluKnots()) == "ReluKnots(3 units, target='bump', nonlinear=True)"
    assert repr(ReluKnots(units=[[0, -1, 2.5]], target="sine", nonlinear=False)) == (
        "ReluKnots(1 units, target='sine', nonlinear=False)"
    )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"units": []}, "units must be one to 8, got 0"),
        ({"units": [[0, 1, 1]] * 9}, "got 9"),
        ({"units": [[0, 1]]}, r"a unit must be \[knot, side, weight\], got \[0.*, 1.*\]"),
        ({"units": [[3.5, 1, 1]]}, "a knot must lie from -3 to 3, got 3.5"),
        ({"units": [[math.nan, 1, 1]]}, "got nan"),
        ({"units": [[0, 2, 1]]}, r"a side must be 1 \(right\) or -1 \(left\), got 2"),
        ({"units": [[0, 1, math.inf]]}, "a weight must be a finite number, got inf"),
        ({"offset": math.nan}, "offset must be a finite number, got nan"),
        ({"target": "line"}, "line"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        ReluKnots(**traits)
