// One token's way through the whole Transformer, station by station, with the tensors of a small trained
// model. traits (see encoder_decoder_walk.py): text, side, token, station, asset, asset_bytes, asset_wanted,
// asset_progress, asset_data.
import { architectureMap, MAP_LOOK } from "./architecture_map.js";
import { CONTROLS_LOOK, stepper, toggle } from "./controls.js";
import { FORM_LOOK, modelForm } from "./model_form.js";
import { picture, STRIPS_LOOK } from "./number_strips.js";
import { announcer, element, frame, put, wear, write } from "./parts.js";
import { decodeTranslator, spell, typedIds, writeGreedy } from "./translator.js";
import { boxOf, lettersOf, placeOf, stationNames, walkToken } from "./walk_stations.js";
import { explain, writtenSaid } from "./walk_words.js";

const MOST_WRITTEN = 20; // tokens; no number below 100,000 needs more
const HEADED = ["queries", "scores", "weights", "values", "memory"]; // stations that show one head at a time
const HINT = "The model learned numbers below 100,000. Capitals and hyphens do not matter.";
const TRY = "Try this first: take an English token up the encoder, with “Next”, the arrow keys or a click on "
  + "the map. Then take “und” in the decoder: at which English token do the heads of its cross-attention "
  + "look?";

const LOOK = `
.tl-walk { display: grid; gap: .9rem; }
.tl-walk :is(.tl-picture, .tl-stage, .tl-panel) > *, .tl-walk > * { min-width: 0; }
.tl-walk .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-walk .tl-field { max-width: 28rem; }
.tl-walk .tl-picture { display: grid; gap: .9rem; }
.tl-walk .tl-tokens { min-width: 0; margin: 0; padding: 0; border: 0; }
.tl-walk .tl-tokens legend {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
}
.tl-walk .tl-row { display: grid; gap: .3rem; align-items: baseline; margin-bottom: .35rem; }
.tl-walk .tl-row > span { color: var(--muted); font-size: .875rem; }
.tl-walk .tl-chips { display: flex; flex-wrap: wrap; gap: .3rem; min-width: 0; }
.tl-walk .tl-chip { position: relative; cursor: pointer; }
.tl-walk .tl-chip input {
  position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; cursor: pointer;
}
.tl-walk .tl-chip b {
  display: block; min-height: 2rem; padding: .2rem .5rem;
  border: 1px solid var(--muted); border-radius: .4rem; font-weight: 400;
}
.tl-walk .tl-chip:hover b { border-color: var(--query); }
.tl-walk .tl-chip :checked + b {
  border-color: var(--query-text); background: var(--query-text); color: var(--surface);
}
.tl-walk .tl-chip :focus-visible + b { outline: 3px solid var(--query); outline-offset: 2px; }
.tl-walk .tl-written { overflow-wrap: anywhere; }
.tl-walk .tl-stage { display: grid; grid-template-columns: minmax(0, 1fr); gap: .9rem 1.5rem; }
.tl-walk .tl-chart { display: grid; gap: .6rem; align-content: start; justify-items: start; }
.tl-walk .tl-chart:not(.tl-open) .tl-arch { display: none; }
.tl-walk .tl-panel { display: grid; gap: .6rem; align-content: start; min-height: 32rem; }
.tl-walk .tl-nav { display: flex; gap: .5rem; align-items: center; }
.tl-walk .tl-nav .tl-number { min-width: 4.5rem; color: var(--muted); text-align: center; }
.tl-walk .tl-nav [aria-disabled="true"] { opacity: .45; cursor: default; }
.tl-walk .tl-title { font-size: 1.125rem; font-weight: 650; line-height: 1.3; }
.tl-walk .tl-said { min-height: 6em; }
.tl-walk .tl-formula {
  font-family: var(--mono, ui-monospace, monospace); font-size: .875rem;
  overflow-wrap: anywhere; text-wrap: balance;
}
.tl-walk .tl-shapes { color: var(--muted); font-size: .8125rem; }
.tl-walk .tl-strips { display: grid; grid-template-columns: minmax(0, 1fr); gap: .7rem; }
.tl-walk :is(.tl-picture, .tl-controls > *)[hidden] { display: none; }
@container (min-width: 30rem) {
  .tl-walk .tl-row { grid-template-columns: 7.5rem minmax(0, 1fr); }
}
@container (min-width: 40rem) {
  .tl-walk .tl-stage { grid-template-columns: minmax(0, 1fr) 17.5rem; }
  .tl-walk .tl-chart { order: 2; }
  .tl-walk .tl-chart:not(.tl-open) .tl-arch { display: block; }
  .tl-walk .tl-unfold { display: none; }
}
`;

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + FORM_LOOK + MAP_LOOK + STRIPS_LOOK + LOOK, signal);
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const field = element("input", { type: "text" });
  const stage = makeStage({ change, signal });
  const form = modelForm({
    model, look: "tl-walk", field, label: "A number, in figures or in English words", hint: HINT, picture: stage,
    words: "A small Transformer learned to write English number words in German. Load it, and walk one token "
      + "through it, from its id to what comes out, with all the numbers on the way. It runs in your browser.",
    decode: decodeTranslator, check: (text, { vocabulary }) => typedIds(text, vocabulary),
    draw(translator, text) {
      const [side, token, station] = ["side", "token", "station"].map((name) => model.get(name));
      stage.draw(translator, { text, side, token, station });
    },
    traits: ["side", "token", "station"], signal,
  });
  const root = frame("A walk through the Transformer", form.root);
  el.append(root);
  form.begin();
  return () => { life.abort(); root.remove(); };
}

/** Everything that needs the model: the tokens, the map, and the station with its numbers. */
function makeStage({ change, signal }) {
  let [translator, run, place, head, all] = [null, null, null, 0, false];
  const namesOf = (side) => stationNames(side, translator.encoder.layers.length);
  const remembered = { encoder: 0, decoder: 0 }; // which token of each side was walked last

  const chips = makeChips({
    signal, onChoose: (side, token) => {
      const names = namesOf(side);
      change({ side, token, station: names.includes(place.station) ? place.station : names[0] });
    },
  });
  const map = architectureMap({
    signal, onBox: (side, id) => {
      const station = namesOf(side).find((name) => boxOf(name) === id);
      change({ side, token: remembered[side], station });
    },
  });
  const unfold = element("button", { type: "button", class: "tl-unfold" });
  const chart = element("div", { class: "tl-chart" }, unfold, map.root);
  const [back, next] = [["← Back", -1], ["Next →", 1]].map(([label, way]) => {
    const button = element("button", { type: "button", class: way > 0 ? "tl-main" : "" }, label);
    button.addEventListener("click", () => go(way), { signal });
    return button;
  });
  const count = element("span", { class: "tl-number" });
  const told = Object.fromEntries(["where", "title", "said", "formula", "shapes"]
    .map((name) => [name, element("p", { class: name === "where" ? "tl-heading" : `tl-${name}` })]));
  const heads = makeHeads({ signal, onInput: (value) => { head = value - 1; show(); } });
  const numbers = toggle({ label: "All numbers", signal, onInput: (on) => { all = on; show(); } });
  const strips = element("div", { class: "tl-strips" });
  const written = element("p", { class: "tl-written" });
  const { region, say } = announcer(signal);
  const panel = element("div", { class: "tl-panel" },
    element("div", { class: "tl-nav" }, back, count, next), element("div", {}, told.where, told.title),
    told.said, told.formula, told.shapes,
    element("div", { class: "tl-controls" }, heads.root, numbers.root), strips);
  const stage = element("div", { class: "tl-stage" }, chart, panel);
  const root = element("div", { class: "tl-picture", hidden: "" }, element("p", { class: "tl-note" }, TRY),
    element("div", {}, chips.root, written), stage, region);

  function go(way) {
    const station = place.names[place.names.indexOf(place.station) + way];
    if (station) change({ station });
  }
  function open(wide) {
    chart.classList.toggle("tl-open", wide);
    put(unfold, { "aria-expanded": wide });
    write(unfold, wide ? "Fold the map" : "Show the map");
  }
  unfold.addEventListener("click", () => open(!chart.classList.contains("tl-open")), { signal });
  open(false);
  stage.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, [role='spinbutton']")) return; // they have arrow keys of their own
    event.preventDefault();
    go(way);
  }, { signal });

  function draw(newTranslator, { text, side, token, station }) {
    if (newTranslator !== translator || run?.text !== text) run = begin(newTranslator, text);
    translator = newTranslator;
    root.hidden = false;
    const names = namesOf(side);
    remembered[side] = token;
    for (const one of Object.keys(remembered))
      remembered[one] = Math.min(remembered[one], run[one].length - 1);
    place = { side, token: remembered[side], station: names.includes(station) ? station : names[0], names };
    head = Math.min(head, translator.config.n_heads - 1);
    show();
  }
  function show() {
    const { side, token, station, names } = place;
    const { L: nLayers, H: nHeads } = lettersOf(translator);
    const [found, at] = [explain(sceneOf(translator, run, place, head)), names.indexOf(station)];

    chips.draw(run.words, side, token);
    write(written, run.said);
    const [encoder, decoder] = ["encoder", "decoder"].map((one) => run.words[one][remembered[one]]);
    const order = [...new Set(names.map(boxOf))];
    map.draw({ nLayers, side, order, here: boxOf(station), words: { encoder, decoder } });
    put(back, { "aria-disabled": at === 0 });
    put(next, { "aria-disabled": at === names.length - 1 });
    write(count, `${at + 1} of ${names.length}`);
    heads.draw(nHeads, head, HEADED.includes(placeOf(station).stop));
    numbers.draw(all);
    numbers.root.hidden = !found.views.some((view) => view.numbers);
    for (const [name, node] of Object.entries(told)) write(node, found[name]);
    strips.replaceChildren(...picture(found.views, all));
    say(`${found.where}. ${found.title}, ${at + 1} of ${names.length}. ${found.said}`);
  }
  return { root, draw };
}

/** What the model makes of the text: ids and words, as both sides read them, and what to say of it. */
function begin(translator, text) {
  const { vocabulary, config } = translator;
  const encoder = typedIds(text, vocabulary);
  const { tokens } = writeGreedy(translator, encoder, { maxLen: Math.min(MOST_WRITTEN, config.max_len) });
  const decoder = [config.bos_id, ...tokens.slice(0, -1)]; // the last token is written, and never read
  const [source, target] = [encoder, decoder].map((ids) => ids.map((id) => vocabulary[id]));
  const said = writtenSaid(spell(translator, encoder).split(" "), spell(translator, tokens));
  return { text, encoder, decoder, words: { encoder: source, decoder: target }, said };
}

/** What `explain` needs to know. */
function sceneOf(translator, { encoder, decoder, words }, { side, token, station }, head) {
  return {
    letters: lettersOf(translator), vocabulary: translator.vocabulary, side, token, head, name: station,
    ids: { encoder, decoder }[side], tokens: words[side],
    others: words[placeOf(station).part === "cross-attention" ? "encoder" : side],
    tensors: walkToken(translator, encoder, decoder, side, token)[station],
  };
}

/** The tokens of both sides; native radio buttons, so the arrow keys go from one to the next. */
function makeChips({ onChoose, signal }) {
  const [encoder, decoder] = [0, 1].map(() => element("div", { class: "tl-chips" }));
  const row = (name, chips) => element("div", { class: "tl-row" }, element("span", {}, name), chips);
  const root = element("fieldset", { class: "tl-tokens" }, element("legend", {}, "Which token to walk with"),
    row("Encoder reads", encoder), row("Decoder reads", decoder));
  let labels = "";
  root.addEventListener("input", ({ target }) => {
    const [side, token] = target.value.split(" ");
    onChoose(side, Number(token));
  }, { signal });

  function draw(words, side, token) {
    const wanted = JSON.stringify(words);
    if (wanted !== labels)
      for (const [name, chips] of Object.entries({ encoder, decoder }))
        chips.replaceChildren(...words[name].map((word, t) => chip(name, t, word)));
    labels = wanted;
    root.querySelector(`input[value="${side} ${token}"]`).checked = true;
  }
  return { root, draw };
}

function chip(side, token, word) {
  const names = { value: `${side} ${token}`, "aria-label": `${side}: ${word}` };
  const input = element("input", { type: "radio", name: "token", ...names });
  return element("label", { class: "tl-chip" }, input, element("b", {}, word));
}

/** Which head is shown; the number of heads is known once the model is. */
function makeHeads({ onInput, signal }) {
  const root = element("div");
  let [built, heads] = [0, null];
  function draw(count, head, shown) {
    if (count !== built) {
      const values = Array.from({ length: count }, (_, h) => h + 1);
      heads = stepper({ label: "Head", values, onInput, signal });
      root.replaceChildren(heads.root);
      built = count;
    }
    root.hidden = !shown;
    heads.draw(head + 1);
  }
  return { root, draw };
}

export default { render };
