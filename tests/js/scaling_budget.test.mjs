import assert from "node:assert/strict";
import test from "node:test";
import { bestDivision, describeDivision, inShort, lossOf } from "../../transformer_lab/widgets/scaling_budget.js";
import { cases } from "./cases.mjs";

const { law, sizes, all } = cases.budgets;
const near = (a, b) => assert.ok(Math.abs(a / b - 1) < 1e-9, `${a} and ${b}`);

test("losses and best divisions are those of Python", () => {
  assert.equal(all.length, 9);
  for (const { exponent, best, lowest, losses } of all) {
    const flops = 10 ** exponent;
    const { n, d } = bestDivision(law, flops);
    near(n, best.n);
    near(d, best.d);
    near(lossOf(law, n, d), lowest);
    sizes.forEach((size, i) => near(lossOf(law, size, flops / 6 / size), losses[i]));
  }
});

test("large numbers in short", () => {
  const said = [7, 450, 1000, 46e6, 999.6e6, 1.82e9, 2e9, 9.96e9, 3e11, 1.4e13, 2.5e15].map(inShort);
  assert.deepEqual(said, ["7", "450", "1 K", "46 M", "1 B", "1.8 B", "2 B", "10 B", "300 B", "14 T", "2,500 T"]);
});

test("what is said of a division", () => {
  assert.equal(describeDivision(law, 21, 1e8), "100 M parameters, 1.7 T tokens, 17 K for each parameter: loss 2.62. "
    + "Too small a model for this budget: the lowest, 2.33, has 1.8 B parameters and 91 B tokens.");
  assert.match(describeDivision(law, 21, 2e9), /^2 B parameters, 83 B tokens, 42 for each parameter: .* As good as it/);
  assert.match(describeDivision(law, 21, 1e11), /0\.017 for each parameter: .* Too large a model for this budget/);
});
