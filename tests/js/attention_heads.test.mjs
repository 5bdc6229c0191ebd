import assert from "node:assert/strict";
import test from "node:test";
import {
  compare, decodeModel, describe, numberOf, readNumber, tokenize,
} from "../../transformer_lab/widgets/attention_heads.js";
import { cases, close } from "./cases.mjs";

test("the forward pass equals PyTorch's: trained, random and extreme weights, one token to twelve", () => {
  for (const { asset, reads } of cases.readers) {
    const model = decodeModel(asset);
    for (const expected of reads) {
      const ours = readNumber(model, expected.tokens);
      close(ours.placeWeights, expected.placeWeights);
      close(ours.wordWeights, expected.wordWeights);
      close(ours.logits, expected.logits);
      assert.deepEqual(ours.digits, expected.digits);
    }
  }
});

test("the trained model reads what the words say", () => {
  const { asset, reads } = cases.readers[0];
  const model = decodeModel(asset);
  for (const { tokens, digits } of reads.slice(1)) {
    const words = tokens.slice(0, -1).map((id) => asset.vocabulary[id]);
    assert.equal(numberOf(words), Number(digits.join("")));
    assert.deepEqual(readNumber(model, tokens).digits, digits);
  }
});

test("text becomes the same tokens as in Python", () => {
  for (const { text, tokens } of cases.texts.good) assert.deepEqual(tokenize(text, cases.texts.vocabulary, 12), tokens);
});

test("what Python refuses is refused in one sentence, and the word is named", () => {
  for (const text of cases.texts.bad)
    assert.throws(() => tokenize(text, cases.texts.vocabulary, 12), ({ message }) => /^[^.]+\.$/.test(message));
  assert.throws(() => tokenize("forty million", cases.texts.vocabulary, 12), /“million”/);
  assert.throws(() => tokenize("one ".repeat(12), cases.texts.vocabulary, 12), /12 words.* at most 11/);
});

test("words are read by the rules of English", () => {
  for (const { words, number } of cases.texts.numbers) assert.equal(numberOf(words), number);
  for (const words of cases.texts.nonsense) assert.equal(numberOf(words), null, words.join(" "));
});

test("the captions say what the picture shows", () => {
  const words = ["forty", "two", "."];
  assert.equal(describe(words, [0.2, 0.75, 0.05], -1), "looks most at “two” (0.75), then at “forty” (0.20).");
  assert.equal(describe(words, [0.2, 0.75, 0.05], 2), "gives “.” a weight of 0.05.");
  assert.equal(compare(words, [0, 0, 0, 0, 4, 2]), "The model reads 42, as the words say. ✓");
  assert.equal(compare(words, [3, 4, 2, 1, 0, 7]), "The model reads 342\u202f107, but the words say 42. ✗");
  assert.match(compare(["one", "one", "."], [0, 0, 0, 0, 1, 1]), /^The model reads 11; .* not one number\.$/);
});
