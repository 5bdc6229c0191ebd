"""requirements.lock: what requirements.txt asks for and all that this needs, each file by its hash."""

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock

ROOT = Path(lock.__file__).resolve().parent.parent
TEXT = (ROOT / "requirements.lock").read_text()
PINS = {name: Requirement(entry.split("\\")[0]) for name, entry in lock.entries(TEXT).items()}
ASKED = [
    Requirement(line.split("  #")[0])
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if not line.startswith("#")
]


def missing(needs: list[Requirement]) -> list[str]:
    """What is not in the lock in a version that will do, nor among what comes after the lock."""
    return [str(need) for need in needs if not (lock.WITHOUT_HASH.fullmatch(need.name) or _pinned(need))]


def _pinned(need: Requirement) -> bool:
    name = canonicalize_name(need.name)
    return name in PINS and all(need.specifier.contains(pin.version) for pin in PINS[name].specifier)


def test_what_is_asked_for_is_in_it_in_that_version():
    assert len(ASKED) > 30
    assert missing(ASKED) == []


def test_every_file_has_a_hash_and_none_an_address():
    pin, sha256 = r"[a-z0-9-]+==[\w.]+(?: ; [^\\]+)?", r"--hash=sha256:[0-9a-f]{64}"
    assert TEXT.startswith(lock.HEADER)
    for entry in TEXT.removeprefix(lock.HEADER).replace(" \\\n", "").splitlines():
        assert re.fullmatch(f"{pin}(?:    {sha256})+", entry), entry


def test_pytorch_is_not_in_it_nor_what_comes_with_that_alone():
    assert [name for name in PINS if lock.WITHOUT_HASH.fullmatch(name)] == []


def test_it_is_complete_and_holds_no_more():
    """pip installs it without a look at what else is needed: here all is there, and goes together."""
    reached: set[tuple[str, str]] = set()
    waiting = [*ASKED, Requirement("transformer-lab")]
    while waiting:
        need = waiting.pop()
        for extra in {"", *need.extras}:
            if (key := (canonicalize_name(need.name), extra)) not in reached:
                reached.add(key)
                inner = [Requirement(text) for text in requires(need.name) or []]
                inner = [r for r in inner if r.marker is None or r.marker.evaluate({"extra": extra})]
                assert missing(inner) == [], need
                waiting += inner
    here = {name for name, pin in PINS.items() if pin.marker is None or pin.marker.evaluate()}
    assert {name for name, _ in reached if not lock.WITHOUT_HASH.fullmatch(name)} == here | {
        "transformer-lab"
    }
