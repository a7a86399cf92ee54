@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> step: array<u32>;
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;

// Greedy; with a temperature the token shows the other sampling words instead.
@compute @workgroup_size(1)
fn pick() {
    var best = 0u;
    for (var id = 1u; id < 17u; id++) {
        if logits[id] > logits[best] {
            best = id;
        }
    }
    if bitcast<f32>(step[5]) > 0.0 {
        best = (step[4] + step[6] * 2u + u32(bitcast<f32>(step[7]) * 4.0) + u32(bitcast<f32>(step[8]) * 8.0)
            + step[3]) % 17u;
    }
    output[step[3] % 8u] = best;
    tokens[0] = best;
    step[0] += step[1];
    step[1] = 1u;
    step[2] = 0u;
    step[3] += 1u;
}
