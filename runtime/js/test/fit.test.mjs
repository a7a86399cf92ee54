// Memory and what an adapter lacks, by the cases that the Rust runtime's tests read as well (runtime/cases/fit.json).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { transform } from 'esbuild';

// Not part of the package's interface, so taken from its source.
const source = await transform(readFileSync(new URL('../src/requirements.ts', import.meta.url)), { loader: 'ts' });
const { fit, requirements } = await import(`data:text/javascript,${encodeURIComponent(source.code)}`);

const cases = JSON.parse(readFileSync(new URL('../../cases/fit.json', import.meta.url), 'utf8'));

test('memory is planned as worked out', () => {
  assert.ok(cases.memory.length > 0);
  for (const { variant, context, weights, caches, windows, recurrent, copies, activations } of cases.memory) {
    const { memory } = requirements(cases.manifest, cases.manifest.variants.find(({ name }) => name === variant), context);
    const state = caches + windows + recurrent + copies;
    assert.deepEqual(memory, { weights, activations, state, total: weights + activations + state }, `${variant} at ${context}`);
  }
});

test('what an adapter lacks is named', () => {
  assert.ok(cases.fit.length > 0);
  for (const { what, adapter, context, variants, missing } of cases.fit) {
    const found = fit(cases.manifest, { features: new Set(adapter.features), limits: adapter.limits }, { language: new Set(adapter.language) }, context);
    assert.deepEqual(found.variants, variants, what);
    assert.deepEqual(found.missing.map(({ variant, name, needed, found }) => (needed === undefined ? [variant, name] : [variant, name, needed, found])), missing, what);
  }
});
