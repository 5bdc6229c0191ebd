"""Make or renew .venv: what requirements.lock pins, what requirements.txt has beyond it, and the package.

    python tools/environment.py

A second call takes milliseconds: a stamp, written only after everything is installed, holds a digest of the
files named in WANTED. This file runs under any Python, however old, so that it can say which is needed.
"""
# ruff: noqa: RUF005, UP031

import hashlib
import os
import re
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WANTED = ("requirements.lock", "requirements.txt", "pyproject.toml")  # a change in these installs again
NO_NETWORK = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "connection broken",
)


class Failed(Exception):
    """The environment could not be made; the message is one sentence for the person who asked."""


def version_problem(running):
    """What to say to a Python of version ``running``; an empty text where it will do."""
    if OLDEST <= tuple(running[:2]) <= NEWEST:
        return ""
    versions = OLDEST + NEWEST + tuple(running[:2])
    return "Python %d.%d to %d.%d is needed, this is %d.%d: name another with PYTHON=python3.12" % versions


def python_in(venv):
    folder, name = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return os.path.join(venv, folder, name)


def digest(root):
    found = hashlib.sha256(repr(sys.version_info).encode())
    for name in WANTED:
        with open(os.path.join(root, name), "rb") as file:
            found.update(file.read())
    return found.hexdigest()


def is_ready(venv, wanted):
    try:
        with open(os.path.join(venv, "installed")) as stamp:
            return stamp.read() == wanted and os.path.exists(python_in(venv))
    except OSError:
        return False


def make(root):
    """Install what is missing in ``root``/.venv; raise ``Failed`` where that cannot be done."""
    venv = os.path.join(root, ".venv")
    stamp = os.path.join(venv, "installed")
    wanted = digest(root)
    if is_ready(venv, wanted):
        return
    print("Installing into .venv: a few minutes the first time.")
    sys.stdout.flush()
    if os.path.exists(stamp):
        os.remove(stamp)
    # --clear would throw away gigabytes that pip can keep; a .venv of another Python must go all the same
    fresh = ["--clear"] if not runs_as_we_do(python_in(venv)) else []
    if subprocess.call([sys.executable, "-m", "venv"] + fresh + [venv]):
        raise Failed("Python could not make .venv; on Debian and Ubuntu, first run: apt install python3-venv")
    install(root, python_in(venv))
    with open(stamp + ".new", "w") as file:
        file.write(wanted)
    os.replace(stamp + ".new", stamp)


def runs_as_we_do(python):
    ask = "import sys; sys.exit(sys.version_info[:2] != %r)" % (tuple(sys.version_info[:2]),)
    try:
        return subprocess.call([python, "-c", ask]) == 0
    except OSError:
        return False


def install(root, python):
    """The lock is complete, so pip need not look for more; what builds the package is in it, too."""
    pip(root, python, ["--no-deps", "--require-hashes", "-r", "requirements.lock"])
    pip(root, python, ["--no-build-isolation", "-r", "requirements.txt", "-e", "."])


def pip(root, python, arguments):
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    running = subprocess.Popen(
        command + arguments,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    with open(os.path.join(root, "requirements.txt")) as file:
        asked = re.findall(r"(?m)^[\w-]+", file.read().lower())
    said = []
    for line in running.stdout:
        said.append(line.strip())
        found = re.match(r"Collecting ([\w-]+)\S*", line)
        if found and found.group(1) in asked:  # what these need in turn would be a long list
            print(found.group())
            sys.stdout.flush()
    if running.wait():
        raise Failed(why(said))


def why(said):
    """pip's last words in one sentence."""
    if any(sign in line for line in said for sign in NO_NETWORK):
        return "The packages could not be fetched: is this machine online? Run it again when it is."
    errors = [line for line in said if line.startswith("ERROR: ")] or said[-1:] or ["it did not say why"]
    return "pip could not install the packages: " + errors[-1].replace("ERROR: ", "")


def main():
    problem = version_problem(sys.version_info)
    if problem:
        return problem
    try:
        make(ROOT)
    except Failed as failure:
        return str(failure)
    except KeyboardInterrupt:
        return "Stopped before everything was installed; run it again to go on."
    return 0


if __name__ == "__main__":
    sys.exit(main())
