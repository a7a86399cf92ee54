/** What text from token ids needs of a tokenizer. */
export interface Vocabulary {
  /** Whether a token is bytes. */
  readonly byteLevel: boolean;
  /** A token as the tokenizer's file has it. */
  token(id: number): string | undefined;
  /** The text of a special token; undefined for every other id. */
  specialToken(id: number): string | undefined;
  decode(ids: readonly number[], skipSpecial: boolean): string;
}
