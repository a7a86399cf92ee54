import init, { type WebModel as WasmModel } from './wasm/kiln_web.js';
import * as wasm from './wasm/kiln_web.js';
import { fromWasm, KilnError } from './errors.js';
import { importHere } from './import.js';

export type { WasmModel };
export type WasmSession = wasm.WebSession;

/** What may replace the module beside this file: its address, its bytes, or it compiled. */
export type WasmSource = string | URL | Response | BufferSource | WebAssembly.Module;

let ready: Promise<typeof wasm> | undefined;
let panicked: KilnError | undefined;
const waiting = new Set<(error: KilnError) => void>();

/** The wasm module, loaded once. */
export function loadWasm(source?: WasmSource): Promise<typeof wasm> {
  return (ready ??= start(source).catch((error) => {
    ready = undefined;
    throw error;
  }));
}

async function start(source: WasmSource | undefined): Promise<typeof wasm> {
  Object.defineProperty(globalThis, '__kilnPanicked', { value: onPanic, configurable: true });
  const given = source ?? new URL('./kiln.wasm', import.meta.url);
  const url = given instanceof URL || typeof given === 'string' ? String(given) : undefined;
  try {
    await init({ module_or_path: url ? await fetchModule(url) : (given as Exclude<WasmSource, string | URL>) });
  } catch (cause) {
    const { name, message } = cause as Error;
    const refused = /^(Compile|Eval)Error$/.test(name) && /eval|CSP/.test(message);
    const advice = refused
      ? "add 'wasm-unsafe-eval' to script-src in the content security policy"
      : 'serve kiln.wasm of kiln-runtime there, or pass its address as the option "wasm"';
    throw new KilnError('wasm', `the WebAssembly module${url ? ` ${url}` : ''} cannot be loaded; ${advice} (${message})`, { url }, { cause });
  }
  return wasm;
}

async function fetchModule(url: string): Promise<Response | BufferSource> {
  if (url.startsWith('file:')) {
    const fs = await importHere('node:fs/promises');
    return fs.readFile(new URL(url));
  }
  const response = await fetch(url);
  // Servers of pages give one of these for what they do not have.
  if (/html/.test(response.headers.get('Content-Type') ?? '')) throw new Error('this is a web page');
  return response;
}

/** A panic leaves promises open that the module gave: they are rejected here. */
function onPanic(message: string): void {
  panicked = new KilnError('internal', `the runtime stopped: ${message}; reload, and please report this`);
  for (const reject of waiting) reject(panicked);
}

/** Awaits the wasm module, with its errors as ours. */
export async function settle<T>(promise: Promise<T>): Promise<T> {
  if (panicked) throw panicked;
  let reject!: (error: KilnError) => void;
  const panic = new Promise<never>((_, no) => waiting.add((reject = no)));
  try {
    return await Promise.race([promise, panic]);
  } catch (error) {
    throw fromWasm(error);
  } finally {
    waiting.delete(reject);
  }
}
