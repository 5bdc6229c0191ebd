"""The widget of the chapter on norms in a real browser."""

import re

import pytest

from transformer_lab.widgets import DepthAndWiring

from .widget_page import handle, is_amiss

pytestmark = pytest.mark.browser
GRADIENT, DIVERSITY = "How large the gradient is", "How different the tokens are"


def said(page) -> str:
    return page.locator(".tl-said").inner_text()


def layers(page):
    return page.get_by_role("spinbutton", name="Layers")


def wire(page, name):
    page.get_by_role("radio", name=name, exact=True).check()


def test_each_wiring_has_its_fate_at_48_layers(show):
    page = show(DepthAndWiring())
    assert said(page).startswith("After layer 8 the tokens differ") and "where" not in said(page)
    layers(page).press("End")
    assert layers(page).inner_text() == "48"
    fates = {}
    for name in ("pre-norm", "post-norm", "residual, no norm", "norm, no residual", "neither"):
        wire(page, name)
        fates[name] = re.fullmatch(
            r"After layer 48 the tokens (.*): diversity .*\. (.*): .*", said(page)
        ).groups()
    assert fates["pre-norm"] == ("differ", "The gradient is alive")
    assert fates["residual, no norm"][1] == "The gradient explodes"
    assert fates["norm, no residual"] == ("are alike", "Yet the gradient is alive")
    assert fates["neither"] == ("are alike", "The gradient dies on its way back")


def test_the_keyboard_goes_from_depth_to_depth_and_from_wiring_to_wiring(show):
    page = show(DepthAndWiring())
    for key in ("Home", "ArrowRight", "ArrowUp", "ArrowLeft"):
        layers(page).press(key)
    assert layers(page).inner_text() == "4"
    assert page.get_by_role("button", name="Layers: less").is_enabled()
    assert said(page).startswith("After layer 4 ")  # the cursor stands at the top
    assert handle(page, GRADIENT).get_attribute("aria-valuemax") == "3"
    page.get_by_role("radio", name="pre-norm").focus()
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("radio", name="post-norm").is_checked()
    handle(page, GRADIENT).press("Home")
    assert said(page).endswith(f"in layer 1, where pre-norm has {legend(page)[1]}.")


def legend(page) -> list[str]:
    """What the gradient's plot reads at the cursor."""
    texts = page.locator(".tl-legend").first.locator("span").all_inner_texts()
    return [re.sub(r"^(this wiring|pre-norm) ", "", text) for text in texts]


def test_one_cursor_reads_both_plots(show):
    page = show(DepthAndWiring(wiring="neither", depth=48, layer=48))
    one, other = handle(page, GRADIENT), handle(page, DIVERSITY)
    assert other.get_attribute("aria-valuetext").startswith("layer 48: this wiring ")
    one.press("Home")
    assert other.get_attribute("aria-valuetext").startswith("layer 1: this wiring ")
    assert re.search(r"this wiring \d\.\d × 10⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+,", one.get_attribute("aria-valuetext"))
    box = other.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 16, box["y"] + 60)
    assert said(page).startswith("After layer 48 ")
    spots = page.locator(".tl-plot").first.locator(".tl-spot")
    page.mouse.move(box["x"] + 41, box["y"] + 60)
    assert said(page).startswith("After layer 1 ")
    assert spots.nth(0).bounding_box()["y"] > spots.nth(1).bounding_box()["y"] + 100  # far below pre-norm


def test_powers_of_ten_stand_beside_the_gradient_s_axis_and_letters_keep_their_room(show):
    page = show(DepthAndWiring(wiring="neither", depth=48), width=320)
    ticks = page.locator(".tl-plot").first.locator("text[text-anchor=end]")
    assert all(re.fullmatch(r"10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", text) for text in ticks.all_text_contents())
    field = page.locator(".tl-plot svg").first.bounding_box()
    assert all(tick.bounding_box()["x"] >= field["x"] - 1 for tick in ticks.all())


def test_what_changed_is_spoken_once_it_stands_still(show):
    page = show(DepthAndWiring())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    before = spoken.inner_text()
    assert before.startswith("pre-norm, 8 layers. After layer 8 ")
    wire(page, "neither")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert spoken.inner_text() == f"neither, 8 layers. {said(page)}"


def test_two_views_do_not_share_their_choice(show):
    page = show(DepthAndWiring(), DepthAndWiring(wiring="neither"))
    page.get_by_role("radio", name="post-norm").first.check()
    assert page.locator(":checked").count() == 2


def test_its_height_stays_whatever_is_chosen(show):
    for width in (320, 390, 1280):
        page = show(DepthAndWiring(), width=width)
        heights = set()
        for name in ("pre-norm", "residual, no norm", "neither"):
            wire(page, name)
            for key in ("Home", "End"):
                layers(page).press(key)
                heights.add(page.locator(".tl-widget").bounding_box()["height"])
        assert len(heights) == 1, (width, heights)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_all_fits_and_axe_finds_nothing(show, width, theme):
    page = show(DepthAndWiring(wiring="neither", depth=48), width=width, theme=theme)
    assert is_amiss(page) == []
