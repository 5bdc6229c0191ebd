"""Nothing here runs what it reads: no pickle, no code out of data, no shell from a chapter."""

import ast
import json
import pickle
import re
from pathlib import Path

import pytest
import torch

from tests.training.test_loop import trainer
from transformer_lab.translator import Translator

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("transformer_lab", "tools", "benchmarks", "book")
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
OF_OURS = {  # each runs the stub of an exercise, out of the package's own source
    ROOT / "book/_ext/exercises.py": ["exec"],
    ROOT / "transformer_lab/exercises/check/written.py": ["exec"],
}

PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
LOADS = re.compile(r"eval|exec|torch\.(load|save)|yaml\.(load|unsafe|full).*|\w+\.read_pickle")
SHELLS = re.compile(r"(subprocess|pty)\b.*|os\.(system|popen|exec|spawn|posix_spawn).*|get_ipython.*")
INSTALL = re.compile(r'^    %pip install --quiet "[^"\n]+"$', re.MULTILINE)
FIRST = 'try:\n    import x\nexcept ImportError:\n    %pip install --quiet "x @ git+y"\n'


def used(tree):
    """What is imported and what is called: its name, and the keywords that it is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, {}) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", {}) for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def dangers(tree):
    """What would run code that comes with data."""
    return [
        name
        for name, given in used(tree)
        if name.split(".")[0] in PICKLES
        or (LOADS.fullmatch(name) and given.get("weights_only") != "True")
        or given.get("allow_pickle", "False") != "False"
    ]


def problems(cells):
    """Of a chapter's cells of code. They are plain Python, which has no magics; but the first may install."""
    for n, source in enumerate(cells):
        try:
            tree = ast.parse(source if n else INSTALL.sub("    pass", source, count=1))
        except SyntaxError as error:
            yield error.text.strip()
        else:
            yield from dangers(tree)
            yield from (name for name, _ in used(tree) if SHELLS.fullmatch(name))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib.load"]),
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=False)", ["torch.load"]),
        ("torch.load(path, weights_only=True)", []),
        ("from torch import load", ["torch.load"]),
        ("torch.save(state, path)", ["torch.save"]),
        ("np.load(path, allow_pickle=True)", ["np.load"]),
        ("np.load(path, allow_pickle=wanted)", ["np.load"]),
        ("np.load(path)", []),
        ("yaml.load(text, Loader=yaml.Loader)", ["yaml.load"]),
        ("yaml.safe_load(text)", []),
        ("eval(text)", ["eval"]),
        ("model.eval()", []),
    ],
)
def test_a_danger_is_seen(source, found):
    assert dangers(ast.parse(source)) == found


def test_no_source_runs_what_it_reads():
    assert len(SOURCES) > 100
    found = {path: dangers(ast.parse(path.read_text("utf8"))) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == OF_OURS


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("x = 1", []),
        ("!ls", ["!ls"]),
        ("x = !ls", ["x = !ls"]),
        ("%%bash\nls", ["%%bash"]),
        ("%system ls", ["%system ls"]),
        (FIRST, ['%pip install --quiet "x @ git+y"']),
        ("import subprocess as s", ["subprocess"]),
        ("os.system('ls')", ["os.system"]),
        ("from os import popen", ["os.popen"]),
        ("get_ipython().system('ls')", ["get_ipython().system", "get_ipython"]),
        ("import pickle", ["pickle"]),
    ],
)
def test_a_shell_in_a_chapter_is_seen(cell, found):
    assert list(problems([FIRST, cell])) == found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_chapter_runs_a_shell_or_what_it_reads(path):
    cells = json.loads(path.read_text("utf8"))["cells"]
    assert list(problems("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")) == []


class Trap:
    """Pickled, it makes a file as it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.bad_input
@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
@pytest.mark.parametrize("read", [lambda path: trainer(checkpoint_path=path), Translator.load])
def test_a_file_that_would_run_code_is_refused(read, write, tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "model"
    pickle.loads(pickle.dumps(Trap(sprung)))
    sprung.unlink()  # the trap works

    write(Trap(sprung), path)
    with pytest.raises(ValueError, match=r"^\S+ (is no checkpoint that can be|cannot be) read: "):
        read(path)
    assert not sprung.exists()
