// What a model costs to read a context and to write on: arithmetic, memory, time, and which of them rules.
// traits (see efficient_calculator.py): sizes, latent, bytes_per_number, n_tokens, batch, device, models, devices.
import { choice, CONTROLS_LOOK, slider, stepper } from "./controls.js";
import { costs, kindOf, latentWidths, PARTS, work } from "./efficient_costs.js";
import { linePlot, LINE_PLOT_LOOK } from "./line_plot.js";
import { announcer, element, follow, frame, wear, write } from "./parts.js";

const powers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => 2 ** (from + i));
export const CONTEXTS = powers(7, 20);
const BATCHES = powers(0, 10);
const WIDTHS = [256, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 6144, 8192, 12288, 16384];
const LAYERS = [1, 2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128];
const KINDS = ["multi-head", "grouped", "multi-query", "latent"];
const FORMATS = [["4", "4 (FP32)"], ["2", "2 (FP16)"], ["1", "1 (FP8, INT8)"]];

/** 62.5 T, 980, 1.50 k: three digits and a prefix for the unit that follows. */
export function withPrefix(value) {
  const prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
  const step = Math.floor(Math.log10(Math.max(Number(value.toPrecision(3)), 1)) / 3);
  const place = Math.min(step, prefixes.length - 1);
  return `${digits(value / 1000 ** place)} ${prefixes[place]}`;
}

/** Three digits, but a whole number whole: 12.3, 0.0123, 1,234. */
function digits(value) {
  const short = Number(value.toPrecision(3));
  const places = Math.max(0, 2 - Math.floor(Math.log10(short || 1)));
  return short >= 100 || short === 0 ? grouped(Math.round(short)) : short.toFixed(places);
}

/** 1,048,576 */
export function grouped(whole) {
  return String(whole).replace(/\B(?=(\d{3})+$)/g, ",");
}

const UNITS = [
  [1e-9, "ns"], [1e-6, "µs"], [1e-3, "ms"], [1, "s"], [60, "min"], [3600, "h"], [86400, "days"],
  [365 * 86400, "years"],
];

/** 4.51 ms, 51.0 min: a time at a glance, from two minutes on in minutes. */
export function duration(seconds) {
  const rounded = Number(seconds.toPrecision(3));
  const [size, unit] = UNITS.findLast(([size]) => rounded >= (size > 1 ? 2 * size : size)) ?? UNITS[0];
  return `${digits(seconds / size)} ${unit}`;
}

const bytesOf = (bytes) => `${withPrefix(bytes).replace(/\.0+ /, " ")}B`; // 80 GB for 80.0 GB
const percent = (share) => (share < 0.01 ? "less than 1\u00a0%" : `${Math.round(100 * share)}\u00a0%`); // on one line
const texts = (count) => (count === 1 ? "one text" : `${grouped(count)} texts`);

/** Which of the three terms rules, and from where on the quadratic one does. */
export function describeFlops({ flops, crossover }, { sizes, n_tokens: n, batch }) {
  const all = flops.reduce((a, b) => a + b);
  const [, scores] = flops;
  const place = `from n = ${(crossover / sizes.d_model).toFixed(1)} D = ${grouped(Math.ceil(crossover))} on`;
  const reading = `To read ${batch === 1 ? "" : `${texts(batch)} of `}${grouped(n)} tokens takes ${withPrefix(all)}FLOP`;
  if (2 * scores >= all)
    return `${reading}. The quadratic term rules, as it does ${place}: ${percent(scores / all)} goes into the scores.`;
  const largest = flops[0] > flops[2] ? 0 : 2;
  const most = largest === 0 ? "projections" : "feed-forward networks";
  return `${reading}: ${percent(flops[largest] / all)} goes into the ${most}, ${percent(scores / all)} into the scores. `
    + `The quadratic term rules ${place}.`;
}

/** What fits into the device's memory. */
export function describeMemory({ weights, cache, room }, { n_tokens: n, batch }, memory) {
  const [all, has] = [`The weights take ${bytesOf(weights)}`, `the ${bytesOf(memory)} of this device`];
  if (weights > memory)
    return `${all}, more than ${has}: it takes ${Math.ceil(weights / memory)} of them, or fewer bytes per number. `
      + `The cache comes to ${bytesOf(cache)}.`;
  const fitting = Math.floor(room / n);
  const fits = fitting >= batch;
  const howMany = fitting === 0 ? "less than one text of this length"
    : fits ? `${texts(fitting)} of this length` : `${grouped(fitting)} of the ${texts(batch)}`;
  return `${all}, the cache takes ${bytesOf(cache)}: ${fits ? "both fit into" : "too much for"} ${has}. `
    + `Beside the weights there is room for the cache of ${grouped(room)} tokens: ${howMany}.`;
}

/** What bounds reading and writing, and how fast they can be at best. */
export function describeTime({ reading, writing, weights, cache }, { batch }, memory) {
  const least = (time) => duration(Math.max(time.arithmetic, time.memory));
  const rate = batch / Math.max(writing.arithmetic, writing.memory);
  const speed = `at most ${rate < 10 ? digits(rate) : grouped(Math.round(rate))} tokens a second`;
  const [each, together] = batch === 1 ? ["", ""] : [" of each text", ", all texts together"];
  return `Reading the context is bound by ${reading.bound}: it takes ${least(reading)} or more. `
    + `Writing one token${each} is bound by ${writing.bound}: ${least(writing)} or more, ${speed}${together}.`
    + (weights + cache > memory ? " So it would be with enough memory." : "");
}

/** The name of the model that has these sizes, whatever its keys and values, or null. */
export function modelOf(models, sizes) {
  const own = (size) => JSON.stringify(["d_model", "d_ff", "n_layers", "n_heads", "gated"].map((name) => size[name]));
  return Object.keys(models).find((name) => own(models[name]) === own(sizes)) ?? null;
}

/** The same model with another way to keep keys and values; "latent" shares nothing. */
export function withKind(sizes, kind) {
  const { n_heads: heads } = sizes;
  const groups = heads % 8 === 0 && heads > 8 ? 8 : heads % 4 === 0 ? heads / 4 : heads;
  return { ...sizes, n_kv_heads: kind === "grouped" ? groups : kind === "multi-query" ? 1 : heads };
}

/** A wider or a narrower model with heads as wide as they are, as nearly as whole heads allow, in its proportions. */
export function withWidth(sizes, width) {
  let heads = Math.max(Math.round(width * sizes.n_heads / sizes.d_model), 1);
  while (width % heads) heads -= 1;
  const resized = { ...sizes, d_model: width, d_ff: Math.round(width * sizes.d_ff / sizes.d_model), n_heads: heads };
  return withKind(resized, kindOf(sizes, false));
}

/** Ticks of an axis for these FLOPs, powers of ten, five at most. */
export function flopsAxis(curves) {
  const [low, high] = [Math.min, Math.max].map((extreme) => Math.log10(extreme(...curves.flat())));
  const step = [1, 2, 3, 4, 5].find((step) => Math.ceil(high / step) - Math.floor(low / step) <= 4) ?? 6;
  const [first, last] = [Math.floor(low / step), Math.ceil(high / step)];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => 10 ** ((first + i) * step));
  return { from: ticks[0], to: ticks.at(-1), ticks, log: true, say: (flops) => `${withPrefix(flops)}FLOP` };
}

const LOOK = `
.tl-costs { display: grid; gap: .9rem 1.5rem; }
.tl-costs > * { min-width: 0; }
.tl-costs .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-costs .tl-settings { display: grid; gap: 0; }
.tl-widget .tl-costs .tl-slider {
  display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; width: 100%; max-width: none;
}
.tl-widget .tl-costs .tl-slider .tl-number { grid-area: 1 / 2; }
.tl-widget .tl-costs .tl-slider input { grid-area: 2 / 1 / auto / span 2; width: 100%; } /* long enough for a thumb */
.tl-costs .tl-panel { display: grid; gap: .5rem; align-content: start; min-width: 0; }
.tl-widget .tl-costs .tl-legend { display: grid; }
.tl-widget .tl-costs .tl-stepper [role="spinbutton"] { min-width: 4.4rem; }
.tl-costs :is(.tl-flops-said, .tl-memory-said) { min-height: 9em; } /* of one height, however long the words */
.tl-costs .tl-time-said { min-height: 12em; }
.tl-costs .tl-settings .tl-small { min-height: 6em; }
.tl-costs .tl-shares { display: grid; grid-template-columns: 1fr 1fr; gap: .1rem .6rem; font-size: .875rem; }
.tl-costs .tl-shares span::before {
  content: ""; display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; vertical-align: -1px;
  border: 1px solid var(--muted); border-radius: 2px; background: var(--hue);
}
.tl-costs .tl-shares .tl-end::before { width: 3px; border: 0; border-radius: 0; }
.tl-costs .tl-room { position: relative; margin: .5rem 0 .3rem; }
.tl-costs .tl-room > div {
  display: flex; height: 1.6rem; border: 1px solid var(--muted); border-radius: .25rem; overflow: hidden;
}
.tl-costs .tl-room > div i { width: var(--share); background: var(--hue); }
.tl-costs .tl-room > i { position: absolute; inset: -.3rem auto -.3rem var(--place); width: 3px; background: var(--text); }
.tl-widget .tl-costs table { width: 100%; margin: 0; border-collapse: collapse; table-layout: fixed; font-size: .875rem; }
.tl-widget .tl-costs caption { padding: 0; caption-side: top; text-align: left; }
.tl-widget .tl-costs :is(th, td) {
  padding: .25rem .5rem .25rem 0; border: 0; background: none; font-weight: 400; text-align: left; vertical-align: top;
}
.tl-widget .tl-costs thead th { color: var(--muted); }
.tl-costs td i { display: block; width: var(--share); height: .45rem; margin-top: .15rem; border-radius: 2px;
  background: var(--muted); }
.tl-costs td span { white-space: nowrap; }
.tl-costs td.tl-rules { font-weight: 650; }
.tl-costs td.tl-rules i { background: var(--query-text); }
.tl-costs .tl-small { color: var(--muted); font-size: .8125rem; }
@container (min-width: 17rem) {
  .tl-costs .tl-time-said { min-height: 10.5em; }
  .tl-costs .tl-settings .tl-small { min-height: 4.5em; }
}
@container (min-width: 18rem) { .tl-costs .tl-flops-said { min-height: 7.5em; } }
@container (min-width: 20rem) {
  .tl-costs .tl-memory-said { min-height: 7.5em; }
  .tl-costs .tl-time-said { min-height: 9em; }
}
@container (min-width: 26rem) {
  .tl-costs :is(.tl-flops-said, .tl-memory-said) { min-height: 6em; }
  .tl-costs .tl-time-said { min-height: 7.5em; }
}
@container (min-width: 34rem) {
  .tl-costs { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
  .tl-costs > :is(.tl-note, .tl-settings, .tl-small) { grid-column: 1 / -1; }
  .tl-widget .tl-costs .tl-slider { grid-template-columns: auto 1fr 7rem; }
  .tl-widget .tl-costs .tl-slider .tl-number { grid-area: 1 / 3; }
  .tl-widget .tl-costs .tl-slider input { grid-area: 1 / 2; }
  .tl-costs :is(.tl-flops-said, .tl-memory-said) { min-height: 9em; }
  .tl-costs .tl-time-said { min-height: 10.5em; }
  .tl-costs .tl-settings .tl-small { min-height: 3em; }
}
@container (min-width: 38rem) { .tl-costs :is(.tl-flops-said, .tl-memory-said) { min-height: 7.5em; } }
@container (min-width: 45rem) { .tl-costs .tl-time-said { min-height: 9em; } }
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LINE_PLOT_LOOK + LOOK, signal);
  const [models, devices] = ["models", "devices"].map((name) => model.get(name));
  const traits = ["sizes", "latent", "bytes_per_number", "n_tokens", "batch", "device"];
  const read = () => Object.fromEntries(traits.map((name) => [name, model.get(name)]));
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const named = (names) => names.map((name) => [name, name]);

  const which = choice({
    label: "Model", name: "model", options: named(Object.keys(models)), signal,
    onInput: (name) => set({ sizes: models[name], latent: false }),
  });
  const keys = choice({
    label: "Keys and values", name: "keys", options: named(KINDS), signal,
    onInput: (kind) => set({ sizes: withKind(model.get("sizes"), kind), latent: kind === "latent" }),
  });
  const format = choice({
    label: "Bytes per number", name: "bytes", options: FORMATS, signal,
    onInput: (value) => set({ bytes_per_number: Number(value) }),
  });
  const device = choice({
    label: "Device", name: "device", options: named(Object.keys(devices)), signal,
    onInput: (name) => set({ device: name }),
  });
  const own = (offered, name) => // the sizes with which it opens are offered too
    [...new Set([...offered, model.get("sizes")[name]])].sort((a, b) => a - b);
  const layers = stepper({
    label: "Layers", values: own(LAYERS, "n_layers"), signal,
    onInput: (value) => set({ sizes: { ...model.get("sizes"), n_layers: value } }),
  });
  const width = stepper({
    label: "Width D", values: own(WIDTHS, "d_model"), say: grouped, signal,
    onInput: (value) => set({ sizes: withWidth(model.get("sizes"), value) }),
  });
  const batch = stepper({
    label: "Texts at once", values: BATCHES, say: grouped, signal, onInput: (value) => set({ batch: value }),
  });
  const context = slider({
    label: "Context", min: 0, max: CONTEXTS.length - 1, step: 1, say: (i) => `n = ${grouped(CONTEXTS[i])}`, signal,
    onInput: (i) => model.set("n_tokens", CONTEXTS[i]), onRelease: () => model.save_changes(),
  });
  const plot = linePlot({
    title: "FLOPs to read the context", x: { label: "tokens n (1k = 1,024)", ticks: CONTEXTS.map(withBinaryPrefix) },
    y: { from: 1, to: 10, ticks: [] }, // each drawing brings its own
    lines: [
      { name: PARTS[0], kind: "query" }, { name: `${PARTS[1]}, quadratic`, kind: "key" },
      { name: PARTS[2], kind: "value", dashed: true },
    ],
    onPoint: (place) => set({ n_tokens: CONTEXTS[place] }), signal,
  });
  const [memory, times] = [memoryBar(), timeTable()];
  const [aboutFlops, aboutMemory, aboutTime] = ["flops", "memory", "time"].map((name) =>
    element("p", { class: `tl-${name}-said` }));
  const aboutSizes = element("p", { class: "tl-small" });
  const { region, say } = announcer(signal);
  // In a form, for radio buttons group by form: several views do not mix.
  const root = frame("What a model costs", element("form", { class: "tl-costs" },
    element("p", { class: "tl-note" }, "Try this first: a model reads 4,096 tokens, then writes one after another. What "
      + "holds it up each time, arithmetic or memory? Guess, then look at the times. Now let it write more texts at "
      + "once: what grows too large, and which way to keep keys and values helps most?"),
    element("div", { class: "tl-settings" }, which.root, keys.root,
      element("div", { class: "tl-controls" }, width.root, layers.root, batch.root),
      element("div", { class: "tl-controls" }, format.root, device.root), context.root, aboutSizes),
    element("div", { class: "tl-panel" }, plot.root, aboutFlops),
    element("div", { class: "tl-panel" }, memory.root, aboutMemory, times.root, aboutTime),
    element("p", { class: "tl-small" }, "Counted: the matrix products of all blocks and what these move, with the whole "
      + "table of scores (skipping what a causal mask hides saves up to half of it). Not counted: softmax, norms, "
      + "embeddings, in “base, 2017” the decoder’s attention to the encoder, and all that keeps a device below its "
      + "published peaks. So these are estimates from below.")), region);

  function draw() { // model -> view, and never the other way
    const state = read();
    const { sizes, latent, n_tokens: n } = state;
    const chosen = devices[state.device];
    const found = costs(state, chosen);
    const name = modelOf(models, sizes);
    if (name) which.draw(name);
    else for (const input of which.root.querySelectorAll(":checked")) input.checked = false; // sizes of its own
    keys.draw(kindOf(sizes, latent));
    width.draw(sizes.d_model);
    layers.draw(sizes.n_layers);
    batch.draw(state.batch);
    format.draw(String(state.bytes_per_number));
    device.draw(state.device);
    context.draw(CONTEXTS.indexOf(n));
    write(aboutSizes, describeSizes(state, chosen));
    const byContext = CONTEXTS.map((tokens) => work(sizes, latent, tokens, state.batch, false).flops);
    const curves = PARTS.map((_, part) => byContext.map((flops) => flops[part]));
    plot.draw(curves, CONTEXTS.indexOf(n), { y: flopsAxis(curves) });
    memory.draw(found, chosen.memory);
    times.draw(found);
    const said = [
      describeFlops(found, state), describeMemory(found, state, chosen.memory),
      describeTime(found, state, chosen.memory),
    ];
    [aboutFlops, aboutMemory, aboutTime].forEach((node, i) => write(node, said[i]));
    say(`${name ?? "A model of your own"}, ${kindOf(sizes, latent)}. ${said.join(" ")}`);
  }
  follow(model, traits, draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

/** 128, 4k, 1M, by powers of 1,024. */
function withBinaryPrefix(n) {
  return n < 1024 ? String(n) : n < 1024 ** 2 ? `${n / 1024}k` : `${n / 1024 ** 2}M`;
}

/** The sizes that follow from what is set, and the device's peaks for numbers of so many bytes. */
export function describeSizes({ sizes, latent, bytes_per_number: bytes }, { flops, bandwidth }) {
  const { dc, dr } = latentWidths(sizes);
  const kept = latent ? `a latent of ${grouped(dc)} + ${grouped(dr)} numbers` : `${sizes.n_kv_heads} for keys and values`;
  return `${sizes.n_heads} heads of width ${sizes.d_model / sizes.n_heads}, ${kept}; feed-forward width `
    + `${grouped(sizes.d_ff)}${sizes.gated ? ", gated" : ""}. Published peaks: ${withPrefix(flops[bytes])}FLOP/s, `
    + `${withPrefix(bandwidth)}B/s.`;
}

/** Weights and cache in a bar, and where the device's memory ends. */
function memoryBar() {
  const hues = ["--value", "--key", "--surface", "--text"]; // weights, cache, what is free, the end
  const hued = (tag, hue) => {
    const node = element(tag);
    node.style.setProperty("--hue", `var(${hue})`);
    return node;
  };
  const fields = hues.slice(0, 2).map((hue) => hued("i", hue));
  const names = hues.map((hue) => hued("span", hue));
  const end = element("i");
  names.at(-1).className = "tl-end";
  const root = element("figure", { class: "tl-plot", "aria-hidden": "true" }, // the words below say the same
    element("figcaption", { class: "tl-heading" }, "Memory for weights and cache"),
    element("div", { class: "tl-shares" }, ...names),
    element("div", { class: "tl-room" }, element("div", {}, ...fields), end));
  function draw({ weights, cache }, memory) {
    const needed = weights + cache;
    const whole = Math.max(memory, needed);
    [weights, cache].forEach((size, i) => fields[i].style.setProperty("--share", `${100 * size / whole}%`));
    end.style.setProperty("--place", `max(0px, ${100 * memory / whole}% - 3px)`);
    const rest = memory < needed ? `over: ${bytesOf(needed - memory)}` : `free ${bytesOf(memory - needed)}`;
    const words = [`weights ${bytesOf(weights)}`, `cache ${bytesOf(cache)}`, rest, `limit ${bytesOf(memory)}`];
    names.forEach((node, i) => write(node, words[i]));
  }
  return { root, draw };
}

/** The least times for arithmetic and for memory, a row for reading and one for writing. */
function timeTable() {
  const columns = ["arithmetic", "memory"];
  const rows = [["reading", "Read the context"], ["writing", "Write one token"]].map(([key, name]) => {
    const cells = columns.map(() => ({ number: element("span"), bar: element("i") }));
    const nodes = cells.map(({ number, bar }) => element("td", {}, number, bar));
    return { key, cells, nodes, root: element("tr", {}, element("th", { scope: "row" }, name), ...nodes) };
  });
  const root = element("table", {},
    element("caption", { class: "tl-heading" }, "Least time"),
    element("thead", {}, element("tr", {}, element("td"),
      ...columns.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map((row) => row.root)));
  function draw(found) {
    for (const { key, cells, nodes } of rows) {
      const longest = Math.max(...columns.map((name) => found[key][name]));
      columns.forEach((name, i) => {
        const seconds = found[key][name];
        write(cells[i].number, duration(seconds));
        cells[i].bar.style.setProperty("--share", `${100 * seconds / longest}%`);
        nodes[i].classList.toggle("tl-rules", found[key].bound === name);
      });
    }
  }
  return { root, draw };
}

export default { render };
