use kiln_compiler::dsl::*;

#[block]
fn square(width: Dim) -> Dim {
    width * width
}

fn main() {}
