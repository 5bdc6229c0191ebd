// Which words does each digit look at? A small trained model reads number words in the browser, head by head.
// traits (see attention_heads.py): text, asset, asset_bytes, asset_wanted, asset_progress, asset_data.
import { choice, CONTROLS_LOOK, toggle } from "./controls.js";
import { heatMap, HEAT_MAP_LOOK } from "./heat_map.js";
import { headedAttention, multiHeadAttention } from "./layers.js";
import { FORM_LOOK, modelForm } from "./model_form.js";
import { announcer, element, frame, wear, write } from "./parts.js";
import { add, argmax, embedding, linear } from "./runtime.js";
import { decodeTensors } from "./tensors.js";
import { tokenStrip, TOKEN_STRIP_LOOK } from "./token_strip.js";

const PLACES = ["100\u202f000", "10\u202f000", "1\u202f000", "100", "10", "1"]; // narrow spaces
const PLACE_NAMES = ["hundred thousands", "ten thousands", "thousands", "hundreds", "tens", "ones"];
const EXAMPLES = ["nine hundred thousand and seventeen", "forty thousand and forty", "twelve"];
const HINT = "Capitals and hyphens do not matter.";

/** Token ids of number words and the full stop that ends them; throws one sentence for the reader. */
export function tokenize(text, vocabulary, maxLength) {
  const words = text.toLowerCase().split(/[\s,.-]+/).filter(Boolean);
  if (!words.length) throw new Error("There is no word here: write a number, such as forty-two.");
  const stranger = words.find((word) => vocabulary.indexOf(word) < 2);
  if (stranger) throw new Error(`The model never learned “${stranger}”: it knows number words below a million.`);
  if (words.length >= maxLength)
    throw new Error(`These are ${words.length} words: the model reads at most ${maxLength - 1}.`);
  return [...words, "."].map((word) => vocabulary.indexOf(word));
}

/** What the words say, by the rules of English; null if they are not one number. */
export function numberOf(words) {
  const small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    .concat(" seventeen eighteen nineteen").split(" ");
  const tens = "twenty thirty forty fifty sixty seventy eighty ninety".split(" ");
  const value = (word) => (small.includes(word) ? small.indexOf(word) : 20 + 10 * tens.indexOf(word));
  const one = small.slice(1, 10).join("|");
  const below100 = `(?:(?:${small.slice(1).join("|")})|(?:${tens.join("|")})(?: (?:${one}))?)`;
  const below1000 = `(?:(?:${one}) hundred(?: (?:and )?${below100})?|${below100})`;
  const whole = new RegExp(`^(?:zero|(?:(${below1000}) thousand)?(?:(?:^| | and )(${below1000}))?)$`);
  const found = whole.exec(words.join(" "));
  if (!found) return null;
  const read = (group = "") => group.split(" ").filter((word) => word && word !== "and")
    .reduce((sum, word) => (word === "hundred" ? 100 * sum : sum + value(word)), 0);
  return 1000 * read(found[1]) + read(found[2]);
}

/** NumberReader.forward, with everything that it looks at on the way. Weights are (H, queries, words). */
export function readNumber({ config, weights }, tokens) {
  const words = embedding(tokens, weights.embed);
  const x = add(words, weights.positions.weight.slice(0, tokens.length));
  const within = multiHeadAttention(x, x, weights.self_attention, { heads: config.n_heads });
  const context = add(x, within.output);
  const q = linear(weights.places.weight, weights.q_proj);
  const k = linear(context, weights.k_proj);
  const v = linear(words, weights.v_proj);
  const { output, weights: placeWeights } = headedAttention(q, k, v, config.n_heads);
  const logits = linear(output, weights.digit_head);
  return { logits, digits: logits.map(argmax), placeWeights, wordWeights: within.weights };
}

/** asset_data -> a model that `readNumber` takes. */
export function decodeModel({ config, vocabulary, tensors }) {
  return { config, vocabulary, weights: decodeTensors(tensors) };
}

const LOOK = `
.tl-heads { display: grid; gap: .9rem; }
.tl-heads > * { min-width: 0; }
.tl-heads .tl-field { field-sizing: content; resize: none; }
.tl-heads .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-heads .tl-picture { display: grid; grid-template-columns: minmax(0, 1fr); gap: .9rem; }
.tl-heads .tl-reading { display: flex; flex-wrap: wrap; gap: .6rem 1.5rem; align-items: center; }
.tl-heads .tl-digits { display: flex; flex: 0 1 17.5rem; gap: .3rem; min-width: 0; margin: 0; padding: 0; border: 0; }
.tl-heads .tl-digits legend { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.tl-heads .tl-digit { position: relative; display: grid; flex: 0 1 2.6rem; justify-items: center; cursor: pointer; }
.tl-heads .tl-digit:nth-of-type(4) { margin-left: .4rem; }
.tl-heads .tl-digit input { position: absolute; opacity: 0; inset: 0; width: 100%; height: 100%; cursor: pointer; }
.tl-heads .tl-digit b {
  display: grid; place-items: center; width: 100%; height: 3rem; border: 2px solid var(--line); border-radius: .4rem;
  color: var(--output-text); font-size: 1.6rem; font-variant-numeric: tabular-nums; line-height: 1;
}
.tl-heads .tl-digit:hover b { border-color: var(--query); }
.tl-heads .tl-digit :checked + b {
  border-color: var(--query); background: color-mix(in srgb, var(--query) 14%, transparent);
}
.tl-heads .tl-digit :focus-visible + b { outline: 3px solid var(--query); outline-offset: 2px; }
.tl-heads .tl-digit small { color: var(--muted); font-size: .6875rem; }
@container (max-width: 19rem) {
  .tl-heads .tl-digits { gap: .15rem; }
  .tl-heads .tl-digit small { font-size: .5625rem; }
}
.tl-heads .tl-truth { flex: 1 1 11rem; }
.tl-heads .tl-caption { min-height: 3em; }
@container (min-width: 34rem) { .tl-heads .tl-caption { min-height: 1.5em; } }
.tl-heads .tl-maps {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem 1.25rem;
}
.tl-heads [hidden] { display: none; }
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + FORM_LOOK + HEAT_MAP_LOOK + TOKEN_STRIP_LOOK + LOOK, signal);
  const field = element("textarea", { rows: 2 });
  const picture = makePicture(signal);
  const read = (text, { vocabulary, weights }) => tokenize(text, vocabulary, weights.positions.weight.length);
  const form = modelForm({
    model, look: "tl-heads", field, label: "A number in words, below a million", hint: HINT, examples: EXAMPLES, picture,
    words: "A small model learned to read number words. Load it, and see which words each digit looks at. It runs in "
      + "your browser; what you type stays there.",
    decode: decodeModel, check: read,
    draw(reader, text) {
      const tokens = read(text, reader);
      picture.draw(tokens.map((id) => reader.vocabulary[id]), readNumber(reader, tokens));
    },
    signal,
  });
  const root = frame("A model that reads numbers", form.root);
  el.append(root);
  form.begin();
  return () => { life.abort(); root.remove(); };
}

/** Everything that needs the model: the digits, the words they light up, and the heat maps. */
function makePicture(signal) {
  let [words, result, row, column] = [[], null, -1, -1]; // row: who looks; column: the word pointed at, or -1
  let [byDigits, head, numbers] = [true, "all", false]; // who looks; which head, or all; numbers in the maps

  const digits = makeDigits((place) => { byDigits = true; point(place, -1); }, signal);
  const truth = element("p", { class: "tl-truth" });
  const strip = tokenStrip({
    title: "The words, lit by their weights", onPoint: (word) => point(...(byDigits ? [row, word] : [word, -1])), signal,
  });
  const caption = element("p", { class: "tl-caption" });
  const who = choice({
    label: "Who looks?", name: "who", options: [["digits", "digits"], ["words", "words"]], signal,
    onInput: (value) => { [byDigits, row] = [value === "digits", -1]; show(); },
  });
  const heads = choice({ label: "Heads", name: "heads", onInput: (value) => { head = value; show(); }, signal });
  const numbered = toggle({ label: "Numbers", onInput: (on) => { numbers = on; show(); }, signal });
  const maps = element("div", { class: "tl-maps" });
  const grids = [];
  const { region, say } = announcer(signal);
  const root = element("div", { class: "tl-picture", hidden: "" },
    element("p", { class: "tl-note" }, "Try this first: go over the digits from left to right and watch the words. "
      + "Then turn the last word into another one: which digits change, and which look elsewhere?"),
    element("div", { class: "tl-reading" }, digits.root, truth),
    strip.root, caption,
    element("div", { class: "tl-controls" }, who.root, heads.root, numbered.root),
    maps, region);

  function draw(newWords, newResult) {
    [words, result, column] = [newWords, newResult, -1];
    const count = result.placeWeights.length;
    if (grids.length < count) {
      while (grids.length < count) grids.push(heatMap({ onPoint: point, signal }));
      maps.append(...grids.map((grid) => grid.root));
      const each = [...grids.keys()].map((h) => [String(h), String(h + 1)]);
      heads.offer([["all", count === 2 ? "both" : "all"], ...each]);
    }
    show();
  }
  function point(newRow, newColumn) {
    [row, column] = [newRow, newColumn];
    show();
  }
  function show() {
    const weights = byDigits ? result.placeWeights : result.wordWeights;
    if (row < 0 || row >= weights[0].length) row = byDigits ? Math.max(result.digits.findIndex((d) => d > 0), 0) : 0;
    if (column >= words.length) column = -1;
    const shown = [...grids.keys()].filter((h) => head === "all" || head === String(h));
    const mean = words.map((_, s) => shown.reduce((sum, h) => sum + weights[h][row][s], 0) / shown.length);

    digits.draw(result.digits, byDigits ? row : -1);
    const verdict = compare(words, result.digits);
    write(truth, verdict);
    who.draw(byDigits ? "digits" : "words");
    heads.draw(head);
    numbered.draw(numbers);
    strip.draw(words, mean, byDigits ? column : row);
    const inHeads = shown.length === 1 ? `In head ${shown[0] + 1}` : `On average over ${shown.length} heads`;
    const looking = byDigits ? `the ${PLACE_NAMES[row]} digit, ${result.digits[row]},` : `“${words[row]}”`;
    const sentence = `${inHeads}, ${looking} ${describe(words, mean, column)}`;
    write(caption, sentence);
    grids.forEach((grid, h) => { grid.root.hidden = !shown.includes(h); });
    for (const h of shown) {
      grids[h].draw({
        title: `Head ${h + 1}: ${byDigits ? "digits" : "words"} looking at words`, numbers,
        rows: byDigits ? PLACES : words, columns: words, weights: weights[h],
      });
      grids[h].mark(row, column);
    }
    say(`${verdict} ${sentence}`);
  }
  return { root, draw };
}

/** What someone looks at: the word pointed at, or those with the largest weights. */
export function describe(words, weights, column) {
  const number = (s) => weights[s].toFixed(2);
  if (column >= 0) return `gives “${words[column]}” a weight of ${number(column)}.`;
  const most = [...words.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3)
    .filter((s, i) => i === 0 || weights[s] >= 0.1);
  return `looks most at ${most.map((s) => `“${words[s]}” (${number(s)})`).join(", then at ")}.`;
}

/** What the model reads, beside what the words say. */
export function compare(words, digits) {
  const [said, made] = [numberOf(words.slice(0, -1)), Number(digits.join(""))];
  const print = (n) => String(n).replace(/\B(?=\d{3}$)/, "\u202f");
  if (said === null) return `The model reads ${print(made)}; but these words are not one number.`;
  if (said === made) return `The model reads ${print(made)}, as the words say. ✓`;
  return `The model reads ${print(made)}, but the words say ${print(said)}. ✗`;
}

/** Six figures; native radio buttons, so the arrow keys go from one to the next. */
function makeDigits(onChoose, signal) {
  const parts = PLACES.map((place, i) => {
    const input = element("input", { type: "radio", name: "place" });
    const figure = element("b");
    const label = element("label", { class: "tl-digit" }, input, figure, element("small", {}, place));
    input.addEventListener("input", () => onChoose(i), { signal });
    label.addEventListener("pointerenter", () => onChoose(i), { signal });
    return { label, input, figure };
  });
  const root = element("fieldset", { class: "tl-digits" },
    element("legend", {}, "What the model reads: choose a digit to see where it looks"),
    ...parts.map((part) => part.label));
  function draw(digits, chosen) {
    parts.forEach(({ input, figure }, i) => {
      write(figure, String(digits[i]));
      input.checked = i === chosen;
    });
  }
  return { root, draw };
}

export default { render };
