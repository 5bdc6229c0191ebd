"""Texts to fetch: plays, poems, sentences for and against, and the vocabulary of GPT-2."""

import json
from dataclasses import dataclass
from os import PathLike

from .archives import members
from .made_up import Draw
from .registry import DATASETS, fetch

Labelled = tuple[str, int]  # a sentence, and 1 where it speaks for the film, 0 where against


def tiny_shakespeare(*, folder: str | PathLike[str] | None = None) -> tuple[str, str]:
    """Plays, of 65 different characters: nine tenths to be trained on, and the last one to be judged on.

    The file has no split of its own; this is the one in common use.

    Args:
        folder: where to keep the file, as in ``registry.fetch``.

    Raises:
        FetchError: the file cannot be had.
    """
    text = fetch("tiny_shakespeare", folder=folder).read_text("utf-8")
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


@dataclass(frozen=True)
class Poem:
    """A poem in traditional characters, line by line, with its punctuation."""

    title: str
    author: str
    lines: tuple[str, ...]


def tang_poems(*, folder: str | PathLike[str] | None = None) -> list[Poem]:
    """5,003 poems of the Tang dynasty, in the order of the collection.

    There is no split. Some texts stand here more than once, mostly under other titles: see to it that they do
    not stand on both sides of yours.

    Raises:
        FetchError: a file cannot be had.
    """
    files = [file for file in DATASETS["chinese_poetry"].files if file.startswith("poet.tang.")]
    return [poem for file in files for poem in _poems(file, folder)]


def three_hundred_poems(*, folder: str | PathLike[str] | None = None) -> list[Poem]:
    """The well-known "Three Hundred Tang Poems", 366 as counted here. Some are among ``tang_poems``, too:
    who trains on those must not be judged on these.

    Raises:
        FetchError: the file cannot be had.
    """
    return _poems("tangshi300.json", folder)


def _poems(file: str, folder: str | PathLike[str] | None) -> list[Poem]:
    entries = json.loads(fetch("chinese_poetry", file=file, folder=folder).read_text("utf-8"))
    return [Poem(entry["title"], entry["author"], tuple(entry["paragraphs"])) for entry in entries]


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Sentences of film reviews in three lists, each half for and half against, in random order."""

    train: list[Labelled]
    validation: list[Labelled]
    test: list[Labelled]


def sentence_polarity(*, seed: int = 0, folder: str | PathLike[str] | None = None) -> Reviews:
    """10,662 sentences, 1 for praise and 0 for blame, in small letters, with spaces around each token.

    The set has no split of its own: a tenth, drawn with ``seed``, is for validation and a tenth for the test,
    the same on every machine. The sentences are also those of the Stanford Sentiment Treebank: never train
    on one and test on the other.

    Raises:
        FetchError: the file cannot be had.
    """
    archive = fetch("sentence_polarity", folder=folder)
    names = {f"sentence_polarity/rt-polarity.{end}": label for end, label in (("neg", 0), ("pos", 1))}
    draw = Draw(seed)
    parts = Reviews(train=[], validation=[], test=[])
    for name, content in sorted(members(archive, names)):
        lines = [line.strip() for line in content.decode("utf-8").split("\n")]
        drawn = [(line, names[name]) for line in draw.shuffled(filter(None, lines))]
        tenth = len(drawn) // 10
        parts.test.extend(drawn[:tenth])
        parts.validation.extend(drawn[tenth : 2 * tenth])
        parts.train.extend(drawn[2 * tenth :])
    return Reviews(**{part: draw.shuffled(sentences) for part, sentences in vars(parts).items()})


def gpt2_bpe(*, folder: str | PathLike[str] | None = None) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """GPT-2's vocabulary, a number for each of 50,257 tokens, and its 50,000 merges, the first one first.

    A byte that is no visible character is spelt by another one: a space is "Ġ".

    Raises:
        FetchError: a file cannot be had.
    """
    numbers = fetch("gpt2_bpe", file="gpt2_vocab.json", folder=folder).read_text("utf-8")
    merges = fetch("gpt2_bpe", file="gpt2_merges.txt", folder=folder).read_text("utf-8")
    return json.loads(numbers), [tuple(line.split(" ")) for line in merges.split("\n") if line]
