//! A standby's work: wait, and take over.

use super::rights::Won;
use super::{Election, FRESH, Unless};
use crate::cluster::election::types::{Cause, Kind};
use crate::cluster::record::{Record, SCHEMA, View};
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// How long the next master keeps acking the old one after its claim. The old master flushes call state and drops the
/// addresses in far less. Without a Go, it loses its right after this time and `hold`.
pub(in crate::cluster::election) const CLAIM_PATIENCE: Duration = Duration::from_millis(1500);

/// Heartbeats of a master that may be lost to this node although others heard them. Shorter than the pause of a master
/// without a right that hears no node (two holds, and a hold is at least three heartbeats), so that such a master
/// blocks no node forever.
pub(in crate::cluster::election) const MISSED_BEATS: u32 = 2;

/// Head start of fit nodes over unfit ones in the very first election: checks need a few seconds for a verdict.
const UNFIT_FIRST: Duration = Duration::from_secs(5);

/// Nodes with precedence over a slow takeover: the successor, and the designated master of an unfinished handover.
fn guards(r: &Record) -> Vec<String> {
    r.successor.iter().chain(r.handover.as_ref().map(|_| &r.master)).cloned().collect()
}

impl Election {
    /// Whether this node does not contend: it is ending, or lacks what a master needs.
    const fn is_out(&self) -> bool {
        self.wishes.stopping || self.wishes.parking || !self.node.ready
    }

    /// Contends for mastership while no record exists.
    pub(in crate::cluster::election) fn elect_first(&mut self, now: Time) {
        if self.etcd.view.is_none() || self.is_out() || self.paused().is_some() || !self.may_propose(now) {
            return;
        }
        let Some(view) = &self.etcd.view else { return };
        // On an older read, a record may have come and gone since. The next read decides.
        if !self.has_read_lately(now) {
            return;
        }
        // The lost record had other addresses, and its master may still hold them.
        if self.lost.record.as_ref().is_some_and(|r| !self.agrees(r)) {
            return;
        }
        // Another node's `alive` means a living master with a deleted record; the transaction would fail.
        if view.alive.is_some() && !self.alive_is_left(view) {
            return;
        }
        // A master may still hold on our acks although the record was deleted: first elections also wait for silence.
        let mut at = self.quiet_at().max(self.unheard_at()).max(self.lost_until());
        if !self.node.fit {
            at = at.max(self.node.started + UNFIT_FIRST);
        }
        at = at.max(self.after_loss());
        if now < at {
            self.wake_at(at);
            return;
        }
        let record = Record {
            schema: SCHEMA,
            epoch: self.unused_epoch(view),
            master: self.s.me.clone(),
            successor: None,
            members: vec![self.s.me.clone()],
            since_ms: 0,
            reason: "first election".into(),
            handover: None,
            flaps: 0,
            addresses: std::collections::BTreeMap::new(),
            terms: Some(self.s.reported.terms),
            vips: self.s.vips.clone(),
        };
        self.win(&record, Cause::First, None, now);
        self.propose(record, Unless::Alive(Vec::new()), true, now);
    }

    /// Returns an epoch above all used ones. Each change of master raises the epoch by one and etcd's revision by at
    /// least one. So no epoch exceeds etcd's revision after it, and that revision outlives the record.
    fn unused_epoch(&self, view: &View) -> u64 {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::EpochAgain) {
            return self.promises.top_epoch + 1;
        }
        self.promises.top_epoch.max(u64::try_from(view.revision).unwrap_or(0)).saturating_add(1)
    }

    /// Whether `alive` belongs to our own lease: this node became master without learning of it, and the record was
    /// deleted since. This key would block every election as long as this node lives.
    pub(in crate::cluster::election) fn alive_is_left(&self, view: &View) -> bool {
        self.node.lease.is_some_and(|l| view.alive.is_some_and(|a| a.lease == l.id))
    }

    /// When a master that was heard, of any epoch, no longer holds on promises of others. They heard its last
    /// heartbeats when this node did, except for some that may have been lost only on the way here.
    fn unheard_at(&self) -> Time {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::FirstDeaf) {
            return Time::ZERO;
        }
        self.promises.silence + self.long_hold() + self.s.heartbeat * MISSED_BEATS
    }

    /// Earliest new start after a record was deleted. Its master may hold as long as others promise to it, and they
    /// promise until they read that the record is gone.
    fn after_loss(&self) -> Time {
        let deleted = self.lost.record.is_some();
        #[cfg(test)]
        let deleted = deleted && !self.broken(crate::cluster::election::types::Fault::FirstBlind);
        // An epoch was heard, an earlier process of this name took part, or this process could not read for a while. So
        // a record existed, or may have existed, although this process never read it.
        let before = self.lost.record.is_none() && (self.promises.top_epoch > 0 || self.lost.unseen);
        #[cfg(test)]
        let before = before && !self.broken(crate::cluster::election::types::Fault::FirstForgetful);
        if !deleted && !before {
            return Time::ZERO;
        }
        let end = self.lost.since + self.lost_patience();
        // A node that held when it learned of the loss was the only holder, and all others wait.
        if self.lost.held { Time::ZERO } else { end }
    }

    /// After this time, every node that vouched for the master of a deleted record has read that it is gone or vouches
    /// no longer, and the holds on its word have ended. So has the solo right of a master that cannot read.
    pub(in crate::cluster::election) fn lost_patience(&self) -> Duration {
        // An unknown hold is shorter than a lease: the configuration check demands it. The slowest voucher's clock is
        // measured here by the fastest clock.
        let slack = 1.0 + 2.0 * self.s.drift;
        (FRESH + self.node.lease_seconds()).mul_f64(slack).max(FRESH.mul_f64(slack) + self.long_hold())
    }

    /// Whether this node may attempt a slow takeover from the record's master at all.
    fn may_be_slow(&self, r: &Record) -> bool {
        // A master without other members rests on its lease alone: once `alive` is gone, it has no right left.
        let alone = r.members.len() == 1 && r.members.first() == Some(&r.master) && r.handover.is_none();
        alone || r.members.contains(&self.s.me)
    }

    fn win(&mut self, record: &Record, cause: Cause, previous: Option<String>, now: Time) {
        self.right.won = Some(Won { epoch: record.epoch, cause, previous, detected: now, committed: None });
    }

    /// Keys that must not exist for a slow takeover; `None` if this view shows one of them.
    pub(in crate::cluster::election) fn slow_guards(&self, view: &View) -> Option<Vec<String>> {
        let gone = guards(self.etcd.record.as_ref()?);
        #[cfg(test)]
        let gone = if self.broken(crate::cluster::election::types::Fault::SlowBlind) { Vec::new() } else { gone };
        (view.alive.is_none() && gone.iter().all(|n| !view.nodes.contains(n))).then_some(gone)
    }

    /// Acts while another node is master.
    pub(in crate::cluster::election) fn follow(&mut self, r: &Record, now: Time) {
        if self.wishes.switch.take().is_some() {
            let why = self.candidates(now);
            self.push(crate::cluster::election::types::Action::Switched(Err(why)));
        }
        if self.wishes.forget.is_some() {
            self.answer_forget(Err(format!(
                "only the master, {}, can remove members: run the command there",
                r.master
            )));
        }
        if self.is_out() || self.paused().is_some() || !self.agrees(r) || !self.may_propose(now) {
            return;
        }
        let flaps = self.flaps(r, now);
        let next = |reason: String| Record {
            epoch: r.epoch + 1,
            flaps,
            master: self.s.me.clone(),
            successor: None,
            handover: None,
            since_ms: 0,
            reason,
            ..self.with_own_terms(r)
        };
        let quiet = self.quiet_at();
        if r.successor.as_deref() == Some(&self.s.me) {
            if now < quiet {
                self.wake_at(quiet);
                return;
            }
            let record = next(format!("no heartbeat from {} for {:?}", r.master, self.bound_hold()));
            self.win(&record, Cause::Fast, Some(r.master.clone()), now);
            self.propose(record, Unless::Other, true, now);
            return;
        }
        let (true, Some(since)) = (self.may_be_slow(r), self.etcd.gone) else { return };
        let mut at = since.max(self.promises.last_ack) + self.long_hold();
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::NoSlowWait) {
            at = quiet;
        }
        if !self.node.fit {
            // Fit nodes go first, but an address on a sick server is still better than none.
            at += self.bound_hold();
        }
        if now < at {
            self.wake_at(at);
            return;
        }
        let Some(guards) = self.etcd.view.as_ref().and_then(|v| self.slow_guards(v)) else { return };
        let mut record = next(format!("the lease of {} expired", r.master));
        if !record.members.contains(&self.s.me) {
            record.members.push(self.s.me.clone());
            record.members.sort();
        }
        self.win(&record, Cause::Slow, Some(r.master.clone()), now);
        self.propose(record, Unless::Alive(guards), true, now);
    }

    /// Claims a handover: the record makes us master, and the old master may still hold on our acks.
    pub(in crate::cluster::election) fn claim(&mut self, r: &Arc<Record>, now: Time) {
        let Some(old) = &r.handover else { return };
        if self.right.won.as_ref().is_none_or(|w| w.epoch != r.epoch) {
            self.win(r, Cause::Handover { reason: r.reason.clone() }, Some(old.clone()), now);
        }
        self.handover.claim_at.get_or_insert(now);
        let quiet = self.quiet_at();
        #[cfg(test)]
        let quiet = if self.broken(crate::cluster::election::types::Fault::NoClaimWait) { now } else { quiet };
        if now >= quiet && !self.requests.doubt {
            self.handover.go_ok = Some(r.epoch);
            // The next pass leads. The hold begins as soon as `alive` is ours.
            self.wake_at(now + Duration::from_nanos(1));
            return;
        }
        self.wake_at(quiet);
        if self.wishes.stopping {
            return;
        }
        if !self.alive_is_ours(r) {
            if self.may_propose(now) {
                // Keep the terms: the old master may still count by them.
                #[cfg(test)]
                if self.broken(crate::cluster::election::types::Fault::ClaimTerms) {
                    let r = Record { handover: r.handover.clone(), ..self.with_own_terms(r) };
                    return self.propose(Arc::new(r), Unless::Other, false, now);
                }
                self.propose(Arc::clone(r), Unless::Other, false, now);
            }
            return;
        }
        if now >= self.leading.next_beat {
            self.leading.next_beat = now + self.s.heartbeat;
            let old = self.known(old);
            self.send(old, Kind::Claimed, r.epoch);
        }
        self.wake_at(self.leading.next_beat);
    }
}
