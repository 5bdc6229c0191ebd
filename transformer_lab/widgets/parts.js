// What every widget is made of: elements, listeners that end together, one look, and words for screen readers.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes))
    if (value !== false && value != null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" }; // JupyterLab leaves the keys pressed in here alone

/** element("button", { type: "button" }, "Reset") */
export function element(tag, attributes = {}, ...children) {
  const own = tag === "input" ? OWN_KEYS : {}; // it asks sliders and radio buttons themselves, not what holds them
  return fill(document.createElement(tag), { ...own, ...attributes }, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The root of a widget. */
export function frame(label, ...children) {
  return element("div", { class: "tl-widget", role: "group", "aria-label": label, ...OWN_KEYS }, ...children);
}

/** Writes only what is new: drawing sixty times a second should not touch what stays. */
export function put(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    const text = String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Calls `draw` after a change of any of these traits, until the view ends. */
export function follow(model, traits, draw, signal) {
  const events = traits.map((trait) => `change:${trait}`);
  for (const event of events) model.on(event, draw);
  signal.addEventListener("abort", () => { for (const event of events) model.off(event, draw); }, { once: true });
}

/** `call(...)` runs `action` once the calls have paused for `delay` milliseconds. */
export function afterPause(action, delay, signal) {
  let timer;
  const stop = () => clearTimeout(timer);
  signal.addEventListener("abort", stop, { once: true });
  const call = (...values) => { stop(); timer = setTimeout(action, delay, ...values); };
  return Object.assign(call, { stop });
}

/** A polite live region: it says how things stand once they stand still, not at every step. */
export function announcer(signal) {
  const region = element("div", { class: "tl-spoken", role: "status" });
  const later = afterPause((text) => write(region, text), 600, signal);
  const say = (text) => (region.isConnected ? later(text) : write(region, text)); // no speech as the page opens
  return { region, say };
}

// matplotlib's cividis in twelve straight pieces: it never strays further than a hue that no eye can tell.
const CIVIDIS = "00224e 003170 2a3f6d 434e6c 575d6d 6a6c71 7d7c78 918b78 a59c74 bcae6c d2c060 e9d34e fee838"
  .split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

/** The colour of a weight from 0 to 1, and the ink that can be read on it. */
export function cividis(weight) {
  const place = Math.min(Math.max(weight, 0), 1) * (CIVIDIS.length - 1);
  const i = Math.min(Math.floor(place), CIVIDIS.length - 2);
  const channels = CIVIDIS[i].map((c, n) => Math.round(c + (place - i) * (CIVIDIS[i + 1][n] - c)));
  return { fill: `rgb(${channels.join(" ")})`, ink: weight < 0.465 ? "#fff" : "#000" };
}

const LIGHT = `
  --query: var(--tl-query, #0072B2); --query-text: var(--tl-query-text, #00619a);
  --key: var(--tl-key, #D55E00); --key-text: var(--tl-key-text, #a84a00);
  --value: var(--tl-value, #009E73); --value-text: var(--tl-value-text, #00755a);
  --output: var(--tl-output, #CC79A7); --output-text: var(--tl-output-text, #9c3f74);
  --text: var(--tl-text, #1b1f24); --muted: var(--tl-muted, #5b636d);
  --surface: var(--tl-surface, #ffffff); --line: var(--tl-line, #d6dade); color-scheme: light;`;

const DARK = `
  --query: var(--tl-query, #56B4E9); --query-text: var(--tl-query-text, #7cc5ef);
  --key: var(--tl-key, #F28E3C); --key-text: var(--tl-key-text, #f7a765);
  --value: var(--tl-value, #2BC39A); --value-text: var(--tl-value-text, #4fd3af);
  --output: var(--tl-output, #E29CC4); --output-text: var(--tl-output-text, #ecb5d3);
  --text: var(--tl-text, #e6e8eb); --muted: var(--tl-muted, #a4acb6);
  --surface: var(--tl-surface, #181b20); --line: var(--tl-line, #3a4048); color-scheme: dark;`;

// The book sets --tl-*; elsewhere the fallbacks hold. Dark as the host says (the book, JupyterLab, Colab), or else
// as the system does.
const BASE_LOOK = `
.tl-widget { ${LIGHT} }
@media (prefers-color-scheme: dark) {
  html:not([data-theme], [theme]) body:not([data-jp-theme-light]) .tl-widget { ${DARK} }
}
html:is([data-theme="dark"], [theme="dark"]) .tl-widget, body[data-jp-theme-light="false"] .tl-widget { ${DARK} }

.tl-widget {
  box-sizing: border-box; container-type: inline-size; max-width: 56rem; margin: 1rem 0; padding: 1rem;
  border: 1px solid var(--line); border-radius: .75rem; background: var(--surface); color: var(--text);
  font: .9375rem/1.5 var(--tl-font, system-ui, sans-serif); text-align: start;
}
.tl-widget *, .tl-widget *::before { box-sizing: border-box; }
.tl-widget :is(p, ul, figcaption) { max-width: none; margin: 0; }
.tl-widget :focus { outline: none; }
.tl-widget :focus-visible { outline: 3px solid var(--query); outline-offset: 2px; }
.tl-widget button {
  min-height: 2.25rem; margin: 0; padding: .25rem .8rem; border-radius: 1.125rem;
  border: 1px solid color-mix(in srgb, var(--text) 30%, transparent);
  background: none; color: var(--text); font: inherit; line-height: 1.3; cursor: pointer;
}
.tl-widget button:hover { border-color: var(--query); color: var(--query-text); }
.tl-widget button.tl-main { border-color: var(--query-text); background: var(--query-text); color: var(--surface); }
.tl-widget button.tl-main:hover { filter: brightness(1.1); }
.tl-widget input[type="range"], .tl-widget input[type="checkbox"], .tl-widget input[type="radio"] {
  margin: 0; accent-color: var(--query-text);
}
.tl-widget .tl-heading { margin: 0; color: var(--muted); font-size: .8125rem; font-weight: 600; }
.tl-widget .tl-number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.tl-widget .tl-spoken {
  position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap;
}`;

/**
 * Wears the common look and the widget's own for as long as the view lives. Another widget's sheet may follow: who
 * overrides the vocabulary's rules is more specific than they are.
 */
export function wear(own, signal) {
  const sheet = new CSSStyleSheet(); // not a <style> element, which a strict Content-Security-Policy refuses
  sheet.replaceSync(BASE_LOOK + own);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  signal.addEventListener("abort", () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
  }, { once: true });
}
