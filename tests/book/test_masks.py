"""What the chapter on masks prints as a range holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_every_range_of_the_leak_holds_from_another_start(seed):
    training = {
        "torch.manual_seed(0)": f"torch.manual_seed({seed})",
        "train_language_model(model, text,": f"train_language_model(model, text, seed={seed},",
    }
    run_from("masks", {"leak-train": training})
