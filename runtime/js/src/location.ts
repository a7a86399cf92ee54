import { hostName } from './hosts.js';

/** Where a bundle lies. */
export interface BundleLocation {
  /** The address of a file of the bundle. */
  url(file: string): string;
  /** The bundle's folder. */
  base: string;
}

export interface LocationOptions {
  /** Branch, tag or commit on the hub; default `main`. */
  revision?: string;
  /** The hub's address; default `https://huggingface.co`. */
  hub?: string;
}

/**
 * Finds the bundle that a source names: the address of its folder or of its manifest.json; `owner/model`, or
 * `owner/model/folder`, on the hub; in Node, Deno and Bun also a folder on disk.
 */
export function locate(source: string | URL, options: LocationOptions = {}): BundleLocation {
  const text = String(source);
  const hub = /^(?:hub:)?([\w.-]+\/[\w.-]+)((?:\/[\w.-]+)*)\/?$/.exec(text);
  if (hub && !text.startsWith('.')) {
    const [, id, folder] = hub;
    const host = (options.hub ?? 'https://huggingface.co').replace(/\/$/, '');
    const revision = encodeURIComponent(options.revision ?? 'main');
    return under(`${host}/${id}/resolve/${revision}${folder}/`);
  }
  const url = new URL(text, documentBase());
  url.hash = '';
  url.pathname = url.pathname.replace(/\/manifest\.json$/, '/').replace(/\/?$/, '/');
  return under(url.href);
}

function under(base: string): BundleLocation {
  const [path, query = ''] = base.split(/(?=\?)/);
  return { base, url: (file) => new URL(file.split('/').map(encodeURIComponent).join('/'), path).href + query };
}

/** What relative addresses are relative to. */
function documentBase(): string {
  if (hostName() !== 'browser') return `file://${process.cwd().replaceAll('\\', '/').replace(/^(?!\/)/, '/')}/`;
  return globalThis.document?.baseURI ?? globalThis.location.href;
}
