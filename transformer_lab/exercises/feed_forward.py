"""Exercises of the chapter "Feed-forward networks", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .check import Chapter

chapter = Chapter("feed_forward", "Feed-forward networks")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


def _two_layers(rng: np.random.Generator, B: int, T: int, D: int, F: int) -> dict[str, Any]:
    return {
        "x": rng.standard_normal((B, T, D)),
        "w_up": rng.standard_normal((D, F)),
        "b_up": rng.standard_normal(F),
        "w_down": rng.standard_normal((F, D)),
        "b_down": rng.standard_normal(D),
    }


def _token_by_token(
    x: np.ndarray, w_up: np.ndarray, b_up: np.ndarray, w_down: np.ndarray, b_down: np.ndarray
) -> np.ndarray:
    """Unit by unit: a unit whose sum is above 0 adds its row of ``w_down`` that many times."""
    out = np.zeros_like(x)
    for place in np.ndindex(x.shape[:2]):
        out[place] = b_down
        for unit, bias in enumerate(b_up):
            if (answer := x[place] @ w_up[:, unit] + bias) > 0:
                out[place] += answer * w_down[unit]
    return out


@chapter.implement(
    title="The feed-forward network",
    statement=r"""
        Write equation (2) of the paper as a function:

        $$\max(0,\ x W_\text{up} + b_\text{up})\, W_\text{down} + b_\text{down}$$

        `x` has the shape (B, T, D). `w_up` is (D, F) and `b_up` is (F): they make F hidden numbers of the D
        numbers of a token. `w_down` is (F, D) and `b_down` is (D): they lead back. The maximum with 0 is
        taken of each hidden number on its own; PyTorch calls it `relu`.
        """,
    hints=(
        "Two lines: the hidden numbers, (B, T, F), and what is made of them, (B, T, D). Print both shapes.",
        "`x @ w_up` multiplies the last axis of `x`: every token on its own. A bias is added to every token.",
        "`hidden.relu()` replaces each negative number by 0. It stands between the two matrices: after the "
        "first bias, before `w_down`.",
    ),
    axes="B T D",
    inputs=_two_layers,
    sizes=((1, 2, 3, 4), (2, 3, 4, 6), (1, 4, 2, 8), (3, 1, 5, 2), (2, 5, 3, 7)),
    reference=_token_by_token,
)
def feed_forward(x, w_up, b_up, w_down, b_down):
    """Let each token of x (B, T, D) pass through F hidden numbers: an answer (B, T, D)."""
    # Every token on its own: (B, T, D) @ (D, F) -> (B, T, F). Without the relu two matrices were one.
    hidden = (x @ w_up + b_up).relu()
    return hidden @ w_down + b_down


@feed_forward.slip("""
    There is no nonlinearity: you multiplied by one matrix and then by the other, which one matrix could do.
    Put a `relu` between them.""")
def _no_relu(x, w_up, b_up, w_down, b_down):
    return (x @ w_up + b_up) @ w_down + b_down


@feed_forward.slip("""
    A second `relu` stands at the end. The output may be negative: only the hidden numbers are cut off at
    0.""")
def _relu_at_the_end_too(x, w_up, b_up, w_down, b_down):
    return ((x @ w_up + b_up).relu() @ w_down + b_down).relu()


@feed_forward.slip("""
    The `relu` stands at the end. It belongs in the middle, between the two matrices.""")
def _relu_at_the_end(x, w_up, b_up, w_down, b_down):
    return ((x @ w_up + b_up) @ w_down + b_down).relu()


@feed_forward.slip("""
    You cut off the input at 0. It is the hidden numbers that are cut off: first the matrix and the bias, then
    `relu`.""")
def _relu_of_the_input(x, w_up, b_up, w_down, b_down):
    return (x.relu() @ w_up + b_up) @ w_down + b_down


@feed_forward.slip("""
    You added `b_up` after the `relu`. It comes before: the bias decides from where on a unit answers.""")
def _bias_after_the_relu(x, w_up, b_up, w_down, b_down):
    return ((x @ w_up).relu() + b_up) @ w_down + b_down


@feed_forward.slip("""
    `b_up` is missing: without it every hidden unit starts to answer at the same place, at 0.""")
def _first_bias_missing(x, w_up, b_up, w_down, b_down):
    return (x @ w_up).relu() @ w_down + b_down


@feed_forward.slip("""
    `b_down` is missing: it is added at the very end.""")
def _second_bias_missing(x, w_up, b_up, w_down, b_down):
    return (x @ w_up + b_up).relu() @ w_down


@feed_forward.slip("""
    Both biases are missing: each matrix product is followed by its own.""")
def _no_biases(x, w_up, b_up, w_down, b_down):
    return (x @ w_up).relu() @ w_down


@feed_forward.slip("""
    You kept the negative numbers and dropped the positive ones. `max(0, ...)` keeps the positive ones.""")
def _negative_kept(x, w_up, b_up, w_down, b_down):
    return (x @ w_up + b_up).clamp(max=0) @ w_down + b_down


@feed_forward.slip("""
    You took the absolute value: a negative number comes out positive. `max(0, ...)` makes it 0.""")
def _absolute_value(x, w_up, b_up, w_down, b_down):
    return (x @ w_up + b_up).abs() @ w_down + b_down


@feed_forward.slip("""
    That is a GELU network, as in GPT and BERT. Here the nonlinearity is `max(0, ...)`, `relu`.""")
def _gelu_for_relu(x, w_up, b_up, w_down, b_down):
    return F.gelu(x @ w_up + b_up) @ w_down + b_down


@feed_forward.slip("""
    Your nonlinearity is a sigmoid. Here it is `max(0, ...)`, `relu`.""")
def _sigmoid_for_relu(x, w_up, b_up, w_down, b_down):
    return (x @ w_up + b_up).sigmoid() @ w_down + b_down


@feed_forward.slip("""
    These are the hidden numbers, F a token. One step is left: `w_down` and `b_down` lead back to D.""")
def _hidden_returned(x, w_up, b_up, w_down, b_down):
    return (x @ w_up + b_up).relu()


@feed_forward.slip("""
    You added `x` to the answer. That is the residual connection, which a Transformer's layer puts around this
    network; it is not part of it.""")
def _residual(x, w_up, b_up, w_down, b_down):
    return x + (x @ w_up + b_up).relu() @ w_down + b_down


_FIRST_MATRIX = """
    Rows of `x`, D numbers each, meet `w_up`, which is (D, F): as it is, not turned round, and before
    `w_down`, which leads back.
    """


@feed_forward.crash(_FIRST_MATRIX)
def _first_matrix_turned(x, w_up, b_up, w_down, b_down):
    return x @ w_up.T


@feed_forward.crash("""
    The hidden numbers, F a token, meet `w_down`, which is (F, D): as it is, not turned round.""")
def _second_matrix_turned(x, w_up, b_up, w_down, b_down):
    return (x @ w_up + b_up).relu() @ w_down.T


@feed_forward.crash("""
    Python's `max` and `if` ask one question of the whole tensor, and it has many numbers. Each hidden number
    is cut off on its own: `relu`.""")
def _one_question(x, w_up, b_up, w_down, b_down):
    return max(0, x @ w_up + b_up)


_NUMBER_FOR_A_TENSOR = """
    PyTorch's maximum of two things wants two tensors, and 0 is a number. `relu` compares with 0 by itself.
    """


@feed_forward.crash(_NUMBER_FOR_A_TENSOR)
def _max_of_number_and_tensor(x, w_up, b_up, w_down, b_down):
    return torch.max(0, x @ w_up + b_up)


@feed_forward.crash(_NUMBER_FOR_A_TENSOR)
def _maximum_of_number_and_tensor(x, w_up, b_up, w_down, b_down):
    return torch.maximum(0, x @ w_up + b_up)


@feed_forward.crash(_NUMBER_FOR_A_TENSOR)
def _maximum_of_tensor_and_number(x, w_up, b_up, w_down, b_down):
    return torch.maximum(x @ w_up + b_up, 0)


# --- 2 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="How many straight pieces",
    statement="""
        A feed-forward network takes one number, has five hidden units with `relu`, and gives one number.
        Drawn over its input it is a line that bends.

        Before you run anything: of how many straight pieces can it consist at most?
        """,
    hints=(
        "Where can the curve bend? Only where one of the hidden units starts or stops to answer.",
        "A hidden unit is `relu(w x + b)` with two numbers of its own. At how many places does it bend?",
        "Five places cut a line into pieces. Draw it: two cuts leave three pieces.",
    ),
    expected=6,
    wrong={
        5: "Five is the number of bends, one a unit. Cut a line at five places: how many pieces are there?",
        2: "That is one unit alone: 0 on one side, a slope on the other. There are five of them, each with a "
        "bend at a place of its own.",
        10: "A unit has two pieces, but they do not simply add up: where one unit bends, all others go on "
        "straight. Count the bends.",
        32: "2 to the 5 is the number of ways in which five units can be on or off. On one line they "
        "change one after the other, so only few of these ways occur.",
        4: "Too few: five units can bend at five different places.",
        7: "Too many: the ends of the line are no bends. Five units bend it at five places at most.",
        1: "One piece is what is left without the `relu`. With it, each unit can bend the line.",
        25: "Units do not multiply: each adds one bend at most, wherever the others have theirs.",
    },
    otherwise="Not that number. Each hidden unit bends the line at one place at most; count the pieces "
    "between the bends.",
    form="one whole number",
)
def straight_pieces():
    """Each of the five units bends the line at one place, and five bends leave six pieces. So a network with
    F hidden units has at most F + 1 pieces over a line: to follow a curve more closely, it must be wider.
    """
    knots = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    y = (x[:, None] - knots).relu() @ torch.tensor([1.0, -2.0, 3.0, -2.5, 1.5], dtype=torch.float64)
    slopes = y.diff().div(x.diff()).mul(1000).round()
    return len(slopes.unique_consecutive())


# --- 3 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="Where the weights are",
    statement="""
        A small layer has the width D = 64, and F = 4 · 64 = 256 hidden numbers. Its attention has four
        matrices (64, 64) without biases. Its feed-forward network has two matrices, each with a bias. (The
        norms are left out.)

        Before you run anything: how many numbers does the feed-forward network hold, weights and biases
        together, and what share is that of the numbers of both? Answer with a pair such as
        `(1000, 0.125)`, the share to three digits. You may use Python as a calculator.
        """,
    hints=(
        "A matrix from D to F has D · F entries; the matrix that leads back has as many.",
        "A bias has one number for each column: the first F, the second D.",
        "The share is the network's count divided by the sum of both counts, the network's and 4 · D · D.",
    ),
    expected=(33_088, 0.66882),
    wrong={
        (32_768, 2 / 3): "That is right without the biases: the two of them hold 256 and 64 more.",
        (33_088, 0.33118): "The count is right. The share is that of the attention; the network's is the "
        "rest.",
        (33_088, 2.01953): "The count is right. The second number is how many times as much the network "
        "holds as the attention; the share is of both together.",
        (33_088, 66.882): "Right, but the share came as a percentage: write 0.5 for 50 %.",
        (16_384, 0.5): "That is one of the two matrices. The second one leads back, and is as large.",
        (16_640, 0.50388): "That is one matrix with its bias. The second one leads back to 64 numbers.",
        (16_384, 1 / 3): "That is the attention. The feed-forward network was asked for.",
        (33_280, 0.6701): "You gave both matrices a bias of 256. The second leads to 64 numbers, so its bias "
        "has 64.",
        (32_896, 0.66753): "You gave both matrices a bias of 64. The first leads to 256 numbers, so its bias "
        "has 256.",
        (33_088, 2 / 3): "The count is right. Two thirds is the share without the biases; count them too.",
        (33_088, 0.67): "The count is right, and so is the share, as far as it goes: give three digits.",
        (33_088, 0.5): "The count is right. But the two do not share equally: divide it by the sum of both "
        "counts.",
        (0.66882, 33_088): "The two numbers are the other way round: first the count.",
        (49_472, 0.66882): "The share is right. Your count is that of both together, the network and the "
        "attention.",
        (8_192, 1 / 3): "You took both matrices as (64, 64). They lead to 256 hidden numbers and back.",
    },
    otherwise="Not these numbers. Count the network's parts one by one, a matrix and a bias for the way up, "
    "a matrix and a bias for the way down; then divide by the count of network and attention together.",
    form="a pair, (count, share)",
)
def where_the_weights_are():
    """2 · 64 · 256 weights and 256 + 64 biases, 33,088 numbers, beside 16,384 in the attention: about two
    thirds, whatever the width, as long as F = 4 D. A model known for its attention is mostly feed-forward
    networks, if one counts weights.
    """
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    count = sum(parameter.numel() for parameter in network.parameters())
    return count, round(count / (count + 4 * 64 * 64), 5)


# --- 4 -------------------------------------------------------------------------------------------------


def _linear_layers(rng: np.random.Generator, B: int, T: int, D: int, F: int) -> dict[str, Any]:
    """Weights as ``nn.Linear`` keeps them."""
    return {
        "x": rng.standard_normal((B, T, D)),
        "up_weight": rng.standard_normal((F, D)),
        "up_bias": rng.standard_normal(F),
        "down_weight": rng.standard_normal((D, F)),
        "down_bias": rng.standard_normal(D),
    }


def _linear_reference(
    x: np.ndarray, up_weight: np.ndarray, up_bias: np.ndarray, down_weight: np.ndarray, down_bias: np.ndarray
) -> np.ndarray:
    return _token_by_token(x, up_weight.T, up_bias, down_weight.T, down_bias)


@chapter.implement(
    title="Two convolutions of width 1",
    statement="""
        The paper says that its feed-forward network can also be described as two convolutions of width 1.
        Show it. `x` is (B, T, D); the weights are those of two layers `nn.Linear`: `up_weight` (F, D),
        `up_bias` (F), `down_weight` (D, F), `down_bias` (D). Compute the network with `relu` by two calls of
        `torch.conv1d(input, weight, bias)`.

        A convolution in PyTorch has the tokens last: its input is (B, D, T), its weight
        (output features, input features, width), its answer (B, F, T). `linear`, `@` and their relatives are
        off limits: it should be convolutions. Give back (B, T, D).
        """,
    hints=(
        "For a convolution two axes of `x` stand in each other's place: `x.transpose(1, 2)` brings the "
        "tokens to the end. When all is done they go back.",
        "The weight of a linear layer, (F, D), lacks the last axis, the width of the window. It is 1: "
        "`up_weight[:, :, None]` has the shape (F, D, 1).",
        "`torch.conv1d(turned, up_weight[:, :, None], up_bias).relu()` is half of it, where `turned` is `x` "
        "with the tokens last. The biases are as they should be.",
    ),
    axes="B T D",
    inputs=_linear_layers,
    sizes=((1, 2, 3, 4), (2, 3, 4, 6), (2, 3, 3, 3), (3, 1, 5, 2), (2, 5, 3, 7)),
    reference=_linear_reference,
    forbidden=("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "tensordot", "bilinear"),
)
def as_convolutions(x, up_weight, up_bias, down_weight, down_bias):
    """Compute the feed-forward network of x (B, T, D) by two convolutions: an answer (B, T, D)."""
    # A convolution slides over the last axis, so the tokens go there: (B, T, D) -> (B, D, T).
    x = x.transpose(1, 2)
    # A window one token wide sees no neighbour: at each place it is the linear layer, (F, D) -> (F, D, 1).
    hidden = torch.conv1d(x, up_weight[:, :, None], up_bias).relu()
    out = torch.conv1d(hidden, down_weight[:, :, None], down_bias)
    return out.transpose(1, 2)  # (B, D, T) -> (B, T, D)


def _convolve(x, weight, bias=None):
    return torch.conv1d(x.mT, weight[:, :, None], bias).mT


@as_convolutions.slip("""
    The answer still has the tokens last, (B, D, T): swap these two axes back at the end.""")
def _tokens_still_last(x, up_weight, up_bias, down_weight, down_bias):
    return as_convolutions.solve(x, up_weight, up_bias, down_weight, down_bias).transpose(1, 2)


@as_convolutions.slip("""
    You brought the tokens to the end by a reshape, which mixes tokens and features: it reads memory in order.
    `transpose(1, 2)` swaps the axes.""")
def _input_reshaped(x, up_weight, up_bias, down_weight, down_bias):
    B, T, D = x.shape
    mixed = x.reshape(B, D, T).transpose(1, 2)
    return as_convolutions.solve(mixed, up_weight, up_bias, down_weight, down_bias)


@as_convolutions.slip("""
    You brought the tokens back by a reshape, which mixes tokens and features. `transpose(1, 2)` swaps the
    axes.""")
def _output_reshaped(x, up_weight, up_bias, down_weight, down_bias):
    out = as_convolutions.solve(x, up_weight, up_bias, down_weight, down_bias)
    return out.transpose(1, 2).reshape(x.shape)


@as_convolutions.slip("""
    Both ways went by a reshape, which mixes tokens and features. `transpose(1, 2)` swaps the axes, before
    and after.""")
def _both_reshaped(x, up_weight, up_bias, down_weight, down_bias):
    B, T, D = x.shape
    mixed = x.reshape(B, D, T).transpose(1, 2)
    out = as_convolutions.solve(mixed, up_weight, up_bias, down_weight, down_bias)
    return out.transpose(1, 2).reshape(x.shape)


@as_convolutions.slip("""
    The `relu` between the two convolutions is missing.""")
def _convolutions_without_relu(x, up_weight, up_bias, down_weight, down_bias):
    return _convolve(_convolve(x, up_weight, up_bias), down_weight, down_bias)


@as_convolutions.slip("""
    `up_bias` is missing: give it to the first convolution as its third argument.""")
def _convolution_without_first_bias(x, up_weight, up_bias, down_weight, down_bias):
    return _convolve(_convolve(x, up_weight).relu(), down_weight, down_bias)


@as_convolutions.slip("""
    `down_bias` is missing: give it to the second convolution as its third argument.""")
def _convolution_without_second_bias(x, up_weight, up_bias, down_weight, down_bias):
    return _convolve(_convolve(x, up_weight, up_bias).relu(), down_weight)


@as_convolutions.slip("""
    Both biases are missing: each convolution takes one as its third argument.""")
def _convolutions_without_biases(x, up_weight, up_bias, down_weight, down_bias):
    return _convolve(_convolve(x, up_weight).relu(), down_weight)


@as_convolutions.slip("""
    The second `relu` is one too many: only the hidden numbers are cut off at 0.""")
def _convolutions_with_two_relus(x, up_weight, up_bias, down_weight, down_bias):
    return as_convolutions.solve(x, up_weight, up_bias, down_weight, down_bias).relu()


@as_convolutions.slip("""
    There are two tokens too many for each convolution that you gave `padding=1`. A window of width 1 does not
    reach beyond the ends: it needs no padding.""")
def _padded_twice(x, up_weight, up_bias, down_weight, down_bias):
    hidden = torch.conv1d(x.mT, up_weight[:, :, None], up_bias, padding=1).relu()
    return torch.conv1d(hidden, down_weight[:, :, None], down_bias, padding=1).mT


@as_convolutions.slip("""
    There are two tokens too many: one convolution was given `padding=1`, the first. A window of width 1 does
    not reach beyond the ends: it needs no padding.""")
def _padded_at_first(x, up_weight, up_bias, down_weight, down_bias):
    hidden = torch.conv1d(x.mT, up_weight[:, :, None], up_bias, padding=1).relu()
    return torch.conv1d(hidden, down_weight[:, :, None], down_bias).mT


_TWO_AXES = """
    A convolution's weight has three axes, and a linear layer's two. The one that is missing is the width of
    the window, 1, and it comes last: `up_weight[:, :, None]`.
    """


@as_convolutions.crash(_TWO_AXES)
def _weight_as_it_is(x, up_weight, up_bias, down_weight, down_bias):
    return torch.conv1d(x.transpose(1, 2), up_weight, up_bias)


@as_convolutions.crash("""
    The convolution takes the second axis of its input for the features, and there you have the tokens:
    `x.transpose(1, 2)` first.""")
def _input_not_swapped(x, up_weight, up_bias, down_weight, down_bias):
    return torch.conv1d(x, up_weight[:, :, None], up_bias)


@as_convolutions.crash("""
    The weight is turned round. A convolution wants (output features, input features, width), and a linear
    layer keeps (output features, input features): no transpose, only an axis more.""")
def _weight_turned(x, up_weight, up_bias, down_weight, down_bias):
    return torch.conv1d(x.transpose(1, 2), up_weight.T[:, :, None], up_bias)


@as_convolutions.crash("""
    The new axis of the weight stands first. It is the width of the window, and comes last:
    `up_weight[:, :, None]`.""")
def _window_first(x, up_weight, up_bias, down_weight, down_bias):
    return torch.conv1d(x.transpose(1, 2), up_weight[None], up_bias)


@as_convolutions.crash("""
    The sentences, the first axis of `x`, went to the end. It is the tokens that belong there, and the
    sentences stay in front: `x.transpose(1, 2)`.""")
def _sentences_last(x, up_weight, up_bias, down_weight, down_bias):
    return torch.conv1d(x.transpose(0, 2), up_weight[:, :, None], up_bias)


@as_convolutions.crash("""
    The second convolution wants the tokens last as well, and its input has them in the second place: leave
    the hidden numbers as the first convolution gives them.""")
def _hidden_swapped_back(x, up_weight, up_bias, down_weight, down_bias):
    return torch.conv1d(_convolve(x, up_weight, up_bias), down_weight[:, :, None], down_bias)


# --- 5 -------------------------------------------------------------------------------------------------


def _module_inputs(rng: np.random.Generator, B: int, T: int, D: int, F: int) -> dict[str, Any]:
    return {
        "d_model": D,
        "d_ff": F,
        "up_proj.weight": rng.standard_normal((F, D)),
        "up_proj.bias": rng.standard_normal(F),
        "down_proj.weight": rng.standard_normal((D, F)),
        "down_proj.bias": rng.standard_normal(D),
        "x": rng.standard_normal((B, T, D)),
    }


def _module_reference(d_model: int, d_ff: int, x: np.ndarray, **weights: np.ndarray) -> np.ndarray:
    names = ("up_proj.weight", "up_proj.bias", "down_proj.weight", "down_proj.bias")
    return _linear_reference(x, *(weights[name] for name in names))


class _Broken:  # so that both classes of this name can be told apart
    class TwoLayers(nn.Module):
        """A feed-forward network with relu, for each token: x (B, T, D) to (B, T, D)."""

        def __init__(self, d_model, d_ff):
            super().__init__()
            self.up_proj = nn.Linear(d_model, d_ff)
            self.down_proj = nn.Linear(d_ff, d_model)

        def forward(self, x):
            hidden = self.up_proj(x)
            torch.relu(hidden)
            return self.down_proj(hidden)


@chapter.debug_module(
    broken=_Broken.TwoLayers,
    title="A network that never bends",
    statement="""
        This feed-forward network runs, trains and gives the right shapes. But a model built on it learns no
        more than one with a single matrix in its place, however large `d_ff` is.

        A test shows more. Go from one input to another in three equal steps: the output also moves in three
        equal steps, always. Drawn over the way, it is a straight line.

        Find the line, repair it, and hand the class in.
        """,
    hints=(
        "Which line should make the curve bend? Print the smallest number of `hidden` just before the "
        "`return`.",
        "Print `hidden` before and after the line with `relu`. Has anything changed?",
        "`torch.relu` leaves its input as it is and gives back a new tensor. What happens to the new one?",
    ),
    axes="B T D",
    settings=("d_model", "d_ff"),
    forward=("x",),
    inputs=_module_inputs,
    sizes=((1, 2, 3, 4), (2, 3, 4, 6), (1, 4, 2, 8), (3, 1, 5, 2), (2, 5, 3, 7)),
    reference=_module_reference,
)
class TwoLayers(nn.Module):
    """A feed-forward network with relu, for each token: x (B, T, D) to (B, T, D)."""

    def __init__(self, d_model, d_ff):
        super().__init__()
        self.up_proj = nn.Linear(d_model, d_ff)
        self.down_proj = nn.Linear(d_ff, d_model)

    def forward(self, x):
        # relu gives a new tensor back. The broken line let it go, and two linear layers in a row are one.
        hidden = torch.relu(self.up_proj(x))
        return self.down_proj(hidden)


@TwoLayers.slip("""
    The output is still a straight line: your module gives what the broken one gave. What `torch.relu` gives
    back must be kept.""")
class _StillStraight(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(self.up_proj(x))


@TwoLayers.slip("""
    Now the output is cut off at 0, and the hidden numbers still are not. The `relu` belongs between the two
    layers.""")
class _OutputCut(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(self.up_proj(x)).relu()


@TwoLayers.slip("""
    The hidden numbers are right, but now the output is cut off at 0 too: one `relu` is enough.""")
class _OutputCutToo(TwoLayers.solve):
    def forward(self, x):
        return super().forward(x).relu()


@TwoLayers.slip("""
    You cut off the input at 0. The `relu` belongs behind `up_proj`: it is the hidden numbers that it bends.
    """)
class _InputCut(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(self.up_proj(x.relu()))


@TwoLayers.slip("""
    The hidden numbers are cut off at 0 now, and the input is too. One `relu` is enough, behind `up_proj`.""")
class _InputCutToo(TwoLayers.solve):
    def forward(self, x):
        return super().forward(x.relu())


@TwoLayers.slip("""
    It bends now, but with a GELU. This network was to have a `relu`; the line lacked something else.""")
class _GeluInstead(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(F.gelu(self.up_proj(x)))


@TwoLayers.slip("""
    It bends now, but with a sigmoid. This network was to have a `relu`; the line lacked something else.""")
class _SigmoidInstead(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(self.up_proj(x).sigmoid())


@TwoLayers.slip("""
    It bends now, but with a tanh. This network was to have a `relu`; the line lacked something else.""")
class _TanhInstead(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(self.up_proj(x).tanh())


@TwoLayers.slip("""
    It bends now, but with the absolute value. This network was to have a `relu`; the line lacked something
    else.""")
class _AbsoluteInstead(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(self.up_proj(x).abs())


@TwoLayers.slip("""
    The hidden numbers were both kept and cut off, and added up. Replace them by what `relu` gives back:
    `hidden = ...`.""")
class _CutAndAdded(TwoLayers.solve):
    def forward(self, x):
        hidden = self.up_proj(x)
        return self.down_proj(hidden + hidden.relu())


@TwoLayers.slip("""
    The network is right, but you add `x` to it. That residual connection belongs around it, in the layer of
    a Transformer.""")
class _ResidualAdded(TwoLayers.solve):
    def forward(self, x):
        return x + super().forward(x)


@TwoLayers.crash("""
    `nn.ReLU(...)` makes a layer; it does not cut anything off yet. `torch.relu` is the function for that.""")
class _LayerForItsAnswer(TwoLayers.solve):
    def forward(self, x):
        return self.down_proj(nn.ReLU(self.up_proj(x)))


# --- 6 -------------------------------------------------------------------------------------------------


def _numbers(rng: np.random.Generator, T: int, F: int, spread: float = 1.5) -> dict[str, Any]:
    return {"x": spread * rng.standard_normal((T, F))}


def _gelu_reference(x: np.ndarray) -> np.ndarray:
    below = NormalDist().cdf
    return np.array([[number * below(number) for number in row] for row in x.tolist()])


@chapter.implement(
    title="The exact GELU",
    statement=r"""
        GPT and BERT use a smoother bend than `relu`:

        $$\mathrm{GELU}(x) = x\,\Phi(x), \qquad
        \Phi(x) = \tfrac12\left(1 + \mathrm{erf}\left(\frac{x}{\sqrt2}\right)\right)$$

        $\Phi(x)$ is the share of a standard normal distribution that lies below x, and `torch.erf` is the
        error function. Write the exact formula, number by number, not one of the shortcuts with `tanh` or a
        sigmoid. `F.gelu` is off limits: you are writing it.
        """,
    hints=(
        "First write the share that lies below x and check three values: it is 0.5 at 0, nearly 1 at 4, "
        "nearly 0 at -4.",
        "The root stands inside the error function: `torch.erf(x / 2**0.5)`.",
        "Then multiply the share by `x`. At x = 1 the answer is 0.8413, at x = -1 it is -0.1587.",
    ),
    axes="T F",
    inputs=_numbers,
    sizes=((2, 3), (3, 2), (1, 4), (4, 5, 4.0), (5, 6, 0.3)),
    reference=_gelu_reference,
    forbidden=("gelu", "GELU"),
)
def gelu(x):
    """Multiply each number of x (T, F) by the share of a standard normal that lies below it."""
    # The error function counts from -1 to 1 and with another width: shifted and scaled it is the share.
    share = 0.5 * (1 + torch.erf(x / 2**0.5))
    return x * share


@gelu.slip("""
    That is the shortcut with `tanh`. It comes close, to about 0.0005; here the exact formula is asked for,
    with `torch.erf`.""")
def _tanh_shortcut(x):
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


@gelu.slip("""
    That is the shortcut with a sigmoid, x σ(1.702 x). It comes close, to about 0.02; here the exact formula
    is asked for, with `torch.erf`.""")
def _sigmoid_shortcut(x):
    return x * torch.sigmoid(1.702 * x)


@gelu.slip("""
    That is SiLU, x σ(x): a sigmoid in place of the normal distribution's share.""")
def _silu_for_gelu(x):
    return x * torch.sigmoid(x)


@gelu.slip("""
    You left out the root: the error function gets `x / 2**0.5`, not `x`.""")
def _root_left_out(x):
    return 0.5 * x * (1 + torch.erf(x))


@gelu.slip("""
    You divided by 2 inside the error function. It is the square root of 2 that stands there.""")
def _divided_by_two(x):
    return 0.5 * x * (1 + torch.erf(x / 2))


@gelu.slip("""
    You multiplied by the root of 2 inside the error function; the formula divides by it.""")
def _multiplied_by_the_root(x):
    return 0.5 * x * (1 + torch.erf(x * 2**0.5))


@gelu.slip("""
    You divided by the root of 2 what the error function gives. It is x that is divided, before the error
    function sees it.""")
def _divided_outside(x):
    return 0.5 * x * (1 + torch.erf(x) / 2**0.5)


@gelu.slip("""
    Your error function got x / 4, and `x / 2**1/2` is just that: a power comes before a division. The root
    is `2**0.5`.""")
def _root_without_brackets(x):
    return 0.5 * x * (1 + torch.erf(x / 2**1 / 2))


@gelu.slip("""
    The half is missing: `1 + erf` runs from 0 to 2, and a share from 0 to 1.""")
def _half_missing(x):
    return x * (1 + torch.erf(x / 2**0.5))


@gelu.slip("""
    The 1 is missing: without it a negative `x` is multiplied by a negative number and comes out positive.""")
def _one_missing(x):
    return 0.5 * x * torch.erf(x / 2**0.5)


@gelu.slip("""
    That is the share alone. Multiply `x` by it.""")
def _share_alone(x):
    return 0.5 * (1 + torch.erf(x / 2**0.5))


@gelu.slip("""
    You took the share that lies above x. It is the share below: plus in front of `erf`, not minus.""")
def _share_above(x):
    return 0.5 * x * (1 - torch.erf(x / 2**0.5))


@gelu.slip("""
    The half belongs to the whole bracket, 0.5 · (1 + erf); yours takes half of one of the two terms, the
    1.""")
def _half_of_the_one(x):
    return x * (0.5 + torch.erf(x / 2**0.5))


@gelu.slip("""
    The half belongs to the whole bracket, 0.5 · (1 + erf); yours takes half of one of the two terms, the
    `erf`.""")
def _half_of_the_erf(x):
    return x * (1 + 0.5 * torch.erf(x / 2**0.5))


@gelu.slip("""
    Only the 1 was multiplied by x and the half, and the `erf` added to that. Both stand in one bracket:
    x · 0.5 · (1 + erf).""")
def _bracket_missing(x):
    return 0.5 * x + torch.erf(x / 2**0.5)


@gelu.slip("""
    That is the height of the normal distribution at x. Asked is the share that lies below x.""")
def _density(x):
    return x * torch.exp(-0.5 * x * x) / (2 * torch.pi) ** 0.5


@gelu.slip("""
    That is `relu`. A GELU is smooth, and slightly below 0 for negative numbers.""")
def _relu_for_gelu(x):
    return x.relu()


@gelu.crash("""
    `math.erf` and `math.sqrt` take one number, and `x` is a table. `torch.erf` works on all of it.""")
def _math_of_a_table(x):
    return float(x)


@gelu.crash("""
    `torch.sqrt` takes a tensor, and 2 is a number. Its root is `2**0.5`.""")
def _root_of_a_number(x):
    return torch.sqrt(2)


# --- 7 -------------------------------------------------------------------------------------------------


@chapter.measure(
    title="Silent units",
    statement="""
        Measure how much of a feed-forward network is silent. Make `nn.Linear(512, 4096)` as PyTorch makes it,
        and set all its biases to -0.25, `nn.init.constant_(layer.bias, -0.25)`: so a unit speaks only where a
        token gives it more than 0.25. Take four random tokens, `torch.randn(4, 512)`. The 4096 hidden numbers
        of each token go through `relu`.

        Report two shares: of all 4 · 4096 hidden numbers, how many are exactly 0; and of the 4096 hidden
        units, how many are 0 for all four tokens.
        """,
    hints=(
        "`hidden = torch.relu(layer(x))` has the shape (4, 4096), and `hidden == 0` is True where a number "
        "is exactly 0.",
        "The mean of True and False, made numbers, is a share: `(hidden == 0).double().mean()`.",
        "A unit is a column. `(hidden == 0).all(dim=0)` asks of each column whether all its four numbers "
        "are 0.",
    ),
    ranges={"hidden numbers that are 0": (0.645, 0.69), "units that are 0 for all tokens": (0.15, 0.25)},
    slips={
        "The two shares are the other way round: first the hidden numbers, then the units.": (
            (0.15, 0.25),
            (0.645, 0.69),
        ),
        "Both are the share of the hidden numbers. For the second, ask of each unit whether it is 0 for all "
        "four tokens, `all(dim=0)`, before you take the mean.": ((0.645, 0.69), (0.645, 0.69)),
        "Your second share is that of the units which are 0 for some token. Asked are those that are 0 for "
        "all four: `all(dim=0)`.": ((0.645, 0.69), (0.97, 1.0)),
        "Your second share is that of the units which are not 0 for some token. Asked are the others, those "
        "that are 0 for all four: `(hidden == 0).all(dim=0)`.": ((0.645, 0.69), (0.745, 0.855)),
        "Either you counted what is not 0, where what is 0 is asked; or your biases are 0.25, without the "
        "minus sign.": ((0.31, 0.355), (0.003, 0.03)),
        "Your first share is that of the numbers which are not 0. Asked are those that are 0.": (
            (0.31, 0.355),
            (0.15, 0.25),
        ),
        "Your second share is that of the units which are 0 for none of the tokens. Asked are those that are "
        "0 for all four: `(hidden == 0).all(dim=0)`.": ((0.645, 0.69), (0.003, 0.03)),
        "Your biases are still those that PyTorch makes, or about 0. Set all of them to -0.25, before the "
        "layer is used.": ((0.48, 0.52), (0.04, 0.09)),
        "Nothing is exactly 0 before the `relu`, and nothing after a GELU or SiLU. Count in what `relu` "
        "gives.": ((0.0, 0.001), (0.0, 0.001)),
        "You asked of each token whether all its 4096 units are 0. Ask of each unit whether it is 0 for all "
        "four tokens: a unit is a column, `all(dim=0)`.": ((0.645, 0.69), (0.0, 0.001)),
        "These are counts. Divide the first by 4 · 4096, the second by 4096.": (
            (10568.0, 11305.0),
            (614.0, 1024.0),
        ),
        "These are percentages. Report shares, such as 0.25 for 25 %.": ((64.5, 69.0), (15.0, 25.0)),
    },
    at_most=(1.0, "A share is at most 1: divide each count by the number of things that were counted."),
    otherwise="Not in the range that four random tokens give. Check: `nn.Linear(512, 4096)`, all biases "
    "-0.25, four tokens from `torch.randn`, `relu`, then count what is exactly 0.",
)
def silent_units():
    """A bias below 0 is a threshold: with -0.25 two of three numbers are 0, and a token uses a third of the
    units. Four tokens that have nothing to do with each other leave 2/3 · 2/3 · 2/3 · 2/3 of the units
    silent: one of five.
    """
    torch.manual_seed(0)
    layer, x = nn.Linear(512, 4096), torch.randn(4, 512)
    nn.init.constant_(layer.bias, -0.25)
    silent = torch.relu(layer(x)) == 0  # (4, 4096)
    return silent.double().mean().item(), silent.all(dim=0).double().mean().item()


# --- 8 -------------------------------------------------------------------------------------------------


def _gated(rng: np.random.Generator, B: int, T: int, D: int, F: int) -> dict[str, Any]:
    return {
        "x": rng.standard_normal((B, T, D)),
        "w_gate": rng.standard_normal((D, F)),
        "w_up": rng.standard_normal((D, F)),
        "w_down": rng.standard_normal((F, D)),
    }


def _gated_reference(x: np.ndarray, w_gate: np.ndarray, w_up: np.ndarray, w_down: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    for place in np.ndindex(x.shape[:2]):
        for unit in range(w_gate.shape[1]):
            gate, up = x[place] @ w_gate[:, unit], x[place] @ w_up[:, unit]
            out[place] += gate / (1 + np.exp(-gate)) * up * w_down[unit]
    return out


@chapter.implement(
    title="SwiGLU",
    statement=r"""
        The feed-forward network of LLaMA has three matrices and no biases:

        $$\left(\mathrm{silu}(x W_\text{gate}) \odot x W_\text{up}\right) W_\text{down},
        \qquad \mathrm{silu}(z) = z\,\sigma(z)$$

        $\odot$ multiplies number by number, and $\sigma$ is `torch.sigmoid`. `x` has the shape (B, T, D);
        `w_gate` and `w_up` are (D, F), `w_down` is (F, D).
        """,
    hints=(
        "Two tables of the same shape, (B, T, F): one is the gate, the other what passes through it.",
        "Only the gate goes through `silu`: `gate * torch.sigmoid(gate)`, or `F.silu(gate)`.",
        "Multiply the two number by number, with `*`; then `@ w_down` leads back to (B, T, D).",
    ),
    axes="B T D",
    inputs=_gated,
    sizes=((1, 2, 3, 4), (2, 3, 4, 6), (1, 4, 2, 8), (3, 1, 5, 2), (2, 5, 3, 7)),
    reference=_gated_reference,
)
def swiglu(x, w_gate, w_up, w_down):
    """Let a gate decide how much of each hidden number passes: x (B, T, D) to (B, T, D)."""
    gate = x @ w_gate
    # silu(z) = z sigmoid(z): about 0 far below 0, about z far above.
    gate = gate * torch.sigmoid(gate)
    # Each hidden number is multiplied by its own gate, then all lead back: (B, T, F) -> (B, T, D).
    return (gate * (x @ w_up)) @ w_down


@swiglu.slip("""
    Gate and up have changed places: the product with `w_gate` goes through `silu`, the one with `w_up`
    stays as it is.""")
def _gate_and_up_swapped(x, w_gate, w_up, w_down):
    return (x @ w_gate * F.silu(x @ w_up)) @ w_down


@swiglu.slip("""
    Both went through `silu`. Only the gate does; what passes through it stays as it is.""")
def _silu_on_both(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate) * F.silu(x @ w_up)) @ w_down


@swiglu.slip("""
    Your gate is a bare sigmoid: that is GLU. SwiGLU multiplies it by the sum itself, z σ(z).""")
def _sigmoid_gate(x, w_gate, w_up, w_down):
    return ((x @ w_gate).sigmoid() * (x @ w_up)) @ w_down


@swiglu.slip("""
    Your gate is a GELU: that is GEGLU. SwiGLU has `silu`, z σ(z).""")
def _gelu_gate(x, w_gate, w_up, w_down):
    return (F.gelu(x @ w_gate) * (x @ w_up)) @ w_down


@swiglu.slip("""
    Your gate is a `relu`: that is ReGLU. SwiGLU has `silu`, z σ(z).""")
def _relu_gate(x, w_gate, w_up, w_down):
    return ((x @ w_gate).relu() * (x @ w_up)) @ w_down


@swiglu.slip("""
    Your gate has no nonlinearity: it is the bare product. It should go through `silu`.""")
def _no_silu(x, w_gate, w_up, w_down):
    return (x @ w_gate * (x @ w_up)) @ w_down


@swiglu.slip("""
    You multiplied first and took `silu` of the product. It is the gate alone that goes through `silu`.""")
def _silu_of_the_product(x, w_gate, w_up, w_down):
    return F.silu(x @ w_gate * (x @ w_up)) @ w_down


@swiglu.slip("""
    You added gate and up. A gate multiplies: where it is 0, nothing passes.""")
def _gate_added(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate) + x @ w_up) @ w_down


@swiglu.slip("""
    `w_up` has no say: your answer is `silu(x w_gate) w_down`, a network without a gate.""")
def _up_forgotten(x, w_gate, w_up, w_down):
    return F.silu(x @ w_gate) @ w_down


@swiglu.slip("""
    `w_gate` has no say: both tables come from `w_up`.""")
def _gate_forgotten(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_up) * (x @ w_up)) @ w_down


@swiglu.slip("""
    You have one `silu` too many, at the end. After `w_down` nothing bends.""")
def _silu_at_the_end(x, w_gate, w_up, w_down):
    return F.silu((F.silu(x @ w_gate) * (x @ w_up)) @ w_down)


@swiglu.slip("""
    Your `silu` stands at the end. It is the gate alone that goes through it, before the two are
    multiplied.""")
def _silu_only_at_the_end(x, w_gate, w_up, w_down):
    return F.silu((x @ w_gate * (x @ w_up)) @ w_down)


@swiglu.slip("""
    You took `silu` of the input. It is the gate, `x @ w_gate`, that goes through it.""")
def _silu_of_the_input(x, w_gate, w_up, w_down):
    return (F.silu(x) @ w_gate * (x @ w_up)) @ w_down


@swiglu.slip("""
    Your gate is a tanh. SwiGLU has `silu`, z σ(z).""")
def _tanh_gate(x, w_gate, w_up, w_down):
    return ((x @ w_gate).tanh() * (x @ w_up)) @ w_down


@swiglu.slip("""
    Your gate is the `silu` of a sigmoid: one sigmoid too many. In z σ(z), z is `x @ w_gate` itself.""")
def _sigmoid_before_the_silu(x, w_gate, w_up, w_down):
    return (F.silu((x @ w_gate).sigmoid()) * (x @ w_up)) @ w_down


@swiglu.slip("""
    The network is right, but you add `x` to it. That residual connection belongs around it, in the layer of
    a Transformer.""")
def _gated_residual(x, w_gate, w_up, w_down):
    return x + swiglu.solve(x, w_gate, w_up, w_down)


@swiglu.slip("""
    These are the hidden numbers, F a token. One step is left: `w_down` leads back to D.""")
def _gated_hidden_returned(x, w_gate, w_up, w_down):
    return F.silu(x @ w_gate) * (x @ w_up)


@swiglu.slip("""
    Your gate comes from a softmax over the hidden units, so they compete. Each gate opens on its own:
    `silu`.""")
def _softmax_gate(x, w_gate, w_up, w_down):
    return ((x @ w_gate).softmax(-1) * (x @ w_up)) @ w_down


@swiglu.crash("""
    F numbers a token meet D, as `x` has them. The gate meets `x @ w_up`, and in z σ(z) both z are
    `x @ w_gate`: F numbers each.""")
def _gate_meets_the_input(x, w_gate, w_up, w_down):
    return F.silu(x @ w_gate) * x


@swiglu.crash("""
    Gate and up are multiplied number by number, with `*`. Your `@` takes them for matrices.""")
def _gate_as_a_matrix(x, w_gate, w_up, w_down):
    return F.silu(x @ w_gate) @ (x @ w_up)


@swiglu.crash("""
    Gate and up are multiplied number by number, with `*`. Your `@` gave a table of tokens by tokens, which
    `w_down` cannot lead back.""")
def _tokens_by_tokens(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate) @ (x @ w_up).mT) @ w_down


@swiglu.crash("""
    Rows of `x`, D numbers each, meet a matrix (D, F): as it is, not turned round.""")
def _gate_turned(x, w_gate, w_up, w_down):
    return x @ w_gate.T


@swiglu.crash("""
    D numbers a token, as `x` has them, meet F. In z σ(z) both z are `x @ w_gate`, and the gate meets
    `x @ w_up`: F numbers each.""")
def _input_for_the_sum(x, w_gate, w_up, w_down):
    return x * torch.sigmoid(x @ w_gate)


@swiglu.crash("""
    `silu` is not in `torch` itself but in `torch.nn.functional`: `F.silu`, after
    `from torch.nn import functional as F`.""")
def _silu_in_torch(x, w_gate, w_up, w_down):
    return torch.silu(x @ w_gate)


# --- 9 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="The width of a gated network",
    statement="""
        LLaMA 13B has the width D = 5120. A plain feed-forward network would have F = 4 D = 20480. A gated
        one has three matrices of D · F weights where the plain one has two. To have as many weights, its F
        must be smaller; then it is rounded up to the next multiple of 256, which suits the hardware.

        Before you run anything: what is F? You may use Python as a calculator.
        """,
    hints=(
        "The plain network has 2 · D · 20480 weights, the gated one 3 · D · F. D is the same on both sides.",
        "So F is two thirds of 20480, about 13653.",
        "How many times does 256 fit into that? Round up to a whole number of times, and multiply back.",
    ),
    expected=13_824,
    wrong={
        13_653: "That is two thirds of 20480. One step is left: round up to a multiple of 256.",
        13_568: "That is rounded down. Rounded up it is one multiple of 256 more.",
        20_480: "That is the plain network's width. With three matrices as wide it would have half as many "
        "weights again.",
        10_240: "That is one half of 20480. Three matrices of that width have three quarters of the plain "
        "network's weights, not as many.",
        15_360: "That is three quarters of 20480. Three matrices share what two had: two thirds.",
        30_720: "Three halves is upside down: with more matrices, each must be smaller.",
        11_008: "That is the width of LLaMA 7B, whose D is 4096. Here D is 5120.",
        3_584: "You started from D. It is 4 D, the plain network's F, of which two thirds are taken.",
        6_827: "That is one third of 20480. Three such matrices have only half the plain network's weights.",
        54: "That is how many times 256 it is. Multiply back.",
        53: "That many times 256 fit in whole. Rounded up it is once more; then multiply back.",
        13_696: "Rounded up, but to a multiple of 128.",
        14_336: "A multiple of 256, but not the first one above the width with as many weights.",
    },
    otherwise="Not that number. First find the F with which three matrices have as many weights as the plain "
    "network's two; then go up to the next multiple of 256.",
    form="one whole number",
)
def width_of_the_gate():
    """Two thirds of 20480 are 13653 1/3, and the next multiple of 256 is 54 · 256 = 13824: the width that
    LLaMA 13B has. So a gate costs hardly any weights: the hidden numbers become fewer.
    """
    return -(-2 * 20480 // (3 * 256)) * 256


# --- 10 ------------------------------------------------------------------------------------------------


@chapter.predict(
    title="All weights, and those that a token meets",
    statement="""
        A mixture of experts has the width D = 8 and four experts. Each is a gated network with three matrices
        and F = 16 hidden numbers, without biases. A router, one matrix from D to the four experts, scores
        them for each token, and the token goes to its best two.

        Before you run anything: how many weights are there in all, and how many does one token meet, the
        router's included? Answer with a pair such as `(100, 50)`.
        """,
    hints=(
        "The router has a column for each expert: D · 4 weights. Every token meets all of them.",
        "One expert has three matrices with D · F weights each.",
        "All weights: the router and four experts. One token: the router and two.",
    ),
    expected=(1568, 800),
    wrong={
        (1536, 768): "Right for the experts. The router has weights too, 8 · 4, and every token meets them.",
        (1568, 768): "In all is right. The token meets the router as well: it decides who its experts are.",
        (1568, 416): "In all is right. You gave the token one expert; it goes to its best two.",
        (1568, 784): "In all is right. But a token does not meet half of everything: the router it meets "
        "whole.",
        (1568, 1568): "In all is right. A token meets two of the four experts only.",
        (1056, 544): "You gave each expert two matrices. A gated one has three.",
        (800, 1568): "The two numbers are the other way round: first all weights.",
        (1552, 784): "You gave the router 16 weights. It leads from D = 8 numbers to four scores.",
        (416, 416): "That is the router and one expert. There are four of them, and a token meets two.",
        (1536, 800): "The second is right. In all, the router counts too: 8 · 4 more.",
        (1568, 384): "In all is right. You gave the token one expert and no router; it meets two, and the "
        "router.",
        (1024, 512): "You gave each expert two matrices, and a gated one has three. The router counts too.",
        (1568, 1184): "In all is right. You gave the token three experts; it goes to its best two.",
    },
    otherwise="Not these numbers. Count the router and one expert, each for itself; then ask how often each "
    "counts in all, and how often for one token.",
    form="a pair, (in all, for one token)",
)
def weights_that_a_token_meets():
    """32 for the router and 384 for each expert: 1568 in all, 800 for one token. That is what makes experts
    attractive: weights grow with their number, the work for a token hardly. Both numbers should be told.
    """
    router, expert = 8 * 4, 3 * 8 * 16
    return router + 4 * expert, router + 2 * expert


# --- 11 ------------------------------------------------------------------------------------------------


def _scores(
    rng: np.random.Generator, B: int, T: int, E: int, top_k: int, loud: float = 1.0
) -> dict[str, Any]:
    return {"scores": loud * rng.standard_normal((B, T, E)), "top_k": top_k}


def _route_reference(scores: np.ndarray, top_k: int) -> np.ndarray:
    out = np.zeros_like(scores)
    for place in np.ndindex(scores.shape[:2]):
        best = sorted(range(scores.shape[2]), key=lambda e: scores[(*place, e)])[-top_k:]
        for e in best:
            out[(*place, e)] = 1 / sum(
                np.exp(scores[(*place, other)] - scores[(*place, e)]) for other in best
            )
    return out


@chapter.implement(
    title="Choose the experts",
    statement="""
        A router has given each token a score for each of E experts: `scores` is (B, T, E). Each token uses
        the `top_k` experts with the largest scores. Give back a table of weights, (B, T, E): for the chosen
        experts a softmax over their own `top_k` scores, so that they sum to 1, and 0 for all others.

        Every weight stands at the place of its expert. Scores may be large.
        """,
    hints=(
        "`scores.topk(top_k, dim=-1)` gives two tables (B, T, k): the largest scores, and at which experts "
        "they stand.",
        "A softmax over these k scores alone gives weights that sum to 1. What is left is to put each of "
        "them at the place of its expert.",
        "`torch.zeros_like(scores).scatter(-1, places, weights)` writes along the last axis. Or fill the "
        "scores that were not chosen with minus infinity and take the softmax of the whole row.",
    ),
    axes="B T E",
    inputs=_scores,
    sizes=(
        (1, 2, 4, 2),
        (2, 3, 5, 3),
        (1, 3, 4, 1),
        (2, 1, 3, 3),
        (1, 3, 6, 2, 200.0),
        (3, 5, 8, 4),
    ),
    reference=_route_reference,
)
def route(scores, top_k):
    """Share each token out over its top_k best experts: scores (B, T, E) to weights (B, T, E)."""
    best, chosen = scores.topk(top_k, dim=-1)
    # A softmax over the chosen scores only: (B, T, k), each row sums to 1.
    weights = best.softmax(dim=-1)
    # Each weight goes to the place of its expert; the others keep their 0.
    return torch.zeros_like(scores).scatter(-1, chosen, weights)


def _chosen(scores, top_k):
    """True for the top_k largest scores."""
    return torch.zeros_like(scores).scatter(-1, scores.topk(top_k).indices, 1.0).bool()


@route.slip("""
    You took the softmax over all experts and kept the best: what the others held is lost, and the weights no
    longer sum to 1. Choose first, then take the softmax of what was chosen.""")
def _not_renormalised(scores, top_k):
    return scores.softmax(-1) * _chosen(scores, top_k)


@route.slip("""
    All experts have a weight: nothing was chosen. Only the `top_k` largest may keep one.""")
def _nothing_chosen(scores, top_k):
    return scores.softmax(-1)


@route.slip("""
    These are the weights, best first, without the places of their experts: the table should have E columns,
    with zeros for who was not chosen.""")
def _without_places(scores, top_k):
    return scores.topk(top_k).values.softmax(-1)


@route.slip("""
    The weights stand in the first columns, best first. Each belongs into the column of its expert: `scatter`
    takes the places that `topk` gives.""")
def _best_in_front(scores, top_k):
    weights = scores.topk(top_k).values.softmax(-1)
    return F.pad(weights, (0, scores.shape[-1] - top_k))


@route.slip("""
    The chosen experts share equally in your answer. Their weights are a softmax of their scores.""")
def _equal_shares(scores, top_k):
    return _chosen(scores, top_k).to(scores.dtype) / top_k


@route.slip("""
    Your choice stands there as 1 and 0. The weights of the chosen are a softmax of their scores.""")
def _choice_alone(scores, top_k):
    return _chosen(scores, top_k).to(scores.dtype)


@route.slip("""
    You divided the chosen scores by their sum, without `exp`: a negative score then makes a negative weight.
    A softmax does both.""")
def _divided_by_the_sum(scores, top_k):
    best, chosen = scores.topk(top_k)
    return torch.zeros_like(scores).scatter(-1, chosen, best / best.sum(-1, keepdim=True))


@route.slip("""
    Your table holds nothing but zeros: no weight arrived in it. `scatter` leaves its tensor as it is and
    gives back a new one, which must be kept.""")
def _only_zeros(scores, top_k):
    return torch.zeros_like(scores)


@route.slip("""
    The experts that were not chosen keep their scores. The table begins with zeros.""")
def _scores_kept(scores, top_k):
    best, chosen = scores.topk(top_k)
    return scores.scatter(-1, chosen, best.softmax(-1))


@route.slip("""
    The chosen experts were struck out, and the others share the weights. It is the others that get none.""")
def _chosen_struck_out(scores, top_k):
    return scores.masked_fill(_chosen(scores, top_k), -torch.inf).softmax(-1)


@route.slip("""
    You choose two experts, whatever `top_k` is.""")
def _always_two(scores, top_k):
    return route.solve(scores, min(2, scores.shape[-1]))


@route.slip("""
    All tokens got the same row: `table[..., chosen] = weights` writes every token's weights into every row.
    `scatter` pairs them row by row.""")
def _every_row_alike(scores, top_k):
    best, chosen = scores.topk(top_k)
    table = torch.zeros_like(scores)
    table[..., chosen] = best.softmax(-1)
    return table


@route.slip("""
    You chose the experts with the smallest scores. `topk` gives the largest, unless told `largest=False`.""")
def _worst_chosen(scores, top_k):
    worst, chosen = scores.topk(top_k, largest=False)
    return torch.zeros_like(scores).scatter(-1, chosen, worst.softmax(-1))


@route.slip("""
    You set the scores that were not chosen to 0, and exp(0) is 1: they still get a weight. Minus infinity
    gets none.""")
def _others_score_zero(scores, top_k):
    return (scores * _chosen(scores, top_k)).softmax(-1)


@route.slip("""
    The experts choose tokens here: your `topk` runs over the tokens. Each token chooses among the experts,
    the last axis.""")
def _experts_choose(scores, top_k):
    kept = torch.zeros_like(scores)
    kept = kept.scatter(1, scores.topk(min(top_k, scores.shape[1]), dim=1).indices, 1.0).bool()
    return scores.masked_fill(~kept, -torch.inf).softmax(-1)


@route.slip("""
    The experts choose tokens here, and share themselves out over them: `topk` and softmax run over the
    tokens. Both belong to the experts, the last axis.""")
def _experts_choose_and_share(scores, top_k):
    best, chosen = scores.topk(min(top_k, scores.shape[1]), dim=1)
    return torch.zeros_like(scores).scatter(1, chosen, best.softmax(1))


@route.slip("""
    You put the bare scores of the chosen experts there. A softmax makes weights of them.""")
def _bare_scores(scores, top_k):
    return scores * _chosen(scores, top_k)


@route.slip("""
    Each chosen expert is weighted by a sigmoid of its score, on its own. A softmax over the chosen makes them
    sum to 1.""")
def _sigmoid_weights(scores, top_k):
    return scores.sigmoid() * _chosen(scores, top_k)


@route.slip("""
    You took a softmax twice: first over all experts, then over the chosen ones' weights, which makes them
    nearly equal. Take one, over the chosen scores.""")
def _softmax_of_a_softmax(scores, top_k):
    return route.solve(scores.softmax(-1), top_k)


@route.slip("""
    Only the best expert has a weight. Each token uses `top_k` of them.""")
def _only_the_best(scores, top_k):
    return _chosen(scores, 1).to(scores.dtype)


@route.slip("""
    One expert too many was chosen: those with a score of at least the `top_k`-th largest are `top_k`. Counted
    from 0, that one has the number `top_k - 1`.""")
def _one_too_many(scores, top_k):
    return route.solve(scores, min(top_k + 1, scores.shape[-1]))


@route.slip("""
    One expert too few was chosen: the `top_k`-th largest score belongs to a chosen expert too, so compare
    with `>=`.""")
def _one_too_few(scores, top_k):
    kept = scores > scores.topk(top_k).values[..., -1:]
    return scores.masked_fill(~kept, -torch.inf).softmax(-1)


@route.slip("""
    Your softmax runs over the tokens. Each token shares itself out over its experts, the last axis.""")
def _softmax_over_the_tokens(scores, top_k):
    weights = scores.topk(top_k).values.softmax(1)
    return torch.zeros_like(scores).scatter(-1, scores.topk(top_k).indices, weights)


@route.slip("""
    `exp` overflowed or gave only zeros: for large scores subtract the largest of the row first, or use
    `softmax`.""")
def _bare_exp_of_the_chosen(scores, top_k):
    e = scores.exp() * _chosen(scores, top_k)
    return e / e.sum(-1, keepdim=True)


@route.crash("""
    `topk` gives two things, the largest scores and their places: `best, chosen = scores.topk(top_k)`.""")
def _both_at_once(scores, top_k):
    return scores.topk(top_k).softmax(-1)


@route.crash("""
    `scatter` takes the places before the weights: `.scatter(-1, places, weights)`. Places are whole
    numbers.""")
def _weights_for_places(scores, top_k):
    best, chosen = scores.topk(top_k)
    return torch.zeros_like(scores).scatter(-1, best.softmax(-1), chosen)


@route.crash("""
    The table and the weights are of two types. `torch.zeros_like(scores)` has the type of the scores;
    `torch.zeros(...)` is float32.""")
def _table_of_another_type(scores, top_k):
    best, chosen = scores.topk(top_k)
    return torch.zeros(scores.shape).scatter(-1, chosen, best.softmax(-1))


@route.crash("""
    `table[chosen]` picks along the first axis of the table, the sentences. The places are along the last:
    `scatter` writes there.""")
def _places_along_the_first_axis(scores, top_k):
    best, chosen = scores.topk(top_k)
    table = torch.zeros_like(scores)
    table[chosen] = best.softmax(-1)
    return table


# --- 12 ------------------------------------------------------------------------------------------------


def _layers_of_scores(
    rng: np.random.Generator, L: int, T: int, E: int, top_k: int, tilt: float = 0.0
) -> dict[str, Any]:
    """Scores in which the first experts are favoured by ``tilt``."""
    return {"scores": rng.standard_normal((L, T, E)) - tilt * np.arange(E), "top_k": top_k}


def _balance_reference(scores: np.ndarray, top_k: int) -> np.ndarray:
    losses = []
    for layer in scores:
        tokens, n_experts = layer.shape
        share, mean = np.zeros(n_experts), np.zeros(n_experts)
        for row in layer:
            share[np.argsort(row)[-top_k:]] += 1 / (tokens * top_k)
            mean += np.array([1 / np.exp(row - score).sum() for score in row]) / tokens
        losses.append(n_experts * (share * mean).sum())
    return np.array(losses)


@chapter.implement(
    title="A loss that spreads the load",
    statement=r"""
        Left alone, a router may come to send all tokens to the same few experts. A small term in the loss
        works against it. For each layer it is

        $$E \sum_{e=1}^{E} f_e\, P_e$$

        Here $f_e$ is the share of all choices in the layer that fell on expert e: there are T tokens with
        `top_k` choices each, and the E shares sum to 1. $P_e$ is the mean over the T tokens of the router's
        probability for expert e, a softmax over all E scores. `scores` has the shape (L, T, E), a table for
        each of L layers. Give back one number for each layer, (L).

        Gradients are checked too: they flow through $P_e$; a share of choices has none.
        """,
    hints=(
        "Begin with the probabilities: a softmax over the experts, then the mean over the tokens, (L, E).",
        "The choices are `scores.topk(top_k, dim=-1).indices`, (L, T, k). `F.one_hot(choices, E)` turns each "
        "into a row of zeros with a single 1: (L, T, k, E).",
        "The mean of these rows over tokens and choices, as numbers of the scores' type, are the shares: "
        "`one_hot.to(scores.dtype).mean(dim=(1, 2))`, (L, E).",
        "Multiply shares and mean probabilities, sum over the experts, times E.",
    ),
    axes="L",
    inputs=_layers_of_scores,
    sizes=((2, 3, 4, 2), (1, 4, 3, 1), (3, 5, 6, 3, 0.5), (2, 6, 4, 1, 1.0), (2, 2, 5, 2), (4, 3, 2, 1)),
    reference=_balance_reference,
)
def balance_loss(scores, top_k):
    """Measure per layer how unevenly the experts are used: scores (L, T, E) to losses (L)."""
    n_experts = scores.shape[-1]
    # What the router would like, on average: (L, E). The gradient flows through here.
    probabilities = scores.softmax(dim=-1).mean(dim=1)
    # What it did: the share of all T · k choices in the layer that fell on each expert, (L, E).
    choices = scores.topk(top_k, dim=-1).indices.flatten(1)
    shares = nn.functional.one_hot(choices, n_experts).to(scores.dtype).mean(dim=1)
    # Even use gives 1; with one choice a token, an expert that is chosen and wanted by all gives E.
    return n_experts * (shares * probabilities).sum(dim=-1)


def _shares(scores, top_k):
    return _chosen(scores, top_k).to(scores.dtype).mean(1) / top_k


def _means(scores):
    return scores.softmax(-1).mean(1)


def _balance(shares, means):
    return shares.shape[-1] * (shares * means).sum(-1)


@balance_loss.slip("""
    Your loss is E times too small: the factor E is missing, or you took a mean over the experts where a sum
    is meant.""")
def _factor_missing(scores, top_k):
    return (_shares(scores, top_k) * _means(scores)).sum(-1)


@balance_loss.slip("""
    Your loss is `top_k` times too large: each token chooses `top_k` times, and the shares of all choices sum
    to 1. Divide the counts by T times `top_k`.""")
def _choices_not_shared(scores, top_k):
    return top_k * _balance(_shares(scores, top_k), _means(scores))


@balance_loss.slip("""
    Your loss is T times too large: one of the two factors is a sum over the tokens. The shares of the choices
    sum to 1 over the experts, and so do the mean probabilities.""")
def _counts(scores, top_k):
    return scores.shape[1] * _balance(_shares(scores, top_k), _means(scores))


@balance_loss.slip("""
    Your loss is T times `top_k` too large: counts stand where shares are meant. The shares of the choices sum
    to 1 over the experts, and so do the mean probabilities.""")
def _counts_of_all(scores, top_k):
    return top_k * scores.shape[1] * _balance(_shares(scores, top_k), _means(scores))


@balance_loss.slip("""
    Your loss is T times T times `top_k` too large: both factors are sums over the tokens. The shares of the
    choices sum to 1 over the experts, and so do the mean probabilities.""")
def _sums_of_both(scores, top_k):
    return top_k * scores.shape[1] ** 2 * _balance(_shares(scores, top_k), _means(scores))


@balance_loss.slip("""
    Your loss is E times E too small: the sum over the experts is multiplied by E, not divided.""")
def _divided_by_the_number(scores, top_k):
    return _balance(_shares(scores, top_k), _means(scores)) / scores.shape[-1] ** 2


@balance_loss.slip("""
    You multiplied by `top_k`. The factor in front is E, the number of experts.""")
def _choices_for_experts(scores, top_k):
    return top_k * (_shares(scores, top_k) * _means(scores)).sum(-1)


@balance_loss.slip("""
    You multiplied by T, the number of tokens. The factor in front is E, the number of experts: the last
    axis.""")
def _tokens_for_experts(scores, top_k):
    return scores.shape[1] * (_shares(scores, top_k) * _means(scores)).sum(-1)


@balance_loss.slip("""
    You squared the mean probabilities. One of the two factors is the share of choices that fell on the
    expert.""")
def _probabilities_squared(scores, top_k):
    return _balance(_means(scores), _means(scores))


@balance_loss.slip("""
    You squared the shares of the choices, so nothing has a gradient. One of the two factors is the mean
    probability.""")
def _shares_squared(scores, top_k):
    return _balance(_shares(scores, top_k), _shares(scores, top_k))


@balance_loss.slip("""
    Your loss is E, whatever the scores: you summed shares and probabilities over the experts, each for
    itself, and got 1 and 1. First multiply the two, expert by expert, then sum.""")
def _summed_apart(scores, top_k):
    return _balance(_shares(scores, top_k), _means(scores) * 0 + 1)


@balance_loss.slip("""
    You counted the best expert of each token only. A token makes `top_k` choices, and all of them
    count.""")
def _best_only(scores, top_k):
    return _balance(_shares(scores, 1), _means(scores))


@balance_loss.slip("""
    Your loss is E / T, whatever the scores: a softmax or a choice runs over the tokens, and then all experts
    get the same. Each token decides among the experts, the last axis.""")
def _probabilities_over_tokens(scores, top_k):
    return _balance(_shares(scores, top_k), scores.softmax(1).mean(1))


@balance_loss.slip("""
    Your probabilities are those after the choice, a softmax over the chosen scores only. The mean is that of
    the softmax over all experts.""")
def _probabilities_of_the_chosen(scores, top_k):
    return _balance(_shares(scores, top_k), route.solve(scores, top_k).mean(1))


@balance_loss.slip("""
    You took the mean of the bare scores. The router's probabilities are their softmax over the experts.""")
def _scores_for_probabilities(scores, top_k):
    return _balance(_shares(scores, top_k), scores.mean(1))


@balance_loss.slip("""
    You multiplied before you averaged over the tokens: choice times probability, token by token. First
    average each over the tokens, then multiply.""")
def _averaged_too_late(scores, top_k):
    product = _chosen(scores, top_k) / top_k * scores.softmax(-1)
    return scores.shape[-1] * product.mean(1).sum(-1)


@balance_loss.slip("""
    You multiplied before you averaged over the tokens: choice times probability, token by token. First
    average each over the tokens, then multiply; and a token's choices are `top_k`, so divide by that too.""")
def _averaged_too_late_and_not_shared(scores, top_k):
    return top_k * _averaged_too_late(scores, top_k)


@balance_loss.slip("""
    Your shares are the mean weights of the chosen experts. Count instead how often each was chosen, whatever
    its weight.""")
def _weights_for_shares(scores, top_k):
    return _balance(route.solve(scores, top_k).mean(1), _means(scores))


@balance_loss.slip("""
    You took the softmax of the mean scores. First the softmax of each token, then the mean over the
    tokens.""")
def _softmax_of_the_mean(scores, top_k):
    return _balance(_shares(scores, top_k), scores.mean(1).softmax(-1))


@balance_loss.slip("""
    You took the mean probabilities over the layers too: each layer has a router of its own.""")
def _layers_averaged(scores, top_k):
    return _balance(_shares(scores, top_k), _means(scores).mean(0, keepdim=True))


@balance_loss.slip("""
    You took the shares over all layers at once: each layer has a router of its own.""")
def _layers_counted_together(scores, top_k):
    return _balance(_shares(scores, top_k).mean(0, keepdim=True), _means(scores))


@balance_loss.slip("""
    That is one number for all layers. Sum over the experts, the last axis, and keep the layers.""")
def _one_number(scores, top_k):
    return balance_loss.solve(scores, top_k).sum()


@balance_loss.slip("""
    That is the mean over the layers. Give back one number for each of them.""")
def _mean_of_the_layers(scores, top_k):
    return balance_loss.solve(scores, top_k).mean()


@balance_loss.slip("""
    The terms are right and still apart, one for each expert. Sum over the experts.""")
def _terms_apart(scores, top_k):
    return scores.shape[-1] * _shares(scores, top_k) * _means(scores)


@balance_loss.crash("""
    `one_hot` gives whole numbers, and they have no mean: make them numbers of the scores' type first,
    `.to(scores.dtype)`.""")
def _mean_of_whole_numbers(scores, top_k):
    return F.one_hot(scores.topk(top_k).indices, scores.shape[-1]).mean(1)


@balance_loss.crash("""
    `@` takes two tables (L, E) for matrices. Shares and mean probabilities are multiplied entry by entry,
    with `*`, and summed over the experts.""")
def _shares_as_a_matrix(scores, top_k):
    return _shares(scores, top_k) @ _means(scores)


# --- 13 ------------------------------------------------------------------------------------------------


def _experts_inputs(
    rng: np.random.Generator, B: int, T: int, D: int, F: int, E: int, top_k: int
) -> dict[str, Any]:
    weights = {"router.weight": rng.standard_normal((E, D))}
    for e in range(E):
        weights[f"experts.{e}.0.weight"] = rng.standard_normal((F, D))
        weights[f"experts.{e}.0.bias"] = rng.standard_normal(F)
        weights[f"experts.{e}.2.weight"] = rng.standard_normal((D, F))
        weights[f"experts.{e}.2.bias"] = rng.standard_normal(D)
    settings = {"d_model": D, "d_ff": F, "n_experts": E, "top_k": top_k}
    return {**settings, **weights, "x": rng.standard_normal((B, T, D))}


def _experts_reference(
    d_model: int, d_ff: int, n_experts: int, top_k: int, x: np.ndarray, **weights: np.ndarray
) -> np.ndarray:
    shares = _route_reference(x @ weights["router.weight"].T, top_k)
    out = np.zeros_like(x)
    for e in range(n_experts):
        names = ("0.weight", "0.bias", "2.weight", "2.bias")
        answer = _linear_reference(x, *(weights[f"experts.{e}.{name}"] for name in names))
        out += shares[:, :, e, None] * answer
    return out


@chapter.implement_module(
    title="A mixture of experts",
    statement="""
        Put it together: many feed-forward networks, of which each token uses the best `top_k`. `x` is
        (B, T, D), and so is the output: the sum of the chosen experts' answers, each times its weight, a
        softmax over the `top_k` scores of the router.

        Make `router`, a layer `nn.Linear(d_model, n_experts, bias=False)`, and `experts`, an
        `nn.ModuleList` of `n_experts` networks, each with weights of its own:

        `nn.Sequential(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Linear(d_ff, d_model))`.

        The check puts weights of its own into them. It need not be fast: all experts may see all tokens, if
        those that were not chosen get the weight 0. You may call `route` from above. To take over
        `MixtureOfExperts` is off limits: you are writing it.
        """,
    hints=(
        "`__init__` makes the router and the list and keeps `top_k`. `forward` has three steps: score and "
        "choose, let the experts answer, add up.",
        "With `route` from above, `shares = route(self.router(x), self.top_k)` is (B, T, E): a weight for "
        "each expert, 0 for who was not chosen.",
        "Add up in a loop over the experts: `shares[..., e : e + 1] * self.experts[e](x)` is what expert e "
        "contributes, (B, T, D).",
    ),
    axes="B T D",
    settings=("d_model", "d_ff", "n_experts", "top_k"),
    forward=("x",),
    inputs=_experts_inputs,
    sizes=(
        (1, 2, 3, 5, 4, 2),
        (2, 3, 5, 6, 4, 1),
        (1, 4, 2, 6, 4, 3),
        (2, 1, 3, 2, 4, 4),
        (2, 5, 3, 7, 4, 2),
    ),
    reference=_experts_reference,
    forbidden=("MixtureOfExperts",),
)
class Experts(nn.Module):
    """A mixture of experts, each token using its best top_k: x (B, T, D) to (B, T, D)."""

    def __init__(self, d_model, d_ff, n_experts, top_k):
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(d_model, n_experts, bias=False)
        # A ModuleList, not a plain list: only then does the module know the experts' weights.
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Linear(d_ff, d_model))
            for _ in range(n_experts)
        )

    def forward(self, x):
        """Let the router choose for each token of x (B, T, D), and mix the chosen experts' answers."""
        scores, chosen = self.router(x).topk(self.top_k, dim=-1)  # (B, T, k)
        weights = scores.softmax(dim=-1)
        output = 0
        for e, expert in enumerate(self.experts):
            # The weight where e was chosen, 0 elsewhere: (B, T, 1). A fast version spares these tokens.
            share = (weights * (chosen == e)).sum(dim=-1, keepdim=True)
            output = output + share * expert(x)
        return output


class _Mixture(Experts.solve):
    """The solution taken apart, so that each slip spoils one part."""

    def forward(self, x):
        shares = self.shares(self.router(x))
        answers = torch.stack([expert(x) for expert in self.experts], dim=-2)  # (B, T, E, D)
        return (shares[..., None] * answers).sum(-2)

    def shares(self, scores):
        return route.solve(scores, self.top_k)


@Experts.slip("""
    All experts take part: nothing was chosen. Only the `top_k` best may have a weight.""")
class _AllTakePart(_Mixture):
    def shares(self, scores):
        return scores.softmax(-1)


@Experts.slip("""
    You took the softmax over all experts and kept the best: the weights of the chosen no longer sum to 1.
    Choose first, then take the softmax of the chosen scores.""")
class _SharesLost(_Mixture):
    def shares(self, scores):
        return _not_renormalised(scores, self.top_k)


@Experts.slip("""
    The chosen experts count the same in your answer, and sum to 1. Weight them by a softmax of their
    scores.""")
class _EqualShares(_Mixture):
    def shares(self, scores):
        return _equal_shares(scores, self.top_k)


@Experts.slip("""
    You added up the answers of the chosen experts without any weights.""")
class _NoWeights(_Mixture):
    def shares(self, scores):
        return _choice_alone(scores, self.top_k)


@Experts.slip("""
    Only the best expert answers. Each token uses `top_k` of them.""")
class _BestAlone(_Mixture):
    def shares(self, scores):
        return _only_the_best(scores, self.top_k)


@Experts.slip("""
    You weighted the experts by their bare scores. A softmax over the chosen makes weights of them.""")
class _BareScores(_Mixture):
    def shares(self, scores):
        return _bare_scores(scores, self.top_k)


@Experts.slip("""
    You weighted each chosen expert by a sigmoid of its score. A softmax over the chosen makes them sum to
    1.""")
class _SigmoidShares(_Mixture):
    def shares(self, scores):
        return _sigmoid_weights(scores, self.top_k)


@Experts.slip("""
    You chose the experts with the smallest scores: `topk` gives the largest, unless told `largest=False`.""")
class _WorstChosen(_Mixture):
    def shares(self, scores):
        return _worst_chosen(scores, self.top_k)


@Experts.slip("""
    The best weight always went to expert 0, the next to expert 1, and so on. `topk` also tells which experts
    they belong to: `scores, chosen = ...`.""")
class _PlacesForgotten(_Mixture):
    def shares(self, scores):
        return _best_in_front(scores, self.top_k)


@Experts.slip("""
    You took a softmax twice: once over all experts, and again over the weights of the chosen, which makes
    them nearly equal. Take one, over the chosen scores.""")
class _TwoSoftmaxes(_Mixture):
    def shares(self, scores):
        return _softmax_of_a_softmax(scores, self.top_k)


@Experts.slip("""
    Your softmax runs over the tokens. Each token shares itself out over its experts, the last axis.""")
class _SharesOverTokens(_Mixture):
    def shares(self, scores):
        return _softmax_over_the_tokens(scores, self.top_k)


@Experts.slip("""
    The mixture is right, but you add `x` to it. That residual connection belongs around it, in the layer of
    a Transformer.""")
class _MixtureAdded(_Mixture):
    def forward(self, x):
        return x + super().forward(x)


@Experts.slip("""
    Only the last expert's part is left: every step wrote over the one before. Add up, `output = output +
    ...`.""")
class _LastPartOnly(_Mixture):
    def shares(self, scores):
        last = torch.zeros(scores.shape[-1]).to(scores.dtype)
        last[-1] = 1
        return super().shares(scores) * last


@Experts.slip("""
    The experts' inputs are weighted: `expert(weight * x)`. Let each expert see `x` as it is, and weight its
    answer.""")
class _InputsWeighted(_Mixture):
    def forward(self, x):
        shares = self.shares(self.router(x))
        return sum(expert(shares[..., e : e + 1] * x) for e, expert in enumerate(self.experts))


@Experts.slip("""
    Only the first `top_k` experts of the list can answer. Which ones are chosen differs from token to token:
    the loop runs over all of them.""")
class _FirstExpertsOnly(_Mixture):
    def shares(self, scores):
        shares = super().shares(scores)
        return torch.where(torch.arange(scores.shape[-1]) < self.top_k, shares, 0)


@Experts.slip("""
    You choose two experts, whatever `top_k` is. Keep it in `__init__`, and use `self.top_k`.""")
class _AlwaysTwo(_Mixture):
    def shares(self, scores):
        return _always_two(scores, self.top_k)


@Experts.slip("""
    All tokens got the experts of the first one. Each token has a choice of its own.""")
class _ChoiceOfTheFirst(_Mixture):
    def shares(self, scores):
        best, chosen = scores.topk(self.top_k)
        return torch.zeros_like(scores).scatter(-1, chosen[:1, :1].expand(chosen.shape), best.softmax(-1))


@Experts.slip("""
    Your experts bend with a GELU. Here they have a `relu`.""")
class _GeluExperts(_Mixture):
    def forward(self, x):
        shares = self.shares(self.router(x))
        answers = [expert[2](F.gelu(expert[0](x))) for expert in self.experts]
        return (shares[..., None] * torch.stack(answers, dim=-2)).sum(-2)


@Experts.slip("""
    Your softmax runs over the sentences, the first axis. Each token shares itself out over its experts, the
    last axis.""")
class _SharesOverSentences(_Mixture):
    def shares(self, scores):
        best, chosen = scores.topk(self.top_k)
        return torch.zeros_like(scores).scatter(-1, chosen, best.softmax(0))


@Experts.slip("""
    The answers of the experts are divided by `top_k` once more. The weights sum to 1 already: their sum is
    the average.""")
class _DividedAgain(_Mixture):
    def shares(self, scores):
        return super().shares(scores) / self.top_k


_KEEP_THE_COUNT = """
    `top_k` is known in `__init__` only: keep it there, `self.top_k = top_k`, and use `self.top_k` in
    `forward`.
    """


@Experts.crash(_KEEP_THE_COUNT)
class _CountNotKept(_Mixture):
    def shares(self, scores):
        raise NameError("name 'top_k' is not defined")


@Experts.crash(_KEEP_THE_COUNT)
class _CountNotFound(_Mixture):
    def shares(self, scores):
        raise AttributeError("'Experts' object has no attribute 'top_k'")


@Experts.crash("""
    A list of networks takes one whole number, and you gave it a whole table: each token has experts of its
    own. Loop over the experts, and let the weight 0 drop those that were not chosen.""")
class _TableForANumber(_Mixture):
    def forward(self, x):
        chosen = self.router(x).topk(self.top_k).indices
        return self.experts[chosen[..., 0]](x)


@Experts.crash("""
    Weights of E experts a token meet an answer with D numbers. One expert has one weight a token, in the last
    axis: `shares[..., e : e + 1]`. (`shares[e]` has all weights of one sentence.)""")
class _AllWeightsForAnExpert(_Mixture):
    def forward(self, x):
        return self.shares(self.router(x))[0] * self.experts[0](x)


@Experts.crash("""
    To multiply an expert's answer, (B, T, D), its weight must be (B, T, 1), one number a token:
    `shares[..., e : e + 1]`, or a sum with `keepdim=True`.""")
class _WeightWithoutAxis(_Mixture):
    def forward(self, x):
        return self.shares(self.router(x))[..., 0] * self.experts[0](x)
