//! What a term costs on a device. It reads terms and their facts; rewriting does not see it and asks for [`Prices`].
//!
//! A kernel costs `launch + max(bytes / bandwidth, operations / peak) / occupancy`, in picoseconds. Parameters,
//! views, prologues and epilogues are part of the kernel around them: they cost what they read more.

mod limits;
mod mixture;
mod profile;

pub use mixture::tile_height;
pub use profile::{Profile, UnknownProfile};

use crate::kernels::{AttentionPrefillSpec, AttentionSplitSpec};
use crate::term::{Facts, LeafDef, Phase, Prices, Term, TermGraph, leaf_def};
use egg::Id;

/// Time that the tiled kernel takes for each position when one token attends in one dispatch: it has one query to work
/// on, so it waits. Measured on an H100: 71 µs for 512 positions.
const ATTENTION_POSITION_PS: u64 = 130_000;

/// Positions beyond which attention is priced no dearer, and the highest price, minutes: sums and products of prices stay
/// far below what a number holds, whatever a config says.
const MOST_CONTEXT: u64 = 1 << 24;
const LONGEST_PS: u64 = 1 << 48;

/// Prices for one phase on one device.
#[derive(Clone, Debug)]
pub struct Costs<'a> {
    pub profile: &'a Profile,
    pub phase: Phase,
    /// Tokens of a prefill chunk.
    pub chunk: u64,
    /// Positions in the cache that attention is priced at.
    pub context: u64,
}

/// Work of a kernel.
struct Work {
    bytes: u64,
    operations: u64,
    workgroups: u64,
}

impl Prices for Costs<'_> {
    fn phase(&self) -> Phase {
        self.phase
    }

    fn price(&self, egraph: &TermGraph, term: &Term) -> Option<u64> {
        if limits::refusal(egraph, term).is_some() {
            return None;
        }
        let facts = |id: &Id| egraph[*id].data;
        let tokens = self.tokens();
        let elementwise = |inputs: u64, width: u32| {
            let elements = tokens * u64::from(width);
            Work {
                bytes: (inputs + 1) * elements * 4,
                operations: elements * 8,
                workgroups: elements.div_ceil(256),
            }
        };
        let rows = |width: u32, per_token: u64| Work {
            workgroups: tokens * per_token,
            ..elementwise(1, width)
        };
        let work = match term {
            // The plans of a mixture are its kernels.
            Term::Experts(_) => return None,
            Term::Leaf(_) | Term::Slice(_) | Term::Direct(_) | Term::Store => return Some(0),
            Term::QueriesOf(_) | Term::CacheOf(_) => return Some(0),
            Term::ThenUnary(_) | Term::ThenScale(_) | Term::ThenSoftcap(_) | Term::ThenGlu(_) => return Some(0),
            Term::Normed([x, ..]) => return Some(self.transfer(u64::from(facts(x).width()) * 4)),
            Term::PlusBias([_, b]) => return Some(self.transfer(u64::from(vector_len(facts(b))) * 4)),
            Term::Plus([_, r]) => return Some(self.transfer(tokens * u64::from(facts(r).width()) * 4)),
            Term::Gather([table, _]) | Term::GatherScaled([_, table, _]) => match facts(table) {
                Facts::Matrix { cols, .. } => rows(cols, 1),
                _ => return None,
            },
            Term::Linear([w, _]) | Term::LinearBias([w, ..]) | Term::Matmul([w, ..]) => self.product(facts(w))?,
            Term::RmsNorm([x, ..]) => rows(facts(x).width(), 1),
            Term::NormAdd([x, ..]) => Work {
                bytes: tokens * u64::from(facts(x).width()) * 12,
                ..rows(facts(x).width(), 1)
            },
            Term::HeadNorm([x, _, _, _, heads]) | Term::Rope([_, heads, x]) => {
                rows(facts(x).width(), count(egraph, *heads))
            }
            Term::Unary([_, x]) | Term::Scale([_, x]) | Term::Softcap([_, x]) | Term::Clamp([_, x]) => {
                elementwise(1, facts(x).width())
            }
            Term::Add([x, _]) | Term::Sub([x, _]) | Term::Mul([x, _]) | Term::ScaleRows([x, _]) => {
                elementwise(2, facts(x).width())
            }
            Term::Convolution([_, _, _, gate_in, x, gate_out, _]) => {
                let gates = [gate_in, gate_out]
                    .into_iter()
                    .filter(|gate| facts(gate).width() > 0)
                    .count();
                return Some(self.kernel(elementwise(1 + gates as u64, facts(x).width())) + self.state_write());
            }
            Term::GatedDelta([state, ..]) => self.gated_delta(egraph, *state)?,
            Term::Route([spec, ..]) => rows(self.experts(egraph, *spec), 1),
            Term::Router([spec, w, ..]) => return self.router(self.experts(egraph, *spec), facts(w)),
            Term::ExpertUp([mixture, _, _, w, _]) | Term::ExpertDown([mixture, _, _, w, ..]) => {
                self.gathered(egraph, *mixture, facts(w))?
            }
            Term::Group([mixture, _]) => return self.sorting(egraph, *mixture),
            Term::GroupedUp([mixture, _, _, w, _]) | Term::GroupedDown([mixture, _, _, w, _]) => {
                self.grouped(egraph, *mixture, facts(w))?
            }
            Term::Combine([mixture, _, y, _]) => {
                let k = self.experts_per_token(egraph, *mixture)?;
                elementwise(k, facts(y).width() / k.max(1) as u32)
            }
            Term::DenseUp([_, _, w, _]) | Term::DenseDown([_, _, _, w, ..]) => self.all_experts(facts(w))?,
            // Interleaved rows have no kernel of their own: the product around them joins them.
            Term::Glu(_) => return None,
            Term::CacheWrite([_, k, v]) => elementwise(1, facts(k).width() + facts(v).width()),
            Term::RopeCache([.., x]) => rows(facts(x).width(), 8),
            Term::RopeCacheNorm([_, _, _, _, x, ..]) => rows(facts(x).width(), 8),
            Term::Attention([spec, q, cache, _]) if self.tokens() == 1 => {
                let work = self.attention(egraph, *spec, facts(q), facts(cache));
                let serial = self.seen(egraph, *spec) * ATTENTION_POSITION_PS;
                return Some(self.kernel(work).max(self.profile.launch_ns * 1000 + serial));
            }
            Term::Attention([spec, q, cache, _]) => self.attention(egraph, *spec, facts(q), facts(cache)),
            Term::AttentionSplit([spec, q, cache]) => self.attention_split(egraph, *spec, facts(q), facts(cache)),
            Term::AttentionReduce([spec, partials, _]) => Work {
                bytes: u64::from(facts(partials).width()) * 4 * self.splits(egraph, *spec),
                ..rows(facts(partials).width(), u64::from(heads(egraph, *spec).0))
            },
        };
        Some(self.kernel(work))
    }

    fn refusal(&self, egraph: &TermGraph, term: &Term) -> Option<String> {
        limits::refusal(egraph, term)
    }
}

impl Costs<'_> {
    /// Tokens of a step in this phase.
    fn tokens(&self) -> u64 {
        if self.phase == Phase::Prefill { self.chunk } else { 1 }
    }

    /// Parts that decode divides the cache into, a power of two: enough that a quarter of the workgroups which the
    /// device holds are busy, but no more, since joining many parts takes longer than they save (measured on an H100:
    /// 6 µs for 16 parts, 10 µs for 32). Up to four query heads that share a key/value head share a workgroup.
    pub fn attention_splits(&self, heads: u32, kv_heads: u32) -> u32 {
        let groups = groups_of_heads(heads, kv_heads);
        let wanted = (self.profile.resident_workgroups / 4 / groups).max(1);
        (wanted.next_power_of_two() as u32).clamp(4, 32)
    }

    fn splits(&self, egraph: &TermGraph, spec: Id) -> u64 {
        let (heads, kv_heads) = heads(egraph, spec);
        u64::from(self.attention_splits(heads, kv_heads))
    }

    fn product(&self, weight: Facts) -> Option<Work> {
        let Facts::Matrix { rows, cols, format } = weight else {
            return None;
        };
        let (rows, cols, tokens) = (u64::from(rows), u64::from(cols), self.tokens());
        let weight = format.data_bytes(rows, cols) + format.scale_bytes(rows, cols);
        Some(Work {
            bytes: weight + tokens * (rows + cols) * 4,
            operations: 2 * rows * cols * tokens,
            workgroups: if tokens == 1 {
                rows.div_ceil(4)
            } else {
                rows.div_ceil(64) * tokens.div_ceil(64)
            },
        })
    }

    /// The tiled kernel: a workgroup for some queries of each head. Heads that share a key/value head run side by side
    /// and find its rows in the device's cache.
    fn attention(&self, egraph: &TermGraph, spec: Id, q: Facts, cache: Facts) -> Work {
        let queries = self.tokens().div_ceil(AttentionPrefillSpec::QUERIES.into());
        let (heads, _) = heads(egraph, spec);
        Work {
            workgroups: u64::from(heads) * queries,
            ..self.attend(egraph, spec, q, cache, 1)
        }
    }

    /// By parts of the cache: each group of query heads reads it once.
    fn attention_split(&self, egraph: &TermGraph, spec: Id, q: Facts, cache: Facts) -> Work {
        let (heads, kv_heads) = heads(egraph, spec);
        let groups = groups_of_heads(heads, kv_heads);
        Work {
            workgroups: groups * self.splits(egraph, spec),
            ..self.attend(egraph, spec, q, cache, groups / u64::from(kv_heads.max(1)))
        }
    }

    /// What attending reads, with the cache read so many times, and computes.
    fn attend(&self, egraph: &TermGraph, spec: Id, q: Facts, cache: Facts, reads: u64) -> Work {
        let cache = match cache {
            Facts::Cache { width } => u64::from(width),
            _ => 0,
        };
        let (tokens, seen) = (self.tokens(), self.seen(egraph, spec));
        Work {
            bytes: reads * seen * cache * 4 + tokens * u64::from(q.width()) * 8,
            operations: 4 * tokens * seen * u64::from(q.width()),
            workgroups: 1,
        }
    }

    /// Positions of the cache that a step attends to.
    fn seen(&self, egraph: &TermGraph, spec: Id) -> u64 {
        let window = match leaf_def(egraph, spec) {
            Some(LeafDef::Attention { spec, .. }) => spec.window.map_or(u64::MAX, |window| window as u64),
            _ => u64::MAX,
        };
        self.context.min(MOST_CONTEXT).min(window.saturating_add(self.tokens()))
    }

    fn transfer(&self, bytes: u64) -> u64 {
        quotient(bytes, self.profile.bandwidth_gb_s)
    }

    fn kernel(&self, work: Work) -> u64 {
        let compute = quotient(work.operations, self.profile.f32_gflop_s);
        let busy = self.transfer(work.bytes).max(compute);
        let resident = self.profile.resident_workgroups.max(1);
        let used = work.workgroups.clamp(1, resident);
        (self.profile.launch_ns * 1000)
            .saturating_add(busy.saturating_mul(resident) / used)
            .min(LONGEST_PS)
    }
}

/// Picoseconds for so much at `rate` 10⁹ a second.
fn quotient(amount: u64, rate: u64) -> u64 {
    let picoseconds = u128::from(amount) * 1000 / u128::from(rate.max(1));
    u64::try_from(picoseconds).unwrap_or(u64::MAX).min(LONGEST_PS)
}

fn vector_len(facts: Facts) -> u32 {
    match facts {
        Facts::Vector { len } => len,
        _ => 0,
    }
}

fn count(egraph: &TermGraph, id: Id) -> u64 {
    match leaf_def(egraph, id) {
        Some(LeafDef::Count(count)) => u64::from(*count),
        _ => 1,
    }
}

/// Query heads and key/value heads of an attention.
fn heads(egraph: &TermGraph, spec: Id) -> (u32, u32) {
    match leaf_def(egraph, spec) {
        Some(LeafDef::Attention { heads, kv_heads, .. }) => (*heads, *kv_heads),
        _ => (1, 1),
    }
}

/// Workgroups that share the query heads in split attention.
fn groups_of_heads(heads: u32, kv_heads: u32) -> u64 {
    let kv_heads = kv_heads.max(1);
    u64::from(kv_heads) * u64::from(AttentionSplitSpec::groups_of(heads / kv_heads))
}
