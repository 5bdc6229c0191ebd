import assert from "node:assert/strict";
import test from "node:test";
import { briefly, power } from "../../transformer_lab/widgets/line_plot.js";
import { describeStack, fateOfGradient, gradientAxis } from "../../transformer_lab/widgets/norms_depth.js";
import { cases } from "./cases.mjs";

test("numbers of any size are brief", () => {
  const said = [0, 4.4e-16, 0.0099, 0.01, 0.523, 0.9999, 6.01, 17.4, 99.9, 525, 4321, 12345, 2.23e56].map(briefly);
  assert.deepEqual(said, ["0", "4.4 × 10⁻¹⁶", "9.9 × 10⁻³", "0.010", "0.52", "1.0", "6.0", "17", "100", "525", "4321",
    "1.2 × 10⁴", "2.2 × 10⁵⁶"]);
  assert.deepEqual([1e-60, 0.1, 1, 1e23].map(power), ["10⁻⁶⁰", "10⁻¹", "10⁰", "10²³"]);
});

test("every stored gradient has its place on the axis, which has few ticks, all of them powers of ten", () => {
  const { wirings, gradient } = cases.depth;
  for (const wiring of wirings) {
    const { from, to, ticks, log } = gradientAxis(gradient, [wiring, "pre-norm"]);
    const values = Object.values(gradient[wiring]).flat();
    assert.ok(log && values.every((value) => from <= value && value <= to), wiring);
    assert.ok(ticks.length >= 3 && ticks.length <= 5 && ticks.every((tick) => Number.isInteger(Math.log10(tick))));
  }
});

test("a gradient of 0 does not break the axis", () => {
  const { from, ticks } = gradientAxis({ a: { 2: [0, 1e-3] } }, ["a"]);
  assert.deepEqual([from, ticks], [1e-4, [1e-4, 1e-2, 1, 100]]);
});

test("the fate of a gradient is told by comparison", () => {
  assert.equal(fateOfGradient([0.02, 1], [1, 1]), "lives");
  assert.equal(fateOfGradient([0.009, 1], [1, 1]), "dies");
  assert.equal(fateOfGradient([90, 99], [1, 1]), "lives");
  assert.equal(fateOfGradient([1, 101], [1, 1]), "explodes");
});

test("what is said of a stack", () => {
  const reference = [2, 3];
  assert.equal(describeStack([0.9, 0.8], reference, reference, 2),
    "After layer 2 the tokens differ: diversity 0.80. The gradient is alive: 3.0 in layer 2, 2.0 in layer 1.");
  assert.equal(describeStack([0.3, 4e-16], [5, 4], reference, 2), "After layer 2 the tokens are alike: diversity "
    + "4.0 × 10⁻¹⁶. Yet the gradient is alive: 4.0 in layer 2, 5.0 in layer 1, where pre-norm has 2.0.");
  assert.match(describeStack([0.3, 4e-16], [1e-9, 1], reference, 1),
    /^After layer 1 the tokens have much in common.*The gradient dies on its way back: 1\.0 in layer 2, 1\.0 × 10⁻⁹/);
  assert.match(describeStack([0.8, 0.7], [500, 400], reference, 1), /The gradient explodes: 400 in layer 2, 500 in/);
});

test("what the stored runs show with 48 layers", () => {
  const { wirings, gradient, diversity } = cases.depth;
  const fates = wirings.map((wiring) => fateOfGradient(gradient[wiring][48], gradient["pre-norm"][48]));
  assert.deepEqual(Object.fromEntries(wirings.map((wiring, i) => [wiring, fates[i]])), {
    "pre-norm": "lives", "post-norm": "lives", "residual, no norm": "explodes", "norm, no residual": "lives",
    neither: "dies",
  });
  const collapsed = wirings.filter((wiring) => diversity[wiring][48].at(-1) < 0.01);
  assert.deepEqual(collapsed, ["norm, no residual", "neither"]);
});
