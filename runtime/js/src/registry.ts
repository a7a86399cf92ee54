import { Bundle, type BundleOptions } from './bundle.js';
import { type HostOptions, hostFeatures, languageFeatures, openHost } from './hosts.js';
import { kernelFiles, textFiles } from './manifest.js';
import { type AdapterLike, type Fit, fit, type Requirements, requirements } from './requirements.js';

/** A weight shard. */
export interface ModelFile {
  file: string;
  bytes: number;
  cachedBytes: number;
}

export interface FitOptions extends Omit<HostOptions, 'adapter'> {
  adapter?: AdapterLike;
  /** Positions of a session; absent: the model's default. */
  context?: number;
}

/** Looks at models before, and without, loading them. */
export class Registry {
  #bundles = new Map<string, Promise<Bundle>>();

  constructor(private options: BundleOptions = {}) {}

  /**
   * Weight shards with their sizes, and how much of each is in the cache. A first visit also downloads tokenizer, chat template
   * and the kernels of a variant: small, and only the server knows their sizes.
   */
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

  /** Whether a file (any of the bundle's), or without one all that loading needs, is in the cache. */
  async isCached(model: string | URL, file?: string): Promise<boolean> {
    const bundle = await this.#open(model);
    const all = async (files: string[]) => (await Promise.all(files.map((file) => bundle.isCached(file)))).every(Boolean);
    if (file !== undefined) return all([file]);
    const { shards, variants } = bundle.manifest;
    if (!(await all([...shards.map(({ file }) => file), ...textFiles(bundle.manifest).map(({ file }) => file)]))) return false;
    const kernels = await Promise.all(variants.map((variant) => all(kernelFiles(variant).map(({ file }) => file))));
    return kernels.includes(true);
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

  /** Which variants run on this device (or on the given adapter) with sessions of `context` positions, and what the others lack. */
  async fits(model: string | URL, { adapter, context, ...options }: FitOptions = {}): Promise<Fit> {
    const { manifest } = await this.#open(model);
    if (adapter) return fit(manifest, adapter, { language: languageFeatures() }, context);
    const host = await openHost(options);
    return fit(manifest, host.adapter, hostFeatures(host), context);
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

