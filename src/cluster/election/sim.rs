//! Seeded simulation of whole clusters on the real state machine. It models hosts, their kernels and clocks, the
//! network, etcd with its leases, and the faults of all of them; `plan.rs` says what a seed stands for.
//!
//! Each test run takes one fixed set of seeds, and as many random ones. With `KEEPCALL_FIRST_SEED` it takes only the
//! seeds from that one up to `KEEPCALL_SEEDS`. A failing seed is printed with the command that replays it exactly.

mod etcd;
mod plan;
mod random;
mod restored;
mod run;
mod world;

use super::types::Fault;
use run::run;
use std::io::Write;
use std::ops::Range;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 2400;
/// Seeds in which the absence of each rule must be noticed; most show within some hundred.
const RULE_SEEDS: u64 = 4 * SEEDS;

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

fn replay(seed: u64) -> String {
    format!(
        "replay: KEEPCALL_FIRST_SEED={seed} KEEPCALL_SEEDS={} KEEPCALL_TRACE=1 cargo test --lib cluster::election::sim::never -- --nocapture",
        seed + 1
    )
}

/// Returns random seeds, most likely unused so far.
fn fresh(count: u64) -> Range<u64> {
    use std::hash::{BuildHasher, Hasher};
    // The standard library takes its hash keys from the system's randomness.
    let first = std::hash::RandomState::new().build_hasher().finish() >> 16;
    first..first + count
}

#[test]
fn never_two_holders_and_a_holder_again_after_the_faults_end() {
    if let Ok(first) = std::env::var("KEEPCALL_FIRST_SEED") {
        return hold(first.parse().unwrap()..env("KEEPCALL_SEEDS", SEEDS));
    }
    hold(0..env("KEEPCALL_SEEDS", SEEDS));
    let new = fresh(SEEDS);
    // Bypass the capture of test output, so that the seeds are known after a success too.
    let told = format!(
        "new seeds: KEEPCALL_FIRST_SEED={} KEEPCALL_SEEDS={} cargo test --lib cluster::election::sim::never\n",
        new.start, new.end
    );
    let _ = std::io::stderr().write_all(told.as_bytes());
    hold(new);
}

/// Runs these seeds; every one must hold.
fn hold(seeds: Range<u64>) {
    let begun = std::time::Instant::now();
    let total = run(seeds, None);
    if let Some((seed, why)) = total.bad {
        panic!("seed {seed}: {why}\n{}", replay(seed));
    }
    println!(
        "{} seeds ({} chaos, {} scripts, {} etcd, {} agent) in {:.1} s: {} masters, {} handovers, {} restarts; slowest return {} ms of {} ms",
        total.runs,
        total.modes[0],
        total.modes[1],
        total.modes[2],
        total.modes[3],
        begun.elapsed().as_secs_f64(),
        total.masters,
        total.handovers,
        total.restarts,
        total.slowest.0,
        total.slowest.1
    );
    // A simulation without events would prove nothing.
    if total.runs >= 100 {
        assert!(total.masters > 2 * total.runs, "only {} masters: the world is too quiet", total.masters);
        assert!(total.handovers > total.runs / 5, "only {} handovers: the world is too quiet", total.handovers);
        assert!(total.restarts > total.runs / 10, "only {} restarts: the world is too quiet", total.restarts);
    }
}

/// The rules, each with the consequence of its absence.
///
/// One rule concerns only a node that is no member: no first election while a master is heard. `election/tests.rs`
/// shows it with that node alone. Members make no promise without a record, so a master that needs all of them could
/// not hold.
///
/// Another rule is missing here because nothing depends on it alone: a leaving node deletes its key only after its
/// promises have run out. Let it delete the key at once, at time `d`, after its last ack at `a <= d`. The master's
/// right that rests on that ack ends before `a + hold`. A slow contender sees the key gone at `d` or later, restarts
/// its wait if the node registered since (its run's revision), waits `hold` with the allowance for its clock, and so
/// comes after `d + hold >= a + hold`. The rule stays as a second line: a missing key then always means the same,
/// however it vanished.
const RULES: [(Fault, &str); 36] = [
    (Fault::AckInDoubt, "an ack while a transaction is in doubt"),
    (Fault::NoLowering, "arming a successor without lowering the hold first"),
    (Fault::NoRestartSilence, "contending right after a restart"),
    (Fault::NoSlowWait, "a slow takeover as soon as the keys are gone"),
    (Fault::GoEarly, "saying Go before letting go"),
    (Fault::ReceiveTime, "a hold counted from the receipt of an ack"),
    (Fault::AckOldEpoch, "an ack to a master of an old epoch"),
    (Fault::SlowBlind, "a slow takeover that does not look at the successor's key"),
    (Fault::KeepInherited, "an inherited right that is kept when a successor is armed"),
    (Fault::ReturnUnseen, "a slow takeover that does not see that the successor was back in between"),
    (Fault::StaleVouch, "a vouch without having read the record under the present lease"),
    (Fault::NoDrift, "promises without an allowance for clocks of another rate"),
    (Fault::LeaseNoDrift, "a lease without that allowance"),
    (Fault::TicketKept, "a doubt that ends without a new ticket"),
    (Fault::LeaseFromReply, "a lease counted from the answer"),
    (Fault::FailsafeSome, "failsafe on the acks of some members"),
    (Fault::SlowUncompared, "a slow takeover whose conditions etcd does not compare"),
    (Fault::KernelLate, "a transaction that leaves before the kernel was told of the shorter hold"),
    (Fault::SoloArmed, "the lease as a right although a successor is armed"),
    (Fault::PairedUnvouched, "a hold on acks that do not vouch"),
    (Fault::NoClaimWait, "a new master that does not wait for Go"),
    (Fault::EpochAgain, "a first election with the next epoch that its node knows of"),
    (Fault::FirstBlind, "a first election that does not look at what the deleted record said"),
    (Fault::OldVouch, "a vouch on a read of long ago"),
    (Fault::FirstForgetful, "a first election at once, although an epoch was heard of"),
    (Fault::GapForgotten, "a first election that takes two views without a record for one and the same absence"),
    (Fault::AckNoRecord, "an ack to a master although there is no record"),
    (Fault::AdoptFull, "a restarted agent that adopts a full hold"),
    (Fault::OwnHold, "a hold counted by the master's own settings, whatever the record says"),
    (Fault::OwnWait, "a wait counted by the own settings, whatever the record says"),
    (Fault::TermsEarly, "a longer hold that counts before etcd has it"),
    (Fault::CopyRefusal, "a refusal that counts although another copy of the commit is under way"),
    (Fault::FirstCopied, "copies of a commit that compares no revision"),
    (Fault::PauseForgotten, "an automatic change of master in a pause"),
    (Fault::ForgetLiving, "a member that is forgotten while its key is there"),
    (Fault::ClaimTerms, "a new master that shortens the hold while the old one may count by it"),
];

#[test]
fn every_rule_that_is_left_out_is_noticed() {
    let only = std::env::var("KEEPCALL_FAULT").ok();
    let mut missed = Vec::new();
    for (fault, what) in RULES {
        if only.as_ref().is_some_and(|o| *o != format!("{fault:?}")) {
            continue;
        }
        let begun = std::time::Instant::now();
        match run(0..env("KEEPCALL_SEEDS", RULE_SEEDS), Some(fault)).bad {
            Some((seed, why)) => {
                let why =
                    why.lines().next().unwrap_or_default().split(" of Plan").next().unwrap_or_default().to_owned();
                println!("{fault:?} ({what}): seed {seed}, {:.1} s: {why}", begun.elapsed().as_secs_f64());
            }
            None => missed.push(format!("{fault:?} ({what})")),
        }
    }
    assert!(missed.is_empty(), "the simulation does not notice: {missed:#?}");
}
