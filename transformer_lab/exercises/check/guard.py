"""Run a learner's code so that nothing it does can hurt the notebook.

The code runs in a thread of its own while the notebook's thread waits, because that is the one time limit
that works everywhere: SIGALRM does not exist on Windows and reaches the main thread only; a trace function
makes every line slow and is silent inside a C call; a new process cannot receive functions that were
defined in a notebook (Windows and macOS start processes afresh). When the time is up, Python is asked to
raise SystemExit in that thread (the one exception a thread may die of without a traceback). It takes
effect at the next Python instruction; a thread that sleeps in a C call is left behind as a daemon and dies
when the call returns. What no thread can stop is one C call that never lets go of the interpreter, such as
``sum(itertools.count())``.
"""

import builtins
import contextlib
import ctypes
import inspect
import io
import linecache
import math
import os
import random
import re
import sys
import sysconfig
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .show import an

GRACE = 1.0  # seconds in which a thread that was told to stop should do so
KEPT = 2000  # characters of what the learner's code prints; the rest is counted only
STACK = 64 * 2**20  # bytes: threads get little on some systems, and recursion must end in RecursionError

# Replacing any of these from inside an answer would change the rest of the notebook.
SHARED = (
    *(builtins, math, np, torch, torch.Tensor, torch.linalg, torch.autograd),
    *(nn, nn.Module, nn.Linear, nn.functional),
)


def _folder() -> str:
    """Where the notebook works; a folder that was deleted meanwhile has no name."""
    with contextlib.suppress(FileNotFoundError):
        return os.getcwd()
    return "."


# What one line can change for the whole notebook: how to look, and how to put it back.
SWITCHES = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's deterministic mode": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "the working directory": (_folder, os.chdir),
}

IMPORTED = {
    "torch": "import torch",
    "nn": "from torch import nn",
    "F": "from torch.nn import functional as F",
    "math": "import math",
    "np": "import numpy as np",
}

MADE_BY_PYTHON = {"__annotations__", "__annotations_cache__"}  # appear on a class when first looked at

# Files whose lines are not the learner's: Python, what pip installed, and this package.
NOT_THEIRS = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).parents[2]), str(Path(torch.__file__).parent)}
)


class Complaint(Exception):
    """Raised beside the learner's code to end the run with a sentence of ours."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its value, or the sentences that say why there is none; and what it printed."""

    value: Any = None
    problem: tuple[str, ...] = ()
    printed: str = ""
    error: BaseException | None = None  # what the learner's code raised, if that is the problem


def run(job: Callable[[], Any], seconds: float | int) -> Outcome:
    """Call ``job`` within ``seconds``, catch all it does, and put back what it disturbs.

    >>> run(lambda: 1 / 0, seconds=5).problem[0]
    'Your code raised ZeroDivisionError: division by zero.'
    """
    done: dict[str, Any] = {}

    def work() -> None:
        try:
            done["value"] = job()
        except Complaint as complaint:
            done["problem"] = (str(complaint),)
        except BaseException as error:
            done["error"] = error
            try:
                done["problem"] = describe(error)
            except BaseException:  # its own message raises again
                done["problem"] = (f"Your code raised {type(error).__name__}.",)

    printed, stopped = _Printed(), ""
    with _world_put_back() as disturbed, _quiet(printed):
        stopped = _in_a_thread(work, seconds)
    problem = (stopped,) if stopped else done.get("problem", ()) or tuple(disturbed)
    error = None if stopped else done.get("error")
    return Outcome(None if problem else done["value"], problem, str(printed), error)


def describe(error: BaseException) -> tuple[str, ...]:
    """Type, message and the learner's line; the rest of the traceback would only frighten.

    >>> describe(KeyError("w"))
    ("Your code raised KeyError: 'w'.",)
    """
    text = _encodable(str(error).strip())
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text).rstrip(".")  # addresses differ from run to run
    text = text if len(text) <= 300 else text[:300] + " [...]"
    said = f"Your code raised {type(error).__name__}" + (f": {text}." if text else ".")
    if not (places := their_places(error)):
        return (said,)
    frame, number = places[-1]
    line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals).strip()
    where = f"It happened in line {number}" + (f": `{line}`" if line else ".")
    return (said, where, *_redefined(error, frame))


def _encodable(text: str) -> str:
    """What can be sent to a notebook: half a character, which a string may hold, is written as its number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def their_places(error: BaseException) -> list[tuple[types.FrameType, int]]:
    """The frames that run code of the learner's, the deepest last, and the line's number within its cell."""
    return [place for place in traceback.walk_tb(error.__traceback__) if is_theirs(place[0])]


def is_theirs(frame: types.FrameType) -> bool:
    """Whether it runs code of the learner's."""
    return not frame.f_code.co_filename.startswith(NOT_THEIRS)


def _redefined(error: BaseException, frame: types.FrameType) -> list[str]:
    """The names in use there that an earlier cell has given another meaning, such as `sum = 0`."""
    if not isinstance(error, TypeError | AttributeError):
        return []
    said = []
    for name in frame.f_code.co_names:
        now = frame.f_globals.get(name, ...)
        if now is ... or isinstance(now, types.ModuleType):
            continue
        now_is = f"`{name}` is now {an(type(now).__name__)}"
        if name in IMPORTED:
            said.append(f"In this notebook {now_is}; `{IMPORTED[name]}` brings the module back.")
        elif callable(getattr(builtins, name, None)) and not callable(now):
            said.append(f"In this notebook {now_is}; `del {name}` brings Python's own back.")
    return said


def _in_a_thread(work: Callable[[], None], seconds: float | int) -> str:
    """Run ``work`` to its end, or say why it was stopped."""
    worker = _start(work)
    deadline = time.monotonic() + seconds
    try:
        while worker.is_alive() and time.monotonic() < deadline:
            worker.join(0.05)  # in slices: on Windows a long wait cannot be interrupted
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):  # some people press it twice
            worker.stop()
        return "You stopped the check."
    if not worker.is_alive():
        return ""
    late = "Your code was still running when its time was up,"
    if worker.stop():
        return f"{late} so I stopped it. The input is small: look for a loop that never ends."
    return f"{late} and could not be stopped. If the notebook becomes slow, restart its kernel."


class _Worker(threading.Thread):
    """A thread that can be told to stop while it works, and only then: threading's own code is not hit."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="exercise")
        self.work, self.working, self.lock = work, True, threading.Lock()

    def run(self) -> None:
        try:
            self.work()
        except SystemExit:
            pass
        while self.working:
            try:
                with self.lock:
                    self.working = False
            except SystemExit:  # sent just before the lock was ours
                pass

    def stop(self) -> bool:
        """Ask until it ends. A bare ``except:`` swallows what falls inside its ``try``, so ask often."""
        deadline, usual = time.monotonic() + GRACE, sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            while self.working and time.monotonic() < deadline:
                with self.lock:
                    if self.working:
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(
                            ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit)
                        )
                time.sleep(1e-4)
        finally:
            sys.setswitchinterval(usual)
        return not self.working


def _start(work: Callable[[], None]) -> _Worker:
    usual = threading.stack_size(STACK)
    try:
        worker = _Worker(work)
        worker.start()
    finally:
        threading.stack_size(usual)
    return worker


class _Printed(io.TextIOBase):
    """Standard output that keeps a beginning and forgets the rest: an endless print must not fill memory."""

    def __init__(self) -> None:
        self.kept, self.length = "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.kept += text[: KEPT - len(self.kept)]
        self.length += len(text)
        return len(text)

    def __str__(self) -> str:
        return _encodable(self.kept) + (" ..." if self.length > KEPT else "")


@contextlib.contextmanager
def _quiet(printed: _Printed) -> Iterator[None]:
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # torch warns once a session: outputs would differ from run to run
        yield


@contextlib.contextmanager
def _world_put_back() -> Iterator[list[str]]:
    """Yield a list that afterwards says what was disturbed; all of it is as before then."""
    disturbed: list[str] = []
    switches = {what: look() for what, (look, _) in SWITCHES.items()}
    recursion, chance = sys.getrecursionlimit(), _random_state()
    names = [(owner, dict(vars(owner))) for owner in SHARED]
    try:
        yield disturbed
    finally:
        replaced = [name for owner, before in names for name in _restore(owner, before)]
        if replaced:
            what = ", ".join(f"`{name}`" for name in replaced)
            disturbed.append(f"Your code replaced {what}; I put back what was there.")
        sys.setrecursionlimit(recursion)
        for what, (look, put) in SWITCHES.items():
            if look() != switches[what]:
                put(switches[what])
                disturbed.append(f"Your code changed {what}, for all code; I put it back.")
        drawn = not _same_random_state(chance)
        _set_random_state(chance)
        if drawn:
            disturbed.append(
                "Your code drew random numbers or set a seed; this answer needs none. "
                "I put the random state back."
            )


def _restore(owner: Any, before: dict[str, Any]) -> list[str]:
    """Undo replaced names. A new name counts on a class only: there it hides an inherited one."""
    now = vars(owner)
    changed = [name for name, value in before.items() if now.get(name, ...) is not value]
    added = [name for name in now if name not in before] if inspect.isclass(owner) else []
    changed = [name for name in changed if not _by_torch_compile(now.get(name))]
    added = [name for name in added if name not in MADE_BY_PYTHON and not name.startswith("___")]
    for name in changed:
        setattr(owner, name, before[name])
    for name in added:
        delattr(owner, name)
    where = owner.__name__ if isinstance(owner, types.ModuleType) else f"torch.{owner.__name__}"
    return [f"{where}.{name}" for name in changed + added]


def _by_torch_compile(value: Any) -> bool:
    """Whether torch.compile put it there, which it does once, and calls it ``___`` something beside."""
    return str(getattr(value, "__module__", "")).startswith("torch._dynamo")


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda, random.getstate(), np.random.get_state()


def _set_random_state(state: tuple[Any, ...]) -> None:
    cpu, cuda, python, numpy = state
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    random.setstate(python)
    np.random.set_state(numpy)


def _same_random_state(state: tuple[Any, ...]) -> bool:
    """Python's own state is put back but does not count: type checkers such as beartype draw from it."""
    cpu, _, _, numpy = state
    now = np.random.get_state()
    unmoved = torch.equal(cpu, torch.get_rng_state())
    return unmoved and bool((numpy[1] == now[1]).all()) and numpy[2:] == now[2:]
