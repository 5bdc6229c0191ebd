"""Every exercise of every chapter, and what the chapter's own test file says of it.

A chapter's test file, ``test_STEM.py``, holds ``RIGHT``, other right answers to each exercise of code, and
``EQUIVALENT``, the mutants of its solution that pass, each with the reason.
"""

import importlib
import pkgutil

import pytest

from transformer_lab import exercises


def name(exercise):
    return f"{exercise.chapter}.{exercise.name}"


MODULES = {
    found.name: importlib.import_module(f"{exercises.__name__}.{found.name}")
    for found in pkgutil.iter_modules(exercises.__path__)
    if not found.ispkg
}
ALL = [exercise for module in MODULES.values() for exercise in module.chapter.exercises.values()]
WRITTEN = [e for e in ALL if e.kind in ("implement", "debug")]  # the learner hands in code
PREDICTED = [e for e in ALL if e.kind == "predict"]
MEASURED = [e for e in ALL if e.kind == "measure"]
SLIPS = [pytest.param(e, slip, id=f"{name(e)}-{slip.answer.__name__}") for e in WRITTEN for slip in e.slips]


def each(chosen):
    return pytest.mark.parametrize("exercise", chosen, ids=name)


def notes(exercise):
    """The chapter's test file."""
    return importlib.import_module(f"tests.exercises.test_{exercise.chapter}")


def answer_of(exercise):
    """What somebody hands in who has our solution."""
    return exercise.solve if exercise in WRITTEN else exercise.solve()
