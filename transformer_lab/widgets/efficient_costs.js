// What a model costs, as pure functions: FLOPs, bytes that move, bytes to keep, and the least time by the roofline.
// The same as transformer_lab.efficient; latent attention as transformer_lab.efficient.caches.LatentAttention.
// Letters: B batch, T queries, S keys, D model width, H heads, G key/value heads, Dh head width, F feed-forward width;
// Dc width of a latent, Dr of its rotary part.

export const PARTS = ["projections", "scores", "feed-forward"];

/** Which of the four ways to keep keys and values. */
export function kindOf({ n_heads, n_kv_heads }, latent) {
  if (latent) return "latent";
  return n_kv_heads === n_heads ? "multi-head" : n_kv_heads === 1 ? "multi-query" : "grouped";
}

/** Dc and Dr for heads of this width, in DeepSeek-V2's proportion (Table 1): 512 and 64 for heads of 128. */
export function latentWidths({ d_model, n_heads }) {
  const width = d_model / n_heads;
  return { dc: 4 * width, dr: Math.floor(width / 2) };
}

/** Numbers that one layer keeps of one token. */
export function cacheNumbers(sizes, latent) {
  const { dc, dr } = latentWidths(sizes);
  return latent ? dc + dr : 2 * sizes.n_kv_heads * sizes.d_model / sizes.n_heads;
}

/**
 * One block as matrix products [numbers in, numbers out, weights] of a token, in projections and feed-forward; and its
 * attention: FLOPs for each pair of query and key, numbers of queries and outputs a token, of keys and values a token.
 * `writing`: a step with a cache, where latents stay latents and the queries go to them.
 */
export function blockOf(sizes, latent, writing) {
  const { d_model: D, n_heads: H, n_kv_heads: G, d_ff: F } = sizes;
  const dense = (from, to) => [from, to, from * to];
  const feedForward = [...(sizes.gated ? [dense(D, F)] : []), dense(D, F), dense(F, D)];
  if (!latent) {
    const kv = G * D / H;
    const projections = [dense(D, D), dense(D, kv), dense(D, kv), dense(D, D)];
    return { projections, feedForward, pair: 4 * D, queries: 2 * D, keys: 2 * kv };
  }
  const { dc, dr } = latentWidths(sizes);
  const own = [dense(D, D + H * dr), dense(D, dc), dense(D, dr), dense(D, D)]; // queries, latent, rotary key, output
  const asked = writing ? H * dc : D; // numbers of all heads, in the width where they meet
  return {
    projections: [...own, ...(writing ? [[D, asked, D * dc], [asked, D, D * dc]] : [dense(dc, D), dense(dc, D)])],
    feedForward, pair: 4 * asked + 2 * H * dr, queries: 2 * asked + H * dr,
    keys: writing ? dc + dr : 2 * D + H * dr,
  };
}

const total = (products, count) => products.reduce((sum, product) => sum + count(product), 0);

/** Weights of all blocks. */
export function weightsOf(sizes, latent) {
  const { projections, feedForward } = blockOf(sizes, latent, false);
  return sizes.n_layers * total([...projections, ...feedForward], ([, , weights]) => weights);
}

/**
 * FLOPs and moved numbers of all blocks, by PARTS, when each of `batch` texts attends to `nTokens` tokens: all of
 * them as they are read, or with `writing` only one new token.
 */
export function work(sizes, latent, nTokens, batch, writing) {
  const block = blockOf(sizes, latent, writing);
  const rows = batch * (writing ? 1 : nTokens);
  const flops = (products) => total(products, ([, , weights]) => 2 * rows * weights);
  const moved = (products) => total(products, ([from, to, weights]) => rows * (from + to) + weights);
  const layers = (numbers) => numbers.map((number) => sizes.n_layers * number);
  return {
    flops: layers([flops(block.projections), rows * nTokens * block.pair, flops(block.feedForward)]),
    moved: layers([
      moved(block.projections), rows * block.queries + batch * nTokens * block.keys, moved(block.feedForward),
    ]),
  };
}

/** The number of tokens from which on the scores cost more FLOPs than all the rest: 2 D + F if nothing is shared. */
export function crossoverOf(sizes, latent) {
  const { projections, feedForward, pair } = blockOf(sizes, latent, false);
  return total([...projections, ...feedForward], ([, , weights]) => 2 * weights) / pair;
}

const summed = (numbers) => numbers.reduce((a, b) => a + b, 0);

/** Seconds at least, by the roofline: for the FLOPs, for the bytes, and which of them is the longer. */
export function leastTime({ flops, moved }, bytesPerNumber, { flops: peaks, bandwidth }) {
  const arithmetic = summed(flops) / peaks[bytesPerNumber];
  const memory = summed(moved) * bytesPerNumber / bandwidth;
  return { arithmetic, memory, bound: arithmetic >= memory ? "arithmetic" : "memory" };
}

/** All that the calculator shows. */
export function costs({ sizes, latent, bytes_per_number: bytes, n_tokens: n, batch }, device) {
  const [reading, writing] = [false, true].map((one) => work(sizes, latent, n, batch, one));
  const weights = weightsOf(sizes, latent) * bytes;
  const token = cacheNumbers(sizes, latent) * sizes.n_layers * bytes; // bytes that a token keeps
  return {
    flops: reading.flops, crossover: crossoverOf(sizes, latent), weights, token, cache: token * n * batch,
    room: Math.floor((device.memory - weights) / token), // tokens beside the weights; below 0 if these do not fit
    reading: leastTime(reading, bytes, device), writing: leastTime(writing, bytes, device),
  };
}
