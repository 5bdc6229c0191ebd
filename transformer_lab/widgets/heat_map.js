// A table of weights as colours: a row per query, a column per key; hover or arrow keys mark a cell. Other numbers than
// weights bring a `colour` of their own: colour(number) -> { fill, ink }.
import { cividis, element, write } from "./parts.js";

export const HEAT_MAP_LOOK = `
.tl-map { min-width: 0; }
.tl-map .tl-cells { display: grid; gap: 2px; margin-top: .25rem; }
.tl-map .tl-line {
  position: relative; display: grid; grid-template-columns: 3.7rem repeat(var(--columns), minmax(0, 2.6rem));
  gap: 2px; width: fit-content; border-radius: 3px;
}
.tl-map :is(.tl-row-name, .tl-column-name) {
  color: var(--query-text); font-size: .75rem; line-height: 1.2; white-space: nowrap;
}
.tl-map .tl-row-name { align-self: center; padding-right: .35rem; text-align: right; }
.tl-map .tl-column-name {
  justify-self: center; padding-top: .2rem; color: var(--key-text);
  writing-mode: vertical-rl; transform: rotate(180deg);
}
.tl-map .tl-cell {
  display: grid; place-items: center; height: 1.6rem; border-radius: 3px; font-size: .625rem;
  font-variant-numeric: tabular-nums; cursor: crosshair;
}
.tl-map .tl-line.tl-on { outline: 2px solid var(--query); }
.tl-map .tl-line.tl-on .tl-row-name, .tl-map .tl-column-name.tl-on { font-weight: 700; }
.tl-map .tl-cell.tl-in-column { box-shadow: inset 0 0 0 1px var(--key); }
.tl-map .tl-cell.tl-on { box-shadow: inset 0 0 0 2px var(--key); }
.tl-map:not(.tl-numbers) .tl-cell > span {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
}
`;

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * onPoint(row, column) when the reader points at a cell.
 * Returns { root, draw({ title, rows, columns, weights, numbers, colour }), mark(row, column) }; column -1 marks none.
 */
export function heatMap({ onPoint, signal }) {
  const heading = element("p", { class: "tl-heading" });
  const grid = element("div", { class: "tl-cells", role: "grid" });
  const root = element("div", { class: "tl-map" }, heading, grid);
  let [lines, cells, heads, cursor, labels] = [[], [], [], [0, 0], ""];

  function build(rows, columns) {
    heads = columns.map((name) => element("div", { class: "tl-column-name", role: "columnheader" }, name));
    cells = rows.map(() => columns.map(() =>
      element("div", { class: "tl-cell", role: "gridcell", tabindex: -1 }, element("span"))));
    lines = rows.map((name, r) => element("div", { class: "tl-line", role: "row" },
      element("div", { class: "tl-row-name", role: "rowheader" }, name), ...cells[r]));
    const corner = element("div", { role: "presentation" });
    grid.style.setProperty("--columns", columns.length);
    grid.replaceChildren(element("div", { class: "tl-line", role: "row" }, corner, ...heads), ...lines);
    setCursor(Math.min(cursor[0], rows.length - 1), Math.min(cursor[1], columns.length - 1));
  }

  function draw({ title, rows, columns, weights, numbers, colour = cividis }) {
    write(heading, title);
    grid.setAttribute("aria-label", title);
    root.classList.toggle("tl-numbers", numbers);
    const wanted = JSON.stringify([rows, columns]);
    if (wanted !== labels) build(rows, columns);
    labels = wanted;
    cells.forEach((line, r) => line.forEach((cell, c) => {
      const { fill, ink } = colour(weights[r][c]);
      Object.assign(cell.style, { background: fill, color: ink });
      write(cell.firstChild, weights[r][c].toFixed(2).replace(/^0|\.00$/, "")); // .25, and 1 for 1.00
    }));
  }

  function mark(row, column) {
    lines.forEach((line, r) => line.classList.toggle("tl-on", r === row));
    heads.forEach((head, c) => head.classList.toggle("tl-on", c === column));
    cells.forEach((line, r) => line.forEach((cell, c) => {
      cell.classList.toggle("tl-in-column", c === column);
      cell.classList.toggle("tl-on", r === row && c === column);
    }));
  }

  function setCursor(row, column) { // one cell is in the order of the tab key, the arrows do the rest
    cells[cursor[0]]?.[cursor[1]]?.setAttribute("tabindex", -1);
    cursor = [row, column];
    cells[row][column].setAttribute("tabindex", 0);
  }
  function placeOf(node) {
    const cell = node.closest?.(".tl-cell");
    const row = cells.findIndex((line) => line.includes(cell));
    return row < 0 ? null : [row, cells[row].indexOf(cell)];
  }
  function point(event) {
    const place = placeOf(event.target);
    if (!place) return;
    setCursor(...place);
    onPoint(...place);
  }
  for (const type of ["pointerover", "focusin", "click"]) grid.addEventListener(type, point, { signal });
  grid.addEventListener("keydown", (event) => {
    const step = MOVES[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    cells[cursor[0] + step[0]]?.[cursor[1] + step[1]]?.focus();
  }, { signal });
  return { root, draw, mark };
}
