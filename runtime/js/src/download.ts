import type { Cache } from './cache.js';
import { KilnError, throwIfAborted } from './errors.js';
import type { Shard } from './manifest.js';
import { free } from './memory.js';
import type { ProgressMeter } from './progress.js';
import { ATTEMPTS, sleep, type Transport } from './transport.js';

/** A shard is kept in pieces of this size, so that nothing larger is ever in memory, and resuming loses no more. */
export const PIECE = 4 << 20;

/** Cache keys of a shard: by content, so that revisions and models share what is equal. */
export const shardKeys = {
  all: (shard: Shard) => `shards/${shard.sha256}/`,
  piece: (shard: Shard, index: number) => `shards/${shard.sha256}/${index}`,
  /** Set when the whole shard was compared with its checksum. */
  verified: (shard: Shard) => `shards/${shard.sha256}/verified`,
};

/** How many bytes of a shard are in the cache, from its start on without a gap. */
export async function cachedBytes(cache: Cache, shard: Shard): Promise<number> {
  let bytes = 0;
  for (let index = 0; bytes < shard.bytes; index++) {
    if (!(await cache.has(shardKeys.piece(shard, index)))) break;
    bytes = Math.min(bytes + PIECE, shard.bytes);
  }
  return bytes;
}

export interface ShardSource {
  cache: Cache;
  transport: Transport;
  progress: ProgressMeter;
  /** Never ask the network. */
  offline: boolean;
  signal?: AbortSignal;
  url(file: string): string;
}

/** Between looks at what another page has downloaded, in milliseconds. */
const FOLLOW = 200;
/** Pieces that are asked of the cache beside each other: each takes its time, however small it is. */
const AHEAD = 4;

/**
 * A shard's pieces in order: from the cache as far as it goes, then from the network and into the cache. While another page
 * downloads the shard, this one takes the pieces from the cache as they come there.
 */
export async function* pieces(source: ShardSource, shard: Shard): AsyncGenerator<Uint8Array> {
  const kept = new KeptPieces(source.cache, shard);
  let offset = 0;
  let turn: Turn | undefined;
  try {
    while (offset < shard.bytes) {
      const piece = await kept.get(offset / PIECE);
      if (piece?.byteLength === Math.min(PIECE, shard.bytes - offset)) {
        offset += piece.byteLength;
        source.progress.set(shard.file, offset, true);
        yield piece;
      } else if (source.offline) {
        throw new KilnError('not-cached', `${shard.file} is not in the cache, and this is offline mode; load the model once with a connection`, { file: shard.file });
      } else if (turn) {
        // Whoever had the turn before may have put the piece there since: it was looked for again.
        return yield* download(source, shard, offset);
      } else {
        turn = await takeTurn(source.cache, shard);
        if (!turn) await sleep(FOLLOW, source.signal);
      }
    }
  } finally {
    turn?.end();
  }
}

/** The pieces of a shard that are in the cache, asked for a few ahead. */
class KeptPieces {
  #coming = new Map<number, Promise<Uint8Array | undefined>>();

  constructor(
    private cache: Cache,
    private shard: Shard,
  ) {}

  /** Undefined where the piece is not in the cache now. */
  async get(index: number): Promise<Uint8Array | undefined> {
    const early = await this.#coming.get(index);
    this.#coming.delete(index);
    const piece = early ?? (await this.#ask(index));
    if (!piece) {
      // It and those after it may still come.
      this.#coming.clear();
      return undefined;
    }
    for (let next = index + 1; next < index + AHEAD && next * PIECE < this.shard.bytes; next++) {
      if (!this.#coming.has(next)) this.#coming.set(next, this.#ask(next));
    }
    return piece;
  }

  #ask(index: number): Promise<Uint8Array | undefined> {
    const piece = this.cache.get(shardKeys.piece(this.shard, index));
    // Whoever comes to it hears of a failure.
    piece.catch(() => {});
    return piece;
  }
}

/** The right to download a shard. A page that is closed loses it. */
interface Turn {
  end(): void;
}

/** Undefined while another page has it. */
function takeTurn({ shared }: Cache, shard: Shard): Promise<Turn | undefined> {
  const locks = globalThis.navigator?.locks;
  if (!shared || !locks) return Promise.resolve({ end: () => {} });
  return new Promise((resolve, reject) => {
    const hold = (lock: Lock | null) => lock && new Promise<void>((end) => resolve({ end }));
    locks.request(`kiln/${shared}/${shard.sha256}`, { ifAvailable: true }, hold).then(() => resolve(undefined), reject);
  });
}

/** Downloads from `offset`, a multiple of the piece, and takes up the thread when it breaks. */
async function* download(source: ShardSource, shard: Shard, offset: number): AsyncGenerator<Uint8Array> {
  const url = source.url(shard.file);
  let piece = new Uint8Array(Math.min(PIECE, shard.bytes - offset));
  let filled = 0;
  let failures = 0;
  while (offset < shard.bytes) {
    const began = offset + filled;
    try {
      const { total, chunks, fresh } = await source.transport.from(url, began);
      if (total !== undefined && total !== shard.bytes) throw wrongSize(shard, total);
      for await (const chunk of untilBroken(chunks)) {
        let rest = chunk;
        while (rest.byteLength > 0) {
          if (offset === shard.bytes) throw wrongSize(shard, shard.bytes + rest.byteLength);
          const taken = rest.subarray(0, piece.byteLength - filled);
          piece.set(taken, filled);
          filled += taken.byteLength;
          rest = rest.subarray(taken.byteLength);
          source.progress.set(shard.file, offset + filled);
          if (filled < piece.byteLength) continue;
          const kept = source.cache.put(shardKeys.piece(shard, offset / PIECE), piece);
          // It is kept while it is used, and before the next one comes.
          kept.catch(() => {});
          try {
            yield piece;
          } finally {
            await kept;
          }
          offset += filled;
          filled = 0;
          piece = new Uint8Array(Math.min(PIECE, shard.bytes - offset));
        }
        if (fresh) free(chunk);
      }
      if (offset < shard.bytes) throw new EndedEarly();
    } catch (error) {
      const loaded = offset + filled;
      failures = loaded > began ? 0 : failures + 1;
      if (error instanceof EndedEarly && failures >= ATTEMPTS) {
        throwIfAborted(source.signal);
        throw new KilnError('truncated', `${url} ends after ${loaded} bytes, the manifest says ${shard.bytes}; upload the file again, or try later`, { url, expected: shard.bytes, found: loaded });
      }
      await source.transport.beforeRetry(url, error, failures, loaded);
    }
  }
}

/** The body was shorter than the file. */
class EndedEarly extends Error {
  override message = 'the connection ended early';
}

/** A connection that breaks within a body ends it early. */
async function* untilBroken(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (cause) {
    throw new EndedEarly(undefined, { cause });
  }
}

function wrongSize(shard: Shard, found: number): KilnError {
  return new KilnError('file-size', `${shard.file} has ${found} bytes on the server, the manifest says ${shard.bytes}; upload the bundle again, all files of it`, {
    file: shard.file,
    expected: shard.bytes,
    found,
  });
}
