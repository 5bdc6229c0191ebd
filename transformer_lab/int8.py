"""Weights in whole numbers of eight bits: a quarter of the bytes of float32, for files and for pages."""

import torch
from jaxtyping import Float, Int8
from torch import Tensor


def to_int8(matrix: Float[Tensor, "F D"]) -> tuple[Int8[Tensor, "F D"], Float[Tensor, "F"]]:
    """Each row as whole multiples of its scale, which is 1/127 of its largest number in size.

    Returns:
        The multiples, from -127 to 127, and the scales; ``from_int8`` puts them together. A number is off by
        half a scale at most.

    Raises:
        ValueError: a number that is not finite.

    >>> to_int8(torch.tensor([[0.5, -1.27]]))[0].tolist()
    [[50, -127]]
    """
    if not matrix.isfinite().all():
        raise ValueError("weights must be finite numbers, got infinity or NaN")
    scales = matrix.abs().amax(dim=1) / 127 if matrix.numel() else matrix.new_zeros(len(matrix))
    whole = torch.where(scales[:, None] > 0, matrix / scales[:, None], 0.0)  # a row of zeros has no scale
    return whole.round().clamp(-127, 127).to(torch.int8), scales


def from_int8(whole: Int8[Tensor, "F D"], scales: Float[Tensor, "F"]) -> Float[Tensor, "F D"]:
    """The numbers that ``to_int8`` kept."""
    return whole * scales[:, None]
