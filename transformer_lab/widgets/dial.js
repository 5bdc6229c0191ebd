// A round dial with hands. An angle of 0 points straight up and angles grow clockwise, as on a clock.
import { put, svg } from "./parts.js";

const RIM = 40; // viewBox units: where a hand of full length ends

export const DIAL_LOOK = `
.tl-widget p.tl-legend-of-dials { margin-bottom: .5rem; color: var(--muted); font-size: .8125rem; }
.tl-widget .tl-dials { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .6rem .5rem; }
.tl-widget .tl-dials > div {
  display: grid; justify-items: center; font-size: .75rem; line-height: 1.35; text-align: center;
}
.tl-widget .tl-dial { display: block; width: 100%; max-width: 6.5rem; height: auto; overflow: visible; }
.tl-dial .tl-face { fill: none; stroke: var(--line); stroke-width: 1.5; }
.tl-dial .tl-tick { stroke: var(--line); stroke-width: 1.5; }
.tl-dial .tl-between { fill: var(--muted); opacity: .22; }
.tl-dial .tl-hand { stroke: currentColor; stroke-linecap: round; stroke-width: 3.5; }
.tl-dial .tl-from { stroke-width: 2; stroke-dasharray: 1 5; opacity: .75; }
.tl-dial .tl-tip { fill: currentColor; stroke: currentColor; stroke-width: 2.5; stroke-linejoin: round; }
.tl-dial .tl-hole { fill: var(--surface); }
.tl-dial .tl-hub { fill: var(--muted); }
`;

/** How far each of the width / 2 hands turns from one position to the next, in radians. */
export function turnRates(width, base = 10000) {
  return Array.from({ length: width / 2 }, (_, i) => base ** (-2 * i / width));
}

/** Where on the dial a hand of this angle and length ends; y points down. */
export function tip(angle, length) {
  return [RIM * length * Math.sin(angle), -RIM * length * Math.cos(angle)];
}

/** The angle from one hand to the other the short way round, from -π to π. */
export function shortWay(from, to) {
  const turn = 2 * Math.PI;
  return to - from - turn * Math.round((to - from) / turn);
}

/** A slice of the dial between two angles, the short way round. */
export function slice(from, to, radius = 0.45) {
  const [[x1, y1], [x2, y2]] = [tip(from, radius), tip(to, radius)];
  const clockwise = shortWay(from, to) > 0 ? 1 : 0;
  return `M0 0L${x1} ${y1}A${RIM * radius} ${RIM * radius} 0 0 ${clockwise} ${x2} ${y2}Z`;
}

/**
 * A dial with a query's hand, which ends in an arrow, and a key's, which ends in a ring.
 * Returns { root, draw(query, key) }, each { angle, length, from }: `from` is where it stood before it was turned.
 */
export function dial() {
  const between = svg("path", { class: "tl-between" });
  const ticks = [0, 1, 2, 3].map((quarter) => {
    const [[x1, y1], [x2, y2]] = [tip(quarter * Math.PI / 2, 1.06), tip(quarter * Math.PI / 2, 1.15)];
    return svg("line", { class: "tl-tick", x1, y1, x2, y2 });
  });
  const query = makeHand("query", svg("polygon", { class: "tl-tip", points: "0,-1 -5,9 5,9" }), 9);
  const key = makeHand("key", svg("circle", { class: "tl-tip tl-hole", r: 4 }), 4);
  const root = svg("svg", { class: "tl-dial", viewBox: "-49 -49 98 98", "aria-hidden": "true" },
    svg("circle", { class: "tl-face", r: 1.15 * RIM }), ...ticks, between, key.root, query.root,
    svg("circle", { class: "tl-hub", r: 2.5 }));
  function draw(ofQuery, ofKey) {
    query.draw(ofQuery);
    key.draw(ofKey);
    put(between, { d: slice(ofQuery.angle, ofKey.angle) });
  }
  return { root, draw };
}

function makeHand(kind, head, room) { // room: how much of its length the head takes
  const before = svg("line", { class: "tl-hand tl-from" });
  const shaft = svg("line", { class: "tl-hand" });
  const root = svg("g", {}, before, shaft, head);
  root.style.color = `var(--${kind})`;
  function draw({ angle, length, from }) {
    const [x, y] = tip(angle, length);
    const [x2, y2] = tip(angle, Math.max(length - room / RIM, 0));
    put(shaft, { x2, y2 });
    put(head, { transform: `translate(${x} ${y}) rotate(${angle * 180 / Math.PI})` });
    const [fromX, fromY] = from === undefined ? [0, 0] : tip(from, length);
    put(before, { x2: fromX, y2: fromY, visibility: from === undefined ? "hidden" : "visible" });
  }
  return { root, draw };
}
