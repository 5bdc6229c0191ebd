"""What the chapter on norms prints as a range holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5])
def test_the_ranges_of_warm_up_hold_from_another_start(seed):
    run_from("norms", {"warm-train": {"train_and_watch(warmup)": f"train_and_watch(warmup, seed={seed})"}})
