//! Seeded simulation of whole clusters on the real state machine: random delay, loss, duplication, pause, crash, partition,
//! etcd outage and leader change, transactions that arrive seconds late. A right that a frozen node holds goes on, as the
//! kernel's would. Every failing seed replays.

mod etcd;
mod world;

use super::types::Fault;
use world::World;

/// The first seed that shows two holders at one instant.
fn first_bad(fault: Option<Fault>, seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| World::new(seed, fault).run().bad.map(|b| (seed, b)))
}

/// How many seeds to run: a debug build gets through some dozen a second.
fn seeds(default: u64) -> u64 {
    std::env::var("KEEPCALL_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// To replay one seed: `KEEPCALL_FIRST_SEED=n KEEPCALL_SEEDS=n+1`.
fn first_seed() -> u64 {
    std::env::var("KEEPCALL_FIRST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0)
}

#[test]
fn never_two_holders_and_a_holder_again_after_the_faults_end() {
    let (mut won, mut handed) = (0, 0);
    for seed in first_seed()..seeds(150) {
        let w = World::new(seed, None).run();
        assert!(w.bad.is_none(), "seed {seed}: {}", w.bad.unwrap());
        won += w.takes;
        handed += w.handovers;
    }
    // A simulation in which nothing happens would prove nothing.
    assert!(won > 300 && handed > 20, "only {won} masters and {handed} handovers: the world is too quiet");
}

fn must_be_caught(fault: Fault) {
    assert!(first_bad(Some(fault), 0..seeds(400)).is_some(), "the simulation does not notice {fault:?}");
}

#[test]
fn an_ack_while_a_transaction_is_in_doubt_is_caught() {
    must_be_caught(Fault::AckInDoubt);
}

#[test]
fn arming_without_lowering_the_hold_first_is_caught() {
    must_be_caught(Fault::NoLowering);
}

#[test]
fn contending_right_after_a_restart_is_caught() {
    must_be_caught(Fault::NoRestartSilence);
}

#[test]
fn saying_go_without_letting_go_is_caught() {
    must_be_caught(Fault::GoEarly);
}

#[test]
fn counting_from_the_receipt_of_an_ack_is_caught() {
    must_be_caught(Fault::ReceiveTime);
}

#[test]
fn a_slow_takeover_that_does_not_look_at_the_successor_is_caught() {
    must_be_caught(Fault::SlowBlind);
}
