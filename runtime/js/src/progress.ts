/** How far loading is. */
export interface Progress {
  /** `files`: manifest, kernels and text; `weights`: downloaded or read from the cache, and given to the device. */
  phase: 'files' | 'weights' | 'ready';
  /** The file that moves now. */
  file: string;
  /** Bytes of that file. */
  loaded: number;
  total: number;
  /** All files of the model, in the order in which they are loaded. */
  files: readonly FileProgress[];
  /** Bytes of all files together. */
  totalLoaded: number;
  totalBytes: number;
  /** Of those loaded, from the cache. */
  cachedBytes: number;
  /** Bytes a second over the last seconds. */
  rate: number;
  /** Seconds left at that rate; undefined while there is none. */
  secondsLeft: number | undefined;
}

export interface FileProgress {
  file: string;
  loaded: number;
  total: number;
  /** It comes from the cache. */
  cached: boolean;
}

/** The time over which the rate is taken, in milliseconds. */
const WINDOW = 3000;
/** A call at most this often, in milliseconds, but for the first and last of each file. */
const INTERVAL = 50;

/** Adds up what is loaded and tells it. */
export class ProgressMeter {
  #files = new Map<string, FileProgress>();
  #samples: [time: number, bytes: number][] = [];
  #told = -Infinity;
  /** Bytes that came from the cache. */
  cachedBytes = 0;
  phase: Progress['phase'] = 'files';

  constructor(private tell: ((progress: Progress) => void) | undefined) {}

  /** Announces a file. */
  expect(file: string, total: number): void {
    if (!this.#files.has(file)) this.#files.set(file, { file, loaded: 0, total, cached: false });
  }

  /** The file is loaded so far. */
  set(file: string, loaded: number, cached = false): void {
    const entry = this.#files.get(file);
    if (!entry) return;
    if (cached) this.cachedBytes += Math.max(loaded - entry.loaded, 0);
    entry.loaded = loaded;
    entry.total = Math.max(entry.total, loaded);
    entry.cached = cached;
    this.#report(entry, loaded === entry.total);
  }

  /** All is done. */
  finish(): void {
    this.phase = 'ready';
    const last = [...this.#files.values()].at(-1);
    if (last) this.#report(last, true);
  }

  #report(entry: FileProgress, always: boolean): void {
    if (!this.tell) return;
    const now = performance.now();
    let totalLoaded = 0;
    let totalBytes = 0;
    for (const { loaded, total } of this.#files.values()) {
      totalLoaded += loaded;
      totalBytes += total;
    }
    if (!always && now - this.#told < INTERVAL) return;
    this.#told = now;
    this.#samples.push([now, totalLoaded]);
    while (this.#samples.length > 2 && now - this.#samples[1]![0] > WINDOW) this.#samples.shift();
    const [since, before] = this.#samples[0]!;
    const rate = now > since ? ((totalLoaded - before) * 1000) / (now - since) : 0;
    this.tell({
      phase: this.phase,
      file: entry.file,
      loaded: entry.loaded,
      total: entry.total,
      files: [...this.#files.values()].map((file) => ({ ...file })),
      totalLoaded,
      totalBytes,
      cachedBytes: this.cachedBytes,
      rate,
      secondsLeft: rate > 0 ? (totalBytes - totalLoaded) / rate : undefined,
    });
  }
}
