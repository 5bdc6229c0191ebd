// The Transformer's arithmetic in plain JavaScript: pure functions, no dependencies.
// A vector is a row of numbers, typed or not; a matrix is an array of rows; what comes out are plain arrays.
// Sums are taken in double precision. Letters: T queries, S keys, D model width, Dh head width, F feed-forward
// width, V vocabulary. Checked against PyTorch in tests/js.

/** exp(s) / sum of exp, shifted by the maximum so that it cannot overflow; nothing but -Infinity gives zeros. */
export function softmax(scores) {
  const top = largest(scores);
  if (!(top < Infinity)) throw new RangeError(`scores must be numbers below infinity, got ${top}`);
  if (top === -Infinity) return Array.from(scores, () => 0);
  const e = Array.from(scores, (s) => Math.exp(s - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

/** The largest number of a row; NaN if one of them is. */
function largest(row) {
  let top = -Infinity;
  for (let i = 0; i < row.length; i++) top = Math.max(top, row[i]);
  return top;
}

/** Where the largest number of a row stands; the first of equals. */
export function argmax(row) {
  return row.indexOf(largest(row));
}

/** a · b of two equally long rows. */
export function dot(a, b) {
  sameLength(a, b);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function sameLength(a, b) {
  if (a.length !== b.length) throw new RangeError(`rows must be equally long, got ${a.length} and ${b.length}`);
}

/** The sum of the rows of `values` (S, D), each counted with its weight (S) -> (D). */
export function weightedSum(weights, values) {
  sameLength(weights, values);
  const sum = new Array(values[0].length).fill(0);
  for (let s = 0; s < values.length; s++) {
    const [weight, value] = [weights[s], values[s]];
    for (let d = 0; d < sum.length; d++) sum[d] += weight * value[d];
  }
  return sum;
}

/** a (T, S) times b (S, D) -> (T, D): each row of the product is a weighted sum of the rows of b. */
export function matmul(a, b) {
  return a.map((row) => weightedSum(row, b));
}

/** a + b, number by number: (T, D) and (T, D). */
export function add(a, b) {
  sameLength(a, b);
  return a.map((row, t) => {
    sameLength(row, b[t]);
    return Array.from(row, (x, d) => x + b[t][d]);
  });
}

/** x Wᵀ + b, with the weight (outputs, D) as PyTorch stores it, a row per output: (T, D) -> (T, outputs). */
export function linear(x, { weight, bias }) {
  return x.map((row) => {
    sameLength(row, weight[0]);
    const input = new Float64Array(row); // always of one kind: that keeps the inner loop fast
    return weight.map((w, o) => {
      let sum = bias ? bias[o] : 0;
      for (let i = 0; i < input.length; i++) sum += input[i] * w[i];
      return sum;
    });
  });
}

/** The rows of the table (V, D) that the ids name: (T) -> (T, D). Its transpose makes logits: linear(x, table). */
export function embedding(ids, { weight }) {
  return Array.from(ids, (id) => {
    if (!weight[id]) throw new RangeError(`ids must be whole numbers from 0 to ${weight.length - 1}, got ${id}`);
    return Array.from(weight[id]);
  });
}

/** Each row moved to mean 0, scaled to variance 1, then stretched and shifted: (T, D) -> (T, D). */
export function layerNorm(x, { weight, bias }, eps = 1e-5) {
  return x.map((row) => {
    const mean = total(row) / row.length;
    const centred = Array.from(row, (number) => number - mean);
    const scale = 1 / Math.sqrt(dot(centred, centred) / row.length + eps);
    return centred.map((number, d) => number * scale * weight[d] + (bias ? bias[d] : 0));
  });
}

/** Each row divided by its root mean square, then stretched: (T, D) -> (T, D). */
export function rmsNorm(x, { weight }, eps = 1e-6) {
  return x.map((row) => {
    const scale = 1 / Math.sqrt(dot(row, row) / row.length + eps);
    return Array.from(row, (number, d) => number * scale * weight[d]);
  });
}

function total(row) {
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += row[i];
  return sum;
}

// Activations, of one number.

export function relu(x) {
  return Math.max(x, 0);
}

/** x times the probability that a normal variable lies below x. */
export function gelu(x) {
  return 0.5 * x * (1 + erf(x / Math.SQRT2));
}

/** GELU by tanh, as GPT-2 has it. */
export function geluTanh(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

/** x times its sigmoid: what SwiGLU's gate goes through. */
export function silu(x) {
  return x / (1 + Math.exp(-x));
}

/** 2/√π e^(-x²) (x + 2x³/3 + 4x⁵/15 + ...): no term has another sign than x, so that nothing cancels. */
export function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x); // to all digits
  let [term, sum] = [x, x];
  for (let n = 3; Math.abs(term) > 1e-17 * Math.abs(sum); n += 2) {
    term *= (2 * x * x) / n;
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

// Positions.

/** The sinusoids that stand for a position: sine and cosine in turn, ever slower -> (D). */
export function sinusoid(position, width, base = 10000) {
  return Array.from({ length: width }, (_, d) => {
    const angle = position / base ** ((d - (d % 2)) / width);
    return d % 2 ? Math.cos(angle) : Math.sin(angle);
  });
}

/**
 * RoPE: one head's row (Dh), its numbers turned in pairs by angles that grow with the position -> (Dh).
 * A pair is number i with i + Dh/2 in the layout "half" (Llama's), or two neighbours in "interleaved" (the paper's).
 */
export function rotate(row, position, { base = 10000, layout = "half" } = {}) {
  const half = row.length / 2;
  const [step, gap] = layout === "half" ? [1, half] : [2, 1];
  const turned = Array.from(row);
  for (let i = 0; i < half; i++) {
    const [angle, a, b] = [position / base ** (i / half), i * step, i * step + gap];
    turned[a] = row[a] * Math.cos(angle) - row[b] * Math.sin(angle);
    turned[b] = row[a] * Math.sin(angle) + row[b] * Math.cos(angle);
  }
  return turned;
}
