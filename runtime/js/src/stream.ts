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

/** Bytes as a stream of them. */
export function toStream(bytes: ReadableStream<Uint8Array> | Blob | Uint8Array): ReadableStream<Uint8Array> {
  return bytes instanceof ReadableStream ? bytes : new Blob([bytes as BlobPart]).stream();
}
