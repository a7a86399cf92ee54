// Loads an engine, answers a question, and on request measures rates. compare.mjs calls `compare`.
import * as engines from './engines.mjs';
import { readings, watch } from './probes.mjs';

watch();

const QUESTION = [{ role: 'user', content: 'What is the capital of France?' }];

/** Ids that are words of any vocabulary, the same for every engine; another `salt` gives another prompt. */
const promptOf = (length, salt) => Array.from({ length }, (_, index) => 100 + ((index * 7919 + salt * 104729) % 20000));

/** One generation: the time to the first token, and tokens a second after it. */
async function time(engine, length, salt, maxTokens) {
  const ids = promptOf(length, salt);
  const times = [];
  const began = performance.now();
  await engine.generate(ids, { maxTokens, endless: true }, () => times.push(performance.now()));
  if (times.length !== maxTokens) throw new Error(`${times.length} tokens instead of ${maxTokens}`);
  const firstMs = times[0] - began;
  return { firstMs, prefill: (length * 1000) / firstMs, decode: ((maxTokens - 1) * 1000) / (times.at(-1) - times[0]) };
}

async function describeAdapter() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return undefined;
  const { vendor, architecture, device, description } = adapter.info;
  return { vendor, architecture, device, description, features: [...adapter.features].filter((name) => /f16|subgroup/.test(name)), storageBinding: adapter.limits.maxStorageBufferBindingSize };
}

globalThis.describeAdapter = describeAdapter;

/** @param {{engine: string, dtype?: string, vocabulary: boolean, answer: number, prompts: number[], decode: number, repeats: number}} options */
globalThis.compare = async ({ engine: name, dtype, vocabulary, answer, prompts, decode, repeats }) => {
  // All counted from the navigation on.
  const engine = await engines[name]({ dtype, vocabulary });
  const loadedMs = performance.now();
  const ids = vocabulary ? Array.from(engine.encode(QUESTION)) : promptOf(32, 0);
  const answered = [];
  let firstTokenMs;
  await engine.generate(ids, { maxTokens: answer, endless: !vocabulary }, (id) => {
    firstTokenMs ??= performance.now();
    answered.push(id);
  });
  const found = { engine: engine.name, failed: engine.failed, loadedMs, firstTokenMs, promptIds: ids, ids: answered, text: vocabulary ? engine.decode(answered) : undefined, ...readings(), rates: {} };
  for (const length of prompts) {
    await time(engine, length, 1, Math.min(decode, 8));
    const runs = [];
    for (let run = 0; run < repeats; run++) runs.push(await time(engine, length, run + 2, decode));
    found.rates[length] = runs;
  }
  return found;
};
