// What both engines are watched with: pipelines made, WebAssembly memory, JavaScript heap.

const pipelines = { count: 0, ms: 0, waiting: 0, since: 0, errors: [] };
const memories = new Set();
let heapBytes = 0;

function begin() {
  pipelines.count++;
  if (pipelines.waiting++ === 0) pipelines.since = performance.now();
}

function end(error) {
  if (error) pipelines.errors.push(error.message);
  if (--pipelines.waiting === 0) pipelines.ms += performance.now() - pipelines.since;
}

function watchPipelines() {
  const { createComputePipeline, createComputePipelineAsync } = GPUDevice.prototype;
  // Returns before the pipeline is there; the answer of an error scope comes after it.
  GPUDevice.prototype.createComputePipeline = function (descriptor) {
    begin();
    this.pushErrorScope('validation');
    const pipeline = createComputePipeline.call(this, descriptor);
    this.popErrorScope().then(end, end);
    return pipeline;
  };
  GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
    begin();
    const pipeline = createComputePipelineAsync.call(this, descriptor);
    pipeline.then(() => end(), end);
    return pipeline;
  };
}

function watchMemories() {
  WebAssembly.Memory = new Proxy(WebAssembly.Memory, {
    construct(target, args) {
      const memory = new target(...args);
      memories.add(memory);
      return memory;
    },
  });
  const look = ({ exports }) => {
    for (const value of Object.values(exports)) if (Object.prototype.toString.call(value) === '[object WebAssembly.Memory]') memories.add(value);
  };
  for (const name of ['instantiate', 'instantiateStreaming']) {
    const original = WebAssembly[name];
    WebAssembly[name] = async (...args) => {
      const result = await original.apply(WebAssembly, args);
      look(result.instance ?? result);
      return result;
    };
  }
}

function watchHeap() {
  const sample = () => (heapBytes = Math.max(heapBytes, performance.memory.usedJSHeapSize));
  setInterval(sample, 10);
  sample();
}

/** Before anything of an engine is loaded. */
export function watch() {
  watchPipelines();
  watchMemories();
  watchHeap();
}

/** Until now: pipelines, the time in which at least one was waited for, the heap at most, WebAssembly memory (it only grows). */
export function readings() {
  const { count, ms, errors } = pipelines;
  return { pipelines: count, pipelinesMs: ms, pipelineErrors: errors, heapBytes, wasmBytes: [...memories].reduce((sum, memory) => sum + memory.buffer.byteLength, 0) };
}
