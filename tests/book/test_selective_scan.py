"""What the chapter on Mamba asserts holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_equality_and_every_range_holds_from_another_start(seed):
    start = {"torch.manual_seed(0)": f"torch.manual_seed({seed})"}
    capacity = {"torch.Generator().manual_seed(0)": f"torch.Generator().manual_seed({seed})"}
    cells = dict.fromkeys(("block-plain", "block-agree", "write-steps"), start)
    run_from("selective_scan", cells | {"limits-matrix": capacity})
