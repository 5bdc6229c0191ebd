// Trained weights as _asset.py writes them, decoded: a vector becomes a Float32Array, a matrix an array of them.

/**
 * {shape, data: base64 of little-endian float32} -> a vector or a matrix. With `scales`, a float32 for each row,
 * the data are int8; they are multiplied out here, once, so that the arithmetic knows only one kind of weight.
 */
export function decodeTensor({ shape, data, scales }) {
  const flat = scales ? new Int8Array(decodeBytes(data)) : new Float32Array(decodeBytes(data));
  if (shape.length < 2) return flat;
  const [rows, columns] = shape;
  const matrix = Array.from({ length: rows }, (_, r) => flat.subarray(r * columns, (r + 1) * columns));
  if (!scales) return matrix;
  const scale = new Float32Array(decodeBytes(scales));
  return matrix.map((row, r) => Float32Array.from(row, (step) => step * scale[r]));
}

function decodeBytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
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
