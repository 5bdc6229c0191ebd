// Masks, attention and the layers of a Transformer, out of the arithmetic of runtime.js.
//
// Masks are rows of booleans, true = may attend: (T, S), or (1, S) for every query alike. A query that may see
// nothing gets zeros. Parameters are named as in the package:
//   attention     q_proj, k_proj, v_proj, out_proj
//   feed-forward  up, down, and gate if it is gated (SwiGLU)
//   encoder layer self_attention, norm1, feed_forward, norm2
//   decoder layer self_attention, norm1, cross_attention, norm2, feed_forward, norm3
//   stack         layers.0, layers.1, ..., and norm if one stands at the end
// What a stack's layers have in common is its `style`: { heads, normFirst = false, activation = relu,
// norm = layerNorm, rotary }; rotary(row of one head, position) -> row, such as `rotate`.
// A cache is { k, v }, the keys and values of earlier tokens: given back, it saves computing them again.
// `off` lists the heads that are switched off: what they find becomes zeros, their weights stay to be seen.
import { add, dot, layerNorm, linear, matmul, relu, softmax } from "./runtime.js";

/** A query sees the keys up to its own position; the last query stands at the last key -> (T, S). */
export function causalMask(queries, keys = queries) {
  return Array.from({ length: queries }, (_, t) =>
    Array.from({ length: keys }, (_, s) => s - t <= keys - queries));
}

/** Every query may see the real tokens, and no padding: ids (S) -> (1, S). */
export function paddingMask(ids, padId) {
  return [Array.from(ids, (id) => id !== padId)];
}

/** What both masks allow. */
export function bothMasks(a, b) {
  const longer = a.length > b.length ? a : b;
  return longer.map((_, t) => rowFor(a, t).map((allowed, s) => allowed && rowFor(b, t)[s]));
}

function rowFor(table, t) {
  return table[table.length === 1 ? 0 : t];
}

/**
 * softmax(q kᵀ / √Dh + bias) v for one head: q (T, Dh), k (S, Dh), v (S, Dv), mask and bias (T, S) or (1, S)
 * -> output (T, Dv), weights (T, S).
 */
export function attention(q, k, v, mask = null, bias = null) {
  checkTable("mask", mask, q, k);
  checkTable("bias", bias, q, k);
  const scale = 1 / Math.sqrt(q[0].length);
  const score = (query, key, t, s) => {
    if (mask && !rowFor(mask, t)[s]) return -Infinity;
    return dot(query, key) * scale + (bias ? rowFor(bias, t)[s] : 0);
  };
  const weights = q.map((query, t) => softmax(k.map((key, s) => score(query, key, t, s))));
  return { output: matmul(weights, v), weights };
}

function checkTable(name, table, { length: T }, { length: S }) {
  if (!table || ((table.length === 1 || table.length === T) && table.every((row) => row.length === S))) return;
  throw new RangeError(`${name} must be (${T}, ${S}) or (1, ${S}), got (${table.length}, ${table[0]?.length})`);
}

/** The same for H heads, each in its slice of the columns; bias and weights (H, T, S); outputs side by side. */
export function headedAttention(q, k, v, heads, mask = null, bias = null, off = []) {
  const strange = off.find((h) => !Number.isInteger(h) || h < 0 || h >= heads);
  if (strange !== undefined) throw new RangeError(`off must hold heads from 0 to ${heads - 1}, got ${strange}`);
  const [qs, ks, vs] = [q, k, v].map((rows) => rows.map((row) => split(row, heads))); // (T, D) -> (T, H, Dh)
  const each = Array.from({ length: heads }, (_, h) => {
    const [qh, kh, vh] = [qs, ks, vs].map((rows) => rows.map((row) => row[h]));
    return attention(qh, kh, vh, mask, bias && bias[h]);
  });
  const found = (h, t) => (off.includes(h) ? each[h].output[t].map(() => 0) : each[h].output[t]);
  const output = q.map((_, t) => each.flatMap((_, h) => found(h, t)));
  return { output, weights: each.map((one) => one.weights) };
}

/** A row (D) cut into the equal parts of the heads (H, Dh). */
function split(row, heads) {
  const width = row.length / heads;
  if (!Number.isInteger(width)) throw new RangeError(`D must be a multiple of H, got ${row.length} and ${heads}`);
  return Array.from({ length: heads }, (_, h) => row.slice(h * width, (h + 1) * width));
}

/** Multi-head attention with its four projections: x (T, D) asks, context (S, D) answers. */
export function multiHeadAttention(x, context, layer, style, mask = null, bias = null) {
  return ask(x, keysAndValues(context, layer, style), layer, style, mask, bias);
}

/** Keys and values of `context` (S, D), put after those of a cache -> a longer cache. */
export function keysAndValues(context, { k_proj, v_proj }, { heads, rotary }, cache = { k: [], v: [] }) {
  const k = turn(linear(context, k_proj), cache.k.length, heads, rotary);
  return { k: [...cache.k, ...k], v: [...cache.v, ...linear(context, v_proj)] };
}

/** x (T, D) asks keys and values that stand ready -> output (T, D), weights (H, T, S). */
export function ask(x, { k, v }, { q_proj, out_proj }, { heads, rotary }, mask = null, bias = null, off = []) {
  const q = turn(linear(x, q_proj), k.length - x.length, heads, rotary); // the last query stands at the last key
  const { output, weights } = headedAttention(q, k, v, heads, mask, bias, off);
  return { output: linear(output, out_proj), weights };
}

/** The heads of each row turned by its position; the first row stands at `first`. */
function turn(rows, first, heads, rotary) {
  if (!rotary) return rows;
  return rows.map((row, t) => split(row, heads).flatMap((head) => rotary(head, first + t)));
}

/** down(activation(up x)), or, gated, down(activation(gate x) · up x): (T, D) -> (T, F) -> (T, D). */
export function feedForward(x, { up, gate, down }, activation = relu) {
  const wide = linear(x, up);
  if (!gate) return linear(wide.map((row) => row.map((u) => activation(u))), down);
  const gates = linear(x, gate);
  return linear(wide.map((row, t) => row.map((u, f) => activation(gates[t][f]) * u)), down);
}

/** x (T, D) -> { output (T, D), weights (H, T, S), cache }. With a causal mask it is a layer of GPT. */
export function encoderLayer(x, layer, style, { mask, cache, off } = {}) {
  const [before, after] = norms(style);
  const z = before(x, layer.norm1);
  const seen = keysAndValues(z, layer.self_attention, style, cache);
  const own = ask(z, seen, layer.self_attention, style, mask, null, off);
  const y = after(add(x, own.output), layer.norm1);
  const forward = feedForward(before(y, layer.norm2), layer.feed_forward, style.activation);
  return { output: after(add(y, forward), layer.norm2), weights: own.weights, cache: seen };
}

/**
 * x (T, D), the newest tokens, and memory { k, v }, what `memories` made for this layer
 * -> { output (T, D), weights (H, T, S), crossWeights (H, T, S), cache }. Without a mask it is causal.
 */
export function decoderLayer(x, memory, layer, style, { mask, memoryMask, cache, off, crossOff } = {}) {
  const [before, after] = norms(style);
  const z = before(x, layer.norm1);
  const seen = keysAndValues(z, layer.self_attention, style, cache);
  const own = ask(z, seen, layer.self_attention, style, mask ?? causalMask(x.length, seen.k.length), null, off);
  const y = after(add(x, own.output), layer.norm1);
  const question = before(y, layer.norm2);
  const cross = ask(question, memory, layer.cross_attention, { heads: style.heads }, memoryMask, null, crossOff);
  const w = after(add(y, cross.output), layer.norm2);
  const forward = feedForward(before(w, layer.norm3), layer.feed_forward, style.activation);
  const output = after(add(w, forward), layer.norm3);
  return { output, weights: own.weights, crossWeights: cross.weights, cache: seen };
}

/** Where the norm acts: on what goes into a part (normFirst), or on the sum that comes out (the paper's way). */
function norms({ normFirst = false, norm = layerNorm }) {
  const keep = (x) => x;
  return normFirst ? [norm, keep] : [keep, norm];
}

/** All L layers and the last norm: -> { output (T, D), layers: what each layer gave, caches }; a list `off` each. */
export function encoder(x, stack, style, { mask, caches = [], off = [] } = {}) {
  return through(x, stack, style, (y, layer, l) =>
    encoderLayer(y, layer, style, { mask, cache: caches[l], off: off[l] }));
}

/**
 * The same for a decoder. A step is x of one row, with the caches of the step before; what it gives equals the last
 * row of all tokens at once.
 */
export function decoder(x, memory, stack, style, { mask, memoryMask, caches = [], off = [], crossOff = [] } = {}) {
  return through(x, stack, style, (y, layer, l) => decoderLayer(y, memory[l], layer, style, {
    mask, memoryMask, cache: caches[l], off: off[l], crossOff: crossOff[l],
  }));
}

function through(x, { layers, norm: last }, { norm = layerNorm }, apply) {
  const results = [];
  for (const [l, layer] of Object.values(layers).entries())
    results.push(apply(l ? results[l - 1].output : x, layer, l));
  const { output } = results.at(-1);
  return { output: last ? norm(output, last) : output, layers: results, caches: results.map(({ cache }) => cache) };
}

/** What a decoder asks the encoder's output (S, D) for, computed once: { k, v } for each of its layers. */
export function memories(encoded, { layers }) {
  return Object.values(layers).map((layer) => keysAndValues(encoded, layer.cross_attention, {}));
}
