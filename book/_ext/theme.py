"""The book's own look: what Jupyter Book's default theme would load and this book does not use stays out."""

import hashlib
import json
from pathlib import Path
from urllib.parse import quote, urlparse

from docutils import nodes
from sphinx.util.images import get_image_size
from sphinx.writers.html5 import HTML5Translator

from tools.address import is_placeholder

ASSETS = {"book.css", "book.js", "claims.js", "exercises.js", "katex.css", "widget-host.js"}
NAMES = {"python": "Python", "torch": "PyTorch", "matplotlib": "Matplotlib"}
ORDER = {name: place for place, name in enumerate(NAMES)}  # what matters most first


def repository_link(url):
    """``url``, unless it is the placeholder that stands there until the repository has a public home.

    >>> repository_link("https://example.org/transformer-lab") is None
    True
    """
    return None if is_placeholder(url) else url.rstrip("/")


def launch_links(url, branch, path):
    """Where the notebook ``path`` opens, ready to run: the hosts by name. They read GitHub only.

    >>> links = launch_links("https://github.com/someone/transformer-lab", "main", "book/attention.ipynb")
    >>> links["Colab"]
    'https://colab.research.google.com/github/someone/transformer-lab/blob/main/book/attention.ipynb'
    >>> links["Binder"]
    'https://mybinder.org/v2/gh/someone/transformer-lab/main?labpath=book%2Fattention.ipynb'
    >>> launch_links("https://example.org/transformer-lab", "main", "book/attention.ipynb")
    {}
    """
    parts = urlparse(url)
    if parts.hostname not in ("github.com", "www.github.com"):
        return {}
    repository = parts.path.strip("/").removesuffix(".git")
    notebook, inside = f"{repository}/blob/{branch}/{quote(path)}", quote(path, safe="")
    return {
        "Colab": f"https://colab.research.google.com/github/{notebook}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{notebook}",
        "Binder": f"https://mybinder.org/v2/gh/{repository}/{quote(branch, safe='')}?labpath={inside}",
    }


def records(env):
    """What tools/execute.py noted when it last executed a chapter, by chapter."""
    found = {}
    for docname in env.found_docs:
        path = Path(env.doc2path(docname))
        if path.suffix == ".ipynb":
            record = json.loads(path.read_text("utf8"))["metadata"].get("transformer_lab")
            if record:
                found[docname] = record
    return found


def reproduced(env, pagename):
    """Date and versions for the footer: this chapter's, or for a page without outputs the book's oldest."""
    known = records(env)
    if not known:
        return None
    own = known.get(pagename)
    record = own or min(known.values(), key=lambda r: r["reproduced"])
    versions = sorted(record["versions"].items(), key=lambda item: ORDER.get(item[0], len(ORDER)))
    return {
        "what": "The outputs on this page were" if own else "Every output in this book was",
        "date": record["reproduced"],
        "versions": ", ".join(f"{NAMES.get(name, name)} {version}" for name, version in versions),
    }


def chapter_links(app, pagename, templatename, context, doctree):
    """Where a reader takes this chapter to run it."""
    path = Path(app.env.doc2path(pagename)) if doctree else Path()
    if path.suffix == ".ipynb":
        name = path.relative_to(app.srcdir).as_posix()
        options = app.config.html_theme_options
        context["download"] = f"_sources/{name}"
        context["launch"] = launch_links(options["repository_url"], options["repository_branch"], name)


def summary(doctree):
    """A page's first paragraph, which says what it is about."""
    first = next(doctree.findall(nodes.paragraph), None)
    return first and " ".join(first.astext().split())


def page_context(app, pagename, templatename, context, doctree):
    live = 'class="widget"' in context.get("body", "")  # else nobody would read the states
    context["states"] = [f for f in context["script_files"] if f.attributes.get("body") and live]
    for kind in ("css_files", "script_files"):
        context[kind] = [f for f in context[kind] if Path(str(f.filename or "")).name in ASSETS]
    context["reproduced"] = reproduced(app.env, pagename)
    context["repository"] = repository_link(app.config.html_theme_options["repository_url"])
    if doctree is not None:  # the search has no source
        context["description"] = summary(doctree)


def footers_out_of_date(app, env):
    """When the book's oldest date moves, every page without outputs is written again."""
    before, now = getattr(env, "book_reproduced", None), reproduced(env, None)
    env.book_reproduced = now
    return [] if before == now else [d for d in env.found_docs if env.doc2path(d).endswith(".md")]


def sources_changed(app, env, added, changed, removed):
    """When an extension, a style or a script of ours is edited, every page is read and written again."""
    book = Path(__file__).parent.parent
    sources = [path.read_bytes() for path in sorted([*book.glob("_ext/*.[pm]*"), *book.glob("_assets/*.*")])]
    before, now = getattr(env, "book_sources", None), hashlib.sha256(b"".join(sources)).hexdigest()
    env.book_sources = now
    return [] if before == now else env.found_docs


class Translator(HTML5Translator):
    """Tables that scroll in their own box, pictures with a size, citations without deprecated roles."""

    def visit_table(self, node):
        self.body.append('<div class="scroll">')
        super().visit_table(node)

    def depart_table(self, node):
        super().depart_table(node)
        self.body.append("</div>\n")

    def visit_image(self, node):
        size = get_image_size(Path(self.builder.srcdir, node["uri"]))
        super().visit_image(node)
        if size:  # room is kept for a picture that has not arrived, and those far below wait
            attributes = f'<img width="{size[0]}" height="{size[1]}" loading="lazy"'
            self.body[-1] = self.body[-1].replace("<img", attributes, 1)

    def visit_citation(self, node):
        self.body.append(self.starttag(node, "div", CLASS="citation"))

    def depart_citation(self, node):
        self.body.append("</div>\n")


def setup(app):
    app.add_html_theme("transformer_lab", str(Path(__file__).parent.parent / "_theme"))
    app.add_config_value("comments_config", {}, "html")  # Jupyter Book sets it, whoever listens
    app.add_js_file("book.js", loading_method="defer")
    app.set_translator("html", Translator)
    app.connect("html-page-context", chapter_links, priority=100)  # before those who offer them
    app.connect("html-page-context", page_context, priority=900)  # after all who add files
    app.connect("env-get-outdated", sources_changed)
    app.connect("env-updated", footers_out_of_date)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
