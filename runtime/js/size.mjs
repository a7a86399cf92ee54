// What a page downloads, in bytes: raw, gzip -9, brotli 11.
import { readFileSync } from 'node:fs';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const dist = new URL('dist/', import.meta.url);
const sizes = (files) => {
  const all = files.map((file) => readFileSync(new URL(file, dist)));
  const sum = (compress) => all.reduce((total, bytes) => total + compress(bytes).length, 0);
  const brotli = (bytes) => brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } });
  return [sum((bytes) => bytes), sum((bytes) => gzipSync(bytes, { level: 9 })), sum(brotli)];
};

/** A module and what it imports at once. */
const closure = (entry, seen = new Set()) => {
  if (seen.has(entry)) return seen;
  seen.add(entry);
  const text = readFileSync(new URL(entry, dist), 'utf8');
  for (const [, file] of text.matchAll(/(?:from|import)\s*"\.\/([\w.-]+\.js)"/g)) closure(file, seen);
  return seen;
};

const main = closure('index.js');
const rows = {
  'kiln.wasm': ['kiln.wasm'],
  'JavaScript (index.js)': [...main],
  'runtime without tokenizer': ['kiln.wasm', ...main],
  'tokenizer and template (text.js)': [...closure('text.js')].filter((file) => !main.has(file)),
  'in a worker: page (worker.js)': [...closure('worker.js')],
  'in a worker: worker (worker-main.js)': [...closure('worker-main.js')],
};
for (const [name, files] of Object.entries(rows)) {
  console.log([name.padEnd(38), ...sizes(files).map((size) => String(size).padStart(9))].join(''));
}
