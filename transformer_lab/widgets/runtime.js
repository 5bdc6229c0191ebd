// The Transformer's arithmetic in plain JavaScript: pure functions, no dependencies.
// A matrix is an array of rows; rows are arrays of numbers. Checked against PyTorch in tests/js.

/** exp(s) / sum of exp, shifted by the maximum so that it cannot overflow. */
export function softmax(scores) {
  const top = Math.max(...scores);
  const e = scores.map((s) => Math.exp(s - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The average of the rows of `values`, each counted with its weight. */
export function weightedSum(weights, values) {
  const sum = new Array(values[0].length).fill(0);
  values.forEach((value, s) => value.forEach((x, d) => { sum[d] += weights[s] * x; }));
  return sum;
}

/** a + b, row by row. */
export function add(a, b) {
  return a.map((row, i) => row.map((x, j) => x + b[i][j]));
}

/** x Wᵀ + b, with the weight as PyTorch stores it: a row per output. */
export function linear(x, { weight, bias }) {
  return x.map((row) => weight.map((w, o) => dot(row, w) + bias[o]));
}

/** softmax(q kᵀ / √d_k) v for one head: q (T, Dh), k and v (S, Dh) -> output (T, Dh), weights (T, S). */
export function attention(q, k, v) {
  const scale = 1 / Math.sqrt(q[0].length);
  const weights = q.map((query) => softmax(k.map((key) => dot(query, key) * scale)));
  return { output: weights.map((row) => weightedSum(row, v)), weights };
}

/** The same for `heads` heads, each in its slice of the columns; weights (H, T, S), outputs side by side. */
export function headedAttention(q, k, v, heads) {
  const width = q[0].length / heads;
  const head = (rows, h) => rows.map((row) => row.slice(h * width, (h + 1) * width));
  const each = Array.from({ length: heads }, (_, h) => attention(head(q, h), head(k, h), head(v, h)));
  const output = q.map((_, t) => each.flatMap((one) => one.output[t]));
  return { output, weights: each.map((one) => one.weights) };
}

/** Multi-head attention with its four projections: x asks, context answers. */
export function multiHeadAttention(x, context, heads, { q_proj, k_proj, v_proj, out_proj }) {
  const { output, weights } = headedAttention(
    linear(x, q_proj), linear(context, k_proj), linear(context, v_proj), heads);
  return { output: linear(output, out_proj), weights };
}

/** {shape, data: base64 of little-endian float32} -> a vector or a matrix. */
export function decodeTensor({ shape, data }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const flat = Array.from(new Float32Array(bytes.buffer));
  if (shape.length === 1) return flat;
  const [rows, columns] = shape;
  return Array.from({ length: rows }, (_, r) => flat.slice(r * columns, (r + 1) * columns));
}

/** {"self_attention.q_proj.weight": tensor, ...} -> the same as nested objects of decoded tensors. */
export function decodeTensors(tensors) {
  const tree = {};
  for (const [name, tensor] of Object.entries(tensors)) {
    const path = name.split(".");
    const leaf = path.pop();
    let node = tree;
    for (const part of path) node = node[part] ??= {};
    node[leaf] = decodeTensor(tensor);
  }
  return tree;
}

export function argmax(row) {
  return row.indexOf(Math.max(...row));
}
