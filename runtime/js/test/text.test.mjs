// Tokenizer and templates against what Hugging Face's Python packages make of the same input: the fixtures of the Rust
// runtime's tests (runtime/cases/text/make_fixtures.py).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { Tokenizer } from '@huggingface/tokenizers';
import { ChatTemplate, TextModel } from '../dist/text.js';

const read = (name) => readFileSync(new URL(`../../cases/text/${name}`, import.meta.url), 'utf8');
const CONFIG = JSON.stringify({
  bos_token: '<|begin|>',
  eos_token: { content: '<|im_end|>', lstrip: false },
  pad_token: '<|end|>',
  unk_token: null,
  add_bos_token: true,
});
const open = (tokenizer, chatTemplate) => new TextModel({ tokenizer: read(`${tokenizer}.json`), tokenizerConfig: CONFIG, chatTemplate });

test('text is cut as the published tokenizers cut it', () => {
  const { texts, splits } = JSON.parse(read('../pre_tokenizers/published.json'));
  const published = new Map(Object.entries(splits).flatMap(([names, pieces]) => names.split(' ').map((name) => [name, pieces])));
  const base = { ...JSON.parse(read('byte_level.json')), normalizer: null };
  const bytes = (text) => new TextEncoder().encode(text).length;
  for (const { names, steps } of JSON.parse(read('../pre_tokenizers/steps.json'))) {
    // Falcon's last steps cut within characters, which lengths in characters do not show.
    if (names[0] === 'falcon') continue;
    const { pre_tokenizer } = new Tokenizer({ ...base, pre_tokenizer: steps }, {});
    for (const [index, text] of texts.entries()) {
      const characters = [...text];
      const expected = published.get(names[0])[index].split(' ').map((length) => bytes(characters.splice(0, Number(length)).join('')));
      // A piece has a letter for each byte.
      const found = pre_tokenizer.pre_tokenize_text(text, {}).map((piece) => [...piece].length);
      assert.deepEqual(found, expected, `${names[0]}: ${JSON.stringify(text)}`);
    }
  }
});

const encodings = JSON.parse(read('encodings.json'));
for (const kind of ['byte_level', 'byte_fallback']) {
  test(`${kind}: ids and text are those of the Python tokenizers`, () => {
    const model = open(kind);
    assert.ok(encodings[kind].length >= 8);
    for (const { text, ids, with_special, decoded, plain } of encodings[kind]) {
      assert.deepEqual(model.encode(text, false), ids, text);
      assert.deepEqual(model.encode(text, true), with_special, text);
      assert.equal(model.decode(ids, false), decoded, text);
      assert.equal(model.decode(ids, true), plain, text);
    }
  });

  test(`${kind}: text as it comes is the text of all ids`, () => {
    const model = open(kind);
    for (const { ids, plain } of encodings[kind]) {
      const stream = model.stream();
      const text = ids.map((id) => stream.push(id)).join('') + stream.finish();
      assert.equal(text, plain);
    }
  });
}

// What templates see of the time is local.
process.env.TZ = 'UTC';

test('templates render as in transformers', () => {
  const { now, renders } = JSON.parse(read('renders.json'));
  assert.ok(renders.length > 90);
  for (const { template, chat, messages, arguments: values, add_generation_prompt, text } of renders) {
    const model = open('byte_level', read(`templates/${template}.jinja`));
    const what = `${template}, ${chat}`;
    atTime(now, () => {
      if (text === null) assert.throws(() => model.renderChat(messages, add_generation_prompt, values), { code: 'template', message: /refuses/ }, what);
      else assert.equal(model.renderChat(messages, add_generation_prompt, values), text, what);
    });
  }
});

test('small templates print what Jinja2 prints, or are refused', () => {
  const { now, values, messages, cases } = JSON.parse(read('jinja.json'));
  assert.ok(cases.length > 1000);
  for (const { topic, template, text, refused_by = [] } of cases) {
    const what = `${topic}: ${template}`;
    const render = () => atTime(now, () => new ChatTemplate(template).render({ messages, tools: null, documents: null, add_generation_prompt: true, ...values }));
    if (text === null || refused_by.includes('js')) assert.throws(render, what);
    else assert.equal(render(), text, what);
  }
});

test('templates see the date in local time', () => {
  const model = open('byte_level', "{{ strftime_now('%d %b %Y %H') }}");
  try {
    process.env.TZ = 'Etc/GMT+12';
    assert.equal(atTime(1709211909, () => model.renderChat([])), '29 Feb 2024 01');
  } finally {
    process.env.TZ = 'UTC';
  }
});

function atTime(seconds, run) {
  const RealDate = Date;
  globalThis.Date = class extends RealDate {
    constructor(...values) {
      super(...(values.length ? values : [seconds * 1000]));
    }
  };
  try {
    return run();
  } finally {
    globalThis.Date = RealDate;
  }
}

test('a stop text ends the answer wherever the pieces are cut', () => {
  const model = open('byte_level');
  const { text, cases } = JSON.parse(read('stops.json'));
  const ids = model.encode(text, false);
  assert.ok(cases.length > 0);
  for (const { stop, shown } of cases) {
    const stream = model.stream(stop);
    assert.equal(ids.map((id) => stream.push(id)).join('') + stream.finish(), shown, stop.join());
  }
});

test('a bundle without a template says so when a chat is asked for', () => {
  assert.throws(() => open('byte_level').renderChat([{ role: 'user', content: 'hi' }]), { code: 'no-text' });
  for (const template of ['{% if %}', '{{ "x" }}{% endfo %}', '{{ nosuch() }}', "{{ 'a' < 1 }}"]) {
    const unusable = open('byte_level', template);
    assert.ok(unusable.hasChatTemplate);
    assert.throws(() => unusable.renderChat([]), { code: 'template', message: /pass the prompt as text/ }, template);
  }
  for (const chat_template of [3, [{ name: 'tool_use', template: 'x' }]]) {
    const unusable = new TextModel({ tokenizer: read('byte_level.json'), tokenizerConfig: JSON.stringify({ chat_template }) });
    assert.ok(unusable.hasChatTemplate);
    assert.throws(() => unusable.renderChat([]), { code: 'template', message: /`default`/ });
  }
  assert.throws(() => new TextModel({ tokenizer: '{' }), { code: 'bundle' });
});

// The bundle of the real model, where KILN_SMOLLM2 names it.
const real = process.env.KILN_SMOLLM2;
test('SmolLM2: ids, chats and answers are those of transformers', { skip: real ? false : 'KILN_SMOLLM2 names no bundle' }, () => {
  const file = (name) => readFileSync(`${real}/${name}`, 'utf8');
  const model = new TextModel({ tokenizer: file('tokenizer.json'), tokenizerConfig: file('tokenizer_config.json'), chatTemplate: file('chat_template.jinja') });
  const reference = JSON.parse(readFileSync(new URL('../../../codegen-tests/fixtures/real/smollm2-135m-instruct.reference.json', import.meta.url)));
  assert.ok(reference.tokenizer.length > 0 && reference.prompts.length > 0);
  for (const { text, ids } of reference.tokenizer) {
    assert.deepEqual(model.encode(text, false), ids, text);
    const stream = model.stream();
    assert.equal(ids.map((id) => stream.push(id)).join('') + stream.finish(), model.decode(ids, true));
  }
  for (const { messages, text, ids } of reference.prompts) {
    if (!messages) continue;
    assert.equal(model.renderChat(messages), text);
    if (ids) assert.deepEqual(model.encodeChat(messages).ids, ids);
  }
});
