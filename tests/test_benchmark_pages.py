"""benchmarks/pages.py: the host compresses, bytes are counted by kind, times are those that a page takes."""

import asyncio
import doctest
import gzip
import random
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest
from playwright.async_api import async_playwright

from benchmarks import browse, host, pages
from tests.book.conftest import CHROMIUM, FLAGS
from tests.strict import require

NOISE = random.Random(0).randbytes(2000)  # a font for those who only weigh it
FILES = {
    "page.css": b"@font-face { font-family: F; src: url(font.woff2); } p { font-family: F; color: #111; }"
    * 30,
    "page.js": b"document.body.dataset.ready = 'yes'; // that is all\n" * 50,
    "font.woff2": NOISE,
    "dot.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>' + b"<!-- dot -->" * 50,
}
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>T</title><link rel="icon" href="data:,">'
    '<link rel="stylesheet" href="page.css?v=1"><script defer src="page.js"></script>'
)
WIDGET = """
<div class="widget"><div role="group" aria-label="Slow"><p>text</p>
<button id="idle">Idle</button> <button id="late">Late</button> <button id="load">Load the model</button>
<svg width="300" height="300"><g class="tl-handle" role="slider" tabindex="0" aria-label="h">
<circle class="tl-hit" cx="150" cy="150" r="100"/></g></svg></div></div>
<script>
const [text, handle] = [document.querySelector("p"), document.querySelector(".tl-handle")];
late.onclick = () => setTimeout(() => { text.textContent = "late"; }, 70);
load.onclick = () => {
  text.textContent = "loading";
  setTimeout(() => { load.outerHTML = "<b class='tl-picture'>picture</b>"; }, 200);
};
handle.onkeydown = () => { text.textContent = "key"; };
handle.onpointermove = () => {
  for (const end = performance.now() + 5; performance.now() < end;);
  handle.setAttribute("aria-valuetext", performance.now());
};
</script>
"""


@pytest.fixture
def address(tmp_path):
    foreign = '<script src="https://cdn.example/a.js"></script><img src="https://cdn.example/b.png" alt="b">'
    blob = 'new Blob(["1"], { type: "text/javascript" })'
    inline = f"<script>import(URL.createObjectURL({blob}))</script>"  # does not travel
    text = {
        "page.html": f"{HEAD}<body><p>text {'word ' * 99}<img src='dot.svg' alt='dot'>{inline}{foreign}",
        "widget.html": f"{HEAD}<body>{WIDGET}",
    }
    for name, content in (FILES | {name: words.encode() for name, words in text.items()}).items():
        (tmp_path / name).write_bytes(content)
    with host.serve(tmp_path) as address:
        yield address


def browsing(measure, url):
    """What ``measure`` finds there; in a thread, as another test's browser may hold the loop of this one."""
    require(CHROMIUM is not None, "nothing was measured in a browser: there is no Chromium on this machine")

    async def run():
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            found = await measure(browser, url)
            await browser.close()
            return found

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def get(url, **headers):
    with urlopen(Request(url, headers=headers)) as answer:
        return answer.headers, answer.read()


# The host


def test_text_travels_compressed_to_those_who_can_read_that(address):
    headers, body = get(f"{address}/page.js", **{"Accept-Encoding": "gzip, br"})
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert headers["Content-Encoding"] == "gzip" and gzip.decompress(body) == FILES["page.js"]
    headers, body = get(f"{address}/page.js")
    assert "Content-Encoding" not in headers and body == FILES["page.js"]
    headers, body = get(f"{address}/font.woff2", **{"Accept-Encoding": "gzip"})
    assert (headers["Content-Type"], "Content-Encoding" in headers, body) == ("font/woff2", False, NOISE)


def test_only_an_address_that_names_its_content_is_kept_for_long(address):
    assert "immutable" in get(f"{address}/page.css?v=1")[0]["Cache-Control"]
    assert "immutable" not in get(f"{address}/page.css")[0]["Cache-Control"]


def test_an_edited_file_is_served_anew(address, tmp_path):
    before = get(f"{address}/page.js")[1]
    (tmp_path / "page.js").write_bytes(b"// other")
    assert get(f"{address}/page.js")[1] == b"// other" != before


def test_the_headers_that_a_build_asks_for_are_sent(address, tmp_path):
    (tmp_path / "_headers").write_text("/*\n  X-Content-Type-Options: nosniff\n")
    assert get(f"{address}/page.js")[0]["X-Content-Type-Options"] == "nosniff"
    (tmp_path / "_headers").write_text("/*.svg\n  Cache-Control: public, max-age=9\n")
    assert get(f"{address}/dot.svg")[0].get_all("Cache-Control") == ["public, max-age=9"]


# What the browser measures


@pytest.mark.browser
def test_bytes_are_counted_by_kind_as_they_travel(address):
    weight = browsing(browse.weigh, f"{address}/page.html")
    page = get(f"{address}/page.html")[1]
    sent = {
        "html": len(gzip.compress(page)),
        "style": len(gzip.compress(FILES["page.css"])),
        "script": len(gzip.compress(FILES["page.js"])),
        "font": 2000,
        "image": len(gzip.compress(FILES["dot.svg"])),
    }
    heads = {kind: weight.bytes[kind] - size for kind, size in sent.items()}
    assert weight.bytes.keys() == sent.keys() and all(100 < head < 400 for head in heads.values()), heads
    assert weight.requests == 5 and weight.foreign == ["cdn.example"] * 2


@pytest.mark.browser
def test_an_answer_is_timed_from_the_event_to_the_paint(address):
    times = browsing(browse.answers, f"{address}/widget.html")["Slow"]
    assert times.keys() == {"load", "picture", "click", "key"}
    assert 0 < times["load"] < times["picture"] and 200 < times["picture"]
    assert times["click"] > 70  # Idle never answers: Late is measured
    assert 0 < times["key"]


@pytest.mark.browser
def test_a_frame_costs_what_the_page_does_in_it(address):
    frames = browsing(browse.drags, f"{address}/widget.html")["Slow"]
    work, interval = (sorted(part) for part in zip(*frames, strict=True))
    # A busy machine makes few frames, and some without an event of the mouse.
    assert len(frames) > 10 and work[-len(work) // 4] > 5 and interval[-len(interval) // 4] > 15


def test_work_belongs_to_the_frame_whose_task_came_before():
    def event(name, ts, dur=0, tid=1):
        return {"name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur}

    trace = [
        *(event("RunTask", 1000, 3000), event("FireAnimationFrame", 2000, 5)),
        event("RunTask", 5000, 500),
        event("RunTask", 6000, 9000, tid=2),  # another thread's work
        *(event("RunTask", 17000, 4000), event("FireAnimationFrame", 18000, 5)),
        *(event("RunTask", 34000, 7000), event("FireAnimationFrame", 35000, 5)),  # not over yet
    ]
    assert browse.frames(trace) == [(3.5, 16.0), (4.0, 17.0)]


# The tables


def report(performance, seo):
    numbers = {name: {"score": 1, "numericValue": 1000 * performance} for name in pages.TIMES}
    audits = {**numbers, "cumulative-layout-shift": {"score": 1, "numericValue": 0.02}}
    audits["is-crawlable"] = {"score": seo}
    categories = {name: {"score": 1, "auditRefs": []} for name in pages.CATEGORIES}
    categories["performance"]["score"] = performance
    categories["seo"] = {"score": seo, "auditRefs": [{"id": "is-crawlable", "weight": 4}]}
    return {"audits": audits, "categories": categories}


def test_the_scores_are_medians_and_name_what_costs_points():
    reports = [report(0.5, 1), report(0.99, 1), report(0.9, 0.4)]
    text = pages.scores({"book/intro": reports, "search": [report(1, 1)] * 3}, runs=3)
    assert "| book/intro | 0.90 | 1.00 | 1.00 | 1.00 | 900 | 900 | 900 | 0.02 |" in text
    assert "- book/intro: is-crawlable\n- search: none" in text and "median of 3" in text


def test_the_weights_add_up_and_foreign_hosts_are_named():
    weight = browse.Weight(browse.Counter(html=1500, font=26000), 3, ["cdn.example", "cdn.example"])
    text = pages.weights({"book/intro": weight})
    assert "| book/intro | 1.5 | 0.0 | 0.0 | 26.0 | 0.0 | 0.0 | 27.5 | 3 | 2 |" in text
    assert "not counted: cdn.example." in text


def test_the_times_are_medians_of_all_visits():
    visits = [{"A": {"click": ms}} for ms in (10, 30, 200)]
    drags = [{"A": [(4, 16), (6, 17)]}, {"A": [(5, 18)]}, {"A": []}]
    text = pages.times({"book/intro": visits}, {"book/intro": drags}, runs=3)
    assert re.search(r"\| book/intro \| A \| – \| – \| 30 \| – \| 5.0 \| 5.9 \| 17.0 \| 17.9 \|", text)


def test_the_small_functions_do_what_they_say():
    assert doctest.testmod(pages).failed == doctest.testmod(host).failed == 0
    assert doctest.testmod(pages).attempted > 4
