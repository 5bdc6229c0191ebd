"""`import transformer_lab` costs next to nothing, and each module brings in what it works with."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import transformer_lab
from tests.strict import require

PACKAGE = Path(transformer_lab.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
DECLARED = {need.split(">")[0] for need in PROJECT["dependencies"]}
NEEDED_BY = {"PIL": "matplotlib", "cycler": "matplotlib", "traitlets": "ipywidgets"}  # and come with them
OPTIONAL = {"efficient/_triton.py": {"triton"}, "data/audio.py": {"soundfile"}}  # may be missing there
MILLISECONDS = 100  # that the import may take beside that of PyTorch

EVERYWHERE = {"torch", "numpy", "jaxtyping"}
# What a module brings in beyond those, by itself or by what it builds on; one that is not here, nothing.
BRINGS = {
    "plots": {"matplotlib"},
    "data.__main__": {"filelock"},
    "data.audio": {"filelock"},
    "data.images": {"filelock"},
    "data.pairs": {"filelock", "num2words", "tokenizers"},
    "data.proteins": {"filelock"},
    "data.registry": {"filelock"},
    "data.text": {"filelock"},
    "induction": {"safetensors"},
    "translator": {"safetensors", "tokenizers"},
    "efficient._triton": {"triton"},
    "efficient.flash_kernels": {"triton"},
    "efficient.scan_kernels": {"triton"},
    "training.checkpoint": {"safetensors"},
    "training.encoder_decoder": {"filelock", "num2words", "sacrebleu", "safetensors", "tokenizers", "tqdm"},
    "training.induction": {"safetensors"},
    "training.loop": {"filelock", "num2words", "safetensors", "tokenizers", "tqdm"},
    "training.norms": {"safetensors"},
    "training.number_reader": {"num2words"},
    "training.scaling": {"filelock"},
    "widgets": {"anywidget", "filelock", "ipywidgets", "num2words", "safetensors", "tokenizers"},
}

BROUGHT = """
import importlib, os, pkgutil, sys
import torch
import transformer_lab
beside = set(sys.modules)
for found in pkgutil.walk_packages(transformer_lab.__path__, "transformer_lab."):
    if not os.fork():
        importlib.import_module(found.name)
        new = {name.split(".")[0] for name in set(sys.modules) - beside}
        print(found.name.removeprefix("transformer_lab."), *new, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, found.name
"""


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_nothing_is_imported_that_is_not_declared():
    for path in PACKAGE.rglob("*.py"):
        used = {NEEDED_BY.get(name, name) for name in _imported(ast.parse(path.read_text()))}
        allowed = DECLARED | OPTIONAL.get(path.relative_to(PACKAGE).as_posix(), set()) | {"transformer_lab"}
        assert used <= allowed, path


def _imported(tree):
    """The top names of packages that are not Python's own, wherever in the file they are imported."""
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names


def test_the_package_alone_brings_in_only_itself():
    code = "import sys, torch; old = set(sys.modules); import transformer_lab; print(*set(sys.modules) - old)"
    new = {name.split(".")[0] for name in python("-c", code).stdout.split()}
    assert new - sys.stdlib_module_names == {"transformer_lab"}


def test_the_package_alone_takes_next_to_no_time():
    """Measured by Python itself, within one process; on a busy machine, once in five is enough."""
    assert any(_milliseconds() <= MILLISECONDS for _ in range(5))


def _milliseconds():
    """Of the import, with all that it brings in beyond PyTorch."""
    report = python("-X", "importtime", "-c", "import torch; import transformer_lab").stderr
    return int(re.search(r"(\d+) \| transformer_lab$", report, re.MULTILINE)[1]) / 1000


def test_each_module_brings_in_what_it_works_with():
    require(sys.platform == "linux", "Triton is for Linux, and this needs a system that forks")
    brought = [line.split() for line in python("-c", BROUGHT).stdout.splitlines()]
    for module, *new in brought:
        wanted = BRINGS.get("widgets" if module.startswith("widgets.") else module, set())
        assert {*new} & (DECLARED | {"triton"}) - EVERYWHERE == wanted, module
    assert BRINGS.keys() <= {module for module, *_ in brought}
