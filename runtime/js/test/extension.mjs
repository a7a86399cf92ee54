// node extension.mjs MODE EXPECTED.json TOY: the package in an unpacked extension under Manifest V3's content security policy: a
// page, a worker of it, and the background's service worker. Exit code 1: something failed.
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch } from './browser.mjs';
import { equal } from './common.mjs';
import { serve } from './server.mjs';

const [mode, expectedFile, toy] = process.argv.slice(2);
const { prompt, ids } = JSON.parse(readFileSync(expectedFile));
const root = new URL('../../../', import.meta.url).pathname;
const server = await serve(root, { toy }, { cors: false });
const task = { source: `${server.url}/bundles/toy/`, prompt, maxTokens: ids.length };

const folder = mkdtempSync(join(tmpdir(), 'kiln-extension-'));
cpSync(join(root, 'runtime/js/test/extension'), folder, { recursive: true });
cpSync(join(root, 'runtime/js/dist'), join(folder, 'dist'), { recursive: true });
const browser = await launch(mode, { args: [`--load-extension=${folder}`, `--disable-extensions-except=${folder}`] });
const { context } = browser;
let failed = false;
try {
  const background = context.serviceWorkers()[0] ?? (await context.waitForEvent('serviceworker', { timeout: 20_000 }));
  const page = await context.newPage();
  await page.goto(new URL('page.html', background.url()).href);
  await page.waitForFunction(() => globalThis.run);
  equal(await page.evaluate((task) => run(task), task), { ids, cached: false }, 'page');
  equal(await page.evaluate((task) => run(task), task), { ids, cached: true }, 'page, again');
  equal(await page.evaluate((task) => runInWorker(task), task), ids, 'worker');
  equal(await background.evaluate((task) => run(task), task), { ids, cached: true }, 'background');
  console.log(`ok     extension (${mode}): page, worker and background`);
} catch (error) {
  failed = true;
  console.log(`FAILED extension (${mode}): ${error.stack}\n${browser.logs.slice(-8).join('\n')}`);
}
await browser.close();
await server.close();
rmSync(folder, { recursive: true });
process.exit(failed ? 1 : 0);
