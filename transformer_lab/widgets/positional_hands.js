// The sinusoidal code of a position: clock hands from fast to slow. Two positions are compared hand by hand.
// traits (see positional_hands.py): position, offset, d_model.
import { CONTROLS_LOOK, slider, stepper } from "./controls.js";
import { dial, DIAL_LOOK, turnRates } from "./dial.js";
import { linePlot, LINE_PLOT_LOOK } from "./line_plot.js";
import { announcer, element, follow, frame, put, wear, write } from "./parts.js";
import { format } from "./plane.js";
import { sinusoid } from "./runtime.js";

const HANDS_WIDTHS = [4, 8, 16]; // D
const HANDS_REACH = 12; // positions to either side
const OFFSETS = Array.from({ length: 2 * HANDS_REACH + 1 }, (_, i) => i - HANDS_REACH);

/** Dot product of two codes divided by its largest value D / 2: the mean over the hands of cos(angle between). */
export function similarity(one, other, width) {
  const [a, b] = [sinusoid(one, width), sinusoid(other, width)];
  return a.reduce((sum, x, i) => sum + x * b[i], 0) / (width / 2);
}

/** A whole number with a real minus sign. */
const whole = (n) => format(n, 0);

/** Which two positions are compared, and what comes out. */
export function describeHands(position, offset, width) {
  const other = position + offset;
  const apart = offset === 0 ? "the same position" : `${Math.abs(offset)} ${offset > 0 ? "later" : "earlier"}`;
  const outside = other < 0 ? " No text has this position, but the formula goes on." : "";
  return `Position ${position} (blue) and ${whole(other)} (orange), ${apart}: `
    + `similarity ${format(similarity(position, other, width))}.${outside}`;
}

const HANDS_LOOK = `
.tl-hands { display: grid; gap: .9rem; }
.tl-hands > * { min-width: 0; }
.tl-hands .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-widget .tl-hands .tl-controls { display: grid; justify-items: start; }
.tl-widget .tl-hands .tl-slider { width: 100%; }
.tl-hands .tl-slider .tl-number { min-width: 1.8rem; }
.tl-hands .tl-period { color: var(--muted); }
.tl-hands .tl-said { min-height: 4.5em; }
@container (min-width: 34rem) {
  .tl-widget .tl-hands .tl-controls { display: flex; }
  .tl-widget .tl-hands .tl-dials { grid-template-columns: repeat(8, minmax(0, 1fr)); }
  .tl-hands .tl-said { min-height: 1.5em; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + DIAL_LOOK + LINE_PLOT_LOOK + HANDS_LOOK, signal);
  const set = (name) => (value) => { model.set(name, value); model.save_changes(); };

  const place = slider({
    label: "Position", min: 0, max: 100, step: 1, say: String, signal,
    onInput: (value) => model.set("position", value), onRelease: () => model.save_changes(),
  });
  const width = stepper({ label: "Width D", values: HANDS_WIDTHS, onInput: set("d_model"), signal });
  const clocks = makeClocks();
  const plot = linePlot({
    title: "Similarity with the positions before and after it: dot product of the codes, divided by D / 2",
    x: { label: "offset", ticks: OFFSETS.map(whole) },
    y: { from: -0.1, to: 1, ticks: [0, 0.5, 1] },
    lines: [{ name: "similarity", kind: "key" }],
    onPoint: (index) => set("offset")(OFFSETS[index]), signal,
  });
  const said = element("p", { class: "tl-said" });
  const { region, say } = announcer(signal);
  const root = frame("A position as clock hands", element("div", { class: "tl-hands" },
    element("p", { class: "tl-note" }, "Try this first: all hands turn when you move the position. Before you do: what "
      + "will the line at the bottom do? Then point at the line to bring the orange hands elsewhere."),
    element("div", { class: "tl-controls" }, place.root, width.root),
    clocks.root, said, plot.root), region);

  function draw() { // model -> view, and never the other way
    const [position, offset, d] = ["position", "offset", "d_model"].map((name) => model.get(name));
    place.draw(position);
    width.draw(d);
    clocks.draw(position, position + offset, d);
    plot.draw([OFFSETS.map((by) => similarity(position, position + by, d))], OFFSETS.indexOf(offset));
    const sentence = describeHands(position, offset, d);
    write(said, sentence);
    say(sentence);
  }
  follow(model, ["position", "offset", "d_model"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** A dial for each pair of numbers; the dials of a narrower code leave their places empty. */
function makeClocks() {
  const clocks = Array.from({ length: HANDS_WIDTHS.at(-1) / 2 }, makeClock);
  const caption = element("p", { class: "tl-heading" });
  const grid = element("div", { class: "tl-dials" }, ...clocks.map((clock) => clock.root));
  function draw(position, other, width) {
    const rates = turnRates(width);
    clocks.forEach((clock, i) => clock.draw(rates[i], position, other, i));
    write(caption, `The ${rates.length} hands of this position`);
  }
  const legend = element("p", { class: "tl-legend-of-dials" },
    "Above: how many positions one turn takes. Below: sine and cosine, the numbers of the code.");
  return { root: element("div", {}, caption, legend, grid), draw };
}

function makeClock() {
  const face = dial();
  const period = element("span", { class: "tl-number tl-period" });
  const [sine, cosine] = [element("span", { class: "tl-number" }), element("span", { class: "tl-number" })];
  const root = element("div", { role: "img" }, period, face.root, sine, cosine);
  function draw(rate, position, other, i) {
    root.style.visibility = rate === undefined ? "hidden" : "visible";
    if (rate === undefined) return;
    const turn = 2 * Math.PI / rate;
    const [sin, cos] = [Math.sin, Math.cos].map((f) => format(f(position * rate)));
    const round = turn < 10 ? turn.toFixed(1) : turn.toFixed(0);
    face.draw({ angle: position * rate, length: 1 }, { angle: other * rate, length: 1 });
    write(period, round);
    write(sine, sin);
    write(cosine, cos);
    put(root, { "aria-label": `Hand ${i + 1}, round in ${round} positions: sine ${sin}, cosine ${cos}` });
  }
  return { root, draw };
}

export default { render };
