import { Bundle } from './bundle.js';
import { isKilnError, KilnError, throwIfAborted } from './errors.js';
import { type Host, hostFeatures, openHost, withHost } from './hosts.js';
import type { Manifest, Variant } from './manifest.js';
import type { LoadOptions } from './options.js';
import { preparePipelines } from './pipelines.js';
import { describeMissing, fit, type Requirements, requirements } from './requirements.js';
import { loadWasm, settle, type WasmModel } from './wasm.js';

/** How a model came onto the device. Times in milliseconds. */
export interface LoadReport {
  model: string;
  /** What the adapter says of itself. */
  adapter: string;
  host: string;
  implementation: 'own' | 'dawn';
  variant: string;
  /** Variants that were tried before and failed. */
  failed: { variant: string; reason: string }[];
  requirements: Requirements;
  weightBytes: number;
  cachedBytes: number;
  pipelinesMs: number;
  weightsMs: number;
  totalMs: number;
}

/** A model on the device, as the wasm module has it. */
export interface Loaded {
  wasm: WasmModel;
  manifest: Manifest;
  bundle: Bundle;
  device: GPUDevice;
  report: LoadReport;
}

/** Downloads what is not in the cache, and brings the first variant that works onto the device. */
export async function load(source: string | URL, options: LoadOptions): Promise<Loaded> {
  const started = performance.now();
  // The three need nothing of each other.
  const [host, bundle] = await Promise.all([openHost(options), Bundle.open(source, options), loadWasm(options.wasm)]);
  throwIfAborted(options.signal);
  const candidates = choose(bundle.manifest, host, options);
  const failed: LoadReport['failed'] = [];
  const { progress } = bundle;
  for (const shard of bundle.manifest.shards) progress.expect(shard.file, shard.bytes);
  for (const [index, variant] of candidates.entries()) {
    try {
      const { wasm, device, pipelinesMs } = await loadVariant(bundle, host, variant, options);
      progress.finish();
      const report: LoadReport = {
        model: bundle.manifest.model.name,
        adapter: adapterName(host.adapter),
        host: host.name,
        implementation: host.implementation,
        variant: variant.name,
        failed,
        requirements: requirements(bundle.manifest, variant, options.context),
        cachedBytes: progress.cachedBytes,
        ...wasm.report,
        pipelinesMs: pipelinesMs + wasm.report.pipelinesMs,
        totalMs: performance.now() - started,
      };
      return { wasm, manifest: bundle.manifest, bundle, device, report };
    } catch (error) {
      // Only what another variant may do better: the device refused a kernel, or did not open.
      const next = isKilnError(error, 'kernel') || isKilnError(error, 'unsupported');
      if (!next || index === candidates.length - 1) throw error;
      failed.push({ variant: variant.name, reason: error.message });
      // An adapter gives one device.
      host.adapter = (await openHost({ ...options, adapter: undefined })).adapter;
    }
  }
  throw new KilnError('bundle', 'the bundle has no variants; compile the model again');
}

/** The variants to try, first the most demanding. Refuses before anything large is downloaded. */
function choose(manifest: Manifest, host: Host, { variant: wanted, context }: LoadOptions): Variant[] {
  const available = manifest.variants.map((variant) => variant.name);
  if (wanted !== undefined && !available.includes(wanted)) {
    throw new KilnError('unknown-variant', `the bundle has no variant "${wanted}"; it has ${available.join(', ')}`, { variant: wanted, available });
  }
  const asked = manifest.variants.filter(({ name }) => wanted === undefined || name === wanted);
  const { variants, missing, longest } = fit({ ...manifest, variants: asked }, host.adapter, hostFeatures(host), context);
  if (variants.length === 0) {
    const adapter = adapterName(host.adapter);
    if (longest > 0) {
      throw new KilnError('context-length', `${adapter} runs this model with a context of at most ${longest} positions; ask for as many, or fewer`, { longest });
    }
    throw new KilnError('unsupported', `${adapter} cannot run this model: ${describeMissing(missing)}; try a smaller model or another device`, { missing });
  }
  return asked.filter(({ name }) => variants.includes(name));
}

async function loadVariant(bundle: Bundle, host: Host, variant: Variant, options: LoadOptions) {
  const module = await loadWasm(options.wasm);
  bundle.progress.phase = 'files';
  const reader = await bundle.reader(variant);
  bundle.progress.phase = 'weights';
  for (let attempt = 0; ; attempt++) {
    const verified = await Promise.all(bundle.manifest.shards.map((shard) => bundle.isVerified(shard)));
    const verify = options.verify === true || (options.verify !== false && verified.includes(false));
    const cancel = new module.Cancel();
    const stop = () => cancel.cancel();
    options.signal?.addEventListener('abort', stop, { once: true });
    let device: GPUDevice | undefined;
    let pipelinesMs = 0;
    try {
      throwIfAborted(options.signal);
      const open = () => settle(module.WebModel.load(reader, variant.name, verify, cancel));
      const wasm = await withHost(host, variant.features, open, async (opened) => {
        device = opened;
        const began = performance.now();
        const pipelines = preparePipelines(opened, variant, (file) => reader.text(file)).then(() => (pipelinesMs = performance.now() - began));
        // Whichever fails ends the load at once.
        await Promise.all([pipelines, reader.prefetch()]);
      });
      if (verify) await bundle.setVerified();
      return { wasm, device: device!, pipelinesMs };
    } catch (error) {
      device?.destroy();
      throwIfAborted(options.signal);
      if (reader.error) throw reader.error;
      if (!isKilnError(error, 'checksum')) throw error;
      // What is damaged must not stay, nor come into the cache now. If it came from there, the server may have it right.
      await reader.close();
      const shards = bundle.manifest.shards.filter((shard) => shard.file === error.details.file);
      await Promise.all(shards.map((shard) => bundle.clearShard(shard)));
      if (attempt > 0 || bundle.offline || bundle.progress.cachedBytes === 0) throw error;
      host.adapter = (await openHost({ ...options, adapter: undefined })).adapter;
    } finally {
      options.signal?.removeEventListener('abort', stop);
      await reader.close();
    }
  }
}

function adapterName(adapter: GPUAdapter): string {
  const { description, vendor, architecture, device } = adapter.info ?? {};
  return description || [vendor, architecture, device].filter(Boolean).join(' ') || 'the adapter';
}
