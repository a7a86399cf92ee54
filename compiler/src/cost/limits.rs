//! What no kernel can do. A term over a limit has no price, so that another that can run is taken, and where there is none
//! the reason is said.

use egg::Id;

use crate::kernels::{AttentionShape, AttentionSplitSpec, ConvolutionSpec, GatedDeltaSpec, GroupSpec, RouteKernelSpec};
use crate::term::{Facts, LeafDef, Term, TermGraph, leaf_def};

/// Why there is no kernel for a term of these sizes, if there is none.
pub(super) fn refusal(egraph: &TermGraph, term: &Term) -> Option<String> {
    match term {
        Term::Route([spec, ..]) | Term::Router([spec, ..]) => match leaf_def(egraph, *spec)? {
            LeafDef::Route { spec, experts } => {
                let most = RouteKernelSpec::MOST_EXPERTS;
                let too_many = || format!("a choice of {experts} experts; kernels choose among at most {most}");
                (*experts > most).then(too_many).or_else(|| {
                    let (chosen, most) = (spec.experts_per_token, RouteKernelSpec::MOST_CHOSEN);
                    (chosen > most).then(|| format!("{chosen} experts for a token; kernels choose at most {most}"))
                })
            }
            _ => None,
        },
        Term::Group([mixture, ..]) => match leaf_def(egraph, *mixture)? {
            LeafDef::Mixture { experts, .. } => {
                let most = GroupSpec::MOST_EXPERTS;
                (*experts > most).then(|| format!("tokens of {experts} experts; kernels sort at most {most}"))
            }
            _ => None,
        },
        Term::Attention([spec, q, ..]) | Term::AttentionSplit([spec, q, ..]) => {
            let width = head_width(egraph, *spec, *q)?;
            let wide = width > AttentionShape::MOST_WIDTH;
            let odd = matches!(term, Term::AttentionSplit(_)) && !AttentionSplitSpec::holds(width);
            (wide || odd).then(|| {
                let most = AttentionShape::MOST_WIDTH;
                format!("attention heads of {width} elements; kernels hold at most {most}")
            })
        }
        Term::Convolution([state, ..]) => match leaf_def(egraph, *state)? {
            LeafDef::Taps { taps, .. } => {
                let able = ConvolutionSpec::TAPS;
                let (fewest, most) = (able.start(), able.end());
                (!able.contains(taps)).then(|| format!("a convolution of {taps} taps; kernels have {fewest} to {most}"))
            }
            _ => None,
        },
        Term::GatedDelta([state, ..]) => match leaf_def(egraph, *state)? {
            LeafDef::Delta { key_dim, .. } => {
                let most = GatedDeltaSpec::MOST_KEY_DIM;
                (*key_dim > most).then(|| format!("delta-rule keys of {key_dim} elements; kernels hold at most {most}"))
            }
            _ => None,
        },
        _ => None,
    }
}

fn head_width(egraph: &TermGraph, spec: Id, q: Id) -> Option<u32> {
    match (leaf_def(egraph, spec)?, egraph[q].data) {
        (LeafDef::Attention { heads, .. }, Facts::Activation { width }) => width.checked_div(*heads),
        _ => None,
    }
}
