"""The widgets of "Positions" in a real browser, on a page that the test writes."""

import re

import pytest

from transformer_lab.widgets import RotaryDials, SinusoidHands

from .widget_page import handle, is_amiss, legend, middle

pytestmark = pytest.mark.browser
LINE = """() => document.querySelector('.tl-plot polyline').getAttribute('points').split(/[ ,]/)
    .map((number) => Number(number).toFixed(3)).join(" ")"""
HANDS = "() => [...document.querySelectorAll('.tl-dial')].map((dial) => dial.outerHTML)"


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


# A position as clock hands


def code(page) -> list[list[float]]:
    """Sine and cosine of each hand that is shown, as they stand below the dials."""
    dials = page.get_by_role("img").all()
    texts = (dial.get_attribute("aria-label").replace("−", "-") for dial in dials if dial.is_visible())
    return [[float(number) for number in re.findall(r"-?\d\.\d\d", text)] for text in texts]


def test_moving_the_position_turns_the_hands_and_leaves_the_line(show):
    page = show(SinusoidHands())
    place = page.get_by_role("slider", name="Position", exact=True)
    before = page.evaluate(LINE), page.evaluate(HANDS), said(page)
    assert before[2] == "Position 3 (blue) and 7 (orange), 4 later: similarity 0.69."
    assert code(page)[:2] == [[0.14, -0.99], [0.81, 0.58]] and len(code(page)) == 8
    place.press("ArrowRight")
    assert page.evaluate(LINE) == before[0] and page.evaluate(HANDS)[0] != before[1][0]
    assert said(page) == "Position 4 (blue) and 8 (orange), 4 later: similarity 0.69."
    place.press("Home")
    assert code(page) == [[0.0, 1.0]] * 8
    place.press("End")
    assert said(page).startswith("Position 100 (blue) and 104 (orange)") and page.evaluate(LINE) == before[0]


def test_the_cursor_brings_the_other_hands_elsewhere_and_both_sides_are_alike(show):
    page = show(SinusoidHands())
    plot, near = handle(page, "Similarity with"), legend(page)
    assert plot.get_attribute("aria-valuetext") == "offset 4: similarity 0.69"
    before = page.evaluate(HANDS)
    for _ in range(8):
        plot.press("ArrowLeft")
    assert legend(page) == near and page.evaluate(HANDS) != before and code(page)[0] == [0.14, -0.99]
    assert "and −1 (orange), 4 earlier: similarity 0.69. No text has this position" in said(page)
    box = plot.bounding_box()
    page.mouse.move(box["x"] + (box["width"] + 40 - 14) / 2, box["y"] + 90)  # the middle of the field
    assert "the same position: similarity 1.00" in said(page) and legend(page) == [1.0]


def test_a_narrow_code_has_fewer_hands_and_takes_far_positions_for_near_ones(show):
    page = show(SinusoidHands(offset=6))
    assert legend(page)[0] < 0.85
    width = page.get_by_role("spinbutton", name="Width D")
    width.press("Home")
    assert width.inner_text() == "4" and len(code(page)) == 2 and legend(page)[0] > 0.95
    page.get_by_role("button", name="Width D: more").click()
    assert width.inner_text() == "8" and len(code(page)) == 4


# Queries and keys, turned


def score(page) -> float:
    (number,) = re.findall(r"score of (−?[\d.]+)\.$", said(page))
    return float(number.replace("−", "-"))


def drag(page, lane: int, to: int) -> None:
    """The lane's token to a position, the way a hand does."""
    token, lanes = page.locator(".tl-token").nth(lane), page.locator(".tl-lane")
    box = lanes.nth(lane).bounding_box()
    page.mouse.move(*middle(token))
    page.mouse.down()
    for share in (0.5, 1):
        page.mouse.move(box["x"] + box["width"] * to / 12 * share, box["y"] + 10)
    page.mouse.up()


def test_dragging_one_changes_the_score_and_both_together_do_not(show):
    page = show(RotaryDials())
    first, dials = score(page), page.evaluate(HANDS)
    assert said(page).startswith("Key at 5, query at 8, 3 after it: the dials add up to a score of 0.15")
    drag(page, 1, 11)
    assert said(page).startswith("Key at 11, query at 8, 3 before it") and score(page) != first
    drag(page, 1, 5)
    page.get_by_role("switch", name="Move together").check()
    drag(page, 0, 10)
    assert said(page).startswith("Key at 7, query at 10, 3 after it") and score(page) == first
    assert all(a != b for a, b in zip(dials, page.evaluate(HANDS), strict=True))
    drag(page, 1, 12)
    assert said(page).startswith("Key at 9, query at 12, 3 after it") and score(page) == first


def test_the_keyboard_steps_both_along(show):
    page = show(RotaryDials())
    query = page.get_by_role("spinbutton", name="Query at")
    key = page.get_by_role("spinbutton", name="Key at")
    first = score(page)
    query.press("ArrowRight")
    assert (query.inner_text(), key.inner_text()) == ("9", "5") and score(page) != first
    query.press("ArrowLeft")
    page.get_by_role("switch").press("Space")
    key.press("Home")
    assert (query.inner_text(), key.inner_text()) == ("3", "0") and score(page) == first
    key.press("End")
    assert (query.inner_text(), key.inner_text()) == ("12", "9") and score(page) == first
    page.get_by_role("button", name="Query at: less").click()
    assert (query.inner_text(), key.inner_text()) == ("11", "8") and score(page) == first


def test_the_plot_has_the_score_of_every_distance_and_goes_there(show):
    page = show(RotaryDials())
    plot = handle(page, "The score for every distance")
    line = page.evaluate(LINE)
    assert legend(page) == [score(page)]
    plot.press("End")
    assert said(page).startswith("Key at 0, query at 12, 12 after it")
    plot.press("Home")
    assert said(page).startswith("Key at 12, query at 0, 12 before it")
    assert page.evaluate(LINE) == line
    shown = legend(page)[0] if "−" not in page.locator(".tl-legend").inner_text() else -legend(page)[0]
    assert shown == score(page)


def test_what_the_dials_add_up_to_is_the_score(show):
    page = show(RotaryDials())
    labels = [dial.get_attribute("aria-label") for dial in page.get_by_role("img").all()]
    parts = [float(label.split()[-1].replace("−", "-")) for label in labels]
    assert len(parts) == 4 and sum(parts) == pytest.approx(score(page), abs=0.02)


def test_a_thumb_drags_the_key_without_scrolling_the_page(show):
    page = show(RotaryDials(), width=360, has_touch=True, is_mobile=True)
    x, y = middle(page.locator(".tl-token").nth(1))
    devtools = page.context.new_cdp_session(page)
    moves = [("touchMove", 20), ("touchMove", 60), ("touchMove", 100)]
    for kind, dx in [("touchStart", 0), *moves, ("touchEnd", None)]:
        points = [] if dx is None else [{"x": x + dx, "y": y + dx / 10}]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.evaluate("new Promise(requestAnimationFrame)")  # the browser gathers the moves of one frame
    assert int(re.match(r"Key at (\d+)", said(page))[1]) > 8
    assert page.evaluate("scrollY") == 0


# Both


@pytest.mark.parametrize("widget", [SinusoidHands, RotaryDials])
def test_screen_readers_hear_it_once_it_stands_still(show, widget):
    page = show(widget())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    before = spoken.inner_text()
    assert before == said(page)
    page.get_by_role("slider").last.press("ArrowRight")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert spoken.inner_text() == said(page) != before


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_all_fits_and_axe_finds_nothing(show, width, theme):
    page = show(SinusoidHands(), RotaryDials(), width=width, theme=theme)
    for step in ("as it opens", "with a narrower code, and both at the end"):
        assert is_amiss(page) == [], step
        page.get_by_role("spinbutton", name="Width D").press("Home")
        page.get_by_role("spinbutton", name="Query at").press("End")
        page.get_by_role("spinbutton", name="Key at").press("Home")
