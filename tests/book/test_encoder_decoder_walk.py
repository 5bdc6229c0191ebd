"""The walk through the Transformer in a browser: by buttons, keyboard and map, on both sides."""

import pytest

from transformer_lab.widgets import TokenWalk
from transformer_lab.widgets.encoder_decoder_walk import station_names

from .widget_page import is_amiss

pytestmark = pytest.mark.browser


@pytest.fixture
def walk(show):
    """``walk(width=..., theme=..., **traits)`` -> a page whose widget has loaded its model."""

    def begin(width=1280, theme="light", **traits):
        page = show(TokenWalk(**traits), width=width, theme=theme)
        page.get_by_role("button", name="Load the model").click()
        page.locator(".tl-panel").wait_for()
        return page

    return begin


def lit(page) -> str:
    return page.locator(".tl-arch [aria-current]").get_attribute("aria-label")


def at(page) -> str:
    return page.locator(".tl-nav .tl-number").inner_text()


def title(page) -> str:
    return page.locator(".tl-title").inner_text()


def test_it_opens_where_the_notebook_says_and_walks_to_both_ends(walk):
    page = walk(side="decoder", token=2, station="layer 2 cross-attention weights")
    names = station_names("decoder", 2)
    here = names.index("layer 2 cross-attention weights") + 1
    assert at(page) == f"{here} of {len(names)}" and lit(page) == "decoder, layer 2 cross-attention"
    assert page.get_by_role("radio", name="decoder: und").is_checked()
    back, onward = (page.get_by_role("button", name=name) for name in ("Back", "Next"))
    for _ in range(here - 1):
        back.click()
    back.click(force=True)  # there is nothing before
    assert at(page) == f"1 of {len(names)}" and lit(page) == "decoder, token"
    for _ in names[1:]:
        onward.click()
    onward.click(force=True)
    assert at(page) == f"{len(names)} of {len(names)}" and lit(page) == "decoder, probabilities"
    assert "the likeliest token is “zwan”" in page.locator(".tl-said").inner_text()


def test_the_arrow_keys_walk_and_go_from_box_to_box(walk):
    page = walk(token=0)
    page.get_by_role("button", name="Next").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert title(page) == "Where it stands" and at(page) == "3 of 27"
    page.locator(".tl-arch [aria-current]").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert lit(page) == "encoder, layer 1 self-attention" and at(page) == "5 of 27"
    page.keyboard.press("ArrowRight")
    assert title(page) == "Scores"  # in the same box
    page.keyboard.press("ArrowDown")
    assert lit(page) == "encoder, layer 1 self-attention norm"


def test_a_box_of_the_map_is_a_place_to_go_to_on_either_side(walk):
    page = walk(token=0)
    page.get_by_role("button", name="decoder, layer 1 cross-attention sum").click()
    assert title(page) == "Add to the stream" and at(page).endswith("of 42")
    assert page.get_by_role("radio", name="decoder: <bos>").is_checked()
    page.get_by_role("radio", name="decoder: zig").check(force=True)
    assert lit(page) == "decoder, layer 1 cross-attention sum"  # another token, the same station
    page.get_by_role("button", name="encoder, memory").click()
    assert page.get_by_role("radio", name="encoder: ▁twenty").is_checked()
    page.get_by_role("button", name="decoder, token").click()
    assert page.get_by_role("radio", name="decoder: zig").is_checked()  # who walked there last


def test_heads_one_at_a_time_and_what_is_masked(walk):
    page = walk(side="decoder", token=2, station="layer 1 self-attention scores")
    rows = page.locator(".tl-strips tbody tr")
    cells = [row.inner_text().split() for row in rows.all()]
    assert [words[0] for words in cells] == ["<bos>", "▁ein", "und", "zwan", "zig"]
    assert [words[1] == "masked" for words in cells] == [False, False, False, True, True]
    first = [words[1] for words in cells]
    page.get_by_role("spinbutton", name="Head").press("End")
    assert [row.inner_text().split()[1] for row in rows.all()][:3] != first[:3]
    page.get_by_role("spinbutton", name="Head").press("ArrowLeft")  # its own key
    assert title(page) == "Scores"


def test_all_numbers_are_there_on_demand(walk):
    page = walk(station="position")
    some = page.locator(".tl-some").last
    assert len(some.inner_text().replace("…", "").split()) == 5
    page.get_by_label("All numbers").check()
    assert len(some.inner_text().split()) == 96


def test_another_number_walks_at_once_and_a_stranger_is_named(walk):
    page = walk(token=1, station="memory")
    field = page.get_by_label("A number, in figures")
    field.fill("three hundred and forty-two")
    assert "“dreihundertzweiundvierzig”, as it should. ✓" in page.locator(".tl-written").inner_text()
    assert page.get_by_role("radio", name="encoder: ▁hundred").is_checked()
    field.fill("forty-twoo")
    page.get_by_text("The model never learned “twoo”").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    field.fill("7")
    assert page.get_by_role("radio", name="encoder: ▁seven").is_checked()  # there is no second token now
    assert field.get_attribute("aria-invalid") is None


def test_on_a_phone_the_map_is_folded(walk):
    page = walk(width=360)
    assert not page.locator(".tl-arch").is_visible()
    page.get_by_role("button", name="Show the map").click()
    page.get_by_role("button", name="decoder, layer 2 feed-forward", exact=True).click()
    assert title(page) == "Hidden units"
    page.get_by_role("button", name="Fold the map").click()
    assert not page.locator(".tl-arch").is_visible()


def test_screen_readers_hear_the_station(walk):
    page = walk()
    page.clock.install()
    page.get_by_role("button", name="Next").click()
    page.clock.fast_forward(1000)
    spoken = page.locator(".tl-spoken").inner_text()
    assert spoken.startswith("Encoder. A row of the table, 2 of 27. The id picks a row")


def test_two_views_walk_together_and_another_widget_alone(show):
    widget = TokenWalk()
    page = show(widget, TokenWalk(), widget)
    for i in (0, 1):  # the third is a view of the first
        page.locator(".tl-load button").nth(i).click()
        page.locator(".tl-panel").nth(i).wait_for()
    page.get_by_role("button", name="Next").first.click()
    assert page.locator(".tl-nav .tl-number").all_inner_texts() == ["2 of 27", "1 of 27", "2 of 27"]
    assert page.locator(".tl-chip input:checked").count() == 3


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_all_fits_and_axe_finds_nothing(walk, width, theme):
    page = walk(width=width, theme=theme, text="77,777")
    if width < 600:
        page.get_by_role("button", name="Show the map").click()
    for name in (
        "decoder, token",
        "encoder, layer 1 self-attention",
        "encoder, memory",
        "decoder, layer 2 feed-forward",
        "decoder, probabilities",
    ):
        page.get_by_role("button", name=name, exact=True).click()
        assert is_amiss(page) == []
