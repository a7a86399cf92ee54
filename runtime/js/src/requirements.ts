import { type Missing } from './errors.js';
import type { BufferKind, Manifest, Variant } from './manifest.js';

/** What a variant of a model needs of a device. Sizes in bytes. */
export interface Requirements {
  variant: string;
  /** WebGPU's names. */
  features: string[];
  limits: Record<string, number>;
  /** Positions that the memory is for. */
  context: number;
  memory: { weights: number; activations: number; state: number; total: number };
}

export interface AdapterLike {
  features: { has(name: string): boolean };
  limits: object;
}

/** What of the manifest's variants fits an adapter, most demanding first. */
export interface Fit {
  /** The variants that run, the one that is taken first. */
  variants: string[];
  /** What the others lack. */
  missing: Missing[];
}

/** Sizes and capabilities of one variant in a session of `context` positions. */
export function requirements(manifest: Manifest, variant: Variant, context = defaultContext(manifest)): Requirements {
  const memory = { weights: 0, activations: 0, state: 0, total: 0 };
  const seen = new Set<number>();
  for (const { kind } of variant.buffers) {
    const bytes = bufferBytes(manifest, kind, context);
    if (kind.kind === 'weight') {
      if (!seen.has(kind.weight!)) memory.weights += bytes;
      seen.add(kind.weight!);
    } else if (kind.kind === 'state' || kind.kind === 'recurrent') memory.state += bytes;
    else memory.activations += bytes;
  }
  memory.total = memory.weights + memory.activations + memory.state;
  return { variant: variant.name, features: variant.features, limits: { ...variant.limits }, context, memory };
}

/** The positions of a session when none are asked for. */
export function defaultContext(manifest: Manifest): number {
  return Math.min(manifest.model.default_context, manifest.model.max_context);
}

function bufferBytes(manifest: Manifest, kind: BufferKind, context: number): number {
  switch (kind.kind) {
    case 'weight':
      return manifest.weights[kind.weight!]?.bytes ?? 0;
    case 'state':
      return kind.bytes_per_position! * (kind.positions ?? context);
    case 'step':
      return 32;
    case 'tokens':
      return 4 * manifest.model.chunk;
    case 'output':
      return 4 * kind.slots!;
    default:
      return kind.bytes!;
  }
}

/** Which variants an adapter can run. */
export function fit(manifest: Manifest, adapter: AdapterLike, hostFeatures: readonly string[] = []): Fit {
  const variants: string[] = [];
  const missing: Missing[] = [];
  for (const variant of manifest.variants) {
    const lacks = missingOf(variant, adapter, hostFeatures);
    if (lacks.length === 0) variants.push(variant.name);
    missing.push(...lacks);
  }
  return { variants, missing };
}

function missingOf(variant: Variant, adapter: AdapterLike, hostFeatures: readonly string[]): Missing[] {
  const missing: Missing[] = [];
  for (const name of variant.features) {
    if (!adapter.features.has(name) && !hostFeatures.includes(name)) missing.push({ variant: variant.name, name });
  }
  for (const [name, needed] of Object.entries(variant.limits)) {
    const found = (adapter.limits as Record<string, number>)[name] ?? 0;
    if (found < needed) missing.push({ variant: variant.name, name, needed, found });
  }
  return missing;
}

/** The words for what is missing. */
export function describeMissing(missing: readonly Missing[]): string {
  const parts = missing.map(({ variant, name, needed, found }) =>
    needed === undefined ? `variant ${variant} needs the feature ${name}` : `variant ${variant} needs ${name} of ${needed} (found ${found})`,
  );
  return parts.join('; ');
}
