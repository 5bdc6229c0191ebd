"""The widget of the chapter on generation in a real browser."""

import re
from itertools import product

import pytest

from tests.js.translator_cases import silence
from transformer_lab.translator import pretrained
from transformer_lab.widgets import NumberTranslator
from transformer_lab.widgets.generation_translator import EXAMPLE

from .widget_page import is_amiss

pytestmark = pytest.mark.browser
ENGLISH = "twenty one thousand three hundred and forty five"
GERMAN = "einundzwanzigtausenddreihundertfünfundvierzig"


@pytest.fixture(scope="module")
def fatal():
    """A head of the decoder that the model needs for its example, and what it writes without that."""
    translator = pretrained("number_words")
    for kind, name in (("cross", "cross-attention"), ("decoder", "self-attention of the decoder")):
        for layer, head in product(range(2), range(4)):
            hook = silence(translator.model, kind, layer, head)
            [written] = translator.translate([ENGLISH], beam_size=4)
            hook.remove()
            if written != GERMAN:
                return f"head {head + 1} of the {name}, layer {layer + 1}", written
    return pytest.fail("the model needs none of these heads for its example")


def loaded(show, *widgets, **options):
    page = show(*(widgets or [NumberTranslator()]), **options)
    page.get_by_role("button", name="Load the model").first.click()
    page.locator(".tl-picture").first.wait_for()
    return page


def text(page, name) -> str:
    """What a paragraph says, without the hyphens that only a line's end shows."""
    return page.locator(f".tl-{name}:visible").first.inner_text().replace("\u00ad", "")


def look_at(page, name):
    page.get_by_role("radio", name=name).check()


def hypotheses(page) -> list[str]:
    return [row.replace("\u00ad", "") for row in page.locator("tbody th").all_inner_texts()]


def nodes(page, kind="") -> list[str]:
    return page.locator(f".tl-tree g{kind} text:first-of-type").all_text_contents()


@pytest.mark.parametrize("from_file", [False, True])
def test_the_model_loads_when_asked_and_translates_what_is_typed(show, from_file):
    page = show(NumberTranslator(), from_file=from_file)
    assert "662 KB" in page.get_by_role("button", name="Load").inner_text()
    assert page.locator("script[src*=models]").count() == 0
    page.get_by_role("textbox").press("Enter")  # in a hurry
    page.locator(".tl-picture").wait_for()
    assert text(page, "english") == f"{ENGLISH} →" and text(page, "german") == GERMAN
    assert text(page, "verdict") == "That is 21,345, and right. ✓"
    page.get_by_role("textbox").fill("Forty-two")
    assert text(page, "english") == "forty two →" and text(page, "german") == "zweiundvierzig"
    page.get_by_role("button", name="121,345").click()
    assert "below 100,000 only" in text(page, "verdict")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [("forty million", "never learned “million”"), (" ", "no word here"), ("1,000,000", "below a million")],
)
def test_what_cannot_be_read_leaves_the_picture_and_says_why(show, typed, sentence):
    page = loaded(show)
    page.get_by_role("textbox").fill(typed)
    page.get_by_text(sentence).wait_for()
    assert text(page, "german") == GERMAN and page.locator("[aria-invalid=true]").count() == 1
    page.get_by_role("textbox").fill("342")
    assert text(page, "german") == "dreihundertzweiundvierzig"
    assert page.locator("[aria-invalid=true]").count() == 0


def test_what_was_typed_before_loading_is_read_after_it(show):
    page = show(NumberTranslator())
    page.get_by_role("textbox").fill("801")
    page.get_by_role("button", name="Load the model").click()
    page.locator(".tl-picture").wait_for()
    assert text(page, "german") == "achthunderteins"


def test_cross_attention_is_shown_by_layer_and_head(show):
    page = loaded(show)
    assert "to write “ein”, the decoder looks at “one” (" in text(page, "said")
    grid = page.get_by_role("grid")
    assert grid.get_by_role("columnheader").all_inner_texts()[:2] == ["twenty", "one"]
    assert grid.get_by_role("rowheader").all_inner_texts()[:4] == ["ein", "und", "zwan", "zig"]
    page.get_by_label("2", exact=True).last.check()  # of the heads
    assert text(page, "said").startswith("Layer 1, head 2: to write “ein”, the decoder looks at ")
    page.get_by_label("2", exact=True).first.check()  # of the layers
    assert text(page, "said").startswith("Layer 2, head 2: ")
    page.mouse.move(0, 0)  # cells that scroll by under a resting mouse would be pointed at
    page.locator(".tl-cell:visible[tabindex='0']").focus()
    for key in (*["ArrowUp"] * 12, *["ArrowLeft"] * 8, "ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert re.search(r"to write “zwan”, the decoder gives “one” a weight of 0\.\d\d\.", text(page, "said"))
    number = page.locator(".tl-map:visible .tl-cell span").first
    page.get_by_role("switch", name="Numbers").check()
    assert number.bounding_box()["width"] > 5


def test_the_encoder_makes_alike_what_belongs_together(show):
    page = loaded(show)
    look_at(page, "the encoder")
    likeness = r"The state of “twenty” is most like that of “\w+”: cosine 0\.\d\d\."
    assert re.fullmatch(likeness, text(page, "said"))
    before = page.locator(".tl-cell:visible").nth(1).get_attribute("style")
    assert "var(--plus)" in before
    look_at(page, "embedded")
    assert page.locator(".tl-cell:visible").nth(1).get_attribute("style") != before
    page.locator(".tl-map:visible .tl-cell").nth(7).hover()  # twenty and five
    assert "“twenty” compares with that of “five”" in text(page, "said")


def test_the_beam_is_a_tree_that_grows_and_shrinks(show):
    page = loaded(show)
    look_at(page, "the beam")
    assert len(hypotheses(page)) == 4 and len(nodes(page, ".tl-ended")) == 4
    assert hypotheses(page)[0] == text(page, "german")
    best = [name for name in nodes(page, ".tl-ahead") if name not in ("begin", "end")]
    assert "".join(best) == hypotheses(page)[0]
    everything = len(nodes(page))
    growth = page.get_by_role("slider", name="Step")
    assert growth.get_attribute("aria-valuetext") == "12 of 12"
    growth.press("Home")
    assert nodes(page) == ["begin"] and hypotheses(page) == []
    assert text(page, "said").startswith("Nothing is written yet")
    growth.press("ArrowRight")
    assert nodes(page)[:2] == ["begin", "ein"] and len(nodes(page)) == 5
    assert "After 1 step: 4 open. Ahead is “ein”" in text(page, "said")
    growth.press("ArrowLeft")
    assert nodes(page) == ["begin"]
    growth.press("End")
    assert len(nodes(page)) == everything


def test_the_beam_size_is_a_trait(show):
    page = loaded(show, NumberTranslator(beam_size=2))
    look_at(page, "the beam")
    assert len(hypotheses(page)) == 2
    size = page.get_by_role("spinbutton", name="Beam size")
    size.press("Home")
    assert hypotheses(page) == [text(page, "german")] and nodes(page)[-1] == "end"
    size.press("End")
    assert size.inner_text() == "6" and len(hypotheses(page)) == 6


def test_a_head_that_is_off_breaks_the_translation_and_the_verdict_says_what(show, fatal):
    page = loaded(show)
    name, written = fatal
    head = page.get_by_role("button", name=name)
    assert head.get_attribute("aria-pressed") == "true"
    assert page.locator("[aria-pressed]").count() == 24
    assert "All 24 heads are on." in text(page, "others")
    head.click()
    assert head.get_attribute("aria-pressed") == "false"
    assert text(page, "german") == written
    assert text(page, "verdict").startswith(f"That is wrong: {EXAMPLE} is “{GERMAN}”. ")
    page.get_by_text(re.compile(r"1 head is off\. Of 30 other numbers, \d+ are still right\.")).wait_for()
    page.get_by_role("button", name="17,001").click()
    assert head.get_attribute("aria-pressed") == "false"  # another number, the same heads
    page.get_by_role("button", name="All heads on").click()
    assert page.locator("[aria-pressed=false]").count() == 0
    assert page.get_by_role("button", name="All heads on").is_disabled()


def test_a_head_that_is_off_is_shown_with_a_remark(show):
    page = loaded(show)
    page.get_by_label("2", exact=True).last.check()  # of the heads
    assert "It is off" not in text(page, "said")
    page.get_by_role("button", name="head 2 of the cross-attention, layer 1").click()
    assert text(page, "said").endswith(" It is off: the decoder gets zeros instead of what it finds.")
    page.get_by_label("2", exact=True).first.check()  # of the layers
    assert "It is off" not in text(page, "said")


def test_every_head_can_be_off_and_the_widget_goes_on(show):
    page = loaded(show)
    for head in page.locator("[aria-pressed]").all():
        head.click()
    assert "✗" in text(page, "verdict")
    page.get_by_text("24 heads are off. Of 30 other numbers, 0 are still right.").wait_for()
    look_at(page, "the beam")
    assert page.locator(".tl-tree g").count() <= 1 + 20 * 4  # even what never ends is cut
    assert is_amiss(page) == []


def test_screen_readers_hear_verdict_and_view_once_they_stand_still(show):
    page = show(NumberTranslator())
    page.get_by_role("button", name="Load the model").click()
    page.locator(".tl-picture").wait_for()
    page.clock.install()
    page.get_by_role("button", name="17,001").click()
    page.clock.fast_forward(1000)
    spoken = page.locator(".tl-spoken").inner_text()
    assert spoken.startswith("That is 17,001, and right. ✓ Layer 1, on average")


def test_views_of_one_model_share_its_number_and_have_heads_of_their_own(show, fatal):
    one, other = NumberTranslator(), NumberTranslator(text="12")
    page = loaded(show, one, other, one)
    page.locator(".tl-picture").nth(2).wait_for()
    assert page.locator(".tl-picture:visible").count() == 2  # the other model was not asked for
    page.get_by_role("textbox").first.fill("342")
    assert [box.input_value() for box in page.get_by_role("textbox").all()] == ["342", "12", "342"]
    page.get_by_role("button", name=fatal[0]).first.click()
    assert page.locator("[aria-pressed=false]").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_all_fits_and_axe_finds_nothing(show, fatal, width, theme):
    page = show(NumberTranslator(text="77,777", beam_size=6), width=width, theme=theme)
    assert is_amiss(page) == []
    page.get_by_role("button", name="Load the model").click()
    page.locator(".tl-picture").wait_for()
    page.get_by_role("button", name=fatal[0]).click()
    page.get_by_text("other numbers, ").wait_for()
    for name in ("the encoder", "the cross-attention", "the beam"):
        look_at(page, name)
        assert is_amiss(page) == [], name
