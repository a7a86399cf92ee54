import { isKilnError, KilnError, throwIfAborted } from './errors.js';
import { Generation, type Result, type StopReason } from './generation.js';
import type { ChannelStream } from './channels.js';
import type { Loaded } from './load.js';
import type { SavedModule } from './modules.js';
import type { Prompt } from './message.js';
import type { GenerateOptions } from './options.js';
import type { Pacer } from './pace.js';
import type { SavedSession, SavedWith } from './saved.js';
import { piecesOf } from './stream.js';
import { type loadWasm, settle, type WasmSession } from './wasm.js';

/** What a session asks of its model. */
export interface SessionModel {
  readonly text: { answer(opening: readonly number[], options: GenerateOptions): ChannelStream } | undefined;
  readonly pacer: Pacer;
  readonly module: Awaited<ReturnType<typeof loadWasm>>;
  /** Counts the loads. */
  readonly epoch: number;
  /** The model on a live device. */
  ready(): Promise<Loaded>;
  markLost(): void;
  isLost(): Promise<boolean>;
  saving(): Promise<{ saved: SavedModule; facts: SavedWith }>;
  encode(prompt: Prompt, options?: GenerateOptions): { ids: number[]; opening: number };
  wasmOptions(options: GenerateOptions): Parameters<WasmSession['generate']>[0];
}

/** One conversation's state on the device. Calls wait for those before them. */
export class Session {
  #wasm: WasmSession | undefined;
  /** The load of the model that the state belongs to. */
  #epoch = -1;
  /** The tokens that the state stands for; they outlive the device. */
  #tokens: number[] = [];
  #turn: Promise<unknown> = Promise.resolve();
  /** Counts what changes the state. */
  #changes = 0;
  /** Anything that can be JSON: saved with the session, e.g. its messages. */
  note: unknown = null;

  /** Made by `model.session()`. */
  constructor(
    private model: SessionModel,
    readonly context: number | undefined,
  ) {}

  /** The tokens in the state. */
  get tokens(): readonly number[] {
    return this.#tokens;
  }

  /** Answers a prompt. What the state has of it already is not computed again. */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    const generation = new Generation();
    this.#change(() => this.#run(generation, prompt, options)).then(
      (result) => generation.complete(result),
      (error) => generation.fail(error),
    );
    return generation;
  }

  /** Appends tokens to the state, e.g. a prompt that will be needed soon. */
  feed(prompt: Prompt, options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#change(async () => {
      const { ids } = this.model.encode(prompt);
      await this.#with(options.signal, (wasm, cancel) => settle(wasm.feed(Uint32Array.from(ids), cancel)));
    });
  }

  /**
   * Tokens, state and `note` as bytes, in the format of `run-model --session`: another session of the same model and variant
   * goes on from there. The stream fails if this one goes on before it is read to its end.
   */
  async save(): Promise<ReadableStream<Uint8Array>> {
    const { note } = this;
    let changes: number | undefined;
    const { saved, facts } = await this.model.saving();
    return saved.write(facts, note, (run) =>
      this.#exclusive(() =>
        this.#with(undefined, (wasm) => {
          changes ??= this.#changes;
          if (changes !== this.#changes) throw new KilnError('usage', 'the session went on while it was being saved; save it again');
          return settle(run(wasm));
        }),
      ),
    );
  }

  /** Takes up a saved session in place of what this one holds; if that fails, it holds nothing. */
  async restore(saved: SavedSession): Promise<void> {
    const { saved: module, facts } = await this.model.saving();
    return this.#change(() =>
      this.#with(undefined, async (wasm, cancel) => {
        const { device } = await this.model.ready();
        wasm.reset();
        try {
          this.note = await module.read(piecesOf(saved), facts, wasm, () => device.queue.onSubmittedWorkDone());
          await settle(wasm.feed(new Uint32Array(), cancel));
        } catch (error) {
          wasm.reset();
          throw error;
        }
      }),
    );
  }

  /** Forgets everything. */
  reset(): Promise<void> {
    return this.#change(async () => {
      this.#tokens = [];
      if (this.#epoch === this.model.epoch) this.#wasm?.reset();
    });
  }

  /** Frees the state's memory. */
  dispose(): Promise<void> {
    return this.#change(async () => {
      this.#wasm?.free();
      this.#wasm = undefined;
      this.#tokens = [];
    });
  }

  async #run(generation: Generation, prompt: Prompt, options: GenerateOptions): Promise<Result> {
    const started = performance.now();
    const { signal } = options;
    const { ids: prompted, opening } = this.model.encode(prompt, options);
    if (prompted.length === 0) throw new KilnError('usage', 'the prompt is empty; give at least one token');
    // The consumer may leave its loop, which ends the generation without an error.
    const left = new AbortController();
    generation.onReturn = () => left.abort();
    const ended = signal ? AbortSignal.any([signal, left.signal]) : left.signal;
    const texts = this.model.text?.answer(prompted.slice(opening), options);
    const ids: number[] = [];
    let firstTokenMs = 0;
    const onToken = (id: number) => {
      firstTokenMs ||= performance.now() - started;
      if (ended.aborted) return false;
      ids.push(id);
      generation.push({ id, ...(texts?.push(id) ?? { text: '', channel: 'answer' }) });
      return texts?.stopped ? false : this.model.pacer.wait(ended);
    };
    let cachedTokens = 0;
    const run = this.#with(ended, async (wasm, cancel) => {
      cachedTokens = prompted.length - (await settle(wasm.feedTurn(Uint32Array.from(prompted), opening, cancel)));
      return settle(wasm.generate(this.model.wasmOptions(options), cancel, onToken));
    });
    const report = await run.catch((error) => {
      if (error === left.signal.reason) return undefined;
      throw error;
    });
    throwIfAborted(signal);
    const stop: StopReason = texts?.stopped ? 'stop-text' : (report?.stop ?? 'dropped');
    const rest = texts?.finish();
    if (rest?.text) generation.push({ id: ids.at(-1)!, ...rest });
    const { totalMs = 0, firstTokenMs: first = 0, encodingMs = 0 } = report ?? {};
    return {
      text: texts?.textOf('answer') ?? '',
      reasoning: texts?.textOf('reasoning'),
      channels: texts?.channels ?? [],
      ids,
      stop,
      usage: { promptTokens: prompted.length, cachedTokens, completionTokens: ids.length },
      timings: {
        firstTokenMs,
        totalMs: performance.now() - started,
        tokensPerSecond: ids.length > 1 ? ((ids.length - 1) * 1000) / (totalMs - first) : undefined,
        encodingMs,
      },
    };
  }

  /** Runs with a live state, and notes what the state holds afterwards. */
  async #with<T>(signal: AbortSignal | undefined, run: (wasm: WasmSession, cancel: InstanceType<SessionModel['module']['Cancel']>) => Promise<T>): Promise<T> {
    throwIfAborted(signal);
    const wasm = await this.#open();
    const cancel = new this.model.module.Cancel();
    const stop = () => cancel.cancel();
    signal?.addEventListener('abort', stop, { once: true });
    try {
      const result = await run(wasm, cancel);
      this.#tokens = [...wasm.tokens];
      return result;
    } catch (error) {
      throwIfAborted(signal);
      if (isKilnError(error, 'device-lost') || (isKilnError(error, 'internal') && (await this.model.isLost()))) {
        this.model.markLost();
        throw new KilnError('device-lost', 'the device was lost; call again to load the model again, the conversation is kept', {}, { cause: error });
      }
      this.#tokens = [...wasm.tokens];
      throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  /** The state, made anew on a device that was lost and loaded again. */
  async #open(): Promise<WasmSession> {
    const loaded = await this.model.ready();
    if (this.#wasm && this.#epoch === this.model.epoch) return this.#wasm;
    // Its device is gone; a collector would free it late.
    this.#wasm?.free();
    this.#wasm = undefined;
    this.#wasm = await settle(loaded.wasm.session(this.context));
    this.#epoch = this.model.epoch;
    this.#changes++;
    if (this.#tokens.length > 0) {
      await settle(this.#wasm.feed(Uint32Array.from(this.#tokens), new this.model.module.Cancel()));
    }
    return this.#wasm;
  }

  #change<T>(run: () => Promise<T>): Promise<T> {
    return this.#exclusive(() => {
      this.#changes++;
      return run();
    });
  }

  #exclusive<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(run);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}
