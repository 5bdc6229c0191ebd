"""One address for each page, a map and a picture for those who pass it on, and no dead ends.

The address of the pages follows from that of the repository (tools/address.py). While this is a placeholder,
no page names its address and there is no map: search engines would keep what is wrong.
"""

import re
from pathlib import Path
from urllib.parse import quote, urlparse
from xml.etree import ElementTree

from tools.address import is_placeholder, pages

from .theme import records, summary

CARD = "_static/card.png"  # tools/social_card.py draws it
ROBOTS = """\
# A host is asked for this file at its root only. Where the book lives in a folder of the host, nobody reads
# it: give the address of the map to search engines yourself.
User-agent: *
Allow: /
Sitemap: {address}sitemap.xml
"""
RELATIVE = re.compile(r'\b(href|src|action|data-content_root)="(?!/|#|\w+:)')


def settle_address(app, config):
    try:
        config.html_baseurl = pages(config.html_theme_options["repository_url"], config.html_baseurl)
    except ValueError as error:
        raise SystemExit(f"{error}.") from None


def check_moved(app, env):
    for old, new in app.config.moved_pages.items():
        sends = f"moved_pages in _config.yml sends {old} to {new}, but"
        if old in env.found_docs:
            raise SystemExit(f"{sends} {old} is a page still: take one of the two out.")
        if new not in env.found_docs:
            raise SystemExit(f"{sends} _toc.yml has no such page.")


def collect_pages(app):
    """index.html leads to the home page, an old address to the new one, and a wrong one to the contents."""
    for old, new in {"index": app.config.root_doc, **app.config.moved_pages}.items():
        context = {"title": app.env.titles[new].astext(), "description": summary(app.env.get_doctree(new))}
        yield old, {"target": new, **context}, "redirect.html"
    yield "404", {}, "404.html"


def page_context(app, pagename, templatename, context, doctree):
    page = context.get("target") or (doctree and pagename)  # the search and the page 404 have no address
    if page and not is_placeholder(app.config.html_baseurl):
        context["canonical"] = f"{app.config.html_baseurl}{quote(page)}.html"
        context["card"] = f"{app.config.html_baseurl}{CARD}"


def sitemap(address, dates):
    """A map of the pages (sitemaps.org), for ``dates`` by page: when it was last reproduced, or None.

    >>> print(sitemap("https://a.test/", {"intro": None})[39:])
    <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
      <url>
        <loc>https://a.test/intro.html</loc>
      </url>
    </urlset>
    """
    root = ElementTree.Element("urlset", xmlns="http://www.sitemaps.org/schemas/sitemap/0.9")
    for page, date in dates.items():
        url = ElementTree.SubElement(root, "url")
        ElementTree.SubElement(url, "loc").text = f"{address}{quote(page)}.html"
        if date:
            ElementTree.SubElement(url, "lastmod").text = date
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode")


def from_the_root(html, root):
    """A page whose links hold wherever it is shown: a host gives it for any address that is wrong.

    >>> from_the_root('<a href="book/a.html" id="b"><a href="#c">', "/lab/")
    '<a href="/lab/book/a.html" id="b"><a href="#c">'
    """
    return RELATIVE.sub(rf'\1="{root}', html)


def write(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    folder, address = Path(app.outdir), app.config.html_baseurl
    lost = folder / "404.html"
    lost.write_text(from_the_root(lost.read_text("utf8"), urlparse(address).path), "utf8")
    if not is_placeholder(address):
        known = records(app.env)
        dates = {page: known.get(page, {}).get("reproduced") for page in sorted(app.env.found_docs)}
        (folder / "sitemap.xml").write_text(sitemap(address, dates), "utf8")
        (folder / "robots.txt").write_text(ROBOTS.format(address=address), "utf8")


def setup(app):
    app.add_config_value("moved_pages", {}, "html")
    app.connect("config-inited", settle_address)
    app.connect("env-updated", check_moved)
    app.connect("html-collect-pages", collect_pages)
    app.connect("html-page-context", page_context)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
