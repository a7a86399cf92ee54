//! Operators with Python's meaning, where minijinja's is another: calls of functions take their place in the compiled template.

use std::cmp::Ordering;

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::format::percent;
use super::limits::{self, Growing};
use super::objects::{Range, is_list};
use super::repr::{as_float, str_of};

/// No variable of a template can have such a name.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_function("%", remainder);
    environment.add_function("~", |left: &Value, right: &Value| {
        limits::join([str_of(left), str_of(right)], "")
    });
    environment.add_function("+", sum);
    environment.add_function("[:]", slice);
    environment.add_function("in", |value: &Value, container: &Value| contains(container, value));
    environment.add_function("<", |left: &Value, right: &Value| {
        Ok::<_, Error>(compare(left, right)?.is_lt())
    });
    environment.add_function("<=", |left: &Value, right: &Value| {
        Ok::<_, Error>(compare(left, right)?.is_le())
    });
    environment.add_function(">", |left: &Value, right: &Value| {
        Ok::<_, Error>(compare(left, right)?.is_gt())
    });
    environment.add_function(">=", |left: &Value, right: &Value| {
        Ok::<_, Error>(compare(left, right)?.is_ge())
    });
}

/// Both take their operands from the stack in the same order, so an instruction can stand for another.
pub(super) fn replace_in(instructions: &mut Instructions<'_>) {
    for at in 0.. {
        let Some(instruction) = instructions.get_mut(at) else {
            return;
        };
        let (name, operands) = match instruction {
            Instruction::Rem => ("%", 2),
            Instruction::StringConcat => ("~", 2),
            Instruction::Add => ("+", 2),
            Instruction::Slice => ("[:]", 4),
            Instruction::In => ("in", 2),
            Instruction::Lt => ("<", 2),
            Instruction::Lte => ("<=", 2),
            Instruction::Gt => (">", 2),
            Instruction::Gte => (">=", 2),
            _ => continue,
        };
        *instruction = Instruction::CallFunction(name, Some(operands));
    }
}

enum Numbers {
    Integers(i128, i128),
    Floats(f64, f64),
}

/// Two numbers as the operators of Python see them; booleans are 0 and 1.
fn numbers(operator: &str, left: &Value, right: &Value) -> Result<Numbers, Error> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(left) || !is_number(right) {
        return Err(unsupported(operator, left, right));
    }
    let float = |value: &Value| match as_float(value) {
        Some(float) => Ok(float),
        None => integer(value).map(|integer| integer as f64),
    };
    Ok(match (as_float(left), as_float(right)) {
        (None, None) => Numbers::Integers(integer(left)?, integer(right)?),
        _ => Numbers::Floats(float(left)?, float(right)?),
    })
}

fn integer(value: &Value) -> Result<i128, Error> {
    i128::try_from(value.clone())
}

pub(super) fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(template) = left.as_str() {
        return percent(template, right).map(Value::from);
    }
    let fault = |message: &str| Error::new(ErrorKind::InvalidOperation, message.to_string());
    match numbers("%", left, right)? {
        Numbers::Integers(_, 0) => Err(fault("division by zero")),
        Numbers::Floats(_, 0.0) => Err(fault("division by zero")),
        Numbers::Integers(a, b) => {
            let remainder = a.wrapping_rem(b);
            let is_other_sign = remainder != 0 && (remainder < 0) != (b < 0);
            Ok(Value::from(if is_other_sign { remainder + b } else { remainder }))
        }
        Numbers::Floats(a, b) => {
            let remainder = a % b;
            let is_other_sign = remainder != 0.0 && (remainder < 0.0) != (b < 0.0);
            Ok(Value::from(if is_other_sign {
                remainder + b
            } else {
                remainder.abs().copysign(b)
            }))
        }
    }
}

fn sum(left: &Value, right: &Value) -> Result<Value, Error> {
    if left.as_str().is_some() && right.as_str().is_some() {
        let text = limits::join([escaped_beside(left, right), escaped_beside(right, left)], "")?;
        return Ok(if left.is_safe() || right.is_safe() {
            Value::from_safe_string(text)
        } else {
            Value::from(text)
        });
    }
    if is_list(left) && is_list(right) && left.is_tuple() == right.is_tuple() {
        limits::check_items(left.len().unwrap_or(0).saturating_add(right.len().unwrap_or(0)))?;
        let items: Vec<Value> = left.try_iter()?.chain(right.try_iter()?).collect();
        return Ok(if left.is_tuple() {
            Value::from(Tuple::from(items))
        } else {
            Value::from(items)
        });
    }
    match numbers("+", left, right)? {
        Numbers::Integers(a, b) => a
            .checked_add(b)
            .map(Value::from)
            .ok_or_else(|| unsupported("+", left, right)),
        Numbers::Floats(a, b) => Ok(Value::from(a + b)),
    }
}

/// A text as it joins another: escaped beside one that is, if it is not itself.
fn escaped_beside(text: &Value, other: &Value) -> Result<String, Error> {
    let text_is_plain = !text.is_safe() && other.is_safe();
    if text_is_plain {
        escape(&str_of(text)?)
    } else {
        str_of(text)
    }
}

/// As Markup escapes it.
pub(super) fn escape(text: &str) -> Result<String, Error> {
    let mut out = Growing::default();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }?;
    }
    Ok(out.finish())
}

/// `value[start:stop:step]`, a text, a list or a tuple as the value is.
fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    let bound = |value: &Value| -> Result<Option<i64>, Error> {
        if value.is_none() {
            Ok(None)
        } else {
            i64::try_from(value.clone()).map(Some)
        }
    };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "a slice cannot have step 0"));
    }
    if let Some(text) = value.as_str() {
        let chars: Vec<char> = text.chars().collect();
        let taken = positions(chars.len(), start, stop, step).map(|at| chars[at]);
        return Ok(Value::from(taken.collect::<String>()));
    }
    if !is_list(value) && value.downcast_object_ref::<Range>().is_none() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a value of type {} cannot be sliced", value.kind()),
        ));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    let taken: Vec<Value> = positions(items.len(), start, stop, step)
        .map(|at| items[at].clone())
        .collect();
    Ok(if value.is_tuple() {
        Value::from(Tuple::from(taken))
    } else {
        Value::from(taken)
    })
}

/// The positions of a slice in its order.
fn positions(length: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let length = length as i64;
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i64| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(lowest, highest);
    let (first, last) = if step > 0 { (0, length) } else { (length - 1, -1) };
    let (start, stop) = (start.map_or(first, clamp), stop.map_or(last, clamp));
    let is_before = move |at: &i64| if step > 0 { *at < stop } else { *at > stop };
    std::iter::successors(Some(start), move |at| at.checked_add(step))
        .take_while(is_before)
        .map(|at| at as usize)
}

/// `value in container`
pub(super) fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    if let Some(text) = container.as_str() {
        let part = value.as_str().ok_or_else(|| unsupported("in", value, container))?;
        return Ok(text.contains(part));
    }
    match container.as_object() {
        Some(object) if container.kind() == ValueKind::Map => Ok(object.get_value(value).is_some()),
        Some(_) => Ok(container.try_iter()?.any(|item| item == *value)),
        None if container.is_undefined() => Ok(false),
        None => Err(unsupported("in", value, container)),
    }
}

/// Python orders numbers, texts and lists, each among themselves.
pub(super) fn compare(left: &Value, right: &Value) -> Result<Ordering, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(left.cmp(right));
    }
    if is_list(left) && is_list(right) && left.is_tuple() == right.is_tuple() {
        for (a, b) in left.try_iter()?.zip(right.try_iter()?) {
            if a != b {
                return compare(&a, &b);
            }
        }
        return Ok(left.len().cmp(&right.len()));
    }
    match numbers("<", left, right)? {
        Numbers::Integers(a, b) => Ok(a.cmp(&b)),
        Numbers::Floats(a, b) => a.partial_cmp(&b).ok_or_else(|| unsupported("<", left, right)),
    }
}

fn unsupported(operator: &str, left: &Value, right: &Value) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("{} {operator} {} is not possible", left.kind(), right.kind()),
    )
}
