"""What is said of shapes that do not fit is true of the operation that failed."""

import pytest
import torch
from torch import nn

from transformer_lab.exercises import attention as ex

PIECES = "needs pieces that are alike in all other axes; these are (1, 1, 2, 4) and (1, 1, 3, 4)."


def stretched_in_square_brackets(q, k, v):
    answer = torch.zeros_like(q)
    answer[...] = k
    return answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda q, k, v: torch.concatenate([q, k], dim=-1), f"`concatenate` {PIECES}"),
        (lambda q, k, v: torch.hstack([q, k]), f"`hstack` {PIECES}"),
        (lambda q, k, v: torch.stack([q, k]), f"`stack` {PIECES}"),
        (lambda q, k, v: q.expand(k.shape), "Only an axis of length 1 is stretched"),
        (stretched_in_square_brackets, "Only an axis of length 1 is stretched"),
        (lambda q, k, v: torch.addmm(q[0, 0], q[0, 0], k[0, 0]), "`addmm` got (2, 4) and (2, 4) and (3, 4)."),
        (lambda q, k, v: q.clone().masked_fill_(k > 0, 0), "`masked_fill_` stretches the mask"),
        (lambda q, k, v: torch.where(q > 0, q, k), "`where` works entry by entry"),
        (lambda q, k, v: nn.functional.mse_loss(q, k), "`mse_loss` works entry by entry"),
    ],
)
def test_only_what_works_entry_by_entry_is_said_to(answer, says):
    message = ex.scaled_dot_product.check(answer).message
    assert message.startswith(f"The shapes do not fit. {says}"), message
