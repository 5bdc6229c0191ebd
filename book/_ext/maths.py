"""Formulas become HTML when the book is built; the reader's browser runs no maths script.

KaTeX comes from npm, once, into the build folder.
"""

import atexit
import json
import re
import shutil
import subprocess
from pathlib import Path

from docutils import nodes
from sphinx.errors import SphinxError
from sphinx.util.math import get_node_equation_number

from transformer_lab.notation import COLOURS

from . import npm

HERE = Path(__file__).parent
JOINER = "&#8288;"
# A formula of one piece and what closes the sentence after it: browsers would begin a line with a full stop.
JOINED = re.compile(
    rf'<span class="math">((?:(?!<span class="math">).)*)</span>{JOINER}([.,;:!?)’”]+)', re.DOTALL
)


class MathsError(SphinxError):
    category = "Maths"


class Katex:
    """KaTeX in one node process, started at the first formula and kept for the rest of the build."""

    def __init__(self, module):
        self.module, self.process = module, None

    def render(self, tex, *, display):
        if self.process is None:
            self.process = subprocess.Popen(
                [npm.NODE, HERE / "maths.mjs", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf8",
            )
            atexit.register(self.close)
        self.process.stdin.write(json.dumps({"tex": tex, "display": display}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return themed(answer["html"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def themed(html):
    r"""The book's colours, in formulas \textcolor{#0072B2}{q}, become the theme's light or dark ones.

    >>> themed('<span style="color:#0072B2;">q</span>')
    '<span style="color:var(--tl-query-text);">q</span>'
    """
    for name, colour in COLOURS.items():
        html = re.sub(f"color:{colour}", f"color:var(--tl-{name}-text)", html, flags=re.IGNORECASE)
    return html


def install(build):
    """Put the pinned KaTeX into ``build``, unless it is there; returns its folder ``dist``."""
    try:
        return npm.install(build, HERE / "package.json") / "katex" / "dist"
    except RuntimeError as error:
        raise MathsError(str(error)) from None


def stylesheet(dist, target):
    """KaTeX's CSS with the one font format that every browser of today reads, and those fonts."""
    css = (dist / "katex.min.css").read_text("utf8")
    css = re.sub(r',url\([^)]*\.(?:woff|ttf)\) format\("(?:woff|truetype)"\)', "", css)
    version = json.loads((dist.parent / "package.json").read_text())["version"]
    css = css.replace(".woff2)", f".woff2?v={version})")  # so that browsers may keep a font for ever
    css = css.replace("@font-face{", "@font-face{font-display:swap;")  # text does not wait for its fonts
    (target / "fonts").mkdir(parents=True, exist_ok=True)
    (target / "katex.css").write_text(css, "utf8")
    for font in (dist / "fonts").glob("*.woff2"):
        shutil.copy(font, target / "fonts")


def prepare(app):
    if app.builder.format != "html":
        return
    build = Path(app.outdir).parent / "katex"
    dist = install(build)
    static = build / "static"
    stylesheet(dist, static / "katex")
    app.config.html_static_path.append(str(static))
    app.builder.katex = Katex(dist / "katex.mjs")


def render(self, node, *, display):
    try:
        return self.builder.katex.render(node.astext().strip(), display=display)
    except ValueError as error:
        page = self.builder.env.doc2path(self.builder.current_docname, base=False)
        raise MathsError(f"{page}: {error}, in the formula {node.astext().strip()}") from None


def visit_inline(self, node):
    html = render(self, node, display=False)
    joiner = JOINER if html.count('class="katex-base"') == 1 else ""
    self.body.append(f'<span class="math">{html}</span>{joiner}')
    raise nodes.SkipNode


def visit_display(self, node):
    anchor = f' id="{node["ids"][0]}"' if node["ids"] else ""
    number = f'<span class="eqno">({get_node_equation_number(self, node)})</span>' if node["number"] else ""
    self.body.append(f'<div class="math scroll"{anchor}>{render(self, node, display=True)}{number}</div>\n')
    raise nodes.SkipNode


def page_context(app, pagename, templatename, context, doctree):
    """Only pages that hold a formula load the stylesheet and the fonts."""
    if 'class="katex"' in context.get("body", ""):
        app.add_css_file("katex/katex.css")
        for part in ("body", "toc"):
            context[part] = JOINED.sub(r'<span class="math unbroken">\1\2</span>', context[part])


def setup(app):
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_display, None))
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", page_context)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
