import type { Generation, StopReason } from './generation.js';
import type { GenerateOptions, Message, Prompt } from './options.js';

/** What of OpenAI's chat completions API is understood. */
export interface CompletionRequest {
  messages: Message[];
  /** Only told back. */
  model?: string;
  stream?: boolean;
  stream_options?: { include_usage?: boolean } | null;
  max_tokens?: number | null;
  max_completion_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  seed?: number | null;
  stop?: string | string[] | null;
}

export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

export type FinishReason = 'stop' | 'length';

export interface Completion {
  id: string;
  object: 'chat.completion';
  created: number;
  model: string;
  choices: { index: number; message: { role: 'assistant'; content: string; refusal: null }; logprobs: null; finish_reason: FinishReason }[];
  usage: CompletionUsage;
}

export interface CompletionChunk {
  id: string;
  object: 'chat.completion.chunk';
  created: number;
  model: string;
  choices: { index: number; delta: { role?: 'assistant'; content?: string }; logprobs: null; finish_reason: FinishReason | null }[];
  usage?: CompletionUsage | null;
}

/** What gives the answers: a model, or a worker with one. */
export interface Generator {
  generate(prompt: Prompt, options?: GenerateOptions): Generation;
  readonly manifest: { model: { name: string } };
}

/** `chat.completions`, as OpenAI's client has it. */
export class Completions {
  constructor(private generator: Generator) {}

  create(request: CompletionRequest & { stream: true }, options?: { signal?: AbortSignal }): Promise<AsyncIterable<CompletionChunk>>;
  create(request: CompletionRequest & { stream?: false }, options?: { signal?: AbortSignal }): Promise<Completion>;
  create(request: CompletionRequest, options?: { signal?: AbortSignal }): Promise<Completion | AsyncIterable<CompletionChunk>>;
  async create(request: CompletionRequest, options: { signal?: AbortSignal } = {}): Promise<Completion | AsyncIterable<CompletionChunk>> {
    const generation = this.generator.generate(request.messages, {
      maxTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
      temperature: request.temperature ?? undefined,
      topP: request.top_p ?? undefined,
      topK: request.top_k ?? undefined,
      seed: request.seed ?? undefined,
      stop: request.stop ?? undefined,
      signal: options.signal,
    });
    const head = { id: `chatcmpl-${crypto.randomUUID()}`, created: Math.floor(Date.now() / 1000), model: request.model ?? this.generator.manifest.model.name };
    if (request.stream) return chunks(generation, head, request.stream_options?.include_usage ?? false);
    const result = await generation.result;
    return {
      ...head,
      object: 'chat.completion',
      choices: [{ index: 0, message: { role: 'assistant', content: result.text, refusal: null }, logprobs: null, finish_reason: finishReason(result.stop) }],
      usage: usage(result.usage),
    };
  }
}

async function* chunks(generation: Generation, head: { id: string; created: number; model: string }, includeUsage: boolean): AsyncGenerator<CompletionChunk> {
  const chunk = (delta: CompletionChunk['choices'][0]['delta'], finish_reason: FinishReason | null = null): CompletionChunk => ({
    ...head,
    object: 'chat.completion.chunk',
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...(includeUsage && { usage: null }),
  });
  yield chunk({ role: 'assistant', content: '' });
  for await (const { text } of generation) if (text !== '') yield chunk({ content: text });
  const result = await generation.result;
  yield chunk({}, finishReason(result.stop));
  if (includeUsage) yield { ...head, object: 'chat.completion.chunk', choices: [], usage: usage(result.usage) };
}

function finishReason(stop: StopReason): FinishReason {
  return stop === 'max-tokens' || stop === 'context-full' ? 'length' : 'stop';
}

function usage({ promptTokens, cachedTokens, completionTokens }: { promptTokens: number; cachedTokens: number; completionTokens: number }): CompletionUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}
