import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { defineConfig } from 'vite';

export default defineConfig({
  // The page works below any path of a static host.
  base: './',
  build: { target: 'es2022' },
  // The package holds its own worker and wasm module, which must keep their places beside each other.
  optimizeDeps: { exclude: ['kiln-runtime'] },
  worker: { format: 'es' },
  plugins: [serviceWorker()],
});

/** Writes sw.js, with the names of all files that the page needs and a version that follows from what is in them. */
function serviceWorker() {
  return {
    name: 'service-worker',
    apply: 'build',
    generateBundle: {
      order: 'post',
      handler(_options, bundle) {
        const built = Object.values(bundle).filter(({ fileName }) => fileName !== 'index.html');
        const copied = readdirSync('public', { withFileTypes: true }).filter((entry) => entry.isFile());
        const worker = readFileSync('src/sw.js', 'utf8');
        const hash = createHash('sha256').update(worker);
        for (const file of Object.values(bundle)) hash.update(file.fileName).update(file.code ?? file.source);
        for (const { name } of copied) hash.update(name).update(readFileSync(`public/${name}`));
        const files = ['./', ...built.map(({ fileName }) => fileName), ...copied.map(({ name }) => name)];
        const source = worker.replace('__VERSION__', hash.digest('hex').slice(0, 16)).replace('__FILES__', JSON.stringify(files));
        this.emitFile({ type: 'asset', fileName: 'sw.js', source });
      },
    },
  };
}
