//! Whatever was done with a session before: its logits are those of the tokens it says it holds.

mod common;

use std::cell::RefCell;

use common::{MAX_CONTEXT, Toy, VOCAB, reference};
use kiln_runtime::{GenerateOptions, Session, block_on};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Action {
    Feed(Vec<u32>),
    /// Ask for so many tokens and take so many of them.
    Generate {
        asked: u32,
        taken: u32,
        ahead: u32,
    },
    /// To this part of the position, in percent.
    Rewind(u32),
    Reset,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => prop::collection::vec(0..VOCAB, 1..10).prop_map(Action::Feed),
        4 => (1..20u32, 0..20u32, 1..6u32)
            .prop_map(|(asked, taken, ahead)| Action::Generate { asked, taken, ahead }),
        3 => (0..100u32).prop_map(Action::Rewind),
        1 => Just(Action::Reset),
    ]
}

/// Does one thing to the session and to the list of tokens that it should hold.
async fn act(session: &mut Session, held: &mut Vec<u32>, action: &Action) {
    match action {
        Action::Feed(ids) if held.len() + ids.len() <= MAX_CONTEXT as usize => {
            session.feed(ids).await.unwrap();
            held.extend(ids);
            assert_eq!(session.logits().await.unwrap(), reference::logits(held));
        }
        Action::Feed(ids) => assert!(session.feed(ids).await.is_err()),
        Action::Generate { asked, taken, ahead } => {
            if session.rows().is_err() {
                return;
            }
            let room = (MAX_CONTEXT as usize - held.len()) + 1;
            let count = room.min(*asked as usize).min(*taken as usize);
            let expected = reference::generate(held, count);
            let options = GenerateOptions {
                max_tokens: *asked,
                steps_in_flight: *ahead,
                ..GenerateOptions::default()
            };
            let mut generation = session.generate(options).unwrap();
            for id in &expected {
                assert_eq!(generation.next().await.unwrap(), Some(*id));
            }
            if *taken >= *asked || *taken as usize > room {
                assert_eq!(generation.next().await.unwrap(), None);
            }
            held.extend(&expected[..count.saturating_sub(1)]);
        }
        Action::Rewind(percent) => {
            let target = held.len() as u32 * percent / 100;
            let reached = session.rewind(target).unwrap();
            assert!(reached == target || reached == 0);
            held.truncate(reached as usize);
        }
        Action::Reset => {
            session.reset().unwrap();
            held.clear();
        }
    }
    assert_eq!(session.tokens(), held);
}

#[test]
fn a_reused_session_is_as_good_as_a_fresh_one() {
    let toy = Toy::new();
    let session = RefCell::new(toy.session(MAX_CONTEXT));
    let actions = prop::collection::vec(action(), 1..12);
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(actions in actions)| {
        let session = &mut *session.borrow_mut();
        session.reset().unwrap();
        let mut held = Vec::new();
        block_on(async {
            for action in &actions {
                act(session, &mut held, action).await;
            }
        });
    });
}
