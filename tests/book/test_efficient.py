"""What the chapter on costs prints as a range holds for starts and sentences that it does not show."""

import pytest

from .starts import run_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_ranges_hold_from_another_start_and_for_other_numbers(seed):
    run_from(
        "efficient",
        {
            "recall-code": {"learnt(kind, n, width)": f"learnt(kind, n, width, seed={seed})"},
            "outlier-translate": {"test[:200]": f"test[{200 * seed}:{200 * seed + 200}]"},
        },
    )
