// node chat.mjs MODE BUNDLE [SCREENSHOTS]: the chat page (examples/web-chat/dist) with a real model in headless Chromium, as a user
// meets it: with the keyboard, checked by axe for those who cannot see it, and without a server at the end.
// SCREENSHOTS: a folder for pictures of every state. Exit code 1: something failed.
import { mkdirSync, readFileSync } from 'node:fs';
import { launch } from './browser.mjs';
import { assert, equal, makeCheck } from './common.mjs';
import { serve } from './server.mjs';

const [mode, bundle, screenshots] = process.argv.slice(2);
const root = new URL('../../../', import.meta.url).pathname;
const axe = readFileSync(new URL('examples/web-chat/node_modules/axe-core/axe.min.js', `file://${root}`), 'utf8');
if (screenshots) mkdirSync(screenshots, { recursive: true });

const bundles = { model: bundle };
let server = await serve(root, bundles);
const { port } = new URL(server.url);
const browser = await launch(mode);
const page = await browser.context.newPage();
page.setDefaultTimeout(240_000);
/** Each step needs those before it. */
const { check, failures: problems } = makeCheck(`chat (${mode})`, { logs: browser.logs, skip: () => problems.length > 0, onFailure: () => picture('failed') });
page.on('pageerror', (error) => problems.push(`page: ${error.message}`));
const QUESTION = 'What is the capital of France?';

async function picture(name) {
  if (screenshots) await page.screenshot({ path: `${screenshots}/${name}.png` });
}

/** What axe has against the page as it is now, in both colour schemes; and a picture of each, and of a phone. */
async function look(name) {
  const found = [];
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await picture(`${name}-${colorScheme}`);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    found.push(...violations.map(({ id, nodes }) => `${colorScheme}: ${id}: ${nodes.map(({ target }) => target).join(' ')}`));
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 390, height: 780 });
  await picture(`${name}-phone`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.setViewportSize({ width: 1000, height: 760 });
  assert(wide <= 390, `${wide} pixels wide on a phone`);
  equal(found, [], 'axe');
}

const shown = (selector) => page.locator(selector).waitFor({ state: 'visible' });
const text = (selector) => page.locator(selector).innerText();
const focused = () => page.evaluate(() => document.activeElement.id);
const lastAnswer = '.message.assistant:last-child > .text';
const counts = async () => (await fetch(`${server.url}/control`, { method: 'POST', body: '{}' })).json();

/** Opens the page with the model chosen, as far as its facts. */
async function open(address) {
  await page.goto(`${server.url}/examples/web-chat/dist/?model=${address}`);
  await ready();
}
const ready = () => page.waitForFunction(() => !document.getElementById('start').disabled || !document.getElementById('trouble').hidden);

async function start() {
  await page.locator('#start').focus();
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => !document.getElementById('composer').hidden || !document.getElementById('trouble').hidden);
  equal(await page.locator('#trouble').isVisible(), false, await text('#trouble').catch(() => ''));
}

/** Types a message and sends it with the keyboard; the answer's lengths while it grew, and the answer. */
async function ask(question) {
  await page.locator('#input').focus();
  await page.keyboard.type(question);
  await page.evaluate((selector) => {
    globalThis.lengths = [];
    globalThis.watch = setInterval(() => {
      const { length } = document.querySelector(selector)?.textContent ?? '';
      if (length > (lengths.at(-1) ?? 0)) lengths.push(length);
    }, 20);
  }, lastAnswer);
  await page.keyboard.press('Enter');
}
async function answer() {
  await shown('#send');
  const lengths = await page.evaluate(() => (clearInterval(watch), lengths));
  return { lengths, text: await text(lastAnswer) };
}

// A build that was here before, of which the service worker must keep nothing.
await page.goto(`${server.url}/examples/web-chat/dist/icon.svg`);
await page.evaluate(async () => caches.open(`kiln-chat ${new URL('./', location.href).href} earlier`));

await check('the choice of a model, with its size before anything large is downloaded', async () => {
  await open('/slow/model/');
  const choices = await page.locator('#model option').allInnerTexts();
  assert(choices.includes('SmolLM2 135M Instruct') && choices[0] === 'model', choices.join(', '));
  const facts = await text('#facts');
  assert(/Download\s+\d+ MB/.test(facts) && /Memory\s+about \d/.test(facts), facts);
  equal(Object.keys(await counts()).filter((path) => path.endsWith('.safetensors')), [], 'weights asked for');
  await page.keyboard.press('Tab');
  equal(await focused(), 'model', 'the first to get the focus');
  await look('1-setup');
  return facts.replaceAll('\n', ' ');
});

await check('loading bars, and cancelling', async () => {
  await page.locator('#start').focus();
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.getElementById('loading-total').value > 0.05);
  const words = await text('#loading-text');
  assert(/Downloading: \d+ MB of \d+ MB, .*\/s, \d+ (s|min) left/.test(words), words);
  await look('2-loading');
  await page.locator('#cancel').focus();
  await page.keyboard.press('Enter');
  await ready();
  const facts = await text('#facts');
  assert(/\d+ MB of \d+ MB left/.test(facts), facts);
  equal(await focused(), 'start');
  equal(await page.locator('#trouble').isVisible(), false);
  return words;
});

let first;
await check('the rest is downloaded; a message by keyboard, its answer streamed', async () => {
  await open('/bundles/model/');
  await start();
  equal(await focused(), 'input');
  // Chromium falls back to SwiftShader where it does not take lavapipe.
  const device = await text('#device');
  assert(device.includes('swiftshader') === (mode === 'swiftshader'), `this is not ${mode}: ${device}`);
  await look('3-ready');
  await ask(QUESTION);
  await shown('#stop');
  await page.waitForFunction((selector) => document.querySelector(selector).textContent.length > 8, lastAnswer);
  await picture('4-answering');
  first = await answer();
  assert(first.lengths.length > 3, `not streamed: ${first.lengths}`);
  assert(first.text.includes('Paris'), first.text);
  equal(await focused(), 'input');
  equal(await text('#spoken'), 'The answer is complete.');
  assert(/tokens\/s/.test(await text('#speed')) && /MB of memory/.test(await text('#memory')), await text('#status'));
  await look('5-answered');
  return `${first.text} | ${(await text('#status')).replaceAll('\n', ' ')}`;
});

await check('Escape stops, and a new conversation knows nothing of the last', async () => {
  await ask('Tell me a long story.');
  await page.waitForFunction((selector) => document.querySelector(selector).textContent.length > 8, lastAnswer);
  await page.keyboard.press('Escape');
  await shown('#send');
  equal(await text('.message.assistant:last-child > .foot'), 'Stopped.');
  assert((await answer()).text.length > 8, 'what was written is gone');
  await page.locator('#new').click();
  equal(await page.locator('.message').count(), 0);
  await ask(QUESTION);
  equal((await answer()).text, first.text);
  // Also while an answer is being written.
  await ask('Tell me a long story.');
  await page.waitForFunction((selector) => document.querySelector(selector).textContent.length > 8, lastAnswer);
  await page.locator('#new').click();
  await shown('#send');
  await ask(QUESTION);
  equal((await answer()).text, first.text);
});

await check('Markdown becomes elements, and HTML stays text', async () => {
  const html = await page.evaluate(async (module) => {
    const { showMarkdown } = await import(module);
    const element = document.createElement('div');
    element.className = 'text';
    const text = '### Title\n\nSome *slanted*, **bold** and `a < b`,\nand <img src=x onerror=alert(1)> [link](https://x.org/) [bad](javascript:alert(1))\n\n- one\n- two **three**\n\n2. second\n\n> quoted\n\n```js\nlet x = "<b>";\n\n';
    showMarkdown(element, text);
    const message = Object.assign(document.createElement('article'), { className: 'message' });
    message.append(element);
    document.getElementById('log').append(message);
    return element.innerHTML;
  }, `${server.url}/examples/web-chat/src/markdown.js`);
  const wanted =
    '<h3>Title</h3><p>Some <em>slanted</em>, <strong>bold</strong> and <code>a &lt; b</code>,<br>and &lt;img src=x onerror=alert(1)&gt; <a href="https://x.org/" rel="noopener noreferrer" target="_blank">link</a> [bad](javascript:alert(1))</p><ul><li>one</li><li>two <strong>three</strong></li></ul><ol start="2"><li>second</li></ol><blockquote><p>quoted</p></blockquote><pre><code>let x = "&lt;b&gt;";\n\n</code></pre>';
  equal(html, wanted);
  await page.locator('#settings summary').click();
  await look('6-markdown-and-settings');
});

await check('reloaded with the server gone: the page and the model are here', async () => {
  await page.evaluate(() => navigator.serviceWorker.ready);
  await server.close();
  await page.reload();
  await ready();
  assert((await text('#facts')).includes('on this device already'), await text('#facts'));
  await picture('7-offline');
  await start();
  await ask(QUESTION);
  equal((await answer()).text, first.text);
});

await check('one build is kept, and the model can be removed', async () => {
  const names = await page.evaluate(() => caches.keys());
  equal(names.filter((name) => name.startsWith('kiln-chat')).length, 1, names.join(', '));
  server = await serve(root, bundles, { port });
  await page.reload();
  await ready();
  await page.locator('#forget').click();
  await page.locator('#forget').waitFor({ state: 'hidden' });
  await ready();
  assert(/Download\s+\d+ MB/.test(await text('#facts')), await text('#facts'));
  const left = await page.evaluate(async () => (await (await caches.open('kiln')).keys()).map(({ url }) => url).filter((url) => !url.endsWith('manifest.json')));
  equal(left, []);
  equal(await focused(), 'start');
});

await check('an address without a model is told in plain words', async () => {
  await page.goto(`${server.url}/examples/web-chat/dist/?model=/bundles/nothing/`);
  await shown('#trouble');
  assert((await text('#trouble')).startsWith('There is no model at this address'), await text('#trouble'));
  await look('8-no-model');
});

await browser.close();
await server.close();
process.exit(problems.length > 0 ? 1 : 0);
