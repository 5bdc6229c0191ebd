"""The built book as readers meet it: in a browser, by keyboard, on a phone, from a file, with no network."""

import gzip
import re
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import urlopen

import pytest

from book._ext.policy import FIRST_PAINT, policy
from tools import links
from tools.address import of_book
from transformer_lab import notation

from .accessibility import rules_of, violations
from .conftest import ROOT, build

ENTRIES = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
PAGES = [f"{entry}.html" for entry in ENTRIES] + ["search.html"]
CHAPTERS = [f"{entry}.html" for entry in ENTRIES if (ROOT / f"{entry}.ipynb").exists()]
WITH_WIDGETS = sorted({*CHAPTERS, "book/intro.html"} - {"book/claims.html"})  # which has the table beside it
FLATTEN = """() => {
    for (const code of document.querySelectorAll("pre")) code.textContent = code.textContent;
    for (const formula of document.querySelectorAll(".katex-html")) formula.textContent = "formula";
}"""  # thousands of spans, of which axe looks at each for seconds: their colours have a test of their own
ALL_LAID_OUT = """() => {
    for (const part of document.querySelectorAll("main section")) part.style.contentVisibility = "visible";
}"""
STATE = "application/vnd.jupyter.widget-state+json"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def soups(book):
    return links.read(book)


# What the files say


def test_every_link_leads_somewhere(book, soups):
    assert links.lost(book, soups, of_book()) == []


def test_every_link_out_is_secure_and_says_that_it_leads_out(soups):
    links = [a for soup in soups.values() for a in soup.find_all("a", href=re.compile("^[a-z]+:"))]
    assert {a["href"] for a in links if not a["href"].startswith("https://")} == set()
    everything = {tag["href"] for soup in soups.values() for tag in soup.find_all(href=True)}
    assert [href for href in everything if "example.org" in href] == []  # a placeholder leads nowhere
    assert [a["href"] for a in links if not {"external", "noopener"} <= set(a.get("rel", ()))] == []


def test_no_page_holds_code_that_the_policy_does_not_name(soups):
    for path, soup in soups.items():
        tag = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
        assert tag["content"] == policy(widgets=bool(soup.select(".widget"))), path.name
        inline = [tag.string for tag in soup.find_all("script", src=False, type=False)]
        leads_on = soup.find("meta", attrs={"http-equiv": "refresh"}) is not None
        assert inline == [FIRST_PAINT] * (not leads_on), path.name
        assert all(tag["type"].endswith("json") for tag in soup.find_all("script", type=True)), path.name
        assert soup.find_all("style") == [] and "javascript:" not in str(soup), path.name
        handlers = [name for tag in soup.find_all(True) for name in tag.attrs if name.startswith("on")]
        assert handlers == [], path.name


def test_every_picture_is_described(soups):
    for path, soup in soups.items():
        for picture in soup.find_all("img"):
            alt = picture.get("alt", "").strip()
            assert len(alt.split()) > 2 and Path(picture["src"]).name not in alt, (path.name, picture["src"])


@pytest.mark.parametrize("name", PAGES)
def test_the_footer_says_when_and_with_what(name, book, soups):
    footer = soups[book / name].footer.get_text(" ", strip=True)
    assert re.search(r"last reproduced on \d{4}-\d\d-\d\d with Python 3\.\d+\.\d+, PyTorch \d", footer), (
        footer
    )


def test_the_notation_page_shows_the_alphabet_of_the_package(book, soups):
    rows = (
        soups[book / "book" / "notation.html"].find("section", id="letters").find("table").find_all("tr")[1:]
    )
    cells = [[cell.get_text(strip=True) for cell in row.find_all("td")] for row in rows]
    assert dict(cells) == notation.LETTERS


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_can_be_taken_home(name, book, soups):
    (link,) = {a["href"] for a in soups[book / name].find_all("a", download=True)}
    notebook = (book / name).parent / link
    assert notebook.read_bytes() == (ROOT / name).with_suffix(".ipynb").read_bytes()


def test_the_list_of_pages_with_widgets_is_whole(book, soups):
    assert sorted(name for name in PAGES if soups[book / name].select(".widget")) == WITH_WIDGETS


def test_scripts_and_styles_come_only_where_they_are_used(book, soups):
    for name in PAGES:
        soup = soups[book / name]
        files = {Path(urlparse(tag["src"]).path).name for tag in soup.find_all("script", src=True)}
        styles = {Path(urlparse(tag["href"]).path).name for tag in soup.find_all("link", rel="stylesheet")}
        assert ("widget-host.js" in files) == bool(soup.select(".widget")), name
        assert ("katex.css" in styles) == bool(soup.select(".katex")), name
        assert ("exercises.js" in files) == bool(soup.select(".ticks")), name
        assert ("claims.js" in files) == bool(soup.select("table.claims")), name
        assert [tag["type"] for tag in soup.select("script[type*=widget-state]")] == [STATE] * bool(
            soup.select(".widget")
        ), name
        if name != "search.html":
            assert files <= {"book.js", "claims.js", "exercises.js", "widget-host.js"}, name
        assert styles <= {"book.css", "katex.css"}, name


def test_a_second_build_reads_nothing_and_writes_nothing(book):
    pages = {path: path.stat().st_mtime_ns for path in book.glob("book/*.html")}
    katex = ROOT / "_build" / "katex" / "node_modules" / "katex"
    installed = katex.stat().st_mtime_ns
    assert "0 added, 0 changed, 0 removed" in build()
    assert {path: path.stat().st_mtime_ns for path in pages} == pages
    assert katex.stat().st_mtime_ns == installed


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [":root", '[data-theme="dark"]'])
def test_every_colour_of_text_stands_out_from_both_grounds(theme):
    css = (ROOT / "book" / "_assets" / "book.css").read_text()
    block = css[css.index(f"{theme} {{") :].partition("}")[0]
    palette = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    texts = [name for name in palette if name.endswith(("text", "muted", "link")) or name.startswith("code-")]
    assert len(texts) == 13
    for name in texts:
        for ground in ("tl-background", "tl-surface"):
            low, high = sorted((luminance(palette[name]), luminance(palette[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


# What a browser shows


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_stands_in_a_reader_s_way(name, width, theme, visit):
    page = visit(width=width, theme=theme).open(name)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.evaluate(FLATTEN)
    assert violations(page, rules=rules_of(theme)) == {}


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_phone_never_scrolls_sideways(name, visit):
    page = visit(width=360).open(name)
    page.evaluate(ALL_LAID_OUT)  # what waits out of sight is clipped, and would hide that it is too wide
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("name", PAGES)
def test_a_page_works_from_a_file(name, visit):
    page = visit().open(name, from_file=True)
    assert page.locator("h1").is_visible()
    formulas = page.locator(".katex-html")
    if formulas.count():
        assert formulas.first.is_visible()
        assert page.evaluate("document.fonts.check('1em KaTeX_Main')")


def compressed(*files: bytes) -> int:
    return sum(len(gzip.compress(file)) for file in files)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(name, width, visit, soups, book):
    """Everything a reader waits for, compressed, a widget's own module too; models come on request."""
    reader = visit(width=width)
    reader.open(name)
    inline = [script.string.encode() for script in soups[book / name].find_all("script", src=False)]
    scripts = [path.read_bytes() for path in reader.loaded if path.suffix == ".js"]
    assert 500 < compressed(*inline, *scripts) <= 90_000
    assert 2_000 < compressed(*(path.read_bytes() for path in reader.loaded)) <= 350_000
    assert len(reader.loaded) == len(set(reader.loaded)) <= 25
    assert not [path for path in reader.loaded if "models" in path.parts]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", [*CHAPTERS, "book/intro.html", "book/notation.html"])
def test_nothing_moves_when_fonts_scripts_and_widgets_come_late(name, width, visit):
    reader = visit(width=width)
    reader.page.add_init_script(
        """globalThis.shift = 0;
        const add = (list) => { for (const { value } of list.getEntries()) globalThis.shift += value; };
        new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });"""
    )

    def late(route):
        reader.page.wait_for_timeout(250)
        route.continue_()

    for kind in (".woff2", ".js"):
        reader.page.route(f"**/*{kind}*", late)
    page = reader.open(name)
    page.wait_for_timeout(500)
    assert page.evaluate("document.fonts.check('1em KaTeX_Main')")
    assert page.evaluate("globalThis.shift") < 0.01


@pytest.mark.parametrize("from_file", [False, True])
def test_the_policy_stops_what_it_does_not_name(from_file, visit):
    reader = visit()
    page = reader.open("book/attention.html", from_file=from_file)
    module = """export let run;
      try { run = Function("return true")(); } catch { run = false; }"""
    run, stopped = page.evaluate(
        """async (module) => {
          const stopped = new Set();
          addEventListener("securitypolicyviolation", (event) => stopped.add(event.effectiveDirective));
          const add = (tag, parts) => document.head.append(Object.assign(document.createElement(tag), parts));
          add("script", { textContent: "globalThis.taken = true" });
          add("script", { src: "https://elsewhere.test/x.js" });
          add("style", { textContent: "body { color: red }" });
          document.body.setAttribute("onclick", "globalThis.taken = true");
          document.body.click();
          new Image().src = "https://elsewhere.test/pixel.png";
          await fetch("https://elsewhere.test/").catch(() => {});
          const { run } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
          await new Promise((resolve) => setTimeout(resolve, 200));
          return [globalThis.taken ?? run, [...stopped].sort()];
        }""",
        module,
    )
    kinds = ["connect-src", "img-src", "script-src", "script-src-attr", "script-src-elem", "style-src-elem"]
    assert (run, stopped) == (False, kinds)
    assert len(reader.complaints) >= len(kinds)
    reader.complaints.clear()


def test_hosts_are_asked_for_the_same_policy(address):
    with urlopen(f"{address}/book/intro.html") as answer:
        assert answer.headers["Content-Security-Policy"].startswith(policy(widgets=True))
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_no_page_keeps_cookies(visit):
    reader = visit()
    for name in PAGES:
        reader.open(name)
    assert reader.page.context.cookies() == []


def test_the_front_door_leads_to_the_home_page(visit, address):
    page = visit().page
    page.goto(f"{address}/", wait_until="commit")  # it moves on by itself: there is nothing to wait for here
    page.wait_for_url("**/book/intro.html")


@pytest.mark.parametrize("from_file", [False, True])
def test_the_search_finds_a_word(from_file, visit):
    page = visit().open("book/notation.html", from_file=from_file)
    page.get_by_role("searchbox").fill("softmax")
    page.get_by_role("searchbox").press("Enter")
    page.locator("#search-results a", has_text="Notation").first.click()
    page.wait_for_url("**/book/notation.html*")


def test_the_theme_is_kept_from_page_to_page(visit):
    reader = visit(theme="light")
    button = reader.open("book/intro.html").get_by_role("button", name="Dark theme")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    page = reader.open("book/notation.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="Dark theme").press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_the_menu_opens_and_closes_by_keyboard_on_a_phone(visit):
    page = visit(width=390).open("book/intro.html")
    contents = page.get_by_role("button", name="Contents")
    menu = page.locator("#menu")
    assert not menu.is_visible()
    contents.press("Enter")
    assert menu.is_visible() and contents.get_attribute("aria-expanded") == "true"
    menu.get_by_role("link", name="Notation").press("Escape")
    assert not menu.is_visible() and contents.get_attribute("aria-expanded") == "false"
    assert contents.evaluate("(button) => document.activeElement === button")
    contents.press("Enter")
    menu.get_by_role("link", name="Notation").click()
    page.wait_for_url("**/book/notation.html")


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_is_copied_as_it_stands(name, visit):
    page = visit().open(name)
    block = page.locator(".cell_input .highlight").first
    block.hover()
    block.get_by_role("button", name="Copy this code").click()
    assert page.evaluate("navigator.clipboard.readText()") == block.locator("pre").inner_text().rstrip()


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", CHAPTERS)
def test_sections_rest_out_of_sight_and_nothing_jumps(name, width, visit):
    page = visit(width=width).open(name)
    page.wait_for_function("() => document.querySelectorAll('.rests').length > 5")
    tall = page.evaluate("document.documentElement.scrollHeight")
    page.locator("a[href='#exercises']").first.evaluate("(link) => link.click()")
    page.wait_for_function(
        "() => Math.abs(document.getElementById('exercises').getBoundingClientRect().top) < 90"
    )
    page.wait_for_function("() => document.querySelector('.rail [aria-current]')?.hash === '#exercises'")
    assert page.evaluate("document.documentElement.scrollHeight") == pytest.approx(tall, abs=2)
    page.evaluate("document.querySelectorAll('.rests').forEach((s) => s.classList.remove('rests'))")
    assert page.evaluate("document.documentElement.scrollHeight") == pytest.approx(tall, abs=2)


@pytest.mark.parametrize("name", PAGES)
def test_the_first_key_press_leads_past_the_contents(name, visit):
    page = visit().open(name)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("width", [1440, 900, 768, 390])
@pytest.mark.parametrize("name", WITH_WIDGETS)
def test_every_widget_answers_the_keyboard_and_has_its_place(name, width, visit):
    page = visit(width=width).open(name)
    for widget in page.locator(".widget").all():
        reserved = float(widget.evaluate("(w) => parseFloat(getComputedStyle(w).minHeight)"))
        height = widget.locator(".tl-widget").bounding_box()["height"]
        assert widget.locator("..").bounding_box()["height"] == pytest.approx(max(height, reserved), abs=2)
        assert -50 <= height - reserved <= 25, "set HEIGHTS in book/_ext/widget.py"
        before = widget.aria_snapshot()
        control = widget.locator("input, button, select, [tabindex='0']").first
        control.press("ArrowRight")
        control.press("Enter")
        page.wait_for_timeout(100)
        assert widget.aria_snapshot() != before


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_a_page_can_be_read(name, chromium, address):
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 390, "height": 900})
    page = context.new_page()
    page.goto(f"{address}/{name}")
    assert page.locator("h1").is_visible() and page.locator("#menu").is_visible()
    for notice in page.locator(".widget noscript").all():
        assert "needs JavaScript" in notice.inner_text()
    context.close()
