"""The widget of the chapter on sliding windows in a real browser."""

import pytest

from transformer_lab.masks import causal_mask, global_mask, reach, sliding_window_mask
from transformer_lab.widgets import WindowReach

from .widget_page import handle, is_amiss

pytestmark = pytest.mark.browser


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


def facts(page) -> list[str]:
    """Pairs in a layer, heard at the top, layers until all are heard."""
    return page.locator("dd").all_inner_texts()


def field(page):
    return handle(page, "The chosen token")


def stepper(page, name):
    return page.get_by_role("spinbutton", name=name)


def at(page, token, row, n_rows=4) -> tuple[float, float]:
    """Where one of 41 tokens stands in the picture; row 0 is the top one, the last is the text."""
    box = field(page).bounding_box()
    left = box["x"] + 30 + (token + 0.5) * (box["width"] - 54) / 41
    return left, box["y"] + 14 + row * (box["height"] - 56) / (n_rows - 1)


def drawn(page, kind) -> int:
    return page.locator(f".tl-field .{kind}").get_attribute("d").count("M")


def test_the_window_spreads_layer_by_layer_and_dilation_leaves_holes(show):
    page = show(WindowReach())
    window = sliding_window_mask(41, 4)[0, 0]
    n_on = sum(int(reach(window, n)[20].sum()) for n in range(4))  # a row for the text and for each layer
    assert (drawn(page, "tl-in"), drawn(page, "tl-off")) == (n_on, 4 * 41 - n_on)
    assert "13 of 41 tokens: 14 to 26. All 41 reach it after 10 layers." in said(page)
    assert facts(page) == [f"{window.sum()} of 1,681 (12%)", "13 of 41 tokens", "10"]
    stepper(page, "Dilation").press("ArrowUp")
    assert "13 of 41 tokens: 8 to 32, every 2nd. 20 tokens never reach it" in said(page)
    assert facts(page)[1:] == ["13 of 41 tokens", "never"] and drawn(page, "tl-in") == n_on
    stepper(page, "Layers").press("End")
    stepper(page, "Window").press("End")
    assert facts(page)[1] == "21 of 41 tokens" and "0 to 40, every 2nd" in said(page)


def test_a_mouse_picks_a_token_and_makes_one_global_in_the_row_of_the_text(show):
    page = show(WindowReach())
    page.mouse.click(*at(page, 30, 1))
    assert said(page).startswith("After 3 layers token 30 has heard from 13 of 41 tokens: 24 to 36.")
    page.mouse.move(*at(page, 30, 0))
    page.mouse.down()
    page.mouse.move(*at(page, 10, 1))
    assert said(page).startswith("After 3 layers token 10 ")
    page.mouse.move(*at(page, 30, 3))  # who slips into the row of the text makes nothing global
    page.mouse.up()
    page.mouse.move(*at(page, 12, 1))
    assert said(page).startswith("After 3 layers token 30 ")
    assert drawn(page, "tl-global") == 0
    page.mouse.click(*at(page, 0, 3))
    assert said(page).endswith("from 41 of 41 tokens: 0 to 40. All 41 reach it after 2 layers.")
    mask = sliding_window_mask(41, 4) | global_mask(41, [0])
    assert facts(page)[0] == f"{mask.sum()} of 1,681 (16%)"
    page.mouse.click(*at(page, 40, 3))
    page.mouse.click(*at(page, 0, 3))
    assert drawn(page, "tl-global") == 1 and field(page).get_attribute("aria-valuetext") == "token 30"
    box = page.locator(".tl-mask").bounding_box()
    page.mouse.click(box["x"] + 5, box["y"] + box["height"] - 1)
    assert field(page).get_attribute("aria-valuetext") == "token 40, global"


def test_the_keyboard_picks_a_token_and_makes_it_global(show):
    page = show(WindowReach())
    for key in ("Home", "ArrowLeft", "Space", "ArrowRight", "ArrowUp", "Enter"):
        field(page).press(key)
    assert field(page).get_attribute("aria-valuetext") == "token 2, global"
    assert page.locator(".tl-mask").get_attribute("aria-label").endswith("lets through 0 to 40")
    switch = page.get_by_role("switch", name="Token 2 is global")
    assert switch.is_checked() and drawn(page, "tl-global") == 2
    switch.press("Space")
    field(page).press("End")
    assert drawn(page, "tl-global") == 1 and "token 40 has heard from 41 of 41 tokens" in said(page)
    none = page.get_by_role("button", name="No global tokens")
    none.press("Enter")
    assert none.is_disabled() and "token 40 has heard from 7 of 41 tokens: 34 to 40." in said(page)


def test_a_causal_window_counts_against_the_past_only(show):
    page = show(WindowReach(global_tokens=[30]))
    page.get_by_role("switch", name="Causal").press("Space")
    mask = (sliding_window_mask(41, 4) | global_mask(41, [30])) & causal_mask(41)
    assert facts(page) == [f"{mask.sum()} of 861 (18%)", "7 of 21 tokens", "10"]
    assert "7 of the 21 up to itself: 14 to 20." in said(page)  # token 30 is global, but still to come


def test_a_thumb_drags_the_choice_without_scrolling_the_page_and_taps_a_token_global(show):
    page = show(WindowReach(), width=360, has_touch=True, is_mobile=True)
    field(page).scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    devtools = page.context.new_cdp_session(page)
    moves = [("touchStart", 20), ("touchMove", 24), ("touchMove", 35), ("touchEnd", None)]
    for kind, token in moves:
        points = [] if token is None else [dict(zip("xy", at(page, token, 1), strict=True))]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.evaluate("new Promise(requestAnimationFrame)")
    assert "token 35 has heard from 12 of 41" in said(page) and page.evaluate("scrollY") == scrolled
    page.touchscreen.tap(*at(page, 5, 3))
    page.locator(".tl-global").first.wait_for(state="attached")
    assert "token 35 has heard from 41 of 41" in said(page) and drawn(page, "tl-global") == 1


def test_what_changed_is_spoken_once_it_stands_still_and_views_move_together(show):
    widget = WindowReach()
    page = show(widget, widget)
    page.clock.install()
    spoken = page.locator(".tl-spoken").first
    before = spoken.inner_text()
    assert before == f"{said(page.locator('.tl-widget').first)} Pairs in a layer: 199 of 1,681 (12%)."
    stepper(page, "Window").last.press("Home")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert spoken.inner_text().startswith("After 3 layers token 20 has heard from 7 of 41 tokens: 17 to 23.")


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (360, "dark"), (1280, "dark")])
def test_all_fits_at_one_height_and_axe_finds_nothing(show, width, theme):
    page = show(WindowReach(), width=width, theme=theme)
    heights = {page.locator(".tl-widget").bounding_box()["height"]}
    for name, key in (("Layers", "End"), ("Dilation", "ArrowUp"), ("Window", "End"), ("Layers", "Home")):
        stepper(page, name).press(key)
        heights.add(page.locator(".tl-widget").bounding_box()["height"])
    field(page).press("Space")
    page.get_by_role("switch", name="Causal").press("Space")
    heights.add(page.locator(".tl-widget").bounding_box()["height"])
    assert len(heights) == 1 and is_amiss(page) == []
