//! The meaning of a seed: size of the cluster, its timing, and the kinds of faults.

use super::etcd::TICK;
use super::random::Random;

/// Nanoseconds in a millisecond.
pub(super) const MS: u64 = 1_000_000;
/// The driver waits this long for etcd's answer before it calls the outcome unknown.
pub(super) const RPC_TIMEOUT: u64 = 700 * MS;
/// Pause of the lease keeper, and of an election, after a failure.
pub(super) const PAUSE: u64 = 200 * MS;
/// Interval of an election's reads without a hint.
const POLL: u64 = 2000 * MS;
/// How long a node vouches on one read.
const FRESH: u64 = 4000 * MS;
/// How long the next master keeps acking the old one in a handover.
const CLAIM_PATIENCE: u64 = 1500 * MS;
/// Wait before a preemption.
pub(super) const PREEMPT_DELAY: u64 = 1000 * MS;
/// Longest hold-down after too many changes.
pub(super) const FLAP_WINDOW: u64 = 4000 * MS;
/// Longest delay of anything sent before the faults ended.
pub(super) const LATEST: u64 = 2500 * MS;

/// A run's kinds of faults, and the properties that must hold in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Any fault at any time. Never two holders. After the faults, a lasting holder within the bound.
    Chaos,
    /// Sequences of faults aimed at one rule each, with noise. The same properties must hold.
    Script,
    /// Only etcd fails. No change of master, and never an instant without a holder.
    Etcd,
    /// Only agents are killed, frozen and restarted, briefly and one at a time. As for `Etcd`.
    Agent,
}

/// A run's settings; all times in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) nodes: usize,
    /// Bound on the difference in clock rates; the clocks are often at it.
    pub(super) drift: f64,
    pub(super) ttl: u64,
    pub(super) heartbeat: u64,
    /// Shortest and longest hold of any process: each start takes one of the two.
    pub(super) holds: [u64; 2],
    /// Percentage of changes that trigger a watch.
    pub(super) hints: u64,
    pub(super) preempt: bool,
    /// One node stays without power after the faults.
    pub(super) dead: bool,
    /// The script deletes the record, and the next one as well.
    pub(super) twice: bool,
    /// The record was deleted, or a node may believe so.
    pub(super) deleted: bool,
    pub(super) first_fault: u64,
    /// The faults end here.
    pub(super) calm: u64,
    /// From then on one and the same host must hold at every instant.
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
        // A rolling change of `hold`, possibly unfinished. It draws from its own generator, so that the rest stays the
        // same as with equal holds.
        let mut unlike = Random::new(!seed);
        let longest = if unlike.chance(40) { unlike.pick(&[hold + 200, 2 * hold, 1900]) } else { hold };
        let mut p = Self {
            mode,
            nodes: r.pick(&[2, 2, 3, 3, 3, 4, 5]).max(least) as usize,
            drift: *r.one(&[0.001, 0.01, 0.01, 0.05]),
            // etcd's grant at the default election timeout, at a longer one, and the agent's default.
            ttl: r.pick(&[2, 2, 2, 3]) * 1000 * MS,
            heartbeat: heartbeat * MS,
            holds: [hold * MS, longest * MS],
            hints: r.pick(&[100, 100, 30, 0]),
            preempt: r.chance(25),
            dead: mode == Mode::Chaos && r.chance(30),
            twice: false,
            deleted: false,
            first_fault: 500 * MS,
            calm: 14_000 * MS,
            steady: 0,
            end: 0,
        };
        match mode {
            Mode::Chaos => {}
            Mode::Script => {
                // Long enough for waits until no node vouches for the master of a deleted record.
                (p.first_fault, p.preempt, p.calm) = (3000 * MS, false, 17_000 * MS);
                (p.drift, p.hints) = (*r.one(&[0.01, 0.05]), r.pick(&[100, 100, 0]));
                if p.drift > 0.01 && r.chance(50) {
                    // Long enough for the difference in rates to add up to about etcd's tick.
                    (p.ttl, p.calm) = (5000 * MS, 20_000 * MS);
                }
                p.twice = unlike.chance(8);
                if p.twice {
                    // The sequence takes a wait with the slower clock, two leases' ends, and some seconds.
                    let wait = (p.patience() as f64 * (1.0 + p.drift)) as u64;
                    p.calm = p.first_fault + wait + p.ttl + 8500 * MS;
                }
            }
            Mode::Etcd | Mode::Agent => {
                (p.first_fault, p.preempt, p.calm) = (5000 * MS, false, 15_000 * MS);
            }
        }
        p.settle();
        p
    }

    /// Sets the start of the steady period, and the end of the run.
    pub(super) fn settle(&mut self) {
        self.steady = self.calm + self.bound();
        self.end = self.steady + 3000 * MS;
    }

    /// How long a node waits that knows of a deleted record, by its own clock.
    pub(super) fn patience(&self) -> u64 {
        ((FRESH + self.ttl) as f64 * (1.0 + 2.0 * self.drift)) as u64
    }

    /// Within this time after the faults a holder exists again, and it stays.
    ///
    /// The slowest ways back exclude each other:
    /// - The master is dead. Its lease runs out (`ttl`, restarted at the last change of etcd's leader), etcd notices
    ///   (`TICK`), a member without a hint reads (`POLL`) and waits until every basis of the old master's hold has run
    ///   out (`hold`, and another `hold` if its own server is unfit).
    /// - A dead node designated the present master just before: the new master waits for a Go (`CLAIM_PATIENCE`) and
    ///   then for its own promises to run out (`hold`).
    /// - The record was deleted: nodes read that, and wait until no node vouches for its master (`FRESH`) and the
    ///   longest hold is over, of which they know only that it is shorter than a lease.
    ///
    /// Before one of these can begin, messages sent before the faults ended may still arrive (`LATEST`): a commit that
    /// makes a dead node master, or a renewal of its lease. A node may also have to wait for an answer that never comes
    /// (`RPC_TIMEOUT`, `PAUSE`), both for its lease and for its ticket. Preemption adds its delay and, after many
    /// changes, the hold-down.
    pub(super) fn bound(&self) -> u64 {
        let hold = (self.holds[1] as f64 * (1.0 + self.drift)) as u64;
        let slow = self.ttl + TICK + POLL + 2 * hold;
        let claim = CLAIM_PATIENCE + hold;
        let preempt = if self.preempt { PREEMPT_DELAY + FLAP_WINDOW } else { 0 };
        let lost = if self.deleted { POLL + self.patience() + hold } else { 0 };
        LATEST + slow.max(claim).max(lost) + 2 * (RPC_TIMEOUT + PAUSE) + preempt
    }
}
