/** One turn of a conversation. */
export interface Message {
  /** `system`, `user` or `assistant`; a template may know others. */
  role: string;
  content: string;
  /** What the assistant thought before. Templates know it as `thinking` or as `reasoning_content`. */
  reasoning?: string;
  /** What else a template knows: `tool_calls`, `name` and the like. */
  [field: string]: unknown;
}

/** A conversation, a text, or token ids. */
export type Prompt = Message[] | string | Uint32Array | number[];
