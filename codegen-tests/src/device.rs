//! A small wgpu harness: one kernel, some buffers, one dispatch.

use kiln_bundle::Feature;
use kiln_compiler::kernels::{Capability, KernelSource};
use wgpu::util::DeviceExt;

use crate::pipeline_of;

/// A GPU device with all features that Kiln's kernels can use.
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    features: wgpu::Features,
}

/// Contents of a buffer before a dispatch.
#[derive(Clone, Debug)]
pub struct Data(Vec<u8>);

impl Data {
    /// The contents from byte `start` on: a binding at an offset.
    pub fn from_byte(&self, start: usize) -> Self {
        Data(self.0[start..].to_vec())
    }

    /// The contents in pieces of `bytes`, the last of what is left: a matrix in several bindings.
    pub fn pieces(&self, bytes: usize) -> Vec<Self> {
        self.0.chunks(bytes).map(|piece| Data(piece.to_vec())).collect()
    }
}

impl<T: bytemuck::NoUninit> From<&[T]> for Data {
    fn from(values: &[T]) -> Self {
        // Bindings have a size that is a multiple of 4 and not 0.
        let mut bytes = bytemuck::cast_slice(values).to_vec();
        bytes.resize(bytes.len().next_multiple_of(4).max(4), 0);
        Data(bytes)
    }
}

impl<T: bytemuck::NoUninit> From<&Vec<T>> for Data {
    fn from(values: &Vec<T>) -> Self {
        values.as_slice().into()
    }
}

impl<T: bytemuck::NoUninit, const N: usize> From<&[T; N]> for Data {
    fn from(values: &[T; N]) -> Self {
        values.as_slice().into()
    }
}

impl Device {
    /// The software device if there is one (the same results everywhere), else whatever the machine has.
    /// `KILN_TEST_ADAPTER` picks the first whose name contains that text.
    ///
    /// # Panics
    /// No adapter, or none as wanted.
    pub fn software_or_any() -> Self {
        pollster::block_on(Self::open())
    }

    async fn open() -> Self {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let mut adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
        adapters.sort_by_key(|adapter| adapter.get_info().device_type != wgpu::DeviceType::Cpu);
        let wanted = std::env::var("KILN_TEST_ADAPTER").unwrap_or_default();
        let adapter = adapters
            .into_iter()
            .find(|adapter| adapter.get_info().name.contains(&wanted))
            .expect("a Vulkan, Metal or DX12 adapter (Mesa's llvmpipe will do), see KILN_TEST_ADAPTER");
        let features = adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16);
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .expect("the adapter's own limits");
        Device {
            device,
            queue,
            name: adapter.get_info().name,
            features,
        }
    }

    /// Name of the adapter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variants that this device can run.
    pub fn variants(&self) -> Vec<Capability> {
        let mut variants = vec![Capability::Base];
        if self.supports(Feature::Subgroups) {
            variants.push(Capability::Subgroups);
            if self.supports(Feature::ShaderF16) {
                variants.push(Capability::F16);
            }
        }
        variants
    }

    fn supports(&self, feature: Feature) -> bool {
        self.features.contains(match feature {
            Feature::ShaderF16 => wgpu::Features::SHADER_F16,
            Feature::Subgroups => wgpu::Features::SUBGROUP,
        })
    }

    /// Runs one dispatch of `grid` workgroups with bounds checks on; `buffers` are the bindings in order.
    /// Gives the bytes of each buffer afterwards.
    ///
    /// # Panics
    /// The kernel or the buffers are invalid.
    pub fn run(&self, kernel: &KernelSource, buffers: &[Data], grid: [u32; 3]) -> Vec<Vec<u8>> {
        assert_eq!(
            buffers.len(),
            kernel.bindings.len(),
            "{}: buffers for its bindings",
            kernel.name
        );
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let bound: Vec<wgpu::Buffer> = buffers.iter().map(|data| self.upload(data)).collect();
        let read_back: Vec<wgpu::Buffer> = buffers.iter().map(|data| self.read_back_buffer(data)).collect();
        let (pipeline, group) = self.pipeline(kernel, &bound);

        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
        for (source, target) in bound.iter().zip(&read_back) {
            encoder.copy_buffer_to_buffer(source, 0, target, 0, source.size());
        }
        self.queue.submit([encoder.finish()]);
        if let Some(error) = pollster::block_on(scope.pop()) {
            panic!("{}: {error}\n{}", kernel.name, kernel.wgsl);
        }
        for buffer in &read_back {
            buffer.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping for reading"));
        }
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .expect("the device answers");
        let bytes = |buffer: &wgpu::Buffer| buffer.get_mapped_range(..).expect("mapped").to_vec();
        read_back.iter().map(bytes).collect()
    }

    /// As [`Device::run`]; the last buffer, as numbers.
    pub fn run_for_output<T: bytemuck::Pod>(&self, kernel: &KernelSource, buffers: &[Data], grid: [u32; 3]) -> Vec<T> {
        let outputs = self.run(kernel, buffers, grid);
        bytemuck::pod_collect_to_vec(outputs.last().expect("a kernel has an output"))
    }

    fn upload(&self, data: &Data) -> wgpu::Buffer {
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: &data.0,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        })
    }

    fn read_back_buffer(&self, data: &Data) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: data.0.len() as u64,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    fn pipeline(&self, kernel: &KernelSource, buffers: &[wgpu::Buffer]) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
        let device = &self.device;
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.wgsl.as_str().into()),
        });
        let (pipeline, layout) = pipeline_of(device, &kernel.name, &module, &kernel.bindings);
        let resources: Vec<wgpu::BindGroupEntry> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &resources,
        });
        (pipeline, group)
    }
}
