import math

import pytest
from traitlets import TraitError

from transformer_lab.widgets import QueryKeyValue


def test_defaults_divide_by_the_root_of_dk():
    widget = QueryKeyValue()
    assert widget.divisor == math.sqrt(len(widget.q))
    assert len(widget.tokens) == len(widget.k) == len(widget.v) == 4
    assert widget.asking in widget.tokens


def test_the_reset_goes_back_to_what_the_constructor_got():
    widget = QueryKeyValue(q=[0.5, -1.0], divisor=2.0)
    widget.q = [1.0, 1.0]
    assert widget.start == {"q": [0.5, -1.0], "k": widget.k, "v": widget.v, "divisor": 2.0}


def test_other_words_bring_their_own_vectors():
    widget = QueryKeyValue(tokens=["a", "b"], asking="a", k=[[1, 0], [0, 1]], v=[[1, 1], [2, 2]])
    assert widget.get_state()["k"] == [[1, 0], [0, 1]]


def test_repr_is_the_same_for_the_same_state():
    expected = "QueryKeyValue(tokens=['the', 'cat', 'sat', 'down'], q=[1.3, 0.2], divisor=1.414)"
    assert repr(QueryKeyValue()) == repr(QueryKeyValue()) == expected
    assert QueryKeyValue()._repr_mimebundle_()[0]["text/plain"] == expected


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"q": [1.0, 9.0]}, r"q must be two numbers from -3 to 3, got \[1.0, 9.0\]"),
        ({"q": [1.0, float("nan")]}, r"q must be two numbers .* got \[1.0, nan\]"),
        ({"q": [1.0]}, r"q must be two numbers from -3 to 3, got \[1.0\]"),
        ({"k": [[0.0, 0.0]] * 3 + [[0.0, -3.5]]}, r"k\[3\] must be two numbers .* got \[0.0, -3.5\]"),
        ({"k": [[0.0, 0.0]] * 3}, "k must be one per token, got 3 for 4 tokens"),
        ({"v": [[0.0, 0.0]] * 5}, "v must be one per token, got 5 for 4 tokens"),
        ({"tokens": ["one", "two"]}, "k must be one per token, got 4 for 2 tokens"),
        ({"tokens": ["lonely"]}, "tokens must be two to six words, got 1"),
        ({"tokens": ["a", "b", "a", "c"]}, r"tokens must be different words, got \['a', 'b', 'a', 'c'\]"),
        ({"tokens": ["a", "b", " ", "c"]}, r"tokens must be different words, got \['a', 'b', ' ', 'c'\]"),
        ({"divisor": 0.0}, "divisor must be a positive number, got 0.0"),
        ({"divisor": float("inf")}, "divisor must be a positive number, got inf"),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        QueryKeyValue(**traits)


@pytest.mark.bad_input
def test_a_misspelt_trait_is_named():
    with pytest.raises(TypeError, match="QueryKeyValue has no trait 'keys_'"):
        QueryKeyValue(keys_=[])


@pytest.mark.bad_input
def test_a_refused_value_leaves_the_old_one():
    widget = QueryKeyValue()
    with pytest.raises(TraitError, match="got -1"):
        widget.divisor = -1.0
    with pytest.raises(TraitError, match='"start" trait is read-only'):
        widget.start = {}
    assert widget.divisor == math.sqrt(2)
