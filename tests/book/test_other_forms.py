"""The PDF and the EPUB: whole, links that work, pictures for widgets, nothing that only a page can do."""

import re
import zipfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unicodedata import normalize
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader
from pypdfium2 import PdfDocument

from tools import other_forms
from tools.address import of_book

from .conftest import ROOT

NAMES = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
SITE = of_book()
ONLY_IN_PAGES = (
    "needs JavaScript",
    "Download this chapter",
    "Solved",
    "Your prediction",
    "Forget my ticks",
    r"\w#\n",  # a heading with its link
)
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("other_forms")]  # one worker: both are made once


@pytest.fixture(scope="module")
def forms(book, chromium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    for name in ("book.pdf", "book.epub"):
        other_forms.make(folder / name, book, chromium)
    return folder


@pytest.fixture(scope="module")
def pages(book):
    """What the pages hold, by stem: the truth that the other forms are held against."""
    return {
        Path(n).stem: BeautifulSoup((book / f"{n}.html").read_text("utf8"), "html.parser").main for n in NAMES
    }


@pytest.fixture(scope="module")
def titles(pages):
    titles = {stem: page.h1.find(string=True) for stem, page in pages.items()}
    return titles | {"hints": "Hints", "solutions": "Solutions"}


@pytest.fixture(scope="module")
def live(pages):
    """The addresses at which widgets live, each as often as the page has widgets."""
    return Counter(f"{SITE}book/{stem}.html" for stem, page in pages.items() for _ in page.select(".widget"))


# The PDF


@pytest.fixture(scope="module")
def pdf(forms):
    return PdfReader(forms / "book.pdf")


@pytest.fixture(scope="module")
def texts(forms):
    """Of each page; PDFium reads them thirty times as fast as pypdf does."""
    read = (page.get_textpage().get_text_range() for page in PdfDocument(forms / "book.pdf"))
    return [normalize("NFKC", text).replace("\r\n", "\n") for text in read]  # fi may be one letter


def test_the_outline_names_the_chapters_and_leads_to_them(pdf, texts, titles):
    chapters = [entry for entry in pdf.outline if not isinstance(entry, list)]
    assert [entry.title for entry in chapters] == ["Contents", *titles.values()]
    for entry in chapters:
        assert entry.title in texts[pdf.get_destination_page_number(entry)][:200]


def test_the_contents_lead_to_the_pages_that_they_name(pdf, texts, titles):
    places = {
        name.lstrip("/"): pdf.get_destination_page_number(d) for name, d in pdf.named_destinations.items()
    }
    begins = {stem: places[stem] for stem in titles}
    assert list(begins.values()) == sorted(set(begins.values()))  # each begins on a page of its own
    contents = "".join("".join(texts[1 : begins["intro"]]).split())
    for stem, page in begins.items():
        assert f"{''.join(titles[stem].split())}{page + 1}" in contents
        assert texts[page].endswith(f"\n{page + 1}") or f"\n{page + 1}\n" in texts[page]


def test_the_pdf_is_whole(texts, pages):
    assert len(texts) > 40
    whole = "".join("".join(texts).split())
    for page in pages.values():
        for paragraph in page.select("section:not(:has(> .overview)) > p:not(:has(*))"):
            words = normalize("NFKC", "".join(paragraph.get_text().split()))
            assert words[:40] in whole  # the rest may be on the next page


def test_nothing_is_cut_off_at_the_margin(forms, chromium):
    page = chromium.new_page(viewport={"width": 642, "height": 900})  # 170 mm
    page.emulate_media(media="print")
    page.goto((forms / "pdf-parts" / "book.html").as_uri())
    assert page.locator("pre").count() > 50
    outside = """[...document.querySelectorAll("body :not(svg *)")].filter((e) =>
        e.getBoundingClientRect().right > 643 || (e.matches("pre, .output") && e.scrollWidth > e.clientWidth)
    ).map((e) => e.outerHTML.slice(0, 200))"""
    assert page.evaluate(outside) == []
    page.close()


def test_the_pdf_leads_from_each_picture_to_its_widget(pdf, live):
    annotations = [a.get_object() for page in pdf.pages for a in page.get("/Annots", [])]
    links = {a["/A"]["/URI"] for a in annotations if "/URI" in a.get("/A", {})}
    assert set(live) <= {link.partition("#")[0] for link in links if "#" in link}


def test_the_pdf_holds_nothing_that_only_a_page_can_do(texts):
    assert [words for words in ONLY_IN_PAGES if re.search(words, "\n".join(texts))] == []


# The EPUB


@pytest.fixture(scope="module")
def epub(forms):
    with zipfile.ZipFile(forms / "book.epub") as archive:
        yield archive


@pytest.fixture(scope="module")
def chapters(epub):
    """Its pages, by stem, read as strictly as an e-reader may."""
    files = [name for name in epub.namelist() if name.endswith(".xhtml")]
    for name in files:
        ElementTree.fromstring(epub.read(name))
    return {Path(name).stem: BeautifulSoup(epub.read(name), "html.parser") for name in files}


def test_the_epub_is_packed_as_readers_expect(epub):
    first, *rest = epub.infolist()
    assert first.filename == "mimetype" and first.compress_type == zipfile.ZIP_STORED
    assert epub.read("mimetype") == b"application/epub+zip"
    container = ElementTree.fromstring(epub.read("META-INF/container.xml"))
    assert container.find(".//{*}rootfile").get("full-path") == "book/package.opf"
    items = ElementTree.fromstring(epub.read("book/package.opf")).findall(".//{*}item")
    listed = {f"book/{item.get('href')}" for item in items}
    assert listed == {file.filename for file in rest} - {"META-INF/container.xml", "book/package.opf"}
    kinds = {item.get("properties"): item.get("href") for item in items}
    assert kinds["cover-image"] == "images/cover.png" and "contents.xhtml" in kinds.values()


def test_the_epub_is_read_in_the_order_of_the_book(epub, titles):
    package = ElementTree.fromstring(epub.read("book/package.opf"))
    files = {item.get("id"): item.get("href") for item in package.findall(".//{*}item")}
    order = [files[item.get("idref")] for item in package.findall(".//{*}itemref")]
    assert order == [f"{stem}.xhtml" for stem in ("title", "contents", *titles)]


def test_every_link_in_the_epub_leads_somewhere(chapters):
    links = [
        (link["href"], stem) for stem, page in chapters.items() for link in page.find_all("a", href=True)
    ]
    assert len(links) > 60
    for link, stem in links:
        if not link.startswith("https://"):
            file, _, fragment = link.partition("#")
            assert chapters[Path(file).stem].find_all(id=fragment), (stem, link)


def test_formulas_are_mathml_in_the_book_s_colours(chapters, pages):
    for stem, page in pages.items():
        formulas = chapters[stem].find_all("math")
        assert len(formulas) == len(page.select(".katex"))
        assert all(formula["alttext"] for formula in formulas) and not chapters[stem].select(".katex")
    colours = {tag["mathcolor"] for tag in chapters["notation"].find_all(mathcolor=True)}
    assert colours == {"#005a8f", "#a04300", "#006b4e"}  # dark enough for text


def test_each_widget_is_a_picture_with_words_and_a_link(chapters, epub, live):
    found = Counter()
    for page in chapters.values():
        for figure in page.select(".widget-picture"):
            assert figure.img["alt"].startswith("Widget “") and len(figure.img["alt"].split()) > 10
            assert len(epub.read(f"book/{figure.img['src']}")) > 20_000  # it shows something
            found[figure.a["href"].partition("#")[0]] += 1
    assert found == live


def test_a_trained_model_is_pictured_at_work(chapters):
    (alt,) = {i["alt"] for i in chapters["attention"].find_all("img") if "reads numbers" in i["alt"]}
    assert "looks most at" in alt


def test_the_epub_holds_nothing_that_only_a_page_can_do(chapters):
    for stem, page in chapters.items():
        assert page.find_all(["script", "noscript", "form", "input", "button", "details", "style"]) == []
        assert [words for words in ONLY_IN_PAGES if re.search(words, page.get_text())] == [], stem
        assert "var(--" not in str(page)


def test_every_picture_in_the_epub_is_described(chapters, pages):
    pictures = [picture for page in chapters.values() for picture in page.find_all("img")]
    assert len(pictures) == sum(len(page.select("img, .widget")) for page in pages.values())
    assert all(len(picture["alt"].split()) > 2 for picture in pictures)


def test_hints_and_solutions_stand_at_the_end(chapters, pages):
    for stem, page in pages.items():
        for exercise in page.select(".exercise"):
            for folded in exercise.find_all("details", recursive=False):
                place = chapters["hints" if "Hint" in folded.summary.get_text() else "solutions"]
                section = place.find(id=re.compile(f"--{stem}--{exercise['id']}$"))
                assert " ".join(folded.get_text().split()) in " ".join(section.get_text().split())
    assert not chapters["attention"].find(string=re.compile(r"^(Hint \d|Solution)$"))


# The command


def test_the_command_says_what_it_made(monkeypatch, tmp_path, capsys):
    (tmp_path / "_build").mkdir()
    monkeypatch.setattr(other_forms, "ROOT", tmp_path)
    monkeypatch.setattr(other_forms, "chromium", nullcontext)
    monkeypatch.setattr("sys.argv", ["other_forms.py", "epub"])
    monkeypatch.setattr(other_forms, "PAGES", tmp_path)
    assert "build it first" in other_forms.main()
    (tmp_path / "index.html").write_text("the book")
    for address, lines in (("https://example.org/lab/", 2), ("https://somewhere.net/lab/", 1)):
        monkeypatch.setattr(
            other_forms,
            "make",
            lambda target, *_, address=address: (
                target.write_bytes(b"x" * 1_200_000) and SimpleNamespace(address=address)
            ),
        )
        assert other_forms.main() == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == lines and said[-1] == f"{Path('_build', 'transformer-lab.epub')}: 1.2 MB"


def test_without_a_browser_the_command_says_so_in_a_sentence(monkeypatch):
    nowhere = SimpleNamespace(chromium=SimpleNamespace(executable_path="/nowhere/chrome"))
    monkeypatch.setattr(other_forms, "sync_playwright", lambda: nullcontext(nowhere))
    monkeypatch.setenv("PATH", "")
    with (
        pytest.raises(SystemExit, match="There is no Chromium or Chrome here: install one"),
        other_forms.chromium(),
    ):
        pass
