"""The book on the train: what was visited stays readable, and nobody is stuck with an old page."""

import shutil
from urllib.parse import urlparse

import pytest

from book._ext import offline

from .conftest import served

pytestmark = pytest.mark.browser
HOST = "book.test"  # any name but localhost, where authors work and nothing is kept


@pytest.fixture
def copy(book, tmp_path):
    """A built book that a test may change."""
    return shutil.copytree(book, tmp_path / "site")


@pytest.fixture
def reader(launch, copy):
    """A browser, and the port at which it takes ``http://book.test`` for a secure host of the book."""
    with served(copy) as address:
        port = urlparse(address).port
    browser = launch(
        f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--unsafely-treat-insecure-origin-as-secure=http://{HOST}:{port}",
    )
    page = browser.new_page()
    page.set_default_timeout(20_000)
    yield page, port
    browser.close()


def kept(page) -> dict[str, list[str]]:
    """The names of the caches, and the files in each."""
    return page.evaluate(
        """async () => Object.fromEntries(await Promise.all((await caches.keys()).map(async (name) =>
             [name, (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname)])))"""
    )


def wait_for(page, *files: str, instead_of: str = "") -> None:
    """Until one version is kept, and not the one that it comes instead of, with these files in it."""
    for _ in range(100):
        versions = kept(page)
        if len(versions) == 1 and instead_of not in versions and set(files) <= set(*versions.values()):
            return
        page.wait_for_timeout(200)
    pytest.fail(f"waited in vain for {files}; there is {versions}")


def test_visited_pages_are_read_without_a_network(copy, reader):
    page, port = reader
    with served(copy, port):
        page.goto(f"http://{HOST}:{port}/book/attention.html")
        named = "(all) => all.map((element) => new URL(element.src ?? element.href).pathname)"
        files = page.eval_on_selector_all("img, script[src], link[rel=stylesheet]", named)
        assert len(files) > 10
        wait_for(page, "/book/attention.html", "/book/intro.html", "/search.html", "/searchindex.js", *files)
    page.goto(f"http://{HOST}:{port}/book/attention.html#exercises")
    page.reload()
    page.locator(".tl-widget").first.wait_for()
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('1em KaTeX_Main'))")
    picture = page.locator("img").last
    picture.scroll_into_view_if_needed()
    page.wait_for_function("(img) => img.complete && img.naturalWidth > 0", arg=picture.element_handle())
    page.get_by_role("searchbox").fill("softmax")
    page.get_by_role("searchbox").press("Enter")
    page.locator("#search-results a", has_text="Attention").first.click()
    page.wait_for_url("**/book/attention.html*")
    page.goto(f"http://{HOST}:{port}/book/references.html")
    assert page.locator("h1").inner_text() == "This page is not on your device"
    page.get_by_role("link", name="Home").click()
    page.wait_for_url("**/book/intro.html")
    assert page.locator("#main h1").is_visible()


def test_a_new_version_takes_the_place_of_the_old(copy, reader):
    page, port = reader
    with served(copy, port):
        for name in ("exercises", "references"):
            page.goto(f"http://{HOST}:{port}/book/{name}.html")
            wait_for(page, f"/book/{name}.html")
        (before,) = kept(page)
        publish_again(copy, "exercises", "references")
        page.goto(f"http://{HOST}:{port}/book/references.html")
        assert page.locator("h1").inner_text() == "New"  # at once, from the network
        wait_for(page, "/book/exercises.html", "/book/references.html", instead_of=before)
    page.goto(f"http://{HOST}:{port}/book/exercises.html")  # never visited in its new form
    assert page.locator("h1").inner_text() == "New"
    assert page.evaluate("getComputedStyle(document.querySelector('.frame')).display") == "grid"


def publish_again(folder, *names: str) -> None:
    for name in names:
        page = folder / "book" / f"{name}.html"
        text = page.read_text("utf8")
        start, end = text.index("<h1>") + 4, text.index("</h1>")
        page.write_text(text[:start] + "New" + text[end:], "utf8")
    worker = folder / offline.WORKER
    old = worker.read_text("utf8").split('"transformer-lab ')[1].split('"')[0]
    worker.write_text(worker.read_text("utf8").replace(old, offline.version(folder)), "utf8")


def test_the_version_follows_every_file_but_the_worker(copy):
    before = offline.version(copy)
    (copy / offline.WORKER).write_text("another")
    assert offline.version(copy) == before
    (copy / "_static" / "book.css").write_text("")
    assert offline.version(copy) != before


def test_nothing_is_kept_of_a_book_that_is_being_written(visit):
    page = visit().open("book/intro.html")
    page.wait_for_timeout(300)
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then((all) => all.length)") == 0
    assert page.evaluate("caches.keys()") == []
