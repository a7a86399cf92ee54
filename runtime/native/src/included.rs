//! Bundles that `kiln-build` made while the program was built.

/// Takes in the bundle that the package's build script made with `kiln_build::Bundle`, as a module of the bundle's name.
///
/// ```ignore
/// // In build.rs: kiln_build::Bundle::new("models/SmolLM2-135M-Instruct.Q4_1.gguf").name("smollm2").emit();
/// kiln_runtime::include_bundle!(mod smollm2);
///
/// let bundle = smollm2::open().await?;
/// println!("{} in {} bytes", smollm2::NAME, smollm2::WEIGHT_BYTES);
/// ```
///
/// The module has
///
/// - `open()`, a [`Bundle`](crate::Bundle) of the files in the program (or, with `.beside()`, beside it);
/// - `Variant`, an enum of the variants that there are;
/// - what the manifest says of the model, as constants: `NAME`, `ARCHITECTURE`, `QUANTIZATION`, `PARAMETERS`, `LAYERS`,
///   `HIDDEN_SIZE`, `VOCAB_SIZE`, `MAX_CONTEXT`, `DEFAULT_CONTEXT`, `CHUNK`, `EOS_TOKEN_IDS`, `BOS_TOKEN_ID`,
///   `WEIGHT_BYTES`;
/// - `FOLDER`, the bundle's folder where it was built, and `MANIFEST_SHA256`;
/// - `source()`, and `FILES` if they lie in the program.
#[macro_export]
macro_rules! include_bundle {
    ($(#[$attribute:meta])* $visibility:vis mod $name:ident) => {
        $(#[$attribute])*
        #[allow(dead_code)]
        $visibility mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

#[cfg(not(target_arch = "wasm32"))]
impl crate::DirectorySource {
    /// The folder of this name beside the running program, or else the other one.
    pub fn beside_program(name: impl AsRef<std::path::Path>, otherwise: impl Into<std::path::PathBuf>) -> Self {
        let program = std::env::current_exe();
        let beside = program.ok().and_then(|program| Some(program.parent()?.join(name)));
        Self::new(
            beside
                .filter(|folder| folder.exists())
                .unwrap_or_else(|| otherwise.into()),
        )
    }
}
