//! One target for all doors: the environment's `KILN_DOOR` names the one to be tried.
#![no_main]

use std::sync::LazyLock;

use kiln_codegen_tests::hostile::{self, Door};

static DOOR: LazyLock<&Door> = LazyLock::new(|| {
    hostile::door(&std::env::var("KILN_DOOR").expect("KILN_DOOR names a door: gguf, safetensors, config, ..."))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (DOOR.enter)(bytes));
