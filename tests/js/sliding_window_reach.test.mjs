import assert from "node:assert/strict";
import test from "node:test";
import {
  allowed, describeReach, describeRow, fieldOf, listed, maskOf, pairsOf,
} from "../../transformer_lab/widgets/sliding_window_reach.js";
import { cases } from "./cases.mjs";

const opening = { n_tokens: 41, window: 4, dilation: 1, n_layers: 3, causal: false, global_tokens: [], token: 20 };
const field = (state) => fieldOf(maskOf(state), state.token);
const say = (more) => describeReach({ ...opening, ...more }, field({ ...opening, ...more }));

test("the mask is what sliding_window_attention lets through, with every pair counted", () => {
  assert.ok(cases.windows.length > 50);
  for (const { state, mask, pairs } of cases.windows) {
    assert.deepEqual(maskOf(state), mask, JSON.stringify(state));
    assert.deepEqual(pairsOf(mask, state.causal), pairs);
  }
});

test("who reaches each token is what Python finds, after every number of layers", () => {
  for (const { state, mask, reached } of cases.windows)
    for (const [nLayers, rows] of Object.entries(reached))
      rows.forEach((row, token) => {
        const found = fieldOf(mask, token);
        assert.deepEqual(found[Math.min(nLayers, found.length - 1)], row, JSON.stringify([state, nLayers, token]));
      });
});

test("it takes as many layers until all are heard, or none are enough", () => {
  let never = 0;
  for (const { state, mask, untilAll } of cases.windows)
    untilAll.forEach((expected, token) => {
      const found = fieldOf(mask, token);
      const whole = state.causal ? token + 1 : state.n_tokens;
      const complete = found.at(-1).filter(Boolean).length === whole;
      assert.equal(complete ? found.length - 1 : null, expected);
      never += expected === null;
    });
  assert.ok(never > 50);
});

test("a window steps by its dilation, to both sides, and global tokens bow to the causal rule", () => {
  const state = { window: 4, dilation: 3, causal: false, global_tokens: [20] };
  const seen = (i, more) => Array.from({ length: 21 }, (_, j) => j).filter((j) => allowed(i, j, { ...state, ...more }));
  assert.deepEqual(seen(8), [2, 5, 8, 11, 14, 20]);
  assert.deepEqual(seen(8, { causal: true }), [2, 5, 8]);
  assert.equal(seen(20).length, 21);
});

test("places in words", () => {
  const range = (from, to, step = 1) =>
    Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);
  assert.equal(listed([7], 1), "7");
  assert.equal(listed([7, 8], 1), "7 and 8");
  assert.equal(listed(range(14, 26), 1), "14 to 26");
  assert.equal(listed(range(8, 32, 2), 2), "8 to 32, every 2nd");
  assert.equal(listed([0, ...range(3, 9)], 1), "0; 3 to 9");
  assert.equal(listed([...range(0, 5), ...range(17, 29, 3), 40], 3), "0 to 5; 17 to 29, every 3rd; 40");
  assert.equal(listed([...range(0, 5), 7, 9], 2), "0 to 5; 7 and 9");
});

test("what is said of the chosen token", () => {
  assert.equal(say({}),
    "After 3 layers token 20 has heard from 13 of 41 tokens: 14 to 26. All 41 reach it after 10 layers.");
  assert.equal(say({ n_layers: 1, token: 0 }),
    "After 1 layer token 0 has heard from 3 of 41 tokens: 0 to 2. All 41 reach it after 20 layers.");
  assert.equal(say({ causal: true }),
    "After 3 layers token 20 has heard from 7 of the 21 up to itself: 14 to 20. All 21 reach it after 10 layers.");
  assert.equal(say({ dilation: 2 }), "After 3 layers token 20 has heard from 13 of 41 tokens: 8 to 32, every 2nd. "
    + "20 tokens never reach it: with dilation 2 the window steps by multiples of 2.");
  assert.equal(say({ dilation: 2, global_tokens: [0] }),
    "After 3 layers token 20 has heard from 41 of 41 tokens: 0 to 40. All 41 reach it after 2 layers.");
  assert.match(say({ dilation: 2, causal: true, token: 2 }), /: 0 and 2\. One token never reaches it: with dilation 2 /);
  assert.equal(say({ causal: true, token: 0 }), "Token 0 can hear from itself only.");
});

test("what is said of its row in the mask", () => {
  const state = { ...opening, dilation: 2, global_tokens: [0] };
  assert.equal(describeRow(state, maskOf(state)[20]),
    "The mask of one layer; its row of token 20 lets through 0; 16 to 24, every 2nd");
});
