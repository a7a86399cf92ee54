import type { BundleOptions } from './bundle.js';
import type { HostOptions } from './hosts.js';
import type { Pace } from './pace.js';
import type { SavedModule, TextModule } from './modules.js';
import type { WasmSource } from './wasm.js';

export interface LoadOptions extends BundleOptions, HostOptions {
  /** Name of the variant to use; absent: the first that the device runs. */
  variant?: string;
  /**
   * Compare weights with their checksums: `'new'` (the default) those that were never compared, `true` always,
   * `false` never.
   */
  verify?: boolean | 'new';
  /** Positions of the sessions; absent: the model's default. */
  context?: number;
  /** Pause and speed of generations, for batteries and heat. */
  pace?: Pace;
  /** The module `kiln-runtime/text`, where it cannot be imported on demand (service workers). */
  text?: TextModule;
  /** The module `kiln-runtime/saved`, likewise. */
  saved?: SavedModule;
  /** The wasm module, where it does not lie beside this package's JavaScript. */
  wasm?: WasmSource;
}

/** How the next token is picked. Absent: as the model's checkpoint says, else greedy. */
export interface Sampling {
  /** 0: always the most likely token. */
  temperature?: number;
  /** Keep the k most likely tokens; 0 keeps all. */
  topK?: number;
  /** Keep the smallest set of tokens with this probability; 1 keeps all. */
  topP?: number;
  /** Keep the tokens that are at least this times as likely as the most likely one; 0 keeps all. */
  minP?: number;
  /** Divides the positive logits of tokens that stand in the conversation, multiplies their negative ones; 1 does nothing. */
  repetitionPenalty?: number;
  /** Taken from the logits of tokens that stand in the answer. */
  presencePenalty?: number;
  /** Taken from the logits of tokens that stand in the answer, as often as they do. */
  frequencyPenalty?: number;
  /** No sequence of so many tokens occurs twice; 0: any may. */
  noRepeatNgram?: number;
  /** The answer has at least so many tokens before one that ends it. */
  minTokens?: number;
  /** Added to the logits of these token ids, besides what the model says; `-Infinity` rules one out. */
  logitBias?: Record<number, number>;
  /** A whole number; absent: another one each time. */
  seed?: number;
}

export interface GenerateOptions extends Sampling {
  maxTokens?: number;
  /** Texts that end the answer and are not part of it; they may stand in the reasoning. */
  stop?: string | string[];
  /** Ids that end the answer; absent: the model's. */
  stopIds?: number[];
  /** Ends the generation; the iterator throws the signal's reason. */
  signal?: AbortSignal;
  /** A prompt that is text is encoded as it is, without the chat template, and all that comes is the answer. */
  raw?: boolean;
  /** Variables for the chat template: `reasoning_effort`, `enable_thinking` and the like. */
  templateArguments?: Record<string, unknown>;
  /** Steps given to the device ahead of the one that is waited for. */
  stepsInFlight?: number;
}
