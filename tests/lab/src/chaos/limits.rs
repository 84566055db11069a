//! How long the VIP may be silent, which follows from the fault.

use super::plan::{Fault, Step, Who};
use std::time::Duration;

/// The times that the agents were configured with, and what this machine may add.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) heartbeat: Duration,
    pub(crate) hold: Duration,
    pub(crate) lease_ttl: Duration,
    /// What is allowed for two cores that stall, and for programs that start on them.
    pub(crate) allowance: Duration,
}

/// The clocks' bound on drift, as in the agents' default configuration.
const DRIFT: f64 = 0.01;
/// etcd looks for leases that have run out this often.
const EXPIRY_TICK: Duration = Duration::from_millis(500);
/// One call to a member that does not answer, before the next one is asked: the default of the agents' configuration.
const ETCD_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd elects a new leader within two election timeouts of a second each; that refreshes every lease by its whole
/// time.
const ETCD_ELECTION: Duration = Duration::from_secs(2);

/// The kernel answers all the while; so many lost questions are a witness that was stalled in the middle of one.
const STAYS: Duration = Duration::from_millis(20);

impl Limits {
    /// How long a client's neighbour cache may mislead it: announcements are repeated each second, if one is lost.
    pub(crate) fn cache_late(&self) -> Duration {
        Duration::from_secs(1) + self.allowance
    }

    /// A successor that is armed takes over: a heartbeat may just have been acked, then `hold` passes, then one commit.
    pub(crate) fn fast(&self) -> Duration {
        self.hold.mul_f64(1.0 + 2.0 * DRIFT) + self.heartbeat + self.allowance
    }

    /// A lease has to run out first.
    pub(crate) fn slow(&self) -> Duration {
        self.lease_ttl
            + EXPIRY_TICK
            + self.hold.mul_f64(1.0 + 2.0 * DRIFT)
            + self.hold
            + ETCD_TIMEOUT * 2
            + self.allowance
    }

    /// The longest silence that is allowed in a round of these faults, and why.
    pub(crate) fn of(&self, steps: &[Step]) -> (Duration, &'static str) {
        match steps {
            [] => (self.allowance, "nothing happens"),
            // What the master sends arrives: it may still drop the successor from the record, and never learn that it
            // did.
            [Step { fault: Fault::Deaf(Who::Master), .. }] => {
                (self.slow(), "slow: the master may drop the successor unknowingly")
            }
            [Step { fault: Fault::Restart(_), .. }] => (STAYS, "the VIP stays where it is during a restart"),
            [_] => (self.fast(), "fast: hold, and one commit"),
            several => {
                let end = several.iter().map(|s| s.at + s.lasts).max().unwrap_or_default();
                (
                    end + ETCD_ELECTION + self.lease_ttl + self.slow(),
                    "slow, after the last fault has ended and etcd has a leader",
                )
            }
        }
    }
}
