import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab.claims import centred


def test_the_example_of_the_chapter():
    assert centred(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[-2.0, -1.0, 3.0]]


def test_agrees_with_pytorch_in_values_and_gradients():
    """Layer norm divides what is centred by its standard deviation: multiplied back, the two are the same."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, generator=random, requires_grad=True)
    scale = x.detach().var(-1, correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(centred(x), torch.nn.functional.layer_norm(x, (5,), eps=0.0) * scale)
    assert torch.autograd.gradcheck(centred, x)


@given(shift=st.floats(-100, 100), seed=st.integers(0, 2**16))
def test_a_shift_changes_nothing(shift, seed):
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(centred(x + shift), centred(x), rtol=0, atol=1e-10)


@pytest.mark.bad_input
def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match=r"x must be floating-point.*got torch\.int64"):
        centred(torch.tensor([1, 2]))
