import pytest
import torch

from transformer_lab.models.number_reader import MAX_LEN, NumberReader, tokenize
from transformer_lab.training.number_reader import (
    encode,
    exact_match,
    number_words,
    sample_numbers,
    split,
    train_number_reader,
)


def test_every_number_below_a_million_fits():
    """All shapes of number: the longest has eleven words."""
    hardest = [777_777, 999_999, 373_373, 0, 1, 10, 100, 1000, 100_000, 999_000]
    assert max(len(tokenize(number_words(n))) for n in hardest) == MAX_LEN
    assert len({number_words(n) for n in range(2000)}) == 2000


def test_digits_spell_the_number():
    numbers = [0, 42, 900_017]
    digits = encode(numbers)[1]
    assert [int("".join(map(str, row))) for row in digits.tolist()] == numbers


def test_samples_are_seeded_and_of_every_length():
    draw = [sample_numbers(3000, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    lengths = torch.tensor([len(str(n)) for n in draw[0]]).bincount()[1:]
    assert len(lengths) == 6 and (lengths > 250).all()
    zeros = sum(str(n).count("0") for n in draw[0]) / sum(len(str(n)) for n in draw[0])
    assert 0.2 < zeros < 0.35  # plain uniform digits would have 0.09


def test_no_test_number_was_trained_on():
    train, test = split(3000, 500)
    assert len(train) == 3000 and len(set(test)) == 500 and not set(train) & set(test)


def test_training_learns_and_is_repeatable():
    numbers = list(range(20))
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = NumberReader(d_model=16)
        before = exact_match(model, numbers)
        runs.append(train_number_reader(model, numbers, steps=120, batch_size=20, lr=2e-2, seed=seed))
        assert before < 0.2 and exact_match(model, numbers) > 0.9
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: number_words(-1), "0 to 999999, got -1"),
        (lambda: number_words(1_000_000), "0 to 999999, got 1000000"),
        (lambda: sample_numbers(-2, torch.Generator()), "cannot draw -2 numbers"),
        (lambda: encode([]), "the list is empty"),
        (lambda: encode([5, 10**7]), "got 10000000"),
        (lambda: split(200_000, 90_000), "asked for 90000 test numbers, but only"),
        (lambda: train_number_reader(NumberReader(), [1], steps=0), "got 0 and 256"),
        (lambda: train_number_reader(NumberReader(), [1], batch_size=0), "got 1200 and 0"),
        (lambda: train_number_reader(NumberReader(), []), "the list is empty"),
        (lambda: exact_match(NumberReader(), []), "the list is empty"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
