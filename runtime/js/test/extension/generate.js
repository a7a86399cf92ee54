import { loadModel } from './dist/index.js';

/** Greedy ids, and how many bytes came from the cache. */
export async function generate({ source, prompt, maxTokens }, options = {}) {
  const model = await loadModel(source, options);
  const { ids } = await model.generate(prompt, { temperature: 0, maxTokens }).result;
  const { cachedBytes, weightBytes } = model.report;
  model.dispose();
  return { ids, cached: cachedBytes >= weightBytes };
}
