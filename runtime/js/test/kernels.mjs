// node kernels.mjs MODE BUNDLE...: every kernel of every variant of these bundles, compiled by Chromium, whose compiler also
// analyses uniformity; on lavapipe pipelines are made too, for which SwiftShader takes a second each. Nothing is run.
// Exit code 1: an error, or a warning.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { launch } from './browser.mjs';
import { serve } from './server.mjs';

const [mode, ...folders] = process.argv.slice(2);

/** Each kernel once for the features of its variant, with what the runtime puts before it. */
function kernelsOf(folder) {
  const { variants } = JSON.parse(readFileSync(`${folder}/manifest.json`));
  return variants.flatMap(({ name: variant, features, limits, kernels }) =>
    kernels.map(({ name, file, sha256, bindings }) => ({
      key: `${features} ${sha256} ${name} ${bindings}`,
      title: `${basename(folder)} ${variant} ${name}`,
      name,
      features,
      limits,
      bindings,
      code: (features.includes('subgroups') ? 'enable subgroups;\n' : '') + readFileSync(`${folder}/${file}`, 'utf8'),
    })),
  );
}

/** In the page: compiles all on one device that has all the adapter has; what was said of each, and what needs more. */
async function compileAll({ kernels, pipelines }) {
  const adapter = await navigator.gpu.requestAdapter();
  const requiredLimits = {};
  for (const name of Object.keys(kernels[0].limits)) requiredLimits[name] = adapter.limits[name];
  const device = await adapter.requestDevice({ requiredFeatures: ['shader-f16', 'subgroups'].filter((name) => adapter.features.has(name)), requiredLimits });
  const said = [];
  let beyond = 0;
  const compile = async ({ title, name, features, bindings, code }) => {
    if (features.some((feature) => !device.features.has(feature))) return void beyond++;
    const module = device.createShaderModule({ code });
    const { messages } = await module.getCompilationInfo();
    said.push(...messages.map(({ type, message, lineNum }) => `${title}, line ${lineNum}: ${type}: ${message}`));
    if (!pipelines) return;
    const entries = bindings.map((access, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: access === 'read' ? 'read-only-storage' : 'storage' } }));
    const layout = device.createPipelineLayout({ bindGroupLayouts: [device.createBindGroupLayout({ entries })] });
    await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: name } }).catch((error) => said.push(`${title}: ${error.message}`));
  };
  device.addEventListener('uncapturederror', ({ error }) => said.push(error.message));
  // Not all at once: a driver keeps what it compiles.
  for (let at = 0; at < kernels.length; at += 32) await Promise.all(kernels.slice(at, at + 32).map(compile));
  const { vendor, architecture } = adapter.info;
  device.destroy();
  return { said, beyond, adapter: `${vendor} ${architecture}` };
}

const all = folders.flatMap(kernelsOf);
const kernels = [...new Map(all.map((kernel) => [kernel.key, kernel])).values()];
const server = await serve(new URL('../../../', import.meta.url).pathname, {});
const browser = await launch(mode);
const page = await browser.context.newPage();
page.setDefaultTimeout(0);
await page.goto(`${server.url}/runtime/js/test/page.html`);
const started = Date.now();
const { said, beyond, adapter } = await page.evaluate(compileAll, { kernels, pipelines: mode === 'lavapipe' });
await browser.close();
await server.close();

const problems = [...said];
// Chromium falls back to SwiftShader where it does not take lavapipe.
if (mode === 'lavapipe' && beyond > 0) problems.push(`${beyond} kernels need more than ${adapter} has: this is not lavapipe`);
if (kernels.length === beyond) problems.push('nothing was compiled');
for (const problem of problems) console.log(problem);
console.log(`${problems.length > 0 ? 'FAILED' : 'ok    '} Chromium (${adapter}): ${kernels.length - beyond} kernels of ${folders.length} bundles compiled, ${beyond} need a feature that the adapter lacks (${Date.now() - started} ms)`);
process.exit(problems.length > 0 ? 1 : 0);
