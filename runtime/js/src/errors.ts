/** What went wrong, as a program tells errors apart. The comments say what each carries in `details`. */
export interface ErrorDetails {
  /** The host has no WebGPU. */
  'no-webgpu': {};
  /** WebGPU is there, and no adapter. */
  'no-adapter': {};
  /** The WebAssembly module is not there, or a content security policy forbids it. */
  wasm: { url: string | undefined };
  /** The worker's script is not there, or does not start. */
  worker: {};
  /** No variant of the model runs on this adapter. */
  unsupported: { missing: Missing[] };
  /** The bundle has no variant of that name. */
  'unknown-variant': { variant: string; available: string[] };
  /** The server answered with an error. */
  http: { url: string; status: number };
  /** The server has no such file (404, 410). */
  'not-found': { url: string; status: number };
  /** Private: the server wants a token (401, 403). */
  forbidden: { url: string; status: number };
  /** The server sent a web page where a file of the bundle should be. */
  html: { url: string };
  /** The connection failed, also after trying again. */
  network: { url: string; loaded: number };
  /** The file ended early, also after trying again. */
  truncated: { url: string; expected: number; found: number };
  /** The file has another size than the manifest says. */
  'file-size': { file: string; expected: number; found: number };
  /** The file is not what the compiler wrote. */
  checksum: { file: string };
  /** Offline mode, and the file is not in the cache. */
  'not-cached': { file: string };
  /** The storage of the cache is full. */
  quota: { needed: number; available?: number };
  /** No manifest, or one that contradicts itself. */
  bundle: {};
  /** Written by another version of the compiler. */
  'bundle-version': {};
  /** A kernel does not compile on this device. */
  kernel: { kernel: string; file: string };
  'out-of-memory': { bytes: number };
  /** No session of that length. */
  'context-length': { longest?: number };
  /** More tokens than the session takes. */
  'context-overflow': { position: number; tokens: number; context: number };
  /** A saved session that cannot be taken up. */
  'saved-session': { fault: SavedSessionFault };
  /** The device is gone: the next call loads the model again. */
  'device-lost': {};
  /** The model's numbers are not finite: what it would say means nothing. The message may name a variant that does better. */
  'not-finite': {};
  /** The bundle has no tokenizer, or no chat template. */
  'no-text': {};
  /** The chat template refused the messages. */
  template: {};
  /** A call that makes no sense, e.g. a token id that the model has not. */
  usage: {};
  /** The model was freed with `dispose()`. */
  disposed: {};
  /** A mistake in Kiln or in the driver. */
  internal: {};
}

export type ErrorCode = keyof ErrorDetails;

export type SavedSessionFault = 'not-a-session' | 'version' | 'damaged' | 'other-model' | 'other-variant' | 'context';

/** A feature or limit that an adapter lacks for a variant. */
export interface Missing {
  variant: string;
  /** WebGPU's name of a feature or of a limit; `context` where the model has fewer positions. */
  name: string;
  /** Of a limit. */
  needed?: number;
  found?: number;
}

/** Every error of this package but cancelation, which is the signal's own reason. The message says what to do. */
export class KilnError<C extends ErrorCode = ErrorCode> extends Error {
  /** Also where the code is minified. */
  static override readonly name = 'KilnError';
  override name = 'KilnError';
  constructor(
    readonly code: C,
    message: string,
    readonly details: ErrorDetails[C] = {} as ErrorDetails[C],
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Whether this is an error of the package (with that code). */
export function isKilnError<C extends ErrorCode>(error: unknown, code?: C): error is KilnError<C> {
  return error instanceof KilnError && (code === undefined || error.code === code);
}

/** What the wasm module throws. */
interface WasmError {
  code: ErrorCode | 'canceled' | 'read';
  message: string;
  [detail: string]: unknown;
}

/** Turns an error of the wasm module into ours; others pass. */
export function fromWasm(error: unknown): unknown {
  if (typeof error !== 'object' || error === null || error instanceof Error || !('code' in error)) return error;
  const { code, message, ...details } = error as WasmError;
  if (code === 'canceled' || code === 'read') return error;
  return new KilnError(code, message, details as never);
}

/** The abort reason of a signal, thrown. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw signal.reason;
}
