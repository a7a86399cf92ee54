@group(0) @binding(0) var<storage, read> mixed: array<f32>;
@group(0) @binding(1) var<storage, read_write> hidden: array<f32>;

@compute @workgroup_size(1)
fn emit(@builtin(workgroup_id) group: vec3<u32>) {
    hidden[group.x * 2u] = mixed[group.x * 2u];
    hidden[group.x * 2u + 1u] = mixed[group.x * 2u + 1u];
}
