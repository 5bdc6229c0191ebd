"""A folder served as a public web host serves it: compressed, kept by the browser, connections held open.

The headers that its file ``_headers`` asks for are sent, too.
"""

import gzip
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from tools.serve import headers

TEXT = ("text/", "application/javascript", "application/json", "image/svg+xml")
FOREVER, A_WHILE = "public, max-age=31536000, immutable", "public, max-age=600"
# The tables of some machines lack these or hold other names for them.
TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".woff2": "font/woff2",
    ".ipynb": "application/json",
    ".svg": "image/svg+xml",
}


def content_type(path: Path) -> str:
    """
    >>> content_type(Path("book.css")), content_type(Path("KaTeX_Main.woff2"))
    ('text/css; charset=utf-8', 'font/woff2')
    """
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith(TEXT) else kind


@lru_cache(maxsize=256)
def body(path: Path, written: int, packed: bool) -> bytes:
    """What is sent of a file last ``written`` then; a host compresses once, not for each reader."""
    return gzip.compress(path.read_bytes(), mtime=0) if packed else path.read_bytes()


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path /= "index.html"
        if not path.is_file():
            self.send_error(404)
            return
        kind = content_type(path)
        packed = kind.startswith(TEXT) and "gzip" in self.headers.get("Accept-Encoding", "")
        content = body(path, path.stat().st_mtime_ns, packed)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if kind.startswith(TEXT):
            self.send_header("Vary", "Accept-Encoding")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        parts = urlsplit(self.path)
        # The address of such a file names its content, so it can be kept for good.
        kept = {"Cache-Control": FOREVER if parts.query.startswith("v=") else A_WHILE}
        for name, value in {**kept, **headers(Path(self.directory), parts.path)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """The benchmark prints its tables and nothing else."""


class Server(ThreadingHTTPServer):
    daemon_threads = True  # a browser holds connections open: waiting for them would never end

    def handle_error(self, *_: object) -> None:
        """A browser that closes a connection early is no error of ours."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on a free port while the block runs; gives the address, without a final slash."""
    with Server(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
