//! Runs many seeds on all processors.

use super::plan::Mode;
use super::world::{Outcome, World};
use crate::cluster::election::types::Fault;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Interval between progress lines.
const PROGRESS: Duration = Duration::from_secs(10);

/// Results of many runs.
#[derive(Default)]
pub(super) struct Total {
    pub(super) runs: u64,
    pub(super) masters: u64,
    pub(super) handovers: u64,
    pub(super) restarts: u64,
    /// Longest time without the final holder after the faults, and the bound of that run, in milliseconds.
    pub(super) slowest: (u64, u64),
    pub(super) modes: [u64; 4],
    /// The lowest failed seed, with the reason.
    pub(super) bad: Option<(u64, String)>,
}

impl Total {
    fn add(&mut self, seed: u64, o: Outcome) {
        self.runs += 1;
        self.masters += o.masters;
        self.handovers += o.handovers;
        self.restarts += o.restarts;
        self.modes[match o.mode {
            Mode::Chaos => 0,
            Mode::Script => 1,
            Mode::Etcd => 2,
            Mode::Agent => 3,
        }] += 1;
        // Compare by the share of the bound, which differs between runs.
        if o.back_ms * self.slowest.1.max(1) > self.slowest.0 * o.bound_ms {
            self.slowest = (o.back_ms, o.bound_ms);
        }
        if let Some(why) = o.bad
            && self.bad.as_ref().is_none_or(|b| seed < b.0)
        {
            self.bad = Some((seed, why));
        }
    }
}

/// Runs the seeds; stops at a failure.
pub(super) fn run(seeds: std::ops::Range<u64>, fault: Option<Fault>) -> Total {
    let (next, found, total) = (AtomicU64::new(seeds.start), AtomicBool::new(false), Mutex::new(Total::default()));
    let begun = Instant::now();
    let printed = Mutex::new(begun);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|s| {
        for _ in 0..workers {
            s.spawn(|| {
                while !found.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let o = World::new(seed, fault).run();
                    found.fetch_or(o.bad.is_some(), Ordering::Relaxed);
                    let mut total = total.lock().unwrap();
                    total.add(seed, o);
                    let mut at = printed.lock().unwrap();
                    if at.elapsed() >= PROGRESS && fault.is_none() {
                        *at = Instant::now();
                        let (runs, s) = (total.runs, begun.elapsed().as_secs());
                        println!(
                            "{runs} seeds of {} in {s} s: {} masters, no fault",
                            seeds.end - seeds.start,
                            total.masters
                        );
                    }
                }
            });
        }
    });
    total.into_inner().unwrap()
}
