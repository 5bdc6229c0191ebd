"""The models that the pages carry: trained, complete, and of the size that the reader is told."""

from pathlib import Path

import pytest
import torch

from transformer_lab.models.number_reader import VOCABULARY, NumberReader
from transformer_lab.training.number_reader import exact_match, sample_numbers, split
from transformer_lab.widgets import NumberReaderHeads

from .assets import load, tensor

SCRIPT = Path(__file__).parents[2] / "book" / "_assets" / "models" / "number_reader.js"


@pytest.fixture(scope="module")
def data():
    return load(SCRIPT.read_text("utf8"), "number_reader")


@pytest.fixture(scope="module")
def model(data):
    model = NumberReader(**data["config"])
    model.load_state_dict({name: tensor(record) for name, record in data["tensors"].items()})
    return model


def test_it_reads_numbers_that_it_never_saw(model):
    assert exact_match(model, split()[1]) >= 0.99
    assert exact_match(model, sample_numbers(2000, torch.Generator().manual_seed(2026))) >= 0.99
    assert model.read("three hundred and forty two thousand one hundred and seven") == "342107"


def test_it_knows_the_words_that_the_package_knows(data):
    assert data["vocabulary"] == list(VOCABULARY)


def test_the_button_tells_its_size():
    assert abs(SCRIPT.stat().st_size - NumberReaderHeads().asset_bytes) < 100
