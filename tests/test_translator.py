"""Texts in, texts out: in the order asked, alone as in a batch, and the same after a trip to a file."""

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from transformer_lab import generation
from transformer_lab.data.pairs import train_tokenizer
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.training import results
from transformer_lab.training.encoder_decoder import NUMBERS, bleu, german_english
from transformer_lab.translator import _WEIGHTS, Translator, pretrained

TEXTS = [NUMBERS[n][0] for n in (42, 70_016, 7, 99_999, 300)]
GERMAN = [NUMBERS[n][1] for n in (42, 70_016, 7, 99_999, 300)]


@pytest.fixture(scope="module")
def numbers():
    return pretrained("number_words")


def untrained(seed=0):
    tokenizer = train_tokenizer(["go home", "geh heim"], 30)
    torch.manual_seed(seed)
    config = TransformerConfig(vocab_size=40, d_model=16, n_heads=2, n_layers=1, d_ff=32, max_len=20)
    return Translator(Transformer(config), tokenizer)


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_translations_come_in_the_order_of_the_texts(numbers, beam_size, batch_size):
    assert numbers.translate(TEXTS, beam_size=beam_size, batch_size=batch_size) == GERMAN
    assert numbers.translate([]) == []


def test_it_writes_what_generation_writes(numbers):
    source = numbers.encode(TEXTS[:2])
    assert source.shape == (2, 4) and source[0, 2:].tolist() == [0, 0]
    rows = generation.greedy(numbers.model, source).tolist()
    assert [numbers.decode(row) for row in rows] == GERMAN[:2]
    assert numbers.decode(rows[0][:2]) == "zweiund"


def test_hypotheses_are_those_of_beams_with_their_texts(numbers):
    found = numbers.hypotheses("twenty one", beam_size=3, alpha=0.0)
    wanted = generation.beams(numbers.model, numbers.encode(["twenty one"]), beam_size=3, alpha=0.0)[0]
    assert [hypothesis for _, hypothesis in found] == wanted
    assert found[0][0] == "einundzwanzig"


def test_a_file_keeps_everything_but_the_last_digits(tmp_path):
    translator = untrained()
    translator.save(tmp_path / "t.safetensors")
    state = torch.random.get_rng_state()
    loaded = Translator.load(tmp_path / "t.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state) and not loaded.model.training
    assert loaded.model.config == translator.model.config
    assert loaded.tokenizer.to_str() == translator.tokenizer.to_str()
    kept = loaded.model.state_dict()
    for name, tensor in translator.model.state_dict().items():
        half = tensor.abs().amax(1, keepdim=True) / 254 * 1.001 if tensor.ndim == 2 else torch.zeros(1)
        assert ((kept[name] - tensor).abs() <= half).all(), name
    loaded.save(tmp_path / "again.safetensors")
    again = Translator.load(tmp_path / "again.safetensors").model.state_dict()
    assert_close(again, kept, rtol=1e-6, atol=1e-7)


def test_what_comes_with_the_package_is_small():
    weights = list(_WEIGHTS.glob("*"))
    assert weights and all(file.stat().st_size < 2_000_000 for file in weights)


def test_the_number_words_are_right():
    pairs = NUMBERS.of(NUMBERS.split().test[:200])
    made = pretrained("number_words").translate([english for english, _ in pairs])
    assert sum(a == b for a, (_, b) in zip(made, pairs, strict=True)) >= 198


def test_german_english_writes_what_the_chapter_tells():
    """The file in the package is the one whose sentences and scores are stored."""
    translator, examples = pretrained("german_english"), results.read("generation")["examples"]
    sources = [example["source"] for example in examples]
    assert translator.translate(sources) == [example["greedy"] for example in examples]
    assert translator.translate(sources, beam_size=4) == [example["beam"] for example in examples]


@pytest.mark.slow
def test_german_english_has_the_scores_that_are_stored():
    told, test = results.read("generation")["rounded"], german_english()[0].test
    for name, size in (("greedy", 1), ("beam 4", 4)):
        assert bleu(pretrained("german_english"), test, beam_size=size)[0] == pytest.approx(
            told[name], abs=0.1
        )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda t, _: t.translate("twenty one"), "texts must be a list of texts, got the text 'twenty one'"),
        (lambda t, _: t.encode([]), "there is no text to encode: the list is empty"),
        (lambda t, _: t.translate(["one", ""]), "there is nothing to translate in ''"),
        (lambda t, _: t.translate(["one " * 70]), "source rows may have max_len=64 tokens, got"),
        (lambda t, _: t.translate(["one"], beam_size=0), "beam_size must be 1 or more, got 0"),
        (
            lambda t, _: pretrained("klingon"),
            "no translator is called 'klingon'; there are german_english, number_words",
        ),
        (lambda t, path: Translator.load(path / "none"), "none cannot be read"),
        (
            lambda t, path: Translator.load(path / "other"),
            "other is no translator: it lacks settings",
        ),
        (
            lambda t, _: Translator(Transformer(TransformerConfig.tiny(20)), t.tokenizer),
            "the tokenizer has 73 tokens, the model's vocab_size is 20",
        ),
    ],
)
def test_bad_input_says_what_was_wrong(numbers, tmp_path, call, match):
    save_file({"a": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match=match):
        call(numbers, tmp_path)
