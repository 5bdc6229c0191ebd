"""Eight bits: near enough, exactly repeatable, and honest about what cannot be kept."""

import pytest
import torch
from torch.testing import assert_close

from transformer_lab.int8 import from_int8, to_int8


def test_each_row_is_kept_to_half_of_its_own_step():
    torch.manual_seed(0)
    matrix = torch.randn(20, 64) * 10.0 ** torch.arange(-10, 10)[:, None]
    whole, scales = to_int8(matrix)
    assert whole.dtype == torch.int8 and scales.shape == (20,)
    error = (from_int8(whole, scales) - matrix).abs()
    assert (error <= scales[:, None] * 0.50001).all() and (error.amax(1) > scales * 0.3).all()
    assert_close(whole.abs().amax(1), torch.full((20,), 127, dtype=torch.int8))


def test_what_was_rounded_once_stays_as_it_is():
    whole, scales = to_int8(torch.randn(5, 9, generator=torch.Generator().manual_seed(1)))
    again, _ = to_int8(from_int8(whole, scales))
    assert_close(again, whole)


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_zeros_and_nothing_at_all_come_back(shape):
    assert_close(from_int8(*to_int8(torch.zeros(shape))), torch.zeros(shape))


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="weights must be finite numbers"):
        to_int8(torch.tensor([[1.0, value]]))
