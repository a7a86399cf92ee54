//! The Rust module that a program takes in.

use std::fs;
use std::io;
use std::path::Path;

use kiln_bundle::{MANIFEST_FILE, Manifest};

use crate::BuildError;

/// Programs address their constants with 31 bits, the code among them.
const MOST_BYTES: u64 = 3 << 29;

/// Where the program has the bundle's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embedding {
    /// In itself.
    Inside,
    /// In a folder.
    Beside,
}

/// Whether a name can be that of a module.
pub fn check_name(name: &str) -> Result<(), BuildError> {
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if begins
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    {
        return Ok(());
    }
    Err(BuildError::Name { name: name.to_string() })
}

/// The text of the module. It lies beside the bundle `NAME.kiln` in `OUT_DIR`, which only Cargo knows.
pub fn text(name: &str, folder: &Path, manifest: &Manifest, embedding: Embedding) -> Result<String, BuildError> {
    let model = &manifest.model;
    let weights: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
    let digest = file_digest(&folder.join(MANIFEST_FILE))?;
    let mut text = format!(
        "\
// Written by kiln-build. A program takes it in with `kiln_runtime::include_bundle!(mod {name})`.

/// Name of the model.
pub const NAME: &str = {:?};
/// Hugging Face's name of its architecture.
pub const ARCHITECTURE: &str = {:?};
/// How its weight matrices are stored.
pub const QUANTIZATION: &str = {:?};
pub const PARAMETERS: u64 = {};
pub const LAYERS: u32 = {};
pub const HIDDEN_SIZE: u32 = {};
/// Token ids are below it; a row of logits has so many.
pub const VOCAB_SIZE: u32 = {};
/// Positions that the model was made for.
pub const MAX_CONTEXT: u32 = {};
/// Positions of a session unless asked for another number.
pub const DEFAULT_CONTEXT: u32 = {};
/// Most tokens of a prefill step.
pub const CHUNK: u32 = {};
/// Generation stops at any of these.
pub const EOS_TOKEN_IDS: &[u32] = &{:?};
pub const BOS_TOKEN_ID: Option<u32> = {:?};
/// Bytes of the packed weights.
pub const WEIGHT_BYTES: u64 = {weights};
/// The bundle's folder on the machine that built the program.
pub const FOLDER: &str = concat!(env!(\"OUT_DIR\"), \"/{name}.kiln\");
/// SHA-256 of the bundle's manifest, which has those of its other files.
pub const MANIFEST_SHA256: &str = {digest:?};
",
        model.name,
        model.architecture,
        model.quantization,
        model.parameters,
        model.layers,
        model.hidden_size,
        model.vocab_size,
        model.max_context,
        model.default_context,
        model.chunk,
        model.eos_token_ids,
        model.bos_token_id,
    );
    text += &variants(manifest);
    text += &match embedding {
        Embedding::Inside => inside(name, folder)?,
        Embedding::Beside => beside(name),
    };
    text += "
/// Opens the bundle: reads its manifest.
///
/// # Errors
/// Its files are not there or were changed.
pub async fn open() -> Result<::kiln_runtime::Bundle<Source>, ::kiln_runtime::Error> {
    ::kiln_runtime::Bundle::open(source()).await
}
";
    Ok(text)
}

/// The variants that there are, so that another one does not compile.
fn variants(manifest: &Manifest) -> String {
    let variants: Vec<(String, &str)> = (manifest.variants.iter())
        .map(|variant| (capitalized(&variant.name), variant.name.as_str()))
        .collect();
    let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
    let arms: String = (variants.iter())
        .map(|(name, text)| format!("            Variant::{name} => {text:?},\n"))
        .collect();
    format!(
        "
/// The variants of the kernels, the most demanding first. `DeviceOptions::variant` takes their `name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {{
    {},
}}

impl Variant {{
    pub const ALL: &[Variant] = &[{}];

    pub fn name(self) -> &'static str {{
        match self {{
{arms}        }}
    }}
}}
",
        names.join(",\n    "),
        names
            .iter()
            .map(|name| format!("Variant::{name}"))
            .collect::<Vec<_>>()
            .join(", "),
    )
}

fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn inside(name: &str, folder: &Path) -> Result<String, BuildError> {
    let mut files = Vec::new();
    let mut bytes = 0;
    list(folder, "", &mut files, &mut bytes).map_err(BuildError::io(folder))?;
    if bytes > MOST_BYTES {
        return Err(BuildError::TooLarge {
            name: name.to_string(),
            bytes,
            most: MOST_BYTES,
        });
    }
    files.sort_unstable();
    let files: String = files
        .iter()
        .map(|file| format!("    ({file:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.kiln/{file}\"))),\n"))
        .collect();
    Ok(format!(
        "
/// The bundle's files, by their names.
pub static FILES: &[(&str, &[u8])] = &[
{files}];

/// Where the bundle's files come from: this program.
pub type Source = ::kiln_runtime::MemorySource;

/// The bytes of a file of the bundle.
pub fn file(name: &str) -> Option<&'static [u8]> {{
    FILES.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}}

pub fn source() -> Source {{
    FILES.iter().copied().collect()
}}
"
    ))
}

fn beside(name: &str) -> String {
    format!(
        "
/// Where the bundle's files come from: the folder `{name}.kiln` beside the program, or else [`FOLDER`].
pub type Source = ::kiln_runtime::DirectorySource;

pub fn source() -> Source {{
    ::kiln_runtime::DirectorySource::beside_program(\"{name}.kiln\", FOLDER)
}}
"
    )
}

/// All files below a folder, with forward slashes, and their bytes.
fn list(folder: &Path, within: &str, files: &mut Vec<String>, bytes: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{within}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            list(&entry.path(), &format!("{name}/"), files, bytes)?;
        } else {
            *bytes += metadata.len();
            files.push(name);
        }
    }
    Ok(())
}

/// SHA-256 of a file, in hexadecimal.
pub fn file_digest(path: &Path) -> Result<String, BuildError> {
    let bytes = fs::read(path).map_err(BuildError::io(path))?;
    Ok(kiln_bundle::sha256_hex(&bytes))
}
