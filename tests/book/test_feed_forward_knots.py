"""The widget of the chapter on feed-forward networks in a real browser."""

import re
from itertools import pairwise

import pytest

from transformer_lab.widgets import ReluKnots

from .widget_page import drag, handle, is_amiss, middle, place

pytestmark = pytest.mark.browser


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


def error(page) -> float:
    return float(re.search(r"error ([\d.]+)\.", said(page))[1])


def bends(page) -> int:
    """How many corners the purple curve has."""
    corners = page.locator(".tl-sum").get_attribute("points").split()
    points = [tuple(map(float, corner.split(","))) for corner in corners]
    slopes = [round((y2 - y1) / (x2 - x1), 3) for (x1, y1), (x2, y2) in pairwise(points) if x2 > x1]
    return sum(a != b for a, b in pairwise(slopes))


def test_a_hand_pulls_the_knots_together_and_fit_finds_the_weights(show):
    page = show(ReluKnots())
    before = error(page)
    unit = page.locator(".tl-plane").bounding_box()["width"] / 364 * 160 / 3
    drag(page, "knot of unit 1", unit, -unit)
    assert place(page, "knot of unit 1") == [-1, 0]  # a knot moves sideways only
    assert said(page).endswith("Unit 1 bends the curve upwards at x = −1.00.")
    drag(page, "knot of unit 3", -unit, 0)
    assert place(page, "knot of unit 3")[0] == 1
    page.get_by_role("button", name="Fit all weights").click()
    assert error(page) < before / 4
    assert bends(page) == 3


def test_arrow_keys_move_the_chosen_knot(show):
    page = show(ReluKnots())
    knot = handle(page, "knot of unit 2")
    knot.focus()
    assert said(page).endswith("Unit 2 bends the curve downwards at x = 0.00.")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        knot.press(key)
    assert place(page, "knot of unit 2")[0] == -0.3
    assert "− 2.00 relu(x + 0.30)" in page.locator(".tl-formula .tl-chosen").inner_text()


def test_a_thumb_drags_a_knot_without_scrolling_the_page(show):
    page = show(ReluKnots(), width=360, has_touch=True, is_mobile=True)
    x, y = middle(handle(page, "knot of unit 2").locator(".tl-hit"))
    devtools = page.context.new_cdp_session(page)
    for kind, dx in [("touchStart", 0), ("touchMove", 10), ("touchMove", 30), ("touchEnd", None)]:
        points = [] if dx is None else [{"x": x + dx, "y": y + dx}]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.evaluate("new Promise(requestAnimationFrame)")
    assert place(page, "knot of unit 2")[0] > 0.3
    assert page.evaluate("scrollY") == 0


def test_without_the_nonlinearity_the_curve_is_one_line_however_many_units(show):
    page = show(ReluKnots())
    count = page.get_by_role("spinbutton", name="Hidden units")
    for key in ("End", "Home", "End"):
        count.press(key)
        page.get_by_role("button", name="Fit all weights").click()
    assert bends(page) > 3 and page.locator(".tl-handle:visible").count() == 8
    curved = error(page)
    page.get_by_role("switch", name="Nonlinearity").press("Space")
    assert bends(page) == 0 and "one straight line" in said(page)
    page.get_by_role("button", name="Fit all weights").click()
    assert bends(page) == 0 and error(page) > curved
    count.press("Home")
    assert page.locator(".tl-handle:visible").count() == 1 and bends(page) == 0


def test_weight_and_side_of_the_chosen_unit(show):
    page = show(ReluKnots(units=[[0.0, 1, 1.0], [1.0, 1, 0.0]], target="step"))
    box = page.locator(".tl-unit")
    assert "Unit 1 answers right of its knot" in box.inner_text()
    box.get_by_role("button", name="Turn it round").click()
    assert (
        "left of its knot" in box.inner_text()
        and "relu(0.00 − x)" in page.locator(".tl-formula").inner_text()
    )
    handle(page, "knot of unit 2").focus()
    assert "does not bend the curve yet" in said(page)
    slider = page.get_by_role("slider", name="Weight")
    slider.focus()
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "−0.10" and "downwards at x = 1.00" in said(page)


def test_another_target_is_another_error(show):
    page = show(ReluKnots())
    errors = {}
    for name in ("bump", "step", "sine"):
        page.get_by_role("radio", name=name).check()
        errors[name] = error(page)
    assert len(set(errors.values())) == 3


def test_screen_readers_hear_the_error_and_the_formula(show):
    page = show(ReluKnots())
    assert re.search(
        r"^Mean squared error 0\.141\. .* y = 0\.00 \+ 1\.00 relu", page.locator(".tl-spoken").inner_text()
    )


def test_two_views_keep_their_own_choice(show):
    page = show(ReluKnots(), ReluKnots(target="sine"))
    assert page.locator(":checked[type=radio]").count() == 2


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_all_fits_and_axe_finds_nothing(show, width, theme):
    page = show(
        ReluKnots(), ReluKnots(units=[[k / 2, 1, -12.25] for k in range(-4, 4)]), width=width, theme=theme
    )
    page.get_by_role("switch").first.press("Space")
    assert is_amiss(page) == []
