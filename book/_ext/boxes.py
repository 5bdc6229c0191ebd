"""A quotation that opens with bold words is a box: `> **Predict.** What happens if ...`.

Plain Markdown, so that it reads well in Colab too; the page gives it the class `box-predict`.
"""

from docutils import nodes
from sphinx.transforms import SphinxTransform


class Boxes(SphinxTransform):
    default_priority = 700

    def apply(self):
        for quote in self.document.findall(nodes.block_quote):
            paragraph = next(iter(quote.findall(nodes.paragraph)), nodes.paragraph())
            opening = next((node for node in paragraph.children if node.astext()), None)
            if isinstance(opening, nodes.strong):
                label = nodes.make_id(opening.astext().split()[0])
                quote["classes"] += ["box", f"box-{label}"]


def setup(app):
    app.add_transform(Boxes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
