// node|bun|deno hosts.mjs BUNDLE...: speed of the JavaScript runtime on this machine's GPU, outside a browser. For each bundle a line
// of JSON: load and pipeline times, prefill of 512 tokens and 128 greedy tokens after it (medians of RUNS), the time that
// JavaScript takes to encode a step, and the most memory that the process had. Build the package first: scripts/build-web.sh.
import process from 'node:process';
import { loadModel } from '../runtime/js/dist/index.js';

const { PREFILL = 512, DECODE = 128, RUNS = 5, STEPS_IN_FLIGHT, PREFER = 'own' } = process.env;
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function measure(bundle) {
  const model = await loadModel(bundle, { prefer: PREFER, verify: false });
  const { vocab_size: vocabulary } = model.manifest.model;
  const options = { temperature: 0, stopIds: [], maxTokens: Number(DECODE), stepsInFlight: STEPS_IN_FLIGHT && Number(STEPS_IN_FLIGHT) };
  const runs = [];
  // The first one warms up, and is not counted.
  for (let run = 0; run <= Number(RUNS); run++) {
    const session = model.session();
    await session.feed([1]);
    const prompt = Array.from({ length: Number(PREFILL) }, (_, index) => (run * 7919 + index * 104729 + 5) % vocabulary);
    const { timings, ids } = await session.generate(prompt, options).result;
    if (ids.length !== options.maxTokens) throw new Error(`${ids.length} tokens`);
    await session.dispose();
    if (run > 0) runs.push(timings);
  }
  const { adapter, variant, implementation, pipelinesMs, weightsMs, totalMs } = model.report;
  model.dispose();
  return {
    bundle, adapter, implementation, variant, pipelinesMs, weightsMs, totalMs,
    prefillTokensPerSecond: (Number(PREFILL) * 1000) / median(runs.map(({ firstTokenMs }) => firstTokenMs)),
    decodeTokensPerSecond: median(runs.map(({ tokensPerSecond }) => tokensPerSecond)),
    encodingMsPerToken: median(runs.map(({ encodingMs }) => encodingMs)) / Number(DECODE),
    peakMiB: process.resourceUsage().maxRSS / 1024,
  };
}

for (const bundle of process.argv.slice(2)) console.log(JSON.stringify(await measure(bundle)));
process.exit(0);
