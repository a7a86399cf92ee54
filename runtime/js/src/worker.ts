/** A model in a worker, so that the page never waits. */
import { Completions } from './completions.js';
import { KilnError, throwIfAborted } from './errors.js';
import { Generation } from './generation.js';
import type { LoadReport } from './load.js';
import type { Manifest } from './manifest.js';
import type { Prompt } from './message.js';
import type { Memory } from './model.js';
import type { GenerateOptions } from './options.js';
import type { Pace } from './pace.js';
import type { Progress } from './progress.js';
import { type Answers, type Event, fromPlain, type LoadedInfo, type Request, type WorkerLoadOptions } from './protocol.js';
import type { SavedSession } from './saved.js';
import { piecesOf, Stream } from './stream.js';

export type { WorkerLoadOptions } from './protocol.js';

export interface WorkerOptions extends WorkerLoadOptions {
  /** A worker that calls `serve()`; absent: one is made. */
  worker?: Worker;
  progress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

interface Call {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onEvent?: (event: Event) => unknown;
  signal: AbortSignal | undefined;
}

/** The other side of the worker: calls by number. */
class Remote {
  #calls = new Map<number, Call>();
  #next = 1;

  constructor(readonly worker: Worker) {
    worker.addEventListener('message', ({ data }: MessageEvent<Event>) => this.#receive(data));
    worker.addEventListener('error', (event) => {
      const error = new KilnError('worker', event.message || 'the worker did not start; serve worker-main.js of kiln-runtime beside worker.js, and allow worker-src in the content security policy');
      for (const call of this.#calls.values()) call.reject(error);
      this.#calls.clear();
    });
  }

  id(): number {
    return this.#next++;
  }

  call<T extends keyof Answers>(request: Request & { type: T; id: number }, signal?: AbortSignal, onEvent?: Call['onEvent']): Promise<Answers[T]> {
    throwIfAborted(signal);
    const abort = () => this.post({ type: 'abort', id: request.id, quietly: false });
    signal?.addEventListener('abort', abort, { once: true });
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#calls.set(request.id, { resolve, reject, onEvent, signal });
      this.post(request);
    });
    return answer.finally(() => signal?.removeEventListener('abort', abort)) as Promise<Answers[T]>;
  }

  post(request: Request): void {
    this.worker.postMessage(request);
  }

  #receive(event: Event): void {
    const call = this.#calls.get(event.id);
    if (!call) return;
    if (event.type !== 'done' && event.type !== 'failed') {
      call.onEvent?.(event);
      return;
    }
    this.#calls.delete(event.id);
    if (event.type === 'done') call.resolve(event.value);
    else call.reject(call.signal?.aborted ? call.signal.reason : fromPlain(event.error));
  }
}

/** A conversation in the worker. */
export class WorkerSession {
  /** Anything that can be JSON: saved with the session. */
  note: unknown = null;

  /** Made by `model.session()`. */
  constructor(
    private remote: Remote,
    private session: number,
    private opened: Promise<unknown>,
  ) {}

  generate(prompt: Prompt, { signal, ...options }: GenerateOptions = {}): Generation {
    const { remote, session } = this;
    const generation = new Generation();
    const id = remote.id();
    generation.onReturn = () => remote.post({ type: 'abort', id, quietly: true });
    const run = async () => {
      await this.opened;
      return remote.call({ type: 'generate', id, session, prompt, options }, signal, (event) => {
        if (event.type === 'token') generation.push(event.token);
      });
    };
    run().then(
      (result) => generation.complete(result!),
      (error) => generation.fail(error),
    );
    return generation;
  }

  /** As `Session.save()`: the pieces come one by one. */
  async save(): Promise<ReadableStream<Uint8Array>> {
    await this.opened;
    const { remote, session, note } = this;
    const id = remote.id();
    const pieces = new Stream<Uint8Array>();
    const start = () => {
      const saved = remote.call({ type: 'save-session', id, session, note }, undefined, (event) => event.type === 'piece' && pieces.push(event.piece));
      saved.then(
        () => pieces.end(),
        (error) => pieces.fail(error),
      );
    };
    let next = start;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      next();
      next = () => remote.post({ type: 'reply', id });
      const { done, value } = await pieces.next();
      if (done) controller.close();
      else controller.enqueue(value);
    };
    return new ReadableStream({ pull, cancel: () => remote.post({ type: 'abort', id, quietly: true }) }, { highWaterMark: 0 });
  }

  /** As `Session.restore()`. */
  async restore(saved: SavedSession): Promise<void> {
    await this.opened;
    const { remote } = this;
    const id = remote.id();
    const pieces = piecesOf(saved);
    let fault: { error: unknown } | undefined;
    const give = async () => {
      try {
        const { value: piece } = await pieces.next();
        remote.post({ type: 'reply', id, piece });
      } catch (error) {
        fault = { error };
        remote.post({ type: 'abort', id, quietly: false });
      }
    };
    try {
      this.note = await remote.call({ type: 'restore-session', id, session: this.session }, undefined, (event) => event.type === 'ask' && void give());
    } catch (error) {
      throw fault ? fault.error : error;
    } finally {
      await pieces.return(undefined);
    }
  }

  async reset(): Promise<void> {
    await this.remote.call({ type: 'reset-session', id: this.remote.id(), session: this.session });
  }

  async dispose(): Promise<void> {
    await this.remote.call({ type: 'close-session', id: this.remote.id(), session: this.session });
  }
}

/** Like `Model`, with the model in a worker. Made by `loadModelInWorker`. */
export class WorkerModel {
  readonly manifest: Manifest;
  readonly report: LoadReport;
  readonly chat = { completions: new Completions(this) };
  #remote: Remote;
  #sessions = 0;
  #session: WorkerSession;
  #onVisibility = () => this.#remote.post({ type: 'hidden', hidden: document.visibilityState === 'hidden' });

  constructor(remote: Remote, info: LoadedInfo) {
    this.manifest = info.manifest;
    this.report = info.report;
    this.#remote = remote;
    this.#session = this.session();
    globalThis.document?.addEventListener('visibilitychange', this.#onVisibility);
  }

  generate(prompt: Prompt, options?: GenerateOptions): Generation {
    return this.#session.generate(prompt, options);
  }

  session(options: { context?: number } = {}): WorkerSession {
    const session = ++this.#sessions;
    const opened = this.#remote.call({ type: 'open-session', id: this.#remote.id(), session, context: options.context });
    // The session's first call reports it.
    opened.catch(() => {});
    return new WorkerSession(this.#remote, session, opened);
  }

  /** A conversation that goes on where a saved one was. */
  async restoreSession(saved: SavedSession, options: { context?: number } = {}): Promise<WorkerSession> {
    const session = this.session(options);
    try {
      await session.restore(saved);
    } catch (error) {
      await session.dispose().catch(() => {});
      throw error;
    }
    return session;
  }

  memory(): Promise<Memory> {
    return this.#remote.call({ type: 'memory', id: this.#remote.id() });
  }

  setPace(pace: Pace): void {
    this.#remote.post({ type: 'pace', pace });
  }

  /** Frees the model and ends the worker. */
  async dispose(): Promise<void> {
    globalThis.document?.removeEventListener('visibilitychange', this.#onVisibility);
    await this.#remote.call({ type: 'dispose', id: this.#remote.id() });
    this.#remote.worker.terminate();
  }
}

/** Starts a worker and loads a model in it. */
export async function loadModelInWorker(source: string | URL, { worker, progress, signal, ...options }: WorkerOptions = {}): Promise<WorkerModel> {
  const own = worker ?? new Worker(new URL('./worker-main.js', import.meta.url), { type: 'module', name: 'kiln' });
  const remote = new Remote(own);
  try {
    const info = await remote.call({ type: 'load', id: remote.id(), source: fromPage(source), options: { ...options, wasm: options.wasm && fromPage(options.wasm) } }, signal, (event) => {
      if (event.type === 'progress') progress?.(event.progress);
    });
    return new WorkerModel(remote, info);
  } catch (error) {
    if (!worker) own.terminate();
    throw error;
  }
}

/** Addresses are relative to the page, not to the worker's script. */
function fromPage(address: string | URL): string {
  const text = String(address);
  return /^\.{0,2}\//.test(text) ? new URL(text, globalThis.document?.baseURI ?? globalThis.location?.href).href : text;
}
