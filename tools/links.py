"""Every link inside the built book leads to a file, and to a place in it that there is.

    python tools/links.py    # after make html

Links to other hosts are visited once a week: jupyter-book build . --builder linkcheck
"""

import sys
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

from bs4 import BeautifulSoup, Tag

if __package__:
    from .address import of_book
else:  # run as a file, as above
    from address import of_book

BOOK = Path(__file__).resolve().parent.parent / "_build" / "html"
Pages = dict[Path, BeautifulSoup]
LINKS = {"a": "href", "link": "href", "script": "src", "img": "src", "form": "action", "meta": "content"}


def read(folder: Path) -> Pages:
    return {path: BeautifulSoup(path.read_text("utf8"), "html.parser") for path in folder.rglob("*.html")}


def target(tag: Tag) -> str:
    """Where a tag leads, or what it loads; "" if it does neither.

    >>> target(BeautifulSoup('<meta http-equiv="refresh" content="0; url=a.html">', "html.parser").meta)
    'a.html'
    """
    link = tag.get(LINKS[tag.name]) or ""
    if tag.name != "meta":
        return link
    if tag.get("http-equiv") == "refresh":
        return link.partition("url=")[2]
    return link if tag.get("property") in ("og:url", "og:image") else ""


def lost(folder: Path, pages: Pages, address: str) -> list[str]:
    """The links of ``pages`` that do not arrive, as "page -> link", in a book that lives at ``address``.

    Where a page names its own book by the whole address, that is held to it, too.
    """
    found = []
    ids = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in pages.items()}
    for path, soup in pages.items():
        page = path.relative_to(folder).as_posix()
        for link in filter(None, map(target, soup.find_all(list(LINKS)))):
            url, _, fragment = urljoin(address + page, link).partition("#")
            inside = url.startswith(address)
            if urlparse(link).scheme and not inside:
                continue
            file = folder / unquote(urlparse(url.removeprefix(address)).path)
            file, place = file / "index.html" if file.is_dir() else file, unquote(fragment)
            there = inside and file.is_file() and (not place or file not in ids or place in ids[file])
            if not there:
                found.append(f"{page} -> {link}")
    return found


def main() -> int | str:
    if not (BOOK / "index.html").exists():
        return "There is no book in _build/html yet: build it first, with make html."
    pages = read(BOOK)
    if found := lost(BOOK, pages, of_book()):
        return "\n".join([*found, f"These links lead nowhere: {len(found)}."])
    print(f"Every link inside the {len(pages)} pages leads somewhere.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
