import assert from "node:assert/strict";
import test from "node:test";
import {
  afterEarlierCopies, best, decodeModel, describeHead, describeLook, describeNext, inductionScore, previousScore,
  readLetters, tokenize,
} from "../../transformer_lab/widgets/induction_heads.js";
import { cases, close } from "./cases.mjs";

const models = cases.induction.map(({ asset, reads }) => ({ model: decodeModel(asset), reads }));

test("answers and weights equal PyTorch's, with and without heads: trained, fresh and extreme weights", () => {
  for (const { model, reads } of models) {
    for (const expected of reads) {
      const ours = readLetters(model, expected.tokens, expected.off);
      close(ours.weights, expected.weights);
      close(ours.probabilities, expected.probabilities);
    }
  }
});

test("no list of heads and empty lists are the whole model", () => {
  const [{ model, reads }] = models;
  close(readLetters(model, reads[0].tokens).probabilities, reads[0].probabilities);
});

test("the scores of every head equal the package's", () => {
  for (const { reads } of models) {
    for (const { weights, tokens, previous, induction } of reads) {
      weights.forEach((heads, l) => heads.forEach((w, h) => {
        if (previous) close(previousScore(w), previous[l][h], 1e-6);
        else assert.equal(previousScore(w), null);
        if (induction) close(inductionScore(w, tokens), induction[l][h], 1e-6);
        else assert.equal(inductionScore(w, tokens), null);
      }));
    }
  }
});

test("behind an earlier copy: one place further, and up to the letter itself", () => {
  assert.deepEqual(afterEarlierCopies([0, 1, 2, 0], 3), [1]);
  assert.deepEqual(afterEarlierCopies([4, 4], 1), [1]);
  assert.deepEqual(afterEarlierCopies([4, 4], 0), []);
  assert.deepEqual(afterEarlierCopies([7, 1, 7, 2, 7], 4), [1, 3]);
});

test("the trained model copies, and what the widget says to try holds", () => {
  const [{ model }] = models;
  const tokens = tokenize("shortenshort", model.vocabulary, 24);
  const last = (off) => best(readLetters(model, tokens, off).probabilities.at(-1), 1)[0];
  const e = model.vocabulary.indexOf("e");
  const [whole, one, other] = [last([]), last([[], [0]]), last([[], [1]])];
  for (const [id, p] of [whole, one, other]) assert.ok(id === e && p > 0.5);
  assert.ok(whole[1] > one[1] && whole[1] > other[1]);
  assert.notEqual(last([[], [0, 1]])[0], e);
  assert.notEqual(last([[0], []])[0], e);
  assert.equal(last([[1], []])[0], e);
});

test("text becomes ids, and what cannot be read is refused in one sentence that names it", () => {
  const [{ model: { vocabulary } }] = models;
  assert.deepEqual(tokenize(" Ab c6 ", vocabulary, 24), [0, 1, 2, 31]);
  for (const [text, named] of [["", /no letter/], ["ab7", /“7”/], ["aé", /“é”/], ["ab".repeat(13), /26 .* at most 24/]])
    assert.throws(() => tokenize(text, vocabulary, 24), ({ message }) => named.test(message) && /^[^.]+\.$/.test(message));
});

test("the best come first, the first of equals before the others", () => {
  assert.deepEqual(best([0.1, 0.6, 0.1, 0.2], 3), [[1, 0.6], [3, 0.2], [0, 0.1]]);
});

test("the sentences say what is shown", () => {
  const weights = [[1, 0, 0], [0.75, 0.25, 0], [0.1, 0.65, 0.25]];
  assert.equal(describeHead("1.0", weights, [5, 7, 5]), "Head 1.0 on this text: on average 0.70 of its weight goes to "
    + "the letter before; 0.65 to letters that followed an earlier copy (induction).");
  assert.match(describeHead("0.1", weights, [5, 7, 8]), /no letter comes twice, so there is no induction score\.$/);
  assert.equal(describeHead("0.0", [[1]], [3]), "Head 0.0 has one letter to look at.");
  const letters = ["a", "b", "a"];
  assert.equal(describeLook("1.0", letters, weights[2], 2, -1),
    "In head 1.0, “a” at place 3 looks most at “b” at place 2 (0.65).");
  assert.equal(describeLook("1.0", letters, weights[2], 2, 0),
    "In head 1.0, “a” at place 3 gives “a” at place 1 a weight of 0.10.");
  assert.equal(describeNext("t", ["e", 0.992], ["e", 0.992], []), "After “t” the model says “e” (0.99).");
  assert.equal(describeNext("t", ["k", 0.1], ["e", 0.992], ["1.0", "1.1"]),
    "Without heads 1.0, 1.1, the model says “k” (0.10) after “t”; with all heads “e” (0.99).");
  assert.match(describeNext("t", ["k", 0.1], ["e", 0.992], ["0.0"]), /^Without head 0\.0, /);
});
