// A trained encoder-decoder writes numbers in German: the states of its encoder, its cross-attention, its beam as a
// tree. Any of its heads can be switched off. The arithmetic is in translator.js.
// traits (see generation_translator.py): text, beam_size, asset, asset_bytes, asset_wanted, asset_progress, asset_data.
import { choice, CONTROLS_LOOK, slider, stepper, toggle } from "./controls.js";
import { heatMap, HEAT_MAP_LOOK } from "./heat_map.js";
import { FORM_LOOK, modelForm } from "./model_form.js";
import { afterPause, announcer, cividis, element, frame, put, svg, wear, write } from "./parts.js";
import { dot } from "./runtime.js";
import {
  decodeTranslator, embedTokens, germanWords, HEAD_KINDS, lengthPenalty, lookBack, numberSaid, numberWords,
  searchBeams, spell, tokenize, typedIds, wayTo, writeGreedy,
} from "./translator.js";

const EXAMPLES = ["21,345", "17,001", "ninety nine", "30,000", "121,345"];
const HINT = "The model learned numbers below 100,000. Capitals and hyphens do not matter.";
const SOFT = "\u00ad"; // a hyphen where a line must break
const BEAM_SIZES = [1, 2, 3, 4, 5, 6];
const ALPHA = 0.6; // of the length penalty
const MOST_WRITTEN = 20; // no number that the model learned needs more
const KIND_NAMES = {
  encoder: "self-attention of the encoder", decoder: "self-attention of the decoder", cross: "cross-attention",
};

// --- what is said --------------------------------------------------------------------------------

const quoted = (word) => `“${word}”`;
const german = (word) => quoted(germanParts(word).join(SOFT));
const counted = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;

/** -0.00498 -> "−0.005": two digits are enough for what is not small. */
export function briefly(number) {
  return number.toFixed(Math.abs(number) < 0.1 ? 3 : 2).replace("-", "−");
}

/** A probability; what is unlikely is not 0. */
export function likely(probability) {
  return probability < 0.005 ? "< .01" : probability.toFixed(2);
}

/** "cross 0 3" -> "head 4 of the cross-attention, layer 1" */
export function headName(name) {
  const [kind, layer, head] = name.split(" ");
  return `head ${Number(head) + 1} of the ${KIND_NAMES[kind]}, layer ${Number(layer) + 1}`;
}

/** A German number word cut where it has its joints, as the model's tokens are. */
export function germanParts(word) {
  return word.split(/(hundert|tausend|und|zig|ßig|zehn)/).filter(Boolean);
}

/** How a translation differs from the right one, in one sentence. */
export function whatBroke(right, made) {
  const [ours, theirs] = [germanParts(right), germanParts(made)];
  const whole = ours.length;
  while (ours.length && theirs.length && ours[0] === theirs[0]) { ours.shift(); theirs.shift(); }
  while (ours.length && theirs.length && ours.at(-1) === theirs.at(-1)) { ours.pop(); theirs.pop(); }
  if (2 * ours.length > whole) return "Most of it is wrong.";
  if (!theirs.length) return `${quoted(ours.join(SOFT))} is missing.`;
  if (!ours.length) return `${quoted(theirs.join(SOFT))} is too much.`;
  return `It writes ${quoted(theirs.join(SOFT))} for ${quoted(ours.join(SOFT))}.`;
}

/** What the model made of English words, beside what is right. */
export function verdict(words, made) {
  const n = numberSaid(words);
  if (n === null) return "These words are not one number: no translation is right.";
  const [figures, right] = [String(n).replace(/\B(?=\d{3}$)/, ","), germanWords(n)];
  if (made === right) return `That is ${figures}, and right. ✓`;
  const excuse = n < 100_000 ? "" : " The model has learned numbers below 100,000 only.";
  return `That is wrong: ${figures} is ${german(right)}. ${whatBroke(right, made)}${excuse} ✗`;
}

/** Where the decoder looks while it writes a token: at the word pointed at, or at those with the largest weights. */
export function describeLook(written, words, weights, column) {
  const weight = (s) => weights[s].toFixed(2);
  if (column >= 0)
    return `to write ${quoted(written)}, the decoder gives ${quoted(words[column])} a weight of ${weight(column)}.`;
  const shown = (s) => `${quoted(words[s])} (${weight(s)})`;
  const order = [...words.keys()].sort((a, b) => weights[b] - weights[a]);
  const most = order.filter((s, i) => i === 0 || (i < 3 && weights[s] >= 0.1));
  return `to write ${quoted(written)}, the decoder looks at ${most.map(shown).join(", then at ")}.`;
}

// --- the encoder's states ------------------------------------------------------------------------

/** The cosine of each two rows: 1 for the same direction, 0 for nothing in common, -1 for opposite ones. */
export function cosines(rows) {
  const lengths = rows.map((row) => Math.sqrt(dot(row, row)));
  return rows.map((a, i) => rows.map((b, j) => dot(a, b) / (lengths[i] * lengths[j])));
}

/** The colour of a number from -1 to 1, over the widget's own ground. */
export function signedColour(number) {
  const share = Math.round(Math.min(Math.abs(number), 1) * 100);
  const fill = `color-mix(in srgb, var(${number < 0 ? "--minus" : "--plus"}) ${share}%, var(--surface))`;
  return { fill, ink: share > 75 ? "var(--surface)" : "var(--text)" };
}

/** Which word's state is most like this one's, or how like the one pointed at is. */
export function describeLikeness(words, likeness, row, column) {
  const most = [...words.keys()].filter((i) => i !== row).sort((a, b) => likeness[row][b] - likeness[row][a])[0];
  if (most === undefined) return `${quoted(words[row])} stands alone.`;
  const other = column >= 0 && column !== row ? column : most;
  const how = other === most ? "is most like" : "compares with";
  const cosine = briefly(likeness[row][other]);
  return `The state of ${quoted(words[row])} ${how} that of ${quoted(words[other])}: cosine ${cosine}.`;
}

// --- the beam ------------------------------------------------------------------------------------

/** The tree after some steps: each node there is, with its rank among those of its step and how it fares. */
export function grown(nodes, steps) {
  const visible = nodes.flatMap((node, i) => (node.step <= steps ? [{ ...node, i }] : []));
  const parents = new Set(visible.map(({ parent }) => parent));
  const counts = [];
  return visible.map((node) => {
    const rank = counts[node.step] ?? 0; // the search keeps the likeliest first
    counts[node.step] = rank + 1;
    const fate = node.ended ? "ended" : node.step === steps ? "open" : parents.has(node.i) ? "passed" : "dropped";
    return { ...node, rank, fate };
  });
}

/** Of what has ended or is open after some steps, the node with the highest score, and its score. */
export function ahead(tree) {
  const scored = tree.filter(({ fate }) => fate === "ended" || fate === "open")
    .map(({ i, step, logProbability }) => ({ node: i, score: logProbability / lengthPenalty(step, ALPHA) }));
  return scored.reduce((best, other) => (other.score > best.score ? other : best));
}

/** How the search stands after some steps; `text` is what is ahead. */
export function describeBeam(tree, steps, over, text) {
  if (steps === 0) return "Nothing is written yet: there is one beginning, and all beams will start from it.";
  const count = (fate) => tree.filter((node) => node.fate === fate).length;
  const { score } = ahead(tree);
  const best = `${german(text)}, with a score of ${briefly(score)}`;
  if (over) return `The search is over after ${counted(steps, "step")}. Best is ${best}.`;
  const ended = count("ended") ? `, ${count("ended")} ended` : "";
  return `After ${counted(steps, "step")}: ${count("open")} open${ended}. Ahead is ${best}.`;
}

// --- heads that are off --------------------------------------------------------------------------

/** Numbers to try: three, four and five digits in turn. */
export const TRIED = Array.from({ length: 30 }, (_, i) => {
  const least = 10 ** (2 + (i % 3));
  return least + ((i + 1) * 7919) % (9 * least);
});

export function isRight(translator, n, headsOff) {
  const source = tokenize(numberWords(n), translator.vocabulary);
  const { tokens } = writeGreedy(translator, source, { headsOff, maxLen: MOST_WRITTEN });
  return spell(translator, tokens) === germanWords(n);
}

// --- the widget ----------------------------------------------------------------------------------

const TRY = "Try this first: where does the decoder look while it writes “ein”, the German word for “one”? It stands "
  + "before the “twenty” there. Then switch off the heads of the cross-attention, one after the other, and see what "
  + "becomes of thirty other numbers: most heads can be spared. Which one can not?";

const LOOK = `
.tl-translate { --plus: #3d52c4; --minus: #c2334d; display: grid; gap: .9rem; }
html:is([data-theme="dark"], [theme="dark"]) .tl-translate, body[data-jp-theme-light="false"] .tl-translate {
  --plus: #8fa2ff; --minus: #ff8296;
}
@media (prefers-color-scheme: dark) {
  html:not([data-theme], [theme]) body:not([data-jp-theme-light]) .tl-translate {
    --plus: #8fa2ff; --minus: #ff8296;
  }
}
.tl-translate > *, .tl-translate .tl-picture > *, .tl-translate .tl-parts > *, .tl-translate .tl-panel > * {
  min-width: 0;
}
.tl-translate .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-translate .tl-picture, .tl-translate .tl-panel { display: grid; gap: .9rem; align-content: start; }
.tl-translate .tl-english { color: var(--key-text); }
.tl-translate .tl-german {
  min-height: 2.6em; color: var(--output-text); font-size: 1.25rem; font-weight: 600; line-height: 1.3;
  overflow-wrap: anywhere;
}
.tl-translate .tl-verdict { min-height: 4.5em; overflow-wrap: anywhere; }
.tl-translate .tl-parts { display: grid; gap: 1.2rem 2rem; align-items: start; }
.tl-translate .tl-said { min-height: 4.5em; overflow-wrap: anywhere; }
.tl-translate .tl-panel > button { justify-self: start; }
.tl-translate .tl-kind { min-width: 0; margin: 0 0 .5rem; padding: 0; border: 0; }
.tl-translate .tl-kind legend { padding: 0; font-size: .875rem; }
.tl-translate .tl-kind > div { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
.tl-translate .tl-layer { display: flex; gap: .25rem; align-items: center; }
.tl-translate .tl-layer > span { margin-right: .2rem; color: var(--muted); font-size: .75rem; }
.tl-translate .tl-layer button {
  width: 1.75rem; min-height: 1.75rem; padding: 0; border-radius: .35rem; font-size: .8125rem;
  border-color: var(--query-text); background: color-mix(in srgb, var(--query) 20%, transparent);
}
.tl-translate .tl-layer button[aria-pressed="false"] {
  border: 1px dashed var(--muted); background: none; color: var(--muted); text-decoration: line-through;
}
.tl-translate .tl-others { min-height: 3em; }
.tl-translate .tl-search { display: flex; flex-wrap: wrap; gap: 1rem; align-items: start; }
.tl-translate .tl-search > table { flex: 1 1 13rem; }
.tl-translate .tl-tree { flex: none; width: calc(var(--wide) * 1px); max-width: 100%; height: auto; }
.tl-translate .tl-tree text { font-size: 12px; text-anchor: middle; fill: currentColor; }
.tl-translate .tl-tree .tl-small { font-size: 10px; font-variant-numeric: tabular-nums; }
.tl-translate .tl-tree path { fill: none; stroke: var(--muted); }
.tl-translate .tl-tree rect { stroke: var(--muted); }
.tl-translate .tl-tree .tl-dropped { opacity: .65; }
.tl-translate .tl-tree .tl-dropped rect { stroke-dasharray: 3 2; }
.tl-translate .tl-tree .tl-ended rect { stroke: var(--text); stroke-width: 2; }
.tl-translate .tl-tree .tl-ahead rect { stroke: var(--output); stroke-width: 3; }
.tl-translate .tl-tree path.tl-ahead { stroke: var(--output); }
.tl-translate table { margin: 0; border-collapse: collapse; font-size: .8125rem; }
.tl-translate :is(th, td) { padding: .3rem .4rem; border: 0; border-top: 1px solid var(--line); text-align: right; }
.tl-translate thead th { border: 0; color: var(--muted); font-weight: 600; }
.tl-translate :is(th, td):first-child { width: 100%; padding-left: 0; text-align: left; overflow-wrap: anywhere; }
.tl-translate tbody tr:first-child > * { color: var(--output-text); font-weight: 600; }
.tl-translate :is(.tl-parts, .tl-panel) > [hidden], .tl-translate > [hidden] { display: none; }
@container (min-width: 42rem) {
  .tl-translate .tl-parts { grid-template-columns: minmax(0, 1fr) minmax(0, 20rem); }
  .tl-translate .tl-verdict { min-height: 3em; }
  .tl-translate .tl-german { min-height: 1.3em; }
  .tl-translate .tl-said { min-height: 3em; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + HEAT_MAP_LOOK + FORM_LOOK + LOOK, signal);
  const change = (name, value) => { model.set(name, value); model.save_changes(); };
  const field = element("input", { type: "text" });
  const picture = makePicture({ onBeamSize: (size) => change("beam_size", size), signal });
  const form = modelForm({
    model, look: "tl-translate", field, label: "A number, in figures or in English words", hint: HINT,
    words: "A small Transformer learned to write English number words in German. Load it, see how it reads and "
      + "writes, and break it head by head. It runs in your browser; what you type stays there.",
    examples: EXAMPLES, picture, decode: decodeTranslator,
    check: (text, { vocabulary }) => typedIds(text, vocabulary),
    draw(translator, text) {
      picture.draw(translator, typedIds(text, translator.vocabulary), model.get("beam_size"));
    },
    traits: ["beam_size"], signal,
  });
  const root = frame("A model that writes numbers in German", form.root);
  el.append(root);
  form.begin();
  return () => { life.abort(); root.remove(); };
}

/** Everything that needs the model: the translation, one of three views into the model, and the heads. */
function makePicture({ onBeamSize, signal }) {
  let [translator, source, beamSize, view] = [null, [], 0, "cross"];
  const off = new Set(); // the heads that are switched off

  const english = element("p", { class: "tl-english" });
  const made = element("p", { class: "tl-german", lang: "de" });
  const judged = element("p", { class: "tl-verdict" });
  const { region, say } = announcer(signal);
  const onSay = (sentence) => say(`${judged.textContent} ${sentence}`);
  const views = {
    encoder: makeEncoder({ onSay, signal }), cross: makeCross({ off, onSay, signal }),
    beam: makeBeam({ onBeamSize, onSay, signal }),
  };
  const shown = choice({
    label: "Look at", name: "view", signal, onInput: (value) => { view = value; show(); },
    options: [["encoder", "the encoder"], ["cross", "the cross-attention"], ["beam", "the beam"]],
  });
  const heads = makeHeads({ off, onSwitch: compute, signal });
  const root = element("div", { class: "tl-picture", hidden: "" },
    element("p", { class: "tl-note" }, TRY),
    element("div", {}, english, made, judged), shown.root,
    element("div", { class: "tl-parts" }, ...Object.values(views).map((part) => part.root), heads.root), region);

  function draw(...given) {
    [translator, source, beamSize] = given;
    compute();
  }
  function compute() {
    const search = searchBeams(translator, source, { beamSize, alpha: ALPHA, maxLen: MOST_WRITTEN, headsOff: off });
    const [best] = search.hypotheses;
    const words = source.map((id) => translator.vocabulary[id].replace("▁", ""));
    const written = best.tokens.map((id) => tokenName(translator, id));
    write(english, `${words.join(" ")} →`);
    write(made, spell(translator, best.tokens, SOFT) || "…");
    write(judged, verdict(words, spell(translator, best.tokens)));
    views.encoder.draw(translator, source, words, search.reading);
    views.cross.draw(words, written, lookBack(translator, search.reading, best.tokens, off));
    views.beam.draw(translator, search, beamSize);
    heads.draw(translator);
    show();
  }
  function show() {
    shown.draw(view);
    for (const [name, part] of Object.entries(views)) part.root.hidden = name !== view;
    views[view].speak();
  }
  return { root, draw };
}

function tokenName({ config, vocabulary }, id) {
  return id === config.eos_id ? "end" : vocabulary[id].replace("▁", "");
}

/** How alike the encoder's states are: as they come in, and after each layer. */
function makeEncoder({ onSay, signal }) {
  let [words, states, depth, row, column] = [[], [], -1, 0, -1];
  const onDepth = (value) => { depth = Number(value); show(); };
  const after = choice({ label: "States", name: "depth", onInput: onDepth, signal });
  const map = heatMap({ onPoint: (r, c) => { [row, column] = [r, c]; show(); }, signal });
  const said = element("p", { class: "tl-said" });
  const root = element("div", { class: "tl-panel" }, after.root, said, map.root,
    element("p", { class: "tl-news" }, "Blue: the same direction. Red: opposite directions. Words that belong together "
      + "become alike: compare with “embedded”."));

  function draw(translator, source, newWords, { layers }) {
    if (depth < 0) {
      after.offer([["0", "embedded"], ...layers.map((_, l) => [String(l + 1), `after layer ${l + 1}`])]);
      depth = layers.length;
    }
    words = newWords;
    states = [embedTokens(translator, source), ...layers.map(({ output }) => output)];
    [row, column] = [Math.min(row, words.length - 1), -1];
    show();
  }
  function sentence() {
    return describeLikeness(words, cosines(states[depth]), row, column);
  }
  function show() {
    after.draw(String(depth));
    map.draw({
      title: "How alike the states of two words are", rows: words, columns: words, numbers: false,
      weights: cosines(states[depth]), colour: signedColour,
    });
    map.mark(row, column);
    write(said, sentence());
    speak();
  }
  function speak() {
    if (!root.hidden) onSay(sentence());
  }
  return { root, draw, speak };
}

/** Which English words the decoder looks at while it writes each German token, by layer and head. */
function makeCross({ off, onSay, signal }) {
  let [words, written, layers, row, column] = [[], [], [], 0, -1];
  let [layer, head, numbers] = [0, "mean", false];
  const onLayer = (value) => { layer = Number(value); show(); };
  const layerChoice = choice({ label: "Layer", name: "layer", onInput: onLayer, signal });
  const headChoice = choice({ label: "Head", name: "head", onInput: (value) => { head = value; show(); }, signal });
  const numbered = toggle({ label: "Numbers", signal, onInput: (on) => { numbers = on; show(); } });
  const map = heatMap({ onPoint: (r, c) => { [row, column] = [r, c]; show(); }, signal });
  const said = element("p", { class: "tl-said" });
  const root = element("div", { class: "tl-panel" },
    element("div", { class: "tl-controls" }, layerChoice.root, headChoice.root, numbered.root), said, map.root);

  function draw(...given) {
    const first = !layers.length;
    [words, written, layers] = given;
    if (first) {
      const options = (n) => Array.from({ length: n }, (_, i) => [String(i), String(i + 1)]);
      layerChoice.offer(options(layers.length));
      headChoice.offer([["mean", "mean"], ...options(layers[0].crossWeights.length)]);
    }
    [row, column] = [Math.min(row, written.length - 1), -1];
    show();
  }
  function weights() {
    const chosen = layers[layer].crossWeights.filter((_, h) => head === "mean" || head === String(h));
    return written.map((_, t) => words.map((_, s) => chosen.reduce((sum, one) => sum + one[t][s], 0) / chosen.length));
  }
  function sentence() {
    const name = `cross ${layer} ${head}`;
    const silent = off.has(name) ? " It is off: the decoder gets zeros instead of what it finds." : "";
    const who = head === "mean" ? "on average over its heads" : `head ${Number(head) + 1}`;
    return `Layer ${layer + 1}, ${who}: ${describeLook(written[row], words, weights()[row], column)}${silent}`;
  }
  function show() {
    layerChoice.draw(String(layer));
    headChoice.draw(head);
    numbered.draw(numbers);
    map.draw({
      title: "German tokens, as they are written, looking at English words", rows: written, columns: words,
      weights: weights(), numbers,
    });
    map.mark(row, column);
    write(said, sentence());
    speak();
  }
  function speak() {
    if (!root.hidden) onSay(sentence());
  }
  return { root, draw, speak };
}

const [NODE_WIDTH, NODE_HEIGHT, ACROSS, DOWN] = [54, 32, 58, 44];

/** The beam: a tree that grows downwards, a row a step, the likeliest on the left; and the list of hypotheses. */
function makeBeam({ onBeamSize, onSay, signal }) {
  let [translator, search, beamSize, steps, last] = [null, null, 0, 0, 0];
  const sizes = stepper({ label: "Beam size", values: BEAM_SIZES, onInput: onBeamSize, signal });
  const growth = slider({
    label: "Step", min: 0, max: 1, step: 1, say: (value) => `${value} of ${last}`, signal,
    onInput: (value) => { steps = value; show(); },
  });
  const said = element("p", { class: "tl-said" });
  const tree = svg("svg", { class: "tl-tree", role: "img" });
  const body = element("tbody");
  const head = ["Hypothesis", "log p", "score"].map((name) => element("th", { scope: "col" }, name));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), body);
  const root = element("div", { class: "tl-panel" },
    element("div", { class: "tl-controls" }, sizes.root, growth.root), said,
    element("div", { class: "tl-search" }, tree, table),
    element("p", { class: "tl-news" }, "Below each token: its probability; below an end: the score of its hypothesis, "
      + "log p divided by ((5 + length) / 6)^0.6."));

  function draw(...given) {
    [translator, search, beamSize] = given;
    last = search.nodes.at(-1).step;
    steps = last;
    put(growth.root.querySelector("input"), { max: last });
    show();
  }
  const scoreOf = (node) => search.hypotheses.find((found) => found.node === node)?.score;
  const textOf = (node) => spell(translator, wayTo(search.nodes, node).map((i) => search.nodes[i].token));
  function sentence() {
    const now = grown(search.nodes, steps);
    return describeBeam(now, steps, steps === last, textOf(ahead(now).node));
  }
  function show() {
    sizes.draw(beamSize);
    growth.draw(steps);
    const now = grown(search.nodes, steps);
    const leading = new Set([0, ...wayTo(search.nodes, ahead(now).node)]);
    const wide = Math.max(beamSize, 4) * ACROSS;
    put(tree, { viewBox: `0 0 ${wide} ${(last + 1) * DOWN}`, "aria-label": `The tree of the beam. ${sentence()}` });
    tree.style.setProperty("--wide", wide);
    tree.replaceChildren(...now.flatMap((node) => edge(node, now, leading)), ...now.map((node) => box(node, leading)));
    body.replaceChildren(...search.hypotheses.filter(({ node }) => search.nodes[node].step <= steps).map(line));
    write(said, sentence());
    speak();
  }
  const middle = ({ rank }) => rank * ACROSS + ACROSS / 2;
  function edge(node, now, leading) {
    if (!node.step) return [];
    const [x, y] = [middle(node), node.step * DOWN + 2];
    const [fromX, fromY] = [middle(now[node.parent]), (node.step - 1) * DOWN + 2 + NODE_HEIGHT];
    const half = (y + fromY) / 2;
    return [svg("path", {
      d: `M${fromX} ${fromY}C${fromX} ${half} ${x} ${half} ${x} ${y}`, "stroke-width": 1 + 3 * node.probability,
      class: leading.has(node.i) ? "tl-ahead" : null,
    })];
  }
  function box(node, leading) {
    const { fill, ink } = node.step ? cividis(node.probability) : { fill: "none", ink: "var(--text)" };
    const [x, y] = [middle(node), node.step * DOWN + 2];
    const name = node.step ? tokenName(translator, node.token) : "begin";
    const below = node.ended ? briefly(scoreOf(node.i)) : node.step ? likely(node.probability) : "";
    const group = svg("g", { class: `tl-${node.fate}${leading.has(node.i) ? " tl-ahead" : ""}` },
      svg("rect", { x: x - NODE_WIDTH / 2, y, width: NODE_WIDTH, height: NODE_HEIGHT, rx: node.ended ? 16 : 5, fill }),
      svg("text", { x, y: y + (below ? 14 : 20) }, name),
      svg("text", { x, y: y + 26, class: "tl-small" }, below));
    group.style.color = ink;
    return group;
  }
  function line({ tokens, logProbability, score, node }, i, listed) {
    const same = listed.slice(0, i).some((found) => spell(translator, found.tokens) === spell(translator, tokens));
    const remark = `${same ? " (in other tokens)" : ""}${search.nodes[node].ended ? "" : " (cut)"}`;
    const cell = (text) => element("td", { class: "tl-number" }, text);
    const name = element("span", { lang: "de" }, spell(translator, tokens, SOFT) || "…");
    return element("tr", {}, element("th", { scope: "row" }, name, remark), cell(briefly(logProbability)),
      cell(briefly(score)));
  }
  function speak() {
    if (!root.hidden) onSay(sentence());
  }
  return { root, draw, speak };
}

/** A switch for each head, and what the model can still do without those that are off. */
function makeHeads({ off, onSwitch, signal }) {
  let [translator, right, tried] = [null, 0, 0];
  const kinds = element("div");
  const buttons = new Map();
  const others = element("p", { class: "tl-others", role: "status" });
  const all = element("button", { type: "button" }, "All heads on");
  const root = element("div", { class: "tl-panel" },
    element("p", { class: "tl-heading" }, "Heads: switch them off and on"), kinds, others, all);
  const listen = (node, handler) => node.addEventListener("click", handler, { signal });
  listen(all, () => { off.clear(); onSwitch(); });

  function build({ config, encoder, decoder }) {
    kinds.append(...HEAD_KINDS.map((kind) => {
      const { layers } = kind === "encoder" ? encoder : decoder;
      return element("fieldset", { class: "tl-kind" }, element("legend", {}, KIND_NAMES[kind]),
        element("div", {}, ...layers.map((_, l) => element("div", { class: "tl-layer" },
          element("span", { "aria-hidden": "true" }, `layer ${l + 1}`),
          ...Array.from({ length: config.n_heads }, (_, h) => button(`${kind} ${l} ${h}`, h + 1))))));
    }));
  }
  function button(name, number) {
    const node = element("button", { type: "button", "aria-label": headName(name) }, String(number));
    listen(node, () => {
      if (!off.delete(name)) off.add(name);
      onSwitch();
    });
    buttons.set(name, node);
    return node;
  }
  const onward = afterPause(() => { // a few at a time, for the page to stay quick
    for (const n of TRIED.slice(tried, tried + 3)) right += isRight(translator, n, off);
    tried += 3;
    if (tried < TRIED.length) onward();
    else report();
  }, 30, signal);
  function report() {
    const away = `${counted(off.size, "head")} ${off.size === 1 ? "is" : "are"} off.`;
    const rest = tried < TRIED.length ? `Trying ${TRIED.length} other numbers…`
      : `Of ${TRIED.length} other numbers, ${right} ${right === 1 ? "is" : "are"} still right.`;
    write(others, off.size ? `${away} ${rest}` : `All ${buttons.size} heads are on.`);
  }
  let last = "";
  function draw(newTranslator) {
    if (!buttons.size) build(newTranslator);
    for (const [name, node] of buttons) put(node, { "aria-pressed": !off.has(name) });
    all.disabled = !off.size;
    const wanted = [...off].sort().join();
    if (translator === newTranslator && wanted === last) return; // another number: what is known of the others stays
    [translator, last, right, tried] = [newTranslator, wanted, 0, 0];
    report();
    onward.stop();
    if (off.size) onward();
  }
  return { root, draw };
}

export default { render };
