"""tools/environment.py installs once, says what is wrong, and never leaves a half-made stamp."""

import ast
import hashlib
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import environment

SOURCE = Path(environment.__file__)

# A package that installs itself without a network: its build backend lies beside it.
BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None, name="tiny"):
    path = f"{folder}/{name}-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.pth", "")
        info = f"{name}-0.dist-info/"
        wheel.writestr(info + "METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return path.removeprefix(f"{folder}/")
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "0"
"""
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(SOURCE, tmp_path / "tools")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "requirements.txt").write_text("")
    locked = runpy.run_path(str(tmp_path / "backend.py"))["build_editable"](tmp_path, name="locked")
    sha256 = hashlib.sha256((tmp_path / locked).read_bytes()).hexdigest()
    (tmp_path / "requirements.lock").write_text(f"./{locked} --hash=sha256:{sha256}\n")
    return tmp_path


def run(project, python=sys.executable):
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [python, str(project / "tools" / "environment.py")]
    return subprocess.run(command, env=own | OFFLINE, capture_output=True, text=True)


def test_installs_once_and_again_only_after_an_edit(project):
    first = run(project)
    assert first.returncode == 0 and "Installing into .venv" in first.stdout, first
    python = environment.python_in(str(project / ".venv"))
    ask = "import importlib.metadata as m; print(m.version('tiny'), m.version('locked'))"
    assert subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout == "0 0\n"

    assert run(project).stdout == ""
    (project / "pyproject.toml").write_text(PYPROJECT + "description = 'new'\n")
    assert "Installing into .venv" in run(project).stdout
    assert run(project).stdout == ""


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock", "pyproject.toml"])
def test_an_edit_of_each_of_them_counts(project, name):
    before = environment.digest(str(project))
    with open(project / name, "a") as file:
        file.write("# a new line")
    assert environment.digest(str(project)) != before


def test_without_a_network_one_sentence_and_no_stamp(project):
    (project / "requirements.txt").write_text("a-package-that-must-be-fetched")
    failed = run(project)
    assert failed.returncode == 1
    assert failed.stderr == (
        "The packages could not be fetched: is this machine online? Run it again when it is.\n"
    )
    assert not (project / ".venv" / "installed").exists()


def test_only_locked_files_come_in(project):
    """One without a hash is refused, and so is one whose hash is another."""
    (wheel,) = project.glob("locked-*.whl")
    lock = (project / "requirements.lock").read_text()
    (project / "requirements.lock").write_text(f"./{wheel.name}\n")
    assert run(project).stderr.startswith("pip could not install the packages: Hashes are required")

    (project / "requirements.lock").write_text(lock)
    wheel.write_bytes(wheel.read_bytes() + b"another")
    failed = run(project)
    assert failed.returncode == 1
    assert failed.stderr.startswith(
        "pip could not install the packages: THESE PACKAGES DO NOT MATCH THE HASHES"
    )
    assert not (project / ".venv" / "installed").exists()


def test_the_readme_installs_as_it_does(monkeypatch):
    commands = []
    monkeypatch.setattr(environment, "pip", lambda root, python, arguments: commands.append(arguments))
    environment.install("", "")
    readme = (SOURCE.parents[1] / "README.md").read_text().splitlines()
    assert len(commands) == 2
    assert {f"    pip install {' '.join(arguments)}" for arguments in commands} <= set(readme)


def test_a_failed_renewal_takes_the_old_stamp_away(project):
    assert run(project).returncode == 0
    (project / "requirements.txt").write_text("a-package-that-must-be-fetched")
    assert run(project).returncode == 1
    assert not (project / ".venv" / "installed").exists()
    (project / "requirements.txt").write_text("")
    assert "Installing into .venv" in run(project).stdout


def test_what_pip_refuses_is_passed_on_in_one_sentence(project):
    (project / "requirements.txt").write_text("this is no requirement")
    failed = run(project)
    assert failed.returncode == 1
    assert failed.stderr.startswith("pip could not install the packages: Invalid requirement")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("old", [(2, 7), (3, 8), (3, 10), (3, 14), (4, 0)])
def test_names_the_version_that_came_and_those_that_will_do(old):
    sentence = environment.version_problem(old)
    assert sentence.startswith(f"Python 3.11 to 3.13 is needed, this is {old[0]}.{old[1]}:")


@pytest.mark.parametrize("good", [(3, 11), (3, 12), (3, 13)])
def test_accepts_every_supported_version(good):
    assert environment.version_problem(good) == ""


def test_an_old_python_can_read_the_file():
    """Nothing newer than Python 2.7 (f-strings, annotations, ...), or it could not say that it is too old."""
    new = (
        ast.JoinedStr,
        ast.AnnAssign,
        ast.NamedExpr,
        ast.Nonlocal,
        ast.Starred,
        ast.Match,
    )
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        assert not isinstance(node, new), ast.dump(node)
        assert not (isinstance(node, ast.Raise) and node.cause), ast.dump(node)
        assert not (isinstance(node, ast.FunctionDef) and node.returns), node.name
        assert not (isinstance(node, ast.arg) and node.annotation), node.arg
        assert not (isinstance(node, ast.arguments) and (node.kwonlyargs or node.posonlyargs)), ast.dump(node)
    SOURCE.read_text(encoding="ascii")  # Python 2 reads nothing else without a declaration
