"""tools/serve.py: an address that answers, a quiet end, one sentence for what can be in the way."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from tools import serve


@pytest.fixture
def project(tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(serve.__file__, tmp_path / "tools")
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").write_text("the book")
    return tmp_path


HEADERS = """\
/*
  X-A: everywhere
  X-B: one; two: three
/deep/*
  X-B: deep
  Cache-Control: public, max-age=9
/*.txt
  X-C: text
"""


@pytest.fixture
def busy():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def start(project, *options):
    command = [sys.executable, str(project / "tools" / "serve.py"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refusal(project, *options):
    server = start(project, *options)
    try:
        said, wrong = server.communicate(timeout=30)
    finally:
        server.kill()
    assert server.returncode == 1 and said == ""
    return wrong


def test_prints_an_address_that_answers_and_ends_quietly(project):
    server = start(project)
    address = server.stdout.readline().split()[4]
    with urllib.request.urlopen(address) as page:
        assert page.read() == b"the book"
        assert page.headers["Cache-Control"] == "no-cache"
    server.send_signal(signal.SIGINT)
    assert server.communicate(timeout=30) == ("\n", "")
    assert server.returncode == 0


def test_a_file_is_sent_with_what_the_build_asks_for_its_path(project):
    folder = project / "_build" / "html"
    assert serve.blocks(folder) == {} == serve.headers(folder, "/index.html")
    (folder / "_headers").write_text(HEADERS)
    kept = {"Cache-Control": "public, max-age=9"}
    assert serve.headers(folder, "/deep/a/b.png") == {"X-A": "everywhere", "X-B": "deep", **kept}
    assert serve.headers(folder, "/deep.html") == {"X-A": "everywhere", "X-B": "one; two: three"}
    (folder / "deep").mkdir()
    (folder / "deep" / "a.txt").write_text("a")
    with serve.listen(folder, [0]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/deep/a.txt?b") as answer:
            assert (answer.headers["X-B"], answer.headers["X-C"]) == ("deep", "text")
            assert answer.headers.get_all("Cache-Control") == ["no-cache"]
        with socket.create_connection(("127.0.0.1", server.server_port)) as nobody:
            nobody.sendall(b"no request\r\n\r\n")
            assert b"400" in nobody.recv(9999)
        server.shutdown()


def test_a_busy_port_is_passed_over(busy, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    with serve.listen(tmp_path, (busy, free)) as server:
        assert server.server_port == free
    with pytest.raises(OSError):
        serve.listen(tmp_path, (busy, busy))


def test_a_busy_port_that_was_asked_for_is_named(project, busy):
    assert refusal(project, "--port", str(busy)) == (
        f"Port {busy} cannot be used (Address already in use): choose another, with make book PORT=9000.\n"
    )


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_a_number_that_is_no_port_is_named(project, port):
    assert refusal(project, f"--port={port}") == f"A port is a number from 1 to 65535, got {port}.\n"


def test_without_a_book_says_how_to_build_it(project):
    shutil.rmtree(project / "_build")
    assert refusal(project) == "There is no book in _build/html yet: build it first, with make html.\n"


def test_serves_the_folder_that_the_build_writes():
    assert serve.BOOK == Path(__file__).resolve().parents[2] / "_build" / "html"
