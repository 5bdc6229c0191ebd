"""What a reader's browser has to load for the trained models."""

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from book._ext import npm
from tests.strict import require
from tests.widgets.assets import page_scripts

ROOT = Path(__file__).parents[2]
WIDGETS = ROOT / "transformer_lab" / "widgets"
RUNTIME = ("runtime.js", "layers.js", "tensors.js")
MODELS = sorted({path.name.split(".")[0] for path in (ROOT / "book" / "_assets" / "models").iterdir()})


def minified(path: Path) -> bytes:
    try:
        modules = npm.install(ROOT / "_build" / "terser", Path(__file__).with_name("package.json"))
    except RuntimeError as error:
        require(False, str(error))
    command = (npm.NODE, modules / "terser" / "bin" / "terser", path, "--module", "--compress", "--mangle")
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_the_runtime_is_small():
    text = b"".join(minified(WIDGETS / name) for name in RUNTIME)
    exported = re.findall(r"^export function (\w+)", (WIDGETS / "layers.js").read_text("utf8"), re.MULTILINE)
    assert all(name.encode() in text for name in exported)  # the minifier kept what is measured
    assert 1000 < len(gzip.compress(text)) <= 12_000


def test_the_runtime_is_whole():
    for name in RUNTIME:
        imported = re.findall(r'from "\./([\w.]+)"', (WIDGETS / name).read_text("utf8"))
        assert set(imported) <= set(RUNTIME)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_small(name):
    travels = [len(gzip.compress(script.encode())) for script in page_scripts(name)]
    assert 1000 < sum(travels) <= 750_000
