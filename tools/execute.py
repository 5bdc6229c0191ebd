"""Execute chapters in place, so that two executions give the same bytes.

    python tools/execute.py book/attention.ipynb [more.ipynb ...]

A chapter runs from top to bottom in a fresh kernel, on one thread, in the Python that runs this tool. What it
stores is stripped of everything that differs from run to run. A chapter with a fault (an error, a warning, a
machine's path in an output, a figure without alt text, ...) is refused with the cell named; its file stays as
it was. At the end the measured time and memory are printed, for the chapter's hardware card.
"""

import argparse
import base64
import datetime
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from PIL import Image, ImageChops
from traitlets import default

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
VERSIONS_OF = ("torch", "matplotlib", "anywidget")  # beside Python's own
CELL_METADATA = {"tags", "mystnb", "transformer_lab"}  # what editors add beyond these is dropped
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
UNSEEN = 8  # of 255: how far a colour of a stored picture may move for a third of the size
CELL_TIMEOUT = 900  # seconds; a chapter as a whole should take a minute or two

PEAK_MEMORY = nbformat.v4.new_code_cell(  # run after the last cell and taken out again; Linux counts KiB
    "import resource, sys\n"
    "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "print(peak / (2**30 if sys.platform == 'darwin' else 2**20))"
)


class Refused(Exception):
    """The chapter cannot be stored as it is; the message names the cell and says why."""


# Faults: what a stored chapter must not hold. The tests ask the same questions of every notebook in the book.

FOLDERS = "home|root|tmp|usr|var|opt|private|Users|content|work"
MACHINE_PATH = re.compile(rf"(?<![\w.:/])(?:/(?:{FOLDERS})/|[A-Z]:\\)\w")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
MYST = re.compile(
    r"^\s*(?:`{3,}|:{3,})\{[^}\n]*\}|(?:^|[\s(])\{[a-z][\w:.-]*\}`|^\([\w.:-]+\)=\s*$", re.MULTILINE
)
NO_ALT = re.compile(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")[^>]*>")
NOT_COMPARABLE = re.compile(r"\binteract(?:ive|_manual)?\(|\bclear_output\(|\bOutput\(\)")


def faults(nb: NotebookNode) -> list[str]:
    """One sentence for each fault, with the cell named."""
    return [f"{named(nb, i)} {fault}" for i, cell in enumerate(nb.cells) for fault in _cell_faults(cell)]


def _cell_faults(cell: NotebookNode):
    if not cell.source.strip():
        yield "is empty: delete it"
    if cell.cell_type == "markdown":
        if found := MYST.search(cell.source):
            yield f"holds MyST syntax, which Colab shows raw: {found[0].strip()!r}"
        if NO_ALT.search(cell.source):
            yield "shows an image without alt text"
    if cell.cell_type != "code":
        return
    if found := NOT_COMPARABLE.search(cell.source):
        yield f"uses {found[0]!r}, which nbval cannot compare and which is dead on the page"
    if cell.source.rstrip().endswith(";"):
        yield "ends in a semicolon, which hides a value here but not under nbval: write _ = ... instead"
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            yield f"writes to stderr: {_first_line(output.text)}"
        if output.output_type == "error" and not _may_raise(cell):
            yield f"raises {output.ename}: {output.evalue}"
        if "image/png" in output.get("data", {}) and not _alt(cell):
            yield "shows a figure without alt text: set metadata.mystnb.image.alt"
        for text in texts(output):
            if found := MACHINE_PATH.search(text):
                yield f"prints a path of this machine: {_first_line(text[found.start() :])}"
            if found := ADDRESS.search(text):
                yield f"prints a memory address: {found[0]}"


def texts(output: NotebookNode) -> list[str]:
    """The parts of an output that are read as text."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [f"{output.ename}: {output.evalue}"]
    return [text for kind, text in output.data.items() if kind.startswith("text/")]


def _may_raise(cell: NotebookNode) -> bool:
    return "raises-exception" in cell.metadata.get("tags", [])


def _alt(cell: NotebookNode) -> str:
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()


def named(nb: NotebookNode, index: int) -> str:
    return f"cell {index + 1} ({_first_line(nb.cells[index].source)!r})"


def _first_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[0][:80]


# Reading, with ids that stay.


def read(path: Path) -> NotebookNode:
    """The notebook; cells without a valid id get one made from their text, never a random one."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused("there is no such file") from None
    except ValueError as error:
        raise Refused(f"the file is not JSON: {error}") from None
    if not isinstance(raw, dict) or raw.get("nbformat") != 4:
        raise Refused("the file is not a notebook of format 4")
    _give_ids(raw["cells"])
    raw["nbformat_minor"] = 5
    nb = nbformat.from_dict(raw)
    for cell in nb.cells:  # a source may be stored as a list of lines
        cell.source = "".join(cell.source)
    return nb


def _give_ids(cells: list[dict]) -> None:
    taken = set()
    for cell in cells:
        own = str(cell.get("id", ""))
        if not re.fullmatch(r"[\w-]{1,64}", own, re.ASCII) or own in taken:
            digest = hashlib.sha256("".join(cell["source"]).encode()).hexdigest()[:8]
            own = stem = f"{cell['cell_type']}-{digest}"
            copies = 1
            while own in taken:
                copies += 1
                own = f"{stem}-{copies}"
        cell["id"] = own
        taken.add(own)


# Running.


class ThisPython(AsyncKernelManager):
    """Finds the kernel as nbval does: the Python that runs us, whatever kernels the machine has installed."""

    @default("kernel_spec_manager")
    def _find(self) -> NbvalKernelspecManager:
        return NbvalKernelspecManager()


def run(nb: NotebookNode, folder: Path, threads: int = 1) -> float | None:
    """Execute every cell in a fresh kernel; give back its peak memory in GiB, where the system can tell."""
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nb.cells.append(NotebookNode(PEAK_MEMORY, outputs=[]))
    client = NotebookClient(
        nb,
        kernel_manager_class=ThisPython,
        kernel_name=CURRENT_ENV_KERNEL_NAME,
        timeout=CELL_TIMEOUT,
        iopub_timeout=CELL_TIMEOUT,  # after 4 seconds, a busy machine's outputs would be lost
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as nowhere:
        # as conftest.py has it for the tests: sums come out alike anywhere, and no exercise is solved yet
        ours = {"OMP_NUM_THREADS": str(threads), "TRANSFORMER_LAB_PROGRESS": f"{nowhere}/progress.json"}
        ours["OMP_WAIT_POLICY"] = "PASSIVE"  # two threads on a busy machine: who waits must not spin
        ours["TQDM_DISABLE"] = "1"  # a bar is a widget that every run draws otherwise
        try:  # what cells write to stderr comes as messages; the pipe has the kernel's own log only
            client.execute(env=os.environ | ours, stderr=subprocess.DEVNULL)
        except CellExecutionError:
            pass  # `faults` finds it and names the cell
        except (CellTimeoutError, DeadKernelError) as error:
            raise Refused(f"the kernel gave up: {_first_line(str(error))}") from None
    peak = nb.cells.pop().outputs
    return float(peak[0].text) if peak and peak[0].output_type == "stream" else None


# Tidying: what differs from run to run, or says nothing, goes.


def tidy(nb: NotebookNode, date: str) -> None:
    """Bring an executed notebook into the one form in which it is stored."""
    for cell in nb.cells:
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in CELL_METADATA})
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)
            for output in cell.outputs:
                _tidy_output(output)
    metadata = {
        "kernelspec": KERNELSPEC,
        "language_info": {"name": "python"},
        "transformer_lab": reproduced(date),
    }
    if state := _widget_state(nb):
        metadata["widgets"] = {WIDGET_STATE: {"state": state, "version_major": 2, "version_minor": 0}}
    nb.metadata = nbformat.from_dict(metadata)


def reproduced(date: str) -> dict:
    """What the page's footer says: when, and with what."""
    versions = {"python": platform.python_version()}
    versions |= {name: version(name).split("+")[0] for name in VERSIONS_OF}
    return {"reproduced": date, "versions": versions}


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """How a print is cut into messages is chance: neighbours of one stream become one."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _tidy_output(output: NotebookNode) -> None:
    if output.output_type == "error":  # the frames hold paths and line numbers of this machine's libraries
        output.traceback = [f"{output.ename}: {output.evalue}"]
    if png := output.get("data", {}).get("image/png"):
        output.data["image/png"] = base64.b64encode(shrink(base64.b64decode(png))).decode()


def shrink(png: bytes) -> bytes:
    """The same picture in fewer bytes: no metadata, no idle alpha, 128 colours if the eye sees no loss."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    opaque = image.getchannel("A").getextrema() == (255, 255)
    candidates = [image.convert("RGB") if opaque else image]
    if opaque:
        candidates.append(candidates[0].quantize(128, method=Image.Quantize.MAXCOVERAGE))
    best = png
    for candidate in candidates:
        file = io.BytesIO()
        candidate.save(file, "PNG", optimize=True)
        change = ImageChops.difference(Image.open(file).convert("RGBA"), image)
        unseen = max(high for _, high in change.getextrema()) <= UNSEEN
        if unseen and len(file.getvalue()) < len(best):
            best = file.getvalue()
    return best


def _widget_state(nb: NotebookNode) -> dict:
    """The models that the outputs show, with ids numbered in order of appearance in both places."""
    models = nb.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    views = [view for cell in nb.cells for out in cell.get("outputs", []) if (view := _view(out))]
    order: dict[str, str] = {}
    for view in views:
        for old in family(view["model_id"], models):
            order.setdefault(old, f"{len(order) + 1:032x}")
    for view in views:
        view["model_id"] = order[view["model_id"]]
    return {new: _renumbered(models[old], order) for old, new in order.items()}


def family(model_id: str, models: dict) -> list[str]:
    """A widget's model and those that it is made of, in order of appearance."""
    found: list[str] = []
    waiting = [model_id]
    while waiting:
        next_id = waiting.pop()
        if next_id in models and next_id not in found:
            found.append(next_id)
            inner = re.findall(r"IPY_MODEL_(\w+)", json.dumps(models[next_id]["state"], sort_keys=True))
            waiting += reversed(inner)
    return found


def _view(output: NotebookNode) -> NotebookNode | None:
    return output.get("data", {}).get(WIDGET_VIEW)


def _renumbered(model: dict, order: dict[str, str]) -> dict:
    text = json.dumps(model)
    for old, new in order.items():
        text = text.replace(f"IPY_MODEL_{old}", f"IPY_MODEL_{new}")
    model = json.loads(text)
    if model["model_name"] == "LayoutModel":  # dozens of settings, each "not set"
        model["state"] = {name: value for name, value in model["state"].items() if value is not None}
    return model


# Writing.


def write(nb: NotebookNode, path: Path) -> None:
    """All or nothing: a reader, or a crash, never sees half a chapter."""
    nbformat.validate(nb)
    text = nbformat.writes(nb, version=4) + "\n"
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(draft, path.stat().st_mode & 0o777)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def execute(path: Path, date: str) -> str:
    """Execute the chapter and store it; give back the numbers for its hardware card."""
    nb = read(path)
    start = time.perf_counter()
    peak = run(nb, path.parent)
    minutes = (time.perf_counter() - start) / 60
    if found := faults(nb):
        raise Refused("; ".join(found))
    tidy(nb, date)
    write(nb, path)
    memory = "memory not measured" if peak is None else f"{peak:.1f} GiB"
    return f"{minutes:.1f} minutes, {memory}, {os.cpu_count()} CPU cores, one thread"


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute chapters in place, reproducibly.")
    parser.add_argument("chapters", nargs="+", type=Path, metavar="book/STEM.ipynb")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="the date to store (today)")
    options = parser.parse_args()
    refused = 0
    for path in options.chapters:
        try:
            print(f"{path}: {execute(path, options.date)}", flush=True)
        except Refused as reason:
            refused += 1
            print(f"{path}: left as it was, because {reason}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
