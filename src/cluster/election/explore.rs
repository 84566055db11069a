//! Exhaustive exploration of small clusters on the real state machine: every event from a set of start states
//! (`stages.rs`), with a limited number of faults within a limited number of ticks. Each state is visited once, and
//! each step is checked for two holders.
//!
//! The coverage is exactly this. Without a fault everything happens at once and in order. Each fault (`choices.rs`) may
//! hit each message, request, answer, lease and process at each point. Anything delayed, cut, frozen or killed may
//! return at every later tick or never. A late message may arrive after any other, so reordering needs no choice of its
//! own; a message that never arrives is lost. Time is in ticks, of which five make a hold on a slow clock. Clocks run
//! at both ends of the drift bound. Leases end at their end or, as a fault, at any later tick. The seeded simulation
//! covers events between two ticks, longer runs and more faults.
//!
//! `KEEPCALL_EXPLORE_FAULTS` and `KEEPCALL_EXPLORE_HORIZON` go deeper, and `KEEPCALL_EXPLORE_LIMIT` (states per start)
//! bounds memory and time. The search goes tick by tick, so a search that reaches the limit has covered all earlier
//! ticks completely, and it prints their number. In an ordinary test run that is a failure. The search is
//! deterministic, so the same test finds the same path again, and prints it in words.

pub(super) mod canon;
mod choices;
mod items;
mod kinds;
mod reached;
mod search;
mod stages;
mod store;
mod unlike;
mod variants;
mod world;

use kinds::Kinds;
use reached::Reached;
use search::{Plan, search, tell};
use stages::Stage;
use std::time::Duration;

/// Longest hold of any node, and the longest time that a promise can bind under it.
pub(super) const LONGEST: Duration = world::HOLD;
pub(super) const LONGEST_BOUND: Duration = Duration::from_nanos(world::HOLD.as_nanos() as u64 / 4 * 5 + 2);

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// What a number of start states led to.
struct Covered {
    states: usize,
    reached: Reached,
    /// No start state led to more states than the limit.
    whole: bool,
}

/// Explores from each start state, with the first node's clock slow and the others' fast, and the reverse.
fn cover(stages: &[Stage], nodes: usize, faults: u8, ticks: u32) -> Covered {
    let plan = Plan {
        faults: u8::try_from(number("KEEPCALL_EXPLORE_FAULTS", u32::from(faults))).unwrap(),
        ticks: number("KEEPCALL_EXPLORE_HORIZON", ticks),
        kinds: Kinds::ALL,
        // About 3 kB each at the widest.
        limit: number("KEEPCALL_EXPLORE_LIMIT", 400_000) as usize,
    };
    let (mut states, mut steps, mut reached, mut whole) = (0, 0, Reached::default(), true);
    for stage in stages {
        for slow_first in [true, false] {
            let start = stage.world(nodes, slow_first, None);
            let found = search(&start, plan);
            if let Some(path) = found.bad {
                panic!("two holders from {stage:?}, {nodes} nodes, slow first {slow_first}:\n{}", tell(&start, &path));
            }
            // An ordinary run must cover its whole space; a deeper one reports its coverage.
            let deep = std::env::var_os("KEEPCALL_EXPLORE_FAULTS").is_some() && found.ticks > 0;
            assert!(
                found.complete || deep,
                "more than {} states from {stage:?}: the space was not covered",
                plan.limit
            );
            println!(
                "{} {} of {} ticks: {stage:?}, {nodes} nodes, {} faults, slow first {slow_first}: {} states, {} steps",
                if found.complete { "covered" } else { "covered in part" },
                found.ticks,
                plan.ticks,
                plan.faults,
                found.states,
                found.steps
            );
            states += found.states;
            whole &= found.complete;
            steps += found.steps;
            reached.add(&found.reached, &Reached::default());
        }
    }
    println!(
        "{nodes} nodes, {} faults, {} ticks: {states} states, {steps} steps, {reached:?}",
        plan.faults, plan.ticks
    );
    Covered { states, reached, whole }
}

fn assert_not_vacuous(Covered { states, reached: r, whole }: &Covered, at_least: usize) {
    assert!(*states >= at_least, "only {states} states");
    // A deeper run that ends at its limit of states may never come to the slow ways, which take the most ticks.
    assert!(
        !whole || (r.first > 0 && r.fast > 0 && r.slow > 0 && r.handover > 0 && r.resumed > 0 && r.restarted > 0),
        "not all is reached: {r:?}"
    );
}

#[test]
fn two_nodes_with_any_one_fault() {
    assert_not_vacuous(&cover(&Stage::ALL, 2, 1, 8), 140_000);
}

#[test]
fn three_nodes_with_any_one_fault() {
    // The space grows fastest where two nodes may return at any tick.
    let (wide, narrow): (Vec<Stage>, _) = Stage::ALL.into_iter().partition(|s| matches!(s, Stage::Solo | Stage::Alone));
    let mut all = cover(&narrow, 3, 1, 6);
    let more = cover(&wide, 3, 1, 2);
    all.states += more.states;
    all.reached.add(&more.reached, &Reached::default());
    all.whole &= more.whole;
    assert_not_vacuous(&all, 140_000);
}

/// Ticks until every node that knows of a deleted record has finished its wait, and a first election is over.
const AFTER_LOSS: u32 = 44;

/// The record of a master that holds on acks alone was deleted, and a third node does not hear that master.
#[test]
fn a_first_election_after_the_record_was_deleted() {
    for (nodes, kinds) in [(2, Kinds::PROCESS), (2, Kinds::STORE), (3, Kinds::PROCESS)] {
        for slow_first in [true, false] {
            let start = Stage::Lost.world(nodes, slow_first, None);
            let plan = Plan { faults: 1, ticks: AFTER_LOSS, kinds, limit: 400_000 };
            let found = search(&start, plan);
            if let Some(path) = found.bad {
                panic!(
                    "two holders after a deletion, {nodes} nodes, slow first {slow_first}:\n{}",
                    tell(&start, &path)
                );
            }
            println!(
                "{nodes} nodes, slow first {slow_first}: {} states, {} ticks, {:?}",
                found.states, found.ticks, found.reached
            );
            assert!(found.complete, "more than {} states", plan.limit);
            assert!(found.reached.first > 0, "nobody was elected: {:?}", found.reached);
        }
    }
}

/// Starts from states in which a right is just about to change hands.
#[test]
fn two_nodes_with_any_two_faults() {
    let Covered { states, reached: r, .. } = cover(&[Stage::Settled, Stage::Switchover, Stage::Silent], 2, 2, 3);
    assert!(
        states >= 150_000 && r.fast > 0 && r.handover > 0 && r.resumed > 0 && r.restarted > 0,
        "{states} states, {r:?}"
    );
}
