// The results of compare.mjs as a table in Markdown.

const mb = (bytes) => (bytes === undefined ? '' : (bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0));
const seconds = (ms) => (ms / 1000).toFixed(2);
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const rate = (runs, name) => runs && median(runs.map((run) => run[name])).toFixed(1);

/** Rows: what is measured, and how it is read off an engine's visits. */
function rows({ options }) {
  const visits = ['cold', 'warm', 'restarted'];
  const of = (label, read) => visits.map((visit) => [`${label}, ${visit}`, (engine) => read(engine[visit])]);
  return [
    ['runs as', ({ restarted }) => restarted.engine],
    ...of('first token after navigation (s)', ({ firstTokenMs }) => seconds(firstTokenMs)),
    ...of('of it until the model is loaded (s)', ({ loadedMs }) => seconds(loadedMs)),
    ...of('pipelines; time with one in the making (s)', ({ pipelines, pipelinesMs }) => `${pipelines}; ${seconds(pipelinesMs)}`),
    ...of('JavaScript heap at most (MB)', ({ heapBytes }) => mb(heapBytes)),
    ['WebAssembly memory (MB)', ({ restarted }) => mb(restarted.wasmBytes)],
    ['renderer process at most, resident (MB)', ({ restarted }) => mb(restarted.rendererBytes)],
    ['runtime downloaded, raw (MB)', ({ runtime }) => mb(runtime.raw)],
    ...(options.brotli ? [['runtime downloaded, brotli 11 (MB)', ({ runtime }) => mb(runtime.brotli)]] : []),
    ...options.prompts.split(',').filter(Boolean).flatMap((length) => [
      [`prefill of ${length} (tokens/s)`, ({ restarted }) => rate(restarted.rates[length], 'prefill')],
      [`decode of ${options.decode} after ${length} (tokens/s)`, ({ restarted }) => rate(restarted.rates[length], 'decode')],
    ]),
    ...(options.vocabulary ? [['answer', ({ restarted }) => JSON.stringify(restarted.text)]] : []),
    ['ids', ({ restarted }) => restarted.ids.slice(0, 8).join(' ')],
  ];
}

export function table(results) {
  const engines = Object.entries(results.engines);
  const adapter = engines.map(([, { adapter: found }]) => found).find(Boolean);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [
    `${results.mode}: ${adapter ? [adapter.vendor, adapter.architecture, adapter.device, adapter.description].filter(Boolean).join(' ') : 'no adapter'}`,
    '',
    line(['', ...engines.map(([name]) => name)]),
    line(['---', ...engines.map(() => '---')]),
    ...rows(results).map(([label, read]) => line([label, ...engines.map(([, engine]) => (engine.error ? 'failed' : read(engine)))])),
  ].join('\n');
}
