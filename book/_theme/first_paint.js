// Before the first paint, so that no page flashes white at a reader who chose dark.
(() => {
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* storage is switched off: follow the system */ }
  const dark = kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.documentElement.classList.add("js");
})();
