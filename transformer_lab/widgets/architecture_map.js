// A map of the whole encoder-decoder, norms first: each part is a box that can be lit, and chosen to go to.
// It is read from the bottom to the top, like the figure of the paper.
import { put, svg, write } from "./parts.js";

const MAP_WIDTH = 300;
const BOX_WIDTH = 104;
const BUS = MAP_WIDTH / 2; // where the memory goes up to the decoder's layers
const COLUMN_WIDTH = 138;
const COLUMNS = { // where its stream goes up, its boxes begin, and it begins
  encoder: { stream: 14, left: 32, edge: 4 }, decoder: { stream: 286, left: 164, edge: 158 },
};
export const MAP_PARTS = {
  encoder: ["self-attention", "feed-forward"], decoder: ["self-attention", "cross-attention", "feed-forward"],
};

/** One side from the bottom up: boxes, the lines between them, a frame for each layer; y is the way up. */
function planColumn(side, nLayers) {
  const { stream, left, edge } = COLUMNS[side];
  const middle = left + BOX_WIDTH / 2;
  const [boxes, lines, frames] = [[], [], []];
  let y = 0;
  const box = (id, label, height, at = { x: left, width: BOX_WIDTH }) => {
    boxes.push({ side, id, label, ...at, y, height });
    y += height;
  };
  const across = (id, label, height) => box(id, label, height, { x: edge, width: COLUMN_WIDTH });
  const round = (id, up) => {
    boxes.push({ side, id, label: "+", round: true, x: stream - 7, width: 14, y: up - 7, height: 14 });
    lines.push([[beside, up], [stream, up]]);
  };
  const beside = left > stream ? left : left + BOX_WIDTH; // the boxes' edge that looks to the stream

  across("token", "", 18);
  lines.push([[stream, y], [stream, y + 6]]);
  y += 6;
  across("embedding", "embedding · √D", 20);
  const start = y;
  y += 9;
  box("position", "position", 18);
  round("position sum", y - 9);
  y += 12;
  for (let layer = 1; layer <= nLayers; layer++) {
    const bottom = y;
    y += 10;
    for (const part of MAP_PARTS[side]) {
      const id = `layer ${layer} ${part}`;
      lines.push([[stream, y - 4], [middle, y - 4], [middle, y + 20]]);
      box(`${id} norm`, "norm", 16);
      y += 5;
      const masked = side === "decoder" && part === "self-attention";
      const tall = masked ? 29 : 22;
      box(id, masked ? "masked self-attention" : part, tall);
      round(`${id} sum`, y - tall / 2);
      y += 11;
    }
    y += 4;
    frames.push({ x: edge, y: bottom, width: COLUMN_WIDTH, height: y - bottom, label: `layer ${layer}` });
    y += 8;
  }
  across("final norm", "final norm", 18);
  lines.push([[stream, start], [stream, y - 18]]);
  const ends = side === "encoder" ? [["memory", "memory: k, v"]]
    : [["vocabulary scores", "scores · Eᵀ"], ["probabilities", "softmax"]];
  for (const [id, label] of ends) {
    lines.push([[stream, y], [stream, y + 6]]);
    y += 6;
    across(id, label, 20);
  }
  return { boxes, lines, frames, top: y };
}

/** The whole map, y now downwards; memory are the lines from the encoder to the decoder. */
export function planMap(nLayers) {
  const columns = ["encoder", "decoder"].map((side) => planColumn(side, nLayers));
  const height = Math.max(...columns.map(({ top }) => top)) + 4;
  const turned = (part) => ({ ...part, y: height - 2 - part.y - part.height });
  const boxes = columns.flatMap((column) => column.boxes.map(turned));
  const frames = columns.flatMap((column) => column.frames.map(turned));
  const lines = columns.flatMap((column) => column.lines)
    .map((points) => points.map(([x, y]) => [x, height - 2 - y]));
  const [from, ...asked] = boxes.filter(({ id }) => id === "memory" || id.endsWith("cross-attention"))
    .map(({ id, x, y, width, height: tall }) => [id === "memory" ? x + width : x, y + tall / 2]);
  const memory = asked.map(([x, y]) => [from, [BUS, from[1]], [BUS, y], [x, y]]);
  return { boxes, lines, frames, memory, height };
}

export const MAP_LOOK = `
.tl-widget .tl-arch { display: block; width: 100%; max-width: 22rem; margin: 0 auto; }
.tl-arch text { fill: var(--text); font-size: 11px; text-anchor: middle; pointer-events: none; }
.tl-arch .tl-side-name, .tl-arch .tl-frame-name { fill: var(--muted); font-size: 10px; }
.tl-arch .tl-frame { fill: color-mix(in srgb, var(--text) 4%, transparent); stroke: var(--line); }
.tl-arch polyline { fill: none; stroke: var(--muted); stroke-width: 1.3; }
.tl-arch .tl-memory { stroke: var(--key); stroke-width: 2; }
.tl-arch .tl-box { cursor: pointer; }
.tl-arch .tl-box rect { fill: var(--surface); stroke: var(--muted); }
.tl-arch .tl-box:hover rect { stroke: var(--query); stroke-width: 2; }
.tl-arch .tl-box .tl-hit { fill: transparent; stroke: none; }
.tl-arch .tl-box:focus-visible { outline: none; }
.tl-arch .tl-box:focus-visible rect { stroke: var(--query); stroke-width: 3.5; }
.tl-arch .tl-box .tl-hit, .tl-arch .tl-box:is(:hover, :focus-visible) .tl-hit { stroke: none; }
.tl-arch .tl-passed rect:not(.tl-hit) { fill: color-mix(in srgb, var(--query) 16%, var(--surface)); }
.tl-arch [aria-current] rect:not(.tl-hit) { fill: var(--query-text); stroke: var(--query-text); }
.tl-arch [aria-current] text { fill: var(--surface); font-weight: 650; }
`;

/**
 * `onBox(side, id)` when the reader chooses a box.
 * Returns { root, draw({ nLayers, side, order, here, words }) }: `order` are the ids of the side's boxes as
 * the token passes them, `here` is where it is, words { encoder, decoder } are the tokens that go in.
 */
export function architectureMap({ onBox, signal }) {
  const root = svg("svg", { class: "tl-arch", role: "group", "aria-label": "Map of the architecture" });
  let [layers, nodes, state] = [0, [], null];

  function build(nLayers) {
    const { boxes, lines, frames, memory, height } = planMap(nLayers);
    const points = (line) => line.map((point) => point.join(",")).join(" ");
    put(root, { viewBox: `0 0 ${MAP_WIDTH} ${height}` });
    nodes = boxes.map((box) => ({ ...box, ...boxNode(box) }));
    root.replaceChildren(
      svg("g", { "aria-hidden": "true" },
        ...frames.map(({ x, y, width, height: tall }) =>
          svg("rect", { class: "tl-frame", x, y, width, height: tall, rx: 6 })),
        ...lines.map((line) => svg("polyline", { points: points(line) })),
        ...memory.map((line) => svg("polyline", { class: "tl-memory", points: points(line) })),
        ...frames.map(({ x, y, width, label }) =>
          svg("text", { class: "tl-frame-name", x: x + width / 2, y: y + 11 }, label))),
      ...nodes.map(({ node }) => node));
  }
  function draw(newState) {
    state = newState;
    if (state.nLayers !== layers) build(state.nLayers);
    layers = state.nLayers;
    const now = state.order.indexOf(state.here);
    for (const { side, id, node, text } of nodes) {
      const place = side === state.side ? state.order.indexOf(id.replace("position sum", "position")) : -1;
      const lit = place >= 0 && place === now;
      node.classList.toggle("tl-passed", place >= 0 && place < now);
      if (id === "position sum") continue; // a picture of what the box beside it does
      if (lit) node.setAttribute("aria-current", "step");
      else node.removeAttribute("aria-current");
      node.setAttribute("tabindex", lit ? 0 : -1); // the tab key finds one box, the arrows do the rest
      if (id === "token") write(text.firstChild, `${side}: ${state.words[side]}`);
    }
  }
  const boxAt = (target) => nodes.find(({ node }) => node.contains(target));
  root.addEventListener("click", ({ target }) => {
    const box = boxAt(target);
    if (box) onBox(box.side, box.id.replace("position sum", "position"));
  }, { signal });
  root.addEventListener("keydown", (event) => {
    const way = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = state.order[state.order.indexOf(state.here) + way];
    if (!next) return;
    onBox(state.side, next);
    nodes.find(({ side, id }) => side === state.side && id === next).node.focus();
  }, { signal });
  return { root, draw };
}

/** A box with its words; the sign of a sum is round and small, so that it has a larger place to hit. */
function boxNode({ side, id, label, round, x, y, width, height }) {
  const words = height > 25 ? label.split(" ") : [label]; // a tall box has two lines
  const text = svg("text", {}, ...words.map((word, i) => svg("tspan", {
    x: x + width / 2, y: y + height / 2 + 4 + 12 * (i - (words.length - 1) / 2),
  }, word)));
  const hit = svg("rect", { class: "tl-hit", x: x - 5, y: y - 5, width: width + 10, height: height + 10 });
  const shape = svg("rect", { x, y, width, height, rx: round ? height / 2 : 4 });
  const told = id === "position sum" ? { "aria-hidden": "true" }
    : { role: "button", "aria-label": `${side}, ${id}`, tabindex: -1 };
  return { node: svg("g", { class: "tl-box", ...told }, ...(round ? [hit] : []), shape, text), text };
}
