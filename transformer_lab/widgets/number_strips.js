// Numbers to look at: vectors as strips of coloured cells, and a table that has such strips in its lines. The
// colour says the sign, its strength the size; all strips that are shown together share one scale.
import { cividis, element, svg } from "./parts.js";
import { format } from "./plane.js";
import { dot } from "./runtime.js";

const FIRST = 5; // numbers that are also written down

export const STRIPS_LOOK = `
.tl-strips { --plus: #3d52c4; --minus: #c2334d; }
@media (prefers-color-scheme: dark) {
  html:not([data-theme], [theme]) body:not([data-jp-theme-light]) .tl-strips {
    --plus: #8fa2ff; --minus: #ff8296;
  }
}
html:is([data-theme="dark"], [theme="dark"]) .tl-strips, body[data-jp-theme-light="false"] .tl-strips {
  --plus: #8fa2ff; --minus: #ff8296;
}
.tl-strips .tl-query { --hue: var(--query); --hue-text: var(--query-text); }
.tl-strips .tl-key { --hue: var(--key); --hue-text: var(--key-text); }
.tl-strips .tl-value { --hue: var(--value); --hue-text: var(--value-text); }
.tl-strips .tl-output { --hue: var(--output); --hue-text: var(--output-text); }
.tl-strips .tl-name {
  display: flex; flex-wrap: wrap; gap: 0 .7rem; align-items: baseline; font-size: .875rem;
}
.tl-strips .tl-name b { color: var(--hue-text, var(--text)); font-weight: 650; }
.tl-strips :is(.tl-name span, .tl-some) {
  color: var(--muted); font-size: .8125rem; font-variant-numeric: tabular-nums;
}
.tl-strips .tl-numbers {
  display: block; width: 100%; height: 1.35rem; border: 1px solid var(--hue, var(--muted));
  border-left-width: 4px; border-radius: 3px; background: var(--surface); shape-rendering: crispEdges;
}
.tl-strips .tl-plus { fill: var(--plus); }
.tl-strips .tl-minus { fill: var(--minus); }
.tl-strips .tl-gap { fill: var(--text); }
.tl-strips table {
  width: auto; margin: 0; border: 0; border-collapse: collapse; font-size: .875rem; line-height: 1.3;
}
.tl-strips table:has(.tl-wide) { width: 100%; table-layout: fixed; }
.tl-strips caption { padding: 0 0 .2rem; color: var(--muted); font-size: .8125rem; text-align: left; }
.tl-strips :is(th, td) {
  padding: .15rem .3rem; border: 0; background: none; color: inherit; font-weight: 400; text-align: left;
  vertical-align: middle;
}
.tl-strips thead th { color: var(--hue-text, var(--muted)); font-size: .8125rem; font-weight: 650; }
.tl-strips :is(th, td):first-child { width: 5.6rem; padding-left: 0; overflow-wrap: anywhere; }
.tl-strips .tl-narrow { width: 4.7rem; text-align: right; font-variant-numeric: tabular-nums; }
.tl-strips .tl-here th { font-weight: 650; }
.tl-strips .tl-masked { color: var(--muted); }
.tl-strips .tl-masked td {
  --grey: color-mix(in srgb, #999 30%, transparent);
  background: repeating-linear-gradient(45deg, var(--grey) 0 4px, transparent 4px 8px);
}
.tl-strips .tl-masked .tl-numbers { opacity: .35; }
.tl-strips td .tl-numbers { height: 1.1rem; }
.tl-strips .tl-heat { display: block; padding: .1rem .3rem; border-radius: 3px; }
.tl-strips .tl-share { display: grid; grid-template-columns: 5.8rem 1fr; align-items: center; }
.tl-strips .tl-bar {
  display: block; height: .8rem; min-width: 1px; border-radius: 2px; background: var(--output);
}
.tl-strips .tl-scale {
  display: flex; gap: .5rem; align-items: center; color: var(--muted); font-size: .8125rem;
}
.tl-strips .tl-scale .tl-numbers { width: 8rem; height: .8rem; border-width: 1px; }
`;

/** The length of a vector. */
export function lengthOf(row) {
  return Math.sqrt(dot(row, row));
}

/** Vectors and tables, as `vectorView` and `tableView` take them, one below the other -> nodes. */
export function picture(views, all) {
  const most = Math.max(0, ...views.flatMap(stripsOf).flatMap((row) => Array.from(row, Math.abs)));
  const nodes = views.map((view) => (view.lines ? tableView(view, most) : vectorView(view, most, all)));
  return most ? [...nodes, scaleView(most)] : nodes;
}

function stripsOf({ numbers, lines, columns }) {
  if (numbers) return [numbers];
  const drawn = columns.filter((name) => ["key", "value"].includes(name));
  return drawn.flatMap((name) => lines.map((line) => line[name]));
}

/** Numbers as cells; `most` has the full colour, and lines part heads that stand side by side. */
function strip(numbers, most, heads = 1) {
  const cells = Array.from(numbers, (number, i) => number && svg("rect", {
    class: number > 0 ? "tl-plus" : "tl-minus", x: i, width: 1, height: 1,
    "fill-opacity": Math.min(Math.abs(number) / most, 1).toFixed(3),
  })).filter(Boolean);
  const gaps = Array.from({ length: heads - 1 }, (_, h) => svg("rect", {
    class: "tl-gap", x: (h + 1) * numbers.length / heads - 0.2, width: 0.4, height: 1,
  }));
  return svg("svg", {
    class: "tl-numbers", viewBox: `0 0 ${numbers.length} 1`, preserveAspectRatio: "none",
    "aria-hidden": "true",
  }, ...cells, ...gaps);
}

/**
 * A vector { name, role, numbers, letter, heads }: `role` gives its colour, one of query, key, value, output,
 * plain; `letter` is the book's for its width. The first numbers are written below it, or all of them.
 */
function vectorView({ name, role, numbers, letter, heads }, most, all) {
  const shown = Array.from(all ? numbers : numbers.slice(0, FIRST), (number) => format(number));
  const size = `(${letter}) = (${numbers.length}), length ${format(lengthOf(numbers))}`;
  return element("div", { class: `tl-${role}` },
    element("div", { class: "tl-name" }, element("b", {}, name), element("span", {}, size)),
    strip(numbers, most, heads),
    element("p", { class: "tl-some" }, `${shown.join("  ")}${all ? "" : "  …"}`));
}

const COLUMN_VIEWS = { // what stands above a column, and how a line shows its own
  id: { kind: "narrow", cell: ({ id }) => String(id) },
  key: { kind: "wide tl-key", cell: ({ key }, most) => strip(key, most) },
  value: { kind: "wide tl-value", cell: ({ value }, most) => strip(value, most) },
  score: { kind: "narrow", cell: ({ score, masked }) => (masked ? "masked" : format(score)) },
  weight: { kind: "narrow", cell: ({ weight, masked }) => (masked ? "masked" : heat(weight)) },
  probability: { kind: "wide", cell: ({ probability }) => bar(probability) },
};

function heat(weight) {
  const { fill, ink } = cividis(weight);
  const node = element("span", { class: "tl-heat" }, format(weight));
  Object.assign(node.style, { background: fill, color: ink });
  return node;
}

function bar(probability) {
  const node = element("span", { class: "tl-bar" });
  node.style.width = `${100 * probability}%`;
  const number = element("span", {}, percent(probability));
  return element("div", { class: "tl-share" }, number, element("div", {}, node));
}

/** A share that is not quite all, or not quite nothing, is not called so. */
export function percent(share) {
  if (share < 0.001) return "below 0.1 %";
  if (share > 0.9999) return "over 99.99 %";
  return `${(100 * share).toFixed(share > 0.999 ? 2 : 1)} %`;
}

/**
 * A table { caption, columns, lines } with a line for each token: { word, here, masked } and what its columns
 * show, which are some of `COLUMN_VIEWS`.
 */
function tableView({ caption, columns, lines }, most) {
  const shown = columns.map((name) => ({ name, ...COLUMN_VIEWS[name] }));
  const row = (line) => element("tr", { class: line.masked ? "tl-masked" : line.here ? "tl-here" : null },
    element("th", { scope: "row" }, line.word),
    ...shown.map(({ kind, cell }) => element("td", { class: `tl-${kind}` }, cell(line, most))));
  return element("table", {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "token"),
      ...shown.map(({ name, kind }) => element("th", { scope: "col", class: `tl-${kind}` }, name)))),
    element("tbody", {}, ...lines.map(row)));
}

/** What the colours mean: a line from the largest number in size, negative, to the same, positive. */
function scaleView(most) {
  const steps = Array.from({ length: 21 }, (_, i) => (i - 10) * most / 10);
  return element("div", { class: "tl-scale" }, format(-most, 1), strip(steps, most), `+${format(most, 1)}`);
}
