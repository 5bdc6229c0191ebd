"""benchmarks/load.py: nginx serves the book as it asks to be served, wrk counts, the table says it."""

import gzip
import shutil
import sys
import time
from http.client import HTTPConnection
from urllib.parse import urlparse

import pytest

from benchmarks import load
from book._ext import policy
from tests.strict import require
from tools.compress import compress

DIGEST = "max-age=31536000, immutable"
PAGE = """<link rel="stylesheet" href="../_static/book.css?v=1"><link rel="icon" href="../_static/icon.svg">
<script src="../_static/book.js?v=2"></script><img src="../_images/a.png"><img src="../_images/a.png">"""
TEXT = "".join(f"line {n} of a text\n" for n in range(200))
FILES = {
    "book/page.html": PAGE + TEXT,
    "book/short.html": TEXT[:400],
    "404.html": "There is no such page",
    "_static/book.css": "body {}" * 50,
    "_static/book.js": TEXT,
    "_static/katex/fonts/a.woff2": "font",
    "_images/a.png": "picture",
}


@pytest.fixture
def place(tmp_path):
    """A folder for nginx, with a book in it."""
    for name, text in FILES.items():
        path = tmp_path / "html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "html" / "_headers").write_text(policy.headers())
    compress(tmp_path / "html")
    return tmp_path


def needs(*programs):
    lacking = [name for name in programs if shutil.which(name) is None]
    require(lacking == [], f"the book was not put under load: there is no {' and no '.join(lacking)} here")


def get(address, path, **headers):
    """The status, the headers and the body; nothing of it is unpacked."""
    connection = HTTPConnection(urlparse(address).netloc, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


@pytest.mark.parametrize("packing", load.NGINX, ids=lambda name: name.split()[-1])
def test_nginx_sends_a_text_as_the_way_to_serve_says(packing, place):
    needs("nginx")
    (place / "html" / "_static" / "book.js.gz").write_bytes(gzip.compress(b"the twin", mtime=0))
    with load.nginx(place, load.NGINX[packing]) as address:
        _, headers, body = get(address, "/_static/book.js", **{"Accept-Encoding": "gzip, br"})
        assert headers["Content-Type"] == "text/javascript"
        packed = headers["Content-Encoding"] == "gzip"
        said = (gzip.decompress(body) if packed else body).decode()
        assert (packed, said) == {
            "nginx, as it is": (False, TEXT),
            "nginx, compresses each answer": (True, TEXT),
            "nginx, compressed beforehand": (True, "the twin"),
        }[packing]
        _, headers, body = get(address, "/_static/book.js")
        assert headers["Content-Encoding"] is None and body.decode() == TEXT


def test_nginx_sends_what_the_build_asks_hosts_to_send(place):
    needs("nginx")
    paths = ["/book/page.html", "/_static/book.css", "/_static/book.css?v=1"]
    paths += ["/_images/a.png", "/_static/katex/fonts/a.woff2", "/lost.html", "/_images/lost.png"]
    with load.nginx(place, "") as address:
        answers = [get(address, path) for path in paths]
    kept = [(status, headers["Cache-Control"]) for status, headers, _ in answers]
    forever, month = f"public, {DIGEST}", "public, max-age=2592000"
    assert kept[:3] == [(200, "no-cache"), (200, "no-cache"), (200, forever)]
    assert kept[3:] == [(200, forever), (200, month), (404, None), (404, None)]  # a fault is not kept
    for _, headers, _ in answers:
        assert headers["Content-Security-Policy"] == f"{policy.policy(widgets=True)}; frame-ancestors 'none'"
        assert headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert answers[-1][2] == b"There is no such page"


def test_a_reason_why_nginx_does_not_start_is_passed_on(place):
    needs("nginx")
    with pytest.raises(RuntimeError, match=r'nginx did not start.*unknown directive "nonsense"'):
        with load.nginx(place, "nonsense on;"):
            pass


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("host", ["nginx", "authors"])
def test_wrk_counts_what_it_was_sent(host, known, place):
    needs("nginx", "wrk")
    paths = ["/book/page.html", "/_images/a.png"]  # a large and a small one, in turns
    begun = time.time()
    opened = load.authors(place / "html") if host == "authors" else load.nginx(place, load.NGINX[load.PLAIN])
    with opened as address:
        found = load.press(address, paths, known=known, seconds=1)
    assert time.time() - begun < 20  # bounded
    body = 0 if known else sum(len(FILES[path[1:]]) for path in paths) / 2
    assert found["requests/s"] > 10 and found["failed"] == 0 < found["p50"] <= found["p99"]
    assert body + 100 < found["bytes a request"] < body + 900  # a head comes with each
    assert found["MB/s"] == pytest.approx(found["requests/s"] * found["bytes a request"] / 1e6)


def test_a_path_that_is_not_there_is_not_measured(place):
    needs("nginx", "wrk")
    with (
        load.nginx(place, "") as address,
        pytest.raises(RuntimeError, match=r"lost\.html was answered with 404"),
    ):
        load.press(address, ["/lost.html"], known=False, seconds=1)


def test_a_visit_is_the_heaviest_page_with_what_it_names_once_each(place):
    (one, first), (whole, second), (again, third) = load.cases(place / "html").values()
    assert one == ["/book/page.html"]
    assert whole == again == [*one, "/_static/book.css?v=1", "/_static/book.js?v=2", "/_images/a.png"]
    assert [first, second, third] == [False, False, True]


def test_the_numbers_are_medians_and_times_are_of_one_turn():
    def run(per_second):
        names = ("bytes a request", "MB/s", "p50", "p99", "failed")
        return {"requests/s": per_second} | dict.fromkeys(names, per_second / 10)

    found = {load.PLAIN: [run(10), run(20), run(40)], "other": [run(30), run(20), run(60)]}
    assert load.rows(found) == [
        [load.PLAIN, "20", "1.00", "2", "2.0", "2.0", "2.0", "2"],
        ["other", "30", "1.50", "3", "3.0", "3.0", "3.0", "3"],
    ]


def test_the_text_says_how_it_was_measured(place, monkeypatch):
    needs("nginx", "wrk")
    asked = []
    counted = {"requests/s": 5, "bytes a request": 3, "MB/s": 1, "p50": 1, "p99": 1, "failed": 0}
    monkeypatch.setattr(load, "press", lambda *told, **more: asked.append((told[1], more)) or counted)
    text = load.measure(place / "html", runs=2, seconds=4)
    assert "Medians of 2 runs of\n4 s" in text and "nginx/1." in text and "wrk " in text
    assert len(asked) == 2 * 3 * 4 and {more["seconds"] for _, more in asked} == {4}
    assert text.count("| nginx, compressed beforehand | 5 | 1.00 |") == 3
    assert "gzip_static on" in text and str(place) not in text


def test_without_the_programs_or_the_book_the_command_says_so(place, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["load.py"])
    monkeypatch.setattr(load, "BOOK", place)
    assert load.main() == "There is no book in _build/html: build it first, with make html."
    (place / "index.html").write_text("the book")
    monkeypatch.setenv("PATH", "")
    assert load.main() == "There is no nginx and no wrk on this machine: apt-get install nginx wrk"
