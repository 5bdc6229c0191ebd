"""The book once it is public: one address for each page, a map of all; old and wrong ones lead on."""

import json
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlparse
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image

from book._ext import publish
from tools import address, links, social_card

from .conftest import ROOT, build_small

REPOSITORY = "https://github.com/Someone/transformer-lab"
ADDRESS = "https://someone.github.io/transformer-lab/"
CARD = ROOT / "book" / "_assets" / "card.png"
HOME = """# A small book

Its first paragraph,
in two lines.

[A part](part.md), a [page](https://somewhere.test/page) elsewhere.
"""
PART = """# A part

What "it" says.

## Second

The end.
"""


def chapter() -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A chapter\n\nText.")])
    versions = {"python": "3.13.1", "torch": "2.0.0"}
    notebook.metadata.transformer_lab = {"reproduced": "2024-02-29", "versions": versions}
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.writes(notebook)


@pytest.fixture(scope="module")
def sample(book, tmp_path_factory):
    """A small book whose repository, and nothing else, is public; one of its pages was moved."""
    folder = tmp_path_factory.mktemp("sample")
    (folder / "book").mkdir()
    for name, text in {"home.md": HOME, "part.md": PART, "book/chapter.ipynb": chapter()}.items():
        (folder / name).write_text(text)
    moved = {"book/old part": "part"}
    done = build_small(
        folder, "home", "part", "book/chapter", repository=REPOSITORY, moved_pages=moved, html_title="S"
    )
    assert done.returncode == 0, done.stdout
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def heads(sample):
    """What the head of each page says, by its path."""
    return {path.relative_to(sample).as_posix(): said(soup) for path, soup in links.read(sample).items()}


def said(soup: BeautifulSoup) -> dict[str, str]:
    tags = soup.find_all("meta", content=True)
    found = {tag.get("property") or tag.get("name") or tag.get("http-equiv"): tag["content"] for tag in tags}
    return found | {tag["rel"][0]: tag["href"] for tag in soup.find_all("link", rel="canonical")}


# One address for each page


@pytest.mark.parametrize(
    ("page", "where"),
    [
        ("home.html", "home.html"),
        ("index.html", "home.html"),
        ("book/chapter.html", "book/chapter.html"),
        ("part.html", "part.html"),
        ("book/old part.html", "part.html"),
    ],
)
def test_a_page_names_the_address_at_which_it_is_to_be_found(page, where, heads):
    assert heads[page]["canonical"] == heads[page]["og:url"] == ADDRESS + where


def test_neither_the_search_nor_the_page_for_wrong_addresses_has_one(heads):
    assert [page for page, head in heads.items() if "canonical" not in head] == ["404.html", "search.html"]


def test_who_passes_a_page_on_shows_its_title_its_first_paragraph_and_the_card(heads, sample):
    for page in ("home.html", "index.html"):
        head = heads[page]
        assert (head["og:title"], head["og:description"]) == (
            "A small book",
            "Its first paragraph, in two lines.",
        )
    assert heads["part.html"]["og:description"] == heads["part.html"]["description"] == "What “it” says."
    card = heads["part.html"]["og:image"]
    assert (sample / card.removeprefix(ADDRESS)).read_bytes() == CARD.read_bytes()
    size = [int(heads["part.html"][f"og:image:{side}"]) for side in ("width", "height")]
    assert size == list(shape(CARD))


def test_the_map_holds_every_page_and_when_its_outputs_were_made(sample):
    urls = ElementTree.parse(sample / "sitemap.xml").getroot()
    texts = [[part.text for part in url] for url in urls]
    chapter = [f"{ADDRESS}book/chapter.html", "2024-02-29"]
    assert texts == [chapter, [f"{ADDRESS}home.html"], [f"{ADDRESS}part.html"]]
    assert {part.tag.partition("}")[2] for url in urls for part in url} == {"loc", "lastmod"}
    lines = (sample / "robots.txt").read_text().splitlines()
    assert lines[-1] == f"Sitemap: {ADDRESS}sitemap.xml" and "Disallow" not in str(lines)


def test_nothing_names_an_address_that_is_a_placeholder(book):
    assert [name for name in ("sitemap.xml", "robots.txt") if (book / name).exists()] == []
    for path in (book / "index.html", book / "book" / "intro.html"):
        assert "canonical" not in path.read_text("utf8") and "og:" not in path.read_text("utf8")


def test_every_link_of_the_sample_arrives(sample):
    assert links.lost(sample, links.read(sample), ADDRESS) == []


def test_the_repository_says_where_the_pages_are_and_the_owner_may_say_otherwise(tmp_path):
    config = tmp_path / "_config.yml"
    for settings, where in (
        ({"repository": {"url": REPOSITORY}}, ADDRESS),
        ({"repository": {"url": REPOSITORY}, "html": {"baseurl": "https://a.test/b"}}, "https://a.test/b/"),
    ):
        config.write_text(yaml.safe_dump(settings))
        assert address.of_book(config) == where


def test_another_host_must_be_told_where_the_pages_are():
    options = {"repository_url": "https://codeberg.org/a/b"}
    config = SimpleNamespace(html_theme_options=options, html_baseurl="")
    with pytest.raises(SystemExit, match=r"^html\.baseurl in _config\.yml must say .* got https://codeberg"):
        publish.settle_address(None, config)
    config.html_baseurl = "https://a.codeberg.page/b"
    publish.settle_address(None, config)
    assert config.html_baseurl == "https://a.codeberg.page/b/"


def test_only_pictures_named_by_what_they_show_are_kept_for_good(book):
    pictures = [path.stem for path in (book / "_images").iterdir()]
    assert pictures and [name for name in pictures if not re.fullmatch("[0-9a-f]{64}", name)] == []


# No dead ends


@pytest.mark.parametrize(
    ("moved", "says"),
    [
        ({"part": "home"}, "sends part to home, but part is a page still: take one of the two out"),
        ({"old": "lost"}, r"sends old to lost, but _toc\.yml has no such page"),
        ({"old": "older", "older": "home"}, r"sends old to older, but _toc\.yml has no such page"),
    ],
)
def test_a_move_that_leads_nowhere_stops_the_build(moved, says):
    app = SimpleNamespace(config=SimpleNamespace(moved_pages=moved))
    with pytest.raises(SystemExit, match=says):
        publish.check_moved(app, SimpleNamespace(found_docs={"home", "part"}))


def test_no_address_of_a_release_is_lost():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    pages = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
    published = (ROOT / "book" / "addresses.txt").read_text().split()
    assert len(published) > 20
    assert [page for page in published if page not in {*pages, *config["moved_pages"]}] == [], (
        "send these on with moved_pages in _config.yml"
    )


class Pages(SimpleHTTPRequestHandler):
    """The sample at its place on a host, which answers a wrong address with 404.html."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(urlparse(ADDRESS).path.rstrip("/")))

    def send_error(self, code: int, *_: object) -> None:
        body = Path(self.directory, "404.html").read_bytes()
        BaseHTTPRequestHandler.send_response(self, code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def host(sample):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(sample))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{urlparse(ADDRESS).path}"
        server.shutdown()


@pytest.mark.browser
@pytest.mark.parametrize("scripts", [True, False])
def test_an_old_address_leads_to_the_same_place_on_the_new_page(scripts, chromium, host):
    page = chromium.new_page(java_script_enabled=scripts)
    page.goto(f"{host}book/old%20part.html#second", wait_until="commit")
    page.wait_for_url(f"{host}part.html{'#second' if scripts else ''}")
    assert page.locator("h1").is_visible()
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("wrong", ["nothing.html", "deep/er/nothing"])
def test_a_wrong_address_shows_the_contents_and_what_is_there_works(wrong, chromium, host):
    page = chromium.new_page()
    failed = []
    page.on("response", lambda answer: answer.status >= 400 and failed.append(answer.url))
    page.goto(host + wrong)
    assert page.locator("h1").inner_text() == "There is no such page"
    assert failed == [host + wrong]  # its style and its scripts are there
    page.get_by_role("link", name="A chapter").click()
    page.wait_for_url(f"{host}book/chapter.html")
    page.context.close()


# The card


def shape(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def shrunk(path: Path) -> np.ndarray:
    """What is seen from afar, so that the fonts of two machines make no difference."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((24, 13)), dtype=float)


@pytest.mark.browser
def test_the_card_is_small_and_what_the_tool_draws(chromium, tmp_path):
    assert shape(CARD) == (1200, 630) and CARD.stat().st_size < 60_000
    social_card.draw(chromium, tmp_path / "card.png")
    assert shape(tmp_path / "card.png") == (1200, 630)
    assert np.abs(shrunk(tmp_path / "card.png") - shrunk(CARD)).mean() < 2  # of 255


# Links to other hosts


class Elsewhere(BaseHTTPRequestHandler):
    """Another host, with all that can be wrong with one; some answer only GET."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        name = urlparse(self.path).path.strip("/")
        if name == "slow":
            self.server.released.wait(20)
        moved = name == "moved"
        code = {"moved": 301, "gone": 404, "refused": 403}.get(name, 200)
        if name == "only-get" and self.command == "HEAD":
            code = 405
        body = b'<p id="here">text</p>'
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        if moved:
            self.send_header("Location", "/fine")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere():
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.released.set()
        server.shutdown()


def test_links_to_other_hosts_are_visited_those_in_raw_html_too(book, tmp_path, elsewhere):
    names = ("fine", "only-get", "moved", "gone", "refused", "slow", "fine#here", "fine#nowhere", "skipped")
    text = "".join(f"\n- [{name}]({elsewhere}/{name})" for name in names)
    raw = f'\n\n<p><a class="x" href="{elsewhere}/gone?raw">raw</a></p>\n'
    (tmp_path / "page.md").write_text(f"# A page\n{text}{raw}")
    done = build_small(
        tmp_path,
        "page",
        builder="linkcheck",
        linkcheck_ignore=[f"{elsewhere}/skipped"],
        linkcheck_timeout=1,
        linkcheck_retries=1,
    )
    output = (tmp_path / "_build" / "html" / "output.json").read_text().splitlines()
    found = {row["uri"].removeprefix(f"{elsewhere}/"): row["status"] for row in map(json.loads, output)}
    assert found == {
        **dict.fromkeys(("fine", "only-get", "fine#here"), "working"),
        **dict.fromkeys(("gone", "refused", "fine#nowhere", "gone?raw"), "broken"),
        **{"moved": "redirected", "slow": "broken", "skipped": "ignored"},
    }
    assert done.returncode != 0


def test_every_host_that_is_passed_over_is_one_that_the_book_links_to(book):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    pages = [path.read_text("utf8") for path in book.rglob("*.html")]
    hrefs = {href for page in pages for href in re.findall(r'href="(https://[^"]+)"', page)}
    for pattern in config["linkcheck_ignore"]:
        assert any(re.fullmatch(pattern, href) for href in hrefs), pattern
