// Downloading, caching and refusing (cases.mjs).
import { assert, equal, refused } from './common.mjs';

export function loadingCases({ kiln, base, expected, cache, toy, open, control, shardRequests, withModel, greedy }) {
  const { Registry } = kiln;
  return {
    'progress goes from nothing to everything, over all files; the second load asks for no weights': async () => {
      await new Registry({ cache }).clear(toy);
      const seen = [];
      await withModel(open(toy, { progress: (progress) => seen.push(progress) }), () => {});
      const last = seen.at(-1);
      equal(last.phase, 'ready');
      equal(last.totalLoaded, last.totalBytes);
      assert(last.totalBytes > 1e6 && last.cachedBytes === 0, JSON.stringify(last));
      assert(seen.every((progress, index) => index === 0 || progress.totalLoaded >= seen[index - 1].totalLoaded), 'progress went back');
      assert(seen.length > 1 && seen.every(({ files }) => files.length === 1), 'files');
      await control();
      await withModel(open(), async (model) => equal(await greedy(model), expected.ids));
      equal(shardRequests(await control()), 0);
    },

    'offline mode works from the cache, and says what is missing without it': async () => {
      if (!(await new Registry({ cache }).isCached(toy))) await withModel(open(), () => {});
      await control();
      await withModel(open(toy, { offline: true }), async (model) => equal(await greedy(model), expected.ids));
      equal(await control(), {});
      await new Registry({ cache }).clear(toy);
      await refused(open(toy, { offline: true }), 'not-cached');
    },

    'the registry knows sizes, needs and what is cached': async () => {
      const registry = new Registry({ cache });
      await registry.clear(toy);
      const files = await registry.files(toy);
      assert(files.length === 1 && files[0].bytes > 1e6 && files[0].cachedBytes === 0, JSON.stringify(files));
      equal(await registry.totalSize(toy), files[0].bytes);
      equal(await registry.isCached(toy), false);
      const { weights, variants } = await registry.dtypes(toy);
      assert(weights.includes('f32') && variants.includes('base'), `${weights} ${variants}`);
      const short = (await registry.requirements(toy, 64)).at(-1);
      const long = (await registry.requirements(toy, 128)).at(-1);
      equal(long.memory.state, 2 * short.memory.state, 'state');
      equal((await registry.fits(toy)).variants.includes('base'), true);
      const poor = { features: new Set(), limits: {} };
      const fit = await registry.fits(toy, { adapter: poor });
      assert(fit.variants.length === 0 && fit.missing.some(({ name }) => name === 'maxBufferSize'), JSON.stringify(fit));
      await withModel(open(), () => {});
      equal(await registry.isCached(toy), true);
      const kernels = (await (await fetch(`${toy}manifest.json`)).json()).variants.map(({ kernels: [{ file }] }) => file);
      const cached = await Promise.all([files[0].file, ...kernels, 'tokenizer.json'].map((file) => registry.isCached(toy, file)));
      assert(cached[0] && cached.slice(1, -1).includes(true) && !cached.at(-1), `${cached}`);
      await registry.clear(toy);
      equal(await registry.isCached(toy), false);
    },

    'a context that is too long is refused before any weight is downloaded': async () => {
      const registry = new Registry({ cache });
      await registry.clear(toy);
      const { max_context } = await registry.describe(toy);
      const state = (await registry.requirements(toy, 1)).map(({ memory }) => memory.state);
      await control();
      await refused(open(toy, { context: max_context + 1 }), 'context-length', { longest: max_context });
      // A model that could do with a long context, were it not for the device.
      const long = `${base}/long-context/toy/`;
      const fits = await registry.fits(long);
      assert(fits.longest > 1e5 && fits.longest < 2 ** 40 && fits.variants.length > 0, JSON.stringify(fits));
      const needs = (await registry.requirements(long, fits.longest + 1)).at(-1);
      const { memory } = (await registry.requirements(long, 2 ** 31)).at(-1);
      equal(memory.state, state.at(-1) * 2 ** 31);
      equal(needs.limits.maxBufferSize, needs.limits.maxStorageBufferBindingSize);
      const { variants, missing } = await registry.fits(long, { context: fits.longest + 1 });
      equal(variants, []);
      assert(missing.some(({ name, needed, found }) => /BindingSize|BufferSize/.test(name) && needed > found), JSON.stringify(missing));
      assert((await registry.fits(long, { context: fits.longest })).variants.length > 0, 'the longest does not fit');
      await refused(open(long, { context: fits.longest + 1 }), 'context-length', { longest: fits.longest });
      equal(shardRequests(await control()), 0);
    },

    'a variant that fails falls back to the next, and is reported': async () => {
      await withModel(open(`${base}/bad-kernel/toy/`), async (model) => {
        const { variants } = await new Registry({ cache }).fits(toy);
        const tried = variants[0] === model.manifest.variants[0].name;
        equal(model.report.failed.map(({ variant }) => variant), tried ? [variants[0]] : []);
        equal(await greedy(model), expected.ids);
      });
      const first = (await new Registry({ cache }).dtypes(toy)).variants[0];
      await refused(open(`${base}/bad-kernel/toy/`, { variant: first }), (await new Registry({ cache }).fits(toy)).variants.includes(first) ? 'kernel' : 'unsupported');
    },

    'servers that misbehave': async () => {
      const registry = new Registry({ cache });
      const from = async (fault, options) => {
        await registry.clear(toy);
        await control({ healed: false });
        return open(`${base}/${fault}/toy/`, options);
      };
      const works = async (fault, options) => withModel(from(fault, options), async (model) => equal(await greedy(model), expected.ids, fault));
      await refused(from('html'), 'html');
      await refused(from('html-manifest'), 'html');
      await refused(from('missing'), 'not-found', { status: 404 });
      await refused(open(`${base}/bundles/nothing/`), 'not-found', { status: 404 });
      await refused(from('private'), 'forbidden', { status: 401 });
      await works('private', { headers: { Authorization: 'Bearer secret' } });
      await refused(from('truncated'), 'truncated');
      await refused(from('wrong-size'), 'file-size');
      await refused(from('corrupt'), 'checksum');
      equal(await registry.isCached(toy), false, 'a damaged shard stays cached');
      // Also when a piece takes longer to be kept than to be compared.
      const kept = new Set();
      const slow = {
        get: async () => undefined,
        has: async (key) => kept.has(key),
        put: (key) => new Promise((resolve) => setTimeout(() => resolve(void kept.add(key)), key.startsWith('shards/') ? 2000 : 0)),
        clear: async (prefix) => [...kept].filter((key) => key.startsWith(prefix)).forEach((key) => kept.delete(key)),
      };
      await refused(open(`${base}/corrupt/toy/`, { cache: slow }), 'checksum');
      equal([...kept].filter((key) => key.startsWith('shards/')), [], 'a damaged piece stays cached');
      await refused(from('other-version'), 'bundle-version');
      await refused(from('no-manifest'), 'bundle');
      await refused(from('hollow-manifest'), 'bundle');
      await refused(from('no-variants'), 'bundle');
      await refused(from('huge'), 'unsupported');
      await refused(open('http://127.0.0.1:9/'), 'network');
      await works('flaky');
      await works('busy');
      await works('no-range');
    },

    'a damaged tokenizer is refused, and does not stay in the cache': async () => {
      const damaged = `${base}/corrupt-text/toy/`;
      const kept = new Map();
      const own = {
        get: async (key) => kept.get(key),
        has: async (key) => kept.has(key),
        put: async (key, bytes) => void kept.set(key, bytes.slice()),
        clear: async (prefix) => [...kept.keys()].filter((key) => key.startsWith(prefix)).forEach((key) => kept.delete(key)),
      };
      await control({ healed: false });
      await refused(open(damaged, { cache: own }), 'checksum');
      await control({ healed: true });
      const works = () => withModel(open(damaged, { cache: own }), (model) => assert(model.text, 'no tokenizer'));
      await works();
      // What was damaged in the cache is fetched again.
      for (const [key, bytes] of kept) if (key.startsWith('texts/')) bytes[bytes.length >> 1] ^= 1;
      await works();
      await control();
      await works();
      equal(Object.keys(await control()).filter((path) => !path.endsWith('manifest.json')), []);
    },

    'a download that broke off goes on where it was': async () => {
      const registry = new Registry({ cache });
      await registry.clear(`${base}/bundles/big/`);
      await control({ healed: false });
      await refused(open(`${base}/interrupted/big/`), 'truncated');
      const [{ bytes, cachedBytes }] = await registry.files(`${base}/bundles/big/`);
      assert(cachedBytes > bytes * 0.3 && cachedBytes < bytes, `${cachedBytes} of ${bytes} bytes kept`);
      await control({ healed: true });
      let fromCache = 0;
      await withModel(open(`${base}/interrupted/big/`, { progress: (progress) => (fromCache = progress.cachedBytes) }), () => {});
      equal(fromCache, cachedBytes);
      await registry.clear(`${base}/bundles/big/`);
    },

    'loading can be aborted': async () => {
      await new Registry({ cache }).clear(`${base}/bundles/big/`);
      const abort = new AbortController();
      const loading = open(`${base}/slow/big/`, { signal: abort.signal, progress: ({ totalLoaded }) => totalLoaded > 1e5 && abort.abort() });
      equal(await loading.catch((error) => error.name), 'AbortError');
    },
  };
}
