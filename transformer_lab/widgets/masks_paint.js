// The reader paints a mask; beside it stands what it lets through: which input can have reached which output.
// traits (see masks_paint.py): tokens, mask, n_layers.
import { choice, CONTROLS_LOOK, stepper } from "./controls.js";
import { announcer, element, follow, frame, put, wear, write } from "./parts.js";

const LAYERS = [1, 2, 3, 4, 5, 6, 7, 8];
const PREFIX = 3; // words of the prefix that is given

/** Masks to begin with: which query may see which key, of n tokens. The same as in transformer_lab.masks. */
export const PRESETS = {
  causal: (query, key) => key <= query,
  "window 2": (query, key) => Math.abs(query - key) <= 1,
  "window 2, first token global": (query, key) => Math.abs(query - key) <= 1 || query === 0 || key === 0,
  [`prefix of ${PREFIX}`]: (query, key) => key <= query || key < PREFIX,
  "two texts, packed": (query, key, n) => key <= query && (key < n / 2) === (query < n / 2),
  everything: () => true,
  nothing: () => false,
};

export function preset(name, n) {
  return square(n, (query, key) => PRESETS[name](query, key, n));
}

/** The name of the preset that the mask is, or null. */
export function presetOf(mask) {
  return Object.keys(PRESETS).find((name) => String(preset(name, mask.length)) === String(mask)) ?? null;
}

function square(n, entry) {
  return Array.from({ length: n }, (_, row) => Array.from({ length: n }, (_, column) => entry(row, column)));
}

/** How one token can come to know the others: layers[s] it takes, and from[s], who hands s on to whom. */
export function ways(mask, token) {
  const layers = mask.map(() => Infinity); // a token needs no layer to know itself: the skip connection keeps it
  const from = mask.map(() => -1);
  layers[token] = 0;
  const queue = [token];
  for (const reached of queue) // the queue grows while it is read: nearer ones first
    mask[reached].forEach((may, key) => {
      if (!may || layers[key] < Infinity) return;
      [layers[key], from[key]] = [layers[reached] + 1, reached];
      queue.push(key);
    });
  return { layers, from };
}

/** Row t, column s: after so many layers, output t may depend on input s. As transformer_lab.masks.reach. */
export function reach(mask, nLayers) {
  return mask.map((_, token) => ways(mask, token).layers.map((layers) => layers <= nLayers));
}

/** The tokens by which `source` comes to `token`, both included, in the order of the layers. */
export function route({ layers, from }, token, source) {
  if (layers[source] === Infinity) return [];
  const stops = [source];
  while (stops.at(-1) !== token) stops.push(from[stops.at(-1)]);
  return stops;
}

/** The cells from one to another in a straight line: a fast hand leaves none out. */
export function between([row, column], [toRow, toColumn]) {
  const steps = Math.max(Math.abs(toRow - row), Math.abs(toColumn - column), 1);
  return Array.from({ length: steps }, (_, i) => {
    const share = (i + 1) / steps;
    return [Math.round(row + share * (toRow - row)), Math.round(column + share * (toColumn - column))];
  });
}

const quoted = (word) => `“${word}”`;
const counted = (n) => (n === 1 ? "1 layer" : `${n} layers`);
const listed = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);

/** What one token can know after so many layers; with a source, whether and how it can know that one. */
export function describeToken(tokens, mask, nLayers, token, source) {
  const found = ways(mask, token);
  const [name, other] = [quoted(tokens[token]), quoted(tokens[source])];
  if (source === token) return `${name} always keeps its own: the skip connections carry it through.`;
  if (source >= 0) {
    const needed = found.layers[source];
    if (needed === Infinity) return `${name} can never know ${other}, however many layers there are.`;
    if (needed > nLayers) return `${name} cannot know ${other} yet: that takes ${counted(needed)}.`;
    if (needed === 1) return `${name} may attend to ${other}, so it can know it after 1 layer.`;
    const stops = route(found, token, source).map((stop) => tokens[stop]).join(" → ");
    return `${name} can know ${other} after ${counted(needed)}: ${stops}.`;
  }
  if (!mask[token].includes(true))
    return `${name} may attend to nothing: its attention gives zeros, and the skip connections keep its own.`;
  const known = tokens.filter((_, s) => s !== token && found.layers[s] <= nLayers).map(quoted);
  return `After ${counted(nLayers)}, ${name} may depend on ${listed([...known, "itself"])}.`;
}

/** Whether anything of the future comes through, and an example. */
export function describeFuture(tokens, mask, nLayers, token) {
  const reached = reach(mask, nLayers);
  const leaks = reached.map((row, t) => row.flatMap((may, s) => (may && s > t ? [s] : [])));
  const count = leaks.flat().length;
  if (count === 0) return "No token sees its future.";
  const t = leaks[token].length ? token : leaks.findIndex((sources) => sources.length);
  const example = `${quoted(tokens[t])} can know ${quoted(tokens[leaks[t].at(-1)])}`;
  return `The future leaks${count === 1 ? "" : `, in ${count} places`}: ${example}.`;
}

const LOOK = `
.tl-masks { display: grid; gap: .9rem; }
.tl-masks > * { min-width: 0; }
.tl-masks .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-masks .tl-tables { display: grid; gap: 1rem 1.5rem; }
.tl-masks .tl-squares { display: grid; gap: 2px; margin-top: .25rem; }
.tl-masks .tl-line {
  display: grid; grid-template-columns: 2.7rem repeat(var(--columns), minmax(0, 2.4rem)); gap: 2px;
}
.tl-masks :is(.tl-row-name, .tl-column-name) {
  color: var(--query-text); font-size: .75rem; line-height: 1.2; white-space: nowrap;
}
.tl-masks .tl-row-name { align-self: center; overflow: hidden; padding-right: .35rem; text-align: right; }
.tl-masks .tl-column-name {
  justify-self: center; padding-top: .2rem; color: var(--key-text);
  writing-mode: vertical-rl; transform: rotate(180deg);
}
.tl-masks .tl-known .tl-row-name { color: var(--output-text); }
.tl-masks :is(.tl-row-name, .tl-column-name).tl-on { font-weight: 700; text-decoration: underline; }
.tl-masks .tl-square {
  position: relative; display: grid; place-items: center; aspect-ratio: 1; border: 1px solid var(--line);
  border-radius: 3px; background: color-mix(in srgb, #999 12%, transparent); font-size: .75rem; font-weight: 600;
  font-variant-numeric: tabular-nums; cursor: crosshair;
}
.tl-masks .tl-painted { user-select: none; }
.tl-masks .tl-painted .tl-square { touch-action: none; cursor: cell; }
.tl-masks .tl-square > span { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.tl-masks .tl-square.tl-in { --fill: var(--query); border-color: var(--fill); background: var(--fill); }
.tl-masks .tl-known .tl-square { color: #000; }
.tl-masks .tl-known .tl-square.tl-in { --fill: var(--output); }
.tl-masks .tl-square.tl-in.tl-later {
  background: repeating-linear-gradient(45deg, var(--fill) 0 4px, color-mix(in srgb, var(--fill) 55%, #fff) 4px 7px);
}
.tl-masks .tl-square.tl-step { outline: 3px solid var(--key); outline-offset: -2px; }
.tl-masks .tl-square.tl-on { outline: 2px solid var(--text); outline-offset: 0; }
.tl-masks .tl-square:focus-visible { outline: 3px solid var(--text); outline-offset: 1px; z-index: 1; }
.tl-masks .tl-legend {
  display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin-top: .5rem; color: var(--muted); font-size: .8125rem;
}
.tl-masks .tl-legend span { display: inline-flex; gap: .4rem; align-items: center; }
.tl-masks .tl-legend .tl-square { width: 1rem; cursor: auto; }
.tl-masks .tl-said { min-height: 7.5em; }
.tl-masks .tl-said strong { display: block; }
@container (min-width: 34rem) {
  .tl-masks .tl-tables { grid-template-columns: 1fr 1fr; }
  .tl-masks .tl-said { min-height: 4.5em; }
}
@container (min-width: 40rem) { .tl-masks .tl-said { min-height: 3em; } }
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LOOK, signal);
  let [token, source] = [2, -1]; // whom the sentence is about, and which input, or -1

  const setMask = (mask) => model.set("mask", mask);
  const keep = () => model.save_changes();
  const begin = choice({
    label: "Begin with", name: "preset", options: Object.keys(PRESETS).map((name) => [name, name]), signal,
    onInput: (name) => { source = -1; setMask(preset(name, model.get("tokens").length)); keep(); },
  });
  const past = element("button", { type: "button" }, "Keep the past only");
  past.addEventListener("click", () => {
    source = -1;
    setMask(model.get("mask").map((row, t) => row.map((may, s) => may && s <= t)));
    keep();
  }, { signal });
  const layers = stepper({
    label: "Layers", values: LAYERS, signal, onInput: (value) => { model.set("n_layers", value); keep(); },
  });
  const painted = paintedTable({
    isPainted: (row, column) => model.get("mask")[row][column],
    onPaint: (cells, value) => {
      const mask = model.get("mask").map((row) => [...row]);
      for (const [row, column] of cells) mask[row][column] = value;
      setMask(mask);
    },
    onRelease: keep, onPoint: (row) => point(row, -1), signal,
  });
  const known = table({ kind: "tl-known", onPoint: point, signal });
  const [aboutToken, aboutFuture] = [element("span"), element("strong")];
  const { region, say } = announcer(signal);
  const square = (kind) => element("i", { class: `tl-square ${kind}` });
  const root = frame("Paint a mask", element("form", { class: "tl-masks" }, // radio buttons group by form
    element("p", { class: "tl-note" }, "Try this first: begin with “window 2”, where each token sees its neighbours. "
      + "How many layers will it take until “off” can know “the”? Guess, then step up the layers. "
      + "Afterwards paint a mask of your own: click or drag; with the keyboard, arrows and space."),
    element("div", { class: "tl-controls" }, begin.root),
    element("div", { class: "tl-controls" }, past, layers.root),
    element("p", { class: "tl-said" }, aboutToken, aboutFuture),
    element("div", { class: "tl-tables" },
      element("div", {}, painted.root, element("p", { class: "tl-legend" },
        element("span", {}, square("tl-in"), "may attend"), element("span", {}, square("tl-in tl-later"), "to the future"),
        element("span", {}, square(""), "masked"))),
      element("div", { class: "tl-known" }, known.root, element("p", { class: "tl-legend" },
        element("span", {}, square("tl-in"), "after so many layers"),
        element("span", {}, square("tl-in tl-later"), "of the future"))))), region);

  function point(row, column) {
    [token, source] = [row, column];
    draw();
  }
  function draw() { // model -> view, and never the other way
    const [tokens, mask, nLayers] = ["tokens", "mask", "n_layers"].map((name) => model.get(name));
    if (token >= tokens.length) token = 0;
    if (source >= tokens.length) source = -1;
    const found = tokens.map((_, t) => ways(mask, t));
    const name = presetOf(mask);
    if (name) begin.draw(name);
    else for (const input of begin.root.querySelectorAll(":checked")) input.checked = false; // painted by hand
    layers.draw(nLayers);
    painted.draw("One layer: who may see whom", tokens, (t, s) => ({
      on: mask[t][s], words: mask[t][s] ? "may attend" : "masked",
    }));
    known.draw(`${counted(nLayers)}: who can know whom`, tokens, (t, s) => {
      const needed = found[t].layers[s];
      const on = needed <= nLayers;
      return { on, mark: on ? String(needed) : "", words: on ? counted(needed).slice(2) : "cannot know" };
    });
    const shown = source >= 0 && found[token].layers[source] <= nLayers;
    const stops = shown ? route(found[token], token, source) : [];
    painted.mark(token, -1, stops.slice(1).map((stop, i) => [stop, stops[i]]));
    known.mark(token, source, []);
    const [one, other] = [
      describeToken(tokens, mask, nLayers, token, source), describeFuture(tokens, mask, nLayers, token),
    ];
    write(aboutToken, one);
    write(aboutFuture, other);
    say(`${one} ${other}`);
  }
  follow(model, ["tokens", "mask", "n_layers"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * A square of cells, a row and a column for each word; hand or arrow keys point at one by `onPoint(row, column)`.
 * `onStep(from, to, event)` hears the arrow keys. Cells after the diagonal lie in the future of their row.
 */
function table({ kind, onPoint, onStep, signal }) {
  const heading = element("p", { class: "tl-heading" });
  const grid = element("div", { class: "tl-squares", role: "grid" });
  const root = element("div", { class: kind }, heading, grid);
  let [cells, names, heads, cursor, labels] = [[], [], [], [0, 0], ""];

  function build(words) {
    heads = words.map((word) => element("div", { class: "tl-column-name", role: "columnheader" }, word));
    names = words.map((word) => element("div", { class: "tl-row-name", role: "rowheader" }, word));
    cells = words.map((_, row) => words.map((_, column) => element("div", {
      class: column > row ? "tl-square tl-later" : "tl-square", role: "gridcell", tabindex: -1,
    }, "", element("span"))));
    const corner = element("div", { role: "presentation" });
    const line = (...parts) => element("div", { class: "tl-line", role: "row" }, ...parts);
    grid.style.setProperty("--columns", words.length);
    grid.replaceChildren(line(corner, ...heads), ...names.map((name, row) => line(name, ...cells[row])));
    setCursor([0, 0]);
  }
  function draw(title, words, look) {
    write(heading, title);
    grid.setAttribute("aria-label", title);
    if (String(words) !== labels) build(words);
    labels = String(words);
    cells.forEach((line, row) => line.forEach((cell, column) => {
      const { on, mark = "", words: spoken } = look(row, column);
      cell.classList.toggle("tl-in", on);
      cell.firstChild.data = mark;
      write(cell.lastChild, ` ${spoken}`);
      put(cell, { "aria-selected": on });
    }));
  }
  function mark(row, column, steps) {
    names.forEach((name, i) => name.classList.toggle("tl-on", i === row));
    heads.forEach((head, i) => head.classList.toggle("tl-on", i === column));
    cells.forEach((line, r) => line.forEach((cell, c) => {
      cell.classList.toggle("tl-on", r === row && c === column);
      cell.classList.toggle("tl-step", steps.some(([a, b]) => a === r && b === c));
    }));
  }
  function setCursor(place) { // one cell is in the order of the tab key, the arrows do the rest
    cells[cursor[0]]?.[cursor[1]]?.setAttribute("tabindex", -1);
    cursor = place;
    cells[place[0]][place[1]].setAttribute("tabindex", 0);
  }
  function placeOf(node) {
    const cell = node.closest?.(".tl-square");
    const row = cells.findIndex((line) => line.includes(cell));
    return row < 0 ? null : [row, cells[row].indexOf(cell)];
  }
  /** The cell nearest to a point of the screen, also when a finger has left the cells. */
  function nearest(x, y) {
    const clamp = (i) => Math.min(Math.max(i, 0), cells.length - 1);
    const [first, last] = [cells[0][0], cells.at(-1).at(-1)].map((cell) => cell.getBoundingClientRect());
    const place = (at, from, to) => clamp(Math.floor(((at - from) / (to - from)) * cells.length));
    return [place(y, first.top, last.bottom), place(x, first.left, last.right)];
  }
  function pointAt({ target }) {
    const place = placeOf(target);
    if (!place) return;
    setCursor(place);
    onPoint(...place);
  }
  for (const type of ["pointerover", "focusin", "click"]) grid.addEventListener(type, pointAt, { signal });
  grid.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = cursor.map((place, i) => Math.min(Math.max(place + step[i], 0), cells.length - 1));
    onStep?.(cursor, next, event);
    cells[next[0]][next[1]].focus();
  }, { signal });
  return { root, grid, draw, mark, placeOf, nearest, cursor: () => cursor };
}

/** A table that is painted: the first cell turns, and all that the hand passes become like it. */
function paintedTable({ isPainted, onPaint, onRelease, onPoint, signal }) {
  const onStep = (from, to, { shiftKey }) => { // with shift, the arrows carry the colour on
    if (!shiftKey) return;
    onPaint([to], isPainted(...from));
    onRelease();
  };
  const own = table({ kind: "tl-painted", onPoint, onStep, signal });
  let [colour, last] = [null, null]; // while the hand is down
  const listen = (type, handler) => own.grid.addEventListener(type, handler, { signal });

  listen("pointerdown", (event) => {
    const place = own.placeOf(event.target);
    if (!place || event.button !== 0) return;
    own.grid.setPointerCapture(event.pointerId);
    [colour, last] = [!isPainted(...place), place];
    onPaint([place], colour);
  });
  listen("pointermove", (event) => {
    if (colour === null) return;
    const place = own.nearest(event.clientX, event.clientY);
    if (String(place) === String(last)) return;
    onPaint(between(last, place), colour);
    last = place;
    onPoint(...place);
  });
  for (const type of ["pointerup", "pointercancel"])
    listen(type, () => {
      if (colour !== null) onRelease();
      colour = null;
    });
  listen("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    const place = own.cursor();
    onPaint([place], !isPainted(...place));
    onRelease();
  });
  return own;
}

export default { render };
