// What a page does besides being read: theme, menu, copying code, knowing where you are.
(() => {
  const root = document.documentElement;

  function themeToggle() {
    const button = document.getElementById("theme-toggle");
    const show = () => button.setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
    button.addEventListener("click", () => {
      root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, but done */ }
      show();
    });
    show();
    button.hidden = false;
  }

  function menuToggle() {
    const button = document.getElementById("menu-toggle");
    const menu = document.getElementById("menu");
    const open = (yes) => {
      menu.classList.toggle("open", yes);
      button.setAttribute("aria-expanded", String(yes));
    };
    button.addEventListener("click", () => open(!menu.classList.contains("open")));
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      open(false);
      button.focus();
    });
  }

  function copyButton(block) {
    const button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy this code");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("pre").textContent.trimEnd());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }

  // What scrolls sideways must be reachable by keyboard; what does not must not be a stop on the way.
  function reachable() {
    const boxes = [...document.querySelectorAll("pre, .scroll, .output.text_html, .tag_wide .cell_output")];
    const wide = boxes.map((box) => box.scrollWidth > box.clientWidth); // all reads, then all writes: one layout
    boxes.forEach((box, i) => {
      if (wide[i]) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
  }

  // Sections out of sight rest: no step of a widget lays them out or paints them again, so that a long chapter moves as
  // lightly as a short one. Each keeps the height that it was measured to have, so that nothing jumps.
  function rest() {
    const sections = [...document.querySelectorAll("main > section > section")];
    for (const section of sections) section.classList.remove("rests");
    const heights = sections.map((section) => section.offsetHeight);
    sections.forEach((section, i) => {
      section.style.containIntrinsicBlockSize = `auto ${heights[i]}px`;
      section.classList.add("rests");
    });
  }

  // When the list is longer than the window. scrollIntoView() would also move where the Tab key goes on from.
  function bringIntoSight(link, box) {
    const [inner, outer] = [link, box].map((element) => element.getBoundingClientRect());
    box.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
  }

  function followReader() {
    const rail = document.querySelector(".rail");
    const links = new Map(
      [...document.querySelectorAll(".rail a[href^='#']")].map((a) => [decodeURIComponent(a.hash.slice(1)), a]),
    );
    // Only the section that is being read is looked into: the others may not have been laid out yet.
    const last = (sections) =>
      [...sections].filter((section) => section.getBoundingClientRect().top < innerHeight / 3).at(-1);
    const show = () => {
      const section = last(document.querySelectorAll("main > section > section"));
      const inner = section && last(section.querySelectorAll("section"));
      for (const link of links.values()) link.removeAttribute("aria-current");
      const here = links.get(inner?.id) ?? links.get(section?.id);
      here?.setAttribute("aria-current", "location");
      if (here) bringIntoSight(here, rail);
    };
    addEventListener("scroll", show, { passive: true });
    show();
  }

  // The book can be installed, and pages that were visited read without a network; but nothing is kept of a book
  // that is being written: on an author's own machine, or opened from a file.
  async function keepForTheTrain() {
    if (!navigator.serviceWorker || /^(localhost|127\.0\.0\.1|\[::1\]|)$/.test(location.hostname)) return;
    const at = (name) => new URL(root.dataset.content_root + name, location.href).href;
    const manifest = { rel: "manifest", href: at("manifest.webmanifest") };
    document.head.append(Object.assign(document.createElement("link"), manifest));
    await navigator.serviceWorker.register(at("service-worker.js"));
    const { active } = await navigator.serviceWorker.ready;
    const page = location.href.split(/[?#]/)[0];
    const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
    const pictures = [...document.images].map(({ src }) => src); // those that wait for the reader, too
    const own = [page, ...loaded, ...pictures].filter((url) => url.startsWith(location.origin));
    active.postMessage([...new Set(own)]);
  }

  themeToggle();
  menuToggle();
  if (navigator.clipboard) // browsers offer it on secure pages only
    document.querySelectorAll(".highlight").forEach((block) => {
      if (!block.closest(".cell_output")) copyButton(block);
    });
  addEventListener("load", () => requestAnimationFrame(() => setTimeout(() => { // what measures, after the first paint
    reachable();
    document.fonts.ready.then(rest);
    addEventListener("resize", () => { reachable(); rest(); });
    followReader();
    keepForTheTrain();
  })));
})();
