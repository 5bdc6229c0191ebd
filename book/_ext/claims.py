"""The table of claims: verdicts from the package, numbers from the stored outputs of the chapters' cells.

No number is typed. Each is taken from what a cell printed, by a regular expression, and a build stops
where the cell, or the number, is not found. What answers in the page (sorting, filters) is ``claims.js``;
without it, and on paper, the whole table stands there.
"""

import html
import json
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from transformer_lab import claims as package

from .exercises import raw

SOURCES = (Path(package.__file__), Path(package.__file__).with_suffix(".json"))
HEADINGS = ("No.", "What was said, and what is right", "Verdict", "Measured in this book")


class NotFound(Exception):
    """A cell that is not there, or a number that its output does not hold."""


def notebook(folder: Path, stem: str) -> Path:
    return folder / "book" / f"{stem}.ipynb"


def printed(folder: Path, chapter: str, cell: str) -> str:
    """What a cell of a chapter printed when it was executed last."""
    path = notebook(folder, chapter)
    if not path.exists():
        raise NotFound(f"there is no chapter {chapter!r}")
    for found in json.loads(path.read_text("utf8"))["cells"]:
        if found["id"] == cell and found["cell_type"] == "code":
            streams = (out for out in found["outputs"] if out["output_type"] == "stream")
            return "".join("".join(out["text"]) for out in streams)
    raise NotFound(f"book/{path.name} has no code cell {cell!r}")


def shown(folder: Path, claim: package.Claim) -> list[tuple[package.Evidence, str]]:
    """Each piece of evidence, and the sentence with its number."""
    try:
        return [(e, e.taken_from(printed(folder, e.chapter, e.cell))) for e in claim.evidence]
    except (NotFound, ValueError) as error:
        raise NotFound(f"{claim.id} in transformer_lab/claims.json: {error}.") from None


def check(app):
    """A number that no cell prints stops the build of a book with the table at once, in one sentence."""
    if not (Path(app.srcdir) / "book" / "claims_table.md").exists():
        return
    try:
        for claim in package.read():
            shown(Path(app.srcdir), claim)
    except (NotFound, ValueError) as error:
        raise SystemExit(str(error)) from None


def anchor(cell: str) -> str:
    """The id, in its chapter's page, of a cell that a number comes from."""
    return f"cell-{cell}"


class Anchors(SphinxTransform):
    """Cells that the table takes numbers from can be linked to."""

    default_priority = 690

    def apply(self):
        stem = Path(self.env.docname).name
        wanted = {e.cell for claim in package.read() for e in claim.evidence if e.chapter == stem}
        if not wanted:
            return
        ids = [
            cell["id"]
            for cell in json.loads(notebook(Path(self.env.srcdir), stem).read_text("utf8"))["cells"]
        ]
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") == "cell_code" and ids[cell["cell_index"]] in wanted:
                cell["ids"].append(anchor(ids[cell["cell_index"]]))
        for path in SOURCES:
            self.env.note_dependency(str(path))


class Table(SphinxDirective):
    def run(self):
        folder, listed = Path(self.env.srcdir), package.read()
        chapters = {e.chapter for claim in listed for e in claim.evidence}
        for path in (*SOURCES, *(notebook(folder, chapter) for chapter in chapters)):
            self.env.note_dependency(str(path))
        titles = {chapter: title(notebook(folder, chapter)) for chapter in chapters}
        rows = "".join(row(claim, shown(folder, claim), titles) for claim in listed)
        heads = "".join(f'<th role="columnheader" scope="col">{head}</th>' for head in HEADINGS)
        return [
            raw(
                f'{controls(listed)}<table class="claims" role="table">'
                f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
                f'<tbody role="rowgroup">{rows}</tbody></table>'
            )
        ]


def title(path: Path) -> str:
    """A chapter's heading."""
    cells = json.loads(path.read_text("utf8"))["cells"]
    first = "".join(next(cell for cell in cells if cell["cell_type"] == "markdown")["source"])
    return first.partition("\n")[0].removeprefix("# ")


def controls(listed: list[package.Claim]) -> str:
    """What sifts the rows; it shows with a script only."""
    present = [verdict for verdict in package.VERDICTS if any(c.verdict == verdict for c in listed)]
    verdicts = "".join(f'<option value="{verdict}">{verdict}</option>' for verdict in present)
    order = "".join(
        f'<option value="{column}">{head}</option>' for column, head in enumerate(HEADINGS) if column != 1
    )
    return (
        '<form class="claims-controls" role="search" aria-label="Sift the claims">'
        '<label>Words <input type="search" name="words" autocomplete="off"></label>'
        f'<label>Verdict <select name="verdict"><option value="">all</option>{verdicts}</select></label>'
        f'<label class="claims-order">Order <select name="order">{order}</select></label>'
        '<label class="claims-tick"><input type="checkbox" name="measured"> measured in this book</label>'
        '<label class="claims-tick"><input type="checkbox" name="worst"> the ten worst</label>'
        '<button type="reset">Show all</button><p role="status"></p></form>'
    )


def row(claim: package.Claim, evidence: list[tuple[package.Evidence, str]], titles: dict[str, str]) -> str:
    cells = (
        f'<a class="claim-number" href="#{claim.id.lower()}">{claim.id}</a>',
        f'<p class="claim-said">{html.escape(claim.said)}</p>'
        f"<p>{html.escape(claim.right)}</p>{sources(claim)}",
        f'<span class="verdict verdict-{claim.verdict}">{claim.verdict}</span>',
        measured(claim, evidence, titles),
    )
    columns = "".join(f'<td role="cell">{cell}</td>' for cell in cells)
    worst = f' data-damage="{claim.damage}"' if claim.damage else ""
    return f'<tr role="row" id="{claim.id.lower()}" data-verdict="{claim.verdict}"{worst}>{columns}</tr>'


def sources(claim: package.Claim) -> str:
    if not claim.sources:
        return '<p class="claim-sources">No source was found.</p>'
    return f'<ul class="claim-sources">{"".join(map(source, claim.sources))}</ul>'


def source(given: package.Source) -> str:
    name = html.escape(given.name)
    if given.link:
        name = f'<a href="{html.escape(given.link)}">{name}</a>'
    state = package.CHECKS[given.check] + (f"; {given.note}" if given.note else "")
    kind = given.check.replace(" ", "-")
    return f'<li>{name}: <span class="check check-{kind}">{html.escape(state)}</span></li>'


def measured(
    claim: package.Claim, evidence: list[tuple[package.Evidence, str]], titles: dict[str, str]
) -> str:
    if not evidence:
        return f'<p class="claim-without">No experiment. {html.escape(claim.without)}</p>'
    items = ""
    for n, (e, said) in enumerate(evidence):
        after = [(other.chapter, other.cell) for other, _ in evidence[n + 1 : n + 2]]
        again = after == [(e.chapter, e.cell)]  # one link for numbers of one cell
        items += f"<li>{html.escape(said)}{'' if again else ' ' + link(e, titles[e.chapter])}</li>"
    return f"<ul>{items}</ul>"


def link(e: package.Evidence, chapter: str) -> str:
    name = html.escape(chapter)
    target = f"{e.chapter}.html#{anchor(e.cell)}"
    return f'<a href="{target}" aria-label="{name}: the cell that prints this">{name}</a>'


def page_context(app, pagename, templatename, context, doctree):
    """Only the page with the table loads the script."""
    if 'class="claims"' in context.get("body", ""):
        app.add_js_file("claims.js", loading_method="defer")


def setup(app):
    app.connect("builder-inited", check)
    app.add_transform(Anchors)
    app.add_directive("claims-table", Table)
    app.connect("html-page-context", page_context)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
