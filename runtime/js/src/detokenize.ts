import type { Vocabulary } from './vocabulary.js';

/**
 * Tokens before the pending ones that are decoded with them, so that a decoder which treats the start of a text
 * specially (Llama 2 drops its first space) sees that this is not the start.
 */
const CONTEXT = 4;

/** Text from token ids as they come; what is given out never changes afterwards. */
export class Detokenizer {
  /** Of byte-level vocabularies, where a token is bytes. */
  #bytes = new TextDecoder('utf-8', { ignoreBOM: true });
  #context: number[] = [];
  #pending: number[] = [];

  constructor(private vocabulary: Vocabulary) {}

  push(id: number): string {
    const token = this.vocabulary.token(id);
    if (token === undefined) return '';
    if (this.vocabulary.byteLevel) return this.#bytes.decode(bytesOf(token), { stream: true });
    this.#pending.push(id);
    // Runs of byte tokens stand for their text only if all of the run is valid.
    return /^<0x[0-9A-Fa-f]{2}>$/.test(token) ? '' : this.#decodePending();
  }

  finish(): string {
    return this.vocabulary.byteLevel ? this.#bytes.decode() : this.#decodePending();
  }

  #decodePending(): string {
    const before = this.vocabulary.decode(this.#context, true);
    this.#context.push(...this.#pending.splice(0));
    const after = this.vocabulary.decode(this.#context, true);
    this.#context.splice(0, Math.max(this.#context.length - CONTEXT, 0));
    let kept = 0;
    while (kept < before.length && before[kept] === after[kept]) kept++;
    return after.slice(kept);
  }
}

/** The bytes of a token of a byte-level vocabulary. One with a character outside the alphabet stands for itself. */
function bytesOf(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => byteOf(character.codePointAt(0)!));
  return bytes.includes(undefined) ? new TextEncoder().encode(token) : Uint8Array.from(bytes as number[]);
}

/** GPT-2's alphabet of bytes: printable Latin-1 stands for itself, the other 68 bytes follow from U+0100. */
function byteOf(code: number): number | undefined {
  if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xac) || (code >= 0xae && code <= 0xff)) return code;
  if (code >= 0x100 && code <= 0x120) return code - 0x100;
  if (code >= 0x121 && code <= 0x142) return code - 0x121 + 0x7f;
  return code === 0x143 ? 0xad : undefined;
}
