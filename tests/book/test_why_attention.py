"""What the chapter on why there is attention asserts holds for starts that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_every_range_holds_from_another_start(seed):
    other = f"torch.manual_seed({seed})"
    live = {"live-train": {"torch.manual_seed(1)": other}, "live-lstm": {"torch.manual_seed(0)": other}}
    fresh = {"far-code": {"def fresh(name, n_tokens, seed=0)": f"def fresh(name, n_tokens, seed={seed})"}}
    run_from("why_attention", live | fresh)
