// The table of claims: order by a column, sift by words, verdict and experiment. What is sifted stands in the address.
(() => {
  const table = document.querySelector("table.claims");
  const form = document.querySelector(".claims-controls");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const verdicts = [...form.elements.verdict.options].map((option) => option.value);
  const SORTED = [0, 2, 3]; // the statements themselves have no order
  let column = 0;
  let down = false;

  // What a row is ordered by in each column; equal ones stay in the order of the article.
  const place = new Map(rows.map((row, i) => [row, i]));
  const measured = (row) => row.cells[3].querySelectorAll("li").length;
  const key = (row) => [place.get(row), 0, verdicts.indexOf(row.dataset.verdict), -measured(row)][column];

  function sort(by, turned) {
    column = by;
    down = turned;
    const sign = down ? -1 : 1;
    body.append(...[...rows].sort((a, b) => sign * (key(a) - key(b)) || place.get(a) - place.get(b)));
    heads.forEach((head, i) => {
      if (!SORTED.includes(i)) return;
      if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    form.elements.order.value = String(column);
  }

  function sift() {
    const { words, verdict, measured: only, worst } = form.elements;
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(
        wanted.every((word) => text.includes(word)) &&
        (!verdict.value || row.dataset.verdict === verdict.value) &&
        (!only.checked || measured(row) > 0) &&
        (!worst.checked || row.dataset.damage)
      );
      shown += !row.hidden;
    }
    form.querySelector("[role=status]").textContent =
      shown === rows.length ? `All ${rows.length} claims are shown.` : `${shown} of ${rows.length} claims are shown.`;
  }

  function remember() {
    const { words, verdict, measured: only, worst } = form.elements;
    const given = new URLSearchParams();
    if (words.value) given.set("words", words.value);
    if (verdict.value) given.set("verdict", verdict.value);
    if (only.checked) given.set("measured", "yes");
    if (worst.checked) given.set("worst", "yes");
    const text = String(given);
    try {
      history.replaceState(null, "", `${location.pathname}${text && `?${text}`}${location.hash}`);
    } catch { /* a page from a file may refuse: the filter works all the same */ }
  }

  function recall() {
    const given = new URLSearchParams(location.search);
    const { words, verdict, measured: only, worst } = form.elements;
    words.value = given.get("words") ?? "";
    verdict.value = verdicts.includes(given.get("verdict")) ? given.get("verdict") : "";
    only.checked = given.has("measured");
    worst.checked = given.has("worst");
  }

  for (const i of SORTED) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heads[i].childNodes);
    button.addEventListener("click", () => sort(i, i === column && !down));
    heads[i].append(button);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "order") sort(Number(event.target.value), false);
    else {
      sift();
      remember();
    }
  });
  form.addEventListener("reset", () => {
    setTimeout(() => { // after the fields have been emptied
      sort(0, false);
      sift();
      remember();
    });
  });

  recall();
  sort(0, false);
  sift();
  // A link to a claim shows it, whatever is sifted.
  const target = () => {
    const row = /^#c\d\d$/.test(location.hash) && document.querySelector(location.hash);
    if (row?.hidden) form.reset();
  };
  addEventListener("hashchange", target);
  target();
})();
