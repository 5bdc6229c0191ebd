"""Numbers, shapes and choices as answers: accepted in any form that says the same, refused with a reason."""

import numpy as np
import pytest
import torch

from transformer_lab.exercises import attention as ex
from transformer_lab.exercises import feed_forward


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ((2, 4, 3, 5), True),
        ([2, 4, 3, 5], True),
        (torch.Size([2, 4, 3, 5]), True),
        (np.array([2, 4, 3, 5]), True),
        ((2, 4, 3, 6), False),
        ((2, 4, 3), False),
        (("2", "4", "3", "5"), False),
        ("(2, 4, 3, 5)", False),
        (120, False),
    ],
)
def test_shapes_are_accepted_in_any_form(answer, passes):
    assert bool(ex.score_shape.check(answer)) is passes


@pytest.mark.parametrize("answer", [8, 8.0, np.float32(8), torch.tensor(8), torch.tensor(8.001)])
def test_numbers_are_accepted_in_any_form(answer):
    assert ex.dot_product_spread.check(answer)


@pytest.mark.parametrize("answer", ["8", True, (8,), 8j, float("nan"), 7.9, lambda: 8])
def test_what_is_no_right_number_is_refused(answer):
    result = ex.dot_product_spread.check(answer)
    assert result.status == "not yet" and result.message


ENDLESS = []
ENDLESS.append(ENDLESS)


class Evil(float):
    def __float__(self):
        raise ValueError("no number")


UNREADABLE = [torch.ones(1, device="meta"), Evil(8), type("", (), {})()]


@pytest.mark.parametrize(
    "answer",
    [*UNREADABLE, 10**400, ENDLESS, [[[[1]]]], {8}, {"a": 8}, b"8", np.array([None]), torch.rand(3, 3)],
)
@pytest.mark.parametrize(
    "exercise", [ex.dot_product_spread, ex.score_shape, ex.head_entropy], ids=lambda e: e.name
)
def test_strange_answers_are_refused_in_peace(exercise, answer):
    for given in (answer, (answer, answer)):
        result = exercise.check(given)
        assert result.status == "not yet" and result.message


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (("1568", "800"), "a str"),
        ([1568, "800"], "a str"),
        (("(1568, 800)",), "a str"),
        (((1568, 800), 1), "a tuple"),
        ((1568, None), "a NoneType"),
        ((True, 800), "a bool"),
    ],
)
def test_what_holds_something_else_than_numbers_is_told_so(answer, kind):
    message = feed_forward.weights_that_a_token_meets.check(answer).message
    assert message == (
        "Your prediction should be a pair, (in all, for one token); "
        f"in this one {kind} stands where a number should."
    )


@pytest.mark.parametrize("answer", ["b", "B", " b ", "b\n"])
def test_a_choice_is_accepted_in_any_form(answer):
    assert ex.two_words_change_places.check(answer)


@pytest.mark.parametrize("answer", ["e", "", "the first and the last have changed places", "ab"])
def test_what_is_no_choice_is_told_the_choices(answer):
    message = ex.two_words_change_places.check(answer).message
    assert message == 'Your prediction should be "a", "b", "c" or "d".'


@pytest.mark.parametrize(
    ("answer", "kind"), [(2, "an int"), (("b",), "a tuple"), (["b"], "a list"), (b"b", "a bytes")]
)
def test_what_is_no_text_is_told_the_choices_too(answer, kind):
    message = ex.two_words_change_places.check(answer).message
    assert message == f'Your prediction should be "a", "b", "c" or "d"; this is {kind}.'


@pytest.mark.parametrize(
    "exercise", [ex.score_shape, ex.two_words_change_places, ex.head_entropy], ids=lambda e: e.name
)
@pytest.mark.parametrize("answer", [None, ...])
def test_no_answer_is_not_attempted(exercise, answer):
    assert exercise.check(answer).status == "not attempted"


def test_the_stub_says_what_an_answer_looks_like():
    assert ex.two_words_change_places.stub == 'answer = None  # your prediction: "a", "b", "c" or "d"'
    assert ex.score_shape.stub == "answer = None  # your prediction: a tuple of four whole numbers"
    assert ex.head_entropy.stub == "answer = None  # what you measured: (without scaling, with scaling)"
