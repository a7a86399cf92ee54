// What a project in TypeScript writes: all of it must be typed. Only compiled, never run.
import { isKilnError, loadModel, type Model, type Progress, Registry } from 'kiln-runtime';
import { serve } from 'kiln-runtime/serve';
import * as text from 'kiln-runtime/text';
import { loadModelInWorker } from 'kiln-runtime/worker';

export async function use(source: string): Promise<number[]> {
  const seen: Progress[] = [];
  const model: Model = await loadModel(source, { text, wasm: './kiln.wasm', progress: (progress) => seen.push(progress) });
  const { ids, usage, timings } = await model.session({ context: 64 }).generate([1, 2], { temperature: 0, maxTokens: 8 }).result;
  for await (const { id, text } of model.generate([{ role: 'user', content: 'Hello' }])) console.log(id, text);
  const messages = [{ role: 'user', content: 'Hello' }];
  for await (const chunk of await model.chat.completions.create({ messages, stream: true })) console.log(chunk.choices[0]?.delta.content);
  const { choices } = await model.chat.completions.create({ messages });
  console.log(choices[0]?.message.content, usage.promptTokens, timings.firstTokenMs, model.report.adapter, model.memory.allocated);
  const worker = await loadModelInWorker(source);
  await worker.dispose();
  try {
    await new Registry().fits(source);
  } catch (error) {
    if (isKilnError(error, 'http')) return [error.details.status];
  }
  // @ts-expect-error: there is no such option
  await loadModel(source, { nonsense: true });
  serve();
  return ids;
}
