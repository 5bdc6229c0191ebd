// What is said and shown at each station of a token's way: a sentence or two, formula, shapes, numbers.
import { lengthOf, percent } from "./number_strips.js";
import { format } from "./plane.js";
import { germanWords, numberSaid } from "./translator.js";
import { headOf, placeOf } from "./walk_stations.js";

const BEST = 5;

const inQuotes = (word) => `“${word}”`;
const vector = (name, role, numbers, letter, heads = 1) => ({ name, role, numbers, letter, heads });

/**
 * A station in words, formula, shapes and pictures -> { where, title, said, formula, shapes, views }.
 * The scene is { letters, vocabulary, side, token, ids, tokens, others, head, name, tensors }: letters with
 * their sizes, ids and tokens of the side, and `others`, the tokens that an attention looks at.
 */
export function explain(scene) {
  const { side, token, tokens, others, name } = scene;
  const { layer, part, stop } = placeOf(name);
  const letters = { ...scene.letters, T: tokens.length, S: others.length };
  const kind = `${part.replace(/^(self|cross)-/, "")} ${stop}`.trim();
  const say = SAID[kind] ?? SAID[stop];
  const found = say({ ...scene, ...letters, part, word: inQuotes(tokens[token]) });
  const [inLetters, ...sized] = found.shapes;
  const where = [side === "encoder" ? "Encoder" : "Decoder", layer && `layer ${layer}`, part];
  return {
    ...found, where: where.filter(Boolean).join(", "),
    shapes: `${inLetters}; ${sized.map((letter) => `${letter}\u00a0=\u00a0${letters[letter]}`).join(", ")}`,
  };
}

const SAID = { // shapes: in letters, then the letters whose sizes are told
  token: ({ word, side, token, tokens, ids, tensors: { id }, V }) => ({
    title: "From text to a number",
    said: side === "decoder" && token === 0
      ? `${word} is token ${id} of the vocabulary. It opens every target: the first real token needs `
        + "something to be written after."
      : `${word} is token ${id} of the vocabulary’s ${V}. ${spaceSaid(word)}The number says nothing by `
        + "itself: it is a place in a list.",
    formula: "id = vocabulary.index(token)",
    shapes: ["ids (T), whole numbers", "T", "V"],
    views: [{
      caption: side === "encoder" ? "What the encoder reads" : "What the decoder reads, all at once",
      columns: ["id"], lines: tokens.map((one, t) => ({ word: one, here: t === token, id: ids[t] })),
    }],
  }),
  embedding: ({ tensors: { row, scaled }, D }) => ({
    title: "A row of the table",
    said: `The id picks a row of the embedding table: ${D} numbers that training chose for this token. Times `
      + "√D they are large enough to stand beside the position, whose numbers go up to 1.",
    formula: "x = √D · E[id]",
    shapes: ["E (V, D), x (D)", "V", "D"],
    views: [vector("E[id], the row", "plain", row, "D"), vector("√D · E[id]", "plain", scaled, "D")],
  }),
  position: ({ tensors: { scaled, position, sum }, token, word }) => ({
    title: "Where it stands",
    said: `Attention alone cannot tell first from last. So the sinusoids of place ${token} are added; places `
      + `count from 0. At another place, ${word} would begin as another vector. The sum is the stream of `
      + "this token.",
    formula: "x = √D · E[id] + P[place]",
    shapes: ["P (places, D), x (D)", "D"],
    views: [
      vector("√D · E[id]", "plain", scaled, "D"), vector("P[place]", "plain", position, "D"),
      vector("x, their sum", "plain", sum, "D"),
    ],
  }),
  norm: ({ tensors: { stream, normed }, ...scene }) => ({
    title: "Norm, in front of the part",
    said: "A copy of the stream is moved to mean 0 and variance 1, then stretched and shifted, entry by "
      + `entry, by numbers that were learned: ${called(scene)} always gets vectors of like size. The stream `
      + "itself stays as it is.",
    formula: "z = γ · (x − mean(x)) / √(variance(x) + 10⁻⁵) + β",
    shapes: ["x, γ, β, z (D)", "D"],
    views: [vector("x, the stream", "plain", stream, "D"), vector("z", "plain", normed, "D")],
  }),
  "attention queries": (scene) => ({
    title: "Query, keys, values",
    said: isSelf(scene)
      ? `Three matrices make of z a query, what ${scene.word} looks for; a key, what it is found by; and a `
        + "value, what it hands over. Every token makes its own. Each head has its part of the columns."
      : `The query comes from ${scene.word}, in the decoder. Keys and values come from m, the memory: what `
        + "the encoder made of the English tokens. Here the two sides meet.",
    formula: isSelf(scene) ? "q = z W_Q + b_Q, k = z W_K + b_K, v = z W_V + b_V"
      : "q = z W_Q + b_Q, k = m W_K + b_K, v = m W_V + b_V",
    shapes: ["each W (D, D), of which a head has (D, Dh); q (Dh), k, v (S, Dh)", "D", "H", "Dh", "S"],
    views: [queryOf(scene), tableOf(scene, "Key and value of each token", ["key", "value"])],
  }),
  "attention scores": (scene) => ({
    title: "Scores",
    said: "How well does each key fit the query? Their dot product says it. Divided by √Dh, it does not grow "
      + `with the width of the head. ${maskSaid(scene)}`,
    formula: `score[s] = q · k[s] / √Dh${countMasked(scene) ? ", or −∞ where masked" : ""}`,
    shapes: ["q (Dh), k (S, Dh), scores (S)", "Dh", "S"],
    views: [queryOf(scene), tableOf(scene, "Key and score of each token", ["key", "score"])],
  }),
  "attention weights": (scene) => ({
    title: "Weights",
    said: "The softmax makes weights of the scores: none is negative, and together they are 1. "
      + mostLooked(scene),
    formula: "weights = softmax(scores)",
    shapes: ["scores, weights (S)", "S"],
    views: [tableOf(scene, "Score and weight of each token", ["score", "weight"])],
  }),
  "attention values": (scene) => ({
    title: "Weighted values",
    said: "The values are added up, each counted with its weight. The sum is what head "
      + `${scene.head + 1} brings to ${scene.word}.`,
    formula: "o = Σ weight[s] · v[s]",
    shapes: ["weights (S), v (S, Dh), o (Dh)", "S", "Dh"],
    views: [
      tableOf(scene, "Weight and value of each token", ["weight", "value"]),
      vector("o, the weighted sum", "output", ofHead(scene, scene.tensors.mixed), "Dh"),
    ],
  }),
  "attention output": ({ tensors: { mixed, output }, H, part }) => ({
    title: "All heads together",
    said: `The ${H} heads stand side by side again, and one more matrix mixes them. The result is what `
      + `${part} wants to add to the stream.`,
    formula: `output = [o of head 1, …, o of head ${H}] W_O + b_O`,
    shapes: ["the heads (H · Dh) = (D), W_O (D, D), output (D)", "H", "Dh", "D"],
    views: [
      vector("the heads, side by side", "output", mixed, "D", H), vector("output", "output", output, "D"),
    ],
  }),
  "feed-forward hidden": ({ tensors: { normed, hidden }, word, F }) => ({
    title: "Hidden units",
    said: `Each of the ${F} hidden units puts one question to ${word} alone; no other token takes part. ReLU `
      + `makes every negative answer 0: here ${Math.round(100 * zeroShare(hidden))} % are 0.`,
    formula: "h = max(0, z W_up + b_up)",
    shapes: ["z (D), W_up (D, F), h (F)", "D", "F"],
    views: [vector("z", "plain", normed, "D"), vector("h, the answers", "plain", hidden, "F")],
  }),
  "feed-forward output": ({ tensors: { hidden, output }, D }) => ({
    title: "Back to the width of the model",
    said: "Each hidden unit that is not 0 adds a learned vector of its own, as strongly as it answered: "
      + `${D} numbers again.`,
    formula: "output = h W_down + b_down",
    shapes: ["h (F), W_down (F, D), output (D)", "F", "D"],
    views: [vector("h, the answers", "plain", hidden, "F"), vector("output", "output", output, "D")],
  }),
  sum: ({ tensors: { stream, output, sum }, ...scene }) => ({
    title: "Add to the stream",
    said: `The skip connection adds what ${called(scene)} found; what was there is not replaced. The `
      + `addition is ${format(lengthOf(output) / lengthOf(stream))} times as long as the stream was.`,
    formula: "x ← x + output",
    shapes: ["x, output (D)", "D"],
    views: [
      vector("x, the stream", "plain", stream, "D"), vector("output", "output", output, "D"),
      vector("x, the new stream", "plain", sum, "D"),
    ],
  }),
  "final norm": ({ tensors: { stream, normed }, side }) => ({
    title: "The last norm",
    said: "With the norms in front of the parts, nothing has normed the stream itself: its length is "
      + `${format(lengthOf(stream), 1)} by now. One norm at the end of the ${side} brings it to size.`,
    formula: "y = γ · (x − mean(x)) / √(variance(x) + 10⁻⁵) + β",
    shapes: ["x, γ, β, y (D)", "D"],
    views: [vector("x, the stream", "plain", stream, "D"), vector("y", "output", normed, "D")],
  }),
  memory: ({ tensors: { memory, keys, values }, ...scene }) => ({
    title: "Memory",
    said: "This vector is what the decoder’s keys and values are made of, and all that it gets to know from "
      + `this place. In each of its ${scene.L} layers, cross-attention makes a key and a value of it for `
      + "every head.",
    formula: "m = y, k = m W_K + b_K, v = m W_V + b_V",
    shapes: ["m (D), k, v (Dh) for each layer and head", "D", "Dh", "H", "L"],
    views: [
      vector("m, a row of the memory", "output", memory, "D"),
      ...keys.flatMap((key, l) => [
        vector(`k in layer ${l + 1}, head ${scene.head + 1}`, "key", ofHead(scene, key), "Dh"),
        vector(`v in layer ${l + 1}, head ${scene.head + 1}`, "value", ofHead(scene, values[l]), "Dh"),
      ]),
    ],
  }),
  "vocabulary scores": ({ tensors: { normed, scores }, vocabulary, V }) => ({
    title: "Scores of all tokens",
    said: "The embedding table serves once more, transposed: a dot product compares y with the row of each "
      + `of the ${V} tokens. A high score says that this token should follow.`,
    formula: "scores = y Eᵀ",
    shapes: ["y (D), Eᵀ (D, V), scores (V)", "D", "V"],
    views: [
      vector("y", "output", normed, "D"), vector("scores", "plain", scores, "V"), {
        caption: "The five highest", columns: ["score"],
        lines: bestOf(scores, vocabulary).map(({ word, number }) => ({ word, score: number })),
      },
    ],
  }),
  probabilities: ({ tensors: { probabilities }, vocabulary, tokens, token }) => {
    const best = bestOf(probabilities, vocabulary);
    const written = inQuotes(tokens.slice(0, token + 1).join(" "));
    return {
      title: "What comes next",
      said: `The softmax makes probabilities of the scores. After ${written} the likeliest token is `
        + `${inQuotes(best[0].word)}, with ${percent(best[0].number)}. Greedy writing takes it.`,
      formula: "probabilities = softmax(scores)",
      shapes: ["scores, probabilities (V)", "V"],
      views: [{
        caption: "The five likeliest", columns: ["probability"],
        lines: best.map(({ word, number }) => ({ word, probability: number })),
      }],
    };
  },
};

const isSelf = ({ part }) => part === "self-attention";
const called = ({ part }) => (part === "feed-forward" ? "the feed-forward network" : part);
const spaceSaid = (word) => (word.includes("▁") ? "The sign ▁ is the space in front of a word. " : "");
const ofHead = ({ head, H }, row) => headOf(row, head, H);
const queryOf = (scene) => vector("q, its query", "query", ofHead(scene, scene.tensors.query), "Dh");

/** A line for each token that the attention looks at, with all that is known of it at this station. */
function tableOf(scene, caption, columns) {
  const { others, token, head, tensors: { may, keys, values, scores, weights } } = scene;
  const lines = others.map((word, s) => ({
    word, here: isSelf(scene) && s === token, masked: Boolean(may && !may[s]),
    key: keys && ofHead(scene, keys[s]), value: values && ofHead(scene, values[s]),
    score: scores?.[head][s], weight: weights?.[head][s],
  }));
  return { caption, columns, lines };
}

function countMasked({ tensors: { may } }) {
  return may.filter((allowed) => !allowed).length;
}

function maskSaid(scene) {
  const masked = countMasked(scene);
  if (!isSelf(scene)) return "Nothing is masked: the decoder may look at every English token.";
  if (scene.side === "encoder") return "Nothing is masked: the encoder reads the whole sentence at once.";
  if (!masked) return "Nothing is masked here: all other tokens stand before this one.";
  const [those, are] = masked === 1 ? ["The token", "is"] : [`The ${masked} tokens`, "are"];
  return `${those} after ${scene.word} ${are} masked: whoever writes does not know what will follow.`;
}

function mostLooked({ head, others, word, tensors: { weights } }) {
  const [most] = largestFirst(weights[head]);
  const looks = `In head ${head + 1}, ${word} looks most at ${inQuotes(others[most])}`;
  return `${looks}: ${format(weights[head][most])}.`;
}

/** The places of a row, that of its largest number first. */
function largestFirst(row) {
  return [...row.keys()].sort((a, b) => row[b] - row[a]);
}

function bestOf(row, vocabulary) {
  return largestFirst(row).slice(0, BEST).map((id) => ({ word: vocabulary[id], number: row[id] }));
}

/** The share of numbers that are 0. */
export function zeroShare(row) {
  return row.filter((number) => number === 0).length / row.length;
}

/** What the model writes, beside what is right. */
export function writtenSaid(words, written) {
  const number = numberSaid(words);
  const turns = `The model turns “${words.join(" ")}” into “${written}”`;
  if (number === null) return `${turns}.`;
  const right = germanWords(number);
  return right === written ? `${turns}, as it should. ✓` : `${turns}, but right is “${right}”. ✗`;
}
