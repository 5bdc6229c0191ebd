import pytest
from traitlets import TraitError

from transformer_lab.widgets import FlashTiles
from transformer_lab.widgets.flash_tiles import SCALES

ROW = [0.5, -1.0]


def test_repr_is_the_same_for_the_same_state():
    shown = "FlashTiles(8 queries, 8 keys, block_q=4, block_k=2, causal=False, scale=1, step=0)"
    assert repr(FlashTiles()) == shown
    other = FlashTiles(q=[ROW] * 3, k=[ROW] * 5, v=[ROW] * 5, block_q=2, causal=True, scale=0.5, step=4)
    assert (
        repr(other) == "FlashTiles(3 queries, 5 keys, block_q=2, block_k=2, causal=True, scale=0.5, step=4)"
    )


def test_each_scale_can_be_chosen_and_a_tile_may_be_as_large_as_the_table():
    for scale in SCALES:
        assert FlashTiles(scale=scale).scale == scale
    assert FlashTiles(q=[ROW] * 10, block_q=10, block_k=10, step=99).block_q == 10


def test_a_view_does_not_change_the_numbers_of_the_next():
    FlashTiles().q[0][0] = 99.0
    assert FlashTiles().q[0] == [1.2, 0.4]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"q": [ROW]}, r"q must be 2 to 10 rows of two numbers, got rows of \[2\]"),
        ({"q": [ROW] * 11}, "q must be 2 to 10 rows of two numbers"),
        ({"k": [ROW, [1.0]]}, r"k must be 2 to 10 rows of two numbers, got rows of \[2, 1\]"),
        ({"v": [ROW] * 7}, "k and v must have as many rows, v got 7 beside 8"),
        ({"k": [ROW] * 9}, "k and v must have as many rows, k got 9 beside 8"),
        ({"q": [ROW, [0.0, float("nan")]]}, r"q must be finite numbers, got \[\[0.5, -1.0\], \[0.0, nan\]\]"),
        ({"block_q": 0}, "block_q must be from 1 to 10, got 0"),
        ({"block_k": 11}, "block_k must be from 1 to 10, got 11"),
        ({"scale": 3.0}, "scale must be one of 0.5, 1, 2, 4, 100; got 3"),
        ({"step": -1}, "step must be 0 or more, got -1"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        FlashTiles(**traits)
