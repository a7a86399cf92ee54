/// Words (u32, or the bits of an f32) of the step buffer: all that changes from one token to the next.
///
/// The host writes it before a prefill chunk; the last dispatch of `sample` advances it on the GPU
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
}

impl StepWord {
    /// Length of the step buffer in words.
    pub const COUNT: usize = 8;
}
