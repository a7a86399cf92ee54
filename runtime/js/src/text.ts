import { Tokenizer } from '@huggingface/tokenizers';
import { ChannelStream, type Format, formatOf, PLAIN } from './channels.js';
import { KilnError } from './errors.js';
import { ChatTemplate, Refusal } from './jinja.js';
import type { Message } from './message.js';
import { TokenStream } from './token-stream.js';
import type { Vocabulary } from './vocabulary.js';

export { ChatTemplate, TokenStream };

/** The files of a checkpoint, as text. */
export interface TextFiles {
  tokenizer: string;
  tokenizerConfig?: string;
  chatTemplate?: string;
}

/** Tokenizer and chat template of one model. */
export class TextModel implements Vocabulary {
  #tokenizer: Tokenizer;
  #template: ChatTemplate | undefined;
  #templateFault: unknown;
  #specialTokens: Record<string, string>;
  #special: Map<number, string>;
  readonly byteLevel: boolean;
  #format: Format;

  constructor(files: TextFiles) {
    let config: Record<string, unknown>;
    try {
      const tokenizer = JSON.parse(files.tokenizer);
      config = files.tokenizerConfig ? JSON.parse(files.tokenizerConfig) : {};
      this.#tokenizer = new Tokenizer(tokenizer, {});
      this.byteLevel = tokenizer.decoder?.type === 'ByteLevel';
    } catch (cause) {
      throw new KilnError('bundle', `the tokenizer cannot be read (${(cause as Error).message}); compile the model again`, {}, { cause });
    }
    const added = [...this.#tokenizer.get_added_tokens_decoder()];
    this.#format = formatOf(added.map(([id, { content }]) => [id, content]));
    this.#special = new Map(added.filter(([, token]) => token.special).map(([id, token]) => [id, token.content]));
    this.#specialTokens = specialTokens(config);
    try {
      const template = files.chatTemplate ?? templateInConfig(config);
      if (template !== undefined) this.#template = new ChatTemplate(template);
    } catch (fault) {
      // Reported when somebody asks for a chat: raw prompts work without.
      this.#templateFault = fault;
    }
  }

  /** Token ids. `addSpecial`: with what the tokenizer puts around a prompt, e.g. a first `<bos>`. */
  encode(text: string, addSpecial: boolean): number[] {
    return this.#tokenizer.encode(text, { add_special_tokens: addSpecial }).ids;
  }

  decode(ids: readonly number[], skipSpecial: boolean): string {
    if (ids.length === 0) return '';
    return this.#tokenizer.decode([...ids], { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false });
  }

  /** A token as the tokenizer's file has it. */
  token(id: number): string | undefined {
    return this.#tokenizer.id_to_token(id);
  }

  /** The text of a special token; undefined for every other id. */
  specialToken(id: number): string | undefined {
    return this.#special.get(id);
  }

  /** Whether there is one. One that cannot be used counts: `renderChat` says why. */
  get hasChatTemplate(): boolean {
    return this.#template !== undefined || this.#templateFault !== undefined;
  }

  /** The conversation as the text that the model was trained on. */
  renderChat(messages: readonly Message[], addGenerationPrompt = true, templateArguments: Record<string, unknown> = {}): string {
    if (!this.#template) {
      const fault = this.#templateFault as Error | undefined;
      throw fault
        ? new KilnError('template', `the chat template cannot be read (${fault.message}); pass the prompt as text`, {}, { cause: fault })
        : new KilnError('no-text', 'the model has no chat template; pass the prompt as text');
    }
    try {
      return this.#template.render({
        ...this.#specialTokens,
        messages: messages.map(templateMessage),
        add_generation_prompt: addGenerationPrompt,
        tools: null,
        documents: null,
        ...templateArguments,
      });
    } catch (cause) {
      const { message } = cause as Error;
      const what = cause instanceof Refusal ? `the chat template refuses these messages: ${message}` : `the chat template fails: ${message}; pass the prompt as text`;
      throw new KilnError('template', what, {}, { cause });
    }
  }

  /**
   * A conversation as a prompt. `opening` is where what the template adds for the model's turn begins: what comes before it
   * stays as it is in the next turns.
   */
  encodeChat(messages: readonly Message[], templateArguments?: Record<string, unknown>): { ids: number[]; opening: number } {
    const encode = (addGenerationPrompt: boolean) => this.encode(this.renderChat(messages, addGenerationPrompt, templateArguments), false);
    const ids = encode(true);
    // Nothing of the prompt matters to the answer's channels where there are none.
    if (!this.hasChannels) return { ids, opening: ids.length };
    const closed = encode(false);
    const parted = ids.findIndex((id, index) => id !== closed[index]);
    return { ids, opening: parted < 0 ? ids.length : parted };
  }

  /** Whether answers may have other channels than the answer itself, e.g. reasoning. */
  get hasChannels(): boolean {
    return this.#format.kind !== 'plain';
  }

  /** Text of an answer's channels from ids as they come. `opening` is the end of the prompt, `raw` takes all text as the answer. */
  answer(opening: readonly number[], { stop = [], raw = false }: { stop?: string | readonly string[]; raw?: boolean } = {}): ChannelStream {
    return new ChannelStream(this, raw ? PLAIN : this.#format, opening, typeof stop === 'string' ? [stop] : stop);
  }

  /** Text from ids as they come; `stops` end it. */
  stream(stops: readonly string[] = []): TokenStream {
    return new TokenStream(this, stops);
  }
}

/** A message as templates know it. */
function templateMessage({ reasoning, ...message }: Message): Record<string, unknown> {
  const thought = reasoning !== undefined && { thinking: reasoning, reasoning_content: reasoning };
  const calls = Array.isArray(message.tool_calls) && { tool_calls: message.tool_calls.map(templateCall) };
  return { ...message, ...thought, ...calls };
}

/** OpenAI's clients give arguments as JSON, templates expect what it means. */
function templateCall(call: { function?: { arguments?: unknown } }): object {
  const text = call.function?.arguments;
  if (typeof text !== 'string') return call;
  try {
    return { ...call, function: { ...call.function, arguments: JSON.parse(text) } };
  } catch {
    return call;
  }
}

/** `bos_token` and its like: each is a string or an object with `content`. */
function specialTokens(config: Record<string, unknown>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    const text = typeof value === 'string' ? value : (value as { content?: unknown } | null)?.content;
    if (name.endsWith('_token') && typeof text === 'string') tokens[name] = text;
  }
  return tokens;
}

/** `chat_template` of a tokenizer_config.json: a string, or a list of named ones, of which the default. */
function templateInConfig(config: Record<string, unknown>): string | undefined {
  const template = config.chat_template;
  if (typeof template === 'string') return template;
  if (template === undefined || template === null) return undefined;
  const named = Array.isArray(template) ? template.find((entry) => entry?.name === 'default')?.template : undefined;
  if (typeof named !== 'string') throw new Error('tokenizer_config.json has a chat_template, and none of the name `default`');
  return named;
}
