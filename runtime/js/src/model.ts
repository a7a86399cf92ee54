import { sha256 } from './bundle.js';
import { Completions } from './completions.js';
import { KilnError } from './errors.js';
import type { Generation } from './generation.js';
import { load, type Loaded, type LoadReport } from './load.js';
import type { Manifest, TextFile } from './manifest.js';
import type { Message, Prompt } from './message.js';
import type { SavedModule, TextModule } from './modules.js';
import type { GenerateOptions, LoadOptions } from './options.js';
import { Pacer } from './pace.js';
import type * as saved from './saved.js';
import { Session } from './session.js';
import type { TextModel } from './text.js';
import { sleep } from './transport.js';
import { loadWasm } from './wasm.js';

/** What a model takes, in bytes. */
export interface Memory {
  /** All buffers on the device now, sessions included. */
  allocated: number;
  weights: number;
  activations: number;
  /** Of one session. */
  state: number;
}

/** A model on the device. Made by `loadModel`. */
export class Model {
  readonly manifest: Manifest;
  /** Tokenizer and chat template; undefined where the bundle has none. */
  readonly text: TextModel | undefined;
  readonly pacer: Pacer;
  /** OpenAI's interface. */
  readonly chat: { completions: Completions };
  /** Counts the loads: sessions of an earlier one are made anew. */
  epoch = 0;
  #loaded: Promise<Loaded>;
  #report: LoadReport;
  #current: Loaded;
  #lost = false;
  #disposed = false;
  #session: Session;

  constructor(
    loaded: Loaded,
    text: TextModel | undefined,
    readonly module: Awaited<ReturnType<typeof loadWasm>>,
    private reload: () => Promise<Loaded>,
    private options: LoadOptions,
  ) {
    this.manifest = loaded.manifest;
    this.text = text;
    this.#loaded = Promise.resolve(loaded);
    this.#current = loaded;
    this.#report = loaded.report;
    this.pacer = new Pacer(options.pace);
    this.chat = { completions: new Completions(this) };
    this.#session = this.session();
    this.#watch(loaded);
  }

  /** Answers a conversation, a text or token ids. One after the other; `session()` gives further ones. */
  generate(prompt: Prompt, options?: GenerateOptions): Generation {
    return this.#session.generate(prompt, options);
  }

  /** A conversation with a state of its own, for `context` positions. */
  session(options: { context?: number } = {}): Session {
    return new Session(this, options.context ?? this.options.context);
  }

  /** A conversation that goes on where a saved one was. */
  async restoreSession(saved: saved.SavedSession, options: { context?: number } = {}): Promise<Session> {
    const session = this.session(options);
    try {
      await session.restore(saved);
    } catch (error) {
      await session.dispose();
      throw error;
    }
    return session;
  }

  /** What saves sessions, and what they belong to. */
  async saving(): Promise<{ saved: SavedModule; facts: saved.SavedWith }> {
    const { bundle, report } = await this.ready();
    const module = this.options.saved ?? (await import('./saved.js'));
    const { name, vocab_size } = bundle.manifest.model;
    const variant = bundle.manifest.variants.find((variant) => variant.name === report.variant)!;
    return { saved: module, facts: { model: name, fingerprint: await sha256(bundle.manifestText), variant, vocab: vocab_size } };
  }

  /** How it was loaded. */
  get report(): LoadReport {
    return this.#report;
  }

  get memory(): Memory {
    const { weights, activations, state } = this.#report.requirements.memory;
    return { allocated: this.#disposed ? 0 : this.#current.wasm.allocatedBytes, weights, activations, state };
  }

  /** Frees all memory on the device. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#current.wasm.destroy();
    this.#current.wasm.free();
  }

  /** The model on a live device: loads it again, from the cache, after the device was lost. */
  async ready(): Promise<Loaded> {
    if (this.#disposed) throw new KilnError('disposed', 'the model was disposed of; load it again');
    if (this.#lost) {
      this.#lost = false;
      this.epoch++;
      this.#loaded = this.reload();
      // A failed attempt is no state to stay in.
      this.#loaded.catch(() => (this.#lost = true));
      this.#watch(await this.#loaded);
    }
    return this.#loaded;
  }

  /** The device is gone. */
  markLost(): void {
    this.#lost = true;
  }

  /** Whether it is gone, when the device refuses something: hosts tell of the loss a little later. */
  isLost(): Promise<boolean> {
    return Promise.race([this.#current.device.lost.then(() => true), sleep(200).then(() => this.#lost)]);
  }

  #watch(loaded: Loaded): void {
    this.#current = loaded;
    this.#report = loaded.report;
    void loaded.device.lost.then(() => {
      if (this.#current === loaded) this.markLost();
    });
  }

  /** Token ids of a prompt, and where in them what opens the model's turn may begin. */
  encode(prompt: Prompt, { raw = false, templateArguments }: Pick<GenerateOptions, 'raw' | 'templateArguments'> = {}): { ids: number[]; opening: number } {
    if (typeof prompt !== 'string' && (prompt.length === 0 || typeof prompt[0] === 'number')) return { ids: Array.from(prompt as number[]), opening: 0 };
    const { text } = this;
    if (!text) throw new KilnError('no-text', 'the bundle has no tokenizer; pass token ids');
    if (typeof prompt !== 'string') return text.encodeChat(prompt as Message[], templateArguments);
    if (raw || !text.hasChatTemplate) return { ids: text.encode(prompt, true), opening: 0 };
    return text.encodeChat([{ role: 'user', content: prompt }], templateArguments);
  }

  /** Options as the wasm module takes them; it knows the model's own. */
  wasmOptions({ stopIds, logitBias, ...options }: GenerateOptions) {
    return {
      ...options,
      seed: options.seed ?? Math.floor(Math.random() * 2 ** 32),
      stopIds: stopIds && Uint32Array.from(stopIds),
      logitBias: logitBias && Float64Array.from(Object.entries(logitBias).flat().map(Number)),
    };
  }
}

/** Loads a model: downloads what is not in the cache, and brings it onto the device. */
export async function loadModel(source: string | URL, options: LoadOptions = {}): Promise<Model> {
  const textModule = options.text ?? (import('./text.js') as Promise<TextModule>);
  const loaded = await load(source, options);
  const text = await openText(loaded, textModule);
  const reload = () => load(source, { ...options, adapter: undefined, progress: undefined, signal: undefined });
  return new Model(loaded, text, await loadWasm(), reload, options);
}

async function openText({ manifest, bundle }: Loaded, module: TextModule | Promise<TextModule>): Promise<TextModel | undefined> {
  const files = manifest.text;
  if (!files) {
    Promise.resolve(module).catch(() => {});
    return undefined;
  }
  const read = async (file: TextFile | null) => (file ? new TextDecoder().decode(await bundle.file(file)) : undefined);
  const [{ TextModel }, tokenizer, tokenizerConfig, chatTemplate] = await Promise.all([
    module,
    read(files.tokenizer),
    read(files.tokenizer_config),
    read(files.chat_template),
  ]);
  return new TextModel({ tokenizer: tokenizer!, tokenizerConfig, chatTemplate });
}
