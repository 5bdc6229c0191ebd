"""What people install is the package, whole and alone, and it asks for floors only."""

import email
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.strict import require

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEM = f"transformer_lab-{PROJECT['version']}"
CODE_AND_NUMBERS = {".py", ".js", ".json", ".csv", ".safetensors"}
BUILD = "from setuptools import build_meta; build_meta.build_sdist('..'); build_meta.build_wheel('..')"

pytestmark = pytest.mark.xdist_group("wheel")  # it is built once


def tracked(*folders):
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True)
    return set(listed.stdout.split("\0")) - {""}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source archive, built offline from what git tracks."""
    require(bool(tracked()), "this is no clone of the repository, or there is no git")
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder / "source", check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built / f"{STEM}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    about = {"METADATA", "RECORD", "WHEEL", "top_level.txt", "licenses/LICENSE", "licenses/LICENSE-text"}
    assert names == tracked("transformer_lab") | {f"{STEM}.dist-info/{name}" for name in about}
    assert {Path(name).suffix for name in tracked("transformer_lab")} == CODE_AND_NUMBERS


def test_the_source_archive_holds_what_the_wheel_is_built_from(built):
    with tarfile.open(built / f"{STEM}.tar.gz") as archive:
        names = {file.name.removeprefix(f"{STEM}/") for file in archive if file.isfile()}
    about = {"LICENSE", "LICENSE-text", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    made = {name for name in names if name.startswith("transformer_lab.egg-info/")}
    assert names - made == tracked("transformer_lab") | about


def test_it_asks_for_floors_only(built):
    with zipfile.ZipFile(built / f"{STEM}-py3-none-any.whl") as wheel:
        metadata = email.message_from_bytes(wheel.read(f"{STEM}.dist-info/METADATA"))
    assert metadata["Requires-Python"] == PROJECT["requires-python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT AND CC-BY-4.0"
    needs = metadata.get_all("Requires-Dist")
    assert [need for need in needs if "extra ==" not in need] == PROJECT["dependencies"]
    floor = r"[a-z0-9-]+>=[0-9.]+(; extra == \".*)?"
    assert [need for need in needs if not re.fullmatch(floor, need)] == []


@pytest.mark.slow
def test_in_an_empty_environment_the_readme_s_example_runs(built, tmp_path):
    """pip chooses the rest; the example runs in an empty folder, with nothing of this one in sight."""
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    (wheel,) = built.glob("*.whl")
    (tmp_path / "empty").mkdir()
    for command in (
        [sys.executable, "-m", "venv", tmp_path / "venv"],
        [python, "-m", "pip", "install", "--quiet", wheel],
        [python, "-I", "-m", "doctest", ROOT / "README.md"],
    ):
        done = subprocess.run(command, cwd=tmp_path / "empty", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
