import assert from "node:assert/strict";
import test from "node:test";
import {
  add, argmax, attention, decodeTensor, decodeTensors, dot, linear, multiHeadAttention, softmax, weightedSum,
} from "../../transformer_lab/widgets/runtime.js";
import { cases, close } from "./cases.mjs";

test("softmax equals PyTorch's, where exp would overflow too", () => {
  for (const { scores, weights } of cases.softmax) close(softmax(scores), weights, 1e-12);
});

test("attention equals the package's formula: one token, one key, extreme scores", () => {
  for (const { q, k, v, output, weights } of cases.attention) {
    const ours = attention(q, k, v);
    close(ours.output, output, 1e-9);
    close(ours.weights, weights, 1e-9);
  }
});

test("multi-head attention equals the package's, from exported weights", () => {
  for (const { asset, heads, x, context, output, weights } of cases.multiHead) {
    const ours = multiHeadAttention(x, context, heads, decodeTensors(asset.tensors));
    close(ours.output, output);
    close(ours.weights, weights);
  }
});

test("small parts by hand", () => {
  assert.equal(dot([1, 2], [3, 4]), 11);
  assert.deepEqual(weightedSum([0.5, 0.25], [[2, 4], [8, 0]]), [3, 2]);
  assert.deepEqual(add([[1, 2]], [[10, 20]]), [[11, 22]]);
  assert.deepEqual(linear([[1, 2]], { weight: [[1, 0], [0, 1], [1, 1]], bias: [0, 1, 2] }), [[1, 3, 5]]);
  assert.equal(argmax([3, 7, 7]), 1);
});

test("tensors arrive in shape", () => {
  const data = Buffer.from(new Float32Array([1, -2.5, 3, 4, 5, 6]).buffer).toString("base64");
  assert.deepEqual(decodeTensor({ shape: [2, 3], data }), [[1, -2.5, 3], [4, 5, 6]]);
  assert.deepEqual(decodeTensor({ shape: [6], data }), [1, -2.5, 3, 4, 5, 6]);
  const { layer } = decodeTensors({ "layer.weight": { shape: [2, 3], data }, "layer.bias": { shape: [6], data } });
  assert.deepEqual([layer.weight.length, layer.bias.length], [2, 6]);
});
