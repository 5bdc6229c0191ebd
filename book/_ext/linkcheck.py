"""Links that stand in raw HTML are checked like all others: jupyter-book build . --builder linkcheck"""

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform


class RawLinks(SphinxPostTransform):
    """Shows them to the builder, which would see no link there, as links beside the HTML."""

    builders = ("linkcheck",)
    default_priority = 790  # just before the builder collects links

    def run(self) -> None:
        for raw in list(self.document.findall(nodes.raw)):
            links = BeautifulSoup(raw.astext(), "html.parser").select("a[href^=http]")
            raw.parent.extend(nodes.reference("", "", refuri=link["href"]) for link in links)


def setup(app):
    app.add_post_transform(RawLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
