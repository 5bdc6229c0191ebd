"""The book without a network: what a host needs to install it, and the worker that keeps the pages visited.

Opened from a file, the book needs neither. The worker's version is a digest of every file of the build, so
that a reader's browser notices any change, and an unchanged book stays as it is.
"""

import hashlib
import json
from pathlib import Path

WORKER = "service-worker.js"


def manifest(app) -> dict:
    """The web app manifest (W3C): a name, a start and an icon for the reader's home screen."""
    icon = f"_static/{Path(app.config.html_favicon).name}"
    return {
        "name": app.config.html_title,
        "short_name": app.config.html_title,
        "start_url": f"{app.config.root_doc}.html",
        "scope": "./",
        "display": "standalone",
        "icons": [{"src": icon, "sizes": "any", "type": "image/svg+xml"}],
    }


def version(folder: Path) -> str:
    """A digest of all files in ``folder`` but the worker itself."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != WORKER:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def write(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    (folder / "manifest.webmanifest").write_text(json.dumps(manifest(app)), "utf8")
    names = {"{{ version }}": version(folder), "{{ home }}": f"{app.config.root_doc}.html"}
    text = (Path(__file__).parent.parent / "_theme" / WORKER).read_text("utf8")
    for name, value in names.items():
        text = text.replace(name, value)
    (folder / WORKER).write_text(text, "utf8")


def setup(app):
    app.connect("build-finished", write, priority=900)  # after all who write files
    return {"parallel_read_safe": True, "parallel_write_safe": True}
