//! What a node does that is not master: wait, and take over.

use super::machine::{Election, Won};
use super::types::{Cause, Kind};
use crate::cluster::record::{Record, SCHEMA, View};
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// How long the node that is handed to goes on acking the old master after it claimed. The old master flushes call state
/// and drops the addresses in far less; one that never says Go loses its right after this and `hold`.
pub(super) const CLAIM_PATIENCE: Duration = Duration::from_millis(1500);

/// At the very first election an unfit node leaves fit ones this much time: checks need a few seconds for a verdict.
const UNFIT_FIRST: Duration = Duration::from_secs(5);

impl Election {
    /// Whether this node contends for nothing: it ends, or lacks what a master needs.
    const fn is_out(&self) -> bool {
        self.stopping || self.parking || !self.ready
    }

    /// There is no record.
    pub(super) fn elect_first(&mut self, now: Time) {
        if self.view.is_none() || self.is_out() || self.paused().is_some() || !self.may_propose(now) {
            return;
        }
        // Someone may hold on our acks although the record was deleted: first elections wait for silence, too.
        let mut at = self.quiet_at();
        if !self.fit {
            at = at.max(self.started + UNFIT_FIRST);
        }
        // With `alive` there, a master lives whose record was deleted; the transaction would fail.
        if self.view.as_ref().is_some_and(|v| v.alive.is_some()) {
            return;
        }
        if now < at {
            self.wake_at(at);
            return;
        }
        let record = Record {
            schema: SCHEMA,
            epoch: self.top_epoch + 1,
            master: self.s.me.clone(),
            successor: None,
            members: vec![self.s.me.clone()],
            since_ms: 0,
            reason: "first election".into(),
            handover: None,
            flaps: 0,
            addresses: std::collections::BTreeMap::new(),
        };
        self.win(&record, Cause::First, None, now);
        self.propose(record, None, true, now);
    }

    fn win(&mut self, record: &Record, cause: Cause, previous: Option<String>, now: Time) {
        self.won = Some(Won { epoch: record.epoch, cause, previous, detected: now, committed: None });
    }

    /// The keys that must not exist for a slow takeover, if by this view none of them does.
    pub(super) fn slow_guards(&self, view: &View) -> Option<Vec<String>> {
        let r = self.record.as_ref()?;
        let mut gone: Vec<String> = r.successor.iter().cloned().collect();
        if r.handover.is_some() {
            gone.push(r.master.clone());
        }
        #[cfg(test)]
        if self.broken(super::types::Fault::SlowBlind) {
            gone.clear();
        }
        (view.alive.is_none() && gone.iter().all(|n| !view.nodes.contains(n))).then_some(gone)
    }

    /// Another node is master.
    pub(super) fn follow(&mut self, r: &Record, now: Time) {
        if self.switch.take().is_some() {
            let why = self.candidates(now);
            self.push(super::types::Action::Switched(Err(why)));
        }
        if self.forget.is_some() {
            self.answer_forget(Err(format!("{} is the master, and only the master admits and removes members", r.master)));
        }
        if self.is_out() || self.paused().is_some() || !self.may_propose(now) {
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
            ..r.clone()
        };
        let quiet = self.quiet_at();
        if r.successor.as_deref() == Some(&self.s.me) {
            if now < quiet {
                self.wake_at(quiet);
                return;
            }
            let record = next(format!("no heartbeat from {} for {:?}", r.master, self.s.hold));
            self.win(&record, Cause::Fast, Some(r.master.clone()), now);
            self.propose(record, None, true, now);
            return;
        }
        // A master that never admitted anyone stands on its lease alone: once `alive` is gone, it has no right left.
        let alone = r.members.len() == 1 && r.members.first() == Some(&r.master) && r.handover.is_none();
        let (true, Some(since)) = (alone || r.members.contains(&self.s.me), self.gone) else { return };
        let mut at = since.max(self.last_ack) + self.long_hold();
        #[cfg(test)]
        if self.broken(super::types::Fault::NoSlowWait) {
            at = quiet;
        }
        if !self.fit {
            // Fit nodes go first; an address on a sick server is still better than none.
            at += self.s.hold;
        }
        if now < at {
            self.wake_at(at);
            return;
        }
        let Some(guards) = self.view.as_ref().and_then(|v| self.slow_guards(v)) else { return };
        let mut record = next(format!("the lease of {} ran out", r.master));
        if !record.members.contains(&self.s.me) {
            record.members.push(self.s.me.clone());
            record.members.sort();
        }
        self.win(&record, Cause::Slow, Some(r.master.clone()), now);
        self.propose(record, Some(guards), true, now);
    }

    /// The record makes us master, and the old master may still hold on our acks.
    pub(super) fn claim(&mut self, r: &Arc<Record>, now: Time) {
        let Some(old) = &r.handover else { return };
        if self.won.as_ref().is_none_or(|w| w.epoch != r.epoch) {
            self.win(r, Cause::Handover { reason: r.reason.clone() }, Some(old.clone()), now);
        }
        self.claim_at.get_or_insert(now);
        let quiet = self.quiet_at();
        #[cfg(test)]
        let quiet = if self.broken(super::types::Fault::NoClaimWait) { now } else { quiet };
        if now >= quiet && !self.doubt {
            self.go_ok = Some(r.epoch);
            // The next pass leads; the hold begins as soon as `alive` is ours.
            self.wake_at(now + Duration::from_nanos(1));
            return;
        }
        self.wake_at(quiet);
        if self.stopping {
            return;
        }
        if !self.alive_is_ours(r) {
            if self.may_propose(now) {
                self.propose(Arc::clone(r), None, false, now);
            }
            return;
        }
        if now >= self.next_beat {
            self.next_beat = now + self.s.heartbeat;
            let old = self.known(old);
            self.send(old, Kind::Claimed, r.epoch);
        }
        self.wake_at(self.next_beat);
    }
}
