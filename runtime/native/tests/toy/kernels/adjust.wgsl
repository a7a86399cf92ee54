@group(0) @binding(0) var<storage, read> step: array<u32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> rules: array<u32>;
@group(0) @binding(3) var<storage, read_write> history: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;

// The toy's presence penalty is for all tokens that occurred, and it has nothing else.
@compute @workgroup_size(1)
fn adjust() {
    let length = step[0] + step[1];
    if step[3] > 0u {
        var first = 2u;
        for (var i = 0u; i < length - 1u; i++) {
            if history[i].x == tokens[0] && history[i].y > 0u {
                first = 0u;
            }
        }
        history[length - 1u] = vec2<u32>(tokens[0], first);
    }
    for (var i = 0u; i < length; i++) {
        if history[i].y > 0u {
            logits[history[i].x] -= bitcast<f32>(rules[1]);
        }
    }
}
