// A plane with arrows and points that the reader moves: by mouse, by thumb, by arrow keys.
import { put, svg } from "./parts.js";

const HALF = 160; // viewBox units from the middle to the end of an axis
const MARGIN = 22;
const GRIP = 28; // radius that a thumb can hit

export const PLANE_LOOK = `
.tl-plane {
  display: block; width: 100%; height: auto; overflow: visible; user-select: none; -webkit-user-select: none;
}
.tl-plane .tl-grid { stroke: var(--line); stroke-width: 1; opacity: .55; }
.tl-plane .tl-axis { stroke: var(--line); stroke-width: 1.5; }
.tl-plane text { fill: var(--muted); font-size: 11px; }
.tl-plane .tl-label {
  font-size: 15px; font-weight: 600; text-anchor: middle; dominant-baseline: central; pointer-events: none;
  paint-order: stroke; stroke: var(--surface); stroke-width: 4px; stroke-linejoin: round;
}
.tl-handle { cursor: grab; }
.tl-handle:active { cursor: grabbing; }
.tl-handle .tl-hit { fill: transparent; }
.tl-handle .tl-halo { fill: currentColor; opacity: .16; pointer-events: none; }
.tl-handle:hover .tl-halo, .tl-handle:active .tl-halo { opacity: .32; }
.tl-widget .tl-handle:focus-visible { outline: none; }
.tl-handle:focus-visible .tl-halo { opacity: .3; stroke: currentColor; stroke-width: 2.5; stroke-opacity: 1; }
.tl-handle line { stroke: currentColor; stroke-linecap: round; pointer-events: none; }
.tl-handle :is(polygon, .tl-dot) { fill: currentColor; pointer-events: none; }
.tl-handle .tl-dot { stroke: var(--surface); stroke-width: 2; }
`;

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/**
 * handles: [{ kind: "query" | "key" | "value", shape: "arrow" | "point", name, label }], the first below the others.
 * onMove(index, [x, y]) at every step, onRelease() when the hand lets go.
 * Returns { root, under: a layer below the handles, unit: what 1 measures in it (y points down),
 * draw(points, weights) }.
 */
export function plane({ title, reach, handles, onMove, onRelease, signal }) {
  const unit = HALF / reach;
  const half = HALF + MARGIN;
  const viewBox = `${-half} ${-half} ${2 * half} ${2 * half}`;
  const root = svg("svg", { class: "tl-plane", viewBox, role: "group", "aria-label": title });
  const under = svg("g");
  root.append(grid(reach), under);
  const parts = handles.map((handle) => drawHandle(handle, reach, unit));
  root.append(...parts.map((part) => part.group));

  let points = [];
  const snap = (x) => Number(Math.min(Math.max(x, -reach), reach).toFixed(2));
  const move = (index, [x, y]) => onMove(index, [snap(x), snap(y)]);

  function pointed(event) { // where on the plane the pointer is
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    return [x / unit, -y / unit];
  }
  function nearest([x, y]) { // grips may overlap: the nearest tip is the one that is meant
    const distances = points.map(([px, py]) => Math.hypot(px - x, py - y));
    const least = Math.min(...distances);
    return distances.findLastIndex((d) => d < least + 0.05);
  }
  root.addEventListener("touchstart", (event) => { // a thumb on a grip drags it, beside it scrolls the page;
    if (event.target.classList.contains("tl-hit")) event.preventDefault(); // touch-action fails inside SVG
  }, { passive: false, signal });
  let drag = null; // which pointer holds which handle, and how far beside its tip
  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.target.classList.contains("tl-hit")) return;
    event.preventDefault();
    const at = pointed(event);
    const index = nearest(at);
    drag = { pointer: event.pointerId, index, beside: points[index].map((x, i) => x - at[i]) };
    root.setPointerCapture(event.pointerId);
    parts[index].group.focus({ focusVisible: false, preventScroll: true });
  }, { signal });
  root.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drag?.pointer) return;
    const at = pointed(event);
    const onGrid = (x) => Math.round(x * 20) / 20; // steps of 0.05: numbers that can be checked by hand
    move(drag.index, at.map((x, i) => onGrid(x + drag.beside[i])));
  }, { signal });
  for (const type of ["pointerup", "pointercancel"])
    root.addEventListener(type, (event) => {
      if (event.pointerId !== drag?.pointer) return;
      drag = null;
      onRelease();
    }, { signal });

  parts.forEach(({ group }, index) => group.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const size = event.shiftKey ? 0.5 : 0.1;
    move(index, points[index].map((x, i) => x + size * step[i]));
    onRelease();
  }, { signal }));

  function draw(now, weights) {
    points = now;
    parts.forEach((part, i) => {
      const covers = points.slice(0, i).some(([x, y]) => Math.hypot(x - points[i][0], y - points[i][1]) * unit < 30);
      part.draw(points[i], weights[i], covers);
    });
  }
  return { root, under, unit, draw };
}

function grid(reach) {
  const layer = svg("g", { "aria-hidden": "true" });
  const unit = HALF / reach;
  for (let i = -reach; i <= reach; i++) {
    const kind = i === 0 ? "tl-axis" : "tl-grid";
    layer.append(
      svg("line", { class: kind, x1: i * unit, x2: i * unit, y1: -HALF, y2: HALF }),
      svg("line", { class: kind, y1: i * unit, y2: i * unit, x1: -HALF, x2: HALF }));
  }
  for (const i of [-reach, reach]) layer.append(
    svg("text", { x: i * unit, y: 14, "text-anchor": i < 0 ? "start" : "end" }, format(i, 0)),
    svg("text", { x: 5, y: -i * unit + (i < 0 ? -3 : 11) }, format(i, 0)));
  return layer;
}

function drawHandle({ kind, shape, name, label }, reach, unit) {
  const shaft = svg("line");
  const head = svg("polygon", { points: "0,0 -13,-6 -13,6" });
  const dot = svg("circle", { class: "tl-dot" });
  const halo = svg("circle", { class: "tl-halo", r: 15 });
  const hit = svg("circle", { class: "tl-hit", r: GRIP });
  const text = svg("text", { class: "tl-label", "aria-hidden": "true" }, label);
  const group = svg("g", {
    class: "tl-handle", tabindex: 0, role: "slider", "aria-label": name,
    "aria-valuemin": -reach, "aria-valuemax": reach,
  }, ...(shape === "arrow" ? [shaft, head] : [dot]), halo, hit, text);
  group.style.color = `var(--${kind})`;
  text.style.fill = `var(--${kind}-text)`;

  function draw([x, y], weight, covers) { // covers: the label below stays readable if this one moves further out
    const [px, py] = [x * unit, -y * unit];
    const length = Math.hypot(px, py);
    const [ux, uy] = length > 0 ? [px / length, py / length] : [0, -1];
    const neck = Math.max(length - 10, 0); // the shaft ends inside the head
    put(shaft, { x2: ux * neck, y2: uy * neck, "stroke-width": 2 + 4 * weight });
    const angle = Math.atan2(uy, ux) * 180 / Math.PI;
    put(head, { transform: `translate(${px} ${py}) rotate(${angle}) scale(${1 + 0.5 * weight})` });
    put(dot, { cx: px, cy: py, r: 5 + 8 * weight });
    for (const circle of [halo, hit]) put(circle, { cx: px, cy: py });
    const out = (shape === "arrow" ? 20 : 24) + (covers ? 18 : 0);
    const [lx, ly] = [px + ux * (out + 0.3 * Math.abs(ux) * label.length * 8), py + uy * out];
    const edge = HALF + MARGIN;
    const room = edge - label.length * 4.5;
    put(text, { x: Math.min(Math.max(lx, -room), room), y: Math.min(Math.max(ly, 10 - edge), edge - 10) });
    put(group, { "aria-valuenow": x, "aria-valuetext": `${format(x)} across, ${format(y)} up` });
  }
  return { group, draw };
}

/** A number as it is printed: two digits, and a real minus sign. */
export function format(x, digits = 2) {
  const text = Math.abs(x).toFixed(digits);
  return (x < 0 && Number(text) !== 0 ? "−" : "") + text;
}
