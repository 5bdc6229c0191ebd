import json

import pytest
from traitlets import TraitError

from transformer_lab.training import results
from transformer_lab.why_attention import NAMES
from transformer_lab.widgets import GradientAndDistance


def test_repr_is_the_same_for_the_same_state():
    first = "GradientAndDistance(tokens=64, distance=32, shown=['tanh RNN', 'attention'])"
    assert repr(GradientAndDistance()) == first
    shown = GradientAndDistance(tokens=512, distance=1, shown=["LSTM"])
    assert repr(shown) == "GradientAndDistance(tokens=512, distance=1, shown=['LSTM'])"


def test_it_shows_the_stored_runs_whole():
    runs, stored = GradientAndDistance().runs, results.read("why_attention")["start"]
    assert runs["names"] == list(NAMES)
    assert {what: runs[what] for what in stored} == stored


def test_the_runs_are_light():
    assert len(json.dumps(GradientAndDistance().runs)) < 8_000


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"tokens": 100}, "tokens must be one of 16, 32, .*, 512; got 100"),
        ({"distance": 0}, "distance must be 1 or more, got 0"),
        ({"shown": ["GRU"]}, r"shown must be some of tanh RNN; .*; got \['GRU'\]"),
        ({"shown": ["LSTM", "LSTM"]}, "shown must be some of tanh RNN; "),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        GradientAndDistance(**traits)
