//! How long the VIP may be silent. The bound follows from the fault.

use super::plan::{Fault, Step, Who};
use std::time::Duration;

/// The times in the agents' configuration, and an allowance for this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) heartbeat: Duration,
    pub(crate) hold: Duration,
    pub(crate) lease_ttl: Duration,
    /// Allowance for stalls of the two cores, and for programs that start on them.
    pub(crate) allowance: Duration,
}

/// The bound on clock drift, as in the agents' default configuration.
const DRIFT: f64 = 0.01;
/// How often etcd looks for expired leases.
const EXPIRY_TICK: Duration = Duration::from_millis(500);
/// The agents' default time-out of one call to etcd. After it they ask the next member.
const ETCD_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd elects a new leader within two election timeouts of a second each. The new leader refreshes every lease for its
/// whole TTL.
const ETCD_ELECTION: Duration = Duration::from_secs(2);

/// The kernel answers throughout. So many lost questions come from a stall of the witness in the middle of one.
const STAYS: Duration = Duration::from_millis(20);

impl Limits {
    /// How long a client's neighbour cache may hold the wrong host: if an announcement is lost, the next one follows
    /// after a second.
    pub(crate) fn cache_late(&self) -> Duration {
        Duration::from_secs(1) + self.allowance
    }

    /// The fast path: a heartbeat may just have been acked, then `hold` passes, then one commit.
    pub(crate) fn fast(&self) -> Duration {
        self.hold.mul_f64(1.0 + 2.0 * DRIFT) + self.heartbeat + self.allowance
    }

    /// The slow path: a lease has to expire first.
    pub(crate) fn slow(&self) -> Duration {
        self.lease_ttl
            + EXPIRY_TICK
            + self.hold.mul_f64(1.0 + 2.0 * DRIFT)
            + self.hold
            + ETCD_TIMEOUT * 2
            + self.allowance
    }

    /// The longest silence that a round of these faults permits, and why.
    pub(crate) fn of(&self, steps: &[Step]) -> (Duration, &'static str) {
        match steps {
            [] => (self.allowance, "no fault"),
            // The master can still send: it may drop the successor from the record, and never learn that the drop
            // succeeded.
            [Step { fault: Fault::Deaf(Who::Master), .. }] => {
                (self.slow(), "slow: the master may drop the successor without knowing")
            }
            [Step { fault: Fault::Restart(_), .. }] => (STAYS, "the VIP stays where it is during a restart"),
            [_] => (self.fast(), "fast: hold, and one commit"),
            several => {
                let end = several.iter().map(|s| s.at + s.lasts).max().unwrap_or_default();
                (
                    end + ETCD_ELECTION + self.lease_ttl + self.slow(),
                    "slow, after the end of the last fault and an election in etcd",
                )
            }
        }
    }
}
