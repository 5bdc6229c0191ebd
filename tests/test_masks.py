import pytest
import torch

from transformer_lab.masks import causal_mask, padding_mask


def test_causal_mask_is_a_lower_triangle():
    assert causal_mask(4).shape == (1, 1, 4, 4)
    assert causal_mask(4)[0, 0].tolist() == [[j <= i for j in range(4)] for i in range(4)]


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 3), (2, 5), (3, 2)])
def test_the_last_query_stands_at_the_last_key(n_queries, n_keys):
    whole = causal_mask(9)[0, 0]
    assert torch.equal(causal_mask(n_queries, n_keys)[0, 0], whole[9 - n_queries :, 9 - n_keys :])


def test_masks_are_made_where_they_are_asked_for():
    assert causal_mask(2, device="meta").device.type == "meta"
    assert padding_mask(torch.zeros(1, 2, dtype=torch.long, device="meta"), 0).device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_padding_mask_marks_the_real_tokens(dtype):
    mask = padding_mask(torch.tensor([[5, 7, 7], [5, 6, 7]], dtype=dtype), pad_id=7)
    assert mask.shape == (2, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[True, False, False], [True, True, False]]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: causal_mask(-1), ValueError, "0 or more queries and keys, got -1 and -1"),
        (lambda: causal_mask(2, -3), ValueError, "got 2 and -3"),
        (lambda: padding_mask(torch.zeros(2, 3), 0), TypeError, "whole-number ids, got torch.float32"),
        (lambda: padding_mask(torch.ones(2, 3).bool(), 0), TypeError, "got torch.bool"),
        (lambda: padding_mask(torch.tensor([1, 2]), 0), ValueError, r"axes \(B, S\), got shape \(2,\)"),
    ],
)
def test_bad_input_says_what_was_wrong(call, error, match):
    with pytest.raises(error, match=match):
        call()
