//! One node alone with what it is told, for the rules that a whole cluster would hide.

use super::{Action, Election, Kind, LeaseState, Message, Request, Settings};
use crate::cluster::record::{Alive, Record, Recorded, SCHEMA, View};
use crate::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const HOLD: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(100);
const LEASE: i64 = 7;

/// The node `a`, with an etcd that answers at once.
struct Alone {
    election: Election,
    now: Time,
    record: Option<Record>,
    alive: Option<Alive>,
    ticket: Option<String>,
    commits: Vec<Record>,
    beats: Vec<Time>,
    taken: usize,
}

impl Alone {
    fn new(record: Option<Record>) -> Self {
        let now = Time::from_millis(1_000_000);
        let settings = Settings {
            me: "a".to_owned(),
            boot: 1,
            heartbeat: BEAT,
            hold: HOLD,
            drift: 0.01,
            preempt: false,
            preempt_delay: Duration::ZERO,
            flap_budget: 100,
            flap_window: Duration::ZERO,
            fault: None,
        };
        let alive = record.as_ref().filter(|r| r.master == "a").map(|r| Alive { epoch: r.epoch, lease: LEASE });
        let election = Election::new(settings, now);
        Self { election, now, record, alive, ticket: None, commits: Vec::new(), beats: Vec::new(), taken: 0 }
    }

    fn view(&self) -> View {
        View {
            revision: 10,
            record: self
                .record
                .clone()
                .map_or(Recorded::Missing, |record| Recorded::Good { revision: 5, record: Arc::new(record) }),
            alive: self.alive,
            nodes: ["a".to_owned(), "b".to_owned()].into(),
            runs: BTreeMap::new(),
            ticket: self.ticket.clone(),
            paused: None,
        }
    }

    /// Carries out what is asked for. A commit is noted and never answered.
    fn settle(&mut self) {
        while let Some(action) = self.election.poll_action() {
            match action {
                Action::Store { id, request } => {
                    match request {
                        Request::Read => {}
                        Request::Ticket(t) => self.ticket = Some(t),
                        Request::Commit(c) => {
                            self.commits.push((*c.record).clone());
                            continue;
                        }
                    }
                    self.election.handle_reply(id, true, self.view(), self.now);
                }
                Action::Send { message, .. } if matches!(message.kind, Kind::Beat { .. }) => self.beats.push(self.now),
                Action::Take { .. } => self.taken += 1,
                _ => {}
            }
        }
    }

    /// Time passes; `b` acks each heartbeat if it does.
    fn pass(&mut self, time: Duration, acks: bool) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.election.next_deadline().clamp(self.now, end);
            let before = self.beats.len();
            let lease = LeaseState { id: LEASE, until: self.now + HOLD * 3 };
            self.election.set_lease(Some(lease), self.now);
            self.settle();
            self.election.handle_timeout(self.now);
            self.settle();
            if acks && self.beats.len() > before {
                self.ack();
            }
        }
    }

    fn ack(&mut self) {
        let beat = u64::try_from(self.beats.len()).unwrap();
        let kind = Kind::Ack { beat, boot: 1, vouch: true };
        self.election.handle_message("b", Message { kind, epoch: 3, fit: true, priority: 100 }, self.now);
        self.settle();
    }
}

fn record(master: &str, successor: &str) -> Record {
    Record {
        schema: SCHEMA,
        epoch: 3,
        master: master.to_owned(),
        successor: Some(successor.to_owned()),
        members: vec!["a".to_owned(), "b".to_owned()],
        since_ms: 1,
        reason: String::new(),
        handover: None,
        flaps: 0,
        addresses: BTreeMap::new(),
    }
}

#[test]
fn a_node_that_lacks_something_is_not_elected_first_and_is_as_soon_as_it_lacks_nothing() {
    let mut a = Alone::new(None);
    a.election.set_ready(false, a.now);
    a.pass(HOLD * 60, false);
    assert!(a.commits.is_empty());
    a.election.set_ready(true, a.now);
    a.pass(HOLD * 6, false);
    assert_eq!(a.commits.len(), 1);
}

#[test]
fn a_successor_that_lacks_something_does_not_take_over() {
    let mut a = Alone::new(Some(record("b", "a")));
    a.election.set_ready(false, a.now);
    a.pass(HOLD * 10, false);
    assert!(a.commits.is_empty());
    a.election.set_ready(true, a.now);
    a.pass(HOLD, false);
    assert_eq!(a.commits[0].master, "a");
}

#[test]
fn a_master_by_the_record_that_lacks_something_takes_nothing_and_binds_nobody() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.election.set_ready(false, a.now);
    a.pass(HOLD * 10, true);
    assert_eq!((a.taken, a.beats.len()), (0, 0), "each heartbeat would keep the successor from taking over");
    a.election.set_ready(true, a.now);
    a.pass(HOLD, true);
    assert_eq!(a.taken, 1);
}

#[test]
fn what_is_held_is_held_on_when_something_goes_missing() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.pass(HOLD * 3, true);
    assert!(a.election.hold().is_some());
    a.election.set_ready(false, a.now);
    a.pass(HOLD * 3, true);
    assert!(a.election.hold().is_some(), "nobody else would answer");
}

#[test]
fn a_master_that_stood_still_speaks_at_once_and_is_master_again() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.pass(HOLD * 3, true);
    assert_eq!(a.taken, 1);
    // Longer than a hold, shorter than the pause of a master that hears nobody.
    a.now += HOLD + HOLD / 4;
    let lost = a.now;
    a.pass(HOLD / 2, true);
    assert_eq!(a.taken, 2, "no answer is no news for who did not listen");
    assert!(a.beats.iter().any(|at| *at >= lost && *at <= lost + BEAT), "{lost}");
}

#[test]
fn a_master_that_hears_nobody_is_silent_for_long_enough_to_be_replaced() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.pass(HOLD * 3, true);
    let deaf = a.now;
    a.pass(HOLD * 8, false);
    let after: Vec<_> = a.beats.iter().copied().filter(|at| *at > deaf + HOLD).collect();
    assert!(after.windows(2).all(|w| w[1].since(w[0]) >= HOLD * 2), "{after:?}");
}
