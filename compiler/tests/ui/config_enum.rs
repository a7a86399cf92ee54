use kiln_compiler::dsl::*;

#[derive(Config)]
pub enum C {
    Small,
    Large,
}

fn main() {}
