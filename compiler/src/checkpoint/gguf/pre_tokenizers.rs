//! How text is cut before byte-level BPE merges, by the name that a file gives in `tokenizer.ggml.pre`.
//!
//! The names, and which of them mean the same, are llama.cpp's (`llama-vocab.cpp`). The patterns are those of the models'
//! published `tokenizer.json`, which llama.cpp's come from; they are written so that Rust's and JavaScript's regular
//! expressions read them alike.

use serde_json::{Value, json};

use super::metadata::Metadata;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::tokenizer::{byte_level, isolate};

/// One way to cut text.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    cuts: &'static [Cut],
    normalization: Normalization,
    /// Whether a word that is a token needs no merges to become it.
    pub ignore_merges: bool,
    /// Whether text starts with the beginning-of-sequence token where the file does not say.
    pub bos: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Normalization {
    None,
    Nfc,
}
use Normalization::{Nfc, None as Plain};

/// A step: each cuts the pieces that the one before has left.
enum Cut {
    /// Isolates what the pattern matches.
    Match(&'static str),
    /// GPT-2's words, and their bytes.
    Words,
}
use Cut::{Match, Words};

impl PreTokenizer {
    /// What the file names; llama.cpp's default where it names nothing, as files of before April 2024 do.
    ///
    /// # Errors
    /// A name that is not in the table.
    pub fn of(metadata: &Metadata<'_>) -> Result<&'static Self, CheckpointError> {
        let name = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
        TABLE.iter().find(|entry| entry.names.contains(&name)).ok_or_else(|| {
            metadata.unsupported(format!(
                "Kiln does not know the pre-tokenizer {name:?}, so text would become other tokens than the model was \
                 trained on; use the Hugging Face directory of the model"
            ))
        })
    }

    pub fn normalizer(&self) -> Value {
        match self.normalization {
            Plain => Value::Null,
            Nfc => json!({ "type": "NFC" }),
        }
    }

    pub fn steps(&self) -> Value {
        let cut = |cut: &Cut| match cut {
            Match(pattern) => isolate(pattern),
            Words => byte_level(true),
        };
        let mut steps: Vec<Value> = self.cuts.iter().map(cut).collect();
        if !self.cuts.iter().any(|cut| matches!(cut, Words)) {
            steps.push(byte_level(false));
        }
        match <[Value; 1]>::try_from(steps) {
            Ok([only]) => only,
            Err(steps) => json!({ "type": "Sequence", "pretokenizers": steps }),
        }
    }
}

/// Contractions, words, digits by `$digits`, signs, line ends, spaces.
macro_rules! words {
    ($digits:literal) => {
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// Words by their case, with `$contraction` behind them, digits by `$digits`, signs with the line ends of `$ends` behind them.
macro_rules! cased {
    ($contraction:literal, $digits:literal, $ends:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $contraction,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $contraction,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+",
            $ends,
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// Words of letters and marks, signs by category: DeepSeek V3 and what came of it.
macro_rules! by_category {
    ($rest:literal) => {
        concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"##,
            $rest,
            r"|\s+(?!\S)|\s+"
        )
    };
}

/// One digit. The `Digits` step knows only ASCII's in JavaScript.
const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = words!(r"\p{N}{1,3}");
const QWEN2: &str = words!(r"\p{N}");
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// GPT-4o's and GPT-OSS's: `o200k_base` in
/// <https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py>.
const O200K: &str = cased!("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}", r"[\r\n/]*");
const TEKKEN: &str = cased!("", r"\p{N}", r"[\r\n/]*");
const DEEPSEEK_V3: &str = by_category!(r"[\r\n]*|\s*[\r\n]+");
/// Digits in threes from the right.
const THREES_FROM_THE_RIGHT: &str = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
const HAN_AND_KANA: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
/// `o200k_base` with Han characters as words of their own.
const KIMI: &str = concat!(
    r"\p{Script=Han}+",
    r"|[^\r\n\p{L}\p{N}]?(?:(?!\p{Script=Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])*",
    r"(?:(?!\p{Script=Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?(?:(?!\p{Script=Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])+",
    r"(?:(?!\p{Script=Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Letters of the scripts that have two cases.
const CASED_LETTERS: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1f7d}ᾀ-ᾴᾶ-ᾼ\u{1fbe}ῂ-ῄ",
    r"ῆ-ῌῐ-\u{1fd3}ῖ-\u{1fdb}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212a}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ",
    r"𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
);

const fn entry(names: &'static [&'static str], cuts: &'static [Cut]) -> PreTokenizer {
    PreTokenizer {
        names,
        cuts,
        normalization: Plain,
        ignore_merges: false,
        bos: false,
    }
}

#[rustfmt::skip]
const TABLE: &[PreTokenizer] = &[
    entry(&["default"], &[
        Match(r"[\p{P}$+<=>^~|]+"),
        Match(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
        Match(r"\p{N}+"),
        Match("[0-9][0-9][0-9]"),
    ]),
    PreTokenizer { ignore_merges: true, bos: true, ..entry(
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
        &[Match(LLAMA3)],
    ) },
    entry(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[Match(LLAMA3)]),
    PreTokenizer { normalization: Nfc, ..entry(
        &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"],
        &[Match(QWEN2)],
    ) },
    PreTokenizer { normalization: Nfc, ..entry(&["qwen35"], &[Match(QWEN35)]) },
    entry(&["stablelm2", "hunyuan", "solar-open", "grok-2"], &[Match(QWEN2)]),
    entry(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[Match(O200K)]),
    PreTokenizer { ignore_merges: true, ..entry(&["granite-embed-multi-97m"], &[Match(O200K)]) },
    PreTokenizer { ignore_merges: true, bos: true, ..entry(&["tekken"], &[Match(TEKKEN)]) },
    entry(
        &["gpt-2", "phi-2", "jais", "trillion", "granite-docling", "exaone4", "a.x-4.0", "mellum", "gigachat", "modern-bert",
          "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"],
        &[Words],
    ),
    PreTokenizer { normalization: Nfc, ..entry(&["olmo", "mpt"], &[Words]) },
    entry(
        &["starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[Match(DIGIT), Words],
    ),
    PreTokenizer { normalization: Nfc, ..entry(&["command-r"], &[Match(DIGIT), Words]) },
    entry(&["deepseek-llm"], &[
        Match(r"[\r\n]"),
        Match(CASED_LETTERS),
        Match("\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+"),
        Match(r"\s+$"),
        Match("[一-龥ࠀ-一가-\u{d7ff}]+"),
        Match(DIGIT),
    ]),
    entry(&["deepseek-coder"], &[
        Match(r"[\r\n]"),
        Match(r"\s?\p{L}+"),
        Match(r"\s?\p{P}+"),
        Match("[一-龥ࠀ-一가-\u{d7ff}]+"),
        Match(DIGIT),
    ]),
    entry(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[
        Match(r"\p{N}{1,3}"),
        Match(HAN_AND_KANA),
        Match(DEEPSEEK_V3),
    ]),
    entry(&["spark2_5"], &[
        Match(r"\p{N}{1,3}"),
        Match(HAN_AND_KANA),
        Match(by_category!(r"|[\r\n]")),
        Match(DIGIT),
    ]),
    entry(&["afmoe"], &[
        Match(THREES_FROM_THE_RIGHT),
        Match("[一-鿿㐀-䶿\u{f900}-\u{faff}\u{3040}-ゟ゠-ヿ･-ﾟ⼀-\u{2fdf}เ-\u{e7f}\u{e80}-\u{eff}ក-\u{17ff}က-႟ꩠ-ꩿꧠ-\u{a9ff}가-\u{d7af}ᄀ-ᇿ]+"),
        Match(DEEPSEEK_V3),
    ]),
    PreTokenizer { ignore_merges: true, ..entry(&["youtu"], &[
        Match("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-ゟ゠-ヿ]+"),
        Match(cased!("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}", r"[\r\n/]*")),
    ]) },
    // Its last two steps see bytes, some of which are digits.
    entry(&["falcon"], &[
        Match(r"[\p{P}$+<=>^`|~]+"),
        Words,
        Match(r"\p{N}+"),
        Match("[0-9][0-9][0-9]"),
    ]),
    entry(&["poro-chat", "bloom", "gpt3-finnish"], &[Match(BLOOM)]),
    entry(&["viking"], &[Match(BLOOM), Match(DIGIT)]),
    PreTokenizer { bos: true, ..entry(&["chameleon"], &[
        Match("<sentinel:[0-9]+>"),
        Match("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
        Match(r"([\t\n]|    |  )"),
        Match(DIGIT),
        Match(r"[\p{P}!-/:-@\[-`{-~]"),
        Words,
    ]) },
    entry(&["tiny_aya", "cohere2moe"], &[
        // The published pattern ends in \b, which JavaScript takes for ASCII's.
        Match(r"\p{Nd}{1,3}(?=(?:\p{Nd}{3})*(?![\p{Alphabetic}\p{M}\p{N}\p{Pc}]))"),
        Match(O200K),
    ]),
    entry(&["superbpe"], &[Match(r"\p{N}+"), Match(r"(?=(\p{Nd}{3})+(?!\p{Nd}))")]),
    entry(&["bailingmoe", "bailingmoe2", "llada-moe"], &[Match(concat!(
        r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
        r"\s*[\r\n]|\s+(?!\S)|\s+",
    ))]),
    entry(&["seed-coder"], &[Match(concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|",
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
    ))]),
    entry(&["ufakzeka"], &[Match(
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    )]),
    entry(&["laguna"], &[Match(r"[^\n]+|[\n]+"), Match(QWEN2)]),
    entry(&["exaone-moe"], &[Match(concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|",
        r"\s*[\r\n]|\s+(?!\S)|\s+",
    ))]),
    PreTokenizer { ignore_merges: true, ..entry(&["minicpm5"], &[Match(r"\p{N}{1,3}"), Match(words!(r"\p{N}+"))]) },
    entry(&["jais-2"], &[Match(concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|",
        r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|",
        r"\s{1,2}(?!\S)|\s{1}",
    ))]),
    entry(&["kimi-k2"], &[Match(KIMI)]),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::Deserialize;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

    use super::{Nfc, TABLE, json};

    const PUBLISHED: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../runtime/cases/pre_tokenizers/published.json"
    );
    const STEPS: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../runtime/cases/pre_tokenizers/steps.json"
    );

    /// What Hugging Face's tokenizers make of the published steps.
    #[derive(Deserialize)]
    struct Published {
        texts: Vec<String>,
        /// Names that mean the same, and the lengths of the pieces of each text, in characters.
        splits: BTreeMap<String, Vec<String>>,
    }

    fn lengths(pre_tokenizer: &PreTokenizerWrapper, text: &str) -> String {
        let mut pieces = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut pieces).unwrap();
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Char);
        let ends = pieces.iter().map(|(_, (_, end), _)| *end);
        let mut start = 0;
        let lengths = ends.map(|end| (end - std::mem::replace(&mut start, end)).to_string());
        lengths.collect::<Vec<_>>().join(" ")
    }

    /// JavaScript's tokenizer is tried with the same steps by the package's tests.
    #[test]
    fn steps_are_those_that_the_package_is_tested_with() {
        let lines = TABLE
            .iter()
            .map(|entry| json!({ "names": entry.names, "steps": entry.steps() }).to_string());
        let steps = format!("[\n{}\n]\n", lines.collect::<Vec<_>>().join(",\n"));
        if std::env::var_os("KILN_BLESS").is_some() {
            std::fs::write(STEPS, &steps).unwrap();
        }
        let written = std::fs::read_to_string(STEPS).unwrap();
        assert!(
            written == steps,
            "if this is right, run the test with KILN_BLESS=1 and read the diff"
        );
    }

    #[test]
    fn texts_are_cut_as_published() {
        let published: Published = serde_json::from_str(&std::fs::read_to_string(PUBLISHED).unwrap()).unwrap();
        let mut known: BTreeSet<&str> = TABLE.iter().flat_map(|entry| entry.names).copied().collect();
        assert!(published.texts.len() > 300 && known.len() > 60);
        let mut wrong = Vec::new();
        for (names, splits) in &published.splits {
            for name in names.split(' ') {
                assert!(known.remove(name), "{name}");
                let entry = TABLE.iter().find(|entry| entry.names.contains(&name)).unwrap();
                let steps: PreTokenizerWrapper = serde_json::from_value(entry.steps()).unwrap();
                for (text, expected) in published.texts.iter().zip(splits) {
                    let found = lengths(&steps, text);
                    if found != *expected {
                        wrong.push(format!("{name} {text:?}: {expected}, found {found}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(known.is_empty(), "not compared: {known:?}");
        let composed = TABLE.iter().filter(|entry| entry.normalization == Nfc);
        assert_eq!(composed.flat_map(|entry| entry.names).count(), 9);
    }
}
