// A compute budget, divided between parameters and tokens: what the law of Hoffmann et al. says of each division.
// traits (see scaling_budget.py): exponent, place, law, sizes.
import { CONTROLS_LOOK, slider } from "./controls.js";
import { linePlot, LINE_PLOT_LOOK, power } from "./line_plot.js";
import { announcer, element, follow, frame, wear, write } from "./parts.js";

const HIGHEST = 6; // what the plot shows; a loss above lies at its edge
const CLOSE = 0.005; // a loss that much above the lowest is as good

/** The loss of n parameters, trained on d tokens. */
export function lossOf(law, n, d) {
  return law.floor + law.of_parameters * n ** -law.alpha + law.of_data * d ** -law.beta;
}

/** Parameters and tokens of the lowest loss with 6 n d = flops. */
export function bestDivision(law, flops) {
  const together = law.alpha + law.beta;
  const balance = (law.alpha * law.of_parameters / (law.beta * law.of_data)) ** (1 / together);
  const n = balance * (flops / 6) ** (law.beta / together);
  return { n, d: flops / 6 / n };
}

/** A large number in short: 46 M, 1.8 B, 300 B, 14 T. */
export function inShort(value) {
  const units = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]];
  const [unit, name] = units.find(([unit]) => value >= 0.9995 * unit) ?? [1, ""];
  const count = value / unit;
  return `${count < 9.95 ? count.toFixed(1).replace(".0", "") : Math.round(count).toLocaleString("en")} ${name}`.trim();
}

/** What a division is worth, beside the best one. */
export function describeDivision(law, exponent, n) {
  const flops = 10 ** exponent;
  const d = flops / 6 / n;
  const best = bestDivision(law, flops);
  const [loss, lowest] = [lossOf(law, n, d), lossOf(law, best.n, best.d)];
  const each = d / n;
  const tokens = `${inShort(d)} tokens, ${each < 9.95 ? each.toPrecision(2) : inShort(each)} for each parameter`;
  const word = loss - lowest < CLOSE ? "As good as it gets for this budget"
    : n < best.n ? "Too small a model for this budget" : "Too large a model for this budget";
  return `${inShort(n)} parameters, ${tokens}: loss ${loss.toFixed(2)}. ${word}: the lowest, ${lowest.toFixed(2)}, has `
    + `${inShort(best.n)} parameters and ${inShort(best.d)} tokens.`;
}

const LOOK = `
.tl-budget { display: grid; gap: .9rem; }
.tl-budget > * { min-width: 0; }
.tl-budget .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-budget .tl-said { min-height: 9em; }
.tl-widget .tl-budget .tl-legend { display: grid; } /* of one height, however long the numbers */
@container (min-width: 34rem) { .tl-budget .tl-said { min-height: 4.5em; } }
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LINE_PLOT_LOOK + LOOK, signal);
  const [law, sizes] = [model.get("law"), model.get("sizes")];
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  const budget = slider({
    label: "Budget", min: 18, max: 26, step: 1, say: (exponent) => `${power(10 ** exponent)} FLOPs`, signal,
    onInput: (value) => set("exponent", value),
  });
  const plot = linePlot({
    title: "Loss by the law, over the size of the model; what is not spent on size is spent on tokens",
    x: { label: "parameters", ticks: sizes.map((size) => inShort(size).replace(" ", "")) }, // narrow
    y: {
      from: 1.5, to: HIGHEST, ticks: [2, 3, 4, 5, 6],
      say: (value) => (value < HIGHEST ? value.toFixed(2) : `${HIGHEST} or more`),
    },
    lines: [{ name: "loss", kind: "output" }, { name: "lowest for this budget", kind: "muted", dashed: true }],
    onPoint: (place) => set("place", place), signal,
  });
  const said = element("p", { class: "tl-said" });
  const { region, say } = announcer(signal);
  const root = frame("A budget of compute", element("div", { class: "tl-budget" },
    element("p", { class: "tl-note" }, "Try this first: at 10²¹ FLOPs, find the best size. Then give a hundred times "
      + "as much, 10²³. Does the best model become a hundred times as large?"),
    element("div", { class: "tl-controls" }, budget.root), said, plot.root), region);

  function draw() { // model -> view, and never the other way
    const [exponent, place] = [model.get("exponent"), model.get("place")];
    const flops = 10 ** exponent;
    const { n, d } = bestDivision(law, flops);
    const losses = sizes.map((size) => Math.min(lossOf(law, size, flops / 6 / size), HIGHEST));
    budget.draw(exponent);
    plot.draw([losses, sizes.map(() => lossOf(law, n, d))], place);
    const sentence = describeDivision(law, exponent, sizes[place]);
    write(said, sentence);
    say(`${power(flops)} FLOPs. ${sentence}`);
  }
  follow(model, ["exponent", "place"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

export default { render };
