"""What the chapter on positions prints as a range holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_every_range_of_the_trained_model_holds_from_another_start(seed):
    run_from("positional", {"live-train": {'bench.train("rope",': f'bench.train("rope", seed={seed},'}})
