// What must hold in every host: run by a page, a worker, Node, Deno and Bun.
//   kiln      the package
//   base      the server's address (server.mjs)
//   expected  greedy ids of the native runtime: { prompt, ids }
//   cache     a cache for the tests, empty at first
//   saved     bytes of a session that the native runtime saved after `prompt` and 8 of `ids`
import { generationCases } from './cases-generation.mjs';
import { loadingCases } from './cases-loading.mjs';
import { GREEDY } from './common.mjs';

export function makeCases(given) {
  const tools = { ...given, ...makeTools(given) };
  return { ...generationCases(tools), ...loadingCases(tools) };
}

/** What the cases have in common. */
function makeTools({ kiln, base, expected, cache, host = {} }) {
  const { loadModel, Registry } = kiln;
  const toy = `${base}/bundles/toy/`;
  const open = (source = toy, options = {}) => loadModel(source, { cache, ...host, ...options });
  const control = async (change = {}) => (await fetch(`${base}/control`, { method: 'POST', body: JSON.stringify({ counts: {}, ...change }) })).json();
  const shardRequests = (counts) => Object.entries(counts).filter(([path]) => path.endsWith('.safetensors')).reduce((sum, [, count]) => sum + count, 0);
  /** One model for the tests that only use it: software devices take seconds to compile kernels. */
  let shared;
  const withShared = async (run) => run(await (shared ??= open()));
  const withModel = async (model, run) => {
    model = await model;
    try {
      return await run(model);
    } finally {
      model.dispose();
    }
  };
  const greedy = async (model, options = {}) => (await model.generate(expected.prompt, { ...GREEDY, maxTokens: expected.ids.length, ...options }).result).ids;

  return { toy, open, control, shardRequests, withShared, withModel, greedy };
}

/** Runs all, one after the other; the outcome of each. */
export async function runCases(cases, only, tell = () => {}) {
  const results = [];
  for (const [name, run] of Object.entries(cases)) {
    if (only && !name.includes(only)) continue;
    const started = performance.now();
    let error;
    let note;
    try {
      note = await run();
    } catch (thrown) {
      error = `${thrown.code ?? thrown.name}: ${thrown.message}\n${thrown.stack}`;
    }
    const result = { name, ms: Math.round(performance.now() - started), error, note };
    tell(result);
    results.push(result);
  }
  return results;
}
