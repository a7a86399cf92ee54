// node|bun|deno host.mjs BASE EXPECTED.json own|dawn [ONLY]: the cases in this host. Exit code 1: some failed.
// KILN_SESSION names a session that the native runtime saved, KILN_RUN_MODEL that runtime, KILN_TOY the toy bundle.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import * as kiln from '../dist/index.js';
import { makeCases, runCases } from './cases.mjs';
import { equal } from './common.mjs';

const [base, expectedFile, prefer, only] = process.argv.slice(2);
const { KILN_SESSION: session, KILN_RUN_MODEL: native, KILN_TOY: toy } = process.env;
const folder = mkdtempSync(join(tmpdir(), 'kiln-cache-'));
const name = globalThis.Deno ? 'deno' : globalThis.Bun ? 'bun' : 'node';
const expected = JSON.parse(readFileSync(expectedFile));
const saved = session && new Uint8Array(readFileSync(session));
const cases = makeCases({ kiln, base, expected, cache: kiln.fileCache(folder), saved, host: { prefer } });

if (native) {
  cases['the native runtime goes on with a session saved here'] = async () => {
    const model = await kiln.loadModel(`${base}/bundles/toy/`, { cache: 'none', prefer });
    const here = model.session();
    await here.generate(expected.prompt, { temperature: 0, maxTokens: 8 }).result;
    const file = join(folder, 'session');
    writeFileSync(file, new Uint8Array(await new Response(await here.save()).arrayBuffer()));
    const { variant } = model.report;
    model.dispose();
    const prompt = [...expected.prompt, ...expected.ids.slice(0, 8)];
    const options = ['--ids', prompt.join(), '--max-tokens', '8', '--variant', variant, '--session', file, '--json'];
    const answer = JSON.parse(execFileSync(native, ['generate', toy, ...options], { stdio: ['ignore', 'pipe', 'ignore'] }));
    equal([answer.ids, answer.reused_tokens], [expected.ids.slice(8, 16), prompt.length - 1]);
  };
}

const tell = ({ name: test, ms, error, note }) => console.log(`${error ? 'FAILED' : 'ok    '} ${name} (${prefer}): ${test}${note ? ` [${note}]` : ''} (${ms} ms)${error ? `\n${error}` : ''}`);
const results = await runCases(cases, only, tell);
rmSync(folder, { recursive: true, force: true });
process.exit(results.some(({ error }) => error) ? 1 : 0);
