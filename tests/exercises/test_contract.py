"""What holds for every exercise of every chapter: stubs, solutions, other right answers, slips."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.exercises.chapters import (
    ALL,
    MEASURED,
    MODULES,
    PREDICTED,
    SLIPS,
    WRITTEN,
    answer_of,
    each,
    name,
    notes,
)
from transformer_lab.exercises.check import source
from transformer_lab.exercises.check.compare import Answer, gradients, plainly
from transformer_lab.exercises.check.written import right, slipped, slipped_gradients


def run_cell(text, ex):
    """What a notebook cell that holds ``text`` shows: the value of its last line."""
    names = {"torch": torch, "nn": nn, "F": F, "ex": ex}
    *body, last = text.rstrip().splitlines()
    exec("\n".join(body), names)
    return eval(last, names)


@pytest.mark.parametrize("stem", MODULES)
def test_a_chapter_offers_its_exercises_and_no_slips(stem):
    exercises = MODULES[stem].chapter.exercises
    assert MODULES[stem].chapter.stem == stem and {e.chapter for e in exercises.values()} == {stem}
    assert dir(MODULES[stem]) == sorted(exercises)


@each(ALL)
def test_the_untouched_cell_is_not_attempted_and_writes_nothing(exercise, progress_file):
    result = run_cell(exercise.cell(), MODULES[exercise.chapter])
    assert result.status == "not attempted" and not result
    assert not progress_file.exists()


@each(ALL)
def test_the_solution_passes_and_is_noted(exercise, progress_file):
    result = exercise.check(answer_of(exercise))
    assert result, result
    assert f'"{exercise.chapter}.{exercise.name}"' in progress_file.read_text()


@each(ALL)
def test_the_solution_that_is_shown_is_the_one_that_passes(exercise):
    names = {"torch": torch, "nn": nn}
    exec(source(exercise.solve), names)
    answer = names[exercise.name]
    assert exercise.check(answer if exercise in WRITTEN else answer())
    assert source(exercise.solve) in exercise.solution().blocks[0].source
    assert source(exercise.solve).splitlines()[0] in repr(exercise.solution())


@each(WRITTEN)
def test_the_solution_is_explained(exercise):
    """By a docstring, which the stub keeps, and by comments, which it does not."""
    assert '"""' in exercise.stub
    assert len(source(exercise.solve).split("# ")) > len(exercise.stub.split("# "))


@each(ALL)
def test_hints_climb_and_then_run_out(exercise):
    exercise._rung = 0
    assert len(exercise.hints) >= 3
    shown = [repr(exercise.hint()) for _ in exercise.hints]
    assert len(set(shown)) == len(shown) and shown[0].startswith(f"Hint 1 of {len(shown)}")
    for _ in range(2):
        shown = repr(exercise.hint())
        assert "No more hints" in shown and f"`ex.{exercise.name}.solution()`" in shown


@each(ALL)
def test_the_result_is_the_same_on_every_run(exercise):
    for answer in [s.answer for s in exercise.slips] if exercise in WRITTEN else [exercise.solve()]:
        first, second = exercise.check(answer), exercise.check(answer)
        assert repr(first) == repr(second) and first._repr_html_() == second._repr_html_()


@each(ALL)
def test_the_text_survives_a_terminal_without_unicode(exercise):
    repr(exercise.check(None)).encode("ascii")


# --- right answers in other words ----------------------------------------------------------------------


OTHERS = [
    pytest.param(exercise, answer, id=f"{name(exercise)}-{number}")
    for exercise in WRITTEN
    for number, answer in enumerate(notes(exercise).RIGHT[exercise.name])
]


@pytest.mark.parametrize(
    "around", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda a: a.__name__
)
@pytest.mark.parametrize(("exercise", "answer"), OTHERS)
def test_other_right_answers_pass_whatever_the_cell_says_about_gradients(exercise, answer, around):
    with around():
        result = exercise.check(answer)
    assert result, result


@each(WRITTEN)
def test_every_written_exercise_has_two_other_right_answers_and_meets_both_precisions(exercise):
    assert len(notes(exercise).RIGHT[exercise.name]) >= 2
    assert {case.dtype for case in exercise.cases()} == {torch.float32, torch.float64}


@each([e for e in WRITTEN if e.gradient])
def test_the_solution_s_gradient_is_that_of_the_numpy_reference(exercise):
    """The check takes gradients from the solution; here they meet finite differences of the reference."""
    case = exercise.case(np.random.default_rng(1), exercise.sizes[1], torch.float64)
    mix = np.random.default_rng(0).standard_normal(case.want.shape)
    for key, gradient in gradients(exercise.function(exercise.solve), case).items():
        for spot in list(np.ndindex(gradient.shape))[:: max(1, gradient.size // 8)]:
            step = np.zeros(gradient.shape)
            step[spot] = 1e-6
            up, down = (
                exercise.reference(**{**case.inputs, key: case.inputs[key] + sign * step}) for sign in (1, -1)
            )
            assert abs(((up - down) * mix).sum() / 2e-6 - gradient[spot]) < 1e-6


# --- slips ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exercise", "slip"), SLIPS)
def test_each_slip_gets_its_own_sentence(exercise, slip):
    result = exercise.check(slip.answer)
    assert result.status == "not yet" and result.message == slip.sentence


@each(WRITTEN)
def test_no_two_slips_give_the_same_answers(exercise):
    assert len(exercise.slips) >= 4
    assert len({slip.sentence for slip in exercise.slips}) == len(exercise.slips)
    cases = exercise.cases() + exercise.probe_cases()
    for one, other in itertools.permutations(exercise.slips, 2):
        answers = [
            Answer(other.function(*case.tensors()).detach().double().numpy(), plainly(case.dtype))
            for case in cases
        ]
        alike = all(slipped(one, case, answer) for case, answer in zip(cases, answers, strict=True))
        if alike and right(one, cases[1]):  # then only gradients tell
            alike = slipped_gradients(one, cases[1:2], [gradients(other.function, cases[1])])
        assert not alike, (one.sentence, other.sentence)


@each(WRITTEN)
def test_every_slip_runs_on_every_input(exercise):
    for slip, case in itertools.product(exercise.slips, exercise.cases() + exercise.probe_cases()):
        assert isinstance(slip.function(*case.tensors()), torch.Tensor)


@each(WRITTEN)
def test_every_crash_is_explained_before_it_is_quoted(exercise):
    for crash in exercise.crashes:
        message = exercise.check(crash.answer).message
        assert message.startswith(f"{crash.sentence} Your code raised"), message


# --- predictions and measurements ----------------------------------------------------------------------


@each(PREDICTED)
def test_each_wrong_prediction_has_its_own_sentence(exercise):
    sentences = [exercise.check(value).message for value in exercise.wrong]
    assert sentences == list(exercise.wrong.values()) and len(set(sentences)) == len(sentences) >= 3
    assert not any(exercise.check(value) for value in exercise.wrong)


@each(PREDICTED)
def test_the_expected_prediction_is_what_the_code_gives(exercise):
    assert exercise.solve() == exercise.expected


@each([e for e in PREDICTED if e.choices])
def test_every_choice_has_its_answer(exercise):
    assert exercise.choices.keys() == {exercise.expected, *exercise.wrong}
    for letter, text in exercise.choices.items():
        assert f"- **{letter}**: {text}" in exercise.statement


@each(MEASURED)
def test_no_two_ranges_of_a_measurement_overlap(exercise):
    boxes = [tuple(exercise.ranges.values()), *exercise.slips.values()]
    for one, other in itertools.combinations(boxes, 2):
        assert any(a[1] < b[0] or b[1] < a[0] for a, b in zip(one, other, strict=True)), (one, other)


@each(MEASURED)
def test_each_range_of_a_measurement_has_its_own_sentence(exercise):
    assert len(exercise.slips) >= 4
    for sentence, ranges in exercise.slips.items():
        middle = tuple((low + high) / 2 for low, high in ranges)
        assert exercise.check(middle).message == sentence
