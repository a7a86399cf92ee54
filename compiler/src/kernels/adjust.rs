//! What a generation asks of the logits before a token is sampled: biases, penalties and bans, in transformers' order.
//!
//! Three dispatches, since each may change a logit that the one before has changed: rules, penalties, n-grams. They look
//! back at the history of tokens, which the host writes before it generates and the first of them continues: so no
//! token id has to come back to the host between steps.
//!
//! ```text
//! position   0      1      2      3      4
//! token      7      5      7      9      5        `x` of the history's pairs
//! first      1      2      0      2      0        `y`: not 0 at a token's first place: 1 + how often it was sampled
//! ```
//!
//! (Here 7, 5 and 7 were fed, 9 and 5 sampled.) Penalties go over the positions with a `y` and so meet every token once.

use kiln_bundle::{Access, RuleWord, StepWord};

use super::Capability;
use super::builder::{Array, Bool, Builder, F32, KernelError, KernelSource, U32};
use super::step::Step;

const THREADS: u32 = 256;

/// Tokens before the one to be sampled.
fn history_length<'b>(step: Step<'b>) -> U32<'b> {
    (step.word(StepWord::Position) + step.word(StepWord::Tokens)).named("length")
}

/// The rules buffer. What is read from it is uniform where the index is.
#[derive(Clone, Copy)]
struct Rules<'b>(Array<'b, u32>);

impl<'b> Rules<'b> {
    fn bind(b: &'b Builder) -> Self {
        Rules(b.storage::<u32>("rules", Access::Read))
    }

    fn word(self, word: RuleWord) -> U32<'b> {
        self.0.load(word as u32)
    }

    fn number(self, word: RuleWord) -> F32<'b> {
        self.word(word).bitcast::<f32>()
    }

    /// Word `field` of rule `index`.
    fn field(self, index: U32<'b>, field: u32) -> U32<'b> {
        self.0
            .load(index * RuleWord::PER_RULE as u32 + (RuleWord::COUNT as u32 + field))
    }
}

pub fn build_rules(capability: Capability) -> Result<KernelSource, KernelError> {
    let b = Builder::new("token_rules", THREADS, capability);
    TokenRules {
        b: &b,
        step: Step::bind(&b),
        tokens: b.storage::<u32>("tokens", Access::Read),
        rules: Rules::bind(&b),
        history: b.storage::<[u32; 2]>("history", Access::ReadWrite),
        logits: b.storage::<f32>("logits", Access::ReadWrite),
    }
    .body();
    b.finish()
}

struct TokenRules<'b> {
    b: &'b Builder,
    step: Step<'b>,
    tokens: Array<'b, u32>,
    rules: Rules<'b>,
    history: Array<'b, [u32; 2]>,
    logits: Array<'b, f32>,
}

impl<'b> TokenRules<'b> {
    fn body(self) {
        let b = self.b;
        let length = history_length(self.step);
        let sampled = self.step.word(StepWord::Output).named("sampled");
        let newest = self.tokens.load(0).named("newest");
        // The first token to be sampled follows what was fed, which the host has written.
        let appends = sampled.gt(0).named("appends");
        b.if_(appends, || self.append(newest, length - 1));

        let count = self.rules.word(RuleWord::Count).named("count");
        b.range("rule", b.thread(), count, THREADS, |rule| {
            let id = self.rules.field(rule, 0).named("id");
            // One thread takes all rules of a token: they change the same logit.
            let begins = rule.eq(0) | self.rules.field(rule.max(1) - 1, 0).ne(id);
            b.if_(begins, || {
                let bias = b.variable("bias", 0.0);
                let next = b.variable("next", rule);
                b.repeat(|| {
                    let current = next.load().named("current");
                    b.break_if(current.ge(count));
                    b.break_if(self.rules.field(current, 0).ne(id));
                    let holds = self.holds(current, sampled, length, appends, newest);
                    b.if_(holds, || bias.add(self.rules.field(current, 1).bitcast::<f32>()));
                    next.store(current + 1);
                });
                self.logits.at(id).add(bias.load());
            });
        });
    }

    /// Puts the token sampled last at its place in the history, and counts it at its first place.
    fn append(&self, newest: U32<'b>, place: U32<'b>) {
        let b = self.b;
        let known = b.shared_atomic("known", 1);
        b.range("i", b.thread(), place, THREADS, |i| {
            let entry = self.history.load(i).named("entry");
            b.if_(entry.x().eq(newest) & entry.y().ne(0), || {
                self.history.store(i, b.vector::<[u32; 2]>(&[newest, entry.y() + 1]));
                known.store(0, 1);
            });
        });
        b.barrier();
        b.if_(b.thread().eq(0), || {
            let first = known.load(0).ne(0).select(0, 2).named("first");
            self.history.store(place, b.vector::<[u32; 2]>(&[newest, first]));
        });
    }

    /// Whether it is early enough in the answer for the rule, and the tokens before are those that it asks for.
    fn holds(&self, rule: U32<'b>, sampled: U32<'b>, length: U32<'b>, appends: Bool<'b>, newest: U32<'b>) -> Bool<'b> {
        let b = self.b;
        let [early, ids, before] = [2, 3, 4].map(|field| self.rules.field(rule, field));
        let (ids, before) = (ids.named("ids"), before.named("before"));
        let unlike = b.variable("unlike", (sampled.ge(early) | before.gt(length)).select(1, 0));
        b.range("place", 0, unlike.load().eq(0).select(before, 0), 1, |place| {
            let at = (length - before + place).named("at");
            // This dispatch may be writing the newest one: it is taken from where it was sampled.
            let is_newest = appends & at.eq(length - 1);
            let token = is_newest.select(newest, self.history.load(at).x());
            b.if_(token.ne(self.rules.0.load(ids + place)), || unlike.store(1));
        });
        unlike.load().eq(0)
    }
}

pub fn build_penalties(groups: u32, capability: Capability) -> Result<KernelSource, KernelError> {
    let b = Builder::new(format!("penalties_by{groups}"), THREADS, capability);
    penalties(&b, groups);
    b.finish()
}

fn penalties(b: &Builder, groups: u32) {
    let step = Step::bind(b);
    let history = b.storage::<[u32; 2]>("history", Access::Read);
    let rules = Rules::bind(b);
    let logits = b.storage::<f32>("logits", Access::ReadWrite);

    let repetition = rules.number(RuleWord::RepetitionPenalty).named("repetition");
    let presence = rules.number(RuleWord::PresencePenalty).named("presence");
    let frequency = rules.number(RuleWord::FrequencyPenalty).named("frequency");
    let asked = repetition.ne(1.0) | presence.ne(0.0) | frequency.ne(0.0);
    let end = asked.select(history_length(step), 0).named("end");
    let start = b.group().x() * THREADS + b.thread();
    b.range("i", start, end, groups * THREADS, |i| {
        let entry = history.load(i).named("entry");
        b.if_(entry.y().ne(0), || {
            let logit = logits.load(entry.x()).named("logit");
            let repeated = logit.lt(0.0).select(logit * repetition, logit / repetition);
            let times = (entry.y() - 1).cast::<f32>().named("times");
            logits.store(entry.x(), repeated - times * frequency - times.min(1.0) * presence);
        });
    });
}

pub fn build_repeat_ban(groups: u32, capability: Capability) -> Result<KernelSource, KernelError> {
    let b = Builder::new(format!("repeat_ban_by{groups}"), THREADS, capability);
    repeat_ban(&b, groups);
    b.finish()
}

/// Each place where the last `n - 1` tokens stood before rules out what followed them there.
fn repeat_ban(b: &Builder, groups: u32) {
    let step = Step::bind(b);
    let history = b.storage::<[u32; 2]>("history", Access::Read);
    let rules = Rules::bind(b);
    // Several places may rule out one token.
    let logits = b.storage_atomic("logits");

    let length = history_length(step);
    let n = rules.word(RuleWord::NoRepeatNgram).named("n");
    let places = (n.gt(0) & n.le(length)).select(length - n + 1, 0).named("places");
    let start = b.group().x() * THREADS + b.thread();
    b.range("i", start, places, groups * THREADS, |i| {
        let unlike = b.variable("unlike", 0);
        b.range("j", 0, n - 1, 1, |j| {
            let (there, last) = (history.load(i + j).x(), history.load(length - n + 1 + j).x());
            b.if_(there.ne(last), || unlike.store(1));
            b.break_if(unlike.load().ne(0));
        });
        b.if_(unlike.load().eq(0), || {
            logits.store(history.load(i + n - 1).x(), f32::NEG_INFINITY.to_bits());
        });
    });
}
