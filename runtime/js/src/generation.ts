import { Stream } from './stream.js';

/** What a text is: for the user, thought on the way there, said to the user about what comes, or arguments of a tool. */
export type ChannelKind = 'answer' | 'reasoning' | 'commentary' | 'tool-call';

/** One message of the model. */
export interface Channel {
  kind: ChannelKind;
  /** The model's own word for it, e.g. `analysis`, where it has one. */
  name?: string;
  /** The tool that a call goes to, e.g. `functions.weather`. */
  recipient?: string;
}

/** A message and its whole text. */
export interface ChannelText extends Channel {
  text: string;
}

/** One token of an answer. */
export interface Token {
  id: number;
  /** Text that became certain with it; empty within a character, for special tokens, and without a tokenizer. */
  text: string;
  /** What the text is. */
  channel: ChannelKind;
  /** The message that begins with it, on the first token of each. */
  begins?: Channel;
}

export type StopReason = 'end-of-text' | 'max-tokens' | 'context-full' | 'canceled' | 'stop-text' | 'dropped';

/** A finished answer. */
export interface Result {
  /** The answer, without what else was said. */
  text: string;
  /** What the model thought, if it did. */
  reasoning: string | undefined;
  /** All that was said, message by message: answers, reasoning, calls of tools. */
  channels: ChannelText[];
  /** With the end token. */
  ids: number[];
  stop: StopReason;
  usage: {
    promptTokens: number;
    /** Of the prompt's tokens, those that the session had seen already. */
    cachedTokens: number;
    completionTokens: number;
  };
  timings: Timings;
}

/** Milliseconds, by the host's clock. */
export interface Timings {
  /** From the call to the first token. */
  firstTokenMs: number;
  totalMs: number;
  /** After the first token. */
  tokensPerSecond: number | undefined;
  /** Encoding steps, all together. */
  encodingMs: number;
}

/** A running answer: iterate it for its tokens, await `result` for all of it. */
export class Generation extends Stream<Token> {
  /** Rejects like the iterator does. */
  readonly result: Promise<Result>;
  #resolve!: (result: Result) => void;
  #reject!: (error: unknown) => void;

  constructor() {
    super();
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever only iterates hears of an error there.
    this.result.catch(() => {});
  }

  complete(result: Result): void {
    this.#resolve(result);
    this.end();
  }

  override fail(error: unknown): void {
    this.#reject(error);
    super.fail(error);
  }
}
