import { KilnError } from './errors.js';
import { loadModel, type Model } from './model.js';
import type { LoadOptions } from './options.js';
import { type Answers, type Event, type Request, toPlain } from './protocol.js';
import type { Session } from './session.js';

/** What a worker of one's own may add to the options that come from the page: what cannot be sent there. */
export type ServeOptions = Pick<LoadOptions, 'adapter' | 'cache' | 'fetch' | 'saved' | 'text' | 'wasm'>;

/** What is answered. */
type Call = Exclude<Request, { type: 'abort' | 'reply' | 'pace' | 'hidden' }>;

interface Port {
  postMessage(message: Event, transfer?: Transferable[]): void;
  addEventListener(type: 'message', listener: (event: { data: Request }) => void): void;
}

/** Answers a `WorkerModel` in a worker of one's own. */
export function serve(options: ServeOptions = {}, port: Port = globalThis as unknown as Port): void {
  const server = new Server(options, port);
  port.addEventListener('message', ({ data }) => server.receive(data));
}

class Server {
  #model: Model | undefined;
  #sessions = new Map<number, Session>();
  #running = new Map<number, { abort: AbortController; leave?: () => void }>();
  #replies = new Map<number, (piece: Uint8Array | undefined) => void>();

  constructor(
    private options: ServeOptions,
    private port: Port,
  ) {}

  receive(request: Request): void {
    switch (request.type) {
      case 'abort': {
        const running = this.#running.get(request.id);
        if (request.quietly && running?.leave) running.leave();
        else running?.abort.abort();
        return;
      }
      case 'reply':
        return this.#replies.get(request.id)?.(request.piece);
      case 'pace':
        if (this.#model) this.#model.pacer.pace = request.pace;
        return;
      case 'hidden':
        this.#model?.pacer.setHidden(request.hidden);
        return;
      default:
        void this.#answer(request);
    }
  }

  async #answer(request: Call): Promise<void> {
    const { id } = request;
    try {
      const value = await this.#run(request);
      this.port.postMessage({ type: 'done', id, value });
    } catch (error) {
      this.port.postMessage({ type: 'failed', id, error: toPlain(error) });
    } finally {
      this.#running.delete(id);
      this.#replies.delete(id);
    }
  }

  async #run(request: Call): Promise<Answers[keyof Answers]> {
    switch (request.type) {
      case 'load':
        return this.#load(request);
      case 'generate':
        return this.#generate(request);
      case 'open-session':
        this.#sessions.set(request.session, this.#loaded().session({ context: request.context }));
        return undefined;
      case 'reset-session':
        return void (await this.#session(request.session).reset());
      case 'close-session':
        await this.#session(request.session).dispose();
        return void this.#sessions.delete(request.session);
      case 'save-session':
        return this.#save(request);
      case 'restore-session':
        return this.#restore(request);
      case 'memory':
        return this.#loaded().memory;
      case 'dispose':
        return void this.#model?.dispose();
    }
  }

  async #load({ id, source, options }: Request & { type: 'load' }) {
    const abort = new AbortController();
    this.#running.set(id, { abort });
    const model = await loadModel(source, {
      ...options,
      ...this.options,
      signal: abort.signal,
      progress: (progress) => this.port.postMessage({ type: 'progress', id, progress }),
    });
    this.#model = model;
    return { manifest: model.manifest, report: model.report };
  }

  async #generate({ id, session, prompt, options }: Request & { type: 'generate' }) {
    const abort = new AbortController();
    const generation = this.#session(session).generate(prompt, { ...options, signal: abort.signal });
    this.#running.set(id, { abort, leave: () => void generation.return() });
    for await (const token of generation) this.port.postMessage({ type: 'token', id, token });
    return generation.result;
  }

  async #save({ id, session, note }: Request & { type: 'save-session' }): Promise<undefined> {
    const saved = this.#session(session);
    saved.note = note;
    const reader = (await saved.save()).getReader();
    const leave = () => {
      void reader.cancel();
      this.#replies.get(id)?.(undefined);
    };
    this.#running.set(id, { abort: new AbortController(), leave });
    for (let part; !(part = await reader.read()).done; ) {
      this.port.postMessage({ type: 'piece', id, piece: part.value }, [part.value.buffer]);
      await this.#reply(id);
    }
  }

  async #restore({ id, session }: Request & { type: 'restore-session' }): Promise<unknown> {
    const abort = new AbortController();
    this.#running.set(id, { abort });
    const start = (controller: ReadableStreamDefaultController) => abort.signal.addEventListener('abort', () => controller.error(abort.signal.reason));
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      this.port.postMessage({ type: 'ask', id });
      const piece = await this.#reply(id);
      if (piece) controller.enqueue(piece);
      else controller.close();
    };
    const restored = this.#session(session);
    await restored.restore(new ReadableStream({ start, pull }, { highWaterMark: 0 }));
    return restored.note;
  }

  /** What the page says next of this call. */
  #reply(id: number): Promise<Uint8Array | undefined> {
    return new Promise((resolve) => this.#replies.set(id, resolve));
  }

  #loaded(): Model {
    if (!this.#model) throw new KilnError('usage', 'no model is loaded; load one first');
    return this.#model;
  }

  #session(number: number): Session {
    const session = this.#sessions.get(number);
    if (!session) throw new KilnError('usage', 'the session was closed; open another');
    return session;
  }
}
