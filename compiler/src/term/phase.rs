/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// A chunk of tokens through the layers.
    Prefill,
    /// One token through the layers.
    Decode,
    /// One row of hidden states to logits.
    Head,
}
