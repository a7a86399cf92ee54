/// Words (u32, or the bits of an f32) of the step buffer: all that changes from one token to the next.
///
/// The host writes it before a prefill chunk; the last dispatch of `greedy` and `sample` advances it on the GPU
/// (`Position += Tokens; Tokens = 1; Row = 0; Output += 1`), so decode steps follow each other unaided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StepWord {
    /// Position of the first token of this step in the sequence.
    Position = 0,
    /// Number of tokens in this step: 1 in decode, up to the chunk size in prefill.
    Tokens = 1,
    /// Row of the hidden states that `head` turns into logits.
    Row = 2,
    /// How many tokens were sampled so far; slot in the output ring is this modulo its length.
    Output = 3,
    /// Seed of the sampler (u32).
    Seed = 4,
    /// Temperature (f32 bits); 0 is greedy.
    Temperature = 5,
    /// Keep the k most likely tokens; 0 keeps all.
    TopK = 6,
    /// Keep the smallest set of tokens with this probability mass (f32 bits); 1 keeps all.
    TopP = 7,
    /// Keep the tokens at least this times as likely as the most likely one (f32 bits); 0 keeps all.
    MinP = 8,
}

impl StepWord {
    /// Length of the step buffer in words.
    pub const COUNT: usize = 9;
}

/// Words (u32, or the bits of an f32) at the start of the rules buffer: what `adjust` does to the logits. The host writes
/// the buffer before it generates with `adjust`.
///
/// After these come `Count` rules of [`RuleWord::PER_RULE`] words, those of one token side by side: the token's id, the
/// bias (f32 bits; minus infinity rules it out), how many tokens may have been sampled at most for it to hold, and where
/// in the buffer (in words) the ids lie that must come right before, and how many they are. Behind the rules lie those ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RuleWord {
    /// Divides the positive logits of tokens that occurred, multiplies the others (f32 bits); 1 does nothing.
    RepetitionPenalty = 0,
    /// Taken from the logits of tokens that were sampled (f32 bits).
    PresencePenalty = 1,
    /// Taken from the logits of tokens that were sampled, as often as they were (f32 bits).
    FrequencyPenalty = 2,
    /// Rules out what would complete a sequence of so many tokens that occurred; 0 rules out nothing.
    NoRepeatNgram = 3,
    /// Rules that follow.
    Count = 4,
}

impl RuleWord {
    /// Words before the rules.
    pub const COUNT: usize = 5;
    /// Words of a rule.
    pub const PER_RULE: usize = 5;
}

/// In place of a sampled id: a logit was not a number, or infinitely large.
pub const NOT_FINITE: u32 = u32::MAX;
/// In place of a sampled id: all tokens were ruled out.
pub const RULED_OUT: u32 = u32::MAX - 1;
