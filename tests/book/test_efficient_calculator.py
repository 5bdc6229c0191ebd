"""The widget of the chapter on costs in a real browser."""

import re

import pytest

from transformer_lab.efficient import block_flops
from transformer_lab.widgets import CostCalculator
from transformer_lab.widgets.efficient_calculator import MODELS

from .widget_page import handle, is_amiss

pytestmark = pytest.mark.browser
PLOT = "FLOPs to read the context"


def said(page, what) -> str:
    return page.locator(f".tl-{what}-said").inner_text().replace("\u00a0", " ")


def choose(page, name):
    page.get_by_role("radio", name=name, exact=True).check()


def stepper(page, name):
    return page.get_by_role("spinbutton", name=name)


def context(page):
    return page.get_by_role("slider", name="Context", exact=True)


def times(page) -> list[list[str]]:
    """What the table says of reading and of writing: for arithmetic, for memory."""
    return [row.get_by_role("cell").all_inner_texts() for row in page.get_by_role("row").all()[1:]]


def cache(page) -> str:
    return re.search(r"cache ([\d.]+ \wB)", page.locator(".tl-shares").inner_text())[1]


def test_it_opens_with_what_the_package_counts_and_says_what_bounds_the_time(show):
    page = show(CostCalculator())
    sizes = MODELS["LLaMA-2-7B"]
    flops = block_flops(4096, d_model=4096, d_ff=sizes["d_ff"] * 3 // 2, n_heads=32)
    shown = page.locator(".tl-legend span").all_inner_texts()
    assert [float(text.split()[-2]) for text in shown] == [
        float(f"{32 * number / 1e12:.3g}") for number in flops.values()
    ]
    assert said(page, "flops").endswith("The quadratic term rules from n = 6.0 D = 24,704 on.")
    assert said(page, "memory").startswith("The weights take 13 GB, the cache takes 2.15 GB: both fit")
    assert times(page) == [["62.5 ms", "11.3 ms"], ["15.3 µs", "4.51 ms"]]
    assert page.locator(".tl-rules").all_inner_texts() == ["62.5 ms", "4.51 ms"]


def test_by_keyboard_the_context_grows_until_the_quadratic_term_rules(show):
    page = show(CostCalculator())
    context(page).press("End")
    assert context(page).get_attribute("aria-valuetext") == "n = 1,048,576"
    assert re.search(
        r"The quadratic term rules, as it does from .*: 98 % goes into the scores\.$", said(page, "flops")
    )
    assert "1M: projections" in handle(page, PLOT).get_attribute("aria-valuetext")
    handle(page, PLOT).press("Home")
    assert context(page).get_attribute("aria-valuetext") == "n = 128" and "less than 1 %" in said(
        page, "flops"
    )
    page.get_by_role("radio", name="LLaMA-2-7B").press("ArrowRight")
    assert page.get_by_role("radio", name="LLaMA-2-70B").is_checked()
    assert page.get_by_role("radio", name="grouped").is_checked()  # as it was published
    assert "more than the 80 GB of this device: it takes 2 of them" in said(page, "memory")
    page.get_by_role("radio", name="2 (FP16)").press("ArrowRight")
    assert "The weights take 68.5 GB" in said(page, "memory")


def test_more_texts_fill_the_memory_and_each_way_to_keep_keys_and_values_helps(show):
    page = show(CostCalculator())
    for _ in range(6):
        page.get_by_role("button", name="Texts at once: more").click()
    assert stepper(page, "Texts at once").inner_text() == "64"
    assert said(page, "memory").endswith("tokens: 31 of the 64 texts.")
    assert said(page, "time").endswith("So it would be with enough memory.")
    kept = {}
    for kind in ("multi-head", "grouped", "multi-query", "latent"):
        choose(page, kind)
        kept[kind] = cache(page)
    assert kept == {
        "multi-head": "137 GB",
        "grouped": "34.4 GB",
        "multi-query": "4.29 GB",
        "latent": "9.66 GB",
    }
    assert "a latent of 512 + 64 numbers" in page.locator(".tl-settings").inner_text()
    choose(page, "T4")
    assert "the 16 GB of this device" in said(page, "memory")
    assert page.locator(".tl-shares").inner_text().endswith("limit 16 GB")


def test_a_model_of_your_own_has_no_name_until_it_is_one_again(show):
    page = show(CostCalculator(sizes=MODELS["GPT-2 small"]))
    assert page.get_by_role("radio", name="GPT-2 small").is_checked()
    stepper(page, "Width D").press("ArrowUp")
    stepper(page, "Layers").press("ArrowDown")
    assert page.locator("input[name=model]:checked").count() == 0
    assert "16 heads of width 64, 16 for keys and values; feed-forward width 4,096." in (
        page.locator(".tl-settings").inner_text()
    )
    stepper(page, "Width D").press("ArrowLeft")
    stepper(page, "Layers").press("ArrowRight")
    assert page.get_by_role("radio", name="GPT-2 small").is_checked()


def test_what_changed_is_spoken_once_it_stands_still(show):
    page = show(CostCalculator())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    before = spoken.inner_text()
    assert before.startswith("LLaMA-2-7B, multi-head. To read 4,096 tokens takes 61.8 TFLOP")
    choose(page, "latent")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    words = " ".join(said(page, what) for what in ("flops", "memory", "time"))
    assert spoken.inner_text().replace("\u00a0", " ") == f"LLaMA-2-7B, latent. {words}"


def test_two_views_do_not_share_their_choice(show):
    page = show(CostCalculator(), CostCalculator(sizes=MODELS["GPT-3"]))
    page.get_by_role("radio", name="base, 2017").first.check()
    chosen = page.locator("input[name=model]:checked")
    assert [radio.get_attribute("value") for radio in chosen.all()] == ["base, 2017", "GPT-3"]


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (360, "dark"), (720, "light"), (1280, "dark")])
def test_all_fits_in_one_height_and_axe_finds_nothing(show, width, theme):
    page = show(CostCalculator(), width=width, theme=theme)
    heights = set()
    for model, kind, texts, key in (
        ("LLaMA-2-7B", "multi-head", "Home", "Home"),
        ("GPT-3", "multi-head", "End", "End"),  # too much of everything
        ("base, 2017", "latent", "End", "ArrowLeft"),
    ):
        choose(page, model)
        choose(page, kind)
        stepper(page, "Texts at once").press(texts)
        context(page).press(key)
        heights.add(page.locator(".tl-widget").bounding_box()["height"])
        assert is_amiss(page) == [], model
    assert len(heights) == 1, heights
