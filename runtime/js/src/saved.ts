import { KilnError, type SavedSessionFault } from './errors.js';
import type { Variant } from './manifest.js';
import type { WasmSession } from './wasm.js';

/** Most bytes of a saved session in memory at once. */
const PIECE = 4 << 20;
const MAGIC = 'kilnsess';
const VERSION = 1;
const MAX_HEADER_BYTES = 256 << 20;

/** A saved session: what `session.save()` gives, or a file that `run-model --session` wrote. */
export type SavedSession = ReadableStream<Uint8Array> | Blob | Uint8Array;

/** What a saved session belongs to. */
export interface SavedWith {
  model: string;
  /** SHA-256 of the manifest. */
  fingerprint: string;
  variant: Variant;
  vocab: number;
}

/** What stands before tokens and states; docs/bundle-format.md has the format. */
interface Header {
  version: number;
  model: string;
  fingerprint: string;
  variant: string;
  context: number;
  tokens: number;
  states: { name: string; bytes: number; intact_from?: number }[];
  /** Whatever the program kept with it. */
  note: unknown;
}

/** The bytes of a session, piece by piece. `use` runs with its state, as long as that is the same. */
export function write({ model, fingerprint, variant }: SavedWith, note: unknown, use: <T>(run: (wasm: WasmSession) => Promise<T>) => Promise<T>): ReadableStream<Uint8Array> {
  const pieces = (async function* () {
    const { header, tokens } = await use(async (wasm) => {
      const intact = wasm.intactFrom;
      const states = statesOf(variant, wasm.position).map((state, index) => ({ ...state, intact_from: intact[index]! }));
      const header: Header = { version: VERSION, model, fingerprint, variant: variant.name, context: wasm.context, tokens: wasm.position, states, note };
      return { header, tokens: wasm.tokens };
    });
    const text = new TextEncoder().encode(JSON.stringify(header));
    const length = new DataView(new ArrayBuffer(8));
    length.setBigUint64(0, BigInt(text.length), true);
    yield new Uint8Array(await new Blob([MAGIC, length, text, tokens as BufferSource]).arrayBuffer());
    for (const [index, { bytes }] of header.states.entries()) {
      for (let offset = 0; offset < bytes; offset += PIECE) {
        yield await use((wasm) => wasm.readState(index, offset, Math.min(PIECE, bytes - offset)));
      }
    }
  })();
  const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
    const { done, value } = await pieces.next();
    if (done) controller.close();
    else controller.enqueue(value);
  };
  // Nothing is read before it is asked for.
  return new ReadableStream({ pull, cancel: () => void pieces.return(undefined) }, { highWaterMark: 0 });
}

/** What is in use of each state after so many tokens. */
function statesOf(variant: Variant, tokens: number): { name: string; bytes: number }[] {
  const used = variant.buffers.map(({ name, kind }) => ({
    name,
    bytes: kind.kind === 'recurrent' ? kind.bytes! : kind.kind === 'state' ? kind.bytes_per_position! * Math.min(kind.positions ?? Infinity, tokens) : undefined,
  }));
  return used.filter((state): state is { name: string; bytes: number } => state.bytes !== undefined);
}

/** Reads a saved session into an empty one, and gives its note. `written` waits until the device has what it was given. */
export async function read(pieces: AsyncGenerator<Uint8Array>, facts: SavedWith, wasm: WasmSession, written: () => Promise<unknown>): Promise<unknown> {
  const source = new Source(pieces);
  try {
    if (new TextDecoder().decode(await source.take(8, 'not-a-session')) !== MAGIC) throw refused('not-a-session');
    const length = Number(new DataView((await source.take(8)).buffer).getBigUint64(0, true));
    if (length > MAX_HEADER_BYTES) throw refused('damaged');
    const header = parse(await source.take(length));
    if (header.fingerprint !== facts.fingerprint) throw refused('other-model', header.model);
    if (header.variant !== facts.variant.name) throw refused('other-variant', header.variant);
    if (header.tokens > wasm.context) throw refused('context', header.tokens);
    const expected = statesOf(facts.variant, header.tokens);
    const fits = header.states.length === expected.length && header.states.every(({ bytes, intact_from = 0 }, index) => bytes === expected[index]!.bytes && intact_from <= header.tokens);
    if (!fits) throw refused('damaged');
    const tokens = new Uint32Array((await source.take(header.tokens * 4)).buffer);
    if (tokens.some((id) => id >= facts.vocab)) throw refused('damaged');
    // One for all pieces: a collector would let many pile up.
    const buffer = new Uint8Array(PIECE);
    for (const [index, { bytes }] of header.states.entries()) {
      for (let offset = 0; offset < bytes; offset += PIECE) {
        wasm.writeState(index, offset, await source.fill(buffer.subarray(0, bytes - offset)));
        await written();
      }
    }
    if (!(await source.isAtEnd())) throw refused('damaged');
    const intact = header.states.map(({ intact_from = 0 }) => intact_from);
    wasm.continueWith(tokens, Float64Array.from(intact));
    return header.note;
  } finally {
    await pieces.return(undefined);
  }
}

function parse(text: Uint8Array): Header {
  try {
    const header = JSON.parse(new TextDecoder().decode(text));
    // Another version may have other fields.
    if (Number.isInteger(header.version) && header.version !== VERSION) throw refused('version');
    if (Number.isInteger(header.tokens) && header.tokens >= 0 && header.states.every((state: unknown) => typeof state === 'object' && state)) return header;
  } catch (error) {
    if (error instanceof KilnError) throw error;
  }
  throw refused('damaged');
}

const FAULTS: Record<SavedSessionFault, (what: unknown) => string> = {
  'not-a-session': () => 'this is no saved session; give another file',
  version: () => 'the session was saved by another version of the runtime; start a new one',
  damaged: () => 'the saved session is damaged or cut short; start a new one',
  'other-model': (model) => `the session was saved with another model or another compilation of it (${model}); load the bundle that it was saved with`,
  'other-variant': (variant) => `the session was saved with variant ${variant}; load the model with it`,
  context: (tokens) => `the saved session has ${tokens} tokens; ask for a context of at least as many`,
};

function refused(fault: SavedSessionFault, what?: unknown): KilnError {
  return new KilnError('saved-session', FAULTS[fault](what), { fault });
}

/** Bytes, as many as are asked for. */
class Source {
  #rest = new Uint8Array();

  constructor(private pieces: AsyncGenerator<Uint8Array>) {}

  take(count: number, fault?: SavedSessionFault): Promise<Uint8Array> {
    return this.fill(new Uint8Array(count), fault);
  }

  async fill(out: Uint8Array, fault: SavedSessionFault = 'damaged'): Promise<Uint8Array> {
    for (let filled = 0; filled < out.length; ) {
      if (await this.isAtEnd()) throw refused(fault);
      const part = this.#rest.subarray(0, out.length - filled);
      out.set(part, filled);
      filled += part.length;
      this.#rest = this.#rest.subarray(part.length);
    }
    return out;
  }

  async isAtEnd(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.pieces.next();
      if (done) return true;
      this.#rest = value as Uint8Array<ArrayBuffer>;
    }
    return false;
  }
}
