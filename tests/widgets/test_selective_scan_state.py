import math

import pytest
from traitlets import TraitError

from transformer_lab.widgets import SelectiveState


def test_repr_is_the_same_for_the_same_state():
    assert repr(SelectiveState()) == "SelectiveState(10 tokens, selective=False, common_step=0.3)"
    widget = SelectiveState(selective=True, steps={"cat": 5, "dog": 0.7, "um": 0, "er": 0})
    assert repr(widget) == (
        "SelectiveState(10 tokens, selective=True, steps={'cat': 5.0, 'dog': 0.7, 'um': 0.0, 'er': 0.0})"
    )


def test_other_words_begin_with_the_same_step():
    widget = SelectiveState(tokens=["a", "b", "a"], x=[1, 2, 1], content=["b"])
    assert widget.steps == {"a": 0.3, "b": 0.3}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"tokens": ["one"]}, r"tokens must be two to 12 words, got \['one'\]"),
        ({"tokens": ["a"] * 13}, "tokens must be two to 12 words"),
        ({"tokens": ["a", " "]}, r"got \['a', ' '\]"),
        ({"tokens": ["cat", "um"]}, "x must be a finite number for each of 2 tokens, got .*1.0"),
        ({"x": [1, 2]}, r"x must be a finite number for each of 10 tokens, got \[1.0, 2.0\]"),
        ({"x": [math.inf] * 10}, "got .*inf"),
        ({"tokens": ["a", "b"], "x": [1, 2]}, r"content must be some of the words a, b; got \['cat'"),
        ({"content": []}, r"some of the words um, cat, er, dog; got \[\]"),
        ({"content": ["um", "cat", "er", "dog"]}, "content must be some of"),
        ({"content": ["cat", "cat"]}, r"got \['cat', 'cat'\]"),
        ({"rates": []}, r"rates must be one to 3 negative numbers, got \[\]"),
        ({"rates": [-1, -2, -3, -4]}, "got .*-4.0"),
        ({"rates": [-1, 0]}, r"got \[-1.0, 0.0\]"),
        ({"rates": [-math.inf]}, "got .*-inf"),
        ({"steps": {"um": 1, "cat": 1}}, "steps must name the words um, cat, er, dog; got um, cat"),
        ({"steps": {"um": 1, "cat": 1, "er": -1, "dog": 1}}, "step of 'er' must be .* 0 or more, got -1.0"),
        ({"common_step": math.nan}, "common_step must be a finite number of 0 or more, got nan"),
        ({"common_step": math.inf}, "got inf"),
        ({"chosen": 10}, "chosen must be from 0 to 9, got 10"),
        ({"chosen": -1}, "got -1"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        SelectiveState(**traits)


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="SelectiveState has no trait 'delta'"):
        SelectiveState(delta=1)
