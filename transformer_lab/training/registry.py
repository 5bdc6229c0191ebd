"""The data sets that the book fetches, as ``datasets.json`` lists them: whose they are, and where.

No file is used before its size and SHA-256 are found right; in the cache, one appears whole or not at all.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

from tqdm import tqdm

TIMEOUT = 30.0  # seconds without an answer, after which a server counts as away
_BLOCK = 2**16  # bytes taken at a time, at most
_MIRROR = "TRANSFORMER_LAB_DATA"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A file to be fetched.

    Args:
        url: where it is public, pinned to one version of it.
        path: where it lies below the cache, and below a mirror; with slashes.
        sha256: of its bytes, in hexadecimal; size: in bytes; records: sentences, pictures, ... in it.
        licence: under which it may be used; attribution: whom to name when showing of it.
    """

    url: str
    path: str
    sha256: str
    size: int
    records: int
    licence: str
    attribution: str


DATASETS = {
    name: Dataset(**entry)
    for name, entry in json.loads(Path(__file__).with_name("datasets.json").read_text("utf-8")).items()
}


class FetchError(RuntimeError):
    """A data set could not be had. The message says in one sentence what failed and what to do."""


def fetch(name: str, *, folder: str | os.PathLike[str] | None = None) -> Path:
    """The file of a data set: from a mirror, else from the cache, else from its URL into the cache.

    A mirror is a folder laid out like the cache, which the environment variable ``TRANSFORMER_LAB_DATA``
    names; it is only read. A file in the cache that is not what it should be is fetched again. While a
    download runs, a terminal shows a bar; a notebook would store it, and shows none.

    Args:
        name: one of ``DATASETS``.
        folder: the cache. None: ``transformer_lab`` in the folder where the system keeps caches.

    Returns:
        A path to the file. Its size and its SHA-256 have just been found right.

    Raises:
        ValueError: an unknown name.
        FetchError: no way led to the whole file, or it could not be stored.

    >>> fetch("multi30k")
    Traceback (most recent call last):
    ValueError: there is no data set 'multi30k'; there are tatoeba_cmn_eng, tatoeba_deu_eng, tiny_shakespeare
    """
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(sorted(DATASETS))}")
    dataset = DATASETS[name]
    if mirrored := _in_mirror(dataset):
        return mirrored
    target = (_cache() if folder is None else Path(folder)) / dataset.path
    if _fault(target, dataset):
        _download(dataset, target)
    return target


def _in_mirror(dataset: Dataset) -> Path | None:
    chosen = os.environ.get(_MIRROR)
    if not chosen:
        return None
    mirror = Path(os.path.expanduser(chosen))
    if not mirror.is_dir():
        raise FetchError(f"{_MIRROR} names {chosen}, which is no folder: correct it or unset it")
    path = mirror / dataset.path
    if not path.exists():
        return None
    if fault := _fault(path, dataset):
        raise FetchError(f"the mirror's {path} is broken, {fault}: replace it, or unset {_MIRROR}")
    return path


def _cache() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "transformer_lab"


def _fault(path: Path, dataset: Dataset) -> str:
    """What is wrong with a file, in a few words; none for nothing."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != dataset.size:
                return f"with {size} bytes instead of {dataset.size}"
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"for it cannot be read ({error.strerror})"
    return "" if digest == dataset.sha256 else f"with SHA-256 {digest} instead of {dataset.sha256}"


def _download(dataset: Dataset, target: Path) -> None:
    part = target.with_name(f"{target.name}.{uuid4().hex}.part")  # of this call alone
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            for block in _blocks(dataset):
                file.write(block)
        if fault := _fault(part, dataset):
            raise FetchError(_another(dataset, fault))
        os.replace(part, target)
    except OSError as error:
        if _fault(target, dataset):  # else another process brought it, and Windows does not let us replace it
            raise FetchError(
                f"cannot store {target} ({error.strerror}): name another folder, with folder=..."
            ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def _blocks(dataset: Dataset) -> Iterator[bytes]:
    """What comes from the URL, piece by piece and not much more than expected."""
    received = 0
    bar = {"desc": Path(dataset.path).name, "total": dataset.size, "unit": "B", "unit_scale": True}
    try:
        with urlopen(dataset.url, timeout=TIMEOUT) as response:
            announced = response.headers["Content-Length"]
            if announced not in (None, str(dataset.size)):
                raise FetchError(_another(dataset, f"with {announced} bytes instead of {dataset.size}"))
            with tqdm(**bar, leave=False, disable=None) as progress:  # None: only a terminal sees it
                while received <= dataset.size and (block := response.read1(_BLOCK)):
                    received += len(block)
                    progress.update(len(block))
                    yield block
    except HTTPError as error:
        error.close()
        raise FetchError(
            f"{dataset.url} answers {error.code} {error.reason}: try again later, then install a newer"
            f" transformer_lab, or name in {_MIRROR} a folder that holds {dataset.path}"
        ) from error
    except (OSError, HTTPException) as error:
        if not received:
            raise FetchError(
                f"cannot reach {dataset.url} ({getattr(error, 'reason', error)}): connect to the network and"
                f" try again, or name in {_MIRROR} a folder that holds {dataset.path}"
            ) from error
    if received < dataset.size:
        raise FetchError(
            f"the download of {dataset.url} broke off after {received} of {dataset.size} bytes: try again"
        )


def _another(dataset: Dataset, fault: str) -> str:
    return (
        f"{dataset.url} sends another file than the one known here, {fault}: try again on another network,"
        f" then install a newer transformer_lab"
    )
