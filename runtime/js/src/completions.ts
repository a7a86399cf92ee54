import type { Generation, StopReason } from './generation.js';
import type { Message, Prompt } from './message.js';
import type { GenerateOptions } from './options.js';

/** A message of a request. What it has beyond this goes to the chat template, e.g. `tool_calls`. */
export type CompletionMessage = Omit<Message, 'content'> & { role: string; content?: string | null; reasoning_content?: string };

/** What of OpenAI's chat completions API is understood. */
export interface CompletionRequest {
  messages: CompletionMessage[];
  /** Only told back. */
  model?: string;
  stream?: boolean;
  stream_options?: { include_usage?: boolean } | null;
  max_tokens?: number | null;
  max_completion_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  repetition_penalty?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  logit_bias?: Record<string, number> | null;
  seed?: number | null;
  stop?: string | string[] | null;
  /** Functions that the model may call, for the chat template. */
  tools?: object[] | null;
  reasoning_effort?: string | null;
  /** Variables for the chat template, e.g. `enable_thinking`. */
  chat_template_kwargs?: Record<string, unknown> | null;
}

export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

export type FinishReason = 'stop' | 'length' | 'tool_calls';

export interface ToolCall {
  id: string;
  type: 'function';
  /** The arguments are JSON, as far as the model wrote it right. */
  function: { name: string; arguments: string };
}

/** An answer; what the model thought stands beside it, as with DeepSeek, vLLM and llama.cpp. */
export interface AnswerMessage {
  role: 'assistant';
  content: string | null;
  reasoning_content?: string;
  tool_calls?: ToolCall[];
  refusal: null;
}

export interface AnswerDelta {
  role?: 'assistant';
  content?: string;
  reasoning_content?: string;
  tool_calls?: { index: number; id?: string; type?: 'function'; function: { name?: string; arguments: string } }[];
}

export interface Completion {
  id: string;
  object: 'chat.completion';
  created: number;
  model: string;
  choices: { index: number; message: AnswerMessage; logprobs: null; finish_reason: FinishReason }[];
  usage: CompletionUsage;
}

export interface CompletionChunk {
  id: string;
  object: 'chat.completion.chunk';
  created: number;
  model: string;
  choices: { index: number; delta: AnswerDelta; logprobs: null; finish_reason: FinishReason | null }[];
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
    const { tools, reasoning_effort, chat_template_kwargs } = request;
    const generation = this.generator.generate(request.messages.map(toMessage), {
      maxTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
      temperature: request.temperature ?? undefined,
      topP: request.top_p ?? undefined,
      topK: request.top_k ?? undefined,
      minP: request.min_p ?? undefined,
      repetitionPenalty: request.repetition_penalty ?? undefined,
      presencePenalty: request.presence_penalty ?? undefined,
      frequencyPenalty: request.frequency_penalty ?? undefined,
      logitBias: request.logit_bias ?? undefined,
      seed: request.seed ?? undefined,
      stop: request.stop ?? undefined,
      templateArguments: { ...(tools && { tools }), ...(reasoning_effort && { reasoning_effort }), ...chat_template_kwargs },
      signal: options.signal,
    });
    const head = { id: `chatcmpl-${crypto.randomUUID()}`, created: Math.floor(Date.now() / 1000), model: request.model ?? this.generator.manifest.model.name };
    if (request.stream) return chunks(generation, head, request.stream_options?.include_usage ?? false);
    const message: AnswerMessage = { role: 'assistant', content: null, refusal: null };
    for await (const delta of deltas(generation)) add(message, delta);
    if (!message.tool_calls) message.content ??= '';
    const result = await generation.result;
    return {
      ...head,
      object: 'chat.completion',
      choices: [{ index: 0, message, logprobs: null, finish_reason: finishReason(result.stop, message.tool_calls !== undefined) }],
      usage: usage(result.usage),
    };
  }
}

async function* chunks(generation: Generation, head: { id: string; created: number; model: string }, includeUsage: boolean): AsyncGenerator<CompletionChunk> {
  const chunk = (delta: AnswerDelta, finish_reason: FinishReason | null = null): CompletionChunk => ({
    ...head,
    object: 'chat.completion.chunk',
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...(includeUsage && { usage: null }),
  });
  yield chunk({ role: 'assistant', content: '' });
  let called = false;
  for await (const delta of deltas(generation)) {
    called ||= delta.tool_calls !== undefined;
    yield chunk(delta);
  }
  const result = await generation.result;
  yield chunk({}, finishReason(result.stop, called));
  if (includeUsage) yield { ...head, object: 'chat.completion.chunk', choices: [], usage: usage(result.usage) };
}

function toMessage({ reasoning_content, content, ...message }: CompletionMessage): Message {
  return { reasoning: reasoning_content, ...message, content: content ?? '' };
}

/** What each token adds to the answer. Several messages to the user are one, by lines. */
async function* deltas(generation: Generation): AsyncGenerator<AnswerDelta> {
  let calls = 0;
  const said = { content: false, reasoning_content: false };
  for await (const { text, channel, begins } of generation) {
    if (channel === 'tool-call') {
      if (begins) {
        const name = begins.recipient!.replace(/^functions\./, '');
        yield { tool_calls: [{ index: calls++, id: `call_${crypto.randomUUID()}`, type: 'function', function: { name, arguments: text } }] };
      } else if (text !== '') yield { tool_calls: [{ index: calls - 1, function: { arguments: text } }] };
    } else if (text !== '') {
      const field = channel === 'reasoning' ? 'reasoning_content' : 'content';
      yield { [field]: begins && said[field] ? `\n${text}` : text };
      said[field] = true;
    }
  }
}

/** Adds what a token brings to the whole. */
function add(message: AnswerMessage, delta: AnswerDelta): void {
  if (delta.content) message.content = (message.content ?? '') + delta.content;
  if (delta.reasoning_content) message.reasoning_content = (message.reasoning_content ?? '') + delta.reasoning_content;
  for (const { index, ...call } of delta.tool_calls ?? []) {
    const calls = (message.tool_calls ??= []);
    if (calls[index]) calls[index].function.arguments += call.function.arguments;
    else calls.push(call as ToolCall);
  }
}

function finishReason(stop: StopReason, called: boolean): FinishReason {
  if (stop === 'max-tokens' || stop === 'context-full') return 'length';
  return called ? 'tool_calls' : 'stop';
}

function usage({ promptTokens, cachedTokens, completionTokens }: { promptTokens: number; cachedTokens: number; completionTokens: number }): CompletionUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}
