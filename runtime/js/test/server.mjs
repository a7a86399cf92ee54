// A static server for the tests, which can also misbehave.
//   /runtime/js/... /examples/...       files of the repository: the package, the tests, built examples
//   /bundles/NAME/FILE                  a bundle, with ranges
//   /...html?no-wasm                    a page whose content security policy forbids WebAssembly
//   /FAULT/NAME/FILE                    a bundle, with what FAULTS says
// Requests are counted by path; POST /control resets counts and tells what they are.
import { createServer } from 'node:http';
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { extname, join, normalize } from 'node:path';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm', '.json': 'application/json', '.svg': 'image/svg+xml', '.webmanifest': 'application/manifest+json' };
/** What a page with the strictest policy that the package works under says. */
const CSP = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; object-src 'none'; base-uri 'none'";

const isShard = (file) => file.endsWith('.safetensors');

/** Each gets the request, the response, the file's bytes and its name, and answers, or returns false for the usual answer. */
const FAULTS = {
  /** No ranges: always the whole file. */
  'no-range': ({ response, bytes, file }) => isShard(file) && send(response, 200, bytes),
  /** A web page instead of a shard. */
  html: ({ response, file }) => isShard(file) && send(response, 200, '<!doctype html><title>Log in</title>', 'text/html'),
  'html-manifest': ({ response }) => send(response, 200, '<!doctype html>', 'text/html'),
  missing: ({ response, file }) => isShard(file) && send(response, 404, 'no'),
  private: ({ request, response }) => request.headers.authorization !== 'Bearer secret' && send(response, 401, 'no'),
  /** A byte of the middle is another. */
  corrupt: (at) => isShard(at.file) && sendRange(at, flip(at.bytes)),
  /** A tokenizer with a byte that is another, until the test says otherwise. */
  'corrupt-text': (at) => corruptText(at),
  /** Ends early, however often it is asked. */
  truncated: (at) => isShard(at.file) && breakOff(at, Math.floor(at.bytes.length * 0.6)),
  /** Breaks off in the middle, the first time. */
  flaky: (at) => isShard(at.file) && at.count === 1 && breakOff(at, Math.floor(at.bytes.length * 0.6)),
  /** Breaks off once there is something, until the test says otherwise. */
  interrupted: (at) => isShard(at.file) && !state.healed && breakOff(at, Math.floor(at.bytes.length * 0.6)),
  'wrong-size': ({ response, bytes, file }) => isShard(file) && send(response, 200, bytes.subarray(0, bytes.length - 4)),
  busy: ({ response, file, count }) => isShard(file) && count <= 2 && send(response, 503, 'later'),
  'other-version': (at) => at.file === 'manifest.json' && send(at.response, 200, edit(at.bytes, (manifest) => (manifest.format_version = 99))),
  'no-manifest': (at) => at.file === 'manifest.json' && send(at.response, 200, '{"hello": 1}'),
  'hollow-manifest': (at) => at.file === 'manifest.json' && send(at.response, 200, edit(at.bytes, (manifest) => delete manifest.model)),
  'no-variants': (at) => at.file === 'manifest.json' && send(at.response, 200, edit(at.bytes, (manifest) => (manifest.variants = []))),
  /** Needs more than any device has. */
  huge: (at) => at.file === 'manifest.json' && send(at.response, 200, edit(at.bytes, (manifest) => manifest.variants.forEach((variant) => (variant.limits.maxBufferSize = 2 ** 50)))),
  /** Positions without end. */
  'long-context': (at) => at.file === 'manifest.json' && send(at.response, 200, edit(at.bytes, (manifest) => (manifest.model.max_context = 2 ** 32 - 1))),
  /** The most demanding variant has a kernel that no compiler takes. */
  'bad-kernel': (at) => badKernel(at),
  /** A few bytes a time. */
  slow: (at) => isShard(at.file) && trickle(at),
};

const BAD_KERNEL = 'fn main( {';

function badKernel({ response, bytes, file, hashOf }) {
  if (file === 'manifest.json') return send(response, 200, edit(bytes, (manifest) => Object.assign(manifest.variants[0].kernels[0], { file: 'kernels/bad.wgsl', sha256: hashOf(BAD_KERNEL) })));
  return file === 'kernels/bad.wgsl' && send(response, 200, BAD_KERNEL);
}

const TOKENIZER = JSON.stringify({ version: '1.0', added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, model: { type: 'BPE', vocab: { a: 0 }, merges: [] } });

function corruptText({ response, bytes, file, hashOf }) {
  const tokenizer = { file: 'tokenizer.json', sha256: hashOf(TOKENIZER) };
  if (file === 'manifest.json') return send(response, 200, edit(bytes, (manifest) => (manifest.text = { tokenizer, tokenizer_config: null, chat_template: null })));
  return file === tokenizer.file && send(response, 200, state.healed ? TOKENIZER : flip(Buffer.from(TOKENIZER)));
}

const state = { healed: false, counts: {} };

function edit(bytes, change) {
  const manifest = JSON.parse(bytes);
  change(manifest);
  return JSON.stringify(manifest);
}

function flip(bytes) {
  const copy = Buffer.from(bytes);
  copy[copy.length >> 1] ^= 1;
  return copy;
}

function send(response, status, body, type = 'application/octet-stream') {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body);
  return true;
}

/** The part that the request's range asks for. */
function sendRange({ request, response, file }, bytes) {
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const headers = { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-length': bytes.length - from };
  if (request.headers.range) headers['content-range'] = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
  response.writeHead(request.headers.range ? 206 : 200, headers).end(bytes.subarray(from));
  return true;
}

function breakOff({ request, response, bytes }, at) {
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const headers = { 'content-length': bytes.length - from };
  if (request.headers.range) headers['content-range'] = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
  response.writeHead(request.headers.range ? 206 : 200, headers);
  response.write(bytes.subarray(from, Math.max(at, from)), () => setTimeout(() => response.destroy(), 50));
  return true;
}

function trickle({ response, bytes }) {
  response.writeHead(200, { 'content-length': bytes.length });
  let offset = 0;
  const timer = setInterval(() => {
    const end = offset + 65536;
    response.write(bytes.subarray(offset, end));
    offset = end;
    if (offset >= bytes.length) {
      clearInterval(timer);
      response.end();
    }
  }, 50);
  response.on('close', () => clearInterval(timer));
  return true;
}

/** Serves the repository's package and tests, and these bundles (name to folder). `csp: ''` is no policy. */
export async function serve(root, bundles, { cors = true, csp = CSP, caching = 'no-store', port = 0 } = {}) {
  const { createHash } = await import('node:crypto');
  const hashOf = (text) => createHash('sha256').update(text).digest('hex');
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
    if (cors) response.setHeader('access-control-allow-origin', '*').setHeader('access-control-allow-headers', '*').setHeader('access-control-expose-headers', 'content-range');
    response.setHeader('cache-control', caching);
    if (request.method === 'OPTIONS') return response.writeHead(204).end();
    if (path === '/control') {
      let body = '';
      for await (const chunk of request) body += chunk;
      const before = state.counts;
      Object.assign(state, JSON.parse(body || '{}'));
      return send(response, 200, JSON.stringify(before), 'application/json');
    }
    if (path === '/favicon.ico') return response.writeHead(204).end();
    const [, first, name, ...rest] = path.split('/');
    state.counts[path] = (state.counts[path] ?? 0) + 1;
    try {
      if (bundles[name] && (first === 'bundles' || FAULTS[first])) {
        const file = rest.join('/');
        const full = join(bundles[name], file);
        const at = { request, response, file, hashOf, count: state.counts[path] };
        if (first === 'bundles') return sendFile(at, full);
        // Some faults serve what no bundle has.
        at.bytes = existsSync(full) ? readFileSync(full) : Buffer.alloc(0);
        if (!FAULTS[first](at)) sendRange(at, at.bytes);
        return;
      }
      const file = path.endsWith('/') ? `${path}index.html` : path;
      const policy = request.url.endsWith('?no-wasm') ? csp.replace("'wasm-unsafe-eval'", '') : csp;
      if (csp && file.endsWith('.html')) response.setHeader('content-security-policy', policy);
      sendFile({ request, response, file }, join(root, file));
    } catch {
      send(response, 404, 'not found', 'text/plain');
    }
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

function sendFile({ request, response, file }, full) {
  const { size } = statSync(full);
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const headers = { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-length': size - from };
  if (request.headers.range) headers['content-range'] = `bytes ${from}-${size - 1}/${size}`;
  response.writeHead(request.headers.range ? 206 : 200, headers);
  createReadStream(full, { start: from }).pipe(response);
}
