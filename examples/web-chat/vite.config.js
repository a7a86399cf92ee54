import { defineConfig } from 'vite';

export default defineConfig({
  // The page works below any path of a static host.
  base: './',
  build: { target: 'es2022' },
  // The package holds its own worker and wasm module, which must keep their places beside each other.
  optimizeDeps: { exclude: ['kiln-runtime'] },
  worker: { format: 'es' },
});
