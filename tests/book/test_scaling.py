"""What the chapter on scaling laws asserts holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_trained_live_holds_from_another_start(seed):
    shown = "runs.run(16, steps=400, lr=rates[16])"
    run_from("scaling", {"live": {shown: f"{shown[:-1]}, seed={seed})"}})
