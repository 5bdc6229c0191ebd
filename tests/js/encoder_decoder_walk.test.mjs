import assert from "node:assert/strict";
import test from "node:test";
import { MAP_PARTS, planMap } from "../../transformer_lab/widgets/architecture_map.js";
import { lengthOf, percent } from "../../transformer_lab/widgets/number_strips.js";
import { boxOf, headOf, placeOf, stationNames } from "../../transformer_lab/widgets/walk_stations.js";
import { writtenSaid, zeroShare } from "../../transformer_lab/widgets/walk_words.js";

const SIDES = ["encoder", "decoder"];

test("each station has its box on the map, and each box a station", () => {
  for (const nLayers of [1, 2, 6]) {
    const { boxes } = planMap(nLayers);
    for (const side of SIDES) {
      const drawn = boxes.filter((box) => box.side === side && box.id !== "position sum").map(({ id }) => id);
      assert.deepEqual(new Set(stationNames(side, nLayers).map(boxOf)), new Set(drawn));
      assert.equal(drawn.length, new Set(drawn).size);
    }
  }
});

test("the map shows norms in front of each part, one more at each end, and sums after each part", () => {
  const { boxes, frames } = planMap(2);
  const count = (side, pattern) => boxes.filter((box) => box.side === side && pattern.test(box.id)).length;
  assert.deepEqual(SIDES.map((side) => count(side, /layer 1 .* norm$/)), [2, 3]);
  assert.deepEqual(SIDES.map((side) => count(side, /layer 1 .* sum$/)), [2, 3]);
  assert.deepEqual(SIDES.map((side) => count(side, /final norm/)), [1, 1]);
  assert.equal(frames.length, 4);
  const height = (side, id) => boxes.find((box) => box.side === side && box.id === id).y;
  for (const side of SIDES)
    for (const part of MAP_PARTS[side])
      assert.ok(height(side, `layer 2 ${part} norm`) > height(side, `layer 2 ${part}`)); // y goes down
  assert.ok(height("decoder", "probabilities") < height("decoder", "final norm"));
});

test("no two boxes of the map overlap, and all of them lie on it", () => {
  for (const nLayers of [1, 2, 6]) {
    const { boxes, height } = planMap(nLayers);
    for (const a of boxes) {
      assert.ok(a.x >= 0 && a.x + a.width <= 300 && a.y >= 0 && a.y + a.height <= height);
      for (const b of boxes) {
        const beside = a.x + a.width <= b.x || b.x + b.width <= a.x;
        const above = a.y + a.height <= b.y || b.y + b.height <= a.y;
        assert.ok(a === b || beside || above, `${a.side} ${a.id} lies on ${b.side} ${b.id}`);
      }
    }
  }
});

test("the memory goes to the cross-attention of every layer", () => {
  const { boxes, memory } = planMap(3);
  const asked = boxes.filter(({ id }) => id.endsWith("cross-attention"));
  const ends = memory.map((line) => line.at(-1));
  assert.deepEqual(ends, asked.map(({ x, y, height }) => [x, y + height / 2]));
  assert.ok(memory.every(([[x, y]]) => x === memory[0][0][0] && y === memory[0][0][1]));
});

test("names of stations are taken apart", () => {
  const place = { layer: 12, part: "cross-attention", stop: "sum" };
  assert.deepEqual(placeOf("layer 12 cross-attention sum"), place);
  assert.deepEqual(placeOf("vocabulary scores"), { layer: 0, part: "", stop: "vocabulary scores" });
  assert.equal(boxOf("layer 1 self-attention weights"), "layer 1 self-attention");
  assert.equal(boxOf("layer 1 feed-forward norm"), "layer 1 feed-forward norm");
  assert.equal(boxOf("final norm"), "final norm");
});

test("a head has its part of the columns", () => {
  assert.deepEqual([0, 1, 2].map((head) => headOf([1, 2, 3, 4, 5, 6], head, 3)), [[1, 2], [3, 4], [5, 6]]);
});

test("small things", () => {
  assert.equal(lengthOf([3, -4]), 5);
  assert.equal(zeroShare([0, 1, 0, -2]), 0.5);
  assert.deepEqual([0, 0.0004, 0.25, 0.9994, 0.99995].map(percent),
    ["below 0.1 %", "below 0.1 %", "25.0 %", "99.94 %", "over 99.99 %"]);
});

test("what the model writes is compared with what is right", () => {
  const said = writtenSaid(["twenty", "one"], "einundzwanzig");
  assert.equal(said, "The model turns “twenty one” into “einundzwanzig”, as it should. ✓");
  assert.match(writtenSaid(["zero"], "sechzehn"), /but right is “null”\. ✗$/);
  assert.equal(writtenSaid(["and"], "drei"), "The model turns “and” into “drei”.");
});
