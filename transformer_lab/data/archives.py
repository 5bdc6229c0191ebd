"""Members of archives, read into memory by exact name: nothing is unpacked, so no name can lead astray."""

import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path


def members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The wanted members of a .zip or .tar.gz, in the archive's order, as (name, content).

    Raises:
        ValueError: a member that is missing, or is no plain file: a link or a device may point anywhere.
    """
    read = _zipped if archive.suffix == ".zip" else _tarred
    missing = set(wanted)
    for name, content in read(archive, missing):
        missing.remove(name)
        yield name, content
    if missing:
        raise ValueError(f"{archive.name} holds no plain file {min(missing)}")


def _zipped(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            link = stat.S_ISLNK(member.external_attr >> 16)  # the file's mode, where Unix packed it
            if member.filename in wanted and not link:
                yield member.filename, opened.read(member)


def _tarred(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as opened:
        for member in opened:  # one pass: each step back would unzip everything again
            if member.name in wanted and member.isfile():
                yield member.name, opened.extractfile(member).read()
