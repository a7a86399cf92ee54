import { loadModelInWorker } from './dist/worker.js';
import { generate } from './generate.js';

globalThis.run = generate;
globalThis.runInWorker = async ({ source, prompt, maxTokens }) => {
  const model = await loadModelInWorker(source);
  const { ids } = await model.generate(prompt, { temperature: 0, maxTokens }).result;
  await model.dispose();
  return ids;
};
