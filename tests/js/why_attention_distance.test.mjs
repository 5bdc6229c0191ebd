import assert from "node:assert/strict";
import test from "node:test";
import {
  describeFading, describeRatios, placeOf, shares,
} from "../../transformer_lab/widgets/why_attention_distance.js";
import { cases } from "./cases.mjs";

const runs = {
  distances: { 8: [1, 2, 4, 7] },
  gradient: {
    attention: { 8: [0.5, 0.25, 0.5, 0.4] }, LSTM: { 8: [1, 0.01, 1e-3, 1e-7] }, "tanh RNN": { 8: [2, 1e-4, 1e-9, 0] },
  },
};

test("the cursor stays at the next smaller distance where a length does not have its own", () => {
  assert.deepEqual([1, 2, 3, 4, 6, 7, 500, 0].map((d) => placeOf([1, 2, 4, 7], d)), [0, 1, 1, 2, 2, 3, 3, 0]);
});

test("what is left is a share of the gradient at distance 1", () => {
  assert.deepEqual(shares(runs, ["attention", "LSTM"], 8, 1), [0.5, 0.01]);
});

test("what has faded is told from what has not, and each at its own distance", () => {
  const names = ["attention", "LSTM", "tanh RNN"];
  assert.equal(describeFading(runs, names, 8, 1), "At distance 2, compared with distance 1, faded to less than a "
    + "thousandth: tanh RNN. Not so: attention and LSTM.");
  assert.equal(describeFading(runs, names, 8, 3), "At distance 7, compared with distance 1, faded to less than a "
    + "thousandth: LSTM and tanh RNN. Not so: attention.");
  assert.match(describeFading(runs, ["LSTM"], 8, 2), /distance 4.*nothing shown here has faded/); // just a thousandth
  assert.match(describeFading(runs, ["LSTM"], 8, 3), /all that is shown has faded/);
  assert.match(describeFading(runs, names, 8, 0), /^This is the neighbour/);
  assert.match(describeFading(runs, [], 8, 3), /^No line is shown/);
});

test("attention is compared with each other layer that is shown, above as below", () => {
  assert.equal(describeRatios(runs, ["attention", "LSTM", "tanh RNN"], 8, 1),
    "Attention's gradient is here from 25 times that of LSTM to 2500 times that of tanh RNN.");
  assert.equal(describeRatios(runs, ["attention", "LSTM"], 8, 0),
    "Attention's gradient is here 0.50 times that of LSTM.");
  assert.equal(describeRatios(runs, ["attention"], 8, 0), "");
  assert.equal(describeRatios(runs, ["LSTM", "tanh RNN"], 8, 0), "");
});

test("what the stored runs show at distance 63 of 64", () => {
  const { names, distances } = cases.distance;
  const place = placeOf(distances[64], 63);
  const left = shares(cases.distance, names, 64, place);
  assert.deepEqual(names.filter((_, i) => left[i] >= 1e-3), [
    "LSTM, gate open", "convolutions", "attention", "six blocks",
  ]);
});

test("attention's gradient falls by half where the text is twice as long, and others' do not", () => {
  const { lengths, gradient } = cases.distance;
  for (let i = 1; i < lengths.length; i++) {
    const ratio = (name) => gradient[name][lengths[i - 1]][2] / gradient[name][lengths[i]][2];
    assert.ok(Math.abs(ratio("attention") - 2) < 0.5, `${lengths[i]}: ${ratio("attention")}`);
    assert.ok(Math.abs(ratio("tanh RNN") - 1) < 0.2, `${lengths[i]}: ${ratio("tanh RNN")}`);
  }
});
