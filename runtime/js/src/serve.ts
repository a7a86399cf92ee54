import { KilnError } from './errors.js';
import { loadModel, type Model } from './model.js';
import type { LoadOptions } from './options.js';
import { type Answers, type Event, type Request, toPlain } from './protocol.js';
import type { Session } from './session.js';

/** What a worker of one's own may add to the options that come from the page: what cannot be sent there. */
export type ServeOptions = Pick<LoadOptions, 'adapter' | 'cache' | 'fetch' | 'saved' | 'text' | 'wasm'>;

interface Port {
  postMessage(message: Event): void;
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

  async #answer(request: Exclude<Request, { type: 'abort' | 'pace' | 'hidden' }>): Promise<void> {
    const { id } = request;
    try {
      const value = await this.#run(request);
      this.port.postMessage({ type: 'done', id, value });
    } catch (error) {
      this.port.postMessage({ type: 'failed', id, error: toPlain(error) });
    } finally {
      this.#running.delete(id);
    }
  }

  async #run(request: Exclude<Request, { type: 'abort' | 'pace' | 'hidden' }>): Promise<Answers[keyof Answers]> {
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
