"""Serve the built book on this machine and print its address.

    python tools/serve.py [--port 8000]

Without --port, the first free port from 8000 on is taken.
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

BOOK = Path(__file__).resolve().parent.parent / "_build" / "html"
PORTS = range(8000, 8020)


class Handler(SimpleHTTPRequestHandler):
    path = "/"  # until a request was read: one that cannot be is answered, too

    def end_headers(self) -> None:
        asked = headers(Path(self.directory), urlsplit(self.path).path)
        # A rebuilt page shows at the next reload, whatever is asked of a public host.
        for name, value in {**asked, "Cache-Control": "no-cache"}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """A line for each request would bury the address."""


def headers(folder: Path, path: str) -> dict[str, str]:
    """What the build's ``_headers`` asks hosts to send with the file at ``path``; of two the later holds."""
    found: dict[str, str] = {}
    for pattern, asked in blocks(folder).items():
        if fnmatchcase(path, pattern):
            found |= asked
    return found


def blocks(folder: Path) -> dict[str, dict[str, str]]:
    """The headers by pattern of paths: a pattern stands at the margin, what it asks for is indented."""
    file = folder / "_headers"
    found: dict[str, dict[str, str]] = {}
    for line in file.read_text("utf8").splitlines() if file.exists() else []:
        if line.startswith("/"):
            pattern = line
            found[pattern] = {}
        elif line.startswith(" "):
            name, value = line.strip().split(": ", 1)
            found[pattern][name] = value
    return found


class Server(ThreadingHTTPServer):
    allow_reuse_address = sys.platform != "win32"  # on Windows it would share a busy port

    def handle_error(self, *_: object) -> None:
        """A browser that closes a connection early is no error of ours."""


def listen(folder: Path, ports: Sequence[int]) -> Server:
    """A server of ``folder`` on the first free one of ``ports``; OSError where all are busy."""
    for port in ports:
        try:
            return Server(("127.0.0.1", port), partial(Handler, directory=str(folder)))
        except OSError:
            if port == ports[-1]:
                raise
    raise ValueError("no ports to choose from")


def main() -> int | str:
    parser = argparse.ArgumentParser(description="Serve the built book on this machine.")
    parser.add_argument("--port", type=int, help="this port and no other (else the first free from 8000)")
    port = parser.parse_args().port
    if port is not None and not 0 < port < 65536:
        return f"A port is a number from 1 to 65535, got {port}."
    if not (BOOK / "index.html").exists():
        return "There is no book in _build/html yet: build it first, with make html."
    try:
        server = listen(BOOK, PORTS if port is None else [port])
    except OSError as error:
        asked = f"Port {port}" if port else f"Every port from {PORTS[0]} to {PORTS[-1]}"
        return f"{asked} cannot be used ({error.strerror}): choose another, with make book PORT=9000."
    with server:
        try:
            print(f"The book is at http://localhost:{server.server_port}/ (Ctrl-C ends)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
