"""The built book's pages as readers meet them, beside what a stock Jupyter Book makes of the same notebooks.

    make bench, or, once the book is built: python -m benchmarks.pages --save

Every page is served compressed and opened in headless Chromium, which reaches no other host: what it wants
from one is counted but does not come, so that a run prints the same with a network and without. Lighthouse
comes from npm, once, into the build folder.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path

from playwright.async_api import async_playwright

from benchmarks.browse import Weight, answers, drags, weigh
from benchmarks.host import serve
from book._ext import npm
from tests.book.conftest import CHROMIUM, FLAGS, JUPYTER_BOOK

HERE = Path(__file__).parent
ROOT, RESULTS = HERE.parent, HERE / "results"
BOOK = ROOT / "_build" / "html"
ENTRIES = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
STOCK = ", stock"
KINDS = ("html", "style", "script", "font", "image", "other")
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
TIMES = ("first-contentful-paint", "largest-contentful-paint", "total-blocking-time")  # in ms
ANSWERS = ("load", "picture", "click", "key")

WEIGHT = """## Weight

KB (1000 bytes) that travel, compressed and with their heads, to a phone, before its reader does anything.
Not reached, so that their bytes are not counted: {hosts}.
"""
SCORES = """## Lighthouse

A phone on a slow network, the processor not slowed down; median of {runs}. First and largest contentful paint
and total blocking time in ms; cumulative layout shift. What a stock page wants from other hosts did not come:
its scores are those of a page without set formulas and without widgets.
"""
WIDGETS = """## Widgets

In ms. Answers, median of {runs}: from a click, or a press of the right arrow, to the frame that shows the
widget's first change; load is the first answer to Load the model, picture its first picture.
Frames, while the mouse moves what follows it, {runs} times for two seconds: median and 95th percentile.
Headless Chromium keeps to 60 Hz, so that the interval is 16.7 at best however little a frame takes: work,
which is how long the page's main thread ran for a frame, is what must stay below. A stock page's widgets
need other hosts: none came.
"""


# Lighthouse


def lighthouse(url: str) -> dict:
    """One report, for a phone on a slow network; the processor is as fast as it is."""
    package = npm.install(ROOT / "_build" / "lighthouse", HERE / "package.json") / "lighthouse"
    flags = " ".join(re.sub(r"=(.* .*)", r'="\1"', flag) for flag in FLAGS)
    done = subprocess.run(
        [
            *(npm.NODE, package / "cli" / "index.js", url, "--quiet", "--output=json"),
            *("--throttling.cpuSlowdownMultiplier=1", f"--only-categories={','.join(CATEGORIES)}"),
            f"--chrome-flags={flags}",
        ],
        env={**os.environ, "CHROME_PATH": CHROMIUM},
        capture_output=True,
        text=True,
        encoding="utf8",
    )
    if done.returncode:
        raise RuntimeError(f"Lighthouse failed on {url}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def lost_points(report: dict) -> set[str]:
    """The audits below 1 that count in a score.

    >>> audits = {"a": {"score": 0.9}, "b": {"score": 1}, "c": {"score": 0}, "d": {"score": None}}
    >>> refs = [{"id": name, "weight": 0 if name == "c" else 3} for name in audits]
    >>> lost_points({"audits": audits, "categories": {"seo": {"auditRefs": refs}}})
    {'a'}
    """
    refs = [ref for category in report["categories"].values() for ref in category["auditRefs"]]
    audits = {ref["id"]: report["audits"][ref["id"]]["score"] for ref in refs if ref["weight"]}
    return {name for name, score in audits.items() if score is not None and score < 1}


# The same notebooks in a stock book


def build_stock(chapters: list[str], folder: Path) -> Path:
    """Jupyter Book as it comes: its theme, MathJax, its scripts for widgets. Returns the built pages."""
    for chapter in chapters:
        (folder / chapter).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy((ROOT / chapter).with_suffix(".ipynb"), (folder / chapter).parent)
    toc: dict[str, object] = {"format": "jb-book", "root": chapters[0]}
    if chapters[1:]:  # an empty list would be an error
        toc["chapters"] = [{"file": chapter} for chapter in chapters[1:]]
    settings = {"execute": {"execute_notebooks": "off"}, "only_build_toc_files": True}
    (folder / "_toc.yml").write_text(json.dumps(toc))  # JSON is YAML
    (folder / "_config.yml").write_text(json.dumps(settings))
    subprocess.run([JUPYTER_BOOK, "build", folder], check=True, capture_output=True)
    return folder / "_build" / "html"


# Tables


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """
    >>> print(table("page, KB", [("intro", 3)]))
    | page | KB |
    |---|---|
    | intro | 3 |
    <BLANKLINE>
    """
    titles = head.split(", ")
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in (titles, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(titles), *lines[1:], ""])


def median(values: Iterable[float | None], digits: int = 0) -> str:
    """
    >>> median([3.0, 90.0, 4.0]), median([None, 0.25], 2), median([None])
    ('4', '0.25', '–')
    """
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.{digits}f}" if known else "–"


def p95(values: Iterable[float]) -> str:
    """
    >>> p95(range(101)), p95([])
    ('95.0', '–')
    """
    known = list(values)
    return f"{statistics.quantiles(known, n=20, method='inclusive')[-1]:.1f}" if known else "–"


def weights(found: dict[str, Weight]) -> str:
    hosts = sorted({host for weight in found.values() for host in weight.foreign})
    head = f"page, {', '.join(KINDS)}, total, requests, to other hosts"
    rows = []
    for page, weight in found.items():
        sizes = [*(weight.bytes[kind] for kind in KINDS), weight.bytes.total()]
        parts = [f"{size / 1000:.1f}" for size in sizes]
        rows.append((page, *parts, weight.requests, len(weight.foreign)))
    return WEIGHT.format(hosts=", ".join(hosts) or "none was wanted") + "\n" + table(head, rows)


def scores(found: dict[str, list[dict]], runs: int) -> str:
    def across(reports: list[dict], part: str, name: str, value: str, digits: int) -> str:
        return median([report[part][name][value] for report in reports], digits)

    head = "page, performance, accessibility, best practices, SEO, FCP, LCP, TBT, CLS"
    rows, lost = [], []
    for page, reports in found.items():
        marks = [across(reports, "categories", name, "score", 2) for name in CATEGORIES]
        times = [across(reports, "audits", name, "numericValue", 0) for name in TIMES]
        shift = across(reports, "audits", "cumulative-layout-shift", "numericValue", 2)
        rows.append((page, *marks, *times, shift))
        lost.append(f"- {page}: {', '.join(sorted(set().union(*map(lost_points, reports)))) or 'none'}")
    audits = "\n".join(["Audits that cost points in any run:", "", *lost, ""])
    return "\n".join([SCORES.format(runs=runs), table(head, rows), audits])


def times(answered: dict[str, list[dict]], dragged: dict[str, list[dict]], runs: int) -> str:
    head = f"page, widget, {', '.join(ANSWERS)}, work, p95, interval, p95"
    rows = []
    for page, visits in answered.items():
        for widget in visits[0]:
            waits = [median(visit[widget].get(what) for visit in visits) for what in ANSWERS]
            frames = [frame for visit in dragged[page] for frame in visit.get(widget, [])]
            cuts = [cut for part in (0, 1) for cut in spread([frame[part] for frame in frames])]
            rows.append((page, widget, *waits, *cuts))
    return WIDGETS.format(runs=runs) + "\n" + table(head, rows)


def spread(values: list[float]) -> tuple[str, str]:
    return median(values, 1), p95(values)


def machine(chromium: str) -> str:
    load = f"load {os.getloadavg()[0]:.1f} before, " if hasattr(os, "getloadavg") else ""
    pinned = json.loads((HERE / "package.json").read_text())["dependencies"]["lighthouse"]
    return (
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {load}Chromium {chromium}, "
        f"Lighthouse {pinned}, Python {platform.python_version()}, Jupyter Book {version('jupyter-book')}\n"
    )


# All of it


async def measure(places: dict[str, str], runs: int) -> str:
    """The whole text, for the addresses of pages by the names that the tables give them."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        head = machine(browser.version)
        weighed = {page: await weigh(browser, url) for page, url in places.items()}
        ours = {page: url for page, url in places.items() if not page.endswith(STOCK)}
        answered = {page: [await answers(browser, url) for _ in range(runs)] for page, url in ours.items()}
        dragged = {page: [await drags(browser, url) for _ in range(runs)] for page, url in ours.items()}
        await browser.close()
    reports = {page: [lighthouse(url) for _ in range(runs)] for page, url in places.items()}
    return "\n".join([head, weights(weighed), scores(reports, runs), times(answered, dragged, runs)])


def main() -> int | str:
    parser = argparse.ArgumentParser(description="The built book's pages, beside a stock Jupyter Book's.")
    parser.add_argument("--pages", nargs="+", default=[*ENTRIES, "search"], help="such as book/attention")
    parser.add_argument("--runs", type=int, default=3, help="of each measure; the weight is taken once")
    parser.add_argument("--save", action="store_true", help="also write the tables to benchmarks/results/")
    options = parser.parse_args()
    if missing := [page for page in options.pages if not (BOOK / f"{page}.html").exists()]:
        return f"There is no {missing[0]}.html in _build/html: build the book first, with make html."
    if CHROMIUM is None:
        return "The pages cannot be opened: there is no Chromium on this machine."
    print("This takes a quarter of an hour, and a machine that does nothing else.", file=sys.stderr)
    chapters = [page for page in options.pages if (ROOT / f"{page}.ipynb").exists()]
    with tempfile.TemporaryDirectory() as folder:
        stock = build_stock(chapters, Path(folder)) if chapters else BOOK
        with serve(BOOK) as our_host, serve(stock) as stock_host:
            places = {}
            for page in options.pages:
                places[page] = f"{our_host}/{page}.html"
                if page in chapters:
                    places[page + STOCK] = f"{stock_host}/{page}.html"
            text = asyncio.run(measure(places, options.runs))
    print(text, end="")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"pages-{platform.machine()}.md").write_text(text, "utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
