// Rotary position embedding: each pair of a query's and a key's numbers is a hand that turns with the position.
// traits (see positional_dials.py): q_position, k_position, together, q, k, base.
import { CONTROLS_LOOK, stepper, toggle } from "./controls.js";
import { dial, DIAL_LOOK, turnRates } from "./dial.js";
import { linePlot, LINE_PLOT_LOOK } from "./line_plot.js";
import { announcer, element, follow, frame, put, wear, write } from "./parts.js";
import { format } from "./plane.js";

const LAST = 12; // positions go from 0 to LAST
const PLACES = Array.from({ length: LAST + 1 }, (_, i) => i);
const AHEAD = Array.from({ length: 2 * LAST + 1 }, (_, i) => i - LAST); // how far the query stands after the key
const NAMES = { q_position: "query", k_position: "key" };

/** [{ angle, length }] of the pairs (2i, 2i + 1): the first number points up, the second to the right. */
export function asHands(vector) {
  return Array.from({ length: vector.length / 2 }, (_, i) => {
    const [up, right] = [vector[2 * i], vector[2 * i + 1]];
    return { angle: Math.atan2(right, up), length: Math.hypot(up, right) };
  });
}

/** What each pair adds to the score of a query at one position and a key at another. */
export function pairScores({ q, k, base, q_position, k_position }) {
  const [queries, keys, rates] = [asHands(q), asHands(k), turnRates(q.length, base)];
  return rates.map((rate, i) => {
    const between = queries[i].angle + q_position * rate - keys[i].angle - k_position * rate;
    return queries[i].length * keys[i].length * Math.cos(between);
  });
}

const total = (parts) => parts.reduce((sum, part) => sum + part, 0);

/** The score for every distance that two tokens of the sequence can have. */
export function scoresAhead(state) {
  return AHEAD.map((by) => total(pairScores({ ...state, q_position: by, k_position: 0 })));
}

/** Where both stand once `name` was moved to `wanted`; together, neither can leave the sequence. */
export function moved(state, name, wanted) {
  const both = Object.keys(NAMES);
  const movers = state.together ? both : [name];
  const places = movers.map((who) => state[who]);
  const by = Math.min(Math.max(wanted - state[name], -Math.min(...places)), LAST - Math.max(...places));
  return Object.fromEntries(both.map((who) => [who, state[who] + (movers.includes(who) ? by : 0)]));
}

/** Where both stand once the query is `ahead` of the key, the query moving only if the key alone cannot. */
export function spread(state, ahead) {
  const k_position = Math.min(Math.max(state.q_position - ahead, 0), LAST);
  const q_position = Math.min(Math.max(k_position + ahead, 0), LAST);
  return { q_position, k_position };
}

/** How things stand, in a sentence. */
export function describeDials(state) {
  const { q_position, k_position } = state;
  const ahead = q_position - k_position;
  const where = ahead === 0 ? "both at the same place" : `${Math.abs(ahead)} ${ahead > 0 ? "after" : "before"} it`;
  return `Key at ${k_position}, query at ${q_position}, ${where}: `
    + `the dials add up to a score of ${format(total(pairScores(state)))}.`;
}

const DIALS_LOOK = `
.tl-rotary { display: grid; gap: .9rem; }
.tl-rotary > * { min-width: 0; }
.tl-rotary .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-rotary .tl-track { padding: 0 1.8rem; user-select: none; -webkit-user-select: none; }
.tl-rotary .tl-lane { position: relative; height: 2.6rem; cursor: grab; touch-action: pan-y; }
.tl-rotary .tl-lane:active { cursor: grabbing; }
.tl-rotary .tl-token {
  position: absolute; top: .2rem; width: 3.6rem; margin-left: -1.8rem; padding: .3rem 0; border-radius: 1.1rem;
  background: var(--hue); color: var(--surface); font-size: .875rem; font-weight: 600; text-align: center;
  pointer-events: none;
}
.tl-rotary .tl-line {
  position: relative; height: 1.9rem; margin: .15rem 0; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .75rem;
}
.tl-rotary .tl-line span { position: absolute; width: 2rem; margin-left: -1rem; padding-top: .4rem; text-align: center; }
.tl-rotary .tl-line span::before {
  content: ""; position: absolute; left: 50%; top: 0; height: .4rem; border-left: 1px solid var(--muted);
}
.tl-rotary .tl-rate { color: var(--muted); }
.tl-rotary .tl-said { min-height: 4.5em; }
@container (min-width: 34rem) {
  .tl-rotary .tl-said { min-height: 1.5em; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + DIAL_LOOK + LINE_PLOT_LOOK + DIALS_LOOK, signal);
  const traits = ["q_position", "k_position", "together", "q", "k", "base"];
  const state = () => Object.fromEntries(traits.map((name) => [name, model.get(name)]));
  const settle = (places) => {
    for (const [name, value] of Object.entries(places)) model.set(name, value);
    model.save_changes();
  };
  const move = (name) => (wanted) => settle(moved(state(), name, wanted));

  const track = makeTrack(move, signal);
  const places = Object.entries(NAMES).map(([name, label]) => [name, stepper({
    label: `${label[0].toUpperCase()}${label.slice(1)} at`, values: PLACES, onInput: move(name), signal,
  })]);
  const together = toggle({
    label: "Move together", onInput: (on) => { model.set("together", on); model.save_changes(); }, signal,
  });
  const dials = makeDials(model.get("q").length / 2);
  const plot = linePlot({
    title: "The score for every distance", signal,
    x: { label: "query minus key", ticks: AHEAD.map((by) => format(by, 0)) }, y: scoreAxis(state()),
    lines: [{ name: "score", kind: "output" }],
    onPoint: (index) => settle(spread(state(), AHEAD[index])),
  });
  const said = element("p", { class: "tl-said" });
  const { region, say } = announcer(signal);
  const root = frame("A query and a key, turned by their positions", element("div", { class: "tl-rotary" },
    element("p", { class: "tl-note" }, "Try this first: drag the orange key along, and watch the score. Then let both "
      + "move together. Before you drag again: what will the dials do, and what the score?"),
    track.root, element("div", { class: "tl-controls" }, ...places.map(([, part]) => part.root), together.root),
    dials.root, said, plot.root), region);

  function draw() { // model -> view, and never the other way
    const now = state();
    track.draw(now);
    for (const [name, part] of places) part.draw(now[name]);
    together.draw(now.together);
    dials.draw(now);
    plot.draw([scoresAhead(now)], now.q_position - now.k_position + LAST);
    write(said, describeDials(now));
    say(describeDials(now));
  }
  follow(model, ["q_position", "k_position", "together"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** The range of the plot: whole numbers around every score that there can be. */
export function scoreAxis({ q, k }) {
  const [queries, keys] = [asHands(q), asHands(k)];
  const most = Math.max(1, Math.ceil(total(queries.map((hand, i) => hand.length * keys[i].length))));
  return { from: -most, to: most, ticks: [-most, 0, most] };
}

/** A sequence with a lane for the query above it and one for the key below: for pointers, as steppers do the rest. */
function makeTrack(move, signal) {
  const share = (place) => `${100 * place / LAST}%`;
  const tokens = {};
  const lane = (name) => {
    const token = element("div", { class: "tl-token" }, NAMES[name]);
    token.style.setProperty("--hue", `var(--${NAMES[name]}-text)`);
    tokens[name] = token;
    const node = element("div", { class: "tl-lane" }, token);
    const point = (event) => {
      const { left, width } = node.getBoundingClientRect();
      move(name)(Math.round((event.clientX - left) / width * LAST));
    };
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      node.setPointerCapture(event.pointerId);
      point(event);
    }, { signal });
    node.addEventListener("pointermove", (event) => {
      if (node.hasPointerCapture(event.pointerId)) point(event);
    }, { signal });
    return node;
  };
  const line = element("div", { class: "tl-line" }, ...PLACES.map((place) => {
    const node = element("span", {}, place % 4 ? "" : String(place));
    node.style.left = share(place);
    return node;
  }));
  const [above, below] = [lane("q_position"), lane("k_position")];
  const root = element("div", { class: "tl-track", "aria-hidden": "true" }, above, line, below);
  function draw(state) {
    for (const [name, token] of Object.entries(tokens)) token.style.left = share(state[name]);
  }
  return { root, draw };
}

function makeDials(count) {
  const dials = Array.from({ length: count }, () => {
    const face = dial();
    const [rate, part] = [element("span", { class: "tl-number tl-rate" }), element("span", { class: "tl-number" })];
    return { face, rate, part, root: element("div", { role: "img" }, rate, face.root, part) };
  });
  const root = element("div", {}, element("p", { class: "tl-heading" }, "A dial for each pair of numbers"),
    element("p", { class: "tl-legend-of-dials" }, "Above: radians per position. Below: what the pair adds to the score. "
      + "Dotted: not yet turned."),
    element("div", { class: "tl-dials" }, ...dials.map((part) => part.root)));
  function draw(state) {
    const rates = turnRates(state.q.length, state.base);
    const parts = pairScores(state);
    const [queries, keys] = [asHands(state.q), asHands(state.k)];
    const turned = ({ angle, length }, by) => ({ angle: angle + by, length, from: angle });
    dials.forEach(({ face, rate, part, root: node }, i) => {
      face.draw(turned(queries[i], state.q_position * rates[i]), turned(keys[i], state.k_position * rates[i]));
      write(rate, rates[i].toFixed(2));
      write(part, format(parts[i]));
      put(node, { "aria-label": `Pair ${i + 1}, ${rates[i].toFixed(2)} radians a position: adds ${format(parts[i])}` });
    });
  }
  return { root, draw };
}

export default { render };
