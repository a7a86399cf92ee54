use std::fmt;
use std::panic::Location;

use super::{Dim, Shape, Span};

impl Shape {
    /// `[T, ..dims]`
    pub fn per_token(dims: impl IntoIterator<Item = Dim>) -> Self {
        Shape {
            per_token: true,
            dims: dims.into_iter().collect(),
        }
    }

    /// `[..dims]`: a weight, or a cache (whose entries have this shape).
    pub fn fixed(dims: impl IntoIterator<Item = Dim>) -> Self {
        Shape {
            per_token: false,
            dims: dims.into_iter().collect(),
        }
    }
}

impl fmt::Display for Shape {
    /// `[T, hidden_size = 576]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.per_token.then(|| "T".to_string());
        let dims = self.dims.iter().map(|dim| format!("{dim:?}"));
        let all: Vec<String> = tokens.into_iter().chain(dims).collect();
        write!(f, "[{}]", all.join(", "))
    }
}

impl From<&Location<'static>> for Span {
    fn from(location: &Location<'static>) -> Self {
        Span {
            file: location.file(),
            line: location.line(),
            column: location.column(),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}
