import json

import pytest
from traitlets import TraitError

from transformer_lab.efficient import A100, H100
from transformer_lab.widgets import CostCalculator
from transformer_lab.widgets.efficient_calculator import DEVICES, MODELS

SIZES = MODELS["LLaMA-2-7B"]


def test_repr_is_the_same_for_the_same_state():
    shown = "CostCalculator(LLaMA-2-7B, bytes_per_number=2, n_tokens=4096, batch=1, device='H100')"
    assert repr(CostCalculator()) == shown
    other = CostCalculator(sizes=MODELS["GPT-3"], latent=True, bytes_per_number=4, n_tokens=128, batch=8)
    assert (
        repr(other)
        == "CostCalculator(GPT-3, latent, bytes_per_number=4, n_tokens=128, batch=8, device='H100')"
    )
    own = CostCalculator(sizes={**SIZES, "n_layers": 3}, device="T4")
    assert repr(own).startswith("CostCalculator(sizes={'d_model': 4096, 'd_ff': 11008, 'n_layers': 3, ")


def test_every_model_and_device_can_be_chosen():
    for sizes in MODELS.values():
        assert CostCalculator(sizes=sizes).sizes == sizes
    for device in DEVICES:
        assert CostCalculator(device=device).device == device


def test_peaks_that_the_package_has_are_the_package_s():
    for name, hardware in (("A100", A100), ("H100", H100)):
        device = CostCalculator().devices[name]
        assert device["flops"][2] == hardware.flops_per_second
        assert device["bandwidth"] == hardware.bytes_per_second


def test_a_smaller_number_is_computed_faster():
    for device in DEVICES.values():
        assert device["flops"][4] < device["flops"][2] < device["flops"][1]


def test_the_page_gets_its_numbers_as_json():
    widget = CostCalculator()
    state = {name: getattr(widget, name) for name in ("models", "devices", "sizes")}
    assert json.loads(json.dumps(state, allow_nan=False))["devices"]["T4"]["flops"]["2"] == 65e12


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("traits", "match"),
    [
        ({"sizes": {"d_model": 8}}, "sizes must have d_model, d_ff, .*, gated; got d_model$"),
        ({"sizes": {**SIZES, "d_ff": 0}}, "d_ff must be a whole number, 1 or more, got 0"),
        ({"sizes": {**SIZES, "n_layers": 2.5}}, "n_layers must be a whole number, 1 or more, got 2.5"),
        ({"sizes": {**SIZES, "gated": 3}}, "gated must be True or False, got 3"),
        ({"sizes": {**SIZES, "n_heads": 7}}, "n_heads must divide d_model=4096, got 7"),
        ({"sizes": {**SIZES, "n_kv_heads": 5}}, "n_kv_heads must divide n_heads=32, got 5"),
        ({"bytes_per_number": 3}, "bytes_per_number must be 4, 2 or 1, got 3"),
        ({"n_tokens": 5000}, "n_tokens must be a power of two from 128 to 1048576, got 5000"),
        ({"batch": 2048}, "batch must be a power of two from 1 to 1024, got 2048"),
        ({"device": "abacus"}, "device must be one of T4, .*, H100; got 'abacus'"),
        ({"models": {}}, 'The "models" trait is read-only'),
    ],
)
def test_bad_input_says_what_was_wrong(traits, match):
    with pytest.raises(TraitError, match=match):
        CostCalculator(**traits)
