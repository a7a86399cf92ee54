import { loadModel } from 'kiln-runtime';
import { loadModelInWorker } from 'kiln-runtime/worker';

globalThis.run = async (source, prompt, maxTokens, inWorker) => {
  const model = await (inWorker ? loadModelInWorker : loadModel)(source);
  return (await model.generate(prompt, { temperature: 0, maxTokens }).result).ids;
};
