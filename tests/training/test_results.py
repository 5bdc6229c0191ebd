import json
from pathlib import Path

import pytest

from transformer_lab.training import results


def test_what_is_written_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_FOLDER", tmp_path)
    measured = {"loss": [1.5, None], "seeds": {"0": 2}}
    path = results.write("attention", measured)
    assert results.read("attention") == measured == json.loads(path.read_text())
    with pytest.raises(ValueError, match="no results are stored for 'masks'; there are attention"):
        results.read("masks")


def test_stored_results_are_small_and_end_in_a_line():
    for path in Path(results.__file__).parent.glob("*.json"):
        text = path.read_text("utf-8")
        assert len(text) < 100_000 and text.endswith("}\n"), path.name
