// What needs a trained model, and numbers that test_encoder_decoder_walk.py wrote.
import assert from "node:assert/strict";
import test from "node:test";
import { decodeTranslator } from "../../transformer_lab/widgets/translator.js";
import { lettersOf, placeOf, stationNames, walkToken } from "../../transformer_lab/widgets/walk_stations.js";
import { explain } from "../../transformer_lab/widgets/walk_words.js";
import { cases, close } from "./cases.mjs";

const models = cases.models.map(({ asset, walks }) => ({ translator: decodeTranslator(asset), walks }));

test("every station of every walk is what PyTorch computes: both sides, two layers and three", () => {
  let count = 0;
  for (const { translator, walks } of models)
    for (const { source, target, side, token, stations } of walks) {
      const ours = walkToken(translator, source, target, side, token);
      assert.deepEqual(Object.keys(ours), Object.keys(stations));
      for (const [name, tensors] of Object.entries(stations)) {
        assert.deepEqual(Object.keys(ours[name]).sort(), Object.keys(tensors).sort(), name);
        for (const [what, expected] of Object.entries(tensors)) close(ours[name][what], expected);
        count += 1;
      }
    }
  assert.ok(count > 500);
});

test("the stations have the names that Python knows", () => {
  for (const { side, layers, names } of cases.names) assert.deepEqual(stationNames(side, layers), names);
  for (const { translator, walks } of models)
    for (const { side, stations } of walks)
      assert.deepEqual(stationNames(side, translator.encoder.layers.length), Object.keys(stations));
});

const walked = new Map(); // what `walkToken` gave, so that each walk is walked once

/** A station as the widget explains it. */
function told({ translator, walks }, i, name, head = 0) {
  const { source, target, side, token } = walks[i];
  if (!walked.has(walks[i])) walked.set(walks[i], walkToken(translator, source, target, side, token));
  const words = (ids) => ids.map((id) => translator.vocabulary[id]);
  const ids = side === "encoder" ? source : target;
  return explain({
    letters: lettersOf(translator), vocabulary: translator.vocabulary, side, token, head, name, ids,
    tokens: words(ids),
    others: words(placeOf(name).part === "cross-attention" ? source : ids),
    tensors: walked.get(walks[i])[name],
  });
}

test("every station of every walk is told in whole sentences, and its pictures hold numbers", () => {
  for (const model of models)
    model.walks.forEach(({ side }, i) => {
      for (const name of stationNames(side, model.translator.encoder.layers.length)) {
        const { where, title, said, formula, shapes, views } = told(model, i, name, 2);
        assert.match(where, /^(Encoder|Decoder)(, layer \d, (self-|cross-)?(attention|feed-forward))?$/);
        assert.match(said, /^[“A-Z].*[.…]$/, name);
        assert.doesNotMatch([title, said, formula, shapes].join(" "), /undefined|NaN|\[object/);
        assert.ok(views.length > 0, name);
        for (const { numbers, letter, lines } of views) {
          if (numbers) assert.equal(numbers.length, lettersOf(model.translator)[letter], name);
          else assert.ok(lines.every(({ word }) => word));
        }
      }
    });
});

const [trained] = models;
const walkOf = (side, token) => trained.walks.findIndex((walk) => walk.side === side && walk.token === token);

test("what is said of “twenty one”", () => {
  const say = (side, token, name, head) => told(trained, walkOf(side, token), name, head).said;
  assert.match(say("encoder", 1, "token"), /^“▁one” is token 20 of the vocabulary’s 73\. The sign ▁ is/);
  assert.match(say("decoder", 0, "token"), /^“<bos>” is token 1 .* It opens every target/);
  assert.match(say("decoder", 2, "layer 1 self-attention scores"), /The 2 tokens after “und” are masked/);
  assert.match(say("decoder", 3, "layer 1 self-attention scores"), /The token after “zwan” is masked/);
  assert.match(say("decoder", 4, "layer 1 self-attention scores"), /Nothing is masked here: all other/);
  assert.match(say("encoder", 0, "layer 2 self-attention scores"), /the encoder reads the whole sentence/);
  assert.match(say("decoder", 0, "layer 2 cross-attention scores"), /may look at every English token/);
  const looks = /In head 1, “und” looks most at “▁twenty”: 0\.83\./;
  assert.match(say("decoder", 2, "layer 2 cross-attention weights", 0), looks);
  const follows = /After “<bos> ▁ein” the likeliest token is “und”, with .*%\./;
  assert.match(say("decoder", 1, "probabilities"), follows);
  const norm = "layer 1 feed-forward norm";
  assert.match(say("encoder", 0, norm), /the feed-forward network always gets/);
});

test("one head at a time is shown, and what is masked is marked", () => {
  const walk = walkOf("decoder", 2);
  const name = "layer 1 self-attention weights";
  const tensors = trained.walks[walk].stations[name];
  for (let head = 0; head < 4; head++) {
    const [{ lines }] = told(trained, walk, name, head).views;
    close(lines.map(({ weight }) => weight), tensors.weights[head]);
    assert.deepEqual(lines.map(({ masked }) => masked), [false, false, false, true, true]);
    assert.deepEqual(lines.map(({ here }) => here), [false, false, true, false, false]);
    assert.deepEqual(lines.slice(3).map(({ weight }) => weight), [0, 0]);
  }
  const [query] = told(trained, walk, "layer 1 self-attention queries", 3).views;
  close(query.numbers, trained.walks[walk].stations["layer 1 self-attention queries"].query.slice(72));
});

test("in the decoder a later token changes nothing before it", () => {
  const { source, target } = trained.walks[walkOf("decoder", 2)];
  const ours = walkToken(trained.translator, source, target, "decoder", 2);
  const other = walkToken(trained.translator, source, target.map((id, t) => (t > 2 ? 5 : id)), "decoder", 2);
  close(other.probabilities.probabilities, ours.probabilities.probabilities, 1e-12);
});
