"""What can go wrong with a download: each ends in the right file, or in the sentence that the book prints.

The page's table and this list of faults have the same rows, and what the table says is what comes out.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from tests.data.lying_server import FILE, NAME, WHOLE
from tests.strict import require
from transformer_lab.data import registry
from transformer_lab.data.registry import FetchError, fetch

PAGE = Path(__file__).resolve().parents[2] / "book" / "data.md"
HALF = len(WHOLE) // 2
RIGHT = "the right file"
FAULTS: dict[str, Callable] = {}

# The registry alone, in a process of its own: without PyTorch, which the package imports, it starts at once.
CHILD = """
import importlib.util, json, sys
from dataclasses import replace
order = json.loads(sys.argv[1])
spec = importlib.util.spec_from_file_location("registry", order["registry"])
registry = sys.modules["registry"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(registry)
file = registry.File(**order["file"] | {"urls": tuple(order["file"]["urls"])})
known = replace(registry.DATASETS[order["name"]], files={"cmn.txt": file})
registry.DATASETS[order["name"]] = known
if "largest" in order:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
print("ready", flush=True)
try:
    print(registry.fetch(order["name"], folder=order["cache"]))
except registry.FetchError as error:
    print(error)
"""


def child(world, **order):
    """The same download in another process."""

    file = registry.DATASETS[NAME].files[FILE]
    order |= {
        "registry": registry.__file__,
        "name": NAME,
        "cache": str(world.cache),
        "file": vars(file),
    }
    command = [sys.executable, "-c", CHILD, json.dumps(order)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def fault(name):
    """A row of the table: a function of the world that does the harm, fetches, and returns what came out."""

    def enter(happen):
        FAULTS[name] = happen
        return happen

    return enter


def fetched(world):
    """The right file, or the sentence."""
    try:
        path = fetch(NAME)
    except FetchError as error:
        return str(error)
    assert path.read_bytes() == WHOLE
    return RIGHT


# --- the network and the server ------------------------------------------------------------------


@fault("no network, or nobody answers")
def _(world):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    world.serve("whole", urls=[f"http://127.0.0.1:{port}/{FILE}"])
    message = fetched(world)
    assert len(world.waited) == registry.ATTEMPTS - 1
    return message


@fault("404: the file is gone")
def _(world):
    world.serve(404)
    message = fetched(world)
    assert world.server.asked == [None], "asked again although it is gone"
    return message


@fault("500: the server is ill, and stays so")
def _(world):
    world.serve(500)
    message = fetched(world)
    assert len(world.server.asked) == registry.ATTEMPTS
    for n, waited in enumerate(world.waited):
        assert 7 <= waited <= max(7, 2**n), "shorter than the server asked for"
    return message


@fault("503 or 429: too much to do for a moment")
def _(world):
    world.serve(503, 429, "whole")
    return fetched(world)


@fault("slow: it falls silent half-way")
def _(world):
    go_on = threading.Event()
    world.server.half_way = lambda: go_on.wait(30) if len(world.server.asked) == 1 else None
    with world.monkeypatch.context() as patched:
        patched.setattr(registry, "TIMEOUT", 1.0)
        outcome = fetched(world)
    go_on.set()
    assert world.server.asked == [None, f"bytes={HALF}-"]
    return outcome


@fault("slow: fewer than 10,000 bytes a second, without end")
def _(world):
    days = iter(range(10**6))
    with world.monkeypatch.context() as patched:
        patched.setattr(registry, "monotonic", lambda: 86_400.0 * next(days))
        patched.setattr(registry, "_BLOCK", 1000)
        message = fetched(world)
    assert len(world.server.asked) == registry.ATTEMPTS
    return re.sub(r"after \d+ of", "after 4000 of", message)  # at most a block of 1000 in each attempt


@fault("closed mid-way, once")
def _(world):
    world.serve("half", "whole")
    outcome = fetched(world)
    assert world.server.asked == [None, f"bytes={HALF}-"]
    return outcome


@fault("truncated, again and again")
def _(world):
    world.serve("half")
    message = fetched(world)
    assert world.files() == [f"{NAME}/{FILE}.{registry.DATASETS[NAME].files[FILE].sha256[:8]}.part"]
    return message


@fault("closed mid-way by a server that sends whole files only")
def _(world):
    world.serve("half", "stubborn")
    outcome = fetched(world)
    assert world.server.asked == [None, f"bytes={HALF}-"]
    return outcome


@fault("wrong bytes")
def _(world):
    world.serve("other")
    message = fetched(world)
    assert world.files() == [] and world.server.asked == [None]
    return message


@fault("a file of another length")
def _(world):
    world.serve("more")
    message = fetched(world)
    assert world.files() == []
    return message


@fault("a stream without end")
def _(world):
    world.serve("endless")
    message = fetched(world)
    assert world.files() == []
    read = re.search(r"with (\d+) bytes", message)[1]
    assert len(WHOLE) < int(read) <= len(WHOLE) + registry._BLOCK
    return message.replace(read, "262144")  # whatever block was the last


@fault("a redirect in a circle")
def _(world):
    world.serve("loop")
    message = fetched(world)
    assert len(world.server.asked) < 20 and world.waited == []
    return message


@fault("a redirect to where it is")
def _(world):
    world.serve("moved")
    return fetched(world)


@fault("the first of two addresses fails")
def _(world):
    world.serve(404, "whole", urls=[world.url, world.url])
    return fetched(world)


@fault("both addresses fail")
def _(world):
    world.serve(404, "other", urls=[world.url, world.url])
    return fetched(world)


# --- the cache and the disk ----------------------------------------------------------------------


@fault("the disk is full")
def _(world):
    require(Path("/dev/full").exists(), "there is no /dev/full here, a disk that is always full")
    world.store_part(b"")
    (part,) = world.cache.glob("*/*.part")
    part.unlink()
    part.symlink_to("/dev/full")
    message = fetched(world)
    assert world.files() == [] and not part.is_symlink()
    return message


@fault("a quota is used up")
def _(world):
    require(os.name == "posix", "there are no quotas here")
    process = child(world, largest=HALF)
    message = process.communicate()[0].removeprefix("ready\n").strip()
    assert world.files() == []
    return message


@contextmanager
def nobody():
    """Root may write anywhere: become another user for a while."""
    require(hasattr(os, "geteuid"), "there are no users here whom a folder can be closed to")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def read_only(world):
    """The cache where anybody can go, and nobody can write."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        cache, world.cache = world.cache, Path(place) / "transformer_lab"
        world.monkeypatch.setenv("XDG_CACHE_HOME", place)
        world.store(WHOLE)
        yield
        world.target.parent.chmod(0o755)
        world.cache = cache
    world.monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))


@fault("the cache is read-only, and has the file")
def _(world):
    with read_only(world):
        world.target.parent.chmod(0o555)
        with nobody():
            return fetched(world)


@fault("the cache is read-only, and has not the file")
def _(world):
    with read_only(world):
        world.target.unlink()
        world.target.parent.chmod(0o555)
        with nobody():
            return fetched(world).replace(str(world.target), "FILE")


@fault("the cache of a newer version, which has the file")
def _(world):
    world.store(WHOLE)
    (world.cache / "VERSION").write_text("2\n")
    return fetched(world)


@fault("the cache of a newer version, which has another one")
def _(world):
    world.store(WHOLE[::-1])
    (world.cache / "VERSION").write_text("2\n")
    message = fetched(world)
    assert world.target.read_bytes() == WHOLE[::-1], "the newer version's file was replaced"
    (world.cache / "VERSION").unlink()
    return message


@fault("a broken file in the cache")
def _(world):
    world.store(WHOLE[:HALF])
    return fetched(world)


@fault("a broken part in the cache")
def _(world):
    world.store_part(WHOLE[1:HALF])
    outcome = fetched(world)
    assert world.server.asked == [f"bytes={HALF - 1}-", None]
    return outcome


# --- processes -----------------------------------------------------------------------------------


@fault("killed mid-download")
def _(world):
    arrived, go_on = threading.Event(), threading.Event()

    def hold():
        arrived.set()
        go_on.wait(30)

    world.server.half_way = hold
    process = child(world)
    arrived.wait(30)
    (part,) = wait_for(lambda: [p for p in world.cache.glob("*/*.part") if p.stat().st_size > HALF - 10_000])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    world.server.half_way = lambda: None
    go_on.set()
    assert not world.target.exists()
    held = part.stat().st_size
    outcome = fetched(world)
    assert world.server.asked == [None, f"bytes={held}-"], "what the dead process got was fetched again"
    return outcome


def wait_for(found):
    """What another process is about to do: looked for until it is there."""
    pause = threading.Event()
    for _ in range(3000):
        if here := found():
            return here
        pause.wait(0.01)
    raise AssertionError("it never came")


@fault("two processes at once")
def _(world):
    both = threading.Event()
    world.server.half_way = lambda: both.wait(30)
    processes = [child(world), child(world)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    both.set()
    paths = [process.communicate()[0].strip() for process in processes]
    assert paths == [str(world.target)] * 2 and world.server.asked == [None]
    return fetched(world)


@fault("another process holds on and does not end")
def _(world):
    world.target.parent.mkdir(parents=True)
    lock = filelock.FileLock
    with lock(world.target.parent / ".lock"), world.monkeypatch.context() as patched:
        patched.setattr(registry, "FileLock", lambda path, timeout: lock(path, timeout=timeout / 1e6))
        return fetched(world)


# --- mirrors and no network ----------------------------------------------------------------------


@fault("offline, and the file is in the cache")
def _(world):
    world.store(WHOLE)
    world.monkeypatch.setenv("TRANSFORMER_LAB_OFFLINE", "1")
    return fetched(world)


@fault("offline, and the file is not there")
def _(world):
    world.monkeypatch.setenv("TRANSFORMER_LAB_OFFLINE", "1")
    world.monkeypatch.setattr(socket, "socket", None)  # nobody may even open one
    message = fetched(world)
    world.monkeypatch.delenv("TRANSFORMER_LAB_OFFLINE")
    world.monkeypatch.setattr(socket, "socket", SOCKET)
    assert world.server.asked == []
    return message


SOCKET = socket.socket


@fault("a mirror's file is broken")
def _(world):
    mirror = world.cache.parent / "mirror"
    (mirror / NAME).mkdir(parents=True)
    (mirror / NAME / FILE).write_bytes(WHOLE[1:])
    world.monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(mirror))
    message = fetched(world)
    assert (mirror / NAME / FILE).read_bytes() == WHOLE[1:], "a mirror is only read"
    world.monkeypatch.delenv("TRANSFORMER_LAB_DATA")
    return message.replace(str(mirror), "MIRROR")


@fault("a mirror that is not there")
def _(world):
    world.monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(world.cache / "mirror"))
    message = fetched(world)
    world.monkeypatch.delenv("TRANSFORMER_LAB_DATA")
    return message.replace(str(world.cache / "mirror"), "MIRROR")


@fault("a mirror's address that lacks the file")
def _(world):
    world.serve(404, "whole")
    world.monkeypatch.setenv("TRANSFORMER_LAB_DATA", world.url.removesuffix(f"/{FILE}"))
    outcome = fetched(world)
    assert len(world.server.asked) == 2
    world.monkeypatch.delenv("TRANSFORMER_LAB_DATA")
    return outcome


# --- the table -----------------------------------------------------------------------------------


def rows():
    """The page's table of faults: {fault: (outcome, message)}; no message where the file is right."""
    lines = [line for line in PAGE.read_text("utf-8").split("\n") if line.startswith("|")]
    cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    return {fault: (outcome, message) for fault, outcome, message in cells}


def as_printed(outcome, world):
    """Without what differs from one machine to another."""
    for this, there in ((world.url, "ADDRESS"), (str(world.target), "FILE"), (str(world.cache), "CACHE")):
        outcome = outcome.replace(this, there)
    outcome = re.sub(r"http://127\.0\.0\.1:\d+/cmn\.txt", "ADDRESS", outcome)
    return re.sub(r"[0-9a-f]{64}", "...", outcome)


def test_the_page_lists_these_faults():
    assert list(rows()) == list(FAULTS)


@pytest.mark.parametrize("name", list(FAULTS))
def test_each_fault_ends_as_the_page_says_and_never_in_a_wrong_file(name, world):
    came = as_printed(FAULTS[name](world), world)
    outcome, message = rows()[name]
    assert came == (message or RIGHT)
    assert outcome.startswith(RIGHT) == (not message)
    world.serve("whole")
    world.server.half_way = lambda: None
    assert fetch(NAME).read_bytes() == WHOLE, "what is left of the fault stands in the way of the next try"
