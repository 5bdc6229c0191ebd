// A window of attention in one layer, and how far it carries through several: who reaches the chosen token.
// traits (see sliding_window_reach.py): n_tokens, window, dilation, n_layers, causal, global_tokens, token.
import { CONTROLS_LOOK, stepper, toggle } from "./controls.js";
import { announcer, element, follow, frame, put, svg, wear, write } from "./parts.js";

const WINDOWS = [2, 4, 6, 8, 10, 12, 14, 16];
const DILATIONS = [1, 2, 3, 4];
const LAYERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/** May token i see token j? The window steps by `dilation`; a global token sees all and is seen by all. */
export function allowed(i, j, { window, dilation, causal, global_tokens: everywhere }) {
  if (causal && j > i) return false;
  const away = Math.abs(i - j);
  return (away <= dilation * window / 2 && away % dilation === 0) || everywhere.includes(i) || everywhere.includes(j);
}

/** A row for each query, in it whether it may see each key. */
export function maskOf(state) {
  const places = Array.from({ length: state.n_tokens }, (_, i) => i);
  return places.map((i) => places.map((j) => allowed(i, j, state)));
}

/**
 * Who reaches the token: rows[0] has the token alone, rows[n] whom it has heard from after n layers; they end where
 * more layers add nobody. Every token sees itself, so who was heard stays heard.
 */
export function fieldOf(mask, token) {
  const rows = [mask.map((_, s) => s === token)];
  for (let grows = true; grows;) {
    const row = rows.at(-1);
    const next = row.map((_, s) => row.some((there, t) => there && mask[t][s]));
    grows = count(next) > count(row);
    if (grows) rows.push(next);
  }
  return rows;
}

const count = (flags) => flags.filter(Boolean).length;

/** Pairs of query and key that one layer computes, and how many there are without a window. */
export function pairsOf(mask, causal) {
  const n = mask.length;
  return { computed: count(mask.flat()), all: causal ? n * (n + 1) / 2 : n * n };
}

const large = (number) => number.toLocaleString("en");
const layers = (n) => (n === 1 ? "1 layer" : `${n} layers`);

/** Places in words: 0; 14 to 26. Those that lie apart by the dilation: 8 to 32, every 2nd. */
export function listed(places, dilation) {
  const runs = [];
  for (const place of places) {
    const run = runs.at(-1);
    const step = run && place - run.last;
    if (run && (run.step ? step === run.step : step === 1 || step === dilation)) {
      Object.assign(run, { last: place, step });
    } else runs.push({ first: place, last: place });
  }
  const every = { 1: "", 2: ", every 2nd", 3: ", every 3rd", 4: ", every 4th" };
  const words = runs.map(({ first, last, step }) => {
    if (first === last) return String(first);
    return last - first === step ? `${first} and ${last}` : `${first} to ${last}${every[step]}`;
  });
  return words.join("; ");
}

/** What the chosen token has heard, and when it will have heard all. */
export function describeReach(state, field) {
  const { n_layers: nLayers, token, n_tokens: n, causal, dilation } = state;
  const most = causal ? token + 1 : n;
  if (most === 1) return `Token ${token} can hear from itself only.`;
  const heard = field[Math.min(nLayers, field.length - 1)];
  const places = heard.flatMap((has, s) => (has ? [s] : []));
  const now = `After ${layers(nLayers)} token ${token} has heard from ${places.length} of `
    + `${causal ? `the ${most} up to itself` : `${most} tokens`}: ${listed(places, dilation)}.`;
  const missing = most - count(field.at(-1));
  if (missing === 0) return `${now} All ${most} reach it after ${layers(field.length - 1)}.`;
  const others = missing === 1 ? "One token never reaches" : `${missing} tokens never reach`;
  return `${now} ${others} it: with dilation ${dilation} the window steps by multiples of ${dilation}.`;
}

const TALL = 300; // CSS pixels
const LOOK = `
.tl-reach { display: grid; gap: .9rem; }
.tl-reach > * { min-width: 0; }
.tl-reach .tl-note {
  padding: .6rem .75rem; border-radius: .5rem; background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-reach .tl-stepper > :first-child { min-width: 4.1rem; } /* steppers that stand below each other are in line */
.tl-reach .tl-said { min-height: 9.1em; }
.tl-reach .tl-pictures { display: grid; gap: 1rem 1.5rem; }
.tl-reach figure { min-width: 0; margin: 0; }
.tl-reach svg {
  display: block; overflow: visible; touch-action: pan-y; user-select: none; -webkit-user-select: none;
}
.tl-reach .tl-field { width: 100%; height: ${TALL}px; cursor: pointer; }
.tl-reach .tl-field g { pointer-events: none; } /* all that happens, happens to the picture */
.tl-reach .tl-field text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums; }
.tl-reach .tl-field text.tl-on { fill: var(--text); font-weight: 700; }
.tl-reach .tl-off { fill: color-mix(in srgb, var(--text) 13%, transparent); }
.tl-reach .tl-in { fill: var(--output); }
.tl-reach .tl-hears { fill: none; stroke: var(--output); stroke-width: 1; opacity: .4; }
.tl-reach .tl-chosen { fill: var(--query); }
.tl-reach .tl-global { fill: var(--key); }
.tl-reach .tl-band { fill: color-mix(in srgb, var(--query) 12%, transparent); }
.tl-reach .tl-mask { width: 100%; max-width: 16rem; aspect-ratio: 1; margin-top: .35rem; cursor: pointer; }
.tl-reach .tl-mask .tl-off { fill: color-mix(in srgb, var(--text) 7%, transparent); }
.tl-reach .tl-mask .tl-in { fill: var(--query); }
.tl-reach .tl-mask .tl-row { fill: none; stroke: var(--text); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.tl-reach .tl-legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; color: var(--muted); font-size: .8125rem; }
.tl-reach .tl-legend span::before {
  content: ""; display: inline-block; width: .75rem; height: .75rem; margin-right: .4rem; background: var(--hue);
  vertical-align: -.06rem;
}
.tl-reach .tl-legend .tl-diamond::before { transform: rotate(45deg) scale(.75); }
.tl-reach dl { display: grid; gap: .3rem 1.5rem; margin: 0; }
.tl-reach dl div { display: flex; gap: .2rem .8rem; justify-content: space-between; }
.tl-reach dt { color: var(--muted); }
.tl-reach dd { margin: 0; font-weight: 600; white-space: nowrap; }
@container (min-width: 16.2rem) { .tl-reach .tl-said { min-height: 7.6em; } }
@container (min-width: 20rem) { .tl-reach .tl-said { min-height: 6.1em; } }
@container (min-width: 34rem) {
  .tl-reach .tl-pictures { grid-template-columns: minmax(0, 1.7fr) minmax(0, 1fr); }
  .tl-reach .tl-stepper > :first-child { min-width: 0; }
  .tl-reach .tl-said { min-height: 4.6em; }
  .tl-reach dl { grid-template-columns: repeat(3, auto); }
  .tl-reach dl div { display: block; }
}
@container (min-width: 40rem) { .tl-reach .tl-said { min-height: 3.1em; } }
`;

const TRAITS = ["n_tokens", "window", "dilation", "n_layers", "causal", "global_tokens", "token"];

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  wear(CONTROLS_LOOK + LOOK, signal);
  const set = (name) => (value) => { model.set(name, value); model.save_changes(); };
  const numbers = (label, name, values) => stepper({ label, values, onInput: set(name), signal });

  const width = numbers("Window", "window", WINDOWS);
  const dilation = numbers("Dilation", "dilation", DILATIONS);
  const depth = numbers("Layers", "n_layers", LAYERS);
  const causal = toggle({ label: "Causal", onInput: set("causal"), signal });
  const isGlobal = element("span");
  const global = toggle({ label: isGlobal, onInput: () => turn(read().token), signal });
  const none = element("button", { type: "button" }, "No global tokens");
  none.addEventListener("click", () => set("global_tokens")([]), { signal });
  const field = makeField({ onPick: set("token"), onTurn: turn, signal });
  const table = makeMask({ onPick: set("token"), signal });
  const facts = ["Pairs in a layer", "Heard at the top", "Layers until all are heard"].map((text) => {
    const value = element("dd");
    return { root: element("div", {}, element("dt", {}, text), value), value };
  });
  const said = element("p", { class: "tl-said" });
  const { region, say } = announcer(signal);
  const root = frame("How far a window reaches", element("div", { class: "tl-reach" },
    element("p", { class: "tl-note" }, "Try this first: with dilation 2, how many tokens will have reached the chosen "
      + "one, and which? Guess, then press. Then make token 0 global: click it in the row “text”, or choose it and "
      + "turn the switch."),
    element("div", { class: "tl-controls" }, width.root, dilation.root, depth.root),
    element("div", { class: "tl-controls" }, causal.root, global.root, none),
    said, element("div", { class: "tl-pictures" }, field.root, table.root),
    element("dl", {}, ...facts.map((fact) => fact.root))), region);

  function read() { // of a text that was made shorter, some tokens are no more
    const state = Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
    const inText = state.global_tokens.filter((place) => place < state.n_tokens);
    return { ...state, token: Math.min(state.token, state.n_tokens - 1), global_tokens: inText };
  }
  function turn(token) { // global or not
    const now = read().global_tokens;
    const others = now.filter((other) => other !== token);
    set("global_tokens")(others.length < now.length ? others : [...now, token].sort((a, b) => a - b));
  }
  function draw() { // model -> view, and never the other way
    const state = read();
    const { token, n_layers: nLayers } = state;
    const mask = maskOf(state);
    const rows = fieldOf(mask, token);
    width.draw(state.window);
    dilation.draw(state.dilation);
    depth.draw(nLayers);
    causal.draw(state.causal);
    global.draw(state.global_tokens.includes(token));
    write(isGlobal, `Token ${token} is global`);
    none.disabled = state.global_tokens.length === 0;
    field.draw(state, mask, rows);
    table.draw(state, mask);
    const pairs = pairsOf(mask, state.causal);
    const most = state.causal ? token + 1 : state.n_tokens;
    const texts = [
      `${large(pairs.computed)} of ${large(pairs.all)} (${Math.round(100 * pairs.computed / pairs.all)}%)`,
      `${count(rows[Math.min(nLayers, rows.length - 1)])} of ${most} tokens`,
      count(rows.at(-1)) < most ? "never" : String(rows.length - 1),
    ];
    facts.forEach((fact, i) => write(fact.value, texts[i]));
    const sentence = describeReach(state, rows);
    write(said, sentence);
    say(`${sentence} Pairs in a layer: ${texts[0]}.`);
  }
  follow(model, TRAITS, draw, signal);
  draw();
  el.append(root);
  return () => { life.abort(); root.remove(); };
}

const EDGE = { left: 30, right: 24, top: 14, bottom: 42 }; // CSS pixels around the rows of tokens
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -Infinity, End: Infinity };

/** A row of tokens for the text and for each layer; lines lead from each token to those that it hears. */
function makeField({ onPick, onTurn, signal }) {
  const heading = element("figcaption", { class: "tl-heading" });
  const view = svg("svg", { class: "tl-field", role: "slider", tabindex: 0, "aria-valuemin": 0 });
  const names = [["reaches the chosen token", "output"], ["does not", "line"], ["global", "key"]];
  const legend = names.map(([text, hue]) => {
    const node = element("span", { class: hue === "key" && "tl-diamond" }, text);
    node.style.setProperty("--hue", `var(--${hue})`);
    return node;
  });
  const root = element("figure", {}, heading, view, element("div", { class: "tl-legend" }, ...legend));
  let [wide, shown, pointed] = [480, null, -1];

  const cell = () => (wide - EDGE.left - EDGE.right) / shown.state.n_tokens;
  const left = (token) => EDGE.left + (token + 0.5) * cell();
  const top = (below) => EDGE.top + below * (TALL - EDGE.top - EDGE.bottom) / shown.state.n_layers; // 0: the top row
  const label = (x, y, text, more = {}) => svg("text", { x, y, ...more }, text);

  function paint() {
    if (!shown) return;
    const { state, mask, rows } = shown;
    const { n_tokens: n, n_layers: nLayers, token, global_tokens: everywhere } = state;
    const [w, h] = [Math.max(cell() - Math.max(1, cell() * 0.2), 2), 11];
    const square = (place, below) => `M${left(place) - w / 2} ${top(below) - h / 2}h${w}v${h}h${-w}z`;
    const at = (below) => rows[Math.min(below, rows.length - 1)];
    const [on, off, lines] = [[], [], []];
    for (let below = 0; below <= nLayers; below++)
      at(below).forEach((has, t) => {
        (has ? on : off).push(square(t, below));
        if (!has || below === nLayers) return;
        const grows = below < rows.length - 1; // where nobody new is heard, lines would only hide each other
        mask[t].forEach((may, s) => {
          if (s === t || (may && grows)) lines.push(`M${left(t)} ${top(below)}L${left(s)} ${top(below + 1)}`);
        });
      });
    const every = [1, 2, 5, 10, 20].find((step) => step * cell() > 26);
    const low = TALL - EDGE.bottom;
    const marked = pointed < 0 ? token : pointed;
    const ticks = Array.from({ length: n }, (_, i) => i)
      .filter((i) => i === marked || (i % every === 0 && Math.abs(i - marked) * cell() > 20));
    const diamond = (place) => `M${left(place)} ${low + 8}l5 5l-5 5l-5 -5z`;
    view.replaceChildren(svg("g", { "aria-hidden": "true" },
      svg("rect", { class: "tl-band", x: left(token) - cell() / 2, width: cell(), y: 0, height: low + 8 }),
      svg("path", { class: "tl-off", d: off.join("") }),
      svg("path", { class: "tl-hears", d: lines.join("") }),
      svg("path", { class: "tl-in", d: on.join("") }),
      svg("path", { class: "tl-chosen", d: square(token, 0) }),
      svg("path", { class: "tl-global", d: everywhere.map(diamond).join("") }),
      ...Array.from({ length: nLayers + 1 }, (_, below) => [
        label(0, top(below) + 4, below === nLayers ? "text" : String(nLayers - below)),
        label(wide, top(below) + 4, String(count(at(below))), { "text-anchor": "end" }),
      ]).flat(),
      ...ticks.map((i) => label(left(i), TALL - 8, String(i), {
        "text-anchor": "middle", class: i === marked && "tl-on",
      }))));
  }
  function draw(state, mask, rows) {
    shown = { state, mask, rows };
    const { token, n_tokens: n, n_layers: nLayers, global_tokens: everywhere } = state;
    write(heading, `Who reaches token ${token} through ${layers(nLayers)}, and how many they are`);
    put(view, {
      "aria-label": "The chosen token; space makes it global", "aria-valuemax": n - 1, "aria-valuenow": token,
      "aria-valuetext": `token ${token}${everywhere.includes(token) ? ", global" : ""}`,
    });
    paint();
  }

  const sized = new ResizeObserver(([{ contentRect }]) => { // letters keep their size, tokens take the room there is
    if (contentRect.width && contentRect.width !== wide) { wide = contentRect.width; paint(); }
  });
  sized.observe(view);
  signal.addEventListener("abort", () => sized.disconnect(), { once: true });

  const clamp = (token) => Math.min(Math.max(token, 0), shown.state.n_tokens - 1);
  const listen = (type, handler) => view.addEventListener(type, handler, { signal });
  function under(event) { // which token, and whether in the row of the text
    const box = view.getBoundingClientRect();
    const token = clamp(Math.floor((event.clientX - box.left - EDGE.left) / cell()));
    return { token, inText: event.clientY - box.top > TALL - EDGE.bottom - 12 };
  }
  let [held, pressed] = [false, null]; // whether the hand moves the choice, and where it came down
  listen("pointerdown", (event) => {
    pressed = under(event);
    if (event.button !== 0 || pressed.inText) return;
    held = true;
    view.setPointerCapture(event.pointerId);
    onPick(pressed.token);
  });
  listen("pointermove", (event) => {
    const { token } = under(event);
    if (held && token !== shown.state.token) onPick(token);
    if (event.pointerType !== "mouse" || token === pointed) return;
    pointed = token;
    paint();
  });
  listen("pointerleave", () => { pointed = -1; paint(); });
  for (const type of ["pointerup", "pointercancel"]) listen(type, () => { held = false; });
  listen("click", (event) => {
    const { token, inText } = under(event);
    if (inText && pressed.inText && token === pressed.token) onTurn(token);
  });
  listen("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { token } = shown.state;
    const turns = event.key === " " || event.key === "Enter";
    if (!turns && !(event.key in STEPS)) return;
    event.preventDefault();
    if (turns) onTurn(token);
    else onPick(clamp(token + STEPS[event.key]));
  });
  return { root, draw };
}

/** The mask of one layer: a row for each query, a column for each key. */
function makeMask({ onPick, signal }) {
  const view = svg("svg", { class: "tl-mask", role: "img", preserveAspectRatio: "none" });
  const root = element("figure", {},
    element("figcaption", { class: "tl-heading" }, "One layer: the row hears the column"), view);
  let n = 1;
  function draw(state, mask) {
    n = state.n_tokens;
    const [near, far] = [[], []];
    mask.forEach((row, i) => row.forEach((may, j) => {
      const everywhere = state.global_tokens.includes(i) || state.global_tokens.includes(j);
      if (may) (everywhere ? far : near).push(`M${j + 0.08} ${i + 0.08}h.84v.84h-.84z`);
    }));
    put(view, { viewBox: `0 0 ${n} ${n}`, "aria-label": describeRow(state, mask[state.token]) });
    view.replaceChildren(
      svg("rect", { class: "tl-off", width: n, height: n }),
      svg("path", { class: "tl-in", d: near.join("") }), svg("path", { class: "tl-global", d: far.join("") }),
      svg("rect", { class: "tl-row", x: 0, y: state.token, width: n, height: 1 }));
  }
  view.addEventListener("click", (event) => {
    const box = view.getBoundingClientRect();
    onPick(Math.min(Math.max(Math.floor((event.clientY - box.top) / box.height * n), 0), n - 1));
  }, { signal });
  return { root, draw };
}

/** Whom one token hears in one layer. */
export function describeRow(state, row) {
  const places = row.flatMap((may, j) => (may ? [j] : []));
  return `The mask of one layer; its row of token ${state.token} lets through ${listed(places, state.dilation)}`;
}

export default { render };
