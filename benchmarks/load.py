"""The built book under load: how many readers a web server bears, and what compressing beforehand saves.

    make bench, or, once the book is built: python -m benchmarks.load --save

nginx serves a copy of the book as its file _headers asks, to this machine alone, and wrk asks for it without
a pause. Both are programs of the system: apt-get install nginx wrk
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

from bs4 import BeautifulSoup

from benchmarks.measure import RESULTS
from benchmarks.pages import BOOK, table
from tools.compress import compress
from tools.serve import blocks, headers, listen

CONNECTIONS, THREADS = 32, 2
FOREVER = "public, max-age=31536000, immutable"
TYPES = {  # by the ends of names; nginx's own list lies somewhere else on each system
    "text/html": "html",
    "text/css": "css",
    "text/javascript": "js mjs",
    "text/plain": "txt",
    "text/xml": "xml",
    "application/json": "json ipynb",
    "application/manifest+json": "webmanifest",
    "image/svg+xml": "svg",
    "image/png": "png",
    "font/woff2": "woff2",
}
UNPACKED = ("text/html", "image/png", "font/woff2")  # nginx packs HTML unasked; the others are packed already
TEXTS = " ".join(kind for kind in TYPES if kind not in UNPACKED)
PLAIN = "nginx, as it is"
NGINX = {
    PLAIN: "",
    "nginx, compresses each answer": f"gzip on; gzip_vary on; gzip_types {TEXTS};",
    "nginx, compressed beforehand": "gzip_static on; gzip_vary on;",
}
AUTHORS = "tools/serve.py, for authors"

# What wrk runs: it asks for all paths in turn, each with the time of the copy that a reader has of it.
SCRIPT = """
local asked, n = {}, 0
function init()
  for _, page in ipairs(%s) do
    local head = { ["Accept-Encoding"] = "gzip", ["If-Modified-Since"] = page[2] }
    table.insert(asked, wrk.format("GET", page[1], head))
  end
end
function request()
  n = n %% #asked + 1
  return asked[n]
end
function done(summary, latency)
  local wrong = 0
  for _, count in pairs(summary.errors) do wrong = wrong + count end
  io.write(string.format('{"requests": %%d, "bytes": %%d, "us": %%d, "p50": %%d, "p99": %%d, "failed": %%d}',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99), wrong))
end
"""

HEAD = """{when}, {machine}, {cores} cores, load {load:.1f} before, {nginx}, {wrk}, Python {python}

wrk and what it asks share this machine's cores, and no network lies between them: the numbers compare the
ways to serve. nginx has one process; {connections} connections ask without a pause. Medians of {runs} runs of
{seconds} s, the ways in turns. Times: requests/s against nginx as it is, in the same turn. p50 and p99: ms
until an answer is whole. MB/s: what the line to the readers would carry (one of 1 Gbit/s carries 125).
"""
CONFIG = """## The settings

nginx with compressed files, as it was asked here; the headers are those of `_headers`.

```nginx
{server}
```
"""


# A host


def server(folder: Path, port: int, packing: str) -> str:
    """nginx's settings for the book in ``folder``: what _headers asks, and what it cannot ask."""
    places = []
    for pattern in blocks(folder):
        asked = headers(folder, pattern)
        kept = asked.pop("Cache-Control", "$kept")  # for what is there; the rest also for what is not
        lines = [f'add_header Cache-Control "{kept}";']
        lines += [f'add_header {name} "{value}" always;' for name, value in asked.items()]
        places.append("\n      ".join([f"location {pattern.removesuffix('*')} {{", *lines]) + "\n    }")
    lines = [f"listen 127.0.0.1:{port};", "root html;", "error_page 404 /404.html;", packing, *places]
    body = "\n    ".join(filter(None, lines))
    return f"""  # What has ?v= and a digest in its address never changes; a browser asks again for all else.
  map $arg_v $kept {{ default "{FOREVER}"; "" no-cache; }}
  server {{
    {body}
  }}"""


def settings(folder: Path, port: int, packing: str) -> str:
    """All of nginx.conf; every path in it lies in the folder where nginx is started."""
    scratch = " ".join(f"{name}_temp_path scratch;" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    types = " ".join(f"{kind} {ends};" for kind, ends in TYPES.items())
    return f"""daemon off; master_process off; pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; client_body_temp_path scratch; {scratch}
  types {{ {types} }}
{server(folder, port, packing)}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def nginx(place: Path, packing: str) -> Iterator[str]:
    """nginx over ``place/html`` while the block runs; gives the address."""
    port = free_port()
    (place / "nginx.conf").write_text(settings(place / "html", port, packing))
    command = ["nginx", "-p", place, "-c", "nginx.conf", "-e", "stderr"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            while running.poll() is None:
                try:
                    urlopen(f"http://127.0.0.1:{port}/").close()
                    break
                except HTTPError:
                    break  # it answers, if only that there is no page
                except URLError:
                    time.sleep(0.02)  # it does not listen yet
            else:
                raise RuntimeError(f"nginx did not start: {running.stderr.read().strip()}")
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()


@contextmanager
def authors(folder: Path) -> Iterator[str]:
    with listen(folder, [0]) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()  # s until it ends
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# What is asked


def heaviest(folder: Path) -> str:
    """The page that is largest once it is compressed."""
    pages = [path.with_suffix("") for path in folder.rglob("*.html.gz")]
    largest = max(pages, key=lambda page: page.with_name(f"{page.name}.gz").stat().st_size)
    return f"/{largest.relative_to(folder).as_posix()}"


def visit(folder: Path, page: str) -> list[str]:
    """The page, and every style, script and picture that it names."""
    soup = BeautifulSoup((folder / page[1:]).read_text("utf8"), "html.parser")
    tags = soup.select("link[rel=stylesheet], script[src], img[src]")
    named = [urljoin(page, tag.get("src") or tag["href"]) for tag in tags]
    return list(dict.fromkeys([page, *named]))


def answer(url: str, since: str = "") -> tuple[int, str]:
    """The status, and the time of the file."""
    known = {"If-Modified-Since": since} if since else {}
    try:
        with urlopen(Request(url, headers={"Accept-Encoding": "gzip", **known})) as got:
            return got.status, got.headers["Last-Modified"]
    except HTTPError as refused:
        return refused.code, ""


def press(address: str, paths: list[str], *, known: bool, seconds: int) -> dict[str, float]:
    """What wrk counts while it asks for ``paths``, which the reader has already if they are ``known``."""
    asked = []
    for path in paths:
        status, changed = answer(address + path)
        if known:
            status, _ = answer(address + path, changed)
        if status != (304 if known else 200):
            raise RuntimeError(f"{address}{path} was answered with {status}")
        asked.append(f"{{ {json.dumps(path)}, {json.dumps(changed) if known else 'nil'} }}")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "ask.lua")
        script.write_text(SCRIPT % f"{{ {', '.join(asked)} }}")
        options = (f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script)
        done = subprocess.run(["wrk", *options, address], capture_output=True, text=True, check=True)
    counted = json.loads(done.stdout[done.stdout.rindex("{") :])
    per_second = counted["requests"] / counted["us"] * 1e6
    return {
        "requests/s": per_second,
        "bytes a request": counted["bytes"] / max(counted["requests"], 1),
        "MB/s": counted["bytes"] / counted["us"],
        "p50": counted["p50"] / 1000,
        "p99": counted["p99"] / 1000,
        "failed": counted["failed"],
    }


# Tables


def cases(folder: Path) -> dict[str, tuple[list[str], bool]]:
    """What is asked for, by its heading: the paths, and whether the reader has them already."""
    page = heaviest(folder)
    whole = visit(folder, page)
    files = f"{page[1:]}, and the {len(whole) - 1} styles, scripts and pictures that it names"
    return {
        f"One page: {page[1:]}, the heaviest": ([page], False),
        f"A first visit: {files}": (whole, False),
        "The same files again: none has changed, and none is sent (304)": (whole, True),
    }


def rows(found: dict[str, list[dict[str, float]]]) -> list[list[object]]:
    """A line for each host: medians of its runs, and of what it did against nginx as it is in each."""
    lines = []
    for host, runs in found.items():
        pairs = zip(runs, found[PLAIN], strict=True)
        times = [run["requests/s"] / plain["requests/s"] for run, plain in pairs]
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        numbers = (f"{middle['requests/s']:.0f}", f"{statistics.median(times):.2f}")
        sizes = (f"{middle['bytes a request']:.0f}", f"{middle['MB/s']:.1f}")
        waits = (f"{middle['p50']:.1f}", f"{middle['p99']:.1f}", f"{middle['failed']:.0f}")
        lines.append([host, *numbers, *sizes, *waits])
    return lines


def first_line(*command: str) -> str:
    """What a program says that it is; some say it among their complaints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.splitlines()[0]


def circumstances(runs: int, seconds: int) -> str:
    return HEAD.format(
        when=date.today(),
        machine=platform.machine(),
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        nginx=first_line("nginx", "-v").partition(": ")[2],
        wrk=" ".join(first_line("wrk", "-v").split()[:2]),
        python=platform.python_version(),
        connections=CONNECTIONS,
        runs=runs,
        seconds=seconds,
    )


# All of it


def measure(book: Path, runs: int, seconds: int) -> str:
    """The whole text, for the built ``book``, which stays as it is."""
    sections = [circumstances(runs, seconds)]
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "html")
        shutil.copytree(book, copy)
        before, after = compress(copy)
        sections.append(f"All texts of the book: {before / 1e6:.1f} MB, compressed {after / 1e6:.1f} MB.\n")
        for title, (paths, known) in cases(copy).items():
            found: dict[str, list[dict[str, float]]] = {host: [] for host in (*NGINX, AUTHORS)}
            for _ in range(runs):
                for host in found:
                    opened = authors(copy) if host == AUTHORS else nginx(Path(place), NGINX[host])
                    with opened as address:
                        found[host].append(press(address, paths, known=known, seconds=seconds))
            head = "served by, requests/s, times, bytes a request, MB/s, p50, p99, failed"
            sections.append(f"## {title}\n\n{table(head, rows(found))}")
        config = server(copy, 8080, list(NGINX.values())[-1])
    return "\n".join([*sections, CONFIG.format(server=config)])


def main() -> int | str:
    parser = argparse.ArgumentParser(description="The built book under load, on this machine alone.")
    parser.add_argument("--runs", type=int, default=3, help="of each way to serve, in turns")
    parser.add_argument("--seconds", type=int, default=5, help="that a run takes")
    parser.add_argument("--save", action="store_true", help="also write the tables to benchmarks/results/")
    options = parser.parse_args()
    if not (BOOK / "index.html").exists():
        return "There is no book in _build/html: build it first, with make html."
    if missing := [name for name in ("nginx", "wrk") if shutil.which(name) is None]:
        return f"There is no {' and no '.join(missing)} on this machine: apt-get install nginx wrk"
    took = len(NGINX | {AUTHORS: ""}) * 3 * options.runs * options.seconds / 60
    print(f"This takes {took:.0f} minutes, and a machine that does nothing else.", file=sys.stderr)
    text = measure(BOOK, options.runs, options.seconds)
    print(text, end="")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"load-{platform.machine()}.md").write_text(text, "utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
