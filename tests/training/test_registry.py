"""Fetching files: from a mirror, a cache and a server that runs here, which also fails in every way."""

import errno
import hashlib
import io
import os
import re
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import pytest

from tools import execute
from transformer_lab.training import registry
from transformer_lab.training.registry import DATASETS, FetchError, fetch

WHOLE = bytes(range(256)) * 1000
NAME = "tatoeba_cmn_eng"


class Handler(BaseHTTPRequestHandler):
    """/whole sends the file, /half half of it, /other as many other bytes, /more and /less not as many.

    /unannounced sends half, /endless four times as much, and neither says how much is to come.
    """

    def do_GET(self):
        self.server.asked.append(self.path)
        way = self.path.strip("/")
        if way == "gone":
            return self.send_error(404)
        bodies = {"other": WHOLE[::-1], "more": WHOLE + b"!", "less": WHOLE[:-1], "endless": 4 * WHOLE}
        body = bodies.get(way, WHOLE)
        self.send_response(200)
        if way not in ("unannounced", "endless"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.server.half_way()
        if way not in ("half", "unannounced"):
            self.wfile.write(body[len(body) // 2 :])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.half_way = [], lambda: None
    server.handle_error = lambda *args: None  # whoever has seen enough hangs up
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def serve(server, monkeypatch, tmp_path):
    """``serve(way)``: from now on the set comes from this server, in that way. No mirror, an own cache."""
    monkeypatch.delenv("TRANSFORMER_LAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))

    def set_url(way, url=None):
        url = url or f"http://127.0.0.1:{server.server_port}/{way}"
        known = replace(DATASETS[NAME], url=url, size=len(WHOLE), sha256=hashlib.sha256(WHOLE).hexdigest())
        monkeypatch.setitem(DATASETS, NAME, known)

    set_url("whole")
    return set_url


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_into_the_cache_of_the_system(serve, server, tmp_path):
    path = fetch(NAME)
    assert path == tmp_path / "transformer_lab" / NAME / "cmn.txt" and path.read_bytes() == WHOLE
    assert fetch(NAME) == path and server.asked == ["/whole"]
    assert files(tmp_path) == [f"transformer_lab/{NAME}/cmn.txt"]


def test_the_cache_may_be_elsewhere(serve, tmp_path, monkeypatch):
    assert fetch(NAME, folder=tmp_path / "mine") == tmp_path / "mine" / NAME / "cmn.txt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    for platform, base in (("linux", ".cache"), ("darwin", ".cache"), ("win32", "AppData/Local")):
        monkeypatch.setattr("sys.platform", platform)
        assert fetch(NAME) == tmp_path / base / "transformer_lab" / NAME / "cmn.txt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert fetch(NAME).is_relative_to(tmp_path / "local")


@pytest.mark.parametrize("way", ["empty", "half", "other"])
def test_a_broken_file_in_the_cache_is_fetched_again(serve, server, tmp_path, way):
    path = tmp_path / NAME / "cmn.txt"
    path.parent.mkdir()
    path.write_bytes({"empty": b"", "half": WHOLE[: len(WHOLE) // 2], "other": WHOLE[::-1]}[way])
    assert fetch(NAME, folder=tmp_path).read_bytes() == WHOLE and server.asked == ["/whole"]


def test_a_mirror_is_asked_first_and_only_read(serve, server, tmp_path, monkeypatch):
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    mirror.mkdir()
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(mirror))
    assert fetch(NAME, folder=cache).is_relative_to(cache) and files(mirror) == []  # it has no such file
    path = mirror / NAME / "cmn.txt"
    path.parent.mkdir()
    path.write_bytes(WHOLE)
    assert fetch(NAME, folder=cache) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", os.path.join("~", "mirror"))
    assert fetch(NAME, folder=cache) == path and len(server.asked) == 1
    for broken, what in ((WHOLE[1:], "with 255999 bytes instead of 256000"), (WHOLE[::-1], "with SHA-256 ")):
        path.write_bytes(broken)
        with pytest.raises(FetchError, match=f"the mirror's .*cmn.txt is broken, {what}.*: replace it, or"):
            fetch(NAME, folder=cache)
        assert path.read_bytes() == broken


def test_a_mirror_that_cannot_be_read(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FetchError, match=r"TRANSFORMER_LAB_DATA names .*nowhere, which is no folder: "):
        fetch(NAME)
    (tmp_path / NAME / "cmn.txt").mkdir(parents=True)
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(tmp_path))
    with pytest.raises(FetchError, match=r"cmn\.txt is broken, for it cannot be read \(.+\): "):
        fetch(NAME)


@pytest.mark.parametrize(
    ("way", "match"),
    [
        ("gone", r"/gone answers 404 Not Found: try again later, then install a newer transformer_lab, or"),
        ("half", r"the download of http\S+/half broke off after 128000 of 256000 bytes: try again$"),
        ("unannounced", r"/unannounced broke off after 128000 of 256000 bytes: try again$"),
        ("other", r"/other sends another file than the one known here, with SHA-256 \w+ instead of \w+: "),
        ("more", r"/more sends another file .* with 256001 bytes instead of 256000: "),
        ("endless", r"/endless sends another file .* with (2[5-9]|3[01])\d{4} bytes instead of 256000: "),
        ("less", r"/less sends another file .* with 255999 bytes instead of 256000: "),
    ],
)
def test_what_a_server_gets_wrong_is_said_and_nothing_stays(serve, tmp_path, way, match):
    serve(way)
    with pytest.raises(FetchError, match=match) as caught:
        fetch(NAME)
    assert files(tmp_path) == []
    if way == "gone":
        assert caught.value.__cause__.closed


def test_a_broken_file_stays_as_it_is_while_there_is_no_other(serve, tmp_path):
    path = tmp_path / NAME / "cmn.txt"
    path.parent.mkdir()
    path.write_bytes(b"broken")
    serve("half")
    with pytest.raises(FetchError, match="broke off"):
        fetch(NAME, folder=tmp_path)
    assert path.read_bytes() == b"broken" and files(tmp_path) == [f"{NAME}/cmn.txt"]


def test_without_a_network(serve, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    serve("", f"http://127.0.0.1:{port}/")
    offline = (
        r"cannot reach http://127\.0\.0\.1:\d+/ \(.*\): connect to the network and try again, or name in "
    )
    with pytest.raises(
        FetchError, match=offline + "TRANSFORMER_LAB_DATA a folder that holds tatoeba_cmn_eng/cmn"
    ):
        fetch(NAME)


def test_a_server_that_falls_silent(serve, server, monkeypatch):
    monkeypatch.setattr(registry, "TIMEOUT", 0.2)
    go_on = threading.Event()
    server.half_way = lambda: go_on.wait(30)
    with pytest.raises(FetchError, match="broke off after 128000 of 256000"):
        fetch(NAME)
    go_on.set()


def test_a_folder_that_cannot_be_written(serve, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"cannot store .*cmn.txt \(.+\): name another folder, with folder"):
        fetch(NAME, folder=tmp_path / "file")


def test_a_full_disk_leaves_nothing(serve, tmp_path, monkeypatch):
    def full(part, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FetchError, match=r"cannot store .* \(No space left on device\)"):
        fetch(NAME)
    assert files(tmp_path) == []


def test_two_downloads_at_once_do_not_disturb_each_other(serve, server, tmp_path):
    server.half_way = threading.Barrier(2, timeout=30).wait
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(NAME))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == len(paths) == 2 and paths[0] == paths[1]
    assert paths[0].read_bytes() == WHOLE and len(files(tmp_path)) == 1


def test_on_windows_a_file_that_another_process_has_brought_is_taken(serve, tmp_path, monkeypatch):
    def refuse(part, target):
        target.write_bytes(WHOLE)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert fetch(NAME).read_bytes() == WHOLE and len(files(tmp_path)) == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_sees_the_bar_and_it_goes_away(serve, monkeypatch, terminal):
    monkeypatch.setattr("sys.stderr", stderr := io.StringIO())
    stderr.isatty = lambda: terminal
    fetch(NAME)
    if terminal:
        assert "cmn.txt" in stderr.getvalue() and "/256k" in stderr.getvalue()
        assert re.search(r"\r +\r$", stderr.getvalue())
    else:
        assert stderr.getvalue() == ""


def test_a_notebook_stores_nothing_of_a_download(serve, server, tmp_path):
    code = (
        "from dataclasses import replace\n"
        "from transformer_lab.training import registry\n"
        f"known = replace(registry.DATASETS[{NAME!r}], url={DATASETS[NAME].url!r},\n"
        f"                size={len(WHOLE)}, sha256={DATASETS[NAME].sha256!r})\n"
        f"registry.DATASETS[{NAME!r}] = known\n"
        f"_ = registry.fetch({NAME!r})"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    execute.run(notebook, tmp_path)
    assert server.asked == ["/whole"] and notebook.cells[0].outputs == []


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_registry_is_complete(name):
    known = DATASETS[name]
    assert re.match(r"https://\S+/[0-9a-f]{40}/\S+$", known.url), "pinned to one commit"
    assert known.path == f"{name}/{known.url.rsplit('/', 1)[1]}"
    assert re.fullmatch(r"[0-9a-f]{64}", known.sha256) and known.size > 0 and known.records > 0
    assert known.licence and known.attribution


@pytest.mark.bad_input
def test_bad_input_says_what_was_wrong():
    with pytest.raises(
        ValueError, match="there is no data set 'multi30k'; there are tatoeba_cmn_eng, tatoeba_"
    ):
        fetch("multi30k")
