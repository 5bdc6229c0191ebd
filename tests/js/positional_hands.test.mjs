import assert from "node:assert/strict";
import test from "node:test";
import { turnRates } from "../../transformer_lab/widgets/dial.js";
import { describeHands, similarity } from "../../transformer_lab/widgets/positional_hands.js";
import { sinusoid } from "../../transformer_lab/widgets/runtime.js";
import { cases, close } from "./cases.mjs";

test("the code and the similarities are the package's", () => {
  for (const { width, codes, similar } of cases.hands) {
    for (const { position, code } of codes) close(sinusoid(position, width), code);
    for (const [one, other, expected] of similar) close(similarity(one, other, width), expected);
  }
});

test("similarity is a mean of cosines: of the offset only, and alike to both sides", () => {
  for (const offset of [1, 7, 24])
    for (const position of [0, 13, 100]) {
      const rates = turnRates(16);
      const mean = rates.reduce((sum, rate) => sum + Math.cos(offset * rate), 0) / rates.length;
      close(similarity(position, position + offset, 16), mean, 1e-9);
      close(similarity(position, position - offset, 16), mean, 1e-9);
    }
});

test("what is said of two positions", () => {
  assert.equal(describeHands(3, 4, 16), "Position 3 (blue) and 7 (orange), 4 later: similarity 0.69.");
  assert.equal(describeHands(9, 0, 4), "Position 9 (blue) and 9 (orange), the same position: similarity 1.00.");
  assert.equal(describeHands(3, -4, 16), "Position 3 (blue) and −1 (orange), 4 earlier: similarity 0.69. "
    + "No text has this position, but the formula goes on.");
});
