"""Exercises of the chapter "Mamba: a memory of fixed size", in rising order.

Each function here is a solution; the decorator above it makes the exercise, and the functions below it are
slips: wrong answers that people write, each under the sentence that names it.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .check import Chapter

chapter = Chapter("selective_scan", "Mamba: a memory of fixed size")


def __dir__() -> list[str]:
    """Only the exercises, so that completion offers no slips."""
    return list(chapter.exercises)


# --- 1 -------------------------------------------------------------------------------------------------


def _steps(rng: np.random.Generator, T: int, N: int) -> dict[str, Any]:
    return {"decay": rng.uniform(0.2, 0.95, (T, N)), "new": rng.standard_normal((T, N))}


def _states_by_sums(decay: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Each token's share of each later state, one by one."""
    states = np.zeros_like(new)
    for t in range(len(new)):
        for s in range(t + 1):
            states[t] += np.prod(decay[s + 1 : t + 1], axis=0) * new[s]
    return states


@chapter.implement(
    title="The recurrence, token by token",
    statement="""
        A state of N numbers begins at 0. Each of T tokens first lets a part of the old state stand, and then
        adds something new, number by number:

        h_t = decay_t · h_(t-1) + new_t.

        `decay` and `new` have the shape (T, N): a row for each token. Write the T states, (T, N), the first
        one after the first token.
        """,
    hints=(
        "On paper, with one number: decay 0.5, 0.5, 0.5 and new 8, 4, 1. The states are 8, then "
        "0.5 · 8 + 4 = 8, then 0.5 · 8 + 1 = 5.",
        "You need one variable that holds the state, and a list in which each new state is put down.",
        "Begin with `state = torch.zeros_like(new[0])`, N zeros. In a loop over t: first the new state, then "
        "`states.append(state)`.",
        "After the loop `torch.stack(states)` makes one tensor (T, N) of T rows.",
    ),
    axes="T N",
    inputs=_steps,
    sizes=((2, 1), (3, 2), (1, 4), (5, 3), (4, 6)),
    reference=_states_by_sums,
)
def recurrence(decay, new):
    """The states h_t = decay_t h_(t-1) + new_t, from a state of zeros: (T, N), (T, N) to (T, N)."""
    state, states = torch.zeros_like(new[0]), []
    for t in range(len(new)):
        # The old state fades before the new token comes in: what is new has not faded yet.
        state = decay[t] * state + new[t]
        states.append(state)
    return torch.stack(states)


def _looped(step, new):
    """The states of another rule: ``step(t, state)`` makes the next one."""
    state, states = torch.zeros_like(new[0]), []
    for t in range(len(new)):
        state = step(t, state)
        states.append(state)
    return torch.stack(states)


@recurrence.slip("""
    Nothing fades in your answer: it is the plain sum of all that came in. Multiply the old state by
    `decay[t]` before you add.""")
def _plain_sum(decay, new):
    return new.cumsum(0)


@recurrence.slip("""
    You add first and let the sum fade, so the new token fades too. The old state alone is multiplied by
    `decay[t]`; then comes `new[t]`.""")
def _faded_sum(decay, new):
    return _looped(lambda t, h: decay[t] * (h + new[t]), new)


@recurrence.slip("""
    It is the new token that you multiply by `decay[t]`, and the old state stays whole. The other way
    round: `decay[t] * state + new[t]`.""")
def _faded_news(decay, new):
    return _looped(lambda t, h: h + decay[t] * new[t], new)


@recurrence.slip("""
    Your state starts as `new[0]`, and then the first token comes in once more. Start from zeros.""")
def _first_twice(decay, new):
    state, states = new[0], []
    for t in range(len(new)):
        state = decay[t] * state + new[t]
        states.append(state)
    return torch.stack(states)


@recurrence.slip("""
    You use the decay of the token before. It is the token that comes in now, t, that says how much of the
    old state stays.""")
def _decay_of_the_one_before(decay, new):
    return _looped(lambda t, h: decay[max(t - 1, 0)] * h + new[t], new)


@recurrence.slip("""
    You use the decay of the token that is still to come. The token that comes in now, t, says how much of
    the old state stays.""")
def _decay_of_the_next(decay, new):
    return _looped(lambda t, h: decay[min(t + 1, len(new) - 1)] * h + new[t], new)


@recurrence.slip("""
    You put each state down before its token has come in. First `state = decay[t] * state + new[t]`, then
    `append`.""")
def _before_the_token(decay, new):
    states = _looped(lambda t, h: decay[t] * h + new[t], new)
    return torch.cat([torch.zeros_like(new[:1]), states[:-1]])


@recurrence.slip("""
    Your answer reaches one token back and no further. What is multiplied by `decay[t]` is the old state,
    which holds all earlier tokens, and not `new[t - 1]`.""")
def _one_token_back(decay, new):
    before = torch.cat([torch.zeros_like(new[:1]), new[:-1]])
    return decay * before + new


@recurrence.slip("""
    You multiplied the sum of all tokens by the product of all decays. A token fades only by the decays of
    the tokens that come after it.""")
def _product_of_all(decay, new):
    return decay.cumprod(0) * new.cumsum(0)


@recurrence.slip("""
    You weigh the new token by 1 - decay, as in a moving average. Here it comes in whole.""")
def _moving_average(decay, new):
    return _looped(lambda t, h: decay[t] * h + (1 - decay[t]) * new[t], new)


@recurrence.slip("""
    Your states run from the last token to the first. Time runs from row 0 on.""")
def _backwards(decay, new):
    return recurrence.solve(decay.flip(0), new.flip(0)).flip(0)


@recurrence.slip("""
    Your loop runs along the N numbers of a state. These stand side by side and do not meet; time is the
    first axis.""")
def _along_the_numbers(decay, new):
    return recurrence.solve(decay.T, new.T).T


@recurrence.slip("""
    You divide the old state by the decay, so that it grows. Multiply.""")
def _divided(decay, new):
    return _looped(lambda t, h: h / decay[t] + new[t], new)


@recurrence.slip("""
    That is the last state alone. All T states are wanted: put each one down in a list, and stack the list
    at the end.""")
def _last_alone(decay, new):
    return recurrence.solve(decay, new)[-1]


@recurrence.slip("""
    The states are right, with the axes exchanged: (N, T). `torch.stack(states)` puts time first by
    itself.""")
def _time_last(decay, new):
    return recurrence.solve(decay, new).T


@recurrence.slip("""
    Your state never changes: each token meets the zeros of the beginning. The new state must get the name
    of the old one, `state = decay[t] * state + new[t]`.""")
def _never_carried_on(decay, new):
    return 0 * decay + new


# --- 2 -------------------------------------------------------------------------------------------------


def _kernel_inputs(rng: np.random.Generator, Di: int, N: int, T: int) -> dict[str, Any]:
    return {
        "decay": rng.uniform(0.3, 0.95, (Di, N)),
        "write": rng.standard_normal((Di, N)),
        "read": rng.standard_normal((Di, N)),
        "n_tokens": T,
    }


def _kernel_by_impulse(decay: np.ndarray, write: np.ndarray, read: np.ndarray, n_tokens: int) -> np.ndarray:
    """What comes out when a single 1 came in at the beginning."""
    kernel = np.zeros((len(decay), n_tokens))
    state = np.zeros_like(decay)
    for t in range(n_tokens):
        state = decay * state + (write if t == 0 else 0)
        kernel[:, t] = np.einsum("dn,dn->d", read, state)
    return kernel


@chapter.implement(
    title="The kernel of a fixed recurrence",
    statement=r"""
        Each of Di channels has a state of N numbers. `decay`, `write` and `read`, all of shape (Di, N), are
        the same at all times: a number $x_t$ that comes into a channel is added to its state as
        $\text{write} \cdot x_t$, and the channel gives out $y_t = \sum_n \text{read}_n\, h_{t,n}$.

        Then the whole recurrence is one convolution: the token of t steps ago counts with

        $$K_t = \sum_{n=1}^{N} \text{read}_n \cdot \text{decay}_n^{\,t} \cdot \text{write}_n$$

        Write the kernel for `n_tokens` tokens, shape (Di, T); its first number belongs to the token that has
        just come in.
        """,
    hints=(
        "Let a single 1 come in at the beginning, and then zeros. What stands in the state at once, one "
        "token later, two tokens later? What is read each time?",
        "The powers of all decays at once: `decay[..., None] ** torch.arange(n_tokens)` has the shape "
        "(Di, N, T), with the powers 0 to T - 1.",
        "Multiply by `(read * write)[..., None]`, of shape (Di, N, 1), and sum over the N numbers of the "
        "state: axis 1.",
    ),
    axes="Di T",
    inputs=_kernel_inputs,
    sizes=((1, 2, 3), (2, 3, 4), (3, 1, 2), (2, 4, 1), (4, 2, 5)),
    reference=_kernel_by_impulse,
)
def kernel(decay, write, read, n_tokens):
    """K_t, the weight of the token of t steps ago: decay, write, read (Di, N) to a kernel (Di, T)."""
    # What has just come in has not faded: the powers begin at 0. (Di, N, T)
    powers = decay[..., None] ** torch.arange(n_tokens, device=decay.device)
    # Each number of the state fades at its own pace; what is read is their sum.
    return ((read * write)[..., None] * powers).sum(dim=1)


def _powers(decay, n_tokens, first=0):
    return decay[..., None] ** torch.arange(first, first + n_tokens)


@kernel.slip("""
    Your powers begin at 1, so that the newest token has already faded. It counts with decay to the power
    of 0.""")
def _from_one(decay, write, read, n_tokens):
    return ((read * write)[..., None] * _powers(decay, n_tokens, 1)).sum(1)


@kernel.slip("""
    Your kernel runs the other way: its first number belongs to the oldest token. K_0 is the weight of the
    token that has just come in.""")
def _oldest_first(decay, write, read, n_tokens):
    return kernel.solve(decay, write, read, n_tokens).flip(-1)


@kernel.slip("""
    `write` has no part in your answer. What comes in is multiplied by `write` before it is in the
    state.""")
def _not_written(decay, write, read, n_tokens):
    return (read[..., None] * _powers(decay, n_tokens)).sum(1)


@kernel.slip("""
    `read` has no part in your answer. What comes out is the sum of the state's numbers, each times its
    `read`.""")
def _not_read(decay, write, read, n_tokens):
    return (write[..., None] * _powers(decay, n_tokens)).sum(1)


@kernel.slip("""
    You took the power of `decay * write`, so that `write` is applied at every step. A token is written
    once; only the decay is applied again and again.""")
def _written_each_time(decay, write, read, n_tokens):
    return (read[..., None] * _powers(decay * write, n_tokens)).sum(1)


@kernel.slip("""
    You multiplied the decay by t. It is applied t times: `decay ** t`.""")
def _times_t(decay, write, read, n_tokens):
    t = torch.arange(n_tokens)
    return ((read * write)[..., None] * (decay[..., None] * t)).sum(1)


@kernel.slip("""
    You took the mean over the N numbers of the state where the formula has a sum.""")
def _mean_of_states(decay, write, read, n_tokens):
    return ((read * write)[..., None] * _powers(decay, n_tokens)).mean(1)


@kernel.slip("""
    You summed `read` and `write` before they met: each number of the state has a `read` and a `write` of
    its own, and they are multiplied before the sum.""")
def _summed_first(decay, write, read, n_tokens):
    return (write[..., None] * _powers(decay, n_tokens)).sum(1) * read.sum(-1, keepdim=True)


@kernel.slip("""
    Your kernel adds up: each entry holds all the earlier ones as well. K_t is the weight of one token,
    that of t steps ago.""")
def _added_up(decay, write, read, n_tokens):
    return kernel.solve(decay, write, read, n_tokens).cumsum(-1)


@kernel.slip("""
    You summed the decays of a channel first and took powers then. Each number of the state fades at its
    own pace: powers first, the sum last.""")
def _sum_of_decays(decay, write, read, n_tokens):
    return (read * write).sum(1, keepdim=True) * decay.sum(1, keepdim=True) ** torch.arange(n_tokens)


@kernel.slip("""
    Your powers are negative: 1 / decay grows with every token.""")
def _growing(decay, write, read, n_tokens):
    return ((read * write)[..., None] * decay[..., None] ** -torch.arange(n_tokens)).sum(1)


@kernel.slip("""
    You summed over time where the sum runs over the N numbers of the state: axis 1 of (Di, N, T).""")
def _summed_over_time(decay, write, read, n_tokens):
    return ((read * write)[..., None] * _powers(decay, n_tokens)).sum(-1)


@kernel.slip("""
    The numbers are right, with the axes exchanged: (T, Di). Stack the steps along the last axis,
    `dim=-1`.""")
def _time_first(decay, write, read, n_tokens):
    return kernel.solve(decay, write, read, n_tokens).T


@kernel.slip("""
    You took `exp` of decay times t. A decay is already the factor for one step: its powers are `decay **
    t`.""")
def _exponential(decay, write, read, n_tokens):
    grown = torch.exp(decay[..., None] * torch.arange(n_tokens))
    return ((read * write)[..., None] * grown).sum(1)


# --- 3 -------------------------------------------------------------------------------------------------


def _hold_inputs(rng: np.random.Generator, Di: int, N: int, longest: float) -> dict[str, Any]:
    return {
        "state": rng.standard_normal((Di, N)),
        "x": rng.standard_normal(Di),
        "rate": -rng.uniform(0.5, 4.0, (Di, N)),
        "step": rng.uniform(0.1, 1.0, Di) * longest,
    }


def _hold_by_series(state: np.ndarray, x: np.ndarray, rate: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The differential equation's solution, as its approach to the place where it comes to rest."""
    after = np.zeros_like(state)
    for d, n in np.ndindex(state.shape):
        rest = -x[d] / rate[d, n]  # there rate h + x is 0
        after[d, n] = rest + (state[d, n] - rest) * math.exp(rate[d, n] * step[d])
    return after


@chapter.implement(
    title="Zero-order hold",
    statement=r"""
        Between two tokens time passes: `step`, one number for each of Di channels. Meanwhile the state of a
        channel, N numbers, follows $h' = \text{rate} \cdot h + x$, and $x$ stands still (it is *held*; hence
        the name). At the end of the step the state is

        $$e^{\,\text{rate} \cdot \text{step}} \cdot h \;+\;
        \frac{e^{\,\text{rate} \cdot \text{step}} - 1}{\text{rate}} \cdot x$$

        `state` and `rate` have the shape (Di, N), `x` and `step` the shape (Di). All rates are negative.
        Write the state after the step, (Di, N).
        """,
    hints=(
        "By hand: rate -1, step 0.1. The old state keeps exp(-0.1) = 0.905 of itself. The weight of x is "
        "(0.905 - 1) / -1 = 0.095.",
        "`x` and `step` have one number for each channel. `step[:, None]` has the shape (Di, 1) and is used "
        "for all N numbers of the channel.",
        "`turned = rate * step[:, None]`; the decay is `turned.exp()`. For exp(z) - 1 there is "
        "`torch.expm1(z)`, exact for small z as well.",
    ),
    axes="Di N",
    inputs=_hold_inputs,
    sizes=((2, 3, 1.0), (1, 2, 1.0), (3, 1, 0.5), (4, 2, 2.0), (2, 5, 0.1)),
    reference=_hold_by_series,
)
def hold(state, x, rate, step):
    """The state (Di, N) after each channel's x (Di) was held for its step (Di), at the rates (Di, N)."""
    # One step for all N numbers of a channel: (Di, N) times (Di, 1).
    turned = rate * step[:, None]
    # expm1 is exp - 1 without the loss of digits where the step is short.
    return turned.exp() * state + torch.expm1(turned) / rate * x[:, None]


def _turned(rate, step):
    return rate * step[:, None]


@hold.slip("""
    You weigh x by the step itself. That is Euler's method, which Mamba's published code uses for this
    half; zero-order hold has (exp(rate · step) - 1) / rate.""")
def _euler_for_x(state, x, rate, step):
    return _turned(rate, step).exp() * state + (step * x)[:, None]


@hold.slip("""
    That is Euler's method for both halves: one straight step along the slope at the beginning. Zero-order
    hold follows the curve, with the exponential function.""")
def _euler(state, x, rate, step):
    return state + step[:, None] * (rate * state + x[:, None])


@hold.slip("""
    You divided by rate · step. The formula divides by the rate alone. (In the paper's form, the inverse
    of rate · step stands in front, and behind it another step that cancels the first.)""")
def _divided_by_both(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * state + torch.expm1(turned) / turned * x[:, None]


@hold.slip("""
    The weight of x is not divided by the rate.""")
def _not_divided(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * state + torch.expm1(turned) * x[:, None]


@hold.slip("""
    You weigh x by 1 - decay, as a gate does. That is the special case of rate -1; in general it is
    divided by -rate.""")
def _as_a_gate(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * state - torch.expm1(turned) * x[:, None]


@hold.slip("""
    x comes in whole. While it was held for a step, it could only add (exp(rate · step) - 1) / rate of
    itself.""")
def _whole_x(state, x, rate, step):
    return _turned(rate, step).exp() * state + x[:, None]


@hold.slip("""
    Your old state grows: the exponent should be rate · step, which is negative, and yours is its
    opposite.""")
def _grows(state, x, rate, step):
    turned = -_turned(rate, step)
    return turned.exp() * state + torch.expm1(turned) / -rate * x[:, None]


@hold.slip("""
    The sign of the second half is turned. Numerator and denominator are both negative, so the weight of x
    is positive.""")
def _minus(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * state - torch.expm1(turned) / rate * x[:, None]


@hold.slip("""
    The step is missing in your exponents: you let one unit of time pass for every token.""")
def _one_unit(state, x, rate, step):
    return rate.exp() * state + torch.expm1(rate) / rate * x[:, None]


@hold.slip("""
    The old state stands still in your answer. It fades by exp(rate · step).""")
def _nothing_fades(state, x, rate, step):
    return state + torch.expm1(_turned(rate, step)) / rate * x[:, None]


@hold.slip("""
    You let the sum of both fade. What x adds during the step is already counted up to its end: only the
    old state is multiplied by exp(rate · step).""")
def _both_fade(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * (state + torch.expm1(turned) / rate * x[:, None])


@hold.slip("""
    The "- 1" is missing: the weight of x is (exp(rate · step) - 1) / rate, which is 0 when no time
    passes.""")
def _no_minus_one(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * state + turned.exp() / rate * x[:, None]


@hold.slip("""
    You multiplied by the rate where the formula divides.""")
def _times_the_rate(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * state + torch.expm1(turned) * rate * x[:, None]


@hold.slip("""
    Only a part was divided by the rate, and multiplied by x: / and * come before -. Put brackets around
    exp(rate · step) - 1.""")
def _no_brackets(state, x, rate, step):
    decay = _turned(rate, step).exp()
    return decay * state + decay - 1 / rate * x[:, None]


@hold.slip("""
    You multiplied `exp` of the rate by the step. The step belongs into the exponent: exp(rate ·
    step).""")
def _step_outside(state, x, rate, step):
    decay = rate.exp() * step[:, None]
    return decay * state + (decay - 1) / rate * x[:, None]


@hold.slip("""
    The weight of x has a step too many: the step acts in the exponent, and nowhere else.""")
def _step_again(state, x, rate, step):
    turned = _turned(rate, step)
    return turned.exp() * state + torch.expm1(turned) / rate * (step * x)[:, None]


@hold.crash("""
    `x` and `step` have one number for each channel, (Di), and the state has N for each, (Di, N). With
    `[:, None]` they become (Di, 1), one for all N.""")
def _no_axis(state, x, rate, step):
    return (rate * step).exp() * state


# --- 4 -------------------------------------------------------------------------------------------------


@chapter.predict(
    title="A very long step",
    statement="""
        One number of a state stands at h = 100. Its rate is -2. Now a token comes with x = 6, and with a step
        so long that you may call it infinite. The discretisation is zero-order hold.

        Before you run anything: where does the state stand afterwards?
        """,
    hints=(
        "Take the two halves one by one. What is exp(-2 · step) for a very long step? So how much is left of "
        "the 100?",
        "The weight of x is (exp(-2 · step) - 1) / -2.",
        "Or without the formula: h' = -2 h + 6 comes to rest where h' is 0.",
    ),
    expected=3.0,
    wrong={
        100.0: "That would be a step of 0: the token is ignored. A long step does the opposite.",
        0.0: "Right about the past: nothing is left of it. But x was held all that time, and the state moved "
        "to where x holds it.",
        6.0: "Nothing is left of the past, right. But the weight of x is (0 - 1) / -2, and not 1: that would "
        "be so at the rate -1.",
        -3.0: "The size is right. Both -1 and the rate -2 are negative, so their quotient is positive.",
        12.0: "You multiplied by the rate. The weight is (0 - 1) / -2.",
        -12.0: "You multiplied by the size of the rate. The weight is the quotient (0 - 1) / -2.",
        106.0: "You added x to the old state. The old state fades, here to nothing, and x is weighted.",
        103.0: "The weight of x is right, one half. But of the old state exp(-2 · step) is left, and that is "
        "0.",
    },
    otherwise="Not that number. Where is -2 h + 6 equal to 0?",
    form="one number",
)
def a_very_long_step():
    """x / -rate = 3: the past is forgotten, and the state rests where x holds it. A step of 0 would have left
    it at 100. (Mamba's published code takes the step itself as the weight of x, so there it would be
    infinite: what is near for short steps need not be near for long ones.)
    """
    left = torch.tensor(-2 * 1000.0).exp()  # of the old state
    return (left * 100 + (left - 1) / -2 * 6).item()


# --- 5 -------------------------------------------------------------------------------------------------


def _first_steps(rng: np.random.Generator, Di: int, longest: float) -> dict[str, Any]:
    return {"step": np.sort(rng.uniform(0.01, 1.0, Di))[::-1].copy() * longest}


def _bias_by_halving(step: np.ndarray) -> np.ndarray:
    """Search for the place where softplus reaches the step."""
    low, high = np.full_like(step, -60.0), step + 1.0
    for _ in range(200):
        middle = (low + high) / 2
        below = np.logaddexp(0, middle) < step
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


@chapter.implement(
    title="A bias that gives the step back",
    statement=r"""
        A step must be positive. So Mamba makes it by $\operatorname{softplus}(z) = \log(1 + e^z)$ of a number
        $z$ that may be anything, to which a bias is added. Before training, each channel should have a given
        step; so its bias must be the number $z$ with $\operatorname{softplus}(z) = \text{step}$.

        `step` has the shape (Di). Write the biases, (Di). Some steps are above 100: see that they do not
        overflow. (In float32 `exp` of 89 is infinity.)
        """,
    hints=(
        "Solve step = log(1 + exp(z)) for z, on paper, one operation at a time: what undoes a logarithm?",
        "z = log(exp(step) - 1). That is right, and it overflows for long steps. By which factor can you "
        "divide inside of the logarithm, and what must then be added outside?",
        "exp(step) - 1 = exp(step) · (1 - exp(-step)). The logarithm of the first factor is `step`; the "
        "second is between 0 and 1.",
        "1 - exp(-step) is `-torch.expm1(-step)`, exact for short steps as well.",
    ),
    axes="Di",
    inputs=_first_steps,
    sizes=((2, 0.1), (3, 3.0), (4, 200.0), (5, 200.0), (1, 1.0)),
    reference=_bias_by_halving,
)
def first_bias(step):
    """The number of which softplus gives the step: (Di) to (Di)."""
    # log(exp(step) - 1) with exp(step) taken out of the logarithm: nothing is left that could overflow.
    return step + torch.log(-torch.expm1(-step))


@first_bias.slip("""
    That is softplus itself, log(exp(step) + 1), from a bias to a step. You are asked for the way back, on
    which the 1 is taken away.""")
def _forwards(step):
    return F.softplus(step)


@first_bias.slip("""
    Right, as long as the step is not long: `exp` of 89 is infinity in float32. Take exp(step)
    out of the logarithm: step + log(1 - exp(-step)).""")
def _overflows(step):
    return torch.log(torch.exp(step) - 1)


@first_bias.slip("""
    That undoes exp, and softplus is log(1 + exp(z)): the 1 must go too. (For short steps the two are
    near.)""")
def _log_alone(step):
    return step.log()


@first_bias.slip("""
    You stopped half way: exp(step) - 1 is exp(z), and z is its logarithm.""")
def _no_log(step):
    return torch.expm1(step)


@first_bias.slip("""
    exp(step) was taken out of the logarithm and then lost: its own logarithm, which is `step`, must be
    added.""")
def _step_lost(step):
    return torch.log(-torch.expm1(-step))


@first_bias.slip("""
    You subtracted the logarithm. exp(step) - 1 is the product of exp(step) and 1 - exp(-step), and the
    logarithms of a product are added.""")
def _subtracted(step):
    return step - torch.log(-torch.expm1(-step))


@first_bias.slip("""
    You undid a sigmoid. softplus is not a share between 0 and 1: it is log(1 + exp(z)).""")
def _undid_a_sigmoid(step):
    return torch.log(step / (1 - step))


@first_bias.slip("""
    Your sign is turned: what should be a large bias is a small one.""")
def _turned_round(step):
    return -(step + torch.log(-torch.expm1(-step)))


@first_bias.slip("""
    The logarithm of a negative number is NaN: exp(-step) - 1 and 1 - exp(step) are negative, 1 -
    exp(-step) is not.""")
def _minus_missing(step):
    return step + torch.log(torch.expm1(-step))


@first_bias.slip("""
    You took the 1 away outside of the logarithm, where log(exp(step)) is just `step`. It is taken away
    before the logarithm: log(exp(step) - 1).""")
def _minus_one_outside(step):
    return step - 1


@first_bias.slip("""
    You divided 1 by softplus. The way back is not the reciprocal: solve step = log(1 + exp(z)) for z.""")
def _reciprocal(step):
    return 1 / F.softplus(step)


# --- 6 -------------------------------------------------------------------------------------------------


def _two_steps(rng: np.random.Generator, N: int) -> dict[str, Any]:
    first, second = (np.stack([rng.uniform(0.2, 0.9, N), rng.standard_normal(N)]) for _ in range(2))
    return {"first": first, "second": second}


def _one_by_probing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What both steps make of the state 0 is what is new; what they make of 1 is that, and the decay more."""
    ends = []
    for start in (0.0, 1.0):
        state = np.full(first.shape[1], start)
        for decay, new in (first, second):
            state = decay * state + new
        ends.append(state)
    return np.stack([ends[1] - ends[0], ends[0]])


@chapter.implement(
    title="Two steps are one step",
    statement="""
        A step of the recurrence is a pair: a decay a and something new b, which turn h into a · h + b. Take
        the step `first`, and after it the step `second`. Together they are again such a step: one decay and
        one new.

        Each step has the shape (2, N): row 0 holds N decays, row 1 what is new. Write the one step that does
        the same as `first` and then `second`, (2, N).
        """,
    hints=(
        "Put the first step into the second, on paper: a2 · (a1 · h + b1) + b2.",
        "Multiply out. What stands before h is the new decay, and all the rest is what is new.",
        "The decay is a2 · a1; what is new is a2 · b1 + b2. The b of the first step fades by the second "
        "step; that of the second does not.",
        "`torch.stack([decay, new])` makes one tensor (2, N) of two rows.",
    ),
    axes="2 N",
    inputs=_two_steps,
    sizes=((1,), (3,), (4,), (5,)),
    reference=_one_by_probing,
)
def join(first, second):
    """One step that does what first (2, N) and then second (2, N) do; row 0 the decays, row 1 what is new."""
    # The second step comes later: it lets what the first one brought fade, as it does with the old state.
    return torch.stack([second[0] * first[0], second[0] * first[1] + second[1]])


@join.slip("""
    Your steps are joined in the wrong order: you let what the second step brings fade by the first decay.
    The second step is the later one.""")
def _wrong_order(first, second):
    return torch.stack([first[0] * second[0], first[0] * second[1] + first[1]])


@join.slip("""
    What the first step brought does not fade in your answer. The second step comes after it, and lets it
    fade by its decay.""")
def _just_added(first, second):
    return torch.stack([second[0] * first[0], first[1] + second[1]])


@join.slip("""
    You added the decays. A half of a half is a quarter: they are multiplied.""")
def _decays_added(first, second):
    return torch.stack([second[0] + first[0], second[0] * first[1] + second[1]])


@join.slip("""
    Your decay is that of the second step alone. The old state passes through both.""")
def _decay_of_the_second(first, second):
    return torch.stack([second[0], second[0] * first[1] + second[1]])


@join.slip("""
    Your decay is that of the first step alone. The old state passes through both.""")
def _decay_of_the_first(first, second):
    return torch.stack([first[0], second[0] * first[1] + second[1]])


@join.slip("""
    What the first step brought fades by both decays in your answer. Its own decay is for the state before
    it; only the second one comes later.""")
def _fades_twice(first, second):
    return torch.stack([second[0] * first[0], second[0] * first[0] * first[1] + second[1]])


@join.slip("""
    You let both news fade. What the second step brings has just come in.""")
def _both_news_fade(first, second):
    return torch.stack([second[0] * first[0], second[0] * (first[1] + second[1])])


@join.slip("""
    The step is right, with its rows exchanged: the decay is row 0, what is new is row 1.""")
def _rows_exchanged(first, second):
    return join.solve(first, second).flip(0)


@join.slip("""
    That is `second` alone: what `first` did is lost.""")
def _second_alone(first, second):
    return second + 0 * first


@join.slip("""
    You multiplied the two tensors, news by news. Put one step into the other on paper: a2 · (a1 · h + b1)
    + b2.""")
def _row_by_row(first, second):
    return first * second


@join.slip("""
    You added the two tensors, decay to decay. Put one step into the other on paper: a2 · (a1 · h + b1) +
    b2.""")
def _sum_of_both(first, second):
    return first + second


@join.slip("""
    What the first step brought fades by its own decay in your answer. That decay was for the state before
    it; what comes after is the second step, with its decay.""")
def _fades_by_its_own(first, second):
    return torch.stack([second[0] * first[0], first[0] * first[1] + second[1]])


@join.slip("""
    It is what the second step brings that fades in your answer, and by its own decay. It has just come
    in; what the first step brought is what fades.""")
def _second_news_fade(first, second):
    return torch.stack([second[0] * first[0], first[1] + second[0] * second[1]])


@join.slip("""
    Each step's news fade by the step's own decay in your answer. Put one step into the other on paper: a2
    · (a1 · h + b1) + b2.""")
def _each_by_its_own(first, second):
    return torch.stack([second[0] * first[0], first[0] * first[1] + second[0] * second[1]])


@join.slip("""
    The numbers are right, in one row: `cat` joins rows end to end. `torch.stack` puts them one above the
    other, (2, N).""")
def _end_to_end(first, second):
    return join.solve(first, second).flatten()


# --- 7 -------------------------------------------------------------------------------------------------


def doubling_scan(decay, new):
    """The states (T, N) after each token, in log2(T) rounds, each for all tokens at once."""
    reach = 1
    while reach < len(new):
        new = decay * new.roll(reach, dims=0) + new
        decay = decay * decay.roll(reach, dims=0)
        reach = 2 * reach
    return new


@chapter.debug(
    title="A scan that knows the end",
    statement="""
        This is the simplest parallel scan. After the first round each pair (decay, new) stands for its own
        token and the one before; after the second for four tokens, then eight, until each stands for all
        tokens up to its own. Each round is done for all tokens at once.

        The symptom: change the last token, and the first state changes too. A sequence of one token comes out
        right. Trained with it, a language model would have looked at the words that it is to predict.

        Find the fault, repair it, and hand the function in. `decay` and `new` have the shape (T, N), and so
        have the states.
        """,
    hints=(
        "Print `new.roll(1, dims=0)` for a few numbers. What comes before the first token?",
        "`roll` moves in a circle: what is pushed out at the end comes back in at the beginning. The first "
        "`reach` tokens have nothing so far before them: they are finished.",
        "So only the tokens from `reach` on change: `decay[reach:] * new[:-reach] + new[reach:]`, and the "
        "first `reach` stay, `new[:reach]`. `torch.cat([...])` puts the two together.",
        "The same for the decays. And `new` must be made before `decay` is, for it needs the old one.",
    ),
    axes="T N",
    inputs=_steps,
    sizes=((2, 1), (3, 2), (1, 4), (5, 3), (8, 2), (11, 5)),
    reference=_states_by_sums,
    broken=doubling_scan,
)
def doubling_scan(decay, new):
    """The states (T, N) after each token, in log2(T) rounds, each for all tokens at once."""
    reach = 1
    while reach < len(new):
        # The first tokens stand for all that came before them; the others join what lies `reach` back.
        new = torch.cat([new[:reach], decay[reach:] * new[:-reach] + new[reach:]])
        decay = torch.cat([decay[:reach], decay[reach:] * decay[:-reach]])
        reach = 2 * reach
    return new


def _in_rounds(decay, new, join, grow=lambda reach: 2 * reach, until=lambda reach, n: reach < n):
    """Doubling with another joining, (a1, b1, a2, b2) -> (a, b), or other rounds."""
    reach = 1
    while until(reach, len(new)):
        joined = join(decay[:-reach], new[:-reach], decay[reach:], new[reach:])
        decay, new = (torch.cat([t[:reach], j]) for t, j in zip((decay, new), joined, strict=True))
        reach = grow(reach)
    return new


def _joined(a1, b1, a2, b2):
    return a2 * a1, a2 * b1 + b2


@doubling_scan.slip("""
    The end still comes in at the beginning: your function gives what the broken one gave. What do the
    first `reach` tokens join?""")
def _in_a_ring(decay, new):
    reach = 1
    while reach < len(new):
        new = decay * torch.cat([new[-reach:], new[:-reach]]) + new
        decay = decay * torch.cat([decay[-reach:], decay[:-reach]])
        reach = 2 * reach
    return new


@doubling_scan.slip("""
    No future leaks any more. But the pairs are joined in the wrong order: it is the later token that lets
    the earlier one fade.""")
def _joined_the_wrong_way(decay, new):
    return _in_rounds(decay, new, lambda a1, b1, a2, b2: (a2 * a1, a1 * b2 + b1))


@doubling_scan.slip("""
    Now all earlier tokens come in, but none fades further than once: the decays must be multiplied
    together in each round as well.""")
def _decays_stay(decay, new):
    return _in_rounds(decay, new, lambda a1, b1, a2, b2: (a2, a2 * b1 + b2))


@doubling_scan.slip("""
    You changed `decay` before `new` was made of it. What is new needs the decay as it was at the
    beginning of the round.""")
def _decay_first(decay, new):
    return _in_rounds(decay, new, lambda a1, b1, a2, b2: (a2 * a1, a2 * a1 * b1 + b2))


@doubling_scan.slip("""
    Your reach grows by one in each round. After a round each token stands for twice as many, so the next
    partner lies twice as far back.""")
def _grows_by_one(decay, new):
    return _in_rounds(decay, new, _joined, grow=lambda reach: reach + 1)


@doubling_scan.slip("""
    You stop too early: there must be rounds as long as `reach` is smaller than the number of tokens.""")
def _stops_early(decay, new):
    return _in_rounds(decay, new, _joined, until=lambda reach, n: 2 * reach < n)


@doubling_scan.slip("""
    That is the first round only: each token with the one before. The rounds go on, with twice the
    reach.""")
def _one_round(decay, new):
    return _in_rounds(decay, new, _joined, until=lambda reach, n: reach == 1 < n)


@doubling_scan.slip("""
    The other direction: now each state is made of the tokens that come after it. Look `reach` back, not
    ahead.""")
def _looks_ahead(decay, new):
    return doubling_scan.solve(decay.flip(0), new.flip(0)).flip(0)


@doubling_scan.slip("""
    Turned round, `roll` still moves in a circle; now the first tokens come in at the end. Nothing may
    come round: the first `reach` tokens stay as they are.""")
def _rolled_the_other_way(decay, new):
    reach = 1
    while reach < len(new):
        new = decay * new.roll(-reach, dims=0) + new
        decay = decay * decay.roll(-reach, dims=0)
        reach = 2 * reach
    return new


@doubling_scan.slip("""
    The first `reach` tokens are set to 0 in each round. They have nothing before them, but they are there
    themselves: leave them as they are.""")
def _first_ones_lost(decay, new):
    reach = 1
    while reach < len(new):
        new = torch.cat([torch.zeros_like(new[:reach]), decay[reach:] * new[:-reach] + new[reach:]])
        decay = torch.cat([decay[:reach], decay[reach:] * decay[:-reach]])
        reach = 2 * reach
    return new


@doubling_scan.slip("""
    You roll along the N numbers of the state. These do not meet; time is axis 0, as it was.""")
def _rolled_along_the_state(decay, new):
    reach = 1
    while reach < len(new):
        new = decay * new.roll(reach, dims=1) + new
        decay = decay * decay.roll(reach, dims=1)
        reach = 2 * reach
    return new


@doubling_scan.slip("""
    The first row alone is protected from what comes round. In the round of reach 2 the first two rows
    have nothing to join, in the next the first four: `[:reach]`.""")
def _first_row_only(decay, new):
    reach = 1
    while reach < len(new):
        new = torch.cat([new[:1], (decay * new.roll(reach, dims=0) + new)[1:]])
        decay = torch.cat([decay[:1], (decay * decay.roll(reach, dims=0))[1:]])
        reach = 2 * reach
    return new


@doubling_scan.slip("""
    The end still comes in at the beginning; and with <= there is now a round too many.""")
def _a_round_too_many(decay, new):
    reach = 1
    while reach <= len(new):
        new = decay * new.roll(reach, dims=0) + new
        decay = decay * decay.roll(reach, dims=0)
        reach = 2 * reach
    return new


@doubling_scan.slip("""
    Your rows become fewer with each round: the first `reach` tokens, which are finished, must be put back
    before the others, `torch.cat([new[:reach], ...])`.""")
def _rows_dropped(decay, new):
    reach = 1
    while reach < len(new):
        new = decay[reach:] * new[:-reach] + new[reach:]
        decay = decay[reach:] * decay[:-reach]
        reach = 2 * reach
    return new


@doubling_scan.slip("""
    What is new is multiplied by the decay of the earlier token. It is the later one, `decay` where you
    stand, that lets what came before it fade.""")
def _decay_of_the_earlier(decay, new):
    return _in_rounds(decay, new, lambda a1, b1, a2, b2: (a2 * a1, a1 * b1 + b2))


# --- 8 -------------------------------------------------------------------------------------------------


def _convolution_inputs(rng: np.random.Generator, B: int, T: int, Di: int, K: int) -> dict[str, Any]:
    return {
        "x": rng.standard_normal((B, T, Di)),
        "weight": rng.standard_normal((Di, K)),
        "bias": rng.standard_normal(Di),
    }


def _convolution_reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    for b, t, d in np.ndindex(x.shape):
        out[b, t, d] = bias[d]
        for back in range(min(weight.shape[1], t + 1)):
            out[b, t, d] += weight[d, -1 - back] * x[b, t - back, d]
    return out


@chapter.implement(
    title="A short convolution that looks back",
    statement=r"""
        Before its scan, Mamba lets each channel look at its own last K tokens. `x` has the shape (B, T, Di),
        `weight` the shape (Di, K), `bias` (Di). Each channel is a weighted sum of its own last K numbers, and
        its bias:

        $$y_t = \text{bias} + \sum_{k=1}^{K} \text{weight}_k \cdot x_{t-K+k}$$

        So the last weight, `weight[:, -1]`, belongs to the token itself, the one before to the token before.
        What lies before the first token is 0. Channels do not mix. You may use what PyTorch has.
        """,
    hints=(
        "Which tokens does the sum for t = 0 need, if K = 4? How many zeros must stand before the first "
        "token?",
        "`torch.nn.functional.pad(x, (0, 0, K - 1, 0))` puts K - 1 zeros before the first token: the pairs "
        "are counted from the last axis, each with its beginning and its end.",
        "`padded.unfold(1, K, 1)` makes the windows: (B, T, Di, K), the last axis in the order of time.",
        "Multiply the windows by `weight`, which fits their last two axes; sum over the last axis; add "
        "`bias`.",
    ),
    axes="B T Di",
    inputs=_convolution_inputs,
    sizes=((1, 3, 2, 2), (2, 5, 3, 4), (1, 4, 2, 3), (2, 1, 3, 4), (3, 4, 1, 2), (2, 3, 4, 1)),
    reference=_convolution_reference,
)
def short_convolution(x, weight, bias):
    """Each channel's weighted sum of its own last K tokens: x (B, T, Di), weight (Di, K), bias (Di)."""
    n_seen = weight.shape[1]
    # Zeros before the beginning, so that the first token has a window as well; none behind the end.
    padded = torch.nn.functional.pad(x, (0, 0, n_seen - 1, 0))
    # (B, T + K - 1, Di) -> (B, T, Di, K): for every token the last K, itself the last.
    windows = padded.unfold(1, n_seen, 1)
    return (windows * weight).sum(dim=-1) + bias


def _windows(x, n_seen, before):
    padded = F.pad(x, (0, 0, before, n_seen - 1 - before))
    return padded.unfold(1, n_seen, 1)


@short_convolution.slip("""
    Your zeros stand behind the last token, so that each token sees those that come after it: the future
    leaks. Put K - 1 zeros before the first.""")
def _ahead(x, weight, bias):
    return (_windows(x, weight.shape[1], 0) * weight).sum(-1) + bias


@short_convolution.slip("""
    Your window lies around the token, half before and half behind it, as in pictures: the future leaks.
    All K - 1 zeros stand before the first token.""")
def _around(x, weight, bias):
    n_seen = weight.shape[1]
    return (_windows(x, n_seen, (n_seen - 1) // 2) * weight).sum(-1) + bias


@short_convolution.slip("""
    Your weights are turned round: the last one belongs to the token itself, and in your answer it goes to
    the oldest. (`conv1d` does not turn the kernel round, although the mathematical convolution does.)""")
def _turned_weights(x, weight, bias):
    return (_windows(x, weight.shape[1], weight.shape[1] - 1) * weight.flip(-1)).sum(-1) + bias


@short_convolution.slip("""
    The bias is missing.""")
def _no_bias(x, weight, bias):
    return (_windows(x, weight.shape[1], weight.shape[1] - 1) * weight).sum(-1)


@short_convolution.slip("""
    Your token sees only those before it, and not itself: there are K zeros where there should be K -
    1.""")
def _not_itself(x, weight, bias):
    n_seen = weight.shape[1]
    windows = F.pad(x, (0, 0, n_seen, 0))[:, : -1 if n_seen else None].unfold(1, n_seen, 1)
    return (windows * weight).sum(-1) + bias


@short_convolution.slip("""
    What lies before the first token is the end of the sequence in your answer: `roll` moves in a circle,
    and an index below 0 counts from the end. There should be zeros.""")
def _in_a_circle(x, weight, bias):
    n_seen = weight.shape[1]
    rows = (x.roll(n_seen - 1 - k, dims=1) * weight[:, k] for k in range(n_seen))
    return sum(rows) + bias


@short_convolution.slip("""
    All channels use the weights of the first one. Each has its own row of `weight`.""")
def _weights_of_the_first(x, weight, bias):
    return (_windows(x, weight.shape[1], weight.shape[1] - 1) * weight[0]).sum(-1) + bias


@short_convolution.slip("""
    You averaged over the K tokens. It is a sum: the weights say how much each counts.""")
def _averaged(x, weight, bias):
    return (_windows(x, weight.shape[1], weight.shape[1] - 1) * weight).mean(-1) + bias


@short_convolution.slip("""
    The bias came in K times, once for each weight. Add it once, after the sum.""")
def _bias_each_time(x, weight, bias):
    windows = _windows(x, weight.shape[1], weight.shape[1] - 1)
    return (windows * weight + bias[:, None]).sum(-1)


@short_convolution.slip("""
    Your channels mix: each output is a sum over all channels. Channel d sees channel d only (`groups=Di`,
    if you use `conv1d`).""")
def _mixed(x, weight, bias):
    sums = (_windows(x, weight.shape[1], weight.shape[1] - 1) * weight).sum(-1)
    return sums.sum(-1, keepdim=True) + bias


@short_convolution.slip("""
    What lies before the first token is a copy of the first token in your answer. There should be
    zeros.""")
def _first_repeated(x, weight, bias):
    n_seen = weight.shape[1]
    padded = torch.cat([x[:, :1].repeat(1, n_seen - 1, 1), x], dim=1)
    return (padded.unfold(1, n_seen, 1) * weight).sum(-1) + bias


@short_convolution.slip("""
    A `silu` follows in Mamba's block, right. Here only the convolution is asked for.""")
def _with_silu(x, weight, bias):
    return F.silu(short_convolution.solve(x, weight, bias))


@short_convolution.slip("""
    With zeros on both sides there are K - 1 outputs too many, at the end, where the window has left the
    sequence. Keep the first T: `[:, :T]`.""")
def _not_cut(x, weight, bias):
    n_seen = weight.shape[1]
    return F.conv1d(x.mT, weight[:, None], bias, padding=n_seen - 1, groups=x.shape[-1]).mT


@short_convolution.slip("""
    There are K - 1 outputs too few: the first tokens have no whole window. Put zeros before them.""")
def _not_padded(x, weight, bias):
    return _not_cut(x, weight, bias)[:, weight.shape[1] - 1 : x.shape[1]]


@short_convolution.crash("""
    Without `groups=Di`, `conv1d` mixes all channels, and wants weights for each pair of them.""")
def _no_groups(x, weight, bias):
    return F.conv1d(x.mT, weight[:, None], bias, padding=weight.shape[1] - 1)


@short_convolution.crash("""
    `conv1d` wants the channels before time, (B, Di, T): turn `x` with `.mT`, and the answer back.""")
def _not_turned(x, weight, bias):
    return F.conv1d(x, weight[:, None], bias, padding=weight.shape[1] - 1, groups=weight.shape[0])


# --- 9 -------------------------------------------------------------------------------------------------


def _token_inputs(rng: np.random.Generator, Di: int, N: int) -> dict[str, Any]:
    return {
        "state": rng.standard_normal((Di, N)),
        "x": rng.standard_normal(Di),
        "step": rng.uniform(0.1, 0.9, Di),
        "write": rng.standard_normal(N),
        "read": rng.standard_normal(N),
        "log_rate": rng.uniform(-0.5, 1.0, (Di, N)),
        "skip": rng.standard_normal(Di),
    }


def _token_reference(
    state: np.ndarray,
    x: np.ndarray,
    step: np.ndarray,
    write: np.ndarray,
    read: np.ndarray,
    log_rate: np.ndarray,
    skip: np.ndarray,
) -> np.ndarray:
    out = np.zeros_like(x)
    for d, n in np.ndindex(state.shape):
        faded = state[d, n] * math.exp(-step[d] * math.exp(log_rate[d, n]))
        out[d] += read[n] * (faded + step[d] * write[n] * x[d])
    return out + skip * x


@chapter.implement(
    title="One token through a selective state space",
    statement=r"""
        Here is the heart of Mamba's block, for one token. Each of Di channels has a state of N numbers,
        `state` (Di, N), and gets a number, `x` (Di). The token has chosen a step for each channel, `step`
        (Di), what to write, `write` (N), and what to read, `read` (N). Learned, and the same for all tokens,
        are `log_rate` (Di, N) and `skip` (Di). For channel d and number n of its state:

        $$h_{dn} \leftarrow e^{-\exp(\text{log\_rate}_{dn}) \cdot \text{step}_d}\; h_{dn}
        + \text{step}_d \cdot \text{write}_n \cdot x_d$$

        $$y_d = \sum_n \text{read}_n\, h_{dn} + \text{skip}_d \cdot x_d$$

        Return y, (Di): it is read from the new state.
        """,
    hints=(
        "Four lines: the decays (Di, N), what is new (Di, N), the new state, and what is read.",
        "`step[:, None]` is (Di, 1), one for all numbers of a channel. `write` is (N), one for all channels, "
        "and fits the last axis as it is.",
        "The rate is `-log_rate.exp()`: so it is negative, whatever training makes of `log_rate`. The decay "
        "is `exp` of rate times step.",
        "`state @ read` sums over n: (Di, N) times (N) is (Di).",
    ),
    axes="Di",
    inputs=_token_inputs,
    sizes=((2, 3), (1, 2), (3, 1), (4, 2), (3, 5)),
    reference=_token_reference,
)
def selective_step(state, x, step, write, read, log_rate, skip):
    """What Di channels give for one token x (Di), read from the state (Di, N) after the token came in."""
    # exp twice: the rate is below 0 for any log_rate, and so the decay lies between 0 and 1.
    decay = torch.exp(-log_rate.exp() * step[:, None])
    # One product of x and step a channel, spread over its state by what the token writes.
    state = decay * state + (step * x)[:, None] * write
    # The skip goes past the state: a channel can always see its own x.
    return state @ read + skip * x


def _read(state, x, step, write, read, log_rate, skip, *, decay=None, new=None):
    decay = torch.exp(-log_rate.exp() * step[:, None]) if decay is None else decay
    new = (step * x)[:, None] * write if new is None else new
    return (decay * state + new) @ read + skip * x


@selective_step.slip("""
    You read the old state. First the token comes in, then the state is read.""")
def _reads_the_old(state, x, step, write, read, log_rate, skip):
    return state @ read + skip * x


@selective_step.slip("""
    Your state grows: the minus in the exponent is missing, so that the decay is above 1.""")
def _explodes(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(log_rate.exp() * step[:, None])
    return _read(state, x, step, write, read, log_rate, skip, decay=decay)


@selective_step.slip("""
    You took `log_rate` for the rate. What is learned is the logarithm of the rate, without its sign: the
    rate is -exp(log_rate).""")
def _log_for_rate(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(-log_rate * step[:, None])
    return _read(state, x, step, write, read, log_rate, skip, decay=decay)


@selective_step.slip("""
    You took `log_rate` for the rate itself, sign and all. The rate is -exp(log_rate): negative, whatever
    is learned.""")
def _log_for_signed_rate(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(log_rate * step[:, None])
    return _read(state, x, step, write, read, log_rate, skip, decay=decay)


@selective_step.slip("""
    The step is missing in your decays: all tokens let the same part stand, and nothing is selected
    there.""")
def _decay_without_step(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(-log_rate.exp()).expand_as(state)
    return _read(state, x, step, write, read, log_rate, skip, decay=decay)


@selective_step.slip("""
    The step is missing in what is new: it is step · write · x.""")
def _new_without_step(state, x, step, write, read, log_rate, skip):
    return _read(state, x, step, write, read, log_rate, skip, new=x[:, None] * write)


@selective_step.slip("""
    `x` is missing in what is new: it is step · write · x.""")
def _new_without_x(state, x, step, write, read, log_rate, skip):
    return _read(state, x, step, write, read, log_rate, skip, new=step[:, None] * write)


@selective_step.slip("""
    `write` and `read` have changed places: `write` is for the way in, `read` for the way out.""")
def _exchanged(state, x, step, write, read, log_rate, skip):
    return _read(state, x, step, read, write, log_rate, skip)


@selective_step.slip("""
    The skip is missing: skip · x is added at the end.""")
def _no_skip(state, x, step, write, read, log_rate, skip):
    return _read(state, x, step, write, read, log_rate, 0 * skip)


@selective_step.slip("""
    `x` goes past the state whole. It is multiplied by `skip`, one number for each channel.""")
def _whole_skip(state, x, step, write, read, log_rate, skip):
    return _read(state, x, step, write, read, log_rate, 1 + 0 * skip)


@selective_step.slip("""
    The weight of what is new is that of zero-order hold. The formula here is the published code's: the
    step itself.""")
def _exact_for_x(state, x, step, write, read, log_rate, skip):
    rate = -log_rate.exp()
    new = torch.expm1(rate * step[:, None]) / rate * write * x[:, None]
    return _read(state, x, step, write, read, log_rate, skip, new=new)


@selective_step.slip("""
    You let the whole sum fade, the new part too. Only the old state is multiplied by the decay.""")
def _new_fades_too(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(-log_rate.exp() * step[:, None])
    return decay * (state + (step * x)[:, None] * write) @ read + skip * x


@selective_step.slip("""
    Nothing fades: the old state is added whole. Multiply it by the decay.""")
def _keeps_all(state, x, step, write, read, log_rate, skip):
    return _read(state, x, step, write, read, log_rate, skip, decay=torch.ones_like(state))


@selective_step.slip("""
    Your step went through a softplus again. `step` is already positive: it is what the softplus gave.""")
def _softplus_again(state, x, step, write, read, log_rate, skip):
    return _read(state, x, F.softplus(step), write, read, log_rate, skip)


@selective_step.slip("""
    The state is summed without `read`. Each of its numbers is multiplied by the token's `read` first.""")
def _read_evenly(state, x, step, write, read, log_rate, skip):
    return _read(state, x, step, write, torch.ones_like(read), log_rate, skip)


@selective_step.slip("""
    That is the new state. The answer is what is read from it, and the skip: `state @ read + skip *
    x`.""")
def _state_returned(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(-log_rate.exp() * step[:, None])
    return decay * state + (step * x)[:, None] * write


@selective_step.slip("""
    Your decay is rate times step, and the outer `exp` is missing: it is negative, and a decay lies
    between 0 and 1.""")
def _no_outer_exp(state, x, step, write, read, log_rate, skip):
    decay = -log_rate.exp() * step[:, None]
    return _read(state, x, step, write, read, log_rate, skip, decay=decay)


@selective_step.slip("""
    It is the new part that you let fade, and the old state stays whole. The other way round.""")
def _only_new_fades(state, x, step, write, read, log_rate, skip):
    decay = torch.exp(-log_rate.exp() * step[:, None])
    return (state + decay * (step * x)[:, None] * write) @ read + skip * x


@selective_step.crash("""
    Numbers of channels, (Di), meet numbers of the state, (Di, N). On the way in `step[:, None]` and `x[:,
    None]` are (Di, 1), one for all N; on the way out the N are summed, `state @ read`.""")
def _no_channel_axis(state, x, step, write, read, log_rate, skip):
    return torch.exp(-log_rate.exp() * step) @ read


# --- 10 ------------------------------------------------------------------------------------------------


@chapter.predict(
    title="When the cache overtakes the state",
    statement="""
        A Mamba block of width D = 1024 has Di = 2048 channels. For each channel it keeps a state of N = 16
        numbers, and the last 3 inputs of its short convolution. An attention layer of the same width keeps a
        key and a value for each token that it has read, D numbers each, and nothing else.

        Before you run anything: after how many tokens do both keep equally many numbers?
        """,
    hints=(
        "Count for Mamba first. How many numbers does one channel keep, all in all?",
        "2048 channels with 16 + 3 numbers each. The tokens that were read play no part.",
        "For each token attention keeps 1024 numbers for the key and 1024 for the value. How often does that "
        "go into what Mamba keeps?",
    ),
    expected=19.0,
    wrong={
        16.0: "You counted the state, and forgot what the short convolution must remember: 3 inputs for each "
        "channel.",
        38.0: "You counted one of key and value. Attention keeps both, 2048 numbers a token.",
        32.0: "Two things: the convolution's 3 inputs for each channel are kept as well; and attention keeps "
        "a key and a value, 2048 numbers a token.",
        9.5: "You counted D channels. Inside the block there are Di = 2048, twice as many.",
        20.0: "The convolution sees 4 tokens, and one of them is the token that has just come in: only 3 are "
        "kept.",
        38912.0: "That is how many numbers Mamba keeps. How many tokens of a cache is it?",
        2048.0: "That is what attention keeps for one token. How often does it go into what Mamba keeps?",
        19456.0: "That is 1024 · 19, a count of numbers. But inside the block there are Di = 2048 channels; "
        "and how many tokens of a cache is what they keep?",
    },
    otherwise="Not that number. Mamba keeps 2048 · (16 + 3) numbers; attention 2 · 1024 for each token.",
    form="one number",
)
def cache_and_state():
    """19 tokens, at any width, since both grow with D. From then on the cache grows and the state does not.
    (A model of Mamba has about twice as many blocks as a Transformer of its size has layers, so for whole
    models it is about 38; and caches can be made smaller.)
    """
    return 2048 * (16 + 3) / (2 * 1024)


# --- 11 ------------------------------------------------------------------------------------------------


@chapter.measure(
    title="How long a fresh block remembers",
    statement="""
        Before training, Mamba's steps lie between 0.001 and 0.1, evenly in their *logarithm*: draw a number
        evenly between log 0.001 and log 0.1, and take `exp` of it. The rates of a state's 16 numbers are -1,
        -2, ... to -16. With every token the old state is multiplied by exp(rate · step).

        Draw at least 100,000 steps. For each, find the *half-life*: the number of tokens after which half of
        the state is left. (It need not be whole; counting whole tokens is good enough too.) Report the median
        of the half-lives at the rate -1, and that at the rate -16.
        """,
    hints=(
        "The steps: `math.log(0.001) + torch.rand(100_000) * (math.log(0.1) - math.log(0.001))`, and then "
        "`.exp()`.",
        "After n tokens exp(rate · step · n) is left. For which n is that one half? Take logarithms on both "
        "sides.",
        "n = log 2 / (-rate · step), with the natural logarithm, `math.log(2)`. `.median()` gives the middle "
        "one.",
    ),
    ranges={"at rate -1": (67.0, 72.0), "at rate -16": (4.15, 5.05)},
    slips={
        "The two numbers are the other way round: first the rate -1, then the rate -16.": (
            (4.15, 5.05),
            (67.0, 72.0),
        ),
        "That is after how many tokens 1/e = 37 % is left. Half is left a little earlier, after log 2 = 0.69 "
        "of that.": ((96.0, 104.0), (5.9, 7.1)),
        "Your logarithm of 2 has the base 10. `math.log` is the natural one.": ((29.0, 31.2), (1.8, 2.05)),
        "Your steps lie evenly between 0.001 and 0.1 themselves. Draw evenly between the logarithms, and "
        "take `exp`: then half of the steps are below 0.01.": ((13.2, 14.5), (0.8, 1.05)),
        "That is the mean of the half-lives, which a few very long ones pull up. The median is the one in "
        "the middle.": ((143.0, 155.0), (8.9, 9.9)),
        "You took the half-life of the mean step. The median of the half-lives is asked for, and more than "
        "half of the steps are below their mean.": ((31.5, 33.5), (1.95, 2.15)),
        "The first number is right. At the rate -16 the state fades 16 times as fast: divide, do not "
        "multiply.": ((67.0, 72.0), (1070.0, 1150.0)),
        "Both numbers belong to the rate -1. At -16 the state fades 16 times as fast.": (
            (67.0, 72.0),
            (67.0, 72.0),
        ),
        "You took `exp` of 1 and of 16 for the rates. A block learns the logarithms of its rates; here the "
        "rates themselves are -1 and -16.": ((24.5, 26.5), (0.0, 0.01)),
    },
    at_most=(
        1200.0,
        "Not even the longest half-life is that long: log 2 / 0.001 is 693. What did you count?",
    ),
    otherwise="Not in the range. Steps are evenly spread in their logarithm, and the half-life is "
    "log 2 / (-rate · step); report the two medians.",
)
def half_lives():
    """About 69 tokens at the rate -1, and 4 at -16: the steps lie a hundredfold apart, and so a fresh block
    holds memories of many lengths, from less than one token to 693. None of them depends on what was read:
    that is what training adds.
    """
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([0.001, 0.1]).log()
    steps = (low + torch.rand(100_000, generator=generator) * (high - low)).exp()
    # exp(-rate step n) is one half where rate step n is the logarithm of 2.
    half = torch.tensor(2.0).log()
    return tuple((half / (rate * steps)).median().item() for rate in (1, 16))
