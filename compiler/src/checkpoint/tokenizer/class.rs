use serde_json::Value;

/// The classes of transformers 5 that make a tokenizer of their own, where others take `tokenizer.json` as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Any other: the file as it is.
    AsInFile,
    Llama,
    Gemma,
    /// Also of Qwen3 and later.
    Qwen2,
    Gpt2,
    GptNeoX,
    Cohere,
}

impl Class {
    /// As `AutoTokenizer` chooses: what `tokenizer_config.json` or `config.json` names, else the model's own.
    pub fn of(tokenizer_config: &Value, config: &Value) -> Self {
        let named = |config: &Value| {
            config
                .get("tokenizer_class")
                .and_then(Value::as_str)
                .map(str::to_string)
        };
        let model = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        match named(tokenizer_config).or_else(|| named(config)) {
            // These models take no other class, whatever is named.
            Some(_) if matches!(model, "granite" | "granitemoe" | "mistral") => Class::AsInFile,
            Some(name) => Self::named(name.strip_suffix("Fast").unwrap_or(&name)),
            None => Self::of_model(model),
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "LlamaTokenizer" => Class::Llama,
            "GemmaTokenizer" => Class::Gemma,
            "Qwen2Tokenizer" | "Qwen3_5Tokenizer" => Class::Qwen2,
            "GPT2Tokenizer" => Class::Gpt2,
            "GPTNeoXTokenizer" => Class::GptNeoX,
            "CohereTokenizer" => Class::Cohere,
            _ => Class::AsInFile,
        }
    }

    fn of_model(model_type: &str) -> Self {
        match model_type {
            "gemma3" | "gemma3_text" => Class::Gemma,
            "qwen3" | "qwen3_moe" | "qwen3_next" | "qwen3_5" | "qwen3_5_text" | "qwen3_5_moe" | "qwen3_5_moe_text" => {
                Class::Qwen2
            }
            "olmoe" => Class::GptNeoX,
            _ => Class::AsInFile,
        }
    }

    /// The special tokens that the class names where no file does.
    pub fn special_tokens(self) -> &'static [(&'static str, &'static str)] {
        const END: &str = "<|endoftext|>";
        match self {
            Class::AsInFile => &[],
            Class::Llama => &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
            Class::Gemma => &[
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
            ],
            Class::Qwen2 => &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
            Class::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Class::GptNeoX => &[
                ("bos_token", END),
                ("eos_token", END),
                ("unk_token", END),
                ("pad_token", "<|padding|>"),
            ],
            Class::Cohere => &[
                ("bos_token", "<BOS_TOKEN>"),
                ("eos_token", "<|END_OF_TURN_TOKEN|>"),
                ("unk_token", "<UNK>"),
                ("pad_token", "<PAD>"),
            ],
        }
    }
}
