"""Every solution, spoiled at one place at a time: all but a few explained mutants are refused."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from tests.exercises.chapters import WRITTEN, each, notes
from tests.exercises.mutants import changed_line, mutants

REFUSED = 0.98
pytestmark = pytest.mark.xdist_group("mutants")  # one worker, so that each exercise is spoiled once


@functools.cache
def tried(exercise):
    """How many mutants there are, and those that pass: the line that was changed, and the answer."""
    total, passed = 0, {}
    for text in mutants(exercise):
        names = {"torch": torch, "nn": nn}
        total += 1
        try:
            exec(text, names)
        except Exception:  # a class whose body no longer runs
            continue
        if exercise.check(names[exercise.name], seconds=5):
            passed[changed_line(exercise, text)] = names[exercise.name]
    return total, passed


@each(WRITTEN)
def test_every_mutant_is_refused_or_explained(exercise):
    total, passed = tried(exercise)
    assert total > 10
    assert sorted(passed) == sorted(notes(exercise).EQUIVALENT.get(exercise.name, {}))
    for answer in passed.values():  # they pass because they compute the same
        for case in exercise.cases():
            mine, ours = (exercise.function(a)(*case.tensors()).detach() for a in (answer, exercise.solve))
            assert np.allclose(mine.double(), ours.double(), rtol=1e-5, atol=1e-6)


def test_of_all_mutants_at_least_98_in_100_are_refused():
    totals, passed = zip(*map(tried, WRITTEN), strict=True)
    survivors = sum(map(len, passed))
    assert survivors / sum(totals) <= 1 - REFUSED, f"{survivors} of {sum(totals)} pass"
