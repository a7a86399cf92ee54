//! Prints the graph that a config.json gives.

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("usage: new-architecture CONFIG.JSON")?;
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let config = serde_json::from_str(&text).with_context(|| path.clone())?;
    let registry = new_architecture::registry();
    println!("{}", registry.for_config(&config)?.build(&config)?);
    Ok(())
}
