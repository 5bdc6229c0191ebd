"""The widget of the chapter on scaling laws in a real browser."""

import re
from itertools import pairwise

import pytest

from transformer_lab.widgets import ComputeBudget

from .widget_page import handle, is_amiss

pytestmark = pytest.mark.browser
PLOT = "Loss by the law"


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


def budget(page):
    return page.get_by_role("slider", name="Budget")


def best(page) -> str:
    return re.search(r"has (.*) parameters and", said(page))[1]


def test_a_hundred_times_the_budget_makes_the_best_model_eight_times_as_large(show):
    page = show(ComputeBudget())
    assert best(page) == "1.8 B"
    for _ in range(2):
        budget(page).press("ArrowRight")
    assert budget(page).get_attribute("aria-valuetext") == "10²³ FLOPs"
    assert best(page) == "15 B"


def test_the_cursor_goes_from_too_small_over_the_best_to_too_large(show):
    page = show(ComputeBudget(exponent=20, place=0))
    assert "Too small a model" in said(page)
    handle(page, PLOT).press("End")
    assert "Too large a model" in said(page)
    assert handle(page, PLOT).get_attribute("aria-valuetext").startswith("parameters 10T: loss 6 or more,")
    words = []
    for _ in range(19):
        words.append(said(page))
        handle(page, PLOT).press("ArrowLeft")
    assert sum("As good as it gets" in sentence for sentence in words) >= 1


def test_its_height_stays_whatever_is_chosen(show):
    for width in (320, 390, 1280):
        page = show(ComputeBudget(), width=width)
        heights = set()
        for key in ("Home", "ArrowRight", "End"):
            budget(page).press(key)
            for other in ("Home", "End"):
                handle(page, PLOT).press(other)
                heights.add(page.locator(".tl-widget").bounding_box()["height"])
        assert len(heights) == 1, (width, heights)


def test_what_changed_is_spoken_once_it_stands_still(show):
    page = show(ComputeBudget())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    assert spoken.inner_text().startswith("10²¹ FLOPs. 100 B parameters")
    budget(page).press("ArrowRight")
    page.clock.fast_forward(1000)
    assert spoken.inner_text() == f"10²² FLOPs. {said(page)}"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_all_fits_and_axe_finds_nothing(show, width, theme):
    page = show(ComputeBudget(place=18), width=width, theme=theme)
    assert is_amiss(page) == []


@pytest.mark.parametrize("width", [320, 600, 1280])
def test_no_tick_runs_into_the_next(show, width):
    page = show(ComputeBudget(), width=width)
    ticks = page.locator(".tl-plot svg text[text-anchor=middle]").all()[:-1]  # the last names the axis
    boxes = [tick.bounding_box() for tick in ticks]
    assert len(boxes) >= 5
    for one, other in pairwise(boxes):
        assert one["x"] + one["width"] < other["x"]
