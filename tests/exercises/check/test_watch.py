"""What an answer asks of torch, named as the learner wrote it: an operator by its sign, a method by name."""

import math

import pytest
import torch
from torch import nn

from transformer_lab.exercises import attention as ex
from transformer_lab.exercises import feed_forward
from transformer_lab.feed_forward import FeedForward


def answer(lines, **names):
    """The function of ``q, k, v`` that a notebook makes of these lines."""
    names |= {"torch": torch, "nn": nn}
    exec("def answer(q, k, v):\n" + "".join(f"    {line.strip()}\n" for line in lines.split(";")), names)
    return names["answer"]


@pytest.mark.parametrize("sign", "+ - * / // % ** & | ^ < <= > >= == !=".split())
def test_an_operator_that_fails_is_named_by_its_sign(sign):
    given = "(q > 0) {} (k > 0)" if sign in "&|^" else "q {} k"
    message = ex.scaled_dot_product.check(answer(f"return {given.format(sign)}")).message
    assert message.startswith(f"The shapes do not fit. `{sign}` works entry by entry"), message


@pytest.mark.parametrize("sign", "+= -= *= /= //= %= **= &= |= ^=".split())
def test_an_operator_that_fails_in_place_is_named_by_its_sign(sign):
    x, y = ("q > 0", "k > 0") if sign[0] in "&|^" else ("q.clone()", "k")
    message = ex.scaled_dot_product.check(answer(f"x = {x}; x {sign} {y}; return x")).message
    assert message.startswith(f"The shapes do not fit. `{sign}` works entry by entry"), message


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("return q.add(k)", "add"),
        ("return torch.mul(q, k)", "mul"),
        ("return torch.bitwise_and(q > 0, k > 0)", "bitwise_and"),
        ("return torch.logical_or(q, k)", "logical_or"),
        ("return q.eq(k)", "eq"),
        ("return q.floor_divide(k)", "floor_divide"),
        ("return q.clone().add_(k)", "add_"),
        ("return (q + q).sub(k) + q", "sub"),
        ("return q + q + sum([q, k])", "+"),  # nobody wrote `add`
        ("return max(q, k)", ">"),
        ("return math.prod([q, k])", "*"),
    ],
)
def test_what_fails_without_an_operator_is_named_by_the_name_that_was_written(line, named):
    message = ex.scaled_dot_product.check(answer(line, math=math)).message
    assert message.startswith(f"The shapes do not fit. `{named}` works entry by entry"), message


@pytest.mark.parametrize("sign", ["@", "@="])
def test_a_product_that_fails_is_told_as_a_product(sign):
    message = ex.scaled_dot_product.check(answer(f"q = q[..., :3]; q {sign} v.mT; return q")).message
    assert message.startswith("The shapes do not fit. `A @ B` sums over the last axis of A"), message


@pytest.mark.parametrize(
    ("hidden", "named"),
    [
        ("(x @ up_weight.T + up_bias).relu()", "@"),
        ("(x.matmul(up_weight.T) + up_bias).relu()", "matmul"),
        ("nn.functional.linear(x, up_weight, up_bias).relu()", "linear"),
    ],
)
def test_what_is_off_limits_is_named_as_it_was_written(hidden, named):
    names = {"nn": nn}
    exec(f"def answer(x, up_weight, up_bias, down_weight, down_bias):\n    return {hidden}", names)
    message = feed_forward.as_convolutions.check(names["answer"]).message
    assert message == f"`{named}` is off limits in this exercise: write the answer without it."


@pytest.mark.parametrize("sign", "+ - * / // % **".split())
def test_a_write_into_an_input_is_named_by_its_operator(sign):
    message = ex.scaled_dot_product.check(answer(f"q {sign}= 2; return q")).message
    assert message == (
        f"Your code changed its input `q` in place. `{sign}=` writes into the tensor that is there. "
        f"Write `x = x {sign} ...`, which makes a new one."
    )


@pytest.mark.parametrize("sign", "& | ^".split())
def test_a_write_into_a_mask_is_named_by_its_operator(sign):
    def mixed(q, k, v, mask):
        return answer(f"v {sign}= ~v; return q")(q, k, mask)

    message = ex.masked_attention.check(mixed).message
    assert f"`{sign}=` writes into the tensor that is there. Write `x = x {sign} ...`" in message


@pytest.mark.parametrize("method", ["add_", "sub_", "mul_", "div_", "pow_", "floor_divide_", "remainder_"])
def test_a_write_into_an_input_is_named_by_its_method(method):
    message = ex.scaled_dot_product.check(answer(f"q = q.{method}(2); return q + 1")).message
    assert message == (
        f"Your code changed its input `q` in place. `{method}` writes into the tensor that is there. "
        f"`{method[:-1]}`, without the last `_`, makes a new one."
    )


@pytest.mark.parametrize("line", ["q.zero_()", "q.copy_(2 * q)", "q.fill_(3)"])
def test_a_method_that_is_there_only_in_place_is_not_told_to_lose_its_underscore(line):
    message = ex.scaled_dot_product.check(answer(f"{line}; return q")).message
    name = line[2:].split("(")[0]
    assert message.endswith(f"`{name}` writes into the tensor that is there. Work on `x.clone()`.")


def test_numbers_that_the_gradient_needs_are_told_by_which_method_they_were_overwritten():
    def in_place(scores):
        e = (scores - scores.amax(-1, keepdim=True)).exp()
        return e.div_(e.sum(-1, keepdim=True))

    message = ex.stable_softmax.check(in_place).message
    assert "`div_` writes into the tensor that is there. `div`, without the last `_`" in message


RANDOM = (
    "A new `{}` starts with random weights, and your code makes one at every call: "
    "compute with what is given."
)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ("nn.Conv1d(q.shape[-1], 4, 1)(q[0].mT).mT", "Conv1d"),
        ("nn.Sequential(nn.Linear(q.shape[-1], 4), nn.ReLU())(q)", "Linear"),
        ("FeedForward(d_model=q.shape[-1], d_ff=3)(q)", "FeedForward"),
        ("nn.LayerNorm(q.shape[-1])(q) + torch.rand(1)", ""),  # the layer has nothing random
        ("nn.utils.skip_init(nn.Linear, q.shape[-1], 4)(q) + torch.rand(1)", ""),
        ("nn.Dropout()(q)", ""),
    ],
)
def test_a_layer_that_starts_with_random_weights_is_named(layer, named):
    names = {"FeedForward": FeedForward}
    message = ex.scaled_dot_product.check(answer(f"return {layer}", **names)).message
    assert message.startswith(RANDOM.format(named) if named else "Your code drew random numbers"), message


def test_a_layer_in_a_module_is_named_only_where_it_is_made_anew():
    class MakesOneInForward(ex.MultiHead.solve):
        def forward(self, x, context, mask):
            return nn.Linear(x.shape[-1], x.shape[-1])(super().forward(x, context, mask))

    class Drops(ex.MultiHead.solve):
        def forward(self, x, context, mask):
            return nn.Dropout()(super().forward(x, context, mask))

    assert ex.MultiHead.check(MakesOneInForward).message == RANDOM.format("Linear")
    assert ex.MultiHead.check(Drops).message.startswith("Your code drew random numbers")


def test_a_layer_that_gets_the_given_weights_and_disturbs_nothing_is_right():
    def layer_for(weight, bias):
        with torch.random.fork_rng(devices=[]):
            layer = nn.Conv1d(weight.shape[1], weight.shape[0], 1)
        given = {"weight": weight[:, :, None], "bias": bias}
        return lambda x: torch.func.functional_call(layer, given, (x,))

    def convolutions(x, up_weight, up_bias, down_weight, down_bias):
        up, down = layer_for(up_weight, up_bias), layer_for(down_weight, down_bias)
        return down(up(x.mT).relu()).mT

    assert feed_forward.as_convolutions.check(convolutions)
