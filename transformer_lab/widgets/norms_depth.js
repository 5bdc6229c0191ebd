// What depth does to a stack of layers: the gradient that reaches each of them, and how different tokens are after it.
// traits (see norms_depth.py): wiring, depth, layer, runs.
import { choice, CONTROLS_LOOK, stepper } from "./controls.js";
import { linePlot, LINE_PLOT_LOOK, briefly } from "./line_plot.js";
import { announcer, element, follow, frame, wear, write } from "./parts.js";

export const REFERENCE = "pre-norm"; // what every wiring is compared with
const FACTOR = 100; // so much more or less than the reference: the gradient explodes, or dies
const ALIKE = 0.01; // the diversity below which tokens count as alike

/** The axis for all depths of these wirings, three powers of ten or more, with at most five ticks. */
export function gradientAxis(gradient, wirings) {
  const values = wirings.flatMap((wiring) => Object.values(gradient[wiring]).flat()).filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...values, 0.1)));
  const high = Math.ceil(Math.log10(Math.max(...values, 100)));
  const step = [1, 2, 5, 10, 20, 50, 100].find((step) => Math.ceil(high / step) - Math.floor(low / step) <= 4);
  const [first, last] = [Math.floor(low / step), Math.ceil(high / step)];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => 10 ** ((first + i) * step));
  return { from: ticks[0], to: ticks.at(-1), ticks, log: true, say: briefly };
}

/** How the gradient of the first layer compares with the reference's, and the largest one with its largest. */
export function fateOfGradient(gradient, reference) {
  if (Math.max(...gradient) > FACTOR * Math.max(...reference)) return "explodes";
  return gradient[0] * FACTOR < reference[0] ? "dies" : "lives";
}

/** What one sees: the tokens after the layer of the cursor, and the gradient's way from the last layer to the first. */
export function describeStack(diversity, gradient, reference, layer) {
  const here = diversity[layer - 1];
  const alike = here < ALIKE;
  const tokens = alike ? "are alike" : here < 0.5 ? "have much in common" : "differ";
  const fate = {
    explodes: "The gradient explodes",
    dies: "The gradient dies on its way back",
    lives: alike ? "Yet the gradient is alive" : "The gradient is alive",
  }[fateOfGradient(gradient, reference)];
  const elsewhere = gradient === reference ? "" : `, where ${REFERENCE} has ${briefly(reference[0])}`;
  return `After layer ${layer} the tokens ${tokens}: diversity ${briefly(here)}. ${fate}: `
    + `${briefly(gradient.at(-1))} in layer ${gradient.length}, ${briefly(gradient[0])} in layer 1${elsewhere}.`;
}

const LOOK = `
.tl-depth { display: grid; gap: .9rem; }
.tl-depth > * { min-width: 0; }
.tl-depth .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-depth .tl-said { min-height: 7.5em; }
.tl-depth .tl-plots { display: grid; gap: 1.2rem; }
.tl-widget .tl-depth .tl-legend { display: grid; } /* of one height, however long the numbers */
@container (min-width: 34rem) {
  .tl-depth .tl-plots { grid-template-columns: 1fr 1fr; }
  .tl-depth .tl-said { min-height: 4.5em; }
}
@container (min-width: 42rem) {
  .tl-depth .tl-said { min-height: 3em; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LINE_PLOT_LOOK + LOOK, signal);
  const { wirings, depths, gradient, diversity } = model.get("runs");
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  const depth = stepper({
    label: "Layers", values: depths, signal,
    onInput: (value) => set({ depth: value, layer: value }), // the cursor goes to the top
  });
  const wiring = choice({
    label: "Wiring", name: "wiring", options: wirings.map((name) => [name, name]), signal,
    onInput: (value) => set({ wiring: value }),
  });
  const onPoint = (place) => set({ layer: place + 1 });
  const x = { label: "layer", ticks: [], origin: -1 };
  const y = { from: 0, to: 1, ticks: [0, 0.5, 1], say: briefly };
  const lines = [
    { name: "this wiring", kind: "output" }, { name: REFERENCE, kind: "muted", dashed: true },
  ];
  const gradientPlot = linePlot({
    title: "How large the gradient is that reaches the attention of each layer", x, y, lines, onPoint, signal,
  });
  const diversityPlot = linePlot({
    title: "How different the tokens are after each layer, from 0, all alike, to 1", x, y, lines, onPoint, signal,
  });
  const said = element("p", { class: "tl-said" });
  const { region, say } = announcer(signal);
  // In a form, for radio buttons group by form: several views do not mix.
  const root = frame("What depth does to a stack of layers", element("form", { class: "tl-depth" },
    element("p", { class: "tl-note" }, "Try this first: which of the five wirings still have a gradient in layer 1 and "
      + "different tokens at the top, with 48 layers? Write down your guess, then look. None of these stacks was "
      + "trained."),
    element("div", { class: "tl-controls" }, wiring.root, depth.root), said,
    element("div", { class: "tl-plots" }, gradientPlot.root, diversityPlot.root)), region);

  function draw() { // model -> view, and never the other way
    const [chosen, deep] = [model.get("wiring"), model.get("depth")];
    const layer = Math.min(model.get("layer"), deep);
    const axes = { x: { ...x, ticks: Array.from({ length: deep }, (_, i) => String(i + 1)) } };
    const both = (runs) => [chosen, REFERENCE].map((name) => runs[name][deep]);
    wiring.draw(chosen);
    depth.draw(deep);
    gradientPlot.draw(both(gradient), layer - 1, { ...axes, y: gradientAxis(gradient, [chosen, REFERENCE]) });
    diversityPlot.draw(both(diversity), layer - 1, axes);
    const sentence = describeStack(diversity[chosen][deep], ...both(gradient), layer);
    write(said, sentence);
    say(`${chosen}, ${deep} layers. ${sentence}`);
  }
  follow(model, ["wiring", "depth", "layer"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

export default { render };
