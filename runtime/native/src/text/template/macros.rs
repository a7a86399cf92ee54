//! Macros whose defaults name other parameters, which minijinja computes before those have a value.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::{Error, ErrorKind};

/// Refuses what would print nothing where Jinja2 prints a value: `{% macro f(a, b=a) %}`.
pub(super) fn check_defaults(instructions: &Instructions<'_>) -> Result<(), Error> {
    for at in 0.. {
        let Some(instruction) = instructions.get(at) else {
            return Ok(());
        };
        if let (Instruction::BuildMacro(name, body, _), Some(Instruction::LoadConst(parameters))) =
            (instruction, instructions.get(at.wrapping_sub(1)))
        {
            let parameters = parameters
                .try_iter()?
                .filter_map(|parameter| parameter.as_str().map(str::to_string));
            check(name, instructions, *body, parameters.collect())?;
        }
    }
    Ok(())
}

/// A macro's body begins with storing its parameters, each after the instructions of its default.
fn check(name: &str, instructions: &Instructions<'_>, body: u32, mut parameters: Vec<String>) -> Result<(), Error> {
    let mut at = body;
    while !parameters.is_empty() {
        match instructions.get(at) {
            Some(Instruction::Lookup(variable)) if parameters.iter().any(|parameter| parameter == variable) => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a default of the macro {name} names another parameter, {variable}, which Kiln cannot do"),
                ));
            }
            Some(Instruction::StoreLocal(parameter)) => parameters.retain(|known| known != parameter),
            Some(_) => {}
            None => return Ok(()),
        }
        at += 1;
    }
    Ok(())
}
