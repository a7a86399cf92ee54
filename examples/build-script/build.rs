//! Compiles the model into the program: a toy, or what MODEL names.

fn main() {
    println!("cargo::rerun-if-env-changed=MODEL");
    let model = std::env::var("MODEL").unwrap_or_else(|_| "toy".to_string());
    kiln_build::Bundle::new(model).emit();
}
