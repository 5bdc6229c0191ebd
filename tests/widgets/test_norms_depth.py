import json

import pytest
from traitlets import TraitError

from transformer_lab.training import results
from transformer_lab.widgets import DepthAndWiring


def test_repr_is_the_same_for_the_same_state():
    assert repr(DepthAndWiring()) == "DepthAndWiring(wiring='pre-norm', depth=8, layer=8)"
    shown = DepthAndWiring(wiring="neither", depth=48, layer=1)
    assert repr(shown) == "DepthAndWiring(wiring='neither', depth=48, layer=1)"


def test_it_shows_the_stored_runs_whole():
    runs, stored = DepthAndWiring().runs, results.read("norms")["depth"]
    assert runs["depths"] == stored["depths"]
    for wiring in runs["wirings"]:
        for what in ("gradient", "diversity"):
            assert runs[what][wiring] == stored[what][wiring]
            assert {int(d): len(values) for d, values in runs[what][wiring].items()} == {
                d: d for d in runs["depths"]
            }


def test_the_runs_are_light():
    assert len(json.dumps(DepthAndWiring().runs)) < 16_000


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"wiring": "sandwich"}, "wiring must be one of pre-norm; .*; neither, got 'sandwich'"),
        ({"depth": 5}, "depth must be one of 2, 4, .*, 48; got 5"),
        ({"layer": 0}, "layer must be 1 or more, got 0"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        DepthAndWiring(**traits)
