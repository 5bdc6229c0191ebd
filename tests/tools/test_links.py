"""tools/links.py finds every link that does not arrive, and no other."""

import doctest

import pytest

from tools import links

ADDRESS = "https://a.test/lab/"
PAGE = '<h1 id="top">Page</h1><h2 id="ü 1">Part</h2>{}'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a b.png").write_text("")
    (tmp_path / "index.html").write_text(PAGE.format(""))
    (tmp_path / "deep" / "other.html").write_text(PAGE.format('<a href="../index.html#top">up</a>'))
    return tmp_path


def found(folder, tag):
    (folder / "page.html").write_text(PAGE.format(tag))
    return links.lost(folder, links.read(folder), ADDRESS)


@pytest.mark.parametrize(
    "tag",
    [
        '<a href="deep/other.html">',
        '<a href="deep/other.html?q=1#top">',
        '<a href="#%C3%BC%201">',
        '<a href="#">',
        '<a href="./">',
        '<a href="/lab/index.html">',
        '<a href="https://a.test/lab/index.html#top">',
        '<a href="https://b.test/nowhere">',
        '<a href="mailto:a@b.test">',
        '<a name="no-link">',
        '<img src="a%20b.png">',
        '<img src="data:image/png;base64,AA">',
        '<link rel="stylesheet" href="a%20b.png?v=1">',
        '<meta property="og:image" content="https://a.test/lab/a%20b.png">',
        '<meta name="description" content="nowhere.html">',
        '<script>"no source"</script>',
    ],
)
def test_what_arrives_is_passed(folder, tag):
    assert found(folder, tag) == []


@pytest.mark.parametrize(
    ("tag", "link"),
    [
        ('<a href="nowhere.html">', "nowhere.html"),
        ('<a href="deep/other.html#nowhere">', "deep/other.html#nowhere"),
        ('<a href="#nowhere">', "#nowhere"),
        ('<a href="deep/">', "deep/"),
        ('<a href="/index.html">', "/index.html"),
        ('<a href="../index.html">', "../index.html"),
        ('<a href="https://a.test/lab/nowhere.html">', "https://a.test/lab/nowhere.html"),
        ('<img src="nowhere.png">', "nowhere.png"),
        ('<script src="nowhere.js"></script>', "nowhere.js"),
        ('<link rel="icon" href="nowhere.svg">', "nowhere.svg"),
        ('<form action="nowhere.html"></form>', "nowhere.html"),
        ('<meta http-equiv="refresh" content="0; url=nowhere.html">', "nowhere.html"),
        ('<meta property="og:image" content="https://a.test/lab/no.png">', "https://a.test/lab/no.png"),
    ],
)
def test_what_does_not_arrive_is_named_with_its_page(folder, tag, link):
    assert found(folder, tag) == [f"page.html -> {link}"]


def test_a_file_of_the_machine_is_no_part_of_the_book(folder):
    link = (folder / "index.html").as_posix()
    assert found(folder, f'<a href="{link}">') == [f"page.html -> {link}"]


def test_the_command_says_how_it_stands(folder, monkeypatch, capsys):
    monkeypatch.setattr(links, "BOOK", folder)
    monkeypatch.setattr(links, "of_book", lambda: ADDRESS)
    assert links.main() == 0
    assert capsys.readouterr().out == "Every link inside the 2 pages leads somewhere.\n"
    found(folder, '<a href="#x"><a href="y.html">')
    assert links.main() == "page.html -> #x\npage.html -> y.html\nThese links lead nowhere: 2."
    (folder / "index.html").unlink()
    assert links.main() == "There is no book in _build/html yet: build it first, with make html."


def test_the_small_functions_do_what_they_say():
    assert doctest.testmod(links).failed == 0
