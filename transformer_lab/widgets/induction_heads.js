// A small model of attention alone copies what it has read. Which head looks where, and what is said without it?
// traits (see induction_heads.py): text, asset, asset_bytes, asset_wanted, asset_progress, asset_data.
import { choice, CONTROLS_LOOK, toggle } from "./controls.js";
import { heatMap, HEAT_MAP_LOOK } from "./heat_map.js";
import { ask, causalMask, keysAndValues } from "./layers.js";
import { FORM_LOOK, modelForm } from "./model_form.js";
import { announcer, element, frame, wear, write } from "./parts.js";
import { add, embedding, linear, softmax } from "./runtime.js";
import { decodeTensors } from "./tensors.js";
import { tokenStrip, TOKEN_STRIP_LOOK } from "./token_strip.js";

const EXAMPLES = ["shortenshort", "crystalcryst", "hellohello", "abcabcabca", "abxacya"];
const HINT = "Letters a to z and digits 1 to 6, at most 24. What comes twice can be continued.";
const SHOWN = 5; // next letters

/** Ids of the letters; throws one sentence for the reader. */
export function tokenize(text, vocabulary, maxLength) {
  const letters = [...text.toLowerCase()].filter((letter) => letter.trim());
  if (!letters.length) throw new Error("There is no letter here: write some, such as shortenshort.");
  const stranger = letters.find((letter) => !vocabulary.includes(letter));
  if (stranger) throw new Error(`The model never saw “${stranger}”: it knows a to z and 1 to 6.`);
  if (letters.length > maxLength)
    throw new Error(`These are ${letters.length} letters: the model reads at most ${maxLength}.`);
  return letters.map((letter) => vocabulary.indexOf(letter));
}

/**
 * The model's answer and where each head looks; `off` lists, for each layer, heads that add nothing
 * -> { probabilities (T, V), weights: for each layer (H, T, T) }.
 */
export function readLetters({ config, weights: { embed, learned, layers, scores } }, tokens, off = []) {
  const root = Math.sqrt(embed.weight[0].length);
  const letters = embedding(tokens, embed).map((row) => row.map((number) => number * root));
  let x = add(letters, learned.table.weight.slice(0, tokens.length));
  const [mask, style] = [causalMask(tokens.length), { heads: config.n_heads }];
  const weights = Object.values(layers).map(({ attention }, l) => {
    const found = ask(x, keysAndValues(x, attention, style), attention, style, mask, null, off[l] ?? []);
    x = add(x, found.output);
    return found.weights;
  });
  return { probabilities: linear(x, scores).map(softmax), weights };
}

/** The mean weight on the letter just before, over all letters but the first; null if there is only one. */
export function previousScore(weights) {
  const each = weights.slice(1).map((row, t) => row[t]);
  return each.length ? mean(each) : null;
}

/** Where, for the letter at `t`, letters stand that followed an earlier copy of it. */
export function afterEarlierCopies(tokens, t) {
  return [...Array(t).keys()].filter((s) => tokens[s] === tokens[t]).map((s) => s + 1);
}

/** The mean weight on such places, over the letters that have any; null if none has. */
export function inductionScore(weights, tokens) {
  const each = weights.map((row, t) => [row, afterEarlierCopies(tokens, t)]).filter(([, places]) => places.length)
    .map(([row, places]) => places.reduce((sum, s) => sum + row[s], 0));
  return each.length ? mean(each) : null;
}

function mean(numbers) {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

/** The most probable letters, best first: [id, probability]. */
export function best(row, count) {
  return [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, count).map((id) => [id, row[id]]);
}

/** asset_data -> a model that `readLetters` takes. */
export function decodeModel({ config, vocabulary, tensors }) {
  return { config, vocabulary, weights: decodeTensors(tensors) };
}

/** What this head does on this text. */
export function describeHead(name, weights, tokens) {
  const [before, after] = [previousScore(weights), inductionScore(weights, tokens)];
  if (before === null) return `Head ${name} has one letter to look at.`;
  const copied = after === null
    ? "no letter comes twice, so there is no induction score"
    : `${after.toFixed(2)} to letters that followed an earlier copy (induction)`;
  const back = `on average ${before.toFixed(2)} of its weight goes to the letter before`;
  return `Head ${name} on this text: ${back}; ${copied}.`;
}

/** What the model says next, and what it would say with all heads, if some are off. */
export function describeNext(letter, now, whole, off) {
  const say = ([next, p]) => `“${next}” (${p.toFixed(2)})`;
  if (!off.length) return `After “${letter}” the model says ${say(now)}.`;
  const gone = `Without ${off.length === 1 ? "head" : "heads"} ${off.join(", ")}`;
  return `${gone}, the model says ${say(now)} after “${letter}”; with all heads ${say(whole)}.`;
}

const LOOK = `
.tl-copying { display: grid; gap: .9rem; }
.tl-copying > * { min-width: 0; }
.tl-copying input.tl-field { font-family: ui-monospace, monospace; letter-spacing: .12em; }
.tl-copying .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-copying .tl-picture { display: grid; grid-template-columns: minmax(0, 1fr); gap: .9rem; }
.tl-copying .tl-picture[hidden] { display: none; }
.tl-copying .tl-strip > div { min-width: 2rem; padding: .2rem .25rem; }
.tl-copying .tl-next { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: 0; padding: 0; list-style: none; }
.tl-copying .tl-next li { display: grid; grid-template-columns: auto 4rem auto; gap: .4rem; align-items: center; }
.tl-copying .tl-next b { color: var(--output-text); font-family: ui-monospace, monospace; font-size: 1.0625rem; }
.tl-copying .tl-bar { height: .7rem; border-radius: .2rem; background: var(--line); overflow: hidden; }
.tl-copying .tl-bar i { display: block; height: 100%; background: var(--output); }
.tl-copying .tl-heads-off { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: 0; padding: 0; border: 0; }
.tl-copying .tl-heads-off legend {
  float: left; margin-right: .4rem; padding: 0; color: var(--muted); line-height: 2.25rem;
}
.tl-copying .tl-caption { min-height: 3em; }
@container (min-width: 34rem) { .tl-copying .tl-caption { min-height: 1.5em; } }
.tl-copying .tl-map .tl-line { grid-template-columns: 1.6rem repeat(var(--columns), minmax(0, 1.9rem)); }
.tl-copying .tl-map .tl-cell { height: 1.25rem; }
.tl-copying .tl-map .tl-column-name { writing-mode: horizontal-tb; transform: none; }
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + FORM_LOOK + HEAT_MAP_LOOK + TOKEN_STRIP_LOOK + LOOK, signal);
  const field = element("input", { type: "text" });
  const picture = makePicture(signal);
  const read = (text, { vocabulary, weights }) => tokenize(text, vocabulary, weights.learned.table.weight.length);
  const form = modelForm({
    model, look: "tl-copying", field, label: "A text that repeats itself", hint: HINT, examples: EXAMPLES, picture,
    words: "A model of two layers with two heads each learned to continue texts that repeat themselves. Load it, see "
      + "where each head looks, and switch heads off. It runs in your browser; what you type stays there.",
    decode: decodeModel, check: read,
    draw: (reader, text) => picture.draw(reader, read(text, reader)),
    signal,
  });
  const root = frame("A model that copies, head by head", form.root);
  el.append(root);
  form.begin();
  return () => { life.abort(); root.remove(); };
}

/** Everything that needs the model: what it says next, the letters that a head lights up, and its heat map. */
function makePicture(signal) {
  let [reader, tokens, whole, now] = [null, [], null, null]; // whole: with all heads; now: without those that are off
  let [row, column, layer, head] = [-1, -1, 1, 0]; // row: the letter that looks; column: the one pointed at, or -1
  const off = new Set(); // names, such as "0.1"

  const next = element("ul", { class: "tl-next", "aria-label": "The most probable next letters" });
  const spoken = element("p");
  const which = choice({
    label: "Head", name: "head", signal, onInput: (name) => { [layer, head] = name.split(".").map(Number); show(); },
  });
  const switches = element("fieldset", { class: "tl-heads-off" }, element("legend", {}, "Switch off"));
  const strip = tokenStrip({
    title: "The letters, lit by their weights", onPoint: (t) => point(t, -1), signal,
  });
  const caption = element("p", { class: "tl-caption" });
  const scored = element("p");
  const grid = heatMap({ onPoint: point, signal });
  const { region, say } = announcer(signal);
  const root = element("div", { class: "tl-picture", hidden: "" },
    element("p", { class: "tl-note" }, "Try this first: find the head that looks at the letter before, and the two "
      + "that look for what followed an earlier copy. Then switch off one of those two; then the other as well; and "
      + "then, with both on again, the first head."),
    element("div", { class: "tl-controls" }, which.root), strip.root, caption, scored,
    element("div", { class: "tl-controls" }, switches), spoken, next, grid.root, region);
  const toggles = new Map();

  function offerHeads() {
    const names = whole.weights.flatMap((heads, l) => heads.map((_, h) => `${l}.${h}`));
    if (toggles.size) return;
    which.offer(names.map((name) => [name, name]));
    for (const name of names) {
      const one = toggle({
        label: name, signal,
        onInput: (on) => { if (on) off.add(name); else off.delete(name); compute(); show(); },
      });
      toggles.set(name, one);
      switches.append(one.root);
    }
  }
  function compute() {
    const lists = whole.weights.map((heads, l) => [...heads.keys()].filter((h) => off.has(`${l}.${h}`)));
    now = off.size ? readLetters(reader, tokens, lists) : whole;
  }
  function draw(newReader, newTokens) {
    [reader, tokens, row, column] = [newReader, newTokens, -1, -1];
    whole = readLetters(reader, tokens);
    offerHeads();
    compute();
    show();
  }
  function point(newRow, newColumn) {
    [row, column] = [newRow, newColumn];
    show();
  }
  function show() {
    if (row < 0 || row >= tokens.length) row = tokens.length - 1;
    if (column > row) column = -1; // the future has no weight
    const letters = tokens.map((id) => reader.vocabulary[id]);
    const [name, weights] = [`${layer}.${head}`, now.weights[layer][head]];
    which.draw(name);
    for (const [each, one] of toggles) one.draw(off.has(each));
    strip.draw(letters, weights[row], row);

    const looking = describeLook(name, letters, weights[row], row, column);
    write(caption, looking);
    const scores = describeHead(name, weights, tokens);
    write(scored, scores);
    const ranked = best(now.probabilities[row], SHOWN).map(([id, p]) => [reader.vocabulary[id], p]);
    const before = best(whole.probabilities[row], 1).map(([id, p]) => [reader.vocabulary[id], p])[0];
    const sentence = describeNext(letters[row], ranked[0], before, [...off].sort());
    write(spoken, sentence);
    drawNext(next, ranked);
    grid.draw({
      title: `Head ${name}: a row for each letter that looks, a column for each it looks at`, numbers: false,
      rows: letters, columns: letters, weights,
    });
    grid.mark(row, column);
    say(`${sentence} ${looking} ${scores}`);
  }
  return { root, draw };
}

/** Where one letter looks: at the letter pointed at, or where most of its weight goes. */
export function describeLook(name, letters, weights, row, column) {
  const who = `In head ${name}, “${letters[row]}” at place ${row + 1}`;
  if (column >= 0)
    return `${who} gives “${letters[column]}” at place ${column + 1} a weight of ${weights[column].toFixed(2)}.`;
  const [top, weight] = best(weights, 1)[0];
  return `${who} looks most at “${letters[top]}” at place ${top + 1} (${weight.toFixed(2)}).`;
}

function drawNext(list, ranked) {
  while (list.children.length < ranked.length)
    list.append(element("li", {}, element("b"),
      element("span", { class: "tl-bar", "aria-hidden": "true" }, element("i")),
      element("span", { class: "tl-number" })));
  ranked.forEach(([letter, p], i) => {
    const [name, bar, number] = list.children[i].children;
    write(name, letter);
    bar.firstChild.style.width = `${100 * p}%`;
    write(number, p.toFixed(2));
  });
}

export default { render };
