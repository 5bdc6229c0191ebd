"""Number words; sentences, from made-up files and, where slow, the real ones; tokens and batches."""

import hashlib
import io
import os
import subprocess
import sys
import unicodedata
import zipfile

import pytest
import torch

from tests.data.mirrors import make_up
from tests.strict import require
from transformer_lab.data.pairs import (
    BOS_ID,
    EOS_ID,
    NUMBER_PARTS,
    PAD_ID,
    SPECIAL,
    UNK_ID,
    Split,
    batches_by_length,
    epochs,
    mixed_epochs,
    number_pairs,
    split,
    tatoeba_credits,
    tatoeba_pairs,
    train_tokenizer,
    word_tokenizer,
)
from transformer_lab.data.registry import DATASETS
from transformer_lab.training.number_reader import number_words

# --- number words --------------------------------------------------------------------------------


def test_a_number_in_two_languages():
    pairs = number_pairs()
    assert pairs[21] == ("twenty one", "einundzwanzig")
    assert pairs[-1] == (
        "ninety nine thousand nine hundred and ninety nine",
        "neunundneunzigtausendneunhundertneunundneunzig",
    )
    assert number_pairs("fr", "ru").of([0, 97]) == [
        ("zéro", "ноль"),
        ("quatre vingt dix sept", "девяносто семь"),
    ]
    assert [source for source, _ in pairs[340:345]] == [number_words(n) for n in range(340, 345)]


def test_the_sequence_ends_at_its_limit_and_knows_what_lies_beyond():
    pairs = number_pairs(limit=12)
    assert len(pairs) == len(list(pairs)) == 12 and pairs[11] == ("eleven", "elf")
    assert pairs.of([1_000_000, 12]) == [("one million", "eine million"), ("twelve", "zwölf")]
    with pytest.raises(IndexError):
        pairs[12]


@pytest.mark.parametrize("language", ["en", "de", "fr", "ja", "vi", "te"])
def test_words_are_small_letters_and_single_spaces(language):
    for words, _ in number_pairs(language, "en").of(range(0, 1_000_000, 9973)):
        assert words == unicodedata.normalize("NFC", words.lower()) and words.split(" ") == words.split()
        assert not set(words) & set("-,.")


def test_no_test_number_is_trained_on():
    pairs = number_pairs(limit=2000)
    numbers = pairs.split(n_train=1200, n_test=300, n_longer=200)
    train, test, longer = map(set, (numbers.train, numbers.test, numbers.longer))
    assert (len(train), len(test), len(longer)) == (1200, 300, 200)
    assert not train & test and set(range(100)) <= train
    assert max(train | test) < 2000 <= min(longer) and max(longer) < 20_000
    for side in range(2):
        trained = {pair[side] for pair in pairs.of(numbers.train)}
        assert not trained & {pair[side] for pair in pairs.of([*numbers.test, *numbers.longer])}


def test_each_length_has_as_many_numbers_as_there_are():
    numbers = number_pairs().split(n_train=10_000, n_test=1_000)
    lengths = [[len(str(number)) for number in part] for part in (numbers.train, numbers.test)]
    assert [lengths[0].count(d) for d in range(1, 6)] == [10, 90, 566, 4667, 4667]
    assert [lengths[1].count(d) for d in range(1, 6)] == [0, 0, 334, 333, 333]
    assert len(set(map(len, map(str, numbers.longer)))) == 1


def test_the_same_numbers_on_every_machine_and_for_every_language():
    numbers = number_pairs().split(seed=3)
    text = f"{numbers.train} {numbers.test} {numbers.longer}"
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == "9b450c2470d0"
    assert numbers == number_pairs("fr", "es").split(seed=3)
    other = number_pairs().split(seed=4)
    assert numbers.train != other.train and numbers.test != other.test and numbers.longer != other.longer
    fewer = number_pairs().split(seed=3, n_train=500, n_longer=10)
    assert fewer.train == numbers.train[:500] and fewer.test == numbers.test
    assert fewer.longer == numbers.longer[:10]


# --- sentences -----------------------------------------------------------------------------------

GERMAN = (
    "Hi.\tHallo!\n"
    "Hi.\tGrüß Gott!\n"
    "\n"
    "Hi.\tHallo!\n"
    "Go on.\t\n"
    " Cafe\u0301? \tCafé?\n"
    "It is five\u2028o'clock.\tEs ist fünf.\n"
)
CHINESE = (
    "\ufeffHi.\t嗨。\tCC-BY 2.0 (France) Attribution: tatoeba.org #1 (CM) & #2 (Martha)\n"
    "Hi.\t嗨。\tCC-BY 2.0 (France) Attribution: tatoeba.org #1 (CM) & #3 (wzhd)\n"
    "Run.\t跑。\tCC-BY 2.0 (France) Attribution: tatoeba.org #4 (CM) & #5 (wzhd)\n"
    "\n"
)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Made-up files, laid out like the real ones, in a mirror that the registry trusts."""
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("deu.txt", GERMAN.encode())
        archive.writestr("_about.txt", "Attribution: tatoeba.org")
    make_up(monkeypatch, tmp_path, "tatoeba_deu_eng", {"deu-eng.zip": packed.getvalue()})
    make_up(monkeypatch, tmp_path, "tatoeba_cmn_eng", {"cmn.txt": CHINESE.encode()})
    return tmp_path


def test_german_sentences_come_first_each_pair_once_composed_and_whole(mirror):
    assert tatoeba_pairs("tatoeba_deu_eng") == [
        ("Hallo!", "Hi."),
        ("Grüß Gott!", "Hi."),
        ("Café?", "Café?"),
        ("Es ist fünf.", "It is five\u2028o'clock."),
    ]
    assert set(tatoeba_credits("tatoeba_deu_eng").values()) == {DATASETS["tatoeba_deu_eng"].attribution}


def test_chinese_sentences_keep_their_authors(mirror):
    assert tatoeba_pairs("tatoeba_cmn_eng") == [("Hi.", "嗨。"), ("Run.", "跑。")]
    credits = tatoeba_credits("tatoeba_cmn_eng")
    assert credits["Hi.", "嗨。"].endswith("#1 (CM) & #2 (Martha)")
    assert credits["Run.", "跑。"].endswith("#4 (CM) & #5 (wzhd)")


def test_the_file_may_be_kept_elsewhere(mirror, monkeypatch):
    monkeypatch.delenv("TRANSFORMER_LAB_DATA")
    assert len(tatoeba_pairs("tatoeba_cmn_eng", folder=mirror)) == 2
    assert len(tatoeba_credits("tatoeba_deu_eng", folder=mirror)) == 4


def entangled(n):
    """Sentences of which every third has two translations, and some translations serve two sentences."""
    pairs = [(f"source {i}", f"target {i}") for i in range(n)]
    pairs += [(f"source {i}", f"target {i} again") for i in range(0, n, 3)]
    return pairs + [(f"source {i}", f"target {i + 1}") for i in range(0, n, 5)]


def test_no_sentence_stands_in_two_parts_in_either_language():
    pairs = entangled(300)
    parts = split(pairs, n_validation=40, n_test=60)
    assert (len(parts.validation), len(parts.test)) == (40, 60)
    assert sorted(parts.train + parts.validation + parts.test) == sorted(pairs)
    for side in range(2):
        seen = [{pair[side] for pair in part} for part in (parts.train, parts.validation, parts.test)]
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_a_chain_of_shared_translations_stays_together():
    chain = [(f"source {i}", f"target {i + j}") for i in range(2000) for j in (0, 1)]
    parts = split([*chain, ("other", "andere"), ("third", "dritte")], n_validation=1, n_test=1)
    assert parts.train == chain and len(parts.test) == len(parts.validation) == 1


def test_the_same_division_on_every_machine():
    pairs = entangled(300)
    parts = split(pairs, n_validation=40, n_test=60, seed=2)
    assert hashlib.sha256(repr(parts).encode()).hexdigest()[:12] == "1f08105a5553"
    assert parts != split(pairs, n_validation=40, n_test=60, seed=3)
    assert parts.test == split(pairs, n_validation=0, n_test=60, seed=2).test
    assert split(pairs, n_validation=0, n_test=0).validation == []


# --- tokens and batches --------------------------------------------------------------------------

TEXTS = ["Zwei und zwei.", "zwei  und drei", " fünf", "Don't stop, two!", "你好。 你们好", "<eos> <e"]


def test_special_tokens_come_first_and_cannot_be_typed():
    tokenizer = train_tokenizer(TEXTS, 60)
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == [PAD_ID, BOS_ID, EOS_ID, UNK_ID]
    assert (PAD_ID, BOS_ID, EOS_ID, UNK_ID) == (0, 1, 2, 3)
    assert EOS_ID not in tokenizer.encode("<eos>").ids
    assert tokenizer.encode("Q").ids[-1] == UNK_ID


@pytest.mark.parametrize("text", [*TEXTS, "", " ", "   zwei", "zwei ", "Zwei<eos>und"])
def test_what_is_decoded_is_what_was_encoded(text):
    tokenizer = train_tokenizer(TEXTS, 80)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_tokens_can_be_read():
    tokenizer = train_tokenizer(TEXTS * 2, 100)
    assert tokenizer.encode("zwei und fünf.").tokens == ["▁zwei", "▁und", "▁fünf", "."]
    assert train_tokenizer(["one, two."] * 3, 60).encode("one, two.").tokens == ["▁one", ",", "▁two", "."]
    assert tokenizer.encode("好你").tokens == ["▁", "好", "你"]
    assert tokenizer.encode("cafe\u0301").ids == tokenizer.encode("café").ids


def test_the_vocabulary_is_as_large_as_asked_for_or_as_there_is_to_join():
    texts = [" ".join(pair) for pair in number_pairs().of(range(0, 100_000, 331))]
    assert [train_tokenizer(texts, v).get_vocab_size() for v in (60, 150)] == [60, 150]
    assert train_tokenizer(["ab"], 100).get_vocab_size() == len(SPECIAL) + 3 + 2  # ▁ a b, ab ▁ab
    with pytest.raises(ValueError, match=r"vocab_size must be 7 or more, for 4 .* the 3 different .*, got 6"):
        train_tokenizer(["ab"], 6)


MERGES = """
import hashlib, random
from transformer_lab.data.pairs import train_tokenizer
draw = random.Random(0)
letters = "abcdefghijklmnopqrst"
words = ["".join(letters[int(20 * draw.random())] for _ in range(6)) for _ in range(800)]  # most pairs tie
for texts in (words, words[::-1]):
    print(hashlib.sha256(train_tokenizer(texts, 1200).to_str().encode()).hexdigest())
"""


def test_the_same_merges_in_every_process_with_one_thread_or_four():
    """Hashing differs from process to process, and threads come in any order: ties must not notice."""
    learned = set()
    for threads in ("1", "4"):
        run = subprocess.run(
            [sys.executable, "-c", MERGES],
            env=os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"},
            capture_output=True,
            text=True,
            check=True,
        )
        learned.update(run.stdout.split())
    assert len(learned) == 1


def lengths_like_tatoeba(n):
    """As many tokens as sentences of Tatoeba have, 3 to 14 for most, and about as many in the translation."""
    generator = torch.Generator().manual_seed(0)
    source = (8.5 + 3 * torch.randn(n, generator=generator)).clamp(2, 40)
    target = (source * (1 + 0.25 * torch.randn(n, generator=generator))).clamp(2, 60)
    return [([4] * s, [5] * t) for s, t in zip(source.long().tolist(), target.long().tolist(), strict=True)]


def waste(batches):
    """The share of padding among all places."""
    places = sum(source.numel() + target.numel() for source, target in batches)
    return sum(((s == PAD_ID).sum() + (t == PAD_ID).sum()).item() for s, t in batches) / places


def epoch(pairs, max_tokens=512, vocab_size=1000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return batches_by_length(pairs, max_tokens=max_tokens, vocab_size=vocab_size, generator=generator)


def unpadded(batches):
    for source, target in batches:
        for s, t in zip(source.tolist(), target.tolist(), strict=True):
            yield tuple(i for i in s if i != PAD_ID), tuple(i for i in t if i != PAD_ID)


def test_every_pair_once_with_its_beginning_its_end_and_padding_behind():
    pairs = [([i, *[4] * (i % 7)], [*[5] * (i % 5), i]) for i in range(10, 210)]
    batches = epoch(pairs)
    wanted = [(tuple(source), (BOS_ID, *target, EOS_ID)) for source, target in pairs]
    assert sorted(unpadded(batches)) == sorted(wanted)
    for tensor in (tensor for batch in batches for tensor in batch):
        assert tensor.dtype == torch.long
        assert (tensor != PAD_ID).any(0).all(), "a column of nothing but padding"
        assert (torch.diff((tensor == PAD_ID).int()) >= 0).all(), "padding in front of a token"


def test_batches_keep_to_the_budget_and_fill_it():
    pairs = lengths_like_tatoeba(2000)
    for max_tokens in (300, 1000):
        sizes = [source.numel() + target.numel() for source, target in epoch(pairs, max_tokens)]
        assert max(sizes) <= max_tokens and sum(sizes) / len(sizes) > 0.9 * max_tokens
    assert len(epoch(pairs, 10**6)) == 1


def test_little_is_padding():
    pairs = lengths_like_tatoeba(4000)
    assert waste(epoch(pairs, 1024)) < 0.1
    apart = [epoch([pair], 1024)[0] for pair in pairs]
    assert waste(apart) == 0
    assert waste(epoch(pairs, 10**9)) > 0.5  # all in one batch: what comes of not sorting


def test_the_generator_shuffles_batches_and_what_is_in_them():
    pairs = [([i, *[4] * (i % 7)], [*[5] * (i % 5), i]) for i in range(10, 210)]
    one, same, other = (list(unpadded(epoch(pairs, seed=seed))) for seed in (0, 0, 1))
    assert one == same != other
    widths = [source.shape[1] for source, _ in epoch(pairs)]
    assert widths != sorted(widths)
    members = [{frozenset(unpadded([batch])) for batch in epoch(pairs, seed=seed)} for seed in (0, 1)]
    assert members[0] != members[1]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: number_pairs("en", "xx"),
            "num2words has no language 'xx'; it has, among others, .*de, .*en",
        ),
        (lambda: number_pairs("english"), "no language 'english'"),
        (lambda: number_pairs(limit=0), "limit must be 1 or more, got 0"),
        (lambda: number_pairs().of([-1]), "numbers must be 0 or more, got -1"),
        (lambda: number_pairs().of([10**600]), "num2words cannot say 10+ in 'en': use smaller"),
        (lambda: number_pairs().split(n_test=-1), "sizes must be 0 or more, got 20000, -1 and 1000"),
        (
            lambda: number_pairs(limit=1000).split(n_train=100, n_test=901),
            "asked for 901 numbers to test with, of 900 from 100 up, .* or raise limit=1000",
        ),
        (
            lambda: number_pairs(limit=1000).split(n_train=901, n_test=100),
            "and for 901 to train on, of 900 left: ask for fewer",
        ),
        (
            lambda: number_pairs(limit=1000).split(n_train=1, n_test=1, n_longer=9001),
            "there are 9000 longer numbers, got n_longer=9001",
        ),
        (lambda: tatoeba_pairs("tatoeba"), "the sets of Tatoeba are tatoeba_deu_eng and .*, got 'tatoeba'"),
        (
            lambda: split([("a", "b")], n_validation=-1, n_test=0),
            "sizes must be 0 or more, got n_validation=-1 and n_test=0",
        ),
        (
            lambda: split([("a", "b"), ("c", "d")], n_validation=1, n_test=1),
            "2 pairs, .* do not divide into n_validation=1, n_test=1 and something to train on",
        ),
        (
            lambda: split([("a", "b"), ("a", "c"), ("d", "e"), ("d", "f")], n_validation=0, n_test=1),
            "4 pairs, some of which must stay together, do not divide into n_validation=0, n_test=1",
        ),
        (lambda: split([], n_validation=0, n_test=0), "0 pairs"),
        (lambda: train_tokenizer([], 10), "the corpus is empty"),
        (lambda: train_tokenizer(["", ""], 10), "the corpus is empty"),
        (lambda: epoch([]), "there is no pair to make a batch of: the list is empty"),
        (lambda: epoch([([4], [4]), ([4], [])]), "pair 1 has an empty side: drop it"),
        (
            lambda: epoch([([4], [4]), ([4] * 5, [4] * 2)], max_tokens=8),
            r"pair 1 has 5 \+ 4 tokens, <bos> and <eos> among them: drop it, or raise max_tokens=8",
        ),
        (lambda: epoch([([4], [9, 10])], vocab_size=10), "the ids of pair 0 must lie in 3 to 9, got 10"),
        (lambda: epoch([([4, -1], [9])]), "of pair 0 must lie in 3 to 999, got -1"),
        (lambda: epoch([([4], [9, EOS_ID])]), "got 2 .<pad>, <bos> and <eos> are added here"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# --- the real sentences --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("tatoeba_deu_eng", 169_813), ("tatoeba_cmn_eng", 29_055)])
def test_the_real_sentences(name, n):
    require(bool(os.environ.get("TRANSFORMER_LAB_DATA")), "TRANSFORMER_LAB_DATA names no mirror of the data")
    pairs = tatoeba_pairs(name)
    assert len(pairs) == len(set(pairs)) == n
    english = 1 if name == "tatoeba_deu_eng" else 0
    assert all(pair[english].isascii() for pair in pairs[:100])
    assert all("tatoeba.org" in credit for credit in tatoeba_credits(name).values())
    parts = split(pairs, n_validation=500, n_test=1000)
    assert isinstance(parts, Split) and (len(parts.validation), len(parts.test)) == (500, 1000)
    for side in range(2):
        train, validation, test = (
            {p[side] for p in part} for part in (parts.train, parts.validation, parts.test)
        )
        assert not train & (validation | test) and not validation & test
    some = parts.train[:20_000]
    tokenizer = train_tokenizer([text for pair in parts.train for text in pair], 4000)
    ids = [tuple(tokenizer.encode(text).ids for text in pair) for pair in some]
    assert all(tuple(map(tokenizer.decode, pair)) == texts for pair, texts in zip(ids, some, strict=True))
    assert waste(epoch(ids, 2048, 4000)) < 0.1


def tokenizer_of(pairs):
    return word_tokenizer(text for pair in pairs for text in pair)


COUNTED = [(" ".join("a" * (i % 4 + 1)), " ".join("b" * (i % 3 + 1))) for i in range(23)]


@pytest.mark.parametrize("longest", [None, 3])
def test_epochs_are_batches_by_length_of_what_fits(longest):
    tokenizer = tokenizer_of(COUNTED)
    made = epochs([*COUNTED, ("", "b")], tokenizer, max_tokens=20, longest=longest)
    batches = made(torch.Generator().manual_seed(0))
    expected = [pair for pair in COUNTED if len(pair[0].split()) <= (longest or 20)]
    rows = sorted(
        (" ".join(w for w in tokenizer.decode(s.tolist()).split()), tokenizer.decode(t.tolist()))
        for source, target in batches
        for s, t in zip(source, target, strict=True)
    )
    assert rows == sorted(expected)
    assert all(source.numel() + target.numel() <= 20 for source, target in batches)


def test_mixed_epochs_take_every_pair_once_but_for_the_rest_and_mix_lengths():
    tokenizer = tokenizer_of(COUNTED)
    made = mixed_epochs(COUNTED, tokenizer, batch_size=5)
    first, again, other = (made(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert len(first) == 4 and all(len(source) == len(target) == 5 for source, target in first)
    assert all(
        torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert not all(
        torch.equal(x[0], y[0]) for x, y in zip(first, other, strict=True) if x[0].shape == y[0].shape
    )
    rows = [tokenizer.decode(row.tolist()) for source, _ in first for row in source]
    assert len(rows) == 20 and not set(rows) - {source for source, _ in COUNTED}
    lengths = [{int(n) for n in (source != PAD_ID).sum(dim=1)} for source, _ in first]
    assert all(len(found) > 1 for found in lengths)
    for _, target in first:
        assert (target[:, 0] == BOS_ID).all() and (target == EOS_ID).sum(dim=1).eq(1).all()


def test_a_word_is_cut_at_its_parts_and_put_together_again():
    numbers = [number_pairs()[n] for n in (0, 21, 342, 1010, 99_999)]
    tokenizer = word_tokenizer((text for pair in numbers for text in pair), parts=NUMBER_PARTS)
    assert tokenizer.encode(numbers[1][1]).tokens == ["▁ein", "und", "zwan", "zig"]
    for pair in numbers:
        for text in pair:
            assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("tomato").ids == [UNK_ID]
    assert word_tokenizer(["a b", "b c"]).get_vocab_size() == len(SPECIAL) + 3


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda t: mixed_epochs([("a", "b")], t, batch_size=2), "a batch takes batch_size=2 pairs, got 1"),
        (
            lambda t: mixed_epochs([("", "b")], t, batch_size=1),
            "of 1 pairs none has two sides of 1 to 1 tokens",
        ),
        (
            lambda t: epochs([("a a a", "b")], t, max_tokens=9, longest=2),
            "none has two sides of 1 to 2 tokens",
        ),
        (lambda t: word_tokenizer(["", " "]), "the corpus is empty"),
    ],
)
def test_what_gives_no_batch_and_no_vocabulary_is_told(call, match):
    with pytest.raises(ValueError, match=match):
        call(tokenizer_of(COUNTED))
