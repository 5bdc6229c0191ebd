// The button that asks for a trained model, and what became of the wish. traits (see _asset.py): asset_bytes,
// asset_wanted, asset_progress, asset_data.
import { afterPause, element, follow, write } from "./parts.js";

const LOADER_PATIENCE = 8000; // milliseconds

export const LOADER_LOOK = `
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

/** `words` say what there is to see. Returns { root }, hidden once the model is there. */
export function modelLoader({ model, words, signal }) {
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
  return { root };
}
