import type { Channel, ChannelKind, ChannelText } from './generation.js';
import { TokenStream } from './token-stream.js';
import type { Vocabulary } from './vocabulary.js';

/**
 * Generated text told apart by what it is, from the marks that the tokenizer has:
 *
 * - harmony: messages `<|start|>ROLE<|channel|>NAME<|message|>TEXT<|end|>`, where `<|return|>` ends the last one and
 *   `<|call|>` the call of a tool, whose name stands as ` to=NAME` in the header;
 * - reasoning between `<think>` and `</think>`, the answer after it;
 * - otherwise all text is the answer.
 */
export interface Format {
  kind: 'plain' | 'think' | 'harmony';
  /** The tokens that are structure and no text. */
  marks: Map<number, Mark>;
}

type Mark = 'open' | 'close' | 'start' | 'channel' | 'message' | 'constrain' | 'end';

const HARMONY: Record<string, Mark> = {
  '<|start|>': 'start',
  '<|channel|>': 'channel',
  '<|message|>': 'message',
  '<|end|>': 'end',
  '<|return|>': 'end',
  '<|call|>': 'end',
  '<|constrain|>': 'constrain',
};
const THINK: Record<string, Mark> = { '<think>': 'open', '</think>': 'close' };

/** The format that the added tokens of a tokenizer (id and text) make possible. */
export function formatOf(added: readonly (readonly [id: number, text: string])[]): Format {
  const find = (all: Record<string, Mark>) => new Map(added.filter(([, text]) => Object.hasOwn(all, text)).map(([id, text]) => [id, all[text]!] as const));
  const has = (marks: Map<number, Mark>, ...needed: Mark[]) => needed.every((mark) => [...marks.values()].includes(mark));
  const texts = added.map(([, text]) => text);
  const harmony = find(HARMONY);
  if (has(harmony, 'start', 'channel', 'message') && texts.includes('<|end|>')) return { kind: 'harmony', marks: harmony };
  const think = find(THINK);
  return has(think, 'open', 'close') ? { kind: 'think', marks: think } : { kind: 'plain', marks: new Map() };
}

export const PLAIN: Format = { kind: 'plain', marks: new Map() };

/** What becomes known with a token. */
export interface Piece {
  text: string;
  channel: ChannelKind;
  /** A message of this channel begins. */
  begins?: Channel;
}

/** Where in a message the next text belongs. */
type MessagePart = { at: 'body'; channel: Channel } | { at: 'header'; role: string; name: string; field: 'role' | 'name' | 'other' } | { at: 'between' };

/** Turns token ids into text of channels as they come. */
export class ChannelStream {
  /** What was said so far, message by message. */
  readonly channels: ChannelText[] = [];
  /** A stop text is complete: further tokens add nothing. */
  stopped = false;
  #stops: readonly string[] = [];
  #part: MessagePart;
  #text: TokenStream;
  #begun = false;
  /** Newlines around reasoning are not part of it: none was seen but these since its start or end. */
  #atEdge = false;
  /** Newlines that are part of the reasoning if more follows. */
  #newlines = '';

  /**
   * `opening` is the end of the prompt in which the answer begins, e.g. `<|start|>assistant` or `<think>`. `stops` end the
   * answer; they are not looked for in other channels.
   */
  constructor(
    private vocabulary: Vocabulary,
    private format: Format,
    opening: readonly number[],
    stops: readonly string[],
  ) {
    this.#part = format.kind === 'harmony' ? { at: 'between' } : body('answer');
    this.#text = new TokenStream(vocabulary, []);
    // Without marks the prompt opens nothing.
    if (format.kind !== 'plain') for (const id of opening) this.push(id);
    // Nothing of it was generated.
    this.channels.length = 0;
    this.#begun = false;
    this.#newlines = '';
    this.#stops = stops;
    if (this.#part.at === 'body') this.#text = this.#newText();
  }

  /** The text that becomes certain with this token. */
  push(id: number): Piece {
    if (this.stopped) return this.#piece('');
    const mark = this.format.marks.get(id);
    if (mark === undefined) {
      const text = this.#text.push(id);
      this.stopped = this.#text.stopped;
      return this.#add(text);
    }
    const rest = this.#endText();
    this.stopped = this.#stops.includes(this.vocabulary.token(id)!);
    const part = (this.#part = after(mark, this.#part));
    this.#begun &&= mark === 'constrain';
    this.#atEdge = mark === 'open' || mark === 'close';
    this.#text = this.#newText();
    // A call is one even without arguments.
    if (part.at === 'body' && part.channel.kind === 'tool-call' && !this.#begun) return this.#piece('', this.#begin(part.channel));
    return rest;
  }

  /** The rest of the text, when no more tokens come. */
  finish(): Piece {
    return this.#endText();
  }

  /** All that is of this kind; undefined if nothing is. */
  textOf(kind: ChannelKind): string | undefined {
    const texts = this.channels.filter((part) => part.kind === kind).map(({ text }) => text);
    return texts.length > 0 ? texts.join('\n') : undefined;
  }

  #piece(text: string, begins?: Channel): Piece {
    const last = this.channels.at(-1);
    if (last) last.text += text;
    return { text, channel: last?.kind ?? 'answer', ...(begins && { begins }) };
  }

  #begin(channel: Channel): Channel {
    this.#begun = true;
    this.channels.push({ ...channel, text: '' });
    return channel;
  }

  #endText(): Piece {
    const piece = this.#add(this.#text.finish());
    this.#newlines = '';
    return piece;
  }

  /** Stop texts end the answer only. */
  #newText(): TokenStream {
    const answers = this.#part.at === 'body' && this.#part.channel.kind === 'answer';
    return new TokenStream(this.vocabulary, answers ? this.#stops : []);
  }

  #add(text: string): Piece {
    if (text === '') return this.#piece('');
    // Not as the format has it; rather shown than lost.
    const part = this.#part.at === 'between' ? body('answer') : this.#part;
    this.#part = part;
    if (part.at === 'header') {
      if (part.field !== 'other') part[part.field] += text;
      return this.#piece('');
    }
    if (this.#atEdge) text = text.replace(/^\n+/, '');
    if (text === '') return this.#piece('');
    this.#atEdge = false;
    if (this.format.kind === 'think' && part.channel.kind === 'reasoning') {
      const thought = text.replace(/\n+$/, '');
      const newlines = text.slice(thought.length);
      text = thought === '' ? '' : this.#newlines + thought;
      this.#newlines = thought === '' ? this.#newlines + newlines : newlines;
      if (text === '') return this.#piece('');
    }
    return this.#piece(text, this.#begun ? undefined : this.#begin(part.channel));
  }
}

function body(kind: ChannelKind): MessagePart & { at: 'body' } {
  return { at: 'body', channel: { kind } };
}

function after(mark: Mark, part: MessagePart): MessagePart {
  const header = part.at === 'header' ? part : undefined;
  switch (mark) {
    case 'open':
      return body('reasoning');
    case 'close':
      return body('answer');
    case 'start':
      return { at: 'header', role: '', name: '', field: 'role' };
    case 'channel':
      return header ? { ...header, field: 'name' } : { at: 'header', role: '', name: '', field: 'name' };
    case 'constrain':
      // A stray one within a text is no text.
      return header ? { ...header, field: 'other' } : part;
    case 'message':
      return header ? { at: 'body', channel: parseHeader(header) } : body('answer');
    case 'end':
      return { at: 'between' };
  }
}

/** The channel, and the recipient after ` to=`, which stands behind the role or behind the channel. */
function parseHeader(header: { role: string; name: string }): Channel {
  const words = (text: string) => text.split(/\s+/).filter((word) => word !== '');
  const recipient = [...words(header.role), ...words(header.name)].find((word) => word.startsWith('to='))?.slice(3);
  const first = words(header.name)[0];
  const name = first?.startsWith('to=') ? undefined : first;
  const kind = recipient !== undefined ? 'tool-call' : name === undefined || name === 'final' ? 'answer' : name === 'analysis' ? 'reasoning' : 'commentary';
  return { kind, ...(name !== undefined && { name }), ...(recipient !== undefined && { recipient }) };
}
