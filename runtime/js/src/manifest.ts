import { KilnError } from './errors.js';

/** The parts of a bundle's manifest that this package looks at; docs/bundle-format.md has all of it. */
export interface Manifest {
  format_version: number;
  model: {
    name: string;
    architecture: string;
    layers: number;
    vocab_size: number;
    max_context: number;
    default_context: number;
    chunk: number;
    parameters: number;
    quantization: string;
    eos_token_ids: number[];
    bos_token_id: number | null;
    sampling: SamplingDefaults;
  };
  text: { tokenizer: TextFile; tokenizer_config: TextFile | null; chat_template: TextFile | null } | null;
  shards: Shard[];
  weights: { name: string; bytes: number }[];
  variants: Variant[];
}

/** What the checkpoint says of generating, under transformers' names. */
export interface SamplingDefaults {
  temperature: number | null;
  top_k: number | null;
  top_p: number | null;
  min_p?: number;
  repetition_penalty?: number;
  no_repeat_ngram_size?: number;
  min_new_tokens?: number;
  min_length?: number;
  /** Biases of tokens and of sequences; without `bias` the last of `ids` is ruled out, with `first` only so long. */
  rules: { ids: number[]; bias?: number; first?: number }[];
}

/** A kernel, or a file of the tokenizer. */
export interface TextFile {
  file: string;
  sha256: string;
}

export interface Shard {
  file: string;
  bytes: number;
  sha256: string;
}

export interface Variant {
  name: string;
  features: string[];
  /** WGSL's language features that the kernels use; absent: none. */
  language_features?: string[];
  limits: Record<string, number>;
  kernels: (TextFile & { name: string; bindings: ('read' | 'read-write')[] })[];
  buffers: { name: string; kind: BufferKind }[];
}

export interface BufferKind {
  kind: string;
  weight?: number;
  bytes?: number;
  bytes_per_position?: number;
  positions?: number | null;
  window?: number | null;
  slots?: number;
}

export const MANIFEST_FILE = 'manifest.json';
/** The version of the format that this package reads. */
export const FORMAT_VERSION = 3;

/** Reads a manifest as far as downloading needs it; the wasm module checks the rest before it runs anything. */
export function parseManifest(text: string, from: string): Manifest {
  const notOne = (cause?: unknown) => new KilnError('bundle', `${from} is not a Kiln manifest; point at the folder that compile-model wrote`, {}, { cause });
  let manifest: Manifest;
  try {
    manifest = JSON.parse(text);
  } catch (cause) {
    throw notOne(cause);
  }
  const found = manifest?.format_version;
  if (typeof found !== 'number') throw notOne();
  if (found !== FORMAT_VERSION) {
    const advice = found > FORMAT_VERSION ? 'update kiln-runtime' : 'compile the model again';
    throw new KilnError('bundle-version', `${from}: bundle format ${found}, this package reads ${FORMAT_VERSION}; ${advice}`);
  }
  const { model, variants, shards } = manifest;
  const whole = model && Array.isArray(shards) && Array.isArray(variants) && variants.length > 0 && variants.every((variant) => variant?.kernels && variant.buffers);
  if (!whole) throw notOne();
  return manifest;
}

/** Tokenizer and template. */
export function textFiles({ text }: Manifest): TextFile[] {
  return text ? [text.tokenizer, text.tokenizer_config, text.chat_template].filter((file) => file !== null) : [];
}

/** The kernel files that a variant needs, each once. */
export function kernelFiles(variant: Variant): TextFile[] {
  return [...new Map(variant.kernels.map((kernel) => [kernel.file, kernel])).values()];
}
