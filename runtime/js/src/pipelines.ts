import type { Variant } from './manifest.js';

/**
 * Compiles the kernels of a variant beside each other. wgpu knows only pipelines that are made at once, which a browser
 * compiles one after the other on the thread that draws its pages; when the wasm module asks for one of these, it is
 * there. One that fails is left to the wasm module, which reports it.
 */
export async function preparePipelines(device: GPUDevice, variant: Variant, text: (file: string) => string): Promise<void> {
  const prefix = variant.features.includes('subgroups') ? 'enable subgroups;\n' : '';
  const prepared = new Map<string, GPUComputePipeline>();
  const compile = async (kernel: Variant['kernels'][0]) => {
    const entries = kernel.bindings.map((access, binding) => ({
      binding,
      visibility: 4 /* GPUShaderStage.COMPUTE */,
      buffer: { type: access === 'read' ? ('read-only-storage' as const) : ('storage' as const) },
    }));
    const layout = device.createPipelineLayout({ bindGroupLayouts: [device.createBindGroupLayout({ entries })] });
    const module = device.createShaderModule({ code: prefix + text(kernel.file) });
    prepared.set(kernel.name, await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: kernel.name } }));
  };
  device.pushErrorScope('validation');
  const compiling = variant.kernels.map((kernel) => compile(kernel).catch(() => {}));
  await Promise.all([device.popErrorScope(), ...compiling]);
  const create = device.createComputePipeline;
  Object.defineProperty(device, 'createComputePipeline', {
    configurable: true,
    value: (descriptor: GPUComputePipelineDescriptor) => prepared.get(descriptor.label ?? '') ?? create.call(device, descriptor),
  });
}
