// The two engines behind one interface: `load()`, `encode(messages)`, and `generate(ids, {maxTokens, endless}, onToken)`.

/** Kiln: the bundle under /bundles/kiln/. */
export async function kiln() {
  const { loadModel } = await import('/runtime/js/dist/index.js');
  const model = await loadModel('/bundles/kiln/');
  const session = model.session();
  return {
    name: `Kiln, variant ${model.report.variant}`,
    failed: model.report.failed,
    encode: model.text && ((messages) => model.encode(messages)),
    decode: model.text && ((ids) => model.text.decode(ids, true)),
    async generate(ids, { maxTokens, endless }, onToken) {
      // Else it would know the prompt's beginning from the last time.
      await session.reset();
      const stopIds = endless ? [] : undefined;
      for await (const { id } of session.generate(ids, { temperature: 0, maxTokens, stopIds })) onToken(id);
    },
  };
}

/** Transformers.js: the ONNX model under /bundles/onnx/, which it takes for the hub; all files from this server. */
export async function transformers({ dtype, vocabulary }) {
  const packages = new URL('node_modules/', import.meta.url).href;
  const { AutoModelForCausalLM, AutoTokenizer, Tensor, env } = await import('./node_modules/@huggingface/transformers/dist/transformers.min.js');
  env.allowLocalModels = false;
  env.remoteHost = location.origin;
  env.remotePathTemplate = 'bundles/{model}/';
  const runtime = `${packages}onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify`;
  env.backends.onnx.wasm.wasmPaths = { mjs: `${runtime}.mjs`, wasm: `${runtime}.wasm` };
  dtype ??= (await navigator.gpu.requestAdapter()).features.has('shader-f16') ? 'q4f16' : 'q4';
  const [model, tokenizer] = await Promise.all([
    AutoModelForCausalLM.from_pretrained('onnx', { device: 'webgpu', dtype }),
    vocabulary ? AutoTokenizer.from_pretrained('onnx') : undefined,
  ]);
  return {
    name: `Transformers.js ${env.version}, ${dtype}`,
    failed: [],
    encode: tokenizer && ((messages) => tokenizer.apply_chat_template(messages, { add_generation_prompt: true, tokenize: true, return_tensor: false, return_dict: false })),
    decode: tokenizer && ((ids) => tokenizer.decode(ids, { skip_special_tokens: true })),
    async generate(ids, { maxTokens, endless }, onToken) {
      const tensor = (values) => new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
      // The first that a streamer is given is the prompt.
      let prompted = false;
      const put = ([[id]]) => (prompted ? onToken(Number(id)) : (prompted = true));
      const ending = endless ? { eos_token_id: null } : {};
      await model.generate({ input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)), do_sample: false, max_new_tokens: maxTokens, ...ending, streamer: { put, end() {} } });
    },
  };
}
