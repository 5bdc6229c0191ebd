import assert from "node:assert/strict";
import test from "node:test";
import { attend, hull, tasks } from "../../transformer_lab/widgets/attention_qkv.js";
import { cases, close } from "./cases.mjs";

test("weights and output equal PyTorch's, whatever the scores are divided by", () => {
  for (const { state, weights, output } of cases.queries) {
    close(attend(state).weights, weights, 1e-9);
    close(attend(state).output, output, 1e-9);
  }
});

test("the shape around the values has its corners in order, and nothing inside", () => {
  const square = [[1, 1], [-1, -1], [0, 0.5], [1, -1], [-1, 1]];
  assert.deepEqual(hull(square), [[-1, -1], [1, -1], [1, 1], [-1, 1]]);
  assert.deepEqual(hull([[2, 2], [0, 0], [1, 1]]), [[0, 0], [2, 2]]); // all in one line
});

test("each task is open at the start, and done by what it asks for", () => {
  const start = cases.widget;
  const judge = (state) => tasks(start.tokens).map(({ done }) => done({ ...state, ...attend(state) }));
  assert.deepEqual(judge(start), [false, false, false, false]);

  const turned = { ...start, q: start.k[1] };
  assert.equal(judge(turned)[0], true);
  const long = { ...start, q: start.k[1].map((x) => x * 3 / Math.max(...start.k[1])) };
  assert.deepEqual(judge(long), [true, true, false, true]);
  const flat = { ...long, divisor: 8 };
  assert.equal(judge(flat)[2], true);
});

test("the tasks speak of the widget's own words", () => {
  assert.match(tasks(["a", "bee"])[0].goal, /“bee”/);
});
