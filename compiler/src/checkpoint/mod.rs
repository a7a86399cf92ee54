//! Checkpoints: Hugging Face directories, GGUF files, or random weights for a bare config.
