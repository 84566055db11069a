//! Handles an etcd that was restored from a backup, emptied, or exchanged for another cluster.
//!
//! Its record is then outdated or missing, and must give no node a right: the present master holds on promises under
//! the record that etcd has lost. So memory takes precedence over etcd. The master that holds writes its record over
//! the outdated one. All other nodes forget whom they followed and keep promising. They contend only after a time in
//! which a living master must have been heard or seen to write: as long as any node may still vouch for it on a lease
//! of the former etcd, and one promise longer.

use super::Election;
use crate::cluster::election::types::{HoldKind, Inherited};
use crate::cluster::record::{Record, Recorded, View};
use crate::time::Time;
use std::time::Duration;

/// Shortest wait: several probes and requests, in which a living master notices, registers, and writes its record.
const LEAST_WAIT: Duration = Duration::from_secs(2);

/// Memory of the former etcd, until the new one's record is up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::election) struct Restored {
    /// When this node noticed.
    since: Time,
    /// Epoch and master in the lost record.
    epoch: u64,
    master: String,
    /// This node held under that record.
    ours: bool,
}

impl Election {
    /// Handles a restored or exchanged etcd. Call it before any input read from the new etcd, and treat the lease as
    /// lost.
    pub fn etcd_changed(&mut self, now: Time) {
        let held = self.held.filter(|h| !h.dropping);
        // A deleted record counts as well: it must not return from a backup with an outdated epoch.
        if let Some(r) = self.record.clone().or_else(|| self.lost.take()) {
            let ours = r.master == self.s.me && held.is_some_and(|h| h.epoch == r.epoch);
            if let Some(h) = held.filter(|h| ours && h.kind == HoldKind::Solo) {
                // No node can have taken over on the lost lease before it would have run out.
                self.inherited = Some(Inherited { epoch: h.epoch, until: h.until });
            }
            if !ours {
                self.record = None;
                (self.won, self.claim_at) = (None, None);
            }
            self.restored = Some(Restored { since: now, epoch: r.epoch, master: r.master.clone(), ours });
        } else if let Some(r) = &mut self.restored {
            r.since = now;
        }
        (self.view, self.lease, self.gone) = (None, None, None);
        (self.unreadable, self.revision) = (None, 0);
        self.name_others();
        self.want_read(now);
        self.advance(now);
    }

    /// Explains to the operator that etcd has lost the master's record.
    #[must_use]
    pub fn forgotten(&self) -> Option<String> {
        let r = self.restored.as_ref()?;
        Some(format!(
            "etcd has lost the master's record (epoch {}, master {}): the master writes the record again if it is \
             up, else another node takes over within seconds",
            r.epoch, r.master
        ))
    }

    /// Whether a view's record is outdated or missing after a change of etcd.
    pub(in crate::cluster::election) fn is_lost(&self, view: &View) -> bool {
        let Some(was) = &self.restored else { return false };
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::RestoredBelieved) {
            return false;
        }
        match &view.record {
            Recorded::Missing => true,
            Recorded::Good { record, .. } => self.is_former(record, was),
            Recorded::Unreadable { .. } => false,
        }
    }

    /// Two records of one epoch are the same only if they name the same master.
    fn is_former(&self, record: &Record, was: &Restored) -> bool {
        record.epoch < self.top_epoch || (record.epoch == was.epoch && record.master != was.master)
    }

    /// Learns a view with a lost record: only its revision counts, for the transaction that replaces it.
    pub(in crate::cluster::election) fn learn_lost(&mut self, view: View) {
        self.revision = match &view.record {
            Recorded::Good { revision, .. } | Recorded::Unreadable { revision, .. } => *revision,
            Recorded::Missing => 0,
        };
        (self.unreadable, self.gone) = (None, None);
        // etcd has lost the ticket too, and without it none of our transactions could succeed.
        self.doubt |= self.ticket.is_some() && view.ticket != self.ticket;
        self.view = Some(view);
        self.name_others();
    }

    /// Earliest time at which this node may replace the record that etcd has lost.
    pub(in crate::cluster::election) fn lost_until(&self) -> Time {
        let Some(was) = self.restored.as_ref().filter(|r| !r.ours) else { return Time::ZERO };
        // Assume a lease renewed right before the change, measured by the slowest clock.
        let lease = self.lease_life.mul_f64(1.0 + 2.0 * self.s.drift);
        was.since + lease.max(LEAST_WAIT) + self.long_hold()
    }
}
