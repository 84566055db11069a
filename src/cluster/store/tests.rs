use super::*;
use crate::cluster::record::{Record, SCHEMA};
use std::collections::{BTreeMap, BTreeSet};

fn record(master: &str, epoch: u64) -> Record {
    Record {
        schema: SCHEMA,
        epoch,
        master: master.into(),
        successor: None,
        members: vec!["a".into(), "b".into()],
        since_ms: 5,
        reason: "test".into(),
        handover: None,
        flaps: 0,
        addresses: BTreeMap::new(),
        terms: None,
        vips: BTreeSet::new(),
    }
}

fn commit() -> Commit {
    Commit {
        base: 10,
        ticket: "t".into(),
        nodes_gone: Vec::new(),
        runs: Vec::new(),
        alive_gone: false,
        automatic: false,
        record: record("b", 3).into(),
        alive: Some(1),
        drop_alive: false,
    }
}

fn seen(record: Recorded) -> View {
    View {
        revision: 20,
        record,
        alive: None,
        nodes: BTreeSet::new(),
        runs: BTreeMap::new(),
        ticket: Some("t".into()),
        paused: None,
    }
}

fn at(revision: i64, record: Record) -> View {
    seen(Recorded::Good { revision, record: record.into() })
}

#[test]
fn the_copy_that_came_second_does_not_look_like_a_lost_race() {
    assert!(matches!(settled(&commit(), false, true, at(12, record("b", 3))), Ok((true, _))));
    // The race was lost.
    assert!(matches!(settled(&commit(), false, true, at(12, record("a", 3))), Ok((false, _))));
    // Somebody else has written our ticket since: whose record it is cannot be said.
    let other = View { ticket: Some("u".into()), ..at(12, record("b", 3)) };
    assert!(matches!(settled(&commit(), false, true, other), Ok((false, _))));
}

#[test]
fn a_refusal_is_in_doubt_only_while_another_copy_could_be_done() {
    let old = || at(10, record("a", 2));
    assert!(matches!(settled(&commit(), false, true, old()), Err((Failure::InDoubt, _))));
    assert!(matches!(settled(&commit(), false, false, old()), Ok((false, _))));
    // The same text that was there before, put again to go with `alive`, was not put.
    assert!(matches!(settled(&commit(), false, false, at(10, record("b", 3))), Ok((false, _))));
    // No copy is done any more once the record is another, or none.
    assert!(matches!(settled(&commit(), false, true, seen(Recorded::Missing)), Ok((false, _))));
    let spoilt = || seen(Recorded::Unreadable { revision: 11, why: String::new() });
    assert!(matches!(settled(&commit(), false, true, spoilt()), Ok((false, _))));
    assert!(matches!(settled(&commit(), true, true, old()), Ok((true, _))));
}
