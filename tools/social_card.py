"""Draw the picture that other sites show beside a link to the book: book/_assets/card.png.

    python tools/social_card.py    # after a change of the title, the mark, or book/_forms/card.html

Chromium (or Chrome) draws it. It is stored, because the fonts of one machine are not those of another.
"""

import re
import sys
from pathlib import Path

import yaml
from playwright.sync_api import Browser

if __package__:
    from .other_forms import ROOT, chromium, filled, plain, save_picture
else:  # run as a file, as above
    from other_forms import ROOT, chromium, filled, plain, save_picture

CARD = ROOT / "book" / "_assets" / "card.png"
SIZE = {"width": 1200, "height": 630}  # pixels, as Open Graph and others ask


def draw(browser: Browser, target: Path) -> None:
    """The book's title, the heading of its home page, and its mark."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    heading = re.match(r"# (.+)", (ROOT / "book" / "intro.md").read_text("utf8"))[1]
    mark = (ROOT / "book" / "_theme" / "mark.svg").read_text("utf8")
    page = browser.new_page(viewport=SIZE)
    page.set_content(plain(filled("card.html", title=config["title"], subtitle=heading, mark=mark)))
    save_picture(page, target)
    page.close()


def main() -> int:
    with chromium() as browser:
        draw(browser, CARD)
    print(f"{CARD.relative_to(ROOT)}: {CARD.stat().st_size / 1000:.1f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
