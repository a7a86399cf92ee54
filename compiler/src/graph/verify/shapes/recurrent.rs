//! Operators with a state that sums up the tokens before.

use super::{Check, Checker, ValueKind};
use crate::graph::verify::require;
use crate::graph::{Shape, StateKind};

impl Checker<'_> {
    pub(super) fn convolution(&self, state: usize) -> Check<Shape> {
        let biased = self.takes_also(&[ValueKind::Floats, ValueKind::Weight], &[ValueKind::Weight])?;
        let x = self.row(0)?;
        let [channels, one, taps] = self.numbers(1)?;
        require(channels == x && one.value() == 1, || {
            format!("{x:?} channels by [{channels:?}, {one:?}, {taps:?}]")
        })?;
        if biased {
            let bias = self.vector(2)?;
            require(bias == x, || format!("a bias of {bias:?} for {x:?} channels"))?;
        }
        let state = self.state(state)?;
        let StateKind::Convolution { taps: kept } = state.kind else {
            return Err("its state is not one of a convolution".to_string());
        };
        require(kept == taps.value(), || {
            format!("{taps:?} taps, its state is for {kept}")
        })?;
        require(state.shape == [x], || format!("its state does not hold [{x:?}]"))?;
        Ok(Shape::per_token([x]))
    }

    pub(super) fn gated_delta(&self, state: usize) -> Check<Shape> {
        let activations = [ValueKind::Floats; 5];
        self.takes(&[activations.as_slice(), &[ValueKind::Weight; 2]].concat())?;
        let [queries, keys, values] = [self.heads(0)?, self.heads(1)?, self.heads(2)?];
        require(queries == keys, || format!("queries {queries:?}, keys {keys:?}"))?;
        let ([key_heads, key_width], [heads, width]) = (keys, values);
        let shared = key_heads.value() > 0 && heads.value().is_multiple_of(key_heads.value());
        require(shared, || format!("{heads:?} value heads share {key_heads:?}"))?;
        for (operand, found) in [
            ("a", self.row(3)?),
            ("b", self.row(4)?),
            ("a_log", self.vector(5)?),
            ("dt_bias", self.vector(6)?),
        ] {
            require(found == heads, || {
                format!("{operand} of {found:?} for {heads:?} value heads")
            })?;
        }
        let state = self.state(state)?;
        require(state.kind == StateKind::Recurrent, || {
            "its state is not recurrent".to_string()
        })?;
        let needed = [heads, key_width, width];
        require(state.shape == needed, || format!("its state does not hold {needed:?}"))?;
        Ok(Shape::per_token(values))
    }
}
