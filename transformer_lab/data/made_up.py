"""Text without end: small stories by rule, the same on every machine, for the book's character models.

A reader who knows the rules can say how well a model may do: who lives where is fixed (to be remembered),
sums are true (to be learned), and each story keeps its people, so that what was read helps with what comes
(to be looked up).
"""

import random
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz,."
PEOPLE = tuple(
    "ada bela carl dora emil fina gus hana ivo jana kurt lena milo nora otto pia ralf sina timo ulla".split()
)
TOWNS = ("arden", "birk", "corve", "dunmar", "elsk")
TRADES = ("baker", "smith", "tailor", "miller")
ANIMALS = ("goat", "horse", "cat", "dog", "hen")
GOODS = ("apples", "loaves", "nails", "shirts", "eggs", "pots")
NUMBERS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen".split()
)


def home(person: str) -> str:
    """The town where a person of the stories lives, always the same; raises ValueError for others.

    >>> home("ada"), trade("ada"), animal("ada")
    ('arden', 'baker', 'goat')
    """
    return TOWNS[3 * _number(person) % len(TOWNS)]


def trade(person: str) -> str:
    """What a person of the stories does for a living, always the same."""
    return TRADES[7 * _number(person) // 3 % len(TRADES)]


def animal(person: str) -> str:
    """The animal that a person of the stories keeps, always the same."""
    return ANIMALS[_number(person) // 2 % len(ANIMALS)]


def _number(person: str) -> int:
    if person not in PEOPLE:
        raise ValueError(f"nobody in the stories is called {person!r}; there are {', '.join(PEOPLE)}")
    return PEOPLE.index(person)


def stories(n_characters: int, *, seed: int = 0) -> str:
    """So many characters of stories, one after the other, in the letters of ``ALPHABET``.

    Raises:
        ValueError: a negative number of characters.

    >>> stories(60)[-2:] in stories(1000)
    True
    """
    if n_characters < 0:
        raise ValueError(f"cannot write {n_characters} characters")
    draw = Draw(seed)
    parts, length = [], 0
    while length < n_characters:
        parts.append(_story(draw))
        length += len(parts[-1])
    return "".join(parts)[:n_characters]


class Draw(random.Random):
    """Of what ``random`` offers, only ``random()`` itself gives the same in every version of Python."""

    def among(self, options: Sequence) -> object:
        return options[int(self.random() * len(options))]

    def shuffled(self, options: Iterable) -> list:
        return sorted(options, key=lambda _: self.random())


def _story(draw: Draw) -> str:
    a = draw.among(PEOPLE)
    b = draw.among(tuple(person for person in PEOPLE if person != a))
    sentences = [f"{a} the {trade(a)} lives in {home(a)} with a {animal(a)}."]
    for _ in range(draw.among((3, 4, 5, 6))):
        sentences.append(draw.among((_walk, _sum, _animal, _says, _market))(draw, a, b))
    return " ".join(sentences) + "\n"


def _walk(draw: Draw, a: str, b: str) -> str:
    return f"{a} walks to {home(b)} and meets {b} the {trade(b)}."


def _sum(draw: Draw, a: str, b: str) -> str:
    one, other = draw.among(range(1, 10)), draw.among(range(1, 10))
    goods = draw.among(GOODS)
    return (
        f"{a} has {NUMBERS[one]} {goods}, {b} has {NUMBERS[other]}, that is {NUMBERS[one + other]} {goods}."
    )


def _animal(draw: Draw, a: str, b: str) -> str:
    return f"the {animal(b)} of {b} runs after the {animal(a)} of {a}."


def _says(draw: Draw, a: str, b: str) -> str:
    words = " ".join(draw.among(GOODS + ANIMALS + TOWNS) for _ in range(draw.among((2, 3, 4))))
    return f"{a} says {words}, and {b} says {words} too."


def _market(draw: Draw, a: str, b: str) -> str:
    return f"in {draw.among(TOWNS)} {b} sells {draw.among(NUMBERS[2:])} {draw.among(GOODS)} to {a}."


def encode_text(text: str) -> Int[Tensor, "N"]:
    """Each character as its place in ``ALPHABET``.

    Raises:
        ValueError: a character that is not in it.

    >>> encode_text("a.").tolist()
    [2, 29]
    """
    strange = sorted(set(text) - set(ALPHABET))
    if strange:
        raise ValueError(f"the alphabet has no {strange[0]!r}; it is {ALPHABET!r}")
    return torch.tensor([ALPHABET.index(character) for character in text], dtype=torch.long)


def decode_text(ids: Int[Tensor, "N"]) -> str:
    """The characters of such numbers again.

    >>> decode_text(encode_text("ada lives."))
    'ada lives.'
    """
    return "".join(ALPHABET[i] for i in ids.tolist())
