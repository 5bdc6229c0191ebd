import assert from "node:assert/strict";
import test from "node:test";
import { decodeTensor, decodeTensors } from "../../transformer_lab/widgets/tensors.js";
import { cases, close } from "./cases.mjs";

const data = Buffer.from(new Float32Array([1, -2.5, 3, 4, 5, 6]).buffer).toString("base64");

test("tensors arrive in shape", () => {
  const rows = (matrix) => matrix.map((row) => [...row]);
  assert.deepEqual(rows(decodeTensor({ shape: [2, 3], data })), [[1, -2.5, 3], [4, 5, 6]]);
  assert.deepEqual(rows(decodeTensor({ shape: [6, 1], data })), [[1], [-2.5], [3], [4], [5], [6]]);
  assert.deepEqual([...decodeTensor({ shape: [6], data })], [1, -2.5, 3, 4, 5, 6]);
  const { layer } = decodeTensors({ "layer.weight": { shape: [2, 3], data }, "layer.bias": { shape: [6], data } });
  assert.deepEqual([layer.weight.length, layer.bias.length], [2, 6]);
});

test("the names become nested objects, lists in order", () => {
  const tensor = { shape: [6], data };
  const { layers, scale } = decodeTensors({ scale: tensor, "layers.10.bias": tensor, "layers.9.norm.bias": tensor });
  assert.deepEqual(Object.keys(layers), ["9", "10"]);
  assert.deepEqual([layers[9].norm.bias, layers[10].bias, scale].map((vector) => vector.length), [6, 6, 6]);
});

test("int8 rows are multiplied by their scales as in Python, within the bound of the float32 weights", () => {
  for (const { tensor, rounded, exact, bound } of cases.runtime.quantised) {
    const rows = decodeTensor(tensor);
    assert.ok(rows.every((row) => row instanceof Float32Array));
    assert.deepEqual(rows.map((row) => [...row].map((x) => x + 0)), rounded.map((row) => row.map((x) => x + 0)));
    assert.equal(rows.length, exact.length);
    exact.forEach((row, r) => row.forEach((x, c) => {
      assert.ok(Math.abs(rows[r][c] - x) <= bound[r], `${rows[r][c]} is not ${x} to ${bound[r]}`);
    }));
    exact.forEach((row, r) => close(Math.max(...rows[r].map(Math.abs)), Math.max(...row.map(Math.abs)), 1e-6));
  }
});
