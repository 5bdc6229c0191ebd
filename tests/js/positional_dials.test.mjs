import assert from "node:assert/strict";
import test from "node:test";
import { shortWay, slice, tip, turnRates } from "../../transformer_lab/widgets/dial.js";
import {
  asHands, describeDials, moved, pairScores, scoreAxis, scoresAhead, spread,
} from "../../transformer_lab/widgets/positional_dials.js";
import { cases, close } from "./cases.mjs";

test("every pair adds to the score what the package's rotation gives", () => {
  assert.equal(cases.dials.length, 20);
  for (const { state, parts } of cases.dials) close(pairScores(state), parts, 1e-9);
});

test("a hand, turned on its dial, ends where the package's rotation puts it", () => {
  for (const { state: { q, base, q_position }, turned: [row] } of cases.dials) {
    const rates = turnRates(q.length, base);
    asHands(q).forEach(({ angle, length }, i) => {
      const [x, y] = tip(angle + q_position * rates[i], length).map((c) => c / 40);
      close([-y, x], [row[2 * i], row[2 * i + 1]], 1e-9); // the first number up, the second to the right
    });
  }
});

test("the score is one of the distance, and the plot has it", () => {
  const { state } = cases.dials.at(-1);
  const scores = scoresAhead(state);
  const score = (at) => pairScores({ ...state, ...at }).reduce((a, b) => a + b);
  close(scores[12 + 3], score({ q_position: 8, k_position: 5 }), 1e-9);
  close(scores[12 + 3], score({ q_position: 12, k_position: 9 }), 1e-9);
  close(scores[12 - 3], score({ q_position: 5, k_position: 8 }), 1e-9);
  assert.ok(Math.abs(scores[12 + 3] - scores[12 - 3]) > 0.01);
  const { from, to } = scoreAxis(state);
  assert.ok(scores.every((s) => from <= s && s <= to));
});

test("one moves, or both; neither leaves the sequence", () => {
  const apart = { q_position: 8, k_position: 5, together: false };
  const both = { ...apart, together: true };
  assert.deepEqual(moved(apart, "k_position", 11), { q_position: 8, k_position: 11 });
  assert.deepEqual(moved(apart, "q_position", 99), { q_position: 12, k_position: 5 });
  assert.deepEqual(moved(both, "k_position", 8), { q_position: 11, k_position: 8 });
  assert.deepEqual(moved(both, "k_position", 12), { q_position: 12, k_position: 9 });
  assert.deepEqual(moved(both, "q_position", -4), { q_position: 3, k_position: 0 });
});

test("a distance from the plot: the key goes there, the query only if it must", () => {
  assert.deepEqual(spread({ q_position: 8 }, -3), { q_position: 8, k_position: 11 });
  assert.deepEqual(spread({ q_position: 8 }, 11), { q_position: 11, k_position: 0 });
  assert.deepEqual(spread({ q_position: 8 }, -12), { q_position: 0, k_position: 12 });
});

test("dials: up is 0, angles grow clockwise, and the slice is drawn the short way round", () => {
  close([tip(0, 1), tip(Math.PI / 2, 0.5)], [[0, -40], [20, 0]], 1e-9);
  close([shortWay(0, 1), shortWay(1, 0), shortWay(6, 0.5), shortWay(0, 2 * Math.PI + 1)],
    [1, -1, 0.5 - 6 + 2 * Math.PI, 1], 1e-9);
  assert.match(slice(0, 1), / 0 0 1 /);
  assert.match(slice(1, 0), / 0 0 0 /);
  assert.match(slice(6, 0.5), / 0 0 1 /); // through the top
});

test("what is said", () => {
  const state = { q: [1, 0], k: [1, 0], base: 10000, q_position: 8, k_position: 5 };
  const say = (at) => describeDials({ ...state, ...at });
  assert.equal(say({}), "Key at 5, query at 8, 3 after it: the dials add up to a score of −0.99.");
  assert.match(say({ q_position: 5 }), /both at the same place: .* 1\.00\.$/);
  assert.match(say({ q_position: 4 }), /query at 4, 1 before it: .* 0\.54\.$/);
});
