//! What is compiled again, what is not, and what an author's mistakes look like.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_compiler::dsl::*;

use super::{BuildError, Bundle, Emitted, Quant};

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 50, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
    "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true
}"#;

/// A package with a model folder, and Cargo's folder for its build script.
struct Package {
    root: tempfile::TempDir,
}

impl Package {
    fn new(config: &str) -> Self {
        let package = Package {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(package.path("out")).unwrap();
        fs::create_dir(package.path("model")).unwrap();
        fs::write(package.path("model/config.json"), config).unwrap();
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn bundle(&self) -> Bundle {
        Bundle::new(self.path("model")).random_weights(1)
    }

    fn emit(&self, bundle: Bundle) -> Result<Emitted, BuildError> {
        bundle.emit_into(&self.path("out"))
    }

    fn compiles(&self, bundle: Bundle) -> bool {
        self.emit(bundle).unwrap().compiled
    }
}

/// Gives a file another time of its last change, as saving it does.
fn touch(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(10)).unwrap();
}

#[derive(Config)]
struct SmallConfig {
    vocab_size: Dim,
    hidden_size: Dim,
    num_hidden_layers: Dim,
}

#[architecture("LlamaForCausalLM")]
fn small(c: &SmallConfig, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("layers", c.num_hidden_layers) {
        x += linear(x, layer.matrix("proj", c.hidden_size, c.hidden_size));
    }
    linear(x, embedding)
}

/// The same with another constant in it.
#[architecture("LlamaForCausalLM")]
fn scaled(c: &SmallConfig, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens) * 1.5;
    for layer in w.layers("layers", c.num_hidden_layers) {
        x += linear(x, layer.matrix("proj", c.hidden_size, c.hidden_size));
    }
    linear(x, embedding)
}

#[architecture("LlamaForCausalLM")]
fn mistaken(c: &SmallConfig, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("layers", c.num_hidden_layers) {
        x += linear(x, layer.matrix("proj", c.hidden_size, c.vocab_size));
    }
    linear(x, embedding)
}

#[test]
fn nothing_is_compiled_twice_unless_something_changed() {
    let package = Package::new(CONFIG);
    assert!(package.compiles(package.bundle()));
    let module = fs::metadata(package.path("out/model.rs")).unwrap().modified().unwrap();
    assert!(!package.compiles(package.bundle()));
    let untouched = fs::metadata(package.path("out/model.rs")).unwrap().modified().unwrap();
    assert_eq!(module, untouched);

    let changed = |change: &str| {
        assert!(package.compiles(package.bundle()), "{change}");
        assert!(!package.compiles(package.bundle()), "{change}, again");
    };
    touch(&package.path("model/config.json"));
    changed("a file that is read");
    fs::write(package.path("model/generation_config.json"), r#"{"eos_token_id": 7}"#).unwrap();
    changed("a file that is read from now on");
    assert_eq!(
        package.emit(package.bundle()).unwrap().manifest.model.eos_token_ids,
        [7]
    );
    fs::write(package.path("model/README.md"), "one").unwrap();
    changed("a file that might have been read");
    fs::write(package.path("model/README.md"), "another text").unwrap();
    assert!(!package.compiles(package.bundle()), "a file that is not read");
    let shard = package.emit(package.bundle()).unwrap().manifest.shards.remove(0).file;
    fs::write(package.path("out/model.kiln").join(shard), "").unwrap();
    changed("a damaged bundle");
    fs::remove_dir_all(package.path("out/model.kiln")).unwrap();
    changed("a removed bundle");
    fs::create_dir(package.path("out/model.kiln.partial-7-0")).unwrap();
    fs::write(package.path("out/model.stamp.json"), "{}").unwrap();
    changed("a stamp of another version");

    assert!(!package.path("out/model.kiln.partial-7-0").exists());
    assert!(package.compiles(package.bundle().quant(Quant::Q8)));
    assert!(!package.compiles(package.bundle().quant(Quant::Q8)));
    let tested = package.emit(package.bundle().quant(Quant::Q8).self_test()).unwrap();
    assert!(tested.compiled && tested.manifest.self_test.is_some());
    assert!(package.compiles(package.bundle().quant(Quant::Q8).context(16)));
}

#[test]
fn an_architecture_of_the_authors_own_is_compiled_again_when_it_changes() {
    let package = Package::new(CONFIG);
    let own = package.emit(package.bundle().architecture(small())).unwrap();
    assert!(own.compiled);
    assert!(
        own.manifest
            .weights
            .iter()
            .any(|weight| weight.name.contains("layers.0.proj"))
    );
    assert!(!package.compiles(package.bundle().architecture(small())));
    assert!(package.compiles(package.bundle().architecture(scaled())));
    assert!(package.compiles(package.bundle()));
}

#[test]
fn a_mistake_is_told_at_the_authors_line() {
    let package = Package::new(CONFIG);
    let error = package.emit(package.bundle().architecture(mistaken())).unwrap_err();
    let line = 1
        + (include_str!("tests.rs").lines())
            .position(|line| line.contains("c.hidden_size, c.vocab_size"))
            .unwrap();
    let text = error.to_string();
    assert!(text.contains(&format!("tests.rs:{line}")), "{text}");
    assert!(!package.path("out/model.rs").exists());

    let error = package.emit(Bundle::new(package.path("nothing.gguf"))).unwrap_err();
    assert!(error.to_string().contains("nothing.gguf"), "{error}");
    for name in ["", "my-model", "1st", "a b", "../up"] {
        let error = package
            .bundle()
            .name(name)
            .check_name(&package.path("out"))
            .unwrap_err();
        assert!(matches!(error, BuildError::Name { .. }), "{name}: {error}");
    }
    package.bundle().check_name(&package.path("out")).unwrap();
    let error = package.bundle().check_name(&package.path("out")).unwrap_err();
    assert!(matches!(error, BuildError::NameTaken { .. }), "{error}");
}

#[test]
fn the_module_has_files_facts_and_variants() {
    let package = Package::new(CONFIG);
    let emitted = package.emit(package.bundle().name("tiny")).unwrap();
    let text = fs::read_to_string(&emitted.module).unwrap();
    for line in [
        "pub const NAME: &str = \"model\";",
        "pub const ARCHITECTURE: &str = \"LlamaForCausalLM\";",
        "pub const LAYERS: u32 = 2;",
        "pub const VOCAB_SIZE: u32 = 50;",
        "pub const EOS_TOKEN_IDS: &[u32] = &[];",
        "pub const FOLDER: &str = concat!(env!(\"OUT_DIR\"), \"/tiny.kiln\");",
        "    F16,",
        "            Variant::Base => \"base\",",
        "    (\"manifest.json\", include_bytes!(concat!(env!(\"OUT_DIR\"), \"/tiny.kiln/manifest.json\"))),",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    let kernels = emitted.manifest.variants.iter().flat_map(|variant| &variant.kernels);
    for file in (kernels.map(|kernel| &kernel.file)).chain(emitted.manifest.shards.iter().map(|shard| &shard.file)) {
        assert!(
            text.contains(&format!("(\"{file}\", include_bytes!")),
            "no {file} in\n{text}"
        );
    }
    let beside = package.emit(package.bundle().name("tiny").beside()).unwrap();
    assert!(!beside.compiled);
    let text = fs::read_to_string(&beside.module).unwrap();
    assert!(text.contains("beside_program(\"tiny.kiln\", FOLDER)") && !text.contains("include_bytes"));
}

#[test]
fn many_packages_are_built_at_once() {
    let packages: Vec<Package> = (0..4).map(|_| Package::new(CONFIG)).collect();
    std::thread::scope(|scope| {
        for package in &packages {
            scope.spawn(|| assert!(package.compiles(package.bundle())));
        }
    });
}
