"""The data sets that the book fetches, as ``datasets.json`` lists them: whose they are, and where.

No file is used before its size and SHA-256 are found right; in the cache, one appears whole or not at all.
``python -m transformer_lab.data`` does the same from the command line.
"""

import csv
import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLCertVerificationError
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

ATTEMPTS = 4  # at each address, while what went wrong may pass
TIMEOUT = 30.0  # seconds without an answer, after which a server counts as away
SLOWEST = 10_000  # bytes a second, below which waiting for a server has no end
LONGEST_WAIT = 30.0  # seconds between two attempts, whatever the server asks for
PATIENCE = 1800.0  # seconds, for another process that fetches the same
LAYOUT = 1  # of the cache; a later one says so in a file VERSION, this first one has none
MIRROR = "TRANSFORMER_LAB_DATA"
OFFLINE = "TRANSFORMER_LAB_OFFLINE"
LIST = Path(__file__).resolve().with_name("datasets.json")
_BLOCK = 2**16  # bytes taken at a time, at most
_jitter = random.Random()  # of its own: the reader's seeds stay as they are


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to be fetched.

    Args:
        path: where it lies below the cache, and below a mirror; with slashes.
        urls: where it is public, pinned to one version of it: addresses to be tried in this order.
        sha256: of its bytes, in hexadecimal; size: in bytes.
    """

    path: str
    urls: tuple[str, ...]
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Files that belong together.

    Args:
        about: what it is; records: how many sentences, pictures, ... it holds.
        licence: under which it may be used; attribution: whom to name when showing of it.
        loaders: functions of this package that read it.
        files: by their names.
    """

    about: str
    records: str
    licence: str
    attribution: str
    loaders: tuple[str, ...]
    files: dict[str, File]

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(file.size for file in self.files.values())


def table(name: str) -> list[dict[str, str]]:
    """What a table beside ``datasets.json`` says of the files of a set that has hundreds: a row for each."""
    with LIST.with_name(name).open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def _read() -> dict[str, Dataset]:
    sets = {}
    for name, entry in json.loads(LIST.read_text("utf-8")).items():
        if "table" in entry:
            url = entry.pop("url")
            entry["files"] = {
                row["name"]: {"urls": [url + row["name"]], "sha256": row["sha256"], "size": int(row["size"])}
                for row in table(entry.pop("table"))
            }
        files = {
            file: File(path=f"{name}/{file}", urls=tuple(known.pop("urls")), **known)
            for file, known in entry.pop("files").items()
        }
        sets[name] = Dataset(**entry | {"loaders": tuple(entry["loaders"])}, files=files)
    return sets


DATASETS = _read()


def readable(n_bytes: int) -> str:
    """A size for people.

    >>> readable(30_878_645), readable(4271)
    ('30.9 MB', '4.3 kB')
    """
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


class FetchError(RuntimeError):
    """A data set could not be had. The message says in one sentence what failed and what to do."""


def dataset(name: str) -> Dataset:
    """The entry of a data set; raises ValueError for a name that is unknown."""
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(sorted(DATASETS))}")
    return DATASETS[name]


def cache_folder() -> Path:
    """``transformer_lab`` in the folder where the system keeps caches."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "transformer_lab"


def fetch(name: str, *, file: str | None = None, folder: str | os.PathLike[str] | None = None) -> Path:
    """A file of a data set: from a mirror, else from the cache, else from its URL into the cache.

    A mirror is laid out like the cache, and the environment variable ``TRANSFORMER_LAB_DATA`` names it: a
    folder, which is only read, or an address that begins with http, which is asked before all others. A file
    in the cache that is not what it should be is fetched again; what broke off goes on where it ended. With
    ``TRANSFORMER_LAB_OFFLINE=1`` nothing is asked for over the network. While a download runs, a terminal
    shows a bar; a notebook would store it, and shows none.

    Args:
        name: one of ``DATASETS``.
        file: which of its files; may be left out where there is one.
        folder: the cache. None: ``cache_folder()``.

    Returns:
        A path to the file. Its size and its SHA-256 have just been found right.

    Raises:
        ValueError: an unknown set or file.
        FetchError: no way led to the whole file, or it could not be stored.

    >>> fetch("whisper_mel_filters", file="weights.npz")
    Traceback (most recent call last):
    ValueError: whisper_mel_filters has no file 'weights.npz'; it has mel_filters.npz
    """
    known = _file(name, file)
    path = find(known, folder=folder)
    fault = fault_of(path, known)
    if fault and path == _in_mirror(known):
        raise FetchError(f"the mirror's {path} is broken, {fault}: replace it, or unset {MIRROR}")
    return _bring(known, _cache(folder)) if fault else path


def find(file: File, *, folder: str | os.PathLike[str] | None = None) -> Path:
    """Where a file lies, or would lie: in a mirror that has it, else in the cache. It is not looked into.

    Raises:
        FetchError: ``TRANSFORMER_LAB_DATA`` names no folder, or one that cannot be read.
    """
    return _in_mirror(file) or _cache(folder) / file.path


def is_there(path: Path) -> bool:
    """Whether there is something at a path; raises OSError where one may not look."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def fault_of(path: Path, file: File) -> str:
    """What is wrong with a file, in a few words; none for nothing."""
    try:
        with path.open("rb") as stored:
            size = os.fstat(stored.fileno()).st_size
            if size != file.size:
                return f"with {size} bytes instead of {file.size}"
            digest = hashlib.file_digest(stored, "sha256").hexdigest()
    except OSError as error:
        return f"for it cannot be read ({error.strerror})"
    return "" if digest == file.sha256 else f"with SHA-256 {digest} instead of {file.sha256}"


# --- places --------------------------------------------------------------------------------------


def _file(name: str, file: str | None) -> File:
    files = dataset(name).files
    if file is None and len(files) == 1:
        return next(iter(files.values()))
    if file not in files:
        some = ", ".join(list(files)[:6]) + (f" and {len(files) - 6} more" if len(files) > 6 else "")
        if file is None:
            raise ValueError(f"{name} has several files, name one with file=...: {some}")
        raise ValueError(f"{name} has no file {file!r}; it has {some}")
    return files[file]


def _cache(folder: str | os.PathLike[str] | None) -> Path:
    return cache_folder() if folder is None else Path(folder).expanduser()


def _in_mirror(file: File) -> Path | None:
    chosen = os.environ.get(MIRROR, "")
    if not chosen or _is_address(chosen):
        return None
    mirror = Path(chosen).expanduser()
    if not os.path.isdir(mirror):
        raise FetchError(f"{MIRROR} names {chosen}, which is no folder: correct it or unset it")
    try:
        return mirror / file.path if is_there(mirror / file.path) else None
    except OSError as error:
        raise FetchError(
            f"{MIRROR} names {chosen}, which cannot be read ({error.strerror}): see to that or unset it"
        ) from error


def _is_address(mirror: str) -> bool:
    return mirror.startswith(("http://", "https://"))


def _addresses(file: File) -> list[str]:
    mirror = os.environ.get(MIRROR, "")
    mirrored = f"{mirror.rstrip('/')}/{quote(file.path)}"
    return [mirrored, *file.urls] if _is_address(mirror) else list(file.urls)


# --- bringing a file into the cache --------------------------------------------------------------


def _bring(file: File, cache: Path) -> Path:
    """The file in the cache, where it is not, or not right: one process at a time brings it."""
    target = cache / file.path
    if os.environ.get(OFFLINE) == "1":
        raise FetchError(
            f"{target} is missing or broken, and {OFFLINE} forbids the network: unset it, or name in {MIRROR}"
            f" a folder that holds {file.path}"
        )
    part = target.with_name(f"{target.name}.{file.sha256[:8]}.part")  # never goes on with another version's
    try:
        _check_layout(cache)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock", timeout=PATIENCE):  # the system frees it when its owner dies
            if fault_of(target, file):  # else another process has brought it while we waited
                try:
                    _download(file, part)
                    os.replace(part, target)
                except OSError:
                    with suppress(OSError):
                        part.unlink()  # ours: who has the lock fills it
                    raise
    except Timeout as error:
        raise FetchError(
            f"another process has been fetching into {target.parent} for {PATIENCE / 60:.0f} minutes: wait"
            " for it or end it, then try again"
        ) from error
    except OSError as error:
        raise FetchError(
            f"cannot store {target} ({error.strerror}): see to it that there is room and that you may write"
            " there, or name another folder, with folder=..."
        ) from error
    return target


def _check_layout(cache: Path) -> None:
    with suppress(FileNotFoundError):
        layout = (cache / "VERSION").read_text("utf-8", errors="replace").strip()
        if layout != str(LAYOUT):
            raise FetchError(
                f"the cache {cache} belongs to a newer transformer_lab (its VERSION is {layout}, this one"
                f" writes {LAYOUT}): install the newer one, or name another folder, with folder=..."
            )


@dataclass(eq=False)
class _Refusal(Exception):
    """Why an attempt did not give the file.

    Args:
        what: went wrong; advice: what to do about it.
        passes: it may have passed when asked again; not before ``after`` seconds.
        spoilt: what has come is not of this file.
    """

    what: str
    advice: str
    passes: bool = False
    after: float = 0.0
    spoilt: bool = False


def _download(file: File, part: Path) -> None:
    """Fill ``part`` with the whole file, from whichever address gives it."""
    whats = []
    for url in _addresses(file):
        attempts = 0
        while attempts < ATTEMPTS:
            held = part.stat().st_size if part.exists() else 0
            try:
                return _receive(url, file, part)
            except _Refusal as refusal:
                last = refusal
            if last.spoilt or not part.stat().st_size:
                part.unlink()
            if last.spoilt and held:
                continue  # the part that was gone on with may be what is wrong: from the beginning, at once
            attempts += 1
            if not last.passes:
                break
            if attempts < ATTEMPTS:
                backoff = 2 ** (attempts - 1) * _jitter.uniform(0.5, 1.0)
                sleep(min(max(backoff, last.after), LONGEST_WAIT))
        whats.append(last.what)
    raise FetchError(f"{'; '.join(whats)}: {last.advice}") from last


def _receive(url: str, file: File, part: Path) -> None:
    """One attempt at one address: what it sends is added to ``part``, which is then right as a whole."""
    part.touch()
    with part.open("r+b") as out:
        held = out.seek(0, os.SEEK_END)
        if held < file.size:
            for at, block in _blocks(url, file, held):
                if at != out.tell():  # the server begins anew
                    out.seek(at)
                    out.truncate()
                out.write(block)
    if fault := fault_of(part, file):
        raise _another(url, fault, spoilt=True)


def _blocks(url: str, file: File, held: int) -> Iterator[tuple[int, bytes]]:
    """What comes from the address, piece by piece, each with its place; not much more than expected."""
    at, received = held, 0
    bar = {"desc": Path(file.path).name, "total": file.size, "unit": "B", "unit_scale": True}
    bar |= {"leave": False, "disable": None}  # None: only a terminal sees it
    try:
        request = Request(url, headers={"Range": f"bytes={held}-"} if held else {})
        with urlopen(request, timeout=TIMEOUT) as response:
            at = _beginning(url, file, held, response)
            deadline = monotonic() + TIMEOUT + file.size / SLOWEST
            with tqdm(**bar, initial=at) as progress:
                while at <= file.size and (block := response.read1(_BLOCK)):
                    yield at, block
                    at += len(block)
                    received += len(block)
                    progress.update(len(block))
                    if monotonic() > deadline:
                        break
    except HTTPError as error:
        error.close()
        raise _answered(url, file, error) from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: that is no address
        if not received:
            distrusted = isinstance(getattr(error, "reason", error), SSLCertVerificationError)
            do = "give this Python its system's certificates" if distrusted else "connect to the network"
            raise _Refusal(
                f"cannot reach {url} ({_said(error)})",
                f"{do} and try again, or name in {MIRROR} a folder that holds {file.path}",
                passes=not (distrusted or isinstance(error, ValueError)),
            ) from error
    if at < file.size:
        raise _Refusal(
            f"the download of {url} broke off after {at} of {file.size} bytes",
            "try again, and it goes on from there",
            passes=True,
        )


def _said(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason)


def _beginning(url: str, file: File, held: int, response: HTTPResponse) -> int:
    """The place in the file at which an answer begins: 0, or what was asked for; the SHA-256 judges that."""
    length, at = response.headers["Content-Length"], 0
    if response.status == 206:
        span = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers["Content-Range"] or "")
        at, length = (int(span[1]), span[2]) if span else (held, None)
    if length not in (None, str(file.size)):
        raise _another(url, f"with {length} bytes instead of {file.size}")
    return at


def _answered(url: str, file: File, error: HTTPError) -> _Refusal:
    """What an answer without a file means."""
    if error.code == 416:  # it has less of it than we
        return _another(url, f"with fewer than {file.size} bytes", spoilt=True)
    after = error.headers["Retry-After"] or ""
    reason = "and leads in a circle" if 300 <= error.code < 400 else error.reason
    return _Refusal(
        f"{url} answers {error.code} {reason}",
        f"try again later, then install a newer transformer_lab, or name in {MIRROR} a folder that holds"
        f" {file.path}",
        passes=error.code >= 500 or error.code in (408, 429),
        after=float(after) if after.isdecimal() else 0.0,
    )


def _another(url: str, fault: str, *, spoilt: bool = False) -> _Refusal:
    return _Refusal(
        f"{url} sends another file than the one known here, {fault}",
        "try again on another network, then install a newer transformer_lab",
        spoilt=spoilt,
    )
