/**
 * Passes text on until a stop text is complete, and holds back what may be the beginning of one. The stop text that is
 * complete first ends it, the longest of those that end together; so it does not matter in which pieces the text comes.
 */
export class StopFilter {
  readonly stops: string[];
  stopped = false;
  #held = '';

  constructor(stops: readonly string[]) {
    this.stops = stops.filter((stop) => stop !== '');
  }

  /** The text that can be shown after one more piece. */
  push(piece: string): string {
    if (this.stopped) return '';
    this.#held += piece;
    let first: { end: number; start: number } | undefined;
    for (const stop of this.stops) {
      const start = this.#held.indexOf(stop);
      if (start < 0) continue;
      const end = start + stop.length;
      if (!first || end < first.end || (end === first.end && start < first.start)) first = { end, start };
    }
    if (first) {
      this.stopped = true;
      return this.#take(first.start);
    }
    return this.#take(this.#held.length - this.#longestBeginning());
  }

  /** No more text comes: what was held back and became no stop text is part of it. */
  stop(): string {
    const rest = this.stopped ? '' : this.#held;
    this.stopped = true;
    return rest;
  }

  #take(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }

  /** Length of the longest end of the held text with which a stop text begins. */
  #longestBeginning(): number {
    let longest = 0;
    for (const stop of this.stops) {
      for (let length = Math.min(stop.length - 1, this.#held.length); length > longest; length--) {
        if (this.#held.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
