"""Weights on their way to the browser."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from transformer_lab.widgets._asset import asset_bytes, asset_scripts, export_model, exported_weights

from .assets import load, tensor


def export(model: nn.Module, **options) -> dict:
    return export_model(model, config={"answer": 42}, vocabulary=("<pad>", "a"), **options)


class Holder(nn.Module):
    """A model of one tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("table", tensor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_model_of_any_dtype_travels_as_float32(dtype):
    model = nn.Linear(5, 3, dtype=dtype)
    data = json.loads(json.dumps(export(model)))
    assert data["config"] == {"answer": 42} and data["vocabulary"] == ["<pad>", "a"]
    for name, expected in model.state_dict().items():
        for read in (tensor(data["tensors"][name]), exported_weights(data)[name]):
            assert_close(read, expected.float(), rtol=0, atol=0)


def test_int8_keeps_vectors_and_rounds_matrices_by_at_most_half_a_step_of_their_row():
    torch.manual_seed(0)
    model = nn.Linear(64, 20)
    model.weight.data *= 10.0 ** torch.arange(-10, 10)[:, None]  # rows of very different size
    data = json.loads(json.dumps(export(model, dtype="int8")))
    assert_close(tensor(data["tensors"]["bias"]), model.bias.data, rtol=0, atol=0)
    rounded = tensor(data["tensors"]["weight"])
    assert_close(exported_weights(data)["weight"], rounded, rtol=0, atol=0)
    error = (rounded - model.weight.data).abs()
    half_a_step = model.weight.data.abs().amax(1, keepdim=True) / 254
    assert (error <= half_a_step * 1.00001).all()
    assert (error.amax(1) > half_a_step[:, 0] * 0.5).all()  # and it is rounded: eight bits, no more
    assert_close(rounded.abs().amax(1), model.weight.data.abs().amax(1))
    assert asset_bytes(data) < 0.4 * asset_bytes(export(model))


def test_what_is_loaded_can_be_loaded_into_the_model():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    model.load_state_dict(exported_weights(export(model, dtype="int8")))


@pytest.mark.parametrize(
    "values", [[[0.0, 0.0], [2.0, -1.0]], [[3e-45, 0.0]], [[2e-43, -1.4e-45]], [[-3e38, 3e38]]]
)
def test_int8_survives_rows_of_zeros_and_of_numbers_at_the_edge_of_float32(values):
    expected = torch.tensor(values)
    assert_close(
        tensor(export(Holder(expected), dtype="int8")["tensors"]["table"]), expected, rtol=0.01, atol=1e-42
    )


def test_an_empty_matrix_and_a_lone_number_travel():
    for values in (torch.zeros(0, 3), torch.zeros(2, 0), torch.tensor(2.5)):
        assert_close(exported_weights(export(Holder(values), dtype="int8"))["table"], values)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (5000, 4)])
def test_scripts_give_back_what_was_put_in(size, count):
    data = {"config": {}, "vocabulary": ["<pad>", "</script>", "\u2028é\"'\\"] * size, "tensors": {}}
    scripts = asset_scripts("some_model", data)
    assert len(scripts) == count
    assert load(scripts, "some_model") == data


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        (torch.zeros(2), {"dtype": "int4"}, "dtype must be one of float32, int8; got int4"),
        (torch.zeros(2, 3, 4), {}, r"table must be a vector or a matrix, got axes \(2, 3, 4\)"),
        (torch.tensor([1.0, torch.nan]), {}, "table must hold finite numbers, got infinity or NaN"),
        (torch.tensor([[torch.inf]]), {"dtype": "int8"}, "table must hold finite numbers"),
        (torch.tensor([1e300], dtype=torch.float64), {}, "table must hold finite numbers"),
    ],
)
def test_what_the_browser_could_not_read_is_refused(values, options, match):
    with pytest.raises(ValueError, match=match):
        export(Holder(values), **options)
