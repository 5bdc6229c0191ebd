"""What the learner has solved: one small local file, and the table that ``exercises.progress()`` shows.

The file is ``TRANSFORMER_LAB_PROGRESS`` if that is set, else ``transformer-lab/progress.json`` in the
folder where the system keeps a user's data. A file we cannot read is never written over: it is put aside,
and said so.
"""

import html
import importlib
import json
import os
import pkgutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from .show import Shown

VERSION = 1
STATUSES = ("not yet", "passed")

Entries = dict[str, dict[str, str]]  # "attention.into_heads" -> {"status": ..., "date": ...}


def default_path() -> Path:
    """Where progress is kept on this machine."""
    if chosen := os.environ.get("TRANSFORMER_LAB_PROGRESS"):
        return Path(os.path.expanduser(chosen))  # which leaves ~nobody as it is, where Path's own raises
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "transformer-lab" / "progress.json"


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """One row a chapter: its name, how many of its exercises are solved, and the first that is not."""

    rows: tuple[tuple[str, int, int, str], ...] = ()

    def __repr__(self) -> str:
        width = max((len(title) for title, *_ in self.rows), default=0)
        lines = [
            f"{title:{width}}  {'#' * done}{'.' * (of - done)}  {done} of {of}"
            + (f"  next: {first}" if first else "")
            for title, done, of, first in self.rows
        ]
        return "\n".join([super().__repr__(), *lines])

    def _repr_html_(self) -> str:
        head = "<tr><th>Chapter</th><th colspan=2>Solved</th><th>Next</th></tr>"
        body = "".join(
            f"<tr><td>{html.escape(title)}</td>"
            f'<td><progress value="{done}" max="{of}" aria-label="{html.escape(title)}"></progress></td>'
            f"<td>{done} of {of}</td><td>{html.escape(first)}</td></tr>"
            for title, done, of, first in self.rows
        )
        return f"{super()._repr_html_()}<table>{head}{body}</table>"


class Progress:
    """Call it for the table; ``save`` and ``load`` bring progress past a disk that forgets, as Colab's."""

    def __call__(self) -> Table:
        path = default_path()
        try:
            known, notes = _read(path)
        except OSError as error:
            return Table("Your progress", (_cannot("read", path, error),))
        if not known:
            notes.append("Nothing solved yet: the first `check` that passes will show here.")
        rows = tuple(_row(chapter, known) for chapter in _chapters())
        return Table("Your progress", (*notes, f"Kept in `{path}`."), rows)

    def save(self, path: str | os.PathLike[str]) -> Shown:
        """Write a copy to ``path``, for example on a mounted Drive."""
        try:
            if Path(path).is_file():
                _parse(Path(path).read_bytes())  # somebody's notes are not written over
            known, notes = _read(default_path())
            _write(Path(path), known)
        except OSError as error:
            return Shown("Not saved", (_cannot("write", path, error),))
        except ValueError as error:
            return Shown("Not saved", (f"`{path}` exists and is not a progress file: {error}.",))
        return Shown("Saved", (*notes, f"{_count(known)} written to `{path}`."))

    def load(self, path: str | os.PathLike[str]) -> Shown:
        """Add what ``path`` holds to what is kept here; nothing that is solved becomes unsolved."""
        try:
            found = _parse(Path(path).read_bytes())
            known, notes = _read(default_path())
            _write(default_path(), _merged(known, found))
        except OSError as error:
            return Shown("Not loaded", (_cannot("use", error.filename or path, error),))
        except ValueError as error:
            return Shown("Not loaded", (f"`{path}` is not a progress file: {error}.",))
        return Shown("Loaded", (*notes, f"{_count(found)} read from `{path}`."))

    def reset(self) -> Shown:
        """Start from nothing; the old file is kept beside the new one."""
        path = default_path()
        try:
            aside = _put_aside(path)
        except FileNotFoundError:
            return Shown("Nothing to reset", (f"There is no file `{path}`.",))
        except OSError as error:
            return Shown("Not reset", (_cannot("move", path, error),))
        return Shown("Reset", (f"What was solved until now is in `{aside}`.",))

    def record(self, exercise: str, status: str) -> tuple[str, ...]:
        """Note the outcome of one check; what is solved stays solved. Returns what the learner must know."""
        path = default_path()
        entry = {"status": status, "date": date.today().isoformat()}
        try:
            known, notes = _read(path)
            if known.get(exercise, {}).get("status") != status:
                _write(path, _merged(known, {exercise: entry}))
        except OSError as error:
            return (_cannot("keep your progress in", path, error),)
        return tuple(notes)


progress = Progress()


def _passed(known: Entries, name: str) -> bool:
    return known.get(name, {}).get("status") == "passed"


def _merged(known: Entries, found: Entries) -> Entries:
    return known | {name: entry for name, entry in found.items() if not _passed(known, name)}


def _cannot(do: str, path: str | os.PathLike[str], error: OSError) -> str:
    return f"I cannot {do} `{path}`: {error.strerror}."


def _count(known: Entries) -> str:
    n = sum(_passed(known, name) for name in known)
    return f"{n} solved exercise{'' if n == 1 else 's'}"


def _parse(data: bytes) -> Entries:
    """The entries of a progress file, or a ValueError that says what is wrong with it."""
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON text") from None
    if not isinstance(content, dict) or "transformer_lab_progress" not in content:
        raise ValueError("it holds something else")
    if (version := content["transformer_lab_progress"]) != VERSION:
        raise ValueError(f"its version is {version!r}, and this package reads version {VERSION}")
    entries = content.get("exercises")
    if not isinstance(entries, dict) or not all(_is_entry(entry) for entry in entries.values()):
        raise ValueError("its entries are damaged")
    return entries


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("status") in STATUSES and isinstance(entry.get("date"), str)


def _read(path: Path) -> tuple[Entries, list[str]]:
    """The entries, and what there is to say; a file that is broken or not ours is put aside."""
    try:
        return _parse(path.read_bytes()), []
    except FileNotFoundError:
        return {}, []
    except ValueError as error:
        why, aside = error, _put_aside(path)
    return {}, [f"I could not use your progress file: {why}. It is put aside, unchanged, as `{aside}`."]


def _put_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.stem}-aside-{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
    return aside


def _write(path: Path, entries: Entries) -> None:
    """Write beside the file, then rename: a crash in between leaves the old file whole."""
    text = json.dumps({"transformer_lab_progress": VERSION, "exercises": entries}, indent=1, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _chapters() -> Iterable[Any]:
    """The ``chapter`` of every module in this folder that has one, by name."""
    package = importlib.import_module(__package__.rpartition(".")[0])
    modules = (
        importlib.import_module(f"{package.__name__}.{m.name}")
        for m in pkgutil.iter_modules(package.__path__)
    )
    return [module.chapter for module in modules if hasattr(module, "chapter")]


def _row(chapter: Any, known: Entries) -> tuple[str, int, int, str]:
    left = [name for name in chapter.exercises if not _passed(known, f"{chapter.stem}.{name}")]
    of = len(chapter.exercises)
    return chapter.title, of - len(left), of, left[0] if left else ""
