import { type Cache, type CacheChoice, openCache } from './cache.js';
import { cachedBytes, pieces, shardKeys, type ShardSource } from './download.js';
import { KilnError, isKilnError, throwIfAborted } from './errors.js';
import { noWebGpu } from './hosts.js';
import { type BundleLocation, type LocationOptions, locate } from './location.js';
import { kernelFiles, type Manifest, MANIFEST_FILE, parseManifest, type Shard, type TextFile, textFiles, type Variant } from './manifest.js';
import { free } from './memory.js';
import { type Progress, ProgressMeter } from './progress.js';
import { Transport, type TransportOptions } from './transport.js';

export interface BundleOptions extends LocationOptions, TransportOptions {
  cache?: CacheChoice;
  /** Never ask the network: all comes from the cache. */
  offline?: boolean;
  progress?: (progress: Progress) => void;
}

/** Cache key of a kernel or text file: by content, so that revisions and models share what is equal. */
const textKey = (sha256: string) => `texts/${sha256}`;

/** A bundle somewhere, and what of it is in the cache. */
export class Bundle implements ShardSource {
  readonly cache: Cache;
  readonly transport: Transport;
  readonly progress: ProgressMeter;
  readonly offline: boolean;
  readonly signal: AbortSignal | undefined;
  /** Whether the manifest came from the cache because the network gave none. */
  manifestFromCache = false;

  private constructor(
    private location: BundleLocation,
    options: BundleOptions,
  ) {
    // What lies on this disk needs no copy on it.
    this.cache = openCache(options.cache ?? (location.base.startsWith('file:') ? 'none' : undefined));
    this.transport = new Transport(options);
    this.progress = new ProgressMeter(options.progress);
    this.offline = options.offline ?? false;
    this.signal = options.signal;
  }

  manifest!: Manifest;
  manifestText!: Uint8Array;

  /** Fetches and reads the manifest: from the network, or without one from the cache. */
  static async open(source: string | URL, options: BundleOptions = {}): Promise<Bundle> {
    const bundle = new Bundle(locate(source, options), options);
    bundle.manifestText = await bundle.#fetchManifest();
    bundle.manifest = parseManifest(new TextDecoder().decode(bundle.manifestText), bundle.url(MANIFEST_FILE));
    return bundle;
  }

  url(file: string): string {
    return this.location.url(file);
  }

  async #fetchManifest(): Promise<Uint8Array> {
    const key = `${await this.#folder()}${MANIFEST_FILE}`;
    let failure: unknown;
    if (!this.offline) {
      try {
        const url = this.url(MANIFEST_FILE);
        const text = await this.transport.file(url);
        // Only a manifest replaces a manifest.
        parseManifest(new TextDecoder().decode(text), url);
        await this.cache.put(key, text);
        return text;
      } catch (error) {
        throwIfAborted(this.signal);
        if (!isKilnError(error, 'network')) throw error;
        failure = error;
      }
    }
    const kept = await this.cache.get(key);
    this.manifestFromCache = true;
    if (kept) return kept;
    throw failure ?? new KilnError('not-cached', `${this.url(MANIFEST_FILE)} is not in the cache, and this is offline mode; load the model once with a connection`, { file: MANIFEST_FILE });
  }

  /** Cache key of what belongs to this address. */
  async #folder(): Promise<string> {
    return `bundles/${(await sha256(new TextEncoder().encode(this.location.base))).slice(0, 32)}/`;
  }

  /** A kernel or text file: from the cache, or from the network and into the cache. What is damaged in the cache counts as absent. */
  async file({ file, sha256: hash }: TextFile): Promise<Uint8Array> {
    const key = textKey(hash);
    const kept = await this.cache.get(key);
    if (kept && (await sha256(kept)) === hash) {
      this.progress.set(file, kept.byteLength, true);
      return kept;
    }
    if (this.offline) throw new KilnError('not-cached', `${file} is not in the cache, and this is offline mode; load the model once with a connection`, { file });
    const bytes = await this.transport.file(this.url(file));
    if ((await sha256(bytes)) !== hash) {
      throw new KilnError('checksum', `${file} is not what the compiler wrote; upload the bundle again, all files of it`, { file });
    }
    await this.cache.put(key, bytes);
    this.progress.set(file, bytes.byteLength);
    return bytes;
  }

  /** Whether a file is in the cache, all of it. */
  async isCached(file: string): Promise<boolean> {
    const shard = this.manifest.shards.find((shard) => shard.file === file);
    if (shard) return (await this.cachedBytes(shard)) === shard.bytes;
    const known = this.#files().find((known) => known.file === file);
    return known !== undefined && this.cache.has(textKey(known.sha256));
  }

  /** The kernels of all variants, and the text files. */
  #files(): TextFile[] {
    return [...this.manifest.variants.flatMap((variant) => variant.kernels), ...textFiles(this.manifest)];
  }

  /** The bytes of a shard that are in the cache. */
  cachedBytes(shard: Shard): Promise<number> {
    return cachedBytes(this.cache, shard);
  }

  isVerified(shard: Shard): Promise<boolean> {
    return this.cache.has(shardKeys.verified(shard));
  }

  async setVerified(): Promise<void> {
    await Promise.all(this.manifest.shards.map((shard) => this.cache.put(shardKeys.verified(shard), Uint8Array.of(1))));
  }

  /** Forgets a shard of the cache. */
  clearShard(shard: Shard): Promise<void> {
    return this.cache.clear(shardKeys.all(shard));
  }

  /** Forgets all of this bundle. Shards that another model shares go too. */
  async clear(): Promise<void> {
    const hashes = new Set(this.#files().map((file) => file.sha256));
    await Promise.all([
      ...this.manifest.shards.map((shard) => this.clearShard(shard)),
      ...[...hashes].map((hash) => this.cache.clear(textKey(hash))),
      this.cache.clear(await this.#folder()),
    ]);
  }

  /** What the wasm module reads from, with the files of a variant at hand. */
  async reader(variant: Variant): Promise<BundleReader> {
    const files = kernelFiles(variant);
    const loaded = await Promise.all(files.map(async (file) => [file.file, await this.file(file)] as const));
    return new BundleReader(this, new Map([[MANIFEST_FILE, this.manifestText], ...loaded]));
  }
}

/** Gives the wasm module the bytes that it asks for: small files at hand, shards from their pieces, in order. */
export class BundleReader {
  /** What reading failed with; the wasm module knows only that it did. */
  error: unknown;
  /** For ranges that lie in more than one piece. */
  #joined = new Uint8Array();
  #shard: { shard: Shard; pieces: AsyncGenerator<Uint8Array>; piece: Uint8Array; start: number } | undefined;

  constructor(
    private bundle: Bundle,
    private files: Map<string, Uint8Array>,
  ) {}

  /** The text of a kernel. */
  text(file: string): string {
    return new TextDecoder().decode(this.files.get(file));
  }

  /** Begins with the weights before they are asked for, and waits for the first of them. */
  async prefetch(): Promise<void> {
    const shard = this.bundle.manifest.shards[0];
    if (shard) await this.read(shard.file, 0, Math.min(4, shard.bytes));
  }

  async size(file: string): Promise<number> {
    return this.files.get(file)?.byteLength ?? this.bundle.manifest.shards.find((shard) => shard.file === file)?.bytes ?? 0;
  }

  async read(file: string, offset: number, length: number): Promise<Uint8Array> {
    try {
      const small = this.files.get(file);
      return small ? small.subarray(offset, offset + length) : await this.#readShard(file, offset, length);
    } catch (error) {
      this.error = error;
      throw error;
    }
  }

  async #readShard(file: string, offset: number, length: number): Promise<Uint8Array> {
    if (this.#shard?.shard.file !== file || offset < this.#shard.start) {
      const shard = this.bundle.manifest.shards.find((shard) => shard.file === file)!;
      await this.close();
      this.#shard = { shard, pieces: pieces(this.bundle, shard), piece: new Uint8Array(), start: 0 };
    }
    const at = this.#shard!;
    // Mostly the range lies within a piece.
    const start = offset - at.start;
    if (start + length <= at.piece.byteLength) return at.piece.subarray(start, start + length);
    // The module has copied what it was given before it asks again.
    if (this.#joined.byteLength < length) this.#joined = new Uint8Array(length);
    const out = this.#joined.subarray(0, length);
    let filled = 0;
    while (filled < length) {
      const from = offset + filled - at.start;
      if (from < at.piece.byteLength) {
        const bytes = at.piece.subarray(from, from + length - filled);
        out.set(bytes, filled);
        filled += bytes.byteLength;
        continue;
      }
      const next = await at.pieces.next();
      if (next.done) throw new KilnError('internal', `${file}: read past its end; please report this`);
      at.start += at.piece.byteLength;
      if (this.bundle.cache.fresh) free(at.piece);
      at.piece = next.value;
    }
    return out;
  }

  /** Ends downloads that nobody waits for. */
  async close(): Promise<void> {
    await this.#shard?.pieces.return(undefined);
    this.#shard = undefined;
  }
}

/** Lower-case hexadecimal SHA-256. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  // Insecure pages have none, and no WebGPU.
  if (!globalThis.crypto?.subtle) throw noWebGpu();
  const digest = await crypto.subtle.digest('SHA-256', bytes as BufferSource);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
