//! What Python has beside lists and dicts: `range(..)` and the views of a dict's keys, values and items.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Rest, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::repr::repr;

/// Longer ones are taken for an attack, as in the sandbox of Jinja2.
const LONGEST_RANGE: i64 = 100_000;

/// `range(start, stop, step)`
#[derive(Debug)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
    length: i64,
}

/// The function `range`.
pub(super) fn range(bounds: Rest<i64>) -> Result<Value, Error> {
    let (start, stop, step) = match bounds[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        [_, _, _] => return Err(Error::new(ErrorKind::InvalidOperation, "range cannot have step 0")),
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "range wants one to three numbers",
            ));
        }
    };
    let way = if step > 0 {
        stop.saturating_sub(start)
    } else {
        start.saturating_sub(stop)
    };
    let length = (way.max(0) as u64).div_ceil(step.unsigned_abs()) as i64;
    if length > LONGEST_RANGE {
        return Err(Error::new(ErrorKind::InvalidOperation, "range has too many elements"));
    }
    Ok(Value::from_object(Range {
        start,
        stop,
        step,
        length,
    }))
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = key.as_i64()?;
        (0..self.length)
            .contains(&at)
            .then(|| Value::from(self.start + at * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.length as usize)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            1 => write!(f, "range({}, {})", self.start, self.stop),
            step => write!(f, "range({}, {}, {step})", self.start, self.stop),
        }
    }
}

/// `dict.keys()`, `dict.values()` or `dict.items()`
#[derive(Debug)]
pub(super) struct DictView {
    dict: DynObject,
    part: &'static str,
}

impl DictView {
    /// The view that the method of this name gives.
    pub(super) fn of(dict: &Value, method: &str) -> Option<Value> {
        let part = ["keys", "values", "items"].into_iter().find(|&part| part == method)?;
        Some(Value::from_object(DictView {
            dict: dict.as_object()?.clone(),
            part,
        }))
    }
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let pairs = self.dict.try_iter_pairs().into_iter().flatten();
        let part = self.part;
        Enumerator::Values(
            pairs
                .map(|(key, value)| match part {
                    "keys" => key,
                    "values" => value,
                    _ => Value::from(Tuple::from(vec![key, value])),
                })
                .collect(),
        )
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<Value> = Value::from_dyn_object(self.clone())
            .try_iter()
            .into_iter()
            .flatten()
            .collect();
        let parts = repr(&Value::from(parts)).map_err(|_| fmt::Error)?;
        write!(f, "dict_{}({parts})", self.part)
    }
}

/// Whether it is one of these, which Python's JSON cannot write.
pub(super) fn is_lazy(value: &Value) -> bool {
    value.downcast_object_ref::<Range>().is_some() || value.downcast_object_ref::<DictView>().is_some()
}

/// Lists and tuples, also such as minijinja puts together when it needs them.
pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) && value.len().is_some() && !is_lazy(value)
}
