// Generating, sessions and conversations (cases.mjs).
import { assert, equal, GREEDY, refused, sha256 } from './common.mjs';

export function generationCases({ kiln, base, expected, cache, saved, toy, open, withShared, withModel, greedy }) {
  const { Registry } = kiln;
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

    'biases, penalties and bans change what is said, and settings that mean nothing are refused': () =>
      withShared(async (model) => {
        const ids = async (options) => (await model.generate(expected.prompt, { ...GREEDY, maxTokens: 16, ...options }).result).ids;
        const [first, second] = expected.ids;
        assert((await ids({ logitBias: { [first]: -Infinity } }))[0] !== first, 'a token that was ruled out');
        equal((await ids({ logitBias: { 40: 1000 } })).slice(0, 3), [40, 40, 40]);
        const before = new Set(expected.prompt);
        for (const options of [{ repetitionPenalty: 1e6 }, { noRepeatNgram: 1 }, { presencePenalty: 1e6 }, { frequencyPenalty: 1e6 }]) {
          const said = await ids({ ...options, stopIds: [] });
          equal(new Set(said).size, 16, JSON.stringify(options));
          if (!options.presencePenalty && !options.frequencyPenalty) assert(!said.some((id) => before.has(id)), `${said} repeats the prompt`);
        }
        const end = { stopIds: [second] };
        equal((await ids(end)).length, 2);
        assert((await ids({ ...end, minTokens: 5 })).length > 5, 'it ended early');
        equal(await ids({}), expected.ids.slice(0, 16));
        for (const bad of [{ temperature: NaN }, { topP: 2 }, { minP: -1 }, { repetitionPenalty: 0 }, { logitBias: { 1e6: 1 } }]) await refused(ids(bad), 'usage');
        await refused(ids({ logitBias: Object.fromEntries(Array.from({ length: model.manifest.model.vocab_size }, (_, id) => [id, -Infinity])) }), 'usage');
      }),

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
        const tokenizer = { version: '1.0', added_tokens: added_tokens.filter(({ content }) => content.startsWith('<')), normalizer: null, pre_tokenizer: { type: 'WhitespaceSplit' }, post_processor: null, decoder: null, truncation: null, padding: null, model: { type: 'WordLevel', unk_token: 'w0', vocab: names } };
        const files = {
          'tokenizer.json': JSON.stringify(tokenizer),
          'chat_template.jinja': '{% for message in messages %}{{ message.content }} {% endfor %}',
        };
        const listed = async (file) => ({ file, sha256: await sha256(files[file]) });
        const text = { tokenizer: await listed('tokenizer.json'), tokenizer_config: null, chat_template: await listed('chat_template.jinja') };
        const withText = async (url, init) => {
          const name = String(url).split('/').at(-1);
          if (files[name]) return new Response(files[name]);
          const answer = await fetch(url, init);
          if (name !== 'manifest.json') return answer;
          return Response.json({ ...(await answer.json()), text });
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
  };
}
