// Why the scores are divided by √dₖ: dot products of dₖ random numbers grow, and the softmax falls for one key.
// traits (see attention_scaling.py): d_k, n_keys, divided.
import { CONTROLS_LOOK, slider, stepper, toggle } from "./controls.js";
import { linePlot, LINE_PLOT_LOOK } from "./line_plot.js";
import { announcer, element, follow, frame, wear, write } from "./parts.js";
import { softmax } from "./runtime.js";
import { tokenStrip, TOKEN_STRIP_LOOK } from "./token_strip.js";

export const WIDTHS = [1, 2, 4, 8, 16, 32, 64, 128, 256]; // dₖ
const DRAWS = 64;
const MOST_KEYS = 12;

/** Independent standard normal numbers, the same for the same seed (mulberry32; Box and Muller's transform). */
export function normals(seed) {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  let spare = null; // they come in pairs
  return () => {
    if (spare !== null) { const normal = spare; spare = null; return normal; }
    const [radius, angle] = [Math.sqrt(-2 * Math.log(1 - uniform())), 2 * Math.PI * uniform()];
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** dots[draw][w][s]: the first WIDTHS[w] components of a random query times those of random key s. */
export function drawDots(seed = 9) {
  const normal = normals(seed);
  const widest = WIDTHS.at(-1);
  return Array.from({ length: DRAWS }, () => {
    const q = Float64Array.from({ length: widest }, normal);
    const rows = WIDTHS.map(() => new Float64Array(MOST_KEYS));
    for (let s = 0; s < MOST_KEYS; s++) {
      let sum = 0;
      for (let d = 0, w = 0; d < widest; d++) {
        sum += q[d] * normal();
        if (d + 1 === WIDTHS[w]) rows[w++][s] = sum;
      }
    }
    return rows;
  });
}

/** The weights of one draw. */
export function weightsOf(dots, w, nKeys, divided) {
  const divisor = divided ? Math.sqrt(WIDTHS[w]) : 1;
  return softmax(Array.from(dots[w].subarray(0, nKeys), (dot) => dot / divisor));
}

/** The largest weight, on average over the draws, for each width. */
export function meanLargest(draws, nKeys, divided) {
  return WIDTHS.map((_, w) =>
    draws.reduce((sum, dots) => sum + Math.max(...weightsOf(dots, w, nKeys, divided)), 0) / draws.length);
}

const LOOK = `
.tl-scaling { display: grid; gap: .9rem; }
.tl-scaling > * { min-width: 0; }
.tl-scaling .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-widget .tl-scaling .tl-controls { display: grid; justify-items: start; }
.tl-widget .tl-scaling .tl-slider { width: 100%; }
.tl-scaling .tl-said { min-height: 4.5em; }
@container (min-width: 34rem) {
  .tl-widget .tl-scaling .tl-controls { display: flex; }
  .tl-scaling .tl-said { min-height: 1.5em; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + TOKEN_STRIP_LOOK + LINE_PLOT_LOOK + LOOK, signal);
  const draws = drawDots();
  const curves = new Map(); // number of keys -> both lines
  const curvesFor = (nKeys) => {
    if (!curves.has(nKeys)) curves.set(nKeys, [false, true].map((isDivided) => meanLargest(draws, nKeys, isDivided)));
    return curves.get(nKeys);
  };
  const set = (name) => (value) => { model.set(name, value); model.save_changes(); };
  let [pointed, shown] = [-1, 0]; // the key pointed at, and which of the draws the strip shows

  const width = stepper({ label: "dₖ", values: WIDTHS, onInput: set("d_k"), signal });
  const keys = slider({
    label: "Keys", min: 2, max: MOST_KEYS, step: 1, say: String, signal,
    onInput: (value) => model.set("n_keys", value), onRelease: () => model.save_changes(),
  });
  const divided = toggle({ label: "Divide by √dₖ", onInput: set("divided"), signal });
  const plot = linePlot({
    title: `The largest of the weights, on average over ${DRAWS} random draws`,
    x: { label: "dₖ", ticks: WIDTHS.map(String) }, y: { from: 0, to: 1, ticks: [0, 0.5, 1] },
    lines: [{ name: "q · k", kind: "key" }, { name: "q · k ÷ √dₖ", kind: "query", dashed: true }],
    onPoint: (place) => set("d_k")(WIDTHS[place]), signal,
  });
  const strip = tokenStrip({ title: "The weights of one draw", onPoint: (s) => { pointed = s; draw(); }, signal });
  const another = element("button", { type: "button" }, "Another draw");
  another.addEventListener("click", () => {
    [pointed, shown] = [-1, (shown + 1) % draws.length];
    draw();
  }, { signal });
  const said = element("p", { class: "tl-said" });
  const { region, say } = announcer(signal);
  const root = frame("Why the scores are divided", element("div", { class: "tl-scaling" },
    element("p", { class: "tl-note" }, "Try this first: make dₖ larger, step by step, and watch the weights of one draw "
      + "below. At which dₖ does one key take nearly all? Then divide by √dₖ."),
    element("div", { class: "tl-controls" }, width.root, keys.root, divided.root, another),
    strip.root, said, plot.root), region);

  function draw() { // model -> view, and never the other way
    const [dk, nKeys, isDivided] = ["d_k", "n_keys", "divided"].map((name) => model.get(name));
    const w = WIDTHS.indexOf(dk);
    const dots = draws[shown];
    const weights = weightsOf(dots, w, nKeys, isDivided);
    if (pointed >= nKeys) pointed = -1;
    width.draw(dk);
    keys.draw(nKeys);
    divided.draw(isDivided);
    strip.draw(weights.map((_, s) => `key ${s + 1}`), weights, pointed);
    plot.draw(curvesFor(nKeys), w);
    const sentence = describeDraw(dots[w], weights, dk, isDivided, pointed);
    write(said, sentence);
    const means = curvesFor(nKeys).map((curve) => curve[w].toFixed(2));
    say(`${sentence} On average over ${DRAWS} draws: the largest is ${means[0]}, divided by √dₖ ${means[1]}.`);
  }
  follow(model, ["d_k", "n_keys", "divided"], draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** What the strip shows: the key pointed at, or the one with the largest weight. */
export function describeDraw(dots, weights, dk, divided, pointed) {
  const s = pointed >= 0 ? pointed : weights.indexOf(Math.max(...weights));
  const score = divided ? dots[s] / Math.sqrt(dk) : dots[s];
  const which = pointed >= 0 ? `Key ${s + 1}` : `The largest weight goes to key ${s + 1}: it`;
  const number = (x) => x.toFixed(2).replace("-", "−");
  return `${which} has q · k = ${number(dots[s])}${divided ? `, divided ${number(score)}` : ""}, `
    + `and gets ${number(weights[s])} of the weight.`;
}

export default { render };
