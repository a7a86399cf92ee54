// Builds the page with each bundler, into out/BUNDLER/.
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import * as esbuild from 'esbuild';
import * as vite from 'vite';
import webpack from 'webpack';

// Vite: nothing to set.
await vite.build({ base: './', build: { outDir: 'out/vite' }, logLevel: 'warn' });

// webpack 5: nothing to set. A warning fails the test.
await new Promise((resolve, reject) => {
  webpack({ mode: 'production', entry: './main.js', output: { path: `${process.cwd()}/out/webpack`, filename: 'main.js' }, performance: { hints: false } }, (error, stats) => {
    if (error || stats.hasErrors() || stats.hasWarnings()) reject(error ?? new Error(stats.toString('errors-warnings')));
    else resolve();
  });
});
writeFileSync('out/webpack/index.html', '<!doctype html><title>webpack</title><script defer src="main.js"></script>');

// esbuild leaves `new URL(…, import.meta.url)` as it is: the worker is an entry, the module is copied.
const runtime = 'node_modules/kiln-runtime/dist';
await esbuild.build({ entryPoints: { main: 'main.js', 'worker-main': `${runtime}/worker-main.js` }, outdir: 'out/esbuild', bundle: true, format: 'esm', splitting: true, logLevel: 'warning' });
cpSync(`${runtime}/kiln.wasm`, 'out/esbuild/kiln.wasm');
cpSync('index.html', 'out/esbuild/index.html');

// No bundler: an import map, and the package as it is.
mkdirSync('out/none');
cpSync(runtime, 'out/none/kiln-runtime', { recursive: true });
cpSync('main.js', 'out/none/main.js');
const imports = { 'kiln-runtime': './kiln-runtime/index.js', 'kiln-runtime/worker': './kiln-runtime/worker.js' };
writeFileSync('out/none/index.html', `<!doctype html><title>none</title><script type="importmap">${JSON.stringify({ imports })}</script><script type="module" src="main.js"></script>`);
