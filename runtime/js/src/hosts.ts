import { KilnError } from './errors.js';
import { importHere } from './import.js';
import type { HostFeatures } from './requirements.js';

/** An adapter, and what must be known of the host that gave it. */
export interface Host {
  gpu: GPU;
  adapter: GPUAdapter;
  /** `browser`, `node`, `deno` or `bun`. */
  name: string;
  /** `own`: the host's WebGPU; `dawn`: the npm package `webgpu`. */
  implementation: 'own' | 'dawn';
  /** Features that the adapter has and does not list. */
  unlistedFeatures: string[];
}

export interface HostOptions {
  /** Take this adapter instead of asking for one. */
  adapter?: GPUAdapter;
  powerPreference?: GPUPowerPreference;
  /** Where a host has both: its own WebGPU (the default), or the npm package `webgpu`. */
  prefer?: 'own' | 'dawn';
}

const globals = globalThis as unknown as Record<string, unknown> & { navigator?: { gpu?: GPU } };

/** Which program runs us. */
export function hostName(): string {
  return 'Deno' in globals ? 'deno' : 'Bun' in globals ? 'bun' : isNode() ? 'node' : 'browser';
}

function isNode(): boolean {
  return typeof process === 'object' && !!process.versions?.node && !('window' in globals);
}

/** Finds WebGPU and an adapter, whatever the host. */
export async function openHost(options: HostOptions = {}): Promise<Host> {
  const name = hostName();
  const order = options.prefer === 'dawn' ? (['dawn', 'own'] as const) : (['own', 'dawn'] as const);
  let found = false;
  for (const implementation of order) {
    const gpu = implementation === 'own' ? ownGpu() : name === 'browser' ? undefined : await dawnGpu();
    if (!gpu) continue;
    found = true;
    const adapter = options.adapter ?? (await requestAdapter(gpu, options.powerPreference));
    if (adapter) {
      // Deno runs subgroup operations, and lists no such feature.
      const unlistedFeatures = name === 'deno' && implementation === 'own' ? ['subgroups'] : [];
      return { gpu, adapter, name, implementation, unlistedFeatures };
    }
  }
  throw found ? noAdapter(name) : noWebGpu(name);
}

let ownPatched: GPU | undefined;

function ownGpu(): GPU | undefined {
  const gpu = globals.navigator?.gpu;
  return gpu === ownPatched ? undefined : gpu;
}

/** What `fit` asks of a host. */
export function hostFeatures({ gpu, name, implementation, unlistedFeatures }: Host): HostFeatures {
  // Others than browsers know them all, and may list none.
  return { unlisted: unlistedFeatures, language: name === 'browser' && implementation === 'own' ? languageFeatures(gpu) : undefined };
}

/** WGSL's language features in this browser. */
export function languageFeatures(gpu = hostName() === 'browser' ? globals.navigator?.gpu : undefined): { has(name: string): boolean } | undefined {
  return gpu && (gpu.wgslLanguageFeatures ?? new Set());
}

async function requestAdapter(gpu: GPU, powerPreference: GPUPowerPreference = 'high-performance'): Promise<GPUAdapter | null> {
  return (await gpu.requestAdapter({ powerPreference })) ?? (await gpu.requestAdapter());
}

let dawn: Promise<GPU | undefined> | undefined;

/** The npm package `webgpu`, or `bun-webgpu`. One instance: a process dies when one is collected while its objects live. */
function dawnGpu(): Promise<GPU | undefined> {
  return (dawn ??= (async () => {
    const module = (await installed('webgpu')) ?? (hostName() === 'bun' ? await installed('bun-webgpu') : undefined);
    if (!module) return undefined;
    // wgpu tells errors by their classes, which it looks for among the globals.
    for (const [key, value] of Object.entries(module.globalConstructors ?? module.globals)) define(globals, key, value);
    return (module.createGPUInstance ? module.createGPUInstance() : module.create([])) as GPU;
  })());
}

/** An npm package; undefined where there is none. */
async function installed(name: string) {
  try {
    return await importHere(name);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (/MODULE_NOT_FOUND/.test(code ?? '') || message.includes(`"${name}"`)) return undefined;
    throw new KilnError('no-webgpu', `the npm package ${name} does not start; install it again for this system (${message})`, {}, { cause: error });
  }
}

/** Why there is no WebGPU here. */
export function noWebGpu(host = hostName()): KilnError {
  if (host === 'node' && !globals.crypto) return new KilnError('no-webgpu', 'this Node is too old; Node 20 or newer is needed');
  if (host !== 'browser') {
    const install = { node: 'npm install webgpu', bun: 'bun add webgpu', deno: 'deno add npm:webgpu, or run with --unstable-webgpu' }[host];
    return new KilnError('no-webgpu', `${host} has no WebGPU here; install it: ${install}`);
  }
  if (globals.isSecureContext === false) {
    return new KilnError('no-webgpu', 'browsers give WebGPU to secure pages only; serve this page over https, or from localhost');
  }
  return new KilnError(
    'no-webgpu',
    'this browser has no WebGPU; Chrome and Edge have it (113 or newer, on Linux and older phones behind chrome://flags), as do Safari 26 and Firefox 141 (Windows) or 145 (macOS)',
  );
}

function noAdapter(host: string): KilnError {
  const advice =
    host === 'browser'
      ? 'turn on hardware acceleration in the browser\'s settings and update the graphics driver'
      : "install a driver of Vulkan, Metal or DirectX 12 (npm webgpu refuses the software device of Mesa 22, and takes Mesa 25's)";
  return new KilnError('no-adapter', `WebGPU is there, but it offers no adapter; ${advice}`);
}

function define(target: object, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, configurable: true, writable: true });
}

/** One at a time: what wgpu finds among the globals is ours only while it looks. */
let opening: Promise<unknown> = Promise.resolve();

/**
 * Runs `open`, in which the wasm module asks the globals for an adapter and a device, so that it gets the host's, with the
 * features that are needed. `onDevice` sees the device first. The globals are as before once the adapter was asked for.
 */
export function withHost<T>(host: Host, needed: readonly string[], open: () => Promise<T>, onDevice: (device: GPUDevice) => Promise<void>): Promise<T> {
  const run = opening.then(() => openWith(host, needed, open, onDevice));
  opening = run.then(
    (opened) => opened.asked,
    () => {},
  );
  return run.then((opened) => opened.result);
}

async function openWith<T>(host: Host, needed: readonly string[], open: () => Promise<T>, onDevice: (device: GPUDevice) => Promise<void>) {
  const restore: (() => void)[] = [];
  const replace = (target: object, key: string, value: unknown) => {
    const before = Object.getOwnPropertyDescriptor(target, key);
    define(target, key, value);
    restore.push(() => {
      if (before) Object.defineProperty(target, key, before);
      else delete (target as Record<string, unknown>)[key];
    });
  };
  let done = () => {};
  const asked = new Promise<void>((resolve) => {
    done = () => {
      for (const undo of restore.splice(0).reverse()) undo();
      ownPatched = undefined;
      resolve();
    };
  });
  // wgpu looks for a page's or a worker's globals and panics without either.
  if (!('Window' in globals) && !('WorkerGlobalScope' in globals)) replace(globals, 'WorkerGlobalScope', class {});
  if (!globals.navigator) replace(globals, 'navigator', {});
  if (globals.navigator!.gpu !== host.gpu) {
    replace(globals.navigator!, 'gpu', host.gpu);
    ownPatched = host.gpu;
  }
  replace(host.gpu, 'requestAdapter', () => {
    done();
    return Promise.resolve(adapterFor(host, needed, onDevice));
  });
  const result = open();
  result.then(done, done);
  return { result, asked };
}

/** bun-webgpu 0.1.7 takes no limits without these. */
const BUN_WEBGPU_LIMITS = { maxStorageBuffersInFragmentStage: 0, maxStorageBuffersInVertexStage: 0, maxStorageTexturesInFragmentStage: 0, maxStorageTexturesInVertexStage: 0 };

/** The adapter as wgpu sees it: its device is asked for with what wgpu 30 does not know of. */
function adapterFor(host: Host, needed: readonly string[], onDevice: (device: GPUDevice) => Promise<void>): GPUAdapter {
  const { adapter } = host;
  const { requestDevice } = Object.getPrototypeOf(adapter) as GPUAdapter;
  define(adapter, 'requestDevice', async (descriptor: GPUDeviceDescriptor = {}) => {
    const requiredFeatures = [...new Set([...(descriptor.requiredFeatures ?? []), ...needed])] as GPUFeatureName[];
    const requiredLimits = { ...descriptor.requiredLimits, ...('adapterPtr' in adapter ? BUN_WEBGPU_LIMITS : {}) };
    const device = await requestDevice.call(adapter, { ...descriptor, requiredFeatures, requiredLimits });
    await mend(device, host);
    await onDevice(device);
    return device;
  });
  return adapter;
}

/** What hosts and wgpu disagree on. */
async function mend(device: GPUDevice, host: Host): Promise<void> {
  // Chromium's compiler demands this line, and naga (Deno, Firefox) refuses it.
  if (device.features.has('subgroups') && !(await compiles(device, 'enable subgroups;'))) {
    const create = device.createShaderModule;
    define(device, 'createShaderModule', (descriptor: GPUShaderModuleDescriptor) =>
      create.call(device, { ...descriptor, code: descriptor.code.replace(/^enable subgroups;$/m, '') }),
    );
  }
  // Deno throws where a buffer of a lost device is unmapped, which the standard allows.
  if (host.name === 'deno' && host.implementation === 'own') {
    const create = device.createBuffer;
    define(device, 'createBuffer', (descriptor: GPUBufferDescriptor) => {
      const buffer = create.call(device, descriptor);
      const unmap = buffer.unmap;
      define(buffer, 'unmap', () => {
        try {
          unmap.call(buffer);
        } catch {
          // The loss is reported by `device.lost`.
        }
      });
      return buffer;
    });
  }
  // wgpu panics on an internal error, which a driver's compiler may give.
  const pop = device.popErrorScope;
  define(device, 'popErrorScope', async () => {
    const error = await pop.call(device);
    const known = error === null || error instanceof GPUValidationError || error instanceof GPUOutOfMemoryError;
    return known ? error : new GPUValidationError(error!.message);
  });
}

async function compiles(device: GPUDevice, line: string): Promise<boolean> {
  device.pushErrorScope('validation');
  device.createShaderModule({ code: `${line}\n@compute @workgroup_size(1) fn main() {}` });
  return (await device.popErrorScope()) === null;
}
