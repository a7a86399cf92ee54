//! Kinds of layers that configs name.

use crate::graph::Dim;

/// Makes an enum of kinds of layers: `layer_types` in a config may name them, and they name templates.
///
/// ```
/// kiln_compiler::layer_kinds! {
///     /// What mixes tokens.
///     pub enum Mixer {
///         Convolution = "conv",
///         Attention = "full_attention",
///     }
/// }
/// ```
#[macro_export]
macro_rules! layer_kinds {
    (
        $(#[$outer:meta])*
        $visibility:vis enum $name:ident {
            $(#[$first_outer:meta])* $first:ident = $first_text:literal
            $(, $(#[$more_outer:meta])* $more:ident = $more_text:literal)* $(,)?
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {
            $(#[$first_outer])* $first,
            $($(#[$more_outer])* $more,)*
        }

        impl $crate::config::FromConfig for $name {
            const EXPECTED: &'static str = concat!($first_text $(, " or ", $more_text)*);
            fn from_config(
                field: $crate::config::Field<'_>,
            ) -> ::core::result::Result<Self, $crate::config::ConfigError> {
                match field.value.as_str() {
                    Some($first_text) => Ok($name::$first),
                    $(Some($more_text) => Ok($name::$more),)*
                    _ => Err(field.ill_typed::<Self>()),
                }
            }
        }

        impl $crate::dsl::LayerKind for $name {
            fn name(&self) -> String {
                let name = match self {
                    $name::$first => $first_text,
                    $($name::$more => $more_text,)*
                };
                name.to_string()
            }
        }
    };
}

layer_kinds! {
    /// How a layer attends.
    pub enum AttentionKind {
        /// To everything before.
        Full = "full_attention",
        /// To the last few tokens.
        Sliding = "sliding_attention",
    }
}

layer_kinds! {
    /// What a layer has between its tokens' mixing and the next layer.
    pub enum FeedForward {
        /// One network for all tokens.
        Dense = "dense",
        /// A mixture of experts.
        Experts = "moe",
    }
}

impl AttentionKind {
    /// The last of every `period` layers attends to everything.
    pub fn full_every(period: usize, layers: Dim) -> Vec<Self> {
        let kind = |layer: usize| match (layer + 1).is_multiple_of(period) {
            true => AttentionKind::Full,
            false => AttentionKind::Sliding,
        };
        (0..layers.value()).map(kind).collect()
    }

    /// Qwen's pattern: layers from `first` on slide, if any do.
    pub fn sliding_from(first: usize, layers: Dim, any: bool) -> Vec<Self> {
        let kind = |layer| match any && layer >= first {
            true => AttentionKind::Sliding,
            false => AttentionKind::Full,
        };
        (0..layers.value()).map(kind).collect()
    }
}

impl FeedForward {
    /// Qwen's pattern: the last of every `step` layers has experts, but for those listed.
    pub fn every(step: Dim, layers: Dim, dense: &[usize]) -> Vec<Self> {
        let kind = |layer: usize| match (layer + 1).is_multiple_of(step.value()) && !dense.contains(&layer) {
            true => FeedForward::Experts,
            false => FeedForward::Dense,
        };
        (0..layers.value()).map(kind).collect()
    }
}
