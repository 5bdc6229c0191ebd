import assert from "node:assert/strict";
import test from "node:test";
import { cividis } from "../../transformer_lab/widgets/parts.js";
import { format } from "../../transformer_lab/widgets/plane.js";
import { cases } from "./cases.mjs";

const channels = (weight) => cividis(weight).fill.match(/\d+/g).map(Number);

test("cividis is matplotlib's", () => {
  cases.cividis.forEach((expected, i) => channels(i / 100).forEach((channel, c) => {
    assert.ok(Math.abs(channel - 255 * expected[c]) < 9, `${i}: ${channel} is not ${255 * expected[c]}`);
  }));
  assert.deepEqual([channels(-1), channels(2)], [channels(0), channels(1)]);
});

test("the ink can be read on every colour", () => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => rgb.map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  for (let weight = 0; weight <= 1; weight += 0.001) {
    const ground = luminance(channels(weight));
    const ink = cividis(weight).ink === "#fff" ? 1 : 0;
    const contrast = (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
    assert.ok(contrast >= 4.5, `${contrast} at ${weight}`);
  }
});

test("numbers as they are printed", () => {
  assert.deepEqual([1.005, -2, -0.001, 0].map((x) => format(x)), ["1.00", "−2.00", "0.00", "0.00"]);
  assert.equal(format(-3, 0), "−3");
});
