//! Sessions of a model whose state sums up all tokens, against the model in plain Rust: what is fed again, and that
//! it makes no difference.

mod common;

use common::reference::recurrent::{generate as expected, logits};
use common::{CHUNK, Toy, reference};
use kiln_runtime::{GenerateOptions, Session, StopReason, block_on};

const CONTEXT: u32 = 600;

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|i| (i * i + 3) % 17).collect()
}

fn feed(session: &mut Session, ids: &[u32]) -> usize {
    let fed = block_on(session.feed_only_new(ids)).unwrap();
    assert_eq!(session.tokens(), ids);
    assert_eq!(block_on(session.logits()).unwrap(), logits(ids));
    fed
}

/// Generates until `taken` tokens are taken, then drops the generation with the steps that ran ahead.
fn take(session: &mut Session, taken: usize) -> Vec<u32> {
    let options = GenerateOptions::default();
    block_on(async {
        let mut generation = session.generate(options).unwrap();
        let mut ids = Vec::new();
        while ids.len() < taken {
            ids.push(generation.next().await.unwrap().unwrap());
        }
        ids
    })
}

#[test]
fn a_generation_that_stops_early_goes_back_to_the_prompt() {
    let toy = Toy::recurrent(CONTEXT);
    let mut session = toy.session(CONTEXT);
    let mut conversation = prompt(11);
    feed(&mut session, &conversation);
    for _ in 0..4 {
        let answer = take(&mut session, 6);
        assert_eq!(answer, expected(&conversation, 6));
        // Steps past the last token have changed the state.
        assert_eq!(session.tokens(), conversation);
        conversation.extend(answer);
        conversation.extend([2, 7]);
        assert_eq!(feed(&mut session, &conversation), 8);
    }
}

#[test]
fn a_generation_that_ends_as_foreseen_goes_back_nowhere() {
    let toy = Toy::recurrent(CONTEXT);
    let mut session = toy.session(CONTEXT);
    let mut conversation = prompt(5);
    feed(&mut session, &conversation);
    let options = GenerateOptions {
        max_tokens: 6,
        ..GenerateOptions::default()
    };
    let mut answer = Vec::new();
    block_on(async {
        let mut generation = session.generate(options).unwrap();
        while let Some(id) = generation.next().await.unwrap() {
            answer.push(id);
        }
        assert_eq!(generation.report().stop, StopReason::MaxTokens);
    });
    assert_eq!(answer, expected(&conversation, 6));
    conversation.extend(answer);
    assert_eq!(session.tokens(), &conversation[..10]);
    conversation.push(1);
    assert_eq!(feed(&mut session, &conversation), 2);
}

#[test]
fn the_next_turn_comes_back_to_where_the_answer_was_opened() {
    let toy = Toy::recurrent(CONTEXT);
    let mut session = toy.session(CONTEXT);
    let ids = prompt(13);
    assert_eq!(block_on(session.feed_turn(&ids, 10)).unwrap(), 13);
    assert_eq!(take(&mut session, 6), expected(&ids, 6));
    // The next turn has neither what opened the answer nor what was thought.
    let next = [&ids[..10], &[4, 4, 1]].concat();
    assert_eq!(block_on(session.feed_turn(&next, 12)).unwrap(), 3);
    assert_eq!(block_on(session.logits()).unwrap(), logits(&next));
    // An opening that is there already, or that there is none of.
    assert_eq!(block_on(session.feed_turn(&next, 0)).unwrap(), 1);
    assert_eq!(block_on(session.feed_turn(&[&next[..], &[5]].concat(), 14)).unwrap(), 1);
}

#[test]
fn a_long_generation_leaves_copies_on_its_way() {
    let toy = Toy::recurrent(CONTEXT);
    let mut session = toy.session(CONTEXT);
    let ids = prompt(9);
    feed(&mut session, &ids);
    let answer = take(&mut session, 300);
    assert_eq!(answer, expected(&ids, 300));
    let kept = session.position() as usize - ids.len();
    assert!((300 - 80..300).contains(&kept), "{kept}");
    // The prompt's end is still one, though the ring has gone around since.
    let other = [&ids[..], &[4, 4]].concat();
    assert_eq!(feed(&mut session, &other), 2);
}

#[test]
fn rewinding_goes_to_the_newest_copy_before() {
    let toy = Toy::recurrent(CONTEXT);
    let mut session = toy.session(CONTEXT);
    let ids = prompt(60);
    for end in [10, 20, 30, 40, 50] {
        block_on(session.feed(&ids[end - 10..end])).unwrap();
    }
    assert_eq!(session.rewind(50).unwrap(), 50);
    assert_eq!(session.rewind(49).unwrap(), 40);
    assert!(block_on(session.logits()).is_err());
    assert_eq!(feed(&mut session, &ids[..45]), 5);
    assert_eq!(session.rewind(35).unwrap(), 30);
    assert_eq!(feed(&mut session, &ids), 30);
    // Three are kept; the first ones are gone.
    assert_eq!(session.rewind(29).unwrap(), 0);
    assert_eq!(feed(&mut session, &ids[..CHUNK as usize + 1]), CHUNK as usize + 1);
}

#[test]
fn models_without_such_states_make_no_copies() {
    let toy = Toy::new();
    let mut session = toy.session(40);
    let before = session.model().device().allocated_bytes();
    block_on(session.feed(&prompt(12))).unwrap();
    assert_eq!(session.model().device().allocated_bytes(), before);
    // Unless asked to: the ring goes around, but what its window needs was copied.
    block_on(session.mark()).unwrap();
    assert!(session.model().device().allocated_bytes() > before);
    block_on(session.feed(&prompt(20))).unwrap();
    assert_eq!(session.rewind(12).unwrap(), 12);
    block_on(session.feed(&[5, 6])).unwrap();
    let held = [&prompt(12)[..], &[5, 6]].concat();
    assert_eq!(block_on(session.logits()).unwrap(), reference::logits(&held));
}
