use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct C {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
}

#[architecture("ModelForCausalLM")]
pub struct Model;

fn main() {}
