//! Shows that the exploration can fail: the absence of each of these rules must be noticed in a small space that is
//! clean with it.

use super::AFTER_LOSS;
use super::kinds::Kinds;
use super::search::{Plan, search, tell};
use super::stages::Stage;
use crate::cluster::election::types::Fault;

/// The space must be clean with the rule, and fail without it.
fn must_be_caught(rule: Fault, stage: Stage, nodes: usize, kinds: Kinds, faults: u8, ticks: u32) {
    let plan = Plan { faults, ticks, kinds, limit: 500_000 };
    let start = stage.world(nodes, true, Some(rule));
    let found = search(&start, plan);
    let Some(path) = found.bad else {
        panic!(
            "the exploration does not notice {rule:?}: {} states from {stage:?}, complete: {}",
            found.states, found.complete
        )
    };
    let told = tell(&start, &path);
    println!("{rule:?}, found after {} states from {stage:?}:\n{told}", found.states);
    assert!(told.contains("holders now: [\"n") || told.contains("wrong: Some"), "the path leads there again");
    let clean = search(&stage.world(nodes, true, None), plan);
    assert!(clean.bad.is_none() && clean.complete, "with the rule nothing is wrong there");
}

#[test]
fn an_ack_while_a_transaction_is_in_doubt() {
    must_be_caught(Fault::AckInDoubt, Stage::Killed, 2, Kinds::STORE, 1, 10);
}

#[test]
fn no_lowering_before_a_transaction() {
    must_be_caught(Fault::NoLowering, Stage::Solo, 2, Kinds::PROCESS, 1, 10);
}

#[test]
fn no_silence_after_a_restart() {
    must_be_caught(Fault::NoRestartSilence, Stage::Boot, 2, Kinds::PROCESS, 1, 10);
}

#[test]
fn no_wait_before_a_slow_takeover() {
    must_be_caught(Fault::NoSlowWait, Stage::Switchover, 3, Kinds::STORE, 1, 10);
}

#[test]
fn go_before_letting_go() {
    must_be_caught(Fault::GoEarly, Stage::Switchover, 2, Kinds::NONE, 0, 9);
}

#[test]
fn counting_from_the_receipt_of_an_ack() {
    must_be_caught(Fault::ReceiveTime, Stage::Settled, 2, Kinds::NETWORK, 2, 9);
}

/// A master that missed two changes of master gathers acks of all members: one from the former master, and a last one
/// from the next master.
#[test]
fn an_ack_to_the_master_of_an_older_epoch() {
    must_be_caught(Fault::AckOldEpoch, Stage::Stale, 3, Kinds::OPERATOR, 1, 5);
}

#[test]
fn a_slow_takeover_that_does_not_look_at_the_successor() {
    must_be_caught(Fault::SlowBlind, Stage::Leaseless, 3, Kinds::NETWORK, 1, 7);
}

#[test]
fn a_handover_that_waits_for_nothing() {
    must_be_caught(Fault::NoClaimWait, Stage::Switchover, 2, Kinds::NETWORK, 1, 9);
}

#[test]
fn a_promise_that_forgets_the_drift_of_clocks() {
    must_be_caught(Fault::NoDrift, Stage::Silent, 2, Kinds::NONE, 0, 9);
}

#[test]
fn resting_on_the_lease_with_a_successor_armed() {
    must_be_caught(Fault::SoloArmed, Stage::Solo, 2, Kinds::PROCESS, 1, 10);
}

#[test]
fn an_inherited_right_that_outlives_a_change_of_the_record() {
    must_be_caught(Fault::KeepInherited, Stage::Parked, 2, Kinds::PROCESS, 1, 8);
}

/// One member of etcd refuses the takeover because of a pause, and the other copy arrives after the pause.
#[test]
fn a_refusal_while_a_copy_is_under_way() {
    let kinds = Kinds { copies: true, ..Kinds::PAUSE };
    must_be_caught(Fault::CopyRefusal, Stage::Silent, 2, kinds, 2, 8);
}

/// A master rewrites its deleted record; the copy arrives after the next master's record is deleted.
#[test]
fn a_copy_of_a_first_record() {
    let kinds = Kinds { process: true, ..Kinds::DELETION };
    must_be_caught(Fault::FirstCopied, Stage::Rewritten, 2, kinds, 2, 3);
}

#[test]
fn a_takeover_in_a_pause() {
    must_be_caught(Fault::PauseForgotten, Stage::Silent, 2, Kinds::PAUSE, 1, 6);
}

#[test]
fn a_preemption_that_says_go_before_letting_go() {
    must_be_caught(Fault::GoEarly, Stage::Settled, 2, Kinds::PREEMPT, 1, 9);
}

#[test]
fn a_living_member_that_is_forgotten() {
    must_be_caught(Fault::ForgetLiving, Stage::Settled, 3, Kinds::FORGET, 1, 4);
}

/// The record of a master that holds on acks alone is deleted, and a node that does not hear that master has no
/// information.
#[test]
fn a_first_election_that_forgets_the_deleted_record() {
    must_be_caught(Fault::FirstBlind, Stage::Lost, 3, Kinds::NONE, 0, 7);
}

#[test]
fn an_epoch_that_only_the_dead_remember() {
    must_be_caught(Fault::EpochAgain, Stage::Lost, 2, Kinds::PROCESS, 1, AFTER_LOSS);
}
