import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import {
  decodeTranslator, embedTokens, germanWords, lengthPenalty, logProbabilities, lookBack, numberSaid, numberWords, read,
  searchBeams, spell, step, tokenize, typedIds, wayTo, writeGreedy,
} from "../../transformer_lab/widgets/translator.js";
import { cases as all, close } from "./cases.mjs";

const cases = all.translator;
const translator = decodeTranslator(cases.asset);
const { vocabulary } = translator;

test("number words are those of num2words: some one by one, all below 100,000 by their checksum", () => {
  for (const { number, en, de } of cases.words) assert.deepEqual([numberWords(number), germanWords(number)], [en, de]);
  const numbers = Array.from({ length: 100_000 }, (_, n) => n);
  const checksum = (say) => createHash("sha256").update(numbers.map(say).join("\n")).digest("hex");
  assert.equal(checksum(numberWords), all.wordsSha256.en);
  assert.equal(checksum(germanWords), all.wordsSha256.de);
});

test("there are words up to a million", () => {
  assert.equal(numberWords(121_345), "one hundred and twenty one thousand three hundred and forty five");
  assert.equal(germanWords(121_345), "einhunderteinundzwanzigtausenddreihundertfünfundvierzig");
  assert.equal(germanWords(701_001), "siebenhunderteintausendeins");
  assert.equal(numberWords(999_999).split(" ").length, 11);
});

test("words are understood, with and without “and”, and only if they are one number", () => {
  for (let n = 0; n < 1_000_000; n += n < 3000 ? 1 : 397) {
    const words = numberWords(n).split(" ");
    assert.equal(numberSaid(words), n);
    assert.equal(numberSaid(words.filter((word) => word !== "and")), n);
  }
  const nonsense = ["one one", "hundred", "thousand", "and", "and one", "one and", "twenty eleven", "forty and two",
    "ten hundred", "one thousand thousand", "zero one", "one thousand and one hundred", "", "million"];
  for (const text of nonsense) assert.equal(numberSaid(text.split(" ")), null, text);
});

test("words become the tokens that the package makes of them", () => {
  for (const { number, source } of cases.greedy.slice(0, 100))
    assert.deepEqual(tokenize(numberWords(number), vocabulary), source);
  assert.deepEqual(tokenize(" Forty-TWO\n", vocabulary), tokenize("forty two", vocabulary));
});

test("what cannot be read is refused in one sentence, and the word is named", () => {
  const sentence = (pattern) => ({ message }) => pattern.test(message) && /^[^.]+\.$/.test(message);
  assert.throws(() => tokenize("forty million", vocabulary), sentence(/“million”/));
  assert.throws(() => tokenize("drei", vocabulary), sentence(/“drei”/)); // a token, but not of English
  assert.throws(() => tokenize("one", vocabulary.filter((word) => word !== "▁one")), sentence(/“one”/));
  assert.throws(() => tokenize(" ,-", vocabulary), sentence(/no word/));
  assert.throws(() => typedIds("one ".repeat(13), vocabulary), sentence(/13 words.* at most 12/));
  assert.throws(() => typedIds("1,000,000", vocabulary), sentence(/below a million/));
  for (const text of ["1.5", "21,34", "2 1", "-5x"]) assert.throws(() => typedIds(text, vocabulary), sentence(/“/));
});

test("figures are read, grouped or not", () => {
  const expected = tokenize(numberWords(21_345), vocabulary);
  for (const text of ["21345", " 21,345 ", "21 345", "21.345", "twenty-one thousand three hundred and forty-five"])
    assert.deepEqual(typedIds(text, vocabulary), expected, text);
  assert.equal(typedIds("one ".repeat(12), vocabulary).length, 12);
  assert.deepEqual(typedIds("0", vocabulary), tokenize("zero", vocabulary));
});

test("embeddings begin where they are told to, and have an end", () => {
  const whole = embedTokens(translator, [5, 6, 7]);
  close(embedTokens(translator, [6, 7], 1), whole.slice(1), 1e-12);
  assert.throws(() => embedTokens(translator, [5, 6], translator.config.max_len - 1), /room for 64 tokens, got 65/);
});

test("greedy search writes what the package writes, for 1,000 numbers that the model never saw", () => {
  assert.equal(cases.greedy.length, 1000);
  for (const { number, source, tokens } of cases.greedy) {
    const ours = writeGreedy(translator, source);
    assert.deepEqual(ours.tokens, tokens, numberWords(number));
    if (number % 10) continue;
    const { hypotheses: [only] } = searchBeams(translator, source, { beamSize: 1 });
    assert.deepEqual(only.tokens, tokens);
    close(ours.logProbability, only.logProbability, 1e-9);
  }
});

test("beam search finds what the package finds: tokens, log-probabilities, scores, in their order", () => {
  assert.ok(cases.beams.filter(({ beamSize }) => beamSize === 4).length >= 50);
  for (const { source, hypotheses, ...options } of cases.beams) {
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null));
    const ours = searchBeams(translator, source, given).hypotheses;
    assert.deepEqual(ours.map(({ tokens }) => tokens), hypotheses.map(({ tokens }) => tokens));
    for (const number of ["logProbability", "score"])
      close(ours.map((found) => found[number]), hypotheses.map((found) => found[number]));
  }
});

test("the tree of a search holds its hypotheses, and each step at most as many nodes as there are beams", () => {
  for (const { source, beamSize } of cases.beams.slice(0, 60)) {
    const { nodes, hypotheses } = searchBeams(translator, source, { beamSize });
    for (const { node, tokens, logProbability } of hypotheses) {
      const way = wayTo(nodes, node);
      assert.deepEqual(way.map((i) => nodes[i].token), tokens);
      assert.deepEqual(way.map((i) => nodes[i].step), tokens.map((_, t) => t + 1));
      close(way.reduce((sum, i) => sum + Math.log(nodes[i].probability), 0), logProbability, 1e-9);
    }
    let ended = 0; // the beam is narrower by what has ended before
    for (let n = 1; n <= nodes.at(-1).step; n++) {
      const level = nodes.filter((node) => node.step === n);
      assert.ok(level.length <= beamSize - ended);
      assert.ok(level.every(({ logProbability }, i) => !i || logProbability <= level[i - 1].logProbability));
      ended += level.filter((node) => node.ended).length;
    }
    assert.equal(hypotheses.length, beamSize);
  }
});

test("nobody writes padding or a second beginning", () => {
  const scores = vocabulary.map((_, id) => (id < 2 ? 50 : id / 10));
  const log = logProbabilities(translator, scores);
  assert.deepEqual(log.slice(0, 2), [-Infinity, -Infinity]);
  close(log.reduce((sum, number) => sum + Math.exp(number), 0), 1, 1e-12);
});

test("the whole model equals PyTorch's, with all its heads and with some that are off", () => {
  const models = [[translator, cases.off], [decodeTranslator(cases.unlike.asset), cases.unlike.off]];
  for (const [model, runs] of models) {
    for (const { source, target, off, encoded, scores, crossWeights } of runs) {
      const headsOff = new Set(off);
      const reading = read(model, source, headsOff);
      close(reading.encoded, encoded);
      const whole = step(model, reading, target, [], headsOff);
      close(whole.scores, scores);
      close(whole.layers.map((layer) => layer.crossWeights), crossWeights);
      let caches;
      target.forEach((token, t) => { // one at a time is the same
        const one = step(model, reading, [token], caches, headsOff);
        close(one.scores, [scores[t]]);
        caches = one.caches;
      });
    }
  }
});

test("heads that are off stay off while the model writes, and looking back sees what it saw", () => {
  const [{ source }] = cases.greedy;
  const headsOff = new Set(["cross 0 3", "cross 1 0"]);
  const ours = writeGreedy(translator, source, { headsOff });
  const layers = lookBack(translator, ours.reading, ours.tokens, headsOff);
  ours.steps.forEach((one, t) => one.layers.forEach(({ crossWeights }, l) => crossWeights.forEach((head, h) =>
    close(head[0], layers[l].crossWeights[h][t], 1e-9))));
  const [best] = searchBeams(translator, source, { beamSize: 1, headsOff }).hypotheses;
  assert.deepEqual(best.tokens, ours.tokens);
  close(best.logProbability, ours.logProbability, 1e-9);
  assert.ok(Math.abs(ours.logProbability - writeGreedy(translator, source).logProbability) > 1e-3);
  assert.equal(writeGreedy(translator, source, { maxLen: 2 }).tokens.length, 2);
});

test("tokens are spelt as the package decodes them", () => {
  for (const { number, tokens } of cases.greedy.slice(0, 200))
    assert.equal(spell(translator, tokens), germanWords(number));
  const ids = ["▁ein", "und", "zwan", "zig"].map((token) => vocabulary.indexOf(token));
  assert.equal(spell(translator, ids), "einundzwanzig"); // without an end
  assert.equal(spell(translator, [...ids, 2, ...ids], "·"), "ein·und·zwan·zig");
  assert.equal(spell(translator, [...ids.slice(0, 2), ids[0]], "·"), "ein·und ein");
  assert.equal(spell(translator, [2]), "");
});

test("a length penalty of the paper", () => {
  assert.deepEqual([lengthPenalty(1, 0.6), lengthPenalty(7, 1), lengthPenalty(9, 0)], [1, 2, 1]);
});
