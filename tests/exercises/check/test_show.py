"""Results in a terminal and in a notebook: short, and harmless whatever the learner's code says."""

import numpy as np

from transformer_lab.exercises import attention as ex
from transformer_lab.exercises.check.show import Code, Picture, Result, Shown

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> `<b>code</b>`"


def test_text_wraps_and_html_marks_code():
    shown = Shown("Hint 1 of 3", ("Use `q @ k` here. " * 10,))
    assert all(len(line) <= 88 for line in repr(shown).splitlines())
    assert "<code>q @ k</code>" in shown._repr_html_() and "`" not in shown._repr_html_()


def test_html_holds_no_markup_that_is_not_ours():
    picture = Picture(np.ones((1, 1)), np.zeros((1, 1)), np.array([[True]]), (0, 0), ("T", EVIL))
    html = Result(EVIL, (EVIL, Code(EVIL), picture), status="not yet")._repr_html_()
    assert "<script" not in html and "<img" not in html and "<b>" not in html


def test_a_learner_s_message_cannot_inject_markup():
    def answer(weights, values):
        print(EVIL)
        raise ValueError(EVIL)

    html = ex.weighted_average.check(answer)._repr_html_()
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html


def test_the_picture_marks_what_differs():
    want = np.array([[1.0, 2.0], [3.0, 4.0]])
    got = np.array([[1.0, 2.5], [3.0, np.nan]])
    picture = Picture(want, got, want != got, (0, 3), ("T", "Dh"))
    assert picture.text().splitlines() == [
        "            expected             given (* differs)",
        "    T \\ Dh        3        4           3        4",
        "         0    1.000    2.000       1.000    2.500*",
        "         1    3.000    4.000       3.000      nan*",
    ]
    assert "<strong>2.500*</strong>" in picture.html() and "<strong>1.000" not in picture.html()


def test_a_large_matrix_is_shown_around_the_first_difference():
    want = np.arange(2 * 20 * 9.0).reshape(2, 20, 9)
    got = want.copy()
    got[1, 12, 7] = 0
    picture = Picture.around((1, 12, 7), want, got, want != got, ["B", "T", "D"])
    assert picture.corner == (11, 5) and picture.axes == ("T", "D")
    assert picture.expected.shape == (6, 4) and picture.expected[1, 2] == want[1, 12, 7]
    assert picture.wrong.sum() == 1 and picture.wrong[1, 2]
    assert all(len(line) <= 88 for line in picture.text().splitlines())
    corner = Picture.around((0, 19, 8), want, got, want != got, ["B", "T", "D"])
    assert corner.corner == (14, 5) and corner.expected[-1, -1] == want[0, 19, 8]


def test_what_is_starred_looks_different():
    want = np.array([[0.22701, 2.0, 3.0, 4.0]])
    got = want + np.array([3e-6, 0, 0, 0])
    picture = Picture.around((0, 0), want, got, want != got, "TD")
    assert "0.227010 " in picture.text() and "0.227013*" in picture.text()
    assert "<strong>0.227013*</strong>" in picture.html() and "0.227010<" in picture.html()
    assert all(len(line) <= 88 for line in picture.text().splitlines())
    assert picture._labels(1) == ["0", "1", "2 ..."]  # longer numbers, fewer columns


def test_the_one_number_that_differs_is_shown_however_long_it_is():
    want = np.array([[1.0, 2.0, 1e9]])
    picture = Picture.around((0, 2), want, want + 1e-4, np.array([[False, False, True]]), "TD")
    starred = [word for word in picture.text().split() if word.endswith("*") and word[0] == "1"]
    assert starred == ["1.0000000000001e+09*"]


def test_dots_stand_for_rows_and_columns_that_are_left_out():
    want = np.zeros((20, 9))
    labels = [Picture.around(spot, want, want, want > 0, "TD") for spot in [(0, 0), (12, 4), (19, 8)]]
    assert [picture._labels(1) for picture in labels] == [
        ["0", "1", "2", "3 ..."],
        ["... 3", "4", "5", "6 ..."],
        ["... 5", "6", "7", "8"],
    ]
    assert labels[0]._labels(0)[-1] == "5 ..." and labels[1]._labels(0)[0] == "... 11"
    assert "<th>... 3</th>" in labels[1].html() and " ... 3 " in labels[1].text()


def test_a_result_is_true_only_when_passed():
    for status, expected in (("passed", True), ("not yet", False), ("not attempted", False)):
        assert bool(Result("", status=status)) is expected


def test_an_exercise_says_what_it_is():
    assert repr(ex.into_heads) == (
        "Exercise `into_heads` (implement): Split into heads. Methods: check, hint, solution."
    )
