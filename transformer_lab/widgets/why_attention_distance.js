// How much the last output of a fresh layer changes with a token so many places before it: seven layers to compare.
// traits (see why_attention_distance.py): tokens, distance, shown, runs.
import { CONTROLS_LOOK, slider, toggle } from "./controls.js";
import { briefly, linePlot, LINE_PLOT_LOOK } from "./line_plot.js";
import { announcer, element, follow, frame, wear, write } from "./parts.js";

const FADED = 1000; // a gradient so many times smaller than the neighbour's has faded
const FLOOR = 1e-20; // the picture ends here; what lies below is drawn on its edge
const LINES = { // a hue for each kind, dashed for its second start or form
  "tanh RNN": { kind: "key" }, "orthogonal RNN": { kind: "key", dashed: true },
  LSTM: { kind: "value" }, "LSTM, gate open": { kind: "value", dashed: true },
  convolutions: { kind: "muted" },
  attention: { kind: "query" }, "six blocks": { kind: "output" },
};

/** The place of the largest distance that is not beyond `distance`. */
export function placeOf(distances, distance) {
  return Math.max(distances.findLastIndex((other) => other <= distance), 0);
}

/** Of these layers: what is left at `place` of the gradient at distance 1. */
export function shares({ gradient }, names, tokens, place) {
  return names.map((name) => gradient[name][tokens][place] / gradient[name][tokens][0]);
}

const listed = (names) =>
  (names.length < 2 ? names.join("") : `${names.slice(0, -1).join("; ")} and ${names.at(-1)}`);

/** Which of the shown layers have faded at the cursor, and which have not. */
export function describeFading(runs, names, tokens, place) {
  if (!names.length) return "No line is shown: switch one on.";
  if (place === 0) return "This is the neighbour: with it all other distances are compared.";
  const left = shares(runs, names, tokens, place);
  const [faded, kept] = [names.filter((_, i) => left[i] < 1 / FADED), names.filter((_, i) => left[i] >= 1 / FADED)];
  const where = `At distance ${runs.distances[tokens][place]}, compared with distance 1`;
  if (!faded.length) return `${where}, nothing shown here has faded to less than a thousandth.`;
  if (!kept.length) return `${where}, all that is shown has faded to less than a thousandth.`;
  return `${where}, faded to less than a thousandth: ${listed(faded)}. Not so: ${listed(kept)}.`;
}

/** By what factor attention is above or below each other layer that is shown: there is no one factor. */
export function describeRatios({ gradient }, names, tokens, place) {
  const others = names.filter((name) => name !== "attention");
  if (!names.includes("attention") || !others.length) return "";
  const times = (name) => gradient.attention[tokens][place] / gradient[name][tokens][place];
  const sorted = others.toSorted((one, other) => times(one) - times(other));
  const [least, most] = [sorted[0], sorted.at(-1)].map((name) => `${briefly(times(name))} times that of ${name}`);
  return `Attention's gradient is here ${sorted.length > 1 ? `from ${least} to ${most}` : least}.`;
}

const LOOK = `
.tl-far { display: grid; gap: .9rem; }
.tl-far > * { min-width: 0; }
.tl-far .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-far .tl-kinds { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 0 .8rem; }
.tl-far .tl-said { display: grid; gap: .3rem; align-content: start; min-height: 15.5em; }
.tl-widget .tl-far .tl-legend { /* of one height, however long the numbers */
  display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .1rem .8rem; min-height: 11.4em;
  align-content: start;
}
.tl-far .tl-slider .tl-number { min-width: 5.5rem; }
@container (min-width: 20rem) { .tl-far .tl-said { min-height: 12.7em; } }
@container (min-width: 25rem) { .tl-far .tl-said { min-height: 11.2em; } }
@container (min-width: 34rem) {
  .tl-far .tl-said { min-height: 8.1em; }
  .tl-widget .tl-far .tl-legend { min-height: 6.5em; }
}
@container (min-width: 46rem) { .tl-far .tl-said { min-height: 6.6em; } }
@container (max-width: 33.99rem) { /* the slider gets a line of its own */
  .tl-widget .tl-far .tl-slider { flex-wrap: wrap; gap: 0 .6rem; }
  .tl-widget .tl-far .tl-slider input { flex: 1 0 100%; order: 1; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LINE_PLOT_LOOK + LOOK, signal);
  const runs = model.get("runs");
  const { names, lengths, distances, gradient } = runs;
  const set = (trait, value) => { model.set(trait, value); model.save_changes(); };

  const length = slider({
    label: "Length", min: 0, max: lengths.length - 1, step: 1, say: (place) => `${lengths[place]} tokens`, signal,
    onInput: (place) => set("tokens", lengths[place]),
  });
  const kinds = new Map(names.map((name) => [name, toggle({
    label: name, signal,
    onInput: (on) => set("shown", names.filter((n) => (n === name ? on : model.get("shown").includes(n)))),
  })]));
  const plot = linePlot({
    title: "How much the last output changes with a token so far back, before training",
    x: { label: "distance", ticks: [], origin: 0 },
    y: { from: FLOOR, to: 100, ticks: [1e-20, 1e-15, 1e-10, 1e-5, 1], log: true, say: briefly },
    lines: names.map((name) => ({ name, ...LINES[name] })),
    onPoint: (place) => set("distance", distances[model.get("tokens")][place]), signal,
  });
  const [aboutFading, aboutRatios] = [element("p"), element("p")];
  const { region, say } = announcer(signal);
  const root = frame("Gradient against distance", element("div", { class: "tl-far" },
    element("p", { class: "tl-note" }, "Try this first: two lines are shown, and they tell the usual story. Switch on "
      + "“LSTM, gate open”: it is a recurrence, too. Is the story still true? Then make the text longer, and watch "
      + "the line of attention. A line at the lower edge lies below what the picture shows."),
    element("div", { class: "tl-controls" }, length.root),
    element("div", { class: "tl-kinds", role: "group", "aria-label": "Lines" },
      ...[...kinds.values()].map(({ root: node }) => node)),
    element("div", { class: "tl-said" }, aboutFading, aboutRatios), plot.root), region);

  function draw() { // model -> view, and never the other way
    const [tokens, shown] = [model.get("tokens"), model.get("shown")];
    const place = placeOf(distances[tokens], model.get("distance"));
    const drawn = names.filter((name) => shown.includes(name));
    length.draw(lengths.indexOf(tokens));
    kinds.forEach(({ draw: drawToggle }, name) => drawToggle(shown.includes(name)));
    plot.draw(names.map((name) => (shown.includes(name) ? gradient[name][tokens] : null)), place,
      { x: { label: "distance", ticks: distances[tokens].map(String), origin: 0 } });
    write(aboutFading, describeFading(runs, drawn, tokens, place));
    write(aboutRatios, describeRatios(runs, drawn, tokens, place));
    say(`${tokens} tokens. ${aboutFading.textContent} ${aboutRatios.textContent}`);
  }
  follow(model, ["tokens", "distance", "shown"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

export default { render };
