// One query meets a few keys: scores, weights and output follow the reader's hand.
// traits (see attention_qkv.py): tokens, asking, q, k, v, divisor, start.
import { CONTROLS_LOOK, slider } from "./controls.js";
import { announcer, element, follow, frame, put, svg, wear, write } from "./parts.js";
import { format, plane, PLANE_LOOK } from "./plane.js";
import { dot, softmax, weightedSum } from "./runtime.js";

const REACH = 3;
const MOVES = ["q", "k", "v", "divisor"]; // the traits that the reader changes

/** Dot products, what the softmax sees of them, weights and output. */
export function attend({ q, k, v, divisor }) {
  const dots = k.map((key) => dot(q, key));
  const scores = dots.map((x) => x / divisor);
  const weights = softmax(scores);
  return { dots, scores, weights, output: weightedSum(weights, v) };
}

/** The corners of the smallest convex shape around the points, in order (Andrew's monotone chain). */
export function hull(points) {
  const sorted = [...points].sort(([ax, ay], [bx, by]) => ax - bx || ay - by);
  const right = ([ax, ay], [bx, by], [cx, cy]) => (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) <= 0;
  const chain = (list) => list.reduce((corners, point) => {
    while (corners.length > 1 && right(corners.at(-2), corners.at(-1), point)) corners.pop();
    return [...corners, point];
  }, []);
  return [...chain(sorted).slice(0, -1), ...chain(sorted.reverse()).slice(0, -1)];
}

/** What to try, in this order; `done` looks at the state after each move of the reader. */
export function tasks(tokens) {
  const most = ({ weights }) => Math.max(...weights);
  return [{
    goal: `Turn the blue arrow until “${tokens[1]}” gets more than half of the weight.`,
    done: ({ weights }) => weights[1] > 0.5,
    answer: `The query points the way this key does: the largest dot product gets the largest weight.`,
  }, {
    goal: "Pull the blue arrow out as far as you can. What will the weights do?",
    done: (state) => most(state) > 0.95,
    answer: "Longer arrow, larger scores: one word takes all. The softmax is saturated, and hardly reacts now.",
  }, {
    goal: "Leave the arrows; divide by more until no weight is over 0.60.",
    done: (state) => state.divisor > Math.SQRT2 && most(state) <= 0.6,
    answer: "Smaller scores, flatter weights. Dot products of dₖ numbers grow like √dₖ, so we divide by it.",
  }, {
    goal: "Now try to get the purple point out of the green shape.",
    done: (state) => most(state) > 0.9,
    answer: "A corner is as far as it goes: the output is always an average of the values.",
  }];
}

const LOOK = `
.tl-qkv { display: grid; gap: .9rem 1.25rem; }
.tl-qkv .tl-coach {
  display: flex; gap: .75rem; align-items: center; min-height: 7rem; padding: .5rem .75rem; border-radius: .5rem;
  background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-qkv .tl-coach button { min-height: 1.75rem; padding: 0 .7rem; font-size: .8125rem; }
.tl-qkv .tl-mark {
  flex: none; width: 1.8rem; height: 1.8rem; border: 2px solid var(--query-text); border-radius: 50%;
  color: var(--query-text); font-weight: 700; line-height: 1.55rem; text-align: center;
}
.tl-qkv .tl-mark.tl-done { border-color: var(--value-text); background: var(--value-text); color: var(--surface); }
.tl-qkv figure { justify-self: center; width: 100%; min-width: 0; max-width: 21rem; margin: 0; }
.tl-qkv .tl-canvas { border-radius: .5rem; }
.tl-qkv .tl-normal {
  stroke: var(--query); stroke-width: 1.5; stroke-dasharray: 2 6; stroke-linecap: round; opacity: .8;
}
.tl-qkv .tl-hull {
  fill: var(--value); fill-opacity: .12; stroke: var(--value); stroke-opacity: .5; stroke-linejoin: round;
}
.tl-qkv .tl-pull { stroke: var(--output); stroke-linecap: round; }
.tl-qkv .tl-out { fill: var(--output); stroke: var(--surface); stroke-width: 2; }
.tl-qkv .tl-out-mark { pointer-events: none; /* a value below it can still be gripped */ }
.tl-qkv .tl-out-label { fill: var(--output-text); }
.tl-qkv .tl-sum {
  margin-top: .4rem; font-size: .875rem; font-variant-numeric: tabular-nums; text-align: center;
  text-wrap: balance;
}
.tl-qkv .tl-row {
  display: grid; grid-template-columns: 3rem 3rem 3rem 1fr 2.2rem; gap: .4rem; align-items: center; padding: .2rem 0;
}
.tl-qkv .tl-row > :is(.tl-number, .tl-right) { text-align: right; }
.tl-qkv .tl-row + .tl-row { border-top: 1px solid var(--line); }
.tl-qkv .tl-weight { grid-column: span 2; }
.tl-qkv .tl-wide { display: none; }
.tl-qkv .tl-word { overflow: hidden; color: var(--key-text); font-weight: 600; text-overflow: ellipsis; }
.tl-qkv .tl-bar {
  height: 1rem; border-radius: .25rem; background: color-mix(in srgb, var(--muted) 16%, transparent);
}
.tl-qkv .tl-bar > div { height: 100%; min-width: 2px; border-radius: inherit; background: var(--muted); }
.tl-qkv .tl-slider .tl-number { min-width: 5rem; }
.tl-qkv .tl-controls > button { margin-left: auto; }
@container (min-width: 34rem) {
  .tl-qkv { grid-template: "coach coach" "keys values" "table table" "controls controls" / 1fr 1fr; }
  .tl-qkv .tl-coach { grid-area: coach; min-height: 4.25rem; }
  .tl-qkv .tl-coach p { display: flex; gap: 1rem; align-items: center; justify-content: space-between; }
  .tl-qkv figure { max-width: none; }
  .tl-qkv .tl-values { grid-area: values; }
  .tl-qkv .tl-row { grid-template-columns: 4.5rem 7.5rem 4.5rem 4.5rem 1fr 2.2rem; gap: .9rem; }
  .tl-qkv .tl-wide { display: block; }
  .tl-qkv .tl-slider .tl-number { min-width: 7.5rem; }
  .tl-qkv .tl-table { grid-area: table; }
  .tl-qkv .tl-controls { grid-area: controls; }
}`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(PLANE_LOOK + CONTROLS_LOOK + LOOK, signal);
  const tokens = model.get("tokens");
  const coach = makeCoach(tasks(tokens), signal);
  const meeting = makeMeeting(model, tokens, signal);
  const table = makeTable(tokens);
  const controls = makeControls(model, signal);
  const mixing = makeMixing(model, tokens, signal);
  const { region, say } = announcer(signal);
  const root = frame("One query, its keys and values",
    element("div", { class: "tl-qkv" }, coach.root, meeting.root, table.root, controls.root, mixing.root), region);

  function draw() { // model -> view, and never the other way
    const state = Object.fromEntries(MOVES.map((name) => [name, model.get(name)]));
    const result = attend(state);
    const all = { ...state, ...result };
    for (const part of [coach, meeting, table, controls, mixing]) part.draw(all);
    const shares = tokens.map((word, i) => `${word} ${format(result.weights[i])}`).join(", ");
    say(`Query ${pair(state.q)}. Weights: ${shares}. Output ${pair(result.output)}.`);
  }
  follow(model, MOVES, draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** A function that moves one vector of a list, such as one of the keys. */
function mover(model, name) {
  return (index, point) => model.set(name, model.get(name).map((old, i) => (i === index ? point : old)));
}

/** The plane in which the query meets the keys. The query lies on top. */
function makeMeeting(model, tokens, signal) {
  const asking = model.get("asking");
  const moveKey = mover(model, "k");
  const field = plane({
    title: "Query and keys", reach: REACH, signal, onRelease: () => model.save_changes(),
    handles: [
      ...tokens.map((word) => ({ kind: "key", shape: "arrow", name: `key of ${word}`, label: word })),
      { kind: "query", shape: "arrow", name: `query of ${asking}`, label: "query" },
    ],
    onMove: (i, point) => (i < tokens.length ? moveKey(i, point) : model.set("q", point)),
  });
  const normal = svg("line", { class: "tl-normal" }); // the points that the query scores with 0
  field.under.append(normal);
  const canvas = element("div", { class: "tl-canvas" }, field.root);
  const caption = element("p", { class: "tl-sum" });

  function draw({ q, k, weights }) {
    field.draw([...k, q], [...weights, 0.35]);
    drawSlope(canvas, normal, q, field.unit);
    write(caption, `query = ${pair(q)}`);
  }
  return { root: figure("tl-meeting", `The query of “${asking}” meets the keys`, canvas, caption), draw };
}

/** The score is a slope: it rises along the query, and is 0 across it. */
function drawSlope(canvas, normal, [x, y], unit) {
  const length = Math.hypot(x, y);
  const strength = Math.round(8 + 20 * Math.min(length / REACH, 1));
  const angle = Math.atan2(x, y) * 180 / Math.PI; // CSS: 0deg is up, clockwise
  const tint = `color-mix(in srgb, var(--query) ${strength}%, transparent)`;
  canvas.style.background = `linear-gradient(${angle}deg, transparent 50%, ${tint})`;
  const [ux, uy] = length > 0 ? [x / length, y / length] : [0, 0];
  const far = 1.05 * unit * REACH;
  put(normal, { x1: -uy * far, y1: -ux * far, x2: uy * far, y2: ux * far });
}

/** The plane in which the values pull at the output, each by its weight. */
function makeMixing(model, tokens, signal) {
  const field = plane({
    title: "Values and output", reach: REACH, signal, onRelease: () => model.save_changes(),
    handles: tokens.map((word) => ({ kind: "value", shape: "point", name: `value of ${word}`, label: word })),
    onMove: mover(model, "v"),
  });
  const shape = svg("polygon", { class: "tl-hull" });
  const pulls = tokens.map(() => svg("line", { class: "tl-pull" }));
  field.under.append(shape, ...pulls);
  const dot = svg("circle", { class: "tl-out", r: 9 });
  const label = svg("text", { class: "tl-label tl-out-label" }, "output");
  field.root.append(svg("g", { class: "tl-out-mark", "aria-hidden": "true" }, dot, label));
  const caption = element("p", { class: "tl-sum" });
  const at = ([x, y]) => [x * field.unit, -y * field.unit];

  function draw({ v, weights, output }) {
    field.draw(v, weights);
    const [x, y] = at(output);
    put(shape, { points: hull(v).map(at).join(" ") });
    pulls.forEach((line, i) => {
      const [x2, y2] = at(v[i]);
      put(line, { x1: x, y1: y, x2, y2, "stroke-width": 1 + 6 * weights[i], opacity: 0.25 + 0.6 * weights[i] });
    });
    put(dot, { cx: x, cy: y });
    put(label, { x, y: y + 22 });
    const sum = tokens.map((word, i) => `${format(weights[i])} ${word}`).join(" + ");
    write(caption, `output = ${sum} = ${pair(output)}`);
  }
  return { root: figure("tl-values", "The output lies among the values", field.root, caption), draw };
}

/** From dot product to weight, a row per word. */
function makeTable(tokens) {
  const rows = tokens.map(tableRow);
  const scaled = cell("tl-right", "columnheader");
  const root = element("div", { class: "tl-table", role: "table", "aria-label": "Scores and weights" },
    element("div", { class: "tl-row tl-heading", role: "row" },
      cell("", "columnheader", "word"), cell("tl-wide tl-right", "columnheader", "key"),
      cell("tl-right", "columnheader", "q · k"), scaled, cell("tl-weight", "columnheader", "weight")),
    ...rows.map((row) => row.root));
  function draw({ k, divisor, dots, scores, weights }) {
    rows.forEach((row, i) => row.draw(k[i], dots[i], scores[i], weights[i]));
    write(scaled, `÷ ${format(divisor)}`);
  }
  return { root, draw };
}

function tableRow(word) {
  const key = cell("tl-number tl-wide");
  const [product, score, weight] = [cell("tl-number"), cell("tl-number"), cell("tl-number")];
  const bar = element("div");
  const root = element("div", { class: "tl-row", role: "row" },
    element("div", { class: "tl-word", role: "rowheader" }, word), key, product, score,
    element("div", { class: "tl-bar", "aria-hidden": "true" }, bar), weight);
  function draw(vector, dotProduct, scoreNow, weightNow) {
    write(key, pair(vector));
    write(product, format(dotProduct));
    write(score, format(scoreNow));
    write(weight, format(weightNow));
    bar.style.width = `${100 * weightNow}%`;
  }
  return { root, draw };
}

function makeControls(model, signal) {
  const divide = slider({
    label: "Divide by", min: -3, max: 4, step: 0.25, say: divisorInWords, signal, // log2: 1 and √2 are steps
    onInput: (power) => model.set("divisor", 2 ** power), onRelease: () => model.save_changes(),
  });
  const reset = element("button", { type: "button" }, "Reset");
  reset.addEventListener("click", () => {
    for (const [name, value] of Object.entries(model.get("start"))) model.set(name, value);
    model.save_changes();
  }, { signal });
  const root = element("div", { class: "tl-controls" }, divide.root, reset);
  return { root, draw: ({ divisor }) => divide.draw(Math.log2(divisor)) };
}

function divisorInWords(power) {
  const divisor = 2 ** power;
  const isRoot = Math.abs(divisor - Math.SQRT2) < 0.005;
  return format(divisor) + (isRoot ? " = √dₖ" : divisor === 1 ? ": not at all" : "");
}

function pair(vector) {
  return `(${vector.map((c) => format(c)).join(", ")})`;
}

function figure(kind, caption, ...content) {
  return element("figure", { class: kind }, element("figcaption", { class: "tl-heading" }, caption), ...content);
}

function cell(kind, role = "cell", text = "") {
  return element("div", { class: kind, role }, text);
}

/** One thing to try at a time; the box keeps its size, so that nothing jumps under the reader's hand. */
function makeCoach(list, signal) {
  const mark = element("span", { class: "tl-mark", "aria-hidden": "true" });
  const text = element("span", { role: "status" });
  const next = element("button", { type: "button" });
  const root = element("div", { class: "tl-coach" }, mark, element("p", {}, text, " ", next));
  let [step, done, seen] = [0, false, false];

  function show() {
    mark.classList.toggle("tl-done", done);
    write(mark, done ? "✓" : String(step + 1));
    write(text, done ? list[step].answer : (step === 0 ? "Try this first. " : "") + list[step].goal);
    write(next, step === list.length - 1 ? "Again" : done ? "Next" : "Skip");
    next.classList.toggle("tl-main", done);
  }
  function draw(state) { // the first state is the start, not the reader's doing
    if (seen && !done && list[step].done(state)) { done = true; show(); }
    seen = true;
  }
  next.addEventListener("click", () => { [step, done] = [(step + 1) % list.length, false]; show(); }, { signal });
  show();
  return { root, draw };
}

export default { render };
