@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read_write> sum: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<u32>;

// A hash of all tokens so far, in order, and as it is after each token of the step.
@compute @workgroup_size(1)
fn accumulate() {
    for (var i = 0u; i < step[1]; i++) {
        sum[1] = sum[1] * 31u + tokens[i] + 1u;
        sums[i] = sum[1];
    }
}
