"""A server that runs here and fails in every way, and the world in which a set comes from it."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.data.mirrors import known_as
from transformer_lab.data.registry import DATASETS

WHOLE = bytes(range(256)) * 1000
NAME, FILE = "tatoeba_cmn_eng", "cmn.txt"
RETRY_AFTER = "7"  # seconds


class Handler(BaseHTTPRequestHandler):
    """Answers in one of the server's ways after the other; the last one stays.

    "whole" sends the file, or the part of it that was asked for; "stubborn" knows nothing of parts; "half"
    hangs up half-way; "unannounced" too, and "endless" sends four times as much: neither says how much is to
    come. "other" sends as many other bytes, "more" and "less" not as many. "loop" sends on to itself, "moved"
    to a place where the file is. A number is an error's code. ``asked`` keeps each request's Range.
    """

    def do_GET(self):
        if self.path == "/moved":
            way = "whole"
        else:
            way = self.server.ways.pop(0) if len(self.server.ways) > 1 else self.server.ways[0]
            self.server.asked.append(self.headers["Range"])
            self.server.paths.append(self.path)
        if isinstance(way, int):
            self.send_response(way)
            self.send_header("Retry-After", RETRY_AFTER)
            return self.end_headers()
        if way in ("loop", "moved"):
            self.send_response(302)
            self.send_header("Location", "/moved" if way == "moved" else self.path)
            return self.end_headers()
        bodies = {"other": WHOLE[::-1], "more": WHOLE + b"!", "less": WHOLE[:-1], "endless": 4 * WHOLE}
        body = bodies.get(way, WHOLE)
        start = 0
        if self.headers["Range"] and way != "stubborn":
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if way not in ("unannounced", "endless"):
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        middle = start + (len(body) - start) // 2
        self.wfile.write(body[start:middle])
        self.server.half_way()
        if way not in ("half", "unannounced"):
            self.wfile.write(body[middle:])

    def log_message(self, *args):
        pass


@dataclass
class World:
    """Where a test fetches from and to; what it waited between attempts, in seconds."""

    server: ThreadingHTTPServer
    cache: Path
    monkeypatch: object
    waited: list[float] = field(default_factory=list)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/{FILE}"

    @property
    def target(self):
        return self.cache / NAME / FILE

    def serve(self, *ways, urls=None):
        """From now on the set comes from this server, in these ways."""
        self.server.ways = list(ways)
        known = known_as(NAME, {FILE: WHOLE}, urls or [self.url])
        self.monkeypatch.setitem(DATASETS, NAME, known)

    def store(self, content):
        """This lies in the cache already."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.target.write_bytes(content)

    def store_part(self, content):
        """This is what an earlier download got, which broke off."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        part = f"{FILE}.{DATASETS[NAME].files[FILE].sha256[:8]}.part"
        (self.target.parent / part).write_bytes(content)

    def files(self):
        """All there is in the cache, but for locks, which stay and are empty."""
        paths = [path for path in self.cache.rglob("*") if path.is_file()]
        assert all(path.stat().st_size == 0 for path in paths if path.name == ".lock")
        return sorted(path.relative_to(self.cache).as_posix() for path in paths if path.name != ".lock")


def running():
    """The server, in a thread of its own, to be shut down by whoever asked for it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.paths, server.ways, server.half_way = [], [], ["whole"], lambda: None
    server.handle_error = lambda *args: None  # whoever has seen enough hangs up
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
