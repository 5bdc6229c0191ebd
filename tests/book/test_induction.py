"""What the chapter on heads asserts of the model that it trains holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5])
def test_the_model_trained_in_the_chapter_copies_from_another_start(seed):
    run_from("induction", {"task-train": {"runs.build(seed=3)": f"runs.build(seed={seed})"}})
