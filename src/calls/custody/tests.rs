use super::*;
use crate::calls::model::{Leg, Shared};
use crate::calls::store::{Keep, StoreEvent};
use crate::calls::table::script::{A, B, Dialog, Lab};
use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

/// A call of two legs, as the server `n` stored it.
pub(super) fn a_call(id: &str) -> Call {
    static CALL: LazyLock<Call> = LazyLock::new(|| {
        let mut lab = Lab::new();
        lab.b2bua(&Dialog::new("in", A, false, "1", "2"), &Dialog::new("out", B, true, "1", "2"));
        lab.calls().remove(0)
    });
    Call { id: id.to_owned(), ..CALL.clone() }
}

/// The same call, carried by an agent.
pub(super) fn carried(call: Call) -> Call {
    let legs = call.legs.iter().map(|leg| Shared::from(Leg { carried: true, ..(**leg).clone() }));
    Call { legs: legs.collect(), ..call }
}

/// A node without any call.
struct Nobody;

impl Keepers for Nobody {
    fn followed(&self) -> HashSet<&str> {
        HashSet::new()
    }

    fn state(&self, _: &str) -> Option<Call> {
        None
    }

    fn carries(&self, _: &str) -> bool {
        false
    }
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn actions(custody: &mut Custody) -> Vec<Action> {
    std::iter::from_fn(|| custody.poll_action()).collect()
}

fn read(calls: Vec<Call>) -> Vec<StoreEvent> {
    vec![StoreEvent::Synced { calls, keep: Keep::These(BTreeSet::new()) }]
}

fn of(node: &str, id: &str) -> Call {
    Call { node: node.to_owned(), ..a_call(id) }
}

fn works(working: bool) -> LocalServer {
    LocalServer { working: Some(working), since_ms: None, stays: false }
}

/// A standby `a` that has read these calls, with the mode that relays.
fn standby(calls: Vec<Call>) -> Custody {
    let mut custody = Custody::new("a", 100, true);
    custody.handle_mode(true);
    custody.handle_stored(read(calls), &Nobody, at(1));
    custody
}

#[test]
fn a_standby_arms_what_it_reads_and_takes_the_relay_over_once_it_knows_all() {
    let mut custody = Custody::new("a", 100, true);
    custody.handle_mode(true);
    assert_eq!(actions(&mut custody), [Action::Arm(Vec::new())], "the former process's audio goes on");
    custody.handle_stored(read(vec![of("b", "one")]), &Nobody, at(1));
    let arm = Action::Arm(vec!["one".to_owned()]);
    assert_eq!(actions(&mut custody), [arm, Action::Complete, Action::TakeRelay]);
}

#[test]
fn a_new_master_recovers_the_former_ones_calls_at_once() {
    let mut custody = standby(vec![of("b", "one")]);
    actions(&mut custody);
    custody.take(7, false, at(2));
    assert_eq!(actions(&mut custody), [Action::Recover(vec![of("b", "one")])]);
}

#[test]
fn own_calls_wait_for_the_checks_and_go_to_the_server_that_works() {
    for working in [true, false] {
        let mut custody = standby(vec![of("a", "own"), of("b", "other"), carried(of("a", "with us"))]);
        actions(&mut custody);
        custody.take(7, true, at(2));
        let former = vec![of("b", "other"), carried(of("a", "with us"))];
        assert_eq!(actions(&mut custody), [Action::Recover(former)]);
        custody.settle_own(&Nobody);
        assert_eq!(actions(&mut custody), [], "the checks have not decided");
        custody.handle_server(works(working), &Nobody);
        let told = Action::Tell(News::OwnCalls { calls: 1, working });
        let own = of("a", "own");
        if working {
            assert_eq!(actions(&mut custody), [told, Action::Adopt(own), Action::Release(vec!["own".to_owned()])]);
        } else {
            assert_eq!(actions(&mut custody), [told, Action::Recover(vec![own])]);
        }
    }
}

#[test]
fn the_last_writes_of_a_former_master_are_recovered_too() {
    let mut custody = standby(Vec::new());
    custody.take(7, false, at(2));
    actions(&mut custody);
    let late = Call { epoch: 6, ..of("b", "late") };
    custody.handle_stored(vec![StoreEvent::Put { call: Box::new(late.clone()), own: false }], &Nobody, at(2));
    assert_eq!(actions(&mut custody), [Action::Recover(vec![late]), Action::Complete]);
}

#[test]
fn the_calls_of_a_dead_process_wait_for_a_handover_if_one_may_come() {
    for (stays, seconds) in [(true, 0), (false, 3)] {
        let mut custody = standby(Vec::new());
        custody.take(7, false, at(2));
        actions(&mut custody);
        let server = LocalServer { working: Some(true), since_ms: Some(500), stays };
        custody.handle_server(server, &Nobody);
        assert_eq!(actions(&mut custody), [Action::FindOrphans { since_ms: 500 }]);
        custody.handle_orphans(vec!["dead".to_owned()], at(10));
        assert_eq!(custody.next_deadline(), Some(at(10 + seconds)));
        custody.handle_timeout(&Nobody, at(10 + seconds));
        assert_eq!(actions(&mut custody), [Action::RecoverOrphans(vec!["dead".to_owned()])]);
        // A handover that comes in time has them instead.
        custody.handle_orphans(vec!["dead".to_owned()], at(20));
        custody.drop_role();
        assert_eq!((custody.next_deadline(), actions(&mut custody)), (None, vec![Action::Arm(Vec::new())]));
    }
}

#[test]
fn a_table_of_a_former_process_stays_while_the_mode_relays_nothing() {
    let mut custody = Custody::new("a", 100, true);
    custody.take(7, true, at(1));
    custody.handle_mode(false);
    custody.handle_stored(read(Vec::new()), &Nobody, at(2));
    assert!(!actions(&mut custody).contains(&Action::TakeRelay));
    custody.handle_mode(true);
    assert_eq!(actions(&mut custody), [Action::TakeRelay]);
}

#[test]
fn more_calls_than_the_limit_are_told_once_a_minute() {
    let mut custody = Custody::new("a", 1, false);
    custody.handle_mode(true);
    let told = |custody: &mut Custody| {
        actions(custody).into_iter().filter(|a| matches!(a, Action::Tell(News::LeftOut { calls: 1 }))).count()
    };
    for (second, want) in [(1, 1), (2, 0), (62, 1)] {
        custody.handle_stored(read(vec![of("b", "one"), of("b", "two")]), &Nobody, at(second));
        assert_eq!(told(&mut custody), want, "after {second} s");
    }
}
