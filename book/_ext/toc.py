"""A chapter that _toc.yml names and nobody wrote stops the build at once, in one sentence."""

import re
from pathlib import Path


def missing(toc, folder):
    """The entries of a table of contents that are no file below ``folder``.

    >>> missing("root: book/intro", Path("nowhere"))
    ['book/intro']
    """
    entries = re.findall(r"(?:file|root): (\S+)", toc)
    return [
        name for name in entries if not any((folder / f"{name}{end}").exists() for end in (".ipynb", ".md"))
    ]


def check(app, config):
    folder = Path(app.srcdir)
    for name in missing((folder / "_toc.yml").read_text("utf8"), folder):
        # not an ExtensionError, which Jupyter Book would bury under a traceback
        raise SystemExit(
            f"_toc.yml names {name}, but there is no {name}.ipynb or .md: write it or take it out."
        )


def setup(app):
    app.connect("config-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
