import assert from "node:assert/strict";
import test from "node:test";
import {
  blocks, differenceFromWhole, planOf, scoresOf, walk, wholeRows, wholeTraffic,
} from "../../transformer_lab/widgets/flash_walk.js";
import { describeQuery, describeStep, heldParts, short, tight } from "../../transformer_lab/widgets/flash_tiles.js";
import { cases, close } from "./cases.mjs";

const { widget, walks, traffic } = cases.tiles;
const infinite = (numbers) => numbers.map((x) => (Array.isArray(x) ? infinite(x) : x ?? -Infinity));
const state = (changes) => ({ ...widget, causal: false, scale: 1, ...changes });

/** As `close`, with minus infinity where it belongs. */
function same(actual, expected, tolerance = 1e-12) {
  expected.forEach((x, i) => {
    if (Array.isArray(x)) same(actual[i], x, tolerance);
    else if (x === -Infinity) assert.equal(actual[i], x);
    else close(actual[i], x, tolerance);
  });
  assert.equal(actual.length, expected.length);
}

test("scores are PyTorch's", () => {
  for (const { state, scores } of walks) same(scoresOf(state), infinite(scores));
});

test("after each step a query knows the maximum, the sum and the output of all its keys until then", () => {
  for (const { state, steps } of walks) {
    const [plan, done] = [planOf(state).steps, walk(state)];
    assert.equal(plan.length, steps.length);
    assert.equal(done.length, steps.length + 1);
    plan.forEach(({ rows, columns }, i) => {
      const now = done[i + 1];
      same(now.output.slice(...rows), steps[i].output);
      if (!columns) return;
      same(now.m.slice(...rows), infinite(steps[i].m));
      same(now.l.slice(...rows), steps[i].l);
    });
  }
});

test("a step changes the queries of its tile only, and says by which factor their sums shrank", () => {
  for (const { state } of walks) {
    const done = walk(state);
    planOf(state).steps.forEach(({ rows, columns }, i) => {
      const [before, after] = [done[i], done[i + 1]];
      state.q.forEach((_, t) => {
        const inside = columns && t >= rows[0] && t < rows[1];
        assert.equal(after.shrink[t] === null, !inside);
        if (inside && before.l[t] > 0) close(after.shrink[t], Math.exp(before.m[t] - after.m[t]), 1e-15);
        if (t < rows[0] || t >= rows[1])
          for (const name of ["m", "l", "output"]) assert.deepEqual(after[name][t], before[name][t]);
      });
    });
  }
});

test("the end is what the package's tiles give, and what whole rows give", () => {
  for (const { state, output, logs } of walks) {
    const end = walk(state).at(-1);
    same(end.output, output, 1e-9);
    same(end.m.map((m, t) => m + Math.log(end.l[t])), infinite(logs));
    assert.ok(differenceFromWhole(state, end.output) < 1e-14);
    same(wholeRows(state), output, 1e-9);
  }
});

test("a difference is noticed", () => {
  const { output } = walk(state()).at(-1);
  const other = output.map((row) => [...row]);
  other[3][1] += 0.25;
  close(differenceFromWhole(state(), other), 0.25, 1e-12);
});

test("the tiles cover the table once; skipped are those of which no query sees a key", () => {
  for (const { state } of walks) {
    const { steps, skipped } = planOf(state);
    const scores = scoresOf(state);
    const seen = scores.map((row) => row.map(() => 0));
    const cells = ({ rows, columns }) => scores.slice(...rows).flatMap((row) => row.slice(...columns));
    for (const tile of [...steps.filter(({ columns }) => columns), ...skipped])
      for (let t = tile.rows[0]; t < tile.rows[1]; t++)
        for (let s = tile.columns[0]; s < tile.columns[1]; s++) seen[t][s] += 1;
    assert.ok(seen.flat().every((times) => times === 1));
    for (const tile of skipped) assert.ok(cells(tile).every((score) => score === -Infinity));
    for (const tile of steps.filter(({ columns }) => columns)) assert.ok(cells(tile).some((score) => score > -Infinity));
  }
});

test("the last block is as large as what is left", () => {
  assert.deepEqual(blocks(8, 3), [[0, 3], [3, 6], [6, 8]]);
  assert.deepEqual(blocks(4, 8), [[0, 4]]);
});

test("what moves is what the package counts", () => {
  const rows = (n) => Array.from({ length: n }, () => [0.5, -1]);
  for (const { n, block_q, standard, flash } of traffic) {
    const own = state({ q: rows(n), k: rows(n), v: rows(n), block_q: Math.min(block_q, n), block_k: 3 });
    const { read, written } = walk(own).at(-1);
    assert.equal(read + written, flash);
    assert.equal(written, 2 * n);
    assert.equal(wholeTraffic(own), standard);
  }
});

test("skipped tiles are not read", () => {
  const [all, causal] = [false, true].map((causal) => walk(state({ causal })).at(-1));
  assert.deepEqual([all.read, causal.read, all.written, causal.written], [80, 64, 16, 16]);
});

test("what is held in fast memory is named in full", () => {
  const own = state({ block_q: 3, block_k: 5 });
  const done = walk(own);
  planOf(own).steps.forEach((step, i) => {
    assert.equal(heldParts(step).reduce((sum, [, count]) => sum + count, 0), done[i + 1].held);
  });
  assert.deepEqual(heldParts({ rows: [0, 3], columns: [5, 8] }),
    [["q", 6], ["k", 6], ["v", 6], ["scores", 9], ["m", 3], ["l", 3], ["output", 6]]);
  assert.deepEqual(heldParts(), []);
});

test("numbers are short", () => {
  assert.deepEqual([0.174, -1.296, 412.13, -Infinity, -0.001, 0].map((x) => short(x)),
    ["0.17", "−1.30", "412.1", "−∞", "0.00", "0.00"]);
  assert.deepEqual([4.9e-40, 0.004, 0.4, 0].map((x) => short(x, true)), ["4.9 × 10⁻⁴⁰", "4.0 × 10⁻³", "0.40", "0.00"]);
  assert.deepEqual([-1.26, -0.04, 9.94, 9.96, -412.4].map(tight), ["−1.3", "0.0", "9.9", "10", "−412"]);
});

test("what is said of the steps", () => {
  const said = (step, changes) => describeStep(planOf(state(changes)), step, 2.2e-16);
  assert.equal(said(0), "Nothing is done yet: q, k and v lie in slow memory, and fast memory is empty.");
  assert.equal(said(3), "Step 3 of 10: queries 1 to 4 meet keys 5 and 6.");
  assert.equal(said(1, { block_q: 1, block_k: 1 }), "Step 1 of 72: query 1 meets key 1.");
  assert.equal(said(5),
    "Step 5 of 10: queries 1 to 4 have met all their keys, their outputs are divided by l and written.");
  assert.equal(said(9, { block_q: 1, block_k: 1 }),
    "Step 9 of 72: query 1 has met all its keys, its output is divided by l and written.");
  assert.match(said(10), /written\. No output differs from that of whole rows by more than 2\.2 × 10⁻¹⁶\.$/);
  assert.match(said(8, { causal: true }), /written\. 2 tiles were skipped\. No output/);
  assert.match(said(5, { causal: true, block_k: 4 }), /written\. One tile was skipped\. No output/);
});

test("what is said of a query can be checked by hand", () => {
  const said = (t, step, changes) => {
    const own = state(changes);
    return describeQuery(t, planOf(own), step, scoresOf(own), walk(own));
  };
  assert.equal(said(0, 0), "Query 1 waits: m = −∞, l = 0 and the output is 0.");
  assert.equal(said(0, 1), "Query 1: the largest score is m = 0.17, and l = 1.00 + 0.33 = 1.33.");
  assert.equal(said(0, 1, { block_k: 1 }), "Query 1: the largest score is m = 0.17, and l = 1.00.");
  assert.equal(said(0, 1, { block_k: 8 }), "Query 1: the largest score is m = 1.64, and l = 2.88.");
  assert.equal(said(0, 2), "Query 1: m rises from 0.17 to 1.07, so l and output shrink by e^(0.17 − 1.07) = 0.40; "
    + "l = 0.40 × 1.33 + 1.00 + 0.82 = 2.36.");
  assert.equal(said(1, 2, { block_q: 2 }), "Query 2: m rises from 1.00 to 1.03, so l and output shrink by "
    + "e^(1.00 − 1.03) = 0.97; l = 0.97 × 1.11 + 1.00 + 0.15 = 2.22.");
  assert.match(said(4, 2, { block_q: 8, block_k: 1 }), /^Query 5: m rises from −0.14 to 1.00, .* e\^\(−0.14 − 1.00\)/);
  assert.match(said(3, 2, { scale: 0.5 }), /^Query 4: m rises from −0.04 to 0.95/);
  assert.match(said(2, 2), /^Query 3: no score is above m = 0\.81, so nothing shrinks; l = 1\.27 \+ 0\.18 \+ 0\.\d\d = /);
  assert.equal(said(4, 1), "Query 5 waits: m = −∞, l = 0 and the output is 0.");
  assert.match(said(0, 5), /^Query 1: \(1\.79, 1\.75\) ÷ 2\.88 = \(0\.62, 0\.61\)\.$/);
  assert.equal(said(0, 6), "Query 1 is done: its output (0.62, 0.61) lies in slow memory.");
  assert.equal(said(0, 2, { causal: true }), "Query 1 sees none of these keys: nothing changes.");
  assert.match(said(0, 4, { scale: 100 }), /nothing shrinks; .* Without m, e\^164\.0 would be infinite in float32\.$/);
  const few = { causal: true, k: widget.k.slice(0, 4), v: widget.v.slice(0, 4), block_q: 2 };
  assert.equal(said(0, 1, few), "Query 1 sees no key: its output stays 0.");
});

test("below zero, what is taken away stands in brackets", () => {
  const own = state({ q: [[1, 0], [1, 0]], k: [[-3, 0], [-1, 0]], v: [[1, 0], [0, 1]], block_q: 1, block_k: 1 });
  assert.match(describeQuery(0, planOf(own), 2, scoresOf(own), walk(own)),
    /m rises from −2\.12 to −0\.71, so l and output shrink by e\^\(−2\.12 − \(−0\.71\)\) = 0\.24;/);
});
