//! The language of the e-graph: the unfused operators, and the kernel terms that rewriting adds.
//!
//! All activations are flat here, `[T, width]`: splitting into heads is a view and has no term; what works
//! on heads says how many. Parameters and weights are leaves, numbered in a [`super::Leaves`] table.

use std::fmt;
use std::str::FromStr;

use egg::{Id, define_language};

define_language! {
    /// One e-node. Operand order is part of the meaning and given with each.
    pub enum Term {
        // -- Operators as authors write them; each can run as a kernel of its own.
        // table tokens
        "gather" = Gather([Id; 2]),
        // w x
        "linear" = Linear([Id; 2]),
        // w x b
        "linear_bias" = LinearBias([Id; 3]),
        // x g eps unit_offset
        "rms_norm" = RmsNorm([Id; 4]),
        // x g eps unit_offset heads
        "head_norm" = HeadNorm([Id; 5]),
        // kind x
        "unary" = Unary([Id; 2]),
        "add" = Add([Id; 2]),
        "sub" = Sub([Id; 2]),
        "mul" = Mul([Id; 2]),
        // factor x
        "scale" = Scale([Id; 2]),
        // cap x
        "softcap" = Softcap([Id; 2]),
        // kind x: rows of a stacked gate and up, interleaved
        "glu" = Glu([Id; 2]),
        // start len x
        "slice" = Slice([Id; 3]),
        // rope heads x
        "rope" = Rope([Id; 3]),
        // state k v
        "cache_write" = CacheWrite([Id; 3]),
        // spec q cache sinks (or nothing)
        "attention" = Attention([Id; 4]),
        // limit x
        "clamp" = Clamp([Id; 2]),
        // x s: one number a token
        "scale_rows" = ScaleRows([Id; 2]),
        // state w b gate_in x gate_out act: `gate_out · act(conv(gate_in · x) + b)`; all but state, w and x may be nothing
        "convolution" = Convolution([Id; 7]),
        // state q k v a b parameters
        "gated_delta" = GatedDelta([Id; 7]),
        // spec scores selection_bias (or nothing)
        "route" = Route([Id; 3]),
        // mixture x routing gate_up b down b: biases may be nothing. Has no kernel: the plans below are its kernels.
        "experts" = Experts([Id; 7]),

        // -- Kernel terms.
        // w prologue epilogue: matrix-vector product in decode, tiled product in prefill
        "matmul" = Matmul([Id; 3]),
        // Prologues. x
        "direct" = Direct([Id; 1]),
        // x g eps unit_offset
        "normed" = Normed([Id; 4]),
        // Epilogues, innermost first.
        "store" = Store,
        // e b
        "plus_bias" = PlusBias([Id; 2]),
        // e r
        "plus" = Plus([Id; 2]),
        // kind e
        "then_unary" = ThenUnary([Id; 2]),
        // factor e
        "then_scale" = ThenScale([Id; 2]),
        // cap e
        "then_softcap" = ThenSoftcap([Id; 2]),
        // kind e
        "then_glu" = ThenGlu([Id; 2]),
        // factor table tokens
        "gather_scaled" = GatherScaled([Id; 3]),
        // x g eps unit_offset r
        "norm_add" = NormAdd([Id; 5]),
        // state rope heads kv_heads qkv; with norms: + gq gk eps unit_offset
        "rope_cache" = RopeCache([Id; 5]),
        "rope_cache_norm" = RopeCacheNorm([Id; 9]),
        // the rotated queries of a rope_cache, and its cache
        "queries_of" = QueriesOf([Id; 1]),
        "cache_of" = CacheOf([Id; 1]),
        // spec q cache: partial results of the parts of the cache
        "attention_split" = AttentionSplit([Id; 3]),
        // spec partials sinks (or nothing)
        "attention_reduce" = AttentionReduce([Id; 3]),

        // Mixtures of experts. route_spec w prologue epilogue selection_bias: scores and routing of one token
        "router" = Router([Id; 5]),
        // Plan "gather": each token visits its experts. mixture routing prologue w b
        "expert_up" = ExpertUp([Id; 5]),
        // mixture routing a w b epilogue
        "expert_down" = ExpertDown([Id; 6]),
        // Plan "grouped": tokens are sorted by expert. mixture routing
        "group" = Group([Id; 2]),
        // mixture groups x w b
        "grouped_up" = GroupedUp([Id; 5]),
        // mixture groups a w b
        "grouped_down" = GroupedDown([Id; 5]),
        // mixture routing y epilogue
        "combine" = Combine([Id; 4]),
        // Plan "dense": every token visits every expert. mixture x w b
        "dense_up" = DenseUp([Id; 4]),
        // mixture routing a w b epilogue
        "dense_down" = DenseDown([Id; 6]),

        Leaf(Leaf),
    }
}

/// Index into the table of leaves. Written `#3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf(pub u32);

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl FromStr for Leaf {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix('#')
            .and_then(|digits| digits.parse().ok())
            .map(Leaf)
            .ok_or_else(|| format!("{text} is no leaf"))
    }
}
