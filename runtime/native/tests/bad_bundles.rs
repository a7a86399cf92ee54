//! Damaged, lying or unsuitable bundles: a typed error that names the thing, and never a panic.

mod common;

use common::{Toy, reference, variant};
use kiln_bundle::{
    BufferKind, BundleError, FORMAT_VERSION, Feature, Grid, MANIFEST_FILE, Manifest, TextFile, TextFiles, TrustStore,
};
use kiln_runtime::{
    CancelToken, DeviceOptions, Error, KernelChecks, LoadOptions, Missing, Model, Session, Trust, block_on,
};

fn refused(toy: &Toy) -> Error {
    match toy.load() {
        Ok(_) => panic!("a bad bundle was loaded"),
        Err(error) => error,
    }
}

/// Loads or opens a session with one thing of the manifest changed.
fn changed(change: impl FnOnce(&mut Manifest)) -> Error {
    let loaded = Toy::with(change).load();
    let opened = loaded.and_then(|model: Model| block_on(Session::new(model.into(), None)));
    match opened {
        Ok(_) => panic!("a bad manifest was accepted"),
        Err(error) => error,
    }
}

#[track_caller]
fn assert_inconsistent(error: Error, part: &str) {
    let inconsistent = matches!(error, Error::Bundle(BundleError::Inconsistent { .. }));
    let text = error.to_string();
    assert!(inconsistent && text.contains(part), "{text}");
}

#[test]
fn a_folder_without_manifest_and_one_that_is_no_manifest() {
    let toy = Toy::new();
    std::fs::write(toy.file(MANIFEST_FILE), "{").unwrap();
    assert!(matches!(refused(&toy), Error::Bundle(BundleError::Syntax { .. })));
    std::fs::remove_file(toy.file(MANIFEST_FILE)).unwrap();
    assert!(matches!(refused(&toy), Error::Read { file, .. } if file == MANIFEST_FILE));
}

#[test]
fn another_version_says_which() {
    let error = changed(|manifest| manifest.format_version = FORMAT_VERSION + 1);
    let newer = format!("bundle format {}", FORMAT_VERSION + 1);
    assert!(error.to_string().contains(&newer), "{error}");
    assert!(error.to_string().contains("update Kiln"), "{error}");
}

#[test]
fn changed_weights_are_noticed_unless_told_otherwise() {
    let toy = Toy::new();
    let file = toy.file("weights-00001.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(matches!(refused(&toy), Error::Checksum { file, .. } if file.starts_with("weights")));
    let unverified = LoadOptions {
        verify_checksums: false,
        ..LoadOptions::default()
    };
    assert!(toy.load_with(&DeviceOptions::default(), unverified).is_ok());
}

#[test]
fn truncated_and_missing_weights() {
    let toy = Toy::new();
    let file = toy.file("weights-00001.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 8]).unwrap();
    assert!(matches!(refused(&toy), Error::FileSize { .. }));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(refused(&toy), Error::Read { .. }));
}

#[test]
fn a_bundle_without_weights_says_so() {
    let error = changed(|manifest| manifest.shards.clear());
    assert!(matches!(error, Error::NoWeights { .. }), "{error}");
}

#[test]
fn changed_missing_and_broken_kernels() {
    let mut toy = Toy::new();
    std::fs::write(toy.file("kernels/mix.wgsl"), "// changed").unwrap();
    assert!(matches!(refused(&toy), Error::Checksum { file, .. } if file == "kernels/mix.wgsl"));
    toy.set_kernel("mix", "fn mix( {");
    toy.save();
    match refused(&toy) {
        Error::Kernel { kernel, message, .. } => {
            assert_eq!(kernel, "mix");
            assert!(!message.is_empty());
        }
        error => panic!("{error}"),
    }
    std::fs::remove_file(toy.file("kernels/mix.wgsl")).unwrap();
    assert!(matches!(refused(&toy), Error::Read { .. }));
}

#[test]
fn changed_text_files_are_noticed() {
    let mut toy = Toy::new();
    std::fs::write(toy.file("tokenizer.json"), "{ }").unwrap();
    let written = TextFile::of("tokenizer.json", b"{}");
    toy.manifest.text = Some(TextFiles {
        tokenizer: written.clone(),
        tokenizer_config: None,
        chat_template: None,
    });
    toy.save();
    let bundle = toy.open().unwrap();
    let error = block_on(bundle.text(&written.file, &written.sha256)).unwrap_err();
    assert!(
        matches!(&error, Error::Checksum { file, .. } if file == "tokenizer.json"),
        "{error}"
    );
    std::fs::write(toy.file("tokenizer.json"), "{}").unwrap();
    assert_eq!(block_on(bundle.text(&written.file, &written.sha256)).unwrap(), "{}");
}

#[test]
fn a_kernel_whose_bindings_are_not_as_listed() {
    let error = changed(|manifest| {
        manifest.variants[0].kernels[2].bindings[1] = kiln_bundle::Access::Read;
    });
    assert!(
        matches!(&error, Error::Kernel { kernel, .. } if kernel == "emit"),
        "{error}"
    );
}

/// Loads the toy's files with these checks, feeds, and gives the logits of all rows.
fn logits_of(toy: &Toy, trust: Trust, ids: &[u32]) -> Vec<f32> {
    let options = LoadOptions {
        trust,
        ..LoadOptions::default()
    };
    let model = toy.load_with(&DeviceOptions::default(), options).unwrap();
    let mut session = block_on(Session::new(model.into(), None)).unwrap();
    block_on(session.feed(ids)).unwrap();
    let rows = session.rows().unwrap();
    block_on(session.logits_of_rows(rows)).unwrap()
}

#[test]
fn an_untrusted_kernel_sees_and_changes_only_the_bytes_bound_to_it() {
    let ids = [2, 7, 1, 8];
    let expected: Vec<f32> = (1..=ids.len()).flat_map(|n| reference::logits(&ids[..n])).collect();
    // `emit` copies the hidden state of each row; it is given those of the first row only. The others lie right behind.
    let narrow = Toy::with(|manifest| manifest.variants[0].programs.prefill[2].bindings[0].bytes = Some(8));
    let seen = logits_of(&narrow, Trust::nothing(), &ids);
    let row = |logits: &[f32], row: usize| logits[row * 17..(row + 1) * 17].to_vec();
    assert_eq!(row(&seen, 0), row(&expected, 0));
    for hidden in 1..4 {
        assert_ne!(
            row(&seen, hidden),
            row(&expected, hidden),
            "row {hidden} was read beyond the binding"
        );
    }
    // The same with its output: what lies behind stays as it was, zero.
    let narrow = Toy::with(|manifest| manifest.variants[0].programs.prefill[2].bindings[1].bytes = Some(8));
    let changed = logits_of(&narrow, Trust::nothing(), &ids);
    let untouched = reference::table().iter().map(|place| -place).collect::<Vec<f32>>();
    for hidden in 2..4 {
        assert_eq!(
            row(&changed, hidden),
            untouched,
            "row {hidden} was written beyond the binding"
        );
    }
}

#[test]
fn the_default_trusts_no_bundle_for_its_own_checksums() {
    let toy = Toy::new();
    let model = toy.load().unwrap();
    assert_eq!(*model.kernel_checks(), KernelChecks::Foreign);
    let digest = toy.open().unwrap().digest();
    assert_eq!(digest, toy.manifest.digest());
    let options = LoadOptions {
        trust: Trust::digest(digest),
        ..LoadOptions::default()
    };
    let model = toy.load_with(&DeviceOptions::default(), options).unwrap();
    assert_eq!(*model.kernel_checks(), KernelChecks::Vouched);
}

#[test]
fn a_trusted_digest_covers_every_kernel() {
    let mut toy = Toy::new();
    let store = tempfile::tempdir().unwrap();
    let store = TrustStore::at(store.path().join("trusted"));
    store.add(toy.manifest.digest()).unwrap();
    let load = |toy: &Toy| {
        let options = LoadOptions {
            trust: Trust::store(store.clone()),
            ..LoadOptions::default()
        };
        toy.load_with(&DeviceOptions::default(), options)
    };
    assert_eq!(*load(&toy).unwrap().kernel_checks(), KernelChecks::CompiledHere);
    // Changed with its checksum, as whoever writes a bundle can: that is another bundle.
    let text = std::fs::read_to_string(toy.file("kernels/mix.wgsl")).unwrap();
    toy.set_kernel("mix", &text.replace("fn mix(", "fn  mix("));
    toy.save();
    assert_eq!(*load(&toy).unwrap().kernel_checks(), KernelChecks::Foreign);
    // Changed alone: nothing runs.
    std::fs::write(toy.file("kernels/mix.wgsl"), text + "// changed").unwrap();
    assert!(matches!(load(&toy).err(), Some(Error::Checksum { .. })));
}

#[test]
fn text_that_exhausts_a_compiler_is_an_error() {
    let depth = 20_000;
    let body = |body: String| format!("@compute @workgroup_size(1)\nfn mix() {{ {body} }}");
    let texts = [
        body(format!("let x = {}1{};", "(".repeat(depth), ")".repeat(depth))),
        body(format!("let x = {}1;", "-".repeat(depth))),
        body("{".repeat(depth) + &"}".repeat(depth)),
        body("if true {".repeat(depth) + &"}".repeat(depth)),
        format!("alias A = {}u32{};", "array<".repeat(depth), ", 2>".repeat(depth)),
    ];
    for text in texts {
        let mut toy = Toy::new();
        toy.set_kernel("mix", &text);
        toy.save();
        let error = refused(&toy);
        assert!(
            matches!(&error, Error::Kernel { kernel, .. } if kernel == "mix"),
            "{error}"
        );
    }
    let mut toy = Toy::new();
    toy.set_kernel("mix", &" ".repeat((1 << 20) + 1));
    toy.save();
    let error = refused(&toy).to_string();
    assert!(error.contains("at most 1048576"), "{error}");
}

#[test]
fn paths_do_not_leave_the_bundle() {
    for path in ["../weights.safetensors", "/etc/passwd", "a/../../b"] {
        let error = changed(|manifest| manifest.shards[0].file = path.to_string());
        assert!(matches!(error, Error::UnsafePath { .. }), "{error}");
        let error = changed(|manifest| manifest.variants[0].kernels[0].file = path.to_string());
        assert!(matches!(error, Error::UnsafePath { .. }), "{error}");
        let error = changed(|manifest| {
            manifest.text = Some(TextFiles {
                tokenizer: TextFile::of(path, b""),
                tokenizer_config: None,
                chat_template: None,
            });
        });
        assert!(matches!(error, Error::UnsafePath { .. }), "{error}");
    }
}

#[test]
fn manifests_that_contradict_themselves() {
    assert_inconsistent(changed(|m| m.weights[0].bytes = u64::MAX), "table");
    assert_inconsistent(changed(|m| m.weights[0].offset += 2), "table");
    assert_inconsistent(changed(|m| m.model.chunk = 0), "chunk");
    assert_inconsistent(changed(|m| m.model.chunk = u32::MAX), "chunk");
    let overflowing = |m: &mut Manifest| (m.model.chunk, m.model.hidden_size) = (1 << 16, u32::MAX);
    assert_inconsistent(changed(overflowing), "hidden");
    let endless = |m: &mut Manifest| {
        let step = m.variants[0].programs.decode[0].clone();
        m.variants[0].programs.decode = vec![step; (1 << 16) + 1];
    };
    assert_inconsistent(changed(endless), "65537 entries");
    assert_inconsistent(changed(|m| m.variants.clear()), "variants");
    assert_inconsistent(changed(|m| m.variants[0].programs.decode[0].kernel = 9), "kernel");
    assert_inconsistent(
        changed(|m| m.variants[0].programs.head[0].bindings[0].buffer = 99),
        "99",
    );
    assert_inconsistent(
        changed(|m| m.variants[0].programs.decode[2].bindings[1] = m.variants[0].programs.decode[2].bindings[0]),
        "reads and writes",
    );
    assert_inconsistent(
        changed(|m| m.variants[0].programs.head[0].grid[0] = Grid::Fixed(u32::MAX)),
        "workgroups",
    );
    for per in [0, 1] {
        assert_inconsistent(
            changed(|m| m.variants[0].programs.prefill[0].grid[1] = Grid::Tokens { per, times: u32::MAX }),
            "workgroups",
        );
    }
    for offset in [512, 1 << 40, u64::MAX] {
        assert_inconsistent(
            changed(|m| m.variants[0].programs.prefill[1].bindings[3].offset = offset),
            "binding 3",
        );
    }
    for bytes in [0, 2, 1 << 40, u64::MAX] {
        assert_inconsistent(
            changed(|m| m.variants[0].programs.prefill[1].bindings[3].bytes = Some(bytes)),
            "binding 3",
        );
    }
    let set_buffer = |index: usize, kind: BufferKind| changed(move |m| m.variants[0].buffers[index].kind = kind);
    assert_inconsistent(set_buffer(3, BufferKind::Arena { bytes: 0 }), "mixed");
    assert_inconsistent(set_buffer(8, BufferKind::Logits { bytes: 8 }), "logits");
    assert_inconsistent(set_buffer(6, BufferKind::Output { slots: 0 }), "output");
    assert_inconsistent(set_buffer(9, BufferKind::History { bytes_per_position: 4 }), "history");
    assert_inconsistent(set_buffer(10, BufferKind::Rules { bytes: 16 }), "rules");
    let state = BufferKind::State {
        bytes_per_position: u64::MAX,
        positions: Some(2),
        window: Some(1),
    };
    assert_inconsistent(set_buffer(2, state), "ring");
    assert_inconsistent(set_buffer(2, BufferKind::Recurrent { bytes: 6 }), "ring");
    assert_inconsistent(set_buffer(2, BufferKind::Recurrent { bytes: 0 }), "ring");
}

#[test]
fn states_that_contradict_themselves() {
    let ring = |bytes_per_position: u64, positions: Option<u64>, window: Option<u64>| {
        changed(move |m| {
            m.variants[0].buffers[2].kind = BufferKind::State {
                bytes_per_position,
                positions,
                window,
            };
        })
    };
    assert_inconsistent(ring(4, Some(8), None), "state ring is a ring without a window");
    assert_inconsistent(ring(4, None, Some(3)), "state ring has a window but is no ring");
    let short = "state ring keeps 8 positions, less than its window of 9";
    assert_inconsistent(ring(4, Some(8), Some(9)), short);
    assert_inconsistent(ring(4, Some(8), Some(u64::MAX)), "less than its window");
    assert_inconsistent(ring(4, Some(0), Some(0)), "buffer ring has an impossible size");
    // A whole number of words, but not entry by entry.
    assert_inconsistent(ring(6, Some(8), Some(3)), "buffer ring has an impossible size");
    assert_inconsistent(ring(6, None, None), "buffer ring has an impossible size");
    assert_inconsistent(ring(1 << 62, Some(8), Some(3)), "buffer ring has an impossible size");
}

#[test]
fn a_state_too_large_says_how_long_a_context_may_be() {
    let error = changed(|manifest| {
        manifest.variants[0].buffers[1].kind = BufferKind::State {
            bytes_per_position: 1 << 40,
            positions: None,
            window: None,
        };
    });
    assert!(
        matches!(
            error,
            Error::StateTooLarge {
                asked: 32,
                longest: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn missing_limits_name_what_is_needed_and_found() {
    let error = changed(|manifest| {
        manifest.variants[0].limits.max_storage_buffers_per_shader_stage = 1_000_000_000;
    });
    let Error::Unsupported { missing, .. } = &error else {
        panic!("{error}");
    };
    let [(variant, missing)] = &missing[..] else {
        panic!("{error}");
    };
    assert_eq!(variant, "base");
    assert!(matches!(
        missing[..],
        [Missing::Limit { name: "maxStorageBuffersPerShaderStage", needed: 1_000_000_000, found }] if found > 0
    ));
    assert!(error.to_string().contains("found"), "{error}");
}

#[test]
fn the_first_variant_that_runs_is_taken_or_the_one_asked_for() {
    let toy = Toy::with(|manifest| {
        let kernels = manifest.variants[0].kernels.clone();
        let mut greedy = variant("greedy", vec![Feature::Subgroups]);
        greedy.limits.max_buffer_size = u64::MAX;
        let mut second = variant("second", vec![]);
        greedy.kernels.clone_from(&kernels);
        second.kernels = kernels;
        manifest.variants.insert(0, second);
        manifest.variants.insert(0, greedy);
    });
    assert_eq!(toy.load().unwrap().variant().name, "second");
    let ask = |name: &str| {
        let options = DeviceOptions {
            variant: Some(name.to_string()),
            ..DeviceOptions::default()
        };
        toy.load_with(&options, LoadOptions::default())
    };
    assert_eq!(ask("base").unwrap().variant().name, "base");
    assert!(matches!(ask("greedy").err(), Some(Error::Unsupported { .. })));
    assert!(matches!(ask("best").err(), Some(Error::UnknownVariant { .. })));
}

#[test]
fn a_precise_device_avoids_16_bit_variants_unless_one_is_named() {
    let toy = Toy::with(|manifest| {
        let mut half = variant("half", vec![Feature::ShaderF16]);
        half.kernels.clone_from(&manifest.variants[0].kernels);
        manifest.variants.insert(0, half);
    });
    let precise = DeviceOptions {
        precise: true,
        ..DeviceOptions::default()
    };
    let loaded = toy.load_with(&precise, LoadOptions::default()).unwrap();
    assert_eq!(loaded.variant().name, "base");
    let named = DeviceOptions {
        variant: Some("half".to_string()),
        ..precise
    };
    match toy.load_with(&named, LoadOptions::default()) {
        Ok(loaded) => assert_eq!(loaded.variant().name, "half"),
        Err(Error::Unsupported { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_unknown_device_lists_the_known() {
    let options = DeviceOptions {
        device: Some("no such device".to_string()),
        ..DeviceOptions::default()
    };
    match Toy::new().load_with(&options, LoadOptions::default()).err() {
        Some(Error::NoAdapter { available, .. }) => assert!(!available.is_empty()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn loading_reports_progress_and_can_be_canceled() {
    let toy = Toy::new();
    let mut seen = Vec::new();
    let mut progress = |done: kiln_runtime::LoadProgress| seen.push((done.done, done.total));
    let options = LoadOptions {
        progress: Some(&mut progress),
        ..LoadOptions::default()
    };
    toy.load_with(&DeviceOptions::default(), options).unwrap();
    let bytes = toy.manifest.shards[0].bytes;
    assert_eq!(seen, [(bytes, bytes)]);

    let cancel = CancelToken::new();
    cancel.cancel();
    let options = LoadOptions {
        cancel,
        ..LoadOptions::default()
    };
    let canceled = toy.load_with(&DeviceOptions::default(), options);
    assert!(matches!(canceled.err(), Some(Error::Canceled)));
}
