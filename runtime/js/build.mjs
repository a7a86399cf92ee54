// Bundles src/ into dist/, with type declarations. scripts/build-web.sh runs it after it has made src/wasm/.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

process.chdir(import.meta.dirname ?? new URL('.', import.meta.url).pathname);
if (!existsSync('src/wasm/kiln_web_bg.wasm')) {
  console.error('error: src/wasm/ is missing; run scripts/build-web.sh');
  process.exit(1);
}
rmSync('dist', { recursive: true, force: true });
await build({
  entryPoints: ['src/index.ts', 'src/text.ts', 'src/saved.ts', 'src/worker.ts', 'src/worker-main.ts', 'src/serve.ts'],
  outdir: 'dist',
  alias: { '@huggingface/jinja': './jinja-parser.mjs' },
  bundle: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  platform: 'browser',
  minify: true,
  sourcemap: true,
  legalComments: 'none',
});
// Minification drops the comments by which bundlers know what to leave alone.
const marked = readdirSync('dist').filter((file) => file.endsWith('.js')).filter((file) => {
  const code = readFileSync(`dist/${file}`, 'utf8');
  const kept = code.replace(/\bimport\((\w+)\)/, 'import(/* @vite-ignore *//* webpackIgnore: true */$1)');
  writeFileSync(`dist/${file}`, kept);
  return kept !== code;
});
if (marked.length !== 1) throw new Error(`importHere is in ${marked.length} files`);
cpSync('src/wasm/kiln_web_bg.wasm', 'dist/kiln.wasm');
execFileSync('node_modules/.bin/tsc', ['-p', '.'], { stdio: 'inherit' });
mkdirSync('dist/wasm');
const declarations = readFileSync('src/wasm/kiln_web.d.ts', 'utf8');
writeFileSync('dist/wasm/kiln_web.d.ts', `/// <reference lib="esnext.disposable" />\n${declarations}`);
for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) cpSync(`../../${name}`, `dist/${name}`);
for (const name of ['jinja', 'tokenizers']) cpSync(`node_modules/@huggingface/${name}/LICENSE`, `dist/LICENSE-huggingface-${name}`);
