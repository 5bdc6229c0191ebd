"""Hostile answers: each is told what is wrong, in time, and the notebook is afterwards as it was before."""

import asyncio
import builtins
import functools
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab.exercises import attention as ex
from transformer_lab.exercises.check import guard

EXERCISE = ex.scaled_dot_product
right = EXERCISE.solve


def recurses(q, k, v):
    return recurses(q, k, v)


def recurses_with_a_raised_limit(q, k, v):
    sys.setrecursionlimit(5000)
    return recurses(q, k, v)


def loops(q, k, v):
    while True:
        pass


OVER = threading.Event()  # lets the thread that cannot be stopped end with the test


def loops_and_swallows(q, k, v):
    while not OVER.is_set():
        try:
            time.sleep(0.001)
        except BaseException:
            pass


def sleeps(q, k, v):
    time.sleep(3)
    return right(q, k, v)


def loops_in_a_message(q, k, v):
    class Endless(Exception):
        def __str__(self):
            while True:
                pass

    raise Endless


def breaks_its_message(q, k, v):
    class Broken(Exception):
        def __str__(self):
            raise ValueError("no message")

    raise Broken


def interrupts_in_its_message(q, k, v):
    class Broken(Exception):
        def __str__(self):
            raise KeyboardInterrupt

    raise Broken


def half_a_character(q, k, v):
    print("half \ud800")
    raise ValueError("half \ud800")


@functools.wraps(functools.partial(right))
def wraps_what_is_no_function(q, k, v):
    return q


def in_place(q, k, v):
    q /= q.shape[-1] ** 0.5
    return (q @ k.mT).softmax(-1) @ v


def reshapes_its_input(q, k, v):
    answer = right(q, k, v)
    q.unsqueeze_(0)
    return answer


def draws(q, k, v):
    torch.rand(1)
    return right(q, k, v)


def seeds(q, k, v):
    torch.manual_seed(0)
    return right(q, k, v)


def draws_in_python(q, k, v):
    random.random()
    return right(q, k, v)


def draws_in_numpy(q, k, v):
    np.random.rand()
    return right(q, k, v)


def changes_default_dtype(q, k, v):
    torch.set_default_dtype(torch.float64)
    return right(q, k, v)


def changes_folder(q, k, v):
    os.chdir(os.path.dirname(os.getcwd()))
    return right(q, k, v)


def deterministic(q, k, v):
    torch.use_deterministic_algorithms(True)
    return right(q, k, v)


def detects_anomalies(q, k, v):
    torch.autograd.set_detect_anomaly(True)
    return right(q, k, v)


def switches_gradients_off(q, k, v):
    torch.set_grad_enabled(False)
    return right(q, k, v)


def patches_torch(q, k, v):
    torch.softmax = lambda *_: None
    return right(q, k, v)


def patches_a_method(q, k, v):
    torch.Tensor.softmax = lambda self, *_, **__: self
    return q @ k.mT @ v


def patches_builtins(q, k, v):
    builtins.sum = lambda *_: 0
    return right(q, k, v)


def patches_numpy(q, k, v):
    np.isclose = lambda *_, **__: np.array(True)
    return q


def patches_functional(q, k, v):
    F.softmax = None
    return right(q, k, v)


def prints_for_ever(q, k, v):
    while True:
        print("here")


def prints_a_lot(q, k, v):
    for i in range(10_000):
        print("row", i)
    return q


def writes_to_stderr(q, k, v):
    print("a warning of mine", file=sys.stderr)
    return q


def exits(q, k, v):
    sys.exit(1)


def interrupts(q, k, v):
    raise KeyboardInterrupt


def yields(q, k, v):
    yield q


async def awaits(q, k, v):
    await asyncio.sleep(0)


def nests_errors(q, k, v):
    try:
        raise ValueError("first")
    except ValueError as error:
        raise KeyError("second") from error


def memory(q, k, v):
    return torch.zeros(10**15)


def long_message(q, k, v):
    raise ValueError("x" * 100_000)


def names_an_address(q, k, v):
    raise ValueError(f"bad object {object()}")


class RightAtFirst:
    def __init__(self):
        self.calls = 0

    def __call__(self, q, k, v):
        self.calls += 1
        return right(q, k, v) if self.calls == 1 else q


KNOWN = {float(case.tensors()[0].sum()): case.want for case in EXERCISE.cases()}


def remembers(q, k, v):
    want = KNOWN.get(float(q.sum()))
    return torch.zeros_like(q) if want is None else torch.from_numpy(want)


KEPT = {}


def keeps_one_tensor(q, k, v):
    answer = right(q, k, v)
    return KEPT.setdefault((answer.shape, answer.dtype), torch.empty_like(answer)).detach().copy_(answer)


def redefines(name, value, line):
    """A function that a notebook defines after its cell ``name = value``."""
    notebook = {"torch": torch, name: value}
    exec(f"def answer(q, k, v):\n    return {line}", notebook)
    return notebook["answer"]


class Halves(nn.Module):
    def __call__(self, *args):
        return right(*args).half()


class Sneaky(torch.Tensor):
    """Says that it equals everything."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.__eq__, torch.allclose, torch.isclose):
            return torch.tensor(True)
        return super().__torch_function__(function, types, args, kwargs)


HOSTILE = {
    "raises": (lambda q, k, v: 1 / 0, "raised ZeroDivisionError: division by zero"),
    "wrong axes": (lambda q, k, v: q @ k, "raised RuntimeError"),
    "wrong number of arguments": (lambda q: q, "raised TypeError"),
    "name that is not defined": (lambda q, k, v: softmaxx(q), "name 'softmaxx' is not defined"),
    "nested errors": (nests_errors, "raised KeyError: 'second'."),
    "long message": (long_message, "xxx [...]."),
    "address in the message": (names_an_address, "bad object <object object>."),
    "message that raises": (breaks_its_message, "raised Broken."),
    "message that interrupts": (interrupts_in_its_message, "raised Broken."),
    "half a character": (half_a_character, "raised ValueError: half \\ud800."),
    "a wrapper": (wraps_what_is_no_function, "the first difference"),
    "recursion": (recurses, "raised RecursionError"),
    "recursion with a raised limit": (recurses_with_a_raised_limit, "raised RecursionError"),
    "exit": (exits, "raised SystemExit: 1"),
    "interrupt": (interrupts, "raised KeyboardInterrupt."),
    "memory": (memory, "raised RuntimeError"),
    "returns None in the end": (lambda q, k, v: print("hello"), "returned nothing"),
    "a tuple": (lambda q, k, v: (q, k), "this is a tuple of 2"),
    "a list": (lambda q, k, v: q.tolist(), "this is a list"),
    "an array": (lambda q, k, v: q.numpy(), "this is an ndarray"),
    "a number": (lambda q, k, v: 1.0, "this is a float"),
    "a generator": (yields, "this is a generator"),
    "a coroutine": (awaits, "this is a coroutine"),
    "a class": (nn.Identity, "this is an Identity"),
    "integers": (lambda q, k, v: q.int(), "this is int32"),
    "complex": (lambda q, k, v: q * 1j, "this is complex64"),
    "half precision": (Halves(), "this is float16"),
    "another device": (lambda q, k, v: q.to("meta"), "is on meta and the inputs are on cpu"),
    "sparse": (lambda q, k, v: q.to_sparse(), "layout torch.sparse_coo"),
    "wrong shape": (lambda q, k, v: q.sum(), "(B, H, T, Dh) = (1, 1, 2, 4)"),
    "NaN": (lambda q, k, v: q * torch.nan, "given nan"),
    "infinity": (lambda q, k, v: q / 0, "inf"),
    "identity": (lambda q, k, v: q, "the first difference is at [0, 0, 0, 0]"),
    "another object that equals all": (lambda q, k, v: q.as_subclass(Sneaky), "the first difference"),
    "in place": (in_place, "changed its input `q` in place"),
    "input reshaped": (reshapes_its_input, "changed its input `q` in place"),
    "one tensor for all answers": (keeps_one_tensor, "calling your code again changes the answer"),
    "sum redefined": (redefines("sum", 3, "sum([q, k])"), "`sum` is now an int; `del sum` brings"),
    "torch redefined": (redefines("torch", 2.5, "torch.exp(q)"), "now a float; `import torch` brings"),
    "random numbers": (draws, "drew random numbers or set a seed"),
    "seed": (seeds, "drew random numbers or set a seed"),
    "NumPy's random numbers": (draws_in_numpy, "drew random numbers or set a seed"),
    "default dtype": (changes_default_dtype, "changed torch's default dtype"),
    "working directory": (changes_folder, "changed the working directory"),
    "deterministic mode": (deterministic, "changed torch's deterministic mode"),
    "anomaly detection": (detects_anomalies, "changed torch's anomaly detection"),
    "gradients switched off": (switches_gradients_off, "no gradient flows back"),
    "patched torch": (patches_torch, "replaced `torch.softmax`"),
    "patched method": (patches_a_method, "replaced `torch.Tensor.softmax`"),
    "patched builtins": (patches_builtins, "replaced `builtins.sum`"),
    "patched NumPy": (patches_numpy, "replaced `numpy.isclose`"),
    "patched functional": (patches_functional, "replaced `torch.nn.functional.softmax`"),
    "prints a lot": (prints_a_lot, "Your code printed"),
    "writes to stderr": (writes_to_stderr, "Your code printed"),
    "the library": (F.scaled_dot_product_attention, "is off limits"),
    "the library, hidden": (functools.partial(F.scaled_dot_product_attention), "is off limits"),
    "no gradient": (torch.no_grad()(right), "no gradient flows back"),
    "gradient cut at k": (lambda q, k, v: right(q, k.detach(), v), "no gradient reaches `k`"),
    "NumPy": (lambda q, k, v: torch.tensor(np.array(right(q, k, v).numpy())), "do not flow through NumPy"),
    "gradient twice": (lambda q, k, v: 2 * (y := right(q, k, v)) - y.detach(), "with respect to `q` is not"),
    "right once": (RightAtFirst(), "expected"),
    "memory of the inputs": (remembers, "compute, do not remember"),
    "the answer instead of the function": (torch.zeros(2, 3), "Hand in the function itself"),
    "text": ("scaled_dot_product", "Hand in the function itself"),
    "nothing": (None, "Hand in the function itself"),
}
ENDLESS = {
    "loop": (loops, "so I stopped it"),
    "loop that swallows": (loops_and_swallows, "still running when its time was up"),
    "sleep": (sleeps, "could not be stopped"),
    "loop in a message": (loops_in_a_message, "so I stopped it"),
    "print for ever": (prints_for_ever, "so I stopped it"),
}


def surroundings():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        torch.get_default_dtype(),
        sys.getrecursionlimit(),
        sys.stdout,
        torch.softmax,
        torch.Tensor.softmax,
        "softmax" in vars(torch.Tensor),
        F.softmax,
        builtins.sum,
        np.isclose,
        torch.is_grad_enabled(),
        os.getcwd(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        threading.stack_size(),
    )


def check_hostile(answer, says, capfd, seconds):
    before, begin = surroundings(), time.monotonic()
    result = EXERCISE.check(answer, seconds=seconds)
    # The slack is for a busy machine: an answer that is never stopped would keep the test for ever.
    assert time.monotonic() - begin < seconds + guard.GRACE + 30
    assert surroundings() == before
    assert result.status == "not yet" and says in result.message, result
    for text in (repr(result), result._repr_html_()):
        text = text.replace("\n", " ")
        assert "Traceback" not in text and "transformer_lab" not in text and "site-packages" not in text
        assert len(text) < 6000
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize(("answer", "says"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_told_why(answer, says, capfd):
    check_hostile(answer, says, capfd, seconds=10)


@pytest.mark.parametrize(("answer", "says"), ENDLESS.values(), ids=ENDLESS)
def test_endless_answers_are_stopped_in_time(answer, says, capfd):
    OVER.clear()
    check_hostile(answer, says, capfd, seconds=0.5)
    OVER.set()


def test_the_hostile_set_is_large():
    assert len(HOSTILE) + len(ENDLESS) >= 40


@pytest.mark.compiled
def test_a_compiled_answer_passes_and_torch_keeps_what_it_needs_for_it():
    compiled = torch.compile(right, backend="eager")
    for _ in range(2):
        result = EXERCISE.check(compiled, seconds=60)
        assert result, result


def test_a_name_that_is_not_to_blame_is_not_named():
    message = EXERCISE.check(redefines("max", max, "max(1, 2)(q)")).message
    assert "'int' object is not callable" in message and "In this notebook" not in message


def test_an_error_names_the_learner_s_deepest_line():
    def helper(q):
        return q.reshape(7, 7)

    def answer(q, k, v):
        return helper(q)

    message = EXERCISE.check(answer).message
    assert "`return q.reshape(7, 7)`" in message and "The input was q (1, 1, 2, 4)" in message


def test_what_was_printed_is_shown_also_when_the_answer_passes():
    def answer(q, k, v):
        print("scores", tuple(q.shape))
        return right(q, k, v)

    result = EXERCISE.check(answer)
    assert result and "    scores (1, 1, 2, 4)" in repr(result)


def test_an_endless_print_keeps_its_beginning_only():
    text = repr(EXERCISE.check(prints_a_lot))
    assert "row 19\n    ..." in text and "row 20" not in text


def test_torch_patched_in_an_earlier_cell_makes_no_wrong_answer_right(monkeypatch):
    monkeypatch.setattr(torch, "allclose", lambda *_, **__: True)
    monkeypatch.setattr(torch, "equal", lambda *_: True)
    monkeypatch.setattr(torch.Tensor, "softmax", lambda self, *_, **__: self, raising=False)
    assert not EXERCISE.check(lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v)


def test_the_random_numbers_that_follow_are_those_without_the_check():
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    EXERCISE.check(draws)
    assert torch.equal(torch.rand(1), want)


@pytest.mark.bad_input  # the shape hook's type checker draws from it too
def test_python_s_random_state_is_put_back_without_a_word():
    before = random.getstate()
    assert EXERCISE.check(draws_in_python)
    assert random.getstate() == before


def test_an_interrupt_in_the_notebook_stops_the_check(monkeypatch):
    calls = []

    def interrupted(self, timeout=None):
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(self, timeout)

    real = threading.Thread.join
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    assert EXERCISE.check(loops).message == "You stopped the check."


def test_who_interrupts_twice_sees_no_traceback(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    monkeypatch.setattr(guard._Worker, "stop", interrupted)
    assert EXERCISE.check(right).message == "You stopped the check."


@pytest.mark.parametrize(
    "around",
    [
        lambda: np.errstate(all="raise"),
        lambda: torch.autocast("cpu"),
        lambda: torch.device("meta"),
        lambda: torch.autograd.set_detect_anomaly(True),
    ],
    ids=["NumPy's errors", "autocast", "default device", "anomaly detection"],
)
@pytest.mark.parametrize(
    "exercise", [ex.stable_softmax, ex.masked_attention, ex.CausalAttention], ids=lambda e: e.name
)
def test_what_the_notebook_has_switched_on_changes_nothing(exercise, around):
    slip = exercise.slips[0]
    with around():
        passed, named = exercise.check(exercise.solve), exercise.check(slip.answer)
    assert passed, passed
    assert named.message == slip.sentence


def test_a_notebook_whose_folder_is_gone_can_be_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = EXERCISE.check(right)
    os.chdir(tmp_path)
    assert result, result


@pytest.mark.parametrize(
    "library", [torch.special.softmax, torch.special.log_softmax, torch._softmax, F.softmin]
)
def test_other_names_of_what_is_off_limits_are_off_limits_too(library):
    more = (False,) if library is torch._softmax else ()
    message = ex.stable_softmax.check(lambda scores: library(scores, -1, *more)).message
    assert "is off limits" in message


def test_the_time_limit_holds_for_the_gradient_too():
    class Endless(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            while True:
                pass

    result = EXERCISE.check(lambda q, k, v: Endless.apply(right(q, k, v)), seconds=1)
    assert "still running when its time was up" in result.message and "gradients" in result.message


def test_the_forbidden_function_is_allowed_where_nothing_forbids_it():
    def answer(x, w_q, w_k, w_v, w_o, n_heads):
        q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)).transpose(1, 2) for w in (w_q, w_k, w_v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ w_o

    assert ex.find_the_fault.check(answer)


def test_what_torch_imports_at_its_first_gradient_is_imported_outside_the_time_limit():
    """A thread that is stopped in the middle of an import leaves half a module behind."""
    code = """
import sys, threading
from transformer_lab.exercises import attention as ex

class Look:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("sympy"):
            seen.add(threading.current_thread().name)

seen = set()
sys.meta_path.insert(0, Look())
assert ex.stable_softmax.judge(ex.stable_softmax.solve)
assert "exercise" not in seen, seen
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
