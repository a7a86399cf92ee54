// node|bun|deno real-host.mjs BUNDLE NATIVE.json own|dawn [VARIANT]: the native runtime's tokens in this host. NATIVE.json is what
// `run-model generate BUNDLE --temperature 0 --json` printed for `--prompt` PROMPT, or for any `--ids` where the bundle has no
// tokenizer. Prints measurements. Exit code 1: other tokens.
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { loadModel } from '../dist/index.js';

const PROMPT = 'What is the capital of France?';
const [bundle, nativeFile, prefer, variant] = process.argv.slice(2);
const native = JSON.parse(readFileSync(nativeFile));
const model = await loadModel(bundle, { prefer, variant });
const prompt = model.text ? PROMPT : native.prompt_ids;
const { ids, text, usage, timings } = await model.generate(prompt, { temperature: 0, maxTokens: native.ids.length }).result;
const { model: name, host, adapter, variant: ran, pipelinesMs, weightsMs, totalMs } = model.report;
const same = JSON.stringify(ids) === JSON.stringify(native.ids) && usage.promptTokens === native.prompt_ids.length && (!model.text || text === native.text);
console.log(`${same ? 'ok    ' : 'FAILED'} ${host} (${prefer}): ${name}, ${ran}, on ${adapter}: ${JSON.stringify({ ids, text, pipelinesMs, weightsMs, totalMs, timings })}`);
process.exit(same ? 0 : 1);
