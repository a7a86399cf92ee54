use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct C {
    #[config(default = 3)]
    pub tie_word_embeddings: bool,
    #[config(default = 0.5)]
    pub num_hidden_layers: usize,
}

fn main() {}
