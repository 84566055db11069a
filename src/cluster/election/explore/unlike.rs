//! Nodes with different settings: different holds, changed at each restart, and a node that returns with other
//! addresses.

use super::kinds::Kinds;
use super::search::{Plan, search, tell};
use super::stages::{Stage, run};
use super::world::Unlike;
use crate::cluster::election::types::Fault;

fn plan(kinds: Kinds, faults: u8, ticks: u32) -> Plan {
    Plan { faults, ticks, kinds, limit: 500_000 }
}

/// Explores from each start state and returns the number of states.
fn cover(stages: &[Stage], nodes: usize, unlike: &[Unlike], plan: Plan) -> usize {
    let mut states = 0;
    for (stage, unlike, slow_first) in
        stages.iter().flat_map(|s| unlike.iter().flat_map(move |u| [(s, *u, true), (s, *u, false)]))
    {
        let start = stage.world_of(nodes, slow_first, unlike, None);
        let found = search(&start, plan);
        if let Some(path) = found.bad {
            panic!("from {stage:?}, {unlike:?}, slow first {slow_first}:\n{}", tell(&start, &path));
        }
        assert!(found.complete, "more than {} states from {stage:?}, {unlike:?}", plan.limit);
        println!("{stage:?} {unlike:?} {nodes} nodes: {} states, {} steps", found.states, found.steps);
        states += found.states;
    }
    states
}

/// The space must be clean with the rule, and fail without it.
fn must_be_caught(rule: Fault, (stage, unlike): (Stage, Unlike), nodes: usize, plan: Plan) {
    let start = stage.world_of(nodes, true, unlike, Some(rule));
    let found = search(&start, plan);
    let Some(path) = found.bad else {
        panic!(
            "the exploration does not notice {rule:?}: {} states from {stage:?}, complete: {}",
            found.states, found.complete
        )
    };
    println!("{rule:?}, found after {} states from {stage:?}:\n{}", found.states, tell(&start, &path));
    let clean = search(&stage.world_of(nodes, true, unlike, None), plan);
    assert!(clean.bad.is_none() && clean.complete, "with the rule nothing is wrong there");
}

const HOLDS: [Unlike; 2] = [Unlike::LongFirst, Unlike::ShortFirst];

#[test]
fn nodes_of_unlike_holds_with_any_one_fault() {
    let states =
        cover(&[Stage::Switchover, Stage::Killed, Stage::Stale, Stage::Parked], 2, &HOLDS, plan(Kinds::ALL, 1, 6));
    assert!(states >= 30_000, "only {states} states");
}

#[test]
fn a_node_that_comes_back_with_other_addresses_never_holds() {
    let both = [Unlike::Vips(0), Unlike::Vips(1)];
    let states = cover(&[Stage::Settled, Stage::Killed], 2, &both, plan(Kinds::ALL, 1, 6));
    assert!(states >= 5_000, "only {states} states");
}

/// The successor returns with other addresses: the master rests on its lease from then on.
#[test]
fn a_node_that_comes_back_with_other_addresses_is_not_armed() {
    let armed = |rule: Option<Fault>| {
        let mut w = Stage::Settled.world_of(2, true, Unlike::Vips(1), rule);
        w.kill(1, false);
        w.start(1);
        run(&mut w, 6);
        assert!(w.holders().eq([0]), "the master stays");
        w.store.record.as_ref().and_then(|r| r.1.successor.clone())
    };
    assert_eq!(armed(None), None);
    assert_eq!(armed(Some(Fault::StrangerArmed)).as_deref(), Some("n1"), "without the rule");
}

/// The master returns with other addresses: a node with the instance's addresses becomes master. If all nodes have the
/// new addresses, the instance adopts them.
#[test]
fn a_master_whose_addresses_were_changed_gives_way() {
    let mut w = Stage::Settled.world_of(2, true, Unlike::Vips(0), None);
    w.kill(0, true);
    w.start(0);
    run(&mut w, 12);
    assert!(w.holders().eq([1]), "the other one holds");

    let mut w = Stage::Settled.world_of(2, true, Unlike::AllVips, None);
    for n in [1, 0] {
        w.kill(n, true);
        w.start(n);
        run(&mut w, 3);
        assert!(!w.is_bad());
    }
    run(&mut w, 12);
    assert_eq!(w.holders().count(), 1);
    let r = w.store.record.as_ref().map(|r| &r.1).unwrap();
    assert!(r.vips.len() == 2 && r.successor.is_some(), "{r:?}");
}

#[test]
fn counting_by_the_own_hold() {
    let kinds = Kinds { network: true, ..Kinds::STORE };
    must_be_caught(Fault::OwnHold, (Stage::Killed, Unlike::ShortFirst), 2, plan(kinds, 2, 4));
}

#[test]
fn waiting_for_the_own_hold() {
    must_be_caught(Fault::OwnWait, (Stage::Settled, Unlike::LongFirst), 2, plan(Kinds::PROCESS, 1, 6));
}

#[test]
fn a_takeover_by_a_node_with_other_addresses() {
    must_be_caught(Fault::StrangerTakes, (Stage::Silent, Unlike::Vips(1)), 2, plan(Kinds::PROCESS, 1, 8));
}
