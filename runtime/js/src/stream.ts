import { free } from './memory.js';

/** A queue between a producer that may be held back and one `for await` loop. */
export class Stream<T> implements AsyncIterableIterator<T> {
  #items: T[] = [];
  #waiting: (() => void) | undefined;
  #ended = false;
  #error: unknown;
  #failed = false;
  /** The consumer left its loop. */
  onReturn: (() => void | Promise<void>) | undefined;

  push(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  fail(error: unknown): void {
    this.#error = error;
    this.#failed = true;
    this.end();
  }

  #wake(): void {
    this.#waiting?.();
    this.#waiting = undefined;
  }

  async next(): Promise<IteratorResult<T>> {
    while (this.#items.length === 0 && !this.#ended) await new Promise<void>((resolve) => (this.#waiting = resolve));
    if (this.#items.length > 0) return { done: false, value: this.#items.shift()! };
    if (this.#failed) {
      this.#failed = false;
      throw this.#error;
    }
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<T>> {
    this.#ended = true;
    this.#items = [];
    await this.onReturn?.();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** Bytes piece by piece. Those of a stream are whoever's made it; all others are freed when the next piece is asked for. */
export async function* piecesOf(bytes: ReadableStream<Uint8Array> | Blob | Uint8Array): AsyncGenerator<Uint8Array, undefined> {
  const isStream = bytes instanceof ReadableStream;
  const reader = (isStream ? bytes : new Blob([bytes as BlobPart]).stream()).getReader();
  try {
    for (let part; !(part = await reader.read()).done; ) {
      yield part.value;
      if (!isStream) free(part.value);
    }
  } finally {
    // Whoever writes the stream need not go on.
    await reader.cancel().catch(() => {});
  }
}
