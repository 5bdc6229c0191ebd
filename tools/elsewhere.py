"""Run every chapter as readers have it: another environment, an empty folder, the installed package.

    python tools/elsewhere.py colab     # what Colab has (colab.txt), as far as this Python allows
    python tools/elsewhere.py lowest    # the lowest version of all that the package declares; Python 3.11
    python tools/elsewhere.py newest    # the newest version of it
    python tools/elsewhere.py image     # this Python, as it is: for Colab's own image

What is run is the last commit, as if it were a release. In the places like Colab a chapter's first cell
installs it, as it does there, and must not replace anything; in the others pip installs its wheel. With
--offline (Linux) the chapters then run without a network.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
NBVAL = ["pytest", "pytest-xdist", "nbval"]
# A network of its own, in which a kernel and its client still find each other.
ALONE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


class Failed(Exception):
    """The chapters cannot be run, or did not come out as stored; the message is one sentence."""


def run(*command: str | Path, quiet: bool = False, cwd: Path | None = None) -> str:
    output = subprocess.PIPE if quiet else None
    done = subprocess.run([*map(str, command)], stdout=output, text=True, cwd=cwd)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command[:4]))} ... failed, as it says above")
    return done.stdout or ""


# The release.


@contextmanager
def release(folder: Path) -> Iterator[Path]:
    """The last commit as a repository of its own, served on this machine: first cells install its one tag."""
    run("git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), folder)
    shutil.rmtree(folder / ".git")
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = re.search(r"(?m)^  url: (\S+)", (folder / "_config.yml").read_text("utf-8"))[1]
        for path in (folder / "_config.yml", *(folder / "book").glob("*.ipynb")):
            here = f"http://127.0.0.1:{server.server_port}/.git"
            path.write_text(path.read_text("utf-8").replace(url, here), "utf-8")
        git = ("git", "-C", folder, "-c", "user.name=elsewhere", "-c", "user.email=elsewhere@example.org")
        for command in ("init --quiet", "add .", "commit --quiet -m release", f"tag v{project()['version']}"):
            run(*git, *command.split())
        run(*git, "update-server-info")  # else only a server that knows git could hand it out
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """What is asked for is of no interest here."""


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def floors(declared: dict) -> list[str]:
    """The lowest versions that a project declares, as pins.

    >>> floors({"dependencies": ["torch>=2.6"], "optional-dependencies": {"chapters": ["timm>=1.0"]}})
    ['torch==2.6', 'timm==1.0']
    """
    extras = declared.get("optional-dependencies", {}).values()
    return [name.replace(">=", "==") for group in (declared["dependencies"], *extras) for name in group]


# The places.


@dataclass(frozen=True)
class Place:
    """Somewhere to run: its Python, what is there before us, and how the package comes."""

    python: Path
    repository: Path

    def pip(self, *words: str | Path) -> None:
        run(self.python, "-m", "pip", "install", "--quiet", *words)

    def packages(self) -> dict[str, str]:
        frozen = run(self.python, "-m", "pip", "list", "--format=freeze", quiet=True)
        return dict(line.split("==") for line in frozen.splitlines())

    def install_by_first_cell(self) -> None:
        """As a reader's notebook does it: nothing that was there before may be another afterwards."""
        before = self.packages()
        cells = json.loads((self.repository / "book" / "attention.ipynb").read_text("utf-8"))["cells"]
        first = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
        # not from the repository, whose package could be imported as it lies there
        run(self.python, "-m", "IPython", "--colors=NoColor", "-c", first, cwd=self.repository.parent)
        after = self.packages()
        if changed := replaced(before, after):
            raise Failed(f"the first cell replaced what was there: {', '.join(changed)}")
        if "transformer-lab" in before or "transformer-lab" not in after:
            raise Failed("the first cell did not install the package")

    def install_wheel(self, *constraints: str | Path) -> None:
        wheels = self.repository / "wheels"
        run(self.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, self.repository)
        (wheel,) = wheels.glob("*.whl")
        self.pip(f"{wheel}[chapters]", *constraints)


def replaced(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is not as it was.

    >>> replaced({"numpy": "2.1.3", "torch": "2.11.0"}, {"numpy": "2.4.0", "torch": "2.11.0", "tqdm": "4.67"})
    ['numpy 2.1.3 became 2.4.0']
    """
    changed = (name for name in before if after.get(name) != before[name])
    return [f"{name} {before[name]} became {after.get(name)}" for name in changed]


def colab(place: Place) -> None:
    place.pip("-r", ROOT / "tools" / "colab.txt", *NBVAL)
    place.install_by_first_cell()


def lowest(place: Place) -> None:
    pins = place.repository / "lowest.txt"
    pins.write_text("\n".join(floors(project())), "utf-8")
    place.pip(*NBVAL, "ipykernel")
    place.install_wheel("-c", pins)


def newest(place: Place) -> None:
    place.pip(*NBVAL, "ipykernel")
    place.install_wheel()


def image(place: Place) -> None:
    place.pip(*NBVAL)
    place.install_by_first_cell()


PLACES: dict[str, Callable[[Place], None]] = {p.__name__: p for p in (colab, lowest, newest, image)}


def try_all(place: Place, folder: Path, *, offline: bool) -> None:
    """README's example, and every chapter under nbval, in a folder of little else than notebooks."""
    (folder / "book").mkdir(parents=True)
    for name in ("conftest.py", "tests/book/nbval.cfg", "README.md"):
        shutil.copy(ROOT / name, folder)
    for path in (ROOT / "book" / "conftest.py", *(place.repository / "book").glob("*.ipynb")):
        shutil.copy(path, folder / "book")
    alone = ALONE if offline else []
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", "--dist", "loadscope")
    nbval = ("--nbval", "--nbval-current-env", "--nbval-sanitize-with=nbval.cfg")
    run(*alone, place.python, "-m", "doctest", "README.md", cwd=folder)
    run(*alone, place.python, *command, *nbval, "book", cwd=folder)


def main() -> int | str:
    parser = argparse.ArgumentParser(description="Run every chapter in another environment.")
    parser.add_argument("place", choices=PLACES)
    parser.add_argument("--offline", action="store_true", help="run the chapters without a network (Linux)")
    options = parser.parse_args()
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):  # nothing but what is installed there
        os.environ.pop(name, None)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            python = Path(sys.executable)
            if options.place != "image":
                venv.create(folder / "venv", with_pip=True)
                python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
            with release(folder / "release") as repository:
                place = Place(python, repository)
                PLACES[options.place](place)
            for package, version in sorted(place.packages().items()):
                print(f"    {package} {version}")
            try_all(place, folder / "empty", offline=options.offline)
    except Failed as reason:
        return f"In {options.place}: {reason}."
    print(f"In {options.place}: every chapter printed what is stored.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
