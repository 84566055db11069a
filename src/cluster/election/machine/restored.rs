//! When etcd is another one than before: restored from a backup, emptied, or exchanged for another cluster.
//!
//! Its record is of former times then, or missing, and must give nobody a right: the master of today holds on promises that were made
//! under the record which etcd has forgotten. So memory counts before etcd. The master that holds writes its record over what is there.
//! All others forget whom they followed and promise on, and contend only after a time in which that master must have been heard or seen
//! to write, if it lives: as long as any node may still vouch for it on a lease of the etcd before, and one promise longer.

use super::Election;
use crate::cluster::election::types::{HoldKind, Inherited};
use crate::cluster::record::{Record, Recorded, View};
use crate::time::Time;
use std::time::Duration;

/// The least wait: several probes and requests, within which a master that lives has noticed, registered, and written its record.
const LEAST_WAIT: Duration = Duration::from_secs(2);

/// What is remembered of the etcd before, until the record of this one is as new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::election) struct Restored {
    /// Since when this node knows.
    since: Time,
    /// Epoch and master by the record that is lost.
    epoch: u64,
    master: String,
    /// This node held under it.
    ours: bool,
}

impl Election {
    /// etcd was found to be another one than before. Call before anything that was read from it since, and take the lease for lost.
    pub fn etcd_changed(&mut self, now: Time) {
        let held = self.held.filter(|h| !h.dropping);
        // A record that somebody deleted counts as well: it must not come back from a backup with an epoch of former times.
        if let Some(r) = self.record.clone().or_else(|| self.lost.take()) {
            let ours = r.master == self.s.me && held.is_some_and(|h| h.epoch == r.epoch);
            if let Some(h) = held.filter(|h| ours && h.kind == HoldKind::Solo) {
                // Nobody can have taken over on the lease that is lost any sooner than it would have run out.
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

    /// What a person should know while etcd has forgotten who is master.
    #[must_use]
    pub fn forgotten(&self) -> Option<String> {
        let r = self.restored.as_ref()?;
        Some(format!(
            "etcd has forgotten who is master in epoch {} ({}): that node writes it again if it lives; else another one takes over in \
             some seconds",
            r.epoch, r.master
        ))
    }

    /// Whether the record of a view is of former times, or missing, since etcd is another one.
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

    /// Two records of one epoch are one only if they name one master.
    fn is_former(&self, record: &Record, was: &Restored) -> bool {
        record.epoch < self.top_epoch || (record.epoch == was.epoch && record.master != was.master)
    }

    /// Learns a view whose record is lost: only its revision counts, for the transaction that replaces it.
    pub(in crate::cluster::election) fn learn_lost(&mut self, view: View) {
        self.revision = match &view.record {
            Recorded::Good { revision, .. } | Recorded::Unreadable { revision, .. } => *revision,
            Recorded::Missing => 0,
        };
        (self.unreadable, self.gone) = (None, None);
        // etcd has forgotten the ticket, too, and with it no transaction of ours could succeed.
        self.doubt |= self.ticket.is_some() && view.ticket != self.ticket;
        self.view = Some(view);
        self.name_others();
    }

    /// When this node may write a record in place of the one that etcd has forgotten, at the earliest.
    pub(in crate::cluster::election) fn lost_until(&self) -> Time {
        let Some(was) = self.restored.as_ref().filter(|r| !r.ours) else { return Time::ZERO };
        // A lease that was renewed right before the change, as the slowest clock counts it.
        let lease = self.lease_life.mul_f64(1.0 + 2.0 * self.s.drift);
        was.since + lease.max(LEAST_WAIT) + self.long_hold()
    }
}
