// The controls of every widget: slider, stepper, toggle, choice. Each has its label beside it, is moved by keyboard
// and thumb, and says its value in words. `draw(value)` shows a value; what the reader does comes by `onInput(value)`.
import { element, put, write } from "./parts.js";

export const CONTROLS_LOOK = `
.tl-widget .tl-controls { display: flex; min-width: 0; flex-wrap: wrap; gap: .3rem 1.6rem; align-items: center; }
.tl-widget :is(.tl-slider, .tl-stepper, .tl-toggle) {
  display: inline-flex; gap: .6rem; align-items: center; min-height: 2.25rem;
}
.tl-widget .tl-slider { flex: 1 1 17rem; min-width: 0; max-width: 30rem; white-space: nowrap; }
.tl-widget .tl-slider input { flex: 1; min-width: 0; height: 2.25rem; }
.tl-widget .tl-stepper button { width: 2.25rem; padding: 0; font-size: 1.125rem; }
.tl-widget .tl-stepper [role="spinbutton"] {
  min-width: 3.5rem; padding: .1rem .3rem; border-radius: .4rem; font-weight: 600; text-align: center;
}
.tl-widget .tl-toggle { cursor: pointer; }
.tl-widget .tl-toggle input {
  position: relative; flex: none; width: 2.25rem; height: 1.25rem; appearance: none; cursor: pointer;
  border: 1px solid var(--muted); border-radius: 1rem; background: none;
}
.tl-widget .tl-toggle input::before {
  content: ""; position: absolute; inset: 2px auto 2px 2px; aspect-ratio: 1; border-radius: 50%;
  background: var(--muted);
}
.tl-widget .tl-toggle input:checked { border-color: var(--query-text); background: var(--query-text); }
.tl-widget .tl-toggle input:checked::before { background: var(--surface); transform: translateX(1rem); }
.tl-widget .tl-choice { min-width: 0; margin: 0; padding: 0; border: 0; }
.tl-widget .tl-choice legend {
  float: left; margin: 0 .7rem 0 0; padding: 0; color: var(--muted); font-size: inherit; line-height: 2.25rem;
}
.tl-widget .tl-choice label {
  display: inline-flex; gap: .35rem; align-items: center; min-height: 2.25rem; margin-right: .8rem;
}
@media (prefers-reduced-motion: no-preference) {
  .tl-widget .tl-toggle input::before { transition: transform .12s; }
}
`;

/** `say(value)` words the value; `onRelease` when the hand lets go. */
export function slider({ label, min, max, step, say, onInput, onRelease, signal }) {
  const input = element("input", { type: "range", min, max, step });
  const words = element("span", { class: "tl-number", "aria-hidden": "true" }); // the slider itself says it
  const root = element("label", { class: "tl-slider" }, label, input, words);
  input.addEventListener("input", () => onInput(Number(input.value)), { signal });
  input.addEventListener("change", () => onRelease?.(), { signal });
  function draw(value) {
    input.value = value;
    put(input, { "aria-valuetext": say(value) });
    write(words, say(value));
  }
  return { root, draw };
}

/** One of a few `values`, from small to large: buttons for less and more, and the arrow keys between them. */
export function stepper({ label, values, say = String, onInput, signal }) {
  let index = 0;
  const button = (sign, word, step) => { // for pointers: the keyboard has the number itself
    const node = element("button", { type: "button", tabindex: -1, "aria-label": `${label}: ${word}` }, sign);
    node.addEventListener("click", () => go(index + step), { signal });
    return node;
  };
  const number = element("span", { role: "spinbutton", tabindex: 0, "aria-label": label, class: "tl-number" });
  const [less, more] = [button("−", "less", -1), button("+", "more", 1)];
  const name = element("span", { "aria-hidden": "true" }, label);
  const root = element("div", { class: "tl-stepper" }, name, less, number, more);
  const keys = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

  function go(wanted) {
    const next = Math.min(Math.max(wanted, 0), values.length - 1);
    if (next !== index) onInput(values[next]);
  }
  number.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(index + keys[event.key]);
  }, { signal });
  function draw(value) {
    index = values.indexOf(value);
    put(number, {
      "aria-valuenow": value, "aria-valuetext": say(value), "aria-valuemin": values[0], "aria-valuemax": values.at(-1),
    });
    write(number, say(value));
    less.disabled = index === 0;
    more.disabled = index === values.length - 1;
  }
  return { root, draw };
}

/** Something that is on or off. */
export function toggle({ label, onInput, signal }) {
  const input = element("input", { type: "checkbox", role: "switch" });
  const root = element("label", { class: "tl-toggle" }, input, label);
  input.addEventListener("input", () => onInput(input.checked), { signal });
  return { root, draw: (on) => { input.checked = on; } };
}

/** One of a few words, `options` as [value, label]; they may be offered later. */
export function choice({ label, name, options = [], onInput, signal }) {
  const root = element("fieldset", { class: "tl-choice" }, element("legend", {}, label));
  const inputs = new Map();
  function offer(list) {
    for (const [value, text] of list) {
      const input = element("input", { type: "radio", name, value });
      inputs.set(value, input);
      root.append(element("label", {}, input, text));
    }
  }
  root.addEventListener("input", ({ target }) => onInput(target.value), { signal });
  offer(options);
  return { root, offer, draw: (value) => { inputs.get(value).checked = true; } };
}
