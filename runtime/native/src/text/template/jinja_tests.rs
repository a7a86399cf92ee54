//! Jinja2's tests (`x is name`), where minijinja answers otherwise or has none.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::objects::{Range, is_list};
use super::operators::{compare, contains, remainder};
use super::python_text::is_cased;
use super::repr::str_of;

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_test("callable", is_callable);
    environment.add_test("integer", is_integer);
    environment.add_test("lower", |value: &Value| {
        Ok::<_, Error>(is_cased(&str_of(value)?, char::is_lowercase))
    });
    environment.add_test("upper", |value: &Value| {
        Ok::<_, Error>(is_cased(&str_of(value)?, char::is_uppercase))
    });
    environment.add_test("odd", |value: &Value| {
        Ok::<_, Error>(half_left(value)? == Value::from(1))
    });
    environment.add_test("even", |value: &Value| {
        Ok::<_, Error>(half_left(value)? == Value::from(0))
    });
    environment.add_test("in", |value: &Value, container: &Value| contains(container, value));
    for name in ["lt", "lessthan", "<"] {
        environment.add_test(name, |a: &Value, b: &Value| Ok::<_, Error>(compare(a, b)?.is_lt()));
    }
    for name in ["gt", "greaterthan", ">"] {
        environment.add_test(name, |a: &Value, b: &Value| Ok::<_, Error>(compare(a, b)?.is_gt()));
    }
    for name in ["le", "<="] {
        environment.add_test(name, |a: &Value, b: &Value| Ok::<_, Error>(compare(a, b)?.is_le()));
    }
    for name in ["ge", ">="] {
        environment.add_test(name, |a: &Value, b: &Value| Ok::<_, Error>(compare(a, b)?.is_ge()));
    }
}

/// None is not iterable, a value that is not there is: it has no items.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// What has a length and can be indexed: Jinja2 counts dicts among it.
fn is_sequence(value: &Value) -> bool {
    let has_length = matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Map);
    has_length || is_list(value) || value.downcast_object_ref::<Range>().is_some()
}

/// Functions and macros. Jinja2 counts values that are not there among it.
fn is_callable(value: &Value) -> bool {
    value.is_undefined() || value.kind() == ValueKind::Plain
}

/// Booleans are none, though Python counts with them.
fn is_integer(value: &Value) -> bool {
    value.kind() == ValueKind::Number && value.is_integer()
}

/// What division by two leaves.
fn half_left(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => remainder(value, &Value::from(2)),
        kind => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a value of type {kind} is neither odd nor even"),
        )),
    }
}
