//! Jinja2 as transformers sets it up for chat templates, on minijinja: what differs between the two is made Jinja2's.

#[cfg(test)]
mod cases;
mod date;
mod filters;
mod format;
mod jinja_tests;
mod json;
mod limits;
mod macros;
mod methods;
mod objects;
mod operators;
mod python_text;
mod repr;
mod source;

use std::fmt;

use minijinja::machinery::{CodeGenerator, ast, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

pub(crate) use date::WallTime;

/// As errors call the template.
const NAME: &str = "chat_template";

/// Instructions of one rendering, each 64 bytes that it makes counted as one: some hundred for each message are usual. A
/// template that never ends is told within seconds, and all that one makes is less than 200 MB.
const MOST_FUEL: u64 = 3_000_000;

/// What a part of a date costs.
const DIRECTIVE_FUEL: u64 = 500;

/// A template that parses.
pub(super) struct Template {
    environment: Environment<'static>,
    /// Rewritten to what minijinja knows.
    source: String,
}

impl Template {
    pub(super) fn new(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(MOST_FUEL));
        environment.set_unknown_method_callback(methods::call);
        environment.set_formatter(write);
        environment.add_filter("tojson", json::to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("range", objects::range);
        environment.remove_global("debug");
        filters::add(&mut environment);
        jinja_tests::add(&mut environment);
        operators::add(&mut environment);
        let source = source::for_minijinja(source);
        parse_template(&source)?;
        Ok(Template { environment, source })
    }

    /// Renders with these variables and, for `strftime_now`, this time.
    pub(super) fn render(&self, variables: Vec<(&str, Value)>, now: Option<WallTime>) -> Result<String, Error> {
        let strftime_now = move |state: &State, format: Option<&str>, named: Kwargs| -> Result<String, Error> {
            let format = format.map_or_else(|| named.get("format"), Ok)?;
            named.assert_all_used()?;
            state.consume_fuel(format.matches('%').count() as u64 * DIRECTIVE_FUEL)?;
            let message = "the template asks for the date, and there is no clock: call `set_now`";
            let now = now.or_else(WallTime::now);
            now.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, message))?
                .strftime(format)
        };
        let strftime_now = Value::from_function(strftime_now);
        let variables = [("strftime_now", strftime_now)].into_iter().chain(variables);
        let mut code = CodeGenerator::new(NAME, &self.source);
        code.compile_stmt(&parse_template(&self.source)?);
        let (mut instructions, mut blocks) = code.finish();
        for instructions in blocks.values_mut().chain([&mut instructions]) {
            macros::check_defaults(instructions)?;
            operators::replace_in(instructions);
        }
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        eval(
            &self.environment,
            &instructions,
            Value::from_pairs(variables),
            &blocks,
            &mut out,
            AutoEscape::None,
        )?;
        drop(out);
        Ok(text)
    }
}

/// Writes what `{{ }}` prints.
fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = repr::str_of(value)?;
    let is_plain = value.is_safe() || matches!(state.auto_escape(), AutoEscape::None);
    Ok(out.write_str(&if is_plain { text } else { operators::escape(&text)? })?)
}

fn parse_template(source: &str) -> Result<ast::Stmt<'_>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    parse(source, NAME, syntax)
}

/// Marks the error of `raise_exception` among all others.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()).with_source(Refused(message.to_string())))
}

/// The message of a `raise_exception` somewhere below this error.
pub(super) fn refusal(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Refused(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// An error with all that caused it.
pub(super) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
