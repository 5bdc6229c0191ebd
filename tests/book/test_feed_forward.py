"""What the chapter on feed-forward networks prints as a range holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_range_holds_from_another_start(seed):
    start = {"torch.manual_seed(0)": f"torch.manual_seed({seed})"}
    batches = {"warmup=30": f"warmup=30, seed={seed}"}
    run_from("feed_forward", {"curve-code": start, "memory-train": start | batches, "collapse-code": start})
