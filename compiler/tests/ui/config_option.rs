use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct C {
    #[config(defualt = 1)]
    pub hidden_size: usize,
}

fn main() {}
