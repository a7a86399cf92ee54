@group(0) @binding(0) var<storage, read> hidden: array<f32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> step: array<u32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;

// The largest logit is the one whose place in the table is the hidden state.
@compute @workgroup_size(17)
fn head(@builtin(local_invocation_index) id: u32) {
    let row = step[2];
    logits[id] = -abs(table[id] - hidden[row * 2u]) + hidden[row * 2u + 1u] * 0.25;
}
