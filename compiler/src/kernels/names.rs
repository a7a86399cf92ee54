//! Parts of kernel names.

use super::Strided;

/// A number as it may stand in an identifier: 1e-5 is `1em5`, 0.125 is `0p125`.
pub fn number(value: f32) -> String {
    let plain = value == 0.0 || (1e-3..1e6).contains(&value.abs());
    let text = if plain {
        format!("{value}")
    } else {
        format!("{value:e}")
    };
    text.replace('-', "m").replace('.', "p")
}

/// `suffix` if `condition`, else nothing.
pub fn flag(condition: bool, suffix: &str) -> &str {
    if condition { suffix } else { "" }
}

/// `name_a`, `name_b` ..: naga's writer would rename what ends in a digit.
pub fn lettered(name: &str, index: usize) -> String {
    let mut letters = String::new();
    let mut rest = index;
    loop {
        letters.insert(0, char::from(b'a' + (rest % 26) as u8));
        if rest < 26 {
            return format!("{name}_{letters}");
        }
        rest = rest / 26 - 1;
    }
}

/// Where a tensor of dense rows of `row` elements lies in wider ones; nothing if it does not.
pub fn strided(x: Strided, row: u32) -> String {
    match x {
        Strided { stride, offset: 0 } if stride == row => String::new(),
        Strided { stride, offset } => format!("_at{offset}of{stride}"),
    }
}
