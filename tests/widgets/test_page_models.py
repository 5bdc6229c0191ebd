"""The models that the pages carry: trained, complete, and of the size that the reader is told."""

import pytest
import torch

from tools import train_page_models
from transformer_lab.models.number_reader import VOCABULARY, NumberReader
from transformer_lab.training.number_reader import encode, exact_match, sample_numbers, split
from transformer_lab.widgets import NumberReaderHeads

from .assets import load, page_scripts, tensor


@pytest.fixture(scope="module")
def data():
    return load(page_scripts("number_reader"), "number_reader")


@pytest.fixture(scope="module")
def model(data):
    model = NumberReader(**data["config"])
    model.load_state_dict({name: tensor(record) for name, record in data["tensors"].items()})
    return model


def test_it_reads_numbers_that_it_never_saw(model):
    assert exact_match(model, split()[1]) >= 0.99
    assert exact_match(model, sample_numbers(2000, torch.Generator().manual_seed(2026))) >= 0.99
    assert model.read("three hundred and forty two thousand one hundred and seven") == "342107"


@pytest.mark.slow
def test_training_again_gives_a_model_that_reads_the_same(model):
    again = train_page_models.number_reader()
    tokens, _ = encode(split()[1])
    same = (again(tokens).argmax(-1) == model(tokens).argmax(-1)).all(-1)
    assert same.float().mean() > 0.99


def test_the_page_loads_rounded_weights_and_reads_as_well(data):
    assert all("scales" in record for record in data["tensors"].values() if len(record["shape"]) == 2)
    loaded = train_page_models.as_loaded(data)
    assert exact_match(loaded, split()[1]) == 1.0
    assert not loaded.training


def test_it_knows_the_words_that_the_package_knows(data):
    assert data["vocabulary"] == list(VOCABULARY)


def test_the_button_tells_its_size():
    size = sum(map(len, page_scripts("number_reader")))
    assert size == pytest.approx(NumberReaderHeads().asset_bytes, rel=0.01)
