"""Fetching files: places, names, terminals, threads. What a server and a disk get wrong: test_faults.py."""

import errno
import importlib
import io
import os
import random
import re
import ssl
import threading
from urllib.error import URLError

import nbformat
import pytest

from tests.data.lying_server import FILE, NAME, WHOLE
from tests.data.mirrors import known_as
from tools import execute
from transformer_lab.data import registry
from transformer_lab.data.registry import DATASETS, FetchError, fetch


def test_a_file_is_fetched_once_into_the_cache_of_the_system(world):
    path = fetch(NAME)
    assert path == world.target and path.read_bytes() == WHOLE
    assert fetch(NAME) == fetch(NAME, file=FILE) == path and len(world.server.asked) == 1
    assert world.files() == [f"{NAME}/{FILE}"]


def test_the_cache_may_be_elsewhere(world, tmp_path, monkeypatch):
    assert fetch(NAME, folder=tmp_path / "mine") == tmp_path / "mine" / NAME / FILE
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    for platform, base in (("linux", ".cache"), ("darwin", ".cache"), ("win32", "AppData/Local")):
        monkeypatch.setattr("sys.platform", platform)
        assert registry.cache_folder() == tmp_path / base / "transformer_lab"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert registry.cache_folder().is_relative_to(tmp_path / "local")


@pytest.mark.parametrize("content", [b"", WHOLE[:99], WHOLE[::-1]], ids=["empty", "short", "other"])
def test_a_broken_file_stays_until_there_is_a_right_one(world, content):
    world.store(content)
    world.serve(404)
    with pytest.raises(FetchError, match="answers 404"):
        fetch(NAME)
    assert world.target.read_bytes() == content
    world.serve("whole")
    assert fetch(NAME).read_bytes() == WHOLE


def test_of_several_files_the_one_that_is_named(world, monkeypatch):
    known = known_as(NAME, {FILE: WHOLE, "rest.txt": WHOLE}, [world.url])
    monkeypatch.setitem(DATASETS, NAME, known)
    assert fetch(NAME, file="rest.txt") == world.target.with_name("rest.txt")
    assert world.files() == [f"{NAME}/rest.txt"]


def test_a_mirror_is_asked_first_and_only_read(world, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / NAME).mkdir(parents=True)
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(mirror))
    assert fetch(NAME) == world.target and os.listdir(mirror / NAME) == []  # it has no such file
    path = mirror / NAME / FILE
    path.write_bytes(WHOLE)
    assert fetch(NAME) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", os.path.join("~", "mirror"))
    assert fetch(NAME) == path and len(world.server.asked) == 1
    monkeypatch.delenv("TRANSFORMER_LAB_DATA")
    assert fetch(NAME, folder="~/mirror") == path


def test_a_mirror_s_address_is_asked_before_all_others(world, monkeypatch):
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", f"http://127.0.0.1:{world.server.server_port}/class/")
    world.serve("other", "whole")
    assert fetch(NAME) == world.target
    assert world.server.paths == [f"/class/{NAME}/{FILE}", f"/{FILE}"]


def test_a_mirror_that_cannot_be_read(world, tmp_path, monkeypatch):
    (tmp_path / NAME / FILE).mkdir(parents=True)
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(tmp_path))
    with pytest.raises(FetchError, match=r"cmn\.txt is broken, for it cannot be read \(.+\): replace it, or"):
        fetch(NAME)


@pytest.mark.parametrize(
    ("ways", "match"),
    [
        (["unannounced"], r"broke off after 240000 of 256000 bytes: try again, and it goes on from there$"),
        (["less"], "sends another file .* with 255999 bytes instead of 256000: "),
        (["half", "more"], "sends another file .* with 256001 bytes instead of 256000: "),
        (["half", "other"], "sends another file .* with SHA-256 "),
        ([410], "answers 410 Gone: try again later"),
        ([403], "answers 403 Forbidden: try again later"),
    ],
)
def test_other_things_that_a_server_gets_wrong(world, ways, match):
    world.serve(*ways)
    with pytest.raises(FetchError, match=match) as caught:
        fetch(NAME)
    assert world.files() == [] or "broke off" in match or ways == ["half", "more"]  # half of it is right
    assert len(str(caught.value).splitlines()) == 1


def test_a_part_beyond_what_the_server_has_is_thrown_away(world):
    world.store_part(WHOLE + b"!")
    assert fetch(NAME).read_bytes() == WHOLE and world.server.asked == [None]
    world.target.unlink()
    world.store_part(WHOLE)
    assert fetch(NAME).read_bytes() == WHOLE and len(world.server.asked) == 1, "it was there as a whole"
    world.target.unlink()
    world.store_part(WHOLE[:99])
    world.serve(416, "whole")
    assert fetch(NAME).read_bytes() == WHOLE and world.server.asked[1:] == ["bytes=99-", None]
    assert world.files() == [f"{NAME}/{FILE}"]


def test_a_page_in_the_file_s_place_does_not_cost_what_has_come(world):
    world.store_part(WHOLE[:99])
    world.serve("more")
    with pytest.raises(FetchError, match="sends another file"):
        fetch(NAME)
    world.serve("whole")
    assert fetch(NAME).read_bytes() == WHOLE and world.server.asked[-1] == "bytes=99-"


def test_a_broken_part_and_a_bad_line_together_are_no_fault_of_the_server(world):
    world.store_part(WHOLE[1:100])
    world.serve(500, 500, 500, "whole", "whole")
    assert fetch(NAME).read_bytes() == WHOLE
    assert world.server.asked[-2:] == ["bytes=99-", None] and len(world.waited) == registry.ATTEMPTS - 1


def test_who_may_not_take_the_lock_leaves_another_s_part_alone(world, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    world.store_part(WHOLE[:99])
    with monkeypatch.context() as patched:
        patched.setattr(registry, "FileLock", refuse)
        with pytest.raises(FetchError, match=r"cannot store .* \(Permission denied\)"):
            fetch(NAME)
    assert fetch(NAME).read_bytes() == WHOLE and world.server.asked == ["bytes=99-"]


@pytest.mark.parametrize("address", ["http://a..b:8000", "http://[::1", "http://127.0.0.1:{}/\u00e4"])
def test_a_mirror_that_is_no_address_is_named_and_passed_by(world, monkeypatch, address):
    address = address.format(world.server.server_port)
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", address)
    world.serve(404)
    with pytest.raises(FetchError, match=re.escape(f"cannot reach {address}/{NAME}/{FILE} (")):
        fetch(NAME)
    assert world.waited == []


def test_a_certificate_that_does_not_hold_is_not_tried_again(world, monkeypatch):
    def refuse(*_, **__):
        raise URLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))

    monkeypatch.setattr(registry, "urlopen", refuse)
    with pytest.raises(FetchError, match=r"certificate verify failed.*: give this Python its system's cert"):
        fetch(NAME)
    assert world.waited == []


def test_waits_grow_differ_and_are_bounded(world, monkeypatch):
    for chance in ("random", "uniform"):
        monkeypatch.setattr(random, chance, None)  # the reader's own: it would disturb what is seeded
    monkeypatch.setattr(registry, "ATTEMPTS", 9)
    world.serve(*[500] * 8, "whole")
    monkeypatch.setattr("tests.data.lying_server.RETRY_AFTER", "soon")
    fetch(NAME)
    assert len(set(world.waited)) >= 6
    for n, waited in enumerate(world.waited):
        assert min(2**n / 2, registry.LONGEST_WAIT) <= waited <= min(2**n, registry.LONGEST_WAIT)
    world.target.unlink()
    world.waited.clear()
    world.serve(429, "whole")
    monkeypatch.setattr("tests.data.lying_server.RETRY_AFTER", "86400")
    fetch(NAME)
    assert world.waited == [registry.LONGEST_WAIT]


def test_of_two_threads_the_second_waits_and_takes_the_file(world, monkeypatch):
    """How it is with two processes, but here nothing is left to chance: both ask before the first has it."""
    asked = threading.Semaphore(0)
    lock = registry.FileLock

    def ask(*args, **kwargs):
        asked.release()
        return lock(*args, **kwargs)

    def both_have_asked():
        assert asked.acquire(timeout=30) and asked.acquire(timeout=30)

    monkeypatch.setattr(registry, "FileLock", ask)
    world.server.half_way = both_have_asked
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(NAME))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [world.target] * 2 and world.server.asked == [None]
    assert world.target.read_bytes() == WHOLE


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_sees_the_bar_and_it_goes_away(world, monkeypatch, terminal):
    monkeypatch.setattr("sys.stderr", stderr := io.StringIO())
    stderr.isatty = lambda: terminal
    fetch(NAME)
    if terminal:
        assert "cmn.txt" in stderr.getvalue() and "/256k" in stderr.getvalue()
        assert re.search(r"\r +\r$", stderr.getvalue())
    else:
        assert stderr.getvalue() == ""


def test_a_notebook_stores_nothing_of_a_download(world, tmp_path):
    file = DATASETS[NAME].files[FILE]
    code = (
        "from dataclasses import replace\n"
        "from transformer_lab.data import registry\n"
        f"known = registry.DATASETS[{NAME!r}]\n"
        f"registry.DATASETS[{NAME!r}] = replace(known, files={{{FILE!r}: registry.{file!r}}})\n"
        f"_ = registry.fetch({NAME!r})"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    execute.run(notebook, tmp_path)
    assert world.server.asked == [None] and notebook.cells[0].outputs == []


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_registry_is_complete(name):
    known = DATASETS[name]
    assert known.about and known.records and known.licence and known.attribution and known.files
    for module, loader in (loader.split(".") for loader in known.loaders):
        assert callable(getattr(importlib.import_module(f"transformer_lab.data.{module}"), loader))
    assert known.size == sum(file.size for file in known.files.values())
    for file_name, file in known.files.items():
        assert file.path == f"{name}/{file_name}" and re.fullmatch(r"[\w.-]+", file_name)
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.size > 0
        pinned = r"https://\S+/([0-9a-f]{40}/\S+|archive/v1\.0\.9\.tar\.gz)$"  # to one commit, or one tag
        assert re.match(pinned, file.urls[0]) and len(set(file.urls)) == len(file.urls)


def test_no_two_files_are_the_same():
    files = [file for known in DATASETS.values() for file in known.files.values()]
    assert len({file.sha256 for file in files}) == len({file.path for file in files}) == len(files)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: fetch("multi30k"),
            "there is no data set 'multi30k'; there are chinese_poetry, fas",
        ),
        (lambda: fetch("images", file="cat"), "images has no file 'cat'; it has chelsea.png, coffee.png, "),
        (
            lambda: fetch("images"),
            "images has several files, name one with file=...: chelsea.png, cof",
        ),
        (lambda: fetch("protein_backbones"), "1ail.pdb, .* and 600 more$"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
