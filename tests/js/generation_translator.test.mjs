import assert from "node:assert/strict";
import test from "node:test";
import {
  ahead, briefly, cosines, describeBeam, describeLikeness, describeLook, germanParts, grown, headName, isRight, likely,
  signedColour, TRIED, verdict, whatBroke,
} from "../../transformer_lab/widgets/generation_translator.js";
import {
  decodeTranslator, germanWords, HEAD_KINDS, numberWords, searchBeams,
} from "../../transformer_lab/widgets/translator.js";
import { cases as all, close } from "./cases.mjs";

const translator = decodeTranslator(all.translator.asset);
const plain = (text) => text.replaceAll("\u00ad", "");

test("numbers are brief, with a minus sign, and what is unlikely is not 0", () => {
  assert.deepEqual([-0.004859, -4.0155, 0.0999, 0.1, 12].map(briefly), ["−0.005", "−4.02", "0.100", "0.10", "12.00"]);
  assert.deepEqual([1, 0.4449, 0.005, 0.0049, 0].map(likely), ["1.00", "0.44", "0.01", "< .01", "< .01"]);
});

test("German words are cut where the model's tokens are", () => {
  const { vocabulary } = translator;
  for (const { tokens, number } of all.translator.greedy) {
    const names = tokens.slice(0, -1).map((id) => vocabulary[id].replace("▁", ""));
    assert.deepEqual(germanParts(germanWords(number)), names);
  }
  assert.deepEqual(germanParts("zehntausendsechzehn"), ["zehn", "tausend", "sech", "zehn"]);
});

test("a wrong translation is told by what broke, a long word with hyphens where it may", () => {
  const right = germanWords(21_345);
  const sentence = (made) => plain(whatBroke(right, made));
  assert.equal(sentence("einundzwanzigtausenddreiundvierzig"), "“hundertfünf” is missing.");
  assert.equal(sentence("einundzwanzigtausenddreihundertfünfundzwanzig"), "It writes “zwan” for “vier”.");
  assert.equal(sentence(`${right}zehn`), "“zehn” is too much.");
  assert.equal(sentence(""), "Most of it is wrong.");
  assert.equal(sentence("einundzwanzig"), "Most of it is wrong.");
  assert.equal(plain(whatBroke("zwanzigzwanzig", "zwanzig")), "“zwanzig” is missing."); // nothing counts twice
  assert.match(whatBroke(right, "einundzwanzigtausenddreiundvierzig"), /“hundert\u00adfünf”/);
});

test("the verdict knows German", () => {
  const say = (words, made) => plain(verdict(words.split(" "), made));
  for (const n of [0, 1, 17, 345, 21_345, 99_999, 121_345])
    assert.match(say(numberWords(n), germanWords(n)), /, and right\. ✓$/);
  assert.equal(say("forty two", "zweiundvierzig"), "That is 42, and right. ✓");
  assert.equal(say("one thousand", "tausend"), "That is wrong: 1,000 is “eintausend”. “ein” is missing. ✗");
  assert.match(say("one one", "elf"), /not one number/);
  assert.match(say(numberWords(121_345), "einundzwanzig"), /^That is wrong: 121,345 .* below 100,000 only\. ✗$/);
});

test("where the decoder looks is said with its weights", () => {
  const words = ["twenty", "one", "and"];
  const say = (column) => describeLook("ein", words, [0.2, 0.75, 0.05], column);
  assert.equal(say(-1), "to write “ein”, the decoder looks at “one” (0.75), then at “twenty” (0.20).");
  const many = describeLook("ein", ["a", "b", "c", "d"], [0.1, 0.4, 0.3, 0.2], -1);
  assert.match(many, /“b” \(0\.40\), then at “c” \(0\.30\), then at “d” \(0\.20\)\.$/); // three are enough
  assert.equal(say(2), "to write “ein”, the decoder gives “and” a weight of 0.05.");
});

test("cosines compare directions", () => {
  close(cosines([[2, 0], [1, 1], [-3, 0]]), [[1, Math.SQRT1_2, -1], [Math.SQRT1_2, 1, -Math.SQRT1_2],
    [-1, -Math.SQRT1_2, 1]], 1e-12);
});

test("a colour says sign and size", () => {
  assert.match(signedColour(0.4).fill, /--plus\) 40%/);
  assert.match(signedColour(-0.4).fill, /--minus\) 40%/);
  assert.match(signedColour(-7).fill, /--minus\) 100%/);
  assert.notEqual(signedColour(1).ink, signedColour(0).ink);
});

test("what is alike is named", () => {
  const likeness = [[1, 0.2, -0.5], [0.2, 1, 0.3], [-0.5, 0.3, 1]];
  const say = (row, column) => describeLikeness(["one", "two", "six"], likeness, row, column);
  assert.equal(say(0, -1), "The state of “one” is most like that of “two”: cosine 0.20.");
  assert.equal(say(0, 2), "The state of “one” compares with that of “six”: cosine −0.50.");
  assert.equal(say(2, 2), "The state of “six” is most like that of “two”: cosine 0.30.");
  assert.equal(describeLikeness(["one"], [[1]], 0, 0), "“one” stands alone.");
});

const node = (step, parent, token, logProbability, ended = false) => ({ step, parent, token, logProbability, ended });
const NODES = [ // begin -> a (-1), b (-2); then a's end (-1.5) and b's c (-2.5), whose end (-2.6) is the last
  node(0, -1, 1, 0), node(1, 0, 5, -1), node(1, 0, 6, -2), node(2, 1, 2, -1.5, true), node(2, 2, 7, -2.5),
  node(3, 4, 2, -2.6, true),
];

test("the tree grows step by step: what goes on, what ends, what is dropped", () => {
  const fates = (steps, nodes = NODES) => grown(nodes, steps).map(({ fate }) => fate);
  assert.deepEqual(fates(0), ["open"]);
  assert.deepEqual(fates(1), ["passed", "open", "open"]);
  assert.deepEqual(fates(2), ["passed", "passed", "passed", "ended", "open"]);
  assert.deepEqual(fates(3), ["passed", "passed", "passed", "ended", "passed", "ended"]);
  assert.deepEqual(fates(2, NODES.slice(0, 4)), ["passed", "passed", "dropped", "ended"]);
  assert.deepEqual(grown(NODES, 3).map(({ rank }) => rank), [0, 0, 1, 0, 1, 0]);
});

test("ahead is who has the highest score, not the highest probability", () => {
  assert.equal(ahead(grown(NODES, 0)).node, 0);
  assert.equal(ahead(grown(NODES, 1)).node, 1);
  const two = ahead(grown(NODES, 2));
  assert.equal(two.node, 3);
  close(two.score, -1.5 / (7 / 6) ** 0.6, 1e-12);
  const longer = [...NODES.slice(0, 5), { ...NODES[5], step: 20, logProbability: -2.5 }];
  assert.equal(ahead(grown(longer, 20)).node, 5); // less probable than node 3, but longer
});

test("at the end, ahead is the best hypothesis of the search", () => {
  for (const { source, beamSize } of all.translator.beams.slice(0, 20)) {
    const { nodes, hypotheses } = searchBeams(translator, source, { beamSize });
    assert.equal(ahead(grown(nodes, nodes.at(-1).step)).node, hypotheses[0].node);
    close(ahead(grown(nodes, nodes.at(-1).step)).score, hypotheses[0].score, 1e-12);
  }
});

test("the search is told as it stands", () => {
  const say = (steps, over = false) => plain(describeBeam(grown(NODES, steps), steps, over, "elf"));
  assert.match(say(0), /^Nothing is written yet/);
  assert.equal(say(1), "After 1 step: 2 open. Ahead is “elf”, with a score of −1.00.");
  assert.equal(say(2), "After 2 steps: 1 open, 1 ended. Ahead is “elf”, with a score of −1.37.");
  assert.equal(say(3, true), "The search is over after 3 steps. Best is “elf”, with a score of −1.37.");
});

test("heads have names that a reader knows", () => {
  assert.equal(headName("cross 0 3"), "head 4 of the cross-attention, layer 1");
  assert.equal(headName("encoder 1 0"), "head 1 of the self-attention of the encoder, layer 2");
});

test("of other numbers the whole model gets all right; without some heads few", () => {
  assert.equal(new Set(TRIED).size, 30);
  assert.deepEqual([3, 4, 5].map((length) => TRIED.filter((n) => String(n).length === length).length), [10, 10, 10]);
  const right = (off) => TRIED.filter((n) => isRight(translator, n, new Set(off))).length;
  assert.equal(right([]), 30);
  const everywhere = (kind) => [0, 1].flatMap((layer) => [0, 1, 2, 3].map((head) => `${kind} ${layer} ${head}`));
  for (const kind of HEAD_KINDS.slice(1)) assert.ok(right(everywhere(kind)) < 10, kind);
  const each = everywhere("cross").map((name) => right([name]));
  assert.ok(each.filter((n) => n >= 28).length >= 6 && Math.min(...each) < 28, String(each)); // as the note has it
});
