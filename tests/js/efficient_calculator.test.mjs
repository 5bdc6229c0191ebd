import assert from "node:assert/strict";
import test from "node:test";
import {
  blockOf, cacheNumbers, costs, crossoverOf, kindOf, latentWidths, leastTime, weightsOf, work,
} from "../../transformer_lab/widgets/efficient_costs.js";
import {
  CONTEXTS, describeFlops, describeMemory, describeSizes, describeTime, duration, flopsAxis, grouped, modelOf,
  withKind, withPrefix, withWidth,
} from "../../transformer_lab/widgets/efficient_calculator.js";
import { cases } from "./cases.mjs";

const { models, devices, shared, latent, times } = cases.costs;
const LLAMA = models["LLaMA-2-7B"];
const { H100, T4 } = devices;
const state = (changes) => ({ sizes: LLAMA, latent: false, bytes_per_number: 2, n_tokens: 4096, batch: 1, ...changes });
const sum = (numbers) => numbers.reduce((a, b) => a + b);

test("with keys and values for G heads, FLOPs and moved numbers are the package's", () => {
  for (const { sizes, n_tokens, batch, reading, writing } of shared) {
    assert.deepEqual(work(sizes, false, n_tokens, batch, false), reading);
    assert.deepEqual(work(sizes, false, n_tokens, batch, true), writing);
  }
});

test("caches and the crossover are the package's", () => {
  let seen = 0;
  for (const { sizes, n_tokens, batch, cache_numbers, cache, crossover } of shared) {
    assert.equal(cacheNumbers(sizes, false), cache_numbers);
    assert.equal(costs({ sizes, latent: false, bytes_per_number: 4, n_tokens, batch }, T4).cache, cache);
    if (crossover === null) continue; // fewer keys and values: the projections cost less
    seen += 1;
    assert.equal(crossoverOf(sizes, false), crossover);
  }
  assert.ok(seen >= 8);
});

test("at the crossover the scores cost as much as all the rest, shared keys and latents too", () => {
  for (const sizes of Object.values(models))
    for (const isLatent of [false, true]) {
      const { flops } = work(sizes, isLatent, crossoverOf(sizes, isLatent), 1, false);
      assert.ok(Math.abs(flops[1] / (flops[0] + flops[2]) - 1) < 1e-12);
    }
});

test("latent attention costs the FLOPs that PyTorch counts, and has its weights", () => {
  for (const { sizes, n_tokens, batch, reading, writing, writing_moves, cache_numbers, weights } of latent) {
    const attention = (one) => sum(work(sizes, true, n_tokens, batch, one).flops.slice(0, 2));
    assert.deepEqual([attention(false), attention(true)], [reading, writing]);
    assert.equal(work(sizes, true, n_tokens, batch, true).moved[1], writing_moves);
    assert.equal(cacheNumbers(sizes, true), cache_numbers);
    assert.equal(weightsOf(sizes, true) - weightsOf({ ...sizes, d_ff: 0 }, true),
      (sizes.gated ? 3 : 2) * sizes.d_model * sizes.d_ff);
    assert.equal(weightsOf({ ...sizes, d_ff: 0 }, true), weights);
  }
});

test("a latent that is written out moves keys and values of all heads, and its rotary key for each", () => {
  const sizes = { d_model: 8, d_ff: 1, n_heads: 2, n_kv_heads: 2, n_layers: 1, gated: false };
  assert.deepEqual(latentWidths(sizes), { dc: 16, dr: 2 });
  const { queries, keys, pair } = blockOf(sizes, true, false);
  assert.deepEqual([queries, keys, pair], [(8 + 2 * 2) + 8, (8 + 2 * 2) + 8, 2 * (8 + 2 * 2) + 2 * 8]);
});

test("published models have as many weights as they should, without embeddings and norms", () => {
  const counted = Object.fromEntries(Object.entries(models).map(([name, sizes]) => [name, weightsOf(sizes, false)]));
  assert.equal(counted["LLaMA-2-7B"], 6_738_415_616 - 2 * 32_000 * 4096 - 65 * 4096);
  assert.equal(counted["LLaMA-2-70B"], 68_976_648_192 - 2 * 32_000 * 8192 - 161 * 8192);
  assert.equal(counted["GPT-2 small"], 12 * 12 * 768 ** 2);
  assert.ok(Math.abs(counted["GPT-3"] / 175e9 - 1) < 0.01);
  assert.equal(counted["base, 2017"], 6 * 12 * 512 ** 2);
});

test("the least time is that of the roofline", () => {
  for (const { flops, moved, seconds, bound } of times) {
    const found = leastTime({ flops: [flops], moved: [moved] }, 2, T4);
    assert.ok(Math.abs(Math.max(found.arithmetic, found.memory) / seconds - 1) < 1e-12);
    assert.equal(found.bound, bound);
  }
});

test("reading counts every token, writing one of each text, and a byte less a number is read faster", () => {
  const [two, one] = [2, 1].map((bytes) => costs(state({ bytes_per_number: bytes, batch: 3 }), H100));
  assert.equal(two.writing.memory, 2 * one.writing.memory);
  assert.equal(two.weights, 2 * one.weights);
  assert.ok(one.reading.arithmetic < two.reading.arithmetic);
  assert.equal(two.cache, 3 * 4096 * two.token);
  assert.ok(two.weights + two.room * two.token <= H100.memory);
  assert.ok(two.weights + (two.room + 1) * two.token > H100.memory);
});

test("which way keys and values are kept, and back", () => {
  const heads = (n_heads, n_kv_heads) => ({ ...LLAMA, n_heads, n_kv_heads });
  assert.deepEqual([[32, 32], [32, 8], [32, 1], [1, 1]].map(([h, g]) => kindOf(heads(h, g), false)),
    ["multi-head", "grouped", "multi-query", "multi-head"]);
  assert.equal(kindOf(LLAMA, true), "latent");
  for (const sizes of Object.values(models))
    for (const kind of ["multi-head", "grouped", "multi-query"]) {
      const other = withKind(sizes, kind);
      assert.equal(kindOf(other, false), kind);
      assert.ok(Number.isInteger(other.n_heads / other.n_kv_heads));
      assert.equal(modelOf(models, other), modelOf(models, sizes));
    }
  assert.deepEqual(withKind(models["LLaMA-2-70B"], "grouped"), models["LLaMA-2-70B"]); // as it was published
});

test("another width keeps the width of heads and the proportions", () => {
  assert.deepEqual(withWidth(LLAMA, 8192), { ...LLAMA, d_model: 8192, d_ff: 22016, n_heads: 64, n_kv_heads: 64 });
  assert.deepEqual(withWidth(withWidth(models["LLaMA-2-70B"], 1024), 8192), models["LLaMA-2-70B"]);
  const odd = withWidth({ ...LLAMA, d_model: 1000, n_heads: 10, n_kv_heads: 1 }, 1024);
  assert.deepEqual([odd.n_heads, odd.n_kv_heads], [8, 1]);
  assert.deepEqual(Object.entries(models).map(([, sizes]) => modelOf(models, sizes)), Object.keys(models));
  assert.equal(modelOf(models, withWidth(LLAMA, 8192)), null);
});

test("numbers are brief", () => {
  assert.deepEqual([0, 7, 999.6, 1024, 61.8e12, 2.875e18, 3e24, 4e28].map(withPrefix),
    ["0 ", "7.00 ", "1.00 k", "1.02 k", "61.8 T", "2.88 E", "3.00 Y", "40,000 Y"]);
  assert.deepEqual([3e-9, 15.27e-6, 4.509e-3, 0.9996, 90, 3060, 8e5, 1e9].map(duration),
    ["3.00 ns", "15.3 µs", "4.51 ms", "1.00 s", "90.0 s", "51.0 min", "9.26 days", "31.7 years"]);
  assert.deepEqual([0, 999, 4096, 1048576].map(grouped), ["0", "999", "4,096", "1,048,576"]);
});

test("every curve has its place on the axis, which has few ticks, all of them powers of ten", () => {
  for (const sizes of Object.values(models))
    for (const batch of [1, 1024]) {
      const curves = [0, 1, 2].map((part) => CONTEXTS.map((n) => work(sizes, false, n, batch, false).flops[part]));
      const { from, to, ticks, log, say } = flopsAxis(curves);
      assert.ok(log && curves.flat().every((flops) => from <= flops && flops <= to));
      assert.ok(ticks.length >= 3 && ticks.length <= 5, String(ticks));
      assert.equal(say(61.8e12), "61.8 TFLOP");
    }
});

test("what is said of the arithmetic", () => {
  const said = (changes) => describeFlops(costs(state(changes), H100), state(changes)).replaceAll("\u00a0", " ");
  assert.equal(said({}), "To read 4,096 tokens takes 61.8 TFLOP: 57 % goes into the feed-forward networks, 14 % into the "
    + "scores. The quadratic term rules from n = 6.0 D = 24,704 on.");
  assert.equal(said({ n_tokens: 32768, batch: 2 }), "To read 2 texts of 32,768 tokens takes 1.97 PFLOP. The quadratic "
    + "term rules, as it does from n = 6.0 D = 24,704 on: 57 % goes into the scores.");
  assert.match(said({ sizes: { ...LLAMA, d_ff: 64 }, n_tokens: 128 }),
    /: 97 % goes into the projections, 2 % into the scores\./);
  assert.match(said({ sizes: models["GPT-3"], n_tokens: 128 }), /less than 1 % into the scores/);
});

test("what is said of the memory", () => {
  const said = (changes, device = H100) =>
    describeMemory(costs(state(changes), device), state(changes), device.memory);
  assert.equal(said({}), "The weights take 13 GB, the cache takes 2.15 GB: both fit into the 80 GB of this device. Beside "
    + "the weights there is room for the cache of 127,883 tokens: 31 texts of this length.");
  assert.match(said({ batch: 64 }), /the cache takes 137 GB: too much for the 80 GB .* tokens: 31 of the 64 texts\.$/);
  assert.match(said({ n_tokens: 2 ** 20 }), /127,883 tokens: less than one text of this length\.$/);
  assert.match(said({ n_tokens: 65536 }), /both fit into .*: one text of this length\.$/);
  assert.equal(said({ sizes: models["LLaMA-2-70B"] }, T4), "The weights take 137 GB, more than the 16 GB of this device: "
    + "it takes 9 of them, or fewer bytes per number. The cache comes to 1.34 GB.");
});

test("what is said of the time", () => {
  const said = (changes, device = H100) => describeTime(costs(state(changes), device), state(changes), device.memory);
  assert.equal(said({}), "Reading the context is bound by arithmetic: it takes 62.5 ms or more. Writing one token is bound "
    + "by memory: 4.51 ms or more, at most 222 tokens a second.");
  assert.equal(said({ batch: 64 }), "Reading the context is bound by arithmetic: it takes 4.00 s or more. Writing one token "
    + "of each text is bound by memory: 45.0 ms or more, at most 1,422 tokens a second, all texts together. So it would "
    + "be with enough memory.");
  assert.match(said({ sizes: withKind(LLAMA, "multi-query"), batch: 1024, n_tokens: 128 }), /each text is bound by arithmetic/);
  assert.match(said({ sizes: models["base, 2017"], n_tokens: 128 }), /^Reading the context is bound by memory/);
  assert.match(said({ sizes: models["GPT-3"], bytes_per_number: 4 }, T4), /at most 0\.\d+ tokens a second/);
});

test("what is said of the sizes", () => {
  assert.equal(describeSizes(state({}), H100), "32 heads of width 128, 32 for keys and values; feed-forward width 11,008, "
    + "gated. Published peaks: 990 TFLOP/s, 3.35 TB/s.");
  assert.match(describeSizes(state({ latent: true, bytes_per_number: 4 }), T4),
    /128, a latent of 512 \+ 64 numbers; .* Published peaks: 8\.10 TFLOP\/s, 320 GB\/s\.$/);
});
