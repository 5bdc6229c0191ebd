"""The table of data sets, from the package's registry."""

from sphinx.util.docutils import SphinxDirective

from transformer_lab.data import registry


def rows(sets):
    """A line of Markdown for each set.

    >>> list(rows({"fsdd": registry.DATASETS["fsdd"]}))[2].split(" | ")[1]
    'Spoken digits, from zero to nine in English: 2,500 recordings of 5 speakers. Read by `audio.fsdd`.'
    """
    yield from ("| set | what it holds | licence, and whom to name |", "|---|---|---|")
    for name, known in sets.items():
        readers = " and ".join(f"`{loader}`" for loader in known.loaders)
        holds = f"{known.about[0].upper()}{known.about[1:]}: {known.records}. Read by {readers}."
        size = registry.readable(known.size).replace(" ", "\N{NO-BREAK SPACE}")
        yield f"| `{name}`, {size} | {holds} | **{known.licence}.** {known.attribution} |"


class DataSets(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(registry.LIST))
        return self.parse_text_to_nodes("\n".join(rows(registry.DATASETS)))


def setup(app):
    app.add_directive("data-sets", DataSets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
