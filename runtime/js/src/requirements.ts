import { type Missing } from './errors.js';
import type { BufferKind, Manifest, Variant } from './manifest.js';

/** What a variant of a model needs of a device. Sizes in bytes. */
export interface Requirements {
  variant: string;
  /** WebGPU's names. */
  features: string[];
  /** WGSL's names of what the kernels use beyond its first version. */
  languageFeatures: string[];
  limits: Record<string, number>;
  /** Positions that the memory is for. */
  context: number;
  memory: { weights: number; activations: number; state: number; total: number };
}

export interface AdapterLike {
  features: { has(name: string): boolean };
  limits: object;
}

/** What a host has beside its adapter. */
export interface HostFeatures {
  /** Features that the adapter has and does not list. */
  unlisted?: readonly string[];
  /** WGSL's language features; absent where the host's shader compiler, which is not a browser's, knows all that kernels use. */
  language?: { has(name: string): boolean } | undefined;
}

/** What of the manifest's variants fits an adapter, most demanding first. */
export interface Fit {
  /** The variants that run with this context, the one that is taken first. */
  variants: string[];
  /** What the others lack. */
  missing: Missing[];
  /** The most positions that a session can have, with the variant that allows most; 0 where none runs at all. */
  longest: number;
}

/** Sizes and capabilities of one variant in a session of `context` positions. */
export function requirements(manifest: Manifest, variant: Variant, context = defaultContext(manifest)): Requirements {
  const memory = { weights: 0, activations: 0, state: 0, total: 0 };
  const limits = { ...variant.limits };
  const seen = new Set<number>();
  // What a session copies to go back to: states that sum up all tokens, and the last positions of the windows beside them.
  let [copied, recurrent] = [0, false];
  for (const { kind } of variant.buffers) {
    recurrent ||= kind.kind === 'recurrent';
    copied += kind.kind === 'recurrent' ? kind.bytes! : kind.kind === 'state' && kind.window != null ? kind.bytes_per_position! * kind.window : 0;
    const bytes = bufferBytes(manifest, kind, context);
    if (kind.kind === 'weight') {
      if (!seen.has(kind.weight!)) memory.weights += bytes;
      seen.add(kind.weight!);
    } else if (kind.kind === 'state' || kind.kind === 'recurrent') memory.state += bytes;
    else memory.activations += bytes;
  }
  if (recurrent) memory.state += MAX_SNAPSHOTS * copied;
  memory.total = memory.weights + memory.activations + memory.state;
  // The compiler knows the context of no session.
  for (const name of STATE_LIMITS) limits[name] = Math.max(limits[name] ?? 0, bytesPerPosition(variant) * context);
  const { name, features, language_features: languageFeatures = [] } = variant;
  return { variant: name, features, languageFeatures, limits, context, memory };
}

/** The most copies of its states that a session keeps. */
const MAX_SNAPSHOTS = 3;

/** A state is one buffer, and bound as a whole. */
const STATE_LIMITS = ['maxBufferSize', 'maxStorageBufferBindingSize'];

/** Of the largest state that grows with the context. */
function bytesPerPosition(variant: Variant): number {
  const states = variant.buffers.filter(({ kind }) => kind.kind === 'state' && kind.positions == null);
  return Math.max(...states.map(({ kind }) => kind.bytes_per_position!), 0);
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
    case 'history':
      return kind.bytes_per_position! * (kind.positions ?? context);
    case 'step':
      return 36;
    case 'tokens':
      return 4 * manifest.model.chunk;
    case 'output':
      return 4 * kind.slots!;
    default:
      return kind.bytes!;
  }
}

/** Which variants an adapter can run with sessions of `context` positions. */
export function fit(manifest: Manifest, adapter: AdapterLike, host: HostFeatures = {}, context = defaultContext(manifest)): Fit {
  const variants: string[] = [];
  const missing: Missing[] = [];
  const { max_context } = manifest.model;
  let longest = 0;
  for (const variant of manifest.variants) {
    const needs = requirements(manifest, variant, context);
    const lacks = missingOf(needs, adapter, host);
    if (context > max_context) lacks.push({ variant: variant.name, name: 'context', needed: context, found: max_context });
    if (lacks.length === 0) variants.push(variant.name);
    missing.push(...lacks);
    if (missingOf({ ...needs, limits: variant.limits }, adapter, host).length > 0) continue;
    const room = Math.min(...STATE_LIMITS.map((name) => limitOf(adapter, name))) / bytesPerPosition(variant);
    longest = Math.max(longest, Math.min(Math.floor(room), max_context));
  }
  return { variants, missing, longest };
}

function limitOf(adapter: AdapterLike, name: string): number {
  return (adapter.limits as Record<string, number>)[name] ?? 0;
}

function missingOf(needs: Requirements, adapter: AdapterLike, { unlisted = [], language }: HostFeatures): Missing[] {
  const missing: Missing[] = [];
  const { variant } = needs;
  for (const name of needs.features) {
    if (!adapter.features.has(name) && !unlisted.includes(name)) missing.push({ variant, name });
  }
  for (const name of needs.languageFeatures) {
    if (language && !language.has(name)) missing.push({ variant, name });
  }
  for (const [name, needed] of Object.entries(needs.limits)) {
    const found = limitOf(adapter, name);
    if (found < needed) missing.push({ variant, name, needed, found });
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
