"""Execute chapters once more and report each stored output that comes out otherwise.

    python tools/reproduce.py [book/attention.ipynb ...] [--threads 2] [--stamp]

All chapters, unless some are named. They run as tools/execute.py runs them: on a GPU if there is one, unless
CUDA_VISIBLE_DEVICES is empty. Texts, widgets and pictures are compared, but for the times that nbval leaves
out (tests/book/nbval.cfg), the pictures of cells tagged picture-varies, and what no eye sees in the others.
No output is stored: execute.py does that. With --stamp, a page whose outputs came out the same is dated anew:
"last reproduced on ...".
"""

import argparse
import base64
import datetime
import difflib
import functools
import io
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import torch
from nbformat import NotebookNode
from nbval.plugin import get_sanitize_patterns
from PIL import Image, ImageChops

if __package__:
    from . import execute
else:  # run as a file, as above
    import execute

ROOT = Path(__file__).resolve().parent.parent
UNCOMPARED = get_sanitize_patterns((ROOT / "tests" / "book" / "nbval.cfg").read_text(encoding="utf-8"))
PICTURE = "image/png"
VARIES = "picture-varies"  # a cell's tag: it draws times, or what a training made that no two machines repeat
VISIBLE = 2 * execute.UNSEEN  # of 255: each of two pictures may have lost half of that when it was stored
LINES, WIDTH = 6, 110  # what is shown of a difference


def changes(stored: NotebookNode, again: NotebookNode) -> Iterator[str]:
    """For each output that differs: the cell, the kind of output, what it was and what it has become."""
    for i, (old, new) in enumerate(zip(stored.cells, again.cells, strict=True)):
        pairs = itertools.zip_longest(parts(old, stored), parts(new, again), fillvalue=("nothing", ""))
        for (kind, before), (kind_now, now) in pairs:
            if kind != kind_now:
                difference = f" has become {kind_now}{_of_texts(before, now)}"
            else:
                difference = (_of_pictures if kind == PICTURE else _of_texts)(before, now)
            if difference:
                yield f"{execute.named(stored, i)}, id {old.id}: {kind}{difference}"


def parts(cell: NotebookNode, nb: NotebookNode) -> Iterator[tuple[str, str]]:
    """What a cell shows, part by part: its kind, and the text that is compared."""
    varies = VARIES in cell.metadata.get("tags", [])
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            yield output.name, _sanitised(output.text)
        elif output.output_type == "error":
            yield "error", _sanitised(f"{output.ename}: {output.evalue}")
        else:
            for kind, content in sorted(output.data.items()):
                if kind == execute.WIDGET_VIEW:
                    yield "widget", _state(content.model_id, nb)
                elif kind == PICTURE:
                    yield kind, "" if varies else content
                else:
                    yield kind, _sanitised(content)


def _sanitised(text: str) -> str:
    for pattern, instead in UNCOMPARED:
        text = re.sub(pattern, instead, text)
    return text


def _state(model_id: str, nb: NotebookNode) -> str:
    models = nb.metadata.widgets[execute.WIDGET_STATE].state
    family = [models[name] for name in execute.family(model_id, models)]
    return json.dumps(family, indent=1, sort_keys=True)


def _of_texts(before: str, now: str) -> str:
    """The lines that differ; of many the first, of long ones the beginning."""
    lines = list(difflib.unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm=""))[2:]
    lines = [f"{line:.{WIDTH}}" for line in lines if not line.startswith("@@")]
    if len(lines) > LINES:
        lines[LINES:] = [f"... {len(lines) - LINES} lines more"]
    return "".join(f"\n      {line}" for line in lines)


def _of_pictures(before: str, now: str) -> str:
    """What the eye sees of the difference; empty where it sees none."""
    if before == now:
        return ""
    old, new = (Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA") for png in (before, now))
    if old.size != new.size:
        return f" of {old.width} x {old.height} pixels has become one of {new.width} x {new.height}"
    by_pixel = functools.reduce(ImageChops.lighter, ImageChops.difference(old, new).split())
    visible = sum(by_pixel.histogram()[VISIBLE + 1 :])
    most = by_pixel.getextrema()[1]
    return visible and f": {visible} of {old.width * old.height} pixels differ, by up to {most} of 255"


def reproduce(path: Path, threads: int) -> list[str]:
    """Execute the chapter, which stays as it is; give back what came out otherwise."""
    stored, again = nbformat.read(path, as_version=4), execute.read(path)
    try:
        execute.run(again, path.parent, threads)
    except execute.Refused as reason:
        return [str(reason)]
    if found := execute.faults(again):  # after an error the rest did not run
        return found
    execute.tidy(again, "")
    return list(changes(stored, again))


def stamp(path: Path, date: str) -> None:
    """Write into the chapter when and with what it was reproduced, and nothing else."""
    nb = execute.read(path)
    nb.metadata["transformer_lab"] = execute.reproduced(date)
    execute.write(nb, path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Report each stored output that now comes out otherwise.")
    parser.add_argument("chapters", nargs="*", type=Path, metavar="book/STEM.ipynb", help="all, if none")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each chapter (1)")
    parser.add_argument("--stamp", action="store_true", help="date the chapters that came out the same")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="the date to store (today)")
    options = parser.parse_args()
    chapters = options.chapters or sorted((ROOT / "book").glob("*.ipynb"))
    differ = 0
    for path in chapters:
        start = time.perf_counter()
        found = reproduce(path, options.threads)
        minutes = (time.perf_counter() - start) / 60
        print(f"{path.stem}: {len(found)} changes, {minutes:.1f} minutes", *found, sep="\n  ", flush=True)
        differ += bool(found)
        if options.stamp and not found:
            stamp(path, options.date)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = ", ".join(" ".join(pair) for pair in execute.reproduced(options.date)["versions"].items())
    print(f"{differ} of {len(chapters)} chapters differ; {where}, threads: {options.threads}, {versions}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
