// Ticks of solved exercises, kept in this browser only, and predictions that are answered in the page.
(() => {
  const KEY = "transformer-lab.exercises";
  const VERSION = 1;
  let solved = {}; // "attention.weighted_average" -> the day it was ticked
  let notice = "";

  // What cannot be read is put aside, not lost; where nothing can be kept, ticks last as long as the page.
  function load() {
    try {
      const text = localStorage.getItem(KEY);
      const kept = text === null ? { version: VERSION, solved: {} } : parsed(text);
      if (!kept) {
        localStorage.setItem(`${KEY}.aside-${Date.now()}`, text);
        localStorage.removeItem(KEY);
        notice = "Ticks that could not be read were put aside.";
      }
      solved = kept ? kept.solved : {};
    } catch {
      notice = "This browser keeps no ticks: they are gone when you leave the page.";
    }
  }

  function parsed(text) {
    try {
      const kept = JSON.parse(text);
      return kept?.version === VERSION && kept.solved?.constructor === Object ? kept : null;
    } catch {
      return null;
    }
  }

  function save() {
    try {
      localStorage.setItem(KEY, JSON.stringify({ version: VERSION, solved }));
    } catch {
      notice = "This browser keeps no ticks: they are gone when you leave the page.";
    }
  }

  function show() {
    for (const box of document.querySelectorAll(".tick input")) {
      box.checked = box.dataset.exercise in solved;
      box.closest("section").classList.toggle("solved", box.checked);
    }
    for (const place of document.querySelectorAll(".ticks")) {
      const keys = place.dataset.exercises.split(" ");
      const count = keys.filter((key) => key in solved).length;
      place.querySelector("progress").value = count;
      place.querySelector("span").textContent = `${count} of ${keys.length} solved.`;
    }
    document.querySelector(".notice").textContent = notice;
  }

  function tick(key, yes) {
    if (yes) solved[key] ??= new Date().toISOString().slice(0, 10);
    else delete solved[key];
    save();
    show();
  }

  // "8", "(2, 4, 3, 5)", "2,4,3,5" and "(True, False)" are read as Python reads them; anything else gives null.
  function value(text) {
    const inside = text.trim().replace(/^[([]|[)\]]$/g, "");
    const parts = inside.replace(/,\s*$/, "").split(",").map((part) => part.trim());
    if (parts.some((part) => !/^([-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|true|false)$/i.test(part))) return null;
    const values = parts.map((part) => (/^[tf]/i.test(part) ? /^t/i.test(part) : Number(part)));
    return /[,[]/.test(text) ? values : values[0];
  }

  const equal = (a, b) => Array.isArray(b)
    ? Array.isArray(a) && a.length === b.length && a.every((x, i) => equal(x, b[i]))
    : typeof b === "number" ? typeof a === "number" && Math.abs(a - b) <= 1e-3 * Math.abs(b) : a === b;

  function judge(about, given) {
    const sort = (x) => Array.isArray(x) ? "array" : typeof x;
    if (!given && given !== 0 || sort(given) !== sort(about.expected)) return [false, about.form];
    if (equal(given, about.expected)) return [true, about.right];
    return [false, about.wrong.find(([wrong]) => equal(given, wrong))?.[1] ?? about.otherwise];
  }

  function answerInPlace(form) {
    const about = JSON.parse(form.querySelector("script").textContent);
    const status = form.querySelector("[role=status]");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = new FormData(form).values().next().value ?? "";
      const isText = form.querySelector("[type=text]");
      const [right, sentence] = judge(about, isText ? value(given) : given);
      status.className = right ? "right" : "wrong";
      status.innerHTML = `<strong>${right ? "Passed" : "Not yet"}:</strong> ${sentence}`;
      if (right) tick(form.dataset.exercise, true);
    });
  }

  function forget(place) {
    const [button, question] = place.children;
    const ask = (open) => {
      question.hidden = !open;
      button.hidden = open;
      (open ? question.querySelector("[value=no]") : button).focus();
    };
    button.addEventListener("click", () => ask(true));
    question.addEventListener("click", (event) => {
      if (!event.target.value) return;
      if (event.target.value === "yes") {
        solved = {};
        save();
        show();
      }
      ask(false);
    });
  }

  load();
  show();
  for (const box of document.querySelectorAll(".tick input"))
    box.addEventListener("change", () => tick(box.dataset.exercise, box.checked));
  document.querySelectorAll(".prediction").forEach(answerInPlace);
  document.querySelectorAll(".forget").forEach(forget);
  addEventListener("storage", (event) => { // another tab
    if (event.key !== KEY && event.key !== null) return;
    load();
    show();
  });
})();
