// What must hold in every host: run by a page, a worker, Node, Deno and Bun.
//   kiln      the package
//   base      the server's address (server.mjs)
//   expected  greedy ids of the native runtime: { prompt, ids }
//   cache     a cache for the tests, empty at first
//   saved     bytes of a session that the native runtime saved after `prompt` and 8 of `ids`

export function assert(condition, what) {
  if (!condition) throw new Error(what);
}

export function equal(found, wanted, what = '') {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: ${a} is not ${b}`);
}

async function refused(promise, code, details = {}) {
  try {
    await promise;
  } catch (error) {
    equal(error.code, code, `${error.message}`);
    assert(error.message.length > 20, `no advice in "${error.message}"`);
    for (const [name, value] of Object.entries(details)) equal(error.details[name], value, name);
    return error;
  }
  throw new Error(`no error, where ${code} was expected`);
}

const GREEDY = { temperature: 0 };

export function makeCases({ kiln, base, expected, cache, saved, host = {} }) {
  const { loadModel, Registry } = kiln;
  const toy = `${base}/bundles/toy/`;
  const open = (source = toy, options = {}) => loadModel(source, { cache, ...host, ...options });
  const control = async (change = {}) => (await fetch(`${base}/control`, { method: 'POST', body: JSON.stringify({ counts: {}, ...change }) })).json();
  const shardRequests = (counts) => Object.entries(counts).filter(([path]) => path.endsWith('.safetensors')).reduce((sum, [, count]) => sum + count, 0);
  /** One model for the tests that only use it: software devices take seconds to compile kernels. */
  let shared;
  const withShared = async (run) => run(await (shared ??= open()));
  const withModel = async (model, run) => {
    model = await model;
    try {
      return await run(model);
    } finally {
      model.dispose();
    }
  };
  const greedy = async (model, options = {}) => (await model.generate(expected.prompt, { ...GREEDY, maxTokens: expected.ids.length, ...options }).result).ids;

  return {
    'every variant gives the ids of the native runtime': async () => {
      const { variants } = await new Registry({ cache }).fits(toy);
      assert(variants.includes('base'), `base does not fit: ${variants}`);
      for (const variant of variants) {
        await withModel(open(toy, { variant }), async (model) => {
          equal(model.report.variant, variant);
          equal(model.report.failed, []);
          equal(await greedy(model), expected.ids, variant);
        });
      }
      return variants.join(', ');
    },

    'memory is what the manifest says': () =>
      withShared(async (model) => {
        await greedy(model, { maxTokens: 1 });
        const { allocated, weights, activations, state } = model.memory;
        // Beyond the manifest: buffers for reading back, and numbers of rows.
        assert(allocated >= weights + activations + state && allocated < weights + activations + state + 65536, JSON.stringify(model.memory));
      }),

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

    'an aborted generation throws, and the next one is right': () =>
      withShared(async (model) => {
        const abort = new AbortController();
        const generation = model.generate(expected.prompt, { ...GREEDY, maxTokens: 200, signal: abort.signal });
        let tokens = 0;
        let thrown;
        try {
          for await (const _ of generation) if (++tokens === 3) abort.abort();
        } catch (error) {
          thrown = error;
        }
        equal(thrown?.name, 'AbortError');
        assert(tokens < 20, `${tokens} tokens after the abort`);
        equal(await generation.result.catch((error) => error.name), 'AbortError');
        equal(await greedy(model), expected.ids);
      }),

    'leaving the loop ends the generation': () =>
      withShared(async (model) => {
        const generation = model.generate(expected.prompt, { ...GREEDY, maxTokens: 200 });
        for await (const { id } of generation) if (id === expected.ids[2]) break;
        const { ids, stop } = await generation.result;
        assert(ids.length < 20 && stop !== 'max-tokens', `${ids.length} ${stop}`);
        equal(await greedy(model), expected.ids);
      }),

    'a session keeps what it has seen, sessions do not disturb each other': () =>
      withShared(async (model) => {
        const [one, two] = [model.session(), model.session({ context: 64 })];
        const first = await one.generate(expected.prompt, { ...GREEDY, maxTokens: 8 }).result;
        equal(first.ids, expected.ids.slice(0, 8));
        await two.generate([9, 8, 7], { ...GREEDY, maxTokens: 5 }).result;
        const prompt = [...expected.prompt, ...first.ids];
        const second = await one.generate(prompt, { ...GREEDY, maxTokens: 8 }).result;
        equal(second.ids, expected.ids.slice(8, 16));
        equal(second.usage, { promptTokens: prompt.length, cachedTokens: prompt.length - 1, completionTokens: 8 });
        await one.reset();
        equal(one.tokens, []);
        // Calls wait for each other.
        const both = [one, one].map((session) => session.generate(expected.prompt, { ...GREEDY, maxTokens: 4 }).result);
        for (const { ids } of await Promise.all(both)) equal(ids, expected.ids.slice(0, 4));
        await one.dispose();
        await two.dispose();
      }),

    'a saved session goes on where it was, in pieces, and only with its own model': () =>
      withShared(async (model) => {
        const session = model.session();
        session.note = { turns: 1 };
        await session.generate(expected.prompt, { ...GREEDY, maxTokens: 8 }).result;
        const tokens = [...session.tokens];
        const pieces = [];
        for (let reader = (await session.save()).getReader(), part; !(part = await reader.read()).done; ) pieces.push(part.value);
        assert(pieces.every(({ length }) => length <= 4 << 20), 'pieces');
        const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
        const prompt = [...expected.prompt, ...expected.ids.slice(0, 8)];
        const goesOn = async (what, wanted = expected.ids.slice(8, 16)) => {
          const restored = await model.restoreSession(what, { context: 64 });
          equal(restored.tokens, tokens);
          equal(restored.note, { turns: 1 });
          const { ids, usage } = await restored.generate(prompt, { ...GREEDY, maxTokens: 8 }).result;
          equal([ids, usage.cachedTokens], [wanted, prompt.length - 1]);
          await restored.dispose();
        };
        await goesOn(bytes);
        await goesOn(new Blob([bytes]));
        await goesOn(await session.save());
        // In odd pieces.
        await goesOn(new Blob([bytes]).stream().pipeThrough(new TransformStream({ transform: (piece, to) => [piece.slice(0, 21), piece.slice(21)].forEach((part) => to.enqueue(part)) })));

        const edited = (change) => {
          const length = Number(new DataView(bytes.buffer).getBigUint64(8, true));
          const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + length)));
          change(header);
          const text = new TextEncoder().encode(JSON.stringify(header));
          const size = new DataView(new ArrayBuffer(8));
          size.setBigUint64(0, BigInt(text.length), true);
          return new Blob([bytes.subarray(0, 8), size, text, bytes.subarray(16 + length)]);
        };
        const before = model.memory.allocated;
        for (const [fault, what] of [
          ['not-a-session', new Uint8Array()],
          ['not-a-session', new TextEncoder().encode('<!doctype html><title>')],
          ['version', edited((header) => (header.version = 2))],
          ['other-model', edited((header) => (header.fingerprint = header.fingerprint.replace(/./g, '0')))],
          ['other-variant', edited((header) => (header.variant = 'other'))],
          ['damaged', edited((header) => (header.states[0].bytes += 4))],
          ['damaged', edited((header) => header.states.pop())],
          ['damaged', edited((header) => (header.states = [null, null]))],
          ['damaged', edited((header) => (header.tokens = -1))],
          ['damaged', bytes.subarray(0, 40)],
          ['damaged', bytes.subarray(0, bytes.length - 4)],
          ['damaged', new Blob([bytes, 'x'])],
        ]) {
          await refused(model.restoreSession(what), 'saved-session', { fault });
        }
        await refused(model.restoreSession(bytes, { context: 4 }), 'saved-session', { fault: 'context' });
        equal(model.memory.allocated, before, 'memory after what was refused');
        // What comes between is no part of it.
        const stream = (await session.save()).getReader();
        await stream.read();
        await session.generate(prompt, { ...GREEDY, maxTokens: 2 }).result;
        await refused(stream.read(), 'usage');
        equal(await greedy(model), expected.ids, 'afterwards');
        await session.dispose();
      }),

    'a session that the native runtime saved goes on here': async () => {
      if (!saved) return 'no file';
      const variant = JSON.parse(new TextDecoder().decode(saved.subarray(16)).match(/^.*?"variant":("[^"]*")/s)[1]);
      if (!(await new Registry({ cache }).fits(toy)).variants.includes(variant)) return `saved with ${variant}`;
      await withModel(open(toy, { variant }), async (model) => {
        const session = await model.restoreSession(saved);
        const prompt = [...expected.prompt, ...expected.ids.slice(0, 8)];
        const { ids, usage } = await session.generate(prompt, { ...GREEDY, maxTokens: 8 }).result;
        equal([ids, usage.cachedTokens], [expected.ids.slice(8, 16), prompt.length - 1]);
      });
    },

    'reasoning and calls of tools are told apart from the answer': async () => {
      // The toy's own greedy answer, with a tokenizer that has marks where its ids are.
      const [a, b, c, d, e, f] = expected.ids;
      const told = async (marks, run) => {
        const names = Object.fromEntries(Array.from({ length: 256 }, (_, id) => [marks[id] ?? `w${id}`, id]));
        const added_tokens = Object.entries(marks).map(([id, content]) => ({ id: Number(id), content, special: content.startsWith('<|'), normalized: false, lstrip: false, rstrip: false, single_word: false }));
        const files = {
          'tokenizer.json': { version: '1.0', added_tokens: added_tokens.filter(({ content }) => content.startsWith('<')), normalizer: null, pre_tokenizer: { type: 'WhitespaceSplit' }, post_processor: null, decoder: null, truncation: null, padding: null, model: { type: 'WordLevel', unk_token: 'w0', vocab: names } },
        };
        const withText = async (url, init) => {
          const name = String(url).split('/').at(-1);
          if (files[name]) return Response.json(files[name]);
          if (name === 'chat_template.jinja') return new Response('{% for message in messages %}{{ message.content }} {% endfor %}');
          const answer = await fetch(url, init);
          if (name !== 'manifest.json') return answer;
          return Response.json({ ...(await answer.json()), text: { tokenizer: 'tokenizer.json', tokenizer_config: null, chat_template: 'chat_template.jinja' } });
        };
        await withModel(open(toy, { cache: 'none', fetch: withText }), async (model) => {
          const messages = [{ role: 'user', content: expected.prompt.map((id) => `w${id}`).join(' ') }];
          const generation = model.generate(messages, { ...GREEDY, maxTokens: 6 });
          const said = {};
          for await (const { text, channel } of generation) said[channel] = (said[channel] ?? '') + text;
          const result = await generation.result;
          equal(result.ids, expected.ids.slice(0, 6));
          const request = { messages, temperature: 0, max_tokens: 6 };
          const completion = await model.chat.completions.create(request);
          let streamed = {};
          for await (const { choices: [{ delta }] } of await model.chat.completions.create({ ...request, stream: true })) {
            const [call] = delta.tool_calls ?? [];
            streamed = { content: (streamed.content ?? '') + (delta.content ?? ''), thought: (streamed.thought ?? '') + (delta.reasoning_content ?? ''), call: (streamed.call ?? '') + (call?.function.name ?? '') + (call?.function.arguments ?? '') };
          }
          await run(result, said, completion.choices[0], streamed);
        });
      };
      const words = (...ids) => ids.map((id) => `w${id}`).join(' ');
      await told({ [a]: '<think>', [d]: '</think>' }, ({ text, reasoning, channels }, said, { message }, streamed) => {
        equal([text.trim(), reasoning.trim()], [words(e, f), words(b, c)]);
        equal(channels.map(({ kind }) => kind), ['reasoning', 'answer']);
        equal([said.answer, said.reasoning], [text, reasoning]);
        equal([message.content, message.reasoning_content], [text, reasoning]);
        equal([streamed.content, streamed.thought], [text, reasoning]);
      });
      await told({ [a]: '<|channel|>', [b]: 'to=functions.f', [c]: '<|message|>', 0: '<|start|>', 200: '<|end|>' }, ({ text, channels }, said, { message, finish_reason }, streamed) => {
        equal([text, channels.map(({ kind, recipient }) => [kind, recipient])], ['', [['tool-call', 'functions.f']]]);
        equal(said['tool-call'].trim(), words(d, e, f));
        const [{ function: call, type }] = message.tool_calls;
        equal([type, call.name, call.arguments.trim(), message.content], ['function', 'f', words(d, e, f), null]);
        equal(finish_reason, 'length');
        equal(streamed.call, `f${call.arguments}`);
      });
    },

    'sampling follows its seed': () =>
      withShared(async (model) => {
        const sample = (seed) => greedy(model, { temperature: 1.5, seed, stopIds: [] });
        const [a, again, b] = [await sample(1), await sample(1), await sample(2)];
        equal(a, again);
        assert(JSON.stringify(a) !== JSON.stringify(b), 'two seeds, one answer');
      }),

    'the pace is held': () =>
      withShared(async (model) => {
        model.pacer.pace = { tokensPerSecond: 20 };
        const started = performance.now();
        await greedy(model, { maxTokens: 8 });
        model.pacer.pace = {};
        assert(performance.now() - started > 300, `${performance.now() - started} ms`);
      }),

    'after a lost device the next call loads the model again, the conversation kept': () =>
      withModel(open(), async (model) => {
        const session = model.session();
        await session.generate(expected.prompt, { ...GREEDY, maxTokens: 8 }).result;
        const before = [...session.tokens];
        const { device } = await model.ready();
        const generation = session.generate([...expected.prompt, ...expected.ids.slice(0, 8)], { ...GREEDY, maxTokens: 100, stopIds: [] });
        let code;
        try {
          let tokens = 0;
          for await (const _ of generation) if (++tokens === 2) device.destroy();
        } catch (error) {
          code = error.code;
        }
        equal(code, 'device-lost');
        assert(session.tokens.length >= before.length, 'the conversation is lost');
        const { ids } = await session.generate([...expected.prompt, ...expected.ids.slice(0, 8)], { ...GREEDY, maxTokens: 8 }).result;
        equal(ids, expected.ids.slice(8, 16));
      }),

    'what makes no sense is refused': () =>
      withModel(open(), async (model) => {
        const run = (prompt, options) => model.generate(prompt, { ...GREEDY, maxTokens: 2, ...options }).result;
        await refused(run([]), 'usage');
        await refused(run([1e6]), 'usage');
        await refused(run(Array(5000).fill(1)), 'context-overflow');
        await refused(run('Hello'), 'no-text');
        await refused(model.session({ context: 1e6 }).generate([1]).result, 'context-length');
        equal(await greedy(model), expected.ids, 'afterwards');
        await refused(open(toy, { variant: 'nonsense' }), 'unknown-variant');
        model.dispose();
        await refused(run([1]), 'disposed');
      }),

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
      await refused(from('huge'), 'unsupported');
      await refused(open('http://127.0.0.1:9/'), 'network');
      await works('flaky');
      await works('busy');
      await works('no-range');
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

/** Runs all, one after the other; the outcome of each. */
export async function runCases(cases, only, tell = () => {}) {
  const results = [];
  for (const [name, run] of Object.entries(cases)) {
    if (only && !name.includes(only)) continue;
    const started = performance.now();
    let error;
    let note;
    try {
      note = await run();
    } catch (thrown) {
      error = `${thrown.code ?? thrown.name}: ${thrown.message}\n${thrown.stack}`;
    }
    const result = { name, ms: Math.round(performance.now() - started), error, note };
    tell(result);
    results.push(result);
  }
  return results;
}
