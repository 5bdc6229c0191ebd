// The number translator in the browser: English number words in, German tokens out. The same algorithms as the
// package's encoder_decoder.py and generation.py, one sentence at a time. Letters: S source tokens, T target tokens,
// D model width, H heads, V vocabulary.
//
//   const translator = decodeTranslator(model.get("asset_data"));
//   const source = tokenize(numberWords(21_345), translator.vocabulary);
//   const { hypotheses } = searchBeams(translator, source, { beamSize: 4 });
//   spell(translator, hypotheses[0].tokens); // "einundzwanzigtausenddreihundertfünfundvierzig"
//
// Heads are switched off by a set of names such as "cross 0 2": kind, layer, head, from 0. A kind is "encoder",
// "decoder" (what each asks itself) or "cross" (what the decoder asks the encoder).
import { decoder, encoder, memories } from "./layers.js";
import { add, argmax, embedding, linear, sinusoid } from "./runtime.js";
import { decodeTensors } from "./tensors.js";

export const HEAD_KINDS = ["encoder", "decoder", "cross"];
const NONE_OFF = new Set();
const MOST_TYPED = 12; // words: numbers below a million have 11 at most

// --- number words --------------------------------------------------------------------------------

const SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
  .concat(" seventeen eighteen nineteen").split(" ");
const TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split(" ");
const KLEIN = "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn"
  .concat(" sechzehn siebzehn achtzehn neunzehn").split(" ");
const ZEHNER = "- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split(" ");
const VALUES = new Map([...SMALL.entries(), ...TENS.map((word, i) => [10 * i, word]).slice(2)]
  .map(([value, word]) => [word, value]));

const divided = (n, unit) => [Math.floor(n / unit), n % unit];

/** English words of a whole number below a million, as the package writes them: "three hundred and forty two". */
export function numberWords(n) {
  if (n === 0) return SMALL[0];
  const [thousands, rest] = divided(n, 1000);
  const words = thousands ? [...below1000(thousands), "thousand"] : [];
  if (words.length && rest && rest < 100) words.push("and");
  return [...words, ...below1000(rest)].join(" ");
}

function below1000(n) {
  const [hundreds, rest] = divided(n, 100);
  const [tens, ones] = divided(rest, 10);
  const small = rest < 20 ? [SMALL[rest]] : [TENS[tens], ...(ones ? [SMALL[ones]] : [])];
  if (!hundreds) return rest ? small : [];
  return [SMALL[hundreds], "hundred", ...(rest ? ["and", ...small] : [])];
}

/** The same in German, where it is one word: "dreihundertzweiundvierzig". */
export function germanWords(n) {
  if (n === 0) return KLEIN[0];
  const [thousands, rest] = divided(n, 1000);
  const last = rest % 100 === 1 ? "s" : ""; // "eins" where nothing follows, "ein" elsewhere
  return (thousands ? `${unter1000(thousands)}tausend` : "") + unter1000(rest) + last;
}

function unter1000(n) {
  const [hundreds, rest] = divided(n, 100);
  const [tens, ones] = divided(rest, 10);
  const small = rest < 20 ? KLEIN[rest] : `${ones ? `${KLEIN[ones]}und` : ""}${ZEHNER[tens]}`;
  return (hundreds ? `${KLEIN[hundreds]}hundert` : "") + (rest ? small : "");
}

/** What words say, by the rules of English, "and" being optional; null if they are not one number below a million. */
export function numberSaid(words) {
  let [thousands, n] = [0, 0];
  for (const word of words) {
    if (word === "thousand") [thousands, n] = [1000 * n, 0];
    else if (word === "hundred") n *= 100;
    else n += VALUES.get(word) ?? 0;
  }
  n += thousands;
  if (n >= 1_000_000) return null;
  const right = numberWords(n);
  return [right, right.replaceAll(" and", "")].includes(words.join(" ")) ? n : null;
}

/** Ids of English number words; throws one clear sentence. Capitals, hyphens and commas do not matter. */
export function tokenize(text, vocabulary) {
  const words = text.toLowerCase().split(/[\s,.-]+/).filter(Boolean);
  if (!words.length) throw new Error("There is no word here: write a number, such as forty-two.");
  const known = (word) => VALUES.has(word) || ["hundred", "thousand", "and"].includes(word);
  return words.map((word) => {
    const id = known(word) ? vocabulary.indexOf(`▁${word}`) : -1;
    if (id < 0) throw new Error(`The model never learned “${word}”: it knows English number words.`);
    return id;
  });
}

/** Ids of what a reader typed, a whole number in figures or English words; throws one clear sentence. */
export function typedIds(text, vocabulary) {
  const figures = /^\d+$|^\d{1,3}([,.\s]\d{3})+$/.test(text.trim()) ? text.replace(/\D/g, "") : null;
  if (Number(figures) >= 1_000_000) throw new Error("Write a number below a million: the model has no longer words.");
  const ids = tokenize(figures ? numberWords(Number(figures)) : text, vocabulary);
  if (ids.length > MOST_TYPED) throw new Error(`These are ${ids.length} words: write at most ${MOST_TYPED}.`);
  return ids;
}

// --- the model -----------------------------------------------------------------------------------

const RENAMED = {
  up_proj: "up", down_proj: "down",
  around_attention: "norm1", around_self_attention: "norm1", around_cross_attention: "norm2",
};

/** asset_data -> what everything below takes, its weights under the names of layers.js. */
export function decodeTranslator({ config, vocabulary, tensors }) {
  const weights = decodeTensors(tensors);
  const stack = (side, lastNorm) => ({
    layers: Object.values(weights[side]).map((layer) => renamed(layer, lastNorm)), norm: weights[`${side}_norm`],
  });
  return {
    config, vocabulary, embed: weights.embed,
    encoder: stack("encoder", "norm2"), decoder: stack("decoder", "norm3"),
    positions: Array.from({ length: config.max_len }, (_, position) => sinusoid(position, config.d_model)),
    style: { heads: config.n_heads, normFirst: config.norm === "pre" },
  };
}

/** A layer of the package under the names of layers.js; the norm around a part is found inside its wrapper. */
function renamed(layer, lastNorm) {
  const names = { ...RENAMED, around_feed_forward: lastNorm };
  return Object.fromEntries(Object.entries(layer).map(([name, part]) => {
    if (name.startsWith("around_")) return [names[name], part.norm];
    return [names[name] ?? name, name === "feed_forward" ? renamed(part) : part];
  }));
}

/** Token ids -> (T, D): table times √D, plus the positions from `start` on. */
export function embedTokens({ config, embed, positions }, ids, start = 0) {
  const end = start + ids.length;
  if (end > config.max_len) throw new RangeError(`there is room for ${config.max_len} tokens, got ${end}`);
  const words = embedding(ids, embed).map((row) => row.map((number) => number * Math.sqrt(config.d_model)));
  return add(words, positions.slice(start, end));
}

/** The heads of one kind that are off, a list for each layer. */
function offByLayer(off, kind, { layers }) {
  return layers.map((_, l) => [...off].map((name) => name.split(" "))
    .filter(([what, layer]) => what === kind && Number(layer) === l).map(([, , head]) => Number(head)));
}

/** The encoder's work -> { encoded (S, D), layers: what each gave, memory: what the decoder will ask }. */
export function read(translator, sourceIds, headsOff = NONE_OFF) {
  const { encoder: stack, decoder: asking, style } = translator;
  const off = offByLayer(headsOff, "encoder", stack);
  const { output, layers } = encoder(embedTokens(translator, sourceIds), stack, style, { off });
  return { encoded: output, layers, memory: memories(output, asking) };
}

/**
 * Some more target tokens, after those of `caches` -> { scores (T, V) of what follows each, layers, caches }. Each
 * layer has its weights (H, T, all tokens up to now) and crossWeights (H, T, S). A step changes no caches: beams may
 * share them.
 */
export function step(translator, { memory }, tokenIds, caches = [], headsOff = NONE_OFF) {
  const { decoder: stack, style, embed } = translator;
  const x = embedTokens(translator, tokenIds, caches[0]?.k.length ?? 0);
  const [off, crossOff] = ["decoder", "cross"].map((kind) => offByLayer(headsOff, kind, stack));
  const { output, layers, caches: longer } = decoder(x, memory, stack, style, { caches, off, crossOff });
  return { scores: linear(output, embed), layers, caches: longer };
}

/** A row of scores (V) -> log-probabilities (V). Nobody writes padding or a second beginning. */
export function logProbabilities({ config }, scores) {
  const allowed = scores.map((score, id) => (id === config.pad_id || id === config.bos_id ? -Infinity : score));
  const top = Math.max(...allowed);
  const log = top + Math.log(allowed.reduce((sum, score) => sum + Math.exp(score - top), 0));
  return allowed.map((score) => score - log);
}

// --- writing -------------------------------------------------------------------------------------

function mostTokens({ config }, sourceIds, maxLen) {
  return maxLen ?? Math.min(sourceIds.length + 50, config.max_len);
}

/** Always the likeliest token -> { tokens, with the end; logProbability; reading; steps: what `step` gave }. */
export function writeGreedy(translator, sourceIds, { maxLen, headsOff = NONE_OFF } = {}) {
  const { bos_id, eos_id } = translator.config;
  const reading = read(translator, sourceIds, headsOff);
  const [tokens, steps] = [[], []];
  let logProbability = 0;
  while (tokens.length < mostTokens(translator, sourceIds, maxLen) && tokens.at(-1) !== eos_id) {
    steps.push(step(translator, reading, [tokens.at(-1) ?? bos_id], steps.at(-1)?.caches, headsOff));
    const log = logProbabilities(translator, steps.at(-1).scores[0]);
    tokens.push(argmax(log));
    logProbability += log[tokens.at(-1)];
  }
  return { tokens, logProbability, reading, steps };
}

/** ((5 + n) / 6) to the power alpha: equation (14) of Wu et al. (2016). */
export function lengthPenalty(n, alpha) {
  return ((5 + n) / 6) ** alpha;
}

/**
 * The likeliest ways to go on are kept at every step. One that ends is finished, and the beam becomes narrower by
 * one; what is still open after `maxLen` tokens is cut. As `generation.beams` of the package.
 *
 * -> { hypotheses, the best first: { tokens, logProbability, score, node }, reading, nodes }. The nodes are the tree,
 * in the order in which it grew: { step, parent, token, probability, logProbability, ended }. Node 0 is the beginning,
 * its step 0; parents and `node` are indices; a probability is the token's own, a logProbability that of all up to it.
 */
export function searchBeams(translator, sourceIds, options = {}) {
  const { beamSize = 4, alpha = 0.6, maxLen, headsOff = NONE_OFF } = options;
  const { bos_id, eos_id } = translator.config;
  const reading = read(translator, sourceIds, headsOff);
  const nodes = [{ step: 0, parent: -1, token: bos_id, probability: 1, logProbability: 0, ended: false }];
  const hypotheses = [];
  const finish = (node) => {
    const tokens = wayTo(nodes, node).map((i) => nodes[i].token);
    const { logProbability } = nodes[node];
    hypotheses.push({ tokens, logProbability, score: logProbability / lengthPenalty(tokens.length, alpha), node });
  };
  let open = [{ node: 0, caches: undefined }];
  for (let n = 1; open.length && n <= mostTokens(translator, sourceIds, maxLen); n++) {
    const candidates = open.flatMap(({ node, caches }) => {
      const stepped = step(translator, reading, [nodes[node].token], caches, headsOff);
      return logProbabilities(translator, stepped.scores[0]).map((log, token) => ({
        step: n, parent: node, token, probability: Math.exp(log), logProbability: nodes[node].logProbability + log,
        caches: stepped.caches,
      }));
    }).filter(({ logProbability }) => logProbability > -Infinity);
    candidates.sort((a, b) => b.logProbability - a.logProbability);
    open = [];
    for (const { caches, ...kept } of candidates.slice(0, beamSize - hypotheses.length)) {
      const ended = kept.token === eos_id;
      nodes.push({ ...kept, ended });
      if (ended) finish(nodes.length - 1);
      else open.push({ node: nodes.length - 1, caches });
    }
  }
  for (const { node } of open) finish(node); // cut
  hypotheses.sort((a, b) => b.score - a.score);
  return { hypotheses, reading, nodes };
}

/** The nodes from the first token to this one, as indices. */
export function wayTo(nodes, node) {
  const back = [];
  for (let i = node; i > 0; i = nodes[i].parent) back.unshift(i);
  return back;
}

/** All tokens of a hypothesis again, at once: the layers' weights as they were when each of them was written. */
export function lookBack(translator, reading, tokens, headsOff = NONE_OFF) {
  return step(translator, reading, [translator.config.bos_id, ...tokens.slice(0, -1)], [], headsOff).layers;
}

/** The text of token ids up to the end, if there is one; `joint` stands between the parts of a word. */
export function spell({ config, vocabulary }, tokens, joint = "") {
  const end = tokens.indexOf(config.eos_id);
  const written = tokens.slice(0, end < 0 ? tokens.length : end).map((id) => vocabulary[id]);
  return written.join(joint).replaceAll(`${joint}▁`, " ").replace("▁", " ").trim();
}
