//! Everything that reads what a stranger wrote, behind one kind of door: bytes in, and neither a panic nor run-away
//! time or memory, whatever they are. `tests/hostile.rs` walks through each with a bounded number of damaged
//! seeds, `fuzz/` lets libFuzzer look for more.

mod damage;
mod seeds;

use std::path::{Path, PathBuf};

use kiln_bundle::MANIFEST_FILE;
use kiln_compiler::architectures::Registry;
use kiln_compiler::checkpoint::{Checkpoint, TensorSource, View};
use kiln_compiler::compile::{CompileOptions, compile};
use kiln_compiler::progress::Silent;
use kiln_runtime::text::{Message, TextModel};
use kiln_runtime::{Bundle, BundleSource, SavedSession, block_on};

pub use damage::damaged;

/// One way in.
pub struct Door {
    pub name: &'static str,
    /// Reads the bytes as far as they make sense.
    pub enter: fn(&[u8]),
    /// Good inputs to damage.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All ways in.
pub const DOORS: [Door; 7] = [
    Door {
        name: "gguf",
        enter: gguf,
        seeds: seeds::gguf,
    },
    Door {
        name: "safetensors",
        enter: safetensors,
        seeds: seeds::safetensors,
    },
    Door {
        name: "config",
        enter: config,
        seeds: seeds::config,
    },
    Door {
        name: "tokenizer",
        enter: tokenizer,
        seeds: seeds::tokenizer,
    },
    Door {
        name: "template",
        enter: template,
        seeds: seeds::template,
    },
    Door {
        name: "manifest",
        enter: manifest,
        seeds: seeds::manifest,
    },
    Door {
        name: "session",
        enter: session,
        seeds: seeds::session,
    },
];

/// The door of this name.
///
/// # Panics
/// There is none.
pub fn door(name: &str) -> &'static Door {
    DOORS
        .iter()
        .find(|door| door.name == name)
        .expect("a door of this name")
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A folder with these files, in memory where the system has such a place.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a temporary folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("writing a temporary file");
    }
    folder
}

/// What compile-model looks at before it writes anything: architecture, weights, text.
fn read_checkpoint(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return;
    };
    read_text(&checkpoint);
    let registry = Registry::default();
    let Ok(architecture) = registry.for_config(checkpoint.config()) else {
        return;
    };
    let Ok(graph) = architecture.build(checkpoint.config()) else {
        return;
    };
    let stored = checkpoint.stored(&graph.declared_weights());
    let Ok(view) = View::new(&checkpoint, &stored) else {
        return;
    };
    for name in view.names() {
        let rows = view
            .info(&name)
            .map_or(0, |info| info.shape.first().copied().unwrap_or(0));
        let _ = view.read_rows(&name, 0..rows.min(1));
    }
}

/// The tokenizer and template as run-model would use them.
fn read_text(checkpoint: &Checkpoint) {
    let Some(text) = checkpoint.text() else {
        return;
    };
    let model = TextModel::load(
        text.tokenizer_json.as_bytes(),
        text.tokenizer_config_json.as_deref(),
        text.chat_template.as_deref(),
    );
    if let Ok(model) = model {
        use_text(&model);
    }
}

fn use_text(model: &TextModel) {
    if let Ok(ids) = model.encode("Hi, it's 12:30 \u{1F525}\u{0} <s>  x", true) {
        let _ = model.decode(&ids, false);
    }
    let _ = model.decode(&[0, 1, 2, u32::MAX], true);
    let _ = model.render_chat(&[Message::new("system", "Be brief."), Message::new("user", "Hi")], true);
}

fn gguf(bytes: &[u8]) {
    read_checkpoint(&folder(&[("model.gguf", bytes)]).path().join("model.gguf"));
}

fn safetensors(bytes: &[u8]) {
    let config = seeds::tiny_config().to_string();
    let folder = folder(&[("config.json", config.as_bytes()), ("model.safetensors", bytes)]);
    read_checkpoint(folder.path());
}

/// A config goes all the way to kernels.
fn config(bytes: &[u8]) {
    let folder = folder(&[("config.json", bytes)]);
    let mut options = CompileOptions::new(folder.path(), folder.path().join("bundle"));
    options.no_weights = true;
    let _ = compile(&options, &Registry::default(), &Silent);
}

/// The first byte says which file of a checkpoint's text the others are.
fn tokenizer(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    let config = seeds::tiny_config().to_string();
    let good = seeds::read("runtime/cases/text/byte_level.json");
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", config.as_bytes()), ("tokenizer.json", &good)];
    match TEXT_FILES[usize::from(*which) % TEXT_FILES.len()] {
        "tokenizer.json" => files[1].1 = bytes,
        // Without a tokenizer.json this one counts.
        "tokenizer.model" => files[1] = ("tokenizer.model", bytes),
        other => files.push((other, bytes)),
    }
    read_checkpoint(folder(&files).path());
}

/// The files that say how a checkpoint's text becomes ids.
const TEXT_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
];

fn template(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    let tokenizer = seeds::read("runtime/cases/text/byte_level.json");
    let config = r#"{"bos_token": "<s>", "eos_token": "</s>"}"#;
    if let Ok(model) = TextModel::load(&tokenizer, Some(config), Some(source)) {
        let _ = model.render_chat(&[Message::new("system", "Be brief."), Message::new("user", "Hi")], true);
    }
}

/// A bundle of nothing but its manifest.
struct OnlyManifest<'a>(&'a [u8]);

impl BundleSource for OnlyManifest<'_> {
    async fn size(&self, file: &str) -> std::io::Result<u64> {
        match file {
            MANIFEST_FILE => Ok(self.0.len() as u64),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        if file != MANIFEST_FILE {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let bytes = rest.get(..buffer.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

fn manifest(bytes: &[u8]) {
    let _ = block_on(Bundle::open(OnlyManifest(bytes))).map(|bundle| bundle.manifest().to_json());
}

fn session(bytes: &[u8]) {
    if let Ok(session) = SavedSession::read(&mut &*bytes, "session") {
        let mut written = Vec::new();
        session.write(&mut written).expect("memory takes it");
        assert_eq!(
            SavedSession::read(&mut written.as_slice(), "session").expect("what was written is read"),
            session
        );
    }
}
