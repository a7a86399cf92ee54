import { KilnError, throwIfAborted } from './errors.js';
import { hostName } from './hosts.js';
import { importHere } from './import.js';

export interface TransportOptions {
  /** Instead of the global `fetch`. */
  fetch?: typeof fetch;
  /** With every request, e.g. `{ Authorization: 'Bearer ...' }` for private models. */
  headers?: HeadersInit;
  signal?: AbortSignal;
}

/** Bytes from an address, from a position on. */
export interface Body {
  /** As the server says; undefined where it does not. */
  total: number | undefined;
  chunks: AsyncIterable<Uint8Array>;
  /** Nobody else has the chunks' memory. */
  fresh: boolean;
}

/** Fetches files, and reads those of `file:` addresses in Node, Deno and Bun. */
export class Transport {
  constructor(private options: TransportOptions) {}

  /** A whole file. */
  async file(url: string): Promise<Uint8Array> {
    return this.#retry(url, async () => {
      const { chunks } = await this.from(url, 0);
      const parts: Uint8Array[] = [];
      for await (const chunk of chunks) parts.push(chunk);
      return concat(parts);
    });
  }

  /** The bytes from `offset` on, as they come. */
  async from(url: string, offset: number): Promise<Body> {
    throwIfAborted(this.options.signal);
    if (url.startsWith('file:')) return readFrom(url, offset);
    const headers = new Headers(this.options.headers);
    if (offset > 0) headers.set('Range', `bytes=${offset}-`);
    const { fetch: custom, signal } = this.options;
    const response = await (custom ?? globalThis.fetch)(url, { headers, signal });
    if (!response.ok) throw httpError(url, response.status);
    if (/text\/html/i.test(response.headers.get('Content-Type') ?? '')) {
      await response.body?.cancel();
      throw new KilnError('html', `${url} is a web page, not a file of a bundle; check the address, and that no log-in page stands before it`, { url });
    }
    const body = response.body;
    if (!body) throw new TypeError('no body');
    const chunks = iterate(body);
    // Node's chunks may be parts of one buffer, and a `fetch` of the caller's may keep what it gives.
    const fresh = !custom && hostName() === 'browser';
    const length = contentLength(response);
    if (offset > 0 && response.status !== 206) {
      // The server has no ranges: what is there already is skipped.
      return { total: length, chunks: skip(chunks, offset), fresh };
    }
    const total = rangeTotal(response) ?? (length === undefined ? undefined : offset + length);
    return { total, chunks, fresh };
  }

  async #retry<T>(url: string, run: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await run();
      } catch (error) {
        await this.beforeRetry(url, error, attempt, 0);
      }
    }
  }

  /** Waits before another attempt, or throws where none helps. */
  async beforeRetry(url: string, error: unknown, attempt: number, loaded: number): Promise<void> {
    throwIfAborted(this.options.signal);
    const transient = error instanceof KilnError ? error.code === 'http' && retryable(error) : true;
    if (transient && attempt < ATTEMPTS) return sleep(DELAY * 2 ** attempt, this.options.signal);
    if (error instanceof KilnError) throw error;
    throw new KilnError('network', `${url} could not be fetched (${(error as Error).message}); check the connection, and that the server allows this origin (CORS)`, { url, loaded }, { cause: error });
  }
}

/** Attempts after the first that bring nothing new. */
export const ATTEMPTS = 3;
/** Before the second attempt, in milliseconds; doubled each time. */
const DELAY = 300;

function retryable(error: KilnError): boolean {
  const { status } = error.details as { status: number };
  return status === 408 || status === 429 || status >= 500;
}

function httpError(url: string, status: number): KilnError {
  const details = { url, status };
  if (status === 404 || status === 410) {
    return new KilnError('not-found', `${url} does not exist (${status}); check the model's address and revision`, details);
  }
  if (status === 401 || status === 403) {
    return new KilnError('forbidden', `${url} is private (${status}); give the server's token in headers`, details);
  }
  return new KilnError('http', `${url} answered ${status}; try again later`, details);
}

/** Bytes of the body; undefined where it is compressed on the way, since then the header counts other bytes. */
function contentLength(response: Response): number | undefined {
  const encoding = response.headers.get('Content-Encoding');
  const length = response.headers.get('Content-Length');
  return length && (!encoding || encoding === 'identity') ? Number(length) : undefined;
}

function rangeTotal(response: Response): number | undefined {
  const total = /\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '')?.[1];
  return total === undefined ? undefined : Number(total);
}

/** Streams as async iterables: Safari's are none. */
async function* iterate(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    // Also when the consumer stops early.
    await reader.cancel().catch(() => {});
  }
}

async function* skip(chunks: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  let left = bytes;
  for await (const chunk of chunks) {
    if (left >= chunk.byteLength) left -= chunk.byteLength;
    else {
      yield chunk.subarray(left);
      left = 0;
    }
  }
}

async function readFrom(url: string, offset: number): Promise<Body> {
  const fs = await importHere('node:fs');
  const path = new URL(url);
  let size: number;
  try {
    size = fs.statSync(path).size;
  } catch (cause) {
    throw new KilnError('not-found', `${url} does not exist; check the path of the bundle`, { url, status: 404 }, { cause });
  }
  return { total: size, chunks: fs.createReadStream(path, { start: offset, highWaterMark: 1 << 20 }), fresh: false };
}

export function concat(parts: Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}

/** Rejects with the signal's reason when it aborts. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
