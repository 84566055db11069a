//! One node alone with its inputs, for rules that a whole cluster would hide.

use super::types::Fault;
use super::{Action, Election, Failure, Kind, LeaseState, Message, ReportedSettings, Request, Settings};
use crate::cluster::record::{Alive, Record, Recorded, SCHEMA, Terms, View};
use crate::cluster::settings::digest_of_vips;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
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
    /// etcd answers reads.
    answers: bool,
    /// etcd takes tickets.
    writes: bool,
}

impl Alone {
    fn new(record: Option<Record>) -> Self {
        Self::with(record, None)
    }

    fn with(record: Option<Record>, fault: Option<Fault>) -> Self {
        let now = Time::from_millis(1_000_000);
        let settings = Settings {
            me: "a".to_owned(),
            boot: 1,
            heartbeat: BEAT,
            hold: HOLD,
            drift: 0.01,
            reported: ReportedSettings {
                terms: Terms::new(HOLD, 0.01),
                vips: digest_of_vips(&BTreeSet::new()),
                others: 0,
            },
            vips: BTreeSet::new(),
            preempt: false,
            preempt_delay: Duration::ZERO,
            flap_budget: 100,
            flap_window: Duration::ZERO,
            fault,
        };
        let alive = record.as_ref().filter(|r| r.master == "a").map(|r| Alive { epoch: r.epoch, lease: LEASE });
        let election = Election::new(settings, now);
        Self {
            election,
            now,
            record,
            alive,
            ticket: None,
            commits: Vec::new(),
            beats: Vec::new(),
            taken: 0,
            answers: true,
            writes: true,
        }
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
            rewritten: false,
            paused: None,
        }
    }

    /// Executes the actions. A commit is recorded and never answered.
    fn settle(&mut self) {
        while let Some(action) = self.election.poll_action() {
            match action {
                Action::Store { id, request } => {
                    match request {
                        Request::Read | Request::Ticket(_)
                            if !self.answers || (!self.writes && request != Request::Read) =>
                        {
                            self.election.handle_failure(id, Failure::Definite, self.now);
                            continue;
                        }
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
                Action::Take(_) => self.taken += 1,
                _ => {}
            }
        }
    }

    /// Lets time pass; `b` acks each heartbeat if `acks` is set.
    fn pass(&mut self, time: Duration, acks: bool) {
        let end = self.now + time;
        let mut before = self.beats.len();
        self.settle();
        while self.now < end {
            if acks && self.beats.len() > before {
                self.ack();
            }
            self.now = self.election.next_deadline().clamp(self.now, end);
            before = self.beats.len();
            let lease = LeaseState { id: LEASE, until: self.now + HOLD * 3 };
            self.election.set_lease(Some(lease), self.now);
            self.settle();
            self.election.handle_timeout(self.now);
            self.settle();
        }
        if acks && self.beats.len() > before {
            self.ack();
        }
    }

    fn ack(&mut self) {
        let beat = u64::try_from(self.beats.len()).unwrap();
        let kind = Kind::Ack { beat, boot: 1, vouch: true };
        self.election.handle_message(
            "b",
            Message { kind, epoch: 3, fit: true, priority: 100, reported: None },
            self.now,
        );
        self.settle();
    }

    /// Lets time pass, in which `b` sends a heartbeat as master in epoch 3 each half hold.
    fn hear(&mut self, time: Duration) {
        let end = self.now + time;
        let mut beat = 0;
        while self.now < end {
            beat += 1;
            let kind = Kind::Beat { beat, boot: 9 };
            self.election.handle_message(
                "b",
                Message { kind, epoch: 3, fit: true, priority: 100, reported: None },
                self.now,
            );
            self.pass(HOLD / 2, false);
        }
    }

    /// The record is deleted, and the master's `alive` key has expired.
    fn lose(&mut self) {
        (self.record, self.alive) = (None, None);
        self.election.hint(self.now);
        self.settle();
    }
}

/// Wait of a node that knows of a deleted record: a read counts for four seconds, and a lease lasts three holds.
const LOST: Duration = Duration::from_millis(7_200);

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
        terms: Some(Terms::new(HOLD, 0.01)),
        vips: BTreeSet::new(),
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
fn no_first_election_while_a_master_is_heard_and_one_after_it_was_silent() {
    let mut a = Alone::new(None);
    a.hear(LOST * 5);
    assert!(a.commits.is_empty(), "whoever beats may hold, and nobody knows on whose promises");
    a.pass(HOLD * 2, false);
    assert_eq!(a.commits.len(), 1);
    assert!(a.commits[0].epoch > 3);
    let mut deaf = Alone::with(None, Some(Fault::FirstDeaf));
    deaf.hear(LOST * 5);
    assert!(!deaf.commits.is_empty(), "this test would not notice");
}

#[test]
fn whoever_held_when_the_record_was_deleted_begins_anew_at_once() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.election.set_fitness(true, 100, a.now);
    a.pass(BEAT, false);
    a.pass(HOLD * 3, true);
    a.lose();
    a.pass(HOLD / 100, false);
    assert_eq!(a.commits.last().map(|r| (r.master.as_str(), r.epoch > 3)), Some(("a", true)), "{:?}", a.commits);
}

#[test]
fn all_others_wait_until_nobody_can_vouch_for_the_master_of_a_deleted_record() {
    for successor in ["a", "c"] {
        let mut a = Alone::new(Some(record("b", successor)));
        a.hear(HOLD * 3);
        a.lose();
        a.pass(Duration::from_secs(7), false);
        assert!(a.commits.is_empty(), "{successor}: {:?}", a.commits);
        a.pass(LOST - Duration::from_secs(7), false);
        assert_eq!(a.commits.len(), 1, "{successor}");
    }
}

#[test]
fn a_node_that_could_not_read_for_long_waits_anew_for_a_record_that_it_may_have_missed() {
    for (fault, early) in [(None, 0), (Some(Fault::GapForgotten), 1)] {
        let mut a = Alone::with(Some(record("b", "a")), fault);
        a.hear(HOLD * 3);
        a.lose();
        a.election.set_ready(false, a.now);
        a.pass(LOST, false);
        a.answers = false;
        a.pass(Duration::from_secs(5), false);
        a.answers = true;
        a.election.set_ready(true, a.now);
        a.pass(Duration::from_secs(7), false);
        assert_eq!(a.commits.len(), early, "{fault:?}");
        a.pass(LOST - Duration::from_secs(6), false);
        assert_eq!(a.commits.len(), 1, "{fault:?}");
    }
}

#[test]
fn a_node_without_a_fresh_read_is_not_elected_first() {
    let mut a = Alone::new(Some(record("b", "a")));
    a.hear(HOLD * 3);
    a.lose();
    a.answers = false;
    a.pass(LOST * 3, false);
    assert!(a.commits.is_empty(), "another record may have come and gone: {:?}", a.commits);
}

#[test]
fn the_alive_key_of_an_unknown_epoch_starts_the_wait_again() {
    let mut a = Alone::new(Some(record("b", "a")));
    a.hear(HOLD * 3);
    a.lose();
    a.pass(HOLD * 3, false);
    a.alive = Some(Alive { epoch: 12, lease: 99 });
    a.pass(Duration::from_secs(2), false);
    a.alive = None;
    a.pass(Duration::from_secs(4), false);
    assert!(a.commits.is_empty(), "{:?}", a.commits);
    a.pass(LOST, false);
    assert_eq!(a.commits.len(), 1);
}

#[test]
fn whoever_held_when_all_keys_were_deleted_begins_anew_at_once() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.election.set_fitness(true, 100, a.now);
    a.pass(BEAT, false);
    a.pass(HOLD * 3, true);
    a.ticket = None;
    a.lose();
    a.pass(HOLD / 100, false);
    assert_eq!(a.commits.last().map(|r| (r.master.as_str(), r.epoch > 3)), Some(("a", true)), "{:?}", a.commits);
}

#[test]
fn a_lost_ticket_starts_the_wait_again() {
    let mut a = Alone::new(Some(record("b", "a")));
    a.hear(HOLD * 3);
    a.lose();
    a.pass(HOLD * 3, false);
    a.ticket = None;
    a.pass(Duration::from_secs(4), false);
    assert!(a.commits.is_empty(), "{:?}", a.commits);
}

#[test]
fn a_master_whose_record_and_ticket_are_gone_goes_on_with_its_heartbeats() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.election.set_fitness(true, 100, a.now);
    a.pass(HOLD * 3, true);
    // etcd answers reads and refuses writes, as it does without disk space.
    (a.record, a.ticket, a.writes) = (None, None, false);
    a.election.hint(a.now);
    a.settle();
    let before = a.beats.len();
    a.pass(HOLD * 2, true);
    assert!(a.beats.len() >= before + 19, "{} heartbeats in two holds", a.beats.len() - before);
    assert!(a.election.hold().is_some());
    a.writes = true;
    a.pass(HOLD, true);
    assert_eq!(a.commits.last().map(|r| (r.master.as_str(), r.epoch)), Some(("a", 3)), "{:?}", a.commits);
}

#[test]
fn a_master_whose_hold_ran_out_before_the_record_was_deleted_waits_like_all_others() {
    let mut a = Alone::new(Some(record("a", "b")));
    a.pass(HOLD * 3, true);
    a.pass(HOLD * 2, false);
    assert!(a.election.hold().is_none());
    let before = a.commits.len();
    a.lose();
    a.pass(Duration::from_secs(6), false);
    assert_eq!(a.commits.len(), before);
}

#[test]
fn a_lease_alone_gives_no_right_to_a_master_that_cannot_read_for_long() {
    for (fault, kept) in [(None, false), (Some(Fault::SoloUnread), true)] {
        let alone = Record { successor: None, members: vec!["a".to_owned()], ..record("a", "b") };
        let mut a = Alone::with(Some(alone), fault);
        a.pass(HOLD * 3, false);
        a.answers = false;
        a.pass(Duration::from_secs(4), false);
        assert!(a.election.hold().is_some(), "{fault:?}: etcd may be slow for some seconds");
        a.pass(LOST - Duration::from_secs(4), false);
        assert_eq!(a.election.hold().is_some(), kept, "{fault:?}: another node may have been elected first");
        a.answers = true;
        a.pass(HOLD, false);
        assert!(a.election.hold().is_some(), "{fault:?}");
    }
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
    // Longer than a hold, shorter than the pause of a master that hears no node.
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
