"""The widget of the chapter on what heads do, in a real browser."""

import re

import pytest

from transformer_lab.widgets import InductionHeads

from .widget_page import is_amiss

pytestmark = pytest.mark.browser


def ready(page):
    page.get_by_role("button", name="Load the model").click()
    page.locator(".tl-picture").wait_for()
    return page


def caption(page) -> str:
    return page.locator(".tl-caption").inner_text()


def ranked(page) -> list[tuple[str, float]]:
    items = [item.inner_text().split() for item in page.locator(".tl-next li").all()]
    return [(letter, float(p)) for letter, p in items]


def switch(page, name):
    return page.get_by_role("switch", name=name)


def test_the_model_comes_when_asked_and_says_what_comes_next(show):
    page = show(InductionHeads())
    assert "59 KB" in page.get_by_role("button", name="Load").inner_text()
    assert page.locator("script[src*=models]").count() == 0
    ready(page)
    assert ranked(page)[0][0] == "e" and ranked(page)[0][1] > 0.9 and len(ranked(page)) == 5
    page.get_by_role("button", name="hellohello").click()
    assert ranked(page)[0][0] == "h" and page.locator(".tl-strip [role=option]").count() == 10
    page.get_by_role("textbox").fill("ABXAC ya")
    assert ranked(page)[0][0] == "b"


def test_each_head_is_looked_at_and_scored(show):
    page = ready(show(InductionHeads()))
    for head, previous, behind in [("0.0", 0.9, 0.0), ("1.0", 0.0, 0.8), ("1.1", 0.0, 0.8)]:
        page.get_by_role("radio", name=head).check()
        scored = page.get_by_text(f"Head {head} on this text").inner_text()
        found = [float(x) for x in re.findall(r"\d\.\d\d", scored)]
        assert found[0] >= previous and found[1] >= behind
        assert f"Head {head}:" in page.get_by_role("grid").get_attribute("aria-label")
    assert re.search(r"“t” at place 12 looks most at “e” at place 6 \(0\.9", caption(page))
    page.get_by_role("radio", name="0.0").check()
    page.locator(".tl-strip [role=option]").nth(4).hover()
    assert "“t” at place 5 looks most at “r” at place 4" in caption(page)


def test_heads_are_switched_off_by_the_keyboard_and_the_answer_changes(show):
    page = ready(show(InductionHeads()))
    whole = ranked(page)[0][1]
    switch(page, "1.0").press("Space")
    assert ranked(page)[0][0] == "e" and 0.5 < ranked(page)[0][1] < whole
    assert page.get_by_text("Without head 1.0, the model says “e”").count() == 1
    switch(page, "1.1").press("Space")
    assert ranked(page)[0][0] != "e"
    text = page.get_by_text("Without heads 1.0, 1.1, the model says").inner_text()
    assert f"with all heads “e” ({whole:.2f})." in text
    for name in ("1.0", "1.1", "0.0"):
        switch(page, name).press("Space")
    assert ranked(page)[0][0] != "e"
    switch(page, "0.0").press("Space")
    assert ranked(page)[0] == ("e", whole)


def test_the_heat_map_has_a_cursor_that_never_points_into_the_future(show):
    page = ready(show(InductionHeads(text="abca")))
    assert page.locator(".tl-cell[tabindex='0']").count() == 1
    page.locator(".tl-cell[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert re.search(r"“a” at place 4 gives “b” at place 2 a weight of 0\.\d\d\.", caption(page))
    page.locator(".tl-cell").nth(1 * 4 + 3).hover()  # row 2, column 4: not there yet
    assert "“b” at place 2 looks most at" in caption(page)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ab7", "The model never saw “7”"),
        ("  ", "There is no letter here"),
        ("ab" * 13, "These are 26 letters: the model reads at most 24."),
    ],
)
def test_what_cannot_be_read_leaves_the_picture_and_says_why(show, text, sentence):
    page = ready(show(InductionHeads()))
    page.get_by_role("textbox").fill(text)
    page.get_by_text(sentence).wait_for()
    assert ranked(page)[0][0] == "e" and page.locator("[aria-invalid=true]").count() == 1


def test_views_of_one_model_share_the_text_and_nothing_else(show):
    widget = InductionHeads()
    page = show(widget, widget)
    for nth in (0, 1):
        button = page.get_by_role("button", name="Load the model")
        if button.count():
            button.first.click()
        page.locator(".tl-picture").nth(nth).wait_for()
    page.get_by_role("textbox").first.fill("abcabcab")
    assert page.locator(".tl-strip").nth(1).locator("[role=option]").count() == 8
    page.get_by_role("switch", name="1.1").first.check()
    assert not page.get_by_role("switch", name="1.1").nth(1).is_checked()


@pytest.mark.parametrize("text", ["shortenshort", "qwertyuiopasqwertyuiopas", "a"])
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (768, "dark"), (360, "light"), (320, "dark")])
def test_it_fits_every_screen_and_axe_finds_nothing(show, width, theme, text):
    page = ready(show(InductionHeads(text=text), width=width, theme=theme))
    page.get_by_role("switch", name="0.1").check()
    assert is_amiss(page) == []
