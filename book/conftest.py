"""After the cells of each chapter, nbval answers one question more: would it have noticed a wrong output?

While a chapter runs under `pytest --nbval`, every number and every word of its stored outputs is altered in
turn and compared, by nbval itself, with what the cell has just printed. A cell counts as compared if nbval
notices each alteration; a measured time (see tests/book/nbval.cfg) is left out. Pictures count for nothing,
nor do bare words such as True: print the numbers behind them. Nine of ten cells with output must count; the
first one, if it tells the hardware, is asked for nothing more.
"""

import re
from collections.abc import Iterator
from copy import deepcopy

import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, IPyNbFile, coalesce_streams

TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]{2,}")
TAG = re.compile(r"<[^>]*>")
BARE = re.compile(r"True|False|None|ok|<[^>]*>", re.IGNORECASE)

collect_ignore = ["_ext"]  # under nbval, chapters only; the extensions have tests of their own
HARDWARE = "lab.hardware()"  # differs by machine, and is no result
verdicts = pytest.StashKey[dict[int, str]]()  # on a chapter: cell number -> why it does not count, or ""


def slots(outputs: list[NotebookNode]) -> Iterator[tuple[NotebookNode, str]]:
    """Where nbval finds text: (holder, key) pairs."""
    for output in outputs:
        if output.output_type == "stream":
            yield output, "text"
        elif output.output_type == "error":
            yield output, "evalue"
        else:
            yield from ((output.data, kind) for kind in output.data if kind.startswith("text/"))


def altered(outputs: list[NotebookNode], unseen: list[str]) -> Iterator[list[NotebookNode]]:
    """Copies of the outputs, each with one number or word made wrong, except where ``unseen`` matches."""
    for n, (holder, key) in enumerate(slots(outputs)):
        text = holder[key]
        if BARE.fullmatch(text.strip()):
            continue
        visible = text
        for pattern in [TAG, *unseen] if key == "text/html" else unseen:
            visible = re.sub(pattern, lambda found: " " * len(found[0]), visible)
        for token in TOKEN.finditer(visible):
            copy = deepcopy(outputs)
            holder, key = list(slots(copy))[n]
            holder[key] = text[: token.start()] + wrong(token[0]) + text[token.end() :]
            yield copy


def wrong(token: str) -> str:
    return token[:-1] + str((int(token[-1]) + 1) % 10) if token[-1].isdigit() else token + "x"


def verdict(cell: IPyNbCell, stored: list[NotebookNode]) -> str:
    """Why the cell does not count as compared; empty if it does."""
    if not cell.options["check"] or cell.options["skip"]:
        return "is marked as not to be compared"
    cell.format_output_compare = lambda *_: None  # nobody reads why an alteration was noticed
    given = [coalesce_streams(outputs) for outputs in altered(stored, [*cell.parent.sanitize_patterns])]
    if not given:
        return "prints no number and no words"
    hidden = sum(cell.compare_outputs(cell.test_outputs, outputs) for outputs in given)
    return f"hides {hidden} of {len(given)} alterations" if hidden else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> object:
    stored = deepcopy(item.cell.outputs) if isinstance(item, IPyNbCell) else []
    result = yield
    if stored:
        item.parent.stash.setdefault(verdicts, {})[item.cell_num] = verdict(item, stored)
    return result


class Compared(pytest.Item):
    """The last item of a chapter; its cells have run before it, in the same process."""

    def runtest(self) -> None:
        known = self.parent.stash.get(verdicts, {})
        code = [cell for cell in self.parent.nb.cells if cell.cell_type == "code"]
        told = HARDWARE in code[0].source
        printing = (n for n, cell in enumerate(code) if cell.outputs and not (told and n == 0))
        cells = {n: known.get(n, "did not run, or failed") for n in printing}
        missed = {n: why for n, why in cells.items() if why}
        if 10 * len(missed) > len(cells):
            share = f"{len(cells) - len(missed)} of {len(cells)} cells with output are compared"
            reasons = "; ".join(f"Cell {n} {why}" for n, why in missed.items())
            pytest.fail(f"{share}, nine of ten must be: {reasons}", pytrace=False)

    def reportinfo(self) -> tuple[object, int, str]:
        return self.path, 0, f"{self.parent.name}::compared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for chapter in dict.fromkeys(item.parent for item in items if isinstance(item.parent, IPyNbFile)):
        last = max(n for n, item in enumerate(items) if item.parent is chapter)
        items.insert(last + 1, Compared.from_parent(chapter, name="compared"))
