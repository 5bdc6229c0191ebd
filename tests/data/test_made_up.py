import hashlib
import re

import pytest
import torch

from transformer_lab.data.made_up import (
    ALPHABET,
    ANIMALS,
    NUMBERS,
    PEOPLE,
    TOWNS,
    TRADES,
    animal,
    decode_text,
    encode_text,
    home,
    stories,
    trade,
)


def test_the_same_text_on_every_machine():
    text = stories(5000, seed=3)
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == "4df7f6b0aeef"
    assert stories(5000, seed=3) == text != stories(5000, seed=4)


@pytest.mark.parametrize("n", [0, 1, 999])
def test_as_many_characters_as_asked_for_and_no_others_than_the_alphabet_s(n):
    text = stories(n)
    assert len(text) == n and set(text) <= set(ALPHABET)
    assert stories(2000).startswith(text)


def test_what_the_stories_say_is_true():
    text = stories(60_000)
    for a, one, b, other, total in re.findall(
        r"(\w+) has (\w+) \w+, (\w+) has (\w+), that is (\w+) \w+\.", text
    ):
        assert a != b and NUMBERS.index(one) + NUMBERS.index(other) == NUMBERS.index(total)
    for person, work, town, beast in re.findall(r"(\w+) the (\w+) lives in (\w+) with a (\w+)\.", text):
        assert (work, town, beast) == (trade(person), home(person), animal(person))
    for one, other in re.findall(r"says ([\w ]+), and \w+ says ([\w ]+) too", text):
        assert one == other


def test_people_differ_in_what_is_to_be_remembered_of_them():
    for of, options in ((home, TOWNS), (trade, TRADES), (animal, ANIMALS)):
        known = [of(person) for person in PEOPLE]
        assert set(known) == set(options)
        assert max(map(known.count, options)) <= 8


def test_encoding_and_back():
    text = stories(500)
    assert decode_text(encode_text(text)) == text
    assert encode_text(ALPHABET).tolist() == list(range(len(ALPHABET)))
    assert encode_text("").dtype == torch.long


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: stories(-1), "cannot write -1 characters"),
        (lambda: encode_text("Ada"), "the alphabet has no 'A'"),
        (lambda: home("zeno"), "nobody in the stories is called 'zeno'"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
