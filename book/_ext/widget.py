"""Widgets in pages: a directive that puts one on a Markdown page, and what every page with a widget needs.

A widget that brings its own module works in the page. Other controls, such as the sliders of ipywidgets, do
nothing without a kernel: the page says so in their place, and where to find one.
"""

import html
import json
import re
from pathlib import Path

from docutils import nodes
from ipywidgets import Widget
from myst_nb.core.render import WIDGET_STATE_MIMETYPE, WIDGET_VIEW_MIMETYPE, sanitize_script_content
from sphinx.util.docutils import SphinxDirective

from transformer_lab import widgets

# How tall a widget will be with room for two columns and without, in CSS (100cqi are as wide as its place):
# kept free, so that nothing moves when it appears.
HEIGHTS = {
    "MaskPainter": ("40.7rem + 10cqi", "min(86.5rem, 118rem - 110cqi)"),
    "AttentionScaling": ("33.4rem", "58.5rem - 40cqi"),
    "CostCalculator": ("95rem - 56cqi", "max(200.7rem - 360cqi, 153.9rem - 162cqi)"),
    "ComputeBudget": ("33rem", "max(39.3rem, 58rem - 72cqi)"),
    "DepthAndWiring": ("max(35.35rem, 55.2rem - 40cqi)", "max(80.4rem - 61cqi, 135.5rem - 355cqi)"),
    "FlashTiles": ("79rem - 47cqi", "max(169.3rem - 300cqi, 121.8rem - 102cqi)"),
    "GradientAndDistance": (
        "60.6rem - 30cqi",
        "max(61.2rem, min(104.3rem - 133cqi, 147.4rem - 316cqi))",
    ),
    "InductionHeads": ("19.5rem", "39.2rem - 46cqi"),
    "QueryKeyValue": ("23rem + 50cqi", "min(29.5rem + 200cqi, 75.5rem)"),
    "NumberReaderHeads": ("18.8rem", "33.5rem - 28cqi"),
    "NumberTranslator": ("20.2rem", "max(20.4rem, 46rem - 75cqi)"),
    "ReluKnots": ("max(33.8rem, 8.8rem + 50cqi)", "61.5rem"),
    "RotaryDials": ("48rem", "66.2rem - 29cqi"),
    "SelectiveState": ("50.9rem", "max(113.7rem - 235cqi, 78rem - 65cqi)"),
    "SinusoidHands": ("41rem", "61rem"),
    "TokenWalk": ("19rem", "max(20.8rem, 45.2rem - 87cqi)"),
    "WindowReach": ("66.4rem - 46cqi", "max(139.5rem - 270cqi, 103.4rem - 100cqi)"),
}
NO_SCRIPT = "<noscript><p>This is a widget; it runs in your browser and needs JavaScript.</p></noscript>"


class WidgetDirective(SphinxDirective):
    """A widget of the package in its first state, as a notebook would store it."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        if name not in widgets.__all__:
            raise self.error(f"There is no widget {name}; there are {', '.join(widgets.__all__)}.")
        for path in Path(widgets.__file__).parent.iterdir():
            if path.suffix in (".js", ".py"):
                self.env.note_dependency(str(path))
        model_id = f"{name}-{self.env.new_serialno('widget')}"
        view = {"model_id": model_id, "version_major": 2, "version_minor": 0}
        text = script(WIDGET_VIEW_MIMETYPE, view) + script(
            WIDGET_STATE_MIMETYPE, stored(getattr(widgets, name)(), model_id)
        )
        return [nodes.raw("", text, format="html")]


def stored(widget, model_id):
    """The state of ``widget`` as Jupyter stores it, but for its random names: the same in every build."""
    whole = Widget.get_manager_state(widgets=[widget])
    record = whole["state"][widget.model_id]
    record["state"].pop("layout")
    return {**whole, "state": {model_id: record}}


def script(kind, data):
    return f'<script type="{kind}">{sanitize_script_content(json.dumps(data))}</script>'


def scripts(kind):
    return re.compile(rf'<script type="{re.escape(kind)}">(.*?)</script>', re.DOTALL)


def page_context(app, pagename, templatename, context, doctree):
    """Give each widget its place, and the page the script that starts them."""
    body = context.get("body", "")
    states = scripts(WIDGET_STATE_MIMETYPE).findall(body)
    states += [file.attributes["body"] for file in context["script_files"] if file.attributes.get("body")]
    records = {id_: record for text in states for id_, record in json.loads(text)["state"].items()}

    def place(view):
        state = records.get(json.loads(view[1])["model_id"], {}).get("state", {})
        return alive(view[0], state) if "_esm" in state else needs_kernel(context)

    context["body"] = scripts(WIDGET_VIEW_MIMETYPE).sub(place, body)
    if 'class="widget"' in context["body"]:
        app.add_js_file("widget-host.js", loading_method="defer")


def alive(view, state):
    wide, narrow = HEIGHTS.get(state["_anywidget_id"].rpartition(".")[2], ("0px", "0px"))
    style = f"--tall: {wide}; --tall-narrow: {narrow}"
    return f'<div class="room"><div class="widget" style="{style}">{NO_SCRIPT}{view}</div></div>'


def needs_kernel(context):
    ways = []
    if colab := context.get("launch", {}).get("Colab"):
        ways.append(f'<a href="{html.escape(colab)}">open this chapter in Colab</a>')
    if context.get("download"):
        notebook = html.escape(context["pathto"](context["download"], 1))
        ways.append(f'<a href="{notebook}" download>download it as a notebook</a>')
    where = f": {' or '.join(ways)} and run this cell." if ways else "."
    return f'<p class="needs-kernel">The control that stands here needs a running kernel{where}</p>'


def setup(app):
    app.add_directive("widget", WidgetDirective)
    app.connect("html-page-context", page_context)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
