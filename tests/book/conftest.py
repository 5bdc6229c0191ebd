"""The built book, a server for it, and a browser that reaches nothing else."""

import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml
from filelock import FileLock
from playwright.sync_api import sync_playwright

from tests.strict import require
from tools.serve import listen

from .widget_page import ROOT, write_page

JUPYTER_BOOK = Path(sys.executable).with_name("jupyter-book")
KATEX = ROOT / "_build" / "katex"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the network ends here
)


def build() -> str:
    """Build the book as README.md says, warnings being errors; returns what the build printed."""
    command = (JUPYTER_BOOK, "build", ".", "-W", "-n", "--keep-going")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"the book does not build:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout


def build_small(folder, *names, builder="html", repository=None, **settings):
    """Build the pages ``names`` that lie in ``folder``, with the book's settings but for these.

    Returns how it ended, and what it printed. KaTeX is taken from the book, which was built before.
    """
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    sphinx = config["sphinx"]["config"]
    sphinx["html_static_path"] = [str(ROOT / "book" / "_assets")]
    sphinx["extensions"].remove("sphinxcontrib.bibtex")
    sphinx.update(settings)
    del config["bibtex_bibfiles"], config["html"]["favicon"]
    config["exclude_patterns"].remove("*.md")
    if repository:
        config["repository"]["url"] = repository
    toc = {"format": "jb-book", "root": names[0], "chapters": [{"file": name} for name in names[1:]]}
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    (folder / "_toc.yml").write_text(yaml.safe_dump({key: value for key, value in toc.items() if value}))
    shutil.copytree(KATEX, folder / "_build" / "katex", dirs_exist_ok=True)
    return subprocess.run(
        [JUPYTER_BOOK, "build", str(folder), "-W", "-n", "--keep-going", "--builder", builder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="session")
def book(tmp_path_factory, worker_id) -> Path:
    """The folder of the built book; of several workers, the first builds and the others wait."""
    folder = ROOT / "_build" / "html"
    if worker_id == "master":
        build()
        return folder
    done = tmp_path_factory.getbasetemp().parent / "book-is-built"
    with FileLock(f"{done}.lock"):
        if not done.exists():
            build()
            done.touch()
    return folder


@contextmanager
def served(folder: Path, port: int = 0):
    """Serve ``folder`` as ``make book`` does, with the headers that it asks for; gives the address."""
    with listen(folder, [port]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def address(book):
    """Where the book is served."""
    with served(book) as address:
        yield address


@pytest.fixture(scope="session")
def launch():
    """``launch(flag, ...)`` -> a browser with further flags."""
    require(CHROMIUM is not None, "the built pages were not opened: there is no Chromium on this machine")
    with sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])


@pytest.fixture(scope="session")
def chromium(launch):
    browser = launch()
    yield browser
    browser.close()


class Visit:
    """One reader: opens pages, and keeps what no reader should meet."""

    def __init__(self, page, address: str, book: Path) -> None:
        self.page, self.address, self.book = page, address, book
        self.complaints: list[str] = []
        self.loaded: list[Path] = []  # the files of the book that the browser asked for
        page.on("console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _request(self, request) -> None:
        url = urlparse(request.url)
        if not (request.url.startswith((f"{self.address}/", "file:", "data:", "blob:"))):
            self.complaints.append(f"asked for {request.url}")
        if request.url.startswith(self.address):
            self.loaded.append(self.book / url.path.lstrip("/"))

    def open(self, name: str, *, from_file: bool = False):
        """The page ``name``, once its widgets stand and its fonts are there."""
        start = self.book.as_uri() if from_file else self.address
        self.page.goto(f"{start}/{name}")
        if self.page.locator(".widget").count():
            self.page.wait_for_function(  # always a function: text would be evaluated, which the policy stops
                "() => [...document.querySelectorAll('.widget')].every((w) => w.querySelector('.tl-widget'))"
            )
        self.page.evaluate("document.fonts.ready")
        return self.page


@pytest.fixture
def visit(chromium, address, book):
    """``visit(width=..., theme=...)`` -> a new reader; none may have met an error or another host."""
    visits = []

    def begin(*, width: int = 1280, theme: str = "light") -> Visit:
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(15_000)
        visits.append(Visit(context.new_page(), address, book))
        return visits[-1]

    yield begin
    for visit in visits:
        visit.page.context.close()
        assert visit.complaints == []


@pytest.fixture
def show(chromium, tmp_path):
    """``show(widget, ...)`` -> a page of a reader who meets no error, unless ``faults`` says otherwise."""
    contexts, complaints = [], []

    def begin(*widgets, extra=None, width=1280, theme="light", from_file=False, faults=False, **options):
        write_page(tmp_path, list(widgets), extra or {}, theme)
        contexts.append(chromium.new_context(viewport={"width": width, "height": 800}, **options))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        if not faults:
            page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{tmp_path.as_uri() if from_file else address}/page.html")
        page.wait_for_function("(n) => document.querySelectorAll('.tl-widget').length >= n", arg=len(widgets))
        return page

    with served(tmp_path) as address:
        yield begin
        for context in contexts:
            context.close()
    assert complaints == []
