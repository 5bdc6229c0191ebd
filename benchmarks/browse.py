"""What pages.py measures in a browser: what a page asks for, when a widget answers, what a frame costs."""

import asyncio
import json
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

from playwright.async_api import Browser, Locator, Page

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
KINDS = {"Document": "html", "Stylesheet": "style", "Script": "script", "Font": "font", "Image": "image"}
FOLLOWS = ".tl-handle .tl-hit, .tl-plot svg, .tl-cells"  # what answers every move of the mouse
KEYED = "[role=slider], input[type=range], input[type=radio], select, [tabindex='0']"
PATIENCE = 3000  # ms, after which a control has not answered
SETTLE = 300  # ms, for what scrolling sets off
SECONDS, EVERY, REACH = 2.0, 0.008, 40  # of a drag, between two events of a mouse; pixels, in what is smaller
TRACE = ["devtools.timeline", "disabled-by-default-devtools.timeline"]
# From an event to the frame that shows the widget's first change, and the first that shows each thing sought.
# A change that comes while a frame is made counts for the next: a time may be one frame long, never short.
WATCH = """(widget, [kind, sought]) => {
    const painted = () => new Promise((resolve) => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => resolve(performance.now()); // a message is read after the paint
        port2.postMessage(null);
    }));
    const appears = (selector) => new Promise((resolve) => {
        new MutationObserver((changes, observer) => {
            if (selector && !widget.querySelector(selector)?.checkVisibility()) return;
            observer.disconnect();
            resolve(painted());
        }).observe(widget, { subtree: true, childList: true, attributes: true, characterData: true });
    });
    globalThis.answer = new Promise((resolve) => widget.addEventListener(kind, async (event) => {
        const times = await Promise.all(["", ...sought].map(appears));
        resolve(times.map((time) => time - event.timeStamp));
    }, { capture: true, once: true }));
}"""
ANSWER = "(ms) => Promise.race([answer, new Promise((resolve) => setTimeout(resolve, ms, null))])"
COUNT = """(widget) => {
    globalThis.changes = 0;
    const all = { subtree: true, childList: true, attributes: true };
    new MutationObserver(() => { changes += 1; }).observe(widget, all);
}"""
# What a page without a change would not do: make every frame that the screen shows.
FRAMES = "() => { (function frame() { requestAnimationFrame(frame); })(); }"


@dataclass
class Weight:
    """What a page asks for before its reader does anything; bytes as they travel, with the answers' heads."""

    bytes: Counter[str] = field(default_factory=Counter)  # by kind
    requests: int = 0
    foreign: list[str] = field(default_factory=list)  # a host for each request to another one


async def weigh(browser: Browser, url: str) -> Weight:
    page = await browser.new_page(viewport=PHONE, is_mobile=True, has_touch=True, device_scale_factor=2)
    devtools = await page.context.new_cdp_session(page)
    weight, kinds, ours = Weight(), {}, urlsplit(url).netloc

    def asked(event: dict) -> None:
        address = urlsplit(event["request"]["url"])
        if not address.scheme.startswith("http"):  # data: and blob: do not travel
            return
        if address.netloc != ours:
            weight.foreign.append(address.netloc)
            return
        weight.requests += 1
        kinds[event["requestId"]] = KINDS.get(event["type"], "other")

    def arrived(event: dict) -> None:
        if kind := kinds.get(event["requestId"]):
            weight.bytes[kind] += int(event["encodedDataLength"])

    devtools.on("Network.requestWillBeSent", asked)
    devtools.on("Network.loadingFinished", arrived)
    await devtools.send("Network.enable")
    await page.goto(url, wait_until="networkidle")
    await page.context.close()
    return weight


async def answers(browser: Browser, url: str) -> dict[str, dict[str, float]]:
    """For each widget of a page: milliseconds from an event to the painted answer, by what the reader did."""
    page = await desk(browser, url)
    found = {}
    for widget in await page.locator(".widget").all():
        times = found.setdefault(await name_of(widget), {})
        load = widget.get_by_role("button", name=re.compile("^Load"))
        if await load.is_visible():  # a trained model comes when it is asked for
            loaded = await first_answer([load], widget, "click", [".tl-picture"])
            times |= zip(("load", "picture"), loaded, strict=True)
        buttons = await widget.locator("button:visible:enabled").all()
        times |= zip(("click",), await first_answer(buttons, widget, "click"), strict=False)
        keyed = await widget.locator(KEYED).all()
        times |= zip(("key",), await first_answer(keyed, widget, "keydown"), strict=False)
    await page.context.close()
    return found


async def desk(browser: Browser, url: str) -> Page:
    page = await browser.new_page(viewport=DESK)
    page.set_default_timeout(10_000)
    await page.goto(url, wait_until="networkidle")
    return page


async def name_of(widget: Locator) -> str:
    return await widget.get_by_role("group").first.get_attribute("aria-label")


async def first_answer(
    controls: list[Locator], widget: Locator, kind: str, sought: Sequence[str] = ()
) -> list[float]:
    """Of the first control that answers, for one may have nothing to do yet; [] where there is none."""
    for control in controls:
        if not await control.is_visible():
            continue
        await control.scroll_into_view_if_needed()
        await control.page.wait_for_timeout(SETTLE)
        await widget.evaluate(WATCH, [kind, sought])
        await (control.click() if kind == "click" else control.press("ArrowRight"))
        if times := await control.page.evaluate(ANSWER, PATIENCE):
            return times
    return []


async def drags(browser: Browser, url: str) -> dict[str, list[tuple[float, float]]]:
    """For each widget that follows the mouse: (work, interval) in ms of every frame while it does."""
    page = await desk(browser, url)
    await page.evaluate(FRAMES)
    found = {}
    for widget in await page.locator(".widget").all():
        for load in await widget.get_by_role("button", name=re.compile("^Load")).all():
            await load.click()
            await widget.locator(".tl-picture").wait_for()
        follows = widget.locator(FOLLOWS).first
        if not await follows.count():
            continue
        await widget.evaluate(COUNT)
        await browser.start_tracing(page=page, categories=TRACE)
        await drag(page, follows)
        trace = json.loads(await browser.stop_tracing())["traceEvents"]
        if not await page.evaluate("changes"):
            raise RuntimeError(f"{await name_of(widget)} did not follow the mouse")
        found[await name_of(widget)] = frames(trace)
    await page.context.close()
    return found


async def drag(page: Page, hit: Locator) -> None:
    """As a hand does it: events come at the mouse's pace, however long the page takes for each."""
    await hit.scroll_into_view_if_needed()
    await page.wait_for_timeout(SETTLE)
    box = await hit.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    right, down = (max(REACH, box[side] / 2 - REACH) for side in ("width", "height"))
    await page.mouse.move(x, y)
    await page.mouse.down()
    devtools = await page.context.new_cdp_session(page)
    sent, begin = [], time.perf_counter()
    for n in range(1, round(SECONDS / EVERY) + 1):
        await asyncio.sleep(max(0, begin + n * EVERY - time.perf_counter()))
        place = {"x": x + right * math.sin(n / 25), "y": y + down * math.sin(n / 18)}
        event = {"type": "mouseMoved", "button": "left", "buttons": 1, **place}
        sent.append(asyncio.ensure_future(devtools.send("Input.dispatchMouseEvent", event)))
    await asyncio.gather(*sent)
    await page.mouse.up()


def frames(trace: list[dict]) -> list[tuple[float, float]]:
    """Work and interval of each frame, in ms. Work is how long the page's main thread ran: from the task
    that makes this frame until the one that makes the next (events, script, style, layout, paint)."""
    drawn = [event for event in trace if event["name"] == "FireAnimationFrame"]
    thread = {(event["pid"], event["tid"]) for event in drawn}
    tasks = sorted(
        (event["ts"], event["dur"])
        for event in trace
        if event["name"] == "RunTask" and "dur" in event and (event["pid"], event["tid"]) in thread
    )
    starts = [ts for ts, dur in tasks if any(ts <= event["ts"] <= ts + dur for event in drawn)]
    return [
        (sum(dur for ts, dur in tasks if start <= ts < end) / 1000, (end - start) / 1000)
        for start, end in pairwise(starts)
    ]
