"""The table of claims: its numbers come from the cells; the page sifts and orders it."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup

from book._ext import claims as extension
from transformer_lab import claims

from .accessibility import violations
from .conftest import ROOT

LISTED = claims.read()
PAGE = "book/claims_table.html"
EVIDENCE = [
    pytest.param(claim, e, id=f"{claim.id}-{n}") for claim in LISTED for n, e in enumerate(claim.evidence)
]


# Without a browser: numbers and cells


@pytest.fixture
def copy(tmp_path):
    """``copy(stem)`` -> the chapter's notebook, in the folder of a book with the table, to be altered."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "claims_table.md").touch()

    def copied(stem):
        return Path(shutil.copy(ROOT / "book" / f"{stem}.ipynb", tmp_path / "book"))

    copied.folder = tmp_path
    return copied


@pytest.mark.parametrize(("claim", "evidence"), EVIDENCE)
def test_every_number_is_found_in_the_output_of_its_cell(claim, evidence):
    output = extension.printed(ROOT, evidence.chapter, evidence.cell)
    number = " ".join(re.search(evidence.find, output, re.MULTILINE)[1].split())
    assert re.search(r"\d|never", number), number
    assert evidence.taken_from(output) == evidence.says.replace("{}", number)


@pytest.mark.parametrize(("claim", "evidence"), EVIDENCE)
def test_another_number_in_the_output_is_another_number_in_the_table(claim, evidence):
    output = extension.printed(ROOT, evidence.chapter, evidence.cell)
    start, end = re.search(evidence.find, output, re.MULTILINE).span(1)
    other = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), output[start:end])
    if other == output[start:end]:
        other = "always"  # in place of a word
    said = evidence.taken_from(output[:start] + other + output[end:])
    assert said != evidence.taken_from(output) and " ".join(other.split()) in said


def test_the_table_follows_the_file(copy):
    claim = next(claim for claim in LISTED if claim.id == "C40")
    for stem in {e.chapter for e in claim.evidence}:
        path = copy(stem)
        path.write_text(path.read_text("utf8").replace("15 of 25 looks", "16 of 25 looks"), "utf8")
    assert next(said for _, said in extension.shown(ROOT, claim)).endswith("15 of 25 pairs")
    assert next(said for _, said in extension.shown(copy.folder, claim)).endswith("16 of 25 pairs")


def broken(copy, change):
    """What the build says when the notebook on masks is changed."""
    for stem in {e.chapter for claim in LISTED for e in claim.evidence}:
        path = copy(stem)
        if stem == "masks":
            text = path.read_text("utf8")
            assert change[0] in text
            path.write_text(text.replace(*change), "utf8")
    with pytest.raises(SystemExit) as stop:
        extension.check(SimpleNamespace(srcdir=copy.folder))
    return str(stop.value)


def test_a_missing_cell_stops_the_build_in_one_sentence(copy):
    said = broken(copy, ('"id": "causal-code"', '"id": "causal-code-2"'))
    assert said == "C40 in transformer_lab/claims.json: book/masks.ipynb has no code cell 'causal-code'."


def test_a_number_that_is_gone_stops_the_build_in_one_sentence(copy):
    said = broken(copy, ("15 of 25 looks", "15 out of 25 looks"))
    assert said.startswith("C40 in transformer_lab/claims.json:") and "it matches 0 times." in said


def test_a_missing_chapter_stops_the_build_in_one_sentence(copy):
    with pytest.raises(SystemExit, match=r"C02 in transformer_lab/claims\.json: there is no chapter"):
        extension.check(SimpleNamespace(srcdir=copy.folder))


def test_the_book_as_it_is_passes():
    extension.check(SimpleNamespace(srcdir=ROOT))


def test_a_book_without_the_table_needs_no_chapters(tmp_path):
    extension.check(SimpleNamespace(srcdir=tmp_path))


def test_the_scoreboard_of_the_chapter_counts_the_list():
    output = extension.printed(ROOT, "claims", "scoreboard")
    counted = {verdict: int(n) for n, verdict in re.findall(r"^ *(\d+)  (\w+)  ", output, re.MULTILINE)}
    counted.pop("claims", None)
    assert counted == Counter(claim.verdict for claim in LISTED)


def test_the_chapter_has_a_paragraph_for_each_of_the_ten_worst():
    cells = json.loads((ROOT / "book" / "claims.ipynb").read_text("utf8"))["cells"]
    ten = "".join(next(cell for cell in cells if cell["id"] == "ten")["source"])
    paragraphs = [p for p in ten.split("\n\n") if p.startswith("**")]
    assert len(paragraphs) == 10
    assert all("*Right:*" in p or "found nothing" in p for p in paragraphs)
    assert all("*How it comes about:*" in p for p in paragraphs)


# The built page

browser = pytest.mark.browser


@pytest.fixture(scope="module")
def soup(book):
    return BeautifulSoup((book / PAGE).read_text("utf8"), "html.parser")


def plain(element):
    return " ".join(element.get_text(" ").split())


@browser
def test_every_claim_has_a_row_with_verdict_sources_and_what_is_right(soup):
    rows = soup.select("table.claims tbody tr")
    assert [row.a.text for row in rows] == [claim.id for claim in LISTED]
    for row, claim in zip(rows, LISTED, strict=True):
        said, right, *_ = row.select("td:nth-child(2) > p")
        assert (plain(said), plain(right)) == (" ".join(claim.said.split()), " ".join(claim.right.split()))
        assert row["data-verdict"] == row.select_one(".verdict").text == claim.verdict
        links = [source.link for source in claim.sources if source.link]
        assert [a["href"] for a in row.select("ul.claim-sources a")] == links
        states = [check.text for check in row.select(".check")]
        for state, source in zip(states, claim.sources, strict=True):
            assert state.startswith(claims.CHECKS[source.check]) and state.endswith(source.note)


@browser
def test_the_numbers_in_the_page_are_those_of_the_cells(soup):
    for row, claim in zip(soup.select("table.claims tbody tr"), LISTED, strict=True):
        items = row.select("td:last-child li")
        wanted = extension.shown(ROOT, claim)
        assert len(items) == len(wanted)
        for item, (_, said) in zip(items, wanted, strict=True):
            assert plain(item).startswith(" ".join(said.split()))
        if not wanted:
            assert claim.without in plain(row)


@browser
def test_links_lead_to_the_cells(soup, book):
    pages = {}
    for link in soup.select("table.claims td:last-child a"):
        name, _, anchor = link["href"].partition("#")
        if name not in pages:
            pages[name] = BeautifulSoup((book / "book" / name).read_text("utf8"), "html.parser")
        assert "cell" in pages[name].find(id=anchor)["class"]


def field(page, name):
    return page.locator(f".claims-controls [name={name}]")


def shown(page):
    return page.locator("table.claims tbody tr:visible").count()


def status(page):
    return page.locator(".claims-controls [role=status]").inner_text()


def order(page):
    rows = page.locator("table.claims tbody tr")
    return rows.evaluate_all("(rows) => rows.map((row) => row.id.toUpperCase())")


@browser
def test_every_control_has_a_name(visit):
    page = visit().open(PAGE)
    for role, name in (("searchbox", "Words"), ("combobox", "Verdict"), ("checkbox", "the ten worst")):
        assert page.get_by_role(role, name=name, exact=True).count() == 1


@browser
def test_verdicts_sift_the_rows_and_the_count_is_said(visit):
    page = visit().open(PAGE)
    assert status(page) == "All 54 claims are shown."
    for verdict, n in Counter(claim.verdict for claim in LISTED).items():
        field(page, "verdict").select_option(verdict)
        assert shown(page) == n and status(page) == f"{n} of 54 claims are shown."
    page.get_by_role("button", name="Show all").press("Enter")
    page.wait_for_function("() => !document.querySelector('table.claims tr[hidden]')")
    assert shown(page) == 54 and status(page) == "All 54 claims are shown."


@browser
def test_words_experiments_and_the_ten_worst_sift_together(visit):
    page = visit().open(PAGE)
    field(page, "measured").check()
    assert shown(page) == sum(bool(claim.evidence) for claim in LISTED)
    field(page, "measured").uncheck()
    field(page, "worst").check()
    assert shown(page) == 10
    field(page, "words").fill("bleu TRANSLATION")
    assert order(page)[:1] == ["C01"] and shown(page) == 1
    assert page.locator("table.claims tbody tr:visible").get_attribute("id") == "c31"
    field(page, "words").fill("no such words anywhere")
    assert shown(page) == 0 and status(page) == "0 of 54 claims are shown."


@browser
def test_headings_order_the_rows_and_say_so(visit):
    page = visit().open(PAGE)
    ids = [claim.id for claim in LISTED]
    heads = page.locator("table.claims thead th")
    assert order(page) == ids and heads.nth(0).get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="No.").press("Enter")
    assert order(page) == ids[::-1] and heads.nth(0).get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Verdict").click()
    verdicts = list(claims.VERDICTS)
    assert order(page) == [c.id for c in sorted(LISTED, key=lambda c: verdicts.index(c.verdict))]
    assert heads.nth(0).get_attribute("aria-sort") is None
    assert heads.nth(2).get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="Measured in this book").press("Space")
    assert order(page) == [c.id for c in sorted(LISTED, key=lambda c: -len(c.evidence))]
    assert heads.nth(1).get_by_role("button").count() == 0


@browser
def test_the_address_keeps_what_was_sifted(visit):
    page = visit().open(PAGE)
    field(page, "verdict").select_option("wrong")
    field(page, "words").fill("paper")
    kept = shown(page)
    assert 0 < kept < 9 and "verdict=wrong" in page.url and "words=paper" in page.url
    page.reload()
    assert shown(page) == kept and field(page, "verdict").input_value() == "wrong"
    page.goto(page.url.split("?")[0] + "?verdict=nonsense")
    assert shown(page) == 54


@browser
def test_a_link_to_a_claim_shows_it_whatever_is_sifted(visit):
    page = visit().open(f"{PAGE}?verdict=correct#c31")
    page.wait_for_function("() => !document.querySelector('#c31').hidden")
    assert page.locator("#c31").is_visible() and shown(page) == 54


@browser
def test_it_works_from_a_file(visit):
    page = visit().open(PAGE, from_file=True)
    field(page, "verdict").select_option("unsourced")
    assert shown(page) == 2


@browser
def test_without_a_script_the_whole_table_is_there_and_no_dead_control(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/{PAGE}")
    assert shown(page) == 54
    assert page.locator(".claims-controls:visible, table.claims button").count() == 0
    context.close()


@browser
def test_on_a_phone_rows_are_cards_that_can_be_ordered(visit):
    page = visit(width=360).open(PAGE)
    assert page.locator("table.claims thead:visible").count() == 0
    number, said, verdict, measured = (cell.bounding_box() for cell in page.locator("#c31 td").all())
    assert said["width"] > 250 and measured["width"] > 250
    assert number["y"] == verdict["y"] < said["y"] < measured["y"]
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    field(page, "order").select_option("Verdict")
    assert order(page)[:2] == ["C08", "C12"]
    field(page, "worst").check()
    assert shown(page) == 10


@browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_sifted_or_not(width, theme, visit):
    page = visit(width=width, theme=theme).open(PAGE)
    for verdict in ("", "wrong"):
        field(page, "verdict").select_option(verdict)
        assert violations(page) == {}


@browser
def test_paper_shows_the_table_and_no_control(visit):
    page = visit().open(PAGE)
    page.emulate_media(media="print")
    assert page.locator(".claims-controls:visible").count() == 0 and shown(page) == 54
