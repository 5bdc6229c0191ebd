// A feed-forward network with one input and one output: each hidden unit bends the curve once, at its knot.
// traits (see feed_forward_knots.py): units, offset, target, nonlinear.
import { choice, CONTROLS_LOOK, slider, stepper, toggle } from "./controls.js";
import { announcer, element, follow, frame, put, svg, wear, write } from "./parts.js";
import { format, plane, PLANE_LOOK } from "./plane.js";
import { dot } from "./runtime.js";

const REACH = 3;
const COUNTS = [1, 2, 3, 4, 5, 6, 7, 8]; // hidden units
const SLOPES = 5; // the largest weight that the slider offers
export const XS = Array.from({ length: 121 }, (_, i) => (i - 60) / 20); // where curve and target are compared

export const TARGETS = {
  bump: (x) => 2 * Math.exp(-2 * x * x),
  step: (x) => 1 + Math.sign(x),
  sine: (x) => 2 * Math.sin(Math.PI * x / 2),
};

/** What a hidden unit answers to x, before its weight. */
export function answer([knot, side], x, nonlinear) {
  const sum = side * (x - knot);
  return nonlinear ? Math.max(sum, 0) : sum;
}

/** What the network gives for x. */
export function network({ units, offset, nonlinear }, x) {
  return units.reduce((sum, unit) => sum + unit[2] * answer(unit, x, nonlinear), offset);
}

/** The mean over XS of the squared distance from the target. */
export function meanSquaredError(state) {
  const target = TARGETS[state.target];
  return XS.reduce((sum, x) => sum + (network(state, x) - target(x)) ** 2, 0) / XS.length;
}

/**
 * Factors with which the columns add up to `wanted` as closely as they can (least squares, by Gram and Schmidt: of
 * each column counts what those before it lack). A column that brings nothing new gets the factor 0.
 */
export function leastSquares(columns, wanted) {
  const found = []; // orthogonal directions of length 1, each with the column that brought it
  for (const [place, column] of columns.entries()) {
    const rest = [...column];
    const shares = found.map(() => 0);
    for (let twice = 0; twice < 2; twice++) // the second time takes away what rounding has left
      found.forEach(({ direction }, i) => {
        const share = dot(direction, rest);
        shares[i] += share;
        direction.forEach((d, n) => { rest[n] -= share * d; });
      });
    const length = Math.hypot(...rest);
    if (length > 1e-6 * Math.hypot(...column))
      found.push({ place, shares, length, direction: rest.map((r) => r / length) });
  }
  const factors = columns.map(() => 0);
  for (let i = found.length - 1; i >= 0; i--) {
    const { place, length, direction } = found[i];
    const later = found.slice(i + 1).reduce((sum, next) => sum + factors[next.place] * next.shares[i], 0);
    factors[place] = (dot(direction, wanted) - later) / length;
  }
  return factors;
}

/** The weights and the offset that come closest to the target; knots and sides stay. */
export function fitted({ units, target, nonlinear }) {
  const columns = [XS.map(() => 1), ...units.map((unit) => XS.map((x) => answer(unit, x, nonlinear)))];
  const [offset, ...weights] = leastSquares(columns, XS.map(TARGETS[target]));
  return { offset, units: units.map(([knot, side], i) => [knot, side, weights[i]]) };
}

/** `count` of the units; new ones stand in the widest gap, and add nothing yet. */
export function resized(units, count) {
  const list = units.slice(0, count);
  while (list.length < count) {
    const marks = [-REACH, ...list.map(([knot]) => knot), REACH].sort((a, b) => a - b);
    const gaps = marks.slice(1).map((mark, i) => mark - marks[i]);
    const widest = gaps.indexOf(Math.max(...gaps));
    list.push([Math.round(10 * (marks[widest] + gaps[widest] / 2)) / 10, 1, 0]);
  }
  return list;
}

/** The network in one line, a text for each term. */
export function terms({ units, offset, nonlinear }) {
  return [format(offset), ...units.map(([knot, side, weight]) => {
    const away = format(Math.abs(knot));
    const sum = side > 0 ? `x ${knot < 0 ? "+" : "−"} ${away}` : `${format(knot)} − x`;
    return `${weight < -0.005 ? "−" : "+"} ${format(Math.abs(weight))} ${nonlinear ? "relu" : ""}(${sum})`;
  })];
}

/** What is there to see. */
export function describe(state, chosen) {
  const error = `Mean squared error ${meanSquaredError(state).toFixed(3)}.`;
  if (!state.nonlinear) return `${error} Without the nonlinearity nothing bends: whatever the units, one straight line.`;
  const [knot, , weight] = state.units[chosen];
  const bend = Math.abs(weight) < 0.005 ? "does not bend the curve yet: its weight is 0"
    : `bends the curve ${weight > 0 ? "upwards" : "downwards"} at x = ${format(knot)}`;
  return `${error} Unit ${chosen + 1} ${bend}.`;
}

const LOOK = `
.tl-knots { display: grid; gap: .9rem 1.5rem; }
.tl-knots > * { min-width: 0; }
.tl-knots .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-knots figure { justify-self: center; width: 100%; max-width: 24rem; margin: 0; }
.tl-knots polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.tl-knots .tl-target { stroke: var(--muted); stroke-width: 5; opacity: .45; }
.tl-knots .tl-part { stroke: var(--value); stroke-width: 1.2; opacity: .75; }
.tl-knots .tl-part.tl-chosen { stroke-width: 2.5; opacity: 1; stroke-dasharray: 7 4; }
.tl-knots .tl-sum { stroke: var(--output); stroke-width: 3.5; }
.tl-knots .tl-legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; font-size: .875rem; }
.tl-knots .tl-legend span::before {
  content: ""; display: inline-block; width: 1.4rem; margin-right: .45rem; vertical-align: middle;
  border-top: var(--thick) solid var(--hue);
}
.tl-knots .tl-side { display: grid; gap: .55rem; align-content: start; justify-items: start; }
.tl-knots .tl-unit {
  display: grid; gap: .1rem; width: 100%; padding: .5rem .75rem; border: 1px solid var(--line); border-radius: .5rem;
}
.tl-widget .tl-knots .tl-unit .tl-slider { width: 100%; }
.tl-knots .tl-unit .tl-slider .tl-number { min-width: 3.2rem; text-align: right; }
.tl-knots .tl-unit .tl-slider input { height: 2.25rem; }
.tl-knots .tl-said { min-height: 4.5em; }
.tl-knots .tl-formula { font-variant-numeric: tabular-nums; }
.tl-knots .tl-formula span { display: inline-block; margin-right: .45em; white-space: nowrap; }
.tl-knots .tl-formula .tl-chosen { color: var(--value-text); font-weight: 650; }
@container (min-width: 34rem) {
  .tl-knots { grid-template: "note note" "field side" "formula formula" / minmax(0, 1fr) minmax(0, 1fr); }
  .tl-knots .tl-note { grid-area: note; }
  .tl-knots figure { grid-area: field; max-width: none; }
  .tl-knots .tl-side { grid-area: side; }
  .tl-knots .tl-formula { grid-area: formula; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(PLANE_LOOK + CONTROLS_LOOK + LOOK, signal);
  const traits = ["units", "offset", "target", "nonlinear"];
  const read = () => Object.fromEntries(traits.map((name) => [name, model.get(name)]));
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  let chosen = 0; // the unit whose weight and side can be changed
  const withChosen = (unit) => model.get("units").map((old, i) => (i === chosen ? unit(...old) : old));

  const field = makeField({
    onMove: (i, knot) => model.set("units", model.get("units").map((old, n) => (n === i ? [knot, old[1], old[2]] : old))),
    onRelease: () => model.save_changes(),
    onChoose: (i) => { chosen = i; draw(); },
    signal,
  });
  const name = `target ${Math.random()}`; // radio buttons of two views are separate groups
  const target = choice({
    label: "Target", name, options: Object.keys(TARGETS).map((key) => [key, key]),
    onInput: (value) => change({ target: value }), signal,
  });
  const count = stepper({
    label: "Hidden units", values: COUNTS, signal,
    onInput: (value) => change({ units: resized(model.get("units"), value) }),
  });
  const nonlinear = toggle({ label: "Nonlinearity", onInput: (value) => change({ nonlinear: value }), signal });
  const weight = slider({
    label: "Weight", min: -SLOPES, max: SLOPES, step: 0.1, say: (value) => format(value), signal,
    onInput: (value) => model.set("units", withChosen((k, s) => [k, s, value])), onRelease: () => model.save_changes(),
  });
  const button = (text, kind, act) => {
    const node = element("button", { type: "button", class: kind }, text);
    node.addEventListener("click", act, { signal });
    return node;
  };
  const turn = button("Turn it round", "", () => change({ units: withChosen((k, s, a) => [k, -s, a]) }));
  const fit = button("Fit all weights", "tl-main", () => change(fitted(read())));
  const which = element("p", { class: "tl-heading" });
  const [said, formula] = [element("p", { class: "tl-said" }), element("p", { class: "tl-formula" })];
  const { region, say } = announcer(signal);
  const root = frame("A feed-forward network bends a line", element("div", { class: "tl-knots" },
    element("p", { class: "tl-note" }, "Try this first: pull knots 1 and 3 in to the feet of the grey bump, then press "
      + "“Fit all weights”. And before you switch the nonlinearity off, guess: how often will the curve bend then?"),
    field.root,
    element("div", { class: "tl-side" }, target.root, count.root, nonlinear.root,
      element("div", { class: "tl-unit" }, which, weight.root, element("div", {}, turn)), fit, said),
    formula), region);

  function draw() { // model -> view, and never the other way
    const state = read();
    chosen = Math.min(chosen, state.units.length - 1);
    const unit = state.units[chosen];
    field.draw(state, chosen);
    target.draw(state.target);
    count.draw(state.units.length);
    nonlinear.draw(state.nonlinear);
    weight.draw(unit[2]);
    const where = !state.nonlinear ? "everywhere" : unit[1] > 0 ? "right of its knot" : "left of its knot";
    write(which, `Unit ${chosen + 1} answers ${where}`);
    const texts = terms(state);
    formula.replaceChildren(...["y =", ...texts].map((text, i) =>
      element("span", i === chosen + 2 ? { class: "tl-chosen" } : {}, text)));
    write(said, describe(state, chosen));
    say(`${describe(state, chosen)} y = ${texts.join(" ")}`);
  }
  follow(model, traits, draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** The plane: target, what each unit adds, their sum, and the knots on it. */
function makeField({ onMove, onRelease, onChoose, signal }) {
  const field = plane({
    title: "Knots of the curve", reach: REACH, signal, onRelease, onMove: (i, [x]) => onMove(i, x),
    handles: COUNTS.map((i) => ({ kind: "key", shape: "point", name: `knot of unit ${i}`, label: String(i) })),
  });
  const grips = [...field.root.querySelectorAll(".tl-handle")];
  grips.forEach((grip, i) => grip.addEventListener("focus", () => onChoose(i), { signal }));
  const line = (kind) => svg("polyline", { class: kind });
  const [aim, sum, parts] = [line("tl-target"), line("tl-sum"), COUNTS.map(() => line("tl-part"))];
  const edge = REACH * field.unit;
  const window = svg("svg", { // an svg in an svg cuts off what leaves it
    x: -edge, y: -edge, width: 2 * edge, height: 2 * edge, viewBox: `${-edge} ${-edge} ${2 * edge} ${2 * edge}`,
  }, aim, ...parts, sum);
  field.under.append(window);
  const entries = [["target", "muted", 4], ["one unit", "value", 1.5], ["their sum", "output", 3]];
  const legend = element("div", { class: "tl-legend", "aria-hidden": "true" }, ...entries.map(([text, hue, thick]) => {
    const node = element("span", {}, text);
    node.style.setProperty("--hue", `var(--${hue})`);
    node.style.setProperty("--thick", `${thick}px`);
    return node;
  }));
  const root = element("figure", {}, legend, field.root);
  const points = (xs, f) => xs.map((x) => `${x * field.unit},${-f(x) * field.unit}`).join(" ");

  function draw(state, chosen) {
    const { units, nonlinear } = state;
    const bends = [-REACH, ...units.map(([knot]) => knot), REACH].sort((a, b) => a - b);
    put(aim, { points: points(XS, TARGETS[state.target]) });
    put(sum, { points: points(bends, (x) => network(state, x)) });
    parts.forEach((part, i) => {
      const unit = units[i];
      part.style.display = unit ? "" : "none";
      part.classList.toggle("tl-chosen", i === chosen);
      if (unit) put(part, { points: points(bends, (x) => unit[2] * answer(unit, x, nonlinear)) });
    });
    const inside = (y) => Math.min(Math.max(y, -REACH), REACH);
    field.draw(
      grips.map((_, i) => (units[i] ? [units[i][0], inside(network(state, units[i][0]))] : [99, 99])),
      grips.map((_, i) => (i === chosen ? 0.45 : 0.2)));
    grips.forEach((grip, i) => { grip.style.display = units[i] ? "" : "none"; });
  }
  return { root, draw };
}

export default { render };
