// Keeps the pages that a reader visited, for the train. Online, each comes fresh from its host: nobody is stuck with
// an old one. The build puts in a version, which changes with any file of the book, and the home page.
const KEPT = "transformer-lab {{ version }}";
const HOME = new URL("{{ home }}", registration.scope).href;
const SEARCH = new URL("search.html", registration.scope).href;
const PATIENCE = 4000; // milliseconds; then a page that is kept is shown at once

const isPage = (url) => new URL(url).pathname.endsWith(".html");

/** Fetches past the browser's own cache, where an older version may lie. */
async function keep(url) {
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  await (await caches.open(KEPT)).put(url, response);
}

/** A page with the scripts, styles and pictures that it names. */
async function keepWhole(url) {
  await keep(url);
  const text = await (await (await caches.open(KEPT)).match(url)).text();
  const named = [...text.matchAll(/<(?:script|link|img)\b[^>]*? (?:src|href)="([^"#]+)"/g)];
  const files = new Set(named.map(([, file]) => new URL(file, url).href).filter((file) => !isPage(file)));
  await Promise.all([...files].map(keep));
}

/** Of this version, or else of one that is not replaced yet; a page is the same whatever is searched for on it. */
async function kept(request) {
  const options = { ignoreSearch: isPage(request.url) };
  const now = await caches.open(KEPT);
  return (await now.match(request, options)) ?? caches.match(request, options);
}

async function online(request) {
  const response = await fetch(request);
  const name = isPage(request.url) ? request.url.split(/[?#]/)[0] : request.url;
  if (response.ok) await (await caches.open(KEPT)).put(name, response.clone());
  return response;
}

async function answer(request) {
  const frozen = new URL(request.url).searchParams.has("v"); // such a file never changes
  const own = frozen && await kept(request);
  if (own) return own;
  const load = online(request);
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE)).then(() => kept(request)).then((r) => r ?? load);
  try {
    return await Promise.race([load, late]);
  } catch (error) { // no network
    const old = await kept(request);
    if (old || request.mode !== "navigate") return old ?? Response.error();
    return new Response(`<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Not kept</title><main>
      <h1>This page is not on your device</h1><p>Pages that you have visited can be read without a network.
      This one was not among them. <a href="${HOME}">Home</a></p></main></html>`,
    { headers: { "Content-Type": "text/html" } });
  }
}

/** What older versions kept is fetched anew; without a network it stays as it was. */
async function renew() {
  for (const name of await caches.keys()) {
    if (name === KEPT || !name.startsWith("transformer-lab ")) continue;
    const urls = (await (await caches.open(name)).keys()).map(({ url }) => url);
    const wanted = urls.filter((url) => !url.includes("?v=")); // pages name the others
    const done = await Promise.allSettled(wanted.map((url) => (isPage(url) ? keepWhole(url) : keep(url))));
    if (!done.some(({ reason }) => reason instanceof TypeError)) await caches.delete(name);
  }
}

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(Promise.all([HOME, SEARCH].map(keepWhole)));
});
addEventListener("activate", (event) => event.waitUntil(clients.claim().then(renew)));
addEventListener("message", (event) => { // a page says what it is made of, fonts included
  event.waitUntil(Promise.allSettled(event.data.map(async (url) => {
    if (!await (await caches.open(KEPT)).match(url)) await keep(url);
  })));
});
addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(registration.scope)) event.respondWith(answer(event.request));
});
