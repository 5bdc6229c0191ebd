import assert from "node:assert/strict";
import test from "node:test";
import {
  answer, describe, fitted, leastSquares, meanSquaredError, network, resized, terms, XS,
} from "../../transformer_lab/widgets/feed_forward_knots.js";
import { cases, close } from "./cases.mjs";

const tent = { units: [[-2, 1, 1], [0, 1, -2], [2, 1, 1]], offset: 0, target: "bump", nonlinear: true };

test("a unit answers on its side of the knot, and without the nonlinearity everywhere", () => {
  assert.deepEqual([-1, 2].map((x) => answer([0.5, 1], x, true)), [0, 1.5]);
  assert.deepEqual([-1, 2].map((x) => answer([0.5, -1], x, true)), [1.5, 0]);
  assert.deepEqual([-1, 2].map((x) => answer([0.5, -1], x, false)), [1.5, -1.5]);
});

test("three units make a tent", () => {
  assert.deepEqual([-3, -2, -1, 0, 1, 2, 3].map((x) => network(tent, x)), [0, 0, 1, 2, 1, 0, 0]);
});

test("curve and error are what PyTorch finds", () => {
  for (const { state, curve, error } of cases.knots) {
    close(XS.map((x) => network(state, x)), curve, 1e-9);
    close(meanSquaredError(state), error, 1e-9);
  }
});

test("the fitted curve is PyTorch's least-squares curve, also where units are alike", () => {
  for (const { state, best } of cases.knots) {
    const after = { ...state, ...fitted(state) };
    close(XS.map((x) => network(after, x)), best, 1e-6);
    assert.deepEqual(after.units.map(([k, s]) => [k, s]), state.units.map(([k, s]) => [k, s]));
  }
});

test("a column that brings nothing new gets the factor 0", () => {
  close(leastSquares([[1, 1, 1], [0, 1, 2], [2, 4, 6], [0, 0, 0]], [1, 3, 5]), [1, 2, 0, 0], 1e-9);
});

test("new units stand in the widest gap and add nothing; those at the end go first", () => {
  const one = [[-1, 1, 2]];
  const three = resized(one, 3);
  assert.deepEqual(three, [[-1, 1, 2], [1, 1, 0], [-2, 1, 0]]);
  assert.deepEqual(resized(three, 1), one);
  assert.equal(one.length, 1);
});

test("what is said", () => {
  assert.match(describe(tent, 0), /^Mean squared error 0\.141\. Unit 1 bends the curve upwards at x = −2\.00\.$/);
  assert.match(describe(tent, 1), /Unit 2 bends the curve downwards at x = 0\.00\.$/);
  assert.match(describe({ ...tent, units: [[1, 1, 0]] }, 0), /Unit 1 does not bend the curve yet/);
  assert.match(describe({ ...tent, nonlinear: false }, 1), /one straight line\.$/);
  assert.deepEqual(terms({ ...tent, offset: -1, units: [[-2, 1, 1], [0.5, -1, -2]] }),
    ["−1.00", "+ 1.00 relu(x + 2.00)", "− 2.00 relu(0.50 − x)"]);
  assert.deepEqual(terms({ ...tent, units: [[1, 1, 1]], nonlinear: false }), ["0.00", "+ 1.00 (x − 1.00)"]);
});
