import assert from "node:assert/strict";
import test from "node:test";
import {
  ask, attention, bothMasks, causalMask, decoder, decoderLayer, encoder, encoderLayer, feedForward, headedAttention,
  keysAndValues, memories, multiHeadAttention, paddingMask,
} from "../../transformer_lab/widgets/layers.js";
import { gelu, layerNorm, relu, rmsNorm, rotate, silu } from "../../transformer_lab/widgets/runtime.js";
import { decodeTensors } from "../../transformer_lab/widgets/tensors.js";
import { cases as all, close } from "./cases.mjs";

const cases = all.runtime;

/** Parameters from an export, or numbers in double precision: {float64: {name: list}}. */
function parametersOf(given) {
  if (!given.float64) return decodeTensors(given);
  const tree = {};
  for (const [name, value] of Object.entries(given.float64)) {
    const path = name.split(".");
    const leaf = path.pop();
    path.reduce((node, part) => (node[part] ??= {}), tree)[leaf] = value;
  }
  return tree;
}

test("masks are the package's", () => {
  for (const { queries, keys, mask } of cases.causal) {
    assert.deepEqual(causalMask(queries, keys), mask);
    if (queries === keys) assert.deepEqual(causalMask(queries), mask);
  }
  assert.deepEqual(paddingMask([5, 0, 6, 0], 0), [[true, false, true, false]]);
  assert.deepEqual(paddingMask(Int32Array.of(1, 3), 3), [[true, false]]);
});

test("both masks must allow; one row stands for all", () => {
  const row = [[true, false, true]];
  const expected = [[true, false, false], [true, false, false], [true, false, true]];
  assert.deepEqual(bothMasks(causalMask(3), row), expected);
  assert.deepEqual(bothMasks(row, causalMask(3)), expected);
  assert.deepEqual(bothMasks(causalMask(3), causalMask(3)), causalMask(3));
  assert.deepEqual(bothMasks(row, [[false, false, true]]), [[false, false, true]]);
});

test("attention equals the package's formula: every mask and bias, one token, one key, extreme scores", () => {
  for (const { q, k, v, mask, bias, output, weights } of cases.attention) {
    const ours = attention(q, k, v, mask, bias);
    close(ours.output, output, 1e-9);
    close(ours.weights, weights, 1e-9);
  }
});

test("attention in heads equals PyTorch's fused kernel", () => {
  for (const { q, k, v, heads, mask, bias, output } of cases.fused)
    close(headedAttention(q, k, v, heads, mask, bias).output, output, 1e-9);
});

test("multi-head attention equals the package's, from weights exported as float32 and int8", () => {
  for (const { parameters, heads, x, context, mask, bias, output, weights } of cases.multiHead) {
    const ours = multiHeadAttention(x, context, decodeTensors(parameters), { heads }, mask, bias);
    close(ours.output, output);
    close(ours.weights, weights);
  }
});

test("a mask or bias of another shape is refused, and heads that do not divide the width", () => {
  const [q, k] = [[[1], [2], [3]], [[1], [2]]];
  for (const mask of [[[true]], [[true, true], [true, true]], [[true, true, true]], [], causalMask(4, 2)])
    assert.throws(() => attention(q, k, k, mask), /mask must be \(3, 2\) or \(1, 2\), got \(\d, (\d|undefined)\)/);
  assert.throws(() => attention(q, k, k, null, [[0]]), /bias must be \(3, 2\) or \(1, 2\), got \(1, 1\)/);
  assert.throws(() => attention(q, k, k, causalMask(3, 2), causalMask(3)), /bias must be/);
  assert.throws(() => attention(q, k, k, [[true, true], [true, true], [true]]), /mask must be/);
  assert.throws(() => headedAttention([[1, 2, 3]], [[1, 2, 3]], [[1, 2, 3]], 2), /multiple of H, got 3 and 2/);
});

const ACTIVATIONS = { relu, gelu };

test("stacks of layers equal PyTorch's: norm first and last, relu and gelu, padding, double, float32 and int8", () => {
  for (const { parameters, heads, normFirst, activation, real, x, y, encoded, decoded } of cases.stacks) {
    const [encoding, decoding] = [parametersOf(parameters.encoder), parametersOf(parameters.decoder)];
    const style = { heads, normFirst, activation: ACTIVATIONS[activation] };
    const exact = parameters.encoder.float64 ? 1e-9 : 1e-4;
    const ours = encoder(x, encoding, style, { mask: real });
    close(ours.output, encoded, exact);
    const memory = memories(ours.output, decoding);
    close(decoder(y, memory, decoding, style, { memoryMask: real }).output, decoded, exact);
  }
});

test("one token after another, with caches, equals all at once: outputs and weights", () => {
  for (const { parameters, heads, normFirst, real, y, encoded, decoded } of cases.stacks) {
    const decoding = parametersOf(parameters.decoder);
    const style = { heads, normFirst, activation: gelu };
    const memory = memories(encoded, decoding);
    const whole = decoder(y, memory, decoding, style, { memoryMask: real });
    let caches;
    decoded.forEach((_, t) => {
      const step = decoder([y[t]], memory, decoding, style, { memoryMask: real, caches });
      close(step.output, [whole.output[t]], 1e-9);
      step.layers.forEach((layer, l) => layer.weights.forEach((head, h) => {
        close(head[0], whole.layers[l].weights[h][t].slice(0, t + 1), 1e-9);
        close(layer.crossWeights[h][0], whole.layers[l].crossWeights[h][t], 1e-9);
      }));
      caches = step.caches;
    });
    close(caches.map(({ k, v }) => [k, v]), whole.caches.map(({ k, v }) => [k, v]), 1e-9);
    if (y.length === 1) continue;
    ({ caches } = decoder([y[0]], memory, decoding, style, { memoryMask: real }));
    const rest = decoder(y.slice(1), memory, decoding, style, { memoryMask: real, caches });
    close(rest.output, whole.output.slice(1), 1e-9); // several at once after a cache
  }
});

test("a causal encoder, token by token, equals all at once: GPT is one", () => {
  for (const { parameters, heads, normFirst, x } of cases.stacks) {
    const encoding = parametersOf(parameters.encoder);
    const style = { heads, normFirst };
    const whole = encoder(x, encoding, style, { mask: causalMask(x.length) });
    let caches;
    x.forEach((row, t) => {
      const step = encoder([row], encoding, style, { caches });
      close(step.output, [whole.output[t]], 1e-9);
      caches = step.caches;
    });
  }
});

test("a cache is not changed by the step that uses it", () => {
  const { parameters, heads, y, encoded } = cases.stacks.find((one) => one.y.length > 1);
  const decoding = parametersOf(parameters.decoder);
  const memory = memories(encoded, decoding);
  const { caches } = decoder([y[0]], memory, decoding, { heads });
  decoder([y[1]], memory, decoding, { heads }, { caches });
  assert.deepEqual(caches.map(({ k, v }) => [k.length, v.length]), caches.map(() => [1, 1]));
});

test("a decoder's mask replaces the causal one", () => {
  const { parameters, heads, y, encoded } = cases.stacks.find((one) => one.y.length > 3);
  const decoding = parametersOf(parameters.decoder);
  const memory = memories(encoded, decoding);
  const mask = bothMasks(causalMask(y.length), paddingMask(y.map((_, t) => t), 1));
  const { output, layers } = decoder(y, memory, decoding, { heads }, { mask });
  const blind = decoder(y.map((row, t) => (t === 1 ? row.map(() => 9) : row)), memory, decoding, { heads }, { mask });
  close(blind.output.filter((_, t) => t !== 1), output.filter((_, t) => t !== 1), 1e-12);
  assert.ok(layers[0].weights.every((head) => head[3][1] === 0 && head[3][0] > 0 && head[0][1] === 0));
  const [layer] = Object.values(decoding.layers);
  const one = decoderLayer(y, memory[0], layer, { heads }, { mask });
  close(one.weights, layers[0].weights, 1e-12);
});

test("without a style, layers are the paper's: norm after, relu", () => {
  for (const { parameters, heads, normFirst, activation, x, real, encoded } of cases.stacks) {
    if (normFirst || activation !== "relu") continue;
    close(encoder(x, parametersOf(parameters.encoder), { heads }, { mask: real }).output, encoded);
  }
});

test("the style's norm serves the last norm too", () => {
  const { parameters, heads, x, real } = cases.stacks.find((one) => one.normFirst && one.x.length > 1);
  const encoding = parametersOf(parameters.encoder);
  const style = { heads, normFirst: true, norm: (rows, layer) => layerNorm(rows, layer, 10) };
  const { output, layers } = encoder(x, encoding, style, { mask: real });
  close(output, layerNorm(layers.at(-1).output, encoding.norm, 10), 1e-12);
});

test("gated feed-forward equals SwiGLU", () => {
  for (const { parameters, x, output } of cases.gated) close(feedForward(x, decodeTensors(parameters), silu), output);
});

test("a layer with rotary positions, RMS norm and SwiGLU equals PyTorch's, at once and token by token", () => {
  for (const { parameters, heads, x, output } of cases.rotary) {
    const layer = decodeTensors(parameters);
    const style = { heads, normFirst: true, norm: rmsNorm, activation: silu, rotary: rotate };
    close(encoderLayer(x, layer, style, { mask: causalMask(x.length) }).output, output);
    let caches;
    x.forEach((row, t) => {
      const step = encoder([row], { layers: { 0: layer } }, style, { caches });
      close(step.output, [output[t]]);
      caches = step.caches;
    });
  }
});

test("keys and values once, asked many times, are multi-head attention", () => {
  const { parameters, heads, x, context } = cases.multiHead.at(-1);
  const layer = decodeTensors(parameters);
  const seen = keysAndValues(context, layer, { heads });
  x.forEach((row) => {
    const { output, weights } = ask([row], seen, layer, { heads });
    close(output, multiHeadAttention([row], context, layer, { heads }).output, 1e-12);
    close(weights.map((head) => head[0].reduce((a, b) => a + b)), weights.map(() => 1), 1e-12);
  });
});

/** Layers whose output projection no longer hears some of their heads: `of(l)` names them. */
function deaf(stack, part, heads, of) {
  const silence = (weight, off) => weight.map((row) => Array.from(row, (w, column) =>
    (off.includes(Math.floor(column / (row.length / heads))) ? 0 : w)));
  const layers = Object.values(stack.layers).map((layer, l) => {
    const { out_proj, ...rest } = layer[part];
    return { ...layer, [part]: { ...rest, out_proj: { ...out_proj, weight: silence(out_proj.weight, of(l)) } } };
  });
  return { ...stack, layers };
}

test("a head that is off gives zeros, in its layer only, and its weights stay to be seen", () => {
  for (const { parameters, heads, normFirst, x, y, real } of cases.stacks) {
    if (heads < 2 || y.length < 2) continue;
    const [encoding, decoding] = [parametersOf(parameters.encoder), parametersOf(parameters.decoder)];
    const [style, count] = [{ heads, normFirst }, Object.keys(encoding.layers).length];
    const lists = (...off) => Array.from({ length: count }, (_, l) => (l === 1 ? off : []));
    const [one, two] = [lists(0), lists(1, heads - 1)];

    const all = encoder(x, encoding, style, { mask: real });
    const some = encoder(x, encoding, style, { mask: real, off: one });
    const deafened = deaf(encoding, "self_attention", heads, (l) => one[l]);
    close(some.output, encoder(x, deafened, style, { mask: real }).output, 1e-9);
    assert.notDeepEqual(some.output, all.output);
    assert.deepEqual(some.layers[1].weights, all.layers[1].weights);

    const memory = memories(all.output, decoding);
    const options = { memoryMask: real };
    const silent = decoder(y, memory, decoding, style, { ...options, off: one, crossOff: two });
    const ownDeaf = deaf(decoding, "self_attention", heads, (l) => one[l]);
    const bothDeaf = deaf(ownDeaf, "cross_attention", heads, (l) => two[l]);
    close(silent.output, decoder(y, memory, bothDeaf, style, options).output, 1e-9);
    close(decoder(y, memory, decoding, style, { ...options, off: one }).output,
      decoder(y, memory, ownDeaf, style, options).output, 1e-9);
  }
});

test("a head that is not there cannot be switched off", () => {
  const rows = [[1, 2], [3, 4]];
  assert.deepEqual(headedAttention(rows, rows, rows, 2, null, null, [0, 1]).output, [[0, 0], [0, 0]]);
  const without = (head) => headedAttention(rows, rows, rows, 2, null, null, [head]);
  for (const head of [2, -1, 0.5, "0"]) assert.throws(() => without(head), /off must hold heads from 0 to 1, got/);
});
