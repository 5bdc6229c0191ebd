"""``python -m transformer_lab.data``: what it prints, and how it ends."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.lying_server import FILE, NAME, WHOLE
from tests.strict import require
from transformer_lab.data import __main__ as command_line
from transformer_lab.data.registry import DATASETS


@pytest.fixture
def run(capsys):
    """``run("where", "images")``: exit code, lines of output, lines of errors."""

    def of(*arguments):
        try:
            code = command_line.main(arguments)
        except SystemExit as ended:  # argparse says how it is used
            code = ended.code
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return of


def test_list_has_a_line_for_each_set_with_what_is_here_of_it(world, run):
    code, lines, errors = run("list")
    assert code == 0 and errors == [] and [line.split()[0] for line in lines] == list(DATASETS)
    (line,) = [line for line in lines if line.startswith(NAME)]
    assert line.split("  ")[-1] == f"{DATASETS[NAME].records}; licence: {DATASETS[NAME].licence}"
    assert "0.3 MB" in line and "0 of 1 here" in line
    world.store(b"")
    assert any("1 of 1 here" in line for line in run("list")[1] if line.startswith(NAME))


def test_fetch_says_where_the_files_are_and_whose(world, run):
    code, lines, errors = run("fetch", NAME)
    known = DATASETS[NAME]
    assert (code, errors) == (0, [])
    assert lines == [
        f"{NAME}: {world.target}",
        f"  licence: {known.licence}",
        f"  attribution: {known.attribution}",
    ]
    assert world.target.read_bytes() == WHOLE
    assert run("fetch", NAME, "--folder", str(world.cache / "mine"))[0] == 0
    assert (world.cache / "mine" / NAME / FILE).read_bytes() == WHOLE


def test_fetch_all_fetches_each_set_and_of_several_files_names_the_folder(world, run, monkeypatch):
    asked = []

    def fetch(name, *, file, folder):
        asked.append((name, file))
        return world.cache / name / file

    monkeypatch.setattr(command_line, "fetch", fetch)
    code, lines, _ = run("fetch", "--all")
    assert code == 0 and len(lines) == 3 * len(DATASETS)
    assert asked == [(name, file) for name, known in DATASETS.items() for file in known.files]
    assert f"images: {world.cache / 'images'}" in lines


def test_verify_has_a_line_for_each_fault(world, run, tmp_path, monkeypatch):
    everything = sum(len(known.files) for known in DATASETS.values())
    assert run("verify") == (0, [f"right: 0, wrong: 0, not here: {everything}"], [])
    run("fetch", NAME)
    assert run("verify", NAME) == (0, ["right: 1, wrong: 0, not here: 0"], [])
    world.store(WHOLE[1:])
    code, lines, errors = run("verify")
    assert code == 1 and lines == [f"right: 0, wrong: 1, not here: {everything - 1}"]
    broken = "is broken, with 255999 bytes instead of 256000"
    assert errors == [f"{world.target} {broken}: fetch it again"]
    assert run("verify", "images")[0] == 0
    (tmp_path / "mirror" / NAME).mkdir(parents=True)
    (tmp_path / "mirror" / NAME / FILE).write_bytes(WHOLE[1:])
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(tmp_path / "mirror"))
    assert run("verify", NAME)[2] == [f"{tmp_path / 'mirror' / NAME / FILE} {broken}: replace it"]


def test_a_folder_that_nobody_may_look_into_is_one_sentence(world, run, tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "lstat", closed)
    assert "1 of 1 here" in "".join(line for line in run("list")[1] if line.startswith(NAME))
    assert run("verify", NAME)[2][0].startswith(f"{world.target} is broken, for it cannot be read (")
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(tmp_path))
    why = f"TRANSFORMER_LAB_DATA names {tmp_path}, which cannot be read (Permission denied): see to that"
    for command in (("list",), ("verify", NAME), ("where", NAME), ("fetch", NAME)):
        code, _, errors = run(*command)
        assert code == 1 and len(errors) == 1 and errors[0].startswith(why)


def test_where_names_the_cache_or_the_files_here_or_not(world, run, tmp_path, monkeypatch):
    assert run("where") == (0, [str(world.cache)], [])
    assert run("where", NAME) == (0, [str(world.target)], [])
    assert len(run("where", "images", NAME)[1]) == 5
    mine = tmp_path / "mine"
    assert run("where", "--folder", str(mine)) == (0, [str(mine)], [])
    assert run("where", NAME, "--folder", str(mine)) == (0, [str(mine / NAME / FILE)], [])
    (mine / NAME).mkdir(parents=True)
    (mine / NAME / FILE).write_bytes(WHOLE)
    monkeypatch.setenv("TRANSFORMER_LAB_DATA", str(mine))
    assert run("where", NAME) == (0, [str(mine / NAME / FILE)], [])


@pytest.mark.parametrize("command", ["fetch", "verify", "where"])
def test_an_unknown_set_is_one_sentence(world, run, command):
    code, lines, errors = run(command, "multi30k")
    assert code == 1 and lines == [] and len(errors) == 1
    assert errors[0].startswith("there is no data set 'multi30k'; there are chinese_poetry, ")


def test_what_cannot_be_fetched_is_one_sentence(world, run):
    world.serve(404)
    code, lines, errors = run("fetch", NAME)
    assert code == 1 and lines == [] and len(errors) == 1 and "answers 404 Not Found" in errors[0]


def test_ctrl_c_stops_in_one_sentence_and_what_has_come_stays(world, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("transformer_lab.data.registry.tqdm.update", interrupt)
        assert run("fetch", NAME) == (130, [], ["stopped; the next one goes on from here"])
    with monkeypatch.context() as patched:
        patched.setattr(command_line, "find", interrupt)
        assert run("where", NAME) == (130, [], ["stopped"])
    (part,) = world.cache.glob("*/*.part")
    held = part.stat().st_size
    assert run("fetch", NAME)[0] == 0 and held > 0
    assert world.server.asked == [None, f"bytes={held}-"]


def test_a_pipe_that_ends_early_is_no_fault():
    require(os.name == "posix", "a pipe that is closed is another matter on Windows")
    command = [sys.executable, "-m", "transformer_lab.data", "where", "protein_backbones"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b"" and running.wait() == 1


def test_letters_that_an_output_cannot_show_are_no_fault(world):
    place = {**os.environ, "PYTHONIOENCODING": "ascii", "XDG_CACHE_HOME": str(world.cache / "sch\u00f6n")}
    command = [sys.executable, "-m", "transformer_lab.data", "where"]
    done = subprocess.run(command, capture_output=True, text=True, env=place)
    assert done.returncode == 0 and "sch?n" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("fetch",), ("fetch", "--all", NAME), ("get", NAME)])
def test_a_wrong_call_says_how_it_is_used(run, arguments):
    code, lines, errors = run(*arguments)
    assert code == 2 and lines == [] and errors[0].startswith("usage: python -m transformer_lab.data")


def test_help_names_the_commands_and_each_says_what_it_does(run):
    code, lines, errors = run("--help")
    text = " ".join(" ".join(lines).split())
    assert code == 0 and errors == [] and "TRANSFORMER_LAB_OFFLINE=1 forbids the network" in text
    for command, words in {
        "list": "all sets: size, what is here",
        "fetch": "and say whose they are",
        "verify": "hash what is here",
        "where": "where the files of sets lie",
    }.items():
        own = " ".join(" ".join(run(command, "--help")[1]).split())
        assert words in own and words in text and "--folder" in own


def test_as_a_program_it_ends_with_an_exit_code_and_only_who_asks_imports_it(world):
    code = (
        "import runpy, sys, transformer_lab\n"
        "assert not [name for name in sys.modules if name.startswith('transformer_lab.')]\n"
        "runpy.run_module('transformer_lab.data', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "where", "multi30k"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("there is no data set 'multi30k'")
