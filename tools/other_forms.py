"""The book in other forms, made from its built pages: one PDF, or one EPUB.

    python tools/other_forms.py pdf     # _build/transformer-lab.pdf
    python tools/other_forms.py epub    # _build/transformer-lab.epub

Chromium (or Chrome) prints the PDF and takes the pictures that stand for widgets.
"""

import argparse
import datetime
import html
import itertools
import json
import re
import shutil
import sys
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import unquote, urljoin, urlparse

import yaml
from bs4 import BeautifulSoup, Tag
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from pypdf import PdfReader

if __package__:
    from .address import is_placeholder, of_book
else:  # run as a file, as above
    from address import is_placeholder, of_book

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "_build" / "html"
FORMS = ROOT / "book" / "_forms"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
# What answers, counts or folds in the page, and a section that only explains such things.
LEFTOVERS = """.tools, .turn, .tick, .ticks, .notice, .forget, .prediction, .claims-controls, .headerlink,
    noscript, script, details.hide > summary, section:has(> .overview)"""
AT_THE_END = {"hints": "Hint", "solutions": "Solution"}  # chapters, and how what goes there is headed
NUMBER_LINKS = """(pages) => document.querySelectorAll(".contents a, .see a").forEach((link) => {
    link.dataset.page = pages[link.hash.slice(1)];
})"""
TYPES = {".xhtml": "application/xhtml+xml", ".css": "text/css", ".png": "image/png", ".svg": "image/svg+xml"}


@dataclass
class Chapter:
    """A page of the book. In ``body`` every id begins with ``stem``, and links lead to such ids or out."""

    stem: str
    part: str | None
    body: Tag

    @property
    def title(self) -> str:
        return self.body.h1.get_text()

    @property
    def heading(self) -> str:
        return self.body.h1.decode_contents()


@dataclass
class Book:
    title: str
    author: str
    address: str
    footer: str
    chapters: list[Chapter]


def read(pages: Path, folder: Path, browser: Browser) -> Book:
    """The built book, fit for paper; its pictures go into ``folder``."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    root = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))["root"]
    address = of_book()
    home = soup((pages / f"{root}.html").read_text("utf8"))
    parts = reading_order(home, f"{address}{root}.html")
    stems = {url: Path(url).stem for url in parts}
    chapters = []
    for url, part in parts.items():
        file = pages / url.removeprefix(address)
        body = soup(file.read_text("utf8")).main
        body.name, body.attrs = "section", {"class": "chapter"}
        picture_widgets(body, file, url, folder, browser)
        for tag in body.select(LEFTOVERS):
            tag.decompose()
        copy_pictures(body, file, folder)
        settle_links(body, url, stems)
        chapters.append(Chapter(stems[url], part, body))
    chapters += [answers(name, chapters) for name in AT_THE_END]
    for details in [tag for chapter in chapters for tag in chapter.body.select("details")]:
        details.name, details.attrs = "div", {"class": "unfolded"}
        for summary in details.select("summary"):
            summary.name, summary.attrs = "p", {"class": "summary"}
    return Book(config["title"], config["author"], address, home.footer.decode_contents(), chapters)


def soup(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def reading_order(home: Tag, url: str) -> dict[str, str | None]:
    """Of each page in the menu: its address, and the part of the book that it belongs to."""
    parts, part = {}, None
    for tag in home.select("#menu :is(.caption, li > a)"):
        if tag.name == "a":
            parts[urljoin(url, tag["href"].rstrip("#"))] = part
        else:
            part = tag.get_text()
    return parts


def picture_widgets(body: Tag, file: Path, url: str, folder: Path, browser: Browser) -> None:
    """In place of each widget: its picture as it stands in the page, and a link to it."""
    places = body.select(".widget")
    if not places:
        return
    page = browser.new_page(
        viewport={"width": 1280, "height": 900}, color_scheme="light", device_scale_factor=2
    )
    page.goto(file.as_uri())
    for number, (place, live) in enumerate(zip(places, page.locator(".widget").all(), strict=True), 1):
        widget = live.locator(".tl-widget")
        widget.wait_for()
        for button in live.get_by_role("button", name="Load the model").all():
            button.press("Enter")  # a mouse would stay there and point at what comes
            button.wait_for(state="detached")
        name = f"images/{file.stem}-widget-{number}.png"
        save_picture(widget, folder / name)
        said = " ".join(live.locator(".tl-spoken, .tl-caption").all_text_contents())
        alt = f"Widget “{widget.get_attribute('aria-label')}”. {' '.join(said.split())}"
        link = f'<a href="{url}#{place.find_parent("section")["id"]}">{url}</a>'
        place.replace_with(soup(filled("widget.html", picture=name, alt=html.escape(alt), link=link)))
    page.close()


def save_picture(what: Page | Locator, file: Path) -> None:
    what.screenshot(path=file)
    picture = Image.open(file).convert("RGB")
    picture.quantize(256, kmeans=2).save(file, optimize=True)  # less than half the bytes


def copy_pictures(body: Tag, file: Path, folder: Path) -> None:
    for picture in body.select("img:not(.widget-picture > img)"):
        source = file.parent / unquote(picture["src"])
        shutil.copy(source, folder / "images")
        picture["src"] = f"images/{source.name}"
        del picture["loading"]


def settle_links(body: Tag, url: str, stems: dict[str, str]) -> None:
    """Links between pages become links inside the book; what it does not hold is linked where it lives."""
    stem = stems[url]
    for notebook in body.select("a[download]"):
        says = f'Your code is checked in a notebook, which you find at <a href="{url}">{url}</a>.'
        notebook.find_parent("p").replace_with(soup(f"<p>{says}</p>"))
    for tag in body.select("[id]"):
        tag["id"] = f"{stem}--{tag['id']}"
    body["id"] = stem
    for link in body.select("a[href]"):
        if urlparse(link["href"]).scheme:
            continue
        link["href"] = urljoin(url, link["href"])
        target, _, fragment = link["href"].partition("#")
        if target in stems:
            link["href"] = f"#{stems[target]}" + (f"--{fragment}" if fragment else "")


def answers(name: str, chapters: list[Chapter]) -> Chapter:
    """A chapter of all hints or of all solutions: unfolded beside the exercise they would come too soon."""
    body = soup(f'<section class="chapter" id="{name}"><h1>{name.capitalize()}</h1></section>').section
    for chapter in chapters:
        section = soup(f'<section id="{name}--{chapter.stem}"><h2>{chapter.heading}</h2></section>').section
        for exercise in chapter.body.select(".exercise"):
            here, there = exercise["id"], f"{name}--{exercise['id']}"
            title = exercise.h3.decode_contents()
            place = soup(f'<section id="{there}"><h3><a href="#{here}">{title}</a></h3></section>').section
            folded = exercise.find_all("details", recursive=False)
            place.extend([tag for tag in folded if tag.summary.get_text().startswith(AT_THE_END[name])])
            section.append(place)
            exercise.append(soup(f'<span class="see"><a href="#{there}">{name.capitalize()}</a></span>'))
        if section.h3:
            body.append(section)
    return Chapter(name, chapters[-1].part, body)


def contents(book: Book) -> str:
    """The parts of the book, their chapters, and the sections of these."""
    items = []
    for part, chapters in itertools.groupby(book.chapters, key=lambda chapter: chapter.part):
        inside = "".join(map(entry, chapters))
        items.append(f"<li><span>{html.escape(part)}</span><ol>{inside}</ol></li>" if part else inside)
    return f"<h1>Contents</h1><ol>{''.join(items)}</ol>"


def entry(chapter: Chapter) -> str:
    links = [
        f'<a href="#{heading.parent["id"]}"><span>{heading.decode_contents()}</span></a>'
        for heading in chapter.body.select("section > h2")
    ]
    below = "".join(f"<li>{link}</li>" for link in links)
    sections = f'<ol class="sections">{below}</ol>' if links else ""
    return f'<li><a href="#{chapter.stem}"><span>{chapter.heading}</span></a>{sections}</li>'


def filled(form: str, **values: object) -> str:
    return Template((FORMS / form).read_text("utf8")).substitute(values)


def front(book: Book) -> str:
    return filled(
        "title.html", title=book.title, author=book.author, address=book.address, footer=book.footer
    )


def write_pdf(book: Book, pages: Path, folder: Path, target: Path, browser: Browser) -> None:
    """Print twice: only after the first time it is known on which page a chapter begins."""
    for formula in [tag for chapter in book.chapters for tag in chapter.body.select(".katex")]:
        formula.select_one(".katex-mathml").decompose()  # the same again, for the eye to skip
        del formula.select_one(".katex-html")["aria-hidden"]
    running = [
        f"#{c.stem} {{ page: {c.stem} }} @page {c.stem} {{ @top-right {{ content: {json.dumps(c.title)} }} }}"
        for c in book.chapters
    ]
    whole = filled(
        "pdf.html",
        title=book.title,
        assets=(pages / "_static").as_uri(),
        forms=FORMS.as_uri(),
        running="\n".join(running),
        front=front(book),
        contents=contents(book),
        body="".join(str(chapter.body) for chapter in book.chapters),
    )
    (folder / "book.html").write_text(whole, "utf8")
    page = browser.new_page()
    page.goto((folder / "book.html").as_uri())
    page.evaluate("document.fonts.ready")
    for _ in range(2):
        page.pdf(path=target, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
        reader = PdfReader(target)
        places = reader.named_destinations.items()
        numbers = {name.lstrip("/"): reader.get_destination_page_number(place) + 1 for name, place in places}
        page.evaluate(NUMBER_LINKS, numbers)


def write_epub(book: Book, pages: Path, folder: Path, target: Path, browser: Browser) -> None:
    """A page of XHTML for each chapter, formulas in MathML, and what EPUB 3 wants around them."""
    cover = browser.new_page(viewport={"width": 600, "height": 800}, device_scale_factor=2)
    mark = (ROOT / "book" / "_theme" / "mark.svg").read_text("utf8")
    cover.set_content(plain(filled("cover.html", title=book.title, mark=mark)))
    save_picture(cover, folder / "images" / "cover.png")
    for formula in [tag for chapter in book.chapters for tag in chapter.body.select(".katex")]:
        maths = formula.math
        maths["alttext"] = maths.annotation.get_text()
        formula.replace_with(maths)
    texts = {"title": (book.title, front(book))}
    texts["contents"] = ("Contents", f'<nav epub:type="toc">{contents(book)}</nav>')
    texts |= {chapter.stem: (chapter.title, str(chapter.body)) for chapter in book.chapters}
    for name, (title, body) in texts.items():
        body = re.sub(r'href="#(.+?)(--.+?)?"', r'href="\1.xhtml#\1\2"', plain(body))
        (folder / f"{name}.xhtml").write_text(
            filled("page.xhtml", title=html.escape(title), body=body), "utf8"
        )
    (folder / "style.css").write_text(plain(filled("epub.css")), "utf8")
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*"))
    package = filled(
        "package.opf",
        id=uuid.uuid5(uuid.NAMESPACE_URL, book.address),
        title=book.title,
        author=book.author,
        modified=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        items="\n".join(manifest_item(folder, file) for file in files),
        spine="\n".join(f'<itemref idref="{name}.xhtml"/>' for name in texts),
    )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)  # first, for whoever peeks
        archive.writestr("META-INF/container.xml", filled("container.xml"))
        archive.writestr("book/package.opf", package)
        for file in files:
            archive.write(folder / file, f"book/{file}")


def manifest_item(folder: Path, file: str) -> str:
    properties = {"contents.xhtml": "nav ", "images/cover.png": "cover-image "}.get(file, "")
    if file.endswith(".xhtml") and "<math" in (folder / file).read_text("utf8"):
        properties += "mathml"
    said = f' properties="{properties.strip()}"' if properties else ""
    id_ = re.sub(r"[^\w.]", "-", file)
    return f'<item id="{id_}" href="{file}" media-type="{TYPES[Path(file).suffix]}"{said}/>'


def plain(text: str) -> str:
    """The book's light colours as numbers, because few e-readers know CSS variables."""
    css = (ROOT / "book" / "_assets" / "book.css").read_text("utf8").partition("}")[0]
    palette = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css))
    dark_enough = {colour: palette.get(f"{name}-text", colour) for name, colour in palette.items()}
    text = re.sub(r'(?<=mathcolor=")#\w+', lambda colour: dark_enough[colour[0].lower()], text)
    return re.sub(r"var\(--([\w-]+)\)", lambda name: palette[name[1]], text)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), playwright.chromium.executable_path)
        if not Path(found).exists():
            raise SystemExit(
                "There is no Chromium or Chrome here: install one, or run playwright install chromium."
            )
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


def make(target: Path, pages: Path, browser: Browser) -> Book:
    """Write ``target``, a .pdf or an .epub; what it is made of stays in a folder beside it."""
    folder = target.parent / f"{target.suffix[1:]}-parts"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    book = read(pages, folder, browser)
    {".pdf": write_pdf, ".epub": write_epub}[target.suffix](book, pages, folder, target, browser)
    return book


def main() -> int | str:
    parser = argparse.ArgumentParser(description="Make one PDF, or one EPUB, of the built book.")
    parser.add_argument("form", choices=["pdf", "epub"])
    target = ROOT / "_build" / f"transformer-lab.{parser.parse_args().form}"
    if not (PAGES / "index.html").exists():
        return "There is no book in _build/html yet: build it first, with make html."
    with chromium() as browser:
        book = make(target, PAGES, browser)
    if is_placeholder(book.address):
        print("repository.url in _config.yml is a placeholder still: links to the live pages lead nowhere.")
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
