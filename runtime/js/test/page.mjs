// Loaded by page.html: gives the driver (chromium.mjs) what it calls.
import * as kiln from '../dist/index.js';
import * as worker from '../dist/worker.js';
import { makeCases, runCases } from './cases.mjs';

/** The package's own caches, under names that are the driver's to clear. */
async function runAll({ base, expected, cache, only }) {
  return runCases(makeCases({ kiln, base, expected, cache }), only, ({ name, ms, error }) => console.log(`${error ? 'FAILED' : 'ok'} ${name} (${ms} ms)`));
}

Object.assign(globalThis, { kiln, kilnWorker: worker, runAll });
