"""The notation page's tables, from the package's own alphabet: there is no second copy to drift from it."""

from sphinx.util.docutils import SphinxDirective

from transformer_lab import notation

COLOUR_USES = {
    "query": "queries: what a token asks for",
    "key": "keys: what a token can be found by",
    "value": "values: what a token has to say",
    "output": "the output: the mix of values that comes back",
    "masked": "masked: positions that may not be seen",
}


def letters():
    yield from ("| letter | meaning |", "|---|---|")
    for letter, meaning in notation.LETTERS.items():
        yield f"| `{letter}` | {meaning} |"


def colours():
    yield from ("| colour | used for |", "|---|---|")
    for name, colour in notation.COLOURS.items():
        swatch = f'<span class="swatch" style="background: var(--tl-{name})"></span>'
        yield f"| {swatch} `{colour}` | {COLOUR_USES[name]} |"


class Table(SphinxDirective):
    required_arguments = 1

    def run(self):
        self.env.note_dependency(notation.__file__)
        rows = {"letters": letters, "colours": colours}[self.arguments[0]]()
        return self.parse_text_to_nodes("\n".join(rows))


def setup(app):
    app.add_directive("notation", Table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
