"""How near is right, how far is wrong, and what is said of gradients that differ."""

import numpy as np
import pytest
import torch

from transformer_lab.exercises import attention as ex
from transformer_lab.exercises import norms, positional
from transformer_lab.exercises.check.compare import agrees, side_by_side, where_gradients_differ


@pytest.mark.parametrize(
    ("dtype", "off", "passes"),
    [
        ("float32", 1e-5, True),  # what rounding leaves after some operations
        ("float32", 1e-3, False),
        ("float64", 1e-8, True),  # one number on the way was float32
        ("float64", 1e-5, False),
    ],
)
def test_an_answer_may_differ_by_rounding_only(dtype, off, passes):
    want = np.array([1.0, 2.0, 3.0])
    assert agrees(want * (1 + off), want, dtype) is passes


def test_nan_and_another_shape_agree_with_nothing():
    want = np.array([1.0, np.nan])
    assert not agrees(want, want, "float64")
    assert not agrees(np.ones((1, 2)), np.ones(2), "float64")


def scaled_by_a_float32(q, k, v):
    return (q @ k.mT / torch.sqrt(torch.tensor(q.shape[-1]))).softmax(-1) @ v


def test_an_answer_that_loses_precision_on_its_way_passes_with_a_remark():
    result = ex.scaled_dot_product.check(scaled_by_a_float32)
    assert result and "right to about 8 digits only" in result.message
    assert "remark" not in ex.scaled_dot_product.check(ex.scaled_dot_product.solve).message


def rate_by_a_loop(steps, d_model, warmup):
    return torch.tensor([d_model**-0.5 * min(s**-0.5, s * warmup**-1.5) for s in steps.tolist()])


class NarrowerThanItsInput(ex.MultiHead.solve):
    def forward(self, x, context, mask):
        return super().forward(x, context, mask).float()


@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    [
        (norms.warm_up, rate_by_a_loop, "steps"),
        (ex.masked_attention, lambda q, k, v, mask: ex.masked_attention.solve(q, k, v, mask).float(), "q"),
        (positional.sinusoid, lambda p, d_model: positional.sinusoid.solve(p, d_model).float(), "positions"),
        (ex.MultiHead, NarrowerThanItsInput, "x"),
    ],
)
def test_an_answer_of_another_type_passes_with_a_remark_that_names_the_exercise_s_own_input(
    exercise, answer, name
):
    result = exercise.check(answer)
    remark = (
        "One remark: for float64 inputs your answer came as float32. "
        f"`{name}.new_zeros(...)` makes a tensor of the type and on the device of `{name}`."
    )
    assert result and remark in result.message, result


def test_numbers_are_shown_until_they_differ():
    assert side_by_side(1.0, 1.5e29) == "expected 1, given 1.5e+29"
    assert side_by_side(1.0, np.inf) == "expected 1, given inf"
    assert side_by_side(1.0, 2.0) == "expected 1.0000, given 2.0000"
    assert side_by_side(1.0, 1.0000001) == "expected 1.0000000, given 1.0000001; they differ by 1.0e-07"


RIGHT = [{"q": np.array([[1.0, 2.0]]), "k": np.array([3.0])}]


@pytest.mark.parametrize(
    ("got", "says"),
    [
        ({"q": np.array([[1.0, np.nan]])}, "the gradient with respect to `q` holds NaN."),
        ({"k": np.array([0.0])}, "no gradient reaches `k`."),
        ({"q": np.array([[1.0, 2.5]])}, "to `q` is not: at [0, 1], expected 2.0000, given 2.5000."),
        ({"k": np.array([6.0])}, "to `k` is not: at [0], expected 3.0000, given 6.0000."),
    ],
)
def test_the_first_wrong_gradient_is_named(got, says):
    assert where_gradients_differ([RIGHT[0] | got], RIGHT).endswith(says)


def test_a_small_input_is_shown_in_full_and_a_large_one_is_not():
    shown = repr(ex.weighted_average.check(lambda weights, values: weights @ values + 1))
    assert "    weights = [[0.2275 0.1358 0.6367]" in shown and "    values = [[ 1.304   0.9471" in shown
    assert "q = [" not in repr(ex.scaled_dot_product.check(lambda q, k, v: q))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda scores: (scores / 2).exp() / (scores / 2).exp().sum(-1, keepdim=True), ""),
        (
            lambda scores: torch.where(scores > 900, torch.inf, ex.stable_softmax.solve(scores)),
            "reaches 1004.",
        ),
        (
            lambda scores: torch.where(scores < -900, torch.inf, ex.stable_softmax.solve(scores)),
            "reaches -1003.",
        ),
        (lambda scores: ex.stable_softmax.solve(scores) * torch.nan, ""),
    ],
)
def test_infinity_or_nan_of_a_large_input_is_called_an_overflow(answer, says):
    message = ex.stable_softmax.check(answer).message
    assert ("An overflow, most likely: in this input `scores`" in message and says in message) == bool(says)


def test_a_write_into_a_sparse_tensor_does_no_harm():
    def answer(weights, values):
        weights = weights.to_sparse()
        weights *= 1
        return weights @ values

    assert ex.weighted_average.check(answer)


def test_the_call_is_described_without_the_weights_of_a_module():
    class Wrong(ex.MultiHead.solve):
        def forward(self, x, context, mask):
            return torch.zeros_like(x)

    message = ex.MultiHead.check(Wrong).message
    assert (
        "d_model = 4, n_heads = 2, x (1, 2, 4), context (1, 3, 4), mask (1, 1, 2, 3), in float32:" in message
    )
