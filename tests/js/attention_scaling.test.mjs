import assert from "node:assert/strict";
import test from "node:test";
import {
  describeDraw, drawDots, meanLargest, normals, weightsOf, WIDTHS,
} from "../../transformer_lab/widgets/attention_scaling.js";
import { cases, close } from "./cases.mjs";

const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;

test("normal numbers are normal, and the same for the same seed", () => {
  const [one, same, other] = [normals(3), normals(3), normals(4)];
  const numbers = Array.from({ length: 20000 }, one);
  assert.equal(numbers[0], same());
  assert.notEqual(numbers[0], other());
  close([1, 2, 3, 4].map((p) => mean(numbers.map((x) => x ** p))), [0, 1, 0, 3], 0.08);
  close(mean(numbers.slice(1).map((x, i) => x * numbers[i])), 0, 0.03); // neighbours have nothing to do with each other
});

test("dot products of dₖ numbers have the variance dₖ", () => {
  const draws = [1, 2, 3, 4].flatMap((seed) => drawDots(seed));
  WIDTHS.forEach((width, w) => {
    const squares = draws.flatMap((dots) => Array.from(dots[w], (x) => x * x));
    close(mean(squares) / width, 1, 0.2);
  });
});

test("the largest weight is what PyTorch finds over many more draws", () => {
  const draws = [5, 6, 7, 8].flatMap((seed) => drawDots(seed));
  for (const { d_k, n_keys, divided, expected } of cases.scaling) {
    const w = WIDTHS.indexOf(d_k);
    close(meanLargest(draws, n_keys, divided)[w], expected, 0.05);
    assert.equal(weightsOf(draws[0], w, n_keys, divided).length, n_keys);
  }
});

test("what is said of a draw", () => {
  const [dots, weights] = [[1, -3, 2], [0.3, 0.1, 0.6]];
  assert.equal(describeDraw(dots, weights, 4, false, -1),
    "The largest weight goes to key 3: it has q · k = 2.00, and gets 0.60 of the weight.");
  assert.equal(describeDraw(dots, weights, 4, true, 1), "Key 2 has q · k = −3.00, divided −1.50, and gets 0.10 of the weight.");
});
