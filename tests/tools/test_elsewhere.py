"""tools/elsewhere.py: what it makes and refuses; the runs in whole environments are jobs of the workflows."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from tests.strict import require
from tools import elsewhere

ROOT = Path(__file__).resolve().parents[2]
PROJECT = elsewhere.project()
DECLARED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["chapters"]]


def pins(name):
    lines = (ROOT / "tools" / name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("declared", DECLARED)
def test_whatever_the_package_needs_has_a_floor_and_no_cap(declared):
    """A cap would replace what Colab has; without a floor nobody knows what was tried."""
    assert re.fullmatch(r"[\w-]+>=\d+(\.\d+)*", declared)
    assert declared.replace(">=", "==") in elsewhere.floors(PROJECT)


def test_what_colab_has_is_enough_for_the_package():
    colab = {pin.name: pin.specifier for pin in pins("colab.txt")}
    needed = {need.name: need.specifier for need in map(Requirement, DECLARED)}
    assert {"torch", "numpy", "ipywidgets", "anywidget", "matplotlib"} <= colab.keys() & needed.keys()
    for name in colab.keys() & needed.keys() - {"transformers"}:
        (pin,) = colab[name]
        assert pin.operator == "==" and needed[name].contains(pin.version), name


def test_what_was_replaced_is_named():
    before = {"numpy": "2.1.3", "torch": "2.11.0", "gone": "1"}
    assert elsewhere.replaced(before, before | {"new": "1"}) == []
    after = {"numpy": "2.4.0", "torch": "2.11.0"}
    assert elsewhere.replaced(before, after) == ["numpy 2.1.3 became 2.4.0", "gone 1 became None"]


def test_the_release_on_trial_is_one_that_pip_could_fetch(tmp_path):
    tag = f"v{PROJECT['version']}"
    with elsewhere.release(tmp_path / "release") as folder:
        cells = json.loads((folder / "book" / "masks.ipynb").read_text())["cells"]
        source = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
        url = re.search(r"git\+(\S+)@" + re.escape(tag), source)[1]
        with urllib.request.urlopen(f"{url}/info/refs") as answer:
            assert f"refs/tags/{tag}" in answer.read().decode()
        command = ("git", "clone", "--quiet", "--branch", tag, url, tmp_path / "clone")
        assert subprocess.run(command, capture_output=True).returncode == 0
    assert (tmp_path / "clone" / "transformer_lab" / "attention.py").exists()


NETWORK = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), timeout=5).close()
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)  # kept free for examples, RFC 5737
except OSError as error:
    print(error.strerror)
"""


def test_without_a_network_a_kernel_still_finds_its_client():
    can = (
        sys.platform == "linux"
        and not subprocess.run([*elsewhere.ALONE, "true"], capture_output=True).returncode
    )
    require(can, "nothing was run without a network: this system lets nobody make one of his own")
    done = subprocess.run([*elsewhere.ALONE, sys.executable, "-c", NETWORK], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("Network is unreachable\n", "")


def test_a_chapter_that_prints_something_else_there_fails(tmp_path, capfd):
    (tmp_path / "repository" / "book").mkdir(parents=True)
    for name, stored in (("right", "2\n"), ("wrong", "3\n")):
        cell = nbformat.v4.new_code_cell("print(1 + 1)", execution_count=1)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=stored)]
        nb = nbformat.v4.new_notebook(cells=[cell])
        nbformat.write(nb, tmp_path / "repository" / "book" / f"{name}.ipynb")
    place = elsewhere.Place(Path(sys.executable), tmp_path / "repository")
    with pytest.raises(elsewhere.Failed, match=r"-m pytest .* failed, as it says above"):
        elsewhere.try_all(place, tmp_path / "empty", offline=False)
    said = capfd.readouterr().out
    assert "FAILED book/wrong.ipynb::Cell 0" in said and "FAILED book/right" not in said
