//! GGUF files that were split (`fixtures/gguf/split.py`), and folders of GGUF files.

use std::path::{Path, PathBuf};

use kiln_compiler::checkpoint::{Checkpoint, CheckpointError, TensorSource};

use super::fixture;

fn part(number: usize) -> String {
    format!("llama-bpe-{number:05}-of-00003.gguf")
}

/// The parts in a folder of their own, after a change to the bytes of each.
fn folder(change: impl Fn(usize, &mut Vec<u8>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        let mut bytes = std::fs::read(fixture("split").join(part(number))).unwrap();
        change(number, &mut bytes);
        std::fs::write(folder.path().join(part(number)), bytes).unwrap();
    }
    folder
}

/// Writes `bytes` behind the name of a metadata entry and its type.
fn patch(file: &mut [u8], key: &str, bytes: &[u8]) {
    let at = file
        .windows(key.len())
        .position(|window| window == key.as_bytes())
        .unwrap()
        + key.len()
        + 4;
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn refusal(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn any_part_and_the_folder_stand_for_the_whole() {
    let whole = Checkpoint::open(&fixture("llama-bpe.gguf")).unwrap();
    let given: Vec<PathBuf> = [1, 2, 3].map(|number| fixture("split").join(part(number))).to_vec();
    for path in given.iter().chain([&fixture("split")]) {
        let parts = Checkpoint::open(path).unwrap();
        assert_eq!((parts.name(), parts.config()), (whole.name(), whole.config()));
        assert_eq!((parts.text(), parts.generation()), (whole.text(), whole.generation()));
        assert_eq!(parts.names(), whole.names());
        for name in whole.names() {
            assert_eq!(parts.read_f32(&name).unwrap(), whole.read_f32(&name).unwrap(), "{name}");
        }
        assert_eq!(parts.info("model.norm.weight").unwrap().file, part(1));
        assert_eq!(parts.files(), given);
    }
}

#[test]
fn missing_parts_are_named() {
    let folder = folder(|_, _| {});
    let path = |number| folder.path().join(part(number));
    std::fs::remove_file(path(1)).unwrap();
    let expected = format!(
        "{} is missing; the checkpoint has 3 parts, download them into one folder",
        part(1)
    );
    assert_eq!(refusal(&path(2)), expected);
    assert_eq!(refusal(folder.path()), expected);
    std::fs::rename(path(3), folder.path().join("llama-bpe-00001-of-00099.gguf")).unwrap();
    let message = refusal(&folder.path().join("llama-bpe-00001-of-00099.gguf"));
    assert!(message.contains("and 94 more files are missing"), "{message}");
}

#[test]
fn parts_that_contradict_their_names_are_named() {
    let swapped = folder(|number, bytes| {
        if number == 2 {
            patch(bytes, "split.no", &2u16.to_le_bytes());
        }
    });
    let expected = format!(
        "{}: it is part 3 of 3, but by its name part 2 of 3; parts are called NAME-00001-of-00003.gguf",
        part(2)
    );
    assert_eq!(refusal(swapped.path()), expected);
    let lost = folder(|_, bytes| patch(bytes, "split.tensors.count", &12i32.to_le_bytes()));
    assert!(refusal(lost.path()).contains("3 parts hold 11 tensors, not 12"));

    // Renamed, so that nothing tells where the others are.
    let alone = lost.path().join("model.gguf");
    std::fs::rename(lost.path().join(part(1)), &alone).unwrap();
    let message = refusal(&alone);
    assert!(
        message.contains("it is part 1 of 3, but by its name part 1 of 1"),
        "{message}"
    );
    assert!(matches!(
        Checkpoint::open(&alone),
        Err(CheckpointError::Unsupported { .. })
    ));
}

#[test]
fn the_only_gguf_file_of_a_folder_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let put = |from: &str, to: &str| std::fs::copy(fixture(from), folder.path().join(to)).unwrap();
    put("llama-bpe.gguf", "b.gguf");
    put("gpt2.gguf", "mmproj-b.gguf");
    assert_eq!(Checkpoint::open(folder.path()).unwrap().name(), "b");
    // As repositories of GGUF files have it.
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().name(), "b");
    put("gpt2.gguf", "a.gguf");
    let message = refusal(folder.path());
    assert!(
        message.ends_with("several GGUF files; give the one that is meant: a.gguf, b.gguf"),
        "{message}"
    );
    std::fs::write(folder.path().join("model.safetensors"), b"").unwrap();
    assert!(refusal(folder.path()).contains("model.safetensors"));
}
