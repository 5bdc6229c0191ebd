// FlashAttention, a tile at a time: what is in fast memory, and how maximum, sum and output of each query go along.
// traits (see flash_tiles.py): q, k, v, block_q, block_k, causal, scale, step.
import { CONTROLS_LOOK, slider, stepper, toggle } from "./controls.js";
import { differenceFromWhole, planOf, scoresOf, walk, wholeTraffic } from "./flash_walk.js";
import { briefly, power } from "./line_plot.js";
import { announcer, cividis, element, follow, frame, put, wear, write } from "./parts.js";

const SCALES = [0.5, 1, 2, 4, 100];
const LARGEST = Math.log(3.4028234663852886e38); // e to this is float32's largest number

/** 0.17, −1.30, 412.1: two decimals, or one for what is large; with `tiny`, 1.2 × 10⁻⁹ in place of 0.00. */
export function short(x, tiny = false) {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (tiny && x > 0 && x < 0.005) return briefly(x);
  return x.toFixed(Math.abs(x) < 100 ? 2 : 1).replace("-", "−").replace(/^−(0\.0+)$/, "$1");
}

/** The score of a cell, which has little room: −1.3, 41, −412. */
export function tight(x) {
  return x.toFixed(Math.abs(x) < 9.95 ? 1 : 0).replace("-", "−").replace(/^−(0\.0)$/, "$1");
}

/** How wide such a number is at most, in its own font size. */
function ems(text) {
  return [...text].reduce((sum, sign) => sum + (sign === "−" ? 0.84 : sign === "." ? 0.32 : 0.64), 0);
}

const pair = (row) => `(${row.map((x) => short(x)).join(", ")})`;
/** query 3, queries 3 and 4, queries 3 to 6 */
function span([single, several], [from, to]) {
  if (to - from === 1) return `${single} ${from + 1}`;
  return `${several} ${from + 1} ${to - from === 2 ? "and" : "to"} ${to}`;
}
const queriesOf = (rows) => span(["query", "queries"], rows);
const keysOf = (columns) => span(["key", "keys"], columns);
const one = ([from, to]) => to - from === 1;

/** What the step did. */
export function describeStep({ steps, skipped }, step, difference) {
  if (step === 0) return "Nothing is done yet: q, k and v lie in slow memory, and fast memory is empty.";
  const { rows, columns } = steps[step - 1];
  const which = `Step ${step} of ${steps.length}: ${queriesOf(rows)}`;
  if (columns) return `${which} ${one(rows) ? "meets" : "meet"} ${keysOf(columns)}.`;
  const have = one(rows) ? "has met all its keys, its output is" : "have met all their keys, their outputs are";
  const written = `${which} ${have} divided by l and written.`;
  if (step < steps.length) return written;
  const left = ["", " One tile was skipped."][skipped.length] ?? ` ${skipped.length} tiles were skipped.`;
  return `${written}${left} No output differs from that of whole rows by more than ${briefly(difference)}.`;
}

/** What the step did to one query, in numbers that can be checked by hand. */
export function describeQuery(t, { steps }, step, scores, done) {
  const name = `Query ${t + 1}`;
  const [before, after] = [done[Math.max(step - 1, 0)], done[step]];
  const { rows, columns } = steps[step - 1] ?? { rows: [0, 0] };
  if (step > writtenAt(steps, t)) return `${name} is done: its output ${pair(after.output[t])} lies in slow memory.`;
  if (!within(t, rows)) return `${name} waits: m = −∞, l = 0 and the output is 0.`;
  if (!columns)
    return after.l[t] === 0 ? `${name} sees no key: its output stays 0.`
      : `${name}: ${pair(before.output[t])} ÷ ${short(after.l[t])} = ${pair(after.output[t])}.`;
  const tile = scores[t].slice(...columns).filter((score) => score > -Infinity);
  if (tile.length === 0) return `${name} sees none of these keys: nothing changes.`;
  return `${name}: ${describeSum(tile, [before, after].map(({ m, l }) => ({ m: m[t], l: l[t] })))}`;
}

/** How m and l went from `before` to `after` as the scores of a tile came. */
function describeSum(tile, [before, after]) {
  const terms = tile.map((score) => Math.exp(score - after.m));
  const all = short(terms.reduce((a, b) => a + b));
  const few = terms.length <= 3;
  const brought = few ? terms.map((term) => short(term)).join(" + ") : all;
  const [m, was, l, kept] = [after.m, before.m, after.l, before.l].map((x) => short(x));
  const large = after.m > LARGEST ? ` Without m, e^${m} would be infinite in float32.` : "";
  if (before.m === -Infinity)
    return `the largest score is m = ${m}, and l = ${brought}${few && terms.length > 1 ? ` = ${l}` : ""}.${large}`;
  if (after.m === before.m)
    return `no score is above m = ${m}, so nothing shrinks; l = ${kept} + ${brought} = ${l}.${large}`;
  const factor = short(Math.exp(before.m - after.m), true);
  const raised = `e^(${was} − ${after.m < 0 ? `(${m})` : m})`;
  return `m rises from ${was} to ${m}, so l and output shrink by ${raised} = ${factor}; `
    + `l = ${factor} × ${kept} + ${brought} = ${l}.${large}`;
}

const within = (i, [from, to]) => i >= from && i < to;
/** The step that writes the output of query t. */
const writtenAt = (steps, t) => steps.findIndex(({ rows, columns }) => !columns && within(t, rows)) + 1;

/** What is in fast memory, as a list of [what, how many numbers]. */
export function heldParts({ rows, columns } = {}) {
  if (!columns) return [];
  const [height, width] = [rows, columns].map(([from, to]) => to - from);
  return [["q", 2 * height], ["k", 2 * width], ["v", 2 * width], ["scores", height * width], ["m", height], ["l", height],
    ["output", 2 * height]];
}

const LOOK = `
.tl-flash { display: grid; gap: .9rem 1.5rem; }
.tl-flash > * { min-width: 0; }
.tl-flash .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-flash .tl-go { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.tl-flash .tl-go [aria-disabled="true"] { opacity: .55; cursor: default; }
.tl-widget .tl-flash .tl-go .tl-slider { flex: 1 1 14rem; max-width: none; }
.tl-flash .tl-go .tl-number { min-width: 4.2rem; text-align: right; }
.tl-flash .tl-said { min-height: 13.5em; } /* of one height, however long the words */
.tl-flash .tl-said span { display: block; }
.tl-flash .tl-tables { display: grid; gap: 1rem 1.5rem; align-items: start; }
.tl-widget .tl-flash table {
  width: 100%; margin: 0; border-collapse: separate; border-spacing: 2px; table-layout: fixed; font-size: .8125rem;
  font-variant-numeric: tabular-nums;
}
.tl-widget .tl-flash caption { padding: 0 0 .15rem; caption-side: top; text-align: left; }
.tl-widget .tl-flash :is(th, td) {
  height: 1.7rem; padding: 0; border: 0; border-radius: 3px; background: none; line-height: 1.2; font-weight: 400;
  text-align: center; vertical-align: middle; white-space: nowrap;
}
.tl-widget .tl-flash tbody th { color: var(--query-text); cursor: pointer; }
.tl-widget .tl-flash tbody tr { cursor: pointer; }
.tl-widget .tl-flash .tl-scores thead th { color: var(--key-text); }
.tl-widget .tl-flash .tl-running thead th { color: var(--muted); }
.tl-widget .tl-flash .tl-scores { --room: 100cqi; }
.tl-widget .tl-flash .tl-scores :is(td, thead th) { /* numbers as large as a cell holds them */
  font-size: clamp(.4375rem, ((var(--room) - 1.9rem) / var(--columns) - 3px) / var(--letters), .75rem);
}
.tl-widget .tl-flash thead td { width: 1.8rem; }
.tl-widget .tl-flash .tl-running :is(th, td):last-child { width: 34%; }
.tl-widget .tl-flash tbody th.tl-in { background: color-mix(in srgb, var(--query) 22%, transparent); color: var(--text); }
.tl-widget .tl-flash thead th.tl-in { background: color-mix(in srgb, var(--key) 25%, transparent); color: var(--text); }
.tl-widget .tl-flash .tl-scores tbody td { border: 1px dashed color-mix(in srgb, var(--muted) 50%, transparent); }
.tl-widget .tl-flash .tl-scores tbody td.tl-past { border: 1px solid var(--line); color: var(--muted); }
.tl-widget .tl-flash .tl-scores tbody td.tl-now { border: 0; background: var(--fill); color: var(--ink); }
.tl-widget .tl-flash .tl-scores tbody td:is(.tl-masked, .tl-skipped) { border: 1px solid var(--line); }
.tl-widget .tl-flash :is(i, td).tl-masked { background: color-mix(in srgb, #999 35%, transparent); }
.tl-widget .tl-flash :is(i, td).tl-skipped {
  background: repeating-linear-gradient(45deg, transparent 0 4px, color-mix(in srgb, #999 55%, transparent) 4px 6px);
}
.tl-widget .tl-flash tr.tl-followed th { font-weight: 700; text-decoration: underline; }
.tl-widget .tl-flash tr.tl-followed :is(th, td) { box-shadow: 0 2px 0 -0.5px var(--query), 0 -2px 0 -0.5px var(--query); }
.tl-widget .tl-flash .tl-running td { color: var(--muted); }
.tl-widget .tl-flash .tl-running tr.tl-in td {
  background: color-mix(in srgb, var(--query) 9%, transparent); color: var(--text);
}
.tl-widget .tl-flash .tl-running td.tl-less { font-weight: 700; color: var(--key-text); }
.tl-widget .tl-flash .tl-running tbody tr td.tl-final { font-weight: 650; color: var(--output-text); }
.tl-flash .tl-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.tl-flash .tl-legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; color: var(--muted); font-size: .8125rem; }
.tl-flash .tl-legend span { display: inline-flex; gap: .4rem; align-items: center; }
.tl-flash .tl-legend i {
  min-width: 1rem; height: 1rem; border: 1px solid var(--line); border-radius: 3px; font: .625rem/.875rem system-ui;
}
.tl-flash .tl-legend .tl-now { background: linear-gradient(90deg, #00224e, #7d7c78, #fee838); }
.tl-flash .tl-legend .tl-past { padding: 0 .15rem; }
.tl-flash .tl-legend .tl-todo { border: 1px dashed var(--muted); }
.tl-flash .tl-moved { display: grid; gap: .3rem; font-size: .875rem; font-variant-numeric: tabular-nums; }
.tl-flash .tl-moved p:nth-of-type(2) { min-height: 3em; }
.tl-flash .tl-track { display: flex; height: .8rem; }
.tl-flash .tl-track i { width: var(--share); background: var(--hue); }
.tl-flash .tl-held { min-height: 6em; font-size: .875rem; }
@container (min-width: 17rem) {
  .tl-flash .tl-said { min-height: 12em; }
  .tl-flash .tl-held { min-height: 4.5em; }
  .tl-flash .tl-moved p:nth-of-type(2) { min-height: 0; }
}
@container (min-width: 20rem) { .tl-flash .tl-said { min-height: 10.5em; } }
@container (min-width: 22rem) { .tl-flash .tl-said { min-height: 9em; } }
@container (min-width: 26rem) {
  .tl-flash .tl-said { min-height: 7.5em; }
  .tl-flash .tl-held { min-height: 3em; }
}
@container (min-width: 34rem) {
  .tl-flash .tl-tables { grid-template-columns: 1fr 1fr; }
  .tl-widget .tl-flash .tl-scores { --room: (100cqi - 1.5rem) / 2; }
  .tl-flash .tl-said { min-height: 6em; }
}
@container (min-width: 50rem) {
  .tl-flash .tl-said { min-height: 4.5em; }
  .tl-flash .tl-held { min-height: 1.5em; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LOOK, signal);
  const traits = ["q", "k", "v", "block_q", "block_k", "causal", "scale", "step"];
  const read = () => Object.fromEntries(traits.map((name) => [name, model.get(name)]));
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const last = (state) => planOf(state).steps.length;
  /** Another walk begins at its beginning; who has seen the end sees the end of the new one. */
  const setWalk = (values) => {
    const state = read();
    set({ ...values, step: state.step >= last(state) ? last({ ...state, ...values }) : 0 });
  };
  const go = (step) => set({ step: Math.min(Math.max(step, 0), last(read())) });
  let [followed, shownStep] = [0, -1]; // the query that the words follow

  const upTo = (n) => Array.from({ length: n }, (_, i) => i + 1);
  const [T, S] = [model.get("q").length, model.get("k").length];
  const height = stepper({
    label: "Queries in a tile", values: upTo(T), signal, onInput: (value) => setWalk({ block_q: value }),
  });
  const width = stepper({
    label: "Keys in a tile", values: upTo(S), signal, onInput: (value) => setWalk({ block_k: value }),
  });
  const scale = stepper({
    label: "Scores times", values: SCALES, signal, onInput: (value) => set({ scale: value }),
  });
  const causal = toggle({ label: "Causal", onInput: (value) => setWalk({ causal: value }), signal });
  const query = stepper({
    label: "Follow query", values: upTo(T), signal, onInput: (value) => { followed = value - 1; draw(); },
  });
  const place = slider({
    label: "Step", min: 0, max: 1, step: 1, say: (step) => `${step} of ${last(read())}`, signal,
    onInput: (step) => model.set("step", step), onRelease: () => model.save_changes(),
  });
  const button = (text, kind, act) => {
    const node = element("button", { type: "button", class: kind }, text);
    node.addEventListener("click", act, { signal });
    return node;
  };
  const back = button("Back", "", () => go(Math.min(model.get("step"), last(read())) - 1));
  const next = button("Next step", "tl-main", () => go(model.get("step") + 1));
  const end = button("End", "", () => go(Infinity));
  const onRow = (t) => { followed = t; draw(); };
  const [map, running] = [scoreTable({ onRow, signal }), runningTable({ onRow, signal })];
  const held = element("p", { class: "tl-held" });
  const moved = movedBars();
  const [aboutStep, aboutQuery] = [element("span"), element("span")];
  const { region, say } = announcer(signal);
  const root = frame("FlashAttention, tile by tile", element("div", { class: "tl-flash" },
    element("p", { class: "tl-note" }, "Try this first: the softmax of a row needs the largest of all its scores and the "
      + "sum over all of them. Here the scores come a tile at a time, and each tile is thrown away before the next. "
      + "Guess: what must become of the sum so far when a tile brings a larger score? Then step, and watch m, l and "
      + "the factor."),
    element("div", { class: "tl-controls" }, height.root, width.root, scale.root, causal.root, query.root),
    element("div", { class: "tl-go" }, back, next, end, place.root),
    element("p", { class: "tl-said" }, aboutStep, aboutQuery),
    element("div", { class: "tl-tables" }, map.root, running.root), held, moved.root), region);

  function draw() { // model -> view, and never the other way
    const state = read();
    const plan = planOf(state);
    const [done, scores] = [walk(state), scoresOf(state)];
    const step = Math.min(state.step, plan.steps.length);
    const now = plan.steps[step - 1];
    if (step !== shownStep && now && (followed < now.rows[0] || followed >= now.rows[1])) [followed] = now.rows;
    shownStep = step;
    followed = Math.min(followed, scores.length - 1);
    height.draw(Math.min(state.block_q, scores.length));
    width.draw(Math.min(state.block_k, state.k.length));
    scale.draw(state.scale);
    causal.draw(state.causal);
    query.draw(followed + 1);
    put(place.root.querySelector("input"), { max: plan.steps.length });
    place.draw(step);
    put(back, { "aria-disabled": step === 0 });
    for (const node of [next, end]) put(node, { "aria-disabled": step === plan.steps.length });
    map.draw(state, plan, step, scores, done[step].m, followed);
    running.draw(done[step], plan, step, followed);
    const parts = heldParts(now);
    write(held, parts.length === 0 ? "In fast memory: nothing."
      : `In fast memory: ${parts.map(([name, count]) => `${name} ${count}`).join(", ")}: ${done[step].held} numbers. `
        + `The whole table of scores would be ${scores.length * state.k.length}.`);
    moved.draw(done[step], done.at(-1), wholeTraffic(state));
    const words = [
      describeStep(plan, step, differenceFromWhole(state, done.at(-1).output)),
      describeQuery(followed, plan, step, scores, done),
    ];
    write(aboutStep, words[0]);
    write(aboutQuery, words[1]);
    say(words.join(" "));
  }
  follow(model, traits, draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** Rows that can be clicked: `onRow(t)`. */
function rowTable({ kind, onRow, signal }) {
  const caption = element("caption", { class: "tl-heading" });
  const [head, body] = [element("tr"), element("tbody")];
  const root = element("table", { class: kind }, caption, element("thead", {}, head), body);
  body.addEventListener("click", ({ target }) => {
    const t = [...body.rows].indexOf(target.closest("tr"));
    if (t >= 0) onRow(t);
  }, { signal });
  let size = "";
  /** As many rows and columns as there are names, built only when their number changes. */
  function build(rows, columns) {
    if (size === `${rows} ${columns}`) return;
    size = `${rows} ${columns}`;
    head.replaceChildren(element("td"), ...columns.map((name) => element("th", { scope: "col" }, name)));
    body.replaceChildren(...rows.map((name) => element("tr", {}, element("th", { scope: "row" }, name),
      ...columns.map(() => element("td")))));
  }
  return { root, caption, head, body, build };
}

/** The scores: of the tile in colour, of tiles that are thrown away in grey, and none where no tile has been. */
function scoreTable({ onRow, signal }) {
  const { root: table, caption, head, body, build } = rowTable({ kind: "tl-scores", onRow, signal });
  const key = (kind, text, sample = "") => element("span", {}, element("i", { class: kind }, sample), text);
  const root = element("div", {}, table, element("p", { class: "tl-legend" },
    key("tl-now", "now, by e^(score − m)"), key("tl-past", "thrown away", "0.2"), key("tl-todo", "not yet"),
    key("tl-masked", "masked"), key("tl-skipped", "skipped")));

  function draw({ q, k, causal, scale }, { steps, skipped }, step, scores, m, followed) {
    build(q.map((_, t) => `q${t + 1}`), k.map((_, s) => `k${s + 1}`));
    write(caption, `Scores q kᵀ ÷ √2${scale === 1 ? "" : ` × ${scale}`}`);
    table.style.setProperty("--columns", k.length);
    table.style.setProperty("--letters", Math.max(...scores.flat().filter(Number.isFinite).map((x) => ems(tight(x)))));
    const now = steps[step - 1] ?? { rows: [0, 0] };
    const covers = ({ rows, columns = [0, 0] }, t, s) => within(t, rows) && within(s, columns);
    const past = steps.slice(0, Math.max(step - 1, 0));
    [...head.cells].slice(1).forEach((cell, s) => cell.classList.toggle("tl-in", within(s, now.columns ?? [0, 0])));
    [...body.rows].forEach((line, t) => {
      const [name, ...cells] = line.cells;
      name.classList.toggle("tl-in", within(t, now.rows));
      line.classList.toggle("tl-followed", t === followed);
      cells.forEach((cell, s) => {
        const score = scores[t][s];
        const state = skipped.some((tile) => covers(tile, t, s)) ? "tl-skipped"
          : causal && score === -Infinity ? "tl-masked"
            : covers(now, t, s) ? "tl-now" : past.some((tile) => covers(tile, t, s)) ? "tl-past" : "";
        cell.className = state;
        if (state === "tl-now") {
          const { fill, ink } = cividis(Math.exp(score - m[t]));
          cell.style.setProperty("--fill", fill);
          cell.style.setProperty("--ink", ink);
        }
        if (state === "tl-now" || state === "tl-past") write(cell, tight(score));
        else cell.replaceChildren(...(state ? [element("span", { class: "tl-hidden" }, state.slice(3))] : []));
      });
    });
  }
  return { root, draw };
}

/** Of each query: m, the factor of this step, l, and the output. */
function runningTable({ onRow, signal }) {
  const { root: table, caption, body, build } = rowTable({ kind: "tl-running", onRow, signal });
  const root = element("div", {}, table, element("p", { class: "tl-legend" },
    "factor: e^(m before − m now), for l and output so far. Bold pink: divided by l, and written."));
  function draw({ m, l, shrink, output }, { steps }, step, followed) {
    build(m.map((_, t) => `q${t + 1}`), ["m", "factor", "l", "output"]);
    write(caption, "What is kept of each query");
    const now = steps[step - 1] ?? { rows: [0, 0] };
    [...body.rows].forEach((line, t) => {
      const [, largest, factor, sum, out] = line.cells;
      line.classList.toggle("tl-in", within(t, now.rows));
      line.classList.toggle("tl-followed", t === followed);
      write(largest, short(m[t]));
      const tiny = shrink[t] > 0 && shrink[t] < 0.005;
      write(factor, shrink[t] === null ? "" : tiny ? power(shrink[t]) : short(shrink[t]));
      factor.classList.toggle("tl-less", shrink[t] > 0 && shrink[t] < 1);
      write(sum, short(l[t]));
      write(out, output[t].map((x) => short(x)).join(", "));
      out.classList.toggle("tl-final", step >= writtenAt(steps, t));
    });
  }
  return { root, draw };
}

/** Numbers moved so far, against those that the whole table moves. */
function movedBars() {
  const bar = (...hues) => hues.map((hue) => {
    const node = element("i");
    node.style.setProperty("--hue", `var(${hue})`);
    return node;
  });
  const [read, written] = bar("--query", "--output");
  const [whole] = bar("--muted");
  const [tiles, table] = [element("p"), element("p")];
  const track = (...parts) => element("div", { class: "tl-track" }, ...parts);
  const root = element("div", { class: "tl-moved" },
    element("p", { class: "tl-heading" }, "Numbers moved between slow and fast memory"),
    tiles, track(read, written), table, track(whole));
  function draw(now, last, all) {
    const most = Math.max(last.read + last.written, all);
    [[read, now.read], [written, now.written], [whole, all]].forEach(([node, count]) =>
      node.style.setProperty("--share", `${100 * count / most}%`));
    write(tiles, `Tile by tile: ${now.read} read, ${now.written} written, of ${last.read + last.written}`);
    write(table, `Whole table: ${all}`);
  }
  return { root, draw };
}

export default { render };
