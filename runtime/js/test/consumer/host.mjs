// node|bun host.mjs BUNDLE PROMPT MAX_TOKENS: greedy ids, or what is missing, as JSON.
import process from 'node:process';
import { loadModel } from 'kiln-runtime';

const [source, prompt, maxTokens] = process.argv.slice(2);
try {
  const model = await loadModel(source);
  const { ids } = await model.generate(JSON.parse(prompt), { temperature: 0, maxTokens: Number(maxTokens) }).result;
  console.log(JSON.stringify({ ids }));
} catch ({ code, message }) {
  console.log(JSON.stringify({ code, message }));
}
process.exit(0);
