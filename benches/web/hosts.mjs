// node|bun|deno hosts.mjs MODEL...: speed on this machine's GPU outside a browser. MODEL is a bundle, or a folder of make_onnx.py for
// Transformers.js (in Node only). For each a line of JSON: load and pipeline times, prefill of PREFILL tokens and DECODE greedy tokens after it
// (medians of RUNS), the time that JavaScript takes to encode a step, and the most memory that the process had so far.
// Build the package first: scripts/build-web.sh.
import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import process from 'node:process';

const { PREFILL = 512, DECODE = 128, RUNS = 5, STEPS_IN_FLIGHT, PREFER = 'own', DTYPE = 'q4f16' } = process.env;
const [prefill, decode] = [Number(PREFILL), Number(DECODE)];
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Ids that are words of any vocabulary of a real model; another salt gives another prompt. */
const promptOf = (salt, vocabulary = 20000) => Array.from({ length: prefill }, (_, index) => (100 + index * 7919 + salt * 104729) % vocabulary);

/** `generate` gives the milliseconds to the first token and the tokens a second after it. The first run warms up. */
async function rates(generate, vocabulary) {
  const runs = [];
  for (let run = 0; run <= Number(RUNS); run++) runs.push(await generate(promptOf(run, vocabulary)));
  const [cold, ...warm] = runs;
  return {
    coldFirstTokenMs: cold.firstMs,
    prefillTokensPerSecond: (prefill * 1000) / median(warm.map(({ firstMs }) => firstMs)),
    decodeTokensPerSecond: median(warm.map(({ perSecond }) => perSecond)),
    encodingMsPerToken: warm[0].encodingMs && median(warm.map(({ encodingMs }) => encodingMs)) / decode,
  };
}

async function kiln(bundle) {
  const { loadModel } = await import('../../runtime/js/dist/index.js');
  const model = await loadModel(bundle, { prefer: PREFER, verify: false });
  const options = { temperature: 0, stopIds: [], maxTokens: decode, stepsInFlight: STEPS_IN_FLIGHT && Number(STEPS_IN_FLIGHT) };
  const measured = await rates(async (prompt) => {
    const session = model.session();
    await session.feed([1]);
    const { timings, ids } = await session.generate(prompt, options).result;
    await session.dispose();
    if (ids.length !== decode) throw new Error(`${ids.length} tokens`);
    return { firstMs: timings.firstTokenMs, perSecond: timings.tokensPerSecond, encodingMs: timings.encodingMs };
  }, Math.min(model.manifest.model.vocab_size, 20000));
  const { adapter, variant, implementation, pipelinesMs, weightsMs, totalMs } = model.report;
  model.dispose();
  return { adapter, implementation, variant, pipelinesMs, weightsMs, totalMs, ...measured };
}

async function transformers(folder) {
  const { AutoModelForCausalLM, Tensor, env } = await import('@huggingface/transformers');
  Object.assign(env, { allowRemoteModels: false, localModelPath: `${dirname(resolve(folder))}/` });
  const began = performance.now();
  const model = await AutoModelForCausalLM.from_pretrained(basename(folder), { device: 'webgpu', dtype: DTYPE });
  const totalMs = performance.now() - began;
  const tensor = (values) => new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
  const measured = await rates(async (prompt) => {
    // The first that a streamer is given is the prompt.
    const times = [];
    const streamer = { put: () => times.push(performance.now()), end() {} };
    const started = performance.now();
    await model.generate({ input_ids: tensor(prompt), attention_mask: tensor(prompt.map(() => 1)), do_sample: false, max_new_tokens: decode, eos_token_id: null, streamer });
    const tokens = times.slice(1);
    if (tokens.length !== decode) throw new Error(`${tokens.length} tokens`);
    return { firstMs: tokens[0] - started, perSecond: ((decode - 1) * 1000) / (tokens.at(-1) - tokens[0]) };
  });
  return { transformers: env.version, dtype: DTYPE, totalMs, ...measured };
}

for (const model of process.argv.slice(2)) {
  const measured = await (existsSync(join(model, 'onnx')) ? transformers(model) : kiln(model));
  console.log(JSON.stringify({ model, ...measured, peakMiB: process.resourceUsage().maxRSS / 1024 }));
}
process.exit(0);
