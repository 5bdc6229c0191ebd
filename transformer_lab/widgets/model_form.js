// A form whose text a trained model reads, with the button that asks for the model. traits (see _asset.py): text,
// asset_bytes, asset_wanted, asset_progress, asset_data.
import { afterPause, element, follow, write } from "./parts.js";

const LOADER_PATIENCE = 8000; // milliseconds

export const FORM_LOOK = `
.tl-widget .tl-field {
  display: block; width: 100%; margin: .2rem 0; padding: .45rem .6rem;
  border: 1px solid var(--muted); border-radius: .4rem;
  background: var(--surface); color: var(--text); font: inherit; font-size: 1rem;
}
.tl-widget .tl-field[aria-invalid="true"] { border-color: var(--key); }
.tl-widget .tl-news { min-height: 1.5em; color: var(--muted); font-size: .875rem; }
.tl-widget :has(> [aria-invalid="true"]) + .tl-news { color: var(--key-text); }
.tl-widget .tl-choices { display: flex; flex-wrap: wrap; gap: .4rem; }
.tl-widget .tl-choices button { font-size: .8125rem; text-align: start; }
.tl-widget .tl-load {
  display: grid; gap: .7rem; justify-items: start; padding: .6rem .75rem; border-radius: .5rem;
  background: color-mix(in srgb, var(--query) 9%, transparent);
}
.tl-widget .tl-load[hidden] { display: none; }
.tl-widget .tl-load progress {
  width: 100%; max-width: 20rem; height: .5rem; accent-color: var(--query-text);
}
.tl-widget .tl-load progress[hidden] { display: none; }
.tl-widget .tl-load p:empty { position: absolute; }
`;

/**
 * A field for the trait `text`, examples to choose from, the button that loads the model, and a picture.
 *   field: an input or a textarea; label, hint: of the field; words: what there is to see, once it is loaded
 *   picture: { root }, hidden until then
 *   decode(asset_data) -> a reader; check(text, reader) throws an Error with one sentence for the person who typed
 *   draw(reader, text): what the picture shows; traits: the others on which that hangs
 * Returns { root, begin }: call begin once root has its place.
 */
export function modelForm({
  model, look, field, label, hint, words, examples = [], picture, decode, check, draw, traits = [], signal,
}) {
  const listen = (node, type, handler) => node.addEventListener(type, handler, { signal });
  field.classList.add("tl-field");
  for (const kind of ["autocomplete", "autocapitalize"]) field.setAttribute(kind, "off");
  field.setAttribute("spellcheck", "false");
  const news = element("p", { class: "tl-news", role: "status" }, hint); // the hint keeps the place for a fault
  const loader = modelLoader({ model, words, signal });
  const choices = examples.map((text) => {
    const button = element("button", { type: "button" }, text);
    listen(button, "click", () => { field.value = text; read(); });
    return button;
  });
  const root = element("form", { class: look }, // radio buttons group by form: several views do not mix
    element("div", {}, element("label", {}, label, field), news),
    ...(choices.length
      ? [element("div", { class: "tl-choices", role: "group", "aria-label": "Examples" }, ...choices)] : []),
    loader.root, picture.root);

  let reader = null; // the model, once its weights are here
  const complain = afterPause((sentence) => {
    write(news, sentence);
    field.setAttribute("aria-invalid", "true");
  }, 600, signal); // nobody likes to be corrected in the middle of a word

  function forgive() {
    complain.stop();
    write(news, hint);
    field.removeAttribute("aria-invalid");
  }
  function read() { // view -> model: only text that the model can read
    if (!reader) return;
    try {
      check(field.value, reader);
    } catch (error) {
      complain(error.message);
      return;
    }
    forgive();
    model.set("text", field.value);
    model.save_changes();
  }
  function show() { // model -> view, and never the other way
    const text = model.get("text");
    if (field.value !== text) field.value = text;
    if (!reader) return;
    forgive();
    draw(reader, text);
  }
  function receive() {
    const data = model.get("asset_data");
    if (!data || data.error) return;
    const typed = field.value;
    reader = decode(data);
    picture.root.hidden = false;
    show();
    field.value = typed;
    read();
  }
  listen(field, "input", read);
  listen(field, "keydown", (event) => {
    if (event.key !== "Enter" || field.tagName !== "TEXTAREA") return;
    event.preventDefault(); // one number, however long its line
    root.requestSubmit();
  });
  listen(root, "submit", (event) => { // the Enter key
    event.preventDefault();
    if (!reader) loader.button.click();
  });
  function begin() {
    follow(model, ["text", ...traits], show, signal);
    follow(model, ["asset_data"], receive, signal);
    show();
    receive();
  }
  return { root, begin };
}

/** `words` say what there is to see. Returns { root, button }; root is hidden once the model is there. */
function modelLoader({ model, words, signal }) {
  const size = `${Math.round(model.get("asset_bytes") / 1000)} KB`;
  const button = element("button", { type: "button", class: "tl-main" });
  const progress = element("progress", { "aria-label": "How much of the model is here", max: 1 });
  const news = element("p", { role: "status" });
  const root = element("div", { class: "tl-load" }, element("p", {}, words), button, progress, news);
  const lose = afterPause(() => {
    write(news, "No answer yet: in a notebook, run the cell above; on a slow connection, wait a little.");
    write(button, "Ask again");
    button.disabled = false;
  }, LOADER_PATIENCE, signal);

  button.addEventListener("click", () => {
    if (model.get("asset_wanted")) model.set("asset_wanted", false); // an old wish that nobody answered
    model.set("asset_wanted", true);
    model.save_changes();
    lose();
  }, { signal });
  function draw() {
    const [waiting, data] = [model.get("asset_wanted"), model.get("asset_data")];
    if (!waiting) lose.stop();
    root.hidden = Boolean(data && !data.error);
    button.disabled = waiting;
    progress.hidden = !waiting;
    progress.value = model.get("asset_progress");
    write(button, waiting ? "Loading…" : `Load the model (${size})`);
    write(news, (!waiting && data?.error) || "");
  }
  follow(model, ["asset_wanted", "asset_progress", "asset_data"], draw, signal);
  draw();
  return { root, button };
}
