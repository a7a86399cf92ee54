//! Whatever was done with a session before: its logits are those of the tokens it says it holds.

mod common;

use std::cell::RefCell;

use common::{MAX_CONTEXT, Toy, VOCAB, reference};
use kiln_runtime::{Error, GenerateOptions, Session, block_on};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Action {
    Feed(Vec<u32>),
    /// Ask for so many tokens and take so many of them, or cancel then.
    Generate {
        asked: u32,
        taken: u32,
        ahead: u32,
        cancel: bool,
    },
    /// To this part of the position, in percent.
    Rewind(u32),
    Mark,
    Reset,
    /// To another session of the model, through host memory.
    Move,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => prop::collection::vec(0..VOCAB, 1..10).prop_map(Action::Feed),
        4 => (1..20u32, 0..20u32, 1..6u32, any::<bool>())
            .prop_map(|(asked, taken, ahead, cancel)| Action::Generate { asked, taken, ahead, cancel }),
        3 => (0..100u32).prop_map(Action::Rewind),
        1 => Just(Action::Mark),
        1 => Just(Action::Reset),
        1 => Just(Action::Move),
    ]
}

/// A toy and what it computes.
struct Subject {
    toy: Toy,
    logits: fn(&[u32]) -> Vec<f32>,
    generate: fn(&[u32], usize) -> Vec<u32>,
    /// Goes back only to where it was copied.
    recurrent: bool,
}

impl Subject {
    /// Does one thing to the session and to the list of tokens that it should hold.
    async fn act(&self, session: &mut Session, held: &mut Vec<u32>, action: &Action) {
        match action {
            Action::Feed(ids) if held.len() + ids.len() <= MAX_CONTEXT as usize => {
                session.feed(ids).await.unwrap();
                held.extend(ids);
                assert_eq!(session.logits().await.unwrap(), (self.logits)(held));
            }
            Action::Feed(ids) => assert!(session.feed(ids).await.is_err()),
            Action::Generate {
                asked,
                taken,
                ahead,
                cancel,
            } => {
                if session.rows().is_err() {
                    return;
                }
                let room = (MAX_CONTEXT as usize - held.len()) + 1;
                let count = room.min(*asked as usize).min(*taken as usize);
                let expected = (self.generate)(held, count);
                let options = GenerateOptions {
                    max_tokens: *asked,
                    steps_in_flight: *ahead,
                    ..GenerateOptions::default()
                };
                let stop = session.cancel_token();
                let mut generation = session.generate(options).unwrap();
                for id in &expected {
                    assert_eq!(generation.next().await.unwrap(), Some(*id));
                }
                if *cancel {
                    stop.cancel();
                }
                let ended = *taken >= *asked || *taken as usize >= room;
                if ended {
                    assert_eq!(generation.next().await.unwrap(), None);
                } else if *cancel {
                    assert!(matches!(generation.next().await, Err(Error::Canceled)));
                }
                drop(generation);
                stop.clear();
                let before = held.len();
                held.extend(&expected[..count.saturating_sub(1)]);
                self.fall_back(session, held, before);
            }
            Action::Rewind(percent) => {
                let target = held.len() as u32 * percent / 100;
                let reached = session.rewind(target).unwrap();
                assert_eq!(reached, session.position());
                assert!(reached <= target);
                held.truncate(target as usize);
                self.fall_back(session, held, 0);
            }
            Action::Mark => {
                session.mark().await.unwrap();
                let mark = session.position();
                if held.len() < MAX_CONTEXT as usize {
                    session.feed(&[3]).await.unwrap();
                    assert_eq!(session.rewind(mark).unwrap(), mark);
                }
            }
            Action::Reset => {
                session.reset().unwrap();
                held.clear();
            }
            Action::Move => {
                let saved = session.save().await.unwrap();
                let model = session.model().clone();
                *session = Session::new(model, Some(MAX_CONTEXT)).await.unwrap();
                session.restore(&saved).await.unwrap();
            }
        }
        assert_eq!(session.tokens(), held);
    }

    /// A session may hold fewer tokens after going back, but no fewer than `at_least`.
    fn fall_back(&self, session: &Session, held: &mut Vec<u32>, at_least: usize) {
        let position = session.position() as usize;
        assert!((at_least..=held.len()).contains(&position));
        if !self.recurrent && at_least > 0 {
            assert_eq!(position, held.len());
        }
        held.truncate(position);
    }

    fn check(&self) {
        let session = RefCell::new(self.toy.session(MAX_CONTEXT));
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
                    self.act(session, &mut held, action).await;
                }
            });
        });
    }
}

#[test]
fn a_reused_session_is_as_good_as_a_fresh_one() {
    let subject = Subject {
        toy: Toy::new(),
        logits: reference::logits,
        generate: reference::generate,
        recurrent: false,
    };
    subject.check();
}

#[test]
fn a_reused_session_with_recurrent_states_is_as_good_as_a_fresh_one() {
    let subject = Subject {
        toy: Toy::recurrent(MAX_CONTEXT),
        logits: reference::recurrent::logits,
        generate: reference::recurrent::generate,
        recurrent: true,
    };
    subject.check();
}
