"""The chapter "Masks" in a browser: its widget, by keyboard, mouse and thumb."""

import pytest

from transformer_lab.masks import causal_mask, prefix_mask, reach, sliding_window_mask
from transformer_lab.widgets import MaskPainter

from .widget_page import is_amiss, middle

pytestmark = pytest.mark.browser


def cells(page, table):
    return page.locator(f".tl-{table}").get_by_role("gridcell")


def on(page, table="painted") -> list[list[bool]]:
    """What a table shows, row by row."""
    flat = [cell.get_attribute("aria-selected") == "true" for cell in cells(page, table).all()]
    n = round(len(flat) ** 0.5)
    return [flat[row * n : row * n + n] for row in range(n)]


def differences(page, mask) -> set[tuple[int, int]]:
    shown = on(page)
    return {(t, s) for t in range(len(mask)) for s in range(len(mask)) if shown[t][s] != mask[t][s]}


def at(page, row, column, table="painted"):
    return cells(page, table).nth(8 * row + column)


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


CAUSAL = causal_mask(8)[0, 0].tolist()


def test_it_opens_causal_and_no_token_sees_its_future(show):
    page = show(MaskPainter())
    assert on(page) == on(page, "known") == CAUSAL
    assert page.get_by_role("radio", name="causal").is_checked()
    assert said(page).split("\n") == [
        "After 1 layer, “sat” may depend on “the”, “cat” and itself.",
        "No token sees its future.",
    ]


def test_a_click_turns_a_cell_and_a_leak_spreads_with_the_layers(show):
    page = show(MaskPainter())
    at(page, 1, 3).click()
    assert differences(page, CAUSAL) == {(1, 3)}
    assert page.locator("input:checked").count() == 0  # no preset is like it
    assert "The future leaks: “cat” can know “down”." in said(page)
    page.get_by_role("spinbutton", name="Layers").press("ArrowUp")
    assert "in 3 places" in said(page)
    at(page, 1, 3).click()
    assert on(page) == CAUSAL and page.get_by_role("radio", name="causal").is_checked()
    assert "No token sees its future." in said(page)


def test_a_drag_paints_all_cells_on_its_way_like_the_first(show):
    page = show(MaskPainter())
    (x, y), (to_x, to_y) = middle(at(page, 6, 1)), middle(at(page, 3, 1))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(to_x, to_y)  # in one leap: what lies between is painted too
    page.mouse.move(to_x - 300, to_y)  # and who slips off the table paints its edge
    page.mouse.up()
    page.mouse.move(to_x + 40, to_y + 40)
    assert differences(page, CAUSAL) == {(6, 1), (5, 1), (4, 1), (3, 1), (3, 0)}


def test_a_thumb_paints_without_scrolling_the_page(show):
    page = show(MaskPainter(), width=360, has_touch=True, is_mobile=True)
    at(page, 0, 4).scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    (x, y), (_, to_y) = middle(at(page, 0, 4)), middle(at(page, 2, 4))
    devtools = page.context.new_cdp_session(page)
    path = [("touchStart", y), ("touchMove", (y + to_y) / 2), ("touchMove", to_y), ("touchEnd", None)]
    for kind, there in path:
        points = [] if there is None else [{"x": x, "y": there}]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.evaluate("new Promise(requestAnimationFrame)")
    assert differences(page, CAUSAL) == {(0, 4), (1, 4), (2, 4)}
    assert page.evaluate("scrollY") == scrolled


def test_the_keyboard_moves_a_cursor_turns_cells_and_paints(show):
    page = show(MaskPainter())
    assert page.locator(".tl-square[tabindex='0']").count() == 2  # one stop of the tab key for each table
    at(page, 0, 0).focus()
    for key in ("ArrowUp", "ArrowRight", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert differences(page, CAUSAL) == {(0, 2)}
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "ArrowLeft", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert differences(page, CAUSAL) == {(0, 2), (0, 3), (1, 3), (1, 1)}
    assert "“cat”" in said(page)


def test_presets_replace_the_mask_and_the_button_takes_the_future_away(show):
    page = show(MaskPainter())
    window, prefix = sliding_window_mask(8, 2)[0, 0], prefix_mask(8, 3)[0, 0]
    page.get_by_label("prefix of 3").check()
    assert on(page) == prefix.tolist()
    page.get_by_label("window 2", exact=True).check()
    assert on(page) == window.tolist() and "The future leaks" in said(page)
    page.get_by_role("button", name="Keep the past only").click()
    assert on(page) == (window & causal_mask(8)[0, 0]).tolist() and "No token sees its future." in said(page)
    page.get_by_label("nothing").check()
    assert "“sat” may attend to nothing" in said(page)


def test_the_second_table_is_what_python_finds_and_tells_the_way(show):
    window = sliding_window_mask(8, 2)[0, 0]
    page = show(MaskPainter(mask=window.tolist(), n_layers=3))
    assert on(page, "known") == reach(window, 3).tolist()
    assert at(page, 4, 2, "known").inner_text().split() == ["2", "layers"]
    at(page, 4, 2, "known").hover()
    assert "“a” can know “sat” after 2 layers: sat → down → a." in said(page)
    steps = page.locator(".tl-painted .tl-step")
    assert steps.count() == 2 and steps.first.bounding_box() == at(page, 3, 2).bounding_box()
    at(page, 7, 0, "known").hover()
    assert "“off” cannot know “the” yet: that takes 7 layers." in said(page)
    page.get_by_role("spinbutton").press("End")
    assert "after 7 layers: the → cat → sat → down → a → dog → ran → off." in said(page)
    at(page, 7, 0, "known").focus()
    page.keyboard.press("ArrowRight")
    assert "“off” can know “cat” after 6 layers" in said(page)


def test_screen_readers_hear_it_once_it_stands_still(show):
    page = show(MaskPainter())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    before = spoken.inner_text()
    assert before.startswith("After 1 layer, “sat” may depend on")
    page.get_by_role("spinbutton").press("ArrowUp")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert spoken.inner_text().startswith("After 2 layers")


def test_other_words_and_views_of_one_model(show):
    widget = MaskPainter(tokens=["a", "b", "c"])
    page = show(widget, MaskPainter(), widget)
    assert page.get_by_role("grid").nth(0).get_by_role("gridcell").count() == 9
    page.locator(".tl-painted").nth(0).get_by_role("gridcell").nth(1).click()
    selected = [page.locator(".tl-painted").nth(i).locator("[aria-selected=true]").count() for i in range(3)]
    assert selected == [7, 36, 7]
    assert page.get_by_role("radio", name="causal").nth(1).is_checked()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_all_fits_and_axe_finds_nothing(show, width, theme):
    page = show(MaskPainter(), MaskPainter(tokens=list("abcdefghij"), n_layers=3), width=width, theme=theme)
    page.get_by_label("window 2", exact=True).first.check()
    assert is_amiss(page) == []
