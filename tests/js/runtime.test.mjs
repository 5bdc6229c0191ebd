import assert from "node:assert/strict";
import test from "node:test";
import {
  add, argmax, dot, embedding, erf, gelu, geluTanh, layerNorm, linear, matmul, relu, rmsNorm, rotate, silu, sinusoid,
  softmax, weightedSum,
} from "../../transformer_lab/widgets/runtime.js";
import { cases as all, close } from "./cases.mjs";

const cases = all.runtime;

test("softmax equals PyTorch's, where exp would overflow too", () => {
  for (const { scores, weights } of cases.softmax) close(softmax(scores.map(Number)), weights, 1e-12);
});

test("a softmax that has no answer says so", () => {
  for (const scores of [[1, NaN], [NaN, 1], [NaN], [1, Infinity], [Infinity, -Infinity]])
    assert.throws(() => softmax(scores), /scores must be numbers below infinity, got (NaN|Infinity)/);
});

test("norms equal PyTorch's: rows of zeros, of one number, of huge and tiny ones", () => {
  for (const { x, weight, bias, eps, ...expected } of cases.norms) {
    const ones = weight.map(() => 1);
    close(layerNorm(x, { weight: ones }), expected.layer, 1e-9);
    close(layerNorm(x, { weight, bias }, eps), expected.layerAll, 1e-9);
    close(layerNorm(x, { weight }, eps), expected.layerNoBias, 1e-9);
    close(rmsNorm(x, { weight: ones }), expected.rms, 1e-9);
    close(rmsNorm(x, { weight }, eps), expected.rmsAll, 1e-9);
  }
});

test("activations equal PyTorch's", () => {
  const { x, ...expected } = cases.activations;
  for (const [name, f] of Object.entries({ relu, gelu, geluTanh, silu, erf }))
    close(x.map((number) => f(number)), expected[name], 1e-12);
  assert.ok(Number.isNaN(erf(NaN)) && Number.isNaN(gelu(NaN)) && Number.isNaN(relu(NaN)));
  for (const f of [gelu, geluTanh, silu, relu]) assert.equal(f(Infinity), Infinity);
});

test("products equal PyTorch's, whatever kind of row they meet", () => {
  for (const { a, b, weight, bias, ...expected } of cases.products) {
    close(matmul(a, b), expected.product, 1e-12);
    close(linear(a, { weight, bias }), expected.linear, 1e-12);
    close(linear(a, { weight }), expected.linearNoBias, 1e-12);
    const typed = (rows) => rows.map((row) => Float64Array.from(row));
    close(matmul(typed(a), typed(b)), expected.product, 1e-12);
    close(linear(typed(a), { weight: typed(weight), bias: Float64Array.from(bias) }), expected.linear, 1e-12);
    const single = weight.map((row) => Float32Array.from(row));
    close(linear(a, { weight: single, bias }), expected.linear);
  }
});

test("embeddings are looked up, and their table makes logits", () => {
  for (const { table, ids, x, logits } of cases.embeddings) {
    close(embedding(ids, { weight: table }), x, 0);
    close(linear(embedding(Int32Array.from(ids), { weight: table }), { weight: table }), logits, 1e-12);
  }
});

test("an embedding is a copy", () => {
  const weight = [Float32Array.of(1, 2)];
  const [row] = embedding([0], { weight });
  row[0] = 7;
  assert.deepEqual([...weight[0]], [1, 2]);
});

test("positions equal angles and complex products", () => {
  for (const { position, base, row, ...expected } of cases.positions) {
    close(sinusoid(position, row.length, base), expected.sinusoid, 1e-9);
    close(rotate(row, position, { base }), expected.half, 1e-9);
    close(rotate(row, position, { base, layout: "half" }), expected.half, 1e-9);
    close(rotate(row, position, { base, layout: "interleaved" }), expected.interleaved, 1e-9);
    if (base !== 10000) continue;
    close(sinusoid(position, row.length), expected.sinusoid, 1e-9);
    close(rotate(row, position), expected.half, 1e-9);
  }
  assert.deepEqual(sinusoid(0, 3), [0, 1, 0]);
});

test("small parts by hand, as plain arrays", () => {
  assert.equal(dot([1, 2], [3, 4]), 11);
  assert.deepEqual(weightedSum([0.5, 0.25], [[2, 4], [8, 0]]), [3, 2]);
  assert.deepEqual(matmul([[1, 2]], [[3, 4], [5, 6]]), [[13, 16]]);
  assert.deepEqual(add([[1, 2]], [[10, 20]]), [[11, 22]]);
  assert.deepEqual(linear([[1, 2]], { weight: [[1, 0], [0, 1], [1, 1]], bias: [0, 1, 2] }), [[1, 3, 5]]);
  assert.deepEqual([argmax([3, 7, 7]), argmax(Float32Array.of(-5, -2)), argmax([-Infinity])], [1, 1, 0]);
  const row = Float32Array.of(0.5, 0.5);
  const one = { weight: [1, 1], bias: [0, 0] };
  for (const plain of [softmax(row), add([row], [row])[0], embedding([0], { weight: [row] })[0], rotate(row, 1),
    layerNorm([row], one)[0], rmsNorm([row], one)[0], linear([row], { weight: [row] })[0], weightedSum([1], [row])])
    assert.ok(Array.isArray(plain));
});

test("what does not fit is refused, not NaN", () => {
  const message = /rows must be equally long, got \d and \d/;
  assert.throws(() => dot([1, 2], [1]), message);
  assert.throws(() => dot([1], [1, 2]), message);
  assert.throws(() => weightedSum([1], [[1], [2]]), message);
  assert.throws(() => matmul([[1, 2]], [[1, 2]]), message);
  assert.throws(() => add([[1, 2]], [[1, 2], [3, 4]]), message);
  assert.throws(() => add([[1, 2]], [[1]]), message);
  assert.throws(() => linear([[1, 2]], { weight: [[1]] }), message);
  for (const id of [2, -1, 0.5, undefined])
    assert.throws(() => embedding([id], { weight: [[1], [2]] }), /ids must be whole numbers from 0 to 1, got/);
});
