use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct C {
    pub name: char,
}

fn main() {}
