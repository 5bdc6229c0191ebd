"""The widget of the chapter on why there is attention, in a real browser."""

import pytest

from transformer_lab.why_attention import NAMES
from transformer_lab.widgets import GradientAndDistance

from .widget_page import handle, is_amiss

pytestmark = pytest.mark.browser
PLOT = "How much the last output changes"


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


def switch(page, name):
    return page.get_by_role("switch", name=name, exact=True)


def length(page):
    return handle(page, "Length")


def legend(page) -> list[str]:
    return [text for text in page.locator(".tl-legend span").all_inner_texts() if text]


def test_the_usual_story_and_the_recurrence_that_ends_it(show):
    page = show(GradientAndDistance())
    assert "faded to less than a thousandth: tanh RNN. Not so: attention." in said(page)
    assert legend(page) == ["tanh RNN 3.1 × 10⁻¹¹", "attention 0.042"]
    switch(page, "LSTM, gate open").check()
    assert "Not so: LSTM, gate open and attention." in said(page)
    assert legend(page)[1] == "LSTM, gate open 0.36"
    assert "is here from 0.12 times that of LSTM, gate open to 1.3 × 10⁹ times that of tanh RNN." in said(
        page
    )
    switch(page, "tanh RNN").uncheck()
    assert "nothing shown here has faded" in said(page) and len(legend(page)) == 2
    assert page.locator(".tl-plot polyline").count() == 2
    for name in ("LSTM, gate open", "attention"):
        switch(page, name).uncheck()
    assert said(page).strip() == "No line is shown: switch one on." and page.locator("polyline").count() == 0


def test_a_longer_text_dilutes_attention_and_the_cursor_stays_where_it_can(show):
    page = show(GradientAndDistance(distance=63))
    values = []
    for key in ("Home", "End"):
        length(page).press(key)
        values.append(float(legend(page)[1].split()[1]) if key == "Home" else legend(page)[1])
    assert values == [0.17, "attention 5.4 × 10⁻³"]
    length(page).press("Home")
    assert said(page).startswith("At distance 15,")  # the first of 16 tokens
    length(page).press("End")
    assert said(page).startswith("At distance 32,")  # 63 is not among the distances of 512 tokens


def test_the_keyboard_reads_the_plot(show):
    page = show(GradientAndDistance(shown=list(NAMES)))
    plot = handle(page, PLOT)
    plot.press("Home")
    assert said(page).startswith("This is the neighbour")
    plot.press("End")
    assert plot.get_attribute("aria-valuetext").startswith("distance 63: tanh RNN 5.3 × 10⁻²²,")
    assert "faded to less than a thousandth: tanh RNN; orthogonal RNN and LSTM." in said(page)
    spots = page.locator(".tl-plot .tl-spot")
    assert spots.count() == len(NAMES)
    field = page.locator(".tl-plot svg").bounding_box()
    lowest = spots.first.bounding_box()  # below the picture: it lies on its edge
    assert field["y"] < lowest["y"] < field["y"] + field["height"] - 30


def test_what_changed_is_spoken_once_it_stands_still(show):
    page = show(GradientAndDistance())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    before = spoken.inner_text()
    assert before.startswith("64 tokens. At distance 32, ")
    switch(page, "LSTM").check()
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert "LSTM" in spoken.inner_text() != before


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (360, "dark"), (768, "light"), (1280, "dark")])
def test_all_fits_at_one_height_and_axe_finds_nothing(show, width, theme):
    page = show(GradientAndDistance(), width=width, theme=theme)
    heights = {page.locator(".tl-widget").bounding_box()["height"]}
    for name in NAMES:
        switch(page, name).check()
        for key in ("End", "ArrowLeft", "Home"):
            length(page).press(key)
            handle(page, PLOT).press("End")
            heights.add(page.locator(".tl-widget").bounding_box()["height"])
    assert len(heights) == 1, (width, heights)
    assert is_amiss(page) == []
