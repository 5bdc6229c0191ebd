// FlashAttention's walk over the scores as pure functions: which tiles there are, what each of them changes, and what
// moves between slow and fast memory. The same as transformer_lab.efficient.flash. Letters: T queries, S keys.
import { dot, softmax, weightedSum } from "./runtime.js";

const WIDTH = 2; // of q, k and v, Dh

/** q kᵀ / √Dh, times `scale`: (T, S). What causality hides is -Infinity; the last query stands at the last key. */
export function scoresOf({ q, k, causal, scale }) {
  const first = k.length - q.length; // the position of query 0
  return q.map((query, t) => k.map((key, s) =>
    (causal && s > t + first ? -Infinity : scale * dot(query, key) / Math.sqrt(WIDTH))));
}

/** The output as the formula has it, each row's softmax at once; a query that sees nothing gets 0. */
export function wholeRows(state) {
  return scoresOf(state).map((row) => weightedSum(softmax(row), state.v));
}

/** [from, to) of each block of `size` out of `n`. */
export function blocks(n, size) {
  return Array.from({ length: Math.ceil(n / size) }, (_, i) => [i * size, Math.min((i + 1) * size, n)]);
}

/**
 * The steps: a tile of scores { rows, columns }, and after the last of each block of queries { rows }, its division.
 * `skipped` are the tiles of which no query sees any key.
 */
export function planOf({ q, k, block_q, block_k, causal }) {
  const first = k.length - q.length;
  const [steps, skipped] = [[], []];
  for (const rows of blocks(q.length, block_q)) {
    for (const columns of blocks(k.length, block_k))
      (causal && columns[0] > rows[1] - 1 + first ? skipped : steps).push({ rows, columns });
    steps.push({ rows });
  }
  return { steps, skipped };
}

/**
 * How things stand before the first step and after each: of every query the largest score so far `m`, the sum `l` of
 * exp(score - m), the `output`, and the factor `shrink` by which the step made l and output smaller, or null where it
 * did nothing; numbers `read` from slow memory and `written` to it so far; numbers `held` in fast memory.
 */
export function walk(state) {
  const scores = scoresOf(state);
  const nothing = {
    m: scores.map(() => -Infinity), l: scores.map(() => 0), output: scores.map(() => [0, 0]),
    shrink: scores.map(() => null), read: 0, written: 0, held: 0,
  };
  const done = [nothing];
  for (const step of planOf(state).steps)
    done.push(step.columns ? afterTile(done.at(-1), step, scores, state.v) : afterDivision(done.at(-1), step));
  return done;
}

function afterTile(before, { rows, columns }, scores, v) {
  const [height, width] = [rows, columns].map(([from, to]) => to - from);
  const begins = before.held === 0;
  const after = changed(before, rows, (t) => {
    const tile = scores[t].slice(...columns);
    const m = Math.max(before.m[t], ...tile);
    const shift = m === -Infinity ? 0 : m; // nothing seen yet: every exp below is 0, none is NaN
    const shrink = Math.exp(before.m[t] - shift);
    const weights = tile.map((score) => Math.exp(score - shift));
    const brought = weightedSum(weights, v.slice(...columns));
    return {
      m, shrink, l: shrink * before.l[t] + weights.reduce((a, b) => a + b),
      output: before.output[t].map((x, d) => shrink * x + brought[d]),
    };
  });
  return {
    ...after,
    read: before.read + (begins ? height * WIDTH : 0) + 2 * width * WIDTH, // the queries once, keys and values always
    held: 2 * height * WIDTH + 2 * width * WIDTH + height * width + 2 * height, // q, output; k, v; scores; m, l
  };
}

function afterDivision(before, { rows }) {
  const after = changed(before, rows, (t) => ({
    m: before.m[t], l: before.l[t], shrink: null,
    output: before.output[t].map((x) => x / (before.l[t] || 1)), // only a row that saw nothing has l = 0
  }));
  return { ...after, written: before.written + (rows[1] - rows[0]) * WIDTH, held: 0 };
}

/** What `change(t)` gives for the queries of `rows`; the others stay, and nothing shrinks them. */
function changed(before, [from, to], change) {
  const lists = { m: [...before.m], l: [...before.l], output: [...before.output], shrink: before.m.map(() => null) };
  for (let t = from; t < to; t++)
    for (const [name, value] of Object.entries(change(t))) lists[name][t] = value;
  return { ...before, ...lists };
}

/** Numbers that move with the whole table: scores and weights are written and read again. */
export function wholeTraffic({ q, k }) {
  return 2 * WIDTH * (q.length + k.length) + 4 * q.length * k.length;
}

/** The largest difference of any output from that of whole rows. */
export function differenceFromWhole(state, output) {
  const whole = wholeRows(state);
  return Math.max(...output.flatMap((row, t) => row.map((x, d) => Math.abs(x - whole[t][d]))));
}
