//! What a seed stands for: the size of the cluster, its timing, and which kinds of faults come.

use super::etcd::TICK;
use super::random::Random;

/// Nanoseconds in a millisecond.
pub(super) const MS: u64 = 1_000_000;
/// How long the driver waits for etcd's answer before it calls the outcome unknown.
pub(super) const RPC_TIMEOUT: u64 = 700 * MS;
/// Pause of the lease's keeper, and of an election, after a failure.
pub(super) const PAUSE: u64 = 200 * MS;
/// An election reads at this interval although no hint came.
const POLL: u64 = 2000 * MS;
/// How long a node vouches on a read.
const FRESH: u64 = 4000 * MS;
/// How long a node that is handed to goes on acking the old master.
const CLAIM_PATIENCE: u64 = 1500 * MS;
/// Wait before a preemption.
pub(super) const PREEMPT_DELAY: u64 = 1000 * MS;
/// The longest hold-down after too many changes.
pub(super) const FLAP_WINDOW: u64 = 4000 * MS;
/// What was sent before the faults ended arrives at most so late.
pub(super) const LATEST: u64 = 2500 * MS;

/// What goes wrong in a run, and what must be true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Anything at any time. One holder at most; one again within the bound, which stays.
    Chaos,
    /// Sequences of faults that aim at one rule each, with noise. The same must be true.
    Script,
    /// Only etcd fails. No change of master, and not an instant without a holder.
    Etcd,
    /// Only agents are killed, frozen and restarted, briefly and one at a time. The same.
    Agent,
}

/// A run's settings; all times in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) nodes: usize,
    /// The bound on the difference of rates; the clocks are often at it.
    pub(super) drift: f64,
    pub(super) ttl: u64,
    pub(super) heartbeat: u64,
    /// The shortest hold of any process, and the longest: each start takes one of the two.
    pub(super) holds: [u64; 2],
    /// Percentage of changes that a watch tells of.
    pub(super) hints: u64,
    pub(super) preempt: bool,
    /// One node stays without power after the faults.
    pub(super) dead: bool,
    /// The record was deleted.
    pub(super) deleted: bool,
    pub(super) first_fault: u64,
    /// The faults end here.
    pub(super) calm: u64,
    /// From then on there must be a holder, the same at every instant.
    pub(super) steady: u64,
    pub(super) end: u64,
}

impl Plan {
    pub(super) fn of(seed: u64, r: &mut Random) -> Self {
        let mode = match seed % 8 {
            0..4 => Mode::Chaos,
            4 | 5 => Mode::Script,
            6 => Mode::Etcd,
            _ => Mode::Agent,
        };
        let least = if mode == Mode::Script { 3 } else { 2 };
        let (heartbeat, hold) = if r.chance(80) { (100, 400) } else { (200, 1000) };
        // A rolling change of `hold`, or one that was never finished. Not of `r`, so that the rest is as with equal ones.
        let mut unlike = Random::new(!seed);
        let longest = if unlike.chance(40) { unlike.pick(&[hold + 200, 2 * hold, 1900]) } else { hold };
        let mut p = Self {
            mode,
            nodes: r.pick(&[2, 2, 3, 3, 3, 4, 5]).max(least) as usize,
            drift: *r.one(&[0.001, 0.01, 0.01, 0.05]),
            // What etcd grants at the default election timeout, at a longer one, and the agent's default.
            ttl: r.pick(&[2, 2, 2, 3]) * 1000 * MS,
            heartbeat: heartbeat * MS,
            holds: [hold * MS, longest * MS],
            hints: r.pick(&[100, 100, 30, 0]),
            preempt: r.chance(25),
            dead: mode == Mode::Chaos && r.chance(30),
            deleted: false,
            first_fault: 500 * MS,
            calm: 14_000 * MS,
            steady: 0,
            end: 0,
        };
        match mode {
            Mode::Chaos => {}
            Mode::Script => {
                // Long enough for what waits until nobody vouches for the master of a deleted record.
                (p.first_fault, p.preempt, p.calm) = (3000 * MS, false, 17_000 * MS);
                (p.drift, p.hints) = (*r.one(&[0.01, 0.05]), r.pick(&[100, 100, 0]));
                if p.drift > 0.01 && r.chance(50) {
                    // So long that the difference of rates adds up to about etcd's tick.
                    (p.ttl, p.calm) = (5000 * MS, 20_000 * MS);
                }
            }
            Mode::Etcd | Mode::Agent => {
                (p.first_fault, p.preempt, p.calm) = (5000 * MS, false, 15_000 * MS);
            }
        }
        p.settle();
        p
    }

    /// When it must be still, and when the run ends.
    pub(super) fn settle(&mut self) {
        self.steady = self.calm + self.bound();
        self.end = self.steady + 3000 * MS;
    }

    /// Within this time after the faults there is a holder again, and it stays.
    ///
    /// The slowest ways back are these, and they exclude each other:
    /// - The master is dead. Its lease runs out (`ttl`, counted anew at the last change of etcd's leader), etcd notices (`TICK`),
    ///   a member that gets no hint reads (`POLL`) and waits until all that the old master could rest on has run out (`hold`,
    ///   and another `hold` if its own server is unfit).
    /// - The master was just designated by one that is dead: it waits for a Go (`CLAIM_PATIENCE`) and then for its own promises to
    ///   run out (`hold`).
    /// - The record was deleted: nodes read that, and wait until nobody vouches for its master (`FRESH`) and the longest hold is over,
    ///   of which they know only that it is shorter than a lease.
    ///
    /// Before one can begin, what was sent before the faults ended may still arrive (`LATEST`): a commit that makes a dead node master,
    /// or a renewal of its lease. And a node may have to wait for an answer that never comes (`RPC_TIMEOUT`, `PAUSE`), both for its
    /// lease and for its ticket.
    /// Preemption comes after its delay and, after many changes, the hold-down.
    pub(super) fn bound(&self) -> u64 {
        let hold = (self.holds[1] as f64 * (1.0 + self.drift)) as u64;
        let slow = self.ttl + TICK + POLL + 2 * hold;
        let claim = CLAIM_PATIENCE + hold;
        let preempt = if self.preempt { PREEMPT_DELAY + FLAP_WINDOW } else { 0 };
        let patience = ((FRESH + self.ttl) as f64 * (1.0 + 2.0 * self.drift)) as u64;
        let lost = if self.deleted { POLL + patience + hold } else { 0 };
        LATEST + slow.max(claim).max(lost) + 2 * (RPC_TIMEOUT + PAUSE) + preempt
    }
}
