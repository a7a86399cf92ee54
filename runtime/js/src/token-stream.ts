import { Detokenizer } from './detokenize.js';
import { StopFilter } from './stop.js';
import type { Vocabulary } from './vocabulary.js';

/** Turns token ids into text. No piece ends within a character or shows the beginning of a stop text. */
export class TokenStream {
  #detokenizer: Detokenizer;
  #filter: StopFilter;

  constructor(
    private vocabulary: Vocabulary,
    stops: readonly string[],
  ) {
    this.#detokenizer = new Detokenizer(vocabulary);
    this.#filter = new StopFilter(stops);
  }

  /** A stop text is complete. */
  get stopped(): boolean {
    return this.#filter.stopped;
  }

  /** The text that becomes certain with this token. */
  push(id: number): string {
    const special = this.vocabulary.specialToken(id);
    if (special !== undefined) return this.#filter.stops.includes(special) ? this.finish() : '';
    return this.stopped ? '' : this.#filter.push(this.#detokenizer.push(id));
  }

  /** The rest, when no more tokens come. */
  finish(): string {
    return this.#filter.push(this.#detokenizer.finish()) + this.#filter.stop();
  }
}
