"""The parity page's table, from what the tests measured (book/parity.json)."""

import json
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

MEASURED = Path(__file__).resolve().parent.parent / "parity.json"


def rows(measured):
    yield from ("| ours, and the other | largest difference | allowed | compared |", "|---|---|---|---|")
    for row in measured:
        compared = ", ".join(row["compared"]) + (f" ({row['why']})" if row["why"] else "")
        numbers = f"{row['measured']:.0e} | {row['within']:.0e}"
        yield f"| `{row['ours']}` and `{row['peer']}` | {numbers} | {compared} |"


class Parity(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(MEASURED))
        table = self.parse_text_to_nodes("\n".join(rows(json.loads(MEASURED.read_text("utf-8")))))
        return [nodes.container("", *table, classes=["parity"])]


def setup(app):
    app.add_directive("parity", Parity)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
