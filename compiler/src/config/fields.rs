use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{ConfigError, Conventions, UnreadKey};
use crate::graph::{Dim, Unary};

/// The fields of a config.json that an architecture reads: `#[derive(Config)]`.
pub trait Config: Sized {
    fn read(config: &Reader<'_>) -> Result<Self, ConfigError>;

    /// What the family's configs leave unsaid, or spell otherwise.
    fn conventions() -> Conventions {
        Conventions::default()
    }
}

/// A normalized config.json, and which of its keys were read.
pub struct Reader<'a> {
    object: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

/// One field of it.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// Its name in the JSON.
    pub key: &'a str,
    /// Its name in the Rust struct, which dimensions take for their symbol.
    pub symbol: &'a str,
    pub value: &'a Value,
}

/// A type that a config field may have.
pub trait FromConfig: Sized {
    /// For messages: `a number`.
    const EXPECTED: &'static str;

    fn from_config(field: Field<'_>) -> Result<Self, ConfigError>;

    /// What a field without a default is when the JSON lacks it; `None` makes that an error.
    fn absent() -> Option<Self> {
        None
    }

    /// Makes a default value the field's own.
    fn adopt(self, _symbol: &str) -> Self {
        self
    }
}

impl<'a> Reader<'a> {
    pub fn new(config: &'a Value) -> Result<Self, ConfigError> {
        match config {
            Value::Object(object) => Ok(Reader {
                object,
                read: RefCell::default(),
            }),
            other => Err(ConfigError::ill_typed("(the whole file)", "an object", other)),
        }
    }

    /// A field that must be there, unless its type says otherwise. `null` counts as absent here; what an absent key
    /// stands for, the [`Conventions`] have filled in before.
    pub fn field<T: FromConfig>(&self, key: &str, symbol: &str) -> Result<T, ConfigError> {
        match self.present(key, symbol) {
            Some(field) => T::from_config(field),
            None => T::absent().ok_or_else(|| ConfigError::Missing {
                field: key.to_string(),
                expected: T::EXPECTED.to_string(),
            }),
        }
    }

    /// A field with a default.
    pub fn field_or<T: FromConfig>(
        &self,
        key: &str,
        symbol: &str,
        default: impl FnOnce() -> T,
    ) -> Result<T, ConfigError> {
        match self.present(key, symbol) {
            Some(field) => T::from_config(field),
            None => Ok(default().adopt(symbol)),
        }
    }

    /// An option that the architecture does not have: an error unless it is missing, null or false.
    pub fn refuse(&self, key: &str) -> Result<(), ConfigError> {
        match self.present(key, key).filter(|field| field.value != false) {
            Some(field) => Err(field.unsupported("not supported by this architecture".to_string())),
            None => Ok(()),
        }
    }

    /// An option that the architecture always has: an error unless it is missing, null or `value`.
    pub fn expect(&self, key: &str, value: Value) -> Result<(), ConfigError> {
        match self.present(key, key).filter(|field| !same(field.value, &value)) {
            Some(field) => Err(field.unsupported(format!("this architecture has {value} only"))),
            None => Ok(()),
        }
    }

    /// A key that says nothing about what is computed.
    pub fn ignore(&self, key: &str) {
        self.read.borrow_mut().insert(key.to_string());
    }

    /// The keys with a value that nobody has read, in alphabetical order.
    pub fn unread(&self) -> Vec<UnreadKey> {
        let read = self.read.borrow();
        let unread = self.object.iter().filter(|(key, _)| !read.contains(*key));
        unread.filter_map(|(key, value)| UnreadKey::of(key, value)).collect()
    }

    fn present<'b>(&'b self, key: &'b str, symbol: &'b str) -> Option<Field<'b>> {
        self.ignore(key);
        let value = self.object.get(key).filter(|value| !value.is_null())?;
        Some(Field { key, symbol, value })
    }
}

impl Field<'_> {
    pub fn ill_typed<T: FromConfig>(&self) -> ConfigError {
        ConfigError::ill_typed(self.key, T::EXPECTED, self.value)
    }

    fn unsupported(&self, problem: String) -> ConfigError {
        ConfigError::unsupported(self.key, self.value, problem)
    }
}

/// Equal, where 1 and 1.0 are.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && a.as_f64() == b.as_f64()
}

impl FromConfig for usize {
    const EXPECTED: &'static str = "a whole number below 2^31";
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        let number = field.value.as_u64().filter(|n| *n < 1 << 31);
        number.map(|n| n as usize).ok_or_else(|| field.ill_typed::<Self>())
    }
}

/// The field's name becomes the symbol.
impl FromConfig for Dim {
    const EXPECTED: &'static str = "a positive whole number below 2^31";
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        match usize::from_config(field) {
            Ok(value) if value > 0 => Ok(Dim::symbol(field.symbol, value)),
            _ => Err(field.ill_typed::<Self>()),
        }
    }

    fn adopt(self, symbol: &str) -> Self {
        Dim::symbol(symbol, self.value())
    }
}

impl FromConfig for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        field.value.as_f64().ok_or_else(|| field.ill_typed::<Self>())
    }
}

impl FromConfig for f32 {
    const EXPECTED: &'static str = f64::EXPECTED;
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        f64::from_config(field).map(|number| number as f32)
    }
}

impl FromConfig for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        field.value.as_bool().ok_or_else(|| field.ill_typed::<Self>())
    }
}

impl FromConfig for String {
    const EXPECTED: &'static str = "a string";
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        let text = field.value.as_str().ok_or_else(|| field.ill_typed::<Self>())?;
        Ok(text.to_string())
    }
}

impl<T: FromConfig> FromConfig for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        T::from_config(field).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromConfig> FromConfig for Vec<T> {
    const EXPECTED: &'static str = "a list";
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        let items = field.value.as_array().ok_or_else(|| field.ill_typed::<Self>())?;
        let item = |value| T::from_config(Field { value, ..field });
        items.iter().map(item).collect()
    }
}

/// An activation function, by Hugging Face's name for it.
pub type Activation = Unary;

impl FromConfig for Activation {
    const EXPECTED: &'static str = "the name of an activation function";
    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        match String::from_config(field)?.as_str() {
            "silu" | "swish" => Ok(Unary::Silu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Unary::GeluTanh),
            "gelu" => Ok(Unary::GeluErf),
            "relu" => Ok(Unary::Relu),
            "sigmoid" => Ok(Unary::Sigmoid),
            "tanh" => Ok(Unary::Tanh),
            _ => Err(field.unsupported(
                "unknown activation; supported are silu, gelu, gelu_pytorch_tanh, gelu_new, relu, \
                 sigmoid, tanh"
                    .to_string(),
            )),
        }
    }
}
