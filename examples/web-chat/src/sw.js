// Keeps the page itself for use without a connection: all files of one build, from the first visit on. Models are kept by
// kiln-runtime. `vite.config.js` fills in the two constants, so that each build is another service worker.
const VERSION = '__VERSION__';
const FILES = JSON.parse('__FILES__');

const scope = self.registration.scope;
const PREFIX = `kiln-chat ${scope} `;
const CACHE = PREFIX + VERSION;
/** Names of files below it change with their content. */
const ASSETS = new URL('assets/', scope).href;
const kept = new Set(FILES.map((file) => new URL(file, scope).href));

self.addEventListener('install', (event) => event.waitUntil(keepAll()));
self.addEventListener('activate', (event) => event.waitUntil(takeOver()));
self.addEventListener('fetch', (event) => {
  const { request } = event;
  // The page is one, whatever its address says after the path.
  const url = request.mode === 'navigate' ? scope : request.url;
  if (request.method === 'GET' && kept.has(url)) event.respondWith(answer(request, url));
});

async function keepAll() {
  const cache = await caches.open(CACHE);
  // The browser's own cache may have an older page.
  await cache.addAll([...kept].map((url) => new Request(url, { cache: url.startsWith(ASSETS) ? 'default' : 'reload' })));
}

/** An earlier build's pages are closed by now: what it kept goes. */
async function takeOver() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)));
  await self.clients.claim();
}

/** Assets as they are kept; the page and its list of models as new as can be had. */
async function answer(request, url) {
  const cache = await caches.open(CACHE);
  if (url.startsWith(ASSETS)) return (await cache.match(url)) ?? fetch(request);
  try {
    return await fetch(request);
  } catch (error) {
    const found = await cache.match(url);
    if (found) return found;
    throw error;
  }
}
