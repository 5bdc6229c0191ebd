// Mounts the widgets that a page holds: from their own module and stored state, with no kernel and no other host.
// One model per widget, shared by its views. Works over http and from a file.
(() => {
  const folder = new URL(".", document.currentScript.src);

  const scripts = (kind) =>
    [...document.querySelectorAll(`script[type="application/vnd.jupyter.${kind}+json"]`)];

  class Model { // what a widget may ask of its host: get, set, on, off, save_changes
    #state;
    #handlers = new Map();
    constructor(state) { this.#state = state; }
    get(key) { return this.#state[key]; }
    set(key, value) {
      if (Object.is(this.#state[key], value)) return;
      this.#state[key] = value;
      for (const event of [`change:${key}`, "change"])
        for (const handler of [...(this.#handlers.get(event) ?? [])]) handler(this, value);
    }
    on(event, handler) {
      if (!this.#handlers.has(event)) this.#handlers.set(event, new Set());
      this.#handlers.get(event).add(handler);
    }
    off(event, handler) {
      if (handler) this.#handlers.get(event)?.delete(handler);
      else this.#handlers.delete(event);
    }
    save_changes() {} // there is no kernel to save to
  }

  /** A record of the stored state -> its state, with the binary values back in their places. */
  function stateOf({ state, buffers = [] }) {
    const whole = structuredClone(state);
    for (const { path, data } of buffers) {
      const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
      const place = path.slice(0, -1).reduce((node, key) => node[key], whole);
      place[path.at(-1)] = new DataView(bytes.buffer);
    }
    return whole;
  }

  // Trained weights are scripts, because a page opened from a file may fetch nothing else: parts of one JSON text,
  // each a call of `transformerLabAsset`. Every part says how many there are.
  const arrived = new Map(); // "name.part" -> { count, text }
  const asked = new Map(); // "name.part" -> promise of the same
  globalThis.transformerLabAsset = (name, part, count, text) => arrived.set(`${name}.${part}`, { count, text });

  function fetchPart(key) {
    if (!asked.has(key)) asked.set(key, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`models/${key}.js`, folder);
      script.onload = () => { script.remove(); resolve(arrived.get(key)); };
      script.onerror = () => { script.remove(); asked.delete(key); reject(); };
      document.head.append(script);
    }));
    return asked.get(key);
  }

  async function loadAsset(name, onProgress) {
    const first = await fetchPart(`${name}.0`);
    let here = 0;
    const report = (part) => { here += 1; onProgress(here / first.count); return part; };
    const numbers = [...Array(first.count).keys()];
    const parts = await Promise.all(numbers.map((i) => fetchPart(`${name}.${i}`).then(report)));
    return JSON.parse(parts.map(({ text }) => text).join(""));
  }

  /** Does what Python does in a notebook: answers a widget that asks for its trained weights. */
  function answerWishes(model) {
    model.on("change:asset_wanted", async () => {
      if (!model.get("asset_wanted")) return;
      try {
        const data = await loadAsset(model.get("asset"), (share) => model.set("asset_progress", share));
        model.set("asset_data", data);
      } catch {
        model.set("asset_data", { error: "The model could not be loaded: check the connection and try again." });
      }
      model.set("asset_wanted", false);
    });
  }

  const modules = new Map(); // text of a module -> promise of its default export
  function load(text) {
    if (!modules.has(text)) {
      const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
      modules.set(text, import(url)
        .then(({ default: widget }) => (typeof widget === "function" ? widget() : widget))
        .finally(() => URL.revokeObjectURL(url)));
    }
    return modules.get(text);
  }

  const views = []; // { place, end }: what stands in the page, and how to take it down

  /** Ends the views that are no longer in the page, and with its last view a model. */
  function tidy() {
    for (const view of views.filter(({ place }) => !place.isConnected)) {
      views.splice(views.indexOf(view), 1);
      view.end();
    }
  }

  async function begin(widget, record) {
    const model = new Model(stateOf(record));
    answerWishes(model);
    const end = await widget.initialize?.({ model });
    return { model, end, views: 0 };
  }

  async function mount(script, records, models) {
    const { model_id: id } = JSON.parse(script.textContent);
    const record = records[id];
    if (!record?.state?._esm) return; // not one of ours: what the page says there stays
    const place = document.createElement("div");
    script.before(place);
    try {
      const widget = await load(record.state._esm);
      if (!models.has(id)) models.set(id, begin(widget, record));
      const shared = await models.get(id);
      const end = await widget.render({ model: shared.model, el: place });
      shared.views += 1;
      views.push({ place, end: () => { end?.(); shared.views -= 1; if (!shared.views) shared.end?.(); } });
    } catch (error) { // one broken widget says so in its place and leaves the others alone
      place.textContent = `This widget could not start: ${error.message}`;
    }
  }

  function start() {
    const states = scripts("widget-state").map((script) => JSON.parse(script.textContent).state);
    const records = Object.assign({}, ...states);
    const models = new Map();
    for (const script of scripts("widget-view")) mount(script, records, models);
    new MutationObserver(tidy).observe(document.body, { childList: true, subtree: true });
  }
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
