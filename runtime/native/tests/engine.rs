//! Sessions against the toy model in plain Rust.

mod common;

use std::sync::Arc;

use common::{CHUNK, MAX_CONTEXT, Toy, reference};
use kiln_bundle::{Feature, NOT_FINITE, RULED_OUT, Variant};
use kiln_runtime::{Error, GenerateOptions, Sampling, Session, StopReason, TokenRule, block_on};

fn options(max_tokens: u32) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

/// Generates to the end.
fn generate(session: &mut Session, options: GenerateOptions) -> (Vec<u32>, StopReason) {
    block_on(async {
        let mut generation = session.generate(options).unwrap();
        let mut ids = Vec::new();
        while let Some(id) = generation.next().await.unwrap() {
            ids.push(id);
        }
        (ids, generation.report().stop)
    })
}

fn feed(session: &mut Session, ids: &[u32]) {
    block_on(session.feed(ids)).unwrap();
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|i| (i * i + 3) % 17).collect()
}

#[test]
fn generates_what_the_model_says_after_any_prompt() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    for length in [1, 2, 3, 4, 5, 8, 9, 13] {
        session.reset().unwrap();
        let ids = prompt(length);
        feed(&mut session, &ids);
        assert_eq!(session.position(), length);
        let (found, stop) = generate(&mut session, options(12));
        assert_eq!(found, reference::generate(&ids, 12), "after {length} tokens");
        assert_eq!(stop, StopReason::MaxTokens);
        // The last token is not in the state yet.
        assert_eq!(session.position(), length + 11);
    }
}

#[test]
fn any_number_of_steps_in_flight_gives_the_same() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    for steps_in_flight in [0, 1, 2, 3, 4, 100] {
        session.reset().unwrap();
        feed(&mut session, &prompt(5));
        let options = GenerateOptions {
            steps_in_flight,
            ..options(20)
        };
        let (found, _) = generate(&mut session, options);
        assert_eq!(found, reference::generate(&prompt(5), 20), "{steps_in_flight}");
    }
}

#[test]
fn logits_of_every_row_and_chunking() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    let ids = prompt(11);
    for size in 1..=CHUNK as usize {
        session.reset().unwrap();
        let mut done = 0;
        for chunk in ids.chunks(size) {
            feed(&mut session, chunk);
            let rows = session.rows().unwrap();
            let logits = block_on(session.logits_of_rows(rows)).unwrap();
            let expected: Vec<f32> = (done..done + chunk.len())
                .flat_map(|last| reference::logits(&ids[..=last]))
                .collect();
            assert_eq!(logits, expected, "chunks of {size}, after {done}");
            done += chunk.len();
        }
    }
    assert_eq!(block_on(session.logits()).unwrap(), reference::logits(&ids));
    // Reading logits disturbs nothing.
    assert_eq!(generate(&mut session, options(6)).0, reference::generate(&ids, 6));
}

#[test]
fn a_session_goes_on_where_a_stopped_generation_left_it() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    let mut conversation = prompt(9);
    feed(&mut session, &conversation);
    for turn in 0..3 {
        let expected = reference::generate(&conversation, 8);
        // Steps past the stop token have run on the device by then.
        let stop_ids = Some(vec![expected[2]]);
        let options = GenerateOptions { stop_ids, ..options(8) };
        let (ids, stop) = generate(&mut session, options);
        let end = expected.iter().position(|id| *id == expected[2]).unwrap();
        assert_eq!(ids, expected[..=end], "turn {turn}");
        assert_eq!(stop, StopReason::EndOfText);
        assert_eq!(session.tokens(), [&conversation[..], &ids[..end]].concat());
        conversation.extend(ids);
        conversation.extend([2, 7]);
        let fed = block_on(session.feed_only_new(&conversation)).unwrap();
        assert_eq!(fed, 3, "the last token sampled and the two new ones");
    }
    assert_eq!(block_on(session.logits()).unwrap(), reference::logits(&conversation));
}

#[test]
fn dropping_a_generation_keeps_the_tokens_taken() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    feed(&mut session, &prompt(6));
    let expected = reference::generate(&prompt(6), 9);
    let taken = block_on(async {
        let mut generation = session.generate(options(30)).unwrap();
        let first = generation.next().await.unwrap();
        [first, generation.next().await.unwrap()].map(Option::unwrap)
    });
    assert_eq!(taken, expected[..2]);
    assert_eq!(session.position(), 7);
    assert!(matches!(block_on(session.logits()), Err(Error::NothingFed)));
    feed(&mut session, &expected[1..4]);
    assert_eq!(generate(&mut session, options(5)).0, expected[4..]);
}

#[test]
fn rewinding_feeds_again_what_rings_have_lost() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    let ids = prompt(20);
    feed(&mut session, &ids);
    // Within the slack of the ring.
    assert_eq!(session.rewind(17).unwrap(), 17);
    let branch = [&ids[..17], &[1, 2, 3]].concat();
    assert_eq!(block_on(session.feed_only_new(&branch)).unwrap(), 3);
    assert_eq!(block_on(session.logits()).unwrap(), reference::logits(&branch));
    // Beyond it.
    let branch = [&ids[..9], &[5]].concat();
    assert_eq!(block_on(session.feed_only_new(&branch)).unwrap(), 10);
    assert_eq!(block_on(session.logits()).unwrap(), reference::logits(&branch));
    // The same prompt again: one token is fed for its logits.
    assert_eq!(block_on(session.feed_only_new(&branch)).unwrap(), 1);
    assert_eq!(block_on(session.logits()).unwrap(), reference::logits(&branch));
    let ahead = session.rewind(11);
    assert!(matches!(
        ahead,
        Err(Error::Rewind {
            position: 11,
            current: 10
        })
    ));
}

#[test]
fn going_back_from_anywhere_to_anywhere() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    let ids = prompt(18);
    for from in 1..=ids.len() {
        for to in 1..from {
            session.reset().unwrap();
            feed(&mut session, &ids[..from]);
            let branch = [&ids[..to], &[9]].concat();
            block_on(session.feed_only_new(&branch)).unwrap();
            let logits = block_on(session.logits()).unwrap();
            assert_eq!(logits, reference::logits(&branch), "from {from} to {to}");
        }
    }
}

#[test]
fn the_context_ends_cleanly() {
    let toy = Toy::new();
    let mut session = toy.session(16);
    let overflow = block_on(session.feed(&prompt(17)));
    assert!(matches!(
        overflow,
        Err(Error::ContextOverflow {
            position: 0,
            tokens: 17,
            context: 16
        })
    ));
    assert_eq!(session.position(), 0, "nothing was run");
    feed(&mut session, &prompt(10));
    // 6 more positions, and a last token that needs none.
    let (ids, stop) = generate(&mut session, options(100));
    assert_eq!(ids, reference::generate(&prompt(10), 7));
    assert_eq!(stop, StopReason::ContextFull);
    assert_eq!(session.position(), 16);
    assert!(matches!(
        block_on(session.feed(&[1])),
        Err(Error::ContextOverflow {
            position: 16,
            tokens: 1,
            ..
        })
    ));
}

#[test]
fn input_is_checked() {
    let toy = Toy::new();
    let mut session = toy.session(16);
    assert!(matches!(block_on(session.logits()), Err(Error::NothingFed)));
    assert!(matches!(session.generate(options(1)).err(), Some(Error::NothingFed)));
    let unknown = block_on(session.feed(&[1, 17]));
    assert!(matches!(unknown, Err(Error::TokenOutOfRange { id: 17, vocab: 17 })));
    let model = session.model().clone();
    let long = block_on(Session::new(model, Some(MAX_CONTEXT + 1)));
    assert!(matches!(long.err(), Some(Error::ContextLength { asked: 41, max: 40 })));
}

#[test]
fn canceling_stops_and_the_session_stays_usable() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    let cancel = session.cancel_token();
    feed(&mut session, &prompt(5));
    let ids = block_on(async {
        let mut generation = session.generate(options(30)).unwrap();
        let mut ids = Vec::new();
        while ids.len() < 3 {
            ids.extend(generation.next().await.unwrap());
        }
        cancel.cancel();
        assert!(matches!(generation.next().await, Err(Error::Canceled)));
        assert_eq!(generation.report().stop, StopReason::Canceled);
        assert!(matches!(generation.next().await, Ok(None)), "once");
        ids
    });
    assert_eq!(ids, reference::generate(&prompt(5), 3));
    // A cancel between two operations ends the next one, and that one only.
    cancel.cancel();
    let position = session.position();
    assert!(matches!(block_on(session.feed(&[1])), Err(Error::Canceled)));
    assert_eq!(session.position(), position, "nothing was fed");
    let conversation = [prompt(5), ids, vec![1]].concat();
    block_on(session.feed_only_new(&conversation)).unwrap();
    cancel.cancel();
    cancel.clear();
    assert_eq!(
        generate(&mut session, options(4)).0,
        reference::generate(&conversation, 4)
    );
    cancel.cancel();
    assert!(matches!(block_on(session.synchronize()), Err(Error::Canceled)));
    block_on(session.synchronize()).unwrap();
}

#[test]
fn one_token_cancels_every_session_that_obeys_it_once() {
    let toy = Toy::new();
    let mut one = toy.session(MAX_CONTEXT);
    let mut two = block_on(Session::new(one.model().clone(), Some(20))).unwrap();
    two.set_cancel_token(one.cancel_token());
    one.cancel_token().cancel();
    for session in [&mut one, &mut two] {
        assert!(matches!(block_on(session.feed(&[1])), Err(Error::Canceled)));
        feed(session, &[1]);
    }
}

#[test]
fn sampling_words_reach_the_kernel() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    feed(&mut session, &prompt(3));
    let options = GenerateOptions {
        sampling: Sampling {
            temperature: 0.5,
            top_k: 3,
            top_p: 0.75,
            min_p: 0.5,
            seed: 5,
            ..Sampling::default()
        },
        ..options(4)
    };
    // seed + 2 top_k + 4 top_p + 8 min_p + the number of the token
    assert_eq!(generate(&mut session, options).0, [1, 2, 3, 4]);
}

fn with_penalty(max_tokens: u32, presence_penalty: f32) -> GenerateOptions {
    GenerateOptions {
        sampling: Sampling {
            presence_penalty,
            ..Sampling::default()
        },
        ..options(max_tokens)
    }
}

#[test]
fn penalties_follow_the_history_wherever_it_came_from() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    let expected = |ids: &[u32], count| reference::generate_with_penalty(ids, count, 3.0);
    assert_ne!(expected(&prompt(5), 12), reference::generate(&prompt(5), 12));
    for steps_in_flight in [1, 2, 4, 100] {
        session.reset().unwrap();
        feed(&mut session, &prompt(5));
        let options = GenerateOptions {
            steps_in_flight,
            ..with_penalty(12, 3.0)
        };
        assert_eq!(
            generate(&mut session, options).0,
            expected(&prompt(5), 12),
            "{steps_in_flight}"
        );
    }
    // After what was generated, without penalties in between, in chunks.
    let mut held = session.tokens().to_vec();
    feed(&mut session, &[2, 7, 1, 8, 2, 8]);
    held.extend([2, 7, 1, 8, 2, 8]);
    let plain = generate(&mut session, options(3)).0;
    assert_eq!(plain, reference::generate(&held, 3));
    held.extend(&plain[..2]);
    feed(&mut session, &[4]);
    held.push(4);
    assert_eq!(generate(&mut session, with_penalty(4, 3.0)).0, expected(&held, 4));
    // Gone back, saved, restored in another session.
    let position = session.rewind(25).unwrap() as usize;
    assert_eq!(position, 25);
    held = session.tokens()[..position].to_vec();
    let saved = block_on(session.save()).unwrap();
    let mut other = block_on(Session::new(session.model().clone(), Some(MAX_CONTEXT))).unwrap();
    block_on(other.restore(&saved)).unwrap();
    held.push(9);
    for session in [&mut session, &mut other] {
        feed(session, &[9]);
        assert_eq!(generate(session, with_penalty(5, 3.0)).0, expected(&held, 5));
    }
    // A prefix is kept; what was sampled beyond it counts no more.
    let conversation = [&held[..held.len() - 3], &[5, 5]].concat();
    block_on(session.feed_only_new(&conversation)).unwrap();
    assert_eq!(
        generate(&mut session, with_penalty(6, 3.0)).0,
        expected(&conversation, 6)
    );
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    feed(&mut session, &prompt(3));
    let nothing = Sampling::default;
    let rule = |ids: &[u32], bias: f32| TokenRule {
        ids: ids.to_vec(),
        bias: Some(bias),
        first: None,
    };
    #[rustfmt::skip]
    let refused = [
        ("temperature must be 0 or more", Sampling { temperature: f32::NAN, ..nothing() }),
        ("temperature must be 0 or more", Sampling { temperature: -1.0, ..nothing() }),
        ("temperature must be 0 or more", Sampling { temperature: f32::INFINITY, ..nothing() }),
        ("top_p must be from 0 to 1", Sampling { top_p: -1.0, ..nothing() }),
        ("top_p must be from 0 to 1", Sampling { top_p: 1.5, ..nothing() }),
        ("min_p must be from 0 to 1", Sampling { min_p: 2.0, ..nothing() }),
        ("min_p must be from 0 to 1", Sampling { min_p: f32::NAN, ..nothing() }),
        ("repetition_penalty must be above 0", Sampling { repetition_penalty: 0.0, ..nothing() }),
        ("repetition_penalty must be above 0", Sampling { repetition_penalty: f32::NAN, ..nothing() }),
        ("presence_penalty must be a finite number", Sampling { presence_penalty: f32::INFINITY, ..nothing() }),
        ("frequency_penalty must be a finite number", Sampling { frequency_penalty: f32::NAN, ..nothing() }),
        ("bias must be a finite number", Sampling { rules: vec![rule(&[1], f32::NAN)], ..nothing() }),
        ("token id 17 is outside the vocabulary of 17", Sampling { rules: vec![rule(&[3, 17], 1.0)], ..nothing() }),
        (
            "the rules about tokens take 260 bytes, the bundle has room for 256; give fewer or shorter ones",
            Sampling { rules: vec![rule(&[1; 56], 1.0)], ..nothing() },
        ),
    ];
    for (message, sampling) in refused {
        let options = GenerateOptions { sampling, ..options(4) };
        let error = session.generate(options).err().expect(message);
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(generate(&mut session, options(4)).0, reference::generate(&prompt(3), 4));
}

/// A sampler that has no token to give ends the generation with the reason; the session can be used further.
#[test]
fn no_token_is_an_error() {
    let mut toy = Toy::new();
    let text = std::fs::read_to_string(toy.path().join("kernels/pick.wgsl")).unwrap();
    for (report, has_f16, expected) in [
        (NOT_FINITE, false, "not finite in variant base; check the weights"),
        (NOT_FINITE, true, "up to 65504; use variant full, which has 32"),
        (RULED_OUT, false, "all tokens are ruled out"),
    ] {
        // From the third token on.
        let report = format!("output[step[3] % 8u] = select(best, {report}u, step[3] > 1u);");
        let text = text.replace("output[step[3] % 8u] = best;", &report);
        toy.set_kernel("pick", &text);
        if has_f16 {
            let half = &mut toy.manifest.variants[0];
            let full = Variant {
                name: "full".to_string(),
                ..half.clone()
            };
            half.features.push(Feature::ShaderF16);
            toy.manifest.variants.push(full);
        }
        toy.save();
        let model = match toy.load() {
            Err(Error::Unsupported { .. }) if has_f16 => {
                eprintln!("SKIPPED: the device has no shader-f16");
                return;
            }
            model => Arc::new(model.unwrap()),
        };
        let mut session = block_on(Session::new(model, Some(MAX_CONTEXT))).unwrap();
        feed(&mut session, &prompt(3));
        block_on(async {
            let mut generation = session.generate(options(9)).unwrap();
            for id in reference::generate(&prompt(3), 2) {
                assert_eq!(generation.next().await.unwrap(), Some(id));
            }
            let error = generation.next().await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(generation.next().await.unwrap(), None);
        });
        // The second token was not fed on in vain: it is what the report stands after.
        assert_eq!(session.position(), 4);
        toy.manifest.variants.truncate(1);
        toy.manifest.variants[0].features.clear();
    }
}

#[test]
fn two_sessions_of_a_model_do_not_disturb_each_other() {
    let toy = Toy::new();
    let mut one = toy.session(MAX_CONTEXT);
    let mut two = block_on(Session::new(one.model().clone(), Some(20))).unwrap();
    let (a, b) = (prompt(6), prompt(11));
    let (expect_a, expect_b) = (reference::generate(&a, 6), reference::generate(&b, 6));
    feed(&mut one, &a);
    feed(&mut two, &b);
    block_on(async {
        let mut one = one.generate(options(6)).unwrap();
        let mut two = two.generate(options(6)).unwrap();
        for (a, b) in expect_a.into_iter().zip(expect_b) {
            assert_eq!(one.next().await.unwrap(), Some(a));
            assert_eq!(two.next().await.unwrap(), Some(b));
        }
    });
}

#[test]
fn a_lost_device_is_an_error() {
    let toy = Toy::new();
    let mut session = toy.session(MAX_CONTEXT);
    feed(&mut session, &prompt(3));
    session.model().device().destroy();
    let error = block_on(session.logits()).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    let error = block_on(session.feed(&[1])).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
}

#[test]
fn kernels_are_timed_where_the_device_can() {
    let toy = Toy::new();
    let device = kiln_runtime::DeviceOptions {
        timestamps: true,
        ..Default::default()
    };
    let model = toy.load_with(&device, Default::default()).unwrap();
    let timestamps = model.device().has_timestamps();
    let mut session = block_on(Session::new(model.into(), None)).unwrap();
    feed(&mut session, &prompt(3));
    if timestamps {
        assert!(matches!(block_on(session.profile(&[])), Err(Error::NoTokens)));
    }
    match block_on(session.profile(&[1, 2])) {
        Ok(times) => {
            let mut counts: Vec<_> = times.iter().map(|t| (t.kernel.as_str(), t.dispatches)).collect();
            counts.sort_unstable();
            assert_eq!(
                counts,
                [("emit", 1), ("head", 1), ("mix", 1), ("pick", 1), ("remember", 1)]
            );
        }
        Err(Error::NoTimestamps { .. }) => assert!(!timestamps),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(session.position(), 3);
}
