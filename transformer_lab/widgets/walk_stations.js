// The stations of a token's way through an encoder-decoder, norms first, and the tensors to be seen at each.
// Letters: T, S tokens, D model width, H heads, Dh head width, F hidden width, L layers, V vocabulary.
import { MAP_PARTS } from "./architecture_map.js";
import { causalMask, headedAttention } from "./layers.js";
import { add, dot, embedding, layerNorm, linear, relu, softmax } from "./runtime.js";
import { embedTokens, read } from "./translator.js";

const IN_ATTENTION = ["norm", "queries", "scores", "weights", "values", "output", "sum"];
const STOPS = { // of each part of a layer
  "self-attention": IN_ATTENTION, "cross-attention": IN_ATTENTION,
  "feed-forward": ["norm", "hidden", "output", "sum"],
};
const ENDS = { encoder: ["memory"], decoder: ["vocabulary scores", "probabilities"] };

/** The names of all stations of one side, in the order in which a token passes them. */
export function stationNames(side, nLayers) {
  const layers = Array.from({ length: nLayers }, (_, l) => MAP_PARTS[side].flatMap((part) =>
    STOPS[part].map((stop) => `layer ${l + 1} ${part} ${stop}`)));
  return ["token", "embedding", "position", ...layers.flat(), "final norm", ...ENDS[side]];
}

/** "layer 2 cross-attention sum" -> { layer: 2, part: "cross-attention", stop: "sum" }; or the stop alone. */
export function placeOf(name) {
  const found = /^layer (\d+) ([\w-]+) (\w+)$/.exec(name);
  if (!found) return { layer: 0, part: "", stop: name };
  return { layer: Number(found[1]), part: found[2], stop: found[3] };
}

/** The sizes of a model, under the book's letters. */
export function lettersOf({ config, vocabulary, encoder }) {
  const { d_model: D, n_heads: H } = config;
  const [{ feed_forward: { up } }] = encoder.layers;
  return { D, H, Dh: D / H, F: up.weight.length, L: encoder.layers.length, V: vocabulary.length };
}

/** The box of the map for a station: all that happens in a part is one, its norm and its sum are others. */
export function boxOf(name) {
  const { layer, part, stop } = placeOf(name);
  if (!layer) return name;
  return ["norm", "sum"].includes(stop) ? name : `layer ${layer} ${part}`;
}

/**
 * What the model computes for one token: { station: tensors, ... }, as its forward pass does. The target
 * opens with the token for it, and is read at once: by the mask, a token knows only those before it.
 */
export function walkToken(translator, source, target, side, token) {
  const { config, embed, positions } = translator;
  const { layers, norm } = translator[side];
  const ids = side === "encoder" ? source : target;
  const mask = side === "encoder" ? null : causalMask(ids.length);
  const memory = side === "encoder" ? null : read(translator, source).encoded;
  let x = embedTokens(translator, ids);
  const [row] = embedding([ids[token]], embed);
  const scaled = row.map((number) => number * Math.sqrt(config.d_model));
  const found = {
    token: { id: ids[token] }, embedding: { row, scaled },
    position: { scaled, position: positions[token], sum: x[token] },
  };
  layers.forEach((layer, l) => MAP_PARTS[side].forEach((part, p) => {
    const z = layerNorm(x, layer[`norm${p + 1}`]);
    const { outputs, seen } = {
      "self-attention": () => attentionOf(z, z, layer.self_attention, config.n_heads, mask, token),
      "cross-attention": () => attentionOf(z, memory, layer.cross_attention, config.n_heads, null, token),
      "feed-forward": () => feedForwardOf(z, layer.feed_forward, token),
    }[part]();
    const after = add(x, outputs);
    const stops = {
      norm: { stream: x[token], normed: z[token] }, ...seen,
      sum: { stream: x[token], output: outputs[token], sum: after[token] },
    };
    for (const stop of STOPS[part]) found[`layer ${l + 1} ${part} ${stop}`] = stops[stop];
    x = after;
  }));
  const [normed] = layerNorm([x[token]], norm);
  found["final norm"] = { stream: x[token], normed };
  const end = side === "encoder" ? asMemory(normed, translator) : asScores(normed, translator);
  return Object.assign(found, end);
}

/** z (T, D) asks a context (S, D) -> the outputs of all tokens, and what there is to see of one. */
function attentionOf(z, context, layer, heads, mask, token) {
  const [keys, values] = [linear(context, layer.k_proj), linear(context, layer.v_proj)];
  const queries = linear(z, layer.q_proj);
  const inHeads = headedAttention(queries, keys, values, heads, mask);
  const outputs = linear(inHeads.output, layer.out_proj);
  const [query, mixed, output] = [queries[token], inHeads.output[token], outputs[token]];
  const weights = inHeads.weights.map((head) => head[token]);
  const may = mask ? mask[token] : keys.map(() => true);
  const scores = weights.map((_, h) => keys.map((key) => // of the masked ones too, for comparison
    dot(headOf(query, h, heads), headOf(key, h, heads)) / Math.sqrt(query.length / heads)));
  const seen = {
    queries: { normed: z[token], query, keys, values }, scores: { query, keys, scores, may },
    weights: { scores, may, weights }, values: { weights, may, values, mixed }, output: { mixed, output },
  };
  return { outputs, seen };
}

function feedForwardOf(z, { up, down }, token) {
  const hidden = linear(z, up).map((row) => row.map(relu));
  const outputs = linear(hidden, down);
  const seen = {
    hidden: { normed: z[token], hidden: hidden[token] },
    output: { hidden: hidden[token], output: outputs[token] },
  };
  return { outputs, seen };
}

/** A row of the memory as each layer of the decoder will ask it: keys and values (L, D). */
function asMemory(memory, { decoder }) {
  const each = (name) => decoder.layers.map(({ cross_attention: layer }) => linear([memory], layer[name])[0]);
  return { memory: { memory, keys: each("k_proj"), values: each("v_proj") } };
}

function asScores(normed, { embed }) {
  const [scores] = linear([normed], embed);
  return { "vocabulary scores": { normed, scores }, probabilities: { probabilities: softmax(scores) } };
}

/** One head's part of a row (D) -> (Dh). */
export function headOf(row, head, heads) {
  const width = row.length / heads;
  return row.slice(head * width, (head + 1) * width);
}
