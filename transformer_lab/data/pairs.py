"""Pairs of sentences for models that translate: number words without end, and sentences of Tatoeba.

From pairs to batches: ``split`` them so that nothing of the test is learned, find the word pieces with
``train_tokenizer``, and pack sentences of like length together with ``batches_by_length``.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from os import PathLike

import torch
from jaxtyping import Int
from num2words import CONVERTER_CLASSES, num2words
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .archives import members
from .made_up import Draw
from .registry import DATASETS, fetch

Pair = tuple[str, str]  # source, target
Batch = tuple[Int[Tensor, "B S"], Int[Tensor, "B T"]]

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)
NUMBER_PARTS = "hundert|tausend|(?<!h)und|zig|ßig|(?<!▁)zehn"  # German number words have their joints here

# --- number words --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NumberSplit:
    """Whole numbers in three lists that share none.

    Args:
        train: to learn from, among them all numbers below 100: the words that everything is said with.
        test: no longer than those; longer: above the limit, up to ten times it.
    """

    train: list[int]
    test: list[int]
    longer: list[int]


@dataclass(frozen=True)
class NumberPairs(Sequence[Pair]):
    """The numbers below ``limit`` in words of two languages, made when asked for. See ``number_pairs``."""

    source: str
    target: str
    limit: int

    def __post_init__(self) -> None:
        for language in (self.source, self.target):
            if language not in CONVERTER_CLASSES:
                known = ", ".join(sorted(code for code in CONVERTER_CLASSES if len(code) == 2))
                raise ValueError(f"num2words has no language {language!r}; it has, among others, {known}")
        if self.limit < 1:
            raise ValueError(f"limit must be 1 or more, got {self.limit}")

    def __len__(self) -> int:
        return self.limit

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        chosen = range(self.limit)[index]
        return self.of(chosen) if isinstance(index, slice) else self.of([chosen])[0]

    def of(self, numbers: Iterable[int]) -> list[Pair]:
        """The pairs of these numbers, which may lie above the limit.

        Raises:
            ValueError: a number below 0, or one that the library cannot say.
        """
        return [(_words(number, self.source), _words(number, self.target)) for number in numbers]

    def split(
        self, *, n_train: int = 20_000, n_test: int = 1_000, n_longer: int = 1_000, seed: int = 0
    ) -> NumberSplit:
        """Numbers to train on and to test with: the same on every machine and for every pair of languages.

        Drawn at random, but as many of each length as of any other while there are: else nine in ten would be
        of the greatest. The test does not change with the other sizes.

        Raises:
            ValueError: a negative size, or more numbers than there are.

        >>> numbers = number_pairs().split()
        >>> [len(numbers.train), len(numbers.test), len(numbers.longer)]
        [20000, 1000, 1000]
        >>> numbers.test[:3], numbers.longer[:2]
        ([502, 5855, 48849], [116853, 300767])
        """
        if min(n_train, n_test, n_longer) < 0:
            raise ValueError(f"sizes must be 0 or more, got {n_train}, {n_test} and {n_longer}")
        draw = Draw(seed)
        digits = range(3, len(str(self.limit - 1)) + 1)
        lengths = [range(10 ** (d - 1), min(10**d, self.limit)) for d in digits]
        turns = zip_longest(*map(draw.shuffled, lengths))
        drawn = [number for turn in turns for number in turn if number is not None]
        rest = [*range(min(100, self.limit)), *drawn[n_test:]]
        if n_test > len(drawn) or n_train > len(rest):
            raise ValueError(
                f"asked for {n_test} numbers to test with, of {len(drawn)} from 100 up, and for {n_train} to"
                f" train on, of {len(rest)} left: ask for fewer, or raise limit={self.limit}"
            )
        if n_longer > 9 * self.limit:
            raise ValueError(f"there are {9 * self.limit} longer numbers, got n_longer={n_longer}")
        above, longer = range(self.limit, 10 * self.limit), {}
        while len(longer) < n_longer:
            longer[draw.among(above)] = None
        return NumberSplit(train=rest[:n_train], test=drawn[:n_test], longer=list(longer))


def number_pairs(source: str = "en", target: str = "de", *, limit: int = 100_000) -> NumberPairs:
    """The words of every whole number from 0 up to ``limit``, in two languages.

    In small letters, with spaces for hyphens and without commas: English is a row of words, German one word.

    Args:
        source, target: languages, as the library num2words calls them.
        limit: the first number that is left out.

    Returns:
        A sequence whose item ``n`` is the pair (source, target) for the number ``n``. It says any numbers
        with ``of`` and divides them with ``split``.

    Raises:
        ValueError: an unknown language, or a limit below 1.

    >>> number_pairs()[342]
    ('three hundred and forty two', 'dreihundertzweiundvierzig')
    >>> number_pairs("de", "fr").of([21, 1_000_000])
    [('einundzwanzig', 'vingt et un'), ('eine million', 'un million')]
    """
    return NumberPairs(source, target, limit)


@cache
def _words(number: int, language: str) -> str:
    if number < 0:
        raise ValueError(f"numbers must be 0 or more, got {number}")
    try:
        words = num2words(number, lang=language)
    except (NotImplementedError, OverflowError, TypeError) as error:
        raise ValueError(f"num2words cannot say {number} in {language!r}: use smaller numbers") from error
    words = words.lower().replace("-", " ").replace(",", "")
    return unicodedata.normalize("NFC", " ".join(words.split()))


# --- sentences -----------------------------------------------------------------------------------


def tatoeba_credits(name: str, *, folder: str | PathLike[str] | None = None) -> dict[Pair, str]:
    """The pairs of ``tatoeba_pairs``, each with the words that say whose it is: show them with a sentence."""
    if name not in ("tatoeba_deu_eng", "tatoeba_cmn_eng"):
        raise ValueError(f"the sets of Tatoeba are tatoeba_deu_eng and tatoeba_cmn_eng, got {name!r}")
    german = name == "tatoeba_deu_eng"
    path = fetch(name, folder=folder)
    content = next(members(path, ["deu.txt"]))[1] if german else path.read_bytes()
    credits: dict[Pair, str] = {}
    for line in unicodedata.normalize("NFC", content.decode("utf-8-sig")).split("\n"):
        english, other, credit = (part.strip() for part in [*line.split("\t"), "", "", ""][:3])
        if english and other:
            pair = (other, english) if german else (english, other)
            credits.setdefault(pair, credit or DATASETS[name].attribution)
    return credits


def tatoeba_pairs(name: str, *, folder: str | PathLike[str] | None = None) -> list[Pair]:
    """Sentences that people translated for Tatoeba, as (source, target), no pair twice, short ones first.

    A sentence may come with several translations, and there is no split of their own: ``split`` makes one in
    which no sentence is on both sides. ``registry.DATASETS`` names the licence, and ``tatoeba_credits`` the
    authors; the German file, an old one, does not know them sentence by sentence.

    Args:
        name: "tatoeba_deu_eng", 169,813 pairs from German to English, or "tatoeba_cmn_eng", 29,055 pairs from
            English to Chinese.
        folder: where to keep the file, as in ``fetch``.

    Raises:
        ValueError: another name.
        FetchError: the file cannot be had.
    """
    return list(tatoeba_credits(name, folder=folder))


@dataclass(frozen=True, kw_only=True)
class Split:
    """Pairs in three lists, each in random order; no sentence stands in two of them."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]


def split(pairs: Sequence[Pair], *, n_validation: int, n_test: int, seed: int = 0) -> Split:
    """Divide pairs so that no sentence, of either language, stands in two parts.

    Pairs that share a sentence, directly or by way of others, stay together: with one English sentence go all
    its translations, and whatever else these translate. The same on every machine; the test does not change
    with ``n_validation``.

    Args:
        n_validation, n_test: how many pairs to hold out; the rest is for training.

    Raises:
        ValueError: a negative size, or nothing left to train on.

    >>> pairs = [("go", "geh"), ("go", "los"), ("walk", "geh"), ("stop", "halt"), ("wait", "warte")]
    >>> parts = split(pairs, n_validation=1, n_test=1)
    >>> parts.train
    [('go', 'geh'), ('go', 'los'), ('walk', 'geh')]
    >>> parts.validation, parts.test
    ([('stop', 'halt')], [('wait', 'warte')])
    """
    if min(n_validation, n_test) < 0:
        raise ValueError(f"sizes must be 0 or more, got n_validation={n_validation} and n_test={n_test}")
    parts = Split(train=[], validation=[], test=[])
    for family in Draw(seed).shuffled(_families(pairs)):
        if len(parts.test) + len(family) <= n_test:
            parts.test.extend(family)
        elif len(parts.validation) + len(family) <= n_validation:
            parts.validation.extend(family)
        else:
            parts.train.extend(family)
    if not parts.train or len(parts.test) < n_test or len(parts.validation) < n_validation:
        raise ValueError(
            f"{len(pairs)} pairs, some of which must stay together, do not divide into"
            f" n_validation={n_validation}, n_test={n_test} and something to train on: hold out fewer"
        )
    return parts


def _families(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Pairs that share a sentence, directly or by way of others: a union-find over the sentences."""
    above: dict[str, str] = {}

    def head(sentence: str) -> str:
        while (parent := above.setdefault(sentence, sentence)) != sentence:
            above[sentence] = sentence = above[parent]  # the path halves as it is walked
        return sentence

    for source, target in pairs:
        above[head(source)] = head(target)
    families: dict[str, list[Pair]] = {}
    for pair in pairs:
        families.setdefault(head(pair[0]), []).append(pair)
    return list(families.values())


# --- tokens and batches --------------------------------------------------------------------------


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Word pieces by byte-pair encoding: what stands together most often becomes one token, again and again.

    A space becomes "▁" and stays with the word after it ("Metaspace", the way of SentencePiece), for tokens
    that can be read: "▁fünf" and "你" are "ĠfÃ¼nf" and "ä½ł" where pieces are made of bytes. A text gets one
    more space in front, so that its first word is spelt like any other; decoding takes it away. What comes
    back has all its spaces and capitals; only "▁" itself becomes a space, and characters that were in no text
    are lost. Punctuation stands alone. The same texts, in any order, give the same tokens: ids decide between
    equals.

    Args:
        texts: sentences, of both languages where these share a vocabulary.
        vocab_size: tokens V, among them ``SPECIAL``, with ids 0 to 3. There will be fewer if nothing is left
            to be joined.

    Raises:
        ValueError: no text, or a vocabulary that cannot hold the characters.

    >>> tokenizer = train_tokenizer(["one", "twenty one", "twenty two", "two"], 30)
    >>> encoding = tokenizer.encode("one twenty")
    >>> encoding.tokens, tokenizer.decode(encoding.ids)
    (['▁one', '▁twenty'], 'one twenty')
    """
    tokenizer = _spelt(models.BPE(unk_token=SPECIAL[UNK_ID]), pre_tokenizers.Punctuation())
    texts = list(texts)
    characters = {character for text in texts for character in tokenizer.normalizer.normalize_str(text)}
    if not characters:
        raise ValueError("there is no text to make a vocabulary of: the corpus is empty")
    if vocab_size < (least := len(SPECIAL) + len(characters)):
        raise ValueError(
            f"vocab_size must be {least} or more, for {len(SPECIAL)} special tokens and the {len(characters)}"
            f" different characters of the texts, got {vocab_size}"
        )
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def word_tokenizer(texts: Iterable[str], *, parts: str | None = None) -> Tokenizer:
    """Whole words as tokens, for texts of few different words. Spaces are kept as by ``train_tokenizer``.

    Args:
        texts: of both languages; a word that is in none of them becomes ``<unk>``.
        parts: a regular expression. Where it matches, in the middle of a word too, stands a token of its own:
            so a language that writes a number in one word can be cut where the number has its joints.

    Raises:
        ValueError: no text.

    >>> tokenizer = word_tokenizer(["forty two", "zweiundvierzig"], parts=NUMBER_PARTS)
    >>> tokenizer.encode("zweiundvierzig").tokens
    ['▁zwei', 'und', 'vier', 'zig']
    """
    tokenizer = _spelt(
        models.WordLevel(unk_token=SPECIAL[UNK_ID]),
        *([] if parts is None else [pre_tokenizers.Split(Regex(parts), "isolated")]),
    )
    texts = list(texts)
    if not any(text.strip() for text in texts):
        raise ValueError("there is no text to make a vocabulary of: the corpus is empty")
    trainer = trainers.WordLevelTrainer(special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _spelt(model: models.Model, *cuts: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """A tokenizer whose tokens begin with "▁" where a word begins; decoding gives back the text as it was."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="never"), *cuts]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.encode_special_tokens = True  # "<eos>" in a text is five characters, and ends nothing
    return tokenizer


def batches_by_length(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    max_tokens: int,
    vocab_size: int,
    generator: torch.Generator,
) -> list[Batch]:
    """One epoch: every pair once, pairs of like length together, the batches in random order.

    Args:
        pairs: token ids of source and target, without special tokens.
        max_tokens: the most places in a batch, B (S + T), padding and special tokens among them.
        vocab_size: tokens V of the vocabulary, for the check of the ids.
        generator: on the CPU; chooses among pairs of one length, and the order.

    Returns:
        Batches of sources (B, S) and targets (B, T), on the CPU. Targets begin with ``BOS_ID`` and end with
        ``EOS_ID``; what is short is filled up with ``PAD_ID``.

    Raises:
        ValueError: no pair, a pair with an empty side or more than ``max_tokens``, or an id that is no word
            piece's.

    >>> pairs = [([5, 6], [7]), ([8], [9, 10])]
    >>> [(source, target)] = batches_by_length(
    ...     pairs, max_tokens=12, vocab_size=11, generator=torch.Generator().manual_seed(0))
    >>> source.tolist(), target.tolist()
    ([[8, 0], [5, 6]], [[1, 9, 10, 2], [1, 7, 2, 0]])
    """
    if not pairs:
        raise ValueError("there is no pair to make a batch of: the list is empty")
    lengths = [_checked_lengths(i, pair, max_tokens, vocab_size) for i, pair in enumerate(pairs)]

    def serpentine(i: int) -> tuple[int, int]:
        s, t = lengths[i]  # with each next s, t runs the other way: neighbours are alike throughout
        return s, t if s % 2 else -t

    order = sorted(torch.randperm(len(pairs), generator=generator).tolist(), key=serpentine)
    groups: list[list[int]] = []
    longest = (0, 0)
    for i in order:
        longest = tuple(map(max, longest, lengths[i]))
        if not groups or (len(groups[-1]) + 1) * sum(longest) > max_tokens:
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    return [
        _batch([pairs[i] for i in groups[g]])
        for g in torch.randperm(len(groups), generator=generator).tolist()
    ]


def epochs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, *, max_tokens: int, longest: int | None = None
) -> Callable[[torch.Generator], list[Batch]]:
    """What a ``loop.Trainer`` asks for: from a source of chance, the ``batches_by_length`` of one epoch.

    Args:
        pairs: texts; those with an empty side, or with one of more than ``longest`` tokens, are left out.
        tokenizer: of ``train_tokenizer``; it reads all texts once, now.
        max_tokens: as for ``batches_by_length``.

    Raises:
        ValueError: no pair is left.
    """
    ids = _ids(pairs, tokenizer, longest=max_tokens if longest is None else longest)
    size = tokenizer.get_vocab_size()
    return lambda generator: batches_by_length(
        ids, max_tokens=max_tokens, vocab_size=size, generator=generator
    )


def mixed_epochs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, *, batch_size: int
) -> Callable[[torch.Generator], list[Batch]]:
    """The same with ``batch_size`` pairs of any length in a batch: more padding, but all batches are alike.

    What is left over at the end of an epoch is dropped.

    Raises:
        ValueError: fewer pairs than a batch takes.
    """
    ids = _ids(pairs, tokenizer, longest=None)
    if len(ids) < batch_size:
        raise ValueError(f"a batch takes batch_size={batch_size} pairs, got {len(ids)}")

    def batches(generator: torch.Generator) -> list[Batch]:
        order = torch.randperm(len(ids), generator=generator).tolist()
        starts = range(0, len(order) - batch_size + 1, batch_size)
        return [_batch([ids[i] for i in order[start : start + batch_size]]) for start in starts]

    return batches


def _ids(
    pairs: Sequence[Pair], tokenizer: Tokenizer, longest: int | None
) -> list[tuple[list[int], list[int]]]:
    sides = [[found.ids for found in tokenizer.encode_batch(list(side))] for side in zip(*pairs, strict=True)]
    most = longest or max((len(ids) for side in sides for ids in side), default=0)
    kept = [pair for pair in zip(*sides, strict=True) if all(0 < len(side) <= most for side in pair)]
    if not kept:
        raise ValueError(f"of {len(pairs)} pairs none has two sides of 1 to {most} tokens")
    return kept


def _checked_lengths(
    i: int, pair: tuple[Sequence[int], Sequence[int]], max_tokens: int, vocab_size: int
) -> tuple[int, int]:
    """Tokens S of the source and T of the target, with its two special tokens."""
    source, target = pair
    if not source or not target:
        raise ValueError(f"pair {i} has an empty side: drop it")
    strange = [token for token in (*source, *target) if not UNK_ID <= token < vocab_size]
    if strange:
        raise ValueError(
            f"the ids of pair {i} must lie in {UNK_ID} to {vocab_size - 1}, got {strange[0]} (<pad>, <bos>"
            f" and <eos> are added here)"
        )
    s, t = len(source), len(target) + 2
    if s + t > max_tokens:
        raise ValueError(
            f"pair {i} has {s} + {t} tokens, <bos> and <eos> among them: drop it, or raise"
            f" max_tokens={max_tokens}"
        )
    return s, t


def _batch(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Batch:
    return _padded([pair[0] for pair in pairs]), _padded([[BOS_ID, *pair[1], EOS_ID] for pair in pairs])


def _padded(rows: list[Sequence[int]]) -> Int[Tensor, "B N"]:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD_ID)
