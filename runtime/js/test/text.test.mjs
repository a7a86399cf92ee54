// Tokenizer and templates against what Hugging Face's Python packages make of the same input: the fixtures of the Rust
// runtime's tests (runtime/cases/text/make_fixtures.py).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { Tokenizer } from '@huggingface/tokenizers';
import { TextModel } from '../dist/text.js';

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

test('templates render as in transformers', () => {
  const { now, renders: all } = JSON.parse(read('renders.json'));
  // Two of the fixtures are made of all that Jinja2 has; some of it (texts times a number, printed lists) is not to be had here.
  const renders = all.filter(({ template }) => template !== 'expressions' && template !== 'features');
  assert.ok(renders.length > 40);
  for (const { template, chat, messages, arguments: values, add_generation_prompt, text } of renders) {
    const model = open('byte_level', read(`templates/${template}.jinja`));
    const what = `${template}, ${chat}`;
    atTime(now, () => {
      if (text === null) assert.throws(() => model.renderChat(messages, add_generation_prompt, values), { code: 'template' }, what);
      else assert.equal(model.renderChat(messages, add_generation_prompt, values), text, what);
    });
  }
});

test('templates print what Python prints', () => {
  for (const [template, expected] of [
    ['{{ "one \\\n two" }} {{ "\\z\\t\\x41\\\\" }} {{ \'it\\\'s\' }} a \\ b', 'one  two \\z\tA\\ it\'s a \\ b'],
    ['{{ true }} {{ none }} {{ message.flag }} {{ missing }} {{ 1.0 }} {{ 2 }}', 'True None False  1.0 2'],
    ['{{ 1 == 1 }} {{ "a" in "b" }} {{ missing is defined }} {{ not true }} {% if true %}{{ false }}{% else %}{{ true }}{% endif %}', 'True False False False False'],
    ['{% for x in [] %}{% else %}{{ true }}{% endfor %}{% set x %}{{ none }}{% endset %}{{ x }}', 'TrueNone'],
    ['{{ "x" ~ 1 ~ none ~ true ~ "y" }}', 'x1NoneTruey'],
    ["{{ '%s-%s %.2f %d%%' | format('x', true, 1.5, 7) }}", 'x-True 1.50 7%'],
    ['{{ message | tojson }} {{ [true, none] | tojson }}', '{"flag": false} [true, null]'],
  ]) {
    assert.equal(open('byte_level', template).renderChat([], false, { message: { flag: false } }), expected, template);
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
    run();
  } finally {
    globalThis.Date = RealDate;
  }
}

test('a stop text ends the answer wherever the pieces are cut', () => {
  const model = open('byte_level');
  const ids = model.encode('Hello, world! The year 2024', false);
  for (const [stops, expected] of [
    [['world'], 'Hello, '],
    [['! The', ' The year'], 'Hello, world'],
    [['nowhere'], 'Hello, world! The year 2024'],
    [['2024 '], 'Hello, world! The year 2024'],
    [['', 'H'], ''],
  ]) {
    const stream = model.stream(stops);
    assert.equal(ids.map((id) => stream.push(id)).join('') + stream.finish(), expected, stops.join());
  }
});

test('a bundle without a template says so when a chat is asked for', () => {
  assert.throws(() => open('byte_level').renderChat([{ role: 'user', content: 'hi' }]), { code: 'no-text' });
  assert.throws(() => open('byte_level', '{% if %}').renderChat([]), { code: 'template' });
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
