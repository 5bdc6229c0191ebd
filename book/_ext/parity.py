"""The parity page's table, from what the tests measured (book/parity.json)."""

import json
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

MEASURED = Path(__file__).resolve().parent.parent / "parity.json"


def rows(measured):
    yield from ("| ours | the other | compared | largest difference | allowed |", "|---|---|---|---|---|")
    for row in measured:
        compared = ", ".join(row["compared"])
        allowed = f"{row['within']:.0e}" + (f": {row['why']}" if row["why"] else "")
        yield f"| `{row['ours']}` | `{row['peer']}` | {compared} | {row['measured']:.0e} | {allowed} |"


class Parity(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(MEASURED))
        return self.parse_text_to_nodes("\n".join(rows(json.loads(MEASURED.read_text("utf-8")))))


def setup(app):
    app.add_directive("parity", Parity)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
