"""The widget of the chapter on selective scans in a real browser."""

import re

import pytest
import torch

from transformer_lab.efficient.selective_scan import scan, zero_order_hold
from transformer_lab.widgets import SelectiveState

from .widget_page import handle, is_amiss

pytestmark = pytest.mark.browser
KEEPS = {"um": 0.0, "er": 0.0, "cat": 10.0, "dog": 0.7}


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


def left(page) -> dict[str, float]:
    """What the sentence says is left of the words and of the filler."""
    found = re.findall(r"of (?:“(\w+)”|the (filler)) (\d\.\d\d)", said(page))
    return {word or filler: float(number) for word, filler, number in found}


def token(page, place):
    return page.get_by_role("option").nth(place)


def step(page):
    return handle(page, "Step Δ")


def selective(page):
    return page.get_by_role("radio", name="selective")


def legend(page) -> list[float]:
    """The numbers of the state where the cursor of the plot stands."""
    texts = page.locator(".tl-plot .tl-legend span").all_inner_texts()
    return [float(text.split()[-1].replace("−", "-")) for text in texts]


def states(steps: dict[str, float]) -> list[list[float]]:
    """The states of the widget's channel after each token, as Python has them."""
    widget = SelectiveState()
    row = torch.tensor([[steps[word]] for word in widget.tokens])
    decay, weight = zero_order_hold(torch.tensor([widget.rates]), row)
    return scan(decay[None], (weight * torch.tensor(widget.x)[:, None, None])[None])[0, :, 0].tolist()


def test_with_one_step_for_all_the_filler_always_weighs_more(show):
    page = show(SelectiveState())
    assert left(page) == {"cat": 0.02, "dog": 0.08, "filler": 0.85}
    step(page).press("Home")
    assert set(left(page).values()) == {0} and "Nothing was taken in." in said(page)
    for _ in range(19):
        step(page).press("ArrowRight")
        assert left(page)["filler"] > max(left(page)["cat"], left(page)["dog"])
        assert "With one step for all" in said(page)
    assert step(page).get_attribute("aria-valuetext") == "10 for all"
    assert left(page)["filler"] == 1 and "keeps 0.00 of itself" in said(page)


def test_with_a_step_for_each_word_two_words_are_kept_by_the_keyboard(show):
    page = show(SelectiveState())
    page.get_by_role("radio", name="the same for all").press("ArrowRight")
    token(page, 1).press("Home")
    step(page).press("Home")
    assert "What disturbs most is “er”." in said(page)
    token(page, 0).press("End")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    step(page).press("Home")
    assert "“er” has Δ = 0: the state stays as it is, as if the token were not there." in said(page)
    token(page, 9).press("Home")
    token(page, 0).press("ArrowRight")
    step(page).press("End")
    assert "all before is forgotten" in said(page) and "“dog” hardly" not in said(page)
    for place in range(1, 5):
        token(page, place).press("ArrowDown")
    for _ in range(2):
        step(page).press("ArrowRight")
    assert step(page).get_attribute("aria-valuetext") == "0.7 for “dog”"
    assert left(page) == {"cat": 0.5, "dog": 0.5, "filler": 0}
    assert said(page).endswith("What is worth keeping is kept, and hardly anything else.")
    assert token(page, 5).get_attribute("aria-label") == "dog: x −1, step 0.7, left 0.50, 0.38, 0.29"
    assert page.locator("[role=option][tabindex='0']").count() == 1
    selective(page).press("ArrowUp")  # the step for all is still what it was
    assert left(page) == {"cat": 0.02, "dog": 0.08, "filler": 0.85}


def test_a_mouse_chooses_a_word_and_pulls_its_step_and_all_that_are_the_same_word_follow(show):
    page = show(SelectiveState(selective=True, steps={**KEEPS, "um": 0.3}))
    token(page, 7).click()
    before = [token(page, place).locator(".tl-step").inner_text() for place in range(10)]
    assert before == [".3", "10", ".3", "0", ".3", ".7", "0", ".3", ".3", "0"]
    box = step(page).bounding_box()
    page.mouse.click(box["x"] + 4, box["y"] + box["height"] / 2)
    assert [token(page, place).locator(".tl-step").inner_text() for place in (0, 2, 4, 7, 8)] == ["0"] * 5
    assert left(page)["filler"] == 0
    bars = [
        [bar.bounding_box()["height"] for bar in token(page, place).locator("i").all()] for place in (1, 5, 9)
    ]
    room = token(page, 5).locator(".tl-bars").bounding_box()["height"] - 1
    assert bars[1][0] == pytest.approx(0.503 * room, abs=1) and bars[1][0] > bars[1][1] > bars[1][2]
    assert bars[0][0] == pytest.approx(0.497 * room, abs=1) and bars[2] == [0, 0, 0]


def test_the_plot_shows_the_states_that_python_finds(show):
    page = show(SelectiveState(selective=True, steps=KEEPS))
    expected = states(KEEPS)
    plot = handle(page, "The state after each token")
    assert legend(page) == pytest.approx(expected[-1], abs=0.0051)
    plot.press("Home")
    assert legend(page) == [0, 0, 0]
    plot.press("ArrowRight")
    assert legend(page) == pytest.approx(expected[1], abs=0.0051)
    assert plot.get_attribute("aria-valuetext").startswith("after token 2 cat: rate −1: 2.00, ")
    token(page, 5).click()  # the cursor follows the choice
    assert legend(page) == pytest.approx(expected[5], abs=0.0051)
    lines = [line.get_attribute("points").split() for line in page.locator(".tl-plot polyline").all()]
    assert [len(points) for points in lines] == [10, 10, 10]


def test_a_thumb_chooses_and_moves_the_step(show):
    page = show(SelectiveState(selective=True, steps=KEEPS), width=360, has_touch=True, is_mobile=True)
    token(page, 5).tap()
    assert token(page, 5).bounding_box()["width"] >= 24
    box = step(page).bounding_box()
    assert box["width"] > 250  # a line of its own
    page.touchscreen.tap(box["x"] + box["width"] - 6, box["y"] + box["height"] / 2)
    assert step(page).get_attribute("aria-valuetext") == "10 for “dog”"
    assert "“cat” is written over by what comes later." in said(page)


def test_other_words_what_is_spoken_and_views_of_one_model(show):
    widget = SelectiveState(
        tokens=["oh", "yes", "oh"], x=[0.5, -3, 0.5], content=["yes"], rates=[-2, -0.5], selective=True
    )
    page = show(widget, widget)
    page.clock.install()
    spoken = page.locator(".tl-spoken").first
    before = spoken.inner_text()
    assert before.startswith("“yes” has Δ = 0.3: the slowest number, rate −0.5, keeps 0.86 of itself")
    step(page).last.press("End")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert spoken.inner_text().startswith("“yes” has Δ = 10: the slowest number, rate −0.5, keeps 0.01")
    assert token(page, 1).get_attribute("aria-label") == "yes: x −3, step 10, left 0.27, 1.71"
    ticks = page.locator(".tl-plot").first.locator("text[text-anchor=end]").all_text_contents()
    assert ticks == ["−6", "0", "1"]


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (360, "dark"), (1280, "dark")])
def test_all_fits_at_one_height_and_axe_finds_nothing(show, width, theme):
    page = show(SelectiveState(steps=KEEPS), width=width, theme=theme)
    heights = set()
    for key in ("ArrowRight", "End", "Home"):
        step(page).press(key)
        heights.add(page.locator(".tl-widget").bounding_box()["height"])
    selective(page).press("Space")
    for key in ("ArrowLeft", "End"):
        step(page).press(key)
        heights.add(page.locator(".tl-widget").bounding_box()["height"])
    assert len(heights) == 1 and is_amiss(page) == []
