"""What the chapter on attention prints as a range holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_every_range_of_the_number_reader_holds_from_another_start(seed):
    training = {
        "torch.manual_seed(0)": f"torch.manual_seed({seed})",
        "train_number_reader(reader, train)": f"train_number_reader(reader, train, seed={seed})",
    }
    run_from("attention", {"reader-train": training})
