"""What the chapter on the full model prints as a range holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_every_range_holds_from_another_start(seed):
    training = {
        "bench.number_translator(seed=0)": f"bench.number_translator(seed={seed})",
        "bench.number_trainer(translator)": f"bench.number_trainer(translator, seed={seed})",
    }
    run_from("encoder_decoder", {"train-code": training})
