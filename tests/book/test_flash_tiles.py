"""The widget of the chapter on FlashAttention in a real browser."""

import re

import pytest
import torch

from transformer_lab.attention import attention
from transformer_lab.efficient.flash import traffic
from transformer_lab.widgets import FlashTiles

from .widget_page import is_amiss, middle

pytestmark = pytest.mark.browser
Q, K, V = (torch.tensor(getattr(FlashTiles(), name)) for name in "qkv")


def said(page) -> list[str]:
    return page.locator(".tl-said span").all_inner_texts()


def slider(page):
    return page.get_by_role("slider", name="Step")


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def stepper(page, name):
    return page.get_by_role("spinbutton", name=name)


def cells(page, kind) -> list[tuple[int, int]]:
    """Row and column of the scores that look like this."""
    return [
        (row, column)
        for row, line in enumerate(page.locator(".tl-scores tbody tr").all())
        for column, cell in enumerate(line.locator("td").all())
        if kind in cell.get_attribute("class")
    ]


def running(page) -> list[list[str]]:
    rows = page.locator(".tl-running tbody tr").all()
    return [[text.replace("−", "-") for text in row.locator("td").all_inner_texts()] for row in rows]


def outputs(page) -> list[list[float]]:
    return [[float(x) for x in row[3].split(", ")] for row in running(page)]


def moved(page) -> list[int]:
    """Numbers read, written, to be moved in all, and moved with the whole table."""
    return [int(number) for number in re.findall(r"\d+", page.locator(".tl-moved").inner_text())]


def test_step_by_step_the_rows_become_those_of_the_softmax(show):
    page = show(FlashTiles())
    assert cells(page, "tl-now") == [] and moved(page)[:2] == [0, 0]
    press(page, "Next step")
    assert cells(page, "tl-now") == [(t, s) for t in range(4) for s in range(2)]
    scores = Q @ K.T / 2**0.5
    press(page, "Next step")
    assert cells(page, "tl-now") == [(t, s) for t in range(4) for s in (2, 3)]
    assert cells(page, "tl-past") == [(t, s) for t in range(4) for s in range(2)]
    seen, before = scores[0, :4], scores[0, :2].max()
    m, factor, total, _ = (float(text.split(",")[0]) for text in running(page)[0])
    assert m == pytest.approx(seen.max(), abs=0.005)
    assert factor == pytest.approx((before - seen.max()).exp(), abs=0.005)
    assert total == pytest.approx((seen - seen.max()).exp().sum(), abs=0.005)
    assert said(page)[1].startswith("Query 1: m rises from 0.17 to 1.07, so l and output shrink by")
    press(page, "End")
    whole = attention(Q, K, V)[0]
    assert torch.tensor(outputs(page)).numpy() == pytest.approx(whole.numpy(), abs=0.0051)
    assert re.search(r"whole rows by more than \d\.\d × 10⁻¹[⁵⁶]\.$", said(page)[0])
    count = traffic(8, 2, 8 * 4)
    assert moved(page) == [count["flash"] - 16, 16, count["flash"], count["standard"]]


def test_the_keyboard_walks_back_and_forth_and_stops_at_both_ends(show):
    page = show(FlashTiles())
    slider(page).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert slider(page).get_attribute("aria-valuetext") == "1 of 10"
    page.keyboard.press("End")
    after = page.get_by_role("button", name="Next step")
    assert said(page)[0].startswith("Step 10 of 10") and after.get_attribute("aria-disabled") == "true"
    after.press("Enter")
    assert said(page)[0].startswith("Step 10 of 10")
    page.get_by_role("button", name="Back").press("Space")
    assert said(page)[0].startswith("Step 9 of 10")
    slider(page).press("Home")
    page.get_by_role("button", name="Back").press("Enter")
    assert said(page)[0].startswith("Nothing is done yet")


def test_causal_tiles_are_skipped_and_who_saw_the_end_sees_the_new_end(show):
    page = show(FlashTiles())
    assert page.locator(".tl-held").inner_text() == "In fast memory: nothing."
    press(page, "End")
    page.get_by_role("switch", name="Causal").check()
    assert (
        slider(page).get_attribute("aria-valuetext") == "8 of 8" and "2 tiles were skipped" in said(page)[0]
    )
    assert cells(page, "tl-skipped") == [(t, s) for t in range(4) for s in range(4, 8)]
    masked = [(t, s) for t in range(8) for s in range(t + 1, 8) if t >= 4 or s < 4]
    assert cells(page, "tl-masked") == masked
    assert moved(page)[2] == 80
    stepper(page, "Queries in a tile").press("Home")
    assert stepper(page, "Queries in a tile").inner_text() == "1" and "12 tiles were skipped" in said(page)[0]
    press(page, "Back")
    stepper(page, "Keys in a tile").press("End")
    assert said(page)[0].startswith("Nothing is done yet")  # another walk, from its beginning


def test_a_query_is_followed_by_click_and_by_keyboard(show):
    page = show(FlashTiles(step=2))
    followed = page.locator(".tl-followed th")
    assert followed.all_inner_texts() == ["q1", "q1"]
    page.locator(".tl-scores tbody tr").nth(2).locator("td").nth(3).click()
    assert followed.all_inner_texts() == ["q3", "q3"]
    assert said(page)[1].startswith("Query 3: no score is above m = 0.81, so nothing shrinks")
    page.locator(".tl-running tbody th").nth(6).click()
    assert said(page)[1] == "Query 7 waits: m = −∞, l = 0 and the output is 0."
    stepper(page, "Follow query").press("ArrowDown")
    assert followed.all_inner_texts() == ["q6", "q6"]
    press(page, "Next step")
    assert followed.all_inner_texts() == ["q1", "q1"]  # back to where something happens


def test_large_scores_need_the_maximum(show):
    page = show(FlashTiles(scale=4.0))
    stepper(page, "Scores times").press("End")
    press(page, "Next step")
    press(page, "Next step")
    assert said(page)[1].endswith("Without m, e^107.5 would be infinite in float32.")
    assert running(page)[0][1] == "10⁻³⁹"
    press(page, "End")
    whole = attention(100 * Q, K, V)[0]
    assert torch.tensor(outputs(page)).numpy() == pytest.approx(whole.numpy(), abs=0.0051)


def test_a_thumb_steps_and_the_picture_keeps_its_place(show):
    page = show(FlashTiles(), width=360, has_touch=True, is_mobile=True)
    button = page.get_by_role("button", name="Next step")
    button.scroll_into_view_if_needed()
    top = button.bounding_box()["y"]
    for _ in range(5):
        page.touchscreen.tap(*middle(button))
    assert said(page)[0].startswith("Step 5 of 10") and button.bounding_box()["y"] == top
    page.locator(".tl-running tbody th").nth(1).tap()
    assert said(page)[1].startswith("Query 2: (")


def test_what_changed_is_spoken_once_it_stands_still(show):
    page = show(FlashTiles())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    before = spoken.inner_text()
    assert before.startswith("Nothing is done yet")
    press(page, "Next step")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert spoken.inner_text() == " ".join(said(page))


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (360, "dark"), (720, "light"), (1280, "dark")])
def test_all_fits_in_one_height_and_axe_finds_nothing(show, width, theme):
    page = show(FlashTiles(), width=width, theme=theme)
    heights = set()
    for step, scale, block in (
        ("Home", "Home", "Home"),
        ("ArrowRight", "End", "End"),
        ("End", "ArrowLeft", "Home"),
    ):
        stepper(page, "Scores times").press(scale)
        stepper(page, "Queries in a tile").press(block)
        slider(page).press(step)
        heights.add(page.locator(".tl-widget").bounding_box()["height"])
        assert is_amiss(page) == [], step
        page.get_by_role("switch", name="Causal").click()
    assert len(heights) == 1, heights


@pytest.mark.parametrize("width", [320, 1280])
def test_ten_queries_and_keys_fit_and_their_numbers_stay_in_their_cells(show, width):
    rows = [[0.1 * i - 0.4, 1.9 - 0.3 * i] for i in range(10)]
    page = show(FlashTiles(q=rows, k=rows, v=rows, block_q=10, block_k=10, scale=100.0, step=1), width=width)
    assert is_amiss(page) == []
    wide = page.evaluate("""[...document.querySelectorAll(".tl-scores td.tl-now")].map((cell) => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      return range.getBoundingClientRect().width - cell.getBoundingClientRect().width;
    })""")
    assert len(wide) == 100 and max(wide) <= 0
