@group(0) @binding(0) var<storage, read> cache: array<u32>;
@group(0) @binding(1) var<storage, read> ring: array<u32>;
@group(0) @binding(2) var<storage, read> sums: array<u32>;
@group(0) @binding(3) var<storage, read> step: array<u32>;
@group(0) @binding(4) var<storage, read_write> mixed: array<f32>;

// As `mix`, and on the hash of all tokens.
@compute @workgroup_size(1)
fn mix_sums(@builtin(workgroup_id) group: vec3<u32>) {
    let position = step[0] + group.x;
    var sum = 0u;
    for (var j = 0u; j <= position; j++) {
        sum += cache[j] * (j + 1u);
    }
    for (var back = 0u; back < 4u; back++) {
        sum += ring[(position + 8u - back) % 8u] * (back * back + 3u);
    }
    mixed[group.x * 2u] = f32((sum + sums[group.x] % 17u) % 17u);
    mixed[group.x * 2u + 1u] = f32(position);
}
