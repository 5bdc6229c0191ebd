"""The models that the pages carry: trained, complete, and of the size that the reader is told."""

import pytest
import torch

from tools import train_page_models
from transformer_lab.models.number_reader import VOCABULARY, NumberReader
from transformer_lab.training import encoder_decoder
from transformer_lab.training.number_reader import encode, exact_match, sample_numbers, split
from transformer_lab.translator import Translator, pretrained
from transformer_lab.widgets import NumberReaderHeads, NumberTranslator
from transformer_lab.widgets._asset import exported_weights
from transformer_lab.widgets._translator import export_translator

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
    again = train_page_models.trained_reader()
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


# The translator of number words


@pytest.fixture(scope="module")
def translator_data():
    return load(page_scripts("number_words"), "number_words")


def test_the_page_has_the_translator_of_the_package(translator_data):
    translator = pretrained("number_words")
    here, there = exported_weights(translator_data), translator.model.state_dict()
    assert here.keys() == there.keys()
    for name, tensor_here in here.items():
        torch.testing.assert_close(tensor_here, there[name], rtol=1e-6, atol=0)
    assert translator_data["vocabulary"] == [translator.tokenizer.id_to_token(i) for i in range(73)]
    assert translator_data["config"] == export_translator(translator)["config"]


def test_it_is_int8_and_its_button_tells_its_size(translator_data):
    assert all("scales" in r for r in translator_data["tensors"].values() if len(r["shape"]) == 2)
    size = sum(map(len, page_scripts("number_words")))
    assert size == pytest.approx(NumberTranslator().asset_bytes, rel=0.01)
    assert size <= 750_000


def test_every_maker_has_its_scripts_and_a_strange_name_is_refused():
    for name in train_page_models.MAKERS:
        assert page_scripts(name)
    with pytest.raises(
        SystemExit, match="there is no model number_wrods; there are number_reader, number_words, induction"
    ):
        train_page_models.main(["number_wrods"])


def test_a_translator_is_stored_with_the_package_and_written_for_the_page(tmp_path, monkeypatch, capsys):
    """With an untrained one: training it takes minutes."""
    translator = encoder_decoder.number_translator()
    monkeypatch.setattr(train_page_models, "trained_translator", lambda: translator)
    monkeypatch.setattr(train_page_models, "WEIGHTS", tmp_path)
    monkeypatch.setattr(train_page_models, "MODELS", tmp_path / "models")
    monkeypatch.setattr(encoder_decoder, "exact_match", lambda loaded, pairs: len(pairs) / 4000)
    train_page_models.main(["number_words"])
    assert "number_words: 25.00% right of what it never saw" in capsys.readouterr().out
    stored = Translator.load(tmp_path / "number_words.safetensors")
    scripts = sorted((tmp_path / "models").iterdir(), key=lambda path: int(path.suffixes[0][1:]))
    page = exported_weights(load([path.read_text("utf8") for path in scripts], "number_words"))
    for name, expected in stored.model.state_dict().items():
        torch.testing.assert_close(page[name], expected, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_training_the_translator_again_gives_one_that_translates_as_well():
    test = encoder_decoder.NUMBERS.of(encoder_decoder.NUMBERS.split().test)
    assert encoder_decoder.exact_match(train_page_models.trained_translator(), test) > 0.98
