use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Div, Mul};
use std::sync::{LazyLock, Mutex};

/// A dimension: a polynomial over config symbols, and its value under the bound config.
///
/// Two dimensions are equal only if their *symbols* agree, so a definition that happens to fit one
/// config (576 = 9 · 64) is refused where `hidden_size` meets `num_attention_heads * head_dim`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dim {
    polynomial: u32,
    value: usize,
}

/// Sum of products of symbols: sorted factors -> coefficient. The empty product is the constant.
type Polynomial = BTreeMap<Vec<String>, usize>;

static INTERNED: LazyLock<Mutex<Vec<Polynomial>>> = LazyLock::new(Mutex::default);

fn intern(polynomial: Polynomial) -> u32 {
    let mut all = INTERNED.lock().expect("no panic while interning");
    let found = all.iter().position(|known| *known == polynomial);
    found.unwrap_or_else(|| {
        all.push(polynomial);
        all.len() - 1
    }) as u32
}

fn resolve(id: u32) -> Polynomial {
    INTERNED.lock().expect("no panic while interning")[id as usize].clone()
}

impl Dim {
    /// A config field.
    pub fn symbol(name: &str, value: usize) -> Self {
        Dim {
            polynomial: intern(BTreeMap::from([(vec![name.to_string()], 1)])),
            value,
        }
    }

    /// A plain number.
    pub fn constant(value: usize) -> Self {
        Dim {
            polynomial: intern(BTreeMap::from([(vec![], value)])),
            value,
        }
    }

    /// Its value under the bound config.
    pub fn value(self) -> usize {
        self.value
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Dim::constant(value)
    }
}

impl Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        let mut sum = resolve(self.polynomial);
        for (factors, coefficient) in resolve(other.polynomial) {
            let total = sum.entry(factors).or_default();
            *total = total.saturating_add(coefficient);
        }
        Dim {
            polynomial: intern(sum),
            value: self.value.saturating_add(other.value),
        }
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        let (left, right) = (resolve(self.polynomial), resolve(other.polynomial));
        let mut product = Polynomial::new();
        for (a, x) in &left {
            for (b, y) in &right {
                let mut factors = [a.as_slice(), b.as_slice()].concat();
                factors.sort();
                let total = product.entry(factors).or_default();
                *total = total.saturating_add(x.saturating_mul(*y));
            }
        }
        Dim {
            polynomial: intern(product),
            value: self.value.saturating_mul(other.value),
        }
    }
}

/// Rounded down, as a symbol of its own: `(hidden_size / num_attention_heads)`. By zero it is zero.
impl Div for Dim {
    type Output = Dim;
    fn div(self, other: Dim) -> Dim {
        let value = self.value.checked_div(other.value).unwrap_or(0);
        Dim::symbol(&format!("({self} / {other})"), value)
    }
}

impl Mul<Dim> for usize {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        Dim::constant(self) * other
    }
}

impl fmt::Display for Dim {
    /// The symbols alone: `num_attention_heads * head_dim`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = resolve(self.polynomial)
            .into_iter()
            .map(|(factors, coefficient)| match (coefficient, factors.is_empty()) {
                (_, true) => coefficient.to_string(),
                (1, false) => factors.join(" * "),
                (_, false) => format!("{coefficient} * {}", factors.join(" * ")),
            })
            .collect();
        f.write_str(&terms.join(" + "))
    }
}

impl fmt::Debug for Dim {
    /// Symbols and value: `hidden_size = 576`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbols = self.to_string();
        if symbols == self.value.to_string() {
            f.write_str(&symbols)
        } else {
            write!(f, "{symbols} = {}", self.value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_means_equal_symbols() {
        let [hidden, heads, width] =
            [("hidden_size", 576), ("heads", 9), ("width", 64)].map(|(name, value)| Dim::symbol(name, value));
        assert_eq!(hidden.value(), (heads * width).value());
        assert_ne!(hidden, heads * width);
        assert_ne!(hidden, Dim::constant(576));
        assert_eq!(heads * width, width * heads);
        assert_eq!(heads * (width + hidden), hidden * heads + heads * width);
        assert_eq!(2 * heads + heads, heads * 3.into());
    }

    #[test]
    fn text_has_symbols_and_value() {
        let [heads, width] = [("heads", 9), ("width", 64)].map(|(name, value)| Dim::symbol(name, value));
        assert_eq!((2 * heads * width + 3.into()).to_string(), "3 + 2 * heads * width");
        assert_eq!(format!("{:?}", heads * width), "heads * width = 576");
        assert_eq!(format!("{:?}", Dim::constant(7)), "7");
        assert_eq!(format!("{:?}", width / heads), "(width / heads) = 7");
    }

    #[test]
    fn damaged_configs_do_not_overflow() {
        let large = Dim::symbol("large", usize::MAX / 2);
        assert_eq!((large * large + large).value(), usize::MAX);
        assert_eq!((usize::MAX * large * Dim::constant(usize::MAX)).value(), usize::MAX);
        assert_eq!((large / Dim::constant(0)).value(), 0);
    }
}
