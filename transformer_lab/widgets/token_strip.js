// Words in a row, each lit by a weight; the reader points at one, by hand or with the arrow keys.
import { cividis, element, put, write } from "./parts.js";

export const TOKEN_STRIP_LOOK = `
.tl-widget .tl-strip { display: flex; flex-wrap: wrap; gap: .3rem; }
.tl-widget .tl-strip > div {
  display: grid; justify-items: center; min-width: 2.6rem; padding: .25rem .4rem; border-radius: .4rem;
  line-height: 1.25; cursor: pointer;
}
.tl-widget .tl-strip small { font-size: .75rem; font-variant-numeric: tabular-nums; }
.tl-widget .tl-strip [aria-selected="true"] { outline: 2px solid var(--query); outline-offset: 1px; }
.tl-widget .tl-strip :focus-visible { outline: 3px solid var(--query); outline-offset: 2px; }
`;

const STRIP_STEPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };

/** onPoint(index) at a word. Returns { root, draw(words, weights, chosen) }; chosen -1 marks none. */
export function tokenStrip({ title, onPoint, signal }) {
  const names = { role: "listbox", "aria-label": title, "aria-orientation": "horizontal" };
  const root = element("div", { class: "tl-strip", ...names });
  const indexOf = (node) => [...root.children].indexOf(node.closest(".tl-strip > div"));
  const setCursor = (index) => { // one word is in the order of the tab key, the arrows do the rest
    [...root.children].forEach((item, i) => put(item, { tabindex: i === index ? 0 : -1 }));
  };
  function point({ target }) {
    const index = indexOf(target);
    if (index < 0) return;
    setCursor(index);
    onPoint(index);
  }
  for (const type of ["pointerover", "click", "focusin"]) root.addEventListener(type, point, { signal });
  root.addEventListener("keydown", (event) => {
    const step = STRIP_STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const last = root.children.length - 1;
    root.children[Math.min(Math.max(indexOf(event.target) + step, 0), last)].focus();
  }, { signal });

  function draw(words, weights, chosen) {
    while (root.children.length > words.length) root.lastChild.remove();
    while (root.children.length < words.length)
      root.append(element("div", { role: "option", tabindex: -1 }, element("span"), element("small")));
    [...root.children].forEach((item, i) => {
      const { fill, ink } = cividis(weights[i]);
      Object.assign(item.style, { background: fill, color: ink });
      put(item, { "aria-selected": i === chosen });
      write(item.firstChild, words[i]);
      write(item.lastChild, weights[i].toFixed(2));
    });
    if (!root.querySelector('[tabindex="0"]')) setCursor(0);
  }
  return { root, draw };
}
