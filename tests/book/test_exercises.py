"""Exercises in the page: each has its box, ticks stay, and predictions are told what Python tells them."""

import importlib
import json
import pickle
import re
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup

from book._ext import exercises as extension
from tests.exercises.chapters import MODULES, PREDICTED
from transformer_lab.exercises.check import source

from .accessibility import rules_of, violations
from .conftest import ROOT

pytestmark = pytest.mark.browser
HOW_TO = "book/exercises.html"
KEY = "transformer-lab.exercises"
CHAPTERS = pytest.mark.parametrize("stem", MODULES)
EACH_PREDICTION = pytest.mark.parametrize("exercise", PREDICTED, ids=extension.key)


def page_of(exercise):
    return f"book/{exercise.chapter}.html"


def plain(element):
    """Its text, white space as a reader sees it."""
    return " ".join(element.get_text().split())


# What the file says


@CHAPTERS
def test_every_exercise_has_its_box_with_hints_stub_and_solution(stem, book):
    soup = BeautifulSoup((book / "book" / f"{stem}.html").read_text("utf8"), "html.parser")
    boxes = soup.select("section.exercise")
    exercises = list(MODULES[stem].chapter.exercises.values())
    assert [box.h3.contents[0] for box in boxes] == [
        f"Exercise {n} · {e.title}" for n, e in enumerate(exercises, 1)
    ]
    for box, exercise in zip(boxes, exercises, strict=True):
        *hints, solution = box.find_all("details")
        assert [h.summary.text for h in hints] == [f"Hint {n}" for n in range(1, len(exercise.hints) + 1)]
        assert solution.summary.text == "Solution" and solution.pre.text.strip() == source(exercise.solve)
        assert solution.select("pre .k, pre .kn, pre .nf")  # with the colours of code
        assert box.select_one(".cell_input pre").text.strip() == exercise.cell()
        assert not box.select(".cell_output") and "Not attempted" not in box.text
        tick = box.select_one("label.tick input")
        assert tick["data-exercise"] == f"{stem}.{exercise.name}" and exercise.title in tick["aria-label"]
        assert bool(box.select("form.prediction")) == (exercise.kind == "predict")


def test_the_how_to_page_shows_what_the_check_really_says(book):
    soup = BeautifulSoup((book / HOW_TO).read_text("utf8"), "html.parser")
    text = (ROOT / "book" / "exercises.md").read_text("utf8")
    shown = re.findall(r"```\{check-says\} (\w+) (\w+)\n(.*?)```", text, re.DOTALL)
    outputs = soup.select(".output.text_html")
    assert len(outputs) == len(shown) >= 2
    for (stem, name, code), output in zip(shown, outputs, strict=True):
        names = {"torch": importlib.import_module("torch")}
        exec(code, names)
        result = MODULES[stem].chapter.exercises[name].judge(names[name])
        assert result.status == "not yet" and plain(output) == plain(
            BeautifulSoup(result._repr_html_(), "html.parser")
        )


def test_an_edited_exercise_is_a_reason_to_build_its_pages_again(book):
    env = pickle.loads((book.parent / ".doctrees" / "environment.pickle").read_bytes())
    for stem in MODULES:
        for page in (f"book/{stem}", "book/exercises"):
            noted = {str(path) for path in env.dependencies[page]}
            assert {str(extension.FOLDER / name) for name in (f"{stem}.py", "check/exercise.py")} <= noted


@pytest.mark.parametrize(
    "old", ["into_heads", "a tuple of four", "x, w_q", "Exercise 2", "Do one row by hand"]
)
def test_a_chapter_that_is_behind_the_package_stops_the_build(old, tmp_path):
    app = SimpleNamespace(srcdir=tmp_path)
    (tmp_path / "book").mkdir()
    text = (ROOT / "book" / "attention.ipynb").read_text("utf8")
    copy = tmp_path / "book" / "attention.ipynb"
    copy.write_text(text, "utf8")
    extension.check(app)
    copy.write_text(text.replace(old, "other"), "utf8")
    with pytest.raises(SystemExit, match=r"run python tools/exercises\.py book/attention\.ipynb, then"):
        extension.check(app)


# Ticks


def ticks(page):
    """The names of the ticked exercises."""
    return [box.get_attribute("data-exercise") for box in page.locator(".tick input:checked").all()]


def count(page):
    return page.locator(".ticks span").first.text_content().strip()


def notice(page):
    """What the page says of its storage, once however many counts it shows."""
    return page.locator(".notice").text_content()


def kept(page):
    return json.loads(page.evaluate(f"localStorage.getItem('{KEY}')"))


@CHAPTERS
def test_ticks_are_counted_kept_and_taken_back(stem, visit):
    page = visit().open(f"book/{stem}.html")
    of = len(MODULES[stem].chapter.exercises)
    assert count(page) == f"0 of {of} solved." and ticks(page) == [] and notice(page) == ""
    boxes = page.locator(".tick input")
    boxes.nth(1).check()
    boxes.last.press("Space")
    wanted = [boxes.nth(1).get_attribute("data-exercise"), boxes.last.get_attribute("data-exercise")]
    for _ in range(2):
        assert ticks(page) == wanted and count(page) == f"2 of {of} solved."
        assert page.locator(".ticks progress").evaluate("(p) => p.value") == 2
        assert page.locator("section.solved").count() == 2
        assert kept(page)["solved"].keys() == set(wanted)
        page.reload()
    boxes.last.uncheck()
    assert ticks(page) == wanted[:1] and kept(page)["solved"].keys() == set(wanted[:1])


def test_another_tab_sees_them_at_once(visit):
    visitor = visit()
    page = visitor.open("book/attention.html")
    other = page.context.new_page()
    other.goto(f"{visitor.address}/{HOW_TO}")
    page.locator(".tick input").first.check()
    row = f"tr:has(a:text-is('{MODULES['attention'].chapter.title}'))"
    other.locator(f".overview {row}").get_by_text(re.compile("^1 of")).wait_for()
    other.evaluate("localStorage.clear()")
    page.wait_for_function("() => document.querySelectorAll('.tick input:checked').length === 0")


@pytest.mark.parametrize(
    "text", ["{", "null", "[]", '{"version": 2, "solved": {}}', '{"version": 1, "solved": [1]}']
)
def test_what_cannot_be_read_is_put_aside_and_said_so(text, visit):
    page = visit().open("book/attention.html")
    page.evaluate("([key, text]) => localStorage.setItem(key, text)", [KEY, text])
    page.reload()
    assert notice(page) == "Ticks that could not be read were put aside."
    aside = page.evaluate("Object.keys(localStorage).filter((key) => key.includes('.aside-'))")
    assert [page.evaluate("(key) => localStorage.getItem(key)", key) for key in aside] == [text]
    page.reload()
    assert notice(page) == "" and page.evaluate("localStorage.length") == 1
    page.locator(".tick input").first.check()
    page.reload()
    assert count(page).startswith("1 of") and notice(page) == ""


@pytest.mark.parametrize("refused", ["getItem", "setItem"])
def test_without_storage_ticks_last_as_long_as_the_page(refused, visit):
    visitor = visit()
    visitor.page.add_init_script(f"Storage.prototype.{refused} = () => {{ throw new DOMException('no'); }};")
    page = visitor.open("book/attention.html")
    page.locator(".tick input").first.check()
    assert len(ticks(page)) == 1 and count(page).startswith("1 of")
    assert notice(page) == "This browser keeps no ticks: they are gone when you leave the page."
    page.reload()
    assert ticks(page) == []
    visitor.open(HOW_TO)
    assert (notice(page) != "") is (refused == "getItem")  # who only looks writes nothing


def test_the_how_to_page_counts_the_whole_book_and_can_forget(visit):
    page = visit().open("book/attention.html")
    page.locator(".tick input").first.check()
    page.goto(page.url.replace("attention", "exercises"))
    rows = page.locator(".overview tr")
    assert rows.count() == len(MODULES)
    link = rows.filter(has=page.get_by_role("link", name=MODULES["attention"].chapter.title, exact=True))
    assert "1 of" in link.text_content()
    page.get_by_role("button", name="Forget my ticks").press("Enter")
    page.get_by_text("Really?").click(position={"x": 5, "y": 5})  # beside the buttons
    page.get_by_role("button", name="Keep them").press("Enter")
    assert kept(page)["solved"] and page.get_by_role("button", name="Forget my ticks").is_visible()
    page.get_by_role("button", name="Forget my ticks").click()
    assert page.evaluate("document.activeElement.textContent") == "Keep them"  # the harmless one
    page.get_by_role("button", name="Forget them").click()
    assert kept(page)["solved"] == {} and "0 of" in link.text_content()
    link.get_by_role("link").click()
    assert page.url.endswith("attention.html#exercises") and ticks(page) == []


# Predictions


def say(exercise, page, answer):
    """Give an answer as a reader does; returns the sentence that the page says to it."""
    form = page.locator(f'form[data-exercise="{extension.key(exercise)}"]')
    if exercise.choices:
        form.locator(f'[value="{answer}"]').check()
        form.get_by_role("button", name="Check").click()
    else:
        form.locator("input").fill(str(answer))
        form.locator("input").press("Enter")
    return " ".join(form.get_by_role("status").inner_text().split())


@EACH_PREDICTION
def test_every_wrong_prediction_is_told_what_python_tells_it(exercise, visit):
    page = visit().open(page_of(exercise))
    unheard_of = (9, 9, 9, 9) if isinstance(exercise.expected, tuple) else 7.91
    for answer in exercise.wrong if exercise.choices else [*exercise.wrong, unheard_of]:
        assert say(exercise, page, answer) == f"Not yet: {exercise.judge(answer).message.replace('`', '')}"
    assert ticks(page) == []


@EACH_PREDICTION
def test_the_right_prediction_passes_and_is_ticked(exercise, visit):
    page = visit(width=390).open(page_of(exercise))
    said = say(exercise, page, exercise.expected)
    told = " ".join(exercise.judge(exercise.expected).message.replace("`", "").split())
    assert said == f"Passed: {told}"
    assert ticks(page) == [extension.key(exercise)]


@EACH_PREDICTION
def test_what_is_no_prediction_is_told_the_form(exercise, visit):
    page = visit().open(page_of(exercise))
    form = page.locator(f'form[data-exercise="{extension.key(exercise)}"]')
    if exercise.choices:
        form.get_by_role("button", name="Check").click()
        assert form.get_by_role("status").inner_text().endswith(f"should be {exercise.form}.")
        return
    for text in (
        "",
        "abc",
        "(2,,3)",
        "1 2",
        "None",
        "1e",
        "()",
        "120" if isinstance(exercise.expected, tuple) else ",",
    ):
        assert say(exercise, page, text) == f"Not yet: Your prediction should be {exercise.form}."


@pytest.mark.parametrize(
    ("name", "answer", "passes"),
    [
        ("score_shape", "2,4,3,5", True),
        ("score_shape", " [2, 4, 3, 5] ", True),
        ("score_shape", "(2, 4, 3, 5,)", True),
        ("score_shape", "(2, 4, 3, 6)", False),
        ("score_shape", "(2, 4, 3)", False),
        ("dot_product_spread", "8.0", True),
        ("dot_product_spread", "(8)", True),
        ("dot_product_spread", "8e0", True),
        ("dot_product_spread", "8.007", True),
        ("dot_product_spread", "8.009", False),
        ("dot_product_spread", "[8]", False),
        ("dot_product_spread", "0", False),
    ],
)
def test_numbers_and_shapes_are_read_as_python_reads_them(name, answer, passes, visit):
    exercise = MODULES["attention"].chapter.exercises[name]
    page = visit().open(page_of(exercise))
    said = say(exercise, page, answer)
    assert said.startswith("Passed" if passes else "Not yet")
    assert bool(exercise.judge(eval(answer.strip()))) is passes


@CHAPTERS
def test_without_a_script_nothing_dead_is_shown(stem, chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/book/{stem}.html")
    assert page.locator(".tick:visible, .ticks:visible, .prediction:visible").count() == 0
    assert page.locator(".exercise .cell:visible").count() == len(MODULES[stem].chapter.exercises)
    assert "need JavaScript" in page.locator("#exercises > p noscript:visible").inner_text()
    page.goto(f"{address}/{HOW_TO}")
    assert page.locator(".forget:visible, .ticks:visible").count() == 0
    assert "need JavaScript" in page.locator("noscript:visible").inner_text()
    context.close()


def test_hints_solution_tick_and_form_are_reached_by_keyboard(visit):
    page = visit().open("book/attention.html")
    box = page.locator("section.exercise-predict").first
    box.locator(".tick input").focus()
    seen = []
    for _ in range(8):
        seen.append(page.evaluate("document.activeElement.textContent || document.activeElement.type"))
        page.keyboard.press("Enter") if "Hint 1" in seen[-1] else None
        page.keyboard.press("Tab")
    assert seen[:7] == ["checkbox", "Hint 1", "Hint 2", "Hint 3", "text", "Check", "Solution"]
    assert box.locator("details").first.evaluate("(d) => d.open")


# Everyone, everywhere


@pytest.mark.parametrize("theme", ["light", "dark"])
@CHAPTERS
def test_axe_finds_nothing_when_all_is_opened_and_answered(stem, theme, visit):
    page = visit(width=390, theme=theme).open(f"book/{stem}.html")
    page.evaluate("document.querySelectorAll('.exercise details').forEach((d) => { d.open = true; })")
    predictions = [e for e in PREDICTED if e.chapter == stem]
    for turn, exercise in enumerate(predictions):
        say(exercise, page, exercise.expected if turn % 2 else next(iter(exercise.wrong)))
    assert violations(page, within=".exercise", rules=rules_of(theme)) == {}


@EACH_PREDICTION
def test_what_will_be_said_has_a_place_that_listens_before(exercise, visit):
    """A live region that appears together with its words is not read out."""
    form = visit().open(page_of(exercise)).locator(f'form[data-exercise="{extension.key(exercise)}"]')
    assert form.get_by_role("status").count() == 1 and form.get_by_role("status").inner_text() == ""


@pytest.mark.parametrize("width", [390, 900, 1280])
def test_no_title_runs_into_the_tick(width, visit):
    page = visit(width=width).open("book/attention.html")
    for words in range(2, 24):
        meet = page.locator(".exercise").first.evaluate(
            """(box, words) => {
              const title = box.querySelector("h3").firstChild;
              title.textContent = `Exercise 1 · ${"word ".repeat(words)}`;
              const range = document.createRange();
              range.selectNode(title);
              const tick = box.querySelector(".tick").getBoundingClientRect();
              return [...range.getClientRects()].some((line) =>
                line.right > tick.left && line.bottom > tick.top && line.top < tick.bottom);
            }""",
            words,
        )
        assert not meet, words


@pytest.mark.parametrize("width", [360, 1280])
def test_the_letters_of_choices_stand_in_one_line(width, visit):
    page = visit(width=width).open("book/attention.html")
    for radios in page.locator(".radios").all():
        tops = {round(label.bounding_box()["y"]) for label in radios.locator("label").all()}
        assert len(tops) == 1


def test_paper_shows_what_is_open_and_no_control(visit):
    page = visit().open("book/attention.html")
    page.locator(".exercise details").first.evaluate("(hint) => { hint.open = true; }")
    page.emulate_media(media="print")
    assert page.locator(".exercise details:visible").count() == 1
    assert page.locator(".tick:visible, .ticks:visible, .prediction:visible").count() == 0
