// Reasoning, answers and calls of tools told apart, by cases that the Rust runtime's tests read as well.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { TextModel } from '../dist/text.js';

const read = (name) => readFileSync(new URL(`../../cases/text/${name}`, import.meta.url), 'utf8');
const { marks: MARKS, cases } = JSON.parse(read('channels.json'));

/** The byte-level tokenizer of the fixtures with these added tokens. */
function withMarks(marks, chatTemplate) {
  const tokenizer = JSON.parse(read('byte_level.json'));
  tokenizer.added_tokens = tokenizer.added_tokens.filter(({ content }) => !Object.values(MARKS).flat().includes(content));
  // As in released files: harmony's are special tokens, those of reasoning are not.
  const flags = { normalized: false, lstrip: false, rstrip: false, single_word: false };
  for (const [index, content] of marks.entries()) tokenizer.added_tokens.push({ id: 1000 + index, content, special: content.startsWith('<|'), ...flags });
  return new TextModel({ tokenizer: JSON.stringify(tokenizer), chatTemplate });
}

const HARMONY = withMarks(MARKS.harmony);
const THINK = withMarks(MARKS.think);
const NONE = withMarks(MARKS.none);

test('texts are told apart by their marks', () => {
  assert.ok(HARMONY.hasChannels && THINK.hasChannels && !NONE.hasChannels);
  assert.ok(cases.length > 20);
  for (const { what, marks, opening, text, raw, stop = [], said: expected } of cases) {
    const model = { harmony: HARMONY, think: THINK, none: NONE }[marks];
    const stream = model.answer(model.encode(opening, false), { raw, stop });
    const said = [];
    const add = ({ text, channel, begins }) => {
      if (begins) said.push({ ...begins, text: '' });
      if (text === '') return;
      assert.equal(channel, said.at(-1).kind, what);
      said.at(-1).text += text;
    };
    for (const id of model.encode(text, false)) add(stream.push(id));
    const { stopped } = stream;
    add(stream.finish());
    // The pieces say the same as the whole.
    assert.deepEqual(said, stream.channels, what);
    const parts = said.map(({ kind, name = null, recipient = null, text }) => [kind.replace('-', '_'), name, recipient, text]);
    assert.deepEqual(parts, expected, what);
    assert.equal(stopped, stop.length > 0, what);
  }
});

test('whatever the ids, each text is in a message that was begun', () => {
  let random = 1;
  const next = (below) => (random = (random * 48271) % 2147483647) % below;
  for (let round = 0; round < 300; round++) {
    const ids = Array.from({ length: next(60) }, () => (next(3) === 0 ? 1000 + next(7) : next(430)));
    for (const model of [HARMONY, THINK, NONE]) {
      const stream = model.answer(ids.slice(0, next(8)), { stop: 'the' });
      let begun = false;
      for (const piece of [...ids.map((id) => stream.push(id)), stream.finish()]) {
        begun ||= piece.begins !== undefined;
        assert.ok(piece.text === '' || begun, ids.join());
      }
    }
  }
});

test('a prompt knows where the turn of the model opens', () => {
  const template = "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}";
  const messages = [{ role: 'user', content: 'Where?' }];
  const { ids, opening } = withMarks(MARKS.harmony, template).encodeChat(messages);
  assert.deepEqual(ids.slice(opening), HARMONY.encode('<|start|>assistant', false));
});

test('what was thought and called goes into templates', () => {
  const template = '{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}|{{ m.tool_calls[0].function.arguments.city }}{% endfor %}{{ tools[0].name }}';
  const call = (city) => ({ function: { name: 'weather', arguments: city } });
  const messages = [{ role: 'assistant', content: '', reasoning: 'Hm.', tool_calls: [call('{"city": "Paris"}')] }];
  assert.equal(withMarks([], template).renderChat(messages, false, { tools: [{ name: 'weather' }] }), 'Hm.|Hm.|Parisweather');
  // What is no JSON stays as it is.
  messages[0].tool_calls = [call('{')];
  assert.equal(withMarks([], template).renderChat(messages, false, { tools: [{ name: 'weather' }] }), 'Hm.|Hm.|weather');
});
