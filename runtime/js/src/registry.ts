import { Bundle, type BundleOptions } from './bundle.js';
import { type HostOptions, openHost } from './hosts.js';
import { type AdapterLike, type Fit, fit, type Requirements, requirements } from './requirements.js';

export interface ModelFile {
  file: string;
  /** Bytes; 0 where only the server knows (text files, kernels). */
  bytes: number;
  cachedBytes: number;
}

/** Looks at models before, and without, loading them. */
export class Registry {
  #bundles = new Map<string, Promise<Bundle>>();

  constructor(private options: BundleOptions = {}) {}

  /** Weight shards with their sizes, and how much of each is in the cache. */
  async files(model: string | URL): Promise<ModelFile[]> {
    const bundle = await this.#open(model);
    const { shards } = bundle.manifest;
    return Promise.all(shards.map(async (shard) => ({ file: shard.file, bytes: shard.bytes, cachedBytes: await bundle.cachedBytes(shard) })));
  }

  /** Bytes of all weights: what a first visit downloads, but for a MB or two of text. */
  async totalSize(model: string | URL): Promise<number> {
    const { shards } = (await this.#open(model)).manifest;
    return shards.reduce((sum, shard) => sum + shard.bytes, 0);
  }

  /** Whether a file, or without one the whole model, is in the cache. */
  async isCached(model: string | URL, file?: string): Promise<boolean> {
    const files = await this.files(model);
    return files.filter((entry) => file === undefined || entry.file === file).every(({ bytes, cachedBytes }) => bytes === cachedBytes);
  }

  /** Forgets a model that was downloaded. */
  async clear(model: string | URL): Promise<void> {
    await (await this.#open(model)).clear();
    this.#bundles.delete(String(model));
  }

  /** The weight formats and the variants of the compiled kernels. */
  async dtypes(model: string | URL): Promise<{ weights: string; variants: string[] }> {
    const { manifest } = await this.#open(model);
    return { weights: manifest.model.quantization, variants: manifest.variants.map((variant) => variant.name) };
  }

  /** Features, limits and memory of each variant for sessions of `context` positions. */
  async requirements(model: string | URL, context?: number): Promise<Requirements[]> {
    const { manifest } = await this.#open(model);
    return manifest.variants.map((variant) => requirements(manifest, variant, context));
  }

  /** Which variants run on this device (or on the given adapter), and what is missing for the others. */
  async fits(model: string | URL, adapter?: AdapterLike, options: HostOptions = {}): Promise<Fit> {
    const { manifest } = await this.#open(model);
    if (adapter) return fit(manifest, adapter);
    const host = await openHost(options);
    return fit(manifest, host.adapter, host.unlistedFeatures);
  }

  /** Facts of the model. */
  async describe(model: string | URL) {
    return (await this.#open(model)).manifest.model;
  }

  #open(model: string | URL): Promise<Bundle> {
    const key = String(model);
    const known = this.#bundles.get(key);
    if (known) return known;
    const opened = Bundle.open(model, this.options);
    this.#bundles.set(key, opened);
    // A failure is not remembered.
    opened.catch(() => this.#bundles.delete(key));
    return opened;
  }
}

