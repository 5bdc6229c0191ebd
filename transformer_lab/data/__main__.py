"""The book's data sets from the command line: ``python -m transformer_lab.data --help`` says how."""

import argparse
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from .registry import (
    DATASETS,
    Dataset,
    FetchError,
    cache_folder,
    dataset,
    fault_of,
    fetch,
    find,
    is_there,
    readable,
)

Sets = list[tuple[str, Dataset]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; 0 if all went well, 1 if a file is wrong or not to be had."""
    chosen = _parser().parse_args(arguments)
    names = chosen.names or list(DATASETS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name of somebody, or of a folder, is no reason to stop
    try:
        return chosen.do([(name, dataset(name)) for name in names], chosen)
    except (FetchError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the lines has seen enough, and the system wants to hear no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(
            "stopped" + ("; the next one goes on from here" if chosen.do is _fetch else ""), file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m transformer_lab.data",
        description="The data sets of the book: what there is, whose it is, and where it lies.",
        epilog="TRANSFORMER_LAB_DATA names a mirror, a folder or an address that is laid out like the cache;"
        " TRANSFORMER_LAB_OFFLINE=1 forbids the network.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for do, summary in (
        (_list, "all sets: size, what is here of it, records, licence"),
        (_fetch, "fetch sets, and say whose they are"),
        (_verify, "hash what is here of the sets; a line for each file that is wrong, and exit code 1"),
        (_where, "where the files of sets lie, or will; without a name, the cache"),
    ):
        command = commands.add_parser(do.__name__.strip("_"), help=summary, description=summary)
        command.set_defaults(do=do, names=[])
        command.add_argument("--folder", type=Path, help="the cache, in place of the system's")
        if do is _fetch:
            which = command.add_mutually_exclusive_group(required=True)
            which.add_argument("names", nargs="*", default=[], metavar="NAME")
            which.add_argument("--all", action="store_true", help="every set")
        elif do is not _list:
            command.add_argument("names", nargs="*", metavar="NAME")
    return parser


def _list(sets: Sets, chosen: argparse.Namespace) -> int:
    for name, known in sets:
        here = sum(_is_here(find(file, folder=chosen.folder)) for file in known.files.values())
        state = f"{here} of {len(known.files)} here"
        print(f"{name:<20} {readable(known.size):>8}  {state:<16} {known.records}; licence: {known.licence}")
    return 0


def _fetch(sets: Sets, chosen: argparse.Namespace) -> int:
    for name, known in sets:
        paths = [fetch(name, file=file, folder=chosen.folder) for file in known.files]
        for place in [paths[0]] if len(paths) == 1 else sorted({path.parent for path in paths}):
            print(f"{name}: {place}")
        print(f"  licence: {known.licence}\n  attribution: {known.attribution}")
    return 0


def _verify(sets: Sets, chosen: argparse.Namespace) -> int:
    files = [(find(file, folder=chosen.folder), file) for _, known in sets for file in known.files.values()]
    here = [(path, file) for path, file in files if _is_here(path)]
    wrong = [(path, fault) for path, file in here if (fault := fault_of(path, file))]
    for path, fault in wrong:
        ours = path.is_relative_to(chosen.folder or cache_folder())
        print(f"{path} is broken, {fault}: {'fetch it again' if ours else 'replace it'}", file=sys.stderr)
    print(f"right: {len(here) - len(wrong)}, wrong: {len(wrong)}, not here: {len(files) - len(here)}")
    return 1 if wrong else 0


def _is_here(path: Path) -> bool:
    try:
        return is_there(path)
    except OSError:  # reading it will say why not
        return True


def _where(sets: Sets, chosen: argparse.Namespace) -> int:
    if not chosen.names:
        print(chosen.folder or cache_folder())
        return 0
    for _, known in sets:
        for file in known.files.values():
            print(find(file, folder=chosen.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
