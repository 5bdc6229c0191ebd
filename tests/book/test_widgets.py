"""The widgets and their host in a real browser, on a page that the test writes: no built book is needed."""

import re

import pytest

from tests.widgets.assets import load, page_scripts
from transformer_lab import widgets
from transformer_lab.widgets import AttentionScaling, NumberReaderHeads, QueryKeyValue
from transformer_lab.widgets._asset import asset_scripts

from .widget_page import drag, handle, is_amiss, legend, listeners, middle, place, record

pytestmark = pytest.mark.browser

MODEL_FILE = "_static/models/number_reader.0.js"


def weights(page) -> dict[str, float]:
    rows = page.get_by_role("row").all()[1:]
    numbers = [float(row.get_by_role("cell").last.inner_text()) for row in rows]
    return dict(zip([row.get_by_role("rowheader").inner_text() for row in rows], numbers, strict=True))


# One query, its keys and values


def test_dragging_moves_one_arrow_and_all_that_follows(show):
    page = show(QueryKeyValue())
    before, out = weights(page), page.locator(".tl-out").get_attribute("cx")
    assert before == {"the": 0.04, "cat": 0.39, "sat": 0.51, "down": 0.06}
    unit = page.locator(".tl-plane").first.bounding_box()["width"] / 364 * 160 / 3
    drag(page, "query of sat", -0.4 * unit, -1.4 * unit)
    assert place(page, "query of sat") == [0.9, 1.6]
    assert place(page, "key of sat") == [1.6, -1.1]
    assert weights(page)["cat"] > 0.8 and sum(weights(page).values()) == pytest.approx(1, abs=0.02)
    assert page.locator(".tl-out").get_attribute("cx") != out
    drag(page, "value of cat", 0, unit)
    assert place(page, "value of cat") == [-0.8, 1.2]


def test_of_arrows_that_overlap_the_nearest_is_taken(show):
    page = show(QueryKeyValue(q=[1.0, 1.5]))
    drag(page, "key of cat", -20, -20)
    assert place(page, "query of sat") == [1.0, 1.5] or place(page, "key of cat") == [0.9, 1.6]
    assert [place(page, "query of sat"), place(page, "key of cat")] != [[1.0, 1.5], [0.9, 1.6]]


def test_an_arrow_stays_on_its_plane(show):
    page = show(QueryKeyValue())
    drag(page, "query of sat", 900, -900)
    assert place(page, "query of sat") == [3.0, 3.0]


def test_a_thumb_drags_without_scrolling_the_page(show):
    page = show(QueryKeyValue(), width=360, has_touch=True, is_mobile=True)
    x, y = middle(handle(page, "query of sat").locator(".tl-hit"))
    devtools = page.context.new_cdp_session(page)
    moves = [("touchMove", -10), ("touchMove", -30), ("touchMove", -60)]
    for kind, dx in [("touchStart", 0), *moves, ("touchEnd", None)]:
        points = [] if dx is None else [{"x": x + dx, "y": y + dx}]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.evaluate("new Promise(requestAnimationFrame)")  # the browser gathers the moves of one frame
    assert place(page, "query of sat")[0] < 0.5 and place(page, "query of sat")[1] > 1
    assert page.evaluate("scrollY") == 0


def test_arrow_keys_move_what_has_the_focus(show):
    page = show(QueryKeyValue())
    handle(page, "key of the").focus()
    for keys in ("ArrowRight", "ArrowUp", "Shift+ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(keys)
    assert place(page, "key of the") == [-1.9, 0.2]
    for _ in range(5):
        page.keyboard.press("Shift+ArrowLeft")
    assert place(page, "key of the") == [-3.0, 0.2]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "key of cat"


def test_dividing_by_more_flattens_and_reset_brings_all_back(show):
    page = show(QueryKeyValue())
    start = weights(page)
    slider = handle(page, "Divide by")
    assert slider.get_attribute("aria-valuetext") == "1.41 = √dₖ"
    slider.focus()
    page.keyboard.press("End")
    assert max(weights(page).values()) < 0.3
    page.keyboard.press("Home")
    assert max(weights(page).values()) > 0.9
    drag(page, "value of the", 30, 30)
    page.get_by_role("button", name="Reset").click()
    assert weights(page) == start and place(page, "value of the") == [-2.3, -0.9]
    assert slider.get_attribute("aria-valuetext") == "1.41 = √dₖ"


def test_the_coach_sees_what_the_reader_does(show):
    page = show(QueryKeyValue())
    coach = page.locator(".tl-coach")
    assert "Try this first" in coach.inner_text()
    height = coach.bounding_box()["height"]
    for keys in ["ArrowUp"] * 14 + ["ArrowLeft"] * 4:
        handle(page, "query of sat").press(keys)
    assert "✓" in coach.inner_text() and "points the way" in coach.inner_text()
    assert coach.bounding_box()["height"] == height
    coach.get_by_role("button", name="Next").click()
    assert "2" in coach.inner_text() and "as far as you can" in coach.inner_text()
    for _ in range(3):
        coach.get_by_role("button", name="Skip").or_(coach.get_by_role("button", name="Again")).click()
    assert "Try this first" in coach.inner_text()


def test_screen_readers_hear_it_once_it_stands_still(show):
    page = show(QueryKeyValue())
    page.clock.install()
    spoken = page.locator(".tl-spoken")
    before = spoken.inner_text()
    assert before.startswith("Query (1.30, 0.20).")
    handle(page, "query of sat").press("ArrowUp")
    assert spoken.inner_text() == before
    page.clock.fast_forward(1000)
    assert re.search(r"Query \(1\.30, 0\.30\)\. Weights: the 0\.\d\d, .* Output \(", spoken.inner_text())


# Why scores are divided


def shares(page) -> list[float]:
    return [float(text.split()[-1]) for text in page.get_by_role("option").all_inner_texts()]


def test_a_wider_query_sharpens_the_softmax_and_dividing_undoes_it(show):
    page = show(AttentionScaling())
    width, switch = page.get_by_role("spinbutton", name="dₖ"), page.get_by_role("switch")
    assert width.get_attribute("aria-valuetext") == "4" and len(shares(page)) == 8
    before = legend(page)
    width.press("End")
    assert width.inner_text() == "256" and page.get_by_role("button", name="dₖ: more").is_disabled()
    assert max(shares(page)) > 0.9 and legend(page)[0] > 0.9 > 0.5 > legend(page)[1]
    switch.press("Space")
    assert max(shares(page)) < 0.9 and "divided" in page.locator(".tl-said").inner_text()
    page.get_by_role("button", name="dₖ: less").click()
    assert width.inner_text() == "128"
    width.press("Home")
    for key in ("ArrowUp", "ArrowRight", "ArrowRight", "ArrowLeft"):
        width.press(key)
    assert legend(page) == before


def test_fewer_keys_share_among_fewer(show):
    page = show(AttentionScaling())
    keys = handle(page, "Keys")
    keys.press("Home")
    assert keys.get_attribute("aria-valuetext") == "2" and sum(shares(page)) == pytest.approx(1, abs=0.011)
    keys.press("End")
    assert len(shares(page)) == 12


def test_the_strip_and_another_draw(show):
    page = show(AttentionScaling())
    first, said = shares(page), page.locator(".tl-said")
    assert said.inner_text().startswith("The largest weight goes to key 4")
    page.get_by_role("option").nth(6).hover()
    assert said.inner_text().startswith("Key 7 has q · k = ")
    page.get_by_role("option").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "End", "ArrowRight"):
        page.keyboard.press(key)
    assert said.inner_text().startswith("Key 8")
    assert page.locator("[role=option][aria-selected=true]").inner_text().startswith("key 8")
    assert page.locator("[role=option][tabindex='0']").count() == 1
    page.get_by_role("button", name="Another draw").click()
    assert shares(page) != first and "largest weight goes to" in said.inner_text()


def test_the_plot_has_a_cursor_that_reads_its_lines(show):
    page = show(AttentionScaling())
    plot = handle(page, "The largest of the weights")
    one, other = legend(page)
    assert plot.get_attribute("aria-valuetext") == f"dₖ 4: q · k {one:.2f}, q · k ÷ √dₖ {other:.2f}"
    plot.press("ArrowRight")
    assert page.get_by_role("spinbutton").inner_text() == "8"
    plot.press("Home")
    assert page.get_by_role("spinbutton").inner_text() == "1" and legend(page)[0] == legend(page)[1]
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 80)
    assert page.get_by_role("spinbutton").inner_text() == "256"
    spots = page.locator(".tl-spot")
    assert spots.nth(0).bounding_box()["y"] < spots.nth(1).bounding_box()["y"]
    page.set_viewport_size(
        {"width": 360, "height": 800}
    )  # letters keep their size, the lines take the room there is
    page.wait_for_function("() => document.querySelector('.tl-plot line').getAttribute('x2') < 330")
    assert page.locator(".tl-plot text").first.evaluate("(text) => getComputedStyle(text).fontSize") == "12px"


@pytest.mark.parametrize(("motion", "running"), [("reduce", 0), ("no-preference", 1)])
def test_nothing_moves_by_itself_for_who_asked_for_less_motion(show, motion, running):
    page = show(AttentionScaling(), reduced_motion=motion)
    moving = page.evaluate("""() => {
        document.querySelector("[role=switch]").click();
        return document.getAnimations().length;
    }""")
    assert moving == running


# The trained model


def load_model(page, nth=0):
    page.get_by_role("button", name="Load the model").nth(nth).click()
    page.locator(".tl-picture").nth(nth).wait_for()


def digits(page) -> str:
    return "".join(page.locator(".tl-digit b").all_inner_texts())


def lit(page) -> list[str]:
    """The words of the strip that have more than half of the weight."""
    items = [item.split() for item in page.locator(".tl-strip [role=option]").all_inner_texts()]
    return [word for word, weight in items if float(weight) > 0.5]


@pytest.mark.parametrize("from_file", [False, True])
def test_the_model_loads_when_asked_and_reads_what_is_typed(show, from_file):
    page = show(NumberReaderHeads(), from_file=from_file)
    assert "17 KB" in page.get_by_role("button", name="Load").inner_text()
    assert page.locator("script[src*=models]").count() == 0
    load_model(page)
    assert digits(page) == "342107" and "as the words say" in page.locator(".tl-truth").inner_text()
    page.get_by_role("textbox").fill("Nine hundred thousand and seventeen")
    assert digits(page) == "900017"
    page.get_by_role("button", name="twelve").click()
    assert digits(page) == "000012"
    assert page.locator(".tl-strip [role=option]").count() == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("forty million", "The model never learned “million”"),
        ("  ", "There is no word here"),
        ("one " * 12, "These are 12 words: the model reads at most 11."),
    ],
)
def test_what_cannot_be_read_leaves_the_picture_and_says_why(show, text, sentence):
    page = show(NumberReaderHeads())
    load_model(page)
    page.get_by_role("textbox").fill(text)
    page.get_by_text(sentence).wait_for()
    assert digits(page) == "342107" and page.locator("[aria-invalid=true]").count() == 1
    page.get_by_role("textbox").fill("seven")
    assert digits(page) == "000007" and page.locator("[aria-invalid=true]").count() == 0
    assert page.get_by_text(sentence).count() == 0


def test_what_was_typed_before_loading_is_read_after_it(show):
    page = show(NumberReaderHeads())
    page.get_by_role("textbox").fill("eighty one")
    load_model(page)
    assert digits(page) == "000081"


def test_words_that_are_not_a_number_are_called_so(show):
    page = show(NumberReaderHeads())
    load_model(page)
    page.get_by_role("textbox").fill("one one")
    assert "these words are not one number" in page.locator(".tl-truth").inner_text()


def test_each_digit_lights_the_word_it_looks_at(show):
    page = show(NumberReaderHeads())
    load_model(page)
    for nth, word in [(0, "three"), (2, "two"), (3, "one"), (5, "seven")]:
        page.locator(".tl-digit").nth(nth).hover()
        assert lit(page) == [word]
    page.get_by_role("radio", name="3").focus()
    page.keyboard.press("ArrowRight")
    assert lit(page) == ["forty"]
    assert "the ten thousands digit, 4, looks most at “forty”" in page.locator(".tl-caption").inner_text()


def test_heads_and_self_attention_are_shown_on_demand(show):
    page = show(NumberReaderHeads())
    load_model(page)
    assert page.get_by_role("grid").count() == 2
    page.get_by_label("2", exact=True).check()
    assert page.get_by_role("grid").get_attribute("aria-label") == "Head 2: digits looking at words"
    assert page.get_by_role("rowheader").count() == 6
    page.get_by_label("words", exact=True).check()
    assert page.get_by_role("rowheader").count() == page.get_by_role("columnheader").count() == 11
    page.locator(".tl-strip [role=option]").nth(3).hover()
    assert "In head 2, “forty” looks most at" in page.locator(".tl-caption").inner_text()
    number = page.locator(".tl-map:visible .tl-cell span").first
    assert number.bounding_box()["width"] <= 1
    page.get_by_role("switch", name="Numbers").check()
    assert number.bounding_box()["width"] > 5


def test_the_heat_map_has_a_cursor(show):
    page = show(NumberReaderHeads())
    load_model(page)
    assert page.locator(".tl-cell[tabindex='0']").count() == 2  # one stop of the tab key for each map
    page.locator(".tl-cell[tabindex='0']").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    caption = page.locator(".tl-caption").inner_text()
    assert re.search(r"the hundred thousands digit, 3, gives “and” a weight of 0\.\d\d\.", caption)
    assert page.locator(".tl-cell.tl-on").count() == 2  # the same cell in both heads
    assert page.get_by_role("radio", name="3").is_checked()


def test_a_model_that_does_not_come_is_missed_in_one_sentence(show):
    page = show(NumberReaderHeads(), faults=True)
    page.route(f"**/{MODEL_FILE}", lambda route: route.abort())
    page.get_by_role("button", name="Load the model").click()
    page.get_by_text("could not be loaded: check the connection and try again.").wait_for()
    page.unroute(f"**/{MODEL_FILE}")
    load_model(page)
    assert digits(page) == "342107"


def test_who_waits_in_vain_is_told_what_to_do(show):
    page = show(NumberReaderHeads())
    page.clock.install()
    waiting = []
    page.route(f"**/{MODEL_FILE}", lambda route: waiting.append(route))
    with page.expect_request(f"**/{MODEL_FILE}"):
        page.get_by_role("button", name="Load the model").click()
    page.clock.fast_forward(7000)
    assert page.get_by_text("Loading").count() == 1 and page.get_by_text("No answer yet").count() == 0
    page.clock.fast_forward(1500)
    assert "run the cell above" in page.get_by_text("No answer yet").inner_text()
    waiting[0].continue_()  # late, but welcome
    page.locator(".tl-picture").wait_for()


# The host


def test_views_of_one_model_move_together_and_models_do_not(show):
    one, other = NumberReaderHeads(), NumberReaderHeads(text="twelve")
    page = show(one, other, one)
    page.wait_for_function("() => document.querySelectorAll('.tl-widget').length === 3")
    load_model(page)
    page.locator(".tl-picture").nth(2).wait_for()
    assert page.locator(".tl-picture:visible").count() == 2  # the other model was not asked for
    page.get_by_role("textbox").first.fill("seven")
    texts = [box.input_value() for box in page.get_by_role("textbox").all()]
    assert texts == ["seven", "twelve", "seven"]
    page.get_by_role("textbox").first.fill("sevven")
    page.get_by_text("never learned").wait_for()
    page.get_by_role("textbox").last.fill("eight")
    assert page.get_by_text("never learned").count() == 0  # with the text, its fault is gone from every view
    load_model(page)  # the remaining button
    page.locator(".tl-digits").nth(1).get_by_role("radio", name="2").check()
    checked = page.locator(".tl-digits").nth(0).locator(":checked").count()
    assert checked == 1  # radio buttons of several views are separate groups


def test_a_broken_widget_says_so_and_leaves_the_others_alone(show):
    broken = {
        "throws": record("export default { render() { throw new Error('no luck'); } };"),
        "cannot be read": record("export default {"),
        "foreign": {"model_module": "@jupyter-widgets/controls", "state": {"value": 1}},
    }
    page = show(QueryKeyValue(), extra=broken, faults=True)
    places = page.locator(".widget")
    page.get_by_text("This widget could not start").nth(1).wait_for()
    assert places.nth(1).inner_text() == "This widget could not start: no luck"
    assert places.nth(2).inner_text().startswith("This widget could not start: ")
    assert places.nth(3).inner_text() == ""
    handle(page, "query of sat").press("ArrowUp")
    assert place(page, "query of sat") == [1.3, 0.3]


LIVES = """
const say = (word) => { globalThis.said = [...(globalThis.said ?? []), word]; };
export default {
  initialize() { say("model begins"); return () => say("model ends"); },
  render({ el }) { el.className = "tl-widget"; say("view begins"); return () => say("view ends"); },
};"""


def test_a_view_that_leaves_the_page_is_ended_and_with_the_last_view_its_model(show, tmp_path):
    page = show(extra={"lives": record(LIVES)})
    page.wait_for_function("() => globalThis.said?.length === 2")
    page.evaluate("document.querySelector('.widget').remove()")
    page.wait_for_function("() => said.length === 4")
    assert page.evaluate("said") == ["model begins", "view begins", "view ends", "model ends"]


def test_a_large_model_comes_in_parts_and_shows_how_far_it_is(show, tmp_path):
    vocabulary = [f"word {i} of many" for i in range(20_000)]
    scripts = asset_scripts("large", {"vocabulary": vocabulary})
    assert len(scripts) > 5
    esm = """export default { render({ model, el }) {
      el.className = "tl-widget";
      const seen = [];
      model.on("change:asset_progress", () => seen.push(model.get("asset_progress")));
      model.on("change:asset_data", () => {
        const { error, vocabulary } = model.get("asset_data");
        el.textContent = error ?? `${vocabulary.length} words: ${seen.map((share) => share.toFixed(2))}`;
      });
      globalThis.ask = () => model.set("asset_wanted", true);
    } };"""
    page = show(extra={"large": record(esm, state={"asset": "large"})}, faults=True)
    asked = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    for i, script in enumerate(scripts[:-1]):
        (tmp_path / "_static" / "models" / f"large.{i}.js").write_text(script, "utf8")
    page.evaluate("ask()")
    page.get_by_text("could not be loaded").wait_for()
    (tmp_path / "_static" / "models" / f"large.{len(scripts) - 1}.js").write_text(scripts[-1], "utf8")
    del asked[:]
    page.evaluate("ask()")
    page.get_by_text("20000 words").wait_for()
    assert asked == [f"large.{len(scripts) - 1}.js"]  # what is here is not asked for again
    shares = [float(share) for share in page.locator(".tl-widget").inner_text().split(": ")[1].split(",")]
    assert shares[-1] == 1 and len(set(shares)) > 5


def test_binary_values_are_decoded(show):
    esm = """export default { render({ model, el }) {
      const view = model.get("nested").list[1];
      el.className = "tl-widget";
      el.textContent = `${view instanceof DataView} ${view.getUint8(0)} ${view.byteLength}`;
    } };"""
    buffers = [{"path": ["nested", "list", 1], "encoding": "base64", "data": "KgECAw=="}]
    page = show(extra={"binary": record(esm, state={"nested": {"list": [0, None]}}, buffers=buffers)})
    page.get_by_text("true 42 4").wait_for()


HANDLERS = {  # of the model's changes, by widget
    "AttentionScaling": 3,
    "ComputeBudget": 2,
    "CostCalculator": 6,
    "DepthAndWiring": 3,
    "FlashTiles": 8,
    "GradientAndDistance": 3,
    "InductionHeads": 5,
    "MaskPainter": 3,
    "NumberReaderHeads": 5,
    "NumberTranslator": 6,
    "QueryKeyValue": 4,
    "ReluKnots": 4,
    "RotaryDials": 3,
    "SelectiveState": 4,
    "SinusoidHands": 3,
    "TokenWalk": 8,
    "WindowReach": 7,
}
LISTENERS = {"ComputeBudget": 4}  # more than these are in the view: five, but where there is one control


@pytest.mark.parametrize("name", widgets.__all__)
def test_clean_up_leaves_nothing_behind(show, name):
    widget = getattr(widgets, name)()
    asset = getattr(widget, "asset", "number_reader")
    page = show(widget)
    page.evaluate(
        """async (data) => {
          const text = JSON.parse(document.querySelector('script[type*="widget-state"]').textContent);
          const record = Object.values(text.state).find(({ state }) => state._esm);
          const state = { ...record.state, asset_data: data };
          globalThis.handlers = new Set();
          const key = (event, handler) => JSON.stringify([event, (handler.number ??= Math.random())]);
          const model = {
            get: (name) => state[name], set() {}, save_changes() {},
            on: (event, handler) => handlers.add(key(event, handler)),
            off: (event, handler) => handlers.delete(key(event, handler)),
          };
          const blob = new Blob([state._esm], { type: "text/javascript" });
          const module = await import(URL.createObjectURL(blob));
          globalThis.sheets = document.adoptedStyleSheets.length;
          globalThis.place = document.createElement("div");
          document.body.append(place);
          globalThis.clean = module.default.render({ model, el: place });
          globalThis.view = place.firstChild;
        }""",
        load(page_scripts(asset), asset),
    )
    assert listeners(page) > LISTENERS.get(name, 5) and page.evaluate("handlers.size") == HANDLERS[name]
    page.evaluate("clean()")
    assert listeners(page) == 0
    assert page.evaluate("[handlers.size, place.childElementCount]") == [0, 0]
    assert page.evaluate("document.adoptedStyleSheets.length === sheets")


@pytest.mark.parametrize("name", widgets.__all__)
def test_jupyterlab_is_told_to_leave_the_keys_of_every_input_alone(show, name):
    """Its notebook takes the arrows for its own otherwise: it asks the input itself, then what holds it."""
    page = show(getattr(widgets, name)())
    page.locator(".tl-widget").wait_for()
    silent = "input:not([data-lm-suppress-shortcuts='true'])"
    assert (
        page.locator(f".tl-widget {silent}, .tl-widget:not([data-lm-suppress-shortcuts='true'])").count() == 0
    )
    assert page.locator(".tl-widget input, .tl-widget [tabindex]").count() > 0


# Everyone, everywhere


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_all_fits_and_axe_finds_nothing(show, width, theme):
    page = show(QueryKeyValue(), AttentionScaling(), NumberReaderHeads(), width=width, theme=theme)
    for step in ("as it opens", "with the model"):
        assert is_amiss(page) == [], step
        if step == "as it opens":
            load_model(page)
            page.get_by_role("switch", name="Numbers").check()
            page.get_by_role("textbox").fill("forty millions")
            page.get_by_text("never learned").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_follow_the_page(show, theme):
    page = show(QueryKeyValue(), theme=theme)
    ground = page.locator(".tl-widget").evaluate("(e) => getComputedStyle(e).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(24, 27, 32)"}[theme]
