"""Every test here starts as a learner who has solved nothing, with a file of its own."""

import pytest


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("TRANSFORMER_LAB_PROGRESS", str(path))
    return path
