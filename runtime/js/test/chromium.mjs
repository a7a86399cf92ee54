// node chromium.mjs MODE EXPECTED.json TOY BIG [CASES]: the cases in headless Chromium, and what only a browser has; with CASES
// only those cases whose names contain it.
// Exit code 1: some failed.
import { readFileSync } from 'node:fs';
import { launch } from './browser.mjs';
import { equal, makeCheck } from './common.mjs';
import { serve } from './server.mjs';

const [mode, expectedFile, toy, big, only] = process.argv.slice(2);
const root = new URL('../../../', import.meta.url).pathname;
const expected = JSON.parse(readFileSync(expectedFile));
const bundles = { toy, big };
let server = await serve(root, bundles);
const browser = await launch(mode);
const { context } = browser;
const { check, failures } = makeCheck(`chromium (${mode})`, { logs: browser.logs, skip: (name) => only && name !== 'all cases in a page' });

async function open(query = '') {
  const page = await context.newPage();
  await page.goto(`${server.url}/runtime/js/test/page.html${query}`);
  await page.waitForFunction(() => globalThis.runAll);
  return page;
}

/** Greedy ids of the toy in a page. */
const greedy = (page, options = {}) =>
  page.evaluate(
    async ({ source, expected, options }) => {
      const model = await kiln.loadModel(source, options);
      const { ids } = await model.generate(expected.prompt, { temperature: 0, maxTokens: expected.ids.length }).result;
      const { cachedBytes, weightBytes } = model.report;
      model.dispose();
      return { ids, cachedBytes, weightBytes };
    },
    { source: `${server.url}/bundles/toy/`, expected, options },
  );

const control = (change) => fetch(`${server.url}/control`, { method: 'POST', body: JSON.stringify(change) });

// The page, all by itself under `script-src 'self' 'wasm-unsafe-eval'`.
const page = await open();
page.on('console', (message) => message.type() === 'log' && !only && console.log(`       ${message.text()}`));
await check('all cases in a page', async () => {
  const results = await page.evaluate((options) => runAll(options), { base: server.url, expected, cache: 'cache-api', only });
  const failed = results.filter(({ error }) => error);
  if (failed.length > 0) throw new Error(failed.map(({ name, error }) => `${name}: ${error}`).join('\n'));
  const note = results.map((result) => result.note).filter(Boolean).join('; ');
  // Chromium falls back to SwiftShader where it does not take lavapipe.
  if (mode === 'lavapipe' && !note.includes('f16')) throw new Error(`this is not lavapipe: ${note}`);
  return `${results.length} cases; ${note}`;
});

await check('the origin private file system as the cache', async () => {
  equal((await greedy(page, { cache: 'opfs' })).ids, expected.ids);
  const again = await greedy(page, { cache: 'opfs' });
  equal(again.ids, expected.ids);
  if (again.cachedBytes < again.weightBytes) throw new Error(`${again.cachedBytes} of ${again.weightBytes} bytes from the cache`);
});

await check('a worker: progress, tokens, abort, completions', async () => {
  const found = await page.evaluate(
    async ({ source, expected }) => {
      const seen = [];
      const model = await kilnWorker.loadModelInWorker(source, { progress: (progress) => seen.push(progress.totalLoaded) });
      const { ids } = await model.generate(expected.prompt, { temperature: 0, maxTokens: expected.ids.length }).result;
      const abort = new AbortController();
      let aborted;
      let tokens = 0;
      try {
        for await (const _ of model.generate(expected.prompt, { temperature: 0, maxTokens: 200, signal: abort.signal })) if (++tokens === 2) abort.abort();
      } catch (error) {
        aborted = error.name;
      }
      const refused = await model.generate([1e6]).result.catch((error) => error.code);
      const text = await model.chat.completions.create({ messages: [{ role: 'user', content: 'hi' }] }).catch((error) => error.code);
      const again = (await model.session({ context: 64 }).generate(expected.prompt, { temperature: 0, maxTokens: 4 }).result).ids;
      const session = model.session();
      session.note = 'a note';
      const [first, rest] = [expected.ids.slice(0, 8), expected.ids.slice(8, 16)];
      await session.generate(expected.prompt, { temperature: 0, maxTokens: 8 }).result;
      const bytes = new Uint8Array(await new Response(await session.save()).arrayBuffer());
      const restored = await model.restoreSession(new Blob([bytes]));
      const next = await restored.generate([...expected.prompt, ...first], { temperature: 0, maxTokens: 8 }).result;
      const goneOn = { same: JSON.stringify(next.ids) === JSON.stringify(rest), fed: next.usage.promptTokens - next.usage.cachedTokens, note: restored.note };
      const cut = await model.restoreSession(bytes.subarray(0, -1)).catch((error) => error.details.fault);
      const broken = await model.restoreSession(new ReadableStream({ pull: (controller) => controller.error(new RangeError('mine')) })).catch((error) => error.message);
      const halfRead = await session.save();
      await halfRead.cancel();
      await session.reset();
      const { allocated } = await model.memory();
      await model.dispose();
      const missing = await kilnWorker.loadModelInWorker(new URL('nothing/', source)).catch((error) => error.code);
      return { ids, aborted, refused, text, again, goneOn, cut, broken, progress: seen.length > 0, allocated: allocated > 1e6, missing, tokens: tokens < 30 };
    },
    { source: `${server.url}/bundles/toy/`, expected },
  );
  equal(found, { ids: expected.ids, aborted: 'AbortError', refused: 'usage', text: 'no-text', again: expected.ids.slice(0, 4), goneOn: { same: true, fed: 1, note: 'a note' }, cut: 'damaged', broken: 'mine', progress: true, allocated: true, missing: 'not-found', tokens: true });
});

await check('a WebAssembly module or a worker that is forbidden or missing', async () => {
  const source = `${server.url}/bundles/toy/`;
  const refusal = async (query, options) => {
    const other = await open(query);
    const message = await other.evaluate(([source, options]) => kiln.loadModel(source, options).then(() => 'loaded', (error) => `${error.code}: ${error.message}`), [source, options]);
    await other.close();
    return message;
  };
  const wanted = {
    'wasm-unsafe-eval': await refusal('?no-wasm', {}),
    '404 Not Found': await refusal('', { wasm: '/nothing.wasm' }),
    'a web page': await refusal('', { wasm: '/runtime/js/test/page.html' }),
  };
  for (const [words, message] of Object.entries(wanted)) if (!message.startsWith('wasm: ') || !message.includes(words)) throw new Error(message);
  const code = await page.evaluate((source) => kilnWorker.loadModelInWorker(source, { worker: new Worker('/nothing.js', { type: 'module' }) }).catch((error) => error.code), source);
  equal(code, 'worker');
  return Object.values(wanted).join(' | ');
});

await check('two tabs at once download once, and one goes on when the other is closed', async () => {
  const other = await open();
  const clear = () => page.evaluate(async (sources) => Promise.all(sources.map((source) => new kiln.Registry().clear(source))), [`${server.url}/bundles/toy/`, `${server.url}/bundles/big/`]);
  const shardRequests = async () => Object.entries(await (await control({ counts: {} })).json()).filter(([path]) => path.endsWith('.safetensors'));
  await clear();
  await shardRequests();
  const both = await Promise.all([greedy(page), greedy(other)]);
  for (const { ids } of both) equal(ids, expected.ids);
  equal((await shardRequests()).map(([, count]) => count), [1], 'requests of the shard');

  // A slow server: the second page follows the first, and tells how far that is.
  const load = async (source) => {
    globalThis.told = 0;
    const model = await kiln.loadModel(source, { progress: ({ totalLoaded }) => (globalThis.told = totalLoaded) });
    model.dispose();
    return model.report.cachedBytes;
  };
  const slow = `${server.url}/slow/big/`;
  const told = async (tab, bytes) => tab.waitForFunction((bytes) => globalThis.told >= bytes, bytes, { timeout: 60000 });
  const loading = [page, other].map((tab) => tab.evaluate(load, slow));
  await Promise.all([told(page, 5e6), told(other, 4e6)]);
  const cached = await Promise.all(loading);
  equal((await shardRequests()).map(([, count]) => count), [1], 'requests of the slow shard');
  const size = await page.evaluate((source) => new kiln.Registry().totalSize(source), slow);
  equal(cached.sort((a, b) => a - b), [0, size], 'bytes from the cache');

  await clear();
  const closed = other.evaluate(load, slow).catch(() => 'closed');
  await told(other, 1e6);
  const follows = page.evaluate(load, slow);
  await new Promise((resolve) => setTimeout(resolve, 500));
  equal((await shardRequests()).map(([, count]) => count), [1], 'requests while one page waits');
  await other.close();
  await follows;
  equal(await closed, 'closed');
  equal((await shardRequests()).map(([, count]) => count), [1], 'requests of the page that was left');
});

await check('a service worker', async () => {
  const found = await page.evaluate(
    async ({ source, expected }) => {
      const registration = await navigator.serviceWorker.register('/runtime/js/test/service-worker.mjs', { type: 'module' });
      const worker = registration.active ?? registration.installing ?? registration.waiting;
      await new Promise((resolve) => (worker.state === 'activated' ? resolve() : worker.addEventListener('statechange', () => worker.state === 'activated' && resolve())));
      const { port1, port2 } = new MessageChannel();
      const answer = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
      worker.postMessage({ source, prompt: expected.prompt, maxTokens: expected.ids.length }, [port2]);
      const result = await answer;
      await registration.unregister();
      return result;
    },
    { source: `${server.url}/bundles/toy/`, expected },
  );
  equal(found, { ids: expected.ids });
});

await check('a download goes on after its page was closed', async () => {
  const first = await open();
  await first.evaluate((source) => new kiln.Registry().clear(source), `${server.url}/bundles/big/`);
  await control({ healed: false });
  await first.evaluate((source) => void kiln.loadModel(source).catch(() => {}), `${server.url}/slow/big/`);
  const kept = () => page.evaluate(async (source) => (await new kiln.Registry().files(source))[0].cachedBytes, `${server.url}/bundles/big/`);
  for (let waited = 0; (await kept()) === 0 && waited < 300; waited++) await new Promise((resolve) => setTimeout(resolve, 100));
  await first.close();
  const before = await kept();
  if (before === 0) throw new Error('nothing was kept');
  const cached = await page.evaluate(async (source) => {
    const model = await kiln.loadModel(source);
    model.dispose();
    return model.report.cachedBytes;
  }, `${server.url}/bundles/big/`);
  equal(cached, before);
});

await check('a full storage is told as such', async () => {
  const session = await context.newCDPSession(page);
  await page.evaluate((source) => new kiln.Registry().clear(source), `${server.url}/bundles/big/`);
  await session.send('Storage.overrideQuotaForOrigin', { origin: server.url, quotaSize: 2e6 });
  const code = await page.evaluate((source) => kiln.loadModel(source).then(() => 'loaded', (error) => error.code), `${server.url}/bundles/big/`);
  await session.send('Storage.overrideQuotaForOrigin', { origin: server.url });
  equal(code, 'quota');
});

await check('JavaScript takes little memory while weights stream', async () => {
  const mebibytes = await page.evaluate(async (source) => {
    await new kiln.Registry().clear(source);
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, performance.memory.usedJSHeapSize)), 5);
    const model = await kiln.loadModel(source);
    clearInterval(watch);
    model.dispose();
    return most / 2 ** 20;
  }, `${server.url}/bundles/big/`);
  if (mebibytes > 100) throw new Error(`${mebibytes} MiB`);
  return `${mebibytes.toFixed(0)} MiB of heap at most`;
});

await check('offline: the server gone', async () => {
  await greedy(page);
  // The page itself is not the package's to keep: this one is still open.
  await server.close();
  equal((await greedy(page)).ids, expected.ids);
  server = await serve(root, bundles);
});

await browser.close();

// A browser without WebGPU says what to do.
const INSECURE = 'insecure.test';
const bare = await launch('none', { args: [`--host-resolver-rules=MAP ${INSECURE} 127.0.0.1`] });
await check('no WebGPU', async () => {
  const poor = await bare.context.newPage();
  await poor.goto(`${server.url}/runtime/js/test/page.html`);
  await poor.waitForFunction(() => globalThis.runAll);
  const { code, message } = await poor.evaluate((source) => kiln.loadModel(source).catch(({ code, message }) => ({ code, message })), `${server.url}/bundles/toy/`);
  if (code !== 'no-webgpu' && code !== 'no-adapter') throw new Error(`${code}: ${message}`);
  return code;
});
await check('an insecure page', async () => {
  const poor = await bare.context.newPage();
  await poor.goto(`${server.url.replace('127.0.0.1', INSECURE)}/runtime/js/test/page.html`);
  await poor.waitForFunction(() => globalThis.runAll);
  const messages = await poor.evaluate((source) => {
    const calls = [kiln.loadModel(source), new kiln.Registry().files(source)];
    return Promise.all(calls.map((call) => call.then(() => 'loaded', ({ code, message }) => `${code}: ${message}`)));
  }, '/bundles/toy/');
  for (const message of messages) if (!/^no-webgpu: .*https/.test(message)) throw new Error(message);
});
await bare.close();
await server.close();
process.exit(failures.length > 0 ? 1 : 0);
