// node consumer.mjs MODE EXPECTED.json TOY: the package as npm gives it, in a project elsewhere (consumer/): it compiles under
// TypeScript's two ways to resolve modules, runs in Bun with bun-webgpu, and pages built by Vite, webpack and esbuild, or by nothing,
// find all of its files. Needs KILN_LAVAPIPE.
// Exit code 1: something failed.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch } from './browser.mjs';
import { assert, equal, makeCheck } from './common.mjs';
import { serve } from './server.mjs';

const [mode, expectedFile, toy] = process.argv.slice(2);
const { prompt, ids } = JSON.parse(readFileSync(expectedFile));
const folder = mkdtempSync(join(tmpdir(), 'kiln-consumer-'));
const { check, failures } = makeCheck('consumer');

const run = (command, ...args) => execFileSync(command, args, { cwd: folder, encoding: 'utf8', stdio: 'pipe' });

cpSync(new URL('consumer', import.meta.url), folder, { recursive: true, filter: (file) => !file.includes('node_modules') });
const [{ filename }] = JSON.parse(execFileSync('npm', ['pack', '--json', '--pack-destination', folder], { cwd: new URL('..', import.meta.url), encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
run('npm', 'ci', '--no-audit', '--no-fund', '--silent');
// bun-webgpu is here because it cannot be locked: it names packages of other systems that no registry has.
run('npm', 'install', '--no-save', '--no-audit', '--no-fund', '--silent', `./${filename}`, 'bun-webgpu@0.1.7');

await check('what the package holds', () => {
  for (const file of ['README.md', 'dist/LICENSE-MIT', 'dist/LICENSE-APACHE', 'dist/kiln.wasm', 'dist/worker-main.js', 'dist/index.d.ts']) {
    assert(existsSync(join(folder, 'node_modules/kiln-runtime', file)), `${file} is missing`);
  }
});

// Before version 6, TypeScript's own declarations have no WebGPU.
for (const [compiler, types] of [['typescript', 'node'], ['typescript-5', 'node,@webgpu/types']]) {
  for (const modules of [['esnext', 'bundler'], ['nodenext', 'nodenext']]) {
    await check(`${compiler}, --moduleResolution ${modules[1]}`, () =>
      run('node', `node_modules/${compiler}/bin/tsc`, '--noEmit', '--strict', '--target', 'es2022', '--module', modules[0], '--moduleResolution', modules[1], '--types', types, 'types.ts'),
    );
  }
}

const icd = { VK_DRIVER_FILES: process.env.KILN_LAVAPIPE, VK_ICD_FILENAMES: process.env.KILN_LAVAPIPE };
const inHost = (command) => {
  const output = execFileSync(command, ['host.mjs', toy, JSON.stringify(prompt), ids.length], { cwd: folder, encoding: 'utf8', stdio: 'pipe', env: { ...process.env, ...icd } });
  return JSON.parse(output.trim().split('\n').at(-1));
};
await check('Bun with bun-webgpu', () => equal(inHost(new URL('../node_modules/.bin/bun', import.meta.url).pathname), { ids }));
await check('Node without the package webgpu says so', () => {
  const { code, message } = inHost('node');
  equal(code, 'no-webgpu');
  assert(message.includes('npm install webgpu'), message);
});

await check('bundlers', () => run('node', 'build.mjs'));
const server = await serve(folder, { toy });
const browser = await launch(mode);
for (const bundler of ['vite', 'webpack', 'esbuild', 'none']) {
  await check(`a page built by ${bundler}`, async () => {
    const page = await browser.context.newPage();
    // An import map is a script within the page, which the server's content security policy forbids.
    await page.route('**/*.html', async (route) => {
      const response = await route.fetch();
      const { 'content-security-policy': _, ...headers } = response.headers();
      await route.fulfill({ response, headers });
    });
    await page.goto(`${server.url}/out/${bundler}/index.html`);
    await page.waitForFunction(() => globalThis.run);
    for (const inWorker of [false, true]) {
      const found = await page.evaluate(([source, ...task]) => run(source, ...task), [`${server.url}/bundles/toy/`, prompt, ids.length, inWorker]);
      equal(found, ids, inWorker ? 'in a worker' : 'in the page');
    }
    await page.close();
  });
}
await browser.close();
await server.close();
rmSync(folder, { recursive: true });
process.exit(failures.length > 0 ? 1 : 0);
