use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct C {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
}

#[architecture("ModelForCausalLM")]
pub fn model(c: &C, tokens: Tokens, w: Weights) -> Logits {
    gather(w.matrix("embed", c.vocab_size, c.hidden_size), tokens)
}

fn main() {}
