"""A page that a test writes, with widgets as the book mounts them, and what a reader does there."""

import json
import re
import shutil
from pathlib import Path

from ipywidgets import Widget

from book._ext.policy import policy

from .accessibility import violations

ROOT = Path(__file__).resolve().parents[2]
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
HEAD = (
    '<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><title>Widgets</title>'
    f'<meta http-equiv="Content-Security-Policy" content="{policy(widgets=True)}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="icon" href="_static/favicon.svg"><script defer src="_static/widget-host.js"></script>'
    '<body style="margin: 1rem; color: #777; background: {ground}">'
)


def script(kind: str, data: dict) -> str:
    text = json.dumps(data).replace("</", r"<\/")
    return f'<script type="{kind}">{text}</script>'


def record(esm: str, **parts) -> dict:
    return {"model_module": "anywidget", "state": {"_esm": esm, **parts.pop("state", {})}, **parts}


def write_page(folder: Path, widgets: list, extra: dict, theme: str) -> None:
    """A page as the book builds it, that holds these widgets and these further records of widget state."""
    shutil.copytree(ROOT / "book" / "_assets", folder / "_static", dirs_exist_ok=True)
    state = Widget.get_manager_state(widgets=widgets)["state"] | extra
    ids = [widget.model_id for widget in widgets] + list(extra)
    views = "".join(f'<div class="widget">{script(VIEW, {"model_id": id_})}</div>' for id_ in ids)
    head = HEAD.format(theme=theme, ground={"light": "#fff", "dark": "#111"}[theme])
    body = f"<main><h1>Widgets</h1>{views}{script(STATE, {'state': state})}</main></html>"
    (folder / "page.html").write_text(head + body, "utf8")


def handle(page, name):
    return page.get_by_role("slider", name=name)


def middle(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, name, dx, dy):
    """Drag a handle by pixels, the way a hand does: not in one leap, and not quite from its middle."""
    x, y = (c + 3 for c in middle(handle(page, name).locator(".tl-hit")))
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(x + dx * step / 5, y + dy * step / 5)
    page.mouse.up()


def place(page, name) -> list[float]:
    text = handle(page, name).get_attribute("aria-valuetext").replace("−", "-")
    return [float(number) for number in re.findall(r"-?[\d.]+", text)]


def legend(page) -> list[float]:
    return [float(text.split()[-1]) for text in page.locator(".tl-legend span").all_inner_texts()]


def listeners(page) -> int:
    """What still listens in the view that ``globalThis.view`` holds, as the browser itself counts."""
    devtools = page.context.new_cdp_session(page)
    count = page.evaluate("globalThis.nodes = [view, ...view.querySelectorAll('*')]; nodes.length")
    total = 0
    for i in range(count):
        node = devtools.send("Runtime.evaluate", {"expression": f"nodes[{i}]"})["result"]["objectId"]
        total += len(devtools.send("DOMDebugger.getEventListeners", {"objectId": node})["listeners"])
    return total


# What reaches into its widget's padding, or beyond.
PARTS_OUTSIDE = """[...document.querySelectorAll(".tl-widget")].flatMap((widget) => {
  const { left, right } = widget.getBoundingClientRect();
  const room = (side) => parseFloat(getComputedStyle(widget)["padding" + side]);
  return [...widget.querySelectorAll("*:not(svg *)")].filter((part) => {
    const box = part.getBoundingClientRect();
    return box.width > 1 && (box.left < left + room("Left") || box.right > right - room("Right"));
  }).map((part) => part.outerHTML.slice(0, 120));
})"""


def is_amiss(page) -> list[str]:
    """What no reader should meet on the page: parts that do not fit, and what axe finds."""
    wide = page.evaluate("document.documentElement.scrollWidth") > page.viewport_size["width"]
    amiss = ["the page scrolls sideways"] if wide else []
    found = [f"{rule}: {html[0][:120]}" for rule, html in violations(page).items()]
    return amiss + page.evaluate(PARTS_OUTSIDE) + found
