import pytest
from traitlets import TraitError

from transformer_lab.widgets import WindowReach


def test_repr_is_the_same_for_the_same_state():
    assert repr(WindowReach()) == (
        "WindowReach(n_tokens=41, window=4, dilation=1, n_layers=3, causal=False, global_tokens=[], token=20)"
    )
    widget = WindowReach(n_tokens=9, window=8, dilation=2, causal=True, global_tokens=[8, 0])
    assert repr(widget) == (
        "WindowReach(n_tokens=9, window=8, dilation=2, n_layers=3, causal=True, "
        "global_tokens=[0, 8], token=4)"
    )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"n_tokens": 4}, "n_tokens must be from 5 to 64, got 4"),
        ({"n_tokens": 65}, "got 65"),
        ({"window": 3}, "window must be an even number from 2 to 16, got 3"),
        ({"window": 0}, "got 0"),
        ({"window": 18}, "got 18"),
        ({"dilation": 0}, "dilation must be from 1 to 4, got 0"),
        ({"dilation": 5}, "got 5"),
        ({"n_layers": 0}, "n_layers must be from 1 to 12, got 0"),
        ({"n_layers": 13}, "got 13"),
        ({"global_tokens": [41]}, r"global_tokens must be different positions from 0 to 40, got \[41\]"),
        ({"global_tokens": [-1]}, r"got \[-1\]"),
        ({"global_tokens": [3, 3]}, r"got \[3, 3\]"),
        ({"token": -1}, "token must be from 0 to 40, got -1"),
        ({"n_tokens": 9, "token": 9}, "token must be from 0 to 8, got 9"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        WindowReach(**traits)


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="WindowReach has no trait 'layers'"):
        WindowReach(layers=4)
