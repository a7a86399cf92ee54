// Reasoning, answers and calls of tools told apart: the cases of the Rust runtime's tests (runtime/native/tests/channels.rs).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { TextModel } from '../dist/text.js';

const MARKS = ['<|start|>', '<|channel|>', '<|message|>', '<|constrain|>', '<|end|>', '<|return|>', '<|call|>', '<think>', '</think>'];
const byteLevel = readFileSync(new URL('../../cases/text/byte_level.json', import.meta.url), 'utf8');

/** The byte-level tokenizer of the fixtures with these added tokens. */
function withMarks(marks, chatTemplate) {
  const tokenizer = JSON.parse(byteLevel);
  tokenizer.added_tokens = tokenizer.added_tokens.filter(({ content }) => !MARKS.includes(content));
  // As in released files: harmony's are special tokens, those of reasoning are not.
  const flags = { normalized: false, lstrip: false, rstrip: false, single_word: false };
  for (const [index, content] of marks.entries()) tokenizer.added_tokens.push({ id: 1000 + index, content, special: content.startsWith('<|'), ...flags });
  return new TextModel({ tokenizer: JSON.stringify(tokenizer), chatTemplate });
}

const HARMONY = withMarks(MARKS.slice(0, 7));
const THINK = withMarks(MARKS.slice(7));
const NONE = withMarks([]);

/** What comes of a text after an opening. Checks that the pieces say the same as the whole. */
function read(model, opening, text, options) {
  const stream = model.answer(model.encode(opening, false), options);
  const said = [];
  const add = ({ text, channel, begins }) => {
    if (begins) said.push({ ...begins, text: '' });
    if (text === '') return;
    assert.equal(channel, said.at(-1).kind);
    said.at(-1).text += text;
  };
  for (const id of model.encode(text, false)) add(stream.push(id));
  const { stopped } = stream;
  add(stream.finish());
  assert.deepEqual(said, stream.channels);
  return { stream, stopped };
}

/** `kind name>recipient: text` of each message. */
const lines = (model, opening, text, options) =>
  read(model, opening, text, options).stream.channels.map(({ kind, name = '-', recipient, text }) => `${kind} ${name}${recipient ? `>${recipient}` : ''}: ${text}`);

test('harmony: messages are told apart', () => {
  assert.ok(HARMONY.hasChannels);
  const answer = '<|channel|>analysis<|message|>France,\nso Paris.\n<|end|><|start|>assistant<|channel|>final<|message|>Paris — 東京.<|return|>';
  const expected = ['reasoning analysis: France,\nso Paris.\n', 'answer final: Paris — 東京.'];
  assert.deepEqual(lines(HARMONY, '<|start|>assistant', answer), expected);
  // The opening may also be the whole prompt, or nothing.
  assert.deepEqual(lines(HARMONY, '<|start|>system<|message|>You are.<|end|><|start|>user<|message|>Where?<|end|><|start|>assistant', answer), expected);
  assert.deepEqual(lines(HARMONY, '', `<|start|>assistant${answer}`), expected);
});

test('harmony: calls name their tool', () => {
  const call = (header) => lines(HARMONY, '<|start|>assistant', `${header}<|message|>{"city": "Paris"}<|call|>`);
  const expected = ['tool-call commentary>functions.weather: {"city": "Paris"}'];
  // The recipient stands behind the channel or behind the role; the content type may be missing.
  assert.deepEqual(call('<|channel|>commentary to=functions.weather <|constrain|>json'), expected);
  assert.deepEqual(call('<|channel|>commentary to=functions.weather'), expected);
  assert.deepEqual(call(' to=functions.weather<|channel|>commentary <|constrain|>json'), expected);
  assert.deepEqual(call(' to=functions.weather<|channel|>commentary json'), expected);
  assert.deepEqual(lines(HARMONY, '<|start|>assistant', '<|channel|>analysis to=python code<|message|>1 + 1<|call|>'), ['tool-call analysis>python: 1 + 1']);
  // A call without arguments is one, too.
  assert.deepEqual(lines(HARMONY, '<|start|>assistant', '<|channel|>commentary to=functions.now<|message|><|call|>'), ['tool-call commentary>functions.now: ']);
  // A preamble for the user before it.
  const text = '<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=a<|message|>1<|call|>';
  assert.deepEqual(lines(HARMONY, '<|start|>assistant', text), ['commentary commentary: I look.', 'tool-call commentary>a: 1']);
});

test('harmony that is not as specified loses no text', () => {
  for (const [opening, text, expected] of [
    ['<|start|>assistant', '<|message|>No channel.<|return|>', ['answer -: No channel.']],
    ['', 'No header at all.', ['answer -: No header at all.']],
    ['', '<|channel|>final<|message|>No start.', ['answer final: No start.']],
    ['<|start|>assistant', '<|channel|>analysis<|message|>Not<|constrain|> ended<|channel|>final<|message|>yes', ['reasoning analysis: Not ended', 'answer final: yes']],
    ['<|start|>assistant', '<|channel|>final<|message|>a<|end|>behind it', ['answer final: a', 'answer -: behind it']],
    ['<|start|>assistant', '<|channel|>notes<|message|>x', ['commentary notes: x']],
    // Cut off in the header.
    ['<|start|>assistant', '<|channel|>final', []],
  ]) {
    assert.deepEqual(lines(HARMONY, opening, text), expected, text);
  }
});

test('reasoning stands between its tokens', () => {
  assert.ok(THINK.hasChannels);
  const expected = ['reasoning -: France,\n\nso Paris.', 'answer -: Paris.\n'];
  const answer = '<think>\nFrance,\n\nso Paris.\n</think>\n\nParis.\n';
  assert.deepEqual(lines(THINK, '<|im_start|>assistant\n', answer), expected);
  // Where the template has opened it already.
  assert.deepEqual(lines(THINK, '<|im_start|>assistant\n<think>\n', answer.slice('<think>\n'.length)), expected);
  // Told not to think; an answer at once; only thought.
  assert.deepEqual(lines(THINK, '<|im_start|>assistant\n<think>\n\n</think>\n\n', '\nParis.'), ['answer -: Paris.']);
  assert.deepEqual(lines(THINK, '', '<think>\n\n</think>\n\nParis.'), ['answer -: Paris.']);
  assert.deepEqual(lines(THINK, '', '\nParis.'), ['answer -: \nParis.']);
  assert.deepEqual(lines(THINK, '', '<think>\nHm.\n'), ['reasoning -: Hm.']);
});

test('models without marks only answer, and so do raw prompts', () => {
  assert.ok(!NONE.hasChannels);
  const text = '<|channel|>final<|message|> and <think> are text\n';
  assert.deepEqual(lines(NONE, '', text), [`answer -: ${text}`]);
  assert.deepEqual(lines(HARMONY, '<|start|>assistant', '<|channel|>analysis<|message|>Hm.<|end|>', { raw: true }), ['answer -: analysisHm.']);
});

test('stop texts end the answer only', () => {
  const text = '<|channel|>analysis<|message|>one stop two<|end|><|start|>assistant<|channel|>final<|message|>three stop four<|return|>';
  const { stream, stopped } = read(HARMONY, '<|start|>assistant', text, { stop: 'stop' });
  assert.ok(stopped);
  assert.equal(stream.textOf('reasoning'), 'one stop two');
  assert.equal(stream.textOf('answer'), 'three ');
  // A mark may be one.
  const mark = read(HARMONY, '<|start|>assistant', text, { stop: ['<|end|>'] });
  assert.ok(mark.stopped);
  assert.equal(mark.stream.textOf('answer'), undefined);
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
  const { ids, opening } = withMarks(MARKS.slice(0, 7), template).encodeChat(messages);
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
