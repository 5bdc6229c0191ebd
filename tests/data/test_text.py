"""Texts from made-up files that are laid out like the real ones; and, where slow, from those."""

import io
import json
import os
import zipfile

import pytest

from tests.data.mirrors import make_up
from tests.strict import require
from transformer_lab.data import text


def poem(title, *lines):
    return {"title": title, "author": "nobody", "paragraphs": lines, "id": "0"}


def zipped(contents):
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_the_last_tenth_of_the_plays_is_to_be_judged_on(tmp_path, monkeypatch):
    make_up(monkeypatch, tmp_path, "tiny_shakespeare", {"input.txt": b"All:\nSpeak, speak, o."})
    assert text.tiny_shakespeare() == ("All:\nSpeak, speak,", " o.")


def test_poems_of_all_files_in_order_and_the_collection_apart(tmp_path, monkeypatch):
    files = {
        "poet.tang.0.json": [poem("一", "床前明月光，", "疑是地上霜。")],
        "poet.tang.1000.json": [poem("二", "春眠不覺曉，")],
        "tangshi300.json": [poem("三", "白日依山盡，") | {"tags": ["五言"]}],
    }
    contents = {file: json.dumps(poems).encode() for file, poems in files.items()}
    make_up(monkeypatch, tmp_path, "chinese_poetry", contents)
    assert text.tang_poems() == [
        text.Poem("一", "nobody", ("床前明月光，", "疑是地上霜。")),
        text.Poem("二", "nobody", ("春眠不覺曉，",)),
    ]
    assert text.three_hundred_poems() == [text.Poem("三", "nobody", ("白日依山盡，",))]


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    """Forty sentences for, "p0" to "p39", thirty against; the archive lists those against first."""
    sentences = {"neg": [f"n{i}" for i in range(30)], "pos": [f"p{i}" for i in range(40)]}
    packed = zipped(
        {"sentence_polarity/README.txt": "Bo Pang and Lillian Lee"}
        | {
            f"sentence_polarity/rt-polarity.{end}": " \n".join(lines) + "\n"
            for end, lines in sentences.items()
        }
    )
    make_up(monkeypatch, tmp_path, "sentence_polarity", {"sentence_polarity.zip": packed})


def test_reviews_are_divided_alike_everywhere_each_sentence_once(reviews):
    parts = text.sentence_polarity()
    everything = [*parts.train, *parts.validation, *parts.test]
    assert sorted(everything) == sorted([(f"n{i}", 0) for i in range(30)] + [(f"p{i}", 1) for i in range(40)])
    sizes = [(len(part), sum(label for _, label in part)) for part in vars(parts).values()]
    assert sizes == [(56, 32), (7, 4), (7, 4)]
    assert " ".join(sentence for sentence, _ in parts.test) == "n15 p26 p10 n3 p22 n25 p5"
    assert parts == text.sentence_polarity(seed=0) != text.sentence_polarity(seed=1)
    labels = [label for _, label in parts.train]
    assert labels != sorted(labels) and labels != sorted(labels, reverse=True)


def test_the_vocabulary_and_the_merges_of_gpt2(tmp_path, monkeypatch):
    contents = {"gpt2_vocab.json": '{"!": 0, "Ġt": 1}'.encode(), "gpt2_merges.txt": "Ġ t\nh e\n".encode()}
    make_up(monkeypatch, tmp_path, "gpt2_bpe", contents)
    assert text.gpt2_bpe() == ({"!": 0, "Ġt": 1}, [("Ġ", "t"), ("h", "e")])


@pytest.mark.slow
def test_the_real_texts():
    require(bool(os.environ.get("TRANSFORMER_LAB_DATA")), "TRANSFORMER_LAB_DATA names no mirror of the data")
    train, last = text.tiny_shakespeare()
    assert (len(train), len(last)) == (1_003_854, 111_540) and len(set(train + last)) == 65
    poems, collection = text.tang_poems(), text.three_hundred_poems()
    assert (len(poems), len(collection)) == (5003, 366)
    assert sum(len(line) for poem in poems for line in poem.lines) == 309_675
    assert 0 < len({poem.lines for poem in collection} & {poem.lines for poem in poems}) < len(collection)
    assert len({poem.lines for poem in poems}) < len(poems)  # some texts stand here twice
    parts = text.sentence_polarity()
    sizes = [(len(part), sum(label for _, label in part)) for part in vars(parts).values()]
    assert sizes == [(8530, 4265), (1066, 533), (1066, 533)]
    assert len({sentence for part in vars(parts).values() for sentence, _ in part}) == 10_662
    numbers, merges = text.gpt2_bpe()
    assert sorted(numbers.values()) == list(range(50_257)) and len(merges) == 50_000
    assert numbers["".join(merges[-1])] == 50_255 and numbers["<|endoftext|>"] == 50_256
