// Saved sessions as bytes, by cases that the Rust runtime's tests read as well.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { read } from '../dist/saved.js';

const { tokens, states, note, cases } = JSON.parse(readFileSync(new URL('../../cases/saved.json', import.meta.url), 'utf8'));
const state = (name, positions) => ({ name, kind: { kind: 'state', bytes_per_position: 4, positions } });
const facts = { model: 'm', fingerprint: 'f', variant: { name: 'base', buffers: [state('cache', null), state('ring', 2)] }, vocab: 9 };

/** Bytes in pieces of three. */
async function* pieces(bytes) {
  for (let at = 0; at < bytes.length; at += 3) yield bytes.subarray(at, at + 3);
}

/** Takes the place of the session on the device. */
class Taken {
  context = 20;
  states = [[], []];
  writeState(index, offset, bytes) {
    this.states[index].splice(offset, bytes.length, ...bytes);
  }
  continueWith(tokens) {
    this.tokens = [...tokens];
  }
}

test('saved sessions are read, and what is none is refused', async () => {
  assert.ok(cases.length > 15);
  for (const { what, hex, fault } of cases) {
    const taken = new Taken();
    const reading = read(pieces(new Uint8Array(Buffer.from(hex, 'hex'))), facts, taken, async () => {});
    if (fault) await assert.rejects(reading, { code: 'saved-session', details: { fault } }, what);
    else {
      assert.deepEqual(await reading, note, what);
      assert.deepEqual([taken.tokens, taken.states], [tokens, states], what);
    }
  }
});
