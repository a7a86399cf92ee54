// Sessions over a model whose device is lost, without a device.
import assert from 'node:assert/strict';
import test from 'node:test';
import { build } from 'esbuild';

// Its source, with nothing in the place of the WebAssembly module.
const nothing = { name: 'nothing', setup: ({ onResolve, onLoad }) => {
  onResolve({ filter: /kiln_web\.js$/ }, () => ({ path: 'kiln_web', namespace: 'nothing' }));
  onLoad({ filter: /.*/, namespace: 'nothing' }, () => ({ contents: 'export default undefined;' }));
} };
const entry = new URL('../src/session.ts', import.meta.url).pathname;
const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: 'esm', write: false, plugins: [nothing], logLevel: 'error' });
const { Session } = await import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);

test('a session of a lost device is freed when the next one takes its place', async () => {
  const made = [];
  class State {
    tokens = new Uint32Array();
    freed = 0;
    async feed(ids) {
      this.tokens = Uint32Array.from([...this.tokens, ...ids]);
    }
    free() {
      this.freed++;
    }
  }
  const model = {
    epoch: 0,
    module: { Cancel: class { cancel() {} } },
    encode: (ids) => ({ ids, opening: 0 }),
    ready: async () => ({ wasm: { session: async () => made[made.push(new State()) - 1] } }),
    isLost: async () => false,
    markLost() {},
  };
  const session = new Session(model, undefined);
  await session.feed([1, 2]);
  model.epoch++;
  await session.feed([3]);
  assert.deepEqual(made.map(({ freed }) => freed), [1, 0]);
  assert.deepEqual(session.tokens, [1, 2, 3]);
  await session.dispose();
  assert.deepEqual(made.map(({ freed }) => freed), [1, 1]);
});
