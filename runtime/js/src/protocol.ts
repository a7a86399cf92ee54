import { type ErrorCode, isKilnError, KilnError } from './errors.js';
import type { Result, Token } from './generation.js';
import type { LoadReport } from './load.js';
import type { Manifest } from './manifest.js';
import type { Prompt } from './message.js';
import type { Memory } from './model.js';
import type { GenerateOptions, LoadOptions } from './options.js';
import type { Pace } from './pace.js';
import type { Progress } from './progress.js';

/** What a page asks of a worker. Everything can be cloned; `id` names the call that events answer. */
export type Request =
  | { type: 'load'; id: number; source: string; options: WorkerLoadOptions }
  | { type: 'generate'; id: number; session: number; prompt: Prompt; options: Omit<GenerateOptions, 'signal'> }
  | { type: 'open-session'; id: number; session: number; context: number | undefined }
  | { type: 'reset-session' | 'close-session'; id: number; session: number }
  | { type: 'save-session'; id: number; session: number; note: unknown }
  | { type: 'restore-session'; id: number; session: number }
  /** A piece was taken, or here is the one that was asked for. */
  | { type: 'reply'; id: number; piece?: Uint8Array }
  | { type: 'memory'; id: number }
  | { type: 'dispose'; id: number }
  /** Ends a load or a generation. */
  | { type: 'abort'; id: number; quietly: boolean }
  | { type: 'pace'; pace: Pace }
  | { type: 'hidden'; hidden: boolean };

/** What a worker tells. */
export type Event =
  | { type: 'progress'; id: number; progress: Progress }
  | { type: 'token'; id: number; token: Token }
  /** Of a session that is saved. The next comes when this one was taken. */
  | { type: 'piece'; id: number; piece: Uint8Array }
  /** A session that is restored needs the next piece. */
  | { type: 'ask'; id: number }
  | { type: 'done'; id: number; value: unknown }
  | { type: 'failed'; id: number; error: PlainError };

export interface LoadedInfo {
  manifest: Manifest;
  report: LoadReport;
}

/** The values of `done`, by request. */
export interface Answers {
  load: LoadedInfo;
  generate: Result | undefined;
  'open-session': undefined;
  'reset-session': undefined;
  'close-session': undefined;
  'save-session': undefined;
  /** Its note. */
  'restore-session': unknown;
  memory: Memory;
  dispose: undefined;
}

/** The options that can be cloned; functions and objects of the page stay with it. */
export type WorkerLoadOptions = Omit<LoadOptions, 'adapter' | 'cache' | 'fetch' | 'progress' | 'saved' | 'signal' | 'text' | 'wasm'> & {
  cache?: 'cache-api' | 'opfs' | 'none';
  wasm?: string;
};

export interface PlainError {
  code: ErrorCode | undefined;
  message: string;
  details: object;
}

export function toPlain(error: unknown): PlainError {
  if (isKilnError(error)) return { code: error.code, message: error.message, details: error.details };
  return { code: undefined, message: String((error as Error)?.message ?? error), details: {} };
}

export function fromPlain({ code, message, details }: PlainError): Error {
  return code ? new KilnError(code, message, details as never) : new Error(message);
}
