//! Sessions saved and taken up again.

mod common;

use common::{MAX_CONTEXT, Toy, reference, variant};
use kiln_runtime::{
    DeviceOptions, Error, GenerateOptions, LoadOptions, SavedSession, SavedSessionError, Session, block_on,
};

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|i| (i * i + 3) % 17).collect()
}

fn saved(session: &Session) -> SavedSession {
    block_on(session.save()).unwrap()
}

fn bytes(saved: &SavedSession) -> Vec<u8> {
    let mut bytes = Vec::new();
    saved.write(&mut bytes).unwrap();
    bytes
}

fn generate(session: &mut Session, count: u32) -> Vec<u32> {
    let options = GenerateOptions {
        max_tokens: count,
        ..GenerateOptions::default()
    };
    block_on(async {
        let mut generation = session.generate(options).unwrap();
        let mut ids = Vec::new();
        while let Some(id) = generation.next().await.unwrap() {
            ids.push(id);
        }
        ids
    })
}

#[test]
fn another_session_goes_on_from_the_file() {
    type Generate = fn(&[u32], usize) -> Vec<u32>;
    let toys: [(Toy, Generate); 2] = [
        (Toy::new(), reference::generate),
        (Toy::recurrent(MAX_CONTEXT), reference::recurrent::generate),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    for (toy, expected) in toys {
        // Shorter than the ring and longer.
        for length in [1, 3, 8, 9, 21] {
            let ids = prompt(length);
            let mut session = toy.session(MAX_CONTEXT);
            block_on(session.feed(&ids)).unwrap();
            let mut written = saved(&session);
            written.set_note(serde_json::json!({ "turns": 3 }));
            written.write_file(&file).unwrap();
            let read = SavedSession::read_file(&file).unwrap();
            assert_eq!(read, written);
            assert_eq!((read.tokens(), &read.note()["turns"]), (&ids[..], &3.into()));

            // Of the same bundle, loaded anew, with another context and another past.
            let mut other = toy.session(MAX_CONTEXT - 2);
            block_on(other.feed(&prompt(30))).unwrap();
            block_on(other.restore(&read)).unwrap();
            assert_eq!(other.tokens(), ids);
            assert!(matches!(block_on(other.logits()), Err(Error::NothingFed)));
            let longer = [&ids[..], &[7]].concat();
            assert_eq!(block_on(other.feed_only_new(&longer)).unwrap(), 1);
            assert_eq!(generate(&mut other, 9), expected(&longer, 9), "after {length}");
            // And back into the middle, whatever of it is still there.
            let branch = [&longer[..longer.len() - 1], &[2, 2]].concat();
            block_on(other.feed_only_new(&branch)).unwrap();
            assert_eq!(generate(&mut other, 5), expected(&branch, 5), "branch after {length}");
        }
    }
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing else stays: {names:?}");
}

#[test]
fn only_positions_in_use_are_stored() {
    let toy = Toy::with(|manifest| manifest.model.max_context = 100_000);
    let mut session = toy.session(100_000);
    let empty = bytes(&saved(&session)).len();
    block_on(session.feed(&prompt(6))).unwrap();
    let saved = saved(&session);
    // Tokens, and 4 bytes of cache and of ring for each.
    let short = bytes(&saved).len();
    assert!((empty + 6 * 12..empty + 6 * 12 + 8).contains(&short), "{empty} {short}");
    block_on(session.feed(&prompt(24))).unwrap();
    let long = bytes(&self::saved(&session)).len();
    // The ring has 8 slots.
    assert!(
        (empty + 30 * 8 + 32..empty + 30 * 8 + 40).contains(&long),
        "{empty} {long}"
    );
}

#[test]
fn what_is_left_of_rings_is_known_after_taking_up() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    block_on(session.feed(&prompt(20))).unwrap();
    let saved = saved(&session);
    let mut other = toy.session(MAX_CONTEXT);
    for (target, reached) in [(17, 17), (15, 15), (14, 0)] {
        block_on(other.restore(&saved)).unwrap();
        assert_eq!(other.rewind(target).unwrap(), reached);
    }
    // A copy of what the window needs, and no more.
    session.reset().unwrap();
    block_on(session.feed(&prompt(12))).unwrap();
    block_on(session.mark()).unwrap();
    block_on(session.feed(&prompt(12))).unwrap();
    assert_eq!(session.rewind(12).unwrap(), 12);
    let saved = self::saved(&session);
    block_on(other.restore(&saved)).unwrap();
    assert_eq!(other.rewind(11).unwrap(), 0);
}

fn refusal(session: &mut Session, saved: &SavedSession) -> SavedSessionError {
    let before = session.tokens().to_vec();
    let Err(Error::SavedSession(error)) = block_on(session.restore(saved)) else {
        panic!("it was taken up");
    };
    assert_eq!(session.tokens(), before, "nothing was changed");
    error
}

#[test]
fn sessions_of_others_are_refused() {
    let toy = Toy::with(|manifest| {
        let mut second = variant("second", vec![]);
        second.kernels.clone_from(&manifest.variants[0].kernels);
        manifest.variants.push(second);
    });
    let mut session = toy.session(MAX_CONTEXT);
    block_on(session.feed(&prompt(20))).unwrap();
    let saved = saved(&session);

    let mut other = Toy::with(|manifest| manifest.model.name = "other".to_string()).session(MAX_CONTEXT);
    block_on(other.feed(&prompt(3))).unwrap();
    let error = refusal(&mut other, &saved);
    assert!(matches!(error, SavedSessionError::OtherModel { .. }), "{error}");
    assert!(error.to_string().contains("(toy), this is other"), "{error}");
    assert_eq!(block_on(other.logits()).unwrap(), reference::logits(&prompt(3)));

    let options = DeviceOptions {
        variant: Some("second".to_string()),
        ..DeviceOptions::default()
    };
    let model = toy.load_with(&options, LoadOptions::default()).unwrap();
    let mut other = block_on(Session::new(model.into(), None)).unwrap();
    let error = refusal(&mut other, &saved);
    assert!(matches!(error, SavedSessionError::OtherVariant { .. }), "{error}");
    assert!(error.to_string().contains("--variant base"), "{error}");

    let error = refusal(&mut toy.session(19), &saved);
    assert!(
        matches!(
            error,
            SavedSessionError::Context {
                tokens: 20,
                context: 19
            }
        ),
        "{error}"
    );
    block_on(toy.session(20).restore(&saved)).unwrap();
}

#[test]
fn damaged_files_are_refused() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    block_on(session.feed(&prompt(5))).unwrap();
    let good = bytes(&saved(&session));
    let read = |bytes: &[u8]| SavedSession::read(&mut &bytes[..], "file");
    assert!(read(&good).is_ok());
    // What is too short for the mark of a session is none.
    for length in 0..8 {
        let error = read(&good[..length]).unwrap_err();
        assert!(
            matches!(error, SavedSessionError::NotASession { .. }),
            "{length}: {error}"
        );
    }
    for length in 8..good.len() {
        let error = read(&good[..length]).unwrap_err();
        assert!(matches!(error, SavedSessionError::Damaged { .. }), "{length}: {error}");
        assert!(error.to_string().contains("cut short"), "{length}: {error}");
    }
    let error = read(&[&good[..], &[0]].concat()).unwrap_err();
    assert!(error.to_string().contains("something follows"), "{error}");
    let error = read(b"a text that is no session").unwrap_err();
    assert!(matches!(error, SavedSessionError::NotASession { .. }), "{error}");
    let huge = [&good[..8], &u64::MAX.to_le_bytes(), &good[16..]].concat();
    assert!(matches!(read(&huge), Err(SavedSessionError::Damaged { .. })));

    // Headers that lie: each is refused when read, or when taken up.
    let start = length(&good);
    let header: serde_json::Value = serde_json::from_slice(&good[16..16 + start]).unwrap();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut header = header.clone();
        change(&mut header);
        let header = header.to_string();
        let length = (header.len() as u64).to_le_bytes();
        read(&[&good[..8], &length, header.as_bytes(), &good[16 + start..]].concat())
    };
    let error = changed(&|header| header["version"] = 2.into()).unwrap_err();
    assert!(matches!(error, SavedSessionError::Version { found: 2, .. }), "{error}");
    let error = changed(&|header| header["states"][0]["bytes"] = u64::MAX.into()).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
    assert!(changed(&|header| header["tokens"] = u32::MAX.into()).is_err());
    assert!(changed(&|header| header["states"] = 3.into()).is_err());
    let lies: [&dyn Fn(&mut serde_json::Value); 3] = [
        &|header| {
            // A token fewer, and its bytes taken for state.
            header["tokens"] = 4.into();
            header["states"][0]["bytes"] = 24.into();
        },
        &|header| header["states"][1]["intact_from"] = 6.into(),
        &|header| {
            header["states"][0]["bytes"] = 40.into();
            header["states"].as_array_mut().unwrap().pop();
        },
    ];
    for lie in lies {
        let error = refusal(&mut session, &changed(lie).unwrap());
        assert!(matches!(error, SavedSessionError::Mismatch { .. }), "{error}");
    }
    let mut unknown = good.clone();
    unknown[16 + start] = 99;
    let error = refusal(&mut session, &read(&unknown).unwrap());
    assert!(error.to_string().contains("token id 99"), "{error}");
}

/// Of the header.
fn length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize
}

#[test]
fn files_that_cannot_be_written_or_read_are_named() {
    let session = Toy::new().session(8);
    let path = std::path::Path::new("/nonexistent/session");
    let error = saved(&session).write_file(path).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/session"), "{error}");
    let error = SavedSession::read_file(path).unwrap_err();
    assert!(matches!(error, SavedSessionError::Read { .. }), "{error}");
}
