// Numbers that test_js.py wrote, and how close the widgets must come.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const cases = JSON.parse(readFileSync(process.env.TRANSFORMER_LAB_CASES, "utf8"));

/** Nested arrays of the same shape, equal to `tolerance`, relative to numbers above 1. */
export function close(actual, expected, tolerance = 1e-4) {
  if (!Array.isArray(expected)) {
    const room = tolerance * Math.max(1, Math.abs(expected));
    assert.ok(Math.abs(actual - expected) <= room, `${actual} is not ${expected}`); // NaN fails
    return;
  }
  assert.equal(actual.length, expected.length);
  expected.forEach((part, i) => close(actual[i], part, tolerance));
}
