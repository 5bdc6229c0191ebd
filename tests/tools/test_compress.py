"""tools/compress.py: twins of texts alone, the same in every run, and none of an older text."""

import gzip
from pathlib import Path

from tools import compress

TEXT = b"a book is a book " * 50


def make(folder: Path) -> None:
    (folder / "deep").mkdir()
    for name in ("page.html", "deep/style.css", "deep/chapter.ipynb", "font.woff2", "_headers"):
        (folder / name).write_bytes(TEXT)
    (folder / "short.txt").write_bytes(b"ab")  # its twin would be longer


def twins(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.gz")}


def test_every_text_that_gains_by_it_has_a_twin_and_nothing_else_has(tmp_path):
    make(tmp_path)
    before, after = compress.compress(tmp_path)
    found = twins(tmp_path)
    assert found.keys() == {"page.html.gz", "deep/style.css.gz", "deep/chapter.ipynb.gz"}
    assert {gzip.decompress(twin) for twin in found.values()} == {TEXT}
    assert (before, after) == (3 * len(TEXT), sum(map(len, found.values())))


def test_two_runs_give_the_same_bytes(tmp_path):
    make(tmp_path)
    compress.compress(tmp_path)
    first = twins(tmp_path)
    compress.compress(tmp_path)
    assert twins(tmp_path) == first and first["page.html.gz"][4:8] == bytes(4)  # no time in them


def test_a_twin_follows_its_text_and_goes_with_it(tmp_path):
    make(tmp_path)
    compress.compress(tmp_path)
    (tmp_path / "page.html").write_bytes(TEXT * 2)
    (tmp_path / "deep" / "style.css").unlink()
    compress.compress(tmp_path)
    assert gzip.decompress(twins(tmp_path)["page.html.gz"]) == TEXT * 2
    assert "deep/style.css.gz" not in twins(tmp_path)


def test_the_command_says_what_it_did(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compress, "BOOK", tmp_path)
    assert compress.main() == "There is no book in _build/html yet: build it first, with make html."
    (tmp_path / "index.html").write_bytes(b"x" * 2_000_000)
    assert compress.main() == 0
    assert capsys.readouterr().out == "2.0 MB of text, 0.0 MB compressed beside it.\n"
