import assert from "node:assert/strict";
import test from "node:test";
import {
  describeEnd, describeStep, hold, nearest, statesOf, STEPS, stepsOf, tally, weightsLeft,
} from "../../transformer_lab/widgets/selective_scan_state.js";
import { cases, close } from "./cases.mjs";

const { runs, widget } = cases.scans;
const own = (steps) => ({ ...widget, selective: true, steps: { ...widget.steps, ...steps } });
const KEEPS = { um: 0, er: 0, cat: 5, dog: 0.7 };

test("decay and weight are those of zero_order_hold, also where a step is 0, tiny or huge", () => {
  for (const { steps, rates, decay, weight } of runs)
    rates.forEach((rate, n) => {
      close(steps.map((step) => hold(rate, step).decay), decay[n], 1e-14);
      close(steps.map((step) => hold(rate, step).weight), weight[n], 1e-14);
    });
  assert.deepEqual(hold(-2, 0), { decay: 1, weight: 0 });
  assert.equal(hold(-1, 1e-12).weight / 1e-12, 0.9999999999995); // not lost in rounding
});

test("states are those of scan, and what is left is the gradient of the last", () => {
  assert.ok(runs.length >= 9);
  for (const { steps, rates, x, states, left } of runs)
    rates.forEach((rate, n) => {
      close(statesOf(x, steps, rate), states[n], 1e-13);
      close(weightsLeft(steps, rate), left[n], 1e-13);
    });
});

test("with one step for all, no filler after a word weighs less than the word; with steps of their own it can", () => {
  for (const step of STEPS.slice(1)) {
    const left = weightsLeft(stepsOf({ ...widget, common_step: step }), -1);
    for (let t = 1; t < left.length; t++) assert.ok(left[t] > left[t - 1], `${step}`);
  }
  const { content, filler } = tally(own(KEEPS));
  close(content, [Math.exp(-0.7) * (1 - Math.exp(-5)), 1 - Math.exp(-0.7)], 1e-12);
  assert.equal(filler, 0);
});

test("what is left of a word is counted wherever it stands, in the number that forgets most slowly", () => {
  const state = { ...own({ a: 1, b: 1 }), tokens: ["a", "b", "a"], content: ["a"], rates: [-3, -0.5] };
  const left = weightsLeft([1, 1, 1], -0.5);
  const { content, filler, worst } = tally(state);
  close(content, [left[0] + left[2]], 1e-14);
  close(filler, left[1], 1e-14);
  assert.equal(worst, "b");
});

test("the slider's steps begin at 0 and grow evenly in their logarithm, and each is found again", () => {
  assert.deepEqual(STEPS.slice(0, 8), [0, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1]);
  assert.deepEqual([STEPS.at(-1), STEPS.length], [10, 20]);
  STEPS.forEach((step, place) => assert.equal(nearest(step), place));
  assert.deepEqual([nearest(0.74), nearest(1000)], [STEPS.indexOf(0.7), 19]);
});

test("what is said of a step", () => {
  assert.equal(describeStep(widget),
    "Every token has Δ = 0.3: the slowest number, rate −1, keeps 0.74 of itself and takes in 0.26 of x.");
  assert.equal(describeStep({ ...widget, common_step: 0 }), "Every token has Δ = 0: the state stays 0.");
  assert.equal(describeStep({ ...own({ cat: 0 }), chosen: 1 }),
    "“cat” has Δ = 0: the state stays as it is, as if the token were not there.");
  assert.match(describeStep(own({ cat: 3 })), /keeps 0\.05 of itself and takes in 0\.95 of x\.$/);
  assert.match(describeStep(own({ cat: 10 })), /keeps 0\.00 of itself and takes in 1\.00 of x: all before is forgotten\.$/);
});

test("what is said of the end", () => {
  const verdict = (state) => describeEnd(state).match(/^Left at the end: .*?\d\. (.*)$/)[1];
  assert.equal(describeEnd(widget), "Left at the end: of “cat” 0.02, of “dog” 0.08, of the filler 0.85. "
    + "With one step for all, each token weighs more than the one before.");
  assert.equal(verdict({ ...widget, common_step: 0 }), "Nothing was taken in.");
  assert.equal(verdict(own({ um: 0 })), "What disturbs most is “er”.");
  assert.equal(verdict(own({ ...KEEPS, dog: 10 })), "“cat” is written over by what comes later.");
  assert.equal(verdict(own({ ...KEEPS, dog: 0.1 })), "“dog” hardly gets in.");
  assert.equal(verdict(own(KEEPS)), "What is worth keeping is kept, and hardly anything else.");
});
