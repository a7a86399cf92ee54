import { sleep } from './transport.js';

/** Holds generations back. */
export interface Pace {
  /** At most so many tokens a second. */
  tokensPerSecond?: number;
  /** Wait while the page is hidden. In a worker it goes by what the page tells (`WorkerModel` does). */
  pauseWhenHidden?: boolean;
}

/** Waits before tokens, as the pace says. */
export class Pacer {
  #last = 0;
  #hidden: boolean | undefined;
  #shown: (() => void)[] = [];

  constructor(public pace: Pace = {}) {
    globalThis.document?.addEventListener('visibilitychange', () => this.#wake());
  }

  /** For a worker, which sees no page. */
  setHidden(hidden: boolean): void {
    this.#hidden = hidden;
    this.#wake();
  }

  get paused(): boolean {
    const hidden = this.#hidden ?? globalThis.document?.visibilityState === 'hidden';
    return !!this.pace.pauseWhenHidden && hidden;
  }

  /** Undefined where there is nothing to wait for. */
  wait(signal?: AbortSignal): Promise<void> | undefined {
    const { tokensPerSecond } = this.pace;
    const due = tokensPerSecond ? this.#last + 1000 / tokensPerSecond : 0;
    const now = performance.now();
    if (!this.paused && due <= now) {
      this.#last = now;
      return undefined;
    }
    return this.#wait(due - now, signal);
  }

  async #wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
    // The generation ends by its own cancel token when the signal aborts.
    await sleep(Math.max(milliseconds, 0), signal).catch(() => {});
    while (this.paused && !signal?.aborted) {
      await new Promise<void>((resolve) => {
        this.#shown.push(resolve);
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    this.#last = performance.now();
  }

  #wake(): void {
    if (!this.paused) for (const resolve of this.#shown.splice(0)) resolve();
  }
}
