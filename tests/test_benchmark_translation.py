"""The long run on sentences, made short: number words for Tatoeba's, a tiny model for the chapter's."""

import json

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import translation
from transformer_lab.data.pairs import Split, train_tokenizer
from transformer_lab.encoder_decoder import TransformerConfig
from transformer_lab.training.encoder_decoder import NUMBERS
from transformer_lab.training.loop import Trainer, TrainingConfig
from transformer_lab.translator import Translator


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    pairs = [(german, english) for english, german in NUMBERS.of(range(100, 160))]
    parts = Split(train=pairs[:40], validation=pairs[40:50], test=pairs[50:])
    tokenizer = train_tokenizer((text for pair in parts.train for text in pair), 60)

    def settings(steps, vocab_size):
        sizes = {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 32, "norm": "pre", "max_len": 64}
        training = TrainingConfig(steps=steps, schedule="cosine", warmup=1, lr=1e-2)
        return TransformerConfig(vocab_size=vocab_size, **sizes), training

    monkeypatch.setattr(translation, "german_english", lambda: (parts, tokenizer))
    monkeypatch.setattr(translation, "german_english_settings", settings)
    monkeypatch.setattr(translation, "tatoeba_credits", lambda name: {pair: "somebody" for pair in pairs})
    monkeypatch.setattr(translation, "WORK", tmp_path / "work")
    monkeypatch.setattr(translation, "RESULTS", tmp_path)
    monkeypatch.setattr(translation, "ROOT", tmp_path)
    monkeypatch.setattr(translation, "LOOKS", 2)
    monkeypatch.setattr(translation, "MAX_TOKENS", 300)
    (tmp_path / "transformer_lab" / "weights").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", translation.CONTESTANTS)
def test_a_record_tells_what_a_reader_of_the_table_needs(name):
    record = translation.run(name, 3, 4)
    assert record["model"] == name and record["seed"] == 3 and record["steps"] == 4
    assert [step for step, *_ in record["curve"]] == [2, 4]
    assert set(record["bleu"]) == {"greedy", "beam 4"}
    assert record["signature"].startswith("nrefs:1|") and record["minutes"] >= 0
    assert set(record["versions"]) == {"python", "torch", "tokenizers", "sacrebleu"}
    json.dumps(record)


def test_the_contestants_have_equally_many_numbers():
    sizes = [translation.run(name, 0, 2)["parameters"] for name in translation.CONTESTANTS]
    assert sizes[0] == sizes[1]


def test_the_contestants_begin_alike(small):
    config, _ = translation.german_english_settings(1, 60)
    source, target = torch.randint(3, 60, (2, 5)), torch.randint(3, 60, (2, 4))
    ours, theirs = (translation.contestant(name, config, 5).eval() for name in ("ours", "pytorch"))
    torch.testing.assert_close(theirs(source, target), ours(source, target), rtol=1e-4, atol=1e-5)
    other = translation.contestant("ours", config, 6).eval()
    assert not torch.allclose(other(source, target), ours(source, target))


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(monkeypatch, small):
    whole = translation.run("ours", 0, 4)
    monkeypatch.setattr(translation, "WORK", small / "other")
    step = Trainer._step
    calls = []

    def stops(self, batches):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, batches)

    monkeypatch.setattr(Trainer, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        translation.run("ours", 0, 4)
    resumed = translation.run("ours", 0, 4)
    for record in (whole, resumed):
        record.pop("minutes")
    assert resumed == whole


def test_what_is_published_is_what_was_trained(monkeypatch, small):
    for name in translation.CONTESTANTS:
        record = translation.run(name, 0, 2)
        (small / f"translation-cpu-{name}-0.json").write_text(json.dumps(record))
    stored = {}
    monkeypatch.setattr(translation.results, "write", lambda stem, measured: stored.update({stem: measured}))
    translation.publish(n_examples=2)
    told = stored["generation"]
    assert set(told["german_english"]) == {"ours", "pytorch"} and set(told["rounded"]) == {"greedy", "beam 4"}
    loaded = Translator.load(small / "transformer_lab" / "weights" / "german_english.safetensors")
    trained = load_file(small / "work" / "ours-0.safetensors")
    kept = loaded.model.state_dict()["encoder.0.feed_forward.up_proj.weight"]
    wanted = trained["model.encoder.0.feed_forward.up_proj.weight"]
    assert (kept - wanted).abs().max() <= wanted.abs().max() / 254 * 1.001


def test_the_table_has_a_row_a_run_and_one_signature(small):
    for name in translation.CONTESTANTS:
        record = translation.run(name, 0, 2)
        (small / f"translation-cpu-{name}-0.json").write_text(json.dumps(record))
    table = translation.table()
    assert table.count("| ours | 0 | 2 |") == table.count("| pytorch | 0 | 2 |") == 1
    assert table.count("Signature: `nrefs:1|") == 1
