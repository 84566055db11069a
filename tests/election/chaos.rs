//! Real agents, a real etcd of three members, and faults. The VIP never has two hosts, is silent no longer than the
//! fault allows, and comes back.
//!
//! `KEEPCALL_CHAOS_SEED` and `KEEPCALL_CHAOS_ROUNDS` play other rounds; `scripts/soak.sh` plays hundreds.

use lab::chaos::{Args, Report, run};
use std::sync::{Mutex, PoisonError};

/// Two labs at once would stall each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn play(args: &Args) -> Report {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    run(args).unwrap()
}

/// Ten heartbeats to a hold of a second: a machine that stalls for half a second does not count as dead.
fn args(nodes: usize, rounds: u64, seed: u64) -> Args {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse().unwrap());
    Args {
        rounds: number("KEEPCALL_CHAOS_ROUNDS").unwrap_or(rounds),
        seed: Some(number("KEEPCALL_CHAOS_SEED").unwrap_or(seed)),
        nodes,
        // For a machine that runs other tests as well.
        allowance_ms: 1500,
        ..Args::default()
    }
}

fn is_clean(report: &Report, kinds: &[&str]) {
    assert!(report.violations.is_empty(), "{:#}", report.json());
    // Faults happened, and probes saw them.
    assert!(report.epochs > 0 && report.asked > 5000, "{:#}", report.json());
    // The faults this seed was chosen for; other seeds have other faults.
    if std::env::var_os("KEEPCALL_CHAOS_SEED").is_none() {
        assert!(kinds.iter().all(|k| report.faults.contains_key(k)), "{:#}", report.json());
    }
}

#[test]
fn two_nodes_in_chaos_have_one_vip() {
    let kinds = ["kill-agent", "freeze-agent", "stop-agent", "cut-link", "no-etcd", "freeze-etcd", "switchover"];
    is_clean(&play(&args(2, 4, 98)), &kinds);
}

#[test]
fn three_nodes_in_chaos_have_one_vip() {
    let kinds = ["kill-agent", "freeze-agent", "restart-agent", "apart", "mute", "freeze-etcd", "switchover"];
    is_clean(&play(&args(3, 4, 106)), &kinds);
}

/// A node that hears the master is bound by its answer. A master that gets no answer must leave it a way out.
#[test]
fn a_master_that_is_heard_and_hears_nobody_is_replaced() {
    let report = play(&Args { rounds: 1, only: Some("deaf".into()), lasts_ms: Some(12_000), ..args(2, 1, 5) });
    assert!(report.violations.is_empty() && report.epochs == 1, "{:#}", report.json());
}

/// The purpose of the kernel lease, and the proof that the tests above would notice its loss.
#[test]
fn without_the_kernel_lease_a_frozen_agent_makes_two_hosts() {
    let report = play(&Args {
        rounds: 1,
        only: Some("freeze-agent".into()),
        lasts_ms: Some(3000),
        without_lease: true,
        ..args(2, 1, 5)
    });
    assert!(report.two_hosts_ms > 500, "{:#}", report.json());
    assert!(report.violations.iter().any(|v| v.contains("two hosts answered")), "{:#}", report.json());
}
