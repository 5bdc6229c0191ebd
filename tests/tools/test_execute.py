"""tools/execute.py: the same bytes twice, nothing of this machine, refusals that name the cell."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image, ImageChops, PngImagePlugin

from tools import execute

pytestmark = pytest.mark.xdist_group("execute")  # the chapter is executed once

HOME = "/".join(("", "home", "me"))  # in pieces: no file of ours may hold such a path
CHAPTER = [
    ("markdown", "# A chapter", {}),
    (
        "code",
        "import os, sys\nprint(os.environ['OMP_NUM_THREADS'], end=' ')\nsys.stdout.flush()\nprint(2)",
        {},
    ),
    (
        "code",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        {"mystnb": {"image": {"alt": "A line that rises."}}, "collapsed": True},
    ),
    ("code", "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider", {}),
    ("code", "slider", {}),
    ("code", "raise ValueError('too wide: 3')", {"tags": ["raises-exception"]}),
]


def notebook(path, cells):
    """Store cells as an editor would: with a kernel of its own, without ids."""
    made = [{"cell_type": kind, "source": source, "metadata": metadata} for kind, source, metadata in cells]
    for cell in made:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    metadata = {"kernelspec": {"name": "mine", "display_name": "Mine"}, "colab": {"provenance": []}}
    raw = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(raw))
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The chapter executed once: its path and what the author is told."""
    path = notebook(tmp_path_factory.mktemp("book") / "chapter.ipynb", CHAPTER)
    with pytest.MonkeyPatch.context() as outside:
        outside.delenv("OMP_NUM_THREADS")  # the author's shell does not have what conftest.py sets
        return path, execute.execute(path, "2026-01-31")


def test_executing_twice_gives_the_same_bytes(executed):
    path, card = executed
    first = path.read_bytes()
    command = [sys.executable, execute.__file__, "--date", "2026-01-31", str(path)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, ""), again
    assert path.read_bytes() == first
    said = r"\d+\.\d minutes, \d+\.\d GiB, \d+ CPU cores, one thread"
    assert re.fullmatch(said, card) and re.fullmatch(f"{re.escape(str(path))}: {said}\n", again.stdout)


def test_the_stored_form(executed):
    text = executed[0].read_text(encoding="utf-8")
    nb = nbformat.reads(text, as_version=4)
    assert text.endswith("}\n") and text.startswith('{\n "cells"')
    assert [c.execution_count for c in nb.cells if c.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert len(nb.cells[1].outputs) == 1 and nb.cells[1].outputs[0].text == "1 2\n"  # merged; one thread
    assert nb.cells[2].metadata == {"mystnb": {"image": {"alt": "A line that rises."}}}
    assert nb.cells[5].outputs[0].traceback == ["ValueError: too wide: 3"]
    assert nb.metadata.kernelspec == execute.KERNELSPEC
    assert nb.metadata.language_info == {"name": "python"}
    assert nb.metadata.transformer_lab.reproduced == "2026-01-31"
    assert nb.metadata.transformer_lab.versions.keys() == {"python", "torch", "matplotlib", "anywidget"}


def test_widgets_are_numbered_in_order_of_appearance(executed):
    nb = nbformat.read(executed[0], as_version=4)
    views = [nb.cells[n].outputs[0].data[execute.WIDGET_VIEW].model_id for n in (3, 4)]
    state = nb.metadata.widgets[execute.WIDGET_STATE].state
    assert views == [f"{1:032x}"] * 2
    assert sorted(state) == [f"{n:032x}" for n in (1, 2, 3)]
    slider = state[views[0]]["state"]
    assert slider.value == 3
    assert [slider.layout, slider.style] == [f"IPY_MODEL_{n:032x}" for n in (2, 3)]
    assert None not in state[slider.layout.removeprefix("IPY_MODEL_")].state.values()


def cells_of(*cells):
    nb = nbformat.v4.new_notebook()
    for kind, source, outputs in cells:
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        nb.cells.append(make(source, outputs=outputs) if kind == "code" else make(source))
    return nb


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


PICTURE = nbformat.v4.new_output("display_data", {"image/png": "AAAA"})


@pytest.mark.parametrize(
    ("kind", "source", "outputs", "fault"),
    [
        ("code", "warn()", [stream("UserWarning: old\n", "stderr")], "writes to stderr: UserWarning: old"),
        ("code", "1/0", [nbformat.v4.new_output("error", ename="E", evalue="no")], "raises E: no"),
        ("code", "plot()", [PICTURE], "shows a figure without alt text: set metadata.mystnb.image.alt"),
        ("code", "f", [stream(f"see {HOME}/x.py")], f"prints a path of this machine: {HOME}/x.py"),
        ("code", "f", [stream(r"C:\Users\me")], "prints a path of this machine: C:\\Users\\me"),
        ("code", "f", [stream("<f at 0x7f3a21bc>")], "prints a memory address: 0x7f3a21bc"),
        ("code", "interact(f)", [], "uses 'interact(', which nbval cannot compare and which is dead"),
        ("code", "clear_output()", [], "uses 'clear_output('"),
        ("code", "out = widgets.Output()", [], "uses 'Output()'"),
        ("code", "ax.legend();", [], "ends in a semicolon, which hides a value here but not under nbval"),
        ("code", " ", [], "is empty: delete it"),
        ("markdown", "", [], "is empty: delete it"),
        ("markdown", "```{note}\nx\n```", [], "holds MyST syntax, which Colab shows raw: '```{note}'"),
        ("markdown", ":::{tip}\nx\n:::", [], "holds MyST syntax"),
        ("markdown", "see {ref}`there`", [], "holds MyST syntax"),
        ("markdown", "(label)=\n## Heading", [], "holds MyST syntax"),
        ("markdown", "![](a.png)", [], "shows an image without alt text"),
        ("markdown", '<img src="a.png" alt="">', [], "shows an image without alt text"),
    ],
)
def test_each_fault_is_found_and_its_cell_named(kind, source, outputs, fault):
    (found,) = execute.faults(cells_of(("markdown", "# Title", []), (kind, source, outputs)))
    name = source.strip().splitlines()[:1] or [""]
    assert found.startswith(f"cell 2 ({name[0]!r}) {fault}")


@pytest.mark.parametrize(
    ("kind", "source", "outputs"),
    [
        ("markdown", r"maths $\mathbb{R}^{n}$, code `x_{i}`, ```python```, ![a line](a.png)", []),
        ("markdown", '<img src="a.png" alt="a line"> <details><summary>Hint 1</summary>x</details>', []),
        ("code", "f(x)  # see https://example.org/home/x", [stream("1/2 and/or 3 s, a/usr/b\n")]),
    ],
)
def test_plain_text_is_no_fault(kind, source, outputs):
    assert execute.faults(cells_of((kind, source, outputs))) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("print(1)\nraise KeyError('x')", "cell 2 ('print(1)') raises KeyError: 'x'"),
        ("import warnings\nwarnings.warn('old')", "cell 2 ('import warnings') writes to stderr"),
        ("import os\nos._exit(1)", "the kernel gave up"),
    ],
)
def test_a_refused_chapter_stays_as_it_was(tmp_path, source, says):
    path = notebook(tmp_path / "chapter.ipynb", [("markdown", "# A chapter", {}), ("code", source, {})])
    before = path.read_bytes()
    with pytest.raises(execute.Refused) as refused:
        execute.execute(path, "2026-01-31")
    assert says in str(refused.value)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["chapter.ipynb"]


def test_a_broken_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = notebook(tmp_path / "chapter.ipynb", CHAPTER[:1])
    before = path.read_bytes()

    def full(draft, target):
        assert Path(draft).parent == target.parent  # on the same disk, or replacing is not one step
        raise OSError("disk full")

    monkeypatch.setattr(execute.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        execute.write(execute.read(path), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["chapter.ipynb"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file"),
        ("no JSON", "the file is not JSON"),
        ("[]", "the file is not a notebook of format 4"),
        ('{"nbformat": 3}', "the file is not a notebook of format 4"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path, content, says):
    path = tmp_path / "chapter.ipynb"
    if content is not None:
        path.write_text(content)
    refused = subprocess.run([sys.executable, execute.__file__, str(path)], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{path}: left as it was, because {says}")


def test_ids_stay_and_new_ones_come_from_the_text(tmp_path):
    path = notebook(
        tmp_path / "chapter.ipynb", [("markdown", text, {}) for text in ("a", "b", "b", "c", "d")]
    )
    raw = json.loads(path.read_text())
    raw["cells"][0]["id"] = raw["cells"][3]["id"] = "mine"
    raw["cells"][4]["id"] = "not valid!"
    path.write_text(json.dumps(raw))
    ids = [cell.id for cell in execute.read(path).cells]
    assert ids[0] == "mine"
    assert ids[1].startswith("markdown-") and ids[2] == ids[1] + "-2"
    assert len(set(ids)) == 5
    assert [cell.id for cell in execute.read(path).cells] == ids


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("colours", [2, 250, 5000])
@pytest.mark.parametrize("alpha", [255, 128])
def test_a_picture_shrinks_and_looks_the_same(colours, alpha):
    image = Image.new("RGBA", (100, 100))
    image.putdata([(n % colours % 256, n % colours // 256, 0, alpha) for n in range(100 * 100)])
    said = PngImagePlugin.PngInfo()
    said.add_text("Software", "Matplotlib, and when it ran")
    large = png(image, compress_level=1, pnginfo=said)
    small = execute.shrink(large)
    assert len(small) < len(large) and b"Software" not in small
    change = ImageChops.difference(Image.open(io.BytesIO(small)).convert("RGBA"), image)
    assert max(high for _, high in change.getextrema()) <= execute.UNSEEN
    assert execute.shrink(small) == small


def test_a_palette_that_changes_the_picture_is_not_taken(monkeypatch):
    large = png(Image.new("RGB", (50, 50), "red"), compress_level=0)
    monkeypatch.setattr(Image.Image, "quantize", lambda *_, **__: Image.new("1", (50, 50)))
    assert Image.open(io.BytesIO(execute.shrink(large))).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_a_stored_picture_is_plain_base64(executed):
    nb = nbformat.read(executed[0], as_version=4)
    data = nb.cells[2].outputs[0].data["image/png"]
    assert base64.b64encode(base64.b64decode(data)).decode() == data


def test_tests_of_one_group_go_to_one_worker(request, worker_id):
    """Else every worker would execute the chapter: pytest-xdist reads the group from the name of the test."""
    assert worker_id == "master" or request.node.nodeid.endswith("@execute")
