// node compare.mjs MODE BUNDLE ONNX [--name value ...]: Kiln beside Transformers.js in headless Chromium; README.md says what is
// measured. MODE is one of runtime/js/test/browser.mjs: hardware, lavapipe, swiftshader. Options and their defaults:
const OPTIONS = { engines: 'kiln,transformers', dtype: '', answer: 24, prompts: '32,512', decode: 128, repeats: 3, vocabulary: 1, brotli: 0, out: '' };
// Prints a table in Markdown, writes all that was measured to OUT. Exit code 1: an engine failed, or gave no answer.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync } from 'node:zlib';
import { launch } from '../../runtime/js/test/browser.mjs';
import { serve } from '../../runtime/js/test/server.mjs';
import { table } from './table.mjs';

const ROOT = new URL('../../', import.meta.url).pathname;
const [mode, kiln, onnx, ...rest] = process.argv.slice(2);
if (!onnx) throw new Error('usage: node compare.mjs MODE BUNDLE ONNX [--name value ...]');
const options = { ...OPTIONS };
for (let at = 0; at < rest.length; at += 2) {
  const name = rest[at].replace(/^--/, '');
  if (!(name in OPTIONS) || rest[at + 1] === undefined) throw new Error(`no option ${rest[at]} with a value; there are ${Object.keys(OPTIONS).join(', ')}`);
  options[name] = typeof OPTIONS[name] === 'number' ? Number(rest[at + 1]) : rest[at + 1];
}
const numbers = (list) => list.split(',').filter(Boolean).map(Number);

// As a static host would: pages may keep what they have.
const server = await serve(ROOT, { kiln, onnx }, { csp: '', caching: 'max-age=3600' });

/** What the renderer of the page took at most, in bytes, as Linux counts it. */
async function renderersPeak(context) {
  const session = await context.browser()?.newBrowserCDPSession();
  if (!session) return undefined;
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  await session.detach();
  const peaks = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, 'utf8'))?.[1] * 1024);
  return Math.max(...peaks);
}

/** One visit of the page: what it found, and the files that it asked the server for. */
async function visit(browser, engine, { rates }) {
  const page = await browser.context.newPage();
  const files = new Map();
  page.on('response', async (response) => {
    const { pathname } = new URL(response.url());
    if (response.ok() && !files.has(pathname) && !response.fromServiceWorker()) files.set(pathname, Number(response.headers()['content-length'] ?? 0));
  });
  try {
    await page.goto(`${server.url}/benches/web/page.html`);
    await page.waitForFunction(() => globalThis.compare);
    const { answer, decode, repeats, dtype, vocabulary } = options;
    const found = await page.evaluate((given) => compare(given), { engine, dtype: dtype || undefined, vocabulary: !!vocabulary, answer, decode, repeats, prompts: rates ? numbers(options.prompts) : [] });
    return { ...found, rendererBytes: await renderersPeak(browser.context), files: Object.fromEntries(files) };
  } finally {
    await page.close();
  }
}

/** A browser whose GPU process is up, and its adapter. The first request may come too early for it. */
async function start(profile) {
  const browser = await launch(mode, { profile });
  const page = await browser.context.newPage();
  await page.goto(`${server.url}/benches/web/page.html`);
  await page.waitForFunction(() => globalThis.describeAdapter);
  try {
    for (let attempt = 1; ; attempt++) {
      const adapter = await page.evaluate(() => describeAdapter());
      // What Chromium takes when it cannot have the other.
      if (adapter?.architecture === 'swiftshader' && mode !== 'swiftshader') throw new Error('the adapter is SwiftShader; the driver or the flags are not right');
      if (adapter) return { browser, adapter };
      if (attempt === 5) throw new Error('there is no WebGPU adapter');
      await page.waitForTimeout(2000);
    }
  } catch (error) {
    console.error(browser.logs.join('\n'));
    await browser.close();
    throw error;
  } finally {
    await page.close().catch(() => {});
  }
}

/** The first visit; a second page; and a third after the browser was started anew, which also measures rates. */
async function measure(engine) {
  const profile = mkdtempSync(join(tmpdir(), 'kiln-compare-'));
  // The drivers' own caches of compiled shaders (Mesa, NVIDIA) start empty, too, and stay between the visits.
  Object.assign(process.env, { MESA_SHADER_CACHE_DIR: profile, __GL_SHADER_DISK_CACHE_PATH: profile });
  const visits = {};
  let browser;
  try {
    ({ browser, adapter: visits.adapter } = await start(profile));
    console.error(`${engine}: ${JSON.stringify(visits.adapter)}`);
    for (const name of ['cold', 'warm', 'restarted']) {
      if (name === 'restarted') {
        await browser.close();
        browser = undefined;
        ({ browser } = await start(profile));
      }
      visits[name] = await visit(browser, engine, { rates: name === 'restarted' });
      console.error(`${engine} ${name}: ${JSON.stringify({ ...visits[name], files: undefined, promptIds: undefined })}`);
    }
  } catch (error) {
    visits.error = error.message;
    console.error(`${engine} FAILED: ${error.message}\n${browser?.logs.join('\n') ?? ''}`);
  } finally {
    await browser?.close();
    rmSync(profile, { recursive: true, force: true });
  }
  return visits;
}

/** The runtime's files among those of a first visit, raw and as a host would send them. */
function runtimeSizes({ files }) {
  const names = Object.keys(files).filter((file) => file.startsWith('/runtime/') || file.startsWith('/benches/web/node_modules/'));
  const bytes = names.map((file) => readFileSync(join(ROOT, file)));
  const sum = (size) => bytes.reduce((total, each) => total + size(each), 0);
  return { raw: sum((each) => each.length), brotli: options.brotli ? sum((each) => brotliCompressSync(each).length) : undefined, files: names };
}

const results = { mode, options, engines: {} };
for (const engine of options.engines.split(',')) {
  const visits = await measure(engine);
  if (visits.cold) visits.runtime = runtimeSizes(visits.cold);
  results.engines[engine] = visits;
}
await server.close();
if (options.out) writeFileSync(options.out, JSON.stringify(results, undefined, 1));
console.log(table(results));
const failed = Object.values(results.engines).some(({ error, restarted }) => error || restarted.ids.length === 0 || restarted.pipelineErrors.length > 0);
process.exit(failed ? 1 : 0);
