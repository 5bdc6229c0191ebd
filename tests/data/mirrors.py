"""Made-up files in place of a set's real ones."""

import hashlib
from dataclasses import replace

from transformer_lab.data.registry import DATASETS, File


def known_as(name, contents, urls=()):
    """The entry of a set, as if its files had these contents: {file name: bytes}."""
    files = {
        file: File(
            path=f"{name}/{file}",
            urls=tuple(urls),
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
        )
        for file, content in contents.items()
    }
    return replace(DATASETS[name], files=files)


def make_up(monkeypatch, mirror, name, contents):
    """Files with these contents lie in a mirror, which the registry trusts for this test."""
    for file, content in contents.items():
        path = mirror / name / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setitem(DATASETS, name, known_as(name, contents))
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(mirror))
