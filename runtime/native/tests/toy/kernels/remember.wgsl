@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<u32>;
@group(0) @binding(3) var<storage, read_write> ring: array<u32>;

// Both caches: one entry for each position, the ring 8 positions long.
@compute @workgroup_size(1)
fn remember(@builtin(workgroup_id) group: vec3<u32>) {
    let position = step[0] + group.x;
    cache[position] = tokens[group.x];
    ring[position % 8u] = tokens[group.x];
}
