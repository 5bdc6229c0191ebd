// A few lines over a common x. A cursor, moved by pointer or arrow keys, reads their values; the legend says them.
import { element, put, svg, write } from "./parts.js";

const EDGE = { left: 40, right: 14, top: 10, bottom: 40 }; // CSS pixels around the field
const TALL = 210;

export const LINE_PLOT_LOOK = `
.tl-widget .tl-plot { margin: 0; min-width: 0; }
.tl-widget .tl-legend { display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; font-size: .875rem; }
.tl-widget .tl-legend span::before {
  content: ""; display: inline-block; width: 1.4rem; margin-right: .45rem; vertical-align: middle;
  border-top: 3px var(--dash, solid) var(--hue);
}
.tl-widget .tl-plot svg {
  display: block; width: 100%; height: ${TALL}px; overflow: visible; touch-action: pan-y; cursor: crosshair;
  user-select: none; -webkit-user-select: none;
}
.tl-plot text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums; }
.tl-plot .tl-rule { stroke: var(--line); }
.tl-plot .tl-here { stroke: var(--muted); stroke-dasharray: 3 3; }
.tl-plot polyline {
  fill: none; stroke: var(--hue); stroke-width: 2.5; stroke-dasharray: var(--strokes, none); stroke-linejoin: round;
}
.tl-plot .tl-spot { fill: var(--hue); stroke: var(--surface); stroke-width: 2; }
`;

const SUPERSCRIPTS = Object.fromEntries([..."-0123456789"].map((sign, i) => [sign, [..."⁻⁰¹²³⁴⁵⁶⁷⁸⁹"][i]]));

/** 10⁻⁷ for 1e-7. */
export function power(value) {
  return `10${[...String(Math.round(Math.log10(value)))].map((sign) => SUPERSCRIPTS[sign]).join("")}`;
}

/** A number of any size, at a glance: 0.52, 6.0, 17, 525, 2.1 × 10⁻⁷. */
export function briefly(value) {
  if (value === 0) return "0";
  const [digits, exponent] = value.toExponential(1).split("e");
  if (exponent < -2 || exponent > 3) return `${digits} × ${power(10 ** exponent)}`;
  return exponent < 2 ? value.toPrecision(2) : String(Math.round(value));
}

const PLOT_STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -Infinity, End: Infinity };

/**
 * x: { label, ticks: [text, ...], origin }, a tick for each place, and the place whose tick is always shown, by
 * default the first; y: { from, to, ticks: [number, ...], log, say }, with `log` by powers of ten, and `say(value)` in
 * place of two decimals;
 * lines: [{ name, kind: "query" | "key" | "value" | "output" | "muted", dashed }];
 * onPoint(place) when the reader moves the cursor.
 * Returns { root, draw(values, here, axes) }: values[line][place], or null for a line that is not to be seen; the place
 * of the cursor; and { x, y } where these are no longer as they were.
 */
export function linePlot({ title, x, y, lines, onPoint, signal }) {
  const names = lines.map(({ name, kind, dashed }) => {
    const node = element("span");
    node.style.setProperty("--hue", `var(--${kind})`);
    if (dashed) node.style.setProperty("--dash", "dashed");
    return node;
  });
  const field = svg("svg", { role: "slider", tabindex: 0, "aria-label": title, "aria-valuemin": 0 });
  const root = element("figure", { class: "tl-plot" },
    element("figcaption", { class: "tl-heading" }, title),
    element("div", { class: "tl-legend", "aria-hidden": "true" }, ...names), field); // the slider says the same
  let [wide, values, here] = [320, null, 0];

  const left = (place) => EDGE.left + place * (wide - EDGE.left - EDGE.right) / (x.ticks.length - 1);
  const scaled = (value) => (y.log ? Math.log10(Math.max(value, y.from)) : value); // no logarithm of 0
  const top = (value) =>
    EDGE.top + (scaled(y.to) - scaled(value)) * (TALL - EDGE.top - EDGE.bottom) / (scaled(y.to) - scaled(y.from));

  function axes() {
    const right = wide - EDGE.right;
    const every = Math.ceil(x.ticks.length * 34 / (right - EDGE.left)); // no tick runs into the next
    const ticks = x.ticks.map((text, i) => [text, i]).filter(([, i]) => (i - (x.origin ?? 0)) % every === 0);
    return [
      ...y.ticks.flatMap((value) => [
        svg("line", { class: "tl-rule", x1: EDGE.left, x2: right, y1: top(value), y2: top(value) }),
        svg("text", { x: EDGE.left - 6, y: top(value) + 4, "text-anchor": "end" },
          y.log ? power(value) : String(value).replace("-", "−")),
      ]),
      ...ticks.map(([text, i]) => svg("text", { x: left(i), y: TALL - 22, "text-anchor": "middle" }, text)),
      svg("text", { x: (EDGE.left + right) / 2, y: TALL - 5, "text-anchor": "middle" }, x.label),
    ];
  }
  function curve({ kind, dashed }, row) {
    const points = row.map((value, i) => `${left(i)},${top(value)}`).join(" ");
    const group = svg("g", {}, svg("polyline", { points }),
      svg("circle", { class: "tl-spot", cx: left(here), cy: top(row[here]), r: 5 }));
    group.style.setProperty("--hue", `var(--${kind})`);
    if (dashed) group.style.setProperty("--strokes", "7 5");
    return group;
  }
  function paint() {
    if (!values) return;
    const at = left(here);
    const cursor = svg("line", { class: "tl-here", x1: at, x2: at, y1: EDGE.top, y2: TALL - EDGE.bottom });
    const curves = lines.flatMap((line, i) => (values[i] ? [curve(line, values[i])] : []));
    field.replaceChildren(svg("g", { "aria-hidden": "true" }, ...axes(), cursor, ...curves));
    const say = y.say ?? ((value) => value.toFixed(2));
    const readings = lines.map(({ name }, i) => (values[i] ? `${name} ${say(values[i][here])}` : ""));
    readings.forEach((text, i) => { write(names[i], text); names[i].hidden = !text; });
    put(field, {
      "aria-valuemax": x.ticks.length - 1, "aria-valuenow": here,
      "aria-valuetext": `${x.label} ${x.ticks[here]}: ${readings.filter(Boolean).join(", ")}`,
    });
  }
  function draw(newValues, newHere, axes = {}) {
    [values, here, x, y] = [newValues, newHere, axes.x ?? x, axes.y ?? y];
    paint();
  }
  const go = (place) => {
    const next = Math.min(Math.max(Math.round(place), 0), x.ticks.length - 1);
    if (next !== here) onPoint(next);
  };

  const sized = new ResizeObserver(([{ contentRect }]) => { // letters keep their size, lines take the room there is
    if (contentRect.width && contentRect.width !== wide) { wide = contentRect.width; paint(); }
  });
  sized.observe(field);
  signal.addEventListener("abort", () => sized.disconnect(), { once: true });

  function point(event) {
    if (event.type === "pointermove" && event.pointerType !== "mouse" && !event.buttons) return;
    const across = event.clientX - field.getBoundingClientRect().left - EDGE.left;
    go(across * (x.ticks.length - 1) / (wide - EDGE.left - EDGE.right));
  }
  for (const type of ["pointermove", "pointerdown"]) field.addEventListener(type, point, { signal });
  field.addEventListener("keydown", (event) => {
    const step = PLOT_STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(here + step);
  }, { signal });
  return { root, draw };
}
