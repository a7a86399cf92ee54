// node real.mjs MODE BUNDLE NATIVE.json: a real model in headless Chromium, downloaded, and again from the cache. NATIVE.json is
// what `run-model generate BUNDLE --prompt TEXT --temperature 0 --json` printed for PROMPT. Prints measurements; exit code 1: other tokens, or
// 100 MB of JavaScript heap.
import { readFileSync } from 'node:fs';
import { launch } from './browser.mjs';
import { serve } from './server.mjs';

const PROMPT = 'What is the capital of France?';
const [mode, model, nativeFile] = process.argv.slice(2);
const native = JSON.parse(readFileSync(nativeFile));
const server = await serve(new URL('../../../', import.meta.url).pathname, { model });
const { context, close } = await launch(mode);

async function measure(offline) {
  const page = await context.newPage();
  await page.goto(`${server.url}/runtime/js/test/page.html`);
  await page.waitForFunction(() => globalThis.runAll);
  const found = await page.evaluate(
    async ({ source, prompt, maxTokens, offline }) => {
      let heap = 0;
      const watch = setInterval(() => (heap = Math.max(heap, performance.memory.usedJSHeapSize)), 20);
      let calls = 0;
      const model = await kiln.loadModel(source, { offline, progress: () => calls++ });
      const { ids, text, usage, timings } = await model.generate(prompt, { temperature: 0, maxTokens }).result;
      clearInterval(watch);
      const { adapter, variant, pipelinesMs, weightsMs, totalMs, cachedBytes } = model.report;
      model.dispose();
      return { ids, text, usage, timings, adapter, variant, pipelinesMs, weightsMs, totalMs, cachedBytes, heapMiB: heap / 2 ** 20, calls };
    },
    { source: `${server.url}/bundles/model/`, prompt: PROMPT, maxTokens: native.ids.length, offline },
  );
  await page.close();
  return found;
}

let failed = false;
for (const offline of [false, true]) {
  const found = await measure(offline);
  const same = JSON.stringify(found.ids) === JSON.stringify(native.ids) && found.text === native.text && found.usage.promptTokens === native.prompt_ids.length && found.heapMiB * 2 ** 20 < 100e6;
  failed ||= !same;
  console.log(`${same ? 'ok    ' : 'FAILED'} ${offline ? 'offline, from the cache' : 'downloaded'}: ${JSON.stringify(found)}`);
}
await close();
await server.close();
process.exit(failed ? 1 : 0);
