/** Runs language models compiled by Kiln on WebGPU: in browsers, Node, Deno and Bun. */
export { type BundleOptions } from './bundle.js';
export { type Cache, type CacheChoice, fileCache } from './cache.js';
export type { Completion, CompletionChunk, CompletionRequest, Completions } from './completions.js';
export { type ErrorCode, type ErrorDetails, isKilnError, KilnError, type Missing, type SavedSessionFault } from './errors.js';
export type { Channel, ChannelKind, ChannelText, Generation, Result, StopReason, Timings, Token } from './generation.js';
export { type Host, type HostOptions, openHost } from './hosts.js';
export type { LoadReport } from './load.js';
export type { Manifest } from './manifest.js';
export type { Message, Prompt } from './message.js';
export { loadModel, type Memory, type Model } from './model.js';
export type { SavedModule, TextModule } from './modules.js';
export type { GenerateOptions, LoadOptions, Sampling } from './options.js';
export type { Pace } from './pace.js';
export type { FileProgress, Progress } from './progress.js';
export { type ModelFile, Registry } from './registry.js';
export type { Fit, Requirements } from './requirements.js';
export type { SavedSession } from './saved.js';
export type { Session } from './session.js';
