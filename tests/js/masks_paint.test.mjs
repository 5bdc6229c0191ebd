import assert from "node:assert/strict";
import test from "node:test";
import {
  between, describeFuture, describeToken, preset, PRESETS, presetOf, reach, route, ways,
} from "../../transformer_lab/widgets/masks_paint.js";
import { cases } from "./cases.mjs";

const { tokens } = cases.masks;

test("the presets are the masks of the package, and are known again", () => {
  for (const { n, masks } of cases.masks.presets) {
    assert.deepEqual(Object.keys(PRESETS), Object.keys(masks));
    for (const [name, mask] of Object.entries(masks)) {
      assert.deepEqual(preset(name, n), mask, name);
      assert.equal(presetOf(mask), name);
      mask[0][n - 1] = !mask[0][n - 1];
      assert.equal(presetOf(mask), null, name);
      mask[0][n - 1] = !mask[0][n - 1];
    }
  }
});

test("what can have reached what is what Python finds, after every number of layers", () => {
  assert.ok(cases.masks.reached.length > 20);
  for (const { mask, after } of cases.masks.reached)
    after.forEach((expected, nLayers) => assert.deepEqual(reach(mask, nLayers), expected));
});

test("every route steps where the mask allows it, in as many steps as there are layers", () => {
  let longest = 0;
  for (const { mask } of cases.masks.reached)
    mask.forEach((_, token) => {
      const found = ways(mask, token);
      found.layers.forEach((layers, source) => {
        const stops = route(found, token, source);
        assert.equal(stops.length, layers === Infinity ? 0 : layers + 1);
        if (!stops.length) return;
        assert.deepEqual([stops[0], stops.at(-1)], [source, token]);
        stops.slice(1).forEach((stop, i) => assert.ok(mask[stop][stops[i]]));
        longest = Math.max(longest, layers);
      });
    });
  assert.equal(longest, 9);
});

test("a fast hand leaves no cell out", () => {
  assert.deepEqual(between([2, 2], [2, 2]), [[2, 2]]);
  assert.deepEqual(between([0, 0], [0, 3]), [[0, 1], [0, 2], [0, 3]]);
  assert.deepEqual(between([3, 1], [0, 0]), [[2, 1], [1, 0], [0, 0]]);
});

test("what is said of a token", () => {
  const window = preset("window 2", 8);
  const say = (nLayers, token, source) => describeToken(tokens, window, nLayers, token, source);
  assert.equal(say(1, 0, -1), "After 1 layer, “the” may depend on “cat” and itself.");
  assert.equal(say(2, 2, -1), "After 2 layers, “sat” may depend on “the”, “cat”, “down”, “a” and itself.");
  assert.equal(say(2, 2, 2), "“sat” always keeps its own: the skip connections carry it through.");
  assert.equal(say(2, 2, 1), "“sat” may attend to “cat”, so it can know it after 1 layer.");
  assert.equal(say(2, 2, 0), "“sat” can know “the” after 2 layers: the → cat → sat.");
  assert.equal(say(2, 7, 0), "“off” cannot know “the” yet: that takes 7 layers.");
  const causal = preset("causal", 8);
  assert.equal(describeToken(tokens, causal, 8, 1, 3), "“cat” can never know “down”, however many layers there are.");
  assert.equal(describeToken(tokens, causal, 8, 0, -1), "After 8 layers, “the” may depend on itself.");
  assert.equal(describeToken(tokens, preset("nothing", 8), 1, 2, -1),
    "“sat” may attend to nothing: its attention gives zeros, and the skip connections keep its own.");
});

test("what is said of the future", () => {
  const mask = preset("causal", 8);
  for (const nLayers of [1, 8]) assert.equal(describeFuture(tokens, mask, nLayers, 2), "No token sees its future.");
  mask[1][3] = true; // one hole ...
  assert.equal(describeFuture(tokens, mask, 1, 2), "The future leaks: “cat” can know “down”.");
  // ... and in the second layer “sat” hears of “down” from “cat”, and “cat” of “sat” from “down”
  assert.equal(describeFuture(tokens, mask, 2, 2), "The future leaks, in 3 places: “sat” can know “down”.");
  assert.equal(describeFuture(tokens, mask, 2, 5), "The future leaks, in 3 places: “cat” can know “down”.");
});
