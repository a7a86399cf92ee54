// node|bun|deno host.mjs BASE EXPECTED.json own|dawn [ONLY]: the cases in this host. Exit code 1: some failed.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import * as kiln from '../dist/index.js';
import { makeCases, runCases } from './cases.mjs';

const [base, expectedFile, prefer, only] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'kiln-cache-'));
const name = globalThis.Deno ? 'deno' : globalThis.Bun ? 'bun' : 'node';
const cases = makeCases({ kiln, base, expected: JSON.parse(readFileSync(expectedFile)), cache: kiln.fileCache(folder), host: { prefer } });
const tell = ({ name: test, ms, error, note }) => console.log(`${error ? 'FAILED' : 'ok    '} ${name} (${prefer}): ${test}${note ? ` [${note}]` : ''} (${ms} ms)${error ? `\n${error}` : ''}`);
const results = await runCases(cases, only, tell);
rmSync(folder, { recursive: true, force: true });
process.exit(results.some(({ error }) => error) ? 1 : 0);
