use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct C {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
}

#[architecture("ModelForCausalLM")]
pub fn model(c: &C, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    let mut last = x;
    for layer in w.layers("layers", c.num_hidden_layers) {
        let h = linear(x, layer.matrix("proj", c.hidden_size, c.hidden_size));
        last = h;
        x += h;
    }
    linear(x + last, embedding)
}

fn main() {}
