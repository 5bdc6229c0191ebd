"""The progress file: whole after a crash, never written over when it is not ours, and carried elsewhere."""

import json
import os
import sys
from pathlib import Path

import pytest

from transformer_lab import exercises
from transformer_lab.exercises import attention as ex
from transformer_lab.exercises.check.progress import default_path

N = len(ex.chapter.exercises)


def solve():
    return ex.dot_product_spread.check(8)


def saved(path):
    return json.loads(path.read_text())["exercises"]


def test_nothing_is_written_by_looking(progress_file):
    assert f"0 of {N}" in repr(exercises.progress())
    assert not progress_file.exists()


def test_a_solved_exercise_shows_and_stays_solved(progress_file):
    ex.dot_product_spread.check(64)
    assert saved(progress_file)["attention.dot_product_spread"]["status"] == "not yet"
    solve()
    before = progress_file.read_text()
    ex.dot_product_spread.check(64)
    assert progress_file.read_text() == before
    table = exercises.progress()
    assert f"#{'.' * (N - 1)}  1 of {N}" in repr(table)
    assert f'<progress value="1" max="{N}"' in table._repr_html_()
    assert "next: weighted_average" in repr(table)


def test_the_file_is_replaced_whole(progress_file, monkeypatch):
    solve()
    before = progress_file.read_text()

    def crash(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    result = ex.score_shape.check((2, 4, 3, 5))
    assert result and "I cannot keep your progress" in result.message and "No space left" in result.message
    assert progress_file.read_text() == before
    assert [p.name for p in progress_file.parent.iterdir()] == [progress_file.name]


BROKEN = {
    "cut off": ('{"transformer_lab_progress": 1, "exerc', "it is not JSON text"),
    "empty": ("", "it is not JSON text"),
    "deep": ("[" * 100_000, "it is not JSON text"),
    "foreign": ('{"shopping": ["milk"]}', "it holds something else"),
    "a list": ("[1, 2]", "it holds something else"),
    "newer": ('{"transformer_lab_progress": 2, "exercises": {}}', "its version is 2"),
    "no entries": ('{"transformer_lab_progress": 1}', "its entries are damaged"),
    "bad entry": ('{"transformer_lab_progress": 1, "exercises": {"a": 1}}', "its entries are damaged"),
    "bad status": (
        '{"transformer_lab_progress": 1, "exercises": {"a": {"status": "won", "date": "2026-01-01"}}}',
        "its entries are damaged",
    ),
}


@pytest.mark.parametrize(("content", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_put_aside_and_said_so(progress_file, content, says):
    progress_file.write_text(content)
    result = solve()
    aside = progress_file.with_name("progress-aside-1.json")
    assert result and says in result.message and str(aside) in result.message
    assert aside.read_text() == content
    assert saved(progress_file)["attention.dot_product_spread"]["status"] == "passed"


def test_bytes_that_are_no_text_are_put_aside_too(progress_file):
    progress_file.write_bytes(b"\xff\xfe\x00")
    assert "it is not JSON text" in repr(exercises.progress())
    progress_file.write_bytes(b"\xff")
    assert "progress-aside-2.json" in repr(exercises.progress())


def test_a_place_that_cannot_be_used_never_breaks_the_check(progress_file, monkeypatch):
    progress_file.mkdir()
    assert "I cannot keep your progress" in solve().message and solve()
    assert "I cannot read" in repr(exercises.progress())
    assert "Not saved" in repr(exercises.progress.save(progress_file.parent / "copy.json"))
    monkeypatch.setenv("TRANSFORMER_LAB_PROGRESS", str(progress_file.parent / "file" / "progress.json"))
    (progress_file.parent / "file").write_text("a file where a folder should be")
    assert "I cannot keep your progress" in solve().message


def test_the_home_of_nobody_is_no_reason_to_stop(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFORMER_LAB_PROGRESS", "~nobody-of-this-name/progress.json")
    assert solve() and f"1 of {N}" in repr(exercises.progress())


def test_save_and_load_carry_it_to_another_machine(progress_file, tmp_path):
    solve()
    drive = tmp_path / "drive" / "mine.json"
    assert "1 solved exercise written" in repr(exercises.progress.save(drive))
    progress_file.unlink()
    ex.score_shape.check((2, 4, 3, 5))
    ex.dot_product_spread.check(1)
    assert "1 solved exercise read" in repr(exercises.progress.load(drive))
    assert f"2 of {N}" in repr(exercises.progress())


def test_loading_never_unsolves(progress_file, tmp_path):
    ex.dot_product_spread.check(1)
    exercises.progress.save(tmp_path / "old.json")
    solve()
    exercises.progress.load(tmp_path / "old.json")
    assert saved(progress_file)["attention.dot_product_spread"]["status"] == "passed"


@pytest.mark.parametrize("content", [None, "not json", '{"shopping": []}'])
def test_a_file_that_cannot_be_loaded_changes_nothing(progress_file, tmp_path, content):
    solve()
    before, other = progress_file.read_text(), tmp_path / "other.json"
    if content is not None:
        other.write_text(content)
    assert "Not loaded" in repr(exercises.progress.load(other))
    assert progress_file.read_text() == before
    assert content is None or other.read_text() == content


def test_saving_does_not_write_over_somebody_s_notes(tmp_path):
    solve()
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary")
    assert "not a progress file: it is not JSON text" in repr(exercises.progress.save(notes))
    assert notes.read_text() == "dear diary"


def test_reset_starts_anew_and_keeps_the_old_file(progress_file):
    assert "Nothing to reset" in repr(exercises.progress.reset())
    solve()
    assert "progress-aside-1.json" in repr(exercises.progress.reset())
    assert f"0 of {N}" in repr(exercises.progress())
    exercises.progress.load(progress_file.with_name("progress-aside-1.json"))
    assert f"1 of {N}" in repr(exercises.progress())


def test_entries_of_chapters_that_are_not_installed_stay(progress_file):
    entry = {"status": "passed", "date": "2026-01-01"}
    progress_file.write_text(json.dumps({"transformer_lab_progress": 1, "exercises": {"later.one": entry}}))
    solve()
    assert saved(progress_file)["later.one"] == entry


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "XDG_DATA_HOME", "data"),
        ("linux", None, ".local/share"),
        ("darwin", None, "Library/Application Support"),
        ("win32", "LOCALAPPDATA", "data"),
        ("win32", None, "AppData/Local"),
    ],
)
def test_without_the_variable_the_file_is_where_the_system_keeps_a_user_s_data(
    platform, variable, folder, tmp_path, monkeypatch
):
    for name in ("TRANSFORMER_LAB_PROGRESS", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "data"))
    assert default_path() == tmp_path / folder / "transformer-lab" / "progress.json"
