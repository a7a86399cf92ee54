import { KilnError } from './errors.js';
import { hostName } from './hosts.js';
import { importHere } from './import.js';

/**
 * Where downloaded pieces stay. Keys are plain relative paths of letters, digits, `-`, `_`, `.` and `/`; values are at
 * most 4 MiB, but for text files.
 */
export interface Cache {
  /** The bytes that `get` gives and `put` took are nobody's afterwards: they are freed at once, which no collector does. */
  readonly fresh?: boolean;
  /** Names what other pages of the origin see as well: what one of them downloads the others wait for. */
  readonly shared?: string;
  get(key: string): Promise<Uint8Array | undefined>;
  has(key: string): Promise<boolean>;
  /** All of it or nothing, also when the page is closed meanwhile. */
  put(key: string, bytes: Uint8Array): Promise<void>;
  /** Removes the keys that begin with this. */
  clear(prefix: string): Promise<void>;
}

export type CacheChoice = 'cache-api' | 'opfs' | 'files' | 'none' | Cache;

/** The named cache, or the host's usual one: the Cache API in browsers, files elsewhere. */
export function openCache(choice?: CacheChoice): Cache {
  if (typeof choice === 'object') return choice;
  const usual = hostName() !== 'browser' ? 'files' : 'caches' in globalThis ? 'cache-api' : 'none';
  switch (choice ?? usual) {
    case 'cache-api':
      return new CacheApi();
    case 'opfs':
      return new Opfs();
    case 'files':
      return fileCache();
    default:
      return new NoCache();
  }
}

class NoCache implements Cache {
  readonly fresh = true;
  async get() {
    return undefined;
  }
  async has() {
    return false;
  }
  async put() {}
  async clear() {}
}

/** One entry a piece, under addresses that no server has; those of an extension are refused. */
class CacheApi implements Cache {
  readonly fresh = true;
  readonly shared = 'cache-api';
  #cache: Promise<globalThis.Cache> | undefined;

  #open() {
    return (this.#cache ??= caches.open('kiln'));
  }
  #url(key: string) {
    return `https://kiln.invalid/${key}`;
  }
  async get(key: string) {
    const found = await (await this.#open()).match(this.#url(key));
    return found && new Uint8Array(await found.arrayBuffer());
  }
  async has(key: string) {
    return (await (await this.#open()).match(this.#url(key))) !== undefined;
  }
  async put(key: string, bytes: Uint8Array) {
    const cache = await this.#open();
    await orQuota(bytes, () => cache.put(this.#url(key), new Response(bytes as BufferSource)));
  }
  async clear(prefix: string) {
    const cache = await this.#open();
    const begin = this.#url(prefix);
    const keys = (await cache.keys()).filter((request) => request.url.startsWith(begin));
    await Promise.all(keys.map((request) => cache.delete(request)));
  }
}

/** The origin private file system, a file for each piece. */
class Opfs implements Cache {
  readonly fresh = true;
  readonly shared = 'opfs';

  async #file(key: string, create: boolean) {
    const parts = ['kiln', ...key.split('/')];
    const name = parts.pop()!;
    let folder = await navigator.storage.getDirectory();
    for (const part of parts) folder = await folder.getDirectoryHandle(part, { create });
    return folder.getFileHandle(name, { create });
  }
  async get(key: string) {
    const handle = await this.#file(key, false).catch(() => undefined);
    const file = await handle?.getFile();
    // A file that was made and never written is empty.
    return file?.size ? new Uint8Array(await file.arrayBuffer()) : undefined;
  }
  async has(key: string) {
    const handle = await this.#file(key, false).catch(() => undefined);
    return ((await handle?.getFile())?.size ?? 0) > 0;
  }
  async put(key: string, bytes: Uint8Array) {
    await orQuota(bytes, async () => {
      const writable = await (await this.#file(key, true)).createWritable();
      try {
        await writable.write(bytes as BufferSource);
      } catch (error) {
        await writable.abort().catch(() => {});
        throw error;
      }
      await writable.close();
    });
  }
  async clear(prefix: string) {
    const parts = ['kiln', ...prefix.split('/')];
    const begin = parts.pop()!;
    try {
      let folder = await navigator.storage.getDirectory();
      for (const part of parts) folder = await folder.getDirectoryHandle(part);
      for await (const name of (folder as unknown as { keys(): AsyncIterable<string> }).keys()) {
        if (name.startsWith(begin)) await folder.removeEntry(name, { recursive: true });
      }
    } catch (error) {
      if ((error as Error).name !== 'NotFoundError') throw error;
    }
  }
}

/** Files below a folder, in Node, Deno and Bun; by default `$XDG_CACHE_HOME/kiln` or `~/.cache/kiln`. */
export function fileCache(folder?: string): Cache {
  const modules = (async () => {
    const fs = await importHere('node:fs/promises');
    const path = await importHere('node:path');
    const os = await importHere('node:os');
    const home = process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache');
    return { fs, path, root: folder ?? path.join(home, 'kiln') };
  })();
  const file = async (key: string) => {
    const { path, root } = await modules;
    return path.join(root, ...key.split('/'));
  };
  return {
    async get(key) {
      const { fs } = await modules;
      return fs.readFile(await file(key)).catch(() => undefined);
    },
    async has(key) {
      const { fs } = await modules;
      return fs.stat(await file(key)).then(
        () => true,
        () => false,
      );
    },
    async put(key, bytes) {
      const { fs, path } = await modules;
      const target = await file(key);
      await orQuota(bytes, async () => {
        await fs.mkdir(path.dirname(target), { recursive: true });
        const aside = `${target}.${process.pid}.part`;
        await fs.writeFile(aside, bytes);
        await fs.rename(aside, target);
      });
    },
    async clear(prefix) {
      const { fs, path } = await modules;
      const target = await file(prefix);
      const folder = prefix.endsWith('/') || prefix === '' ? target : path.dirname(target);
      const begin = prefix.endsWith('/') || prefix === '' ? '' : path.basename(target);
      const names: string[] = await fs.readdir(folder).catch(() => []);
      for (const name of names) {
        if (name.startsWith(begin)) await fs.rm(path.join(folder, name), { recursive: true, force: true });
      }
    },
  };
}

async function orQuota(bytes: Uint8Array, put: () => Promise<void>): Promise<void> {
  try {
    await put();
  } catch (cause) {
    const { name, code } = cause as { name?: string; code?: string };
    if (name !== 'QuotaExceededError' && code !== 'ENOSPC') throw cause;
    const estimate = await globalThis.navigator?.storage?.estimate?.().catch(() => undefined);
    const available = estimate && (estimate.quota ?? 0) - (estimate.usage ?? 0);
    throw new KilnError(
      'quota',
      'the storage for downloaded models is full; free some (Registry.clear), or load with cache: "none" to keep nothing',
      { needed: bytes.byteLength, available },
      { cause },
    );
  }
}
