// One channel of a state space reads a few words; a step for each says how much it writes, and how much goes for it.
// traits (see selective_scan_state.py): tokens, x, content, rates, selective, steps, common_step, chosen.
import { choice, CONTROLS_LOOK, slider } from "./controls.js";
import { linePlot, LINE_PLOT_LOOK } from "./line_plot.js";
import { announcer, element, follow, frame, put, wear, write } from "./parts.js";

// 0, and from 0.01 to 10 in steps that look even on a logarithmic scale.
export const STEPS = [
  0, ...[0.01, 0.1, 1].flatMap((ten) => [1, 1.5, 2, 3, 5, 7].map((digit) => rounded(digit * ten))), 10,
];
const KINDS = ["query", "key", "value"]; // the colour of each number of the state
const LITTLE = 0.05; // so much of all filler together may be left

/** Zero-order hold: the decay of the old state, and the weight of x. As transformer_lab's zero_order_hold. */
export function hold(rate, step) {
  return { decay: Math.exp(rate * step), weight: Math.expm1(rate * step) / rate };
}

/** The state after each token: h = decay h + weight x, from 0. */
export function statesOf(x, steps, rate) {
  let state = 0;
  return x.map((number, t) => {
    const { decay, weight } = hold(rate, steps[t]);
    state = decay * state + weight * number;
    return state;
  });
}

/** With what weight each x stands in the last state: as it was written, times every decay after it. */
export function weightsLeft(steps, rate) {
  const left = [];
  let later = 1;
  for (let t = steps.length - 1; t >= 0; t--) {
    const { decay, weight } = hold(rate, steps[t]);
    left[t] = weight * later;
    later *= decay;
  }
  return left;
}

/** The step of each token. */
export function stepsOf({ tokens, selective, steps, common_step: common }) {
  return tokens.map((word) => (selective ? steps[word] : common));
}

/** The rate of the number that forgets most slowly. */
export const slowest = (rates) => Math.max(...rates);

/** What is left at the end of each word worth keeping, wherever it stands, and of the filler, in the slowest number. */
export function tally(state) {
  const left = weightsLeft(stepsOf(state), slowest(state.rates));
  const sums = new Map(state.tokens.map((word) => [word, 0]));
  state.tokens.forEach((word, t) => sums.set(word, sums.get(word) + left[t]));
  const filler = [...sums.keys()].filter((word) => !state.content.includes(word));
  return {
    content: state.content.map((word) => sums.get(word)),
    filler: filler.reduce((total, word) => total + sums.get(word), 0),
    worst: filler.reduce((one, other) => (sums.get(other) > sums.get(one) ? other : one)), // of which most is left
  };
}

function rounded(number) {
  return Number(number.toPrecision(2));
}
const quoted = (word) => `“${word}”`;
const minus = (number) => String(number).replace("-", "−");
const hundredths = (number) => minus(number.toFixed(2));

/** What the chosen token, or any, does to the slowest number of the state. */
export function describeStep(state) {
  const { tokens, chosen, selective, rates } = state;
  const step = stepsOf(state)[chosen];
  const { decay, weight } = hold(slowest(rates), step);
  const who = `${selective ? quoted(tokens[chosen]) : "Every token"} has Δ = ${rounded(step)}`;
  if (step === 0) return `${who}: the state stays ${selective ? "as it is, as if the token were not there" : "0"}.`;
  const forgets = decay < 0.005 ? ": all before is forgotten" : "";
  return `${who}: the slowest number, rate ${minus(slowest(rates))}, keeps ${hundredths(decay)} of itself `
    + `and takes in ${hundredths(weight)} of x${forgets}.`;
}

/** What is left at the end, and what stands in the way of what was wanted. */
export function describeEnd(state) {
  const { content, filler, worst } = tally(state);
  const parts = state.content.map((word, i) => `of ${quoted(word)} ${hundredths(content[i])}`);
  const what = `Left at the end: ${parts.join(", ")}, of the filler ${hundredths(filler)}.`;
  return `${what} ${verdict(state, content, filler, worst)}`;
}

function verdict({ selective, content: words, steps, common_step: common, rates }, content, filler, worst) {
  const most = -1 / slowest(rates); // as if nothing else had been read
  const enough = most / (2 * words.length); // half of a fair share
  const lost = words.find((_, i) => content[i] < enough);
  if (!selective && common === 0) return "Nothing was taken in.";
  if (!selective) return "With one step for all, each token weighs more than the one before.";
  if (filler > LITTLE * most) return `What disturbs most is ${quoted(worst)}.`;
  if (!lost) return "What is worth keeping is kept, and hardly anything else.";
  const written = hold(slowest(rates), steps[lost]).weight;
  return `${quoted(lost)} ${written < enough ? "hardly gets in" : "is written over by what comes later"}.`;
}

const LOOK = `
.tl-keeps { display: grid; gap: .9rem; }
.tl-keeps > * { min-width: 0; }
.tl-keeps .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-keeps .tl-table { display: grid; grid-template-columns: 1.6rem minmax(0, 1fr); gap: .35rem; margin-top: .35rem; }
.tl-keeps .tl-row { display: grid; grid-auto-columns: minmax(0, 1fr); grid-auto-flow: column; }
.tl-keeps :is(.tl-token, .tl-names) {
  display: grid; grid-template-rows: 1.2rem 1.2rem 6rem 1.3rem 1.1rem; padding: .2rem 0; font-size: .75rem;
  font-variant-numeric: tabular-nums; line-height: 1.1rem; text-align: center; white-space: nowrap;
}
.tl-keeps .tl-names { color: var(--muted); text-align: right; }
.tl-keeps .tl-scale { display: grid; align-content: space-between; line-height: .75rem; }
.tl-keeps .tl-token { border-radius: .4rem; cursor: pointer; }
.tl-keeps .tl-token:hover { background: color-mix(in srgb, var(--text) 6%, transparent); }
.tl-keeps .tl-token[aria-selected="true"] {
  outline: 2px solid var(--query); outline-offset: -1px;
  background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-keeps .tl-token:focus-visible { outline: 3px solid var(--query); }
.tl-keeps .tl-token b { font-weight: 400; }
.tl-keeps .tl-token.tl-content b { font-weight: 750; }
.tl-keeps .tl-token :is(.tl-x, .tl-step) { color: var(--muted); }
.tl-keeps .tl-bars {
  display: flex; gap: 1px; align-items: flex-end; justify-content: center; padding: 0 1px;
  border-bottom: 1px solid var(--muted); background: linear-gradient(var(--line) 1px, transparent 1px) 0 0 / 100% 50%;
}
.tl-keeps .tl-bars i { flex: 0 1 .6rem; background: var(--hue); }
.tl-widget .tl-keeps .tl-plot .tl-legend { /* of one height, however long the numbers */
  display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .1rem .5rem; font-size: .8125rem;
}
.tl-keeps .tl-slider .tl-number { min-width: 6.2rem; }
.tl-keeps .tl-said { display: grid; gap: .3rem; align-content: start; min-height: 13.9em; }
@container (max-width: 33.99rem) { /* the slider gets a line of its own */
  .tl-widget .tl-keeps .tl-slider { flex-wrap: wrap; gap: 0 .6rem; }
  .tl-widget .tl-keeps .tl-slider input { flex: 1 0 100%; order: 1; }
}
@container (min-width: 16.2rem) { .tl-keeps .tl-said { min-height: 12.4em; } }
@container (min-width: 20rem) { .tl-keeps .tl-said { min-height: 10.9em; } }
@container (min-width: 25rem) { .tl-keeps .tl-said { min-height: 9.4em; } }
@container (min-width: 34rem) { .tl-keeps .tl-said { min-height: 6.4em; } }
`;

const TRAITS = ["tokens", "x", "content", "rates", "selective", "steps", "common_step", "chosen"];

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LINE_PLOT_LOOK + LOOK, signal);
  const read = () => Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  const { tokens, x, rates, content } = read(); // these stay as they are
  let here = tokens.length - 1; // the token after which the plot's cursor reads the state

  const selective = choice({
    label: "Step", name: "step", options: [["common", "the same for all"], ["own", "selective: one for each word"]],
    onInput: (value) => { model.set("selective", value === "own"); model.save_changes(); }, signal,
  });
  const step = slider({
    label: "Step Δ", min: 0, max: STEPS.length - 1, step: 1, say: sayStep, signal,
    onInput: (place) => setStep(STEPS[place]), onRelease: () => model.save_changes(),
  });
  const columns = makeColumns({
    tokens, x, rates, content, signal,
    onChoose: (place) => { here = place; model.set("chosen", place); model.save_changes(); draw(); },
  });
  const ends = [0, ...x].map((number) => -number / slowest(rates)); // no state goes further
  const [low, high] = [Math.floor(2 * Math.min(...ends)) / 2, Math.ceil(2 * Math.max(...ends)) / 2];
  const plot = linePlot({
    title: "The state after each token",
    x: { label: "after token", ticks: tokens.map((word, t) => `${t + 1} ${word}`), origin: tokens.indexOf(content[0]) },
    y: { from: low, to: high, ticks: [...new Set([low, 0, high])], say: hundredths },
    lines: rates.map((rate, i) => ({ name: `rate ${minus(rate)}:`, kind: KINDS[i], dashed: i === 1 })),
    onPoint: (place) => { here = place; draw(); }, signal,
  });
  const [aboutStep, aboutEnd] = [element("p"), element("p")];
  const { region, say } = announcer(signal);
  // In a form, for radio buttons group by form: several views do not mix.
  const root = frame("What a selective state keeps", element("form", { class: "tl-keeps" },
    element("p", { class: "tl-note" }, `Try this first: move the step until only ${content.map(quoted).join(" and ")} `
      + "are left at the end. Can it be done? Then let the step be selective: choose a word, then move its step."),
    selective.root, columns.root, element("div", { class: "tl-controls" }, step.root),
    element("div", { class: "tl-said" }, aboutStep, aboutEnd), plot.root), region);

  function setStep(value) {
    const { selective: own, steps, chosen } = read();
    if (own) model.set("steps", { ...steps, [tokens[chosen]]: value });
    else model.set("common_step", value);
  }
  function sayStep() { // the step itself, which may lie between the slider's
    const state = read();
    return `${rounded(stepsOf(state)[state.chosen])} for ${state.selective ? quoted(tokens[state.chosen]) : "all"}`;
  }
  function draw() { // model -> view, and never the other way
    const state = read();
    const steps = stepsOf(state);
    selective.draw(state.selective ? "own" : "common");
    step.draw(nearest(steps[state.chosen]));
    columns.draw(steps, state.chosen);
    plot.draw(rates.map((rate) => statesOf(x, steps, rate)), here);
    const [one, other] = [describeStep(state), describeEnd(state)];
    write(aboutStep, one);
    write(aboutEnd, other);
    say(`${one} ${other}`);
  }
  follow(model, ["selective", "steps", "common_step", "chosen"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** The place on the slider that comes closest to a step. */
export function nearest(step) {
  const away = STEPS.map((value) => Math.abs(value - step));
  return away.indexOf(Math.min(...away));
}

const MOVES = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };

/** A column for each token: its word, its x, a bar for what each number of the state has left of it, its step. */
function makeColumns({ tokens, x, rates, content, onChoose, signal }) {
  const hued = (node, i) => { node.style.setProperty("--hue", `var(--${KINDS[i]})`); return node; };
  const part = (kind, ...children) => element("span", { class: kind }, ...children);
  const columns = tokens.map((word, t) => {
    const bars = rates.map((_, i) => hued(element("i"), i));
    const [left, step] = [part(""), part("tl-step")];
    const root = element("div", { role: "option", class: `tl-token ${content.includes(word) ? "tl-content" : ""}` },
      element("b", {}, word), part("tl-x", minus(x[t])), element("div", { class: "tl-bars" }, ...bars), left, step);
    return { root, bars, left, step };
  });
  const listbox = { role: "listbox", "aria-label": "Tokens", "aria-orientation": "horizontal" };
  const row = element("div", { class: "tl-row", ...listbox }, ...columns.map((column) => column.root));
  const names = element("div", { class: "tl-names", "aria-hidden": "true" }, part(""), part("", "x"),
    element("div", { class: "tl-scale" }, ...["1", ".5", "0"].map((text) => part("", text))), part("", "left"),
    part("", "Δ"));
  const legend = element("div", { class: "tl-legend", "aria-hidden": "true" },
    ...rates.map((rate, i) => hued(part("", `rate ${minus(rate)}`), i)));
  const heading = element("p", { class: "tl-heading" }, "What is left of each token at the end");
  const root = element("div", {}, heading, legend, element("div", { class: "tl-table" }, names, row));
  const first = rates.indexOf(slowest(rates)); // whose weight is written out

  function draw(steps, chosen) {
    const left = rates.map((rate) => weightsLeft(steps, rate));
    columns.forEach(({ root: column, bars, left: number, step }, t) => {
      const texts = left.map((weights) => weights[t].toFixed(2));
      bars.forEach((bar, i) => { bar.style.height = `${100 * Math.min(left[i][t], 1)}%`; });
      write(number, texts[first].replace(/^0/, ""));
      write(step, String(rounded(steps[t])).replace(/^0\./, "."));
      put(column, {
        tabindex: t === chosen ? 0 : -1, "aria-selected": t === chosen,
        "aria-label": `${tokens[t]}: x ${minus(x[t])}, step ${rounded(steps[t])}, left ${texts.join(", ")}`,
      });
    });
  }
  const placeOf = (node) => columns.findIndex((column) => column.root.contains(node));
  row.addEventListener("click", ({ target }) => {
    if (placeOf(target) >= 0) onChoose(placeOf(target));
  }, { signal });
  row.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = Math.min(Math.max(placeOf(event.target) + move, 0), columns.length - 1);
    onChoose(next);
    columns[next].root.focus();
  }, { signal });
  return { root, draw };
}

export default { render };
